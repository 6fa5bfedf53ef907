/* SPDX-License-Identifier: Apache-2.0 */
/* Files of this system as a stream. See copy.h. */
#include "copy/copy.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"

#define SMALL (1u << 20) /* files of which the kernel does not say the size are read whole up to here */
#define PATH_ROOM 4096u
/* Not into functions that call themselves: their buffers would stay on the stack. */
#define NOINLINE __attribute__((noinline))

/* Files with more than one name, by identity: the later names become hard links. */
struct seen {
	dev_t dev;
	ino_t ino;
	char *path;
};

struct pack {
	const struct copy_pack *o;
	struct copy_out *out;
	struct sm_error *err;
	const char *top;
	char path[PATH_ROOM]; /* below the root */
	size_t path_len, root_len;
	unsigned depth;
	struct seen *seen; /* open addressing; cap a power of two */
	size_t num_seen, cap;
	const struct copy_changes *changes; /* NULL: all there is */
	int lower;			    /* changes: the directory below the one that is open; -1: none */
};

static int fail(struct pack *p, int code)
{
	return error_sys(p->err, code, "%s%s", p->top, p->path);
}

/* ---------------------------------------------------------------------------------------- hard links */

static size_t slot_of(const struct pack *p, dev_t dev, ino_t ino)
{
	size_t i = (size_t)((uint64_t)ino * 0x9e3779b97f4a7c15ull ^ (uint64_t)dev) & (p->cap - 1);

	while (p->seen[i].path && (p->seen[i].dev != dev || p->seen[i].ino != ino))
		i = (i + 1) & (p->cap - 1);
	return i;
}

static int grow(struct pack *p)
{
	struct pack bigger = {.cap = p->cap ? 2 * p->cap : 256};

	if (2 * (p->num_seen + 1) <= p->cap)
		return 0;
	bigger.seen = calloc(bigger.cap, sizeof(*bigger.seen));
	if (!bigger.seen)
		return -ENOMEM;
	for (size_t i = 0; i < p->cap; i++)
		if (p->seen[i].path)
			bigger.seen[slot_of(&bigger, p->seen[i].dev, p->seen[i].ino)] = p->seen[i];
	free(p->seen);
	p->seen = bigger.seen;
	p->cap = bigger.cap;
	return 0;
}

/* *ret: the name under which this file was sent already; NULL: it was not, and this is its name from now on. */
static int look_up(struct pack *p, const struct stat *st, const char **ret)
{
	size_t i;
	int r;

	*ret = NULL;
	if (st->st_nlink < 2 || p->depth == 0)
		return 0;
	r = grow(p);
	if (r < 0)
		return fail(p, -r);
	i = slot_of(p, st->st_dev, st->st_ino);
	if (p->seen[i].path) {
		*ret = p->seen[i].path;
		return 0;
	}
	p->seen[i] = (struct seen){st->st_dev, st->st_ino, strdup(p->path + 1)};
	p->num_seen++;
	return p->seen[i].path ? 0 : fail(p, ENOMEM);
}

static void forget_seen(struct pack *p)
{
	for (size_t i = 0; i < p->cap; i++)
		free(p->seen[i].path);
	free(p->seen);
}

/* ------------------------------------------------------------------------------------------ entries */

/* Of a layer all but what the overlay keeps for itself. */
static bool wanted_xattr(const struct pack *p, const char *name)
{
	if (p->changes && p->changes->whole)
		return !str_starts(name, "trusted.overlay.");
	return str_starts(name, "user.") || streq(name, "security.capability");
}

/* Attributes are kept as far as they can be read. fd: -1: those of the name in the working directory. */
static NOINLINE void get_xattrs(struct pack *p, int fd, const char *name, struct copy_entry *e, struct buf *b)
{
	char names[COPY_MAX_XATTRS], value[COPY_MAX_XATTRS];
	ssize_t len = p->o->no_xattrs || p->o->list ? 0
		      : fd < 0			    ? llistxattr(name, names, sizeof(names))
						    : flistxattr(fd, names, sizeof(names));

	for (char *n = names; len > 0 && n < names + len; n += strlen(n) + 1) {
		ssize_t size = !wanted_xattr(p, n) ? -1
			       : fd < 0		   ? lgetxattr(name, n, value, sizeof(value))
						   : fgetxattr(fd, n, value, sizeof(value));

		if (size >= 0 && copy_xattr_put(b, n, value, (size_t)size) < 0)
			break;
	}
	e->xattrs = b->data;
	e->xattrs_len = b->error ? 0 : (uint32_t)b->len;
}

static int put_entry(struct pack *p, struct copy_entry *e)
{
	int r = copy_put_entry(p->out, e);

	return r < 0 ? fail(p, -r) : 0;
}

static int send_range(struct pack *p, int fd, uint64_t from, uint64_t to)
{
	uint8_t chunk[COPY_CHUNK];

	while (from < to) {
		ssize_t n = pread_full(fd, chunk, MIN(to - from, sizeof(chunk)), (off_t)from);
		int r;

		if (n <= 0)
			return n < 0 ? fail(p, (int)-n) : 0;
		r = copy_put_data(p->out, from, chunk, (size_t)n);
		if (r < 0)
			return fail(p, -r);
		from += (uint64_t)n;
	}
	return 0;
}

static int send_contents(struct pack *p, int fd, uint64_t size)
{
	off_t at = 0;
	int r = 0;

	while (r == 0 && (uint64_t)at < size) {
		off_t data = lseek(fd, at, SEEK_DATA), hole;

		if (data < 0 && errno == ENXIO)
			return 0; /* a hole to the end */
		if (data < 0)
			return send_range(p, fd, (uint64_t)at, size);
		hole = lseek(fd, data, SEEK_HOLE);
		if (hole <= data)
			hole = (off_t)size;
		r = send_range(p, fd, (uint64_t)data, MIN((uint64_t)hole, size));
		at = hole;
	}
	return r;
}

/* What the kernel makes up as it is read has no size that could be trusted, and no blocks. *ret: its contents. */
static int read_made_up(struct pack *p, int fd, const struct stat *st, char **ret, uint64_t *size)
{
	ssize_t n;

	*ret = NULL;
	if (st->st_blocks || st->st_size > (off_t)SMALL || p->o->list)
		return 0;
	*ret = malloc(SMALL);
	if (!*ret)
		return fail(p, ENOMEM);
	n = read_full(fd, *ret, SMALL);
	if (n < 0)
		return fail(p, (int)-n);
	*size = (uint64_t)n;
	return 0;
}

static NOINLINE int pack_file(struct pack *p, int dir, const char *name, struct copy_entry *e, const struct stat *seen)
{
	_fd_ int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	_cleanup_(buf_done) struct buf xattrs = {0};
	_free_ char *whole = NULL;
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return fail(p, errno);
	if (!S_ISREG(st.st_mode) || st.st_dev != seen->st_dev || st.st_ino != seen->st_ino)
		return fail(p, ESTALE);
	e->size = (uint64_t)st.st_size;
	r = read_made_up(p, fd, &st, &whole, &e->size);
	if (r < 0)
		return r;
	get_xattrs(p, fd, NULL, e, &xattrs);
	r = put_entry(p, e);
	for (uint64_t at = 0; whole && r == 0 && at < e->size; at += COPY_CHUNK) {
		r = copy_put_data(p->out, at, whole + at, MIN(e->size - at, COPY_CHUNK));
		if (r < 0)
			return fail(p, -r);
	}
	return r < 0 || whole ? r : send_contents(p, fd, e->size);
}

static int pack_one(struct pack *p, int dir, const char *name, const char *as);

static bool is_skipped(const struct pack *p)
{
	for (const char *const *s = p->changes ? p->changes->skip : NULL; s && *s; s++)
		if (streq(*s, p->path))
			return true;
	return false;
}

/* After a failure the path still says where. */
static int pack_child(struct pack *p, int dir, const char *name)
{
	size_t was = p->path_len, len = strlen(name);
	int r;

	if (was + len + 2 > sizeof(p->path) || p->depth + 1 >= COPY_MAX_DEPTH)
		return fail(p, ENAMETOOLONG);
	p->path[was] = '/';
	memcpy(p->path + was + 1, name, len + 1);
	p->path_len = was + 1 + len;
	p->depth++;
	r = is_skipped(p) ? 0 : pack_one(p, dir, name, name);
	p->depth--;
	if (r < 0)
		return r;
	p->path_len = was;
	p->path[was] = '\0';
	return 0;
}

/* The next name; NULL: there is none, or *r is -errno. */
static const char *next_name(struct pack *p, DIR *d, int *r)
{
	struct dirent *de;

	do {
		errno = 0;
		de = readdir(d);
	} while (de && (streq(de->d_name, ".") || streq(de->d_name, "..")));
	if (!de && errno)
		*r = fail(p, errno);
	return de ? de->d_name : NULL;
}

struct names {
	char **v;
	size_t n, cap;
};

static int add_name(struct names *l, const char *name)
{
	if (l->n == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 64;
		char **v = realloc(l->v, cap * sizeof(*v));

		if (!v)
			return -ENOMEM;
		l->v = v;
		l->cap = cap;
	}
	l->v[l->n] = strdup(name);
	return l->v[l->n++] ? 0 : -ENOMEM;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int pack_sorted(struct pack *p, DIR *d)
{
	struct names l = {0};
	const char *name;
	int r = 0;

	while ((name = next_name(p, d, &r)))
		if (add_name(&l, name) < 0) {
			r = fail(p, ENOMEM);
			break;
		}
	if (l.n)
		qsort(l.v, l.n, sizeof(*l.v), by_name);
	for (size_t i = 0; r == 0 && i < l.n; i++)
		r = pack_child(p, dirfd(d), l.v[i]);
	while (l.n)
		free(l.v[--l.n]);
	free(l.v);
	return r;
}

static int pack_children(struct pack *p, int fd)
{
	DIR *d = fdopendir(fd);
	const char *name;
	int r = 0;

	if (!d) {
		r = fail(p, errno);
		fd_close(fd);
		return r;
	}
	if (p->o->sorted)
		r = pack_sorted(p, d);
	else
		while (r == 0 && (name = next_name(p, d, &r)))
			r = pack_child(p, dirfd(d), name);
	closedir(d);
	return r;
}

/* lower: the directory below it, if it is one of changes. */
static int pack_dir(struct pack *p, int dir, const char *name, struct copy_entry *e, int lower)
{
	_cleanup_(buf_done) struct buf xattrs = {0};
	bool enter = !p->o->list || p->depth + 1 < p->o->list;
	int fd = -1, r;

	if (enter) {
		fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0)
			return fail(p, errno);
		get_xattrs(p, fd, NULL, e, &xattrs);
	}
	r = put_entry(p, e);
	if (r < 0) {
		fd_close(fd);
	} else if (enter) {
		int before = p->lower;

		p->lower = lower;
		r = pack_children(p, fd);
		p->lower = before;
	}
	if (r == 0 && (r = copy_put_up(p->out)) < 0)
		return fail(p, -r);
	return r;
}

/* Of what cannot be opened, by way of the working directory: a layer is packed by a process of its own. */
static int put_unopened(struct pack *p, int dir, const char *name, struct copy_entry *e)
{
	_cleanup_(buf_done) struct buf xattrs = {0};

	if (p->changes && p->changes->whole) {
		if (fchdir(dir) < 0)
			return fail(p, errno);
		get_xattrs(p, -1, name, e, &xattrs);
	}
	return put_entry(p, e);
}

static NOINLINE int pack_link(struct pack *p, int dir, const char *name, struct copy_entry *e)
{
	char target[COPY_MAX_LINK + 1];
	ssize_t n = readlinkat(dir, name, target, sizeof(target));

	if (n <= 0 || (size_t)n >= sizeof(target))
		return fail(p, n < 0 ? errno : ENAMETOOLONG);
	target[n] = '\0';
	e->kind = COPY_SYMLINK;
	e->link = target;
	return put_unopened(p, dir, name, e);
}

static int put_gone(struct pack *p, const char *name)
{
	struct copy_entry gone = {.kind = COPY_GONE, .name = name};

	return put_entry(p, &gone);
}

static bool is_below(const struct pack *p, const char *name)
{
	return p->lower >= 0 && faccessat(p->lower, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Nobody can copy what listens on it. In a layer it hides all the same. */
static int pack_socket(struct pack *p, const char *name, bool gone)
{
	return p->changes && p->changes->whole && !gone && is_below(p, name) ? put_gone(p, name) : 0;
}

static int pack_other(struct pack *p, int dir, const char *name, struct copy_entry *e, const struct stat *st)
{
	e->kind = S_ISFIFO(st->st_mode)	  ? COPY_FIFO
		  : S_ISCHR(st->st_mode)  ? COPY_CHAR
		  : S_ISBLK(st->st_mode)  ? COPY_BLOCK
		  : S_ISSOCK(st->st_mode) ? COPY_SOCKET
					  : 0;
	e->major = major(st->st_rdev);
	e->minor = minor(st->st_rdev);
	if (!e->kind)
		return fail(p, EINVAL);
	if (e->kind == COPY_SOCKET && !p->o->list)
		return pack_socket(p, name, e->flags & COPY_NEW);
	return put_unopened(p, dir, name, e);
}

/* ------------------------------------------------------------------------------------------ changes */

/* It hides the directory below it: the kernel says so by an attribute, and by another where it was renamed. */
static bool hides_lower(int dir, const char *name)
{
	_fd_ int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	char value[2];

	return fd >= 0 && ((fgetxattr(fd, "trusted.overlay.opaque", value, sizeof(value)) > 0 && value[0] == 'y') ||
			   fgetxattr(fd, "trusted.overlay.redirect", NULL, 0) > 0);
}

/*
 * What the entry is to the layer below: flags and a COPY_GONE where something of another kind was. *ret_lower: the
 * directory below it, or -1.
 */
static NOINLINE int compare(struct pack *p, int dir, const char *name, const struct stat *st, struct copy_entry *e,
			    int *ret_lower)
{
	bool is_dir = S_ISDIR(st->st_mode);
	struct stat old;
	int r;

	if (p->depth == 0) {
		e->flags = p->changes->whole ? 0 : COPY_IMPLICIT;
		*ret_lower = fcntl(p->lower, F_DUPFD_CLOEXEC, 3);
		return *ret_lower < 0 ? fail(p, errno) : 0;
	}
	if (p->lower < 0 || fstatat(p->lower, name, &old, AT_SYMLINK_NOFOLLOW) < 0) {
		e->flags = COPY_NEW;
		return 0;
	}
	if (is_dir != S_ISDIR(old.st_mode) || (is_dir && hides_lower(dir, name))) {
		e->flags = COPY_NEW;
		return put_gone(p, name);
	}
	if (!is_dir)
		return 0;
	if (!p->changes->whole && ((st->st_mode ^ old.st_mode) & 07777) == 0 && st->st_uid == old.st_uid &&
	    st->st_gid == old.st_gid)
		e->flags = COPY_IMPLICIT;
	*ret_lower = openat(p->lower, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	r = *ret_lower < 0 ? -errno : 0;
	return r < 0 ? fail(p, -r) : 0;
}

static int pack_one(struct pack *p, int dir, const char *name, const char *as)
{
	struct copy_entry e = {.name = as};
	const char *before = NULL;
	_fd_ int lower = -1;
	struct stat st;
	int r = 0;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return fail(p, errno);
	e.mode = st.st_mode & 07777;
	e.uid = st.st_uid;
	e.gid = st.st_gid;
	e.mtime = st.st_mtim.tv_sec;
	e.mtime_ns = (uint32_t)st.st_mtim.tv_nsec;
	if (p->changes && S_ISCHR(st.st_mode) && st.st_rdev == 0)
		return !p->changes->whole || is_below(p, name) ? put_gone(p, name) : 0;
	if (p->changes)
		r = compare(p, dir, name, &st, &e, &lower);
	if (r < 0)
		return r;
	if (S_ISDIR(st.st_mode)) {
		e.kind = COPY_DIR;
		return pack_dir(p, dir, name, &e, lower);
	}
	if (!S_ISSOCK(st.st_mode) && !p->o->list)
		r = look_up(p, &st, &before);
	if (r < 0)
		return r;
	if (before) {
		e.kind = COPY_HARDLINK;
		e.link = before;
		return put_entry(p, &e);
	}
	if (S_ISLNK(st.st_mode))
		return pack_link(p, dir, name, &e);
	if (!S_ISREG(st.st_mode))
		return pack_other(p, dir, name, &e, &st);
	e.kind = COPY_FILE;
	if (!p->o->list)
		return pack_file(p, dir, name, &e, &st);
	e.size = (uint64_t)st.st_size;
	return put_entry(p, &e);
}

int copy_pack(const char *path, const char *name, const struct copy_pack *options, struct copy_out *out,
	      struct sm_error *err)
{
	struct pack p = {.o = options, .out = out, .err = err, .top = path};
	_free_ char *real = NULL;
	size_t len = strlen(path);
	bool follow = options->follow || (len && path[len - 1] == '/') || (len > 1 && streq(path + len - 2, "/."));
	int r;

	if (follow) {
		real = realpath(path, NULL);
		if (!real)
			return fail(&p, errno);
	}
	r = pack_one(&p, AT_FDCWD, real ? real : path, name);
	forget_seen(&p);
	return r;
}

int copy_pack_changes(const struct copy_changes *c, struct copy_out *out, struct sm_error *err)
{
	struct copy_pack o = {.list = c->list ? COPY_MAX_DEPTH : 0};
	struct pack p = {.o = &o, .out = out, .err = err, .top = "", .changes = c, .lower = c->lower};
	int r = pack_one(&p, c->upper, ".", "");

	forget_seen(&p);
	return r;
}
