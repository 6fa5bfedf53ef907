/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A monitor and an agent for the keeper's tests, as scripts say: no guest. Started as the monitor is; the script's name
 * is the "cmdline" of its configuration, or what a snapshot's state file says; what the command does is its argv. It
 * ends when the control socket does, as the real one must.
 */
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/loop.h"
#include "base/util.h"
#include "proto/link.h"
#include "proto/messages.h"

struct fake {
	struct loop *loop;
	struct link *link;
	int control, console;
	const char *script;
	uint32_t main_ch, side_ch; /* side: a detached command, which says a line, then echoes */
	char *what;		   /* the command's argv[0] */
	uint64_t to_send;	   /* flood */
	bool echo, prepared, held, rewound;
};

static void control_send(struct fake *f, const char *json)
{
	if (send(f->control, json, strlen(json), MSG_NOSIGNAL) < 0)
		_exit(3);
}

static _Noreturn void leave(struct fake *f, const char *reason)
{
	char json[128];

	snprintf(json, sizeof(json), "{\"event\":\"exit\",\"reason\":\"%s\",\"detail\":\"scripted\"}", reason);
	control_send(f, json);
	_exit(0);
}

static struct mux *mux(struct fake *f)
{
	return link_mux(f->link);
}

static void finish_channel(struct fake *f, uint32_t ch, enum proto_exit_reason reason, int status, int sig)
{
	struct proto_event e = {
		.kind = PROTO_EV_EXIT, .reason = reason, .status = status, .signal = sig, .duration_ns = 5};
	struct buf b = {0};

	mux_send_eof(mux(f), ch, 1);
	mux_send_eof(mux(f), ch, 2);
	if (proto_event_encode(&b, &e) == 0)
		mux_send_event(mux(f), ch, &b);
	mux_close(mux(f), ch, 0, "");
	buf_done(&b);
}

static void finish(struct fake *f, enum proto_exit_reason reason, int status, int sig)
{
	finish_channel(f, f->main_ch, reason, status, sig);
}

static void flood(struct fake *f)
{
	static const uint8_t zeros[4096];

	while (f->to_send) {
		size_t n = MIN(MIN(f->to_send, (uint64_t)sizeof(zeros)), (uint64_t)mux_credit(mux(f), f->main_ch, 1));

		if (n == 0)
			return;
		if (mux_send(mux(f), f->main_ch, 1, zeros, n) < 0)
			return;
		f->to_send -= n;
	}
	finish(f, PROTO_EXITED, 0, 0);
}

/* Works for so many ms. */
static void *spin(void *arg)
{
	uint64_t until = time_now_ns() + (uint64_t)(intptr_t)arg * 1000000;

	while (time_now_ns() < until)
		;
	return NULL;
}

static void start_spin(const char *ms)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, spin, (void *)(intptr_t)atoi(ms)) != 0)
		_exit(14);
	pthread_detach(thread);
}

static void run_command(struct fake *f, const struct proto_exec *x)
{
	const char *what = x->argv[0], *arg = x->argv[1] ? x->argv[1] : "";
	struct buf reply = {0};

	f->what = strdup(what);
	if (streq(what, "refuse")) {
		mux_close(mux(f), f->main_ch, -ENOMEM, "no room for a process");
		return;
	}
	proto_pid_encode(&reply, streq(what, "notfound") ? 0 : 77);
	mux_opened(mux(f), f->main_ch, &reply);
	buf_done(&reply);
	if (streq(what, "exit")) {
		mux_send(mux(f), f->main_ch, 1, "out\n", 4);
		mux_send(mux(f), f->main_ch, 2, "err\n", 4);
		finish(f, PROTO_EXITED, atoi(arg), 0);
	} else if (streq(what, "flood")) {
		f->to_send = strtoull(arg, NULL, 10);
		flood(f);
	} else if (streq(what, "cat")) {
		f->echo = true;
	} else if (streq(what, "spin")) {
		start_spin(arg);
	} else if (streq(what, "noexit")) {
		mux_close(mux(f), f->main_ch, 0, "");
	} else if (streq(what, "garbage")) {
		link_flush(f->link);
		f->to_send = 1;
	} else if (streq(what, "poweroff")) {
		link_drain(f->link, 1000);
		leave(f, "shutdown");
	} else if (streq(what, "panic")) {
		static const char text[] =
			"[ 1.0] boring\n[ 2.0] Kernel panic - not syncing: scripted\n[ 3.0] ---[ end "
			"Kernel panic - not syncing: scripted ]---\n";

		link_drain(f->link, 1000);
		if (write(f->console, text, sizeof(text) - 1) < 0)
			_exit(3);
		leave(f, "panic");
	} else if (streq(what, "disk-error")) { /* disk-error STATUS: two errors of disks on the way */
		control_send(f, "{\"event\":\"disk-error\",\"disk\":\"blk0\",\"errno\":28}");
		control_send(f, "{\"event\":\"disk-error\",\"disk\":\"blk0\",\"errno\":5}");
		finish(f, PROTO_EXITED, atoi(arg), 0);
	} else if (streq(what, "notfound")) {
		finish(f, PROTO_EXIT_NOT_FOUND, 127, 0);
	}
}

/* The command has been there all the time, and says a line. */
static void adopted(struct fake *f, uint32_t ch)
{
	struct buf reply = {0};

	f->main_ch = ch;
	f->what = strdup("cat");
	f->echo = true;
	proto_pid_encode(&reply, 77);
	mux_opened(mux(f), ch, &reply);
	buf_done(&reply);
	mux_send(mux(f), ch, 1, "again\n", 6);
}

static void run_side(struct fake *f, uint32_t ch, const struct proto_exec *x)
{
	bool missing = streq(x->argv[0], "notfound");
	struct buf reply = {0};

	proto_pid_encode(&reply, missing ? 0 : 78);
	mux_opened(mux(f), ch, &reply);
	buf_done(&reply);
	if (missing) {
		finish_channel(f, ch, PROTO_EXIT_NOT_FOUND, 127, 0);
		return;
	}
	f->side_ch = ch;
	mux_send(mux(f), ch, 2, "side\n", 5);
}

static void say_prepared(struct fake *f, uint32_t ch)
{
	_cleanup_(buf_done) struct buf b = {0};

	if (proto_prepared_encode(&b, &(struct proto_prepared){.pluggable = true}) < 0)
		abort();
	mux_opened(mux(f), ch, &b);
}

static void on_open(void *arg, uint32_t ch, uint16_t service, struct cursor *request)
{
	struct fake *f = arg;
	struct proto_resume resume;
	struct proto_secret secret;
	struct proto_hold hold;
	struct proto_exec x;

	switch (service) {
	case PROTO_HOLD:
		if (proto_hold_decode(request, &hold) < 0)
			_exit(10);
		f->held = hold.hold;
		mux_opened(mux(f), ch, NULL);
		if (!hold.again)
			mux_close(mux(f), ch, 0, "");
		return;
	case PROTO_RESUME:
		if (proto_resume_decode(request, &resume) < 0 ||
		    (!resume.hostname && !streq(f->script, "spare") && !f->rewound) ||
		    (resume.machine_id && strlen(resume.machine_id) != 32))
			_exit(11);
		proto_resume_done(&resume);
		f->prepared = true;
		mux_opened(mux(f), ch, NULL);
		mux_close(mux(f), ch, 0, "");
		return;
	case PROTO_ADOPT:
		if (!f->prepared)
			_exit(12);
		adopted(f, ch);
		return;
	case PROTO_SETUP:
		if (streq(f->script, "setup-fails")) {
			mux_close(mux(f), ch, -EIO, "scripted failure");
			return;
		}
		mux_opened(mux(f), ch, NULL);
		mux_close(mux(f), ch, 0, "");
		return;
	case PROTO_SECRET:
		if (proto_secret_decode(request, &secret) < 0 || f->main_ch)
			_exit(13);
		if (streq(f->script, "secret-fails")) {
			mux_close(mux(f), ch, -ENOSPC, "scripted failure");
			return;
		}
		mux_opened(mux(f), ch, NULL);
		mux_close(mux(f), ch, 0, "");
		return;
	case PROTO_PREPARE:
		if (streq(f->script, "prepare-fails")) {
			mux_close(mux(f), ch, -ENODEV, "scripted failure");
			return;
		}
		f->prepared = true;
		say_prepared(f, ch);
		mux_close(mux(f), ch, 0, "");
		return;
	case PROTO_POWEROFF:
		mux_opened(mux(f), ch, NULL);
		if (!streq(f->script, "no-poweroff")) {
			link_drain(f->link, 1000);
			leave(f, "shutdown");
		}
		return;
	case PROTO_EXEC:
		if (proto_exec_decode(request, &x) < 0) {
			mux_close(mux(f), ch, -EPROTO, "not a request");
			return;
		}
		if (x.main) {
			f->main_ch = ch;
			run_command(f, &x);
		} else if (x.detached) {
			run_side(f, ch, &x);
		} else {
			mux_close(mux(f), ch, -ENOENT, "scripted refusal");
		}
		proto_exec_done(&x);
		return;
	default:
		mux_close(mux(f), ch, -ENOSYS, "");
	}
}

static void on_data(void *arg, uint32_t ch, void *user, unsigned stream, const uint8_t *p, size_t len)
{
	struct fake *f = arg;

	if ((f->echo || ch == f->side_ch) && mux_send(mux(f), ch, 1, p, len) < 0)
		_exit(5);
	mux_consumed(mux(f), ch, stream, len);
}

static void on_eof(void *arg, uint32_t ch, void *user, unsigned stream)
{
	struct fake *f = arg;

	if (f->echo && ch == f->main_ch)
		finish(f, PROTO_EXITED, 0, 0);
}

static void on_event(void *arg, uint32_t ch, void *user, struct cursor *event)
{
	struct fake *f = arg;
	struct proto_event e;

	if (proto_event_decode(event, &e) < 0 || e.kind != PROTO_EV_SIGNAL)
		return;
	if (ch == f->side_ch) {
		finish_channel(f, ch, PROTO_SIGNALLED, 128 + e.signal, e.signal);
		return;
	}
	if (streq(f->what, "stubborn") && e.signal != SIGKILL)
		return;
	if (!streq(f->what, "stone"))
		finish(f, PROTO_SIGNALLED, 128 + e.signal, e.signal);
}

static void on_writable(void *arg, uint32_t ch, void *user, unsigned stream)
{
	struct fake *f = arg;

	if (f->to_send && f->what && streq(f->what, "flood"))
		flood(f);
}

static void on_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	struct fake *f = arg;

	mux_close(mux(f), ch, 0, "");
}

static void on_end(struct link *l, int r, const char *why, void *arg)
{
}

static void save(struct fake *f, const int fds[2])
{
	if (!(f->prepared || f->held) || write_full(fds[0], "state", 5) < 0 || write_full(fds[1], "memory", 6) < 0)
		_exit(7);
	close(fds[0]);
	close(fds[1]);
	if (streq(f->script, "snapshot-slow"))
		poll(NULL, 0, 500);
	if (streq(f->script, "snapshot-fails"))
		control_send(f, "{\"event\":\"snapshot\",\"error\":\"scripted\"}");
	else
		control_send(f, "{\"event\":\"frozen\",\"pause_ns\":1}");
	if (streq(f->script, "snapshot-is-lost"))
		control_send(f, "{\"event\":\"snapshot\",\"error\":\"scripted\"}");
	else if (!streq(f->script, "snapshot-fails"))
		control_send(f, "{\"event\":\"snapshot\",\"memory_bytes\":6}");
}

static void note_workingset(struct fake *f, int fd)
{
	if (write_full(fd, "pages", 5) < 0)
		_exit(7);
	close(fd);
	control_send(f, "{\"event\":\"workingset\",\"pages\":5}");
}

static void start_link(struct fake *f, int agent);

/* An agent that knows of no keeper. */
static void begin_again(struct fake *f, int agent)
{
	if (agent < 0)
		_exit(17);
	f->link = link_free(f->link);
	f->main_ch = f->side_ch = 0;
	f->prepared = f->held = false;
	f->rewound = true;
	start_link(f, agent);
}

static void go_back(struct fake *f, int agent)
{
	if (agent < 0)
		_exit(15);
	if (streq(f->script, "rewind-fails")) {
		control_send(f, "{\"event\":\"rewound\",\"pause_ns\":0,\"error\":\"scripted\"}");
		leave(f, "error");
	}
	begin_again(f, agent);
	control_send(f, "{\"event\":\"rewound\",\"pause_ns\":0}");
}

/* Whether or not there is a mark then. */
static void mark(struct fake *f, int agent, int top)
{
	if (!f->held || top < 0)
		_exit(16);
	close(top);
	begin_again(f, agent);
	control_send(f, streq(f->script, "mark-fails") ? "{\"event\":\"marked\",\"pause_ns\":0,\"error\":\"scripted\"}"
						       : "{\"event\":\"marked\",\"pause_ns\":4}");
}

static void on_control(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct fake *f = arg;
	char packet[256];
	int fds[3] = {-1, -1, -1};
	size_t nfds = 3;
	ssize_t n = fd_recv(f->control, packet, sizeof(packet) - 1, fds, &nfds);

	if (n <= 0)
		_exit(0); /* the keeper died */
	packet[n] = '\0';
	if (strstr(packet, "\"snapshot\""))
		save(f, fds);
	fd_close(fds[2]);
	if (strstr(packet, "\"mark\""))
		mark(f, fds[0], fds[1]);
	if (strstr(packet, "\"rewind\""))
		go_back(f, fds[0]);
	if (strstr(packet, "\"pause\""))
		control_send(f, "{\"event\":\"paused\"}");
	if (strstr(packet, "\"resume\""))
		control_send(f, "{\"event\":\"resumed\"}");
	if (strstr(packet, "\"stats\""))
		control_send(f, "{\"event\":\"stats\",\"exits\":{\"io\":3}}");
	if (strstr(packet, "\"workingset\""))
		note_workingset(f, fds[0]);
	if (strstr(packet, "\"stop\"") && !streq(f->script, "deaf"))
		leave(f, "shutdown");
}

static const struct mux_callbacks callbacks = {.open = on_open,
					       .data = on_data,
					       .eof = on_eof,
					       .event = on_event,
					       .writable = on_writable,
					       .closed = on_closed};

static json_t *read_config(int fd)
{
	char text[65536];
	ssize_t n = read_full(fd, text, sizeof(text));

	return n < 0 ? NULL : json_loadb(text, (size_t)n, 0, NULL);
}

static void start_link(struct fake *f, int agent)
{
	struct mux *m;

	if (mux_new(MUX_SERVER, &callbacks, f, 65536, &m) < 0 || link_new(f->loop, agent, m, on_end, f, &f->link) < 0 ||
	    mux_hello(m, NULL) < 0)
		_exit(6);
}

/* The text of the state file is what to do; all devices must be there, and no kernel. */
static const char *restored_script(json_t *config)
{
	static char script[64];
	json_t *restore = json_object_get(config, "restore");
	ssize_t n;

	if (!restore)
		return NULL;
	n = read_full((int)json_integer_value(json_object_get(restore, "state")), script, sizeof(script) - 1);
	if (n < 0 || json_array_size(json_object_get(config, "blk")) != 8 || json_object_get(config, "kernel") ||
	    !json_object_get(config, "window") || json_integer_value(json_object_get(restore, "memory")) <= 0)
		_exit(8);
	return script;
}

int main(int argc, char **argv)
{
	json_t *config = argc == 3 ? read_config(atoi(argv[2])) : NULL;
	json_t *vsock = json_object_get(config, "vsock");
	struct loop_source *src;
	struct fake f = {0};
	int agent;

	if (!config || !json_is_object(vsock))
		return 2;
	f.control = (int)json_integer_value(json_object_get(config, "control"));
	f.console = (int)json_integer_value(json_object_get(config, "console"));
	agent = (int)json_integer_value(json_object_get(vsock, "agent"));
	f.script = json_string_value(json_object_get(config, "cmdline"));
	if (!f.script)
		f.script = restored_script(config);
	if (!f.script)
		f.script = "";
	if (streq(f.script, "refused")) {
		control_send(&f, "{\"event\":\"exit\",\"reason\":\"error\",\"detail\":\"restore: scripted\"}");
		_exit(0);
	}
	if (streq(f.script, "dies"))
		_exit(9);
	control_send(&f, "{\"event\":\"started\",\"pid\":1}");
	if (loop_new(&f.loop) < 0 || loop_add(f.loop, f.control, POLLIN, on_control, &f, &src) < 0)
		return 2;
	if (streq(f.script, "garbage") && write(agent, "this is not the protocol", 24) < 0)
		return 2;
	if (!streq(f.script, "silent") && !streq(f.script, "garbage"))
		start_link(&f, agent);
	return loop_run(f.loop) < 0;
}
