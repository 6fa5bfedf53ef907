/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pool of VMs: its slots, and who waits for one.
 *
 *	FREE --(a worker)--> STARTING --> IDLE <--> LEASED --(release)--> ENDING --(a worker)--> FREE
 *
 * pool.c is what callers do, under the lock and never for long; pool_threads.c the pool's own threads, which start and
 * end VMs and watch the idle ones. A VM is dead when its owner's connection has been closed by its keeper.
 */
#ifndef LIB_POOL_H
#define LIB_POOL_H

#include "lib/lib.h"

/* How VMs come and go: the real ways, or a test's. Called without the lock, by several threads at once. */
struct pool_ways {
	int (*start)(struct sm_pool *p, struct sm_vm **ret, struct sm_error *err); /* until it may be leased */
	void (*end)(struct sm_pool *p, struct sm_vm *vm);
};

enum slot_state { SLOT_FREE, SLOT_STARTING, SLOT_IDLE, SLOT_LEASED, SLOT_ENDING, SLOT_STATES };

struct slot {
	enum slot_state state;
	bool taken; /* ENDING: by a worker */
	struct sm_vm *vm;
	uint64_t started_ns, since_ns; /* since: it has been idle */
};

/* A thread in sm_pool_acquire. */
struct pool_waiter {
	struct pool_waiter *next;
	pthread_cond_t cond;
	struct sm_vm *vm; /* what it gets; NULL with error.kind: why it gets none */
	struct sm_error error;
};

struct sm_pool {
	/* fixed */
	struct sm_client *client;
	const struct pool_ways *ways;
	struct sm_pool_options o;
	struct sm_vm_options vm;
	int wake; /* eventfd for the watcher */
	pthread_t *workers, watcher;
	unsigned num_workers;
	bool watched;
	/* lock: all below. work: something for workers */
	pthread_mutex_t lock;
	pthread_cond_t work, left;
	struct slot *slots; /* o.max of them */
	unsigned count[SLOT_STATES];
	struct pool_waiter *waiters, **waiters_end; /* first come, first served */
	unsigned num_waiters, num_callers;	    /* callers: threads inside sm_pool_acquire */
	unsigned failed_in_row;
	uint64_t not_before_ns; /* nobody waits: no start before then */
	uint64_t acquires, hits, restores, failures, deaths;
	bool closing;
};

int pool_new(struct sm_client *c, const struct pool_ways *ways, const struct sm_pool_options *o, struct sm_pool **ret,
	     struct sm_error *err) MUST_CHECK;

/* pool.c, under the lock */
void pool_move(struct sm_pool *p, struct slot *s, enum slot_state to);
void pool_hand_out(struct sm_pool *p); /* idle VMs to those who wait */
/* A start failed: who waits longest is told, if there is something to tell; the next one is put off, unless somebody
 * waits for it. */
void pool_failed(struct sm_pool *p, const struct sm_error *err);
bool pool_vm_alive(const struct sm_vm *vm);

/* pool_threads.c */
int pool_threads_start(struct sm_pool *p) MUST_CHECK;
void pool_threads_join(struct sm_pool *p);
/* When the pool has to look again for itself, having done what is due: ns, UINT64_MAX: never. Under the lock. */
uint64_t pool_tend(struct sm_pool *p, uint64_t now);

#endif
