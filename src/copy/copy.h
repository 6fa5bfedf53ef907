/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of this system as a stream (pack), a stream as files of this system (unpack), where a copy goes (place): the
 * same code for the host and, in the agent's child, for the guest. No name that the other end sent is ever resolved as
 * a path: each is one component under a directory that is held open.
 */
#ifndef COPY_COPY_H
#define COPY_COPY_H

#include "copy/stream.h"

struct copy_pack {
	bool follow;	/* path's own symbolic link; those inside the tree are always copied as links */
	unsigned list;	/* 1: what path is; 2: also what is directly in it; no contents. 0: all, with contents */
	bool no_xattrs; /* leave attributes out */
	bool sorted;	/* what is in a directory by name: the same tree gives the same stream */
};
/* Sends path as a tree whose root has this name, without an END. On failure nothing tells the peer: copy_put_error. */
int copy_pack(const char *path, const char *name, const struct copy_pack *options, struct copy_out *out,
	      struct sm_error *err) MUST_CHECK;

/*
 * Sends what an overlay's upper layer changes of its lower one, as changes (stream.h), without an END. Whiteouts and
 * opaque directories are the kernel's own, in the upper layer. skip: paths ("/proc") that are left out,
 * NULL-terminated. list: no contents. whole: all that a layer of an image has of them: every attribute, every directory
 * of the upper layer with what it is now (not COPY_IMPLICIT), and what a socket has hidden is gone.
 */
struct copy_changes {
	int upper, lower; /* directories */
	const char *const *skip;
	bool list, whole;
};
int copy_pack_changes(const struct copy_changes *c, struct copy_out *out, struct sm_error *err) MUST_CHECK;

/*
 * Docker's rules for the destination, path as the user wrote it: into it if it is a directory, else as it. contents:
 * the source is a directory of which the contents are meant ("SRC/."). into: it must be a directory that is there.
 * *ret_name: to free; "." for the directory *ret_parent itself.
 */
struct copy_place {
	bool contents, into, source_is_dir;
	const char *source_name; /* its last component */
};
int copy_place(const char *path, const struct copy_place *how, int *ret_parent, char **ret_name,
	       struct sm_error *err) MUST_CHECK;
/* The last component of a path as a user wrote it, "" for one that ends in "/.", ".." or is "/". To free. *contents: it
 * was written so that a directory's contents are meant. */
char *copy_source_name(const char *path, bool *contents);

struct copy_unpack_options {
	bool keep_ids;	/* owners as they are, set-id bits, capabilities, devices; else all is the caller's */
	bool untrusted; /* no set-id bits and capabilities unless keep_ids, no devices ever */
	bool changes;	/* COPY_GONE takes files and trees away; else it is refused */
};

struct copy_unpack;
/* The place is asked for when the first entry has come: path and how as for copy_place, but for source_is_dir and an
 * empty source_name, which then come from the stream. Strings must outlive it. */
int copy_unpack_new(const char *path, const struct copy_place *how, const struct copy_unpack_options *options,
		    struct copy_unpack **ret) MUST_CHECK;
struct copy_unpack *copy_unpack_free(struct copy_unpack *u);
/* For who decodes the stream himself: the calls of this sink, with u, instead of copy_unpack_feed. */
extern const struct copy_sink copy_unpack_sink;
int copy_unpack_feed(struct copy_unpack *u, const void *p, size_t len, struct sm_error *err) MUST_CHECK;
bool copy_unpack_ended(const struct copy_unpack *u); /* END has come */
/* How much was written so far. */
uint64_t copy_unpack_bytes(const struct copy_unpack *u);

/* Removes path: a file, an empty directory, or with recursive a tree; links are not followed. */
int copy_remove(const char *path, bool recursive, struct sm_error *err) MUST_CHECK;

#endif
