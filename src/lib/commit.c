/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An image of what a VM has changed: its changes, as `diff` has them but whole (COPY), become a layer on top of the
 * VM's image, and that a new image of the store. As docker does, the image runs what the VM ran.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "lib/copy.h"
#include "lib/events.h"
#include "oci/amend.h"

#define SECRETS "/run/secrets"
#define DEFAULT_TERM "TERM=xterm"
#define MAX_LAYER (256 * GIB) /* as of one that is loaded */

struct commit {
	struct copy_run run;
	struct layer_tar *tar;
	struct vm_record rec;
	struct image_commit *image;
	struct sm_progress progress;
	char **points;
};

/* ------------------------------------------------------------------------------------- what is no part */

/* Where something is mounted in it: what SETUP makes there is no change of the VM's. */
static int list_points(struct commit *c)
{
	static const char *const ours[] = {SECRETS, "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"};
	const struct vm_record *r = &c->rec;
	size_t tmpfs = strv_len((const char *const *)r->tmpfs), n = 0;
	char **v = calloc(ARRAY_SIZE(ours) + r->num_mounts + tmpfs + 1, sizeof(*v));

	c->points = v;
	for (size_t i = 0; v && i < ARRAY_SIZE(ours); i++)
		v[n++] = strdup(ours[i]);
	for (size_t i = 0; v && i < r->num_mounts; i++)
		v[n++] = strdup(r->mounts[i].target);
	for (size_t i = 0; v && i < tmpfs; i++) {
		struct proto_tmpfs t;

		if (proto_tmpfs_parse(r->tmpfs[i], &t) == 0)
			v[n++] = strdup(t.path);
	}
	for (size_t i = 0; v && i < n; i++)
		if (!v[i])
			return -ENOMEM;
	return v ? 0 : -ENOMEM;
}

/* --------------------------------------------------------------------------------------- configuration */

/* What the record has of the VM's process that is not ours, in the image's words. */
struct process {
	char **entrypoint, **cmd, **env, *stop_signal;
};

static void process_done(struct process *p)
{
	strv_free(p->entrypoint);
	strv_free(p->cmd);
	strv_free(p->env);
	free(p->stop_signal);
}

/* A command that begins with the image's entrypoint has that, and the rest is what it was given. */
static int set_command(struct process *p, const struct vm_record *rec, const struct image_info *base)
{
	size_t n = strv_len((const char *const *)base->entrypoint), i = 0;
	static const char *const none[] = {NULL};

	while (i < n && rec->argv[i] && streq(rec->argv[i], base->entrypoint[i]))
		i++;
	p->entrypoint = strv_copy(i == n && n ? (const char *const *)base->entrypoint : none);
	p->cmd = strv_copy((const char *const *)rec->argv + (i == n ? n : 0));
	return p->entrypoint && p->cmd ? 0 : -ENOMEM;
}

static const char *value_of(char *const *env, const char *pair)
{
	size_t name = strcspn(pair, "=") + 1;

	for (; env && *env; env++)
		if (strncmp(*env, pair, name) == 0)
			return *env;
	return NULL;
}

/* Without the variables that every VM gets whose image lacks them. */
static int set_env(struct process *p, const struct vm_record *rec, const struct image_info *base)
{
	size_t n = 0;

	p->env = calloc(strv_len((const char *const *)rec->env) + 1, sizeof(*p->env));
	for (char **e = rec->env; p->env && e && *e; e++) {
		bool ours = (rec->tty && streq(*e, DEFAULT_TERM)) || streq(*e, START_DEFAULT_PATH);

		if (ours && !value_of(base->env, *e))
			continue;
		p->env[n] = strdup(*e);
		if (!p->env[n++])
			return -ENOMEM;
	}
	return p->env ? 0 : -ENOMEM;
}

static int set_process(struct process *p, const struct vm_record *rec, const struct image_info *base)
{
	const char *image = base->stop_signal && *base->stop_signal ? base->stop_signal : "TERM";
	int r = rec->no_command ? 0 : set_command(p, rec, base);

	if (r == 0)
		r = set_env(p, rec, base);
	if (r == 0 && signal_parse(image) != rec->stop_signal &&
	    asprintf(&p->stop_signal, "%d", rec->stop_signal) < 0) {
		p->stop_signal = NULL;
		r = -ENOMEM;
	}
	return r;
}

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* --------------------------------------------------------------------------------------------- gathering */

static int feed(void *arg, const void *p, size_t len, struct sm_error *err)
{
	struct commit *c = arg;
	int r = layer_tar_feed(c->tar, p, len, err);

	if (r == 0 && c->progress.update && c->progress.update(c->progress.arg, "copy", layer_tar_written(c->tar), 0))
		r = error_set(err, SM_ERROR_CANCELLED, ECANCELED, "the commit was cancelled");
	return r;
}

static bool ended(void *arg)
{
	return layer_tar_ended(((struct commit *)arg)->tar);
}

static int gather(struct commit *c, struct sm_vm *vm, const struct sm_commit_options *o, struct sm_error *err)
{
	struct proto_copy x = {.op = PROTO_COPY_CHANGES,
			       .path = (char *)"/",
			       .contents = true,
			       .whole = true,
			       .hold = !o->no_pause,
			       .skip = c->points};
	int r = layer_tar_new(image_commit_fd(c->image), MAX_LAYER, c->points, &c->tar);

	if (r < 0)
		return error_sys(err, -r, "commit");
	c->run = (struct copy_run){.cancel_fd = o->cancel_fd, .feed = feed, .ended = ended, .arg = c};
	r = copy_run_open(&c->run, vm, &x, err);
	/* Nothing goes that way: so the channel ends if the other side dies. */
	if (r == 0)
		mux_send_eof(c->run.conn.mux, c->run.call.ch, 0);
	if (r == 0)
		r = copy_run_finish(&c->run, err);
	copy_run_done(&c->run);
	return r < 0 ? r : layer_tar_finish(c->tar, err);
}

/* Beside `changes`, which the caller has. */
static int publish(struct commit *c, const struct sm_commit_options *o, struct image_info *ret, struct sm_error *err)
{
	_cleanup_(process_done) struct process p = {0};
	const struct image_info *base = image_commit_base(c->image);
	struct image_progress progress = {.update = c->progress.update, .arg = c->progress.arg};
	_cleanup_(buf_done) struct buf by = {0};
	struct oci_amend a = {.user = c->rec.user,
			      .cwd = c->rec.cwd,
			      .labels = c->rec.labels,
			      .changes = o->changes,
			      .author = o->author,
			      .message = o->message,
			      .created_ns = now_ns()};
	int r = set_process(&p, &c->rec, base);

	if (r == 0 && !c->rec.no_command) {
		for (char **w = c->rec.argv; *w; w++)
			buf_printf(&by, "%s%s", w == c->rec.argv ? "" : " ", *w);
		buf_put_u8(&by, 0);
		r = by.error;
	}
	if (r < 0)
		return error_sys(err, -r, "commit");
	a.entrypoint = p.entrypoint;
	a.cmd = p.cmd;
	a.env = p.env;
	a.stop_signal = p.stop_signal;
	a.created_by = (const char *)by.data;
	return image_commit_finish(c->image, &a, &progress, ret, err);
}

static int load_record(struct commit *c, struct sm_vm *vm, struct sm_error *err)
{
	_fd_ int dir = vmdir_open(vm->client, vm->id, err);
	int r = dir < 0 ? dir : vmdir_load(dir, vm->id, &c->rec, err);

	if (r < 0)
		return r;
	r = list_points(c);
	return r < 0 ? error_sys(err, -r, "commit") : 0;
}

static int commit(struct commit *c, struct sm_vm *vm, const char *name, const struct sm_commit_options *o,
		  struct image_info *ret, struct sm_error *err)
{
	struct image_store *store;
	int r = load_record(c, vm, err);

	if (r == 0)
		r = client_store(vm->client, &store, err);
	if (r == 0)
		r = oci_amend_check(o->changes, err);
	if (r == 0)
		r = image_commit_begin(store, c->rec.image_id, name, &c->image, err);
	if (r == 0)
		r = gather(c, vm, o, err);
	return r < 0 ? r : publish(c, o, ret, err);
}

int sm_vm_commit(struct sm_vm *vm, const char *name, const struct sm_commit_options *options, struct sm_image **ret,
		 struct sm_error *err)
{
	struct sm_commit_options o = SM_COMMIT_OPTIONS_INIT;
	struct image_info info = {0};
	struct commit c = {0};
	int r;

	options_copy(&o, sizeof(o), options, options ? options->size : 0);
	c.progress = o.progress;
	r = commit(&c, vm, name, &o, &info, err);
	image_commit_end(c.image);
	layer_tar_free(c.tar);
	vm_record_done(&c.rec);
	strv_free(c.points);
	if (r < 0)
		return r;
	events_object(vm->client, "image", "commit", info.id, name ? name : "");
	return image_give(&info, ret, err);
}
