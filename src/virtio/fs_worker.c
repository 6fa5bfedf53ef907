/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The threads of a virtio-fs device. All of them wait for the doorbells in one edge-triggered epoll instance, so that a
 * kick wakes one. Whoever wakes takes requests until there are none: in the usual case of one process in the guest that
 * waits for each answer, one thread serves all and no other ever runs.
 *
 * - While a request is served and another thread is idle, the driver is asked for kicks, and one more thread is woken
 * if requests are waiting already: what blocks holds up nobody. When all are busy kicks would be for nothing.
 * - An idle thread that just served something looks at the ring for a short while before it sleeps: the guest's next
 *   request then costs neither an exit nor a wake-up.
 * - FORGET, on the queue of its own, has no answer that anybody waits for: after one, the queue is looked at every few
 *   milliseconds, without kicks, until it has been empty for one such period.
 * - Interrupts are raised right here when the monitor's lock is free, else by the event loop.
 *
 * `lock` guards the rings and all fields below it. It is never held while a request is served.
 */
#include "virtio/fs_worker.h"

#include <endian.h>
#include <errno.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"

#define STACK_SIZE (256 * KIB)
#define DEFAULT_THREADS 4
#define LAZY_MS 5
#define PAIR_MS 50	/* without a request, and a pair is none */
#define BULK (64 * KIB) /* of one request: moved faster by two CPUs */
#define BULK_NS 20000000U
#define PAIR_NS 250000000U
#define POLL_LEAST_NS 10000U
#define POLL_MOST_NS 100000U
#define BOUNCE_MAX (4 * MIB) /* of one direction of a request that has buffers in a window */
#define FORGET_TURN 16	     /* requests, after which a FORGET goes first */
#define HOLD_LOOK_NS 1000000
#define STOP FS_NUM_QUEUES /* epoll's datum for the end; smaller ones are queues */

struct fs_pool {
	struct virtio_device *dev;
	ssize_t (*serve)(void *arg, const struct iovec *in, int num_in, const struct iovec *out, int num_out);
	void (*thread)(void *arg);
	bool (*pair)(void *arg, bool together);
	void *arg;
	int epoll, kick[FS_NUM_QUEUES], stop, later;
	struct loop_source *source; /* of later */
	unsigned num_threads;
	cpu_set_t all_cpus; /* that this process may use */
	bool alone; /* there is only one: all threads are where the guest is, and who waits leaves it to others */
	struct worker *paired; /* shares a CPU with the guest's thread; under the lock */
	uint64_t pair_until, bulk_until;
	pthread_t threads[VIRTIO_FS_MAX_THREADS];

	pthread_mutex_t lock;
	pthread_cond_t quiet;	    /* busy became 0 */
	struct virtio_irq_port irq; /* the device's, as of activation */
	bool running;		    /* requests may be taken */
	bool held;		    /* they may not, until fs_pool_release */
	bool dropping;		    /* the rings are the driver's again: what is being served has no answer */
	bool stale;		    /* a session may be left over from before a reset */
	bool lazy;		    /* the hiprio queue is looked at by time */
	bool watched;		    /* and a thread sleeps that will */
	bool polling;		    /* a thread looks at the request queue */
	uint64_t poll_ns, quiet_since;
	unsigned turn;	    /* requests taken */
	unsigned busy;	    /* threads that touch guest memory */
	unsigned idle;	    /* threads that wait in epoll */
	const char *broken; /* why the device is; NULL: it is not */
	unsigned deferred;  /* queues whose interrupt the event loop is to raise */
	struct virtio_fs_stats stats;
};

struct worker {
	struct fs_pool *pool;
	struct virtq_chain chain;
	unsigned queue; /* of the chain */
	bool pinned;	/* to one CPU: that of the guest's thread when they were paired */
};

static struct virtqueue *queue_of(struct fs_pool *p, unsigned queue)
{
	return &p->dev->queues[queue];
}

/* ------------------------------------------------------------------------------------------- interrupts */

/* In the event loop, under the device lock: what a thread could not do by itself. */
static void on_later(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct fs_pool *p = arg;
	struct virtio_device *dev = p->dev;
	const char *broken;
	unsigned queues;
	eventfd_t n;

	(void)eventfd_read(p->later, &n);
	pthread_mutex_lock(&p->lock);
	broken = p->broken;
	queues = p->deferred;
	p->deferred = 0;
	pthread_mutex_unlock(&p->lock);
	if (!dev->active)
		return;
	for (unsigned q = 0; q < FS_NUM_QUEUES; q++)
		if (queues & (1U << q) && dev->irq.queue)
			dev->irq.queue(dev->irq.arg, q);
	if (broken && !dev->broken)
		virtio_device_broken(dev, broken);
}

static void break_locked(struct fs_pool *p, const char *why)
{
	p->broken = why;
	(void)eventfd_write(p->later, 1);
}

/* Raises the queue's interrupt if the driver wants one. The lock is let go of for the call. */
static void signal_locked(struct fs_pool *p, unsigned queue)
{
	struct virtio_irq_port irq = p->irq;
	bool done;

	if (!virtq_should_signal(queue_of(p, queue)))
		return;
	p->stats.interrupts++;
	p->busy++; /* a reset waits until the interrupt is out */
	pthread_mutex_unlock(&p->lock);
	done = irq.try_queue && irq.try_queue(irq.arg, queue);
	pthread_mutex_lock(&p->lock);
	if (!--p->busy)
		pthread_cond_broadcast(&p->quiet);
	if (done)
		return;
	p->stats.deferred++;
	p->deferred |= 1U << queue;
	(void)eventfd_write(p->later, 1);
}

/* --------------------------------------------------------------------------------------------- requests */

/* The answer to a request whose buffers are gone. Without its header there is nobody to answer. */
static ssize_t answer_lost(struct virtq_chain *chain)
{
	struct fuse_in_header in;
	struct fuse_out_header out = {.len = htole32(sizeof(out)), .error = (int32_t)htole32((uint32_t)-EFAULT)};

	if (virtq_chain_read(chain, 0, &in, sizeof(in)) < 0 || chain->len_write < sizeof(out))
		return 0;
	out.unique = in.unique;
	return virtq_chain_write(chain, 0, &out, sizeof(out)) < 0 ? 0 : (ssize_t)sizeof(out);
}

/* A request with buffers in a window, whose file may have shrunk: only system calls may touch it, so it is copied. */
static ssize_t serve_bounced(struct fs_pool *p, struct virtq_chain *chain)
{
	_free_ uint8_t *in = NULL, *out = NULL;
	struct iovec iin = {.iov_len = chain->len_read}, iout = {.iov_len = chain->len_write};
	ssize_t n;

	if (chain->len_read > BOUNCE_MAX || chain->len_write > BOUNCE_MAX)
		return -EPROTO;
	iin.iov_base = in = malloc(chain->len_read + 1);
	iout.iov_base = out = malloc(chain->len_write + 1);
	if (!in || !out)
		return -EPROTO;
	if (virtq_chain_read(chain, 0, in, chain->len_read) < 0)
		return answer_lost(chain);
	n = p->serve(p->arg, &iin, 1, &iout, 1);
	return n > 0 && virtq_chain_write(chain, 0, out, (size_t)n) < 0 ? answer_lost(chain) : n;
}

static ssize_t serve(struct fs_pool *p, struct virtq_chain *chain)
{
	if (chain->windows)
		return serve_bounced(p, chain);
	return p->serve(p->arg, chain->read, (int)chain->num_read, chain->write, (int)chain->num_write);
}

static void count_locked(struct fs_pool *p, const struct virtq_chain *chain)
{
	uint32_t opcode = ARRAY_SIZE(p->stats.ops);

	p->stats.requests++;
	if (chain->num_read && !chain->windows && chain->read[0].iov_len >= 8)
		memcpy(&opcode, (uint8_t *)chain->read[0].iov_base + 4, sizeof(opcode));
	if (opcode < ARRAY_SIZE(p->stats.ops))
		p->stats.ops[opcode]++;
}

/* The session of a driver that was reset without a goodbye. Under the lock: nothing else may be served meanwhile. */
static void end_session_locked(struct fs_pool *p)
{
	struct fuse_in_header h = {.len = sizeof(h), .opcode = FUSE_DESTROY};
	struct fuse_out_header reply;
	struct iovec in = {&h, sizeof(h)}, out = {&reply, sizeof(reply)};

	p->stale = false;
	(void)p->serve(p->arg, &in, 1, &out, 1);
}

/*
 * The next request of any queue; false when there is none (or no more, for the device is broken). What somebody waits
 * for comes first, but not for ever.
 */
static bool take_locked(struct worker *w)
{
	struct fs_pool *p = w->pool;
	unsigned first;

	if (p->running && p->stale)
		end_session_locked(p);
	first = p->turn++ % FORGET_TURN ? FS_QUEUE_REQUEST : FS_QUEUE_HIPRIO;
	for (unsigned i = 0; i < FS_NUM_QUEUES && p->running && !p->broken; i++) {
		unsigned q = (first + i) % FS_NUM_QUEUES;
		int r = virtq_pop(queue_of(p, q), &w->chain);

		w->queue = q;
		if (r > 0)
			return true;
		if (r < 0)
			break_locked(p, "bad descriptor chain");
	}
	return false;
}

/* Lets another thread take what comes, or has come, while this one serves. */
static void share_locked(struct fs_pool *p)
{
	if (p->idle && virtq_enable_notify(queue_of(p, FS_QUEUE_REQUEST)))
		(void)eventfd_write(p->kick[FS_QUEUE_REQUEST], 1);
}

static void serve_locked(struct worker *w)
{
	struct fs_pool *p = w->pool;
	ssize_t n;

	count_locked(p, &w->chain);
	if (w->chain.len_read + w->chain.len_write > BULK)
		p->bulk_until = time_now_ns() + BULK_NS;
	p->busy++;
	if (w->queue == FS_QUEUE_REQUEST) /* a FORGET is done before another thread would be awake */
		share_locked(p);
	pthread_mutex_unlock(&p->lock);
	n = serve(p, &w->chain);
	pthread_mutex_lock(&p->lock);
	if (!--p->busy)
		pthread_cond_broadcast(&p->quiet);
	if (p->dropping)
		return;
	if (n < 0 && w->queue == FS_QUEUE_REQUEST) {
		break_locked(p, "a request too broken to answer");
		return;
	}
	virtq_push(queue_of(p, w->queue), w->chain.head, n > 0 ? (uint32_t)n : 0);
	if (w->queue == FS_QUEUE_REQUEST)
		signal_locked(p, FS_QUEUE_REQUEST);
	else
		p->lazy = true; /* its interrupt comes with the others' */
}

/* Whether the driver has made something available since; asks it for kicks if not. */
static bool arm_locked(struct fs_pool *p)
{
	bool more;

	if (!p->running || p->broken)
		return false;
	signal_locked(p, FS_QUEUE_HIPRIO);
	if (!p->running)
		return false;
	more = virtq_enable_notify(queue_of(p, FS_QUEUE_REQUEST));
	return more || (!p->lazy && virtq_enable_notify(queue_of(p, FS_QUEUE_HIPRIO)));
}

/*
 * Looks for the next request without asking for a kick: true if there is one. How long is learnt: the time doubles when
 * a kick comes right after it was given up, up to what a guest needs to get its answer and ask anew; it shrinks when
 * looking was for nothing.
 */
static bool poll_locked(struct fs_pool *p)
{
	struct virtqueue *vq = queue_of(p, FS_QUEUE_REQUEST);
	uint64_t until;
	bool found = false;

	if (!p->poll_ns || p->polling || !p->running || p->broken)
		return false;
	virtq_disable_notify(vq);
	p->polling = true;
	p->busy++;
	until = time_now_ns() + p->poll_ns;
	pthread_mutex_unlock(&p->lock);
	for (;;) {
		for (unsigned i = 0; i < 32 && !found; i++) {
			__builtin_ia32_pause();
			found = virtq_pending(vq);
		}
		if (found || !__atomic_load_n(&p->running, __ATOMIC_RELAXED) || time_now_ns() >= until)
			break;
		sched_yield(); /* the CPU goes first to whom our interrupt woke */
	}
	pthread_mutex_lock(&p->lock);
	if (!--p->busy)
		pthread_cond_broadcast(&p->quiet);
	p->polling = false;
	p->stats.polled += found;
	if (!found)
		p->poll_ns = p->poll_ns > POLL_LEAST_NS ? p->poll_ns / 2 : 0;
	return found && p->running;
}

/* A kick came: soon enough to have been worth waiting for? */
static void learn_locked(struct fs_pool *p)
{
	if (time_now_ns() - p->quiet_since < POLL_MOST_NS)
		p->poll_ns = MIN(MAX(p->poll_ns * 2, POLL_LEAST_NS), POLL_MOST_NS);
}

static void drain_locked(struct worker *w)
{
	struct fs_pool *p = w->pool;

	do
		while (take_locked(w))
			serve_locked(w);
	while ((!w->pinned && !p->alone && poll_locked(p)) || arm_locked(p));
}

/* ---------------------------------------------------------------------------------------------- threads */

/* Sleeps until a doorbell rings or that time is over (-1: never); false at the end. */
static bool wait_unlocked(struct fs_pool *p, int most_ms, bool *ret_kicked)
{
	struct epoll_event e;
	int n;

	do
		n = epoll_wait(p->epoll, &e, 1, most_ms);
	while (n < 0 && errno == EINTR);
	*ret_kicked = n > 0;
	return n == 0 || (n > 0 && e.data.u32 != STOP);
}

static void part_locked(struct worker *w)
{
	struct fs_pool *p = w->pool;

	if (p->paired == w) {
		p->paired = NULL;
		p->pair(p->arg, false);
	}
	w->pinned = false;
	/* If it fails the thread stays where it is: slower, not wrong. */
	if (sched_setaffinity(0, sizeof(p->all_cpus), &p->all_cpus) < 0)
		return;
}

/*
 * The thread that serves a guest who waits goes to the CPU where that happens: the doorbell and the interrupt are then
 * a switch of tasks each, and nobody waits until another CPU has woken up. Not while much data is moved: that gains
 * more by a CPU of its own. Both threads are held there, else whatever CPU is idle takes the one away while it waits
 * for the other; for a short time, so that the scheduler has its say again. A thread that works beside others runs
 * wherever there is room.
 */
static void pair_locked(struct worker *w)
{
	struct fs_pool *p = w->pool;
	uint64_t now = time_now_ns();

	if (now < p->bulk_until) {
		if (w->pinned)
			part_locked(w);
		return;
	}
	if (now < p->pair_until && (p->busy || p->paired == w))
		return;
	if (p->busy) { /* the one that was paired is, and for long */
		if (p->paired)
			p->pair(p->arg, false);
		p->paired = NULL;
		return;
	}
	if (w->pinned)
		part_locked(w);
	if (!p->pair || !p->pair(p->arg, true))
		return;
	w->pinned = true;
	p->paired = w; /* another one of before follows at its next awakening */
	p->pair_until = now + PAIR_NS;
}

static void *worker_run(void *arg)
{
	struct worker *w = arg;
	struct fs_pool *p = w->pool;
	bool more = true;

	prctl(PR_SET_NAME, "fs");
	if (p->thread)
		p->thread(p->arg);
	pthread_mutex_lock(&p->lock);
	drain_locked(w); /* nobody sleeps without having asked for kicks: another may count on it */
	while (more) {
		bool watch = p->lazy && !p->watched, kicked;

		p->watched |= watch;
		p->idle++;
		pthread_mutex_unlock(&p->lock);
		more = wait_unlocked(p, watch ? LAZY_MS : w->pinned ? PAIR_MS : -1, &kicked);
		pthread_mutex_lock(&p->lock);
		p->idle--;
		p->stats.wakes += kicked;
		if (kicked) {
			learn_locked(p);
			pair_locked(w);
		} else if (w->pinned) {
			part_locked(w);
		}
		if (watch)
			p->watched = false;
		if (watch && !kicked) /* back to kicks, unless a FORGET is found now */
			p->lazy = false;
		if (more)
			drain_locked(w);
		p->quiet_since = time_now_ns();
	}
	pthread_mutex_unlock(&p->lock);
	free(w);
	return NULL;
}

static int start_thread(struct fs_pool *p)
{
	struct worker *w = malloc(sizeof(*w));
	pthread_attr_t attr;
	sigset_t all, old;
	int r;

	if (!w)
		return -ENOMEM;
	w->pool = p;
	w->pinned = false;
	/* Signals belong to the main thread: the worker is born with all of them blocked. */
	sigfillset(&all);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&p->threads[p->num_threads], &attr, worker_run, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (r)
		free(w);
	else
		p->num_threads++;
	return -r;
}

static int watch(struct fs_pool *p, int *ret, uint32_t datum)
{
	struct epoll_event e = {.events = datum == STOP ? EPOLLIN : EPOLLIN | EPOLLET, .data.u32 = datum};

	*ret = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return *ret < 0 || epoll_ctl(p->epoll, EPOLL_CTL_ADD, *ret, &e) < 0 ? -errno : 0;
}

static int open_all(struct fs_pool *p)
{
	int r;

	p->epoll = epoll_create1(EPOLL_CLOEXEC);
	p->later = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (p->epoll < 0 || p->later < 0)
		return -errno;
	r = watch(p, &p->stop, STOP);
	for (unsigned q = 0; q < FS_NUM_QUEUES && r == 0; q++)
		r = watch(p, &p->kick[q], q);
	return r < 0 ? r : loop_add(p->dev->loop, p->later, EPOLLIN, on_later, p, &p->source);
}

int fs_pool_new(struct virtio_device *dev, const struct virtio_fs_options *options, struct fs_pool **ret)
{
	struct fs_pool *p = calloc(1, sizeof(*p));
	unsigned threads = options->threads ? MIN(options->threads, VIRTIO_FS_MAX_THREADS) : DEFAULT_THREADS;
	int r;

	if (!p)
		return -ENOMEM;
	p->dev = dev;
	p->serve = options->serve;
	p->thread = options->thread;
	p->pair = options->pair;
	p->arg = options->arg;
	p->epoll = p->stop = p->later = -1;
	for (unsigned q = 0; q < FS_NUM_QUEUES; q++)
		p->kick[q] = -1;
	if (sched_getaffinity(0, sizeof(p->all_cpus), &p->all_cpus) < 0)
		p->pair = NULL;
	p->alone = p->pair && CPU_COUNT(&p->all_cpus) == 1;
	if (p->alone)
		p->pair = NULL;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->quiet, NULL);
	r = open_all(p);
	for (unsigned i = 0; i < threads && r == 0; i++)
		r = start_thread(p);
	if (r < 0) {
		fs_pool_free(p);
		return r;
	}
	*ret = p;
	return 0;
}

struct fs_pool *fs_pool_free(struct fs_pool *p)
{
	if (!p)
		return NULL;
	fs_pool_stop(p, false);
	(void)eventfd_write(p->stop, 1);
	for (unsigned i = 0; i < p->num_threads; i++)
		pthread_join(p->threads[i], NULL);
	loop_remove(p->source);
	fd_close(p->later);
	fd_close(p->stop);
	for (unsigned q = 0; q < FS_NUM_QUEUES; q++)
		fd_close(p->kick[q]);
	fd_close(p->epoll);
	pthread_cond_destroy(&p->quiet);
	pthread_mutex_destroy(&p->lock);
	free(p);
	return NULL;
}

void fs_pool_run(struct fs_pool *p)
{
	pthread_mutex_lock(&p->lock);
	p->irq = p->dev->irq;
	p->broken = NULL;
	p->deferred = 0;
	p->dropping = false;
	p->running = true;
	pthread_mutex_unlock(&p->lock);
	fs_pool_kick(p, FS_QUEUE_REQUEST); /* the driver may have been quick */
}

void fs_pool_stop(struct fs_pool *p, bool again)
{
	bool ran;

	pthread_mutex_lock(&p->lock);
	ran = p->running;
	__atomic_store_n(&p->running, false, __ATOMIC_RELAXED);
	p->dropping = !again;
	while (p->busy)
		pthread_cond_wait(&p->quiet, &p->lock);
	p->running = again && ran;
	p->stale |= ran && !again;
	pthread_mutex_unlock(&p->lock);
	if (again && ran)
		fs_pool_kick(p, FS_QUEUE_REQUEST);
}

static bool is_quiet_locked(struct fs_pool *p)
{
	if (p->busy)
		return false;
	if (p->broken)
		return true;
	return !virtq_pending(queue_of(p, FS_QUEUE_REQUEST)) && !virtq_pending(queue_of(p, FS_QUEUE_HIPRIO));
}

int fs_pool_hold(struct fs_pool *p, uint64_t limit_ns)
{
	uint64_t until = time_now_ns() + limit_ns;
	int r = 0;

	pthread_mutex_lock(&p->lock);
	while (p->running && !is_quiet_locked(p) && r == 0) {
		struct timespec ts;

		r = time_now_ns() < until ? 0 : -ETIMEDOUT;
		clock_gettime(CLOCK_REALTIME, &ts);
		ts.tv_nsec += HOLD_LOOK_NS;
		ts.tv_sec += ts.tv_nsec / 1000000000;
		ts.tv_nsec %= 1000000000;
		for (unsigned q = 0; q < FS_NUM_QUEUES; q++)
			fs_pool_kick(p, q);
		pthread_cond_timedwait(&p->quiet, &p->lock, &ts);
	}
	if (r == 0 && p->running) {
		p->held = true;
		__atomic_store_n(&p->running, false, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&p->lock);
	return r;
}

void fs_pool_release(struct fs_pool *p)
{
	bool held;

	pthread_mutex_lock(&p->lock);
	held = p->held;
	p->held = false;
	p->running |= held;
	pthread_mutex_unlock(&p->lock);
	for (unsigned q = 0; held && q < FS_NUM_QUEUES; q++)
		fs_pool_kick(p, q);
}

int fs_pool_doorbell(const struct fs_pool *p, unsigned queue)
{
	return p->kick[queue];
}

void fs_pool_kick(struct fs_pool *p, unsigned queue)
{
	(void)eventfd_write(p->kick[queue], 1); /* full: it is known to have rung */
}

void fs_pool_get_stats(struct fs_pool *p, struct virtio_fs_stats *ret)
{
	pthread_mutex_lock(&p->lock);
	*ret = p->stats;
	pthread_mutex_unlock(&p->lock);
}

const int virtio_fs_worker_syscalls[] = {SYS_epoll_wait,
					 SYS_epoll_pwait,
					 SYS_write,
					 SYS_futex,
					 SYS_mmap,
					 SYS_munmap,
					 SYS_brk,
					 SYS_madvise,
					 SYS_exit,
					 SYS_rt_sigprocmask,
					 SYS_sched_setaffinity,
					 -1};
