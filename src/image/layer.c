/* SPDX-License-Identifier: Apache-2.0 */
/* The layer converter. See layer.h. */
#include "image/layer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/util.h"
#include "image/blob.h"
#include "image/index.h"
#include "image/path.h"

#define WHITEOUT ".wh."
#define AUFS_META ".wh..wh."
#define OPAQUE ".wh..wh..opq"

/* Sparse files: chunks as small as keeps the map at most this long. */
#define MAX_CHUNKS 65536U
/* EROFS block addresses have 32 bits. */
#define MAX_BLOB ((uint64_t)UINT32_MAX * BLOCK_SIZE)
/* New-style device numbers: 12 and 20 bits. */
#define MAX_MAJOR ((1U << 12) - 1)
#define MAX_MINOR ((1U << 20) - 1)

struct converter {
	struct layer_limits limits;
	struct tar *tar;
	struct blob_writer *blob;
	struct index_writer *index;
	struct buf path, link;
	struct tar_xattr xattrs[INDEX_MAX_XATTRS];
	struct index_run *runs;
	struct layer_stats stats;
};

static bool bytes_start(struct tar_bytes b, const char *s)
{
	size_t n = strlen(s);

	return b.len >= n && memcmp(b.p, s, n) == 0;
}

static bool bytes_equal(struct tar_bytes a, struct tar_bytes b)
{
	return a.len == b.len && memcmp(a.p, b.p, a.len) == 0;
}

/* True for what an EROFS under an overlay can hold and the overlay will not take for its own. */
static bool xattr_kept(struct tar_bytes name)
{
	if (bytes_start(name, "trusted.overlay.") || bytes_start(name, "user.overlay."))
		return false;
	return bytes_start(name, "user.") || bytes_start(name, "trusted.") || bytes_start(name, "security.") ||
	       bytes_equal(name, (struct tar_bytes){(const uint8_t *)"system.posix_acl_access", 23}) ||
	       bytes_equal(name, (struct tar_bytes){(const uint8_t *)"system.posix_acl_default", 24});
}

static int set_xattr(struct converter *c, struct index_record *rec, const struct tar_xattr *x, struct sm_error *err)
{
	char text[PATH_TEXT_MAX];

	if (!xattr_kept(x->name)) {
		c->stats.stripped++;
		return 0;
	}
	if (memchr(x->name.p, 0, x->name.len) || x->name.len > PATH_NAME_MAX || x->value.len > UINT16_MAX)
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG,
				 "extended attribute %s: name or value (%zu bytes) too long", path_text(x->name, text),
				 x->value.len);
	for (uint32_t i = 0; i < rec->num_xattrs; i++) {
		if (bytes_equal(c->xattrs[i].name, x->name)) {
			c->xattrs[i].value = x->value;
			return 0;
		}
	}
	if (rec->num_xattrs == INDEX_MAX_XATTRS)
		return error_set(err, SM_ERROR_LIMIT, E2BIG, "more than %d extended attributes", INDEX_MAX_XATTRS);
	c->xattrs[rec->num_xattrs++] = *x;
	return 0;
}

static int set_xattrs(struct converter *c, struct index_record *rec, const struct tar_entry *e, struct sm_error *err)
{
	rec->xattrs = c->xattrs;
	for (size_t i = 0; i < e->num_xattrs; i++) {
		int r = set_xattr(c, rec, &e->xattrs[i], err);

		if (r < 0)
			return r;
	}
	return 0;
}

/* Copies the entry's next `len` stored bytes into the blob. */
static int copy_data(struct converter *c, const uint8_t **pending, size_t *num_pending, uint64_t offset, uint64_t len,
		     struct sm_error *err)
{
	while (len) {
		size_t n;
		int r;

		if (!*num_pending) {
			ssize_t got = tar_data(c->tar, pending, err);

			if (got <= 0)
				return got < 0 ? (int)got
					       : error_set(err, SM_ERROR_CORRUPT, EBADMSG,
							   "a file shorter than its size");
			*num_pending = (size_t)got;
		}
		n = MIN(*num_pending, len);
		r = blob_write(c->blob, offset, *pending, n);
		if (r < 0)
			return error_sys(err, -r, "write the layer's blob");
		*pending += n;
		*num_pending -= n;
		offset += n;
		len -= n;
	}
	return 0;
}

static int alloc(struct converter *c, uint64_t bytes, uint64_t *ret, struct sm_error *err)
{
	if (blob_alloc(c->blob, bytes, MAX_BLOB, ret) < 0)
		return error_set(err, SM_ERROR_LIMIT, EFBIG,
				 "the layer's files do not fit the 16 TiB that EROFS addresses");
	return 0;
}

static int flat_file(struct converter *c, struct index_record *rec, struct sm_error *err)
{
	const uint8_t *p = NULL;
	size_t n = 0;
	int r;

	if (!rec->size)
		return 0;
	r = alloc(c, rec->size, &rec->place, err);
	if (r < 0)
		return r;
	return copy_data(c, &p, &n, rec->place, rec->size, err);
}

/* The chunks that hold data, as runs; returns how many chunks. */
static uint64_t find_runs(struct converter *c, struct index_record *rec, const struct tar_entry *e)
{
	uint64_t total = 0;

	rec->num_runs = 0;
	for (size_t i = 0; i < e->num_extents; i++) {
		uint64_t first = e->extents[i].offset >> rec->chunk_bits;
		uint64_t last = (e->extents[i].offset + e->extents[i].len - 1) >> rec->chunk_bits;
		struct index_run *run = rec->num_runs ? &c->runs[rec->num_runs - 1] : NULL;

		if (run && first <= run->first + run->count) {
			uint64_t before = run->count;

			run->count = MAX(run->count, last + 1 - run->first);
			total += run->count - before;
			continue;
		}
		c->runs[rec->num_runs++] = (struct index_run){first, last + 1 - first};
		total += last + 1 - first;
	}
	rec->runs = c->runs;
	return total;
}

/* Data of a sparse file goes to its chunks' places, which lie back to back in the blob. */
static int copy_extents(struct converter *c, const struct index_record *rec, const struct tar_entry *e,
			struct sm_error *err)
{
	uint64_t before = 0; /* chunks of the runs before the present one */
	const uint8_t *p = NULL;
	size_t n = 0;
	uint32_t run = 0;

	for (size_t i = 0; i < e->num_extents; i++) {
		uint64_t chunk = e->extents[i].offset >> rec->chunk_bits, at;
		int r;

		while (chunk >= rec->runs[run].first + rec->runs[run].count)
			before += rec->runs[run++].count;
		at = rec->place + ((before - rec->runs[run].first) << rec->chunk_bits) + e->extents[i].offset;
		r = copy_data(c, &p, &n, at, e->extents[i].len, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int sparse_file(struct converter *c, struct index_record *rec, const struct tar_entry *e, struct sm_error *err)
{
	struct index_run *runs;
	uint64_t chunks;
	int r;

	if (!rec->size || (e->num_extents == 1 && e->extents[0].len == rec->size))
		return flat_file(c, rec, err);
	rec->chunk_bits = BLOCK_BITS;
	while (rec->size >> rec->chunk_bits >= MAX_CHUNKS)
		rec->chunk_bits++;
	runs = reallocarray(c->runs, e->num_extents + 1, sizeof(*runs));
	if (!runs)
		return error_sys(err, ENOMEM, "sparse map");
	c->runs = runs;
	chunks = find_runs(c, rec, e);
	if (!chunks)
		return 0;
	if (chunks > MAX_BLOB >> rec->chunk_bits)
		return error_set(err, SM_ERROR_LIMIT, EFBIG, "a sparse file too large");
	r = alloc(c, chunks << rec->chunk_bits, &rec->place, err);
	if (r < 0)
		return r;
	return copy_extents(c, rec, e, err);
}

static int set_device(struct index_record *rec, const struct tar_entry *e, struct sm_error *err)
{
	if (e->major > MAX_MAJOR || e->minor > MAX_MINOR)
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "device number %llu:%llu is past Linux's",
				 (unsigned long long)e->major, (unsigned long long)e->minor);
	if (rec->type == RECORD_CHAR && e->major == 0 && e->minor == 0)
		return error_set(err, SM_ERROR_UNSUPPORTED, EBADMSG,
				 "a 0:0 character device, which the guest's overlay would take for a whiteout");
	rec->place = (e->minor & 0xff) | e->major << 8 | (e->minor & ~(uint64_t)0xff) << 12;
	return 0;
}

static int set_link(struct converter *c, struct index_record *rec, const struct tar_entry *e, struct sm_error *err)
{
	int r;

	if (rec->type == RECORD_SYMLINK) {
		if (!e->link.len || e->link.len >= BLOCK_SIZE || memchr(e->link.p, 0, e->link.len))
			return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "a symbolic link of %zu bytes", e->link.len);
		rec->link = e->link;
		return 0;
	}
	r = path_normalise(e->link, c->limits.max_path, c->limits.max_depth, &c->link, err);
	if (r < 0)
		return error_wrap(err, r, "hard link target");
	if (!c->link.len)
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "a hard link to nothing");
	rec->link = (struct tar_bytes){c->link.data, c->link.len};
	return 0;
}

/* Splits off the last component of the normal path. */
static struct tar_bytes last_component(struct tar_bytes path)
{
	const uint8_t *slash = path.len ? memrchr(path.p, '/', path.len) : NULL;
	size_t head = slash ? (size_t)(slash - path.p) + 1 : 0;

	return head ? (struct tar_bytes){path.p + head, path.len - head} : path;
}

/* Turns a whiteout's name into its meaning: 1 if the entry is to be ignored. */
static int set_whiteout(struct converter *c, struct index_record *rec, struct sm_error *err)
{
	struct tar_bytes last = last_component(rec->path), rest = rec->path;
	size_t head = rec->path.len - last.len;

	rest.len = head;
	for (const uint8_t *p; rest.len; rest.p = p + 1, rest.len = (size_t)(rec->path.p + head - rest.p)) {
		p = memchr(rest.p, '/', rest.len);
		if (bytes_start(rest, AUFS_META))
			return 1;
		if (bytes_start(rest, WHITEOUT))
			return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "an entry inside a whiteout");
	}
	if (!bytes_start(last, WHITEOUT))
		return 0;
	if (bytes_equal(last, (struct tar_bytes){(const uint8_t *)OPAQUE, strlen(OPAQUE)})) {
		*rec = (struct index_record){.type = RECORD_OPAQUE, .path = {rec->path.p, head ? head - 1 : 0}};
		return 0;
	}
	if (bytes_start(last, AUFS_META))
		return 1;
	last = (struct tar_bytes){last.p + strlen(WHITEOUT), last.len - strlen(WHITEOUT)};
	if (!last.len || bytes_equal(last, (struct tar_bytes){(const uint8_t *)"..", 2}) ||
	    bytes_equal(last, (struct tar_bytes){(const uint8_t *)".", 1}))
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "a whiteout of nothing");
	memmove(c->path.data + head, last.p, last.len);
	*rec = (struct index_record){.type = RECORD_WHITEOUT, .path = {c->path.data, head + last.len}};
	return 0;
}

static int convert_body(struct converter *c, struct index_record *rec, const struct tar_entry *e, struct sm_error *err)
{
	int r = set_xattrs(c, rec, e, err);

	if (r < 0)
		return r;
	switch (rec->type) {
	case RECORD_FILE:
		return e->sparse ? sparse_file(c, rec, e, err) : flat_file(c, rec, err);
	case RECORD_HARDLINK:
	case RECORD_SYMLINK:
		return set_link(c, rec, e, err);
	case RECORD_CHAR:
	case RECORD_BLOCK:
		return set_device(rec, e, err);
	default:
		return 0;
	}
}

static int convert_entry(struct converter *c, const struct tar_entry *e, struct sm_error *err)
{
	static const enum record_type types[] = {
		[TAR_FILE] = RECORD_FILE, [TAR_HARDLINK] = RECORD_HARDLINK, [TAR_SYMLINK] = RECORD_SYMLINK,
		[TAR_CHAR] = RECORD_CHAR, [TAR_BLOCK] = RECORD_BLOCK,	    [TAR_DIR] = RECORD_DIR,
		[TAR_FIFO] = RECORD_FIFO,
	};
	struct index_record rec = {.type = types[e->type],
				   .mode = (uint16_t)e->mode,
				   .uid = e->uid,
				   .gid = e->gid,
				   .mtime = e->mtime,
				   .mtime_nsec = e->mtime_nsec,
				   .size = e->size};
	int r;

	if (++c->stats.entries > c->limits.max_entries)
		return error_set(err, SM_ERROR_LIMIT, E2BIG, "more than %llu entries",
				 (unsigned long long)c->limits.max_entries);
	r = path_normalise(e->path, c->limits.max_path, c->limits.max_depth, &c->path, err);
	if (r < 0)
		return r;
	rec.path = (struct tar_bytes){c->path.data, c->path.len};
	r = set_whiteout(c, &rec, err);
	if (r != 0)
		return r < 0 ? r : 0;
	if (!rec.path.len && rec.type != RECORD_DIR && rec.type != RECORD_OPAQUE)
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG,
				 "the root of the image as something other than a directory");
	if (rec.type != RECORD_WHITEOUT && rec.type != RECORD_OPAQUE)
		r = convert_body(c, &rec, e, err);
	return r < 0 ? r : index_add(c->index, &rec, err);
}

static int convert_all(struct converter *c, struct sm_error *err)
{
	const struct tar_entry *e;
	char text[PATH_TEXT_MAX];
	int r;

	while ((r = tar_next(c->tar, &e, err)) == 1) {
		r = convert_entry(c, e, err);
		if (r < 0)
			break;
	}
	if (r < 0)
		return e->path.len ? error_wrap(err, r, "entry %s", path_text(e->path, text)) : r;
	return tar_drain(c->tar, err);
}

static struct converter *converter_free(struct converter *c)
{
	if (c) {
		tar_close(c->tar);
		blob_free(c->blob);
		index_writer_free(c->index);
		buf_done(&c->path);
		buf_done(&c->link);
		free(c->runs);
		free(c);
	}
	return NULL;
}

int layer_convert(const struct tar_input *input, const struct layer_limits *limits, int blob_fd, int index_fd,
		  struct layer_stats *ret, struct sm_error *err)
{
	struct converter *c = calloc(1, sizeof(*c));
	int r;

	if (!c || tar_open(input, limits->max_bytes, &c->tar) < 0 || blob_create(blob_fd, &c->blob) < 0 ||
	    index_create(index_fd, &c->index) < 0) {
		converter_free(c);
		return error_sys(err, ENOMEM, "convert a layer");
	}
	c->limits = *limits;
	r = convert_all(c, err);
	if (r == 0) {
		r = blob_finish(c->blob, &c->stats.blob_size);
		if (r < 0)
			r = error_sys(err, -r, "write the layer's blob");
	}
	if (r == 0)
		r = index_finish(c->index, c->stats.blob_size, c->stats.stripped, err);
	if (r == 0)
		*ret = c->stats;
	converter_free(c);
	return r;
}
