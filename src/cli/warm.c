/* SPDX-License-Identifier: Apache-2.0 */
/* load --warm: a VM of an image that has run a command, or runs it still, as a snapshot from which others go on. See
 * warm.h. */
#include "cli/warm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"

#define LOOK_EVERY_NS 20000000
#define NAME_MAX_LEN 63

/* The image's name, without a registry's host, as a snapshot's: "python:3.12" is python-3.12. */
static void snapshot_name(const char *given, const struct sm_image_info *image, char ret[static NAME_MAX_LEN + 1])
{
	const char *name = given ? given : image->names && image->names[0] ? image->names[0] : image->id;
	const char *slash = strrchr(name, '/');
	size_t n;

	snprintf(ret, NAME_MAX_LEN + 1, "%s", slash ? slash + 1 : name);
	n = strlen(ret);
	if (n > 7 && streq(ret + n - 7, ":latest"))
		ret[n - 7] = 0;
	for (char *p = ret; *p; p++)
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-", *p))
			*p = '-';
}

/* Runs the command to its end in a VM that has none of its own. */
static int run_to_end(struct cli *cli, struct sm_vm *vm, const char *const *argv)
{
	struct sm_exec_options o = SM_EXEC_OPTIONS_INIT;
	struct sm_outcome outcome = SM_OUTCOME_INIT;
	struct sm_exec *exec = NULL;
	struct sm_error err = {0};
	int r;

	o.argv = argv;
	o.stdout_fd = o.stderr_fd = STDERR_FILENO;
	r = sm_vm_exec(vm, &o, &exec, &err);
	r = r < 0 ? r : sm_exec_wait(exec, &outcome, &err);
	sm_exec_close(exec);
	if (r < 0)
		return cli_fail(cli, &err, NULL);
	if (outcome.status)
		cli_say(cli, "load: no snapshot was made: the command of --warm ended with status %d", outcome.status);
	return outcome.status;
}

/* Until the path is there, or the VM ends. */
static int await_path(struct cli *cli, struct sm_vm *vm, const char *path)
{
	const struct timespec pause = {.tv_nsec = LOOK_EVERY_NS};
	struct sm_file_info *info = NULL;
	struct sm_error err = {0};
	int r;

	while ((r = sm_vm_stat(vm, path, true, &info, &err)) < 0 && err.kind == SM_ERROR_NOT_FOUND)
		nanosleep(&pause, NULL);
	sm_file_info_free(info);
	return r < 0 ? cli_fail(cli, &err, "the command of --warm has to stay, and to make the file of --ready") : 0;
}

static int start(struct cli *cli, const struct warm_values *v, const struct sm_image_info *image,
		 const char *const *argv, struct sm_vm **ret)
{
	static const char *const none[] = {NULL};
	struct sm_vm_options o = SM_VM_OPTIONS_INIT;
	struct sm_error err = {0};
	int r;

	o.image = image->id;
	o.memory = v->memory;
	o.background = true;
	o.no_command = !v->ready;
	o.entrypoint = v->ready ? none : NULL;
	o.argv = v->ready ? argv : NULL;
	o.progress = cli_progress(cli);
	r = sm_vm_start(cli->client, &o, ret, &err);
	cli_progress_clear(cli);
	return r < 0 ? cli_fail(cli, &err, NULL) : 0;
}

int warm_image(struct cli *cli, const struct warm_values *v, const struct sm_image_info *image, bool quiet)
{
	const char *const argv[] = {"sh", "-c", v->command, NULL};
	char by_image[NAME_MAX_LEN + 1];
	const char *name = v->name ? v->name : by_image;
	struct sm_error err = {0};
	struct sm_vm *vm = NULL;
	int status;

	snapshot_name(v->image_name, image, by_image);
	status = start(cli, v, image, argv, &vm);
	if (status == 0)
		status = v->ready ? await_path(cli, vm, v->ready) : run_to_end(cli, vm, argv);
	if (status == 0 && sm_vm_snapshot(vm, name, NULL, &err) < 0)
		status = cli_fail(cli, &err,
				  err.kind == SM_ERROR_EXISTS
					  ? "another name by --warm-name, or supermachine snapshot rm"
					  : NULL);
	sm_vm_close(vm);
	if (status == 0 && !quiet)
		printf("Saved the snapshot %s: supermachine run --snapshot %s\n", name, name);
	return status;
}
