/* SPDX-License-Identifier: Apache-2.0 */
/* See posix_listing.h. */
#include "fuse/posix_listing.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>

#include "base/util.h"
#include "fuse/posix_node.h"

/* Of one backend: a guest may open many directories, and list the same one again and again. */
#define LISTINGS_MOST (64 * MIB)

bool listing_needed(int dir_fd)
{
	struct statfs s;

	return fstatfs(dir_fd, &s) == 0 &&
	       (s.f_type == TMPFS_MAGIC || s.f_type == RAMFS_MAGIC || s.f_type == HUGETLBFS_MAGIC);
}

static int add(struct posix_fs *fs, struct listing *l, const struct dirent *de)
{
	struct dirent *copy;

	if (__atomic_load_n(&fs->listed, __ATOMIC_RELAXED) > LISTINGS_MOST)
		return -EFBIG;
	if (l->num == l->room) {
		size_t room = l->room ? 2 * l->room : 64, *at = realloc(l->at, room * sizeof(*at));

		if (!at)
			return -ENOMEM;
		l->at = at;
		l->room = room;
	}
	copy = buf_extend(&l->entries, de->d_reclen);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, de, de->d_reclen);
	l->at[l->num] = (size_t)((uint8_t *)copy - l->entries.data);
	copy->d_off = (off_t)++l->num;
	__atomic_add_fetch(&fs->listed, de->d_reclen + sizeof(size_t), __ATOMIC_RELAXED);
	return 0;
}

int listing_take(struct posix_fs *fs, struct listing *l, DIR *dir)
{
	int r = 0;

	listing_drop(fs, l);
	rewinddir(dir);
	while (r == 0) {
		const struct dirent *de;

		errno = 0;
		de = readdir(dir);
		if (!de) {
			r = -errno;
			break;
		}
		r = add(fs, l, de);
	}
	if (r < 0)
		listing_drop(fs, l);
	return r;
}

const struct dirent *listing_after(const struct listing *l, long num)
{
	if (num < 0 || (size_t)num >= l->num)
		return NULL;
	return (const struct dirent *)(const void *)(l->entries.data + l->at[num]);
}

void listing_drop(struct posix_fs *fs, struct listing *l)
{
	__atomic_sub_fetch(&fs->listed, l->entries.len + l->num * sizeof(size_t), __ATOMIC_RELAXED);
	buf_done(&l->entries);
	free(l->at);
	*l = (struct listing){0};
}
