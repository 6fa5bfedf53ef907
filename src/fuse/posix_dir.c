/* SPDX-License-Identifier: Apache-2.0 */
/* Open directories of the posix backend. Offsets are the host file system's own cookies, so a listing can go on
 * anywhere; where those do not last, numbers in a listing that was taken at once. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "fuse/posix_listing.h"
#include "fuse/posix_node.h"

struct open_dir {
	pthread_mutex_t lock; /* the peer may read one handle from two threads */
	DIR *dir;
	off_t at;		   /* the offset that was come to */
	const struct dirent *kept; /* the entry behind it: read, but the last answer had no room for it */
	bool at_once, listed;	   /* it is to be taken at once (posix_listing.h); and was */
	struct listing all;
};

static struct open_dir *open_dir_of(uint64_t fh)
{
	return (struct open_dir *)(uintptr_t)fh;
}

/* The listing may be cached where anything may be, and kept if the directory is as it was when the last one was begun.
 */
static uint32_t cache_flags(struct posix_fs *fs, uint64_t id, int fd)
{
	struct stat st;

	if (!fs->options.valid_ns || fstat(fd, &st) < 0)
		return 0;
	return SM_FS_OPEN_CACHE_DIR | (posix_node_shown(fs, id, &st) ? SM_FS_OPEN_KEEP_CACHE : 0);
}

int posix_opendir(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, struct sm_fs_open *ret)
{
	struct posix_fs *fs = posix_fs_of(be);
	struct open_dir *od = calloc(1, sizeof(*od));
	struct posix_node *node;
	int path_fd = od ? posix_fd_get(fs, id, &node) : -ENOMEM, fd, r;

	if (path_fd < 0) {
		free(od);
		return path_fd;
	}
	r = S_ISDIR(node->type) ? posix_open_count(fs) : -ENOTDIR;
	if (r == 0) {
		fd = openat(path_fd, ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		od->dir = fd >= 0 ? fdopendir(fd) : NULL;
		if (!od->dir) {
			r = -errno;
			fd_close(fd);
			posix_open_uncount(fs);
		}
	}
	if (r == 0) {
		pthread_mutex_init(&od->lock, NULL);
		od->at_once = listing_needed(fd);
		*ret = (struct sm_fs_open){.fh = (uint64_t)(uintptr_t)od, .flags = cache_flags(fs, id, fd)};
		r = posix_node_opened(fs, id, NULL); /* it is pinned, and so there */
	} else {
		free(od);
	}
	posix_fd_put(fs, node);
	return r;
}

void posix_releasedir(struct sm_fs_backend *be, uint64_t id, uint64_t fh)
{
	struct posix_fs *fs = posix_fs_of(be);
	struct open_dir *od = open_dir_of(fh);

	listing_drop(fs, &od->all);
	closedir(od->dir);
	pthread_mutex_destroy(&od->lock);
	free(od);
	posix_open_uncount(fs);
	posix_node_closed(fs, id, NULL);
}

int posix_fsyncdir(struct sm_fs_backend *be, uint64_t id, uint64_t fh, bool data_only)
{
	return fsync(dirfd(open_dir_of(fh)->dir)) < 0 ? -errno : 0;
}

/* Where types are kept beside empty files (posix_stat.c), the peer has to ask for those. */
static uint32_t listed_type(const struct posix_fs *fs, int path_fd, const struct dirent *de)
{
	struct stat st;

	if (fs->options.symlinks == FUSE_POSIX_FOLLOW && de->d_type == DT_LNK)
		return DT_UNKNOWN; /* what it leads to counts */

	if (!posix_keeps(fs) || de->d_type != DT_REG)
		return de->d_type;
	return fstatat(path_fd, de->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_size == 0 ? DT_UNKNOWN : DT_REG;
}

/* One entry; false when the listing ends here. An entry that vanished meanwhile, or may not be looked at, is listed
 * without attributes. */
static bool list_one(struct posix_fs *fs, const struct sm_fs_caller *who, struct posix_node *node, int path_fd,
		     const struct dirent *de, bool plus, sm_fs_add_dirent add, void *arg)
{
	struct sm_fs_entry e = {0};
	bool dots = streq(de->d_name, ".") || streq(de->d_name, "..");
	bool known = plus && !dots && posix_find(fs, who, node, path_fd, de->d_name, &e) == 0;
	uint32_t type = known ? IFTODT(e.attr.st_mode) : listed_type(fs, path_fd, de);
	bool added = add(arg, de->d_name, de->d_ino, type, (uint64_t)de->d_off, known ? &e : NULL);

	if (known && !added)
		posix_node_forget(fs, e.nodeid, 1);
	return added;
}

static void go_to(struct posix_fs *fs, struct open_dir *od, off_t off)
{
	od->kept = NULL;
	od->at = off;
	if (od->at_once && (off == 0 || !od->listed))
		od->listed = listing_take(fs, &od->all, od->dir) == 0;
	if (!od->listed)
		seekdir(od->dir, (long)off);
}

static const struct dirent *next_entry(struct open_dir *od)
{
	const struct dirent *de = od->kept;

	errno = 0;
	if (!de)
		de = od->listed ? listing_after(&od->all, od->at) : readdir(od->dir);
	od->kept = NULL;
	return de;
}

int posix_readdir(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, uint64_t fh, uint64_t off,
		  bool plus, sm_fs_add_dirent add, void *arg)
{
	struct posix_fs *fs = posix_fs_of(be);
	struct open_dir *od = open_dir_of(fh);
	struct posix_node *node;
	int path_fd = posix_fd_get(fs, id, &node), r = 0;

	if (path_fd < 0)
		return path_fd;
	pthread_mutex_lock(&od->lock);
	if (od->at != (off_t)off || off == 0) /* 0 also rewinds: names made since are to be seen */
		go_to(fs, od, (off_t)off);
	for (;;) {
		const struct dirent *de = next_entry(od);

		if (!de) {
			r = -errno;
			break;
		}
		if (!list_one(fs, who, node, path_fd, de, plus, add, arg)) {
			od->kept = de; /* readdir leaves it where it is until it is called again */
			break;
		}
		od->at = de->d_off;
	}
	pthread_mutex_unlock(&od->lock);
	posix_fd_put(fs, node);
	return r;
}

int posix_watch(struct sm_fs_backend *be, uint64_t id, int inotify_fd, uint32_t mask)
{
	struct posix_fs *fs = posix_fs_of(be);
	struct posix_node *node;
	int wd = -EREMOTE, fd;

	if (fs->options.symlinks == FUSE_POSIX_FOLLOW) /* where a link leads is decided in many directories */
		return -EOPNOTSUPP;
	fd = posix_fd_get(fs, id, &node);
	if (fd < 0)
		return fd;
	if (fd_raises_events(fd)) {
		wd = inotify_add_watch(inotify_fd, posix_proc_path(fd).path, mask);
		if (wd < 0)
			wd = -errno;
	}
	posix_fd_put(fs, node);
	return wd;
}
