/* SPDX-License-Identifier: Apache-2.0 */
/* Extended attributes of the posix backend: by /proc/self/fd, since an O_PATH descriptor allows no f*xattr call. */
#include <errno.h>
#include <linux/limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "fuse/posix_node.h"

/* /proc/self/fd/N of a symbolic link would be followed: links have no attributes here. */
static int pin_unless_link(struct posix_fs *fs, uint64_t id, struct posix_node **ret)
{
	int fd = posix_fd_get(fs, id, ret);

	if (fd >= 0 && S_ISLNK((*ret)->type)) {
		posix_fd_put(fs, *ret);
		return -EOPNOTSUPP;
	}
	return fd;
}

/*
 * What the peer may touch. In FUSE_POSIX_CALLER mode security.* and trusted.* would act on the host (file capabilities,
 * overlays): they are refused; the private attribute does not exist for the peer.
 */
static int check_name(const struct posix_fs *fs, const char *name, int hidden)
{
	if (posix_private_xattr(name))
		return -hidden;
	if (fs->options.ids == FUSE_POSIX_CALLER && !str_starts(name, "user."))
		return -EOPNOTSUPP;
	return 0;
}

ssize_t posix_getxattr(struct sm_fs_backend *be, uint64_t id, const char *name, void *value, size_t size)
{
	struct posix_fs *fs = posix_fs_of(be);
	struct posix_node *node;
	int r = check_name(fs, name, ENODATA), fd;
	ssize_t n;

	if (r < 0)
		return r;
	fd = pin_unless_link(fs, id, &node);
	if (fd < 0)
		return fd;
	n = getxattr(posix_proc_path(fd).path, name, value, size);
	n = n < 0 ? -errno : n;
	posix_fd_put(fs, node);
	return n;
}

/* The list without what the peer may not see, moved together in place. */
static size_t filter_list(const struct posix_fs *fs, char *list, size_t len)
{
	size_t kept = 0;

	for (size_t at = 0; at < len;) {
		size_t one = strnlen(list + at, len - at) + 1;

		if (at + one <= len && check_name(fs, list + at, 1) == 0) {
			memmove(list + kept, list + at, one);
			kept += one;
		}
		at += one;
	}
	return kept;
}

ssize_t posix_listxattr(struct sm_fs_backend *be, uint64_t id, char *list, size_t size)
{
	struct posix_fs *fs = posix_fs_of(be);
	_free_ char *all = malloc(XATTR_LIST_MAX);
	struct posix_node *node;
	int fd = all ? pin_unless_link(fs, id, &node) : -ENOMEM;
	ssize_t n;

	if (fd < 0)
		return fd == -EOPNOTSUPP ? 0 : fd;
	n = listxattr(posix_proc_path(fd).path, all, XATTR_LIST_MAX);
	n = n < 0 ? -errno : (ssize_t)filter_list(fs, all, (size_t)n);
	posix_fd_put(fs, node);
	if (n > 0 && size) {
		if ((size_t)n > size)
			return -ERANGE;
		memcpy(list, all, (size_t)n);
	}
	return n;
}

int posix_setxattr(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, const char *name,
		   const void *value, size_t size, int flags)
{
	struct posix_fs *fs = posix_fs_of(be);
	struct posix_node *node;
	int r = fs->options.read_only ? -EROFS : check_name(fs, name, EPERM), fd;

	if (r < 0)
		return r;
	fd = pin_unless_link(fs, id, &node);
	if (fd < 0)
		return fd;
	r = setxattr(posix_proc_path(fd).path, name, value, size, flags) < 0 ? -errno : 0;
	posix_fd_put(fs, node);
	return r;
}

int posix_removexattr(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, const char *name)
{
	struct posix_fs *fs = posix_fs_of(be);
	struct posix_node *node;
	int r = fs->options.read_only ? -EROFS : check_name(fs, name, ENODATA), fd;

	if (r < 0)
		return r;
	fd = pin_unless_link(fs, id, &node);
	if (fd < 0)
		return fd;
	r = removexattr(posix_proc_path(fd).path, name) < 0 ? -errno : 0;
	posix_fd_put(fs, node);
	return r;
}
