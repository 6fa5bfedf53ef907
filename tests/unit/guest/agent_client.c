/* SPDX-License-Identifier: Apache-2.0 */
/* See agent_client.h. */
#include "agent_client.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"

#define AGENT getenv("TEST_AGENT")
#define CALL_MS 30000

static void on_hello(void *arg, struct cursor *attributes, uint16_t version)
{
}

static void push(struct call *k)
{
	struct mux *m = k->c->mux;

	while (k->opened && k->in_sent < k->in_len) {
		size_t n = MIN(mux_credit(m, k->ch, 0), k->in_len - k->in_sent);

		if (!n || mux_send(m, k->ch, 0, k->in + k->in_sent, n) < 0)
			return;
		k->in_sent += n;
	}
	if (k->opened && k->in_eof && k->in_sent == k->in_len) {
		k->in_eof = false;
		mux_send_eof(m, k->ch, 0);
	}
}

static void on_opened(void *arg, uint32_t ch, void *user, struct cursor *reply)
{
	struct call *k = user;

	k->opened = true;
	buf_put(&k->out[0], reply->p, reply->left);
	push(k);
}

static void on_data(void *arg, uint32_t ch, void *user, unsigned stream, const uint8_t *p, size_t len)
{
	struct call *k = user;

	buf_put(&k->out[stream], p, len);
	if (!k->hold)
		mux_consumed(k->c->mux, ch, stream, len);
}

static void on_eof(void *arg, uint32_t ch, void *user, unsigned stream)
{
	((struct call *)user)->eof[stream] = true;
}

static void on_event(void *arg, uint32_t ch, void *user, struct cursor *event)
{
	struct call *k = user;

	if (proto_event_decode(event, &k->exit) == 0 && k->exit.kind == PROTO_EV_EXIT)
		k->exited = true;
}

static void on_writable(void *arg, uint32_t ch, void *user, unsigned stream)
{
	push(user);
}

static void on_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	struct call *k = user;

	k->closed = true;
	k->code = code;
	snprintf(k->text, sizeof(k->text), "%s", text);
	mux_close(k->c->mux, ch, 0, NULL);
}

static const struct mux_callbacks callbacks = {
	.hello = on_hello,
	.opened = on_opened,
	.data = on_data,
	.eof = on_eof,
	.event = on_event,
	.writable = on_writable,
	.closed = on_closed,
};

static void on_end(struct link *l, int r, const char *why, void *arg)
{
	struct client *c = arg;

	c->ended = 1;
	c->link = link_free(l);
	c->mux = NULL;
}

static void run_agent(int fd, const char *const *extra)
{
	char number[16];
	const char *argv[12] = {AGENT, "--fd", number};
	size_t n = 3;
	pid_t pid;
	int status;

	snprintf(number, sizeof(number), "%d", fd);
	/* A PID namespace takes /proc along, which the leak check at the end would need. */
	if (extra)
		setenv("ASAN_OPTIONS", "detect_leaks=0:abort_on_error=1", 1);
	for (; extra && *extra && n < 11; extra++)
		argv[n++] = *extra;
	if (unshare(CLONE_NEWPID | CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		_exit(77);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (mount("proc", "/proc", "proc", 0, NULL) < 0)
			_exit(77);
		execv(argv[0], (char *const *)argv);
		_exit(99);
	}
	close(fd);
	waitpid(pid, &status, 0);
	if (WIFSIGNALED(status)) {
		signal(WTERMSIG(status), SIG_DFL);
		kill(getpid(), WTERMSIG(status));
	}
	_exit(WEXITSTATUS(status));
}

bool client_start(struct client *c, const char *const *extra)
{
	int pair[2];

	*c = (struct client){0};
	if (geteuid() != 0)
		return false;
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
		abort();
	c->pid = fork();
	if (c->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(pair[0]);
		run_agent(pair[1], extra);
	}
	close(pair[1]);
	c->fd = pair[0];
	if (loop_new(&c->loop) < 0 || mux_new(MUX_CLIENT, &callbacks, c, PROTO_DEFAULT_WINDOW, &c->mux) < 0 ||
	    link_new(c->loop, pair[0], c->mux, on_end, c, &c->link) < 0 || mux_hello(c->mux, NULL) < 0)
		abort();
	for (uint64_t until = time_now_ns() + 10000000000ULL; !c->ended && !mux_ready(c->mux) && time_now_ns() < until;)
		loop_run_once(c->loop, 100);
	if (!c->ended)
		return true;
	client_stop(c);
	return false;
}

int client_stop(struct client *c)
{
	int status = -1;

	c->link = link_free(c->link);
	c->loop = loop_free(c->loop);
	waitpid(c->pid, &status, 0);
	return status;
}

void call_open(struct client *c, struct call *k, uint16_t service, const struct buf *request)
{
	*k = (struct call){.c = c};
	if (c->ended || mux_open(c->mux, service, request, k, &k->ch) < 0)
		k->closed = true;
}

void call_exec(struct client *c, struct call *k, const struct proto_exec *x)
{
	struct buf b = {0};

	if (proto_exec_encode(&b, x) < 0)
		abort();
	call_open(c, k, PROTO_EXEC, &b);
	buf_done(&b);
}

static void send_event(struct call *k, const struct proto_event *e)
{
	struct buf b = {0};

	if (proto_event_encode(&b, e) < 0)
		abort();
	mux_send_event(k->c->mux, k->ch, &b);
	buf_done(&b);
}

void call_signal(struct call *k, int sig)
{
	send_event(k, &(struct proto_event){.kind = PROTO_EV_SIGNAL, .signal = sig});
}

void call_resize(struct call *k, unsigned rows, unsigned cols)
{
	send_event(k, &(struct proto_event){.kind = PROTO_EV_RESIZE, .rows = (uint16_t)rows, .cols = (uint16_t)cols});
}

void call_feed(struct call *k, const void *p, size_t len)
{
	k->in = p;
	k->in_len = len;
	k->in_sent = 0;
	k->in_eof = true;
	push(k);
}

bool client_until(struct client *c, const bool *flag, unsigned ms)
{
	uint64_t until = time_now_ns() + ms * 1000000ULL;

	while (!*flag && !c->ended && time_now_ns() < until)
		loop_run_once(c->loop, 100);
	return *flag;
}

void client_turn(struct client *c, unsigned ms)
{
	bool never = false;

	client_until(c, &never, ms);
}

void call_done(struct call *k)
{
	for (int i = 0; i < 3; i++)
		buf_done(&k->out[i]);
}

int client_sh(struct client *c, const char *script, struct call *k)
{
	char sh[] = "/bin/sh", dash_c[] = "-c", *argv[] = {sh, dash_c, (char *)(uintptr_t)script, NULL};
	struct proto_exec x = {.argv = argv};

	call_exec(c, k, &x);
	if (!client_until(c, &k->closed, CALL_MS) || !k->exited)
		return -1;
	buf_put_u8(&k->out[1], 0);
	buf_put_u8(&k->out[2], 0);
	k->out[1].len--;
	k->out[2].len--;
	return k->exit.status;
}
