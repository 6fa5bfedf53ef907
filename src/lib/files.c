/* SPDX-License-Identifier: Apache-2.0 */
/* Single files of a VM: read, written, listed, removed. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "lib/copy.h"

#define MAX_READ (1ull << 30)
#define MAX_LIST 1000000u
#define CHUNK 65536u

/* ------------------------------------------------------------------------------------------- contents */

struct bytes {
	struct conn conn;
	struct call call;
	struct buf b;
	bool too_large;
};

static void on_bytes(void *arg, struct call *call, unsigned stream, const uint8_t *p, size_t len)
{
	struct bytes *x = arg;

	x->too_large |= x->b.len + len > MAX_READ;
	if (!x->too_large)
		buf_put(&x->b, p, len);
	mux_consumed(x->conn.mux, call->ch, stream, len);
}

static int open_file(struct bytes *x, struct sm_vm *vm, uint16_t service, const struct proto_file *f, const char *what,
		     struct sm_error *err)
{
	_cleanup_(buf_done) struct buf b = {0};
	struct sm_vm *of;
	int r = vm_files(vm, &of, err);

	if (r == 0)
		r = vm_connect(vm->client, of->id, &x->conn, err);
	if (r < 0)
		return r;
	x->conn.data = on_bytes;
	x->conn.arg = x;
	r = proto_file_encode(&b, f);
	if (r == 0)
		r = conn_call(&x->conn, service, &b, &x->call);
	r = r < 0 ? error_sys(err, -r, "%s", what) : conn_await_open(&x->conn, &x->call, what, err);
	if (r < 0) {
		conn_done(&x->conn);
		call_done(&x->call);
	}
	return r;
}

/* Until the agent has closed. */
static int close_file(struct bytes *x, const char *what, struct sm_error *err)
{
	int r = 0;

	while (!x->call.closed && !x->too_large && r == 0)
		r = conn_step(&x->conn, NULL, 0, -1);
	if (x->too_large)
		r = error_set(err, SM_ERROR_LIMIT, EFBIG, "%s: larger than 1 GiB: read it in parts", what);
	else if (r < 0 || x->call.code < 0)
		r = call_error(&x->conn, &x->call, what, err);
	else if (x->b.error)
		r = error_sys(err, -x->b.error, "%s", what);
	conn_done(&x->conn);
	call_done(&x->call);
	return r;
}

int sm_vm_read_file(struct sm_vm *vm, const char *path, uint64_t offset, uint64_t max, void **ret, size_t *ret_size,
		    struct sm_error *err)
{
	_free_ char *guest = copy_guest_path(path);
	struct proto_file f = {.path = guest, .offset = offset, .size = max};
	struct bytes x = {0};
	int r = guest ? open_file(&x, vm, PROTO_READ_FILE, &f, path, err) : error_sys(err, ENOMEM, "%s", path);

	if (r == 0)
		r = close_file(&x, path, err);
	if (r == 0 && buf_put_u8(&x.b, 0) < 0)
		r = error_sys(err, ENOMEM, "%s", path);
	if (r < 0) {
		buf_done(&x.b);
		return r;
	}
	*ret_size = x.b.len - 1;
	*ret = x.b.data;
	return 0;
}

static int send_bytes(struct bytes *x, const uint8_t *p, size_t size)
{
	int r = 0;

	while (size && r == 0 && !x->call.closed) {
		size_t room = MIN(mux_credit(x->conn.mux, x->call.ch, 0), MIN(size, (size_t)CHUNK));

		if (!room) {
			r = conn_step(&x->conn, NULL, 0, -1);
			continue;
		}
		r = mux_send(x->conn.mux, x->call.ch, 0, p, room);
		p += room;
		size -= room;
	}
	return r;
}

int sm_vm_write_file(struct sm_vm *vm, const char *path, const void *data, size_t size,
		     const struct sm_write_options *options, struct sm_error *err)
{
	struct sm_write_options o = OPTIONS_GET(struct sm_write_options, options);
	_free_ char *guest = copy_guest_path(path);
	struct proto_file f = {
		.path = guest, .mode = o.mode, .uid = o.uid, .gid = o.gid, .make_dirs = o.make_directories};
	struct bytes x = {0};
	int r = guest ? open_file(&x, vm, PROTO_WRITE_FILE, &f, path, err) : error_sys(err, ENOMEM, "%s", path);

	if (r < 0)
		return r;
	if (send_bytes(&x, data, size) == 0)
		mux_send_eof(x.conn.mux, x.call.ch, 0);
	return close_file(&x, path, err);
}

/* ---------------------------------------------------------------------------------------------- lists */

struct list {
	struct copy_in in;
	struct sm_file_info **v;
	size_t n, cap;
};

void sm_file_list_free(struct sm_file_info **list, size_t count)
{
	for (size_t i = 0; list && i < count; i++)
		free(list[i]);
	free(list);
}

/* One allocation each: the texts stand behind the struct. */
static struct sm_file_info *info_of(const struct copy_entry *e)
{
	static const uint32_t types[] = {
		[COPY_FILE] = S_IFREG, [COPY_DIR] = S_IFDIR,  [COPY_SYMLINK] = S_IFLNK, [COPY_HARDLINK] = S_IFREG,
		[COPY_FIFO] = S_IFIFO, [COPY_CHAR] = S_IFCHR, [COPY_BLOCK] = S_IFBLK,	[COPY_SOCKET] = S_IFSOCK};
	size_t name = strlen(e->name) + 1, link = strlen(e->link) + 1;
	struct sm_file_info *f = calloc(1, sizeof(*f) + name + link);
	char *text = (char *)(f + 1);

	if (!f)
		return NULL;
	*f = (struct sm_file_info){.name = text,
				   .link = text + name,
				   .mode = types[e->kind] | e->mode,
				   .uid = e->uid,
				   .gid = e->gid,
				   .size = e->size};
	if (__builtin_mul_overflow(e->mtime, 1000000000, &f->mtime_ns) ||
	    __builtin_add_overflow(f->mtime_ns, e->mtime_ns, &f->mtime_ns))
		f->mtime_ns = 0;
	memcpy(text, e->name, name);
	memcpy(text + name, e->link, link);
	return f;
}

static int list_entry(void *arg, const struct copy_entry *e, unsigned depth, struct sm_error *err)
{
	struct list *l = arg;

	if (l->n >= MAX_LIST)
		return error_set(err, SM_ERROR_LIMIT, E2BIG, "more than a million names in one directory");
	if (l->n == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 64;
		struct sm_file_info **v = realloc(l->v, cap * sizeof(*v));

		if (!v)
			return error_sys(err, ENOMEM, "list");
		l->v = v;
		l->cap = cap;
	}
	l->v[l->n] = info_of(e);
	return l->v[l->n++] ? 0 : error_sys(err, ENOMEM, "list");
}

static int list_data(void *arg, uint64_t offset, const void *p, size_t len, struct sm_error *err)
{
	return 0;
}

static int list_end(void *arg, struct sm_error *err)
{
	return 0;
}

static const struct copy_sink list_sink = {list_entry, list_data, list_end, list_end};

static int feed_list(void *arg, const void *p, size_t len, struct sm_error *err)
{
	return copy_in_feed(&((struct list *)arg)->in, p, len, err);
}

static bool list_ended(void *arg)
{
	return ((struct list *)arg)->in.ended;
}

/* Runs one request whose answer is a list, maybe an empty one. */
static int ask(struct sm_vm *vm, struct proto_copy *x, const char *path, struct list *l, struct sm_error *err)
{
	struct copy_run run = {.cancel_fd = -1, .feed = feed_list, .ended = list_ended, .arg = l};
	_free_ char *guest = copy_guest_path(path);
	int r;

	copy_in_init(&l->in, &list_sink, l);
	if (!guest)
		return error_sys(err, ENOMEM, "%s", path);
	x->path = guest;
	r = copy_run_open(&run, vm, x, err);
	if (r == 0)
		r = copy_run_finish(&run, err);
	copy_run_done(&run);
	copy_in_done(&l->in);
	x->path = NULL;
	return r;
}

int sm_vm_stat(struct sm_vm *vm, const char *path, bool follow, struct sm_file_info **ret, struct sm_error *err)
{
	struct proto_copy x = {.op = PROTO_COPY_LIST, .depth = 1, .follow = follow};
	struct list l = {0};
	int r = ask(vm, &x, path, &l, err);

	if (r == 0 && l.n != 1)
		r = error_set(err, SM_ERROR_GUEST, EPROTO, "%s: an answer that makes no sense", path);
	if (r == 0)
		*ret = TAKE_PTR(l.v[0]);
	sm_file_list_free(l.v, l.n);
	return r;
}

struct sm_file_info *sm_file_info_free(struct sm_file_info *info)
{
	free(info);
	return NULL;
}

int sm_vm_list_files(struct sm_vm *vm, const char *path, struct sm_file_info ***ret, size_t *ret_count,
		     struct sm_error *err)
{
	struct proto_copy x = {.op = PROTO_COPY_LIST, .depth = 2, .follow = true};
	struct list l = {0};
	int r = ask(vm, &x, path, &l, err);

	if (r == 0 && (l.n == 0 || !S_ISDIR(l.v[0]->mode)))
		r = error_set(err, SM_ERROR_INVALID, ENOTDIR, "%s: not a directory", path);
	if (r < 0) {
		sm_file_list_free(l.v, l.n);
		return r;
	}
	/* The directory itself comes first, and is not in it. */
	free(l.v[0]);
	memmove(l.v, l.v + 1, (l.n - 1) * sizeof(*l.v));
	*ret = l.v;
	*ret_count = l.n - 1;
	return 0;
}

int sm_vm_remove_file(struct sm_vm *vm, const char *path, bool recursive, struct sm_error *err)
{
	struct proto_copy x = {.op = PROTO_COPY_REMOVE, .recursive = recursive};
	struct list l = {0};
	int r = ask(vm, &x, path, &l, err);

	sm_file_list_free(l.v, l.n);
	return r;
}
