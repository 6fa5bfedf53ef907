/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes on the feed of a shared tree. The first byte says which way: from the server to a client's watch, or (one
 * in eight) from a client to the server. The root of a directory that is there is what is watched.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cursor.h"
#include "fuse/share_feed.h"
#include "fuse/watch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct sm_fs_caller who;
static int server = -1; /* the server's end of the feed that the backend below has begun */

static int be_lookup(struct sm_fs_backend *be, const struct sm_fs_caller *caller, uint64_t dir, const char *name,
		     struct sm_fs_entry *ret)
{
	if (strlen(name) > 255 || !*name || strchr(name, '/'))
		abort();
	*ret = (struct sm_fs_entry){.nodeid = 2 + (uint8_t)name[0] % 8, .entry_valid_ns = 1, .attr_valid_ns = 1};
	ret->attr.st_mode = name[0] & 1 ? S_IFDIR : S_IFREG;
	ret->attr.st_nlink = 1;
	return 0;
}

static int be_getattr(struct sm_fs_backend *be, uint64_t id, bool has_fh, uint64_t fh, struct stat *st, uint64_t *valid)
{
	*st = (struct stat){.st_ino = id, .st_mode = S_IFDIR, .st_nlink = 1};
	*valid = 1;
	return 0;
}

/* As the daemon backend. */
static int be_watch(struct sm_fs_backend *be, uint64_t id, int inotify_fd, uint32_t mask)
{
	static uint64_t feed;
	uint64_t before = feed;
	int wd = watch_feed_number(&feed), pair[2];

	if (wd < 0 || feed == before)
		return wd;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		abort();
	if (server >= 0)
		close(server);
	server = pair[0];
	return watch_feed_begin(feed, pair[1]) < 0 ? -EIO : wd;
}

static int be_watch_there(struct sm_fs_backend *be, uint64_t id, int inotify_fd, uint32_t mask)
{
	int wd = inotify_add_watch(inotify_fd, "/proc/self", IN_ATTRIB);

	return wd < 0 ? -errno : wd;
}

static void on_stale(void *arg, const struct watch_stale *stale)
{
	if (stale->name && (strlen(stale->name) > 255 || strchr(stale->name, '/')))
		abort();
}

static void look(struct watch *w, uint64_t dir, const char *name)
{
	struct watch_mark mark = watch_begin(w, dir);
	struct sm_fs_entry e;

	be_lookup(NULL, &who, dir, name, &e);
	watch_entry(w, &mark, name, &e);
}

static void to_client(struct cursor c)
{
	static const struct sm_fs_ops ops = {
		.size = sizeof(ops), .lookup = be_lookup, .getattr = be_getattr, .watch = be_watch};
	struct sm_fs_backend be = {.ops = &ops};
	struct watch *w;

	if (watch_new(&be, &ops, &w) < 0)
		abort();
	watch_paths(w);
	while (c.left) {
		uint8_t len = cursor_u8(&c);
		size_t n = len < c.left ? len : c.left;

		look(w, SM_FS_ROOT, "a");
		look(w, SM_FS_ROOT, "b");
		look(w, 3, "c");
		(void)!send(server, cursor_take(&c, n), n, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (watch_step(w, on_stale, NULL) < 0)
			abort();
		if (len & 1)
			watch_forget(w, 3, 1);
	}
	watch_free(w);
}

static void to_server(struct cursor c)
{
	static const struct sm_fs_ops ops = {.size = sizeof(ops), .watch = be_watch_there};
	struct sm_fs_backend be = {.ops = &ops};
	struct share_feeds *feeds;
	uint64_t feed = 0;
	int fd = -1;

	if (share_feeds_new(&be, &ops, &feeds) < 0)
		abort();
	if (share_feeds_watch(feeds, &feed, SM_FS_ROOT, cursor_u8(&c), true, &fd) < 0)
		abort();
	(void)!send(fd, c.p, c.left, MSG_NOSIGNAL | MSG_DONTWAIT);
	for (uint32_t id = 0; id < 8; id++)
		(void)!share_feeds_watch(feeds, &feed, SM_FS_ROOT, id, false, &fd);
	close(fd);
	share_feeds_free(feeds);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cursor c = cursor_of(data, size);

	if (cursor_u8(&c) & 7)
		to_client(c);
	else
		to_server(c);
	return 0;
}
