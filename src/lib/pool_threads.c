/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pool's own threads: workers, each of which starts or ends one VM at a time, and a watcher that notices when an idle
 * VM dies or has been idle for too long. All signals are blocked in them: the program's handlers run in its own.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/util.h"
#include "lib/pool.h"

#define MAX_WORKERS 64
#define SHORT_LIFE_NS SECOND_NS

/* ----------------------------------------------------------------------------------------------- workers */

struct slot *pool_find(struct sm_pool *p, enum slot_state state)
{
	for (unsigned i = 0; i < p->o.max; i++)
		if (p->slots[i].state == state && !p->slots[i].taken)
			return &p->slots[i];
	return NULL;
}

/* For those who wait, and then to have so many ready as the pool is to have. */
static bool start_wanted(const struct sm_pool *p)
{
	unsigned coming = p->count[SLOT_IDLE] + p->count[SLOT_STARTING] + p->count[SLOT_REWINDING];

	if (p->closing || p->count[SLOT_FREE] <= p->num_owners)
		return false;
	return coming < p->num_waiters || (coming < p->num_waiters + p->o.min && time_now_ns() >= p->not_before_ns);
}

int pool_start(struct sm_pool *p, const struct sm_lease_options *lease, uint64_t limit_ns, struct sm_vm **ret,
	       struct sm_error *err)
{
	int r = p->ways->start(p, lease, limit_ns, ret, err);

	if (r == 0 && !pool_vm_alive(*ret)) {
		p->ways->end(p, *ret);
		r = error_set(err, SM_ERROR_STATE, ESRCH, "pool: a VM ended as soon as it had started");
	}
	return r;
}

static void start_one(struct sm_pool *p, struct slot *s)
{
	struct sm_error err = {0};
	struct sm_vm *vm = NULL;
	int r;

	pool_move(p, s, SLOT_STARTING);
	pthread_mutex_unlock(&p->lock);
	r = pool_start(p, NULL, POOL_START_LIMIT_NS, &vm, &err);
	pthread_mutex_lock(&p->lock);
	if (r < 0) {
		pool_move(p, s, SLOT_FREE);
		if (!p->closing) {
			p->failures++;
			pool_failed(p, &err);
		}
		return;
	}
	p->restores++;
	s->vm = vm;
	s->started_ns = time_now_ns();
	pool_move(p, s, p->closing ? SLOT_ENDING : SLOT_IDLE);
	pool_hand_out(p);
}

static void end_one(struct sm_pool *p, struct slot *s)
{
	s->taken = true;
	pthread_mutex_unlock(&p->lock);
	p->ways->end(p, s->vm);
	pthread_mutex_lock(&p->lock);
	pool_move(p, s, SLOT_FREE);
}

/* One that cannot go back ends, as it would have otherwise. */
static void rewind_one(struct sm_pool *p, struct slot *s)
{
	int r;

	s->taken = true;
	pthread_mutex_unlock(&p->lock);
	r = p->ways->rewind(p, s->vm, NULL);
	pthread_mutex_lock(&p->lock);
	s->taken = false;
	p->restores += r == 0;
	pool_move(p, s, r < 0 || p->closing ? SLOT_ENDING : SLOT_IDLE);
	pool_hand_out(p);
}

static void *work(void *arg)
{
	struct sm_pool *p = arg;
	struct slot *s;

	pthread_mutex_lock(&p->lock);
	for (;;) {
		if ((s = pool_find(p, SLOT_REWINDING)))
			rewind_one(p, s);
		else if (start_wanted(p))
			start_one(p, pool_find(p, SLOT_FREE));
		else if ((s = pool_find(p, SLOT_ENDING)))
			end_one(p, s);
		else if (p->closing)
			break;
		else
			pthread_cond_wait(&p->work, &p->lock);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

/* ---------------------------------------------------------------------------------------------- the watcher */

static void bury(struct sm_pool *p, struct slot *s, uint64_t now)
{
	p->deaths++;
	/* A command that cannot last must not keep the host busy with starts. */
	if (now - s->started_ns < SHORT_LIFE_NS)
		pool_failed(p, NULL);
	else
		p->failed_in_row = 0;
	pool_move(p, s, SLOT_ENDING);
}

uint64_t pool_tend(struct sm_pool *p, uint64_t now)
{
	uint64_t next = UINT64_MAX;

	for (unsigned i = 0; i < p->o.max; i++) {
		struct slot *s = &p->slots[i];
		uint64_t over;

		if (s->state != SLOT_IDLE)
			continue;
		over = s->since_ns > UINT64_MAX - p->o.idle_timeout_ns ? UINT64_MAX
								       : s->since_ns + p->o.idle_timeout_ns;
		if (!pool_vm_alive(s->vm))
			bury(p, s, now);
		else if (p->count[SLOT_IDLE] > p->o.min && over <= now)
			pool_move(p, s, SLOT_ENDING);
		else if (p->count[SLOT_IDLE] > p->o.min)
			next = MIN(next, over);
	}
	if (p->not_before_ns > now)
		next = MIN(next, p->not_before_ns);
	else
		pthread_cond_broadcast(&p->work); /* starts may have been put off until now */
	return next;
}

/* The connections of the idle VMs, behind the pool's own descriptor. */
static unsigned fill(struct sm_pool *p, struct pollfd *fds)
{
	unsigned n = 1;

	fds[0] = (struct pollfd){.fd = p->wake, .events = POLLIN};
	for (unsigned i = 0; i < p->o.max; i++)
		if (p->slots[i].state == SLOT_IDLE)
			fds[n++] = (struct pollfd){.fd = p->slots[i].vm->owner_fd, .events = POLLRDHUP};
	return n;
}

static int timeout_of(uint64_t next, uint64_t now)
{
	return next == UINT64_MAX ? -1 : next <= now ? 0 : (int)MIN((next - now) / 1000000 + 1, 3600000ull);
}

struct watch {
	struct sm_pool *p;
	struct pollfd *fds;
};

static void *watch(void *arg)
{
	struct watch w = *(struct watch *)arg;
	struct sm_pool *p = w.p;
	uint64_t count, now;
	unsigned n;
	int timeout;

	free(arg);
	pthread_mutex_lock(&p->lock);
	while (!p->closing) {
		now = time_now_ns();
		timeout = timeout_of(pool_tend(p, now), now);
		n = fill(p, w.fds);
		pthread_mutex_unlock(&p->lock);
		/* A descriptor that was closed meanwhile, and maybe is another's now, is one look too many at worst. */
		if (poll(w.fds, n, timeout) > 0 && w.fds[0].revents)
			(void)!read(p->wake, &count, sizeof(count));
		pthread_mutex_lock(&p->lock);
	}
	pthread_mutex_unlock(&p->lock);
	free(w.fds);
	return NULL;
}

/* ----------------------------------------------------------------------------------------- all of them */

static unsigned num_workers(const struct sm_pool *p)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned n = p->o.threads ? p->o.threads : cpus > 1 ? (unsigned)cpus : 2;

	return MIN(MIN(n, p->o.max), (unsigned)MAX_WORKERS);
}

static int start_watcher(struct sm_pool *p)
{
	struct watch *w = calloc(1, sizeof(*w));
	int r = -ENOMEM;

	if (!w)
		return r;
	*w = (struct watch){.p = p, .fds = calloc((size_t)p->o.max + 1, sizeof(*w->fds))};
	if (w->fds)
		r = -pthread_create(&p->watcher, NULL, watch, w);
	if (r < 0) {
		free(w->fds);
		free(w);
	}
	p->watched = r == 0;
	return r;
}

int pool_threads_start(struct sm_pool *p)
{
	unsigned n = num_workers(p);
	sigset_t all, old;
	int r = 0;

	p->workers = calloc(n, sizeof(*p->workers));
	if (!p->workers)
		return -ENOMEM;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = start_watcher(p);
	while (r == 0 && p->num_workers < n) {
		r = -pthread_create(&p->workers[p->num_workers], NULL, work, p);
		p->num_workers += r == 0;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return r;
}

void pool_threads_join(struct sm_pool *p)
{
	for (unsigned i = 0; i < p->num_workers; i++)
		pthread_join(p->workers[i], NULL);
	if (p->watched)
		pthread_join(p->watcher, NULL);
	free(p->workers);
}
