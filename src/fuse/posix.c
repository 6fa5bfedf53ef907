/* SPDX-License-Identifier: Apache-2.0 */
/* The posix backend: names, attributes, making and removing. See posix.h. */
#include "fuse/posix.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "fuse/posix_node.h"

static int show(struct posix_fs *fs, int path_fd, struct stat *ret)
{
	if (fstatat(path_fd, "", ret, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return posix_show(fs, path_fd, ret);
}

/* ------------------------------------------------------------------------------------------------ lookup */

/* An O_PATH descriptor just opened becomes an entry, with a lookup reference. Takes fd over. */
static int enter(struct posix_fs *fs, struct posix_node *parent, const char *name, int fd, struct sm_fs_entry *ret)
{
	struct posix_node *node;
	struct stat host;
	int r;

	*ret = (struct sm_fs_entry){.entry_valid_ns = fs->options.valid_ns, .attr_valid_ns = fs->options.valid_ns};
	if (fstatat(fd, "", &host, AT_EMPTY_PATH) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	if (S_ISLNK(host.st_mode) && fs->options.symlinks == FUSE_POSIX_DENY) {
		close(fd);
		return -EACCES;
	}
	ret->attr = host;
	ret->submount = host.st_dev != parent->dev && S_ISDIR(host.st_mode);
	r = posix_show(fs, fd, &ret->attr);
	if (r < 0) {
		close(fd);
		return r;
	}
	r = posix_node_enter(fs, parent, name, fd, &host, &node);
	if (r < 0)
		return r;
	ret->nodeid = node->id;
	posix_fd_put(fs, node);
	return 0;
}

int posix_find(struct posix_fs *fs, struct posix_node *parent, int parent_fd, const char *name, struct sm_fs_entry *ret)
{
	int fd = openat(parent_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? -errno : enter(fs, parent, name, fd, ret);
}

static int posix_lookup(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent_id, const char *name,
			struct sm_fs_entry *ret)
{
	struct posix_fs *fs = posix_fs_of(be);
	struct posix_node *parent;
	int r, fd = posix_fd_get(fs, parent_id, &parent);

	if (fd < 0)
		return fd;
	r = posix_find(fs, parent, fd, name, ret);
	posix_fd_put(fs, parent);
	if (r == -ENOENT && fs->options.valid_ns) { /* absent, and that holds for as long as anything else */
		*ret = (struct sm_fs_entry){.entry_valid_ns = fs->options.valid_ns};
		return 0;
	}
	return r;
}

static void posix_forget(struct sm_fs_backend *be, uint64_t id, uint64_t count)
{
	posix_node_forget(posix_fs_of(be), id, count);
}

/* -------------------------------------------------------------------------------------------- attributes */

static int posix_getattr(struct sm_fs_backend *be, uint64_t id, bool has_fh, uint64_t fh, struct stat *ret,
			 uint64_t *ret_valid)
{
	struct posix_fs *fs = posix_fs_of(be);
	struct posix_node *node;
	int r, fd = posix_fd_get(fs, id, &node);

	*ret_valid = fs->options.valid_ns;
	if (fd == -ESTALE && has_fh) /* unlinked, but open */
		return fstat((int)fh, ret) < 0 ? -errno : posix_show(fs, (int)fh, ret);
	if (fd < 0)
		return fd;
	r = show(fs, fd, ret);
	posix_fd_put(fs, node);
	return r;
}

static int set_size(struct posix_fs *fs, struct posix_node *node, int path_fd, bool has_fh, uint64_t fh, off_t size)
{
	_fd_ int fd = -1;

	if (!S_ISREG(node->type))
		return S_ISDIR(node->type) ? -EISDIR : -EINVAL;
	if (has_fh && ftruncate((int)fh, size) == 0)
		return 0;
	fd = open(posix_proc_path(path_fd).path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	return fd < 0 || ftruncate(fd, size) < 0 ? -errno : 0;
}

static int set_times(int path_fd, uint32_t set, const struct stat *in)
{
	struct timespec ts[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};

	if (set & SM_FS_SET_ATIME)
		ts[0] = in->st_atim;
	if (set & SM_FS_SET_MTIME)
		ts[1] = in->st_mtim;
	if (set & SM_FS_SET_ATIME_NOW)
		ts[0].tv_nsec = UTIME_NOW;
	if (set & SM_FS_SET_MTIME_NOW)
		ts[1].tv_nsec = UTIME_NOW;
	return utimensat(path_fd, "", ts, AT_EMPTY_PATH) < 0 ? -errno : 0;
}

/* What the peer wants to see after this setattr, from what it sees now. */
static void apply_shown(struct stat *shown, uint32_t set, const struct stat *in)
{
	if (set & SM_FS_SET_UID)
		shown->st_uid = in->st_uid;
	if (set & SM_FS_SET_GID)
		shown->st_gid = in->st_gid;
	if (set & SM_FS_SET_KILL_SUIDGID) {
		shown->st_mode &= ~(mode_t)S_ISUID;
		if (shown->st_mode & S_IXGRP)
			shown->st_mode &= ~(mode_t)S_ISGID;
	}
	if (set & SM_FS_SET_MODE)
		shown->st_mode = (shown->st_mode & S_IFMT) | (in->st_mode & 07777);
}

static int host_chmod(struct posix_node *node, int path_fd, mode_t mode)
{
	if (S_ISLNK(node->type))
		return -EOPNOTSUPP;
	return chmod(posix_proc_path(path_fd).path, mode) < 0 ? -errno : 0;
}

/* FUSE_POSIX_SAME: the host's file gets them. */
static int set_owner_same(struct posix_node *node, int path_fd, uint32_t set, const struct stat *shown)
{
	uid_t uid = set & SM_FS_SET_UID ? shown->st_uid : (uid_t)-1;
	gid_t gid = set & SM_FS_SET_GID ? shown->st_gid : (gid_t)-1;

	if (set & (SM_FS_SET_UID | SM_FS_SET_GID) && fchownat(path_fd, "", uid, gid, AT_EMPTY_PATH) < 0)
		return -errno;
	if (set & (SM_FS_SET_MODE | SM_FS_SET_KILL_SUIDGID))
		return host_chmod(node, path_fd, shown->st_mode & 07777);
	return 0;
}

/* FUSE_POSIX_CALLER: the permission bits reach the host, the rest is kept beside. */
static int set_owner_kept(struct posix_fs *fs, struct posix_node *node, int path_fd, uint32_t set,
			  const struct stat *shown)
{
	int r = 0;

	if (!S_ISREG(node->type) &&
	    !S_ISDIR(node->type)) /* nowhere to keep it; a chown of a link must not fail an unpacking */
		return set & SM_FS_SET_MODE ? -EOPNOTSUPP : 0;
	if (set & SM_FS_SET_MODE)
		r = host_chmod(node, path_fd, posix_host_mode(fs, shown->st_mode));
	return r < 0 ? r : posix_keep(fs, path_fd, shown);
}

static int set_owner(struct posix_fs *fs, struct posix_node *node, int path_fd, uint32_t set, const struct stat *in)
{
	const uint32_t ours = SM_FS_SET_MODE | SM_FS_SET_UID | SM_FS_SET_GID | SM_FS_SET_KILL_SUIDGID;
	struct stat shown;
	mode_t before;
	int r;

	if (!(set & ours))
		return 0;
	r = show(fs, path_fd, &shown);
	if (r < 0)
		return r;
	before = shown.st_mode;
	apply_shown(&shown, set, in);
	if (!(set & ~SM_FS_SET_KILL_SUIDGID & ours) && shown.st_mode == before)
		return 0;
	return fs->options.ids == FUSE_POSIX_SAME ? set_owner_same(node, path_fd, set, &shown)
						  : set_owner_kept(fs, node, path_fd, set, &shown);
}

static int posix_setattr(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, bool has_fh,
			 uint64_t fh, uint32_t set, const struct stat *in, struct stat *ret, uint64_t *ret_valid)
{
	struct posix_fs *fs = posix_fs_of(be);
	struct posix_node *node;
	int r = 0, fd;

	*ret_valid = fs->options.valid_ns;
	if (fs->options.read_only)
		return -EROFS;
	fd = posix_fd_get(fs, id, &node);
	if (fd < 0)
		return fd;
	if (set & SM_FS_SET_SIZE)
		r = set_size(fs, node, fd, has_fh, fh, in->st_size);
	if (r == 0)
		r = set_owner(fs, node, fd, set, in);
	if (r == 0 && set & (SM_FS_SET_ATIME | SM_FS_SET_MTIME | SM_FS_SET_ATIME_NOW | SM_FS_SET_MTIME_NOW))
		r = set_times(fd, set, in);
	if (r == 0)
		r = show(fs, fd, ret);
	posix_fd_put(fs, node);
	return r;
}

static ssize_t posix_readlink(struct sm_fs_backend *be, uint64_t id, char *buf, size_t size)
{
	struct posix_fs *fs = posix_fs_of(be);
	struct posix_node *node;
	int fd = posix_fd_get(fs, id, &node);
	ssize_t n;

	if (fd < 0)
		return fd;
	n = readlinkat(fd, "", buf, size);
	n = n < 0 ? (errno == ENOENT ? -EINVAL : -errno) : n;
	posix_fd_put(fs, node);
	return n;
}

static int posix_statfs(struct sm_fs_backend *be, uint64_t id, struct statvfs *ret)
{
	struct posix_fs *fs = posix_fs_of(be);
	struct posix_node *node;
	int r, fd = posix_fd_get(fs, id, &node);

	if (fd < 0)
		return fd;
	r = fstatvfs(fd, ret) < 0 ? -errno : 0;
	posix_fd_put(fs, node);
	return r;
}

/* ----------------------------------------------------------------------------------------------- making */

/* What a new file is to look like to the peer. A setgid directory hands its group down, and setgid itself to
 * directories. */
static int wanted_stat(struct posix_fs *fs, const struct sm_fs_caller *who, int parent_fd, mode_t mode, dev_t rdev,
		       struct stat *ret)
{
	struct stat parent;
	int r = show(fs, parent_fd, &parent);

	*ret = (struct stat){.st_mode = mode, .st_uid = who->uid, .st_gid = who->gid, .st_rdev = rdev};
	if (r == 0 && parent.st_mode & S_ISGID) {
		ret->st_gid = parent.st_gid;
		ret->st_mode |= S_ISDIR(mode) ? S_ISGID : 0;
	}
	return r;
}

/* Gives a file just made (O_PATH or open descriptor) the owner and mode that the peer is to see. */
static int dress(struct posix_fs *fs, int fd, const struct stat *want)
{
	struct stat now;

	if (fs->options.ids == FUSE_POSIX_SAME) {
		if (fchownat(fd, "", want->st_uid, want->st_gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0)
			return -errno;
		if (S_ISLNK(want->st_mode))
			return 0;
		return chmod(posix_proc_path(fd).path, want->st_mode & 07777) < 0 ? -errno : 0;
	}
	if (S_ISLNK(want->st_mode))
		return 0;
	if (chmod(posix_proc_path(fd).path, posix_host_mode(fs, want->st_mode)) < 0 ||
	    fstatat(fd, "", &now, AT_EMPTY_PATH) < 0)
		return -errno;
	/* The common case, a plain file of the peer's root, looks right without an attribute. */
	if (now.st_mode == want->st_mode && want->st_uid == 0 && want->st_gid == 0 && now.st_uid == fs->uid &&
	    now.st_gid == fs->gid)
		return 0;
	return posix_keep(fs, fd, want);
}

/* The shared tail of the makers: what was just made under its name becomes an entry; on failure the name goes again. */
static int finish_made(struct posix_fs *fs, struct posix_node *parent, int parent_fd, const char *name,
		       const struct stat *want, struct sm_fs_entry *ret)
{
	int r, fd = openat(parent_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	r = dress(fs, fd, want);
	if (r < 0) {
		close(fd);
		unlinkat(parent_fd, name, S_ISDIR(want->st_mode) ? AT_REMOVEDIR : 0);
		return r;
	}
	return enter(fs, parent, name, fd, ret);
}

static int make_on_host(struct posix_fs *fs, int parent_fd, const char *name, const struct stat *want,
			const char *target)
{
	mode_t mode = posix_host_mode(fs, want->st_mode);
	mode_t type = want->st_mode & S_IFMT;
	int fd;

	if (type == S_IFLNK)
		return symlinkat(target, parent_fd, name) < 0 ? -errno : 0;
	if (type == S_IFDIR)
		return mkdirat(parent_fd, name, mode) < 0 ? -errno : 0;
	if (fs->options.ids == FUSE_POSIX_SAME)
		return mknodat(parent_fd, name, type | mode, want->st_rdev) < 0 ? -errno : 0;
	fd = openat(parent_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

static int make(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent_id, const char *name,
		mode_t mode, dev_t rdev, const char *target, struct sm_fs_entry *ret)
{
	struct posix_fs *fs = posix_fs_of(be);
	struct posix_node *parent;
	struct stat want;
	int r, fd;

	if (fs->options.read_only)
		return -EROFS;
	fd = posix_fd_get(fs, parent_id, &parent);
	if (fd < 0)
		return fd;
	r = wanted_stat(fs, who, fd, mode, rdev, &want);
	if (r == 0)
		r = make_on_host(fs, fd, name, &want, target);
	if (r == 0)
		r = finish_made(fs, parent, fd, name, &want, ret);
	posix_fd_put(fs, parent);
	return r;
}

static int posix_symlink(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
			 const char *target, struct sm_fs_entry *ret)
{
	if (posix_fs_of(be)->options.symlinks == FUSE_POSIX_DENY)
		return -EPERM;
	return make(be, who, parent, name, S_IFLNK | 0777, 0, target, ret);
}

static int posix_mknod(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
		       uint32_t mode, uint32_t rdev, struct sm_fs_entry *ret)
{
	mode_t type = mode & S_IFMT;

	if (type != S_IFREG && type != S_IFIFO && type != S_IFSOCK && type != S_IFCHR && type != S_IFBLK)
		return -EINVAL;
	return make(be, who, parent, name, type | (mode & 07777 & ~who->umask), rdev, NULL, ret);
}

static int posix_mkdir(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
		       uint32_t mode, struct sm_fs_entry *ret)
{
	return make(be, who, parent, name, S_IFDIR | (mode & 01777 & ~who->umask), 0, NULL, ret);
}

/* A new file, exclusively: whatever has the name already, a racing link included, is left alone. */
static int create_new(struct posix_fs *fs, const struct sm_fs_caller *who, struct posix_node *parent, int parent_fd,
		      const char *name, uint32_t mode, uint32_t flags, struct sm_fs_entry *ret,
		      struct sm_fs_open *ret_open)
{
	struct posix_node *node;
	struct stat want;
	int fd, r = wanted_stat(fs, who, parent_fd, S_IFREG | (mode & 07777 & ~who->umask), 0, &want);

	if (r < 0)
		return r;
	fd = openat(parent_fd, name,
		    (int)(flags & (O_ACCMODE | O_SYNC | O_DSYNC)) | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
		    posix_host_mode(fs, want.st_mode));
	if (fd < 0)
		return -errno;
	r = finish_made(fs, parent, parent_fd, name, &want, ret);
	if (r == 0) {
		int path_fd = posix_fd_get(fs, ret->nodeid, &node);

		r = path_fd < 0 ? path_fd : posix_open_done(fs, node, fd, ret_open);
		if (path_fd >= 0)
			posix_fd_put(fs, node);
		if (r < 0)
			posix_node_forget(fs, ret->nodeid, 1);
	}
	if (r < 0)
		close(fd);
	return r;
}

static int open_existing(struct posix_fs *fs, struct posix_node *parent, int parent_fd, const char *name,
			 uint32_t flags, struct sm_fs_entry *ret, struct sm_fs_open *ret_open)
{
	struct posix_node *node;
	int path_fd, r = posix_find(fs, parent, parent_fd, name, ret);

	if (r < 0)
		return r;
	path_fd = posix_fd_get(fs, ret->nodeid, &node);
	r = path_fd < 0 ? path_fd : posix_open_node(fs, node, path_fd, flags, ret_open);
	if (r == 0 && flags & O_TRUNC)
		r = show(fs, path_fd, &ret->attr);
	if (path_fd >= 0)
		posix_fd_put(fs, node);
	if (r < 0)
		posix_node_forget(fs, ret->nodeid, 1);
	return r;
}

static int posix_create(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent_id, const char *name,
			uint32_t mode, uint32_t flags, struct sm_fs_entry *ret, struct sm_fs_open *ret_open)
{
	struct posix_fs *fs = posix_fs_of(be);
	struct posix_node *parent;
	int r, fd;

	if (fs->options.read_only)
		return -EROFS;
	fd = posix_fd_get(fs, parent_id, &parent);
	if (fd < 0)
		return fd;
	r = posix_open_count(fs);
	if (r == 0) {
		r = create_new(fs, who, parent, fd, name, mode, flags, ret, ret_open);
		if (r < 0)
			posix_open_uncount(fs);
	}
	if (r == -EEXIST && !(flags & O_EXCL))
		r = open_existing(fs, parent, fd, name, flags, ret, ret_open);
	posix_fd_put(fs, parent);
	return r;
}

static int posix_link(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, uint64_t parent_id,
		      const char *name, struct sm_fs_entry *ret)
{
	struct posix_fs *fs = posix_fs_of(be);
	struct posix_node *node, *parent;
	int r = 0, fd, parent_fd;

	if (fs->options.read_only)
		return -EROFS;
	fd = posix_fd_get(fs, id, &node);
	if (fd < 0)
		return fd;
	parent_fd = posix_fd_get(fs, parent_id, &parent);
	if (parent_fd < 0) {
		posix_fd_put(fs, node);
		return parent_fd;
	}
	/* By /proc: AT_EMPTY_PATH would need a privilege. A link's own entry there is the link itself, not its target.
	 */
	if (linkat(AT_FDCWD, posix_proc_path(fd).path, parent_fd, name, AT_SYMLINK_FOLLOW) < 0)
		r = -errno;
	if (r == 0)
		r = posix_find(fs, parent, parent_fd, name, ret);
	posix_fd_put(fs, parent);
	posix_fd_put(fs, node);
	return r;
}

/* ------------------------------------------------------------------------------------ removing and moving */

static int remove_name(struct sm_fs_backend *be, uint64_t parent_id, const char *name, int flags)
{
	struct posix_fs *fs = posix_fs_of(be);
	struct posix_node *parent;
	int r = 0, fd;

	if (fs->options.read_only)
		return -EROFS;
	fd = posix_fd_get(fs, parent_id, &parent);
	if (fd < 0)
		return fd;
	if (unlinkat(fd, name, flags) < 0)
		r = -errno;
	posix_fd_put(fs, parent);
	return r;
}

static int posix_unlink(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name)
{
	return remove_name(be, parent, name, 0);
}

static int posix_rmdir(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name)
{
	return remove_name(be, parent, name, AT_REMOVEDIR);
}

/* Tells the table where a name's file now is, so that it can be found again by name. */
static void note_name(struct posix_fs *fs, struct posix_node *parent, int parent_fd, const char *name)
{
	struct stat st;

	if (fstatat(parent_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		posix_node_renamed(fs, parent, name, st.st_dev, st.st_ino);
}

static int posix_rename(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent_id, const char *name,
			uint64_t new_parent_id, const char *new_name, uint32_t flags)
{
	struct posix_fs *fs = posix_fs_of(be);
	struct posix_node *from, *to;
	int r = 0, from_fd, to_fd;

	if (fs->options.read_only)
		return -EROFS;
	if (flags & RENAME_WHITEOUT && fs->options.ids == FUSE_POSIX_CALLER)
		return -EINVAL; /* it would leave a device on the host */
	from_fd = posix_fd_get(fs, parent_id, &from);
	if (from_fd < 0)
		return from_fd;
	to_fd = posix_fd_get(fs, new_parent_id, &to);
	if (to_fd < 0) {
		posix_fd_put(fs, from);
		return to_fd;
	}
	if (renameat2(from_fd, name, to_fd, new_name, flags) < 0)
		r = -errno;
	if (r == 0)
		note_name(fs, to, to_fd, new_name);
	if (r == 0 && flags & RENAME_EXCHANGE)
		note_name(fs, from, from_fd, name);
	posix_fd_put(fs, to);
	posix_fd_put(fs, from);
	return r;
}

static void posix_destroy(struct sm_fs_backend *be)
{
	posix_node_forget_all(posix_fs_of(be));
}

const struct sm_fs_ops posix_ops = {
	.size = sizeof(posix_ops),
	.destroy = posix_destroy,
	.lookup = posix_lookup,
	.forget = posix_forget,
	.getattr = posix_getattr,
	.setattr = posix_setattr,
	.readlink = posix_readlink,
	.symlink = posix_symlink,
	.mknod = posix_mknod,
	.mkdir = posix_mkdir,
	.link = posix_link,
	.create = posix_create,
	.unlink = posix_unlink,
	.rmdir = posix_rmdir,
	.rename = posix_rename,
	.open = posix_open,
	.read = posix_read,
	.write = posix_write,
	.release = posix_release,
	.fsync = posix_fsync,
	.fsyncdir = posix_fsyncdir,
	.opendir = posix_opendir,
	.readdir = posix_readdir,
	.releasedir = posix_releasedir,
	.statfs = posix_statfs,
	.getxattr = posix_getxattr,
	.listxattr = posix_listxattr,
	.setxattr = posix_setxattr,
	.removexattr = posix_removexattr,
	.fallocate = posix_fallocate_op,
	.lseek = posix_lseek,
	.copy_file_range = posix_copy_file_range,
	.dax_map = posix_dax_map,
	.watch = posix_watch,
};
