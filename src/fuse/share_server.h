/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A shared tree: one backend behind a unix socket, for any number of clients, each a daemon backend (daemon.h) in
 * another process: the monitor of a VM, say, that mounts it. The backend's tables, and what it knows of its files, are
 * there once for all of them.
 *
 * Clients are hostile to each other and to the server. Each has references, open handles and locks of its own, which it
 * loses when its connection ends, however that happens; it can name no node and no handle but its own. One that breaks
 * the protocol is cut off, and nobody else notices. Nothing that it does or leaves undone holds up another: each client
 * has threads of its own, one a lane.
 */
#ifndef FUSE_SHARE_SERVER_H
#define FUSE_SHARE_SERVER_H

#include "fuse/session.h"

#define SHARE_MAX_CLIENTS 256u
#define SHARE_MAX_NODES (1u << 20)   /* of one client */
#define SHARE_MAX_HANDLES (1u << 16) /* of one client */

struct share_server;

struct share_server_options {
	bool read_only;	  /* changes are refused (EROFS) */
	const char *path; /* of the listening socket, removed at the end; NULL: none */
};

/* Serves from now on. fd: a listening unix stream socket, taken in any case. The backend stays the caller's and must
 * outlive the server; it is told of no session (init, destroy). options may be NULL. */
int share_server_start(struct sm_fs_backend *be, int fd, const struct share_server_options *options,
		       struct share_server **ret, struct sm_error *err) MUST_CHECK;
/* Serves one client over a connected socket, taken in any case: 0, -EMFILE (SHARE_MAX_CLIENTS), or -errno. */
int share_server_add(struct share_server *s, int fd) MUST_CHECK;
/* Waits for what is being served, cuts all clients off, frees. NULL allowed; returns NULL. */
struct share_server *share_server_stop(struct share_server *s);

struct share_server_stats {
	uint64_t requests, errors;
	uint64_t cut_off;		  /* clients that broke the protocol */
	uint64_t clients, nodes, handles; /* now; nodes: counted once for each client */
	uint64_t watched, directories;	  /* now; watched: counted once for each client */
};
void share_server_get_stats(struct share_server *s, struct share_server_stats *ret);

#endif
