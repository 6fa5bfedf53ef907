/* SPDX-License-Identifier: Apache-2.0 */
/* The memory backend's operations on names and directories. See memory_node.h. */
#include "fuse/memory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "base/util.h"
#include "fuse/memory_node.h"

#define DEFAULT_BYTES GIB
#define DEFAULT_NODES (1ULL << 20)
#define DEFAULT_VALID_NS (86400ULL * 1000000000ULL)

/* ------------------------------------------------------------------------------------------- operations */

static int memory_lookup(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent_id, const char *name,
			 struct sm_fs_entry *ret)
{
	struct memory_fs *fs = memory_fs_of(be);
	struct memory_node *parent;
	int r;

	pthread_mutex_lock(&fs->lock);
	r = memory_find_dir(fs, parent_id, &parent);
	if (r == 0) {
		struct memory_dirent *d = memory_find_name(fs, parent, name);

		if (d)
			memory_fill_entry(fs, d->node, ret);
		else /* nobody but the peer makes names here: it may remember that this one is absent */
			*ret = (struct sm_fs_entry){.entry_valid_ns = fs->options.valid_ns};
	}
	pthread_mutex_unlock(&fs->lock);
	return r;
}

static void memory_forget(struct sm_fs_backend *be, uint64_t id, uint64_t count)
{
	struct memory_fs *fs = memory_fs_of(be);
	struct memory_node *node;

	pthread_mutex_lock(&fs->lock);
	node = memory_find_locked(fs, id);
	if (node) {
		node->refs -= MIN(count, node->refs);
		memory_drop_locked(fs, node);
	}
	pthread_mutex_unlock(&fs->lock);
}

/* A new node under a name that must be free. A setgid directory hands its group down, and setgid itself to directories.
 */
static int make_locked(struct memory_fs *fs, const struct sm_fs_caller *who, uint64_t parent_id, const char *name,
		       uint32_t mode, struct memory_node **ret)
{
	struct memory_node *parent, *node;
	uint32_t gid = who->gid;
	int r = memory_find_dir(fs, parent_id, &parent);

	if (r < 0)
		return r;
	if (memory_find_name(fs, parent, name))
		return -EEXIST;
	if (fs->num_nodes >= fs->options.max_nodes)
		return -ENOSPC;
	if (parent->st.st_mode & S_ISGID) {
		gid = parent->st.st_gid;
		mode |= S_ISDIR(mode) ? S_ISGID : 0;
	}
	node = memory_node_new(fs, mode, who->uid, gid);
	if (!node)
		return -ENOMEM;
	r = memory_name_add(fs, parent, name, node);
	if (r < 0) {
		memory_node_free(fs, node);
		return r;
	}
	memory_link_node(parent, node);
	*ret = node;
	return 0;
}

static int make(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
		uint32_t mode, uint32_t rdev, const char *target, struct sm_fs_entry *ret)
{
	struct memory_fs *fs = memory_fs_of(be);
	char *copy = target ? strdup(target) : NULL;
	struct memory_node *node;
	int r;

	if (target && !copy)
		return -ENOMEM;
	pthread_mutex_lock(&fs->lock);
	r = make_locked(fs, who, parent, name, mode, &node);
	if (r == 0) {
		node->st.st_rdev = rdev;
		node->target = copy;
		node->st.st_size = copy ? (off_t)strlen(copy) : 0;
		copy = NULL;
		memory_fill_entry(fs, node, ret);
	}
	pthread_mutex_unlock(&fs->lock);
	free(copy);
	return r;
}

static int memory_symlink(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
			  const char *target, struct sm_fs_entry *ret)
{
	return make(be, who, parent, name, S_IFLNK | 0777, 0, target, ret);
}

static int memory_mknod(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
			uint32_t mode, uint32_t rdev, struct sm_fs_entry *ret)
{
	uint32_t type = mode & S_IFMT;

	if (type != S_IFREG && type != S_IFIFO && type != S_IFSOCK && type != S_IFCHR && type != S_IFBLK)
		return -EINVAL;
	return make(be, who, parent, name, type | (mode & 07777 & ~who->umask), rdev, NULL, ret);
}

static int memory_mkdir(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
			uint32_t mode, struct sm_fs_entry *ret)
{
	return make(be, who, parent, name, S_IFDIR | (mode & 01777 & ~who->umask), 0, NULL, ret);
}

static int memory_create(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent_id, const char *name,
			 uint32_t mode, uint32_t flags, struct sm_fs_entry *ret, struct sm_fs_open *ret_open)
{
	struct memory_fs *fs = memory_fs_of(be);
	int r = make(be, who, parent_id, name, S_IFREG | (mode & 07777 & ~who->umask), 0, NULL, ret);

	if (r == -EEXIST && !(flags & O_EXCL)) {
		r = memory_lookup(be, who, parent_id, name, ret);
		if (r == 0 && !ret->nodeid)
			r = -ENOENT; /* gone between the two: the peer asks again */
	}
	if (r < 0)
		return r;
	r = memory_open(be, who, ret->nodeid, flags & ~(uint32_t)O_EXCL, ret_open);
	if (r < 0)
		memory_forget(be, ret->nodeid, 1);
	if (r == 0 && flags & O_TRUNC) { /* the attributes are those after the truncation */
		uint64_t valid;

		r = memory_getattr(&fs->be, ret->nodeid, false, 0, &ret->attr, &valid);
	}
	return r;
}

static int memory_tmpfile(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent_id, uint32_t mode,
			  uint32_t flags, struct sm_fs_entry *ret, struct sm_fs_open *ret_open)
{
	struct memory_fs *fs = memory_fs_of(be);
	struct memory_node *parent, *node;
	int r;

	pthread_mutex_lock(&fs->lock);
	r = memory_find_dir(fs, parent_id, &parent);
	if (r == 0 && fs->num_nodes >= fs->options.max_nodes)
		r = -ENOSPC;
	if (r == 0) {
		node = memory_node_new(fs, S_IFREG | (mode & 07777 & ~who->umask), who->uid,
				       parent->st.st_mode & S_ISGID ? parent->st.st_gid : who->gid);
		if (node) {
			node->opens++;
			memory_fill_entry(fs, node, ret);
			*ret_open = (struct sm_fs_open){.flags = SM_FS_OPEN_KEEP_CACHE | SM_FS_OPEN_NOFLUSH};
		}
		r = node ? 0 : -ENOMEM;
	}
	pthread_mutex_unlock(&fs->lock);
	return r;
}

static int memory_link(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, uint64_t parent_id,
		       const char *name, struct sm_fs_entry *ret)
{
	struct memory_fs *fs = memory_fs_of(be);
	struct memory_node *node, *parent = NULL;
	int r;

	pthread_mutex_lock(&fs->lock);
	node = memory_find_locked(fs, id);
	r = node ? memory_find_dir(fs, parent_id, &parent) : -ESTALE;
	if (r == 0 && S_ISDIR(node->st.st_mode))
		r = -EPERM;
	if (r == 0 && node->st.st_nlink >= UINT16_MAX)
		r = -EMLINK;
	if (r == 0 && memory_find_name(fs, parent, name))
		r = -EEXIST;
	if (r == 0)
		r = memory_name_add(fs, parent, name, node);
	if (r == 0) {
		memory_link_node(parent, node);
		memory_fill_entry(fs, node, ret);
	}
	pthread_mutex_unlock(&fs->lock);
	return r;
}

static int remove_name(struct sm_fs_backend *be, uint64_t parent_id, const char *name, bool want_dir)
{
	struct memory_fs *fs = memory_fs_of(be);
	struct memory_node *parent, *node;
	struct memory_dirent *d;
	int r;

	pthread_mutex_lock(&fs->lock);
	r = memory_find_dir(fs, parent_id, &parent);
	d = r == 0 ? memory_find_name(fs, parent, name) : NULL;
	if (r == 0 && !d)
		r = -ENOENT;
	if (r == 0 && S_ISDIR(d->node->st.st_mode) != want_dir)
		r = want_dir ? -ENOTDIR : -EISDIR;
	if (r == 0 && want_dir && d->node->num_entries)
		r = -ENOTEMPTY;
	if (r == 0) {
		node = d->node;
		memory_name_remove(fs, d);
		memory_unlink_node(fs, parent, node);
	}
	pthread_mutex_unlock(&fs->lock);
	return r;
}

static int memory_unlink(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name)
{
	return remove_name(be, parent, name, false);
}

static int memory_rmdir(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name)
{
	return remove_name(be, parent, name, true);
}

/* True if `node` is `dir` or lies above it: moving it there would cut a loop off the tree. */
static bool is_above(const struct memory_node *node, const struct memory_node *dir)
{
	for (; dir; dir = dir->parent)
		if (dir == node)
			return true;
	return false;
}

static int check_rename(const struct memory_dirent *from, const struct memory_dirent *to,
			const struct memory_node *new_parent, uint32_t flags)
{
	bool dir = S_ISDIR(from->node->st.st_mode);

	if (dir && is_above(from->node, new_parent))
		return -EINVAL;
	if (flags & RENAME_EXCHANGE) {
		if (!to)
			return -ENOENT;
		return S_ISDIR(to->node->st.st_mode) && is_above(to->node, from->parent) ? -EINVAL : 0;
	}
	if (!to)
		return 0;
	if (flags & RENAME_NOREPLACE)
		return -EEXIST;
	if (S_ISDIR(to->node->st.st_mode) != dir)
		return dir ? -ENOTDIR : -EISDIR;
	return dir && to->node->num_entries ? -ENOTEMPTY : 0;
}

/* Puts `node` behind d, whose old node the caller has taken care of. */
static void repoint(struct memory_dirent *d, struct memory_node *node)
{
	d->node = node;
	if (S_ISDIR(node->st.st_mode))
		node->parent = d->parent;
	memory_touch(node, false, false, true);
	memory_touch(d->parent, false, true, true);
}

static void exchange(struct memory_dirent *a, struct memory_dirent *b)
{
	struct memory_node *node = a->node;
	int a_dir = S_ISDIR(a->node->st.st_mode), b_dir = S_ISDIR(b->node->st.st_mode);

	if (a_dir != b_dir) { /* one ".." moves over */
		a->parent->st.st_nlink += (nlink_t)(b_dir - a_dir);
		b->parent->st.st_nlink += (nlink_t)(a_dir - b_dir);
	}
	repoint(a, b->node);
	repoint(b, node);
}

/* RENAME_WHITEOUT leaves a 0:0 character device, which an overlay takes for "deleted". */
static int leave_whiteout(struct memory_fs *fs, const struct sm_fs_caller *who, struct memory_node *parent,
			  const char *name)
{
	struct memory_node *node;

	return make_locked(fs, who, parent->id, name, S_IFCHR, &node);
}

static int move_name(struct memory_fs *fs, const struct sm_fs_caller *who, struct memory_dirent *from,
		     struct memory_dirent *to, struct memory_node *new_parent, const char *new_name, uint32_t flags)
{
	struct memory_node *parent = from->parent, *node = from->node, *old = to ? to->node : NULL;
	char name[NAME_MAX + 1];
	int r = to ? 0 : memory_name_add(fs, new_parent, new_name, node);

	if (r < 0)
		return r;
	snprintf(name, sizeof(name), "%s", from->name);
	if (S_ISDIR(node->st.st_mode)) {
		parent->st.st_nlink--;
		new_parent->st.st_nlink++;
		node->parent = new_parent;
	}
	memory_name_remove(fs, from);
	if (to) {
		repoint(to, node);
		memory_unlink_node(fs, new_parent, old);
	}
	memory_touch(node, false, false, true);
	return flags & RENAME_WHITEOUT ? leave_whiteout(fs, who, parent, name) : 0;
}

static int rename_locked(struct memory_fs *fs, const struct sm_fs_caller *who, uint64_t parent_id, const char *name,
			 uint64_t new_parent_id, const char *new_name, uint32_t flags)
{
	struct memory_node *parent, *new_parent;
	struct memory_dirent *from, *to;
	int r = memory_find_dir(fs, parent_id, &parent);

	if (r == 0)
		r = memory_find_dir(fs, new_parent_id, &new_parent);
	if (r < 0)
		return r;
	if (flags & RENAME_EXCHANGE && flags & (RENAME_NOREPLACE | RENAME_WHITEOUT))
		return -EINVAL;
	from = memory_find_name(fs, parent, name);
	to = memory_find_name(fs, new_parent, new_name);
	if (!from)
		return -ENOENT;
	if (to && to->node == from->node && !(flags & (RENAME_NOREPLACE | RENAME_EXCHANGE)))
		return 0; /* rename(2): two names of one file, nothing happens */
	r = check_rename(from, to, new_parent, flags);
	if (r < 0)
		return r;
	if (flags & RENAME_EXCHANGE) {
		exchange(from, to);
		return 0;
	}
	return move_name(fs, who, from, to, new_parent, new_name, flags);
}

static int memory_rename(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
			 uint64_t new_parent, const char *new_name, uint32_t flags)
{
	struct memory_fs *fs = memory_fs_of(be);
	int r;

	pthread_mutex_lock(&fs->lock);
	r = rename_locked(fs, who, parent, name, new_parent, new_name, flags);
	pthread_mutex_unlock(&fs->lock);
	return r;
}

static ssize_t memory_readlink(struct sm_fs_backend *be, uint64_t id, char *buf, size_t size)
{
	struct memory_fs *fs = memory_fs_of(be);
	struct memory_node *node;
	ssize_t n = -ESTALE;

	pthread_mutex_lock(&fs->lock);
	node = memory_find_locked(fs, id);
	if (node && !node->target) {
		n = -EINVAL;
	} else if (node) {
		n = (ssize_t)MIN(strlen(node->target), size);
		memcpy(buf, node->target, (size_t)n);
	}
	pthread_mutex_unlock(&fs->lock);
	return n;
}

static int memory_opendir(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, struct sm_fs_open *ret)
{
	struct memory_fs *fs = memory_fs_of(be);
	struct memory_node *node;
	int r;

	pthread_mutex_lock(&fs->lock);
	r = memory_find_dir(fs, id, &node);
	if (r == 0)
		node->opens++;
	pthread_mutex_unlock(&fs->lock);
	*ret = (struct sm_fs_open){.flags = SM_FS_OPEN_CACHE_DIR};
	return r;
}

static void memory_releasedir(struct sm_fs_backend *be, uint64_t id, uint64_t fh)
{
	memory_release(be, id, fh, false, 0);
}

/* The first entry with a cookie beyond `offset`: cookies grow along the list. */
static struct memory_dirent *entry_after(struct memory_node *dir, uint64_t offset)
{
	struct memory_dirent *d = dir->first;

	if (offset >= dir->next_cookie)
		return NULL;
	while (d && d->cookie <= offset)
		d = d->next;
	return d;
}

static void list_locked(struct memory_fs *fs, struct memory_node *dir, uint64_t offset, bool plus, sm_fs_add_dirent add,
			void *arg)
{
	uint64_t up = dir->parent ? dir->parent->id : dir->id;

	if (offset < 1 && !add(arg, ".", dir->id, DT_DIR, 1, NULL))
		return;
	if (offset < 2 && !add(arg, "..", up, DT_DIR, 2, NULL))
		return;
	for (struct memory_dirent *d = entry_after(dir, offset); d; d = d->next) {
		struct sm_fs_entry e;

		if (plus)
			memory_fill_entry(fs, d->node, &e);
		if (!add(arg, d->name, d->node->id, (uint32_t)IFTODT(d->node->st.st_mode), d->cookie,
			 plus ? &e : NULL)) {
			d->node->refs -= plus; /* it was not added: the reference is ours again */
			return;
		}
	}
}

static int memory_readdir(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, uint64_t fh,
			  uint64_t offset, bool plus, sm_fs_add_dirent add, void *arg)
{
	struct memory_fs *fs = memory_fs_of(be);
	struct memory_node *dir;
	int r;

	pthread_mutex_lock(&fs->lock);
	r = memory_find_dir(fs, id, &dir);
	if (r == 0)
		list_locked(fs, dir, offset, plus, add, arg);
	pthread_mutex_unlock(&fs->lock);
	return r == -ENOENT ? 0 : r; /* a removed directory that is still open lists nothing */
}

static int memory_statfs(struct sm_fs_backend *be, uint64_t id, struct statvfs *ret)
{
	struct memory_fs *fs = memory_fs_of(be);

	pthread_mutex_lock(&fs->lock);
	*ret = (struct statvfs){
		.f_bsize = PAGES_SIZE,
		.f_frsize = PAGES_SIZE,
		.f_blocks = fs->options.max_bytes / PAGES_SIZE,
		.f_bfree = fs->options.max_bytes / PAGES_SIZE - fs->used_pages,
		.f_files = fs->options.max_nodes,
		.f_ffree = fs->options.max_nodes - fs->num_nodes,
		.f_namemax = NAME_MAX,
	};
	ret->f_bavail = ret->f_bfree;
	ret->f_favail = ret->f_ffree;
	pthread_mutex_unlock(&fs->lock);
	return 0;
}

/* The peer is gone: so are its references and open files. What has no name any more goes too. */
static void memory_destroy(struct sm_fs_backend *be)
{
	struct memory_fs *fs = memory_fs_of(be);

	pthread_mutex_lock(&fs->lock);
	for (uint64_t i = 0; i < fs->num_buckets; i++) {
		struct memory_node *node = fs->nodes[i], *next;

		for (; node; node = next) {
			next = node->hash_next;
			node->refs = node->opens = 0;
			memory_drop_locked(fs, node);
		}
	}
	pthread_mutex_unlock(&fs->lock);
}

static int memory_birth(struct sm_fs_backend *be, uint64_t id, struct timespec *ret)
{
	struct memory_fs *fs = memory_fs_of(be);
	struct memory_node *node;

	pthread_mutex_lock(&fs->lock);
	node = memory_find_locked(fs, id);
	if (node)
		*ret = node->birth;
	pthread_mutex_unlock(&fs->lock);
	return node ? 0 : -ESTALE;
}

static const struct sm_fs_ops memory_ops = {
	.size = sizeof(memory_ops),
	.destroy = memory_destroy,
	.lookup = memory_lookup,
	.birth = memory_birth,
	.forget = memory_forget,
	.getattr = memory_getattr,
	.setattr = memory_setattr,
	.readlink = memory_readlink,
	.symlink = memory_symlink,
	.mknod = memory_mknod,
	.mkdir = memory_mkdir,
	.link = memory_link,
	.create = memory_create,
	.tmpfile = memory_tmpfile,
	.unlink = memory_unlink,
	.rmdir = memory_rmdir,
	.rename = memory_rename,
	.open = memory_open,
	.read = memory_read,
	.write = memory_write,
	.release = memory_release,
	.opendir = memory_opendir,
	.readdir = memory_readdir,
	.releasedir = memory_releasedir,
	.statfs = memory_statfs,
	.getxattr = memory_getxattr,
	.listxattr = memory_listxattr,
	.setxattr = memory_setxattr,
	.removexattr = memory_removexattr,
	.fallocate = memory_fallocate,
	.lseek = memory_lseek,
};

int fuse_memory_new(const struct fuse_memory_options *options, struct sm_fs_backend **ret)
{
	struct memory_fs *fs = calloc(1, sizeof(*fs));
	struct memory_node *root;

	if (!fs)
		return -ENOMEM;
	pthread_mutex_init(&fs->lock, NULL);
	fs->be.ops = &memory_ops;
	if (options)
		fs->options = *options;
	fs->options.max_bytes = fs->options.max_bytes ? fs->options.max_bytes : DEFAULT_BYTES;
	fs->options.max_nodes = fs->options.max_nodes ? fs->options.max_nodes : DEFAULT_NODES;
	fs->options.valid_ns = fs->options.valid_ns ? fs->options.valid_ns : DEFAULT_VALID_NS;
	fs->next_id = SM_FS_ROOT;
	if (memory_make_tables(fs) < 0)
		goto fail;
	root = memory_node_new(fs, S_IFDIR | (fs->options.root_mode ? fs->options.root_mode : 0755), fs->options.uid,
			       fs->options.gid);
	if (!root)
		goto fail;
	root->st.st_nlink = 2;
	*ret = &fs->be;
	return 0;
fail:
	fuse_memory_free(&fs->be);
	return -ENOMEM;
}

struct sm_fs_backend *fuse_memory_free(struct sm_fs_backend *be)
{
	struct memory_fs *fs = be ? memory_fs_of(be) : NULL;

	if (!fs)
		return NULL;
	for (uint64_t i = 0; fs->names && i < fs->num_buckets; i++) {
		while (fs->names[i]) {
			struct memory_dirent *d = fs->names[i];

			fs->names[i] = d->hash_next;
			free(d);
		}
	}
	for (uint64_t i = 0; fs->nodes && i < fs->num_buckets; i++)
		while (fs->nodes[i])
			memory_node_free(fs, fs->nodes[i]);
	free(fs->names);
	free(fs->nodes);
	pthread_mutex_destroy(&fs->lock);
	free(fs);
	return NULL;
}

bool fuse_is_memory(const struct sm_fs_backend *be)
{
	return be->ops == &memory_ops;
}
