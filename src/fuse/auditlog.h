/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A record of what a peer does to the host's files: a line of JSON for each (audit.h), appended to a file that somebody
 * has opened.
 */
#ifndef FUSE_AUDITLOG_H
#define FUSE_AUDITLOG_H

#include "fuse/audit.h"
#include "supermachine.h"

/* A directory of the host, and who serves it: a posix backend. Both stay the caller's. */
struct audit_root {
	const char *path; /* as it is told, absolute */
	struct sm_fs_backend *backend;
};

struct audit_options {
	int fd; /* O_APPEND; the caller's */
	const char *key,
		*value; /* a member of each line that says whose doing it is: "vm" and its name. The caller's */
	const struct audit_root *roots; /* copied */
	unsigned count;
	bool mux; /* the session's backend is a mux (mux.h) over them; else the only one */
};

struct audit_log;

/* NULL: no memory. */
struct audit_log *audit_log_new(const struct audit_options *o);
struct audit_log *audit_log_free(struct audit_log *a);
/* For the session. */
struct fuse_audit_port audit_log_port(struct audit_log *a);

#endif
