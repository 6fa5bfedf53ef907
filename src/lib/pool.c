/* SPDX-License-Identifier: Apache-2.0 */
/* sm_pool: leases and their accounts. See pool.h. */
#include "lib/pool.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"

#define DEFAULT_MAX 16
#define MOST 4096
#define DEFAULT_IDLE_NS (60 * SECOND_NS)
#define WAIT_SLICE_NS SECOND_NS
#define FIRST_DELAY_NS (SECOND_NS / 10)
#define MAX_DELAY_NS (10 * SECOND_NS)

/* ------------------------------------------------------------------------------------------ VMs, really */

static bool is_closing(struct sm_pool *p)
{
	bool closing;

	pthread_mutex_lock(&p->lock);
	closing = p->closing;
	pthread_mutex_unlock(&p->lock);
	return closing;
}

static int on_progress(void *arg, const char *stage, uint64_t done, uint64_t total)
{
	struct sm_pool *p = arg;

	if (is_closing(p))
		return 1;
	return p->vm.progress.update ? p->vm.progress.update(p->vm.progress.arg, stage, done, total) : 0;
}

/* A guest that comes up slowly is given up when the pool is. */
static int await_command(struct sm_pool *p, struct sm_vm *vm, uint64_t deadline, struct sm_error *err)
{
	uint64_t now;
	int r;

	do {
		now = time_now_ns();
		r = sm_vm_wait_started(vm, MIN(WAIT_SLICE_NS, now < deadline ? deadline - now : 1), NULL, err);
	} while (r == -ETIMEDOUT && time_now_ns() < deadline && !is_closing(p));
	return r;
}

/* What is outside of a VM's memory and its own disk cannot be taken back, nor what it was told. */
static bool can_go_back(const struct sm_vm_options *o)
{
	return !o->num_mounts && !o->num_ports && !o->num_secrets;
}

static int start_vm(struct sm_pool *p, const struct sm_lease_options *lease, uint64_t limit_ns, struct sm_vm **ret,
		    struct sm_error *err)
{
	uint64_t deadline = time_now_ns() + MIN(limit_ns, POOL_START_LIMIT_NS);
	struct sm_vm_options o = p->vm;
	int r;

	o.progress = (struct sm_progress){.update = on_progress, .arg = p};
	if (limit_ns < POOL_START_LIMIT_NS)
		o.start_timeout_ns = o.start_timeout_ns ? MIN(o.start_timeout_ns, limit_ns) : limit_ns;
	r = lease ? lease_start(p, lease, &o, ret, err) : sm_vm_start(p->client, &o, ret, err);
	if (r < 0)
		return r;
	r = await_command(p, *ret, deadline, err);
	if (r < 0) {
		sm_vm_close(*ret);
		return r;
	}
	/* One that cannot be marked, and why is said in the log of its keeper, ends with its lease. */
	(*ret)->marked = !lease && !p->o.keep && !p->o.fresh && can_go_back(&o) &&
			 vm_request_ready(*ret, PROTO_KEEPER_MARK, "mark", NULL) == 0;
	return 0;
}

static void end_vm(struct sm_pool *p, struct sm_vm *vm)
{
	sm_vm_close(vm);
}

static int rewind_vm(struct sm_pool *p, struct sm_vm *vm, struct sm_error *err)
{
	return vm_request_ready(vm, PROTO_KEEPER_REWIND, "undo what was done in", err);
}

static const struct pool_ways real_ways = {
	.start = start_vm, .end = end_vm, .rewind = rewind_vm, .attach = lease_attach};

/* Its keeper holds the other end, and says nothing more on it than how the VM started and ended. */
bool pool_vm_alive(const struct sm_vm *vm)
{
	struct pollfd fd = {.fd = vm->owner_fd, .events = POLLRDHUP};

	return vm->owner_fd >= 0 && poll(&fd, 1, 0) == 0;
}

/* ----------------------------------------------------------------------------------------------- leases */

static void wake_watcher(struct sm_pool *p)
{
	uint64_t one = 1;

	if (write(p->wake, &one, sizeof(one)) < 0)
		return; /* full: it wakes anyway */
}

void pool_move(struct sm_pool *p, struct slot *s, enum slot_state to)
{
	p->count[s->state]--;
	s->state = to;
	p->count[to]++;
	if (to == SLOT_FREE)
		*s = (struct slot){.state = SLOT_FREE};
	if (to == SLOT_IDLE) {
		s->since_ns = time_now_ns();
		wake_watcher(p);
	}
	pthread_cond_broadcast(&p->work);
}

/* The one that came last: the others may then become superfluous. One that has died is put away. */
static struct slot *best_idle(struct sm_pool *p)
{
	while (p->count[SLOT_IDLE]) {
		struct slot *best = NULL;

		for (unsigned i = 0; i < p->o.max; i++) {
			struct slot *s = &p->slots[i];

			if (s->state == SLOT_IDLE && (!best || s->since_ns > best->since_ns))
				best = s;
		}
		if (pool_vm_alive(best->vm))
			return best;
		p->deaths++;
		pool_move(p, best, SLOT_ENDING);
	}
	return NULL;
}

static void answer(struct sm_pool *p, struct sm_vm *vm, const struct sm_error *error)
{
	struct pool_waiter *w = p->waiters;

	w->vm = vm;
	if (error)
		w->error = *error;
	p->waiters = w->next;
	if (!p->waiters)
		p->waiters_end = &p->waiters;
	p->num_waiters--;
	pthread_cond_signal(&w->cond);
}

void pool_hand_out(struct sm_pool *p)
{
	struct slot *s;

	while (p->waiters && (s = best_idle(p))) {
		pool_move(p, s, SLOT_LEASED);
		answer(p, s->vm, NULL);
	}
}

void pool_failed(struct sm_pool *p, const struct sm_error *err)
{
	uint64_t delay = FIRST_DELAY_NS << MIN(p->failed_in_row, 10u);

	p->failed_in_row++;
	p->not_before_ns = time_now_ns() + MIN(delay, MAX_DELAY_NS);
	if (err && p->waiters)
		answer(p, NULL, err);
	wake_watcher(p);
}

static void forget_waiter(struct sm_pool *p, struct pool_waiter *gone)
{
	struct pool_waiter **w = &p->waiters;

	while (*w != gone)
		w = &(*w)->next;
	*w = gone->next;
	if (!*w)
		p->waiters_end = w;
	p->num_waiters--;
}

static void cond_init_monotonic(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
}

void pool_deadline(const struct sm_pool *p, struct timespec *ret)
{
	uint64_t at;

	clock_gettime(CLOCK_MONOTONIC, ret);
	at = (uint64_t)ret->tv_nsec + MIN(p->o.acquire_timeout_ns, (uint64_t)INT64_MAX / 2);
	ret->tv_sec += (time_t)(at / SECOND_NS);
	ret->tv_nsec = (long)(at % SECOND_NS);
}

/* In the queue, until there is an answer. */
static int wait_in_line(struct sm_pool *p, struct sm_vm **ret, struct sm_error *err)
{
	struct pool_waiter w = {0};
	struct timespec until;
	int r = 0;

	pool_deadline(p, &until);
	cond_init_monotonic(&w.cond);
	*p->waiters_end = &w;
	p->waiters_end = &w.next;
	p->num_waiters++;
	pthread_cond_broadcast(&p->work);
	pool_hand_out(p);
	while (!w.vm && !w.error.kind && r == 0) {
		if (p->o.acquire_timeout_ns)
			r = pthread_cond_timedwait(&w.cond, &p->lock, &until);
		else
			pthread_cond_wait(&w.cond, &p->lock);
	}
	pthread_cond_destroy(&w.cond);
	if (w.vm) {
		*ret = w.vm;
		return 0;
	}
	if (w.error.kind)
		return error_set(err, w.error.kind, w.error.code, "%s", w.error.message);
	forget_waiter(p, &w);
	return error_set(err, SM_ERROR_TIMEOUT, ETIMEDOUT, "pool: none of %u VMs became free in time", p->o.max);
}

/* So many can come free without a release. */
bool pool_all_leased(const struct sm_pool *p)
{
	return p->num_waiters + p->num_owners + p->count[SLOT_OWN] + p->count[SLOT_LEASED] >= p->o.max;
}

int pool_enter(struct sm_pool *p, struct sm_error *err)
{
	pthread_mutex_lock(&p->lock);
	p->num_callers++;
	if (p->closing)
		return error_set(err, SM_ERROR_CANCELLED, ECANCELED, "pool: it is being closed");
	if (p->o.no_wait && pool_all_leased(p))
		return error_set(err, SM_ERROR_BUSY, EBUSY, "pool: all %u VMs are leased", p->o.max);
	return 0;
}

void pool_leave(struct sm_pool *p)
{
	p->num_callers--;
	pthread_cond_broadcast(&p->left);
	pthread_mutex_unlock(&p->lock);
}

int sm_pool_acquire(struct sm_pool *p, struct sm_vm **ret, struct sm_error *err)
{
	int r = pool_enter(p, err);

	if (r == 0) {
		bool hit = !p->waiters && best_idle(p);

		r = wait_in_line(p, ret, err);
		p->acquires += r == 0;
		p->hits += r == 0 && hit;
	}
	pool_leave(p);
	return r;
}

static enum slot_state after_lease(const struct sm_pool *p, const struct slot *s)
{
	if (s->own || p->closing || !pool_vm_alive(s->vm))
		return SLOT_ENDING;
	return p->o.keep ? SLOT_IDLE : s->vm->marked ? SLOT_REWINDING : SLOT_ENDING;
}

struct sm_vm *sm_pool_release(struct sm_pool *p, struct sm_vm *vm)
{
	if (!vm)
		return NULL;
	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < p->o.max; i++) {
		struct slot *s = &p->slots[i];

		if (s->state != SLOT_LEASED || s->vm != vm)
			continue;
		p->failed_in_row = 0;
		strv_free(vm->lease_env);
		vm->lease_env = NULL;
		pool_move(p, s, after_lease(p, s));
		pool_hand_out(p);
		break;
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

void sm_pool_get_stats(struct sm_pool *p, struct sm_pool_stats *ret)
{
	size_t size = ret->size ? MIN(ret->size, sizeof(*ret)) : sizeof(*ret);
	struct sm_pool_stats s;

	pthread_mutex_lock(&p->lock);
	s = (struct sm_pool_stats){.size = size,
				   .alive = p->count[SLOT_IDLE] + p->count[SLOT_LEASED],
				   .idle = p->count[SLOT_IDLE],
				   .leased = p->count[SLOT_LEASED],
				   .starting = p->count[SLOT_STARTING] + p->count[SLOT_OWN] + p->count[SLOT_REWINDING],
				   .waiting = p->num_waiters,
				   .acquires = p->acquires,
				   .hits = p->hits,
				   .restores = p->restores,
				   .failures = p->failures,
				   .deaths = p->deaths};
	pthread_mutex_unlock(&p->lock);
	memcpy(ret, &s, size);
}

/* ------------------------------------------------------------------------------------- its own life */

static int check(const struct sm_pool_options *o, struct sm_vm_options *v, struct sm_error *err)
{
	if (!v->image && !v->snapshot)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "pool: neither image nor snapshot given");
	if (o->max > MOST || o->min > (o->max ? o->max : DEFAULT_MAX))
		return error_set(err, SM_ERROR_INVALID, EINVAL, "pool: from %u to %u VMs: at most %d", o->min, o->max,
				 MOST);
	if (v->name || v->keep || v->detach || v->tty || v->stdin_open)
		return error_set(err, SM_ERROR_INVALID, EINVAL,
				 "pool: its VMs have no name, terminal or input, and are neither kept nor detached");
	if (v->idle_ns)
		return error_set(err, SM_ERROR_INVALID, EINVAL,
				 "pool: its VMs have no limit on idleness of their own, but the pool's");
	v->background = true;
	if (!v->argv && !v->entrypoint && !v->snapshot)
		v->no_command = true;
	return 0;
}

int pool_new(struct sm_client *c, const struct pool_ways *ways, const struct sm_pool_options *options,
	     struct sm_pool **ret, struct sm_error *err)
{
	struct sm_pool *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return error_sys(err, ENOMEM, "pool");
	p->client = c;
	p->ways = ways;
	p->o = OPTIONS_GET(struct sm_pool_options, options);
	p->vm = OPTIONS_GET(struct sm_vm_options, p->o.vm);
	pthread_mutex_init(&p->lock, NULL);
	cond_init_monotonic(&p->work);
	pthread_cond_init(&p->left, NULL);
	p->waiters_end = &p->waiters;
	p->wake = -1;
	r = check(&p->o, &p->vm, err);
	if (r == 0) {
		p->o.max = p->o.max ? p->o.max : DEFAULT_MAX;
		p->o.idle_timeout_ns = p->o.idle_timeout_ns ? p->o.idle_timeout_ns : DEFAULT_IDLE_NS;
		p->slots = calloc(p->o.max, sizeof(*p->slots));
		p->count[SLOT_FREE] = p->o.max;
		p->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		r = !p->slots ? -ENOMEM : p->wake < 0 ? -errno : pool_threads_start(p);
		if (r < 0)
			error_sys(err, -r, "pool");
	}
	if (r < 0)
		sm_pool_free(p);
	else
		*ret = p;
	return r;
}

int sm_pool_new(struct sm_client *client, const struct sm_pool_options *options, struct sm_pool **ret,
		struct sm_error *err)
{
	return pool_new(client, &real_ways, options, ret, err);
}

struct sm_pool *sm_pool_free(struct sm_pool *p)
{
	static const struct sm_error closed = {
		.kind = SM_ERROR_CANCELLED, .code = ECANCELED, .message = "pool: it is being closed"};

	if (!p)
		return NULL;
	pthread_mutex_lock(&p->lock);
	p->closing = true;
	while (p->waiters)
		answer(p, NULL, &closed);
	for (unsigned i = 0; p->slots && i < p->o.max; i++)
		if (p->slots[i].state == SLOT_IDLE || p->slots[i].state == SLOT_LEASED ||
		    (p->slots[i].state == SLOT_REWINDING && !p->slots[i].taken))
			pool_move(p, &p->slots[i], SLOT_ENDING);
	pthread_cond_broadcast(&p->work);
	while (p->num_callers)
		pthread_cond_wait(&p->left, &p->lock);
	pthread_mutex_unlock(&p->lock);
	if (p->wake >= 0)
		wake_watcher(p);
	pool_threads_join(p);
	fd_close(p->wake);
	pthread_cond_destroy(&p->work);
	pthread_cond_destroy(&p->left);
	pthread_mutex_destroy(&p->lock);
	free(p->slots);
	free(p);
	return NULL;
}
