/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the named bytes of an image lie: a directory or a tar archive. Names are relative, '/'-separated, and come out
 * of digests that passed digest_valid, constants, or (docker) hostile JSON: neither kind of store reaches outside
 * itself by a name. Safe for parallel opens from several threads.
 */
#ifndef OCI_STORE_H
#define OCI_STORE_H

#include "oci/oci.h"

/* Bytes that come over a network, in order. */
struct remote {
	/* As extent_read, but each call must begin where the last one ended; err is filled. */
	ssize_t (*read)(struct remote *self, uint64_t at, void *p, size_t len, struct sm_error *err);
	void (*stop)(struct remote *self); /* from any thread: a read that waits ends, with -ECANCELED */
	void (*close)(struct remote *self);
};

/* Bytes [offset, offset + size) of a descriptor, or of what is remote. Close with extent_close. */
struct extent {
	int fd;
	uint64_t offset, size;
	struct remote *remote; /* NULL: it is the descriptor's */
};
void extent_close(struct extent *e);
/* Reads up to len bytes at `at` of the extent; short only at its end (or where the file shrank). Count or -errno. */
ssize_t extent_read(const struct extent *e, uint64_t at, void *p, size_t len);

struct store {
	/* 0; -ENOENT: no such name (err untouched, the caller knows what it wanted); else err is filled. */
	int (*open)(struct store *self, const char *name, struct extent *ret, struct sm_error *err);
	void (*free)(struct store *self);
};

/* A directory. Links are followed for a blob, whose digest is checked, but no name leads out by "..", and only regular
 * files open. */
int store_dir_open(const char *path, struct store **ret, struct sm_error *err) MUST_CHECK;

/* A tar archive: its members are indexed once, their data is read by offset afterwards. Takes fd over, also on failure.
 * `what` names it in errors. Of members with one name the last counts; symbolic and hard links lead to members. */
int store_tar_open(int fd, const char *what, struct store **ret, struct sm_error *err) MUST_CHECK;

/* All of a member, NUL-terminated, of at most max bytes; -ENOENT as above, -EFBIG with err filled. */
int store_read(struct store *s, const char *name, size_t max, char **ret, size_t *ret_len,
	       struct sm_error *err) MUST_CHECK;

#endif
