/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stream as files of this system. See copy.h.
 *
 * The directories on the way are held open, each opened without following a link; every call works on one component
 * beneath the innermost of them. A file is made anew (O_EXCL) under its name: what was there is taken away first, so
 * that nothing is written through a link or into a file that has other names.
 */
#include "copy/copy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/cursor.h"
#include "base/fileio.h"
#include "base/util.h"

/* What a file is to be once its contents are there. */
struct meta {
	uint32_t mode, uid, gid, mtime_ns;
	int64_t mtime;
	bool apply;
};

struct dir {
	int fd;
	struct meta meta;
};

struct copy_unpack {
	struct copy_in in;
	struct copy_unpack_options o;
	struct copy_place how;
	const char *path;
	int parent; /* where the root goes */
	char *root; /* and under which name; "." for parent itself */
	struct dir stack[COPY_MAX_DEPTH];
	unsigned depth;
	int file;
	uint64_t size, bytes;
	struct meta meta; /* of the file */
	char name[COPY_MAX_NAME + 1];
};

static int fail(const struct copy_unpack *u, const char *name, int code, struct sm_error *err)
{
	if (streq(name, "."))
		return error_sys(err, code, "%s", u->path);
	return error_sys(err, code, "%s: %s", u->path, name);
}

/* -------------------------------------------------------------------------------------- attributes */

static struct meta meta_of(const struct copy_unpack *u, const struct copy_entry *e)
{
	struct meta m = {.mode = e->mode,
			 .uid = e->uid,
			 .gid = e->gid,
			 .mtime = e->mtime,
			 .mtime_ns = e->mtime_ns,
			 .apply = true};

	if (u->o.untrusted && !u->o.keep_ids)
		m.mode &= 01777;
	return m;
}

static void times_of(const struct meta *m, struct timespec t[2])
{
	t[0] = (struct timespec){.tv_nsec = UTIME_OMIT};
	t[1] = (struct timespec){.tv_sec = (time_t)m->mtime, .tv_nsec = (long)m->mtime_ns};
}

/* Owner first: a change of it takes set-id bits away. */
static int apply(const struct copy_unpack *u, int fd, const struct meta *m)
{
	struct timespec t[2];

	times_of(m, t);
	if (u->o.keep_ids && fchown(fd, m->uid, m->gid) < 0)
		return -errno;
	return fchmod(fd, m->mode) < 0 || futimens(fd, t) < 0 ? -errno : 0;
}

static int apply_at(const struct copy_unpack *u, int dir, const char *name, const struct meta *m, bool link)
{
	struct timespec t[2];

	times_of(m, t);
	if (u->o.keep_ids && fchownat(dir, name, m->uid, m->gid, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (!link && fchmodat(dir, name, m->mode, 0) < 0)
		return -errno;
	return utimensat(dir, name, t, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

/* As far as the file system has them: attributes are an extra. */
static void set_xattrs(const struct copy_unpack *u, int fd, const struct copy_entry *e)
{
	struct cursor c = cursor_of(e->xattrs, e->xattrs_len);
	char name[COPY_MAX_NAME + 1];
	const void *value;
	size_t len;

	while (copy_xattr_next(&c, name, &value, &len) > 0) {
		bool ours = str_starts(name, "user.") ||
			    (streq(name, "security.capability") && (u->o.keep_ids || !u->o.untrusted));

		if (ours && fsetxattr(fd, name, value, len, 0) < 0 && errno == ENOSPC)
			return;
	}
}

/* -------------------------------------------------------------------------------------------- making */

/* Takes away what has the name of something that is not a directory. */
static int clear_name(int dir, const char *name)
{
	struct stat st;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (S_ISDIR(st.st_mode))
		return -EISDIR;
	return unlinkat(dir, name, 0) < 0 ? -errno : 0;
}

/* *ret_there: it was there before. */
static int make_dir(int dir, const char *name, bool *ret_there)
{
	int fd;

	*ret_there = mkdirat(dir, name, 0700) < 0;
	if (*ret_there && errno != EEXIST)
		return -errno;
	fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? (errno == ELOOP ? -ENOTDIR : -errno) : fd;
}

static int make_file(int dir, const char *name)
{
	int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, fd, r;

	fd = openat(dir, name, flags, 0600);
	if (fd >= 0 || errno != EEXIST)
		return fd < 0 ? -errno : fd;
	r = clear_name(dir, name);
	/* What something is mounted on cannot be replaced, only written. */
	if (r == -EBUSY) {
		struct stat st;

		fd = openat(dir, name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
		if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && ftruncate(fd, 0) == 0)
			return fd;
		fd_close(fd);
	}
	if (r < 0)
		return r;
	fd = openat(dir, name, flags, 0600);
	return fd < 0 ? -errno : fd;
}

static int make_symlink(const struct copy_unpack *u, int dir, const char *name, const struct copy_entry *e)
{
	struct meta m = meta_of(u, e);
	int r = clear_name(dir, name);

	if (r == 0 && symlinkat(e->link, dir, name) < 0)
		r = -errno;
	return r < 0 ? r : apply_at(u, dir, name, &m, true);
}

/* From the root of the tree down, component by component, through directories alone. */
static int make_hardlink(const struct copy_unpack *u, int dir, const char *name, const struct copy_entry *e)
{
	char part[COPY_MAX_NAME + 1];
	const char *at = e->link;
	int from = u->stack[0].fd, r;
	_fd_ int held = -1;

	for (;;) {
		size_t len = strcspn(at, "/");
		int next;

		if (len > COPY_MAX_NAME)
			return -ENAMETOOLONG;
		memcpy(part, at, len);
		part[len] = '\0';
		if (!at[len])
			break;
		next = openat(from, part, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (next < 0)
			return -errno;
		fd_close(held);
		from = held = next;
		at += len + 1;
	}
	r = clear_name(dir, name);
	return r == 0 && linkat(from, part, dir, name, 0) < 0 ? -errno : r;
}

static int make_special(const struct copy_unpack *u, int dir, const char *name, const struct copy_entry *e)
{
	mode_t type = e->kind == COPY_FIFO ? S_IFIFO : e->kind == COPY_CHAR ? S_IFCHR : S_IFBLK;
	struct meta m = meta_of(u, e);
	int r;

	if (e->kind == COPY_SOCKET || (e->kind != COPY_FIFO && u->o.untrusted))
		return -EPERM;
	r = clear_name(dir, name);
	if (r == 0 && mknodat(dir, name, type | 0600, makedev(e->major, e->minor)) < 0)
		r = -errno;
	return r < 0 ? r : apply_at(u, dir, name, &m, false);
}

/* A file, or a tree; links are not followed. */
static int take_away(int dir, const char *name)
{
	int r = clear_name(dir, name);

	return r == -EISDIR ? remove_tree_at(dir, name) : r;
}

/* ---------------------------------------------------------------------------------------------- sink */

static int find_place(struct copy_unpack *u, const struct copy_entry *e, struct sm_error *err)
{
	struct copy_place how = u->how;
	_free_ char *name = NULL;
	int r;

	how.source_is_dir = e->kind == COPY_DIR;
	if (!how.source_name || !*how.source_name)
		how.source_name = e->name;
	r = copy_place(u->path, &how, &u->parent, &name, err);
	u->root = TAKE_PTR(name);
	return r;
}

static int enter_dir(struct copy_unpack *u, int dir, const char *name, const struct copy_entry *e)
{
	struct dir *d = &u->stack[u->depth];
	bool there = false;

	if (streq(name, ".")) {
		/* The destination that was there: it stays as it is. */
		d->fd = fcntl(dir, F_DUPFD_CLOEXEC, 3);
		there = true;
	} else {
		d->fd = make_dir(dir, name, &there);
	}
	if (d->fd < 0)
		return streq(name, ".") ? -errno : d->fd;
	u->depth++;
	d->meta = meta_of(u, e);
	if (e->flags & COPY_IMPLICIT) {
		/* Nothing is known of it: as mkdir would make it. */
		d->meta.apply = false;
		return !there && fchmod(d->fd, 0755) < 0 ? -errno : 0;
	}
	d->meta.apply = !streq(name, ".");
	if (d->meta.apply)
		set_xattrs(u, d->fd, e);
	return 0;
}

static int begin_file(struct copy_unpack *u, int dir, const char *name, const struct copy_entry *e)
{
	u->file = make_file(dir, name);
	if (u->file < 0)
		return u->file;
	u->size = e->size;
	u->meta = meta_of(u, e);
	snprintf(u->name, sizeof(u->name), "%s", name);
	set_xattrs(u, u->file, e);
	return 0;
}

static int on_entry(void *arg, const struct copy_entry *e, unsigned depth, struct sm_error *err)
{
	struct copy_unpack *u = arg;
	const char *name = e->name;
	int dir, r;

	if (depth == 0) {
		r = find_place(u, e, err);
		if (r < 0)
			return r;
		name = u->root;
	}
	dir = depth ? u->stack[depth - 1].fd : u->parent;
	switch (e->kind) {
	case COPY_DIR:
		r = enter_dir(u, dir, name, e);
		break;
	case COPY_FILE:
		r = begin_file(u, dir, name, e);
		break;
	case COPY_SYMLINK:
		r = make_symlink(u, dir, name, e);
		break;
	case COPY_HARDLINK:
		r = make_hardlink(u, dir, name, e);
		break;
	case COPY_GONE:
		r = u->o.changes ? take_away(dir, name) : -EPERM;
		break;
	default:
		r = make_special(u, dir, name, e);
	}
	return r < 0 ? fail(u, name, -r, err) : 0;
}

static int on_data(void *arg, uint64_t offset, const void *p, size_t len, struct sm_error *err)
{
	struct copy_unpack *u = arg;
	int r = pwrite_full(u->file, p, len, (off_t)offset);

	u->bytes += len;
	return r < 0 ? fail(u, u->name, -r, err) : 0;
}

static int on_file_end(void *arg, struct sm_error *err)
{
	struct copy_unpack *u = arg;
	int r = ftruncate(u->file, (off_t)u->size) < 0 ? -errno : apply(u, u->file, &u->meta);

	u->file = fd_close(u->file);
	return r < 0 ? fail(u, u->name, -r, err) : 0;
}

static int on_up(void *arg, struct sm_error *err)
{
	struct copy_unpack *u = arg;
	struct dir *d = &u->stack[--u->depth];
	int r = d->meta.apply ? apply(u, d->fd, &d->meta) : 0;

	d->fd = fd_close(d->fd);
	return r < 0 ? fail(u, "a directory in it", -r, err) : 0;
}

const struct copy_sink copy_unpack_sink = {on_entry, on_data, on_file_end, on_up};

int copy_unpack_new(const char *path, const struct copy_place *how, const struct copy_unpack_options *options,
		    struct copy_unpack **ret)
{
	struct copy_unpack *u = calloc(1, sizeof(*u));

	if (!u)
		return -ENOMEM;
	u->o = *options;
	u->how = *how;
	u->path = path;
	u->parent = u->file = -1;
	copy_in_init(&u->in, &copy_unpack_sink, u);
	u->in.changes = options->changes;
	*ret = u;
	return 0;
}

struct copy_unpack *copy_unpack_free(struct copy_unpack *u)
{
	if (!u)
		return NULL;
	while (u->depth)
		fd_close(u->stack[--u->depth].fd);
	fd_close(u->file);
	fd_close(u->parent);
	copy_in_done(&u->in);
	free(u->root);
	free(u);
	return NULL;
}

int copy_unpack_feed(struct copy_unpack *u, const void *p, size_t len, struct sm_error *err)
{
	return copy_in_feed(&u->in, p, len, err);
}

bool copy_unpack_ended(const struct copy_unpack *u)
{
	return u->in.ended;
}

uint64_t copy_unpack_bytes(const struct copy_unpack *u)
{
	return u->bytes;
}
