/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leases with things of their own: sm_pool_acquire_with. Ports are given to a VM that is idle, by a forwarder of their
 * own; a VM's mounts are its monitor's from the start on, so for these one is started, by the thread that wants it, in
 * a slot of the pool. What has been given stays with the VM, which therefore ends with the lease.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "lib/pool.h"

/* ------------------------------------------------------------------------------------------ VMs, really */

/* The pool's and then the lease's, all of this library's size; NULL: no memory. */
#define BOTH(type, a, num_a, b, num_b)                                                                                 \
	({                                                                                                             \
		type *_v = calloc((num_a) + (num_b) + 1, sizeof(*_v));                                                 \
		for (size_t _i = 0; _v && _i < (num_a); _i++)                                                          \
			_v[_i] = OPTIONS_GET(type, OPTIONS_AT(type, a, _i));                                           \
		for (size_t _i = 0; _v && _i < (num_b); _i++)                                                          \
			_v[(num_a) + _i] = OPTIONS_GET(type, OPTIONS_AT(type, b, _i));                                 \
		_v;                                                                                                    \
	})

int lease_start(struct sm_pool *p, const struct sm_lease_options *lease, struct sm_vm_options *o, struct sm_vm **ret,
		struct sm_error *err)
{
	_free_ struct sm_mount *mounts =
		BOTH(struct sm_mount, o->mounts, o->num_mounts, lease->mounts, lease->num_mounts);
	_free_ struct sm_port *ports = BOTH(struct sm_port, o->ports, o->num_ports, lease->ports, lease->num_ports);

	if (!mounts || !ports)
		return error_sys(err, ENOMEM, "pool");
	o->mounts = mounts;
	o->num_mounts += lease->num_mounts;
	o->ports = ports;
	o->num_ports += lease->num_ports;
	return sm_vm_start(p->client, o, ret, err);
}

int lease_attach(struct sm_pool *p, struct sm_vm *vm, const struct sm_lease_options *lease, struct sm_error *err)
{
	_cleanup_(ports_done) struct ports ports = {.waiter = -1};
	struct sm_vm_options o = {.ports = lease->ports, .num_ports = lease->num_ports};
	_cleanup_(vm_record_done) struct vm_record r = {0};
	int e = ports_from_options(&r, &o, err);

	memcpy(r.id, vm->id, sizeof(r.id));
	if (e == 0)
		e = ports_open(p->client, &r, &ports, err);
	return e < 0 ? e : ports_serve(vm, &ports, err);
}

/* ----------------------------------------------------------------------------------- a VM for one lease */

/* A VM that is up cannot be given all of it. */
static bool needs_own(const struct sm_pool *p, const struct sm_lease_options *lease)
{
	bool reverse = false;

	for (size_t i = 0; i < lease->num_ports; i++)
		reverse |= OPTIONS_GET(struct sm_port, OPTIONS_AT(struct sm_port, lease->ports, i)).reverse;
	return lease->num_mounts || reverse || (lease->num_ports && p->vm.num_ports);
}

/* The one that nobody has wanted for the longest time. */
static void give_up_idle(struct sm_pool *p)
{
	struct slot *oldest = NULL;

	for (unsigned i = 0; i < p->o.max; i++) {
		struct slot *s = &p->slots[i];

		if (s->state == SLOT_IDLE && (!oldest || s->since_ns < oldest->since_ns))
			oldest = s;
	}
	if (oldest)
		pool_move(p, oldest, SLOT_ENDING);
}

/* A free slot, now OWN; under the lock. */
static int wait_for_slot(struct sm_pool *p, const struct timespec *until, struct slot **ret, struct sm_error *err)
{
	int r = 0;

	p->num_owners++;
	while (!p->closing && !p->count[SLOT_FREE] && r == 0) {
		if (p->count[SLOT_ENDING] < p->num_owners && p->count[SLOT_IDLE])
			give_up_idle(p);
		if (p->o.acquire_timeout_ns)
			r = pthread_cond_timedwait(&p->work, &p->lock, until);
		else
			pthread_cond_wait(&p->work, &p->lock);
	}
	p->num_owners--;
	if (p->closing)
		return error_set(err, SM_ERROR_CANCELLED, ECANCELED, "pool: it is being closed");
	if (!p->count[SLOT_FREE])
		return error_set(err, SM_ERROR_TIMEOUT, ETIMEDOUT, "pool: none of %u VMs ended in time", p->o.max);
	*ret = pool_find(p, SLOT_FREE);
	pool_move(p, *ret, SLOT_OWN);
	return 0;
}

static uint64_t left_until(const struct sm_pool *p, const struct timespec *until)
{
	uint64_t at = (uint64_t)until->tv_sec * SECOND_NS + (uint64_t)until->tv_nsec, now = time_now_ns();

	return !p->o.acquire_timeout_ns ? POOL_START_LIMIT_NS : at > now ? at - now : 1;
}

/* Under the lock, which is let go of meanwhile. */
static int acquire_own(struct sm_pool *p, const struct sm_lease_options *lease, struct sm_vm **ret,
		       struct sm_error *err)
{
	struct sm_vm *vm = NULL;
	struct slot *s = NULL;
	struct timespec until;
	int r;

	pool_deadline(p, &until);
	r = wait_for_slot(p, &until, &s, err);
	if (r < 0)
		return r;
	pthread_mutex_unlock(&p->lock);
	r = pool_start(p, lease, left_until(p, &until), &vm, err);
	pthread_mutex_lock(&p->lock);
	if (r == 0 && p->closing) { /* the pool's threads may be gone */
		pthread_mutex_unlock(&p->lock);
		p->ways->end(p, vm);
		pthread_mutex_lock(&p->lock);
		r = error_set(err, SM_ERROR_CANCELLED, ECANCELED, "pool: it is being closed");
	}
	if (r < 0) {
		p->failures += !p->closing;
		pool_move(p, s, SLOT_FREE);
		return r;
	}
	p->restores++;
	p->acquires++;
	s->vm = vm;
	s->started_ns = time_now_ns();
	s->own = true;
	pool_move(p, s, SLOT_LEASED);
	*ret = vm;
	return 0;
}

/* ------------------------------------------------------------------------------------------- one of all */

static void mark_own(struct sm_pool *p, const struct sm_vm *vm)
{
	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < p->o.max; i++)
		p->slots[i].own |= p->slots[i].state == SLOT_LEASED && p->slots[i].vm == vm;
	pthread_mutex_unlock(&p->lock);
}

static int acquire_any(struct sm_pool *p, const struct sm_lease_options *lease, struct sm_vm **ret,
		       struct sm_error *err)
{
	struct sm_vm *vm = NULL;
	int r = sm_pool_acquire(p, &vm, err);

	if (r == 0 && lease->num_ports) {
		mark_own(p, vm);
		r = p->ways->attach(p, vm, lease, err);
	}
	if (r < 0)
		sm_pool_release(p, vm);
	else
		*ret = vm;
	return r;
}

int sm_pool_acquire_with(struct sm_pool *p, const struct sm_lease_options *options, struct sm_vm **ret,
			 struct sm_error *err)
{
	struct sm_lease_options lease = OPTIONS_GET(struct sm_lease_options, options);
	struct sm_vm_options o = {.env = lease.env};
	char **env = NULL;
	int r = start_check_own(&o, err);

	if (r < 0)
		return r;
	if (lease.env && !(env = strv_copy(lease.env)))
		return error_sys(err, ENOMEM, "pool");
	if (needs_own(p, &lease)) {
		r = pool_enter(p, err);
		r = r < 0 ? r : acquire_own(p, &lease, ret, err);
		pool_leave(p);
	} else {
		r = acquire_any(p, &lease, ret, err);
	}
	if (r < 0)
		strv_free(env);
	else
		(*ret)->lease_env = env;
	return r;
}
