/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client's connection to the server of a shared tree, and the server as its connections see it. Internal to
 * share_server.c and share_peer.c.
 */
#ifndef FUSE_SHARE_PEER_H
#define FUSE_SHARE_PEER_H

#include "fuse/share_client.h"

struct lane {
	struct peer *peer;
	int sock;
	uint8_t *mem;
	bool running;
	pthread_t thread;
	/* Inline, from the stream: */
	int feed;      /* the other end of sock; -1: the client's */
	uint8_t *next; /* the bulk of a request that comes: when it has, it takes the place of mem */
	bool busy;     /* atomic: a request is in it */
	uint32_t bulk; /* that came with it */
};

struct peer {
	struct share_server *server;
	struct peer *next; /* under the server's lock */
	int sock, end_fd;  /* end_fd: an eventfd, a lane wants the client's end */
	bool inlined;
	pthread_mutex_t sending; /* inline: an answer into the stream */
	struct share_client client;
	unsigned num_lanes;
	struct lane lanes[SHARE_MAX_LANES];
};

struct share_server {
	struct sm_fs_backend *be;
	struct sm_fs_ops ops; /* the backend's, as far as its header knew them */
	bool read_only;
	char *path;
	struct share_feeds *feeds;
	int listener, stop_fd;
	bool accepting;
	pthread_t thread;
	pthread_mutex_t lock; /* guards all below */
	pthread_cond_t gone;  /* a client is */
	struct peer *peers;
	unsigned num_peers;
	bool stopping;
	struct share_server_stats past; /* of clients that are gone */
};

/* A thread of the server's. */
int share_start_thread(pthread_t *ret, void *(*run)(void *), void *arg, bool detached) MUST_CHECK;
/* The thread that greets a client, waits for its end, and frees it. */
void *share_peer_run(void *peer);
void share_peer_free(struct peer *p);

#endif
