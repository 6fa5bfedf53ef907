/* SPDX-License-Identifier: Apache-2.0 */
/* Applying layers. See merge.h. */
#include "image/merge.h"

#include <errno.h>
#include <string.h>

#include "base/buf.h"
#include "base/util.h"
#include "image/path.h"

#define MAX_HOPS 255
#define MAX_WALK (1U << 20) /* bytes of a path with links put in */
/* Bytes copied for links, and 64 for a name that a whiteout spares, of one layer: honest ones stay far below; a bomb
 * takes seconds. */
#define MAX_WORK (8ULL << 30)

struct merge {
	struct tree *t;
	uint32_t layer, blob;
	/* Archives go directory by directory: the last one is remembered while nothing that could be on its path goes
	 * away. */
	struct buf dir;
	uint32_t dir_node, dir_removals;
	struct buf work[2]; /* a path with links put in, and room for the next such */
	uint64_t spent;
};

static uint32_t find(const struct merge *m, uint32_t dir, struct tar_bytes name)
{
	return tree_find(m->t, dir, (const char *)name.p, name.len);
}

static int add(struct merge *m, uint32_t dir, struct tar_bytes name, uint32_t inode, uint32_t *ret)
{
	int r = name.len > PATH_NAME_MAX ? -ENAMETOOLONG : 0;

	if (r == 0)
		r = tree_add(m->t, dir, (const char *)name.p, name.len, inode, m->layer, ret);
	if (r < 0)
		tree_put_inode(m->t, inode);
	else
		tree_touch(m->t, dir, m->layer);
	return r;
}

/* A directory that no entry describes. */
static int add_missing(struct merge *m, uint32_t dir, struct tar_bytes name, uint32_t *ret)
{
	uint32_t inode;
	int r = tree_new_inode(m->t, &inode);

	if (r < 0)
		return r;
	m->t->inodes[inode].mode = S_IFDIR | 0755;
	return add(m, dir, name, inode, ret);
}

static struct tar_bytes next_component(struct tar_bytes *rest)
{
	const uint8_t *slash = memchr(rest->p, '/', rest->len);
	struct tar_bytes c = {rest->p, slash ? (size_t)(slash - rest->p) : rest->len};

	rest->p += c.len + (slash ? 1 : 0);
	rest->len -= c.len + (slash ? 1 : 0);
	return c;
}

static bool is_dots(struct tar_bytes c, size_t n)
{
	return c.len == n && memcmp(c.p, "..", n) == 0;
}

/* Puts a link's target before the rest of the path. `which` tells the work buffer that the rest may lie in. */
static int put_link(struct merge *m, const struct inode *link, unsigned *which, struct tar_bytes *rest)
{
	struct buf *b = &m->work[*which ^ 1];

	if (link->size + 1 + rest->len > MAX_WALK)
		return -ENAMETOOLONG;
	m->spent += link->size + 1 + rest->len;
	if (m->spent > MAX_WORK)
		return -EDQUOT;
	b->len = 0;
	buf_put(b, link->target, link->size);
	buf_put_u8(b, '/');
	buf_put(b, rest->p, rest->len);
	*which ^= 1;
	*rest = (struct tar_bytes){b->data, b->len};
	return b->error;
}

/* The directory that the path leads to. -ENOENT (unless create), -ENOTDIR, -ELOOP, -ENAMETOOLONG, -ENOMEM. */
static int walk(struct merge *m, struct tar_bytes path, bool create, uint32_t *ret)
{
	uint32_t at = TREE_ROOT, next;
	struct tar_bytes rest = path;
	unsigned hops = 0, which = 0;
	int r;

	while (rest.len) {
		struct tar_bytes c = next_component(&rest);
		const struct inode *inode;

		if (c.len == 0 || is_dots(c, 1))
			continue;
		if (is_dots(c, 2)) { /* only in a link's target */
			at = m->t->nodes[at].parent;
			continue;
		}
		next = find(m, at, c);
		if (!next) {
			r = create ? add_missing(m, at, c, &next) : -ENOENT;
			if (r < 0)
				return r;
		}
		inode = tree_inode(m->t, next);
		if (S_ISLNK(inode->mode)) {
			if (++hops > MAX_HOPS)
				return -ELOOP;
			if (inode->target[0] == '/')
				at = TREE_ROOT;
			r = put_link(m, inode, &which, &rest);
			if (r < 0)
				return r;
			continue;
		}
		if (!S_ISDIR(inode->mode))
			return -ENOTDIR;
		at = next;
	}
	*ret = at;
	return 0;
}

/* The directory of the path's last component, which goes to *ret_name. */
static int walk_parent(struct merge *m, struct tar_bytes path, bool create, uint32_t *ret, struct tar_bytes *ret_name)
{
	const uint8_t *slash = memrchr(path.p, '/', path.len);
	struct tar_bytes dir = {path.p, slash ? (size_t)(slash - path.p) : 0};
	int r;

	*ret_name = slash ? (struct tar_bytes){slash + 1, path.len - dir.len - 1} : path;
	if (m->dir_node && m->dir_removals == m->t->removals && dir.len == m->dir.len &&
	    memcmp(dir.p, m->dir.data, dir.len) == 0) {
		*ret = m->dir_node;
		return 0;
	}
	r = walk(m, dir, create, ret);
	if (r < 0)
		return r;
	m->dir.len = 0;
	buf_reserve(&m->dir, 1);
	buf_put(&m->dir, dir.p, dir.len);
	m->dir_removals = m->t->removals;
	m->dir_node = m->dir.error ? 0 : *ret;
	return m->dir.error;
}

static int remove_lower(struct merge *m, uint32_t node);

/* Removes what lower layers left beneath a node. */
static int remove_lower_children(struct merge *m, uint32_t node)
{
	uint32_t child, next;
	int r = 0;

	for (child = m->t->nodes[node].child; r == 0 && child; child = next) {
		next = m->t->nodes[child].next;
		r = remove_lower(m, child);
	}
	return r;
}

/* And at the node itself. As deep as the tree, which is bounded. */
static int remove_lower(struct merge *m, uint32_t node)
{
	if (m->t->nodes[node].layer != m->layer) {
		tree_remove(m->t, node);
		return 0;
	}
	m->spent += 64;
	return m->spent > MAX_WORK ? -EDQUOT : remove_lower_children(m, node);
}

static int apply_opaque(struct merge *m, const struct index_record *rec)
{
	uint32_t dir;
	int r = walk(m, rec->path, false, &dir);

	if (r < 0)
		return r == -ENOENT || r == -ENOTDIR ? 0 : r;
	return remove_lower_children(m, dir);
}

static int apply_whiteout(struct merge *m, const struct index_record *rec)
{
	struct tar_bytes name;
	uint32_t dir, node;
	int r = walk_parent(m, rec->path, false, &dir, &name);

	if (r < 0)
		return r == -ENOENT || r == -ENOTDIR ? 0 : r;
	node = find(m, dir, name);
	return node ? remove_lower(m, node) : 0;
}

/* Takes over what every type of inode has. */
static int set_attributes(struct merge *m, uint32_t number, const struct index_record *rec)
{
	struct inode *inode = &m->t->inodes[number];

	/* Links have no permissions of their own: Linux shows all of them. */
	inode->mode = (uint16_t)((inode->mode & S_IFMT) | (S_ISLNK(inode->mode) ? 0777 : rec->mode));
	inode->uid = rec->uid;
	inode->gid = rec->gid;
	inode->mtime = rec->mtime;
	inode->mtime_nsec = rec->mtime_nsec;
	return xattr_intern(m->t->xattrs, rec->xattrs, rec->num_xattrs, &inode->xattrs);
}

static int set_content(struct merge *m, uint32_t number, const struct index_record *rec)
{
	static const uint16_t modes[RECORD_TYPES] = {
		[RECORD_FILE] = S_IFREG,  [RECORD_SYMLINK] = S_IFLNK, [RECORD_CHAR] = S_IFCHR,
		[RECORD_BLOCK] = S_IFBLK, [RECORD_DIR] = S_IFDIR,     [RECORD_FIFO] = S_IFIFO,
	};
	struct inode *inode = &m->t->inodes[number];

	inode->mode = modes[rec->type];
	inode->place = rec->place;
	if (rec->type == RECORD_FILE) {
		inode->size = rec->size;
		inode->chunk_bits = rec->chunk_bits;
		inode->blob = m->blob;
		inode->num_runs = rec->num_runs;
		if (rec->num_runs) {
			inode->runs = tree_keep(m->t, rec->runs, rec->num_runs * sizeof(*rec->runs));
			return inode->runs ? 0 : -ENOMEM;
		}
	} else if (rec->type == RECORD_SYMLINK) {
		inode->size = rec->link.len;
		inode->target = tree_keep(m->t, rec->link.p, rec->link.len);
		return inode->target ? 0 : -ENOMEM;
	}
	return 0;
}

static int new_inode(struct merge *m, const struct index_record *rec, uint32_t *ret)
{
	int r = tree_new_inode(m->t, ret);

	if (r < 0)
		return r;
	r = set_content(m, *ret, rec);
	if (r == 0)
		r = set_attributes(m, *ret, rec);
	if (r < 0)
		tree_put_inode(m->t, *ret);
	return r;
}

/* The inode that a hard link's target names, with one link more; its node to *ret_node. */
static int link_inode(struct merge *m, const struct index_record *rec, uint32_t *ret, uint32_t *ret_node,
		      struct sm_error *err)
{
	char text[PATH_TEXT_MAX];
	struct tar_bytes name;
	uint32_t dir, node = 0;
	int r = walk_parent(m, rec->link, false, &dir, &name);

	if (r == 0)
		node = find(m, dir, name);
	if (!node)
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "hard link to %s, which is not there",
				 path_text(rec->link, text));
	if (tree_is_dir(m->t, node))
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "hard link to the directory %s",
				 path_text(rec->link, text));
	*ret = m->t->nodes[node].inode;
	*ret_node = node;
	m->t->inodes[*ret].nlink++;
	return 0;
}

static int apply_root(struct merge *m, const struct index_record *rec)
{
	if (rec->type != RECORD_DIR)
		return -EBADMSG;
	tree_touch(m->t, TREE_ROOT, m->layer);
	return set_attributes(m, m->t->nodes[TREE_ROOT].inode, rec);
}

static int apply_entry(struct merge *m, const struct index_record *rec, struct sm_error *err)
{
	uint32_t dir, old, inode, node, target = 0;
	struct tar_bytes name;
	int r;

	if (!rec->path.len)
		return apply_root(m, rec);
	/* The target first: the entry may replace a directory on its path. */
	r = rec->type == RECORD_HARDLINK ? link_inode(m, rec, &inode, &target, err) : 0;
	if (r < 0)
		return r;
	r = walk_parent(m, rec->path, true, &dir, &name);
	if (r < 0) {
		if (target)
			tree_put_inode(m->t, inode);
		return r;
	}
	old = find(m, dir, name);
	if (old && old == target) {
		tree_put_inode(m->t, inode);
		tree_touch(m->t, old, m->layer);
		return 0;
	}
	if (old && rec->type == RECORD_DIR && tree_is_dir(m->t, old)) {
		tree_touch(m->t, old, m->layer);
		return set_attributes(m, m->t->nodes[old].inode, rec);
	}
	if (!target) {
		r = new_inode(m, rec, &inode);
		if (r < 0)
			return r;
	}
	if (old)
		tree_remove(m->t, old);
	return add(m, dir, name, inode, &node);
}

static int apply(struct merge *m, const struct index_record *rec, struct sm_error *err)
{
	switch (rec->type) {
	case RECORD_WHITEOUT:
		return rec->path.len ? apply_whiteout(m, rec) : -EBADMSG;
	case RECORD_OPAQUE:
		return apply_opaque(m, rec);
	default:
		return apply_entry(m, rec, err);
	}
}

/* Where no message was left, the reason in words that fit an archive. */
static int explain(int r, struct sm_error *err)
{
	switch (r) {
	case -ENOTDIR:
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "an entry under something that is not a directory");
	case -ELOOP:
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "too many symbolic links or directories on the way");
	case -ENAMETOOLONG:
		return error_set(err, SM_ERROR_LIMIT, EBADMSG, "a path that symbolic links make too long");
	case -EDQUOT:
		return error_set(err, SM_ERROR_LIMIT, E2BIG, "the layer's links or whiteouts take too much work");
	case -EMFILE:
		return error_set(err, SM_ERROR_LIMIT, E2BIG, "the image has too many entries");
	case -EBADMSG:
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "an entry that makes no sense");
	default:
		return error_sys(err, -r, "merge");
	}
}

int merge_look(struct tree *t, struct tar_bytes path, uint16_t *ret)
{
	struct merge m = {.t = t};
	struct tar_bytes name;
	uint32_t dir, node;
	int r = walk(&m, path, false, &dir);

	*ret = S_IFDIR;
	if (r == -ENOENT || r == -ENOTDIR || r == -ELOOP) {
		r = walk_parent(&m, path, false, &dir, &name);
		node = r == 0 ? find(&m, dir, name) : 0;
		*ret = node ? tree_inode(t, node)->mode & S_IFMT : 0;
		if (r == -ENOENT)
			r = 0;
	}
	buf_done(&m.dir);
	buf_done(&m.work[0]);
	buf_done(&m.work[1]);
	return r;
}

int merge_layer(struct tree *t, struct index_reader *index, uint32_t layer, uint32_t blob, struct sm_error *err)
{
	struct merge m = {.t = t, .layer = layer, .blob = blob};
	const struct index_record *rec;
	struct sm_error local = {0};
	char text[PATH_TEXT_MAX];
	int r;

	while ((r = index_next(index, &rec, err)) == 1) {
		r = apply(&m, rec, &local);
		if (r == 0)
			continue;
		if (local.kind == SM_ERROR_NONE)
			r = explain(r, &local);
		if (err)
			*err = local;
		error_wrap(err, r, "entry %s", path_text(rec->path, text));
		break;
	}
	buf_done(&m.dir);
	buf_done(&m.work[0]);
	buf_done(&m.work[1]);
	return r;
}
