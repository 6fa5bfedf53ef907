/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The posix backend: names, attributes, removing and moving. See posix.h; making is in posix_make.c.
 *
 * A look-up is one system call where owners are the host's, or known from before. Where they are kept
 * in an attribute, the file is opened (O_PATH) the first time: an attribute read by name might be another file's.
 */
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

/* ------------------------------------------------------------------------------------------------ lookup */

int posix_enter(struct posix_fs *fs, struct posix_node *parent, const char *name, int fd, const struct posix_seen *seen,
		const struct posix_kept *kept, struct sm_fs_entry *ret)
{
	*ret = (struct sm_fs_entry){.generation = fs->generation,
				    .entry_valid_ns = fs->options.valid_ns,
				    .attr_valid_ns = fs->options.valid_ns,
				    .attr = seen->st};
	if (S_ISLNK(seen->st.st_mode) && fs->options.symlinks == FUSE_POSIX_DENY) {
		fd_close(fd);
		return -EACCES;
	}
	ret->submount = parent && seen->st.st_dev != parent->dev && S_ISDIR(seen->st.st_mode);
	if (ret->submount) /* the kernel's inode for where another file system begins has none */
		ret->generation = 0;
	if (kept || !posix_keeps(fs))
		posix_apply_kept(fs, kept, &ret->attr);
	return posix_node_enter(fs, parent, name, fd, seen, kept, &ret->nodeid);
}

/* What can only be told of a file that is held: its owner, or (no time of birth) which one it is. */
static int find_held(struct posix_fs *fs, struct posix_node *parent, int parent_fd, const char *name, uint64_t view,
		     struct sm_fs_entry *ret)
{
	int r, fd = openat(parent_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct posix_kept kept;
	struct posix_seen seen;

	if (fd < 0)
		return -errno;
	r = posix_see(fd, "", &seen);
	if (r < 0) {
		close(fd);
		return r;
	}
	seen.view = view;
	if (!posix_keeps(fs))
		return posix_enter(fs, parent, name, fd, &seen, NULL, ret);
	posix_read_kept(fs, fd, &seen.st, &kept);
	return posix_enter(fs, parent, name, fd, &seen, &kept, ret);
}

int posix_find_seen(struct posix_fs *fs, struct posix_node *parent, int parent_fd, const char *name,
		    const struct posix_seen *seen, struct sm_fs_entry *ret)
{
	bool owners = posix_keeps(fs);
	struct posix_kept kept = {0};

	if (!seen->birth ||
	    (owners && (S_ISREG(seen->st.st_mode) || S_ISDIR(seen->st.st_mode)) && !posix_node_kept(fs, seen, &kept)))
		return find_held(fs, parent, parent_fd, name, seen->view, ret);
	return posix_enter(fs, parent, name, -1, seen, owners ? &kept : NULL, ret);
}

int posix_find(struct posix_fs *fs, const struct sm_fs_caller *who, struct posix_node *parent, int parent_fd,
	       const char *name, struct sm_fs_entry *ret)
{
	struct posix_seen seen;
	int r = posix_see(parent_fd, name, &seen);

	if (r < 0)
		return r;
	if (S_ISLNK(seen.st.st_mode) && fs->options.symlinks == FUSE_POSIX_FOLLOW)
		return posix_follow(fs, who, parent, parent_fd, name, &seen, ret);
	return posix_find_seen(fs, parent, parent_fd, name, &seen, ret);
}

static int posix_lookup(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent_id, const char *name,
			struct sm_fs_entry *ret)
{
	struct posix_fs *fs = posix_fs_of(be);
	struct posix_node *parent;
	int r, fd = posix_fd_get(fs, parent_id, &parent);

	if (fd < 0)
		return fd;
	r = posix_find(fs, who, parent, fd, name, ret);
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
	struct posix_kept kept = {0};
	struct posix_seen seen;
	int r = posix_node_see(fs, id, &seen, &kept);

	*ret_valid = fs->options.valid_ns;
	if (r < 0)
		return r;
	*ret = seen.st;
	posix_apply_kept(fs, &kept, ret);
	return 0;
}

static int posix_birth(struct sm_fs_backend *be, uint64_t id, struct timespec *ret)
{
	struct posix_kept kept = {0};
	struct posix_seen seen;
	int r = posix_node_see(posix_fs_of(be), id, &seen, &kept);

	if (r < 0 || !seen.birth)
		return r < 0 ? r : -EOPNOTSUPP;
	*ret = (struct timespec){.tv_sec = seen.birth / 1000000000, .tv_nsec = seen.birth % 1000000000};
	return 0;
}

static int set_size(struct posix_fs *fs, struct posix_node *node, int path_fd, bool has_fh, uint64_t fh, off_t size)
{
	_fd_ int fd = -1;

	if (!S_ISREG(node->type))
		return S_ISDIR(node->type) ? -EISDIR : -EINVAL;
	if (has_fh && ftruncate(posix_file_of(fh)->fd, size) == 0)
		return 0;
	fd = posix_reopen(fs, path_fd, O_WRONLY | O_NONBLOCK);
	if (fd < 0)
		return fd;
	return ftruncate(fd, size) < 0 ? -errno : 0;
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

/* FUSE_POSIX_NONE: whatever the server could do, also for the sake of another mount. */
static int owner_stays(int path_fd, uint32_t set, const struct stat *in)
{
	struct posix_seen seen;
	int r = posix_see(path_fd, "", &seen);

	if (r == 0 && ((set & SM_FS_SET_UID && in->st_uid != seen.st.st_uid) ||
		       (set & SM_FS_SET_GID && in->st_gid != seen.st.st_gid)))
		r = -EPERM;
	return r;
}

/* Unless owners are kept beside: the host's file gets them. */
static int set_owner_host(struct posix_fs *fs, struct posix_node *node, int path_fd, uint32_t set,
			  const struct stat *shown)
{
	uid_t uid = set & SM_FS_SET_UID ? shown->st_uid : (uid_t)-1;
	gid_t gid = set & SM_FS_SET_GID ? shown->st_gid : (gid_t)-1;
	mode_t mode = node->type | (shown->st_mode & 07777);
	int r = fs->options.ids == FUSE_POSIX_NONE ? owner_stays(path_fd, set, shown) : 0;

	if (r < 0)
		return r;
	if (!posix_ids_to_host(fs, set & SM_FS_SET_UID ? &uid : NULL, set & SM_FS_SET_GID ? &gid : NULL))
		return -EINVAL;
	if (set & SM_FS_SET_MODE && posix_host_mode(fs, mode) != (mode & 07777))
		return -EPERM;
	if (set & (SM_FS_SET_UID | SM_FS_SET_GID) && fchownat(path_fd, "", uid, gid, AT_EMPTY_PATH) < 0)
		return -errno;
	if (set & SM_FS_SET_MODE || (set & SM_FS_SET_KILL_SUIDGID && !S_ISLNK(node->type)))
		return host_chmod(node, path_fd, shown->st_mode & 07777);
	return 0;
}

/* Moves the change time and nothing else, as chown(2) to nobody does. */
static int touch_ctime(int path_fd)
{
	return fchownat(path_fd, "", (uid_t)-1, (gid_t)-1, AT_EMPTY_PATH) < 0 ? -errno : 0;
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
	if (r == 0)
		r = posix_keep(fs, path_fd, shown);
	/* What is kept may be what was kept: the change time has to move all the same. */
	return r < 0 ? r : touch_ctime(path_fd);
}

static int set_owner(struct posix_fs *fs, struct posix_node *node, int path_fd, uint32_t set, const struct stat *in)
{
	const uint32_t ours = SM_FS_SET_MODE | SM_FS_SET_UID | SM_FS_SET_GID | SM_FS_SET_KILL_SUIDGID;
	struct posix_seen seen;
	mode_t before;
	int r;

	if (!(set & ours))
		return 0;
	if (!posix_keeps(fs) && !(set & SM_FS_SET_KILL_SUIDGID))
		return set_owner_host(fs, node, path_fd, set, in);
	r = posix_see(path_fd, "", &seen);
	if (r < 0)
		return r;
	posix_show(fs, node, path_fd, &seen.st);
	before = seen.st.st_mode;
	apply_shown(&seen.st, set, in);
	if (!(set & ~SM_FS_SET_KILL_SUIDGID & ours) && seen.st.st_mode == before)
		return 0;
	return posix_keeps(fs) ? set_owner_kept(fs, node, path_fd, set, &seen.st)
			       : set_owner_host(fs, node, path_fd, set, &seen.st);
}

static int set_all(struct posix_fs *fs, struct posix_node *node, int fd, bool has_fh, uint64_t fh, uint32_t set,
		   const struct stat *in, struct stat *ret)
{
	struct posix_seen seen;
	bool shown = false;
	int r = 0;

	/* What the peer changes itself leaves what it has cached as right as it was. */
	if (S_ISREG(node->type) && posix_node_sure(fs, node) && posix_see(fd, "", &seen) == 0)
		shown = posix_node_unchanged(fs, node->id, &seen.st);
	if (set & SM_FS_SET_SIZE)
		r = set_size(fs, node, fd, has_fh, fh, in->st_size);
	if (r == 0)
		r = set_owner(fs, node, fd, set, in);
	if (r == 0 && S_ISREG(node->type) &&
	    set & (SM_FS_SET_SIZE | SM_FS_SET_UID | SM_FS_SET_GID | SM_FS_SET_KILL_SUIDGID))
		posix_drop_capabilities(fs, fd);
	if (r == 0 && set & (SM_FS_SET_ATIME | SM_FS_SET_MTIME | SM_FS_SET_ATIME_NOW | SM_FS_SET_MTIME_NOW))
		r = set_times(fd, set, in);
	if (!set) /* the peer's own chown(2) to nobody */
		r = touch_ctime(fd);
	if (r == 0)
		r = posix_see(fd, "", &seen);
	if (r < 0)
		return r;
	if (shown)
		posix_node_shown(fs, node->id, &seen.st);
	posix_show(fs, node, fd, &seen.st);
	*ret = seen.st;
	return 0;
}

static int posix_setattr(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, bool has_fh,
			 uint64_t fh, uint32_t set, const struct stat *in, struct stat *ret, uint64_t *ret_valid)
{
	struct posix_fs *fs = posix_fs_of(be);
	struct posix_node *node;
	int r, fd;

	*ret_valid = fs->options.valid_ns;
	if (fs->options.read_only)
		return -EROFS;
	/* Where the peer names an open file, that is the descriptor to do it with. */
	fd = has_fh ? posix_node_pin(fs, id, &node) : posix_fd_get(fs, id, &node);
	if (fd < 0)
		return fd;
	fd = has_fh ? posix_file_of(fh)->fd : fd;
	r = set_all(fs, node, fd, has_fh, fh, set, in, ret);
	posix_fd_put(fs, node);
	return r;
}

static ssize_t posix_readlink(struct sm_fs_backend *be, uint64_t id, char *buf, size_t size)
{
	struct posix_fs *fs = posix_fs_of(be);
	struct posix_node *node;
	ssize_t n;
	int fd;

	if (fs->options.symlinks == FUSE_POSIX_FOLLOW)
		return posix_follow_readlink(fs, id);
	fd = posix_fd_get(fs, id, &node);
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

static int posix_link(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, uint64_t parent_id,
		      const char *name, struct sm_fs_entry *ret)
{
	struct posix_fs *fs = posix_fs_of(be);
	struct posix_node *node, *parent;
	struct posix_seen seen;
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
		r = posix_see(parent_fd, name, &seen);
	if (r == 0)
		r = posix_find_seen(fs, parent, parent_fd, name, &seen, ret);
	posix_fd_put(fs, parent);
	posix_fd_put(fs, node);
	return r;
}

/* ------------------------------------------------------------------------------------ removing and moving */

static int remove_name(struct sm_fs_backend *be, uint64_t parent_id, const char *name, int flags)
{
	struct posix_fs *fs = posix_fs_of(be);
	struct posix_node *parent;
	struct posix_seen seen;
	int r = 0, fd;

	if (fs->options.read_only)
		return -EROFS;
	fd = posix_fd_get(fs, parent_id, &parent);
	if (fd < 0)
		return fd;
	if (unlinkat(fd, name, flags) < 0)
		r = -errno;
	/* What is a directory to the peer may be a link to one: that goes, as unlink(2) of a link to a file does. */
	if (r == -ENOTDIR && fs->options.symlinks == FUSE_POSIX_FOLLOW && posix_see(fd, name, &seen) == 0 &&
	    S_ISLNK(seen.st.st_mode))
		r = unlinkat(fd, name, 0) < 0 ? -errno : 0;
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
	struct posix_seen seen;

	if (posix_see(parent_fd, name, &seen) == 0)
		posix_node_renamed(fs, parent, name, &seen);
}

static int posix_rename(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent_id, const char *name,
			uint64_t new_parent_id, const char *new_name, uint32_t flags)
{
	struct posix_fs *fs = posix_fs_of(be);
	struct posix_node *from, *to;
	int r = 0, from_fd, to_fd;

	if (fs->options.read_only)
		return -EROFS;
	if (flags & RENAME_WHITEOUT && fs->options.ids != FUSE_POSIX_SAME)
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
	.tmpfile = posix_tmpfile,
	.unlink = posix_unlink,
	.rmdir = posix_rmdir,
	.rename = posix_rename,
	.open = posix_open,
	.read = posix_read,
	.write = posix_write,
	.release = posix_release,
	.fsync = posix_fsync,
	.fsyncdir = posix_fsyncdir,
	.syncfs = posix_syncfs,
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
	.birth = posix_birth,
};
