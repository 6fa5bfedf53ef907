/* SPDX-License-Identifier: Apache-2.0 */
/*
 * runner: runs files of code that nobody has read, each in a VM of its own, several at once.
 *
 *	cc runner.c -o runner -pthread $(pkg-config --cflags --libs supermachine)
 *	runner IMAGE INTERPRETER FILE...		runner python:3 python3 a.py b.py c.py
 *
 * A pool has VMs ready, so that a job costs a command in one of them, not a start. None sees what another left: a VM is
 * used once. A job has ten seconds, and may print as much as it likes: the beginning and the end are shown.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <supermachine.h>

#define WORKERS 4
#define MAX_CODE (1 << 20)

struct runner {
	struct sm_pool *pool;
	const char *interpreter;
	char **files;
	int num_files, next, failed;
	pthread_mutex_t lock;
};

/* Runs the code, which goes into the VM with the command, and gives back what came of it. */
static int run_in(struct sm_vm *vm, const struct runner *r, const void *code, size_t size, struct sm_result **ret,
		  struct sm_error *err)
{
	const char *const argv[] = {r->interpreter, "/tmp/job", NULL};
	struct sm_exec_options o = SM_EXEC_OPTIONS_INIT;
	struct sm_exec_file job = SM_EXEC_FILE_INIT;
	struct sm_exec *exec;

	job.path = argv[1];
	job.data = code;
	job.length = size;
	o.argv = argv;
	o.files = &job;
	o.num_files = 1;
	o.timeout_ns = 10 * 1000000000ull;
	o.output_max = 4096;
	if (sm_vm_exec(vm, &o, &exec, err) < 0)
		return -1;
	if (sm_exec_collect(exec, ret, err) < 0)
		*ret = NULL;
	sm_exec_close(exec);
	return *ret ? 0 : -1;
}

static int run(const struct runner *r, const void *code, size_t size, struct sm_result **ret, struct sm_error *err)
{
	struct sm_vm *vm;
	int e;

	if (sm_pool_acquire(r->pool, &vm, err) < 0)
		return -1;
	e = run_in(vm, r, code, size, ret, err);
	sm_pool_release(r->pool, vm);
	return e;
}

static size_t read_file(const char *path, char *code, size_t max)
{
	FILE *f = fopen(path, "r");
	size_t n = f ? fread(code, 1, max, f) : 0;

	if (f)
		fclose(f);
	return n;
}

static void show(const char *file, const struct sm_result *res)
{
	printf("== %s: %s, status %d\n", file, sm_reason_name(res->outcome.reason), res->outcome.status);
	fwrite(res->out.data, 1, res->out.head, stdout);
	if (res->out.truncated)
		printf("\n... %llu bytes ...\n", (unsigned long long)(res->out.total - res->out.length));
	fwrite(res->out.data + res->out.head, 1, res->out.length - res->out.head, stdout);
	fwrite(res->err.data, 1, res->err.length, stdout);
}

static void *work(void *arg)
{
	struct runner *r = arg;
	char *code = malloc(MAX_CODE);

	for (;;) {
		struct sm_result *res = NULL;
		struct sm_error err = {0};
		int mine;

		pthread_mutex_lock(&r->lock);
		mine = code ? r->next++ : r->num_files;
		pthread_mutex_unlock(&r->lock);
		if (mine >= r->num_files)
			break;
		run(r, code, read_file(r->files[mine], code, MAX_CODE), &res, &err);
		pthread_mutex_lock(&r->lock);
		r->failed |= !res || res->outcome.status;
		if (res)
			show(r->files[mine], res);
		else
			printf("== %s: %s\n", r->files[mine], err.message);
		pthread_mutex_unlock(&r->lock);
		sm_result_free(res);
	}
	free(code);
	return NULL;
}

int main(int argc, char **argv)
{
	struct sm_vm_options vm = SM_VM_OPTIONS_INIT;
	struct sm_pool_options o = SM_POOL_OPTIONS_INIT;
	struct sm_pool_stats stats = SM_POOL_STATS_INIT;
	struct runner r = {.lock = PTHREAD_MUTEX_INITIALIZER};
	struct sm_client *client;
	struct sm_error err = {0};
	pthread_t threads[WORKERS];

	if (argc < 4) {
		fprintf(stderr, "usage: runner IMAGE INTERPRETER FILE...\n");
		return 2;
	}
	vm.image = argv[1];
	vm.memory = 256 << 20;
	o.vm = &vm;
	o.min = 1;
	o.max = WORKERS;
	r.interpreter = argv[2];
	r.files = argv + 3;
	r.num_files = argc - 3;
	if (sm_client_open(NULL, &client, &err) < 0 || sm_pool_new(client, &o, &r.pool, &err) < 0) {
		fprintf(stderr, "runner: %s\n", err.message);
		return 125;
	}
	for (int i = 0; i < WORKERS; i++)
		pthread_create(&threads[i], NULL, work, &r);
	for (int i = 0; i < WORKERS; i++)
		pthread_join(threads[i], NULL);
	sm_pool_get_stats(r.pool, &stats);
	fprintf(stderr, "runner: %llu leases, %llu served at once, %llu failures\n", (unsigned long long)stats.acquires,
		(unsigned long long)stats.hits, (unsigned long long)stats.failures);
	sm_pool_free(r.pool);
	sm_client_close(client);
	return r.failed;
}
