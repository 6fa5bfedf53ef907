/* SPDX-License-Identifier: Apache-2.0 */
/* Copies of trees between the host and a VM: docker's rules, the room copy's records, the caller's thread. */
#include "lib/copy.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"

#define CHUNK 65536u

char *copy_guest_path(const char *path)
{
	char *s;

	return asprintf(&s, "%s%s", path[0] == '/' ? "" : "/", path) < 0 ? NULL : s;
}

/* ---------------------------------------------------------------------------------------- the channel */

static void on_data(void *arg, struct call *call, unsigned stream, const uint8_t *p, size_t len)
{
	struct copy_run *run = arg;

	if (stream == 1 && run->failed == 0)
		run->failed = run->feed(run->arg, p, len, &run->own);
	mux_consumed(run->conn.mux, call->ch, stream, len);
}

int copy_run_open(struct copy_run *run, struct sm_vm *vm, const struct proto_copy *request, struct sm_error *err)
{
	_cleanup_(buf_done) struct buf b = {0};
	char what[64];
	struct sm_vm *from;
	int r = vm_files(vm, &from, err);

	if (r == 0)
		r = vm_connect(vm->client, from->id, &run->conn, err);
	if (r < 0)
		return r;
	run->connected = true;
	run->conn.data = on_data;
	run->conn.arg = run;
	snprintf(what, sizeof(what), "VM %s", vm->id);
	r = proto_copy_encode(&b, request);
	if (r == 0)
		r = conn_call(&run->conn, PROTO_COPY, &b, &run->call);
	return r < 0 ? error_sys(err, -r, "%s", what) : conn_await_open(&run->conn, &run->call, what, err);
}

void copy_run_done(struct copy_run *run)
{
	if (!run->connected)
		return;
	conn_done(&run->conn);
	call_done(&run->call);
}

/* Waits for the link; notices what the caller wants. */
static int step(struct copy_run *run, int timeout_ms)
{
	struct pollfd cancel = {.fd = run->cancel_fd, .events = POLLIN};
	int r = conn_step(&run->conn, &cancel, 1, timeout_ms);

	if (run->failed)
		return run->failed;
	if (r == 0 && cancel.revents)
		r = run->failed = error_set(&run->own, SM_ERROR_CANCELLED, ECANCELED, "the copy was cancelled");
	return r;
}

static int tell_progress(struct copy_run *run, uint64_t done)
{
	if (run->progress.update && run->progress.update(run->progress.arg, "copy", done, 0))
		return run->failed = error_set(&run->own, SM_ERROR_CANCELLED, ECANCELED, "the copy was cancelled");
	return 0;
}

int copy_run_finish(struct copy_run *run, struct sm_error *err)
{
	int r = 0;

	while (r == 0 && run->failed == 0 && !run->ended(run->arg) && !run->call.closed)
		r = step(run, -1);
	if (run->failed) {
		if (err)
			*err = run->own;
		return run->failed;
	}
	if (run->ended(run->arg))
		return 0;
	if (run->call.code < 0 || run->conn.error)
		return call_error(&run->conn, &run->call, "copy", err);
	return error_set(err, SM_ERROR_GUEST, EPIPE, "the copy broke off: the VM's side of it died");
}

/* Sends records within the agent's credit. */
static int send_records(void *arg, const void *p, size_t len)
{
	struct copy_run *run = arg;
	const uint8_t *at = p;
	int r = 0;

	while (len && r == 0) {
		size_t room = MIN(mux_credit(run->conn.mux, run->call.ch, 0), MIN(len, (size_t)CHUNK));

		if (run->failed || run->call.closed)
			return run->failed ? run->failed : -EPIPE;
		if (room == 0) {
			r = step(run, -1);
			continue;
		}
		r = mux_send(run->conn.mux, run->call.ch, 0, at, room);
		at += room;
		len -= room;
		run->sent += room;
		if (r == 0)
			r = tell_progress(run, run->sent);
	}
	return r;
}

/* ------------------------------------------------------------------------------------------- to a VM */

/* An answer without a tree: END or ERROR. */
static int no_entry(void *arg, const struct copy_entry *e, unsigned depth, struct sm_error *err)
{
	return error_set(err, SM_ERROR_GUEST, EPROTO, "an answer that was not asked for");
}

static int no_data(void *arg, uint64_t offset, const void *p, size_t len, struct sm_error *err)
{
	return no_entry(arg, NULL, 0, err);
}

static int no_end(void *arg, struct sm_error *err)
{
	return no_entry(arg, NULL, 0, err);
}

static const struct copy_sink answer_sink = {no_entry, no_data, no_end, no_end};

static int feed_in(void *arg, const void *p, size_t len, struct sm_error *err)
{
	return copy_in_feed(arg, p, len, err);
}

static bool in_ended(void *arg)
{
	return ((struct copy_in *)arg)->ended;
}

static int send_source(struct copy_run *run, const char *source, const char *name, const struct sm_copy_options *o,
		       struct sm_error *err)
{
	struct copy_out out = {.write = send_records, .arg = run};
	struct copy_pack pack = {.follow = o->follow};
	int r = source ? copy_pack(source, name, &pack, &out, err) : copy_from_tar(o->tar_fd, &out, err);

	if (r == 0) {
		r = copy_put_end(&out);
		if (r < 0)
			r = error_sys(err, -r, "copy");
	}
	copy_out_done(&out);
	if (r == 0)
		mux_send_eof(run->conn.mux, run->call.ch, 0);
	/* The agent's own word explains more than that it does not listen any more. */
	if (r < 0 && (run->failed || run->call.closed || run->conn.error))
		return copy_run_finish(run, err);
	return r < 0 ? r : copy_run_finish(run, err);
}

static int copy_to(struct sm_vm *vm, const char *source, const char *target, const struct sm_copy_options *o,
		   struct sm_error *err)
{
	_cleanup_(copy_in_done) struct copy_in answer;
	struct copy_run run = {
		.cancel_fd = o->cancel_fd, .progress = o->progress, .feed = feed_in, .ended = in_ended, .arg = &answer};
	struct proto_copy x = {.op = PROTO_COPY_RECEIVE, .into = !source, .keep_ids = o->keep_ids};
	bool contents = true;
	_free_ char *path = copy_guest_path(target);
	_free_ char *name = source ? copy_source_name(source, &contents) : strdup("");
	int r;

	copy_in_init(&answer, &answer_sink, NULL);
	if (!path || !name)
		return error_sys(err, ENOMEM, "copy");
	x.path = path;
	x.name = name;
	x.contents = contents;
	r = copy_run_open(&run, vm, &x, err);
	if (r == 0)
		r = send_source(&run, source, name, o, err);
	copy_run_done(&run);
	return r;
}

int sm_vm_copy_to(struct sm_vm *vm, const char *source, const char *target, const struct sm_copy_options *options,
		  struct sm_error *err)
{
	struct sm_copy_options o = SM_COPY_OPTIONS_INIT;
	struct stat st;

	if (options)
		o = OPTIONS_GET(struct sm_copy_options, options);
	if (!target || !*target || (source ? !*source : o.tar_fd < 0))
		return error_set(err, SM_ERROR_INVALID, EINVAL, "copy: a path is missing");
	/* Said before anything starts. */
	if (source && lstat(source, &st) < 0)
		return error_sys(err, errno, "%s", source);
	return copy_to(vm, source, target, &o, err);
}

/* ------------------------------------------------------------------------------------------ from a VM */

struct receiver {
	struct copy_run run;
	struct copy_unpack *unpack;
};

static int feed_unpack(void *arg, const void *p, size_t len, struct sm_error *err)
{
	struct receiver *x = arg;
	int r = copy_unpack_feed(x->unpack, p, len, err);

	return r < 0 ? r : tell_progress(&x->run, copy_unpack_bytes(x->unpack));
}

static bool unpack_ended(void *arg)
{
	return copy_unpack_ended(((struct receiver *)arg)->unpack);
}

static int receive(struct receiver *x, struct sm_vm *vm, const char *source, const struct sm_copy_options *o,
		   struct sm_error *err)
{
	struct proto_copy request = {.op = PROTO_COPY_SEND, .follow = o->follow};
	_free_ char *path = copy_guest_path(source);
	int r;

	if (!path)
		return error_sys(err, ENOMEM, "copy");
	request.path = path;
	x->run.cancel_fd = o->cancel_fd;
	x->run.progress = o->progress;
	r = copy_run_open(&x->run, vm, &request, err);
	if (r == 0)
		r = copy_run_finish(&x->run, err);
	copy_run_done(&x->run);
	return r;
}

static int receive_tar(struct sm_vm *vm, const char *source, const struct sm_copy_options *o, struct sm_error *err)
{
	struct copy_tar *tar = NULL;
	struct receiver x = {.run = {.feed = copy_tar_feed, .ended = copy_tar_ended}};
	int r = copy_tar_new(o->tar_fd, &tar);

	if (r < 0)
		return error_sys(err, -r, "copy");
	x.run.arg = tar;
	r = receive(&x, vm, source, o, err);
	if (r == 0)
		r = copy_tar_finish(tar, err);
	copy_tar_free(tar);
	return r;
}

static int receive_files(struct sm_vm *vm, const char *source, const char *target, const struct sm_copy_options *o,
			 struct sm_error *err)
{
	struct copy_unpack_options unpack = {.keep_ids = o->keep_ids, .untrusted = true};
	struct receiver x = {.run = {.feed = feed_unpack, .ended = unpack_ended}};
	struct copy_place how = {0};
	_free_ char *name = copy_source_name(source, &how.contents);
	int r;

	x.run.arg = &x;
	how.source_name = name;
	r = name ? copy_unpack_new(target, &how, &unpack, &x.unpack) : -ENOMEM;
	if (r < 0)
		return error_sys(err, -r, "copy");
	r = receive(&x, vm, source, o, err);
	copy_unpack_free(x.unpack);
	return r;
}

int sm_vm_copy_from(struct sm_vm *vm, const char *source, const char *target, const struct sm_copy_options *options,
		    struct sm_error *err)
{
	struct sm_copy_options o = SM_COPY_OPTIONS_INIT;

	if (options)
		o = OPTIONS_GET(struct sm_copy_options, options);
	if (!source || !*source || (target ? !*target : o.tar_fd < 0))
		return error_set(err, SM_ERROR_INVALID, EINVAL, "copy: a path is missing");
	return target ? receive_files(vm, source, target, &o, err) : receive_tar(vm, source, &o, err);
}
