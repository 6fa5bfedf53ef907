/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte pipes: CONNECT (to a TCP address or unix socket as the container sees it), READ_FILE and WRITE_FILE. A tunnel is
 * an inflow or an outflow or both on one channel, and ends when all of it has.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "guest/agent.h"
#include "proto/flow.h"

struct tunnel {
	struct tunnel *next;
	struct agent *a;
	uint32_t ch;
	struct inflow in;
	struct outflow out;
	bool in_open, out_open; /* not ended yet */
	bool busy;
	int error;
	/* While connecting */
	int fd;
	struct loop_source *connecting;
	/* A file being written: its temporary name becomes path at the end. */
	char *path, *temporary;
};

static void tunnel_free(struct tunnel *t)
{
	struct tunnel **link = &t->a->tunnels;

	while (*link != t)
		link = &(*link)->next;
	*link = t->next;
	loop_remove(t->connecting);
	fd_close(t->fd);
	inflow_done(&t->in);
	outflow_done(&t->out);
	if (t->temporary)
		unlink(t->temporary);
	free(t->temporary);
	free(t->path);
	free(t);
}

static struct tunnel *tunnel_new(struct agent *a, uint32_t ch)
{
	struct tunnel *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->a = a;
	t->ch = ch;
	t->fd = t->in.fd = t->out.fd = -1;
	t->in.from = (struct flow_channel){a->loop, a->mux, ch, 0};
	t->next = a->tunnels;
	a->tunnels = t;
	return t;
}

void tunnel_abandon_all(struct agent *a)
{
	while (a->tunnels)
		tunnel_free(a->tunnels);
}

static void tunnel_close(struct tunnel *t, int code, const char *text)
{
	mux_set_handler(t->a->mux, t->ch, NULL, NULL);
	mux_close(t->a->mux, t->ch, code, text);
	tunnel_free(t);
}

/* The file is complete: its name is given to it. */
static int commit_file(struct tunnel *t)
{
	int r = rename(t->temporary, t->path) < 0 ? -errno : 0;

	if (r == 0) {
		free(t->temporary);
		t->temporary = NULL;
	}
	return r;
}

static void settle(struct tunnel *t)
{
	if (t->busy || ((t->in_open || t->out_open) && t->error == 0))
		return;
	if (t->temporary && t->error == 0)
		t->error = commit_file(t);
	tunnel_close(t, t->error, t->error ? strerror(-t->error) : NULL);
}

/* The flows call back from deep inside; the tunnel is freed only from the outermost call. */
static void in_ended(void *arg, int error)
{
	struct tunnel *t = arg;

	t->in_open = false;
	/* A peer that no longer reads is no failure of a byte pipe: its other direction may go on. */
	if (error && error != -EPIPE && error != -ECONNRESET)
		t->error = error;
	settle(t);
}

static void out_ended(void *arg, int error)
{
	struct tunnel *t = arg;

	t->out_open = false;
	if (error)
		t->error = error;
	settle(t);
}

static void on_data(void *arg, uint32_t ch, void *user, unsigned stream, const uint8_t *p, size_t len)
{
	struct tunnel *t = arg;

	t->busy = true;
	inflow_data(&t->in, p, len);
	t->busy = false;
	settle(t);
}

static void on_eof(void *arg, uint32_t ch, void *user, unsigned stream)
{
	struct tunnel *t = arg;

	t->busy = true;
	inflow_eof(&t->in);
	t->busy = false;
	settle(t);
}

static void on_writable(void *arg, uint32_t ch, void *user, unsigned stream)
{
	struct tunnel *t = arg;

	t->busy = true;
	outflow_writable(&t->out);
	t->busy = false;
	settle(t);
}

static void on_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	tunnel_close(arg, 0, NULL);
}

static const struct mux_callbacks tunnel_callbacks = {
	.data = on_data,
	.eof = on_eof,
	.writable = on_writable,
	.closed = on_closed,
};

/* ------------------------------------------------------------------------------------------ CONNECT */

static void connected(struct tunnel *t)
{
	struct flow_channel c = t->in.from;
	int fd = TAKE_FD(t->fd), other = fcntl(fd, F_DUPFD_CLOEXEC, 3), r;

	t->busy = true;
	mux_opened(t->a->mux, t->ch, NULL);
	t->in_open = t->out_open = true;
	r = inflow_begin(&t->in, c, fd, false, in_ended, t);
	t->in.shut = true;
	c.stream = 1;
	if (r == 0)
		r = other < 0 ? -EMFILE : outflow_begin(&t->out, c, other, false, out_ended, t);
	else
		fd_close(other);
	if (r < 0)
		t->error = r;
	t->busy = false;
	settle(t);
}

static void on_connected(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct tunnel *t = arg;
	socklen_t len = sizeof(int);
	int error = 0;

	if (getsockopt(t->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		error = errno;
	t->connecting = loop_remove(t->connecting);
	if (error)
		tunnel_close(t, -error, strerror(error));
	else
		connected(t);
}

static int connect_unix(const char *path)
{
	int fd = unix_connect(path);
	int r = fd < 0 ? fd : fd_set_nonblock(fd, true);

	if (r < 0)
		fd_close(fd);
	return r < 0 ? r : fd;
}

/* Numbers, and names that /etc/hosts knows; no name server is asked, that would block everybody. */
static bool find_in_hosts(const char *name, char ret[static INET6_ADDRSTRLEN])
{
	_free_ char *text = NULL;
	char *line, *lines;

	if (read_file_at(AT_FDCWD, "/etc/hosts", 1 << 20, &text, NULL) < 0)
		return false;
	for (lines = text; (line = strsep(&lines, "\n"));) {
		char *word, *address;

		line[strcspn(line, "#")] = '\0';
		address = strtok_r(line, " \t", &line);
		while (address && (word = strtok_r(NULL, " \t", &line)))
			if (strcasecmp(word, name) == 0 && strlen(address) < INET6_ADDRSTRLEN) {
				strcpy(ret, address);
				return true;
			}
	}
	return false;
}

static int connect_tcp(const char *host, uint16_t port)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV}, *info = NULL;
	char service[8], address[INET6_ADDRSTRLEN];
	int fd, one = 1, r = 0;

	snprintf(service, sizeof(service), "%u", port);
	if (getaddrinfo(host, service, &hints, &info) != 0 &&
	    (!find_in_hosts(host, address) || getaddrinfo(address, service, &hints, &info) != 0))
		return -ENXIO;
	fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		r = -errno;
	} else {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		if (connect(fd, info->ai_addr, info->ai_addrlen) < 0 && errno != EINPROGRESS)
			r = -errno;
	}
	freeaddrinfo(info);
	if (r < 0)
		fd_close(fd);
	return r < 0 ? r : fd;
}

void connect_open(struct agent *a, uint32_t ch, struct cursor *request)
{
	struct proto_connect x;
	struct tunnel *t;
	int r = proto_connect_decode(request, &x), fd;

	if (r < 0) {
		agent_refuse(a, ch, r, "malformed CONNECT request");
		return;
	}
	fd = x.path ? connect_unix(x.path) : connect_tcp(x.host, x.port);
	t = fd < 0 ? NULL : tunnel_new(a, ch);
	if (fd >= 0 && !t) {
		fd_close(fd);
		fd = -ENOMEM;
	}
	if (fd < 0) {
		agent_refuse(a, ch, fd, "connect to %s: %s", x.path ? x.path : x.host, strerror(-fd));
	} else {
		t->fd = fd;
		mux_set_handler(a->mux, ch, &tunnel_callbacks, t);
		if (x.path)
			connected(t);
		else if (loop_add(a->loop, fd, EPOLLOUT, on_connected, t, &t->connecting) < 0)
			tunnel_close(t, -ENOMEM, "out of memory");
	}
	proto_connect_done(&x);
}

void tunnel_join(struct agent *a, uint32_t ch, int fd)
{
	struct tunnel *t = NULL;
	int r = fd_set_nonblock(fd, true);

	if (r == 0)
		t = tunnel_new(a, ch);
	if (!t) {
		fd_close(fd);
		agent_refuse(a, ch, r < 0 ? r : -ENOMEM, "no memory");
		return;
	}
	t->fd = fd;
	mux_set_handler(a->mux, ch, &tunnel_callbacks, t);
	connected(t);
}

/* ------------------------------------------------------------------------------------------ files */

static int begin_read(struct tunnel *t, const struct proto_file *x)
{
	struct flow_channel c = {t->a->loop, t->a->mux, t->ch, 1};
	struct proto_file reply = {0};
	struct buf b = {0};
	struct stat st;
	int r;

	/* Only regular files: another may never end, or block us all. */
	t->fd = open(x->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (t->fd < 0 || fstat(t->fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
	if (lseek(t->fd, (off_t)MIN(x->offset, (uint64_t)INT64_MAX), SEEK_SET) < 0)
		return -errno;
	reply.size = (uint64_t)st.st_size;
	reply.mode = st.st_mode & 07777;
	reply.uid = st.st_uid;
	reply.gid = st.st_gid;
	r = proto_file_encode(&b, &reply);
	if (r == 0)
		r = mux_opened(t->a->mux, t->ch, &b);
	buf_done(&b);
	if (r < 0)
		return r;
	t->out_open = true;
	r = outflow_begin(&t->out, c, TAKE_FD(t->fd), true, out_ended, t);
	if (x->size)
		t->out.left = x->size;
	return r;
}

void read_file_open(struct agent *a, uint32_t ch, struct cursor *request)
{
	struct proto_file x;
	struct tunnel *t;
	int r = proto_file_decode(request, &x);

	if (r < 0 || !x.path) {
		agent_refuse(a, ch, -EPROTO, "malformed READ_FILE request");
		if (r == 0)
			proto_file_done(&x);
		return;
	}
	t = tunnel_new(a, ch);
	r = t ? begin_read(t, &x) : -ENOMEM;
	if (r < 0) {
		if (t)
			tunnel_free(t);
		agent_refuse(a, ch, r, "%s: %s", x.path, strerror(-r));
	} else {
		mux_set_handler(a->mux, ch, &tunnel_callbacks, t);
		on_writable(t, ch, NULL, 1);
	}
	proto_file_done(&x);
}

static int make_parents(const char *path)
{
	const char *slash = strrchr(path, '/');
	_free_ char *dir = slash && slash != path ? strndup(path, (size_t)(slash - path)) : NULL;

	return dir ? mkdir_p(dir, 0755) : 0;
}

static int begin_write(struct tunnel *t, const struct proto_file *x)
{
	char unique[17];
	struct stat st;
	int r;

	if (x->path[0] != '/' || streq(x->path, "/"))
		return -EINVAL;
	if (stat(x->path, &st) == 0 && !S_ISREG(st.st_mode))
		return S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
	r = x->make_dirs ? make_parents(x->path) : 0;
	if (r == 0)
		r = random_hex(unique, 8);
	/* Where the path is a symbolic link, the file that it names is the one to be replaced. */
	t->path = r < 0 ? NULL : realpath(x->path, NULL);
	if (!t->path)
		t->path = strdup(x->path);
	if (r < 0 || !t->path || asprintf(&t->temporary, "%s.%s", t->path, unique) < 0) {
		t->temporary = NULL;
		return r < 0 ? r : -ENOMEM;
	}
	t->fd = open(t->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (t->fd < 0)
		return -errno;
	if (fchown(t->fd, x->uid, x->gid) < 0 || fchmod(t->fd, x->mode ? x->mode & 07777 : 0644) < 0)
		return -errno;
	t->in_open = true;
	return inflow_begin(&t->in, t->in.from, TAKE_FD(t->fd), true, in_ended, t);
}

void write_file_open(struct agent *a, uint32_t ch, struct cursor *request)
{
	struct proto_file x;
	struct tunnel *t;
	int r = proto_file_decode(request, &x);

	if (r < 0 || !x.path) {
		agent_refuse(a, ch, -EPROTO, "malformed WRITE_FILE request");
		if (r == 0)
			proto_file_done(&x);
		return;
	}
	t = tunnel_new(a, ch);
	r = t ? begin_write(t, &x) : -ENOMEM;
	if (r < 0) {
		if (t)
			tunnel_free(t);
		agent_refuse(a, ch, r, "%s: %s", x.path, strerror(-r));
	} else {
		mux_set_handler(a->mux, ch, &tunnel_callbacks, t);
		mux_opened(a->mux, ch, NULL);
	}
	proto_file_done(&x);
}
