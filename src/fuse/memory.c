/* SPDX-License-Identifier: Apache-2.0 */
/* The memory backend's tree: nodes, names, directories, renames. See memory_node.h. */
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

void memory_touch(struct memory_node *node, bool atime, bool mtime, bool ctime)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (atime)
		node->st.st_atim = now;
	if (mtime)
		node->st.st_mtim = now;
	if (ctime)
		node->st.st_ctim = now;
}

void memory_stat_locked(const struct memory_node *node, struct stat *ret)
{
	*ret = node->st;
	ret->st_blocks = (blkcnt_t)(node->pages.present * (PAGES_SIZE / 512));
}

/* ------------------------------------------------------------------------------------------- the two tables */

static struct memory_node **node_bucket(struct memory_fs *fs, uint64_t id)
{
	return &fs->nodes[id * 0x9e3779b97f4a7c15ULL % fs->num_buckets];
}

struct memory_node *memory_find_locked(struct memory_fs *fs, uint64_t id)
{
	struct memory_node *node = *node_bucket(fs, id);

	while (node && node->id != id)
		node = node->hash_next;
	return node;
}

/* FNV-1a over the parent's id and the name. */
static struct memory_dirent **name_bucket(struct memory_fs *fs, const struct memory_node *parent, const char *name)
{
	uint64_t hash = 0xcbf29ce484222325ULL ^ parent->id * 0x9e3779b97f4a7c15ULL;

	for (; *name; name++)
		hash = (hash ^ (uint8_t)*name) * 0x100000001b3ULL;
	return &fs->names[hash % fs->num_buckets];
}

static struct memory_dirent *find_name(struct memory_fs *fs, const struct memory_node *parent, const char *name)
{
	struct memory_dirent *d = *name_bucket(fs, parent, name);

	while (d && (d->parent != parent || !streq(d->name, name)))
		d = d->hash_next;
	return d;
}

/* Enough buckets for the most nodes there may be, but no more than 2^17: the tables are small beside the nodes. */
static int make_tables(struct memory_fs *fs)
{
	fs->num_buckets = MIN(fs->options.max_nodes, 1ULL << 17);
	fs->nodes = calloc(fs->num_buckets, sizeof(struct memory_node *));
	fs->names = calloc(fs->num_buckets, sizeof(struct memory_dirent *));
	return fs->nodes && fs->names ? 0 : -ENOMEM;
}

/* ---------------------------------------------------------------------------------------- nodes and names */

static struct memory_node *node_new(struct memory_fs *fs, uint32_t mode, uint32_t uid, uint32_t gid)
{
	struct memory_node *node = calloc(1, sizeof(*node)), **bucket;

	if (!node)
		return NULL;
	node->id = fs->next_id++;
	node->next_cookie = 3; /* 1 and 2 stand for . and .. */
	node->st = (struct stat){
		.st_ino = node->id, .st_mode = mode, .st_uid = uid, .st_gid = gid, .st_blksize = PAGES_SIZE};
	memory_touch(node, true, true, true);
	node->birth = node->st.st_ctim;
	bucket = node_bucket(fs, node->id);
	node->hash_next = *bucket;
	*bucket = node;
	fs->num_nodes++;
	return node;
}

static void node_free(struct memory_fs *fs, struct memory_node *node)
{
	struct memory_node **at = node_bucket(fs, node->id);

	while (*at != node)
		at = &(*at)->hash_next;
	*at = node->hash_next;
	fs->num_nodes--;
	fs->used_pages -= node->pages.present;
	pages_done(&node->pages);
	memory_xattrs_done(node);
	free(node->target);
	free(node);
}

void memory_drop_locked(struct memory_fs *fs, struct memory_node *node)
{
	if (!node->st.st_nlink && !node->refs && !node->opens && node->id != SM_FS_ROOT)
		node_free(fs, node);
}

static int name_add(struct memory_fs *fs, struct memory_node *parent, const char *name, struct memory_node *node)
{
	struct memory_dirent *d = calloc(1, sizeof(*d) + strlen(name) + 1), **bucket;

	if (!d)
		return -ENOMEM;
	memcpy(d->name, name, strlen(name) + 1);
	d->parent = parent;
	d->node = node;
	d->cookie = parent->next_cookie++;
	bucket = name_bucket(fs, parent, name);
	d->hash_next = *bucket;
	*bucket = d;
	d->prev = parent->last;
	if (d->prev)
		d->prev->next = d;
	else
		parent->first = d;
	parent->last = d;
	parent->num_entries++;
	memory_touch(parent, false, true, true);
	return 0;
}

static void name_remove(struct memory_fs *fs, struct memory_dirent *d)
{
	struct memory_dirent **at = name_bucket(fs, d->parent, d->name);
	struct memory_node *parent = d->parent;

	while (*at != d)
		at = &(*at)->hash_next;
	*at = d->hash_next;
	*(d->prev ? &d->prev->next : &parent->first) = d->next;
	*(d->next ? &d->next->prev : &parent->last) = d->prev;
	parent->num_entries--;
	memory_touch(parent, false, true, true);
	free(d);
}

/* Counts links: a directory counts itself and its parent's name; its parent gains one for "..". */
static void link_node(struct memory_node *parent, struct memory_node *node)
{
	if (S_ISDIR(node->st.st_mode)) {
		node->parent = parent;
		parent->st.st_nlink++;
		node->st.st_nlink = 2;
	} else {
		node->st.st_nlink++;
	}
	memory_touch(node, false, false, true);
}

static void unlink_node(struct memory_fs *fs, struct memory_node *parent, struct memory_node *node)
{
	if (S_ISDIR(node->st.st_mode)) {
		parent->st.st_nlink--;
		node->st.st_nlink = 0;
		node->parent = NULL;
	} else {
		node->st.st_nlink--;
	}
	memory_touch(node, false, false, true);
	memory_drop_locked(fs, node);
}

static void fill_entry(struct memory_fs *fs, struct memory_node *node, struct sm_fs_entry *ret)
{
	node->refs++;
	*ret = (struct sm_fs_entry){
		.nodeid = node->id,
		.entry_valid_ns = fs->options.valid_ns,
		.attr_valid_ns = fs->options.valid_ns,
	};
	memory_stat_locked(node, &ret->attr);
}

/* A directory that still has a name (or is the root), or an error. */
static int find_dir(struct memory_fs *fs, uint64_t id, struct memory_node **ret)
{
	struct memory_node *node = memory_find_locked(fs, id);

	if (!node)
		return -ESTALE;
	if (!S_ISDIR(node->st.st_mode))
		return -ENOTDIR;
	*ret = node;
	return node->st.st_nlink ? 0 : -ENOENT;
}

/* ------------------------------------------------------------------------------------------- operations */

static int memory_lookup(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent_id, const char *name,
			 struct sm_fs_entry *ret)
{
	struct memory_fs *fs = memory_fs_of(be);
	struct memory_node *parent;
	int r;

	pthread_mutex_lock(&fs->lock);
	r = find_dir(fs, parent_id, &parent);
	if (r == 0) {
		struct memory_dirent *d = find_name(fs, parent, name);

		if (d)
			fill_entry(fs, d->node, ret);
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
	int r = find_dir(fs, parent_id, &parent);

	if (r < 0)
		return r;
	if (find_name(fs, parent, name))
		return -EEXIST;
	if (fs->num_nodes >= fs->options.max_nodes)
		return -ENOSPC;
	if (parent->st.st_mode & S_ISGID) {
		gid = parent->st.st_gid;
		mode |= S_ISDIR(mode) ? S_ISGID : 0;
	}
	node = node_new(fs, mode, who->uid, gid);
	if (!node)
		return -ENOMEM;
	r = name_add(fs, parent, name, node);
	if (r < 0) {
		node_free(fs, node);
		return r;
	}
	link_node(parent, node);
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
		fill_entry(fs, node, ret);
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
	r = find_dir(fs, parent_id, &parent);
	if (r == 0 && fs->num_nodes >= fs->options.max_nodes)
		r = -ENOSPC;
	if (r == 0) {
		node = node_new(fs, S_IFREG | (mode & 07777 & ~who->umask), who->uid,
				parent->st.st_mode & S_ISGID ? parent->st.st_gid : who->gid);
		if (node) {
			node->opens++;
			fill_entry(fs, node, ret);
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
	r = node ? find_dir(fs, parent_id, &parent) : -ESTALE;
	if (r == 0 && S_ISDIR(node->st.st_mode))
		r = -EPERM;
	if (r == 0 && node->st.st_nlink >= UINT16_MAX)
		r = -EMLINK;
	if (r == 0 && find_name(fs, parent, name))
		r = -EEXIST;
	if (r == 0)
		r = name_add(fs, parent, name, node);
	if (r == 0) {
		link_node(parent, node);
		fill_entry(fs, node, ret);
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
	r = find_dir(fs, parent_id, &parent);
	d = r == 0 ? find_name(fs, parent, name) : NULL;
	if (r == 0 && !d)
		r = -ENOENT;
	if (r == 0 && S_ISDIR(d->node->st.st_mode) != want_dir)
		r = want_dir ? -ENOTDIR : -EISDIR;
	if (r == 0 && want_dir && d->node->num_entries)
		r = -ENOTEMPTY;
	if (r == 0) {
		node = d->node;
		name_remove(fs, d);
		unlink_node(fs, parent, node);
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
	int r = to ? 0 : name_add(fs, new_parent, new_name, node);

	if (r < 0)
		return r;
	snprintf(name, sizeof(name), "%s", from->name);
	if (S_ISDIR(node->st.st_mode)) {
		parent->st.st_nlink--;
		new_parent->st.st_nlink++;
		node->parent = new_parent;
	}
	name_remove(fs, from);
	if (to) {
		repoint(to, node);
		unlink_node(fs, new_parent, old);
	}
	memory_touch(node, false, false, true);
	return flags & RENAME_WHITEOUT ? leave_whiteout(fs, who, parent, name) : 0;
}

static int rename_locked(struct memory_fs *fs, const struct sm_fs_caller *who, uint64_t parent_id, const char *name,
			 uint64_t new_parent_id, const char *new_name, uint32_t flags)
{
	struct memory_node *parent, *new_parent;
	struct memory_dirent *from, *to;
	int r = find_dir(fs, parent_id, &parent);

	if (r == 0)
		r = find_dir(fs, new_parent_id, &new_parent);
	if (r < 0)
		return r;
	if (flags & RENAME_EXCHANGE && flags & (RENAME_NOREPLACE | RENAME_WHITEOUT))
		return -EINVAL;
	from = find_name(fs, parent, name);
	to = find_name(fs, new_parent, new_name);
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
	r = find_dir(fs, id, &node);
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
			fill_entry(fs, d->node, &e);
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
	r = find_dir(fs, id, &dir);
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
	if (make_tables(fs) < 0)
		goto fail;
	root = node_new(fs, S_IFDIR | (fs->options.root_mode ? fs->options.root_mode : 0755), fs->options.uid,
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
			node_free(fs, fs->nodes[i]);
	free(fs->names);
	free(fs->nodes);
	pthread_mutex_destroy(&fs->lock);
	free(fs);
	return NULL;
}
