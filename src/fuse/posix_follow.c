/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Symbolic links that the posix backend follows (FUSE_POSIX_FOLLOW): at the name of a link the peer finds what it leads
 * to.
 *
 * The host's kernel resolves it, by one openat2(2) for which the root is the root: an absolute target begins there, and
 * ".." does not lead above it, whatever is renamed meanwhile. Magic links (/proc) lead nowhere. What was found is then
 * entered at its own place in the tree, walked to by names, through directories that the peer's user may search: a link
 * opens no way that is not open without it. A link that leads nowhere remains a link, to be removed or renamed;
 * reading it gives the reason, never a target that the peer's kernel could follow elsewhere.
 */
#include <errno.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "fuse/posix_table.h"

#define ATTEMPTS 32 /* openat2 gives up when something is renamed while it goes up by ".." */

/* The path of a descriptor's file, as the host's kernel knows it now. */
static int read_path(const struct posix_fs *fs, int fd, char path[PATH_MAX])
{
	struct posix_proc p = posix_proc_path(fd);
	ssize_t n = readlinkat(fs->proc_fd, fs->proc_fd < 0 ? p.path : p.path + strlen("/proc/"), path, PATH_MAX);

	if (n < 0)
		return -errno;
	if (n == PATH_MAX)
		return -ENAMETOOLONG;
	path[n] = 0;
	return path[0] == '/' ? 0 : -ESTALE;
}

/* The same beneath the root: "" for the root itself, no slash at the front. -ESTALE: it is not there (any more). */
static int path_beneath(const struct posix_fs *fs, int fd, char path[PATH_MAX])
{
	char root[PATH_MAX];
	int r = read_path(fs, fs->root->fd, root);
	size_t len;

	if (r == 0)
		r = read_path(fs, fd, path);
	if (r < 0)
		return r;
	len = root[1] ? strlen(root) : 0;
	if (strncmp(path, root, len) != 0 || (path[len] && path[len] != '/'))
		return -ESTALE;
	len += path[len] == '/';
	memmove(path, path + len, strlen(path + len) + 1);
	return 0;
}

/* What the link of that name leads to: an O_PATH descriptor. */
static int open_target(const struct posix_fs *fs, int parent_fd, const char *name)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
	char path[PATH_MAX];
	int r = path_beneath(fs, parent_fd, path);
	size_t len = strlen(r < 0 ? "" : path);

	if (r < 0)
		return r;
	if (len + strlen(name) + 2 > sizeof(path))
		return -ENAMETOOLONG;
	snprintf(path + len, sizeof(path) - len, "%s%s", len ? "/" : "", name);
	for (int i = 0; i < ATTEMPTS; i++) {
		int fd = (int)syscall(SYS_openat2, fs->root->fd, path, &how, sizeof(how));

		if (fd >= 0 || errno != EAGAIN)
			return fd < 0 ? -errno : fd;
	}
	return -ESTALE;
}

/* As the peer's kernel checks a directory, but for groups that the user has beside its own: those are not told. */
static bool may_search(const struct sm_fs_caller *who, const struct stat *st)
{
	if (who->uid == 0)
		return true;
	if (who->uid == st->st_uid)
		return st->st_mode & S_IXUSR;
	if (who->gid == st->st_gid)
		return st->st_mode & S_IXGRP;
	return st->st_mode & S_IXOTH && st->st_mode & S_IXGRP; /* who is in the group may be shut out */
}

/* One step of the walk: the entry of a name that is no link. The last one is the target: a directory as which it is
 * entered belongs to the link that led there. */
static int step(struct posix_fs *fs, uint64_t dir_id, const char *name, const struct posix_seen *target, bool last,
		struct sm_fs_entry *ret)
{
	struct posix_seen seen;
	struct posix_node *dir;
	int r, fd = posix_fd_get(fs, dir_id, &dir);

	if (fd < 0)
		return fd;
	r = posix_see(fd, name, &seen);
	if (r == 0 && last) {
		seen.view = target->view;
		if (seen.st.st_ino != target->st.st_ino || seen.st.st_dev != target->st.st_dev)
			r = -ESTALE;
	}
	if (r == 0)
		r = posix_find_seen(fs, dir, fd, name, &seen, ret);
	posix_fd_put(fs, dir);
	return r == -ENOENT ? -ESTALE : r;
}

/* From the root to the target, by its own path. */
static int walk(struct posix_fs *fs, const struct sm_fs_caller *who, char *path, const struct posix_seen *target,
		struct sm_fs_entry *ret)
{
	uint64_t at = SM_FS_ROOT;
	int r = 0;

	for (char *name; r == 0 && (name = strsep(&path, "/"));) {
		r = step(fs, at, name, target, !path, ret);
		if (at != SM_FS_ROOT)
			posix_node_forget(fs, at, 1);
		if (r < 0)
			return r;
		at = ret->nodeid;
		if (path && !S_ISDIR(ret->attr.st_mode))
			r = -ESTALE;
		else if (path && !may_search(who, &ret->attr))
			r = -EACCES;
	}
	if (r < 0)
		posix_node_forget(fs, at, 1);
	return r;
}

/* The root has no name: what leads there gets a node that holds it. */
static int enter_root(struct posix_fs *fs, int fd, struct posix_seen *seen, struct sm_fs_entry *ret)
{
	struct posix_kept kept;

	posix_read_kept(fs, fd, &seen->st, &kept);
	return posix_enter(fs, NULL, NULL, fd, seen, posix_keeps(fs) ? &kept : NULL, ret);
}

static int enter_target(struct posix_fs *fs, const struct sm_fs_caller *who, int fd, uint64_t view,
			struct sm_fs_entry *ret)
{
	char path[PATH_MAX];
	struct posix_seen seen;
	int r = posix_see(fd, "", &seen);

	if (r == 0) {
		seen.view = S_ISDIR(seen.st.st_mode) ? view : 0;
		r = path_beneath(fs, fd, path);
	}
	if (r == 0 && !path[0])
		return enter_root(fs, fd, &seen, ret);
	if (r == 0)
		r = walk(fs, who, path, &seen, ret);
	close(fd);
	return r;
}

/* A number for the directory as it is seen through this link, there. */
static uint64_t view_through(const struct posix_node *parent, const struct posix_seen *link)
{
	uint64_t x = parent->view + (uint64_t)link->st.st_ino * 0x9e3779b97f4a7c15ULL;

	x = (x ^ x >> 29 ^ (uint64_t)link->st.st_dev) * 0xbf58476d1ce4e5b9ULL;
	return (x ^ x >> 32) | 1;
}

int posix_follow(struct posix_fs *fs, const struct sm_fs_caller *who, struct posix_node *parent, int parent_fd,
		 const char *name, const struct posix_seen *link, struct sm_fs_entry *ret)
{
	struct posix_seen seen = *link;
	int r = open_target(fs, parent_fd, name);

	if (r >= 0)
		r = enter_target(fs, who, r, view_through(parent, link), ret);
	if (r == 0 || r == -ESTALE || r == -ENOMEM || r == -EMFILE || r == -ENFILE)
		return r;
	seen.refused = r == -EACCES;
	return posix_find_seen(fs, parent, parent_fd, name, &seen, ret);
}

int posix_follow_readlink(struct posix_fs *fs, uint64_t id)
{
	struct posix_node *node, *parent = NULL;
	char name[NAME_MAX + 1];
	uint64_t parent_id = 0;
	bool refused = false;
	int fd, r;

	pthread_mutex_lock(&fs->lock);
	node = posix_find_locked(fs, id);
	if (node && node->name && S_ISLNK(node->type)) {
		snprintf(name, sizeof(name), "%s", node->name);
		parent_id = node->parent->id;
		refused = node->refused;
	}
	pthread_mutex_unlock(&fs->lock);
	if (!parent_id)
		return node ? -EINVAL : -ESTALE;
	fd = posix_fd_get(fs, parent_id, &parent);
	if (fd < 0)
		return fd;
	r = open_target(fs, fd, name);
	posix_fd_put(fs, parent);
	if (r < 0)
		return r;
	close(r);
	return refused ? -EACCES : -ESTALE; /* stale: by now it leads somewhere, and is to be looked up anew */
}
