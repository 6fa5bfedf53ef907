/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Owners and modes of the posix backend. See enum fuse_posix_ids.
 *
 * The attribute user.supermachine.stat holds "v1 MODE UID GID RDEV" (octal, decimal, decimal, decimal): what the peer
 * set. User attributes exist on regular files and directories alone, so symbolic links always look as if the peer's
 * root had made them, and fifos, sockets and devices that the peer makes are regular files on the host that carry their
 * type here. A host file's own special type is never hidden.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>

#include "base/util.h"
#include "fuse/posix_node.h"

#define ATTRIBUTE "user.supermachine.stat"
#define TEXT_MAX 80
#define TICK_NS 11000000 /* a little more than at 100 Hz */

struct posix_proc posix_proc_path(int fd)
{
	struct posix_proc p;

	snprintf(p.path, sizeof(p.path), "/proc/self/fd/%d", fd);
	return p;
}

/* The text is the host's user's to edit, or another peer's: checked like any input. */
static bool parse_kept(const char *text, struct stat *ret)
{
	unsigned mode, uid, gid, rdev;
	int used = 0;

	if (sscanf(text, "v1 %o %u %u %u%n", &mode, &uid, &gid, &rdev, &used) != 4 || text[used] ||
	    mode & ~(unsigned)(S_IFMT | 07777))
		return false;
	*ret = (struct stat){.st_mode = mode, .st_uid = uid, .st_gid = gid, .st_rdev = rdev};
	return true;
}

static bool type_may_stand_for(mode_t kept, mode_t host)
{
	kept &= S_IFMT;
	host &= S_IFMT;
	return kept == host || (S_ISREG(host) && (S_ISCHR(kept) || S_ISBLK(kept) || S_ISFIFO(kept) || S_ISSOCK(kept)));
}

bool posix_times_tell(const struct posix_fs *fs, const struct stat *st)
{
	struct timespec now;
	int64_t age;

	if (fs->fine_times)
		return true;
	/* The clock of older kernels' file times steps once a tick: a change in the same one would not show. */
	clock_gettime(CLOCK_REALTIME_COARSE, &now);
	age = (now.tv_sec - st->st_ctim.tv_sec) * 1000000000 + now.tv_nsec - st->st_ctim.tv_nsec;
	return age < 0 || age > TICK_NS;
}

/* Some file systems have no such attributes on any file, and say so: one of them is remembered, and not asked again. */
static ssize_t read_attribute(struct posix_fs *fs, int fd, dev_t dev, char *text, size_t size)
{
	ssize_t n;

	if (__atomic_load_n(&fs->plain, __ATOMIC_RELAXED) == (uint64_t)dev + 1)
		return -1;
	n = fgetxattr(fd, ATTRIBUTE, text, size);
	if (n < 0 && errno == EBADF) /* O_PATH */
		n = getxattr(posix_proc_path(fd).path, ATTRIBUTE, text, size);
	if (n < 0 && errno == EOPNOTSUPP)
		__atomic_store_n(&fs->plain, (uint64_t)dev + 1, __ATOMIC_RELAXED);
	return n;
}

void posix_read_kept(struct posix_fs *fs, int fd, const struct stat *st, struct posix_kept *ret)
{
	char text[TEXT_MAX];
	struct stat kept;
	ssize_t n = -1;

	*ret = (struct posix_kept){0};
	if (!posix_keeps(fs))
		return;
	if (S_ISREG(st->st_mode) || S_ISDIR(st->st_mode))
		n = read_attribute(fs, fd, st->st_dev, text, sizeof(text) - 1);
	if (posix_times_tell(fs, st))
		ret->ctime = st->st_ctim; /* else it is read again next time */
	if (n <= 0)
		return;
	text[n] = 0;
	if (!parse_kept(text, &kept) || !type_may_stand_for(kept.st_mode, st->st_mode))
		return;
	ret->any = true;
	ret->mode = kept.st_mode;
	ret->uid = kept.st_uid;
	ret->gid = kept.st_gid;
	ret->rdev = kept.st_rdev;
}

void posix_apply_kept(const struct posix_fs *fs, const struct posix_kept *kept, struct stat *st)
{
	if (!posix_keeps(fs)) {
		posix_ids_show(fs, st);
		return;
	}
	if (!kept->any) {
		if (st->st_uid == fs->uid)
			st->st_uid = 0;
		if (st->st_gid == fs->gid)
			st->st_gid = 0;
		return;
	}
	st->st_uid = kept->uid;
	st->st_gid = kept->gid;
	st->st_rdev = kept->rdev;
	/* Other permissions than were set here: somebody on the host has changed them since, and that is seen. */
	if ((st->st_mode & 07777) == posix_host_mode(fs, kept->mode))
		st->st_mode = kept->mode;
	else
		st->st_mode = (kept->mode & S_IFMT) | (st->st_mode & 07777);
}

void posix_show(struct posix_fs *fs, struct posix_node *node, int fd, struct stat *st)
{
	struct posix_kept kept = {0};

	if (posix_keeps(fs)) {
		posix_read_kept(fs, fd, st, &kept);
		posix_node_keep(fs, node, &kept);
	}
	posix_apply_kept(fs, &kept, st);
}

int posix_keep(struct posix_fs *fs, int fd, const struct stat *shown)
{
	char text[TEXT_MAX];
	int n = snprintf(text, sizeof(text), "v1 %o %u %u %u", shown->st_mode, shown->st_uid, shown->st_gid,
			 (unsigned)shown->st_rdev);

	if (setxattr(posix_proc_path(fd).path, ATTRIBUTE, text, (size_t)n, 0) < 0)
		return -errno;
	return 0;
}

int posix_reopen(const struct posix_fs *fs, int fd, int flags)
{
	struct posix_proc p = posix_proc_path(fd);
	int n = openat(fs->proc_fd, fs->proc_fd < 0 ? p.path : p.path + sizeof("/proc/") - 1, flags | O_CLOEXEC);

	return n < 0 ? -errno : n;
}

mode_t posix_host_mode(const struct posix_fs *fs, mode_t mode)
{
	if (fs->options.ids == FUSE_POSIX_SAME || (fs->options.ids == FUSE_POSIX_RANGES && fs->uid == 0))
		return mode & 07777;
	if (!posix_keeps(fs)) /* a set-id file would be the server's user's, for all users of the host */
		return mode & (S_ISDIR(mode) ? 03777 : 01777);
	/* The server must always reach its own files, and no setuid file of a peer's is made for the host's user. */
	return (mode & 0777) | (S_ISDIR(mode) ? 0700 : 0600);
}
