/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the peer may have cached for longer than it asks about: names under watched directories and the attributes that
 * it was shown. Internal to the watch (watch.h), under whose lock everything here is used.
 *
 * A node is here while the peer has it and a name or a watch makes it worth knowing. A name without a node is one that
 * the peer knows to be absent.
 */
#ifndef FUSE_KNOWN_H
#define FUSE_KNOWN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/cursor.h"

struct known_node {
	struct known_node *next, *wd_next; /* hash chains */
	uint64_t id, refs;		   /* refs: lookups that were recorded */
	struct known_name *names;	   /* of this node */
	struct known_name *children;	   /* names in this directory */
	int wd;				   /* its watch, -1: none */
	bool pending;			   /* the watch is asked for, and not there yet */
	bool refused;			   /* it cannot be watched: not asked again */
	bool attr_known;		   /* the peer may believe `attr` */
	bool listed;			   /* a directory: the peer may have a listing of it */
	bool written;			   /* but for size and times, for it wrote to the file since */
	bool length_told;		   /* a regular file: the peer's kernel may take `length` for its length */
	bool unlinked;			   /* by the peer, which so knows that it may have no name */
	bool outdated;			   /* an open was refused: no cached contents are kept by the next */
	uint64_t asked_ns;		   /* pending: since when */
	uint64_t refused_ns;		   /* when an open was refused, 0: never */
	uint64_t written_at;		   /* which of the peer's writes was the last to this file (watch.written) */
	int64_t length;
	struct stat attr;
};

struct known_name {
	struct known_name *next;		   /* hash chain */
	struct known_name *dir_next, **dir_prev;   /* parent->children */
	struct known_name *node_next, **node_prev; /* node->names; NULL: absent */
	struct known_node *parent, *node;
	bool pending; /* believed for long already, though the directory's watch was pending */
	char name[];
};

struct known {
	struct known_node **nodes, **by_wd;
	struct known_name **names;
	size_t num_nodes, num_names, num_watches, max_names;
};

/* max_names: beyond it nothing more is recorded. 0 or -ENOMEM. */
int known_init(struct known *k, size_t max_names);
void known_done(struct known *k);

/* Of a name in a directory. The upper half is the better one. */
uint64_t known_hash(uint64_t parent, const char *name);

struct known_node *known_find(const struct known *k, uint64_t id);
struct known_node *known_find_wd(const struct known *k, int wd);
/* All of them in turn; only names may be taken out on the way. NULL: no more. */
struct known_node *known_next(const struct known *k, const struct known_node *after);
/* Finds or makes one; NULL: no memory. */
struct known_node *known_enter(struct known *k, uint64_t id);
/* Its watch, -1: none any more. */
void known_set_watch(struct known *k, struct known_node *node, int wd);
/* Takes a node out with its names and with what was in it. */
void known_drop(struct known *k, struct known_node *node);

/* All of it but the watches, in a snapshot of the peer; known_load into an empty one: 0, -EPROTO, -ENOTSUP, -ENOMEM. */
void known_save(const struct known *k, struct buf *out);
int known_load(struct known *k, struct cursor *in);

struct known_name *known_name_find(const struct known *k, const struct known_node *parent, const char *name);
/* Records that the name is this node's (NULL: absent), whatever it was. False: no room. */
bool known_name_set(struct known *k, struct known_node *parent, const char *name, struct known_node *node);
void known_name_remove(struct known *k, struct known_name *n);

#endif
