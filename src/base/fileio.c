/* SPDX-License-Identifier: Apache-2.0 */
/* Whole reads and writes, atomic replacement, directories and trees. See fileio.h. */
#include "base/fileio.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"

#define GATHER_MIN 2048

ssize_t read_full(int fd, void *p, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = read(fd, (char *)p + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

ssize_t read_gathered(int fd, void *p, size_t len)
{
	ssize_t n = read(fd, p, len), more = n;

	if (n < GATHER_MIN)
		return n;
	while (more > 0 && (size_t)n < len) {
		sched_yield();
		more = read(fd, (char *)p + n, len - (size_t)n);
		n += MAX(more, 0);
	}
	return n;
}

ssize_t pread_full(int fd, void *p, size_t len, off_t off)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, (char *)p + done, len - done, off + (off_t)done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

int write_full(int fd, const void *p, size_t len)
{
	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p = (const char *)p + n;
		len -= (size_t)n;
	}
	return 0;
}

int pwrite_full(int fd, const void *p, size_t len, off_t off)
{
	while (len) {
		ssize_t n = pwrite(fd, p, len, off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p = (const char *)p + n;
		len -= (size_t)n;
		off += n;
	}
	return 0;
}

int write_text_at(int dirfd, const char *path, const char *text)
{
	_fd_ int fd = openat(dirfd, path, O_WRONLY | O_CLOEXEC);

	return fd < 0 ? -errno : write_full(fd, text, strlen(text));
}

int read_file_at(int dirfd, const char *path, size_t max, char **ret, size_t *ret_len)
{
	_fd_ int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
	_free_ char *data = NULL;
	size_t len = 0, cap = 4096;

	if (fd < 0)
		return -errno;
	for (;;) {
		ssize_t n;
		char *bigger;

		cap = len ? cap * 2 : cap;
		bigger = realloc(data, cap + 1);
		if (!bigger)
			return -ENOMEM;
		data = bigger;
		n = read_full(fd, data + len, cap - len);
		if (n < 0)
			return (int)n;
		len += (size_t)n;
		if (len > max)
			return -EFBIG;
		if (len < cap)
			break;
	}
	data[len] = 0;
	if (ret_len)
		*ret_len = len;
	*ret = TAKE_PTR(data);
	return 0;
}

/* fsync of the directory that holds path, so that a rename into it is durable. */
static int sync_parent(int dirfd, const char *path)
{
	char parent[PATH_MAX];
	const char *slash = strrchr(path, '/');
	_fd_ int fd = -1;
	size_t len = slash ? (size_t)(slash - path) : 0;

	if (len >= sizeof(parent))
		return -ENAMETOOLONG;
	memcpy(parent, path, len);
	parent[len] = 0;
	fd = openat(dirfd, slash ? (len ? parent : "/") : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	return fsync(fd) < 0 ? -errno : 0;
}

int write_file_atomic_at(int dirfd, const char *path, const void *p, size_t len, mode_t mode)
{
	char temporary[PATH_MAX], unique[17];
	_fd_ int fd = -1;
	int r = random_hex(unique, 8);

	if (r < 0)
		return r;
	if (snprintf(temporary, sizeof(temporary), "%s.%s.tmp", path, unique) >= (int)sizeof(temporary))
		return -ENAMETOOLONG;
	fd = openat(dirfd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
	if (fd < 0)
		return -errno;
	r = write_full(fd, p, len);
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	if (r == 0 && renameat(dirfd, temporary, dirfd, path) < 0)
		r = -errno;
	if (r < 0) {
		unlinkat(dirfd, temporary, 0);
		return r;
	}
	return sync_parent(dirfd, path);
}

int mkdir_p(const char *path, mode_t mode)
{
	char part[PATH_MAX];
	size_t len = strlen(path);

	if (!len)
		return -ENOENT;
	if (len >= sizeof(part))
		return -ENAMETOOLONG;
	for (size_t i = 1; i <= len; i++) {
		if (path[i] != '/' && path[i] != 0)
			continue;
		memcpy(part, path, i);
		part[i] = 0;
		if (mkdir(part, mode) < 0 && errno != EEXIST)
			return -errno;
	}
	return 0;
}

/* Empties the directory behind fd, which it takes over. Depth is bounded by the descriptors the process may have. */
static int remove_children(int fd)
{
	DIR *dir = fdopendir(fd);
	struct dirent *de;
	int r = 0;

	if (!dir) {
		r = -errno;
		close(fd);
		return r;
	}
	while (r == 0 && (errno = 0, de = readdir(dir))) {
		if (streq(de->d_name, ".") || streq(de->d_name, ".."))
			continue;
		r = remove_tree_at(dirfd(dir), de->d_name);
	}
	if (r == 0 && errno)
		r = -errno;
	closedir(dir);
	return r;
}

int remove_tree_at(int dirfd, const char *path)
{
	int fd, r;

	if (unlinkat(dirfd, path, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	r = remove_children(fd);
	if (r < 0)
		return r;
	return unlinkat(dirfd, path, AT_REMOVEDIR) < 0 && errno != ENOENT ? -errno : 0;
}

int fd_set_cloexec(int fd, bool on)
{
	int flags = fcntl(fd, F_GETFD);

	if (flags < 0 || fcntl(fd, F_SETFD, on ? flags | FD_CLOEXEC : flags & ~FD_CLOEXEC) < 0)
		return -errno;
	return 0;
}

uint64_t fd_limit_raise(uint64_t want)
{
	struct rlimit lim, more;

	if (getrlimit(RLIMIT_NOFILE, &lim) < 0)
		return 0;
	more.rlim_max = want > lim.rlim_max && geteuid() == 0 ? MAX(lim.rlim_max, (rlim_t)1 << 20) : lim.rlim_max;
	more.rlim_cur = MAX(lim.rlim_cur, MIN(want, more.rlim_max));
	if (setrlimit(RLIMIT_NOFILE, &more) == 0)
		return more.rlim_cur;
	lim.rlim_cur = MAX(lim.rlim_cur, MIN(want, lim.rlim_max)); /* not every root may have more */
	return setrlimit(RLIMIT_NOFILE, &lim) == 0 ? lim.rlim_cur : 0;
}

int fd_set_nonblock(int fd, bool on)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK) < 0)
		return -errno;
	return 0;
}

bool fd_raises_events(int fd)
{
	static const uint32_t remote[] = {NFS_SUPER_MAGIC,  SMB_SUPER_MAGIC,  SMB2_SUPER_MAGIC,
					  CIFS_SUPER_MAGIC, V9FS_MAGIC,	      FUSE_SUPER_MAGIC,
					  AFS_SUPER_MAGIC,  CEPH_SUPER_MAGIC, CODA_SUPER_MAGIC};
	struct statfs st;

	if (fstatfs(fd, &st) < 0)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(remote); i++)
		if ((uint32_t)st.f_type == remote[i])
			return false;
	return true;
}
