/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The DAX window: address space that the guest sees as the shared memory of its virtio-fs device, and into which files
 * of the host are mapped and unmapped while it runs (fuse/dax.h says which).
 *
 * All of it is one memory slot: what changes is the monitor's own mapping, and KVM follows that by itself. What no file
 * is mapped to reads as zeros and cannot be written. A file that shrinks on the host leaves pages behind that nobody
 * can provide. The guest's access to one ends KVM_RUN with EFAULT, but only while the guest takes no interrupts: else
 * KVM believes the page to be on its way from a disk and tries again and again. So a thread of the window's looks at
 * the places as long as there are any. Whoever finds it, dax_window_repair puts memory there: zeros, which take writes
 * where the file did, until the place is mapped anew.
 *
 * Thread rules: dax_window_map and _unmap are called by one thread at a time; repair may come in from any vCPU's thread
 * and the window's own beside them.
 */
#ifndef VMM_DAX_WINDOW_H
#define VMM_DAX_WINDOW_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define DAX_WINDOW_PLACE (2ULL << 20)

struct dax_place {
	uint32_t pages; /* mapped; 0: none */
	uint32_t file;	/* of these, as many were the file's when it was mapped; the others lay behind its end */
	uint32_t left;	/* and so many are since pages were lost; else == pages */
	bool writable;
};

struct dax_window {
	uint8_t *host; /* NULL: there is none */
	uint64_t size; /* a multiple of DAX_WINDOW_PLACE */
	pthread_mutex_t lock;
	struct dax_place *places;
	unsigned lost; /* places with pages that were replaced; atomic */
	unsigned used; /* places that are mapped; under the lock */
	int wake;      /* eventfd of the thread: there is something to look at, or it is over; -1 */
	bool started, stopping;
	pthread_t thread;
	void (*begin)(void *arg);
	void *arg;
	uint64_t repairs; /* places that repairs found; atomic */
};

int dax_window_open(struct dax_window *w, uint64_t size, struct sm_error *err) MUST_CHECK;
void dax_window_close(struct dax_window *w); /* one that was never opened, too, if it is zeros */
/* Starts the thread, which calls begin first. */
int dax_window_watch(struct dax_window *w, void (*begin)(void *arg), void *arg, struct sm_error *err) MUST_CHECK;

/* at: of a place; len: page-aligned, at most a place. On failure nothing is mapped there. 0 or -errno. */
int dax_window_map(struct dax_window *w, uint64_t at, uint64_t len, int fd, uint64_t offset, int prot) MUST_CHECK;
void dax_window_unmap(struct dax_window *w, uint64_t at);
/* Whether pages of the place were lost; *ret_left: the bytes at its beginning that are the file's. */
bool dax_window_is_lost(struct dax_window *w, uint64_t at, uint64_t *ret_left);

/*
 * After a fault. thorough 0 looks for what files have lost since they were mapped, 1 for what lies behind their ends
 * too (files may have grown between), 2 at every page. Returns how many places it mended; 0: none, the cause is
 * another.
 */
int dax_window_repair(struct dax_window *w, unsigned thorough);

#endif
