/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mux backend. See mux.h. Each function finds the child by the node id, takes its number off, asks, and puts the
 * number on what comes back. Where a child lacks a function it answers as the session would for that child alone, with
 * one exception: -ENOSYS, after which the peer never asks again, whichever child it was about, is only given where that
 * costs the others no more than round trips.
 */
#include "fuse/mux.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#define SHIFT FUSE_MUX_SHIFT
#define CHILD_MASK FUSE_MUX_ID_MASK
#define OWN_VALID_NS (86400ULL * 1000000000ULL) /* the root never changes */

struct child {
	struct sm_fs_backend *be;
	struct sm_fs_ops ops; /* as far as its header knew them */
	const char *name;
	uint64_t number; /* top byte of its node ids, in place */
};

struct mux {
	struct sm_fs_backend be; /* first */
	struct sm_fs_ops ops;
	unsigned count;
	struct child children[];
};

/* The child that a node id belongs to, and its own id for it; NULL: the root, or no node at all. */
static struct child *route(struct sm_fs_backend *be, uint64_t *nodeid)
{
	struct mux *mux = (struct mux *)be;
	uint64_t number = *nodeid >> SHIFT;

	if (!number || number > mux->count)
		return NULL;
	*nodeid &= CHILD_MASK;
	return &mux->children[number - 1];
}

/* A child's answer with its number on. An id that leaves no room for that is given back. */
static int entered(const struct child *c, int r, struct sm_fs_entry *e)
{
	if (r < 0 || !e->nodeid)
		return r;
	if (e->nodeid & ~CHILD_MASK) {
		if (c->ops.forget)
			c->ops.forget(c->be, e->nodeid, 1);
		return -EOVERFLOW;
	}
	e->nodeid |= c->number;
	return r;
}

/* ------------------------------------------------------------------------------------------------- the root */

static void root_stat(const struct mux *mux, struct stat *ret)
{
	*ret = (struct stat){.st_ino = SM_FS_ROOT,
			     .st_mode = S_IFDIR | 0555,
			     .st_nlink = (nlink_t)mux->count + 2,
			     .st_blksize = 4096};
}

/* Roots need no reference: they stay as long as the mux. */
static int child_root(const struct child *c, struct sm_fs_entry *ret)
{
	int r;

	*ret = (struct sm_fs_entry){.entry_valid_ns = OWN_VALID_NS};
	r = c->ops.getattr(c->be, SM_FS_ROOT, false, 0, &ret->attr, &ret->attr_valid_ns);
	if (r < 0)
		return r;
	ret->nodeid = c->number | SM_FS_ROOT;
	ret->submount = S_ISDIR(ret->attr.st_mode);
	return 0;
}

static int lookup_root(const struct mux *mux, const char *name, struct sm_fs_entry *ret)
{
	for (unsigned i = 0; i < mux->count; i++)
		if (streq(mux->children[i].name, name))
			return child_root(&mux->children[i], ret);
	return -ENOENT;
}

static int list_root(const struct mux *mux, uint64_t offset, bool plus, sm_fs_add_dirent add, void *arg)
{
	for (uint64_t i = offset; i < mux->count; i++) {
		const struct child *c = &mux->children[i];
		struct sm_fs_entry e;

		if (child_root(c, &e) < 0)
			continue;
		if (!add(arg, c->name, e.attr.st_ino, IFTODT(e.attr.st_mode), i + 1, plus ? &e : NULL))
			break;
	}
	return 0;
}

/* ------------------------------------------------------------------------------------------ session, names */

static int mux_init(struct sm_fs_backend *be)
{
	struct mux *mux = (struct mux *)be;
	int r = 0;

	for (unsigned i = 0; i < mux->count && r == 0; i++)
		if (mux->children[i].ops.init)
			r = mux->children[i].ops.init(mux->children[i].be);
	return r;
}

static void mux_destroy(struct sm_fs_backend *be)
{
	struct mux *mux = (struct mux *)be;

	for (unsigned i = 0; i < mux->count; i++)
		if (mux->children[i].ops.destroy)
			mux->children[i].ops.destroy(mux->children[i].be);
}

static int mux_lookup(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
		      struct sm_fs_entry *ret)
{
	const struct child *c;

	if (parent == SM_FS_ROOT)
		return lookup_root((struct mux *)be, name, ret);
	c = route(be, &parent);
	return c ? entered(c, c->ops.lookup(c->be, who, parent, name, ret), ret) : -ESTALE;
}

static void mux_forget(struct sm_fs_backend *be, uint64_t nodeid, uint64_t count)
{
	const struct child *c = route(be, &nodeid);

	if (c && nodeid != SM_FS_ROOT && c->ops.forget)
		c->ops.forget(c->be, nodeid, count);
}

static int mux_getattr(struct sm_fs_backend *be, uint64_t nodeid, bool has_fh, uint64_t fh, struct stat *ret,
		       uint64_t *ret_valid)
{
	const struct child *c;

	if (nodeid == SM_FS_ROOT) {
		root_stat((struct mux *)be, ret);
		*ret_valid = OWN_VALID_NS;
		return 0;
	}
	c = route(be, &nodeid);
	return c ? c->ops.getattr(c->be, nodeid, has_fh, fh, ret, ret_valid) : -ESTALE;
}

static int mux_setattr(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid, bool has_fh,
		       uint64_t fh, uint32_t set, const struct stat *in, struct stat *ret, uint64_t *ret_valid)
{
	const struct child *c = route(be, &nodeid);

	if (!c || !c->ops.setattr)
		return -EROFS;
	return c->ops.setattr(c->be, who, nodeid, has_fh, fh, set, in, ret, ret_valid);
}

static ssize_t mux_readlink(struct sm_fs_backend *be, uint64_t nodeid, char *buf, size_t size)
{
	const struct child *c = route(be, &nodeid);

	return c && c->ops.readlink ? c->ops.readlink(c->be, nodeid, buf, size) : -EINVAL;
}

static int mux_symlink(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
		       const char *target, struct sm_fs_entry *ret)
{
	const struct child *c = route(be, &parent);

	if (!c || !c->ops.symlink)
		return -EROFS;
	return entered(c, c->ops.symlink(c->be, who, parent, name, target, ret), ret);
}

static int mux_mknod(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
		     uint32_t mode, uint32_t rdev, struct sm_fs_entry *ret)
{
	const struct child *c = route(be, &parent);

	if (!c || !c->ops.mknod)
		return -EROFS;
	return entered(c, c->ops.mknod(c->be, who, parent, name, mode, rdev, ret), ret);
}

static int mux_mkdir(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
		     uint32_t mode, struct sm_fs_entry *ret)
{
	const struct child *c = route(be, &parent);

	if (!c || !c->ops.mkdir)
		return -EROFS;
	return entered(c, c->ops.mkdir(c->be, who, parent, name, mode, ret), ret);
}

static int mux_link(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid, uint64_t parent,
		    const char *name, struct sm_fs_entry *ret)
{
	const struct child *from = route(be, &nodeid), *c = route(be, &parent);

	if (from != c)
		return -EXDEV;
	if (!c || !c->ops.link)
		return -EROFS;
	return entered(c, c->ops.link(c->be, who, nodeid, parent, name, ret), ret);
}

static int mux_unlink(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name)
{
	const struct child *c = route(be, &parent);

	return c && c->ops.unlink ? c->ops.unlink(c->be, who, parent, name) : -EROFS;
}

static int mux_rmdir(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name)
{
	const struct child *c = route(be, &parent);

	return c && c->ops.rmdir ? c->ops.rmdir(c->be, who, parent, name) : -EROFS;
}

static int mux_rename(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
		      uint64_t new_parent, const char *new_name, uint32_t flags)
{
	const struct child *c = route(be, &parent), *to = route(be, &new_parent);

	if (c != to)
		return -EXDEV;
	if (!c || !c->ops.rename)
		return -EROFS;
	return c->ops.rename(c->be, who, parent, name, new_parent, new_name, flags);
}

static int mux_statfs(struct sm_fs_backend *be, uint64_t nodeid, struct statvfs *ret)
{
	const struct child *c = route(be, &nodeid);

	return c && c->ops.statfs ? c->ops.statfs(c->be, nodeid, ret) : 0; /* the caller's defaults stand */
}

static int mux_syncfs(struct sm_fs_backend *be, uint64_t nodeid)
{
	struct mux *mux = (struct mux *)be;
	const struct child *c = route(be, &nodeid);
	int r = 0;

	if (c)
		return c->ops.syncfs ? c->ops.syncfs(c->be, nodeid) : 0;
	for (unsigned i = 0; i < mux->count; i++) {
		int one =
			mux->children[i].ops.syncfs ? mux->children[i].ops.syncfs(mux->children[i].be, SM_FS_ROOT) : 0;

		r = r < 0 ? r : one;
	}
	return r;
}

/* ---------------------------------------------------------------------------------------------- open files */

static int mux_create(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
		      uint32_t mode, uint32_t flags, struct sm_fs_entry *ret, struct sm_fs_open *ret_open)
{
	const struct child *c = route(be, &parent);
	int r;

	if (!c)
		return -EROFS;
	if (!c->ops.create)
		return -ENOSYS; /* mknod and open do the same */
	r = c->ops.create(c->be, who, parent, name, mode, flags, ret, ret_open);
	if (r == 0 && ret->nodeid & ~CHILD_MASK && c->ops.release)
		c->ops.release(c->be, ret->nodeid, ret_open->fh, false, 0);
	return entered(c, r, ret);
}

static int mux_tmpfile(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, uint32_t mode,
		       uint32_t flags, struct sm_fs_entry *ret, struct sm_fs_open *ret_open)
{
	const struct child *c = route(be, &parent);
	int r;

	if (!c || !c->ops.tmpfile)
		return -EOPNOTSUPP;
	r = c->ops.tmpfile(c->be, who, parent, mode, flags, ret, ret_open);
	if (r == 0 && ret->nodeid & ~CHILD_MASK && c->ops.release)
		c->ops.release(c->be, ret->nodeid, ret_open->fh, false, 0);
	return entered(c, r, ret);
}

static int mux_open(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid, uint32_t flags,
		    struct sm_fs_open *ret)
{
	const struct child *c = route(be, &nodeid);

	if (!c)
		return -EISDIR;
	return c->ops.open ? c->ops.open(c->be, who, nodeid, flags, ret) : 0;
}

static ssize_t mux_read(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, const struct iovec *iov, int count,
			uint64_t offset)
{
	const struct child *c = route(be, &nodeid);

	return c ? c->ops.read(c->be, nodeid, fh, iov, count, offset) : -EISDIR;
}

static ssize_t mux_write(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid, uint64_t fh,
			 const struct iovec *iov, int count, uint64_t offset, uint32_t flags)
{
	const struct child *c = route(be, &nodeid);

	if (!c || !c->ops.write)
		return -EROFS;
	return c->ops.write(c->be, who, nodeid, fh, iov, count, offset, flags);
}

static int mux_flush(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, uint64_t lock_owner)
{
	const struct child *c = route(be, &nodeid);

	return c && c->ops.flush ? c->ops.flush(c->be, nodeid, fh, lock_owner) : 0;
}

static void mux_release(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, bool flock_release, uint64_t lock_owner)
{
	const struct child *c = route(be, &nodeid);

	if (c && c->ops.release)
		c->ops.release(c->be, nodeid, fh, flock_release, lock_owner);
}

static int mux_fsync(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, bool data_only)
{
	const struct child *c = route(be, &nodeid);

	return c && c->ops.fsync ? c->ops.fsync(c->be, nodeid, fh, data_only) : 0;
}

static int mux_getlk(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, struct sm_fs_lock *lock)
{
	const struct child *c = route(be, &nodeid);

	return c && c->ops.getlk ? c->ops.getlk(c->be, nodeid, fh, lock) : -EOPNOTSUPP;
}

static int mux_setlk(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, const struct sm_fs_lock *lock, bool wait)
{
	const struct child *c = route(be, &nodeid);

	return c && c->ops.setlk ? c->ops.setlk(c->be, nodeid, fh, lock, wait) : -EOPNOTSUPP;
}

static int mux_fallocate(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, int mode, uint64_t offset,
			 uint64_t length)
{
	const struct child *c = route(be, &nodeid);

	return c && c->ops.fallocate ? c->ops.fallocate(c->be, nodeid, fh, mode, offset, length) : -EOPNOTSUPP;
}

static int64_t mux_lseek(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, uint64_t offset, int whence)
{
	const struct child *c = route(be, &nodeid);

	return c && c->ops.lseek ? c->ops.lseek(c->be, nodeid, fh, offset, whence) : -ENOSYS;
}

static ssize_t mux_copy_file_range(struct sm_fs_backend *be, uint64_t nodeid_in, uint64_t fh_in, uint64_t offset_in,
				   uint64_t nodeid_out, uint64_t fh_out, uint64_t offset_out, uint64_t length)
{
	const struct child *c = route(be, &nodeid_in), *to = route(be, &nodeid_out);

	if (c != to)
		return -EXDEV;
	if (!c || !c->ops.copy_file_range)
		return -EOPNOTSUPP;
	return c->ops.copy_file_range(c->be, nodeid_in, fh_in, offset_in, nodeid_out, fh_out, offset_out, length);
}

static int mux_dax_map(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, uint64_t offset, uint64_t length,
		       int protection, struct sm_fs_map *ret)
{
	const struct child *c = route(be, &nodeid);

	if (!c || !c->ops.dax_map)
		return -EOPNOTSUPP;
	return c->ops.dax_map(c->be, nodeid, fh, offset, length, protection, ret);
}

static void mux_dax_unmap(struct sm_fs_backend *be, uint64_t nodeid, uint64_t offset, uint64_t length)
{
	const struct child *c = route(be, &nodeid);

	if (c && c->ops.dax_unmap)
		c->ops.dax_unmap(c->be, nodeid, offset, length);
}

static int mux_watch(struct sm_fs_backend *be, uint64_t nodeid, int inotify_fd, uint32_t mask)
{
	const struct child *c = route(be, &nodeid);

	return c && c->ops.watch ? c->ops.watch(c->be, nodeid, inotify_fd, mask) : -EOPNOTSUPP;
}

static int mux_birth(struct sm_fs_backend *be, uint64_t nodeid, struct timespec *ret)
{
	const struct child *c = route(be, &nodeid);

	return c && c->ops.birth ? c->ops.birth(c->be, nodeid, ret) : -EOPNOTSUPP;
}

/* --------------------------------------------------------------------------------------------- directories */

static int mux_opendir(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid,
		       struct sm_fs_open *ret)
{
	const struct child *c = route(be, &nodeid);

	return c && c->ops.opendir ? c->ops.opendir(c->be, who, nodeid, ret) : 0;
}

/* A listing of a child's on its way to the session. */
struct passing {
	const struct child *child;
	sm_fs_add_dirent add;
	void *arg;
};

static bool pass_dirent(void *arg, const char *name, uint64_t ino, uint32_t d_type, uint64_t next_offset,
			const struct sm_fs_entry *entry)
{
	struct passing *p = arg;
	struct sm_fs_entry e;
	bool numbered = false;

	if (entry) {
		e = *entry;
		numbered = entered(p->child, 0, &e) == 0;
	}
	return p->add(p->arg, name, ino, d_type, next_offset, numbered ? &e : NULL);
}

static int mux_readdir(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid, uint64_t fh,
		       uint64_t offset, bool plus, sm_fs_add_dirent add, void *arg)
{
	struct passing p = {.add = add, .arg = arg};

	if (nodeid == SM_FS_ROOT)
		return list_root((struct mux *)be, offset, plus, add, arg);
	p.child = route(be, &nodeid);
	if (!p.child)
		return -ESTALE;
	return p.child->ops.readdir(p.child->be, who, nodeid, fh, offset, plus, pass_dirent, &p);
}

static void mux_releasedir(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh)
{
	const struct child *c = route(be, &nodeid);

	if (c && c->ops.releasedir)
		c->ops.releasedir(c->be, nodeid, fh);
}

static int mux_fsyncdir(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, bool data_only)
{
	const struct child *c = route(be, &nodeid);

	return c && c->ops.fsyncdir ? c->ops.fsyncdir(c->be, nodeid, fh, data_only) : 0;
}

/* ------------------------------------------------------------------------------------- extended attributes */

static ssize_t mux_getxattr(struct sm_fs_backend *be, uint64_t nodeid, const char *name, void *value, size_t size)
{
	const struct child *c = route(be, &nodeid);

	return c && c->ops.getxattr ? c->ops.getxattr(c->be, nodeid, name, value, size) : -EOPNOTSUPP;
}

static ssize_t mux_listxattr(struct sm_fs_backend *be, uint64_t nodeid, char *list, size_t size)
{
	const struct child *c = route(be, &nodeid);

	return c && c->ops.listxattr ? c->ops.listxattr(c->be, nodeid, list, size) : -EOPNOTSUPP;
}

static int mux_setxattr(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid, const char *name,
			const void *value, size_t size, int flags)
{
	const struct child *c = route(be, &nodeid);

	return c && c->ops.setxattr ? c->ops.setxattr(c->be, who, nodeid, name, value, size, flags) : -EOPNOTSUPP;
}

static int mux_removexattr(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid, const char *name)
{
	const struct child *c = route(be, &nodeid);

	return c && c->ops.removexattr ? c->ops.removexattr(c->be, who, nodeid, name) : -EOPNOTSUPP;
}

static const struct sm_fs_ops mux_ops = {
	.size = sizeof(mux_ops),
	.init = mux_init,
	.destroy = mux_destroy,
	.lookup = mux_lookup,
	.forget = mux_forget,
	.getattr = mux_getattr,
	.setattr = mux_setattr,
	.readlink = mux_readlink,
	.symlink = mux_symlink,
	.mknod = mux_mknod,
	.mkdir = mux_mkdir,
	.link = mux_link,
	.create = mux_create,
	.tmpfile = mux_tmpfile,
	.unlink = mux_unlink,
	.rmdir = mux_rmdir,
	.rename = mux_rename,
	.open = mux_open,
	.read = mux_read,
	.write = mux_write,
	.flush = mux_flush,
	.release = mux_release,
	.fsync = mux_fsync,
	.fsyncdir = mux_fsyncdir,
	.syncfs = mux_syncfs,
	.opendir = mux_opendir,
	.readdir = mux_readdir,
	.releasedir = mux_releasedir,
	.statfs = mux_statfs,
	.getxattr = mux_getxattr,
	.listxattr = mux_listxattr,
	.setxattr = mux_setxattr,
	.removexattr = mux_removexattr,
	.getlk = mux_getlk,
	.setlk = mux_setlk,
	.fallocate = mux_fallocate,
	.lseek = mux_lseek,
	.copy_file_range = mux_copy_file_range,
	.dax_map = mux_dax_map,
	.dax_unmap = mux_dax_unmap,
	.watch = mux_watch,
	.birth = mux_birth,
};

/* Functions that no child has are absent here too: the session then tells the peer never to ask. */
static void leave_out(struct mux *mux)
{
	bool flush = false, locks = false, xattrs = false;

	for (unsigned i = 0; i < mux->count; i++) {
		const struct sm_fs_ops *o = &mux->children[i].ops;

		flush |= o->flush != NULL;
		locks |= o->getlk && o->setlk;
		xattrs |= o->getxattr || o->listxattr || o->setxattr || o->removexattr;
	}
	if (!flush)
		mux->ops.flush = NULL;
	if (!locks) {
		mux->ops.getlk = NULL;
		mux->ops.setlk = NULL;
	}
	if (!xattrs) {
		mux->ops.getxattr = NULL;
		mux->ops.listxattr = NULL;
		mux->ops.setxattr = NULL;
		mux->ops.removexattr = NULL;
	}
}

int fuse_mux_new(const struct fuse_mux_child *children, unsigned count, struct sm_fs_backend **ret)
{
	struct mux *mux = calloc(1, sizeof(*mux) + count * sizeof(mux->children[0]));

	if (!mux || count > FUSE_MUX_MAX) {
		free(mux);
		return mux ? -EINVAL : -ENOMEM;
	}
	mux->count = count;
	mux->ops = mux_ops;
	mux->be.ops = &mux->ops;
	for (unsigned i = 0; i < count; i++) {
		struct child *c = &mux->children[i];
		const struct sm_fs_ops *ops = children[i].backend->ops;

		c->be = children[i].backend;
		c->name = children[i].name;
		c->number = (uint64_t)(i + 1) << SHIFT;
		memcpy(&c->ops, ops, MIN(ops->size, sizeof(c->ops)));
		if (!c->ops.lookup || !c->ops.getattr || !c->ops.readdir || !c->ops.read) {
			free(mux);
			return -EINVAL;
		}
	}
	leave_out(mux);
	*ret = &mux->be;
	return 0;
}

struct sm_fs_backend *fuse_mux_free(struct sm_fs_backend *be)
{
	free(be);
	return NULL;
}
