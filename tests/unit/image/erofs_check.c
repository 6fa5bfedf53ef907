/* SPDX-License-Identifier: Apache-2.0 */
/* The tests' EROFS reader. See erofs_check.h. */
#include "erofs_check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/crc32c.h"
#include "base/cursor.h"
#include "base/util.h"
#include "image/erofs_format.h"

#define BLOCK 4096U
#define MAX_PATH 65536
#define MAX_DEPTH 5000

struct check_link {
	uint64_t nid;
	uint32_t want, seen;
};

__attribute__((format(printf, 2, 3))) static int bad(struct check *c, const char *fmt, ...)
{
	va_list ap;

	if (c->error[0])
		return -1;
	va_start(ap, fmt);
	vsnprintf(c->error, sizeof(c->error), fmt, ap);
	va_end(ap);
	return -1;
}

static const uint8_t *at(struct check *c, uint64_t pos, uint64_t len)
{
	return range_inside(pos, len, c->size) ? c->data + pos : NULL;
}

static int read_super(struct check *c, uint64_t *root)
{
	const uint8_t *p = at(c, EROFS_SUPER_OFFSET, BLOCK - EROFS_SUPER_OFFSET);
	uint8_t copy[BLOCK - EROFS_SUPER_OFFSET];
	struct cursor s;
	uint32_t sum, compat, incompat;

	if (!p)
		return bad(c, "no superblock");
	memcpy(copy, p, sizeof(copy));
	memset(copy + 4, 0, 4);
	s = cursor_of(p, EROFS_SUPER_SIZE);
	if (cursor_u32(&s) != EROFS_MAGIC)
		return bad(c, "wrong magic");
	sum = cursor_u32(&s);
	compat = cursor_u32(&s);
	if (!(compat & EROFS_COMPAT_SB_CHKSUM) || sum != crc32c(UINT32_MAX, copy, sizeof(copy)))
		return bad(c, "wrong superblock checksum");
	if (cursor_u8(&s) != 12 || cursor_u8(&s) != 0)
		return bad(c, "block size");
	*root = cursor_u16(&s);
	c->inos = cursor_u64(&s);
	cursor_take(&s, 12);
	if (cursor_u32(&s) != c->size / BLOCK)
		return bad(c, "number of blocks");
	if (cursor_u32(&s) != 0)
		return bad(c, "metadata does not start at 0");
	c->xattr_pos = (uint64_t)cursor_u32(&s) * BLOCK;
	cursor_take(&s, 32);
	incompat = cursor_u32(&s);
	if (incompat & ~EROFS_INCOMPAT_CHUNKED_FILE)
		return bad(c, "feature 0x%x", incompat);
	c->chunked = incompat & EROFS_INCOMPAT_CHUNKED_FILE;
	return s.bad ? bad(c, "superblock") : 0;
}

static int read_inode(struct check *c, uint64_t nid, struct check_inode *ret)
{
	const uint8_t *p = nid <= UINT64_MAX >> 6 ? at(c, nid << EROFS_SLOT_BITS, EROFS_INODE_SIZE) : NULL;
	struct cursor s;
	uint16_t format, icount;

	if (!p || (nid << EROFS_SLOT_BITS) % BLOCK + EROFS_INODE_SIZE > BLOCK)
		return bad(c, "inode %llu out of place", (unsigned long long)nid);
	s = cursor_of(p, EROFS_INODE_SIZE);
	format = cursor_u16(&s);
	icount = cursor_u16(&s);
	ret->mode = cursor_u16(&s);
	cursor_u16(&s);
	ret->size = cursor_u64(&s);
	ret->u = ret->rdev = cursor_u32(&s);
	cursor_u32(&s);
	ret->uid = cursor_u32(&s);
	ret->gid = cursor_u32(&s);
	ret->mtime = (int64_t)cursor_u64(&s);
	ret->mtime_nsec = cursor_u32(&s);
	ret->nlink = cursor_u32(&s);
	ret->nid = nid;
	ret->pos = nid << EROFS_SLOT_BITS;
	ret->layout = format >> 1;
	ret->xattr_size = icount ? 12 + (uint64_t)(icount - 1) * 4 : 0;
	if (!(format & 1) || ret->mtime_nsec > 999999999)
		return bad(c, "inode %llu: format 0x%x", (unsigned long long)nid, format);
	if (!at(c, ret->pos + EROFS_INODE_SIZE, ret->xattr_size))
		return bad(c, "inode %llu: attributes out of the file", (unsigned long long)nid);
	return 0;
}

static uint64_t after_xattrs(const struct check_inode *i)
{
	return i->pos + EROFS_INODE_SIZE + i->xattr_size;
}

static const uint8_t *chunk_at(struct check *c, const struct check_inode *i, uint64_t off, uint64_t len, bool *hole)
{
	unsigned bits = 12 + (i->u & 0x1f);
	const uint8_t *p = at(c, after_xattrs(i) + (off >> bits) * 4, 4);
	struct cursor s;
	uint32_t block;

	if (!p || !c->chunked || i->u > 0x1f)
		return NULL;
	s = cursor_of(p, 4);
	block = cursor_u32(&s);
	*hole = block == EROFS_HOLE;
	return *hole ? p : at(c, (uint64_t)block * BLOCK + (off & ((1ULL << bits) - 1)), len);
}

/* Where up to one block of data lies, len of it; NULL if nowhere. */
static const uint8_t *block_at(struct check *c, const struct check_inode *i, uint64_t off, uint64_t len, bool *hole)
{
	uint64_t tail = i->size - i->size % BLOCK, pos;

	*hole = false;
	switch (i->layout) {
	case EROFS_FLAT_PLAIN:
		return at(c, (uint64_t)i->u * BLOCK + off, len);
	case EROFS_FLAT_INLINE:
		if (off < tail)
			return at(c, (uint64_t)i->u * BLOCK + off, len);
		pos = after_xattrs(i) + off % BLOCK;
		/* Links: the kernel wants all of the inode in the block, and the end of the tail too. */
		if (i->pos / BLOCK != (after_xattrs(i) + i->size % BLOCK - 1) / BLOCK)
			return NULL;
		return at(c, pos, len);
	case EROFS_CHUNK_BASED:
		return chunk_at(c, i, off, len, hole);
	default:
		return NULL;
	}
}

int check_read(struct check *c, const struct check_inode *inode, uint64_t off, void *p, size_t len)
{
	while (len) {
		size_t n = MIN(len, BLOCK - off % BLOCK);
		const uint8_t *from;
		bool hole;

		if (!range_inside(off, n, inode->size))
			return bad(c, "read past the end of inode %llu", (unsigned long long)inode->nid);
		from = block_at(c, inode, off, n, &hole);
		if (!from)
			return bad(c, "inode %llu: data out of place at %llu", (unsigned long long)inode->nid,
				   (unsigned long long)off);
		if (hole)
			memset(p, 0, n);
		else
			memcpy(p, from, n);
		p = (uint8_t *)p + n;
		off += n;
		len -= n;
	}
	return 0;
}

/* One attribute at pos; returns its size on disk, 0 if bad. */
static uint64_t read_xattr(struct check *c, uint64_t pos, struct check_xattr *x)
{
	static const char *const spaces[] = {
		NULL, "user.", "system.posix_acl_access", "system.posix_acl_default", "trusted.", NULL, "security."};
	const uint8_t *p = at(c, pos, 4);
	struct cursor s = cursor_of(p ? p : (const uint8_t *)"", p ? 4 : 0);
	uint8_t len = cursor_u8(&s), space = cursor_u8(&s);
	const uint8_t *name;

	x->value_len = cursor_u16(&s);
	name = s.bad ? NULL : at(c, pos + 4, (uint64_t)len + x->value_len);
	if (!name || space >= ARRAY_SIZE(spaces) || !spaces[space] || pos % 4)
		return 0;
	snprintf(x->name, sizeof(x->name), "%s%.*s", spaces[space], len, (const char *)name);
	x->value = name + len;
	return align_up(4 + (uint64_t)len + x->value_len, 4);
}

int check_xattrs(struct check *c, const struct check_inode *inode, void (*fn)(void *arg, const struct check_xattr *x),
		 void *arg)
{
	uint64_t pos = inode->pos + EROFS_INODE_SIZE, end = pos + inode->xattr_size;
	const uint8_t *p = at(c, pos, 12);
	struct check_xattr x;
	unsigned shared;

	if (!inode->xattr_size)
		return 0;
	if (!p)
		return bad(c, "attributes");
	shared = p[4];
	pos += 12;
	for (; shared; shared--, pos += 4) {
		struct cursor s;

		p = pos + 4 <= end ? at(c, pos, 4) : NULL;
		if (!p)
			return bad(c, "inode %llu: shared attributes", (unsigned long long)inode->nid);
		s = cursor_of(p, 4);
		if (!read_xattr(c, c->xattr_pos + (uint64_t)cursor_u32(&s) * 4, &x))
			return bad(c, "inode %llu: a shared attribute", (unsigned long long)inode->nid);
		if (fn)
			fn(arg, &x);
	}
	while (pos < end) {
		uint64_t n = read_xattr(c, pos, &x);

		if (!n || n > end - pos)
			return bad(c, "inode %llu: an attribute", (unsigned long long)inode->nid);
		if (fn)
			fn(arg, &x);
		pos += n;
	}
	return 0;
}

static int see(struct check *c, const struct check_inode *inode)
{
	size_t i = 0;

	if (S_ISDIR(inode->mode) || inode->nlink == 1) {
		/* Only one name may lead here; what comes twice makes the count of inodes wrong. */
		c->inos--;
		return 0;
	}
	while (i < c->num_links && c->links[i].nid != inode->nid)
		i++;
	if (i == c->num_links) {
		if (c->num_links == c->cap_links) {
			c->cap_links = c->cap_links ? c->cap_links * 2 : 64;
			c->links = realloc(c->links, c->cap_links * sizeof(*c->links));
			if (!c->links)
				abort();
		}
		c->links[c->num_links++] = (struct check_link){.nid = inode->nid, .want = inode->nlink};
		c->inos--;
	}
	c->links[i].seen++;
	return 0;
}

static int check_data(struct check *c, const struct check_inode *inode)
{
	uint64_t chunks;

	if (!S_ISREG(inode->mode) || !inode->size)
		return 0;
	if (inode->layout == EROFS_FLAT_PLAIN) {
		if (!at(c, (uint64_t)inode->u * BLOCK, inode->size))
			return bad(c, "inode %llu: data out of the file", (unsigned long long)inode->nid);
		return 0;
	}
	if (inode->layout != EROFS_CHUNK_BASED || inode->u > 0x1f)
		return bad(c, "inode %llu: layout", (unsigned long long)inode->nid);
	chunks = ((inode->size - 1) >> (12 + inode->u)) + 1;
	for (uint64_t i = 0; i < chunks; i++) {
		bool hole;
		uint64_t off = i << (12 + inode->u);

		if (!chunk_at(c, inode, off, MIN(inode->size - off, 1ULL << (12 + inode->u)), &hole))
			return bad(c, "inode %llu: chunk %llu", (unsigned long long)inode->nid, (unsigned long long)i);
	}
	return 0;
}

struct entry {
	uint64_t nid;
	const uint8_t *name;
	size_t len;
	uint8_t type;
};

/* Entry k of the directory block of len bytes; n: how many it has. */
static int read_entry(struct check *c, const uint8_t *block, uint32_t len, uint32_t k, uint32_t n, struct entry *ret)
{
	struct cursor s = cursor_of(block + k * EROFS_DIRENT_SIZE, EROFS_DIRENT_SIZE);
	uint32_t from, to = len;

	ret->nid = cursor_u64(&s);
	from = cursor_u16(&s);
	ret->type = cursor_u8(&s);
	if (k + 1 < n) {
		struct cursor next = cursor_of(block + (k + 1) * EROFS_DIRENT_SIZE + 8, 2);

		to = cursor_u16(&next);
	}
	if (from < n * EROFS_DIRENT_SIZE || to > len || from >= to)
		return bad(c, "directory entry %u", k);
	ret->name = block + from;
	ret->len = k + 1 < n ? to - from : strnlen((const char *)block + from, to - from);
	if (!ret->len || ret->len > 255 || memchr(ret->name, '/', ret->len) || memchr(ret->name, 0, ret->len))
		return bad(c, "directory entry %u: name", k);
	return 0;
}

static int walk(struct check *c, const struct check_inode *dir, uint64_t parent, char *path, size_t len,
		unsigned depth);

static int check_entry(struct check *c, const struct check_inode *dir, uint64_t parent, const struct entry *e,
		       char *path, size_t len, unsigned depth, uint32_t *subdirs)
{
	static const uint8_t types[] = {0,
					S_IFREG >> 12,
					S_IFDIR >> 12,
					S_IFCHR >> 12,
					S_IFBLK >> 12,
					S_IFIFO >> 12,
					S_IFSOCK >> 12,
					S_IFLNK >> 12};
	struct check_inode inode;

	if (e->len == 1 && e->name[0] == '.')
		return e->nid == dir->nid ? 0 : bad(c, "\".\" is not the directory");
	if (e->len == 2 && memcmp(e->name, "..", 2) == 0)
		return e->nid == parent ? 0 : bad(c, "\"..\" is not the parent");
	if (read_inode(c, e->nid, &inode) < 0)
		return -1;
	if (e->type >= ARRAY_SIZE(types) || types[e->type] != inode.mode >> 12)
		return bad(c, "entry's type %u of mode %o", e->type, inode.mode);
	if (S_ISCHR(inode.mode) && inode.rdev == 0)
		return bad(c, "a 0:0 device");
	if (len + 1 + e->len >= MAX_PATH)
		return bad(c, "path too long");
	path[len] = '/';
	memcpy(path + len + 1, e->name, e->len);
	if (see(c, &inode) < 0 || check_data(c, &inode) < 0 || check_xattrs(c, &inode, NULL, NULL) < 0)
		return -1;
	if (c->visit)
		c->visit(c, path + 1, len + e->len, &inode);
	if (!S_ISDIR(inode.mode))
		return 0;
	++*subdirs;
	return walk(c, &inode, dir->nid, path, len + 1 + e->len, depth + 1);
}

static int compare(const struct entry *a, const struct entry *b)
{
	int r = memcmp(a->name, b->name, MIN(a->len, b->len));

	return r ? r : (a->len < b->len ? -1 : a->len > b->len);
}

static int walk(struct check *c, const struct check_inode *dir, uint64_t parent, char *path, size_t len, unsigned depth)
{
	struct entry last = {0};
	uint32_t subdirs = 0, dots = 0;

	if (depth > MAX_DEPTH)
		return bad(c, "too deep");
	for (uint64_t off = 0; off < dir->size; off += BLOCK) {
		uint32_t n, size = (uint32_t)MIN(dir->size - off, BLOCK);
		bool hole;
		const uint8_t *block = block_at(c, dir, off, size, &hole);
		struct cursor s;

		if (!block || hole || size < EROFS_DIRENT_SIZE)
			return bad(c, "inode %llu: directory out of place", (unsigned long long)dir->nid);
		s = cursor_of(block + 8, 2);
		n = cursor_u16(&s) / EROFS_DIRENT_SIZE;
		if (!n || n * EROFS_DIRENT_SIZE > size)
			return bad(c, "inode %llu: directory block", (unsigned long long)dir->nid);
		for (uint32_t k = 0; k < n; k++) {
			struct entry e;

			if (read_entry(c, block, size, k, n, &e) < 0)
				return -1;
			if (last.name && compare(&last, &e) >= 0)
				return bad(c, "inode %llu: names not in order", (unsigned long long)dir->nid);
			last = e;
			dots += e.len <= 2 && memcmp(e.name, "..", e.len) == 0;
			if (check_entry(c, dir, parent, &e, path, len, depth, &subdirs) < 0)
				return -1;
		}
	}
	if (dots != 2 || dir->nlink != subdirs + 2)
		return bad(c, "inode %llu: %u links, %u subdirectories", (unsigned long long)dir->nid, dir->nlink,
			   subdirs);
	return 0;
}

int erofs_check(struct check *c)
{
	struct check_inode root;
	char *path = malloc(MAX_PATH);
	uint64_t nid;
	int r = -1;

	c->error[0] = 0;
	c->num_links = 0;
	if (!path)
		abort();
	if (read_super(c, &nid) == 0 && read_inode(c, nid, &root) == 0 && S_ISDIR(root.mode)) {
		c->inos--;
		if (c->visit)
			c->visit(c, "", 0, &root);
		r = check_xattrs(c, &root, NULL, NULL);
		if (r == 0)
			r = walk(c, &root, nid, path, 0, 0);
		for (size_t i = 0; r == 0 && i < c->num_links; i++)
			if (c->links[i].want != c->links[i].seen)
				r = bad(c, "inode %llu: %u links, %u names", (unsigned long long)c->links[i].nid,
					c->links[i].want, c->links[i].seen);
		if (r == 0 && c->inos)
			r = bad(c, "the superblock counts other inodes: %lld more", (long long)c->inos);
	}
	free(path);
	free(c->links);
	c->links = NULL;
	c->cap_links = 0;
	return r;
}

static bool find_child(struct check *c, const struct check_inode *dir, const char *name, size_t len, uint64_t *ret)
{
	for (uint64_t off = 0; off < dir->size; off += BLOCK) {
		uint32_t n, size = (uint32_t)MIN(dir->size - off, BLOCK);
		bool hole;
		const uint8_t *block = block_at(c, dir, off, size, &hole);
		struct cursor s;

		if (!block || size < EROFS_DIRENT_SIZE)
			return false;
		s = cursor_of(block + 8, 2);
		n = cursor_u16(&s) / EROFS_DIRENT_SIZE;
		for (uint32_t k = 0; n * EROFS_DIRENT_SIZE <= size && k < n; k++) {
			struct entry e;

			if (read_entry(c, block, size, k, n, &e) == 0 && e.len == len &&
			    memcmp(e.name, name, len) == 0) {
				*ret = e.nid;
				return true;
			}
		}
	}
	return false;
}

bool check_lookup(struct check *c, const char *path, struct check_inode *ret)
{
	uint64_t nid;

	if (read_super(c, &nid) < 0 || read_inode(c, nid, ret) < 0)
		return false;
	while (*path) {
		size_t len = strcspn(path, "/");

		if (!S_ISDIR(ret->mode) || !find_child(c, ret, path, len, &nid) || read_inode(c, nid, ret) < 0)
			return false;
		path += len + (path[len] == '/');
	}
	return true;
}
