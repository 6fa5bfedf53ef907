/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The messages' layout, as tables: one row a field (tag, kind, where it lies in the struct). One encoder and one strict
 * decoder walk them: a wrong size, an embedded NUL, a repeated single field, an unknown mandatory tag or a missing
 * required one is -EPROTO. Fields that are zero or NULL are not sent.
 */
#include "proto/messages.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "proto/stage.h"

#define TAG_OPTIONAL 0x8000u
#define MAX_STRING 131072u /* as the kernel's for an argument */
#define MAX_STRINGS 65536u

void tlv_put(struct buf *b, uint16_t tag, const void *p, size_t len)
{
	if (len > PROTO_MAX_OPEN) {
		b->error = b->error ? b->error : -EMSGSIZE;
		return;
	}
	buf_put_u16(b, tag);
	buf_put_u16(b, 0);
	buf_put_u32(b, (uint32_t)len);
	buf_put(b, p, len);
}

void tlv_put_str(struct buf *b, uint16_t tag, const char *s)
{
	if (s)
		tlv_put(b, tag, s, strlen(s));
}

void tlv_put_u64(struct buf *b, uint16_t tag, uint64_t v)
{
	uint8_t le[8];

	for (unsigned i = 0; i < 8; i++)
		le[i] = (uint8_t)(v >> (8 * i));
	tlv_put(b, tag, le, sizeof(le));
}

int tlv_next(struct cursor *c, struct tlv *ret)
{
	uint16_t flags;

	if (!c->left)
		return c->bad ? -EPROTO : 0;
	ret->tag = cursor_u16(c);
	flags = cursor_u16(c);
	ret->len = cursor_u32(c);
	ret->p = cursor_take(c, ret->len);
	return c->bad || flags ? -EPROTO : 1;
}

int tlv_u64(const struct tlv *t, uint64_t *ret)
{
	struct cursor c = cursor_of(t->p, t->len);

	if (t->len != 8)
		return -EPROTO;
	*ret = cursor_u64(&c);
	return 0;
}

char *tlv_strdup(const struct tlv *t, size_t max)
{
	char *s;

	if (t->len > max || (t->len && memchr(t->p, 0, t->len)))
		return NULL;
	s = malloc((size_t)t->len + 1);
	if (!s)
		return NULL;
	if (t->len)
		memcpy(s, t->p, t->len);
	s[t->len] = '\0';
	return s;
}

/* ------------------------------------------------------------------------------------------ fields */

enum kind { K_STR, K_STRV, K_U64, K_U32, K_INT, K_U16, K_BOOL, K_SEED, K_TEXT, K_BYTES };

struct field {
	uint16_t tag;
	uint8_t kind;
	bool required;
	uint16_t offset;
};

#define SEED_SIZE 32u
#define TEXT_SIZE 256u
#define MAX_FIELDS 32u

#define F(s, t, k, m)                                                                                                  \
	{                                                                                                              \
		.tag = (t), .kind = (k), .offset = offsetof(struct s, m)                                               \
	}
#define R(s, t, k, m)                                                                                                  \
	{                                                                                                              \
		.tag = (t), .kind = (k), .required = true, .offset = offsetof(struct s, m)                             \
	}

struct layout {
	const struct field *fields;
	size_t num, size;
};
#define LAYOUT(f, s) ((struct layout){(f), ARRAY_SIZE(f), sizeof(struct s)})

static void *at(const void *x, const struct field *f)
{
	return (uint8_t *)(uintptr_t)x + f->offset;
}

static void strv_free(char **v)
{
	for (char **p = v; v && *p; p++)
		free(*p);
	free(v);
}

static void layout_done(struct layout l, void *x)
{
	for (size_t i = 0; i < l.num; i++) {
		const struct field *f = &l.fields[i];

		if (f->kind == K_STR)
			free(*(char **)at(x, f));
		else if (f->kind == K_STRV)
			strv_free(*(char ***)at(x, f));
		else if (f->kind == K_BYTES)
			free(((struct proto_bytes *)at(x, f))->data);
	}
	memset(x, 0, l.size);
}

static uint64_t get_number(const struct field *f, const void *x)
{
	const void *p = at(x, f);

	switch (f->kind) {
	case K_U64:
		return *(const uint64_t *)p;
	case K_U32:
		return *(const uint32_t *)p;
	case K_INT:
		return (uint64_t)(int64_t) * (const int *)p;
	case K_U16:
		return *(const uint16_t *)p;
	default:
		return *(const bool *)p;
	}
}

static int set_number(const struct field *f, void *x, uint64_t v)
{
	void *p = at(x, f);

	switch (f->kind) {
	case K_U64:
		*(uint64_t *)p = v;
		return 0;
	case K_U32:
		*(uint32_t *)p = (uint32_t)v;
		return v > UINT32_MAX ? -EPROTO : 0;
	case K_INT:
		*(int *)p = (int)v;
		return v > INT32_MAX ? -EPROTO : 0; /* no field is ever negative */
	case K_U16:
		*(uint16_t *)p = (uint16_t)v;
		return v > UINT16_MAX ? -EPROTO : 0;
	default:
		*(bool *)p = v != 0;
		return v > 1 ? -EPROTO : 0;
	}
}

static void encode_field(struct buf *b, const struct field *f, const void *x)
{
	static const uint8_t zero[SEED_SIZE];
	const void *p = at(x, f);

	switch (f->kind) {
	case K_STR:
		tlv_put_str(b, f->tag, *(char *const *)p);
		break;
	case K_STRV:
		for (char *const *s = *(char **const *)p; s && *s; s++)
			tlv_put_str(b, f->tag, *s);
		break;
	case K_SEED:
		if (memcmp(p, zero, SEED_SIZE) != 0)
			tlv_put(b, f->tag, p, SEED_SIZE);
		break;
	case K_TEXT:
		if (*(const char *)p)
			tlv_put(b, f->tag, p, strnlen(p, TEXT_SIZE - 1));
		break;
	case K_BYTES:
		if (((const struct proto_bytes *)p)->len)
			tlv_put(b, f->tag, ((const struct proto_bytes *)p)->data, ((const struct proto_bytes *)p)->len);
		break;
	default:
		if (f->required || get_number(f, x))
			tlv_put_u64(b, f->tag, get_number(f, x));
	}
}

static int encode(struct buf *b, struct layout l, const void *x)
{
	for (size_t i = 0; i < l.num; i++)
		encode_field(b, &l.fields[i], x);
	return b->error;
}

/* Appends one string; the vector grows by doubling, so its room is the next power of two above n (at least 8). */
static int strv_add(char ***v, size_t n, char *s)
{
	if (!*v || (n >= 7 && ((n + 1) & n) == 0)) {
		char **more = realloc(*v, sizeof(char *) * (n < 7 ? 8 : 2 * (n + 1)));

		if (!more)
			return -ENOMEM;
		*v = more;
	}
	(*v)[n] = s;
	(*v)[n + 1] = NULL;
	return 0;
}

static int decode_string(const struct field *f, void *x, const struct tlv *t, size_t count)
{
	char *s;

	if (t->len > MAX_STRING || (t->len && memchr(t->p, 0, t->len)))
		return -EPROTO;
	if (f->kind == K_TEXT) {
		if (t->len >= TEXT_SIZE)
			return -EPROTO;
		if (t->len)
			memcpy(at(x, f), t->p, t->len); /* the rest is zero already */
		return 0;
	}
	s = tlv_strdup(t, MAX_STRING);
	if (!s)
		return -ENOMEM;
	if (f->kind == K_STR) {
		*(char **)at(x, f) = s;
		return 0;
	}
	if (count >= MAX_STRINGS || strv_add(at(x, f), count, s) < 0) {
		free(s);
		return count >= MAX_STRINGS ? -EPROTO : -ENOMEM;
	}
	return 0;
}

static int decode_bytes(struct proto_bytes *b, const struct tlv *t)
{
	if (!t->len)
		return 0;
	b->data = malloc(t->len);
	if (!b->data)
		return -ENOMEM;
	memcpy(b->data, t->p, t->len);
	b->len = t->len;
	return 0;
}

static int decode_field(const struct field *f, void *x, const struct tlv *t, size_t count)
{
	uint64_t v;
	int r;

	if (count && f->kind != K_STRV)
		return -EPROTO;
	if (f->kind == K_STR || f->kind == K_STRV || f->kind == K_TEXT)
		return decode_string(f, x, t, count);
	if (f->kind == K_SEED) {
		if (t->len != SEED_SIZE)
			return -EPROTO;
		memcpy(at(x, f), t->p, SEED_SIZE);
		return 0;
	}
	if (f->kind == K_BYTES)
		return decode_bytes(at(x, f), t);
	r = tlv_u64(t, &v);
	return r < 0 ? r : set_number(f, x, v);
}

static int decode_all(struct cursor *c, struct layout l, void *x)
{
	size_t count[MAX_FIELDS] = {0};
	struct tlv t;
	int r;

	while ((r = tlv_next(c, &t)) > 0) {
		size_t i = 0;

		while (i < l.num && l.fields[i].tag != t.tag)
			i++;
		if (i == l.num) {
			if (t.tag & TAG_OPTIONAL)
				continue;
			return -EPROTO;
		}
		r = decode_field(&l.fields[i], x, &t, count[i]);
		if (r < 0)
			return r;
		count[i]++;
	}
	for (size_t i = 0; r == 0 && i < l.num; i++)
		if (l.fields[i].required && !count[i])
			return -EPROTO;
	return r;
}

static int decode(struct cursor *c, struct layout l, void *x)
{
	int r;

	memset(x, 0, l.size);
	r = decode_all(c, l, x);
	if (r < 0)
		layout_done(l, x);
	return r;
}

/* ------------------------------------------------------------------------------------------ messages */

static const struct field exec_fields[] = {
	R(proto_exec, 1, K_STRV, argv),
	F(proto_exec, 2, K_STRV, env),
	F(proto_exec, 3, K_STR, cwd),
	F(proto_exec, 4, K_STR, user),
	F(proto_exec, 5, K_BOOL, tty),
	F(proto_exec, 6, K_BOOL, stdin_open),
	F(proto_exec, 7, K_BOOL, clear_env),
	F(proto_exec, 8, K_BOOL, main),
	F(proto_exec, 9, K_BOOL, detached),
	F(proto_exec, 10, K_STR, log),
	F(proto_exec, 11, K_U16, rows),
	F(proto_exec, 12, K_U16, cols),
	F(proto_exec, 13, K_U64, timeout_ns),
	F(proto_exec, 20, K_BOOL, hold),
	F(proto_exec, 21, K_STRV, limits),
	F(proto_exec, 22, K_STRV, files),
	F(proto_exec, 23, K_STRV, chain),
	F(proto_exec, 24, K_BYTES, contents),
	F(proto_exec, 25, K_BOOL, contents_follow),
};

int proto_exec_encode(struct buf *b, const struct proto_exec *x)
{
	return encode(b, LAYOUT(exec_fields, proto_exec), x);
}

int proto_exec_decode(struct cursor *c, struct proto_exec *ret)
{
	int r = decode(c, LAYOUT(exec_fields, proto_exec), ret);

	if (r == 0 && proto_stage_check(ret) < 0) {
		proto_exec_done(ret);
		r = -EPROTO;
	}
	return r;
}

void proto_exec_done(struct proto_exec *x)
{
	layout_done(LAYOUT(exec_fields, proto_exec), x);
}

/* The enum goes over the wire as a number of its own: enums have no fixed size. */
struct setup_wire {
	struct proto_setup s;
	uint32_t root;
};

#define SETUP(t, k, m)                                                                                                 \
	{                                                                                                              \
		.tag = (t), .kind = (k), .offset = offsetof(struct setup_wire, s.m)                                    \
	}
static const struct field setup_fields[] = {
	R(setup_wire, 1, K_U32, root),
	SETUP(2, K_STR, root_device),
	SETUP(3, K_STR, upper_serial),
	SETUP(4, K_STR, hostname),
	SETUP(5, K_STRV, env),
	SETUP(6, K_STR, user),
	SETUP(7, K_STR, cwd),
	SETUP(8, K_STRV, hosts),
	SETUP(9, K_STRV, dns),
	SETUP(10, K_STRV, volumes),
	SETUP(11, K_U64, realtime_ns),
	SETUP(12, K_SEED, seed),
	SETUP(13, K_BOOL, read_only),
	SETUP(14, K_U64, tmpfs_size),
	SETUP(15, K_STRV, mounts),
	SETUP(16, K_STRV, tmpfs),
	SETUP(17, K_STRV, limits),
	SETUP(TAG_OPTIONAL | 18, K_BOOL, rehearse),
	SETUP(TAG_OPTIONAL | 19, K_U64, plugged),
	SETUP(TAG_OPTIONAL | 20, K_BOOL, upper_ahead),
};

static const struct field prepared_fields[] = {F(proto_prepared, TAG_OPTIONAL | 1, K_BOOL, pluggable)};

int proto_prepared_encode(struct buf *b, const struct proto_prepared *x)
{
	return encode(b, LAYOUT(prepared_fields, proto_prepared), x);
}

int proto_prepared_decode(struct cursor *c, struct proto_prepared *ret)
{
	return decode(c, LAYOUT(prepared_fields, proto_prepared), ret);
}

int proto_setup_encode(struct buf *b, const struct proto_setup *s)
{
	struct setup_wire w = {.s = *s, .root = (uint32_t)s->root};

	return encode(b, LAYOUT(setup_fields, setup_wire), &w);
}

int proto_setup_decode(struct cursor *c, struct proto_setup *ret)
{
	struct setup_wire w;
	int r = decode(c, LAYOUT(setup_fields, setup_wire), &w);

	if (r < 0)
		return r;
	if ((w.root != PROTO_ROOT_PMEM && w.root != PROTO_ROOT_BLK) || !w.s.root_device) {
		layout_done(LAYOUT(setup_fields, setup_wire), &w);
		return -EPROTO;
	}
	*ret = w.s;
	ret->root = (enum proto_root)w.root;
	return 0;
}

void proto_setup_done(struct proto_setup *s)
{
	struct setup_wire w = {.s = *s};

	layout_done(LAYOUT(setup_fields, setup_wire), &w);
	memset(s, 0, sizeof(*s));
}

char *proto_mount_format(const struct proto_mount *m)
{
	char *text;

	char volume[3] = "";

	if (m->volume && m->number > 9)
		return NULL;
	if (m->volume)
		snprintf(volume, sizeof(volume), "v%c", '0' + (char)m->number);
	return asprintf(&text, "%s%s%s%s%s:%s", m->read_only ? "r" : "", m->cow ? "c" : "", m->is_file ? "f" : "",
			volume, m->no_copy ? "n" : "", m->target) < 0
		       ? NULL
		       : text;
}

int proto_mount_parse(const char *text, struct proto_mount *ret)
{
	*ret = (struct proto_mount){0};
	for (; *text && *text != ':'; text++) {
		bool *flag = *text == 'r'   ? &ret->read_only
			     : *text == 'c' ? &ret->cow
			     : *text == 'f' ? &ret->is_file
			     : *text == 'v' ? &ret->volume
			     : *text == 'n' ? &ret->no_copy
					    : NULL;

		if (!flag || *flag)
			return -EPROTO;
		*flag = true;
		if (flag != &ret->volume)
			continue;
		if (*++text < '0' || *text > '9')
			return -EPROTO;
		ret->number = (unsigned)(*text - '0');
	}
	if (text[0] != ':' || text[1] != '/' || !text[2])
		return -EPROTO;
	if (ret->volume ? ret->cow || ret->is_file : ret->no_copy)
		return -EPROTO;
	ret->target = text + 1;
	return 0;
}

int proto_tmpfs_parse(const char *text, struct proto_tmpfs *ret)
{
	const char *path;

	*ret = (struct proto_tmpfs){0};
	if (*text == 'n') {
		ret->noexec = true;
		text++;
	}
	if (*text++ != ':')
		return -EPROTO;
	path = strchr(text, ':');
	if (!path || (size_t)(path - text) >= sizeof(ret->data) || path[1] != '/' || !path[2])
		return -EPROTO;
	memcpy(ret->data, text, (size_t)(path - text));
	ret->path = path + 1;
	return 0;
}

struct event_wire {
	struct proto_event e;
	uint32_t kind, reason;
};

#define EVENT(t, k, m)                                                                                                 \
	{                                                                                                              \
		.tag = (t), .kind = (k), .offset = offsetof(struct event_wire, e.m)                                    \
	}
static const struct field event_fields[] = {
	R(event_wire, 1, K_U32, kind), EVENT(2, K_INT, signal),	  EVENT(3, K_U16, rows),
	EVENT(4, K_U16, cols),	       EVENT(5, K_INT, status),	  F(event_wire, 6, K_U32, reason),
	EVENT(7, K_U64, duration_ns),  EVENT(8, K_U64, peak_rss), EVENT(9, K_TEXT, text),
	EVENT(10, K_U32, step),
};

int proto_event_encode(struct buf *b, const struct proto_event *e)
{
	struct event_wire w = {.e = *e, .kind = (uint32_t)e->kind, .reason = (uint32_t)e->reason};

	return encode(b, LAYOUT(event_fields, event_wire), &w);
}

int proto_event_decode(struct cursor *c, struct proto_event *ret)
{
	struct event_wire w;
	int r = decode(c, LAYOUT(event_fields, event_wire), &w);

	if (r < 0)
		return r;
	if (w.kind < PROTO_EV_SIGNAL || w.kind > PROTO_EV_EXIT || w.reason > PROTO_EXIT_NOT_EXECUTABLE ||
	    (w.kind == PROTO_EV_EXIT && !w.reason) || w.e.signal > 64 || w.e.status > 255)
		return -EPROTO;
	*ret = w.e;
	ret->kind = (enum proto_event_kind)w.kind;
	ret->reason = (enum proto_exit_reason)w.reason;
	return 0;
}

struct pid_wire {
	uint32_t pid;
};
static const struct field pid_fields[] = {R(pid_wire, 1, K_U32, pid)};

int proto_pid_encode(struct buf *b, uint32_t pid)
{
	struct pid_wire w = {pid};

	return encode(b, LAYOUT(pid_fields, pid_wire), &w);
}

int proto_pid_decode(struct cursor *c, uint32_t *ret)
{
	struct pid_wire w;
	int r = decode(c, LAYOUT(pid_fields, pid_wire), &w);

	if (r == 0)
		*ret = w.pid;
	return r;
}

static const struct field connect_fields[] = {
	F(proto_connect, 1, K_STR, host),
	F(proto_connect, 2, K_STR, path),
	F(proto_connect, 3, K_U16, port),
	F(proto_connect, TAG_OPTIONAL | 4, K_U64, wait_ns),
};

int proto_connect_encode(struct buf *b, const struct proto_connect *x)
{
	return encode(b, LAYOUT(connect_fields, proto_connect), x);
}

int proto_connect_decode(struct cursor *c, struct proto_connect *ret)
{
	struct proto_connect x;
	int r = decode(c, LAYOUT(connect_fields, proto_connect), &x);

	if (r < 0)
		return r;
	if (!x.host == !x.path || (x.host && !x.port)) {
		proto_connect_done(&x);
		return -EPROTO;
	}
	*ret = x;
	return 0;
}

void proto_connect_done(struct proto_connect *x)
{
	layout_done(LAYOUT(connect_fields, proto_connect), x);
}

static const struct field file_fields[] = {
	F(proto_file, 1, K_STR, path),	     F(proto_file, 2, K_U64, offset), F(proto_file, 3, K_U64, size),
	F(proto_file, 4, K_U32, mode),	     F(proto_file, 5, K_U32, uid),    F(proto_file, 6, K_U32, gid),
	F(proto_file, 7, K_BOOL, make_dirs),
};

int proto_file_encode(struct buf *b, const struct proto_file *x)
{
	return encode(b, LAYOUT(file_fields, proto_file), x);
}

int proto_file_decode(struct cursor *c, struct proto_file *ret)
{
	return decode(c, LAYOUT(file_fields, proto_file), ret);
}

void proto_file_done(struct proto_file *x)
{
	layout_done(LAYOUT(file_fields, proto_file), x);
}

static const struct field copy_fields[] = {
	R(proto_copy, 1, K_U32, op),	  R(proto_copy, 2, K_STR, path),      F(proto_copy, 3, K_STR, name),
	F(proto_copy, 4, K_U32, depth),	  F(proto_copy, 5, K_BOOL, follow),   F(proto_copy, 6, K_BOOL, contents),
	F(proto_copy, 7, K_BOOL, into),	  F(proto_copy, 8, K_BOOL, keep_ids), F(proto_copy, 9, K_BOOL, recursive),
	F(proto_copy, 10, K_BOOL, whole), F(proto_copy, 11, K_BOOL, hold),    F(proto_copy, 12, K_STRV, skip),
};

int proto_copy_encode(struct buf *b, const struct proto_copy *x)
{
	return encode(b, LAYOUT(copy_fields, proto_copy), x);
}

int proto_copy_decode(struct cursor *c, struct proto_copy *ret)
{
	int r = decode(c, LAYOUT(copy_fields, proto_copy), ret);

	if (r == 0 && (ret->op < PROTO_COPY_SEND || ret->op > PROTO_COPY_CHANGES || ret->path[0] != '/')) {
		proto_copy_done(ret);
		return -EPROTO;
	}
	return r;
}

void proto_copy_done(struct proto_copy *x)
{
	layout_done(LAYOUT(copy_fields, proto_copy), x);
}

static const struct field watch_fields[] = {
	R(proto_watch, 1, K_STR, path),
	F(proto_watch, 2, K_BOOL, recursive),
};

int proto_watch_encode(struct buf *b, const struct proto_watch *x)
{
	return encode(b, LAYOUT(watch_fields, proto_watch), x);
}

int proto_watch_decode(struct cursor *c, struct proto_watch *ret)
{
	int r = decode(c, LAYOUT(watch_fields, proto_watch), ret);

	if (r == 0 && ret->path[0] != '/') {
		proto_watch_done(ret);
		return -EPROTO;
	}
	return r;
}

void proto_watch_done(struct proto_watch *x)
{
	layout_done(LAYOUT(watch_fields, proto_watch), x);
}

static const struct field clock_fields[] = {
	R(proto_clock, 1, K_U64, realtime_ns),
	F(proto_clock, 2, K_SEED, seed),
};

int proto_clock_encode(struct buf *b, const struct proto_clock *x)
{
	return encode(b, LAYOUT(clock_fields, proto_clock), x);
}

int proto_clock_decode(struct cursor *c, struct proto_clock *ret)
{
	return decode(c, LAYOUT(clock_fields, proto_clock), ret);
}

static const struct field hold_fields[] = {
	R(proto_hold, 1, K_BOOL, hold), F(proto_hold, 2, K_BOOL, volumes),
	F(proto_hold, 3, K_BOOL, again), /* an agent in an old snapshot refuses this one */
};

int proto_hold_encode(struct buf *b, const struct proto_hold *x)
{
	return encode(b, LAYOUT(hold_fields, proto_hold), x);
}

int proto_hold_decode(struct cursor *c, struct proto_hold *ret)
{
	return decode(c, LAYOUT(hold_fields, proto_hold), ret);
}

static const struct field resume_fields[] = {
	R(proto_resume, 1, K_U64, realtime_ns),
	R(proto_resume, 2, K_SEED, seed),
	F(proto_resume, 3, K_STR, hostname),
	F(proto_resume, 4, K_STR, machine_id),
	F(proto_resume, TAG_OPTIONAL | 5, K_STRV, env), /* an agent in an old snapshot knows neither */
	F(proto_resume, TAG_OPTIONAL | 6, K_U64, timeout_ns),
	F(proto_resume, TAG_OPTIONAL | 7, K_STR, user),
	F(proto_resume, TAG_OPTIONAL | 8, K_STR, cwd),
	F(proto_resume, 9, K_STRV, mounts), /* it refuses this one */
};

int proto_resume_encode(struct buf *b, const struct proto_resume *x)
{
	return encode(b, LAYOUT(resume_fields, proto_resume), x);
}

int proto_resume_decode(struct cursor *c, struct proto_resume *ret)
{
	return decode(c, LAYOUT(resume_fields, proto_resume), ret);
}

void proto_resume_done(struct proto_resume *x)
{
	layout_done(LAYOUT(resume_fields, proto_resume), x);
}

static const struct field stop_fields[] = {
	F(proto_stop, 1, K_BOOL, restart),
	F(proto_stop, 2, K_INT, signal),
	F(proto_stop, 3, K_U64, grace_ns),
};

int proto_stop_encode(struct buf *b, const struct proto_stop *x)
{
	return encode(b, LAYOUT(stop_fields, proto_stop), x);
}

int proto_stop_decode(struct cursor *c, struct proto_stop *ret)
{
	int r = decode(c, LAYOUT(stop_fields, proto_stop), ret);

	return r == 0 && ret->signal > 64 ? -EPROTO : r;
}

#define STAT(t, m) F(proto_stats, t, K_U64, m)
static const struct field stats_fields[] = {
	STAT(0x8001, mem_total),   STAT(0x8002, mem_free),	STAT(0x8003, mem_available), STAT(0x8004, mem_cached),
	STAT(0x8005, cpu_user_ns), STAT(0x8006, cpu_system_ns), STAT(0x8007, cpu_idle_ns),   STAT(0x8008, disk_total),
	STAT(0x8009, disk_free),   STAT(0x800a, processes),	STAT(0x800b, uptime_ns),     STAT(0x800c, load1_milli),
	STAT(0x800d, oom_kills),   STAT(0x800e, net_rx),	STAT(0x800f, net_tx),
};

int proto_stats_encode(struct buf *b, const struct proto_stats *x)
{
	return encode(b, LAYOUT(stats_fields, proto_stats), x);
}

int proto_stats_decode(struct cursor *c, struct proto_stats *ret)
{
	return decode(c, LAYOUT(stats_fields, proto_stats), ret);
}
