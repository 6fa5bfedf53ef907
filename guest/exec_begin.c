/* SPDX-License-Identifier: Apache-2.0 */
/* How a command begins, and each that is chained to it: see exec.c for its life. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "guest/cgroup.h"
#include "guest/environment.h"
#include "guest/exec.h"
#include "guest/spawn.h"
#include "proto/stage.h"

static int begin_flows(struct exec *e, struct ends *s)
{
	struct flow_channel to = {.loop = e->a->loop, .mux = e->a->mux, .ch = e->ch};
	int r = 0;

	for (unsigned i = 0; i < 2 && r == 0; i++) {
		to.stream = i + 1;
		if (s->ours[i + 1] >= 0)
			r = outflow_begin(&e->out[i], to, TAKE_FD(s->ours[i + 1]), false, NULL, NULL);
		if (r == 0 && e->out[i].src)
			loop_modify(e->out[i].src, 0); /* until the channel is open */
	}
	to.stream = 0;
	if (r == 0 && s->stage >= 0)
		r = inflow_begin(&e->staged, to, TAKE_FD(s->stage), false, NULL, NULL);
	if (r == 0 && s->ours[0] >= 0)
		r = inflow_begin(&e->in, to, TAKE_FD(s->ours[0]), false, NULL, NULL);
	e->in.tty = e->tty;
	return r;
}

/* What a command is run from, whichever of a chain it is. */
struct source {
	const struct proto_exec *x;
	char *const *argv;
	const struct user *user;
	const struct environment *env;
	const int *fds;
	struct stage stage;
};

/* On failure there is no process. */
static int spawn_command(struct exec *e, const struct source *s)
{
	struct agent *a = e->a;
	const struct proto_exec *x = s->x;
	struct child_plan plan = {
		.argv = s->argv,
		.env = s->env->vars,
		.cwd = x->cwd			       ? x->cwd
		       : a->setup.cwd && *a->setup.cwd ? a->setup.cwd
						       : "/",
		.make_cwd = x->main || !x->cwd,
		.user = s->user,
		.fds = {s->fds[0], s->fds[1], s->fds[2]},
		.stage = s->stage,
		.tty = x->tty,
		.console = x->tty && x->main && a->set_up,
		.hold = x->hold,
		.limits = a->role == ROLE_GUEST,
		.more_limits = {a->setup.limits, x->limits},
		.ignored = a->ignored,
		.proc_fd = a->proc_fd,
	};
	int report[2], r;

	if (pipe2(report, O_CLOEXEC) < 0)
		return -errno;
	e->report_fd = report[0];
	plan.report_fd = report[1];
	plan.own_cgroup_view = e->cgroup_fd >= 0 && a->set_up;
	e->pid = spawn(a, &plan, x->main, e->cgroup_fd);
	fd_close(report[1]);
	if (e->pid < 0)
		return e->pid;
	/* From here on the process is there: what fails now shows as a broken stream, and the command is killed. */
	r = fd_set_nonblock(e->report_fd, true);
	if (r == 0)
		r = loop_add(a->loop, e->report_fd, EPOLLIN, exec_on_report, e, &e->report_src);
	if (r < 0)
		exec_kill(e);
	return r;
}

static int limit_time(struct exec *e, uint64_t timeout_ns)
{
	int r = timeout_ns ? loop_add_timer(e->a->loop, exec_on_timeout, e, &e->timer) : 0;

	if (timeout_ns && r == 0)
		loop_timer_at(e->timer, timeout_ns > UINT64_MAX - e->start_ns ? UINT64_MAX : e->start_ns + timeout_ns);
	return r;
}

static int start(struct exec *e, const struct proto_exec *x, const struct user *u, const struct environment *env,
		 struct ends *s)
{
	struct source source = {.x = x,
				.argv = x->argv,
				.user = u,
				.env = env,
				.fds = s->child,
				.stage = {.files = x->files, .contents = x->contents.data, .fd = s->staged}};
	int r;

	e->cgroup_fd = cgroup_make(e->a, &e->cgroup_id);
	e->start_ns = time_now_ns();
	r = spawn_command(e, &source);
	if (r < 0)
		return r;
	r = limit_time(e, x->timeout_ns);
	if (r == 0)
		r = begin_flows(e, s);
	if (r < 0)
		exec_kill(e);
	return r;
}

/* ------------------------------------------------------------------------------------------ chains */

void chain_free(struct chain *c)
{
	if (!c)
		return;
	for (int i = 0; i < 3; i++)
		fd_close(c->fds[i]);
	environment_done(&c->env);
	user_done(&c->user);
	proto_exec_done(&c->x);
	free(c);
}

/* Takes the request, the user and the environment over: they are zero afterwards. */
static int chain_new(struct exec *e, struct proto_exec *x, struct user *u, struct environment *env,
		     const struct ends *s)
{
	struct chain *c = calloc(1, sizeof(*c));
	int r = c ? 0 : -ENOMEM;

	for (int i = 0; i < 3 && c; i++)
		if ((c->fds[i] = fcntl(s->child[i], F_DUPFD_CLOEXEC, 3)) < 0)
			r = -errno;
	e->chain = c;
	if (r < 0)
		return r;
	c->x = *x;
	c->user = *u;
	c->env = *env;
	*x = (struct proto_exec){0};
	*u = (struct user){0};
	*env = (struct environment){0};
	return 0;
}

static void note_failure(struct exec *e, const char *what, int error)
{
	struct child_failure f = {.status = 126};

	e->report_src = loop_remove(e->report_src);
	e->report_fd = fd_close(e->report_fd);
	snprintf(f.text, sizeof(f.text), "%.160s: %s", what, strerror(error));
	memset(e->report, 0, sizeof(int32_t));
	memcpy(e->report + sizeof(int32_t), &f, sizeof(f));
	e->report_len = sizeof(e->report);
	e->reaped = true;
}

int exec_next(struct exec *e)
{
	struct chain *c = TAKE_PTR(e->chain);
	_free_ char **argv = proto_chain_argv(&c->x, e->step);
	struct source source = {
		.x = &c->x, .argv = argv, .user = &c->user, .env = &c->env, .fds = c->fds, .stage.fd = -1};
	int r;

	e->step++;
	e->reaped = false;
	e->report_len = 0;
	r = argv ? spawn_command(e, &source) : -ENOMEM;
	if (r < 0)
		note_failure(e, argv ? argv[0] : "the next command", -r);
	/* The last one's streams are its own alone: it is seen when it closes them. */
	if (r < 0 || e->step == proto_chain_count(&c->x))
		chain_free(c);
	else
		e->chain = c;
	return r;
}

/* ------------------------------------------------------------------------------------------ requests */

static struct exec *exec_new(struct agent *a, uint32_t ch, const struct proto_exec *x)
{
	struct exec *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	e->a = a;
	e->ch = ch;
	e->has_channel = true;
	e->detached = x->detached;
	e->tty = x->tty;
	e->main = x->main;
	e->staged_left = x->contents_follow ? proto_staged_total(x) : 0;
	e->report_fd = e->cgroup_fd = e->staged.fd = -1;
	e->out[0].fd = e->out[1].fd = e->in.fd = -1;
	e->out[0].to.mux = e->out[1].to.mux = e->in.from.mux = a->mux;
	e->in.from.ch = ch;
	e->next = a->execs;
	a->execs = e;
	a->used = true;
	return e;
}

static int run(struct agent *a, uint32_t ch, struct proto_exec *x, struct user *u, struct environment *env)
{
	struct ends s = ENDS_NONE;
	struct exec *e = NULL;
	int r = ends_make(&s, x, u);

	if (r == 0) {
		e = exec_new(a, ch, x);
		r = e ? start(e, x, u, env, &s) : -ENOMEM;
	}
	if (r == 0 && x->chain && (r = chain_new(e, x, u, env, &s)) < 0)
		exec_kill(e);
	ends_close(&s);
	if (r < 0 && e)
		exec_free(e);
	else if (r == 0)
		mux_set_handler(a->mux, ch, &exec_callbacks, e);
	return r;
}

void exec_open(struct agent *a, uint32_t ch, struct cursor *request)
{
	struct environment env = {0};
	struct sm_error err = {0};
	struct user u = {0};
	struct proto_exec x;
	int r = proto_exec_decode(request, &x);

	if (r < 0) {
		agent_refuse(a, ch, r, "malformed EXEC request");
		return;
	}
	r = user_resolve(x.user ? x.user : a->setup.user, "/etc/passwd", "/etc/group", &u, &err);
	if (r == 0)
		r = environment_make(&env, x.clear_env ? NULL : a->setup.env, x.env);
	if (r == 0 && !x.clear_env)
		r = environment_defaults(&env, u.home, x.tty);
	if (r == 0)
		r = run(a, ch, &x, &u, &env);
	if (r < 0)
		agent_refuse(a, ch, r, "%s", err.kind ? err.message : strerror(-r));
	environment_done(&env);
	user_done(&u);
	proto_exec_done(&x);
}
