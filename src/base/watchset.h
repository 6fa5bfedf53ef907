/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who wants to know what happens in a directory: one inotify instance's watches for any number of owners, each of which
 * names its watches by numbers of its own. The kernel's watch is there while somebody wants it. Not thread-safe.
 */
#ifndef BASE_WATCHSET_H
#define BASE_WATCHSET_H

#include <stdint.h>
#include <sys/inotify.h>

#include "base/error.h"

/* What a file server and whoever watches for one want to know of a directory. */
#define WATCHSET_EVENTS                                                                                                \
	(IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE | IN_ONLYDIR |   \
	 IN_EXCL_UNLINK)
#define WATCHSET_BUCKETS 4096u
#define WATCHSET_SAME 4u /* of one owner for one directory */

/* The first member of what an owner is. */
struct watchset_owner {
	uint32_t salt;	/* spreads the numbers of many owners */
	unsigned count; /* of its watches */
};

struct watchset_entry {
	struct watchset_owner *owner;
	uint32_t id;
	int wd;
	struct watchset_entry *id_next, *wd_next;
};

struct watchset {
	int notify; /* the inotify instance, the caller's */
	struct watchset_entry *by_id[WATCHSET_BUCKETS], *by_wd[WATCHSET_BUCKETS];
};

/*
 * wd is what the kernel said, just now: the owner's under this number from here on. -EEXIST (the number is in use),
 * -ENOSPC (it has `most` already, or WATCHSET_SAME of this directory), -ENOMEM: then nobody's, unless others want it.
 */
int watchset_put(struct watchset *s, struct watchset_owner *o, uint32_t id, int wd, unsigned most) MUST_CHECK;
/* Ends the kernel's watch if nobody has it. */
void watchset_unless_wanted(struct watchset *s, int wd);
bool watchset_has(const struct watchset *s, const struct watchset_owner *o, uint32_t id);
/* The owner does not want it any more; what there is not is none. */
void watchset_remove(struct watchset *s, struct watchset_owner *o, uint32_t id);
/* All of an owner's. */
void watchset_clear(struct watchset *s, struct watchset_owner *o);
/* Those that an event of this directory is for, one after another; NULL: begin, or no more. */
struct watchset_entry *watchset_next(const struct watchset *s, int wd, const struct watchset_entry *after);
/* The kernel has ended the watch (IN_IGNORED). */
void watchset_ended(struct watchset *s, int wd);
/* Directories that are watched. */
unsigned watchset_directories(const struct watchset *s);

#endif
