/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a shared tree's clients are told of changes: one inotify instance of the server's watches for all of them, so
 * that a directory costs one watch, however many clients have it, and a client no instance. What happens in a directory
 * goes to each client that watches it, under a number of the client's own, over a stream of its own: its feed.
 *
 * On a feed go, from the server: u32 number, u32 what has happened (as inotify's mask), u16 length of the name, the
 * name ("": the directory itself); from the client: u32 numbers that it watches no longer. A client that does not read
 * what is told, or for which something was lost, finds its feed ended, and with it all its watches: it asks for another
 * one when it watches the next directory. Internal to the room.
 */
#ifndef FUSE_SHARE_FEED_H
#define FUSE_SHARE_FEED_H

#include "base/error.h"
#include "supermachine.h"

#define SHARE_MAX_WATCHES (1u << 16) /* of one client */
#define SHARE_FEED_HEAD 10u	     /* of an event, before the name */

struct share_feeds; /* a server's */
struct share_feed;  /* a client's, by its number */

/* Nothing is watched and no thread runs before the first is asked for. */
int share_feeds_new(struct sm_fs_backend *be, const struct sm_fs_ops *ops, struct share_feeds **ret) MUST_CHECK;
struct share_feeds *share_feeds_free(struct share_feeds *fs);

/*
 * Watches a directory for a client under its number id. *feed: the client's, 0: none so far; another one if fresh,
 * whose client's end is *ret_fd then. From any thread. 0; -EPIPE: the feed has ended; -ENOSPC: no more watches; or what
 * the backend or the kernel refuses it with.
 */
int share_feeds_watch(struct share_feeds *fs, uint64_t *feed, uint64_t nodeid, uint32_t id, bool fresh,
		      int *ret_fd) MUST_CHECK;
/* The client is gone. */
void share_feeds_end(struct share_feeds *fs, uint64_t feed);

struct share_feeds_stats {
	uint64_t feeds, watched, directories; /* now; watched: of all clients together */
};
void share_feeds_get_stats(struct share_feeds *fs, struct share_feeds_stats *ret);

#endif
