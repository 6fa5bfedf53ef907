/* SPDX-License-Identifier: Apache-2.0 */
/* Pools of VMs that are socket pairs: who gets what and when, what dies, what fails, many threads at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "lib/pool.h"

#define MS 1000000ull

/* A VM whose keeper is the other end of a socket pair. */
struct fake {
	struct sm_vm vm;
	int keeper;
	atomic_int used; /* by how many at once; a second is a fault */
};

/* What the fakes do; one test at a time. */
static struct {
	atomic_int started, ended, alive, most_alive, fail, slow_ms, stillborn;
	atomic_int can_rewind, rewound, rewind_fails;
	atomic_int mounts, ports, attached, attach_fails; /* what the last VM was given at its start, and later */
} world;

static int fake_start(struct sm_pool *p, const struct sm_lease_options *lease, uint64_t limit_ns, struct sm_vm **ret,
		      struct sm_error *err)
{
	struct fake *f;
	int pair[2], n;

	poll(NULL, 0, world.slow_ms);
	assert_true(limit_ns > 0);
	if (lease) {
		world.mounts = (int)lease->num_mounts;
		world.ports = (int)lease->num_ports;
	}
	if (world.fail > 0) {
		world.fail--;
		return error_set(err, SM_ERROR_HOST, ENOSPC, "no room for it");
	}
	f = calloc(1, sizeof(*f));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	f->vm.owner_fd = pair[0];
	f->keeper = pair[1];
	f->vm.marked = !lease && world.can_rewind;
	if (world.stillborn)
		f->keeper = fd_close(f->keeper);
	world.started++;
	n = ++world.alive;
	if (n > world.most_alive)
		world.most_alive = n;
	*ret = &f->vm;
	return 0;
}

static void fake_end(struct sm_pool *p, struct sm_vm *vm)
{
	struct fake *f = (struct fake *)vm;

	poll(NULL, 0, world.slow_ms);
	world.ended++;
	world.alive--;
	fd_close(f->vm.owner_fd);
	fd_close(f->keeper);
	free(f);
}

static void dies(struct sm_vm *vm)
{
	struct fake *f = (struct fake *)vm;

	shutdown(f->keeper, SHUT_RDWR);
}

static int fake_attach(struct sm_pool *p, struct sm_vm *vm, const struct sm_lease_options *lease, struct sm_error *err)
{
	if (world.attach_fails)
		return error_set(err, SM_ERROR_HOST, EADDRINUSE, "it is taken");
	world.attached += (int)lease->num_ports;
	return 0;
}

static int fake_rewind(struct sm_pool *p, struct sm_vm *vm, struct sm_error *err)
{
	struct fake *f = (struct fake *)vm;

	assert_int_equal(f->used, 0); /* nobody has it meanwhile */
	f->used++;
	poll(NULL, 0, world.slow_ms);
	f->used--;
	if (world.rewind_fails > 0) {
		world.rewind_fails--;
		return error_set(err, SM_ERROR_STATE, EBUSY, "not now");
	}
	world.rewound++;
	return 0;
}

static const struct pool_ways fakes = {
	.start = fake_start, .end = fake_end, .rewind = fake_rewind, .attach = fake_attach};

static struct sm_pool *pool_of(struct sm_pool_options o)
{
	static const struct sm_vm_options vm = {.size = sizeof(vm), .image = "i"};
	struct sm_pool *p;

	memset(&world, 0, sizeof(world));
	o.size = sizeof(o);
	o.vm = o.vm ? o.vm : &vm;
	assert_int_equal(pool_new(NULL, &fakes, &o, &p, NULL), 0);
	return p;
}

static struct sm_pool_stats stats(struct sm_pool *p)
{
	struct sm_pool_stats s = SM_POOL_STATS_INIT;

	sm_pool_get_stats(p, &s);
	return s;
}

/* Waits for what other threads will do. */
#define UNTIL(x)                                                                                                       \
	for (int _i = 0; !(x); _i++) {                                                                                 \
		assert_true(_i < 30000);                                                                               \
		poll(NULL, 0, 1);                                                                                      \
	}

static struct sm_vm *take(struct sm_pool *p)
{
	struct sm_vm *vm = NULL;

	assert_int_equal(sm_pool_acquire(p, &vm, NULL), 0);
	assert_non_null(vm);
	return vm;
}

static void some_are_ready(void **state)
{
	struct sm_pool *p = pool_of((struct sm_pool_options){.min = 2, .max = 4});
	struct sm_vm *vm;

	UNTIL(stats(p).idle == 2);
	vm = take(p);
	assert_int_equal(stats(p).hits, 1);
	assert_int_equal(stats(p).leased, 1);
	UNTIL(stats(p).idle == 2); /* another in its place */
	assert_int_equal(stats(p).alive, 3);
	assert_null(sm_pool_release(p, vm));
	assert_null(sm_pool_release(p, vm)); /* it is the pool's no more: nothing happens */
	assert_null(sm_pool_release(p, NULL));
	UNTIL(world.ended == 1);
	assert_int_equal(stats(p).idle, 2);
	assert_int_equal(stats(p).restores, 3);
	assert_null(sm_pool_free(p));
	assert_int_equal(world.alive, 0);
	assert_int_equal(world.started, world.ended);
	assert_null(sm_pool_free(NULL));
}

/* Given back and leased again: another VM, or with keep the same. */
static void a_lease_is_fresh_or_kept(void **state)
{
	for (int keep = 0; keep < 2; keep++) {
		struct sm_pool *p = pool_of((struct sm_pool_options){.max = 1, .keep = keep});

		for (int i = 0; i < 10; i++) {
			struct fake *f = (struct fake *)take(p);

			assert_int_equal(f->used, keep ? i : 0);
			f->used++;
			sm_pool_release(p, &f->vm);
		}
		assert_int_equal(stats(p).acquires, 10);
		assert_int_equal(stats(p).restores, keep ? 1 : 10);
		assert_int_equal(stats(p).hits, keep ? 9 : 0);
		assert_int_equal(world.most_alive, 1);
		sm_pool_free(p);
	}
}

/* One that can go back is leased again once it has; one that failed to, or died, ends. */
static void a_vm_goes_back(void **state)
{
	struct sm_pool *p = pool_of((struct sm_pool_options){.max = 1});
	struct sm_vm *vm, *same;

	world.can_rewind = 1;
	vm = take(p);
	for (int i = 0; i < 10; i++) {
		sm_pool_release(p, vm);
		same = take(p);
		assert_ptr_equal(same, vm);
		assert_int_equal(world.rewound, i + 1);
	}
	assert_int_equal(world.started, 1);
	assert_int_equal(stats(p).restores, 11);
	world.rewind_fails = 1;
	sm_pool_release(p, vm);
	vm = take(p);
	assert_int_equal(world.started, 2);
	assert_int_equal(world.ended, 1);
	dies(vm);
	sm_pool_release(p, vm);
	vm = take(p);
	assert_int_equal(world.started, 3);
	assert_int_equal(world.rewound, 10);
	/* Closed while one is at it. */
	world.slow_ms = 50;
	sm_pool_release(p, vm);
	poll(NULL, 0, 10);
	sm_pool_free(p);
	assert_int_equal(world.alive, 0);
	assert_int_equal(world.started, world.ended);
}

static void the_dead_are_replaced(void **state)
{
	struct sm_pool *p = pool_of((struct sm_pool_options){.min = 1, .max = 2, .keep = true});
	struct sm_vm *vm = take(p);
	struct sm_error err = {0};
	int keeper;

	dies(vm); /* in the hands of its lessee */
	sm_pool_release(p, vm);
	UNTIL(world.ended == 1 && stats(p).idle == 1);
	vm = take(p);
	assert_true(pool_vm_alive(vm));
	keeper = ((struct fake *)vm)->keeper;
	sm_pool_release(p, vm);
	UNTIL(stats(p).idle >= 1);
	shutdown(keeper, SHUT_RDWR); /* idle */
	UNTIL(stats(p).deaths == 1 && world.ended == 2);
	vm = take(p);
	assert_true(pool_vm_alive(vm));
	sm_pool_free(p); /* with its lease */
	assert_int_equal(world.alive, 0);

	/* What never lives is an error, not a loop. */
	p = pool_of((struct sm_pool_options){.max = 2});
	world.stillborn = 1;
	assert_int_equal(sm_pool_acquire(p, &vm, &err), -ESRCH);
	assert_int_equal(err.kind, SM_ERROR_STATE);
	assert_int_equal(stats(p).failures, 1);
	sm_pool_free(p);
	assert_int_equal(world.alive, 0);
}

static void failures_are_told(void **state)
{
	struct sm_pool *p = pool_of((struct sm_pool_options){.max = 2});
	struct sm_error err = {0};
	struct sm_vm *vm = NULL;

	world.fail = 1;
	assert_int_equal(sm_pool_acquire(p, &vm, &err), -ENOSPC);
	assert_int_equal(err.kind, SM_ERROR_HOST);
	assert_string_equal(err.message, "no room for it");
	assert_null(vm);
	vm = take(p);
	assert_int_equal(stats(p).failures, 1);
	sm_pool_release(p, vm);
	sm_pool_free(p);

	/* Nobody waits: it tries again, less and less often. */
	p = pool_of((struct sm_pool_options){.min = 1, .max = 1});
	world.fail = 3;
	UNTIL(stats(p).idle == 1);
	sm_pool_free(p);
}

static void all_leased(void **state)
{
	struct sm_pool *p = pool_of((struct sm_pool_options){.max = 2, .no_wait = true});
	struct sm_vm *a = take(p), *b = take(p), *c = NULL;
	struct sm_error err = {0};

	assert_ptr_not_equal(a, b);
	assert_int_equal(sm_pool_acquire(p, &c, &err), -EBUSY);
	assert_int_equal(err.kind, SM_ERROR_BUSY);
	sm_pool_release(p, a);
	c = take(p);
	sm_pool_free(p);

	p = pool_of((struct sm_pool_options){.max = 1, .acquire_timeout_ns = 20 * MS});
	world.slow_ms = 0;
	a = take(p);
	assert_int_equal(sm_pool_acquire(p, &c, &err), -ETIMEDOUT);
	assert_int_equal(err.kind, SM_ERROR_TIMEOUT);
	assert_int_equal(stats(p).waiting, 0);
	sm_pool_release(p, a);
	sm_pool_free(p);
}

static void too_many_idle_end(void **state)
{
	struct sm_pool *p =
		pool_of((struct sm_pool_options){.min = 1, .max = 4, .keep = true, .idle_timeout_ns = 10 * MS});
	struct sm_vm *vm[4];

	for (int i = 0; i < 4; i++)
		vm[i] = take(p);
	for (int i = 0; i < 4; i++)
		sm_pool_release(p, vm[i]);
	UNTIL(world.ended == 3);
	assert_int_equal(stats(p).alive, 1);
	poll(NULL, 0, 30);
	assert_int_equal(world.ended, 3);
	sm_pool_free(p);
}

static const struct sm_mount a_mount = {.size = sizeof(a_mount), .source = "/s", .target = "/t"};
static const struct sm_port a_port = {.size = sizeof(a_port), .guest_port = 1};
static const char *const a_variable[] = {"K=V", NULL};

struct crowd {
	struct sm_pool *p;
	unsigned times;
	atomic_int served, cancelled;
};

static void *one_of_many(void *arg)
{
	struct crowd *c = arg;

	for (unsigned i = 0; i < c->times; i++) {
		static const struct sm_lease_options own = {
			.size = sizeof(own), .mounts = &a_mount, .num_mounts = 1, .env = a_variable};
		struct sm_vm *vm = NULL;
		struct fake *f;
		int r = sm_pool_acquire_with(c->p, i % 5 == 2 ? &own : NULL, &vm, NULL);

		if (r == -ECANCELED) {
			c->cancelled++;
			break;
		}
		assert_int_equal(r, 0);
		f = (struct fake *)vm;
		assert_int_equal(f->used++, 0); /* mine alone */
		if (i % 7 == 3)
			dies(vm);
		f->used--;
		c->served++;
		sm_pool_release(c->p, vm);
	}
	return NULL;
}

static void many_at_once(void **state)
{
	for (int kind = 0; kind < 3; kind++) {
		struct crowd c = {.times = 50};
		pthread_t threads[16];

		c.p = pool_of((struct sm_pool_options){.min = 2, .max = 5, .keep = kind == 1, .threads = 3});
		world.can_rewind = kind == 2;
		for (int i = 0; i < 16; i++)
			assert_int_equal(pthread_create(&threads[i], NULL, one_of_many, &c), 0);
		for (int i = 0; i < 16; i++)
			pthread_join(threads[i], NULL);
		assert_int_equal(c.served, 800);
		assert_int_equal(stats(c.p).acquires, 800);
		assert_true(world.most_alive <= 5);
		sm_pool_free(c.p);
		assert_int_equal(world.alive, 0);
	}
}

/* A burst gets as many VMs as there may be, at once. */
static void a_burst_is_served(void **state)
{
	struct sm_pool *p = pool_of((struct sm_pool_options){.max = 8, .threads = 8});
	struct sm_vm *vm[8];

	for (int i = 0; i < 8; i++)
		vm[i] = take(p);
	assert_int_equal(world.most_alive, 8);
	assert_int_equal(stats(p).leased, 8);
	for (int i = 0; i < 8; i++)
		sm_pool_release(p, vm[i]);
	UNTIL(world.ended == 8); /* nobody asked for more */
	assert_int_equal(world.started, 8);
	sm_pool_free(p);
}

/* Closing does not leave those alone who wait. */
static void closing_wakes_those_who_wait(void **state)
{
	struct crowd c = {.times = 1};
	pthread_t threads[4];

	c.p = pool_of((struct sm_pool_options){.max = 1});
	take(c.p);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, one_of_many, &c), 0);
	UNTIL(stats(c.p).waiting == 4);
	sm_pool_free(c.p);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(c.cancelled, 4);
	assert_int_equal(world.alive, 0);
}

static struct sm_vm *take_with(struct sm_pool *p, struct sm_lease_options lease)
{
	struct sm_vm *vm = NULL;

	lease.size = sizeof(lease);
	assert_int_equal(sm_pool_acquire_with(p, &lease, &vm, NULL), 0);
	assert_non_null(vm);
	return vm;
}

/* A VM that is idle is given ports and an environment; with mounts one is started. Nothing of it is the next one's. */
static void a_lease_has_its_own(void **state)
{
	struct sm_pool *p = pool_of((struct sm_pool_options){.min = 1, .max = 2, .keep = true});
	struct sm_vm *vm, *other;

	UNTIL(stats(p).idle == 1);
	vm = take_with(p, (struct sm_lease_options){.env = a_variable});
	assert_int_equal(stats(p).hits, 1);
	assert_string_equal(vm->lease_env[0], "K=V");
	UNTIL(stats(p).idle == 1);
	sm_pool_release(p, vm); /* kept */
	assert_null(vm->lease_env);
	assert_int_equal(stats(p).idle, 2);

	vm = take_with(p, (struct sm_lease_options){.ports = &a_port, .num_ports = 1});
	assert_int_equal(world.attached, 1);
	assert_int_equal(stats(p).hits, 2);
	sm_pool_release(p, vm); /* not kept: its port is still open */
	UNTIL(world.ended == 1 && stats(p).idle == 1);

	/* An idle one makes room. */
	other = take(p);
	UNTIL(stats(p).idle == 1);
	vm = take_with(p, (struct sm_lease_options){.mounts = &a_mount, .num_mounts = 1, .env = a_variable});
	assert_int_equal(world.ended, 2);
	assert_int_equal(world.mounts, 1);
	assert_string_equal(vm->lease_env[0], "K=V");
	assert_int_equal(stats(p).leased, 2);
	assert_int_equal(stats(p).hits, 3);
	assert_int_equal(world.most_alive, 2);
	sm_pool_release(p, vm);
	sm_pool_release(p, other);
	UNTIL(world.ended == 3 && stats(p).idle >= 1);
	sm_pool_free(p);
	assert_int_equal(world.alive, 0);
}

static void some_ports_need_a_start(void **state)
{
	static const struct sm_port reverse = {.size = sizeof(reverse), .guest_port = 1, .reverse = true};
	static const struct sm_vm_options with_port = {
		.size = sizeof(with_port), .image = "i", .ports = &a_port, .num_ports = 1};
	struct sm_pool *p = pool_of((struct sm_pool_options){.min = 1, .max = 2});
	struct sm_error err = {0};
	struct sm_lease_options lease = {.size = sizeof(lease), .ports = &a_port, .num_ports = 1};
	struct sm_vm *vm = take_with(p, (struct sm_lease_options){.ports = &reverse, .num_ports = 1});

	assert_int_equal(world.ports, 1);
	assert_int_equal(world.attached, 0);
	sm_pool_release(p, vm);
	world.attach_fails = 1;
	vm = NULL;
	assert_int_equal(sm_pool_acquire_with(p, &lease, &vm, &err), -EADDRINUSE);
	assert_null(vm);
	assert_string_equal(err.message, "it is taken");
	UNTIL(world.ended == 2 && stats(p).idle == 1);
	assert_int_equal(stats(p).leased, 0);
	sm_pool_free(p);

	p = pool_of((struct sm_pool_options){.max = 1, .vm = &with_port});
	vm = take_with(p, lease);
	assert_int_equal(world.ports, 1);
	assert_int_equal(world.attached, 0);
	sm_pool_free(p);
	assert_int_equal(world.alive, 0);
}

static void leases_of_their_own_wait_too(void **state)
{
	struct sm_pool *p = pool_of((struct sm_pool_options){.max = 1, .acquire_timeout_ns = 20 * MS});
	struct sm_lease_options lease = SM_LEASE_OPTIONS_INIT;
	static const char *const no_variable[] = {"=", NULL};
	struct sm_error err = {0};
	struct sm_vm *vm = take(p), *other = NULL;

	lease.mounts = &a_mount;
	lease.num_mounts = 1;
	assert_int_equal(sm_pool_acquire_with(p, &lease, &other, &err), -ETIMEDOUT);
	assert_int_equal(err.kind, SM_ERROR_TIMEOUT);
	lease.env = no_variable;
	assert_int_equal(sm_pool_acquire_with(p, &lease, &other, &err), -EINVAL);
	lease.env = NULL;
	sm_pool_free(p);

	p = pool_of((struct sm_pool_options){.max = 1, .no_wait = true});
	vm = take_with(p, lease);
	assert_int_equal(sm_pool_acquire_with(p, &lease, &other, &err), -EBUSY);
	assert_int_equal(sm_pool_acquire(p, &other, &err), -EBUSY);
	sm_pool_release(p, vm);
	UNTIL(world.ended == 1);
	world.fail = 1;
	assert_int_equal(sm_pool_acquire_with(p, &lease, &other, &err), -ENOSPC);
	assert_int_equal(stats(p).failures, 1);
	assert_null(other);
	sm_pool_release(p, take_with(p, lease));
	sm_pool_free(p);
	assert_int_equal(world.alive, 0);
}

static void bad_options(void **state)
{
	struct sm_vm_options vm = SM_VM_OPTIONS_INIT;
	struct sm_pool_options o = SM_POOL_OPTIONS_INIT;
	struct sm_pool *p = NULL;
	struct sm_error err = {0};

	assert_int_equal(sm_pool_new(NULL, &o, &p, &err), -EINVAL);
	assert_int_equal(err.kind, SM_ERROR_INVALID);
	o.vm = &vm;
	assert_int_equal(sm_pool_new(NULL, &o, &p, &err), -EINVAL);
	vm.image = "i";
	o.min = 17;
	assert_int_equal(sm_pool_new(NULL, &o, &p, &err), -EINVAL);
	o.max = 5000;
	assert_int_equal(sm_pool_new(NULL, &o, &p, &err), -EINVAL);
	o.min = o.max = 1;
	vm.name = "n";
	assert_int_equal(sm_pool_new(NULL, &o, &p, &err), -EINVAL);
	assert_null(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(some_are_ready),
		cmocka_unit_test(a_lease_is_fresh_or_kept),
		cmocka_unit_test(a_vm_goes_back),
		cmocka_unit_test(the_dead_are_replaced),
		cmocka_unit_test(failures_are_told),
		cmocka_unit_test(all_leased),
		cmocka_unit_test(too_many_idle_end),
		cmocka_unit_test(many_at_once),
		cmocka_unit_test(a_burst_is_served),
		cmocka_unit_test(closing_wakes_those_who_wait),
		cmocka_unit_test(a_lease_has_its_own),
		cmocka_unit_test(some_ports_need_a_start),
		cmocka_unit_test(leases_of_their_own_wait_too),
		cmocka_unit_test(bad_options),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
