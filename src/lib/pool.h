/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pool of VMs: its slots, and who waits for one.
 *
 *	FREE --(a worker)--> STARTING --> IDLE <--> LEASED --(release)--> REWINDING --(a worker)--> IDLE
 *	LEASED --(release of one that cannot go back)--> ENDING --(a worker)--> FREE
 *	FREE --(who is to have it: pool_lease.c)--> OWN --> LEASED
 *
 * pool.c is what callers do, under the lock and never for long; pool_threads.c the pool's own threads, which start and
 * end VMs and watch the idle ones. A VM is dead when its owner's connection has been closed by its keeper.
 */
#ifndef LIB_POOL_H
#define LIB_POOL_H

#include "lib/lib.h"

/* How VMs come and go: the real ways, or a test's. Called without the lock, by several threads at once. */
struct pool_ways {
	/* Until it may be leased, for limit_ns at most. lease (may be NULL): its mounts and ports beside the pool's. */
	int (*start)(struct sm_pool *p, const struct sm_lease_options *lease, uint64_t limit_ns, struct sm_vm **ret,
		     struct sm_error *err);
	void (*end)(struct sm_pool *p, struct sm_vm *vm);
	/* Undoes all that a lease has done, in one whose `marked` is set. */
	int (*rewind)(struct sm_pool *p, struct sm_vm *vm, struct sm_error *err);
	/* Gives one that runs the lease's ports. */
	int (*attach)(struct sm_pool *p, struct sm_vm *vm, const struct sm_lease_options *lease, struct sm_error *err);
};

enum slot_state {
	SLOT_FREE,
	SLOT_STARTING,
	SLOT_OWN,
	SLOT_IDLE,
	SLOT_LEASED,
	SLOT_REWINDING,
	SLOT_ENDING,
	SLOT_STATES
};

struct slot {
	enum slot_state state;
	bool taken; /* REWINDING, ENDING: by a worker */
	bool own;   /* LEASED: it has things of its lease, and ends with it */
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
	unsigned num_owners;			    /* who wait for a free slot, to start a VM of their own in it */
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
struct slot *pool_find(struct sm_pool *p, enum slot_state state); /* one that no worker has taken; NULL: none */
/* Whether a call that may not wait would have to. */
bool pool_all_leased(const struct sm_pool *p);
/* A thread enters, and leaves. */
int pool_enter(struct sm_pool *p, struct sm_error *err) MUST_CHECK;
void pool_leave(struct sm_pool *p);
void pool_deadline(const struct sm_pool *p, struct timespec *ret);
#define POOL_START_LIMIT_NS (600 * SECOND_NS)
/* pool_threads.c; without the lock: ways->start, of a VM that lives. */
int pool_start(struct sm_pool *p, const struct sm_lease_options *lease, uint64_t limit_ns, struct sm_vm **ret,
	       struct sm_error *err) MUST_CHECK;

/* pool_lease.c: the real ways' part of it */
int lease_start(struct sm_pool *p, const struct sm_lease_options *lease, struct sm_vm_options *o, struct sm_vm **ret,
		struct sm_error *err) MUST_CHECK;
int lease_attach(struct sm_pool *p, struct sm_vm *vm, const struct sm_lease_options *lease,
		 struct sm_error *err) MUST_CHECK;

/* pool_threads.c */
int pool_threads_start(struct sm_pool *p) MUST_CHECK;
void pool_threads_join(struct sm_pool *p);
/* When the pool has to look again for itself, having done what is due: ns, UINT64_MAX: never. Under the lock. */
uint64_t pool_tend(struct sm_pool *p, uint64_t now);

#endif
