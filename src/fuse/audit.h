/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a peer does to files, for whoever keeps a record of it: what it opens, makes, changes, renames and removes, and
 * whatever it is refused. Reading and writing themselves are not told: who may is told by the opening.
 */
#ifndef FUSE_AUDIT_H
#define FUSE_AUDIT_H

#include <stdbool.h>
#include <stdint.h>

struct fuse_audit {
	const char *op;	  /* "open", "create", ...: static */
	uint64_t nodeid;  /* the file, or with a name the directory that it is in */
	const char *name; /* NULL: none */
	uint64_t to;	  /* of a rename or link: the directory of the new name */
	const char *as;	  /* that name; NULL: neither */
	bool writes;	  /* it changes something, or may by what it has opened */
	int error;	  /* a positive errno; 0: it was done */
};

struct fuse_audit_port {
	/* Called by the threads that serve, before the reply is sent. What it gets lives as long as the call. */
	void (*note)(void *arg, const struct fuse_audit *a);
	void *arg;
};

#endif
