/* SPDX-License-Identifier: Apache-2.0 */
/*
 * COPY: trees of files in and out; WATCH: what happens to them. A child of the agent does the work, blocking as it
 * likes, and speaks records over a socket that a tunnel joins to the channel; so a slow disk or a large tree holds
 * nobody else up, and a child that dies is a stream that ends too early.
 */
#include "copy/copy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "guest/agent.h"
#include "guest/filewatch.h"

#define SOCKET 3
#define LOWER 4 /* and UPPER: the layers, for CHANGES */
#define UPPER 5

/* What the container's set-up makes there is no change of it. */
static const char *const made_by_us[] = {"/proc", "/sys", "/dev", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf",
					 NULL};

/* ------------------------------------------------------------------------------------------- the child */

static int write_socket(void *arg, const void *p, size_t len)
{
	return write_full(SOCKET, p, len);
}

static int send_tree(const struct proto_copy *x, struct copy_out *out, struct sm_error *err)
{
	struct copy_pack o = {.follow = x->follow, .list = x->op == PROTO_COPY_LIST ? MIN(MAX(x->depth, 1u), 2u) : 0};
	bool contents;
	_free_ char *name = copy_source_name(x->path, &contents);

	return name ? copy_pack(x->path, name, &o, out, err) : error_sys(err, ENOMEM, "%s", x->path);
}

static int receive_tree(const struct proto_copy *x, struct sm_error *err)
{
	struct copy_place how = {.contents = x->contents, .into = x->into, .source_name = x->name};
	struct copy_unpack_options o = {.keep_ids = x->keep_ids};
	struct copy_unpack *u = NULL;
	int r = copy_unpack_new(x->path, &how, &o, &u);
	uint8_t chunk[65536];

	if (r < 0)
		return error_sys(err, -r, "%s", x->path);
	while (r == 0 && !copy_unpack_ended(u)) {
		ssize_t n = read(SOCKET, chunk, sizeof(chunk));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			r = error_sys(err, n < 0 ? errno : EPIPE, "%s: the copy broke off", x->path);
		else
			r = copy_unpack_feed(u, chunk, (size_t)n, err);
	}
	copy_unpack_free(u);
	return r;
}

/* What is left out: of the root what we made, and what was asked for, where it is without the links on the way. To
 * free as it is: this process ends soon. */
static const char **left_out(const struct proto_copy *x)
{
	const char *const *ours = streq(x->path, "/") ? made_by_us : made_by_us + ARRAY_SIZE(made_by_us) - 1;
	size_t n = 0, asked = 0;
	const char **v;

	while (x->skip && x->skip[asked])
		asked++;
	v = calloc(asked + ARRAY_SIZE(made_by_us), sizeof(*v));
	for (; v && *ours; ours++)
		v[n++] = *ours;
	for (size_t i = 0; v && i < asked; i++) {
		const char *real = realpath(x->skip[i], NULL);

		v[n++] = real ? real : x->skip[i];
	}
	return v;
}

static int send_changes(const struct proto_copy *x, struct copy_out *out, struct sm_error *err)
{
	_free_ const char **skip = left_out(x);
	struct copy_changes c = {.upper = UPPER, .lower = LOWER, .skip = skip, .list = !x->contents, .whole = x->whole};

	return skip ? copy_pack_changes(&c, out, err) : error_sys(err, ENOMEM, "changes");
}

static _Noreturn void work(const struct proto_copy *x)
{
	struct copy_out out = {.write = write_socket};
	struct sm_error err = {0};
	int r;

	umask(0);
	if (x->op == PROTO_COPY_RECEIVE)
		r = receive_tree(x, &err);
	else if (x->op == PROTO_COPY_REMOVE)
		r = copy_remove(x->path, x->recursive, &err);
	else if (x->op == PROTO_COPY_CHANGES)
		r = send_changes(x, &out, &err);
	else
		r = send_tree(x, &out, &err);
	r = r < 0 ? copy_put_error(&out, -r, err.message) : copy_put_end(&out);
	_exit(r < 0);
}

/* To their places, by way of numbers above those. */
static bool take_descriptors(int fd, const struct layer *l)
{
	int socket = fcntl(fd, F_DUPFD, UPPER + 1), lower = l ? fcntl(l->lower, F_DUPFD, UPPER + 1) : -1,
	    upper = l ? fcntl(l->upper, F_DUPFD, UPPER + 1) : -1;

	return socket >= 0 && dup2(socket, SOCKET) >= 0 &&
	       (!l || (lower >= 0 && upper >= 0 && dup2(lower, LOWER) >= 0 && dup2(upper, UPPER) >= 0));
}

/* The child has the socket and nothing else: not the link, and no pipe that another command waits for the end of. */
static void become_child(const struct agent *a, const struct layer *l, int fd)
{
	int proc = a->proc_fd < 0 ? -1 : openat(a->proc_fd, "self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	/* The agent is spared when memory runs out; this one need not be. */
	if (proc >= 0)
		(void)!write(proc, "0", 1);
	if (!take_descriptors(fd, l) || syscall(SYS_close_range, l ? UPPER + 1u : SOCKET + 1u, ~0u, 0u) < 0)
		_exit(1);
}

/* --------------------------------------------------------------------------------------- the service */

/* A child with SOCKET and maybe layers, and our end of that in *ret_fd. In the child: 0. */
static pid_t begin(const struct agent *a, const struct layer *l, int *ret_fd)
{
	int pair[2], r;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	pid = fork();
	if (pid == 0)
		become_child(a, l, pair[1]);
	if (pid == 0)
		return 0;
	r = pid < 0 ? -errno : 0;
	fd_close(pair[1]);
	if (r < 0)
		fd_close(pair[0]);
	*ret_fd = pair[0];
	return r < 0 ? r : pid;
}

void copy_open(struct agent *a, uint32_t ch, struct cursor *request)
{
	struct proto_copy x;
	int r = proto_copy_decode(request, &x), fd;
	const struct layer *l = NULL;
	bool held;
	pid_t pid;

	if (r < 0) {
		agent_refuse(a, ch, r, "malformed COPY request");
		return;
	}
	if (x.op == PROTO_COPY_CHANGES && !(l = layers_find(a, x.path))) {
		agent_refuse(a, ch, -EINVAL, "%s has no writable layer of its own", x.path);
		proto_copy_done(&x);
		return;
	}
	held = l && x.hold;
	r = held ? hold_for_copy(a) : 0;
	if (r < 0) {
		agent_refuse(a, ch, r, "hold its processes: %s", strerror(-r));
		proto_copy_done(&x);
		return;
	}
	pid = begin(a, l, &fd);
	if (pid == 0)
		work(&x);
	if (pid > 0) {
		tunnel_join(a, ch, fd, held);
	} else {
		if (held)
			hold_copy_ended(a);
		agent_refuse(a, ch, pid, "copy: %s", strerror(-pid));
	}
	proto_copy_done(&x);
}

void watch_open(struct agent *a, uint32_t ch, struct cursor *request)
{
	struct proto_watch x;
	int r = proto_watch_decode(request, &x), fd;
	pid_t pid;

	if (r < 0) {
		agent_refuse(a, ch, r, "malformed WATCH request");
		return;
	}
	pid = begin(a, NULL, &fd);
	if (pid == 0) {
		filewatch_run(SOCKET, x.path, x.recursive);
		_exit(0);
	}
	if (pid > 0)
		tunnel_join(a, ch, fd, false);
	else
		agent_refuse(a, ch, pid, "watch: %s", strerror(-pid));
	proto_watch_done(&x);
}
