/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a VM has changed of its image and of mounts with `cow`, and taking the latter into the host's directory. The
 * guest says what it is, as a stream of changes (copy/stream.h), and is not trusted: the names are single components,
 * what is written is written by the code that also receives copies, beneath the directory and through no link.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "lib/copy.h"

#define PATH_ROOM 8192u

typedef int (*change_fn)(void *arg, const struct sm_change *c);

/* One layer's stream: where it is, what is told of it, what becomes of it. */
struct walk {
	struct copy_in in;
	struct copy_run run;
	change_fn change;
	void *arg;
	const char *const *wanted;  /* paths; NULL: all */
	struct copy_unpack *unpack; /* NULL: it is only told */
	char path[PATH_ROOM];
	size_t lens[COPY_MAX_DEPTH + 1]; /* of the path at each open directory */
	bool told[COPY_MAX_DEPTH + 1];	 /* it was told of that directory, or is not to be */
	unsigned depth, skip;		 /* skip: everything deeper is left out; 0: nothing is */
	bool in_file;			 /* its contents are wanted */
	char gone[PATH_ROOM];		 /* told of when it is clear that nothing has taken its place; "": none */
	unsigned gone_depth;
};

/* ---------------------------------------------------------------------------------------------- telling */

static int tell(struct walk *w, enum sm_change_kind kind, const char *path, const struct copy_entry *e,
		struct sm_error *err)
{
	static const uint32_t types[] = {[COPY_FILE] = S_IFREG,	    [COPY_DIR] = S_IFDIR,     [COPY_SYMLINK] = S_IFLNK,
					 [COPY_HARDLINK] = S_IFREG, [COPY_FIFO] = S_IFIFO,    [COPY_CHAR] = S_IFCHR,
					 [COPY_BLOCK] = S_IFBLK,    [COPY_SOCKET] = S_IFSOCK, [COPY_GONE] = 0};
	struct sm_change c = {.kind = kind, .path = path, .link = ""};

	if (e) {
		c.mode = types[e->kind] | e->mode;
		c.size = e->size;
		c.link = e->kind == COPY_SYMLINK ? e->link : "";
	}
	if (w->change && w->change(w->arg, &c))
		return error_set(err, SM_ERROR_CANCELLED, ECANCELED, "stopped");
	return 0;
}

/* As docker lists them, the directories on the way count as changed. */
static int tell_parents(struct walk *w, unsigned depth, struct sm_error *err)
{
	int r = 0;

	for (unsigned i = 1; r == 0 && i < depth && !w->unpack; i++) {
		char path[PATH_ROOM];
		struct copy_entry dir = {.kind = COPY_DIR, .mode = 0755};

		if (w->told[i])
			continue;
		w->told[i] = true;
		snprintf(path, sizeof(path), "%.*s", (int)w->lens[i], w->path);
		r = tell(w, SM_CHANGE_CHANGED, path, &dir, err);
	}
	return r;
}

static int tell_gone(struct walk *w, struct sm_error *err)
{
	int r;

	if (!w->gone[0])
		return 0;
	r = tell_parents(w, w->gone_depth, err);
	if (r == 0)
		r = tell(w, SM_CHANGE_DELETED, w->gone, NULL, err);
	w->gone[0] = '\0';
	return r;
}

/* ----------------------------------------------------------------------------------------------- choice */

/* 1: it is wanted; 0: what is in it may be; -1: neither. */
static int is_wanted(const struct walk *w)
{
	size_t len = strlen(w->path);
	int best = w->wanted ? -1 : 1;

	for (const char *const *p = w->wanted; p && *p && best < 1; p++) {
		size_t want = strlen(*p);

		if (streq(*p, "/") || (strncmp(w->path, *p, want) == 0 && (w->path[want] == '/' || !w->path[want])))
			best = 1;
		else if (strncmp(w->path, *p, len) == 0 && (*p)[len] == '/')
			best = 0;
	}
	return best;
}

/* -------------------------------------------------------------------------------------------------- sink */

static int pass(struct walk *w, const struct copy_entry *e, unsigned depth, bool on_the_way, struct sm_error *err)
{
	struct copy_entry copy = *e;

	if (!w->unpack)
		return 0;
	if (on_the_way)
		copy.flags |= COPY_IMPLICIT;
	return copy_unpack_sink.entry(w->unpack, &copy, depth, err);
}

/* A change that is wanted. */
static int take(struct walk *w, const struct copy_entry *e, unsigned depth, struct sm_error *err)
{
	bool again = w->gone[0] && streq(w->gone, w->path), device = e->kind == COPY_CHAR || e->kind == COPY_BLOCK;
	int r = 0;

	if (e->kind == COPY_GONE) {
		r = tell_gone(w, err);
		snprintf(w->gone, sizeof(w->gone), "%s", w->path);
		w->gone_depth = depth;
		return r < 0 ? r : pass(w, e, depth, false, err);
	}
	if (again)
		w->gone[0] = '\0';
	r = tell_gone(w, err);
	if (r == 0)
		r = tell_parents(w, depth, err);
	if (r < 0)
		return r;
	if (w->unpack && device)
		return tell(w, SM_CHANGE_REFUSED, w->path, e, err);
	r = tell(w, (e->flags & COPY_NEW) && !again ? SM_CHANGE_ADDED : SM_CHANGE_CHANGED, w->path, e, err);
	w->in_file = e->kind == COPY_FILE;
	return r < 0 ? r : pass(w, e, depth, false, err);
}

static int on_entry(void *arg, const struct copy_entry *e, unsigned depth, struct sm_error *err)
{
	struct walk *w = arg;
	size_t at = depth ? w->lens[depth - 1] : 0;
	bool told = true;
	int want, r;

	w->in_file = false;
	if (depth == 0) {
		if (e->kind != COPY_DIR)
			return error_set(err, SM_ERROR_GUEST, EPROTO, "changes of what is no directory");
		w->lens[0] = strlen(w->path);
		w->depth = 1;
		return pass(w, e, 0, true, err);
	}
	w->depth += e->kind == COPY_DIR;
	if (w->skip)
		return 0;
	if (at + strlen(e->name) + 2 > sizeof(w->path))
		return error_set(err, SM_ERROR_LIMIT, ENAMETOOLONG, "changes: a path is too long");
	w->path[at] = '/';
	memcpy(w->path + at + 1, e->name, strlen(e->name) + 1);
	want = is_wanted(w);
	if (want < 0 || (want == 0 && e->kind != COPY_DIR)) {
		w->skip = e->kind == COPY_DIR ? w->depth : 0;
		return 0;
	}
	if (want == 0 || (e->flags & COPY_IMPLICIT)) {
		r = pass(w, e, depth, true, err);
		told = false;
	} else {
		r = take(w, e, depth, err);
	}
	if (e->kind == COPY_DIR) {
		w->lens[depth] = at + 1 + strlen(e->name);
		w->told[depth] = told;
	}
	return r;
}

static int on_data(void *arg, uint64_t offset, const void *p, size_t len, struct sm_error *err)
{
	struct walk *w = arg;

	return w->in_file && w->unpack ? copy_unpack_sink.data(w->unpack, offset, p, len, err) : 0;
}

static int on_file_end(void *arg, struct sm_error *err)
{
	struct walk *w = arg;
	bool ours = w->in_file && w->unpack;

	w->in_file = false;
	return ours ? copy_unpack_sink.file_end(w->unpack, err) : 0;
}

static int on_up(void *arg, struct sm_error *err)
{
	struct walk *w = arg;
	bool skipped = w->skip && w->depth >= w->skip;
	int r = 0;

	if (w->skip == w->depth)
		w->skip = 0;
	w->depth--;
	if (skipped)
		return 0;
	r = tell_gone(w, err);
	return r == 0 && w->unpack ? copy_unpack_sink.up(w->unpack, err) : r;
}

static const struct copy_sink sink = {on_entry, on_data, on_file_end, on_up};

static int feed(void *arg, const void *p, size_t len, struct sm_error *err)
{
	return copy_in_feed(&((struct walk *)arg)->in, p, len, err);
}

static bool ended(void *arg)
{
	return ((struct walk *)arg)->in.ended;
}

/* ------------------------------------------------------------------------------------------------ layers */

/* target: "/", or of a mount. */
static int walk_layer(struct sm_vm *vm, const char *target, struct walk *w, int cancel_fd, struct sm_error *err)
{
	struct proto_copy x = {.op = PROTO_COPY_CHANGES, .contents = w->unpack != NULL};
	int r;

	w->run = (struct copy_run){.cancel_fd = cancel_fd, .feed = feed, .ended = ended, .arg = w};
	snprintf(w->path, sizeof(w->path), "%s", streq(target, "/") ? "" : target);
	w->depth = w->skip = 0;
	w->gone[0] = '\0';
	copy_in_init(&w->in, &sink, w);
	w->in.changes = true;
	x.path = strdup(target);
	r = x.path ? copy_run_open(&w->run, vm, &x, err) : error_sys(err, ENOMEM, "changes");
	if (r == 0)
		r = copy_run_finish(&w->run, err);
	copy_run_done(&w->run);
	copy_in_done(&w->in);
	free(x.path);
	return r;
}

static int load_record(struct sm_vm *vm, struct vm_record *rec, struct sm_error *err)
{
	_fd_ int dir = vmdir_open(vm->client, vm->id, err);

	return dir < 0 ? dir : vmdir_load(dir, vm->id, rec, err);
}

/* The options, what is told, and the VM's record. */
static int prepare(struct sm_vm *vm, const struct sm_diff_options *options, struct sm_diff_options *o,
		   struct walk **ret, struct vm_record *rec, struct sm_error *err)
{
	struct walk *w = calloc(1, sizeof(*w));

	*o = (struct sm_diff_options)SM_DIFF_OPTIONS_INIT;
	options_copy(o, sizeof(*o), options, options ? options->size : 0);
	if (!w)
		return error_sys(err, ENOMEM, "changes");
	w->change = o->change;
	w->arg = o->arg;
	*ret = w;
	return load_record(vm, rec, err);
}

int sm_vm_diff(struct sm_vm *vm, const struct sm_diff_options *options, struct sm_error *err)
{
	_cleanup_(vm_record_done) struct vm_record rec = {0};
	_free_ struct walk *w = NULL;
	struct sm_diff_options o;
	int r = prepare(vm, options, &o, &w, &rec, err);

	if (r == 0)
		r = walk_layer(vm, "/", w, o.cancel_fd, err);
	for (unsigned i = 0; r == 0 && i < rec.num_mounts; i++)
		if (rec.mounts[i].cow)
			r = walk_layer(vm, rec.mounts[i].target, w, o.cancel_fd, err);
	return r;
}

/* Whether a path is the target, in it, or on the way to it. */
static bool concerns(const char *const *paths, const char *target)
{
	size_t len = strlen(target);

	for (const char *const *p = paths; p && *p; p++) {
		size_t want = strlen(*p);

		if ((strncmp(*p, target, len) == 0 && ((*p)[len] == '/' || !(*p)[len])) ||
		    (strncmp(target, *p, want) == 0 && target[want] == '/') || streq(*p, "/"))
			return true;
	}
	return !paths;
}

static int apply_one(struct sm_vm *vm, const struct vm_mount *m, struct walk *w, const struct sm_diff_options *o,
		     struct sm_error *err)
{
	struct copy_unpack_options unpack = {.untrusted = true, .changes = true};
	struct copy_place how = {.contents = true, .into = true, .source_name = ""};
	int r = copy_unpack_new(m->source, &how, &unpack, &w->unpack);

	if (r < 0)
		return error_sys(err, -r, "%s", m->source);
	r = walk_layer(vm, m->target, w, o->cancel_fd, err);
	w->unpack = copy_unpack_free(w->unpack);
	return r;
}

/* A path that names nothing that could be applied is a mistake. */
static int check_paths(const struct vm_record *rec, const char *const *paths, struct sm_error *err)
{
	unsigned cows = 0;

	for (unsigned i = 0; i < rec->num_mounts; i++)
		cows += rec->mounts[i].cow;
	if (!cows)
		return error_set(err, SM_ERROR_STATE, EINVAL,
				 "VM %s has no directory of the host with cow (run -v DIR:PATH:cow)", rec->id);
	for (const char *const *p = paths; p && *p; p++) {
		const char *const one[] = {*p, NULL};
		bool found = false;

		for (unsigned i = 0; i < rec->num_mounts; i++)
			found |= rec->mounts[i].cow && concerns(one, rec->mounts[i].target);
		if (!found)
			return error_set(err, SM_ERROR_INVALID, EINVAL,
					 "VM %s has %s in no directory of the host with cow", rec->id, *p);
	}
	return 0;
}

int sm_vm_apply(struct sm_vm *vm, const char *const *paths, const struct sm_diff_options *options, struct sm_error *err)
{
	_cleanup_(vm_record_done) struct vm_record rec = {0};
	_free_ struct walk *w = NULL;
	struct sm_diff_options o;
	int r = prepare(vm, options, &o, &w, &rec, err);

	if (r == 0)
		r = check_paths(&rec, paths, err);
	if (r == 0)
		w->wanted = paths;
	for (unsigned i = 0; r == 0 && i < rec.num_mounts; i++)
		if (rec.mounts[i].cow && concerns(paths, rec.mounts[i].target))
			r = apply_one(vm, &rec.mounts[i], w, &o, err);
	return r;
}
