/* SPDX-License-Identifier: Apache-2.0 */
/*
 * many IMAGE COUNT: COUNT VMs of one process. All are asked for at once, each by a thread of its own, and answer; the
 * monitor of one is killed (its id, for whoever does that: "kill ID", on standard output, and a line on standard input
 * when it is done); then that handle, and no other, fails, and all others answer again. Prints "COUNT answered,
 * COUNT-1 answered again, 1 failed: REASON".
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <supermachine.h>

struct one {
	pthread_t thread;
	struct sm_client *client;
	const char *image;
	struct sm_vm *vm;
	unsigned number;
	int result;
	struct sm_error err;
};

/* A command in it: 0 when it said what it was to say. */
static int ask(struct one *o)
{
	struct sm_exec_options x = SM_EXEC_OPTIONS_INIT;
	struct sm_result *res = NULL;
	struct sm_exec *exec = NULL;
	char number[16];
	const char *argv[] = {"echo", "I am", number, NULL};
	char want[32];
	int r;

	snprintf(number, sizeof(number), "%u", o->number);
	snprintf(want, sizeof(want), "I am %u\n", o->number);
	x.argv = argv;
	r = sm_vm_exec(o->vm, &x, &exec, &o->err);
	if (r == 0)
		r = sm_exec_collect(exec, &res, &o->err);
	if (r == 0 && (res->outcome.status || strcmp(res->out.data, want) != 0)) {
		snprintf(o->err.message, sizeof(o->err.message), "VM %u: status %d, \"%.200s\"", o->number,
			 res->outcome.status, res->out.data);
		r = -1;
	}
	sm_result_free(res);
	sm_exec_close(exec);
	return r;
}

static void *begin(void *arg)
{
	struct sm_vm_options v = SM_VM_OPTIONS_INIT;
	struct one *o = arg;

	v.image = o->image;
	v.memory = 128 << 20;
	v.no_command = true;
	v.start_timeout_ns = UINT64_MAX; /* however slow it is here */
	o->result = sm_vm_start(o->client, &v, &o->vm, &o->err);
	if (o->result == 0)
		o->result = sm_vm_wait_started(o->vm, 0, NULL, &o->err);
	if (o->result == 0)
		o->result = ask(o);
	return NULL;
}

static void *again(void *arg)
{
	struct one *o = arg;

	o->result = ask(o);
	return NULL;
}

static unsigned all(struct one *v, unsigned count, void *(*what)(void *))
{
	unsigned answered = 0;

	for (unsigned i = 0; i < count; i++)
		if (pthread_create(&v[i].thread, NULL, what, &v[i]) != 0)
			exit(2);
	for (unsigned i = 0; i < count; i++) {
		pthread_join(v[i].thread, NULL);
		answered += v[i].result == 0;
	}
	return answered;
}

static int fail(const struct one *v, unsigned count, unsigned but)
{
	for (unsigned i = 0; i < count; i++)
		if (v[i].result < 0 && i != but)
			fprintf(stderr, "VM %u: %d: %s\n", i, v[i].result, v[i].err.message);
	return 1;
}

static int run(struct one *v, unsigned count)
{
	unsigned victim = count / 2, first = all(v, count, begin), second;
	struct sm_outcome end = SM_OUTCOME_INIT;
	struct sm_error err = {0};
	char line[16];

	if (first != count)
		return fail(v, count, count);
	printf("kill %s\n", sm_vm_id(v[victim].vm));
	fflush(stdout);
	if (!fgets(line, sizeof(line), stdin) || sm_vm_wait(v[victim].vm, 0, &end, &err) < 0)
		return fail(v, count, count);
	second = all(v, count, again);
	if (second != count - 1 || v[victim].result == 0)
		return fail(v, count, victim);
	printf("%u answered, %u answered again, 1 failed: %s\n", first, second, sm_reason_name(end.reason));
	return 0;
}

int main(int argc, char **argv)
{
	unsigned count = argc == 3 ? (unsigned)strtoul(argv[2], NULL, 10) : 0;
	struct sm_client *client = NULL;
	struct sm_error err = {0};
	struct one *v = calloc(count, sizeof(*v));
	int status;

	if (!count || !v || sm_client_open(NULL, &client, &err) < 0) {
		fprintf(stderr, "many: %s\n", err.message);
		return 2;
	}
	for (unsigned i = 0; i < count; i++)
		v[i] = (struct one){.client = client, .image = argv[1], .number = i};
	status = run(v, count);
	for (unsigned i = 0; i < count; i++)
		sm_vm_close(v[i].vm);
	sm_client_close(client);
	free(v);
	return status;
}
