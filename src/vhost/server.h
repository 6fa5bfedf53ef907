/* SPDX-License-Identifier: Apache-2.0 */
/* A backend behind the vhost-user door, on threads of its own: for programs that have other things to do. */
#ifndef VHOST_SERVER_H
#define VHOST_SERVER_H

#include "fuse/session.h"

struct vhost_server;

/*
 * Serves one front end. fd: a unix stream socket, connected or listening (then the first to connect is it); taken in
 * any case. path: of a listening socket that was made for this, removed at the end; NULL: none. Both are for messages,
 * too.
 */
int vhost_server_start(struct sm_fs_backend *be, const struct fuse_session_options *options, int fd, const char *path,
		       struct vhost_server **ret, struct sm_error *err) MUST_CHECK;
/* Waits until the front end has left: 0, or -errno with a message when it broke the protocol; -ECANCELED once cancel_fd
 * (-1: none) is readable. From any thread, also several. */
int vhost_server_wait(struct vhost_server *s, int cancel_fd, struct sm_error *err) MUST_CHECK;
/* Cuts the front end off, waits for what is being served, frees. NULL allowed; returns NULL. */
struct vhost_server *vhost_server_stop(struct vhost_server *s);
void vhost_server_get_stats(struct vhost_server *s, struct fuse_session_stats *ret);

#endif
