/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plain engine: one thread a disk that does requests with ordinary calls, so that a slow disk never holds up the
 * event loop. One thread is also what makes merging partial blocks safe (blk_chain.h).
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "virtio/blk_internal.h"

#define STACK_SIZE (128 * KIB)

struct list {
	struct blk_request *head, **tail;
};

struct blk_worker {
	struct blk_chain *chain;
	struct blk_worker_options options;
	int eventfd;
	struct loop_source *source;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t work, idle;
	/* Under the lock: */
	struct list todo, finished;
	bool busy, stop;
};

static void list_init(struct list *l)
{
	l->head = NULL;
	l->tail = &l->head;
}

static void list_add(struct list *l, struct blk_request *req)
{
	req->next = NULL;
	*l->tail = req;
	l->tail = &req->next;
}

static struct blk_request *list_take(struct list *l)
{
	struct blk_request *req = l->head;

	if (!req)
		return NULL;
	l->head = req->next;
	if (!l->head)
		l->tail = &l->head;
	return req;
}

static int run_segments(struct blk_chain *chain, const struct blk_request *req)
{
	for (unsigned i = 0; i < req->num_segments; i++) {
		const struct blk_segment *s = &req->segments[i];
		int r = req->op == BLK_DISCARD ? blk_chain_discard(chain, s->off, s->len)
					       : blk_chain_write_zeroes(chain, s->off, s->len, s->unmap);

		if (r < 0)
			return r;
	}
	return 0;
}

static int run(struct blk_chain *chain, const struct blk_request *req)
{
	switch (req->op) {
	case BLK_READ:
		return blk_chain_read(chain, req->iov, req->num_iov, req->off, req->len);
	case BLK_WRITE:
		return blk_chain_write(chain, req->iov, req->num_iov, req->off, req->len);
	case BLK_FLUSH:
		return blk_chain_flush(chain);
	default:
		return run_segments(chain, req);
	}
}

static void *worker_main(void *arg)
{
	struct blk_worker *w = arg;
	struct blk_request *req;

	if (w->options.thread)
		w->options.thread(w->options.thread_arg);
	pthread_mutex_lock(&w->lock);
	while (!w->stop) {
		bool first;

		req = list_take(&w->todo);
		if (!req) {
			pthread_cond_wait(&w->work, &w->lock);
			continue;
		}
		w->busy = true;
		pthread_mutex_unlock(&w->lock);
		req->result = run(w->chain, req);
		pthread_mutex_lock(&w->lock);
		w->busy = false;
		first = !w->finished.head;
		list_add(&w->finished, req);
		if (!w->todo.head)
			pthread_cond_broadcast(&w->idle);
		/* The loop takes the whole list, so only the first of it needs to wake it. */
		if (first) {
			pthread_mutex_unlock(&w->lock);
			(void)eventfd_write(w->eventfd, 1);
			pthread_mutex_lock(&w->lock);
		}
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

static void deliver(struct blk_worker *w)
{
	struct list finished;
	struct blk_request *req;

	pthread_mutex_lock(&w->lock);
	finished = w->finished;
	if (!finished.head)
		finished.tail = &finished.head;
	list_init(&w->finished);
	pthread_mutex_unlock(&w->lock);
	while ((req = finished.head)) {
		finished.head = req->next;
		w->options.done(w->options.arg, req);
	}
}

static void on_event(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct blk_worker *w = arg;
	eventfd_t n;

	(void)eventfd_read(w->eventfd, &n);
	deliver(w);
	w->options.batch(w->options.arg);
}

void blk_worker_submit(struct blk_worker *w, struct blk_request *req)
{
	pthread_mutex_lock(&w->lock);
	list_add(&w->todo, req);
	if (!w->busy)
		pthread_cond_signal(&w->work);
	pthread_mutex_unlock(&w->lock);
}

void blk_worker_drain(struct blk_worker *w)
{
	pthread_mutex_lock(&w->lock);
	while (w->busy || w->todo.head)
		pthread_cond_wait(&w->idle, &w->lock);
	pthread_mutex_unlock(&w->lock);
	deliver(w);
}

static int start_thread(struct blk_worker *w)
{
	pthread_attr_t attr;
	sigset_t all, old;
	int r;

	/* Signals belong to the main thread: the worker is born with all of them blocked. */
	sigfillset(&all);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&w->thread, &attr, worker_main, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	return -r;
}

int blk_worker_new(struct blk_chain *chain, struct loop *loop, const struct blk_worker_options *options,
		   struct blk_worker **ret)
{
	struct blk_worker *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return -ENOMEM;
	w->chain = chain;
	w->options = *options;
	list_init(&w->todo);
	list_init(&w->finished);
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->work, NULL);
	pthread_cond_init(&w->idle, NULL);
	w->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = w->eventfd < 0 ? -errno : loop_add(loop, w->eventfd, EPOLLIN, on_event, w, &w->source);
	if (r == 0)
		r = start_thread(w);
	if (r < 0) {
		loop_remove(w->source);
		fd_close(w->eventfd);
		free(w);
		return r;
	}
	*ret = w;
	return 0;
}

struct blk_worker *blk_worker_free(struct blk_worker *w)
{
	if (!w)
		return NULL;
	pthread_mutex_lock(&w->lock);
	w->stop = true;
	pthread_cond_signal(&w->work);
	pthread_mutex_unlock(&w->lock);
	pthread_join(w->thread, NULL);
	loop_remove(w->source);
	fd_close(w->eventfd);
	pthread_mutex_destroy(&w->lock);
	pthread_cond_destroy(&w->work);
	pthread_cond_destroy(&w->idle);
	free(w);
	return NULL;
}
