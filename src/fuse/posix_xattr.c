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

#define OURS "user.supermachine."
#define APART OURS "xattr."
#define CAPABILITY APART "security.capability"

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
 * What the peer may touch, and under which name the host keeps it.
 *
 * security.* and trusted.* would act on the host (file capabilities, overlays): they are only passed on where the
 * peer's numbers are the host's (FUSE_POSIX_SAME), for the host to allow or not; else they are kept for the peer alone,
 * as user.supermachine.xattr.*. Names of our own get one more dot then, so that a peer that is such a server itself has
 * its private attributes, and not ours. POSIX ACLs are refused always: who checks permissions is the peer's kernel,
 * which would take an ACL's mask for the group's rights.
 */
struct host_name {
	char text[XATTR_NAME_MAX + 1];
};

static bool is_kept_apart(const char *name)
{
	return str_starts(name, "security.") || str_starts(name, "trusted.");
}

static int host_name(const struct posix_fs *fs, const char *name, struct host_name *ret)
{
	const char *rest = name;

	ret->text[0] = '\0';
	if (str_starts(name, "system.posix_acl_"))
		return -EOPNOTSUPP;
	if (posix_maps_xattrs(fs)) {
		if (is_kept_apart(name)) {
			strcpy(ret->text, APART);
		} else if (str_starts(name, OURS)) {
			strcpy(ret->text, OURS ".");
			rest = name + strlen(OURS);
		} else if (!str_starts(name, "user.")) {
			return -EOPNOTSUPP;
		}
	}
	if (strlen(ret->text) + strlen(rest) > XATTR_NAME_MAX)
		return -ERANGE;
	strcat(ret->text, rest);
	return 0;
}

/* A name of the host's list as the peer has it, written at `to` (not behind `name`): its length, 0 when it sees none.
 */
static size_t peer_name(const struct posix_fs *fs, const char *name, char *to)
{
	size_t len = strlen(name) + 1;

	if (str_starts(name, "system.posix_acl_"))
		return 0;
	if (posix_maps_xattrs(fs)) {
		if (str_starts(name, APART) && is_kept_apart(name + strlen(APART))) {
			len -= strlen(APART);
			memmove(to, name + strlen(APART), len);
			return len;
		}
		if (!str_starts(name, "user.") || (str_starts(name, OURS) && !str_starts(name, OURS ".")))
			return 0;
		if (str_starts(name, OURS ".")) {
			memmove(to, OURS, strlen(OURS));
			memmove(to + strlen(OURS), name + strlen(OURS) + 1, len - strlen(OURS) - 1);
			return len - 1;
		}
	}
	memmove(to, name, len);
	return len;
}

ssize_t posix_getxattr(struct sm_fs_backend *be, uint64_t id, const char *name, void *value, size_t size)
{
	struct posix_fs *fs = posix_fs_of(be);
	struct posix_node *node;
	struct host_name host;
	int r = host_name(fs, name, &host), fd;
	ssize_t n;

	if (r < 0)
		return r;
	fd = pin_unless_link(fs, id, &node);
	if (fd < 0)
		return fd;
	n = getxattr(posix_proc_path(fd).path, host.text, value, size);
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

		if (at + one <= len)
			kept += peer_name(fs, list + at, list + kept);
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
	struct host_name host;
	int r = fs->options.read_only ? -EROFS : host_name(fs, name, &host), fd;

	if (r < 0)
		return r;
	fd = pin_unless_link(fs, id, &node);
	if (fd < 0)
		return fd;
	r = setxattr(posix_proc_path(fd).path, host.text, value, size, flags) < 0 ? -errno : 0;
	if (streq(host.text, CAPABILITY)) /* after it is there: who looks for it from now on finds it */
		__atomic_add_fetch(&fs->capabilities, 1, __ATOMIC_SEQ_CST);
	posix_fd_put(fs, node);
	return r;
}

int posix_removexattr(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, const char *name)
{
	struct posix_fs *fs = posix_fs_of(be);
	struct posix_node *node;
	struct host_name host;
	int r = fs->options.read_only ? -EROFS : host_name(fs, name, &host), fd;

	if (r < 0)
		return r;
	fd = pin_unless_link(fs, id, &node);
	if (fd < 0)
		return fd;
	r = removexattr(posix_proc_path(fd).path, host.text) < 0 ? -errno : 0;
	posix_fd_put(fs, node);
	return r;
}

/* A file that is written to, cut off or given away loses its capabilities. Those that the host has are the host's
 * kernel's business. */
void posix_drop_capabilities(const struct posix_fs *fs, int fd)
{
	if (posix_maps_xattrs(fs))
		(void)!removexattr(posix_proc_path(fd).path, CAPABILITY); /* mostly there is none */
}

void posix_written(const struct posix_fs *fs, struct posix_file *file)
{
	uint32_t now = __atomic_load_n(&fs->capabilities, __ATOMIC_SEQ_CST);

	if (!posix_maps_xattrs(fs) || __atomic_load_n(&file->without, __ATOMIC_RELAXED) == now)
		return;
	posix_drop_capabilities(fs, file->fd);
	__atomic_store_n(&file->without, now, __ATOMIC_RELAXED);
}
