/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of the host as the tar stream of an image's layer. They are packed as for a copy; on the way each gets its name
 * in the image and its owner, and a directory that the image has is left out. Beside the layer, or instead of it, goes
 * a stream that does not depend on the image, whose sum tells whether the files have changed.
 */
#include "lib/hostlayer.h"

#include <errno.h>
#include <limits.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "lib/copy.h"

#define WHITEOUT ".wh."
#define MAX_LAYER (256 * GIB) /* as of one that is loaded */
#define PATH_ROOM 8192u

struct host_layer {
	const struct image_progress *progress;
	struct image_tree *tree; /* NULL: nothing is written */
	struct copy_tar *tar, *print;
	struct sha256_ctx sum;
	uint64_t read;
	/* The file that is read. */
	const struct sm_image_file *file;
	const char *name; /* the source's last component */
	uint32_t uid, gid;
	struct copy_in in;
	char path[PATH_ROOM]; /* in the image, without a slash before it */
	size_t lens[COPY_MAX_DEPTH + 1];
	bool begun;
	struct sm_error *err;
};

/* ------------------------------------------------------------------------------------ what is asked for */

static int parse_id(const char **text, uint32_t *ret)
{
	unsigned long long v;
	char *end;

	if (!strchr("0123456789", **text) || !**text)
		return -EINVAL;
	errno = 0;
	v = strtoull(*text, &end, 10);
	if (errno || v >= UINT32_MAX)
		return -EINVAL;
	*ret = (uint32_t)v;
	*text = end;
	return 0;
}

/* "UID[:GID]"; the group is the user's number if it is not given. */
static int parse_owner(const char *text, uint32_t *uid, uint32_t *gid)
{
	int r;

	*uid = *gid = 0;
	if (!text)
		return 0;
	r = parse_id(&text, uid);
	*gid = *uid;
	if (r == 0 && *text == ':') {
		text++;
		r = parse_id(&text, gid);
	}
	return r == 0 && *text ? -EINVAL : r;
}

static bool has_dots(const char *path)
{
	for (; *path; path += strspn(path, "/")) {
		size_t len = strcspn(path, "/");

		if (len == 2 && path[0] == '.' && path[1] == '.')
			return true;
		path += len;
	}
	return false;
}

static int check_one(const struct sm_image_file *f, struct sm_error *err)
{
	uint32_t uid, gid;

	if (!f->source || !*f->source)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "a file for the image without a source");
	if (!f->target || f->target[0] != '/' || has_dots(f->target) || strlen(f->target) >= PATH_ROOM / 2)
		return error_set(err, SM_ERROR_INVALID, EINVAL,
				 "%s: where it goes in the image is to be an absolute path without \"..\"", f->source);
	if (parse_owner(f->owner, &uid, &gid) < 0)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "%s: owner '%s': UID[:GID], both numbers", f->source,
				 f->owner);
	if (f->mode & ~07777u)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "%s: mode 0%o: permission bits alone", f->source,
				 f->mode);
	return 0;
}

int host_layer_check(const struct sm_image_file *files, size_t count, struct sm_error *err)
{
	int r = count && !files ? error_set(err, SM_ERROR_INVALID, EINVAL, "files for the image: none are given") : 0;

	for (size_t i = 0; r == 0 && i < count; i++) {
		struct sm_image_file f = OPTIONS_GET(struct sm_image_file, OPTIONS_AT(struct sm_image_file, files, i));

		r = check_one(&f, err);
	}
	return r;
}

/* ------------------------------------------------------------------------------------------- sink */

static int look(struct host_layer *l, enum image_place *ret, struct sm_error *err)
{
	*ret = IMAGE_NOTHING;
	return l->tree ? image_tree_look(l->tree, l->path, ret, err) : 0;
}

/* Where the root goes: a file into a directory, under its own name. */
static int set_root(struct host_layer *l, bool is_dir, struct sm_error *err)
{
	const char *target = l->file->target + strspn(l->file->target, "/");
	size_t len = strlen(target);
	bool into = !len || target[len - 1] == '/';
	enum image_place place;
	int r;

	while (len && target[len - 1] == '/')
		len--;
	snprintf(l->path, sizeof(l->path), "%.*s", (int)len, target);
	r = look(l, &place, err);
	if (r == 0 && !is_dir && (into || place == IMAGE_DIRECTORY))
		snprintf(l->path + len, sizeof(l->path) - len, "%s%s", len ? "/" : "", l->name);
	return r;
}

static int set_path(struct host_layer *l, const struct copy_entry *e, unsigned depth, struct sm_error *err)
{
	size_t at = depth ? l->lens[depth - 1] : 0;

	if (depth == 0)
		return set_root(l, e->kind == COPY_DIR, err);
	if (at + strlen(e->name) + 2 > sizeof(l->path))
		return error_set(err, SM_ERROR_LIMIT, ENAMETOOLONG, "%s: a path is too long", l->file->source);
	snprintf(l->path + at, sizeof(l->path) - at, "%s%s", at ? "/" : "", e->name);
	return 0;
}

/* *ret_there: it is a directory that the image has. */
static int check_place(struct host_layer *l, bool is_dir, bool *ret_there, struct sm_error *err)
{
	const char *name = strrchr(l->path, '/');
	enum image_place place;
	int r;

	if (str_starts(name ? name + 1 : l->path, WHITEOUT))
		return error_set(err, SM_ERROR_UNSUPPORTED, EOPNOTSUPP,
				 "/%s: an image cannot hold a name that begins with " WHITEOUT, l->path);
	r = look(l, &place, err);
	if (r < 0)
		return r;
	if (place == IMAGE_UNREACHABLE || (is_dir && place == IMAGE_OTHER))
		return error_set(err, SM_ERROR_INVALID, ENOTDIR,
				 "%s cannot come to /%s: what the image has there, or on the way, is no directory",
				 l->file->source, l->path);
	if (!is_dir && place == IMAGE_DIRECTORY)
		return error_set(err, SM_ERROR_INVALID, EISDIR,
				 "%s cannot come to /%s: the image has a directory of that name", l->file->source,
				 l->path);
	*ret_there = is_dir && place == IMAGE_DIRECTORY;
	return 0;
}

static uint32_t mode_of(const struct sm_image_file *f, const struct copy_entry *e)
{
	if (!f->mode || e->kind == COPY_SYMLINK)
		return e->mode;
	return e->kind == COPY_DIR ? f->mode | (f->mode & 0444) >> 2 : f->mode;
}

static int on_entry(void *arg, const struct copy_entry *given, unsigned depth, struct sm_error *err)
{
	struct host_layer *l = arg;
	struct copy_entry e = *given;
	bool there = false;
	int r;

	if (depth == 0 && e.kind != COPY_FILE && e.kind != COPY_DIR)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "%s is neither a file nor a directory",
				 l->file->source);
	r = set_path(l, &e, depth, err);
	if (r == 0)
		r = check_place(l, e.kind == COPY_DIR, &there, err);
	if (r < 0)
		return r;
	l->begun = true;
	if (e.kind == COPY_DIR)
		l->lens[depth] = strlen(l->path);
	e.uid = l->uid;
	e.gid = l->gid;
	e.mode = mode_of(l->file, &e);
	if (depth == 0) /* what a file is called counts in a directory, a directory's own name never does */
		e.name = e.kind == COPY_FILE ? l->name : "";
	r = copy_tar_sink.entry(l->print, &e, depth, err);
	if (r < 0 || !l->tree)
		return r;
	if (depth == 0)
		e.name = l->path;
	if (there)
		e.flags |= COPY_IMPLICIT;
	return copy_tar_sink.entry(l->tar, &e, depth, err);
}

static int on_data(void *arg, uint64_t offset, const void *p, size_t len, struct sm_error *err)
{
	struct host_layer *l = arg;
	int r = copy_tar_sink.data(l->print, offset, p, len, err);

	return r < 0 || !l->tree ? r : copy_tar_sink.data(l->tar, offset, p, len, err);
}

static int on_file_end(void *arg, struct sm_error *err)
{
	struct host_layer *l = arg;
	int r = copy_tar_sink.file_end(l->print, err);

	return r < 0 || !l->tree ? r : copy_tar_sink.file_end(l->tar, err);
}

static int on_up(void *arg, struct sm_error *err)
{
	struct host_layer *l = arg;
	int r = copy_tar_sink.up(l->print, err);

	return r < 0 || !l->tree ? r : copy_tar_sink.up(l->tar, err);
}

static const struct copy_sink sink = {on_entry, on_data, on_file_end, on_up};

/* ------------------------------------------------------------------------------------------- reading */

/* What failed is told in l->err, which the packer writes to only where it says nothing better. */
static int feed(void *arg, const void *p, size_t len)
{
	struct host_layer *l = arg;

	l->read += len;
	if (l->progress->update && l->progress->update(l->progress->arg, "files", l->read, 0))
		return error_set(l->err, SM_ERROR_CANCELLED, ECANCELED, "the build was cancelled");
	return copy_in_feed(&l->in, p, len, l->err);
}

static int add_sum(void *arg, const void *p, size_t len)
{
	sha256_update(&((struct host_layer *)arg)->sum, len, p);
	return 0;
}

static int read_one(struct host_layer *l, struct sm_error *err)
{
	struct copy_pack pack = {.follow = true, .no_xattrs = true, .sorted = true};
	struct copy_out out = {.write = feed, .arg = l};
	struct sm_error why = {0}, other = {0};
	bool contents;
	_free_ char *name = copy_source_name(l->file->source, &contents);
	int r = name ? parse_owner(l->file->owner, &l->uid, &l->gid) : -ENOMEM;

	if (r < 0)
		return error_sys(err, -r, "%s", l->file->source);
	l->name = name;
	l->err = &why;
	l->begun = false;
	copy_in_init(&l->in, &sink, l);
	r = copy_pack(l->file->source, "f", &pack, &out, &other);
	if (r == 0)
		r = copy_put_end(&out);
	copy_out_done(&out);
	copy_in_done(&l->in);
	if (r < 0 && other.kind == SM_ERROR_NONE)
		error_sys(&other, -r, "%s", l->file->source);
	if (r == 0 && !l->begun) /* a socket */
		r = error_set(&other, SM_ERROR_INVALID, EINVAL, "%s is neither a file nor a directory",
			      l->file->source);
	if (r < 0 && err)
		*err = why.kind != SM_ERROR_NONE ? why : other;
	return r < 0 && why.kind != SM_ERROR_NONE ? -why.code : r;
}

static int read_all(struct host_layer *l, const struct sm_image_file *files, size_t count, struct buf *ret_print,
		    struct sm_error *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < count; i++) {
		struct sm_image_file f = OPTIONS_GET(struct sm_image_file, OPTIONS_AT(struct sm_image_file, files, i));
		uint8_t digest[SHA256_DIGEST_SIZE];

		l->file = &f;
		r = copy_tar_new(-1, &l->print);
		if (r < 0)
			return error_sys(err, -r, "%s", f.source);
		copy_tar_output(l->print, add_sum, l);
		sha256_init(&l->sum);
		r = read_one(l, err);
		if (r == 0)
			r = copy_tar_finish(l->print, err);
		l->print = copy_tar_free(l->print);
		sha256_digest(&l->sum, sizeof(digest), digest);
		buf_put(ret_print, digest, sizeof(digest));
	}
	if (r == 0 && ret_print->error)
		r = error_sys(err, -ret_print->error, "files for the image");
	return r;
}

int host_layer_read(const struct sm_image_file *files, size_t count, const struct image_progress *progress,
		    struct buf *ret_print, struct image_tree *tree, int fd, struct sm_error *err)
{
	struct host_layer *l = calloc(1, sizeof(*l));
	int r = l ? 0 : -ENOMEM;

	if (r == 0 && fd >= 0)
		r = copy_tar_new(fd, &l->tar);
	if (r < 0) {
		free(l);
		return error_sys(err, -r, "files for the image");
	}
	l->progress = progress;
	l->tree = fd >= 0 ? tree : NULL;
	if (l->tar)
		copy_tar_limit(l->tar, MAX_LAYER);
	r = read_all(l, files, count, ret_print, err);
	if (r == 0 && l->tar)
		r = copy_tar_finish(l->tar, err);
	copy_tar_free(l->tar);
	free(l);
	return r;
}
