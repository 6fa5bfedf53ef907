/* SPDX-License-Identifier: Apache-2.0 */
/* Where a node of the posix backend was last seen, for people. See posix.h. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fuse/posix.h"
#include "fuse/posix_table.h"

/* From its name up to the root, which has none: into the end of the room. */
static char *put_names(const struct posix_node *node, char *room, size_t size)
{
	char *at = room + size;

	*--at = '\0';
	for (; node && node->name; node = node->parent) {
		size_t len = strlen(node->name);

		if ((size_t)(at - room) < len + 1)
			return NULL;
		at -= len;
		memcpy(at, node->name, len);
		*--at = '/';
	}
	return at;
}

bool fuse_posix_place(struct sm_fs_backend *be, uint64_t nodeid, char *ret, size_t size)
{
	struct posix_fs *fs = posix_fs_of(be);
	const struct posix_node *node;
	char *at = NULL;

	pthread_mutex_lock(&fs->lock);
	node = posix_find_locked(fs, nodeid);
	if (node)
		at = put_names(node, ret, size);
	pthread_mutex_unlock(&fs->lock);
	if (at)
		memmove(ret, at, strlen(at) + 1);
	return at;
}

bool fuse_posix_source(struct sm_fs_backend *be, char *ret, size_t size)
{
	struct posix_fs *fs = posix_fs_of(be);
	struct posix_node *node;
	char link[40];
	ssize_t n = -1;
	int fd;

	if (be->ops != &posix_ops)
		return false;
	fd = posix_fd_get(fs, fs->root->id, &node);
	if (fd < 0)
		return false;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, ret, size);
	posix_fd_put(fs, node);
	if (n <= 0 || (size_t)n >= size || *ret != '/')
		return false;
	ret[n] = '\0';
	return true;
}
