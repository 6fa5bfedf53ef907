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
/* Records as a tar stream. */
struct copy_tar;
int copy_tar_new(int fd, struct copy_tar **ret) MUST_CHECK;
struct copy_tar *copy_tar_free(struct copy_tar *t);
int copy_tar_feed(void *tar, const void *p, size_t len, struct sm_error *err);
bool copy_tar_ended(void *tar);
/* The end marker, once the stream has ended. */
int copy_tar_finish(struct copy_tar *t, struct sm_error *err) MUST_CHECK;

#endif
