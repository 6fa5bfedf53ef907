/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the posix backend makes: files, directories, links, nodes.
 *
 * Everything is made exclusively: whatever has the name already, a racing link included, is left alone. Then it gets
 * the owner and mode that the peer is to see, on a descriptor; the common case, where it looks right at once, costs
 * nothing more. POSIX ACLs are not spoken of with the peer: a default ACL of a host directory acts on what is made in
 * it as the host's kernel does it, then the mode asked for is set.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "fuse/posix_node.h"

/* A setgid directory hands its group down, and setgid itself to directories. The parent's own attributes may be kept;
 * else they are the host's, as *want then is. */
static int inherit(struct posix_fs *fs, const struct posix_node *parent, struct stat *want)
{
	struct posix_kept kept = {0};
	struct posix_seen seen;
	int r = posix_node_see(fs, parent->id, &seen, &kept);

	if (r < 0)
		return r;
	if (posix_keeps(fs))
		posix_apply_kept(fs, &kept, &seen.st);
	if (seen.st.st_mode & S_ISGID) {
		want->st_gid = seen.st.st_gid;
		want->st_mode |= S_ISDIR(want->st_mode) ? S_ISGID : 0;
	}
	return 0;
}

/* Sets the mode where the process's umask, an ACL or a chown changed it. */
static int fix_mode(int fd, mode_t mode, struct posix_seen *seen)
{
	if ((seen->st.st_mode & 07777) == mode)
		return 0;
	if (chmod(posix_proc_path(fd).path, mode) < 0)
		return -errno;
	return posix_see(fd, "", seen);
}

/* Owners are the host's. */
static int dress_host(struct posix_fs *fs, const struct posix_node *parent, int fd, struct stat *want,
		      struct posix_seen *seen)
{
	int r;

	if (fs->options.ids == FUSE_POSIX_NONE) {
		want->st_uid = seen->st.st_uid;
		want->st_gid = seen->st.st_gid;
	} else if (!posix_ids_to_host(fs, &want->st_uid, &want->st_gid)) {
		return -EOVERFLOW;
	}
	/* The host's kernel has seen to the group of a setgid directory; it is asked for only where that makes a
	 * difference. */
	if (seen->st.st_gid != want->st_gid || S_ISDIR(want->st_mode)) {
		r = inherit(fs, parent, want);
		if (r < 0)
			return r;
	}
	if (seen->st.st_uid != want->st_uid || seen->st.st_gid != want->st_gid) {
		if (fchownat(fd, "", want->st_uid, want->st_gid, AT_EMPTY_PATH) < 0)
			return -errno;
		r = posix_see(fd, "", seen);
		if (r < 0)
			return r;
	}
	return S_ISLNK(want->st_mode) ? 0 : fix_mode(fd, posix_host_mode(fs, want->st_mode), seen);
}

static int dress_kept(struct posix_fs *fs, const struct posix_node *parent, int fd, struct stat *want,
		      struct posix_seen *seen, struct posix_kept *kept)
{
	int r;

	*kept = (struct posix_kept){.ctime = seen->st.st_ctim};
	if (S_ISLNK(want->st_mode)) /* it can have no attribute */
		return 0;
	r = inherit(fs, parent, want);
	if (r == 0)
		r = fix_mode(fd, posix_host_mode(fs, want->st_mode), seen);
	if (r < 0)
		return r;
	/* The common case, a plain file of the peer's root, looks right without an attribute. */
	if (seen->st.st_mode == want->st_mode && want->st_uid == 0 && want->st_gid == 0 && seen->st.st_uid == fs->uid &&
	    seen->st.st_gid == fs->gid) {
		kept->ctime = posix_times_tell(fs, &seen->st) ? seen->st.st_ctim : (struct timespec){0};
		return 0;
	}
	r = posix_keep(fs, fd, want);
	if (r == 0)
		r = posix_see(fd, "", seen);
	if (r == 0)
		posix_read_kept(fs, fd, &seen->st, kept);
	return r;
}

/* Gives a file just made the owner and mode that the peer is to see; *seen: how it is then. */
static int dress(struct posix_fs *fs, const struct posix_node *parent, int fd, struct stat *want,
		 struct posix_seen *seen, struct posix_kept *kept)
{
	int r = posix_see(fd, "", seen);

	if (r < 0)
		return r;
	return posix_keeps(fs) ? dress_kept(fs, parent, fd, want, seen, kept) : dress_host(fs, parent, fd, want, seen);
}

/* The shared tail of the makers: what was just made under its name becomes an entry; on failure the name goes again. */
static int finish_made(struct posix_fs *fs, struct posix_node *parent, int parent_fd, const char *name,
		       struct stat *want, struct sm_fs_entry *ret)
{
	int r, fd = openat(parent_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct posix_kept kept = {0};
	struct posix_seen seen;

	if (fd < 0)
		return -errno;
	r = dress(fs, parent, fd, want, &seen, &kept);
	if (r < 0) {
		close(fd);
		unlinkat(parent_fd, name, S_ISDIR(want->st_mode) ? AT_REMOVEDIR : 0);
		return r;
	}
	return posix_enter(fs, parent, name, fd, &seen, posix_keeps(fs) ? &kept : NULL, ret);
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
	if (fs->options.ids != FUSE_POSIX_SAME && !posix_keeps(fs) && (type == S_IFCHR || type == S_IFBLK))
		return -EPERM;
	if (!posix_keeps(fs))
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
	struct stat want = {.st_mode = mode, .st_uid = who->uid, .st_gid = who->gid, .st_rdev = rdev};
	struct posix_fs *fs = posix_fs_of(be);
	struct posix_node *parent;
	int r, fd;

	if (fs->options.read_only)
		return -EROFS;
	fd = posix_fd_get(fs, parent_id, &parent);
	if (fd < 0)
		return fd;
	r = make_on_host(fs, fd, name, &want, target);
	if (r == 0)
		r = finish_made(fs, parent, fd, name, &want, ret);
	posix_fd_put(fs, parent);
	return r;
}

int posix_symlink(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
		  const char *target, struct sm_fs_entry *ret)
{
	if (posix_fs_of(be)->options.symlinks == FUSE_POSIX_DENY)
		return -EPERM;
	return make(be, who, parent, name, S_IFLNK | 0777, 0, target, ret);
}

int posix_mknod(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
		uint32_t mode, uint32_t rdev, struct sm_fs_entry *ret)
{
	mode_t type = mode & S_IFMT;

	if (type != S_IFREG && type != S_IFIFO && type != S_IFSOCK && type != S_IFCHR && type != S_IFBLK)
		return -EINVAL;
	return make(be, who, parent, name, type | (mode & 07777 & ~who->umask), rdev, NULL, ret);
}

int posix_mkdir(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
		uint32_t mode, struct sm_fs_entry *ret)
{
	return make(be, who, parent, name, S_IFDIR | (mode & 01777 & ~who->umask), 0, NULL, ret);
}

/* ------------------------------------------------------------------------------------------- open files */

/* A regular file just made and open becomes an entry (its name, if it has one, is right) and a handle. fd stays the
 * caller's on failure. */
static int finish_open(struct posix_fs *fs, struct posix_node *parent, const char *name, int fd, struct stat *want,
		       uint32_t flags, struct sm_fs_entry *ret, struct sm_fs_open *ret_open)
{
	struct posix_kept kept = {0};
	struct posix_seen seen;
	int r = dress(fs, parent, fd, want, &seen, &kept), path_fd = -1;

	/* Without a name, or where only holding it tells which file it is, the node needs a descriptor of its own. */
	if (r == 0 && (!name || !seen.birth))
		r = path_fd = posix_reopen(fs, fd, O_PATH);
	if (r < 0)
		return r;
	r = posix_enter(fs, name ? parent : NULL, name, path_fd, &seen, posix_keeps(fs) ? &kept : NULL, ret);
	if (r < 0)
		return r;
	r = posix_open_done(fs, ret->nodeid, fd, flags, &seen.st, ret_open);
	if (r < 0)
		posix_node_forget(fs, ret->nodeid, 1);
	else
		posix_file_of(ret_open->fh)->without = 1; /* as long as the peer gave no file any */
	return r;
}

static int create_new(struct posix_fs *fs, const struct sm_fs_caller *who, struct posix_node *parent, int parent_fd,
		      const char *name, uint32_t mode, uint32_t flags, struct sm_fs_entry *ret,
		      struct sm_fs_open *ret_open)
{
	struct stat want = {.st_mode = S_IFREG | (mode & 07777 & ~who->umask), .st_uid = who->uid, .st_gid = who->gid};
	int r, fd = openat(parent_fd, name,
			   (posix_host_flags(flags) & ~O_TRUNC) | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
			   posix_host_mode(fs, want.st_mode));

	if (fd < 0)
		return -errno;
	r = finish_open(fs, parent, name, fd, &want, flags, ret, ret_open);
	if (r < 0) {
		close(fd);
		unlinkat(parent_fd, name, 0);
	}
	return r;
}

static int open_existing(struct posix_fs *fs, const struct sm_fs_caller *who, struct posix_node *parent, int parent_fd,
			 const char *name, uint32_t flags, struct sm_fs_entry *ret, struct sm_fs_open *ret_open)
{
	struct posix_node *node;
	struct posix_seen seen;
	int path_fd, r = posix_find(fs, who, parent, parent_fd, name, ret);

	if (r < 0)
		return r;
	path_fd = posix_fd_get(fs, ret->nodeid, &node);
	r = path_fd < 0 ? path_fd : posix_open_node(fs, node, path_fd, flags, ret_open);
	if (r == 0 && flags & O_TRUNC && posix_see(path_fd, "", &seen) == 0) {
		posix_show(fs, node, path_fd, &seen.st);
		ret->attr = seen.st;
	}
	if (path_fd >= 0)
		posix_fd_put(fs, node);
	if (r < 0)
		posix_node_forget(fs, ret->nodeid, 1);
	return r;
}

int posix_create(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent_id, const char *name,
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
		r = open_existing(fs, who, parent, fd, name, flags, ret, ret_open);
	posix_fd_put(fs, parent);
	return r;
}

int posix_tmpfile(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent_id, uint32_t mode,
		  uint32_t flags, struct sm_fs_entry *ret, struct sm_fs_open *ret_open)
{
	struct stat want = {.st_mode = S_IFREG | (mode & 07777 & ~who->umask), .st_uid = who->uid, .st_gid = who->gid};
	struct posix_fs *fs = posix_fs_of(be);
	struct posix_node *parent;
	int r, fd, parent_fd;

	if (fs->options.read_only)
		return -EROFS;
	parent_fd = posix_fd_get(fs, parent_id, &parent);
	if (parent_fd < 0)
		return parent_fd;
	r = posix_open_count(fs);
	if (r == 0) {
		/* O_EXCL: may never get a name. The host wants it writable, whatever the peer opens it for. */
		fd = openat(parent_fd, ".",
			    (posix_host_flags(flags) & ~(O_TRUNC | O_ACCMODE)) | O_RDWR | O_TMPFILE |
				    (int)(flags & O_EXCL) | O_CLOEXEC,
			    posix_host_mode(fs, want.st_mode));
		r = fd < 0 ? -errno : finish_open(fs, parent, NULL, fd, &want, flags, ret, ret_open);
		if (r < 0) {
			fd_close(fd);
			posix_open_uncount(fs);
		}
	}
	posix_fd_put(fs, parent);
	return r == -EISDIR ? -EOPNOTSUPP : r; /* a file system without such files takes "." for a directory */
}
