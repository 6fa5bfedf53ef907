/* SPDX-License-Identifier: Apache-2.0 */
/* The process that watches the host's directories for VMs in the machine, and one of its VMs. Internal to hostwatch.c
 * and watchers.c. */
#ifndef KEEPER_WATCHERS_H
#define KEEPER_WATCHERS_H

#include <sys/inotify.h>

#include "base/buf.h"
#include "base/loop.h"
#include "base/watchset.h"
#include "proto/hostwatch.h"

#define HOSTWATCH_HIGH (128u * KIB) /* bytes for a VM, beyond which it is asked and told nothing more */

struct hostwatch;

struct watchers {
	struct loop *loop;
	struct watchset set;
	struct loop_source *events, *gather;
	struct loop_source *reap; /* of VMs that have ended */
	struct hostwatch *list;
	int result;
	/* Of a group (watchgroup.h): */
	int listener; /* -1: of one VM alone */
	struct loop_source *idle;
	const char *lock, *socket;
};

/* One event that may still grow: those in a row about one name are told as one. */
struct growing {
	bool any;
	struct hostwatch_record rec;
};

/* A VM. */
struct hostwatch {
	struct watchset_owner owner; /* first */
	struct watchers *watchers;
	struct hostwatch *next;
	struct link *link;
	struct mux *mux;
	uint32_t ch;
	int sources[HOSTWATCH_SHARES];
	unsigned num_sources;
	struct buf in, out;
	struct growing growing;
	struct hostwatch_record asked;
	bool lost; /* something that it should have been told */
	bool ended;
};

/* watchers.c: events are listened for again. */
void watchers_listen(struct watchers *w);
/* The VM has ended (0), or broke the protocol: it is freed when nothing of it is under way. */
void hostwatch_end(struct hostwatch *h, int r);

/* hostwatch.c: link_fd and sources (-1: not there) are taken in any case; free says nothing to anybody. */
int hostwatch_new(struct watchers *w, int link_fd, int *sources, unsigned count, struct hostwatch **ret) MUST_CHECK;
void hostwatch_free(struct hostwatch *h);
/* An event for its watch of this number; and when all that were there have been noted. */
void hostwatch_note(struct hostwatch *h, uint32_t id, const struct inotify_event *ev);
void hostwatch_noted(struct hostwatch *h);
/* What the other side takes. */
void hostwatch_send(struct hostwatch *h);

#endif
