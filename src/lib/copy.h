/* SPDX-License-Identifier: Apache-2.0 */
/* One COPY channel to a VM's agent, driven by the calling thread. See copy.c. */
#ifndef LIB_COPY_H
#define LIB_COPY_H

#include "copy/copy.h"
#include "lib/lib.h"

struct copy_run {
	struct conn conn;
	struct call call;
	bool connected;
	int cancel_fd;
	struct sm_progress progress;
	uint64_t sent;
	/* What comes goes here: 0 or -errno. */
	int (*feed)(void *arg, const void *p, size_t len, struct sm_error *err);
	bool (*ended)(void *arg);
	void *arg;
	int failed; /* -errno of the first thing that went wrong, told in own */
	struct sm_error own;
};

/* Opens the channel; copy_run_done in any case. */
int copy_run_open(struct copy_run *run, struct sm_vm *vm, const struct proto_copy *request,
		  struct sm_error *err) MUST_CHECK;
/* Until the answer's END. */
int copy_run_finish(struct copy_run *run, struct sm_error *err) MUST_CHECK;
void copy_run_done(struct copy_run *run);
/* "/PATH": absolute as the agent wants it; NULL: no memory. */
char *copy_guest_path(const char *path);

/* copytar.c: a tar stream's entries as records, until its end. */
int copy_from_tar(int fd, struct copy_out *out, struct sm_error *err) MUST_CHECK;
/* Records as a tar stream. A directory that is COPY_IMPLICIT is part of names alone. */
struct copy_tar;
int copy_tar_new(int fd, struct copy_tar **ret) MUST_CHECK;
struct copy_tar *copy_tar_free(struct copy_tar *t);
int copy_tar_feed(void *tar, const void *p, size_t len, struct sm_error *err);
bool copy_tar_ended(void *tar);
/* The end marker, once the stream has ended. */
int copy_tar_finish(struct copy_tar *t, struct sm_error *err) MUST_CHECK;
/* For who decodes the stream himself: the calls of this sink, with t, instead of copy_tar_feed. */
extern const struct copy_sink copy_tar_sink;
/* Where the stream goes instead of to the descriptor. write: 0 or -errno. */
void copy_tar_output(struct copy_tar *t, int (*write)(void *arg, const void *p, size_t len), void *arg);
void copy_tar_limit(struct copy_tar *t, uint64_t max); /* -EFBIG beyond; what holes come to counts */
uint64_t copy_tar_written(const struct copy_tar *t);

/*
 * layertar.c: changes (stream.h) as a tar stream, as the layers of images have them: "d/.wh.NAME" for what is gone,
 * ".wh..wh..opq" in a directory that took the place of another.
 */
struct layer_tar;
/* points: absolute paths at which something is mounted; a new directory that is only there on the way to one of them is
 * left out. They must outlive it. */
int layer_tar_new(int fd, uint64_t max, char *const *points, struct layer_tar **ret) MUST_CHECK;
struct layer_tar *layer_tar_free(struct layer_tar *l);
int layer_tar_feed(void *layer_tar, const void *p, size_t len, struct sm_error *err);
bool layer_tar_ended(void *layer_tar);
uint64_t layer_tar_written(const struct layer_tar *l);
int layer_tar_finish(struct layer_tar *l, struct sm_error *err) MUST_CHECK;

#endif
