/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A single-threaded event loop over epoll: descriptors and timers. Callbacks may add and remove any source,
 * also themselves. Not thread-safe; one loop per thread. Another thread wakes it through an eventfd source.
 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include <stdint.h>

#include "base/error.h"

struct loop;
struct loop_source;

/* events: EPOLLIN, EPOLLOUT, EPOLLHUP ... as epoll gives them. */
typedef void (*loop_fn)(struct loop *loop, struct loop_source *src, uint32_t events, void *arg);
typedef void (*loop_timer_fn)(struct loop *loop, struct loop_source *src, void *arg);

int loop_new(struct loop **ret) MUST_CHECK;
struct loop *loop_free(struct loop *loop); /* frees its sources too; closes none of their descriptors */

int loop_add(struct loop *loop, int fd, uint32_t events, loop_fn fn, void *arg, struct loop_source **ret) MUST_CHECK;
int loop_modify(struct loop_source *src, uint32_t events); /* 0 events: parked, not even EPOLLHUP is reported */
struct loop_source *loop_remove(struct loop_source *src);  /* NULL allowed; returns NULL */

/* A timer that fires once at an absolute monotonic time (time_now_ns()); 0 disarms. */
int loop_add_timer(struct loop *loop, loop_timer_fn fn, void *arg, struct loop_source **ret) MUST_CHECK;
void loop_timer_at(struct loop_source *timer, uint64_t when_ns);

int loop_run(struct loop *loop);		      /* until loop_stop; returns its code or -errno */
int loop_run_once(struct loop *loop, int timeout_ms); /* one wait; -1: for ever */
void loop_stop(struct loop *loop, int code);

/*
 * Lets other threads share the loop's objects under a lock: `enter` is called before each batch of callbacks and
 * `leave` after it, never around the wait. A thread that holds the same lock may add, modify and remove sources; a
 * timer that it arms is seen at the loop's next round only. Set before the loop runs.
 */
void loop_set_guard(struct loop *loop, void (*enter)(void *), void (*leave)(void *), void *arg);

#endif
