/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The watch's own state, shared by its parts: the hooks and what is watched (watch.c), how the peer
 * opens files (watch_open.c), what events say (watch_events.c), and directories whose events another kernel has
 * (watch_remote.c). Not for others: watch.h.
 */
#ifndef FUSE_WATCH_OWN_H
#define FUSE_WATCH_OWN_H

#include <pthread.h>
#include <sys/inotify.h>

#include "fuse/watch.h"

#define WATCH_NAME_EVENTS (IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO)
#define WATCH_SLOTS 4096u
#define WATCH_FEEDS 64u

/* What became stale, collected under the lock, told outside of it; names are copies. */
struct findings {
	struct watch_stale *list;
	size_t count, room;
};

/* Events of directories that are watched elsewhere. */
struct watch_feed {
	uint64_t number; /* among all of this process; 0: none */
	int fd;		 /* -1: it has not begun */
	struct buf in, out;
};

struct watch {
	struct sm_fs_backend *be;
	const struct sm_fs_ops *ops;
	int fd;	    /* readable when any of: */
	int notify; /* inotify, */
	struct watch_feed feeds[WATCH_FEEDS];
	pthread_mutex_t lock; /* all below */
	struct known known;
	struct findings late; /* found by a hook: told by the next step */
	bool paths;
	unsigned news;	  /* told in this step */
	uint64_t written; /* how often the peer changed a file */
	uint64_t refused, events, stale;
	uint64_t lost;		    /* the event at which everything was taken for changed */
	uint64_t last[WATCH_SLOTS]; /* by hash of a name or a node: the last event that touched it */
	struct watch_remote remote; /* add NULL: there is none */
	int next_remote;	    /* number of its next watch */
	uint32_t next_feed;	    /* of feeds' next one */
};

/* watch.c, under the lock: */
void watch_found(struct watch *w, struct findings *f, struct watch_stale what);
void watch_findings_done(struct findings *f);
/* From the session's root down to the node, or to a name in it; to free. NULL: unknown, or longer than a path may be.
 */
char *watch_path_of(struct watch *w, uint64_t id, const char *name);
/* The slot of a name in a directory, or of a node (name ""). Two that share one are only asked about more often. */
uint64_t *watch_slot(struct watch *w, uint64_t id, const char *name);
/* Watches a directory from now on. The backend calls nothing back. */
bool watch_ensure(struct watch *w, struct known_node *dir);

/* watch_open.c, under the lock: */
/* The node's record; where there is none it is made if the file's length goes out to be believed. NULL: none. */
struct known_node *watch_find_told(struct watch *w, uint64_t nodeid, const struct stat *st, uint64_t valid_ns);
/* These attributes go out to the peer. What it wrote since the mark was taken it knows better. */
void watch_length_told(struct known_node *node, const struct watch_mark *mark, const struct stat *st,
		       uint64_t valid_ns);

/* watch_events.c, under the lock: */
/* Takes a name back from the peer: what it has under it may be another by now. */
void watch_name_stale(struct watch *w, struct findings *f, struct known_name *n, mode_t made, mode_t gone);
void watch_check_node(struct watch *w, struct findings *f, struct known_node *node);
/* What the peer has listed of the directory is not what is there. */
void watch_listing_stale(struct watch *w, struct findings *f, struct known_node *dir);
/* mask: the events that the name had. */
void watch_check_name(struct watch *w, struct findings *f, struct known_name *n, uint32_t mask);
/* The directory is not watched any more: whatever the peer has of it may become stale unseen. */
void watch_lose_directory(struct watch *w, struct findings *f, struct known_node *dir);
/* One buffer of events. */
void watch_handle(struct watch *w, struct findings *f, const char *buf, size_t len);
/* Tells what was found, without the lock. */
void watch_tell(struct findings *f, void (*stale)(void *arg, const struct watch_stale *), void *arg);

/* watch_feed.c, under the lock: */
void watch_feeds_init(struct watch *w);
/* They end, and nothing is told of it. */
void watch_feeds_done(struct watch *w);
/* What the backend says when it is asked to watch a directory: its number, or -errno. */
int watch_feeds_ask(struct watch *w, uint64_t dir);
void watch_feed_remove(struct watch *w, int wd);
/* Works off a part of what is there of each; true: maybe more. */
bool watch_feeds_step(struct watch *w, struct findings *f);
static inline bool watch_is_feed(int wd)
{
	return wd >= WATCH_FEED_FIRST && wd < WATCH_REMOTE_FIRST;
}

/* watch_remote.c, under the lock: */
/* Asks for a watch of a directory whose events this kernel does not have: it is pending from then on. */
bool watch_remote_ask(struct watch *w, struct known_node *dir);
static inline bool watch_is_remote(int wd)
{
	return wd >= WATCH_REMOTE_FIRST;
}

#endif
