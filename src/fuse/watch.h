/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Coherence: lets the peer cache for long what it has of a host directory, and tells it what others changed there.
 *
 * Each directory whose names the peer looks up is watched (inotify) before it is looked into; names and attributes that
 * were given out since are recorded and may be believed for long. An event that contradicts a record makes it stale:
 * the door takes it from the peer (FUSE_NOTIFY_INVAL_*, or the guest's agent). What the peer changes itself makes
 * events too, but agrees with the records and costs no more than one look at the file. What cannot be watched (no
 * watches left, a file system that raises no events, more names than are recorded, files with several names, which
 * others may change through a name that nobody watches) keeps the short validity that the backend gave.
 *
 * A watch that another process keeps (watch_remote) is not there at once. Meanwhile attributes hold for a moment only.
 * Names that are there or are not hold for long (else the peer's watchers could not be told that they went), and are
 * taken back unless the directory had been quiet since before they were looked up.
 *
 * What is not seen: writes of the host through a shared mapping until the file is closed or its times change.
 *
 * Thread rules: the hooks may be called from many threads; watch_step from one. No callback is made with a lock held.
 */
#ifndef FUSE_WATCH_H
#define FUSE_WATCH_H

#include <sys/inotify.h>

#include "base/error.h"
#include "fuse/known.h"
#include "supermachine.h"

struct watch;

enum watch_what {
	WATCH_NAME = 1,	    /* parent/name is not what the peer knows */
	WATCH_ATTR = 2,	    /* attributes of nodeid */
	WATCH_CONTENTS = 4, /* attributes and data of nodeid */
	WATCH_LISTING = 5,  /* attributes and listing of the directory nodeid */
};

struct watch_stale {
	enum watch_what what;	 /* 0: nothing that the peer has, only news for its watchers (where there are paths) */
	uint64_t parent, nodeid; /* NAME and 0: parent; else nodeid */
	const char *name;	 /* NAME and 0 */
	mode_t made, gone; /* types (S_IFMT) of what has come and of what went under the name; 0: not to be told */
	/* One path to it from the session's root, without a leading slash; NULL: none is known, or watch_paths was not
	 * asked for. */
	const char *path;
};

/*
 * What an agent of ours does in the peer, where no notification reaches the peer's kernel: it makes that kernel ask
 * again by ordinary system calls, two of which the session answers without asking the backend, whoever makes them:
 * - mknod of a character device of this number (as FUSE encodes it), before which the kernel looks the name up afresh:
 *   -EEXIST, and nothing is made.
 * - utimensat with this modification time: success, nothing is set. The peer's own watchers (inotify) see it:
 * IN_MODIFY, or IN_ATTRIB when the access time is given too.
 *
 * And what has come or gone is told to the peer's watchers by requests of a user that nobody else is, the herald
 * (herald.c): whatever it asks for, its requests change nothing on the host. To its mknod, mkdir or symlink of a name
 * the answer is what has that name already, so that the peer's kernel raises IN_CREATE for it; to its unlink or rmdir
 * of one that is gone, success: IN_DELETE.
 */
#define WATCH_HERALD_UID 4294859518U
#define WATCH_PROBE_RDEV UINT32_MAX
#define WATCH_EVENT_SEC (-0x5afe736dLL)
#define WATCH_EVENT_NSEC 736764637U

/* What an event may say. */
#define WATCH_EVENT_BITS                                                                                               \
	(IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE | IN_ISDIR |     \
	 IN_IGNORED | IN_UNMOUNT)
/* Events that come from elsewhere, laid out as inotify's. */
struct watch_batch {
	size_t len;
	char bytes[16384] __attribute__((aligned(__alignof__(struct inotify_event))));
};
/* name: "" or at most NAME_MAX long. False: no room. */
bool watch_batch_put(struct watch_batch *b, int wd, uint32_t mask, const char *name) MUST_CHECK;

struct watch_stats {
	uint64_t names, directories, refused, events, stale;
};

/* be, ops: the backend, which must have ops->watch. 0, -ENOMEM, or inotify's refusal. */
int watch_new(struct sm_fs_backend *be, const struct sm_fs_ops *ops, struct watch **ret) MUST_CHECK;
struct watch *watch_free(struct watch *w);
/* Readable when watch_step has something to do. */
int watch_fd(const struct watch *w);
/* Works off what is there, with a callback for all that became stale. Never blocks on the peer. 0 or -errno. */
int watch_step(struct watch *w, void (*stale)(void *arg, const struct watch_stale *), void *arg);
/* From now on findings have a path. Prefixes of a mux's children are their numbers, from 0. */
void watch_paths(struct watch *w);
void watch_get_stats(struct watch *w, struct watch_stats *ret);
/*
 * What the peer may have cached, in a snapshot of it. In the session that goes on from there nothing of it was watched
 * meanwhile: watch_compare watches it again and tells of all that is not as it was; before that, nothing else may be
 * believed. watch_load: 0, -EPROTO, -ENOTSUP, -ENOMEM; w NULL: skips nothing and is -ENOTSUP.
 */
void watch_save(struct watch *w, struct buf *out);
int watch_load(struct watch *w, struct cursor *in) MUST_CHECK;
void watch_compare(struct watch *w, void (*stale)(void *arg, const struct watch_stale *), void *arg);
/* Forgets all: the session begins anew. */
void watch_reset(struct watch *w);

/*
 * Directories whose events this kernel does not have (the backend's watch says -EREMOTE), as in a machine whose files
 * are its host's: another process watches them, and is asked through this. The functions are called with the watch's
 * lock held, from any thread, and must not block.
 */
#define WATCH_FEED_FIRST (1 << 29)   /* numbers of watches that inotify does not reach: of feeds (below), */
#define WATCH_REMOTE_FIRST (1 << 30) /* and of such */
struct watch_remote {
	/* path: as in watch_stale; ino: what has to be found there. False: it cannot be asked. */
	bool (*add)(void *arg, int wd, const char *path, uint64_t ino);
	void (*remove)(void *arg, int wd);
	void (*reset)(void *arg); /* all of them */
	void *arg;
};
/* It is there: directories that could not be watched until now will be asked for. Once. */
void watch_remote_begin(struct watch *w, const struct watch_remote *remote);
/* The answer to an add. When that is given, what is looked at here is as new as the watch. quiet_ns: for how long no
 * name had come or gone in the directory when the watch began. As watch_step, and from its thread. */
void watch_remote_added(struct watch *w, int wd, bool added, uint64_t quiet_ns,
			void (*stale)(void *arg, const struct watch_stale *), void *arg);
/* Events, laid out as inotify's. All that happens before one is what a look at the files finds from here on. As
 * watch_step, and from its thread. */
void watch_remote_events(struct watch *w, const char *buf, size_t len,
			 void (*stale)(void *arg, const struct watch_stale *), void *arg);
/* It is gone: what it watched is as if it had changed. */
void watch_remote_end(struct watch *w, void (*stale)(void *arg, const struct watch_stale *), void *arg);

/*
 * Directories that a backend has watched elsewhere (a shared tree's server, say), which sends what happens there over a
 * stream (share_feed.h). For backends, within their operation watch, which is called with the watch's lock held; its
 * result is then the number that the directory is watched under. A feed that ends takes its watches along: what they
 * were for is as if it had changed.
 */
/* A number for a watch that comes by this feed; 0 or one that has ended: by a new one, which *feed says then. Or
 * -errno: -EOPNOTSUPP when nobody can be told of anything. */
int watch_feed_number(uint64_t *feed) MUST_CHECK;
/* The stream of a new one, taken in any case. 0 or -errno. */
int watch_feed_begin(uint64_t feed, int fd) MUST_CHECK;
/* There will be none: the number is worth nothing. */
void watch_feed_drop(uint64_t feed);

/*
 * The hooks; each takes w NULL for a session without a watch. A mark is taken before the backend is asked: what an
 * event has touched since is not recorded.
 */
struct watch_mark {
	uint64_t nodeid;
	uint64_t at;	  /* events seen by then */
	uint64_t written; /* what the peer has written by then */
	bool watched;
	bool making;	 /* the peer's own doing */
	bool attr_known; /* of making: the peer believed the directory's attributes before, */
	bool listed;	 /* and had a listing of it */
};

/* Before this directory is listed. kept: from its beginning, and the peer may keep the listing until it is told that it
 * is stale; only where the mark says `watched`. */
struct watch_mark watch_listing(struct watch *w, uint64_t dir, bool kept);
/* Before a name of this directory is looked up. */
struct watch_mark watch_begin(struct watch *w, uint64_t dir);
/* Before one is made there, after which the peer does not believe the directory's attributes; and when it was not. */
struct watch_mark watch_making(struct watch *w, uint64_t dir);
void watch_not_made(struct watch *w, const struct watch_mark *mark);
/* An entry (maybe an absent one) of that directory goes out: may lengthen its validity. */
void watch_entry(struct watch *w, const struct watch_mark *mark, const char *name, struct sm_fs_entry *e);
/* Before attributes are asked for; and when they go out. */
struct watch_mark watch_begin_attr(struct watch *w, uint64_t nodeid);
void watch_attr(struct watch *w, const struct watch_mark *mark, const struct stat *st, uint64_t *valid_ns);
/* The peer changed the node's contents: it believes nothing but owner, mode and links of it now. */
void watch_written(struct watch *w, uint64_t nodeid);
/* The peer set its length, which the answer that the mark was taken for tells it. */
void watch_length_set(struct watch *w, struct watch_mark *mark);
/* The peer removed a name; renamed one (exchange: both stay). */
void watch_removed(struct watch *w, uint64_t dir, const char *name);
void watch_renamed(struct watch *w, uint64_t dir, const char *name, uint64_t new_dir, const char *new_name,
		   bool exchange);
void watch_forget(struct watch *w, uint64_t nodeid, uint64_t count);

/*
 * Close-to-open where the peer's kernel has not heard of a change yet. It reads no further than the length that it was
 * told, so an open would show the new contents, cut; and it opens the file that a name led to, though there may be
 * another in its place. What is to become of the peer's open of a file that is so long and has, or not, a name left:
 */
enum watch_open {
	WATCH_OPEN_AS_IS,
	WATCH_OPEN_ANEW,     /* as it is, but nothing that is cached may be kept */
	WATCH_OPEN_AGAIN,    /* refused with ESTALE: Linux looks the path up anew and tries once more */
	WATCH_OPEN_UNCACHED, /* that did not help a moment ago: read past the cache, where no length holds */
};
#define WATCH_ANY_LENGTH (-1)
enum watch_open watch_opened(struct watch *w, uint64_t nodeid, int64_t length, bool nameless);

/* What the peer holds under a name, as far as is recorded; 0: nothing, or unknown. */
uint64_t watch_child(struct watch *w, uint64_t dir, const char *name);
/* True if the file has no name any more, for certain. Takes no lock. */
bool watch_is_dead(struct watch *w, uint64_t nodeid);

#endif
