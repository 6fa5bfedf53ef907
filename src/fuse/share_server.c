/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server of a shared tree: the socket and the clients. What a client's connection is is share_peer.c, what the
 * requests are share_ops.c. See share_server.h.
 *
 * Threads: one accepts; one for each client greets it, starts a thread for each of its lanes, and waits until the
 * client or the server ends it, then for those, and gives up what the client held.
 */
#include "fuse/share_server.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "fuse/share_peer.h"

int share_server_add(struct share_server *s, int fd)
{
	struct peer *p = calloc(1, sizeof(*p));
	pthread_t thread;
	int r;

	if (!p) {
		fd_close(fd);
		return -ENOMEM;
	}
	p->server = s;
	p->sock = fd;
	pthread_mutex_init(&p->sending, NULL);
	p->end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = p->end_fd < 0 ? -errno : share_client_init(&p->client, s->be, &s->ops, s->read_only);
	p->client.feeds = s->feeds;
	if (r < 0) {
		fd_close(p->end_fd);
		fd_close(fd);
		free(p);
		return r;
	}
	pthread_mutex_lock(&s->lock);
	r = s->stopping ? -ECANCELED : s->num_peers >= SHARE_MAX_CLIENTS ? -EMFILE : 0;
	p->next = s->peers;
	s->peers = p;
	s->num_peers++;
	pthread_mutex_unlock(&s->lock);
	if (r == 0)
		r = share_start_thread(&thread, share_peer_run, p, true);
	if (r < 0)
		share_peer_free(p);
	return r;
}

static void *server_run(void *arg)
{
	struct share_server *s = arg;
	struct pollfd p[2] = {{.fd = s->stop_fd, .events = POLLIN}, {.fd = s->listener, .events = POLLIN}};

	for (;;) {
		int sock;

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			break;
		if (p[0].revents)
			break;
		sock = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
		/* Out of descriptors, or of room for clients: the client sees the end of its connection, or waits. */
		if (sock < 0 || share_server_add(s, sock) < 0)
			poll(p, 1, 10);
	}
	return NULL;
}

int share_server_start(struct sm_fs_backend *be, int fd, const struct share_server_options *options,
		       struct share_server **ret, struct sm_error *err)
{
	struct share_server *s = calloc(1, sizeof(*s));
	const char *path = options ? options->path : NULL;
	int r = s ? 0 : -ENOMEM;

	if (!s) {
		fd_close(fd);
		return error_sys(err, ENOMEM, "shared tree");
	}
	s->listener = fd;
	s->be = be;
	s->read_only = options && options->read_only;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->gone, NULL);
	s->stop_fd = eventfd(0, EFD_CLOEXEC);
	s->path = path ? strdup(path) : NULL;
	if (s->stop_fd < 0)
		r = -errno;
	else if (path && !s->path)
		r = -ENOMEM;
	else if (!be->ops || be->ops->size < offsetof(struct sm_fs_ops, dax_map) || !be->ops->lookup ||
		 !be->ops->getattr || !be->ops->readdir || !be->ops->read)
		r = -EINVAL;
	if (r == 0) {
		memcpy(&s->ops, be->ops, MIN(be->ops->size, sizeof(s->ops)));
		r = s->ops.watch ? share_feeds_new(be, &s->ops, &s->feeds) : 0;
	}
	if (r == 0) {
		r = fd >= 0 ? share_start_thread(&s->thread, server_run, s, false) : 0;
		s->accepting = r == 0 && fd >= 0;
	}
	if (r < 0) {
		share_server_stop(s);
		return error_sys(err, -r, "shared tree%s%s", path ? " on " : "", path ? path : "");
	}
	*ret = s;
	return 0;
}

struct share_server *share_server_stop(struct share_server *s)
{
	if (!s)
		return NULL;
	pthread_mutex_lock(&s->lock);
	s->stopping = true;
	pthread_mutex_unlock(&s->lock);
	if (s->stop_fd >= 0)
		(void)eventfd_write(s->stop_fd, 1);
	if (s->accepting)
		pthread_join(s->thread, NULL);
	pthread_mutex_lock(&s->lock);
	while (s->num_peers)
		pthread_cond_wait(&s->gone, &s->lock);
	pthread_mutex_unlock(&s->lock);
	share_feeds_free(s->feeds);
	if (s->path)
		unlink(s->path);
	fd_close(s->listener);
	fd_close(s->stop_fd);
	pthread_cond_destroy(&s->gone);
	pthread_mutex_destroy(&s->lock);
	free(s->path);
	free(s);
	return NULL;
}

void share_server_get_stats(struct share_server *s, struct share_server_stats *ret)
{
	struct share_feeds_stats feeds = {0};

	if (s->feeds)
		share_feeds_get_stats(s->feeds, &feeds);
	pthread_mutex_lock(&s->lock);
	*ret = s->past;
	ret->watched = feeds.watched;
	ret->directories = feeds.directories;
	ret->clients = s->num_peers;
	for (const struct peer *p = s->peers; p; p = p->next) {
		struct share_client *c = (struct share_client *)&p->client;

		ret->requests += __atomic_load_n(&c->requests, __ATOMIC_RELAXED);
		ret->errors += __atomic_load_n(&c->errors, __ATOMIC_RELAXED);
		pthread_mutex_lock(&c->lock);
		ret->nodes += c->refs.count;
		pthread_mutex_unlock(&c->lock);
		ret->handles += handles_used(&c->handles);
	}
	pthread_mutex_unlock(&s->lock);
}
