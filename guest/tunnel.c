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
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "guest/agent.h"
#include "guest/newfile.h"
#include "proto/flowpair.h"

/*
 * A unix socket that is waited for: something new in its directory may be it. It has its name before anybody listens,
 * so some looks follow soon; and one comes now and then in any case. Looking often would take the time of whoever is to
 * come: a keeper and its monitor start meanwhile. So it is with one that takes no more for the moment.
 */
#define LOOK_SOON_NS 1000000u
#define LOOKS_SOON 10u
#define LOOK_AGAIN_NS 20000000u
#define CROWDED_WAIT_NS 30000000000u

struct tunnel {
	struct tunnel *next;
	struct agent *a;
	uint32_t ch;
	struct flow_pair pair;
	/* While connecting: to a socket, or by looking again until then (ns) whether the one at this path is there */
	int fd;
	struct loop_source *connecting;
	char *awaited;
	uint64_t until;
	unsigned looks_soon;
	int watch_fd; /* of its directory, -1 */
	struct loop_source *watch;
	struct newfile file; /* being written: it gets its name at the end */
	bool holds;	     /* while it lasts the commands' processes stand still */
};

static void end_watch(struct tunnel *t)
{
	t->watch = loop_remove(t->watch);
	t->watch_fd = fd_close(t->watch_fd);
}

static void tunnel_free(struct tunnel *t)
{
	struct tunnel **link = &t->a->tunnels;

	while (*link != t)
		link = &(*link)->next;
	*link = t->next;
	loop_remove(t->connecting);
	end_watch(t);
	fd_close(t->fd);
	flow_pair_done(&t->pair);
	newfile_done(&t->file);
	if (t->holds)
		hold_copy_ended(t->a);
	free(t->awaited);
	free(t);
}

static void tunnel_close(struct tunnel *t, int code, const char *text)
{
	mux_set_handler(t->a->mux, t->ch, NULL, NULL);
	mux_close(t->a->mux, t->ch, code, text);
	tunnel_free(t);
}

/* A file that has come whole gets its name. */
static void tunnel_ended(struct flow_pair *p)
{
	struct tunnel *t = flow_pair_owner(struct tunnel, pair, p);
	int r = p->error;

	if (t->file.temporary && r == 0)
		r = newfile_commit(&t->file);
	tunnel_close(t, r, r ? strerror(-r) : NULL);
}

static struct flow_channel stream_of(const struct tunnel *t, unsigned stream)
{
	return (struct flow_channel){t->a->loop, t->a->mux, t->ch, stream};
}

static struct tunnel *tunnel_new(struct agent *a, uint32_t ch)
{
	struct tunnel *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->a = a;
	t->ch = ch;
	t->fd = t->watch_fd = t->file.fd = -1;
	flow_pair_init(&t->pair, stream_of(t, 0), tunnel_ended);
	t->next = a->tunnels;
	a->tunnels = t;
	return t;
}

void tunnel_abandon_all(struct agent *a)
{
	while (a->tunnels)
		tunnel_free(a->tunnels);
}

static void on_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	tunnel_close(flow_pair_owner(struct tunnel, pair, arg), 0, NULL);
}

static const struct mux_callbacks tunnel_callbacks = {
	.data = flow_pair_on_data,
	.eof = flow_pair_on_eof,
	.writable = flow_pair_on_writable,
	.closed = on_closed,
};

/* ------------------------------------------------------------------------------------------ CONNECT */

static void connected(struct tunnel *t)
{
	mux_opened(t->a->mux, t->ch, NULL);
	t->pair.error = flow_pair_join(&t->pair, stream_of(t, 0), stream_of(t, 1), TAKE_FD(t->fd));
	flow_pair_settle(&t->pair);
}

static void on_connected(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct tunnel *t = arg;
	int r = socket_error(t->fd);

	t->connecting = loop_remove(t->connecting);
	if (r < 0)
		tunnel_close(t, r, strerror(-r));
	else
		connected(t);
}

/* Nobody is there yet, or more than it takes wait there (-EAGAIN): it must hang for us all no more than for itself. */
static bool may_come(int r)
{
	return r == -ENOENT || r == -ECONNREFUSED || r == -EAGAIN;
}

static uint64_t next_look(struct tunnel *t, int r)
{
	bool soon = r != -EAGAIN && t->looks_soon;

	t->looks_soon -= soon;
	return time_now_ns() + (soon ? LOOK_SOON_NS : LOOK_AGAIN_NS);
}

static void look_again(struct loop *loop, struct loop_source *src, void *arg)
{
	struct tunnel *t = arg;
	int fd = unix_connect_nonblock(t->awaited);

	if (may_come(fd) && time_now_ns() < t->until) {
		loop_timer_at(src, next_look(t, fd));
		return;
	}
	t->connecting = loop_remove(t->connecting);
	end_watch(t);
	t->fd = MAX(fd, -1);
	if (fd < 0)
		tunnel_close(t, fd, strerror(-fd));
	else
		connected(t);
}

static void on_made(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	char buffer[4096] __attribute__((aligned(8)));
	struct tunnel *t = arg;

	while (read(t->watch_fd, buffer, sizeof(buffer)) > 0)
		continue;
	t->looks_soon = LOOKS_SOON;
	look_again(loop, t->connecting, t);
}

/* Without it all looks are few and far between. */
static void watch_directory(struct tunnel *t)
{
	const char *slash = strrchr(t->awaited, '/');
	char dir[PATH_MAX];

	if (!slash || snprintf(dir, sizeof(dir), "%.*s/", (int)(slash - t->awaited), t->awaited) >= (int)sizeof(dir))
		return;
	t->watch_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (t->watch_fd >= 0 && (inotify_add_watch(t->watch_fd, dir, IN_CREATE | IN_MOVED_TO) < 0 ||
				 loop_add(t->a->loop, t->watch_fd, EPOLLIN, on_made, t, &t->watch) < 0))
		end_watch(t);
}

/* It did not connect (found) but may: 0 if it is waited for. */
static int await_unix(struct agent *a, uint32_t ch, const struct proto_connect *x, int found)
{
	uint64_t wait = found == -EAGAIN ? CROWDED_WAIT_NS : MIN(x->wait_ns, PROTO_CONNECT_WAIT_MAX);
	struct tunnel *t = tunnel_new(a, ch);
	int r = t ? loop_add_timer(a->loop, look_again, t, &t->connecting) : -ENOMEM;

	if (r == 0)
		t->awaited = strdup(x->path);
	if (r == 0 && !t->awaited)
		r = -ENOMEM;
	if (r < 0) {
		if (t)
			tunnel_free(t);
		return r;
	}
	watch_directory(t);
	t->until = time_now_ns() + wait;
	mux_set_handler(a->mux, ch, &tunnel_callbacks, &t->pair);
	/* It may have come just before. */
	loop_timer_at(t->connecting, time_now_ns() + (found == -EAGAIN ? LOOK_AGAIN_NS : LOOK_SOON_NS));
	return 0;
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
	fd = x.path ? unix_connect_nonblock(x.path) : connect_tcp(x.host, x.port);
	if (x.path && (fd == -EAGAIN || (x.wait_ns && may_come(fd)))) {
		fd = await_unix(a, ch, &x, fd);
		if (fd == 0) {
			proto_connect_done(&x);
			return;
		}
	}
	t = fd < 0 ? NULL : tunnel_new(a, ch);
	if (fd >= 0 && !t) {
		fd_close(fd);
		fd = -ENOMEM;
	}
	if (fd < 0) {
		agent_refuse(a, ch, fd, "connect to %s: %s", x.path ? x.path : x.host, strerror(-fd));
	} else {
		t->fd = fd;
		mux_set_handler(a->mux, ch, &tunnel_callbacks, &t->pair);
		if (x.path)
			connected(t);
		else if (loop_add(a->loop, fd, EPOLLOUT, on_connected, t, &t->connecting) < 0)
			tunnel_close(t, -ENOMEM, "out of memory");
	}
	proto_connect_done(&x);
}

void tunnel_join(struct agent *a, uint32_t ch, int fd, bool holds)
{
	struct tunnel *t = NULL;
	int r = fd_set_nonblock(fd, true);

	if (r == 0)
		t = tunnel_new(a, ch);
	if (!t) {
		if (holds)
			hold_copy_ended(a);
		fd_close(fd);
		agent_refuse(a, ch, r < 0 ? r : -ENOMEM, "no memory");
		return;
	}
	t->fd = fd;
	t->holds = holds;
	mux_set_handler(a->mux, ch, &tunnel_callbacks, &t->pair);
	connected(t);
}

/* ------------------------------------------------------------------------------------------ files */

static int begin_read(struct tunnel *t, const struct proto_file *x)
{
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
	r = flow_pair_out(&t->pair, stream_of(t, 1), TAKE_FD(t->fd), true);
	if (x->size)
		t->pair.out.left = x->size;
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
		mux_set_handler(a->mux, ch, &tunnel_callbacks, &t->pair);
		flow_pair_on_writable(&t->pair, ch, NULL, 1);
	}
	proto_file_done(&x);
}

static int begin_write(struct tunnel *t, const struct proto_file *x)
{
	int r;

	if (x->path[0] != '/' || streq(x->path, "/"))
		return -EINVAL;
	r = newfile_begin(&t->file, x->path, x->make_dirs, x->mode ? x->mode & 07777 : 0644);
	if (r == 0 && fchown(t->file.fd, x->uid, x->gid) < 0)
		r = -errno;
	/* Only now: a change of owner takes set-id bits. */
	if (r == 0 && x->mode & 07000 && fchmod(t->file.fd, x->mode & 07777) < 0)
		r = -errno;
	if (r < 0)
		return r;
	return flow_pair_in(&t->pair, stream_of(t, 0), TAKE_FD(t->file.fd), true);
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
		mux_set_handler(a->mux, ch, &tunnel_callbacks, &t->pair);
		mux_opened(a->mux, ch, NULL);
	}
	proto_file_done(&x);
}
