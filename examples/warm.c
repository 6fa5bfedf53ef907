/* SPDX-License-Identifier: Apache-2.0 */
/*
 * warm: an interpreter that has been started, and has loaded what it needs, once and for all.
 *
 *	cc warm.c -o warm $(pkg-config --cflags --libs supermachine)
 *	warm NAME IMAGE COMMAND... < code	the first time: starts COMMAND, waits until there is a file /tmp/warm in
 *						its VM, saves it under NAME; then, as always, runs the code
 *	warm NAME < code			code is what COMMAND reads from its input, until the end of that
 *
 * Each run goes on from the same moment, in a VM of its own: COMMAND never notices that it was not the first.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <supermachine.h>

#define MAX_CODE (1 << 20)
#define PATIENCE 6000 /* looks, 20 ms apart */

/* Until the command says that it is ready, or ends, or takes too long for it. */
static int await_warm(struct sm_vm *vm, struct sm_error *err)
{
	const struct timespec pause = {.tv_nsec = 20000000};
	struct sm_file_info *info;
	int r, looks = 0;

	while ((r = sm_vm_stat(vm, "/tmp/warm", true, &info, err)) < 0 && err->kind == SM_ERROR_NOT_FOUND &&
	       looks++ < PATIENCE)
		nanosleep(&pause, NULL);
	if (r == 0)
		sm_file_info_free(info);
	return r;
}

static int make(struct sm_client *client, const char *name, const char *image, const char *const *argv,
		struct sm_error *err)
{
	struct sm_vm_options o = SM_VM_OPTIONS_INIT;
	struct sm_vm *vm;
	int r;

	o.image = image;
	o.argv = argv;
	o.memory = 256 << 20;
	o.background = true; /* it does not wait for us to read what it prints */
	o.stdin_open = true;
	r = sm_vm_start(client, &o, &vm, err);
	if (r < 0)
		return r;
	r = await_warm(vm, err);
	if (r == 0)
		r = sm_vm_snapshot(vm, name, NULL, err);
	sm_vm_close(vm);
	return r;
}

static int run(struct sm_client *client, const char *name, int *ret_status, struct sm_error *err)
{
	static char code[MAX_CODE];
	struct sm_vm_options vm = SM_VM_OPTIONS_INIT;
	struct sm_run_options o = SM_RUN_OPTIONS_INIT;
	struct sm_result *result;
	int r;

	vm.snapshot = name;
	o.vm = &vm;
	o.input = code;
	o.input_size = fread(code, 1, sizeof(code), stdin);
	r = sm_run(client, NULL, NULL, &o, &result, err);
	if (r < 0)
		return r;
	fwrite(result->out.data, 1, result->out.length, stdout);
	fwrite(result->err.data, 1, result->err.length, stderr);
	*ret_status = result->outcome.status;
	sm_result_free(result);
	return 0;
}

int main(int argc, char **argv)
{
	struct sm_client *client;
	struct sm_error err = {0};
	char *json = NULL;
	int status = 0, r;

	if (argc < 2 || argc == 3) {
		fprintf(stderr, "usage: warm NAME [IMAGE COMMAND...] < CODE\n");
		return 2;
	}
	r = sm_client_open(NULL, &client, &err);
	if (r == 0)
		r = sm_snapshot_inspect(client, argv[1], &json, &err);
	sm_free(json);
	if (r < 0 && err.kind == SM_ERROR_NOT_FOUND && argc > 3)
		r = make(client, argv[1], argv[2], (const char *const *)argv + 3, &err);
	if (r == 0)
		r = run(client, argv[1], &status, &err);
	if (r < 0) {
		fprintf(stderr, "warm: %s\n", err.message);
		return 125;
	}
	sm_client_close(client);
	return status;
}
