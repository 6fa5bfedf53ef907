/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The streaming tar reader. See tar.h.
 *
 * One read-ahead buffer. Headers are copied out of it; file data is handed out in place. `left` is what remains of the
 * current entry's stored bytes and `pad` what follows it up to the next block; both are skipped before the next header.
 */
#include "image/tar.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/util.h"
#include "image/tarhdr.h"

#define READ_AHEAD (1U << 20)

/* Offsets in a header block. */
enum {
	H_NAME = 0,
	H_MODE = 100,
	H_UID = 108,
	H_GID = 116,
	H_SIZE = 124,
	H_MTIME = 136,
	H_TYPE = 156,
	H_LINK = 157,
	H_MAGIC = 257,
	H_MAJOR = 329,
	H_MINOR = 337,
	H_PREFIX = 345,
	H_GNU_SPARSE = 386,
	H_GNU_EXTENDED = 482,
	H_GNU_REALSIZE = 483,
	H_STAR_TRAILER = 508,
};

struct tar {
	struct tar_input input;
	uint8_t *in; /* READ_AHEAD bytes: [pos, len) is not consumed yet */
	size_t pos, len;
	bool eof;
	uint64_t consumed;
	uint64_t allowed; /* bytes that the input may still have */
	uint64_t left;
	unsigned pad;
	uint8_t block[TAR_BLOCK_SIZE];			  /* the header being read */
	struct buf pax_bytes, long_name, long_link, name; /* name: prefix + "/" + name */
	struct pax pax;
	bool has_long_name, has_long_link;
	struct tar_map map;
	struct tar_entry entry;
};

int tar_open(const struct tar_input *input, uint64_t max_bytes, struct tar **ret)
{
	struct tar *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	t->in = malloc(READ_AHEAD);
	if (!t->in) {
		free(t);
		return -ENOMEM;
	}
	t->input = *input;
	t->allowed = max_bytes;
	*ret = t;
	return 0;
}

struct tar *tar_close(struct tar *t)
{
	if (t) {
		pax_done(&t->pax);
		tar_map_done(&t->map);
		buf_done(&t->pax_bytes);
		buf_done(&t->long_name);
		buf_done(&t->long_link);
		buf_done(&t->name);
		free(t->in);
		free(t);
	}
	return NULL;
}

uint64_t tar_position(const struct tar *t)
{
	return t->consumed;
}

/* Reads once more into the buffer, which must have been consumed wholly. Returns the bytes there are, 0 at the end. */
static ssize_t refill(struct tar *t, struct sm_error *err)
{
	ssize_t n;

	if (t->eof)
		return 0;
	n = t->input.read(t->input.arg, t->in, READ_AHEAD, err);
	if (n < 0)
		return n;
	if ((uint64_t)n > t->allowed)
		return error_set(err, SM_ERROR_LIMIT, EFBIG, "the archive is longer than its limit");
	t->allowed -= (uint64_t)n;
	t->pos = 0;
	t->len = (size_t)n;
	t->eof = n == 0;
	return n;
}

/* Consumes up to max bytes in place. */
static ssize_t take(struct tar *t, uint64_t max, const uint8_t **ret, struct sm_error *err)
{
	size_t n;

	if (t->pos == t->len) {
		ssize_t r = refill(t, err);

		if (r <= 0)
			return r;
	}
	n = MIN(max, t->len - t->pos);
	*ret = t->in + t->pos;
	t->pos += n;
	t->consumed += n;
	return (ssize_t)n;
}

/* Copies exactly len bytes; at a clean end of input returns 0 if none was there. */
static ssize_t copy(struct tar *t, uint8_t *p, size_t len, struct sm_error *err)
{
	size_t done = 0;

	while (done < len) {
		const uint8_t *from;
		ssize_t n = take(t, len - done, &from, err);

		if (n < 0)
			return n;
		if (n == 0)
			return done ? tar_bad(err, "the archive is cut off in a header") : 0;
		memcpy(p + done, from, (size_t)n);
		done += (size_t)n;
	}
	return (ssize_t)len;
}

ssize_t tar_data(struct tar *t, const uint8_t **ret, struct sm_error *err)
{
	ssize_t n;

	if (!t->left)
		return 0;
	n = take(t, t->left, ret, err);
	if (n == 0)
		return tar_bad(err, "the archive is cut off, %llu bytes of the file are missing",
			       (unsigned long long)t->left);
	if (n > 0)
		t->left -= (uint64_t)n;
	return n;
}

static int skip_rest(struct tar *t, struct sm_error *err)
{
	const uint8_t *p;
	ssize_t n;

	do
		n = tar_data(t, &p, err);
	while (n > 0);
	while (n == 0 && t->pad) {
		n = take(t, t->pad, &p, err);
		if (n == 0) { /* some writers leave out the very last padding */
			t->pad = 0;
			return 0;
		}
		if (n > 0) {
			t->pad -= (unsigned)n;
			n = 0;
		}
	}
	return n < 0 ? (int)n : 0;
}

int tar_drain(struct tar *t, struct sm_error *err)
{
	const uint8_t *p;
	ssize_t n;

	do
		n = take(t, UINT64_MAX, &p, err);
	while (n > 0);
	return (int)n;
}

static void set_stored(struct tar *t, uint64_t size)
{
	t->left = size;
	t->pad = (unsigned)(-size & (TAR_BLOCK_SIZE - 1));
}

static int field(const struct tar *t, size_t off, size_t len, const char *what, int64_t *ret, struct sm_error *err)
{
	if (tar_number(t->block + off, len, ret) < 0)
		return tar_bad(err, "bad %s in a header", what);
	return 0;
}

/* As `field`, for what cannot be negative. */
static int field_u(const struct tar *t, size_t off, size_t len, const char *what, uint64_t *ret, struct sm_error *err)
{
	int64_t v;
	int r = field(t, off, len, what, &v, err);

	if (r < 0)
		return r;
	if (v < 0)
		return tar_bad(err, "negative %s in a header", what);
	*ret = (uint64_t)v;
	return 0;
}

/* Reads the body of an extended header (x, L, K) into b. */
static int read_body(struct tar *t, struct buf *b, struct sm_error *err)
{
	uint64_t size;
	int r = field_u(t, H_SIZE, 12, "size", &size, err);

	if (r < 0)
		return r;
	if (size > TAR_MAX_HEADER)
		return error_set(err, SM_ERROR_LIMIT, E2BIG, "an extended header of %llu bytes (limit %u)",
				 (unsigned long long)size, TAR_MAX_HEADER);
	b->len = 0;
	set_stored(t, size);
	if (buf_reserve(b, size + 1) < 0)
		return error_sys(err, ENOMEM, "extended header");
	while (t->left) {
		const uint8_t *p;
		ssize_t n = tar_data(t, &p, err);

		if (n < 0)
			return (int)n;
		buf_put(b, p, (size_t)n);
	}
	return skip_rest(t, err);
}

/* The next header block: 1, 0 at the end marker or the end of input. */
static int next_block(struct tar *t, struct sm_error *err)
{
	static const uint8_t zero[TAR_BLOCK_SIZE];
	ssize_t n = copy(t, t->block, TAR_BLOCK_SIZE, err);

	if (n <= 0)
		return (int)n;
	if (memcmp(t->block, zero, TAR_BLOCK_SIZE) == 0) {
		n = copy(t, t->block, TAR_BLOCK_SIZE, err);
		if (n <= 0)
			return (int)n;
		if (memcmp(t->block, zero, TAR_BLOCK_SIZE) == 0)
			return 0;
		return tar_bad(err, "a lone zero block amid the archive");
	}
	if (!tar_checksum_ok(t->block))
		return tar_bad(err, "not a tar header (wrong checksum) at byte %llu",
			       (unsigned long long)(t->consumed - TAR_BLOCK_SIZE));
	return 1;
}

static int read_pax(struct tar *t, struct sm_error *err)
{
	int r = read_body(t, &t->pax_bytes, err);

	pax_done(&t->pax); /* only the last one before an entry counts */
	if (r < 0)
		return r;
	return pax_parse(&t->pax, t->pax_bytes.data, t->pax_bytes.len, err);
}

/* Reads extended headers up to the entry's own: 1, 0 at the end. */
static int read_headers(struct tar *t, struct sm_error *err)
{
	struct buf global = {0};
	int r;

	pax_done(&t->pax);
	t->has_long_name = t->has_long_link = false;
	for (;;) {
		r = next_block(t, err);
		if (r <= 0)
			return r;
		switch (t->block[H_TYPE]) {
		case 'x':
			r = read_pax(t, err);
			break;
		case 'g': /* defaults for what follows: as container engines do, not applied */
			r = read_body(t, &global, err);
			buf_done(&global);
			break;
		case 'L':
			r = read_body(t, &t->long_name, err);
			t->has_long_name = true;
			break;
		case 'K':
			r = read_body(t, &t->long_link, err);
			t->has_long_link = true;
			break;
		default:
			return 1;
		}
		if (r < 0)
			return r;
	}
}

static struct tar_bytes long_string(const struct buf *b)
{
	return tar_string(b->data, b->len);
}

/* The entry's names, by precedence: pax, GNU long names, the header (with ustar's prefix). */
static int set_names(struct tar *t, struct sm_error *err)
{
	bool ustar = memcmp(t->block + H_MAGIC, "ustar", 6) == 0;
	bool star = ustar && memcmp(t->block + H_STAR_TRAILER, "tar", 4) == 0;
	struct tar_bytes prefix = {0};

	t->entry.path = tar_string(t->block + H_NAME, 100);
	t->entry.link = tar_string(t->block + H_LINK, 100);
	if (ustar)
		prefix = tar_string(t->block + H_PREFIX, star ? 131 : 155);
	if (prefix.len) {
		t->name.len = 0;
		buf_put(&t->name, prefix.p, prefix.len);
		buf_put_u8(&t->name, '/');
		buf_put(&t->name, t->entry.path.p, t->entry.path.len);
		if (t->name.error)
			return error_sys(err, ENOMEM, "name");
		t->entry.path = (struct tar_bytes){t->name.data, t->name.len};
	}
	if (t->has_long_name)
		t->entry.path = long_string(&t->long_name);
	if (t->has_long_link)
		t->entry.link = long_string(&t->long_link);
	if (t->pax.has_path)
		t->entry.path = t->pax.path;
	if (t->pax.has_link)
		t->entry.link = t->pax.link;
	if (t->pax.sparse && t->pax.has_sparse_name)
		t->entry.path = t->pax.sparse_name;
	return 0;
}

static int set_type(struct tar *t, struct sm_error *err)
{
	static const enum tar_type types[] = {TAR_FILE,	 TAR_HARDLINK, TAR_SYMLINK, TAR_CHAR,
					      TAR_BLOCK, TAR_DIR,      TAR_FIFO,    TAR_FILE};
	uint8_t flag = t->block[H_TYPE];
	struct tar_bytes path = t->entry.path;

	if (flag >= '0' && flag <= '7')
		t->entry.type = types[flag - '0'];
	else if (flag == 'S')
		t->entry.type = TAR_FILE;
	else if (flag == 0) /* V7 has no type for directories but the slash */
		t->entry.type = path.len && path.p[path.len - 1] == '/' ? TAR_DIR : TAR_FILE;
	else
		return error_set(err, SM_ERROR_UNSUPPORTED, EOPNOTSUPP, "entry of an unknown type 0x%02x", flag);
	return 0;
}

static int set_ids(struct tar *t, struct sm_error *err)
{
	uint64_t uid = t->pax.uid, gid = t->pax.gid;
	int r = 0;

	if (!t->pax.has_uid)
		r = field_u(t, H_UID, 8, "uid", &uid, err);
	if (r == 0 && !t->pax.has_gid)
		r = field_u(t, H_GID, 8, "gid", &gid, err);
	if (r < 0)
		return r;
	if (uid > UINT32_MAX || gid > UINT32_MAX)
		return tar_bad(err, "uid %llu or gid %llu does not fit 32 bits", (unsigned long long)uid,
			       (unsigned long long)gid);
	t->entry.uid = (uint32_t)uid;
	t->entry.gid = (uint32_t)gid;
	return 0;
}

static int set_numbers(struct tar *t, struct sm_error *err)
{
	bool device = t->entry.type == TAR_CHAR || t->entry.type == TAR_BLOCK;
	uint64_t mode = 0, size = t->pax.size;
	int r = set_ids(t, err);

	if (r == 0)
		r = field_u(t, H_MODE, 8, "mode", &mode, err);
	if (r == 0 && !t->pax.has_mtime)
		r = field(t, H_MTIME, 12, "mtime", &t->entry.mtime, err);
	if (r == 0 && !t->pax.has_size)
		r = field_u(t, H_SIZE, 12, "size", &size, err);
	if (r == 0 && device)
		r = field_u(t, H_MAJOR, 8, "device number", &t->entry.major, err);
	if (r == 0 && device)
		r = field_u(t, H_MINOR, 8, "device number", &t->entry.minor, err);
	if (r < 0)
		return r;
	t->entry.mode = (uint32_t)mode & 07777;
	if (t->pax.has_mtime) {
		t->entry.mtime = t->pax.mtime;
		t->entry.mtime_nsec = t->pax.mtime_nsec;
	}
	/* Links, directories and devices have no data, whatever their size field says. */
	t->entry.size = t->entry.type == TAR_FILE ? size : 0;
	set_stored(t, t->entry.size);
	return 0;
}

/* Old GNU: the map starts in the header and goes on in blocks of its own before the data. */
static int sparse_old(struct tar *t, struct sm_error *err)
{
	uint64_t stored = t->left, size;
	bool more = t->block[H_GNU_EXTENDED] != 0;
	uint8_t block[TAR_BLOCK_SIZE];
	int r = field_u(t, H_GNU_REALSIZE, 12, "real size", &size, err);

	if (r == 0)
		r = tar_map_add_old(&t->map, t->block + H_GNU_SPARSE, 4, err);
	while (r == 0 && more) {
		ssize_t n = copy(t, block, sizeof(block), err);

		if (n <= 0)
			return n < 0 ? (int)n : tar_bad(err, "the archive is cut off in a sparse map");
		r = tar_map_add_old(&t->map, block, 21, err);
		more = block[504] != 0;
	}
	if (r == 0)
		r = tar_map_check(&t->map, size, stored, err);
	t->entry.size = size;
	return r;
}

/* One decimal line of a 1.0 map. */
static int sparse_line(struct tar *t, uint64_t *ret, struct sm_error *err)
{
	uint8_t line[24];
	size_t n = 0;

	for (;;) {
		const uint8_t *p;
		ssize_t r;

		if (!t->left || n == sizeof(line))
			return tar_bad(err, "bad sparse map");
		r = take(t, 1, &p, err);
		if (r <= 0)
			return r < 0 ? (int)r : tar_bad(err, "the archive is cut off in a sparse map");
		t->left--;
		if (*p == '\n')
			break;
		line[n++] = *p;
	}
	return tar_decimal(line, n, ret) < 0 ? tar_bad(err, "bad number in a sparse map") : 0;
}

/* 1.0: the map is text at the start of the data, padded to a block. */
static int sparse_1_0(struct tar *t, struct sm_error *err)
{
	uint64_t stored = t->left, count, offset, len;
	int r = sparse_line(t, &count, err);

	for (uint64_t i = 0; r == 0 && i < count; i++) {
		r = sparse_line(t, &offset, err);
		if (r == 0)
			r = sparse_line(t, &len, err);
		if (r == 0)
			r = tar_map_add(&t->map, offset, len, err);
	}
	if (r < 0)
		return r;
	for (uint64_t rest = -(stored - t->left) & (TAR_BLOCK_SIZE - 1); rest;) {
		const uint8_t *p;
		ssize_t n;

		if (rest > t->left)
			return tar_bad(err, "bad sparse map");
		n = take(t, rest, &p, err);
		if (n <= 0)
			return n < 0 ? (int)n : tar_bad(err, "the archive is cut off in a sparse map");
		rest -= (uint64_t)n;
		t->left -= (uint64_t)n;
	}
	return 0;
}

static int set_sparse(struct tar *t, struct sm_error *err)
{
	int r = 0;

	if (t->entry.type != TAR_FILE)
		return 0;
	if (t->block[H_TYPE] == 'S') {
		r = sparse_old(t, err);
	} else if (t->pax.sparse) {
		if (!t->pax.has_real_size)
			return tar_bad(err, "a sparse file without its size");
		if (t->pax.sparse_major == 1 && t->pax.sparse_minor == 0) {
			r = sparse_1_0(t, err);
		} else if (t->pax.sparse_major == 0 && t->pax.sparse_map) {
			t->map = t->pax.map;
			t->pax.map = (struct tar_map){0};
		} else {
			return error_set(err, SM_ERROR_UNSUPPORTED, EOPNOTSUPP, "sparse format %u.%u",
					 t->pax.sparse_major, t->pax.sparse_minor);
		}
		if (r == 0)
			r = tar_map_check(&t->map, t->pax.real_size, t->left, err);
		t->entry.size = t->pax.real_size;
	} else {
		return 0;
	}
	t->entry.sparse = true;
	t->entry.extents = t->map.v;
	t->entry.num_extents = t->map.count;
	return r;
}

int tar_next(struct tar *t, const struct tar_entry **ret, struct sm_error *err)
{
	int r = skip_rest(t, err);

	t->entry = (struct tar_entry){0};
	tar_map_done(&t->map);
	*ret = &t->entry;
	if (r == 0)
		r = read_headers(t, err);
	if (r <= 0)
		return r;
	r = set_names(t, err);
	if (r == 0)
		r = set_type(t, err);
	if (r == 0)
		r = set_numbers(t, err);
	if (r == 0)
		r = set_sparse(t, err);
	t->entry.xattrs = t->pax.xattrs;
	t->entry.num_xattrs = t->pax.num_xattrs;
	return r < 0 ? r : 1;
}
