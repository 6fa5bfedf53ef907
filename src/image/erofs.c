/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The EROFS writer. See erofs.h.
 *
 * Three walks over the same order of names: sort and count, give every inode its place, write. The last two must agree
 * on every size, so both ask the same functions.
 */
#include "image/erofs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/crc32c.h"
#include "base/fileio.h"
#include "base/util.h"
#include "image/erofs_format.h"

#define FLUSH_SIZE (1U << 20)

enum { PLACED = 1, WRITTEN = 2 };

/* A stretch of the file that is written front to back. */
struct stream {
	int fd;
	uint64_t pos; /* of buf's first byte */
	struct buf buf;
};

struct writer {
	struct tree *t;
	struct erofs_blob *blobs;
	uint32_t num_blobs;
	uint32_t *order; /* nodes by levels; a directory's in order of name */
	uint32_t num_order;
	struct stream inodes, dirs;
	uint64_t inodes_end, dir_blocks, dir_base; /* bytes; blocks; first block */
	uint64_t xattr_base;			   /* block */
	const struct buf *shared_xattrs;
	uint64_t meta_size, window_size, num_inodes;
	bool chunked;
};

static int compare_names(const void *a, const void *b, void *arg)
{
	const struct node *nodes = arg;
	const struct node *x = &nodes[*(const uint32_t *)a], *y = &nodes[*(const uint32_t *)b];
	int c = memcmp(x->name, y->name, MIN(x->name_len, y->name_len));

	return c ? c : (int)x->name_len - (int)y->name_len;
}

/* Puts a directory's children in order of name, in the list and at the end of the walk; counts its links. */
static int sort_children(struct writer *w, uint32_t dir)
{
	struct node *nodes = w->t->nodes;
	uint32_t n = 0, links = 2, *v;

	for (uint32_t c = nodes[dir].child; c; c = nodes[c].next) {
		w->order[w->num_order + n++] = c;
		links += tree_is_dir(w->t, c);
	}
	tree_inode(w->t, dir)->nlink = links;
	v = w->order + w->num_order;
	if (n > 1)
		qsort_r(v, n, sizeof(*v), compare_names, nodes);
	for (uint32_t i = 0; i < n; i++)
		nodes[v[i]].next = i + 1 < n ? v[i + 1] : 0;
	if (n)
		nodes[dir].child = v[0];
	w->num_order += n;
	return 0;
}

static int sort_all(struct writer *w)
{
	w->order = malloc((size_t)w->t->live_nodes * sizeof(*w->order));
	if (!w->order)
		return -ENOMEM;
	w->order[w->num_order++] = TREE_ROOT;
	for (uint32_t i = 0; i < w->num_order; i++) {
		struct inode *inode = tree_inode(w->t, w->order[i]);

		if (S_ISDIR(inode->mode))
			sort_children(w, w->order[i]);
		if (inode->placed != PLACED) {
			inode->placed = PLACED;
			xattr_count_use(w->t->xattrs, inode->xattrs);
		}
	}
	return 0;
}

/* Walks a directory's entries with "." and ".." where they belong in the order. */
struct dir_walk {
	uint32_t child;
	unsigned dots; /* of them given so far */
};

struct dir_entry {
	const char *name;
	uint32_t len, node;
};

static bool dir_next(const struct tree *t, uint32_t dir, struct dir_walk *walk, struct dir_entry *ret)
{
	const struct node *child = walk->child ? &t->nodes[walk->child] : NULL;
	uint32_t len = walk->dots + 1;

	if (walk->dots < 2) {
		int c = child ? memcmp(child->name, "..", MIN(child->name_len, len)) : 1;

		if (c > 0 || (c == 0 && child->name_len > len)) {
			*ret = (struct dir_entry){"..", len, walk->dots ? t->nodes[dir].parent : dir};
			walk->dots++;
			return true;
		}
	}
	if (!child)
		return false;
	*ret = (struct dir_entry){child->name, child->name_len, walk->child};
	walk->child = child->next;
	return true;
}

static uint64_t dir_size(const struct tree *t, uint32_t dir)
{
	struct dir_walk walk = {.child = t->nodes[dir].child};
	struct dir_entry e;
	uint64_t size = 0;
	uint32_t used = 0;

	while (dir_next(t, dir, &walk, &e)) {
		if (used + EROFS_DIRENT_SIZE + e.len > BLOCK_SIZE) {
			size += BLOCK_SIZE;
			used = 0;
		}
		used += EROFS_DIRENT_SIZE + e.len;
	}
	return size + used;
}

/* Bytes before an inode's data or map: itself and its attributes. */
static uint64_t head_size(const struct writer *w, const struct inode *inode)
{
	return EROFS_INODE_SIZE + xattr_inline_size(w->t->xattrs, inode->xattrs);
}

static uint64_t num_chunks(const struct inode *inode)
{
	return ((inode->size - 1) >> inode->chunk_bits) + 1;
}

/* The tail of a directory or link that lies beside the inode: it must be in one block with all of the inode. 0: none
 * does. */
static uint64_t tail_size(const struct writer *w, const struct inode *inode)
{
	uint64_t tail = inode->size % BLOCK_SIZE;

	if (!S_ISDIR(inode->mode) && !S_ISLNK(inode->mode))
		return 0;
	return head_size(w, inode) + tail <= BLOCK_SIZE ? tail : 0;
}

static uint64_t own_blocks(const struct writer *w, const struct inode *inode)
{
	if (!S_ISDIR(inode->mode) && !S_ISLNK(inode->mode))
		return 0;
	return (inode->size - tail_size(w, inode) + BLOCK_SIZE - 1) / BLOCK_SIZE;
}

static uint64_t inode_size(const struct writer *w, const struct inode *inode)
{
	uint64_t map = inode->chunk_bits ? num_chunks(inode) * 4 : 0;

	return head_size(w, inode) + tail_size(w, inode) + map;
}

static void place_inode(struct writer *w, uint32_t node)
{
	struct inode *inode = tree_inode(w->t, node);
	uint64_t size, whole;

	if (inode->nid)
		return;
	if (S_ISDIR(inode->mode))
		inode->size = dir_size(w->t, node);
	size = inode_size(w, inode);
	/* What must not cross a block's end: the inode, and with a tail all of it. */
	whole = tail_size(w, inode) ? size : EROFS_INODE_SIZE;
	if (w->inodes_end % BLOCK_SIZE + whole > BLOCK_SIZE)
		w->inodes_end = align_up(w->inodes_end, BLOCK_SIZE);
	inode->nid = w->inodes_end >> EROFS_SLOT_BITS;
	w->inodes_end = align_up(w->inodes_end + size, 1U << EROFS_SLOT_BITS);
	w->num_inodes++;
	if (own_blocks(w, inode)) {
		inode->place = w->dir_blocks;
		w->dir_blocks += own_blocks(w, inode);
	}
	if (S_ISREG(inode->mode) && inode->size) {
		w->chunked |= inode->chunk_bits != 0;
		if (!inode->chunk_bits || inode->num_runs)
			w->blobs[inode->blob].used = true;
	}
}

static int place_all(struct writer *w, struct sm_error *err)
{
	int r = xattr_layout(w->t->xattrs, &w->shared_xattrs);

	if (r < 0)
		return error_sys(err, -r, "metadata");
	w->inodes_end = BLOCK_SIZE;
	for (uint32_t i = 0; i < w->num_order; i++)
		place_inode(w, w->order[i]);
	w->dir_base = align_up(w->inodes_end, BLOCK_SIZE) / BLOCK_SIZE;
	w->xattr_base = w->dir_base + w->dir_blocks;
	w->meta_size = w->xattr_base * BLOCK_SIZE + align_up(w->shared_xattrs->len, BLOCK_SIZE);
	w->window_size = w->meta_size;
	for (uint32_t i = 0; i < w->num_blobs; i++) {
		struct erofs_blob *b = &w->blobs[i];

		if (!b->used)
			continue;
		b->offset = align_up(w->window_size, HUGE_SIZE);
		w->window_size = b->offset + b->size;
		if (b->size > INT64_MAX / 2 || w->window_size / BLOCK_SIZE >= EROFS_HOLE)
			return error_set(err, SM_ERROR_LIMIT, EFBIG,
					 "the image is larger than the 16 TiB that EROFS addresses");
	}
	return 0;
}

static int stream_flush(struct stream *s)
{
	int r = s->buf.error ? s->buf.error : pwrite_full(s->fd, s->buf.data, s->buf.len, (off_t)s->pos);

	s->pos += s->buf.len;
	s->buf.len = 0;
	return r;
}

/* Fills with zeros up to a place in the file, not before where the stream is. */
static int stream_to(struct stream *s, uint64_t pos)
{
	int r = 0;

	if (s->buf.len >= FLUSH_SIZE)
		r = stream_flush(s);
	if (r == 0)
		r = buf_put_zero(&s->buf, pos - s->pos - s->buf.len);
	return r;
}

static uint8_t file_type(uint16_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return 1;
	case S_IFDIR:
		return 2;
	case S_IFCHR:
		return 3;
	case S_IFBLK:
		return 4;
	case S_IFIFO:
		return 5;
	case S_IFSOCK:
		return 6;
	default:
		return 7;
	}
}

/* One block of a directory, n entries: their heads, then the names. */
static void put_dir_block(const struct tree *t, struct buf *b, const struct dir_entry *v, uint32_t n)
{
	uint32_t offset = n * EROFS_DIRENT_SIZE;

	for (uint32_t i = 0; i < n; i++) {
		const struct inode *inode = tree_inode(t, v[i].node);

		buf_put_u64(b, inode->nid);
		buf_put_u16(b, (uint16_t)offset);
		buf_put_u8(b, file_type(inode->mode));
		buf_put_u8(b, 0);
		offset += v[i].len;
	}
	for (uint32_t i = 0; i < n; i++)
		buf_put(b, v[i].name, v[i].len);
}

/* Whole blocks go to the stream of directories, the tail to the inode's if it belongs there. */
static int write_dir(struct writer *w, uint32_t dir)
{
	struct dir_entry v[BLOCK_SIZE / EROFS_DIRENT_SIZE];
	const struct inode *inode = tree_inode(w->t, dir);
	struct dir_walk walk = {.child = w->t->nodes[dir].child};
	uint64_t blocks = own_blocks(w, inode);
	uint32_t used = 0, n = 0;
	struct dir_entry e;
	bool more;

	do {
		more = dir_next(w->t, dir, &walk, &e);
		if (n && (!more || used + EROFS_DIRENT_SIZE + e.len > BLOCK_SIZE)) {
			int r;

			put_dir_block(w->t, blocks ? &w->dirs.buf : &w->inodes.buf, v, n);
			if (blocks) {
				r = stream_to(&w->dirs, align_up(w->dirs.pos + w->dirs.buf.len, BLOCK_SIZE));
				if (r < 0)
					return r;
				blocks--;
			}
			used = n = 0;
		}
		if (more) {
			v[n++] = e;
			used += EROFS_DIRENT_SIZE + e.len;
		}
	} while (more);
	return w->inodes.buf.error;
}

static int write_link(struct writer *w, const struct inode *inode)
{
	if (tail_size(w, inode))
		return buf_put(&w->inodes.buf, inode->target, inode->size);
	buf_put(&w->dirs.buf, inode->target, inode->size);
	return stream_to(&w->dirs, align_up(w->dirs.pos + w->dirs.buf.len, BLOCK_SIZE));
}

static uint32_t block_of(const struct writer *w, const struct inode *inode)
{
	return (uint32_t)((w->blobs[inode->blob].offset + inode->place) / BLOCK_SIZE);
}

static int write_chunks(struct writer *w, const struct inode *inode)
{
	uint64_t left = num_chunks(inode), at = 0;
	uint32_t block = inode->num_runs ? block_of(w, inode) : 0;
	struct buf *b = &w->inodes.buf;

	for (uint32_t i = 0; i < inode->num_runs; i++) {
		for (; at < inode->runs[i].first; at++)
			buf_put_u32(b, EROFS_HOLE);
		for (uint64_t n = inode->runs[i].count; n; n--, at++) {
			buf_put_u32(b, block);
			block += 1U << (inode->chunk_bits - BLOCK_BITS);
		}
	}
	for (; at < left; at++)
		buf_put_u32(b, EROFS_HOLE);
	return b->error;
}

/* The union i_u: a block, a device, or the size of chunks. */
static uint32_t inode_u(const struct writer *w, const struct inode *inode)
{
	switch (inode->mode & S_IFMT) {
	case S_IFREG:
		if (inode->chunk_bits)
			return inode->chunk_bits - BLOCK_BITS;
		return inode->size ? block_of(w, inode) : EROFS_HOLE;
	case S_IFDIR:
	case S_IFLNK:
		return own_blocks(w, inode) ? (uint32_t)(w->dir_base + inode->place) : EROFS_HOLE;
	case S_IFCHR:
	case S_IFBLK:
		return (uint32_t)inode->place;
	default:
		return 0;
	}
}

static uint16_t inode_format(const struct writer *w, const struct inode *inode)
{
	uint32_t layout = EROFS_FLAT_PLAIN;

	if (inode->chunk_bits)
		layout = EROFS_CHUNK_BASED;
	else if (tail_size(w, inode))
		layout = EROFS_FLAT_INLINE;
	return (uint16_t)(1 | layout << 1);
}

static int put_inode(struct writer *w, uint32_t number)
{
	const struct inode *inode = &w->t->inodes[number];
	size_t xattrs = xattr_inline_size(w->t->xattrs, inode->xattrs);
	struct buf *b = &w->inodes.buf;

	buf_put_u16(b, inode_format(w, inode));
	buf_put_u16(b, (uint16_t)(xattrs ? (xattrs - 12) / 4 + 1 : 0));
	buf_put_u16(b, inode->mode);
	buf_put_u16(b, 0);
	buf_put_u64(b, inode->size);
	buf_put_u32(b, inode_u(w, inode));
	buf_put_u32(b, number);
	buf_put_u32(b, inode->uid);
	buf_put_u32(b, inode->gid);
	buf_put_u64(b, (uint64_t)inode->mtime);
	buf_put_u32(b, inode->mtime_nsec);
	buf_put_u32(b, inode->nlink);
	buf_put_zero(b, 16);
	return xattr_put(w->t->xattrs, inode->xattrs, b);
}

static int write_inode(struct writer *w, uint32_t node)
{
	struct inode *inode = tree_inode(w->t, node);
	int r;

	if (inode->placed == WRITTEN)
		return 0;
	inode->placed = WRITTEN;
	r = stream_to(&w->inodes, inode->nid << EROFS_SLOT_BITS);
	if (r == 0)
		r = put_inode(w, w->t->nodes[node].inode);
	if (r < 0)
		return r;
	if (S_ISDIR(inode->mode))
		return write_dir(w, node);
	if (S_ISLNK(inode->mode))
		return write_link(w, inode);
	return inode->chunk_bits ? write_chunks(w, inode) : 0;
}

static int write_super(struct writer *w, const uint8_t uuid[16])
{
	const uint32_t len = BLOCK_SIZE - EROFS_SUPER_OFFSET;
	struct buf b = {0};
	uint32_t crc;
	int r;

	buf_put_u32(&b, EROFS_MAGIC);
	buf_put_u32(&b, 0);
	buf_put_u32(&b, EROFS_COMPAT_SB_CHKSUM | EROFS_COMPAT_MTIME);
	buf_put_u8(&b, BLOCK_BITS);
	buf_put_u8(&b, 0);
	buf_put_u16(&b, BLOCK_SIZE >> EROFS_SLOT_BITS); /* the root is the first inode */
	buf_put_u64(&b, w->num_inodes);
	buf_put_u64(&b, 0); /* built at: the same layers give the same bytes */
	buf_put_u32(&b, 0);
	buf_put_u32(&b, (uint32_t)(w->window_size / BLOCK_SIZE));
	buf_put_u32(&b, 0); /* inode numbers count from the very start */
	buf_put_u32(&b, (uint32_t)w->xattr_base);
	buf_put(&b, uuid, 16);
	buf_put_zero(&b, 16);
	buf_put_u32(&b, w->chunked ? EROFS_INCOMPAT_CHUNKED_FILE : 0);
	buf_put_zero(&b, len - b.len);
	if (b.error == 0) {
		crc = crc32c(UINT32_MAX, b.data, len);
		for (unsigned i = 0; i < 4; i++)
			b.data[4 + i] = (uint8_t)(crc >> (8 * i));
	}
	r = b.error ? b.error : pwrite_full(w->inodes.fd, b.data, b.len, EROFS_SUPER_OFFSET);
	buf_done(&b);
	return r;
}

static int write_all(struct writer *w, int fd, const uint8_t uuid[16])
{
	struct stream shared = {.fd = fd, .pos = w->xattr_base * BLOCK_SIZE};
	int r = 0;

	w->inodes = (struct stream){.fd = fd, .pos = BLOCK_SIZE};
	w->dirs = (struct stream){.fd = fd, .pos = w->dir_base * BLOCK_SIZE};
	for (uint32_t i = 0; r == 0 && i < w->num_order; i++)
		r = write_inode(w, w->order[i]);
	if (r == 0)
		r = stream_to(&w->inodes, w->dir_base * BLOCK_SIZE);
	if (r == 0)
		r = stream_flush(&w->inodes);
	if (r == 0)
		r = stream_flush(&w->dirs);
	buf_put(&shared.buf, w->shared_xattrs->data, w->shared_xattrs->len);
	if (r == 0)
		r = stream_to(&shared, w->meta_size);
	if (r == 0)
		r = stream_flush(&shared);
	buf_done(&shared.buf);
	return r < 0 ? r : write_super(w, uuid);
}

int erofs_write(struct tree *t, struct erofs_blob *blobs, uint32_t num_blobs, const uint8_t uuid[static 16], int fd,
		struct erofs_result *ret, struct sm_error *err)
{
	struct writer w = {.t = t, .blobs = blobs, .num_blobs = num_blobs};
	int r = sort_all(&w);

	if (r < 0)
		error_sys(err, -r, "metadata");
	if (r == 0)
		r = place_all(&w, err);
	if (r == 0) {
		r = write_all(&w, fd, uuid);
		if (r < 0)
			error_sys(err, -r, "write the metadata");
	}
	if (r == 0)
		*ret = (struct erofs_result){w.meta_size, w.window_size, w.num_inodes};
	free(w.order);
	buf_done(&w.inodes.buf);
	buf_done(&w.dirs.buf);
	return r;
}
