/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sm_image_build: an image of another one, with other files and another configuration. All of it is done on the host's
 * files. What it is made from is put into one number first; the record of an image that was built has it, and whoever
 * comes with the same one is given that image.
 */
#include "lib/build.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/sha256hex.h"
#include "base/util.h"
#include "lib/events.h"
#include "lib/hostlayer.h"
#include "oci/amend.h"

#define FINGERPRINT_VERSION "supermachine image 1"
#define CREATED_BY "supermachine build"

/* -------------------------------------------------------------------------------------- fingerprint */

void print_text(struct buf *b, const char *text)
{
	buf_put_u64(b, text ? strlen(text) : UINT64_MAX);
	if (text)
		buf_put(b, text, strlen(text));
}

void print_list(struct buf *b, const char *const *list)
{
	buf_put_u64(b, list ? strv_len(list) : UINT64_MAX);
	for (; list && *list; list++)
		print_text(b, *list);
}

static void print_files(struct buf *b, const struct sm_image_build_options *o)
{
	buf_put_u64(b, o->num_files);
	for (size_t i = 0; i < o->num_files; i++) {
		struct sm_image_file f =
			OPTIONS_GET(struct sm_image_file, OPTIONS_AT(struct sm_image_file, o->files, i));

		print_text(b, f.target);
		print_text(b, f.owner);
		buf_put_u32(b, f.mode);
	}
}

/* All but what is in the files. */
static void print_options(struct buf *b, const char *base_id, const struct sm_image_build_options *o)
{
	print_text(b, FINGERPRINT_VERSION);
	print_text(b, base_id);
	print_list(b, o->entrypoint);
	print_list(b, o->cmd);
	print_list(b, o->env);
	print_text(b, o->user);
	print_text(b, o->cwd);
	print_text(b, o->stop_signal);
	print_list(b, o->labels);
	print_list(b, o->ports);
	print_list(b, o->changes);
	print_files(b, o);
}

/* sums: of the files, as host_layer_read has them. */
static int fingerprint(const struct build *b, const struct buf *sums, char ret[static 65], struct sm_error *err)
{
	_cleanup_(buf_done) struct buf text = {0};

	print_options(&text, b->base.id, &b->o);
	buf_put(&text, sums->data, sums->len);
	if (text.error)
		return error_sys(err, -text.error, "build");
	sha256_hex(text.data, text.len, 64, ret);
	return 0;
}

/* ------------------------------------------------------------------------------------------ options */

static int check_pairs(const char *const *v, const char *what, struct sm_error *err)
{
	for (; v && *v; v++)
		if (!strchr(*v, '=') || **v == '=')
			return error_set(err, SM_ERROR_INVALID, EINVAL, "%s '%s' is not NAME=VALUE", what, *v);
	return 0;
}

/* As instructions, since these know what is a port. */
static int list_changes(const struct sm_image_build_options *o, char ***ret)
{
	size_t n = 0;
	char **v = calloc(strv_len(o->ports) + strv_len(o->changes) + 1, sizeof(*v));

	for (const char *const *p = o->ports; v && p && *p; p++)
		if (asprintf(&v[n++], "EXPOSE %s", *p) < 0) {
			v[n - 1] = NULL;
			strv_free(v);
			return -ENOMEM;
		}
	for (const char *const *c = o->changes; v && c && *c; c++)
		if (!(v[n++] = strdup(*c))) {
			strv_free(v);
			return -ENOMEM;
		}
	*ret = v;
	return v ? 0 : -ENOMEM;
}

static int check_ports(const char *const *ports, struct sm_error *err)
{
	for (; ports && *ports; ports++)
		if (!**ports || strspn(*ports, "0123456789-/tcpudsl") != strlen(*ports))
			return error_set(err, SM_ERROR_INVALID, EINVAL, "port '%s' is not PORT[-LAST][/PROTOCOL]",
					 *ports);
	return 0;
}

static int check(const struct sm_image_build_options *o, struct sm_error *err)
{
	int r = o->image && *o->image
			? 0
			: error_set(err, SM_ERROR_INVALID, EINVAL, "an image is built from another one: which?");

	if (r == 0)
		r = check_pairs(o->env, "variable", err);
	if (r == 0)
		r = check_pairs(o->labels, "label", err);
	if (r == 0)
		r = check_ports(o->ports, err);
	if (r == 0 && o->cwd && o->cwd[0] != '/')
		r = error_set(err, SM_ERROR_INVALID, EINVAL, "working directory '%s' is not absolute", o->cwd);
	if (r == 0 && o->stop_signal && signal_parse(o->stop_signal) < 0)
		r = error_set(err, SM_ERROR_INVALID, EINVAL, "no such signal: '%s'", o->stop_signal);
	if (r == 0 && o->warm && !o->warm[0])
		r = error_set(err, SM_ERROR_INVALID, EINVAL, "the warm-up command is empty");
	if (r == 0 && !o->warm && (o->warm_ready || o->warm_name))
		r = error_set(err, SM_ERROR_INVALID, EINVAL,
			      "a snapshot's name, or the path that it waits for, without a warm-up command");
	if (r == 0 && o->warm_ready && o->warm_ready[0] != '/')
		r = error_set(err, SM_ERROR_INVALID, EINVAL, "'%s', which the warm-up waits for, is not absolute",
			      o->warm_ready);
	return r < 0 ? r : host_layer_check(o->files, o->num_files, err);
}

static bool changes_nothing(const struct sm_image_build_options *o)
{
	return !o->entrypoint && !o->cmd && !strv_len(o->env) && !o->user && !o->cwd && !o->stop_signal &&
	       !strv_len(o->labels) && !strv_len(o->ports) && !strv_len(o->changes) && !o->num_files;
}

/* ------------------------------------------------------------------------------------------- making */

bool build_is_cancelled(struct build *b, const char *stage)
{
	return b->progress.update(b->progress.arg, stage, 0, 0) != 0;
}

static int tell(void *arg, const char *stage, uint64_t done, uint64_t total)
{
	const struct sm_image_build_options *o = &((struct build *)arg)->o;
	struct pollfd p = {.fd = o->cancel_fd, .events = POLLIN};
	int r = o->progress.update ? o->progress.update(o->progress.arg, stage, done, total) : 0;

	return r || (o->cancel_fd >= 0 && poll(&p, 1, 0) > 0);
}

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* What is in the files may have changed since they were looked at: what is written counts. */
static int write_layer(struct build *b, struct image_commit *commit, struct sm_error *err)
{
	_cleanup_(buf_done) struct buf sums = {0};
	struct image_tree *tree = NULL;
	char is[65];
	int r = 0;

	if (b->o.num_files) {
		r = image_tree_open(b->store, image_commit_base(commit), &tree, err);
		if (r == 0)
			r = host_layer_read(b->o.files, b->o.num_files, &b->progress, &sums, tree,
					    image_commit_fd(commit), err);
		image_tree_close(tree);
	}
	if (r == 0)
		r = fingerprint(b, &sums, is, err);
	if (r == 0)
		image_commit_fingerprint(commit, is);
	return r;
}

static int finish(struct build *b, struct image_commit *commit, struct image_info *ret, struct sm_error *err)
{
	static char *const none[] = {NULL};
	const struct sm_image_build_options *o = &b->o;
	char **changes = NULL, **env = NULL;
	struct oci_amend a = {.entrypoint = (char *const *)o->entrypoint,
			      .cmd = o->cmd	     ? (char *const *)o->cmd
				     : o->entrypoint ? none
						     : NULL,
			      .user = o->user,
			      .cwd = o->cwd,
			      .stop_signal = o->stop_signal,
			      .labels = (char *const *)o->labels,
			      .created_by = CREATED_BY,
			      .created_ns = now_ns()};
	int r = list_changes(o, &changes);

	if (r == 0 && strv_len(o->env)) {
		env = env_merge((const char *const *)image_commit_base(commit)->env, o->env);
		r = env ? 0 : -ENOMEM;
	}
	if (r < 0)
		error_sys(err, -r, "build");
	a.changes = (const char *const *)changes;
	a.env = env;
	r = r < 0 ? r : image_commit_finish(commit, &a, &b->progress, ret, err);
	strv_free(changes);
	strv_free(env);
	return r;
}

static int make(struct build *b, struct image_info *ret, struct sm_error *err)
{
	struct image_commit *commit;
	int r = image_commit_begin(b->store, b->base.id, b->o.name, &commit, err);

	if (r < 0)
		return r;
	r = write_layer(b, commit, err);
	if (r == 0)
		r = finish(b, commit, ret, err);
	image_commit_end(commit);
	if (r == 0)
		events_object(b->client, "image", "build", ret->id, b->o.name ? b->o.name : "");
	return r;
}

/* -ENOENT: there is none. */
static int find(struct build *b, struct image_info *ret, struct sm_error *err)
{
	int r = b->o.rebuild ? -ENOENT : image_find_built(b->store, b->result.fingerprint, ret, err);

	b->result.reused = r == 0;
	return r;
}

static int find_or_make(struct build *b, struct image_info *ret, struct sm_error *err)
{
	struct image_turn *turn;
	int r = find(b, ret, err);

	if (r != -ENOENT)
		return r;
	r = image_turn_take(b->store, b->result.fingerprint, &b->progress, &turn, err);
	if (r < 0)
		return r;
	r = find(b, ret, err);
	if (r == -ENOENT)
		r = make(b, ret, err);
	image_turn_end(turn);
	return r;
}

/* The image's id to `id`. */
static int image_for(struct build *b, char id[static 65], struct sm_error *err)
{
	_cleanup_(buf_done) struct buf sums = {0};
	struct image_info info = {0};
	struct sm_error why = {0}; /* that it had to be looked for is none */
	int r = 0;

	if (b->o.num_files)
		r = host_layer_read(b->o.files, b->o.num_files, &b->progress, &sums, NULL, -1, &why);
	if (r == 0)
		r = fingerprint(b, &sums, b->result.fingerprint, &why);
	if (r == 0 && changes_nothing(&b->o)) {
		b->result.reused = true;
		memcpy(id, b->base.id, 65);
	} else if (r == 0) {
		r = find_or_make(b, &info, &why);
		if (r == 0)
			memcpy(id, info.id, 65);
		image_info_done(&info);
	}
	if (r == 0 && b->result.reused && b->o.name)
		r = image_tag(b->store, id, b->o.name, &why);
	if (r < 0 && err)
		*err = why;
	return r;
}

/* The base is pinned, and then the image, too: nobody prunes them meanwhile. */
static int build(struct build *b, struct sm_image **ret, struct sm_error *err)
{
	struct sm_vm_options v = SM_VM_OPTIONS_INIT;
	struct image_pin *base_pin = NULL, *pin = NULL;
	struct image_info info = {0};
	char id[65];
	int r;

	v.image = b->o.image;
	v.pull = b->o.pull;
	v.limits = b->o.limits;
	v.progress = (struct sm_progress){.update = b->progress.update, .arg = b->progress.arg};
	r = image_for_run(b->client, &v, &b->base, &base_pin, err);
	if (r < 0)
		return r;
	r = image_for(b, id, err);
	if (r == 0)
		r = image_pin(b->store, id, &info, &pin, err);
	if (r == 0 && b->o.warm)
		r = warm_snapshot(b, &info, err);
	image_unpin(base_pin);
	image_unpin(pin);
	image_info_done(&b->base);
	if (r < 0) {
		image_info_done(&info);
		return r;
	}
	return image_give(&info, ret, err);
}

/* As far as the caller's version of it goes. */
static void give_result(struct sm_image_build_result *to, struct sm_image_build_result *from, int r)
{
	size_t size = to ? MIN(to->size, sizeof(*from)) : 0;

	if (!to)
		return;
	if (r == 0) {
		from->size = to->size;
		memcpy(to, from, size);
	} else if (size >= offsetof(struct sm_image_build_result, warm_status) + sizeof(to->warm_status)) {
		to->warm_status = from->warm_status;
	}
}

int sm_image_build(struct sm_client *client, const struct sm_image_build_options *options, struct sm_image **ret,
		   struct sm_image_build_result *result, struct sm_error *err)
{
	struct build b = {.client = client,
			  .o = SM_IMAGE_BUILD_OPTIONS_INIT,
			  .result = SM_IMAGE_BUILD_RESULT_INIT,
			  .progress = {.update = tell}};
	int r;

	options_copy(&b.o, sizeof(b.o), options, options ? options->size : 0);
	b.progress.arg = &b;
	r = check(&b.o, err);
	if (r == 0)
		r = client_store(client, &b.store, err);
	if (r == 0) {
		char **changes = NULL;

		r = list_changes(&b.o, &changes);
		r = r < 0 ? error_sys(err, -r, "build") : oci_amend_check((const char *const *)changes, err);
		strv_free(changes);
	}
	if (r == 0)
		r = build(&b, ret, err);
	give_result(result, &b.result, r);
	return r;
}
