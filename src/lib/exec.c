/* SPDX-License-Identifier: Apache-2.0 */
/* Commands: opening them in a VM or in the machine, and their outcome. The pump of their streams is in pump.c. */
#include "lib/exec.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "lib/staged.h"

#define OUTPUT_MAX MIB
#define REQUEST_ROOM 64u /* of a frame, for what is around a request */

/* ------------------------------------------------------------------------------------------- open */

struct sm_exec *exec_new(struct sm_client *c, const char *id, const struct sm_exec_options *o)
{
	struct sm_exec *x = calloc(1, sizeof(*x));

	if (!x)
		return NULL;
	x->client = c;
	snprintf(x->id, sizeof(x->id), "%s", id);
	pthread_mutex_init(&x->lock, NULL);
	x->conn.fd = x->epoll = -1;
	for (unsigned i = 0; i < ARRAY_SIZE(x->watched); i++)
		x->watched[i].fd = -1;
	x->stdin_open = o->stdin_open;
	x->stdin_fd = o->stdin_open && !o->input ? o->stdin_fd : -1;
	x->cancel_fd = o->cancel_fd;
	x->out[0] = (struct exec_output){.fd = o->stdout_fd, .own = -1};
	x->out[1] = (struct exec_output){.fd = o->stderr_fd, .own = -1};
	for (int i = 0; i < 2; i++)
		x->out[i].kept.max = o->output_max ? o->output_max : OUTPUT_MAX;
	x->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (x->wake < 0 || (o->input && buf_put(&x->input, o->input, o->input_size) < 0)) {
		sm_exec_close(x);
		return NULL;
	}
	return x;
}

void exec_set_data_handler(struct sm_exec *x)
{
	x->conn.data = exec_on_data;
	x->conn.arg = x;
}

struct sm_exec *sm_exec_close(struct sm_exec *x)
{
	if (!x)
		return NULL;
	conn_done(&x->conn);
	call_done(&x->call);
	call_done(&x->wait);
	for (int i = 0; i < 2; i++) {
		buf_done(&x->out[i].pending);
		collect_done(&x->out[i].kept);
		fd_close(x->out[i].own);
	}
	buf_done(&x->input);
	buf_done(&x->staged);
	for (unsigned i = 0; i < ARRAY_SIZE(x->watched); i++)
		fd_close(x->watched[i].fd);
	fd_close(x->epoll);
	fd_close(x->wake);
	pthread_mutex_destroy(&x->lock);
	free(x);
	return NULL;
}

static struct sm_exec_options options_of(const struct sm_exec_options *options)
{
	struct sm_exec_options o = OPTIONS_GET(struct sm_exec_options, options);

	o.stdin_open |= o.input != NULL;
	return o;
}

int ulimits_check(const char *const *limits, struct sm_error *err)
{
	struct proto_rlimit l;

	for (; limits && *limits; limits++)
		if (proto_rlimit_parse(*limits, &l) < 0)
			return error_set(
				err, SM_ERROR_INVALID, EINVAL,
				"limit \"%s\" is not NAME=SOFT[:HARD], with a name such as nofile, nproc, core, "
				"stack or memlock",
				*limits);
	return 0;
}

static int check(const struct sm_exec_options *o, struct sm_error *err)
{
	int r;

	if (!o->argv || !o->argv[0])
		return error_set(err, SM_ERROR_INVALID, EINVAL, "no command given");
	if (o->cwd && o->cwd[0] != '/')
		return error_set(err, SM_ERROR_INVALID, EINVAL, "working directory \"%s\" is not absolute", o->cwd);
	r = command_fits(o->argv, o->env, err);
	if (r == 0)
		r = ulimits_check(o->ulimits, err);
	if (r == 0)
		r = staged_check(o, err);
	if (r < 0)
		return r;
	if (o->detach && o->input)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "a detached command is given no input");
	return 0;
}

/* proto_exec's members are not const: copies. */
static int encode(struct buf *b, const struct sm_exec_options *o, bool clear_env, struct buf *contents)
{
	struct proto_exec p = {.argv = strv_copy(o->argv),
			       .env = strv_copy(o->env),
			       .cwd = o->cwd ? strdup(o->cwd) : NULL,
			       .user = o->user ? strdup(o->user) : NULL,
			       .tty = o->tty,
			       .stdin_open = o->stdin_open,
			       .clear_env = clear_env,
			       .detached = o->detach,
			       .rows = o->tty && !o->rows ? 24 : o->rows,
			       .cols = o->tty && !o->cols ? 80 : o->cols,
			       .timeout_ns = o->timeout_ns,
			       .limits = strv_copy(o->ulimits),
			       .files = staged_files(o),
			       .chain = staged_chain(o)};
	int r = -ENOMEM;

	if ((p.limits || !o->ulimits) && p.argv && (p.env || !o->env) && (p.cwd || !o->cwd) && (p.user || !o->user) &&
	    (p.files || !o->num_files) && (p.chain || !o->chain || !*o->chain))
		r = proto_exec_encode(b, &p);
	/* What is small goes with the request, what is not behind it. */
	p.contents_follow = r == 0 && contents->len && b->len + contents->len > PROTO_MAX_PAYLOAD - REQUEST_ROOM;
	if (r == 0 && contents->len) {
		b->len = 0;
		p.contents = p.contents_follow ? p.contents : (struct proto_bytes){contents->data, contents->len};
		r = proto_exec_encode(b, &p);
	}
	if (!p.contents_follow)
		buf_done(contents);
	p.contents = (struct proto_bytes){0};
	proto_exec_done(&p);
	return r;
}

/* x->conn is connected. */
static int open_command(struct sm_exec *x, const struct sm_exec_options *o, bool clear_env, struct sm_error *err)
{
	_cleanup_(buf_done) struct buf b = {0};
	int r = staged_contents(o, &x->staged);

	if (r == 0)
		r = encode(&b, o, clear_env, &x->staged);
	if (r == 0 && o->detach && x->staged.len)
		return error_set(
			err, SM_ERROR_LIMIT, E2BIG,
			"the files of a detached command are too large to come with it (%zu bytes): write them "
			"before it",
			x->staged.len);
	exec_set_data_handler(x);
	if (r == 0)
		r = conn_call(&x->conn, o->detach ? PROTO_KEEPER_SPAWN : PROTO_EXEC, &b, &x->call);
	return r < 0 ? error_sys(err, -r, "command %s", o->argv[0]) : 0;
}

/* Until it runs, or cannot. */
static int await_start(struct sm_exec *x, const char *command, struct sm_error *err)
{
	struct keeper_spawned m;
	struct cursor reply;
	int r = conn_await_open(&x->conn, &x->call, command, err);

	if (r < 0)
		return r;
	reply = cursor_of(x->call.reply.data, x->call.reply.len);
	if (keeper_spawned_decode(&reply, &m) < 0)
		return error_set(err, SM_ERROR_GUEST, EPROTO, "%s: an answer that makes no sense", command);
	x->number = (uint32_t)m.exec;
	return 0;
}

/* As open_command; with what a pool's lease has said of the environment. */
static int open_in_vm(struct sm_exec *x, const struct sm_vm *vm, struct sm_exec_options o, struct sm_error *err)
{
	char **env = NULL;
	int r;

	if (vm->lease_env && !o.clear_env) {
		env = env_merge((const char *const *)vm->lease_env, o.env);
		if (!env)
			return error_sys(err, ENOMEM, "command %s", o.argv[0]);
		o.env = (const char *const *)env;
	}
	r = open_command(x, &o, o.clear_env, err);
	strv_free(env);
	return r;
}

int sm_vm_exec(struct sm_vm *vm, const struct sm_exec_options *options, struct sm_exec **ret, struct sm_error *err)
{
	struct sm_exec_options o = options_of(options);
	struct sm_exec *x;
	int r = check(&o, err);

	if (r == 0)
		r = vm_wake(vm, err);
	if (r < 0)
		return r;
	if (o.detach)
		o.stdin_fd = o.stdout_fd = o.stderr_fd = -1;
	x = exec_new(vm->client, vm->id, &o);
	if (!x)
		return error_sys(err, ENOMEM, "VM %s", vm->id);
	r = vm_dial(vm, &x->conn, err);
	if (r == 0)
		r = open_in_vm(x, vm, o, err);
	if (r == 0 && o.detach)
		r = await_start(x, o.argv[0], err);
	if (r < 0) {
		sm_exec_close(x);
		return r;
	}
	*ret = x;
	return 0;
}

int sm_machine_exec(struct sm_client *client, const struct sm_exec_options *options, struct sm_exec **ret,
		    struct sm_error *err)
{
	struct sm_exec_options o = options_of(options);
	struct sm_exec *x;
	struct seat *seat;
	int r = check(&o, err);

	if (r == 0 && o.detach)
		r = error_set(err, SM_ERROR_UNSUPPORTED, EOPNOTSUPP, "commands in the machine cannot be detached");
	if (r == 0)
		r = client_machine_seat(client, &seat, err);
	if (r < 0)
		return r;
	x = exec_new(client, "", &o);
	if (!x)
		return error_sys(err, ENOMEM, "machine");
	r = seat_machine_link(seat, err);
	if (r >= 0)
		r = conn_init(&x->conn, r, err);
	if (r == 0)
		r = open_command(x, &o, true, err);
	if (r < 0) {
		sm_exec_close(x);
		return r;
	}
	*ret = x;
	return 0;
}

/* The WAIT goes first: the VM's end is then told on this connection, whatever happens to the command's channel. */
static int open_attach(struct sm_exec *x, const struct sm_exec_options *o)
{
	struct keeper_attach a = {.stdin_open = o->stdin_open, .rows = o->rows, .cols = o->cols};
	_cleanup_(buf_done) struct buf wait = {0}, attach = {0};
	struct keeper_wait w = {0};
	int r = keeper_wait_encode(&wait, &w);

	exec_set_data_handler(x);
	x->attach = true;
	if (r == 0)
		r = conn_call(&x->conn, PROTO_KEEPER_WAIT, &wait, &x->wait);
	if (r == 0)
		r = keeper_attach_encode(&attach, &a);
	return r < 0 ? r : conn_call(&x->conn, PROTO_KEEPER_ATTACH, &attach, &x->call);
}

/* A refusal comes at once, an acceptance only when the command runs: so what follows the request tells them apart. */
static int check_refused(struct sm_exec *x, struct sm_error *err)
{
	while (!x->wait.opened && !x->wait.closed)
		if (conn_step(&x->conn, NULL, 0, -1) < 0)
			break;
	if (x->call.closed && (x->call.code == -EBUSY || x->call.code == -ESRCH || x->call.code == -EUSERS))
		return call_error(&x->conn, &x->call, "attach", err);
	return 0;
}

int sm_vm_attach(struct sm_vm *vm, const struct sm_exec_options *options, struct sm_exec **ret, struct sm_error *err)
{
	struct sm_exec_options o = options_of(options);
	struct sm_exec *x = exec_new(vm->client, vm->id, &o);
	int r;

	if (!x)
		return error_sys(err, ENOMEM, "VM %s", vm->id);
	x->joined = vm->owner_fd < 0;
	r = vm_connect(vm->client, vm->id, &x->conn, err);
	if (r == 0) {
		r = open_attach(x, &o);
		r = r < 0 ? error_sys(err, -r, "VM %s", vm->id) : check_refused(x, err);
	}
	if (r < 0) {
		sm_exec_close(x);
		return r;
	}
	*ret = x;
	return 0;
}

/* ----------------------------------------------------------------------------------- other threads */

void exec_wake(struct sm_exec *x)
{
	uint64_t one = 1;

	if (write(x->wake, &one, sizeof(one)) < 0)
		return; /* full: it wakes anyway */
}

int sm_exec_resize(struct sm_exec *x, uint16_t rows, uint16_t cols, struct sm_error *err)
{
	pthread_mutex_lock(&x->lock);
	x->resized = true;
	x->rows = rows;
	x->cols = cols;
	pthread_mutex_unlock(&x->lock);
	exec_wake(x);
	return 0;
}

int sm_exec_signal(struct sm_exec *x, int signal, struct sm_error *err)
{
	int r = 0;

	if (signal < 1 || signal > 64)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "no such signal: %d", signal);
	pthread_mutex_lock(&x->lock);
	if (x->num_signals < EXEC_QUEUE)
		x->signals[x->num_signals++] = signal;
	else
		r = error_set(err, SM_ERROR_LIMIT, EAGAIN, "too many signals wait to be sent");
	pthread_mutex_unlock(&x->lock);
	exec_wake(x);
	return r;
}

int sm_exec_detach(struct sm_exec *x, struct sm_error *err)
{
	pthread_mutex_lock(&x->lock);
	x->detached = true;
	pthread_mutex_unlock(&x->lock);
	exec_wake(x);
	return 0;
}

/* ---------------------------------------------------------------------------------------- outcome */

static void outcome_of_command(const struct sm_exec *x, struct sm_outcome *o)
{
	const struct proto_event *e = &x->call.exit;

	*o = (struct sm_outcome)SM_OUTCOME_INIT;
	o->reason = vm_reason_of_exit((int)e->reason);
	o->status = e->status & 0xff;
	o->signal = e->signal;
	o->timed_out = o->reason == SM_REASON_TIMEOUT;
	o->duration_ns = e->duration_ns;
	o->peak_rss = e->peak_rss;
	o->step = e->step;
	snprintf(o->message, sizeof(o->message), "%s", e->text);
}

/* How the VM ended, for who ran or joined its command. */
static int outcome_of_vm(struct sm_exec *x, struct sm_outcome *o, struct sm_error *err)
{
	struct vm_exit last;
	int r = 0;

	while (!x->wait.ended && !x->wait.closed && r == 0)
		r = conn_step(&x->conn, NULL, 0, -1);
	if (x->wait.ended) {
		*o = x->wait.record.outcome;
		return 0;
	}
	r = vm_last_word(x->client, x->id, &last, err);
	if (r == 0)
		*o = last.outcome;
	return r;
}

/* Without a word of its end: its keeper went, or the keeper's connection to the guest. */
static bool was_cut(const struct sm_exec *x)
{
	return x->conn.error || (x->call.closed && x->call.code == -ECONNRESET);
}

static int wait_for(struct sm_exec *x, struct sm_outcome *o, struct sm_error *err)
{
	char what[64] = "command in the machine";
	struct vm_exit last;
	int r;

	if (x->id[0])
		snprintf(what, sizeof(what), "command in VM %s", x->id);
	if (x->waited)
		return error_set(err, SM_ERROR_STATE, EALREADY, "this command was waited for already");
	x->waited = true;
	r = exec_pump(x, err);
	if (r < 0)
		return r;
	if (x->attach) {
		r = outcome_of_vm(x, o, err);
	} else if (x->call.has_exit) {
		outcome_of_command(x, o);
	} else if (x->id[0] && was_cut(x) && vm_last_word(x->client, x->id, &last, NULL) == 0) {
		/* The VM ended under it: killed with it, but where a part of ours failed. */
		*o = last.outcome;
		o->num_stages = 0;
		if (o->status != 125 || o->reason == SM_REASON_EXITED)
			o->status = o->signal ? o->status : 137;
	} else {
		r = call_error(&x->conn, &x->call, what, err);
	}
	return r;
}

/* A full disk, say: whatever the command's status, what it printed is not all there. */
static void note_lost_output(const struct sm_exec *x, struct sm_outcome *o)
{
	static const char *const names[] = {"standard output", "standard error"};

	for (unsigned i = 0; i < 2; i++) {
		if (!x->out[i].error)
			continue;
		o->output_lost = true;
		if (!o->message[0])
			snprintf(o->message, sizeof(o->message), "%s: %s: not all of it was written", names[i],
				 strerror(x->out[i].error));
	}
}

int sm_exec_wait(struct sm_exec *x, struct sm_outcome *ret, struct sm_error *err)
{
	struct sm_outcome o;
	int r = wait_for(x, &o, err);

	if (r == 0) {
		note_lost_output(x, &o);
		outcome_copy(ret, &o);
	}
	return r;
}

int sm_exec_collect(struct sm_exec *x, struct sm_result **ret, struct sm_error *err)
{
	struct sm_result *result = calloc(1, sizeof(*result));
	int r = result ? wait_for(x, &result->outcome, err) : error_sys(err, ENOMEM, "output of the command");

	if (r == 0 &&
	    (collect_finish(&x->out[0].kept, &result->out) < 0 || collect_finish(&x->out[1].kept, &result->err) < 0))
		r = error_sys(err, ENOMEM, "output of the command");
	if (r < 0)
		sm_result_free(result);
	else
		*ret = result;
	return r;
}

struct sm_result *sm_result_free(struct sm_result *result)
{
	if (!result)
		return NULL;
	free((char *)(uintptr_t)result->out.data);
	free((char *)(uintptr_t)result->err.data);
	free(result);
	return NULL;
}
