/* SPDX-License-Identifier: Apache-2.0 */
/* The layer index's writer and reader. See index.h. */
#include "image/index.h"

#include <errno.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cursor.h"
#include "base/fileio.h"
#include "base/util.h"
#include "image/path.h"

#define MAGIC "smlayer"
#define DIGEST_SIZE SHA256_DIGEST_SIZE
#define RECORD_HEAD 56
#define FLUSH_SIZE (1U << 20)
/* A record holds a path, a link, attributes within a pax header's bounds, and runs of a sparse file's extents. */
#define MAX_RECORD (32U << 20)

struct index_writer {
	int fd;
	struct buf out;
	struct index_totals totals;
	off_t pos;
	struct sha256_ctx hash;
};

struct index_reader {
	int fd;
	uint8_t *in;
	size_t cap, pos, len;
	uint64_t unread; /* bytes of records still in the file */
	uint64_t seen;
	struct index_totals totals;
	uint8_t header[INDEX_HEADER_SIZE];
	struct sha256_ctx hash;
	struct index_record record;
	struct index_run *runs;
	struct tar_xattr *xattrs;
	size_t cap_runs, cap_xattrs;
};

int index_create(int fd, struct index_writer **ret)
{
	struct index_writer *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	w->fd = fd;
	w->pos = INDEX_HEADER_SIZE;
	sha256_init(&w->hash);
	*ret = w;
	return 0;
}

struct index_writer *index_writer_free(struct index_writer *w)
{
	if (w) {
		buf_done(&w->out);
		free(w);
	}
	return NULL;
}

static int flush(struct index_writer *w, struct sm_error *err)
{
	int r = w->out.error;

	if (r == 0) {
		sha256_update(&w->hash, w->out.len, w->out.data);
		r = pwrite_full(w->fd, w->out.data, w->out.len, w->pos);
	}
	if (r < 0)
		return error_sys(err, -r, "write the layer index");
	w->pos += (off_t)w->out.len;
	w->out.len = 0;
	return 0;
}

int index_add(struct index_writer *w, const struct index_record *record, struct sm_error *err)
{
	size_t start = w->out.len, length;

	buf_put_u32(&w->out, 0);
	buf_put_u8(&w->out, (uint8_t)record->type);
	buf_put_u8(&w->out, record->chunk_bits);
	buf_put_u16(&w->out, record->mode);
	buf_put_u32(&w->out, record->uid);
	buf_put_u32(&w->out, record->gid);
	buf_put_u32(&w->out, record->mtime_nsec);
	buf_put_u64(&w->out, (uint64_t)record->mtime);
	buf_put_u64(&w->out, record->size);
	buf_put_u64(&w->out, record->place);
	buf_put_u32(&w->out, record->num_runs);
	buf_put_u32(&w->out, (uint32_t)record->path.len);
	buf_put_u32(&w->out, (uint32_t)record->link.len);
	buf_put_u32(&w->out, record->num_xattrs);
	for (uint32_t i = 0; i < record->num_runs; i++) {
		buf_put_u64(&w->out, record->runs[i].first);
		buf_put_u64(&w->out, record->runs[i].count);
	}
	buf_put(&w->out, record->path.p, record->path.len);
	buf_put(&w->out, record->link.p, record->link.len);
	for (uint32_t i = 0; i < record->num_xattrs; i++) {
		const struct tar_xattr *x = &record->xattrs[i];

		buf_put_u16(&w->out, (uint16_t)x->name.len);
		buf_put_u32(&w->out, (uint32_t)x->value.len);
		buf_put(&w->out, x->name.p, x->name.len);
		buf_put(&w->out, x->value.p, x->value.len);
	}
	if (w->out.error)
		return error_sys(err, -w->out.error, "layer index");
	length = w->out.len - start - 4;
	if (length > MAX_RECORD)
		return error_set(err, SM_ERROR_LIMIT, E2BIG, "an entry of more than %u bytes", MAX_RECORD);
	for (unsigned i = 0; i < 4; i++)
		w->out.data[start + i] = (uint8_t)(length >> (8 * i));
	w->totals.records++;
	w->totals.bytes += length + 4;
	return w->out.len >= FLUSH_SIZE ? flush(w, err) : 0;
}

int index_finish(struct index_writer *w, uint64_t blob_size, uint64_t stripped, struct sm_error *err)
{
	uint8_t digest[DIGEST_SIZE];
	struct buf header = {0};
	int r = flush(w, err);

	if (r < 0)
		return r;
	buf_put(&header, MAGIC, 8);
	buf_put_u32(&header, INDEX_VERSION);
	buf_put_u32(&header, 0);
	buf_put_u64(&header, w->totals.records);
	buf_put_u64(&header, w->totals.bytes);
	buf_put_u64(&header, blob_size);
	buf_put_u64(&header, stripped);
	r = header.error;
	if (r == 0) {
		sha256_update(&w->hash, header.len, header.data);
		sha256_digest(&w->hash, sizeof(digest), digest);
		r = buf_put(&header, digest, sizeof(digest));
	}
	if (r == 0)
		r = pwrite_full(w->fd, header.data, header.len, 0);
	buf_done(&header);
	return r < 0 ? error_sys(err, -r, "write the layer index") : 0;
}

static int damaged(struct sm_error *err, const char *what)
{
	return error_set(err, SM_ERROR_CORRUPT, EUCLEAN, "damaged layer index: %s", what);
}

static int read_header(struct index_reader *r, struct sm_error *err)
{
	ssize_t n = pread_full(r->fd, r->header, sizeof(r->header), 0);
	struct cursor c = cursor_of(r->header, sizeof(r->header));
	const void *magic = cursor_take(&c, 8);
	uint32_t version = cursor_u32(&c);

	if (n < 0)
		return error_sys(err, (int)-n, "read the layer index");
	if ((size_t)n < sizeof(r->header) || memcmp(magic, MAGIC, 8) != 0)
		return damaged(err, "no header");
	if (version != INDEX_VERSION || cursor_u32(&c) != 0)
		return error_set(err, SM_ERROR_UNSUPPORTED, EUCLEAN, "layer index of version %u (this is %d)", version,
				 INDEX_VERSION);
	r->totals.records = cursor_u64(&c);
	r->totals.bytes = cursor_u64(&c);
	r->totals.blob_size = cursor_u64(&c);
	r->totals.stripped = cursor_u64(&c);
	r->unread = r->totals.bytes;
	if (r->totals.blob_size % BLOCK_SIZE || r->totals.blob_size > INT64_MAX || r->totals.bytes > INT64_MAX / 2)
		return damaged(err, "sizes");
	return 0;
}

int index_open(int fd, struct index_reader **ret, struct sm_error *err)
{
	struct index_reader *r = calloc(1, sizeof(*r));
	int rc = -ENOMEM;

	if (!r)
		return error_sys(err, ENOMEM, "layer index");
	r->fd = fd;
	r->cap = FLUSH_SIZE;
	r->in = malloc(r->cap);
	sha256_init(&r->hash);
	rc = r->in ? read_header(r, err) : error_sys(err, ENOMEM, "layer index");
	if (rc < 0) {
		index_close(r);
		return rc;
	}
	*ret = r;
	return 0;
}

struct index_reader *index_close(struct index_reader *r)
{
	if (r) {
		free(r->in);
		free(r->runs);
		free(r->xattrs);
		free(r);
	}
	return NULL;
}

const struct index_totals *index_totals(const struct index_reader *r)
{
	return &r->totals;
}

/* Makes at least `need` bytes available at r->pos. */
static int fill(struct index_reader *r, size_t need, struct sm_error *err)
{
	if (r->len - r->pos >= need)
		return 0;
	memmove(r->in, r->in + r->pos, r->len - r->pos);
	r->len -= r->pos;
	r->pos = 0;
	if (need > r->cap) {
		uint8_t *p = realloc(r->in, need);

		if (!p)
			return error_sys(err, ENOMEM, "layer index");
		r->in = p;
		r->cap = need;
	}
	while (r->len < need) {
		size_t want = MIN(r->unread, r->cap - r->len);
		off_t at = (off_t)(INDEX_HEADER_SIZE + r->totals.bytes - r->unread);
		ssize_t n = want ? pread_full(r->fd, r->in + r->len, want, at) : 0;

		if (n < 0)
			return error_sys(err, (int)-n, "read the layer index");
		if (n == 0)
			return damaged(err, "cut off");
		sha256_update(&r->hash, (size_t)n, r->in + r->len);
		r->len += (size_t)n;
		r->unread -= (uint64_t)n;
	}
	return 0;
}

static int grow(void **v, size_t *cap, size_t need, size_t item)
{
	void *p;

	if (need <= *cap)
		return 0;
	p = realloc(*v, need * item);
	if (!p)
		return -ENOMEM;
	*v = p;
	*cap = need;
	return 0;
}

static int parse_runs(struct index_reader *r, struct cursor *c, uint32_t n)
{
	if (n > c->left / 16 || grow((void **)&r->runs, &r->cap_runs, n, sizeof(*r->runs)) < 0)
		return -EBADMSG;
	for (uint32_t i = 0; i < n; i++) {
		r->runs[i].first = cursor_u64(c);
		r->runs[i].count = cursor_u64(c);
	}
	r->record.runs = r->runs;
	r->record.num_runs = n;
	return 0;
}

static int parse_xattrs(struct index_reader *r, struct cursor *c, uint32_t n)
{
	if (n > INDEX_MAX_XATTRS || grow((void **)&r->xattrs, &r->cap_xattrs, n, sizeof(*r->xattrs)) < 0)
		return -EBADMSG;
	for (uint32_t i = 0; i < n; i++) {
		struct tar_xattr *x = &r->xattrs[i];

		x->name.len = cursor_u16(c);
		x->value.len = cursor_u32(c);
		x->name.p = cursor_take(c, x->name.len);
		x->value.p = cursor_take(c, x->value.len);
	}
	r->record.xattrs = r->xattrs;
	r->record.num_xattrs = n;
	return 0;
}

/* A regular file's data lies inside the blob, and its runs inside the file. */
static bool data_ok(const struct index_reader *r)
{
	const struct index_record *e = &r->record;
	uint64_t chunks, next = 0, total = 0;

	if (e->place % BLOCK_SIZE)
		return false;
	if (!e->chunk_bits)
		return !e->num_runs && e->size <= INT64_MAX && range_inside(e->place, e->size, r->totals.blob_size);
	if (e->chunk_bits < BLOCK_BITS || e->chunk_bits > BLOCK_BITS + 31 || !e->size || e->size > INT64_MAX)
		return false;
	chunks = ((e->size - 1) >> e->chunk_bits) + 1;
	for (uint32_t i = 0; i < e->num_runs; i++) {
		const struct index_run *run = &e->runs[i];

		if (!run->count || run->first < next || !range_inside(run->first, run->count, chunks))
			return false;
		next = run->first + run->count;
		total += run->count;
	}
	return total <= r->totals.blob_size >> e->chunk_bits &&
	       range_inside(e->place, total << e->chunk_bits, r->totals.blob_size);
}

static bool record_ok(const struct index_reader *r)
{
	const struct index_record *e = &r->record;

	if (e->type >= RECORD_TYPES || e->mode > 07777 || e->mtime_nsec >= 1000000000)
		return false;
	if (!path_is_normal(e->path.p, e->path.len, INDEX_MAX_DEPTH))
		return false;
	if (e->type == RECORD_HARDLINK && !path_is_normal(e->link.p, e->link.len, INDEX_MAX_DEPTH))
		return false;
	if (e->type == RECORD_SYMLINK &&
	    (!e->link.len || e->link.len >= BLOCK_SIZE || memchr(e->link.p, 0, e->link.len)))
		return false;
	for (uint32_t i = 0; i < e->num_xattrs; i++)
		if (e->xattrs[i].value.len > UINT16_MAX)
			return false;
	return e->type != RECORD_FILE || data_ok(r);
}

static int parse(struct index_reader *r, struct cursor c)
{
	struct index_record *e = &r->record;
	uint32_t runs, path, link, xattrs;

	*e = (struct index_record){0};
	e->type = cursor_u8(&c);
	e->chunk_bits = cursor_u8(&c);
	e->mode = cursor_u16(&c);
	e->uid = cursor_u32(&c);
	e->gid = cursor_u32(&c);
	e->mtime_nsec = cursor_u32(&c);
	e->mtime = (int64_t)cursor_u64(&c);
	e->size = cursor_u64(&c);
	e->place = cursor_u64(&c);
	runs = cursor_u32(&c);
	path = cursor_u32(&c);
	link = cursor_u32(&c);
	xattrs = cursor_u32(&c);
	if (c.bad || parse_runs(r, &c, runs) < 0)
		return -EBADMSG;
	e->path = (struct tar_bytes){cursor_take(&c, path), path};
	e->link = (struct tar_bytes){cursor_take(&c, link), link};
	if (c.bad || parse_xattrs(r, &c, xattrs) < 0)
		return -EBADMSG;
	return c.bad || c.left || !record_ok(r) ? -EBADMSG : 0;
}

/* After the last record: the count and the checksum must be right. */
static int check_end(struct index_reader *r, struct sm_error *err)
{
	uint8_t digest[DIGEST_SIZE];

	if (r->unread || r->pos != r->len)
		return damaged(err, "more records than it counts");
	sha256_update(&r->hash, INDEX_HEADER_SIZE - DIGEST_SIZE, r->header);
	sha256_digest(&r->hash, DIGEST_SIZE, digest);
	if (memcmp(digest, r->header + INDEX_HEADER_SIZE - DIGEST_SIZE, DIGEST_SIZE) != 0)
		return damaged(err, "wrong checksum");
	return 0;
}

int index_next(struct index_reader *r, const struct index_record **ret, struct sm_error *err)
{
	struct cursor c;
	uint32_t length;
	int rc;

	if (r->seen == r->totals.records)
		return check_end(r, err);
	rc = fill(r, 4, err);
	if (rc < 0)
		return rc;
	c = cursor_of(r->in + r->pos, 4);
	length = cursor_u32(&c);
	if (length < RECORD_HEAD || length > MAX_RECORD)
		return damaged(err, "record length");
	rc = fill(r, 4 + (size_t)length, err);
	if (rc < 0)
		return rc;
	c = cursor_of(r->in + r->pos + 4, length);
	rc = parse(r, c);
	if (rc < 0)
		return damaged(err, "bad record");
	r->pos += 4 + (size_t)length;
	r->seen++;
	*ret = &r->record;
	return 1;
}
