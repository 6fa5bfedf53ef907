/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The posix backend's table in a snapshot of the peer, and what another backend makes of it. See posix_save.h.
 *
 * Of a node its place (parent and name) and its identity are written, of an open file how it was opened. In the new
 * backend a node is found as one that has lost its descriptor always is: beneath its parent, by name, and only if it is
 * the file that it was (posix_fd.c). So nothing is looked at here, and nothing that is written here can lead anywhere
 * but to files beneath the root.
 */
#include "fuse/posix_save.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "fuse/posix_table.h"

#define VERSION 1
#define LEAST_RECORD 64U /* a node takes no less */
#define ID_LIMIT (1ULL << 56)

static void put_node(const struct posix_node *node, struct buf *out)
{
	const struct posix_handle *h = node->birth ? NULL : node->handle;
	size_t len = node->name ? strlen(node->name) : 0;

	buf_put_u64(out, node->id);
	buf_put_u64(out, node->refs);
	buf_put_u64(out, node->parent ? node->parent->id : 0);
	buf_put_u64(out, node->dev);
	buf_put_u64(out, node->ino);
	buf_put_u64(out, (uint64_t)node->birth);
	buf_put_u64(out, node->view);
	buf_put_u32(out, node->type);
	buf_put_u8(out, node->refused);
	buf_put_u16(out, (uint16_t)len);
	buf_put(out, node->name, len);
	buf_put_u8(out, h ? (uint8_t)h->size : 0);
	if (!h)
		return;
	buf_put_u32(out, (uint32_t)h->type);
	buf_put(out, h->bytes, h->size);
}

void fuse_posix_save(struct sm_fs_backend *be, struct buf *out)
{
	struct posix_fs *fs = posix_fs_of(be);

	pthread_mutex_lock(&fs->lock);
	buf_put_u32(out, VERSION);
	buf_put_u64(out, fs->generation);
	buf_put_u64(out, fs->next_id);
	buf_put_u64(out, fs->num_nodes);
	put_node(fs->root, out);
	for (uint64_t i = 0; i < fs->num_buckets; i++)
		for (const struct posix_node *node = fs->by_id[i]; node; node = node->id_next)
			if (node != fs->root)
				put_node(node, out);
	pthread_mutex_unlock(&fs->lock);
}

/* ------------------------------------------------------------------------------------------------ loading */

/* A record as it was read; the name is not terminated. */
struct record {
	struct posix_node node;
	uint64_t parent;
	const char *name;
	uint16_t name_len;
	struct posix_handle handle; /* size 0: none */
};

static bool is_type(mode_t type)
{
	return S_ISREG(type) || S_ISDIR(type) || S_ISLNK(type) || S_ISCHR(type) || S_ISBLK(type) || S_ISFIFO(type) ||
	       S_ISSOCK(type);
}

static bool is_name(const char *name, size_t len)
{
	return len && len <= 255 && !memchr(name, '/', len) && !memchr(name, '\0', len) &&
	       !(name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')));
}

static bool get_record(struct cursor *in, struct record *r)
{
	const void *bytes;

	*r = (struct record){.node = {.fd = -1, .restored = true}};
	r->node.id = cursor_u64(in);
	r->node.refs = cursor_u64(in);
	r->parent = cursor_u64(in);
	r->node.dev = cursor_u64(in);
	r->node.ino = cursor_u64(in);
	r->node.birth = (int64_t)cursor_u64(in);
	r->node.view = cursor_u64(in);
	r->node.type = cursor_u32(in);
	r->node.refused = cursor_u8(in);
	r->name_len = cursor_u16(in);
	r->name = cursor_take(in, r->name_len);
	r->handle.size = cursor_u8(in);
	if (r->handle.size > POSIX_HANDLE_MAX)
		return false;
	if (r->handle.size) {
		r->handle.type = (int)cursor_u32(in);
		bytes = cursor_take(in, r->handle.size);
		if (bytes)
			memcpy(r->handle.bytes, bytes, r->handle.size);
	}
	return !in->bad && is_type(r->node.type) && (!r->name_len || is_name(r->name, r->name_len));
}

/* The directory (or file) that the peer's root was is this one. */
static bool is_root(const struct posix_fs *fs, const struct record *r)
{
	const struct posix_node *root = fs->root;

	if (root->ino != r->node.ino || root->type != r->node.type || root->birth != r->node.birth)
		return false;
	return root->birth || (root->handle && r->handle.size && posix_handle_same(root->handle, &r->handle));
}

static int load_root(struct posix_fs *fs, struct cursor *in, struct record *ret)
{
	if (!get_record(in, ret) || ret->node.id != SM_FS_ROOT || ret->parent || ret->name_len)
		return -EPROTO;
	if (ret->node.type != fs->root->type)
		return S_ISDIR(ret->node.type) ? -ENOTDIR : -EISDIR;
	fs->root->refs = ret->node.refs;
	fs->same_root = is_root(fs, ret);
	return 0;
}

/* root: as it was saved. A device has another number when its file system has been mounted anew. */
static int load_node(struct posix_fs *fs, struct cursor *in, const struct record *root)
{
	struct record r;

	if (!get_record(in, &r) || !r.node.id || r.node.id >= fs->next_id || !r.parent != !r.name_len)
		return -EPROTO;
	if (fs->same_root && r.node.dev == root->node.dev)
		r.node.dev = fs->root->dev;
	return posix_node_restore_locked(fs, &r.node, r.name, r.name_len, r.handle.size ? &r.handle : NULL);
}

static int join_node(struct posix_fs *fs, struct cursor *in)
{
	struct record r;

	if (!get_record(in, &r))
		return -EPROTO;
	return r.parent ? posix_node_join_locked(fs, r.node.id, r.parent) : 0;
}

static int load_locked(struct posix_fs *fs, struct cursor *in)
{
	struct cursor again;
	struct record root;
	uint64_t count;
	int r;

	if (cursor_u32(in) != VERSION)
		return -ENOTSUP;
	if (fs->num_nodes != 1)
		return -EBUSY;
	fs->generation = cursor_u64(in);
	fs->next_id = cursor_u64(in);
	count = cursor_u64(in);
	if (in->bad || fs->next_id >= ID_LIMIT || fs->next_id <= SM_FS_ROOT || !count ||
	    count > in->left / LEAST_RECORD + 1)
		return -EPROTO;
	r = load_root(fs, in, &root);
	again = *in;
	for (uint64_t i = 1; i < count && r == 0; i++)
		r = load_node(fs, in, &root);
	for (uint64_t i = 1; i < count && r == 0; i++)
		r = join_node(fs, &again);
	return r;
}

int fuse_posix_load(struct sm_fs_backend *be, struct cursor *in)
{
	struct posix_fs *fs = posix_fs_of(be);
	int r;

	pthread_mutex_lock(&fs->lock);
	r = load_locked(fs, in);
	pthread_mutex_unlock(&fs->lock);
	return r;
}

/* --------------------------------------------------------------------------------------------- open files */

uint32_t fuse_posix_open_flags(uint64_t fh)
{
	return posix_file_of(fh)->flags;
}

int fuse_posix_reopen(struct sm_fs_backend *be, uint64_t id, bool is_dir, uint32_t flags, uint64_t *ret_fh)
{
	static const struct sm_fs_caller who = {0};
	struct posix_fs *fs = posix_fs_of(be);
	struct sm_fs_open o = {0};
	int r;

	/* Under the root's number there may be another file by now. */
	if (id == SM_FS_ROOT && !is_dir && !fs->same_root)
		return -ESTALE;
	flags &= O_ACCMODE | O_APPEND | O_SYNC | O_DSYNC | O_DIRECT;
	r = is_dir ? posix_opendir(be, &who, id, &o) : posix_open(be, &who, id, flags, &o);
	if (r == 0)
		*ret_fh = o.fh;
	return r;
}
