/* SPDX-License-Identifier: Apache-2.0 */
/*
 * calls: what the library's calls take, without a process started for each.
 *
 *	calls exec VM ROUNDS
 *		a command (true) in a running VM, collected: one time a line, ms
 *	calls pool IMAGE SNAPSHOT WORKERS ROUNDS
 *		lease, command, give back, ROUNDS times in all: one time a line, ms; then "cycles/s N"
 *	calls code IMAGE WORKERS ROUNDS FILE
 *		the same, with FILE's C source compiled and run in the leased VM
 *	calls idle VM ROUNDS
 *		calls that ask no guest: name and time of each, us
 *
 * IMAGE or SNAPSHOT is "-" where the other counts.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <supermachine.h>

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static _Noreturn void die(const char *what, const struct sm_error *err)
{
	fprintf(stderr, "calls: %s: %s\n", what, err->message);
	exit(1);
}

/* Runs a command in the VM to its end. */
static void command(struct sm_vm *vm, const struct sm_exec_options *o)
{
	struct sm_error err = {0};
	struct sm_result *res;
	struct sm_exec *exec;

	if (sm_vm_exec(vm, o, &exec, &err) < 0 || sm_exec_collect(exec, &res, &err) < 0)
		die(o->argv[0], &err);
	if (res->outcome.status) {
		fprintf(stderr, "calls: %s: status %d: %s\n", o->argv[0], res->outcome.status, res->err.data);
		exit(1);
	}
	sm_result_free(res);
	sm_exec_close(exec);
}

/* Does nothing, or compiles and runs the C source, which comes along: one round trip, no shell. */
static void job(struct sm_vm *vm, const char *source, size_t size)
{
	static const char *const just[] = {"true", NULL};
	static const char *const build[] = {"gcc", "-o", "/tmp/a", "/tmp/a.c", NULL};
	static const char *const chain[] = {"/tmp/a", NULL, NULL};
	struct sm_exec_options o = SM_EXEC_OPTIONS_INIT;
	struct sm_exec_file file = SM_EXEC_FILE_INIT;

	o.argv = source ? build : just;
	file.path = "/tmp/a.c";
	file.data = source;
	file.length = size;
	if (source) {
		o.chain = chain;
		o.files = &file;
		o.num_files = 1;
	}
	command(vm, &o);
}

static struct sm_vm *open_vm(struct sm_client *client, const char *name)
{
	struct sm_error err = {0};
	struct sm_vm *vm;

	if (sm_vm_open(client, name, &vm, &err) < 0)
		die(name, &err);
	return vm;
}

static int bench_exec(struct sm_client *client, const char *name, int rounds)
{
	struct sm_vm *vm = open_vm(client, name);

	for (int i = 0; i <= rounds; i++) { /* the first warms up */
		double t0 = now_ms();

		job(vm, NULL, 0);
		if (i)
			printf("%.3f\n", now_ms() - t0);
	}
	sm_vm_close(vm);
	return 0;
}

struct load {
	struct sm_pool *pool;
	const char *source;
	size_t source_size;
	pthread_mutex_t lock;
	int left;
};

/* One lease; the time of it, or less than 0 when all rounds are taken. */
static double cycle(struct load *l)
{
	struct sm_error err = {0};
	struct sm_vm *vm;
	double t0 = now_ms();

	pthread_mutex_lock(&l->lock);
	if (l->left-- <= 0)
		t0 = -1;
	pthread_mutex_unlock(&l->lock);
	if (t0 < 0)
		return t0;
	if (sm_pool_acquire(l->pool, &vm, &err) < 0)
		die("acquire", &err);
	job(vm, l->source, l->source_size);
	sm_pool_release(l->pool, vm);
	return now_ms() - t0;
}

static void *work(void *arg)
{
	double ms;

	while ((ms = cycle(arg)) >= 0)
		printf("%.3f\n", ms);
	return NULL;
}

/* Until so many are idle; false: one could not be started, or they do not come. */
static int await_idle(struct sm_pool *pool, unsigned idle)
{
	struct sm_pool_stats stats = SM_POOL_STATS_INIT;
	double until = now_ms() + 60000;

	do {
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
		sm_pool_get_stats(pool, &stats);
	} while (stats.idle < idle && !stats.failures && now_ms() < until);
	return stats.idle >= idle;
}

/* A pool that is leased for the first time starts as many VMs again, to have them idle: these are not what is measured.
 */
static void fill_pool(struct sm_pool *pool, unsigned workers)
{
	struct sm_error err = {0};
	struct sm_vm *vms[64];

	if (!await_idle(pool, workers))
		return;
	for (unsigned i = 0; i < workers; i++)
		if (sm_pool_acquire(pool, &vms[i], &err) < 0)
			die("acquire", &err);
	await_idle(pool, workers);
	for (unsigned i = 0; i < workers; i++)
		sm_pool_release(pool, vms[i]);
	await_idle(pool, 2 * workers);
}

static int bench_pool(struct sm_client *client, const char *image, const char *snapshot, int workers, int rounds,
		      const char *source)
{
	struct sm_vm_options vm = SM_VM_OPTIONS_INIT;
	struct sm_pool_options o = SM_POOL_OPTIONS_INIT;
	struct sm_pool_stats stats = SM_POOL_STATS_INIT;
	struct load l = {.lock = PTHREAD_MUTEX_INITIALIZER, .left = rounds, .source = source};
	struct sm_error err = {0};
	pthread_t threads[64];
	double t0;

	l.source_size = source ? strlen(source) : 0;
	vm.image = strcmp(image, "-") ? image : NULL;
	vm.snapshot = strcmp(snapshot, "-") ? snapshot : NULL;
	vm.memory = vm.snapshot ? 0 : 256 << 20;
	o.vm = &vm;
	o.min = workers;
	o.max = 2 * workers;
	if (workers < 1 || workers > 64 || sm_pool_new(client, &o, &l.pool, &err) < 0)
		die("pool", &err);
	fill_pool(l.pool, (unsigned)workers);
	t0 = now_ms();
	for (int i = 0; i < workers; i++)
		pthread_create(&threads[i], NULL, work, &l);
	for (int i = 0; i < workers; i++)
		pthread_join(threads[i], NULL);
	t0 = now_ms() - t0;
	sm_pool_get_stats(l.pool, &stats);
	printf("cycles/s %.3f hits %llu of %llu failures %llu\n", rounds * 1e3 / t0, (unsigned long long)stats.hits,
	       (unsigned long long)stats.acquires, (unsigned long long)stats.failures);
	sm_pool_free(l.pool);
	return 0;
}

static int bench_code(struct sm_client *client, const char *image, int workers, int rounds, const char *path)
{
	static char source[1 << 16];
	FILE *f = fopen(path, "r");

	if (!f || !fread(source, 1, sizeof(source) - 1, f)) {
		perror(path);
		return 1;
	}
	fclose(f);
	return bench_pool(client, image, "-", workers, rounds, source);
}

static void show(const char *name, double since, int rounds)
{
	printf("%s %.2f\n", name, (now_ms() - since) * 1e3 / rounds);
}

static int bench_idle(struct sm_client *client, const char *name, int rounds)
{
	struct sm_exec_options o = SM_EXEC_OPTIONS_INIT;
	static const char *const argv[] = {"cat", NULL};
	struct sm_vm *vm = open_vm(client, name);
	struct sm_error err = {0};
	struct sm_vm_info *info;
	struct sm_exec *exec;
	double t0 = now_ms();

	for (int i = 0; i < rounds; i++)
		sm_vm_close(open_vm(client, name));
	show("sm_vm_open+close", t0, rounds);
	t0 = now_ms();
	for (int i = 0; i < rounds; i++) {
		if (sm_vm_query(vm, &info, &err) < 0)
			die("query", &err);
		sm_vm_info_free(info);
	}
	show("sm_vm_query", t0, rounds);
	o.argv = argv;
	o.tty = o.stdin_open = true;
	if (sm_vm_exec(vm, &o, &exec, &err) < 0)
		die("exec", &err);
	rounds = rounds > 100 ? 100 : rounds; /* they only queue until somebody pumps */
	t0 = now_ms();
	for (int i = 0; i < rounds; i++)
		if (sm_exec_resize(exec, 25 + i % 2, 80, &err) < 0)
			die("resize", &err);
	show("sm_exec_resize", t0, rounds);
	sm_exec_close(exec);
	sm_vm_close(vm);
	return 0;
}

int main(int argc, char **argv)
{
	struct sm_client *client;
	struct sm_error err = {0};

	if (sm_client_open(NULL, &client, &err) < 0)
		die("client", &err);
	if (argc == 4 && !strcmp(argv[1], "exec"))
		return bench_exec(client, argv[2], atoi(argv[3]));
	if (argc == 6 && !strcmp(argv[1], "pool"))
		return bench_pool(client, argv[2], argv[3], atoi(argv[4]), atoi(argv[5]), NULL);
	if (argc == 6 && !strcmp(argv[1], "code"))
		return bench_code(client, argv[2], atoi(argv[3]), atoi(argv[4]), argv[5]);
	if (argc == 4 && !strcmp(argv[1], "idle"))
		return bench_idle(client, argv[2], atoi(argv[3]));
	fprintf(stderr, "usage: calls exec|pool|code|idle ... (its first comment tells)\n");
	return 2;
}
