/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mark: what a machine is at one moment, kept in memory by its own monitor, which can go back to it any number of
 * times without a new process, KVM machine or file. All that the guest has done since is undone: its memory is what it
 * was, page by page, its vCPUs, clock and devices are loaded as a snapshot's (snapshot.h), its disk forgets what was
 * written. Connections are cut, as at a restore; but the agent's, if it is the only one and was quiet when the mark was
 * taken: to the guest it goes on, and behind it is another socket.
 *
 * Of the memory a copy is kept of each page that the guest had written by then, which are few (those that a restore
 * copies from its file, and what has come since); every other page is the file's own, or nothing: it is read from there
 * again, or given up.
 */
#ifndef VMM_MARK_H
#define VMM_MARK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "virtio/vsock.h"

struct vm;
struct ram;

#define MARK_PAGES_MAX 16384u /* 64 MiB: a mark is for a guest that has just come up */

/* The pages of a mark; ram_mark_done also after a failure. */
struct ram_mark {
	uint8_t *kept;	/* a bit a page of RAM: there is a copy of it */
	uint8_t *pages; /* these copies, by rising page */
	uint64_t num;
};

struct mark {
	bool set;
	struct ram_mark ram;
	struct buf arch, devices;
	struct virtio_vsock_kept agent;
};

/*
 * In the loop, with the lock held. Takes the place of an earlier mark. agent: what the agent's connection goes on with,
 * also after a failure; taken over in any case. top: an empty file, in which the writable disk goes on; -1: there is
 * none. Taken over on success. A failure leaves the rest of the machine as it was, without a mark. *ret_pause_ns: how
 * long it stood still. SM_ERROR_UNSUPPORTED: of a machine that shares directories, or without a pagemap.
 */
int mark_take(struct vm *vm, int agent, int *top, uint64_t *ret_pause_ns, struct sm_error *err) MUST_CHECK;
/*
 * Goes back. agent: a socket for the agent's connection, taken over in any case. After a failure the machine is nothing
 * that could run on.
 */
int mark_rewind(struct vm *vm, int agent, struct sm_error *err) MUST_CHECK;
void mark_done(struct mark *m);

/* mark_ram.c: -E2BIG: more than MARK_PAGES_MAX pages, -ENOSYS: no pagemap. */
int ram_mark_take(const struct ram *ram, struct ram_mark *ret) MUST_CHECK;
int ram_mark_rewind(const struct ram *ram, const struct ram_mark *m) MUST_CHECK;
void ram_mark_done(struct ram_mark *m);

#endif
