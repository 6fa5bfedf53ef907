/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tar streams at the host's end of a copy. Read by the image room's reader, whose names are cut into components here;
 * written as POSIX.1-2017 pax: ustar headers, and extended ones where a name, a number, a time or an attribute does not
 * fit into those.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "image/tar.h"
#include "lib/copy.h"

#define BLOCK 512u
#define MAX_PATH 65536u

/* -------------------------------------------------------------------------------- tar to records */

struct from_tar {
	struct copy_out *out;
	struct tar *tar;
	char *open[COPY_MAX_DEPTH]; /* the directories that are open below the root */
	unsigned depth;
};

static ssize_t read_fd(void *arg, void *p, size_t len, struct sm_error *err)
{
	ssize_t n;

	do
		n = read(*(int *)arg, p, len);
	while (n < 0 && errno == EINTR);
	return n < 0 ? error_sys(err, errno, "read the tar stream") : n;
}

static int out_error(int r, struct sm_error *err)
{
	return r < 0 ? error_sys(err, -r, "copy") : 0;
}

/* Cuts a path into its components; -EINVAL if it leads out. names: room for COPY_MAX_DEPTH. */
static int cut(char *path, char **names, unsigned *count)
{
	char *name;

	*count = 0;
	while ((name = strsep(&path, "/"))) {
		if (!*name || streq(name, "."))
			continue;
		if (!copy_name_valid(name, strlen(name)))
			return -EINVAL;
		if (*count >= COPY_MAX_DEPTH - 1)
			return -ENAMETOOLONG;
		names[(*count)++] = name;
	}
	return 0;
}

static int leave_to(struct from_tar *f, unsigned depth)
{
	int r = 0;

	while (r == 0 && f->depth > depth) {
		free(f->open[--f->depth]);
		r = copy_put_up(f->out);
	}
	return r;
}

static int enter(struct from_tar *f, const struct copy_entry *e)
{
	int r = copy_put_entry(f->out, e);

	if (r < 0)
		return r;
	f->open[f->depth] = strdup(e->name);
	return f->open[f->depth++] ? 0 : -ENOMEM;
}

/* Makes the directories names[0 .. count) the open ones. */
static int go_to(struct from_tar *f, char **names, unsigned count)
{
	unsigned same = 0;
	int r;

	while (same < f->depth && same < count && streq(f->open[same], names[same]))
		same++;
	r = leave_to(f, same);
	for (unsigned i = same; r == 0 && i < count; i++) {
		struct copy_entry e = {.kind = COPY_DIR, .flags = COPY_IMPLICIT, .mode = 0755, .name = names[i]};

		r = enter(f, &e);
	}
	return r;
}

static int put_xattrs(struct buf *b, const struct tar_entry *t)
{
	for (size_t i = 0; i < t->num_xattrs; i++) {
		const struct tar_bytes *n = &t->xattrs[i].name, *v = &t->xattrs[i].value;
		char name[COPY_MAX_NAME + 1];
		int r;

		if (!n->len || n->len > COPY_MAX_NAME)
			continue;
		memcpy(name, n->p, n->len);
		name[n->len] = '\0';
		r = copy_xattr_put(b, name, v->p, v->len);
		if (r < 0)
			return r;
	}
	return b->error;
}

static int put_contents(struct from_tar *f, const struct tar_entry *t, struct sm_error *err)
{
	struct tar_extent all = {0, t->size};
	const struct tar_extent *x = t->sparse ? t->extents : &all;
	size_t left = t->sparse ? t->num_extents : (t->size ? 1 : 0);
	uint64_t at = 0;
	const uint8_t *p;
	ssize_t n;

	while ((n = tar_data(f->tar, &p, err)) > 0) {
		while (n > 0 && left) {
			size_t piece = MIN(MIN((uint64_t)n, x->len - at), (uint64_t)COPY_CHUNK);
			int r = copy_put_data(f->out, x->offset + at, p, piece);

			if (r < 0)
				return out_error(r, err);
			p += piece;
			n -= (ssize_t)piece;
			at += piece;
			if (at == x->len) {
				x++;
				left--;
				at = 0;
			}
		}
	}
	return (int)n;
}

/* The names of a hard link's target, joined again without what means nothing. */
static int link_of(const struct tar_entry *t, char *ret, size_t size)
{
	_free_ char *path = strndup((const char *)t->link.p, t->link.len);
	char *names[COPY_MAX_DEPTH];
	unsigned count;
	size_t len = 0;
	int r = path ? cut(path, names, &count) : -ENOMEM;

	for (unsigned i = 0; r == 0 && i < count; i++) {
		len += (size_t)snprintf(ret + len, size - len, "%s%s", i ? "/" : "", names[i]);
		if (len >= size)
			return -ENAMETOOLONG;
	}
	return r == 0 && !len ? -EINVAL : r;
}

static int put_one(struct from_tar *f, const struct tar_entry *t, char **names, unsigned count, struct sm_error *err)
{
	static const enum copy_kind kinds[] = {
		[TAR_FILE] = COPY_FILE, [TAR_HARDLINK] = COPY_HARDLINK, [TAR_SYMLINK] = COPY_SYMLINK,
		[TAR_CHAR] = COPY_CHAR, [TAR_BLOCK] = COPY_BLOCK,	[TAR_DIR] = COPY_DIR,
		[TAR_FIFO] = COPY_FIFO};
	_cleanup_(buf_done) struct buf xattrs = {0};
	char link[COPY_MAX_LINK + 1] = "";
	struct copy_entry e = {.kind = kinds[t->type],
			       .mode = t->mode,
			       .uid = t->uid,
			       .gid = t->gid,
			       .mtime = t->mtime,
			       .mtime_ns = t->mtime_nsec,
			       .major = (uint32_t)t->major,
			       .minor = (uint32_t)t->minor,
			       .name = names[count - 1],
			       .link = link};
	int r = go_to(f, names, count - 1);

	/* Said once more of a directory that is open: what it says now counts. */
	if (r == 0 && f->depth == count && streq(f->open[count - 1], e.name))
		r = leave_to(f, count - 1);
	if (r == 0 && t->type == TAR_HARDLINK)
		r = link_of(t, link, sizeof(link));
	if (r == 0 && t->type == TAR_SYMLINK) {
		if (t->link.len > COPY_MAX_LINK)
			return out_error(-ENAMETOOLONG, err);
		memcpy(link, t->link.p, t->link.len);
	}
	if (r == 0)
		r = put_xattrs(&xattrs, t);
	e.xattrs = xattrs.data;
	e.xattrs_len = (uint32_t)xattrs.len;
	e.size = t->type == TAR_FILE ? t->size : 0;
	if (r == 0)
		r = t->type == TAR_DIR ? enter(f, &e) : copy_put_entry(f->out, &e);
	if (r < 0)
		return out_error(r, err);
	return t->type == TAR_FILE ? put_contents(f, t, err) : 0;
}

static int put_tar(struct from_tar *f, struct sm_error *err)
{
	const struct tar_entry *t;
	int r;

	while ((r = tar_next(f->tar, &t, err)) > 0) {
		_free_ char *path = t->path.len < MAX_PATH ? strndup((const char *)t->path.p, t->path.len) : NULL;
		char *names[COPY_MAX_DEPTH];
		unsigned count = 0;

		if (!path)
			return error_sys(err, ENAMETOOLONG, "a name in the tar stream");
		r = cut(path, names, &count);
		if (r < 0)
			return error_set(err, SM_ERROR_INVALID, -r, "the tar stream has a name that leads out of it");
		if (!count)
			continue; /* the directory that all goes to: it stays as it is */
		r = put_one(f, t, names, count, err);
		if (r < 0)
			return error_wrap(err, r, "%s", names[count - 1]);
	}
	return r < 0 ? r : tar_drain(f->tar, err);
}

int copy_from_tar(int fd, struct copy_out *out, struct sm_error *err)
{
	struct copy_entry root = {.kind = COPY_DIR, .flags = COPY_IMPLICIT, .mode = 0755, .name = ""};
	struct tar_input input = {read_fd, &fd};
	struct from_tar f = {.out = out};
	int r = out_error(copy_put_entry(out, &root), err);

	if (r == 0) {
		r = tar_open(&input, UINT64_MAX, &f.tar);
		if (r < 0)
			error_sys(err, -r, "tar stream");
	}
	if (r == 0)
		r = put_tar(&f, err);
	if (r == 0)
		r = out_error(leave_to(&f, 0), err);
	while (f.depth)
		free(f.open[--f.depth]);
	tar_close(f.tar);
	return r < 0 ? r : out_error(copy_put_up(out), err);
}

/* -------------------------------------------------------------------------------- records to tar */

struct copy_tar {
	struct copy_in in;
	int fd;
	char path[MAX_PATH]; /* with a slash behind every open directory */
	size_t len, lens[COPY_MAX_DEPTH], root_len;
	unsigned depth;
	uint64_t size, at;
	uint64_t written, max;
	int (*write)(void *arg, const void *p, size_t len); /* NULL: to fd */
	void *arg;
	struct buf b, pax;
};

#define FLUSH_AT 65536u

static int flush(struct copy_tar *t, struct sm_error *err)
{
	int r = t->b.error;

	t->written += t->b.len;
	if (r == 0 && t->written > t->max)
		r = -EFBIG;
	if (r == 0)
		r = t->write ? t->write(t->arg, t->b.data, t->b.len) : write_full(t->fd, t->b.data, t->b.len);
	t->b.len = 0;
	return r < 0 ? error_sys(err, -r, "write the tar stream") : 0;
}

static void pad(struct copy_tar *t, uint64_t size)
{
	buf_put_zero(&t->b, (size_t)(-size & (BLOCK - 1)));
}

/* "LENGTH KEY=VALUE\n", where the length counts itself. */
static void pax_put(struct copy_tar *t, const char *key, const void *value, size_t len)
{
	size_t rest = strlen(key) + len + 3, digits = 1, total;
	char text[24];

	do
		total = rest + digits;
	while ((size_t)snprintf(text, sizeof(text), "%zu", total) != digits && digits++ < 20);
	buf_printf(&t->pax, "%zu %s=", total, key);
	buf_put(&t->pax, value, len);
	buf_put_u8(&t->pax, '\n');
}

static void pax_number(struct copy_tar *t, const char *key, uint64_t v)
{
	char text[24];

	pax_put(t, key, text, (size_t)snprintf(text, sizeof(text), "%llu", (unsigned long long)v));
}

struct header {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], sum[8], type, link[100], magic[8], uname[32],
		gname[32], major[8], minor[8], prefix[155], rest[12];
};
_Static_assert(sizeof(struct header) == BLOCK, "a tar header is one block");

static void octal(char *field, size_t size, uint64_t v)
{
	snprintf(field, size, "%0*llo", (int)size - 1, (unsigned long long)v);
}

static void put_header(struct copy_tar *t, struct header *h)
{
	unsigned sum = 0;

	memcpy(h->magic, "ustar\00000", 8);
	memset(h->sum, ' ', sizeof(h->sum));
	for (size_t i = 0; i < BLOCK; i++)
		sum += ((uint8_t *)h)[i];
	snprintf(h->sum, sizeof(h->sum), "%06o", sum);
	h->sum[7] = ' ';
	buf_put(&t->b, h, BLOCK);
}

static void put_text(struct copy_tar *t, char *field, size_t size, const char *key, const char *text)
{
	size_t len = strlen(text);

	memcpy(field, text, MIN(len, size));
	if (len > size)
		pax_put(t, key, text, len);
}

static void put_limited(struct copy_tar *t, char *field, size_t size, const char *key, uint64_t v)
{
	uint64_t most = (1ull << (3 * (size - 1))) - 1;

	octal(field, size, v > most ? 0 : v);
	if (v > most)
		pax_number(t, key, v);
}

static void put_mtime(struct copy_tar *t, struct header *h, const struct copy_entry *e)
{
	uint64_t most = (1ull << 33) - 1;
	char text[48];

	octal(h->mtime, sizeof(h->mtime), e->mtime < 0 || (uint64_t)e->mtime > most ? 0 : (uint64_t)e->mtime);
	if (!e->mtime_ns && e->mtime >= 0 && (uint64_t)e->mtime <= most)
		return;
	/* Before 1970 the fraction counts from the next second on. */
	if (e->mtime < 0 && e->mtime_ns)
		snprintf(text, sizeof(text), "-%lld.%09u", (long long)-(e->mtime + 1), 1000000000 - e->mtime_ns);
	else
		snprintf(text, sizeof(text), "%lld.%09u", (long long)e->mtime, e->mtime_ns);
	pax_put(t, "mtime", text, strlen(text));
}

static void put_tar_xattrs(struct copy_tar *t, const struct copy_entry *e)
{
	struct cursor c = cursor_of(e->xattrs, e->xattrs_len);
	char name[COPY_MAX_NAME + 1], key[COPY_MAX_NAME + 20];
	const void *value;
	size_t len;

	while (copy_xattr_next(&c, name, &value, &len) > 0) {
		snprintf(key, sizeof(key), "SCHILY.xattr.%s", name);
		/* A key ends at the first "=". */
		if (!strchr(name, '='))
			pax_put(t, key, value, len);
	}
}

static int put_extended(struct copy_tar *t)
{
	struct header h = {.name = "pax", .type = 'x'};

	if (t->pax.error || !t->pax.len)
		return t->pax.error;
	octal(h.mode, sizeof(h.mode), 0644);
	octal(h.uid, sizeof(h.uid), 0);
	octal(h.gid, sizeof(h.gid), 0);
	octal(h.size, sizeof(h.size), t->pax.len);
	octal(h.mtime, sizeof(h.mtime), 0);
	put_header(t, &h);
	buf_put(&t->b, t->pax.data, t->pax.len);
	pad(t, t->pax.len);
	t->pax.len = 0;
	return 0;
}

/* Names in a tar begin with the root's, as its own ENTRY has it; a hard link's target comes without it. */
static int join(struct copy_tar *t, const struct copy_entry *e, char **ret_link)
{
	size_t name = strlen(e->name);

	if (t->len + name + 2 > sizeof(t->path))
		return -ENAMETOOLONG;
	memcpy(t->path + t->len, e->name, name + 1);
	if (e->kind == COPY_HARDLINK)
		return asprintf(ret_link, "%.*s%s", (int)t->root_len, t->path, e->link) < 0 ? -ENOMEM : 0;
	*ret_link = strdup(e->link);
	return *ret_link ? 0 : -ENOMEM;
}

static int tar_entry(void *arg, const struct copy_entry *e, unsigned depth, struct sm_error *err)
{
	static const char types[] = {[COPY_FILE] = '0', [COPY_DIR] = '5',  [COPY_SYMLINK] = '2', [COPY_HARDLINK] = '1',
				     [COPY_FIFO] = '6', [COPY_CHAR] = '3', [COPY_BLOCK] = '4',	 [COPY_SOCKET] = 0};
	struct copy_tar *t = arg;
	struct header h = {.type = types[e->kind]}, main;
	_free_ char *link = NULL;
	size_t len;
	int r = join(t, e, &link);

	if (r < 0)
		return error_sys(err, -r, "%s", e->name);
	len = t->len + strlen(e->name);
	if (e->kind == COPY_DIR) {
		t->lens[t->depth++] = t->len;
		if (len == 0)
			t->path[len++] = '.';
		t->path[len++] = '/';
		t->path[len] = '\0';
		t->len = len;
		if (depth == 0)
			t->root_len = len;
	}
	if (e->flags & COPY_IMPLICIT)
		return 0;
	put_text(t, h.name, sizeof(h.name), "path", t->path);
	put_text(t, h.link, sizeof(h.link), "linkpath", link);
	octal(h.mode, sizeof(h.mode), e->mode);
	put_limited(t, h.uid, sizeof(h.uid), "uid", e->uid);
	put_limited(t, h.gid, sizeof(h.gid), "gid", e->gid);
	put_limited(t, h.size, sizeof(h.size), "size", e->size);
	put_limited(t, h.major, sizeof(h.major), "SCHILY.devmajor", e->major);
	put_limited(t, h.minor, sizeof(h.minor), "SCHILY.devminor", e->minor);
	put_mtime(t, &h, e);
	put_tar_xattrs(t, e);
	main = h;
	r = put_extended(t);
	if (r < 0)
		return error_sys(err, -r, "%s", e->name);
	put_header(t, &main);
	t->size = e->size;
	t->at = 0;
	return t->b.len >= FLUSH_AT || t->b.error ? flush(t, err) : 0;
}

/* Zeros for holes: every reader of tar understands those. */
static int fill(struct copy_tar *t, uint64_t to, struct sm_error *err)
{
	int r = 0;

	while (r == 0 && t->at < to) {
		size_t n = (size_t)MIN(to - t->at, (uint64_t)FLUSH_AT);

		buf_put_zero(&t->b, n);
		t->at += n;
		if (t->b.len >= FLUSH_AT || t->b.error)
			r = flush(t, err);
	}
	return r;
}

static int tar_bytes(void *arg, uint64_t offset, const void *p, size_t len, struct sm_error *err)
{
	struct copy_tar *t = arg;
	int r = fill(t, offset, err);

	if (r < 0)
		return r;
	buf_put(&t->b, p, len);
	t->at += len;
	return t->b.len >= FLUSH_AT || t->b.error ? flush(t, err) : 0;
}

static int tar_file_end(void *arg, struct sm_error *err)
{
	struct copy_tar *t = arg;
	int r = fill(t, t->size, err);

	pad(t, t->size);
	return r;
}

static int tar_up(void *arg, struct sm_error *err)
{
	struct copy_tar *t = arg;

	t->len = t->lens[--t->depth];
	return 0;
}

const struct copy_sink copy_tar_sink = {tar_entry, tar_bytes, tar_file_end, tar_up};

int copy_tar_new(int fd, struct copy_tar **ret)
{
	struct copy_tar *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	t->fd = fd;
	t->max = UINT64_MAX;
	copy_in_init(&t->in, &copy_tar_sink, t);
	*ret = t;
	return 0;
}

struct copy_tar *copy_tar_free(struct copy_tar *t)
{
	if (!t)
		return NULL;
	copy_in_done(&t->in);
	buf_done(&t->b);
	buf_done(&t->pax);
	free(t);
	return NULL;
}

void copy_tar_output(struct copy_tar *t, int (*write)(void *arg, const void *p, size_t len), void *arg)
{
	t->write = write;
	t->arg = arg;
}

void copy_tar_limit(struct copy_tar *t, uint64_t max)
{
	t->max = max;
}

uint64_t copy_tar_written(const struct copy_tar *t)
{
	return t->written;
}

int copy_tar_feed(void *tar, const void *p, size_t len, struct sm_error *err)
{
	return copy_in_feed(&((struct copy_tar *)tar)->in, p, len, err);
}

bool copy_tar_ended(void *tar)
{
	return ((struct copy_tar *)tar)->in.ended;
}

int copy_tar_finish(struct copy_tar *t, struct sm_error *err)
{
	buf_put_zero(&t->b, 2 * BLOCK);
	return flush(t, err);
}
