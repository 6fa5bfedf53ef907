/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A window through which the peer maps files (FUSE_SETUPMAPPING, FUSE_REMOVEMAPPING; virtio 1.2 section 5.11.6.4):
 * which part of which node lies where in it. The window is cut into places of FUSE_DAX_SLOT bytes, as Linux does it
 * (fs/fuse/dax.c); a mapping begins at a place and is not longer than one, so there are never more than places.
 *
 * Mappings of a node go when the peer forgets it, all of them at the session's end. Files are mapped through it that
 * the door offers, have FUSE_DAX_SLOT bytes at least, no set-id bits (a write through a mapping could not drop them),
 * and where they may be written no holes: one that cannot be filled for want of space could not be reported as an
 * error.
 *
 * Thread rules: one mutex of the session's orders all changes of the window.
 */
#ifndef FUSE_DAX_H
#define FUSE_DAX_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/error.h"

#define FUSE_DAX_SHIFT 21
#define FUSE_DAX_SLOT (1ULL << FUSE_DAX_SHIFT)

/*
 * Given by the door, which owns the window. at: a multiple of FUSE_DAX_SLOT; len: at most as much, inside the window.
 */
struct fuse_dax_port {
	uint64_t size; /* a multiple of FUSE_DAX_SLOT, not 0 */
	/* The most that files of this node's tree may be mapped with; 0: not at all. */
	int (*protection)(void *arg, uint64_t nodeid);
	/* Maps a file there instead of what was there; the descriptor stays the caller's. 0, or -errno: nothing is
	 * mapped there now. */
	int (*map)(void *arg, uint64_t at, uint64_t len, int fd, uint64_t offset, int protection);
	void (*unmap)(void *arg, uint64_t at);
	/*
	 * Where a file had become shorter than what was mapped of it, the door puts memory there instead. lost: how
	 * many places are in that state (atomic); NULL: never. is_lost: whether this one is, and how many of its bytes
	 * are still the file's.
	 */
	const unsigned *lost;
	bool (*is_lost)(void *arg, uint64_t at, uint64_t *ret_left);
	void *arg;
};

struct fuse_session;
struct dax;

/* NULL: out of memory. */
struct dax *dax_new(const struct fuse_dax_port *port);
struct dax *dax_free(struct dax *dax); /* NULL allowed; returns NULL. Nothing is unmapped. */

/* Unmaps everything. */
void dax_clear(struct fuse_session *s);
/* The peer has given back references: if that were the last, the node's mappings go. */
void dax_forgotten(struct fuse_session *s, uint64_t nodeid);
/* Whether the peer is told to map this file. */
bool dax_wanted(struct fuse_session *s, uint64_t nodeid, const struct stat *st);
/* A request has been served: files that are long enough again get their places back before the peer can know. */
void dax_settle(struct fuse_session *s);

#endif
