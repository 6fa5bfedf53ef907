/* SPDX-License-Identifier: Apache-2.0 */
/* The records of a tree: writing and the checked reading. See stream.h. */
#include "copy/stream.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cursor.h"
#include "base/util.h"

#define HEADER 8u
#define ENTRY_FIXED 56u
#define MAX_RECORD (ENTRY_FIXED + COPY_MAX_NAME + COPY_MAX_LINK + COPY_MAX_XATTRS)
#define FLUSH_AT 65536u
#define MAX_ERROR 1000u

enum type { T_ENTRY = 1, T_DATA = 2, T_UP = 3, T_ERROR = 4, T_END = 5 };

bool copy_name_valid(const char *name, size_t len)
{
	return len > 0 && len <= COPY_MAX_NAME && !memchr(name, '/', len) && !memchr(name, 0, len) &&
	       !(len == 1 && name[0] == '.') && !(len == 2 && name[0] == '.' && name[1] == '.');
}

int copy_xattr_put(struct buf *b, const char *name, const void *value, size_t len)
{
	size_t n = strlen(name);

	if (n > COPY_MAX_NAME || b->len + 8 + n + len > COPY_MAX_XATTRS)
		return -E2BIG;
	buf_put_u16(b, (uint16_t)n);
	buf_put_u16(b, 0);
	buf_put_u32(b, (uint32_t)len);
	buf_put(b, name, n);
	return buf_put(b, value, len);
}

int copy_xattr_next(struct cursor *c, char *name, const void **value, size_t *len)
{
	uint16_t n;
	uint32_t size;
	const void *p;

	if (!c->left)
		return 0;
	n = cursor_u16(c);
	if (cursor_u16(c))
		return -EPROTO;
	size = cursor_u32(c);
	p = cursor_take(c, n);
	*value = cursor_take(c, size);
	*len = size;
	if (c->bad || n == 0 || n > COPY_MAX_NAME || memchr(p, 0, n))
		return -EPROTO;
	memcpy(name, p, n);
	name[n] = '\0';
	return 1;
}

/* ------------------------------------------------------------------------------------------- writer */

int copy_flush(struct copy_out *o)
{
	int r = o->b.error;

	if (r == 0 && o->b.len)
		r = o->write(o->arg, o->b.data, o->b.len);
	if (r == 0)
		o->b.len = 0;
	return r;
}

void copy_out_done(struct copy_out *o)
{
	buf_done(&o->b);
}

static void put_header(struct copy_out *o, enum type type, size_t len)
{
	buf_put_u8(&o->b, (uint8_t)type);
	buf_put_u8(&o->b, 0);
	buf_put_u16(&o->b, 0);
	buf_put_u32(&o->b, (uint32_t)len);
}

static int put_done(struct copy_out *o)
{
	return o->b.len >= FLUSH_AT ? copy_flush(o) : o->b.error;
}

int copy_put_entry(struct copy_out *o, const struct copy_entry *e)
{
	size_t name = strlen(e->name), link = e->link ? strlen(e->link) : 0;

	if (name > COPY_MAX_NAME || link > COPY_MAX_LINK || e->xattrs_len > COPY_MAX_XATTRS)
		return -ENAMETOOLONG;
	put_header(o, T_ENTRY, ENTRY_FIXED + name + link + e->xattrs_len);
	buf_put_u8(&o->b, (uint8_t)e->kind);
	buf_put_u8(&o->b, e->flags);
	buf_put_u16(&o->b, (uint16_t)name);
	buf_put_u32(&o->b, e->mode);
	buf_put_u32(&o->b, e->uid);
	buf_put_u32(&o->b, e->gid);
	buf_put_u64(&o->b, e->size);
	buf_put_u64(&o->b, (uint64_t)e->mtime);
	buf_put_u32(&o->b, e->mtime_ns);
	buf_put_u32(&o->b, e->major);
	buf_put_u32(&o->b, e->minor);
	buf_put_u16(&o->b, (uint16_t)link);
	buf_put_u16(&o->b, 0);
	buf_put_u32(&o->b, e->xattrs_len);
	buf_put_u32(&o->b, 0);
	buf_put(&o->b, e->name, name);
	if (link)
		buf_put(&o->b, e->link, link);
	if (e->xattrs_len)
		buf_put(&o->b, e->xattrs, e->xattrs_len);
	return put_done(o);
}

int copy_put_data(struct copy_out *o, uint64_t offset, const void *p, size_t len)
{
	put_header(o, T_DATA, 8 + len);
	buf_put_u64(&o->b, offset);
	buf_put(&o->b, p, len);
	return put_done(o);
}

int copy_put_up(struct copy_out *o)
{
	put_header(o, T_UP, 0);
	return put_done(o);
}

int copy_put_end(struct copy_out *o)
{
	put_header(o, T_END, 0);
	return copy_flush(o);
}

int copy_put_error(struct copy_out *o, int code, const char *text)
{
	size_t len = MIN(strlen(text), MAX_ERROR);

	put_header(o, T_ERROR, 4 + len);
	buf_put_u32(&o->b, (uint32_t)code);
	buf_put(&o->b, text, len);
	return copy_flush(o);
}

/* ------------------------------------------------------------------------------------------- reader */

void copy_in_init(struct copy_in *in, const struct copy_sink *sink, void *arg)
{
	*in = (struct copy_in){.sink = sink, .arg = arg};
}

void copy_in_done(struct copy_in *in)
{
	buf_done(&in->pending);
}

static int broken(struct sm_error *err, const char *what)
{
	return error_set(err, SM_ERROR_CORRUPT, EPROTO, "the other end broke the protocol: %s", what);
}

/* The names that a hard link's target is made of. */
static bool link_path_valid(const char *link)
{
	for (;;) {
		size_t len = strcspn(link, "/");

		if (!copy_name_valid(link, len))
			return false;
		if (!link[len])
			return true;
		link += len + 1;
	}
}

static bool xattrs_valid(const void *p, size_t len)
{
	struct cursor c = cursor_of(p, len);
	char name[COPY_MAX_NAME + 1];
	const void *value;
	size_t size;
	int r;

	while ((r = copy_xattr_next(&c, name, &value, &size)) > 0)
		;
	return r == 0;
}

static const char *entry_fault(const struct copy_in *in, const struct copy_entry *e, size_t name_len, size_t link_len)
{
	bool root = !in->begun;

	if (in->begun && in->depth == 0)
		return "a second tree";
	if (in->depth >= COPY_MAX_DEPTH)
		return "too deep";
	if (!copy_name_valid(e->name, name_len) && !(root && name_len == 0))
		return "a name that is none";
	if (!in->changes && (e->kind == COPY_GONE || (e->flags & COPY_NEW)))
		return "changes that nobody asked for";
	if (e->kind < COPY_FILE || e->kind > COPY_GONE || e->flags > (COPY_IMPLICIT | COPY_NEW) || e->mode > 07777 ||
	    e->mtime_ns >= 1000000000 || e->size > INT64_MAX)
		return "a file that cannot be";
	if (((e->flags & COPY_IMPLICIT) && e->kind != COPY_DIR) || (e->size && e->kind != COPY_FILE) ||
	    (e->kind == COPY_GONE && (root || e->flags)))
		return "a file that cannot be";
	if ((e->kind == COPY_SYMLINK || e->kind == COPY_HARDLINK) != (link_len > 0) || strlen(e->link) != link_len)
		return "a link that is none";
	if (e->kind == COPY_HARDLINK && (root || !link_path_valid(e->link)))
		return "a link out of the tree";
	return xattrs_valid(e->xattrs, e->xattrs_len) ? NULL : "attributes that are none";
}

static int end_file(struct copy_in *in, struct sm_error *err)
{
	if (!in->in_file)
		return 0;
	in->in_file = false;
	return in->sink->file_end(in->arg, err);
}

static int on_entry(struct copy_in *in, struct cursor c, struct sm_error *err)
{
	char name[COPY_MAX_NAME + 1], link[COPY_MAX_LINK + 1];
	struct copy_entry e = {.name = name, .link = link};
	size_t name_len, link_len;
	const void *p, *l;
	const char *fault;
	unsigned depth;

	e.kind = (enum copy_kind)cursor_u8(&c);
	e.flags = cursor_u8(&c);
	name_len = cursor_u16(&c);
	e.mode = cursor_u32(&c);
	e.uid = cursor_u32(&c);
	e.gid = cursor_u32(&c);
	e.size = cursor_u64(&c);
	e.mtime = (int64_t)cursor_u64(&c);
	e.mtime_ns = cursor_u32(&c);
	e.major = cursor_u32(&c);
	e.minor = cursor_u32(&c);
	link_len = cursor_u16(&c);
	cursor_u16(&c);
	e.xattrs_len = cursor_u32(&c);
	cursor_u32(&c);
	p = cursor_take(&c, name_len);
	l = cursor_take(&c, link_len);
	e.xattrs = cursor_take(&c, e.xattrs_len);
	if (c.bad || c.left || name_len > COPY_MAX_NAME || link_len > COPY_MAX_LINK || e.xattrs_len > COPY_MAX_XATTRS)
		return broken(err, "an entry of the wrong size");
	memcpy(name, p, name_len);
	name[name_len] = '\0';
	memcpy(link, l, link_len);
	link[link_len] = '\0';
	fault = entry_fault(in, &e, name_len, link_len);
	if (fault)
		return broken(err, fault);
	depth = in->depth;
	in->begun = true;
	in->in_file = e.kind == COPY_FILE;
	in->size = e.size;
	in->at = 0;
	in->depth += e.kind == COPY_DIR;
	return in->sink->entry(in->arg, &e, depth, err);
}

static int on_data(struct copy_in *in, struct cursor c, struct sm_error *err)
{
	uint64_t offset = cursor_u64(&c);

	if (c.bad || !in->in_file || offset < in->at || !range_inside(offset, c.left, in->size))
		return broken(err, "bytes that belong to no file");
	in->at = offset + c.left;
	return c.left ? in->sink->data(in->arg, offset, c.p, c.left, err) : 0;
}

static int on_error(struct cursor c, struct sm_error *err)
{
	uint32_t code = cursor_u32(&c);
	char text[MAX_ERROR + 1];
	size_t len = MIN(c.left, MAX_ERROR);
	int r;

	if (c.bad || code == 0 || code > 4095)
		return broken(err, "an error that is none");
	if (len)
		memcpy(text, c.p, len);
	text[len] = '\0';
	/* A stranger's text may end up on a terminal. */
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < 32 || *p == 127)
			*p = '?';
	r = error_sys(err, (int)code, "copy");
	if (err && *text)
		snprintf(err->message, sizeof(err->message), "%s", text);
	return r;
}

static int on_record(struct copy_in *in, unsigned type, struct cursor c, struct sm_error *err)
{
	int r;

	if (in->ended)
		return broken(err, "more after the end");
	if (type == T_DATA)
		return on_data(in, c, err);
	if (type == T_ERROR)
		return on_error(c, err);
	r = end_file(in, err);
	if (r < 0)
		return r;
	if (type == T_ENTRY)
		return on_entry(in, c, err);
	if ((type != T_UP && type != T_END) || c.left)
		return broken(err, "an unknown record");
	if (type == T_END ? in->depth > 0 : in->depth == 0)
		return broken(err, "directories that do not match");
	if (type == T_UP) {
		in->depth--;
		return in->sink->up(in->arg, err);
	}
	in->ended = true;
	return 0;
}

/* As many whole records as there are: how many bytes they took, or -errno. */
static ssize_t take_records(struct copy_in *in, const uint8_t *p, size_t len, struct sm_error *err)
{
	struct cursor c = cursor_of(p, len);

	while (c.left >= HEADER) {
		struct cursor head = c;
		unsigned type = cursor_u8(&head), zero = cursor_u8(&head) | cursor_u16(&head);
		uint32_t size = cursor_u32(&head);
		int r;

		if (zero || size > MAX_RECORD)
			return broken(err, "a record that is none");
		if (head.left < size)
			break;
		r = on_record(in, type, cursor_of(head.p, size), err);
		if (r < 0)
			return r;
		cursor_take(&head, size);
		c = head;
	}
	return (ssize_t)(len - c.left);
}

int copy_in_feed(struct copy_in *in, const void *p, size_t len, struct sm_error *err)
{
	ssize_t n;

	if (in->pending.len) {
		if (buf_put(&in->pending, p, len) < 0)
			return error_sys(err, ENOMEM, "copy");
		n = take_records(in, in->pending.data, in->pending.len, err);
		if (n > 0)
			buf_consume(&in->pending, (size_t)n);
	} else {
		n = take_records(in, p, len, err);
		if (n >= 0 && (size_t)n < len && buf_put(&in->pending, (const uint8_t *)p + n, len - (size_t)n) < 0)
			return error_sys(err, ENOMEM, "copy");
	}
	return n < 0 ? (int)n : 0;
}
