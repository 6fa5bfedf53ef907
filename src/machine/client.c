/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Talking to the daemon. A daemon that stops by itself closes its socket before it does anything else, and a connection
 * that it never answered is then tried again with a fresh one: the caller does not see that race. See client.h.
 */
#include "machine/client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/process.h"
#include "base/util.h"

#define PROGRAM "supermachine-machine"
#define START_LIMIT_NS (30ULL * 1000000000)   /* of the daemon itself, or for an old one to end */
#define ANSWER_LIMIT_NS (200ULL * 1000000000) /* longer than the daemon waits for the machine */
#define READY_LINE_MAX 2048

static void notice(const struct machine_place *place, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void notice(const struct machine_place *place, const char *fmt, ...)
{
	char line[512];
	va_list ap;

	if (!place->notice)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	place->notice(place->notice_arg, line);
}

/* Up to len bytes before the deadline: the count (less at end of file) or -errno. */
static ssize_t read_until(int fd, void *p, size_t len, uint64_t deadline_ns)
{
	size_t done = 0;

	while (done < len) {
		struct pollfd pfd = {.fd = fd, .events = POLLIN};
		uint64_t now = time_now_ns();
		ssize_t n;

		if (now >= deadline_ns)
			return -ETIMEDOUT;
		if (poll(&pfd, 1, (int)((deadline_ns - now) / 1000000) + 1) <= 0)
			continue;
		n = read(fd, (char *)p + done, len - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

/* ---------------------------------------------------------------------------------------- starting the daemon */

/* The daemon's first line: "ok", "busy" (another one holds the lock), or what is wrong. */
static int judge_line(char *line, struct sm_error *err)
{
	size_t n = strlen(line);

	if (n && line[n - 1] == '\n')
		line[n - 1] = 0;
	if (streq(line, "ok"))
		return 0;
	if (streq(line, "busy"))
		return -EBUSY;
	return error_set(err, SM_ERROR_HOST, EIO, "machine: %s", *line ? line : "its daemon died as it started");
}

static int start_daemon(const struct machine_place *place, struct sm_error *err)
{
	_free_ char *program = NULL;
	char line[READY_LINE_MAX] = "";
	const char *argv[] = {NULL,	     "--runtime-dir",  place->runtime_dir, "--data-dir",       place->data_dir,
			      "--state-dir", place->state_dir, "--libexec-dir",	   place->libexec_dir, NULL};
	_free_ const char **env = process_plain_env();
	struct process_options o = {.argv = argv, .env = env, .cwd = "/", .fds = {-1, -1, -1}};
	_fd_ int in = -1, out = -1;
	int pipefd[2];
	ssize_t n;
	pid_t pid;

	if (asprintf(&program, "%s/" PROGRAM, place->libexec_dir) < 0)
		return error_sys(err, ENOMEM, "start the machine");
	argv[0] = program;
	if (pipe2(pipefd, O_CLOEXEC) < 0)
		return error_sys(err, errno, "start the machine");
	in = pipefd[0];
	out = pipefd[1];
	o.fds[1] = out;
	pid = process_detach(&o, err);
	if (pid < 0)
		return error_wrap(err, (int)pid, "start the machine");
	out = fd_close(out);
	n = read_until(in, line, sizeof(line) - 1, time_now_ns() + START_LIMIT_NS);
	if (n < 0)
		return error_sys(err, (int)-n, "start the machine");
	line[n] = 0;
	return judge_line(line, err);
}

static void pause_ms(unsigned ms)
{
	struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

	nanosleep(&ts, NULL);
}

/* A connected socket; starts the daemon until the deadline as often as an old one stands in the way. */
static int dial(const struct machine_place *place, bool start, uint64_t deadline_ns, struct sm_error *err)
{
	_free_ char *path = NULL;
	bool said = false;

	if (asprintf(&path, "%s/" MACHINE_SOCKET, place->runtime_dir) < 0)
		return error_sys(err, ENOMEM, "machine");
	for (;;) {
		int fd = unix_connect_within(path, START_LIMIT_NS), r;

		if (fd >= 0)
			return fd;
		if (fd != -ENOENT && fd != -ECONNREFUSED)
			return error_sys(err, -fd, "machine: connect to %s", path);
		if (!start)
			return error_set(err, SM_ERROR_STATE, ECONNREFUSED, "the machine does not run");
		if (time_now_ns() > deadline_ns)
			return error_set(err, SM_ERROR_TIMEOUT, ETIMEDOUT, "machine: another one does not end");
		if (!said && fd == -ECONNREFUSED)
			notice(place, "the machine had died; starting it again");
		else if (!said)
			notice(place, "starting the machine, a Linux under emulation with KVM%s%s%s",
			       *place->reason ? " (" : "", place->reason, *place->reason ? ")" : "");
		said = true;
		r = start_daemon(place, err);
		if (r == -EBUSY)
			pause_ms(20);
		else if (r < 0)
			return r;
	}
}

/* ------------------------------------------------------------------------------------------------- requests */

/* One message: 0 with *h and the payload, -ECONNRESET at an end of file before the first byte. */
static int read_message(int fd, uint64_t deadline_ns, struct wire_header *h, struct buf *payload)
{
	uint8_t head[WIRE_HEADER];
	ssize_t n = read_until(fd, head, sizeof(head), deadline_ns);
	void *room;

	if (n == 0)
		return -ECONNRESET;
	if (n < 0)
		return (int)n;
	if (n != sizeof(head) || wire_header_decode(head, h) < 0)
		return -EPROTO;
	payload->len = 0;
	room = buf_extend(payload, h->len);
	if (h->len && !room)
		return -ENOMEM;
	n = h->len ? read_until(fd, room, h->len, deadline_ns) : 0;
	return n < 0 ? (int)n : (size_t)n == h->len ? 0 : -ECONNRESET;
}

static int read_answer(const struct machine_place *place, int fd, struct buf *reply, struct sm_error *err)
{
	uint64_t deadline = time_now_ns() + ANSWER_LIMIT_NS;
	_cleanup_(buf_done) struct buf payload = {0};

	for (;;) {
		struct wire_header h;
		struct cursor c;
		struct sm_error told;
		int r = read_message(fd, deadline, &h, &payload);

		if (r == -ECONNRESET)
			return r;
		if (r < 0)
			return error_sys(err, -r, "machine: its daemon");
		switch (h.type) {
		case WIRE_NOTICE:
			notice(place, "%.*s", (int)payload.len, (const char *)payload.data);
			continue;
		case WIRE_OK:
			return reply && payload.len ? buf_put(reply, payload.data, payload.len) : 0;
		case WIRE_ERROR:
			c = cursor_of(payload.data, payload.len);
			wire_error_decode(&c, &told);
			return error_set(err, told.kind, told.code, "%s", told.message);
		default:
			return error_sys(err, EPROTO, "machine: its daemon");
		}
	}
}

int machine_request(const struct machine_place *place, enum wire_type type, const struct buf *payload, bool start,
		    struct buf *reply, struct sm_error *err)
{
	uint64_t deadline = time_now_ns() + START_LIMIT_NS;
	_cleanup_(buf_done) struct buf out = {0};
	int r = wire_put(&out, type, payload ? payload->data : NULL, payload ? payload->len : 0);

	if (r < 0)
		return error_sys(err, -r, "machine: the request");
	for (;;) {
		_fd_ int fd = dial(place, start, deadline, err);

		if (fd < 0)
			return fd;
		r = fd_send(fd, out.data, out.len, NULL, 0);
		if (r == 0)
			r = read_answer(place, fd, reply, err);
		if (r == 0)
			return TAKE_FD(fd);
		if (r != -ECONNRESET && r != -EPIPE)
			return err && err->kind == SM_ERROR_NONE ? error_sys(err, -r, "machine: its daemon") : r;
		if (!start || time_now_ns() > deadline)
			return error_set(err, SM_ERROR_STATE, ECONNREFUSED, "the machine went away");
		pause_ms(20);
	}
}
