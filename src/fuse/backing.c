/* SPDX-License-Identifier: Apache-2.0 */
/* Backing ids. See backing.h. */
#include "fuse/backing.h"

#include <errno.h>
#include <stdlib.h>

#define BUCKETS 1024u

/* An open node. id 0: its files go through this server, and so must those opened meanwhile. */
struct entry {
	struct entry *next;
	uint64_t nodeid;
	uint32_t id, opens;
};

struct backing {
	struct fuse_backing_port port;
	pthread_mutex_t lock; /* guards all below */
	bool refused; /* the kernel will not do it for us: no privilege, or a file system that stacks too deep */
	struct entry *entries[BUCKETS];
};

struct backing *backing_new(const struct fuse_backing_port *port)
{
	struct backing *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->port = *port;
	pthread_mutex_init(&b->lock, NULL);
	return b;
}

struct backing *backing_free(struct backing *b)
{
	if (!b)
		return NULL;
	for (unsigned i = 0; i < BUCKETS; i++) {
		while (b->entries[i]) {
			struct entry *e = b->entries[i];

			b->entries[i] = e->next;
			if (e->id)
				b->port.close(b->port.arg, e->id);
			free(e);
		}
	}
	pthread_mutex_destroy(&b->lock);
	free(b);
	return NULL;
}

static struct entry **find(struct backing *b, uint64_t nodeid)
{
	struct entry **at = &b->entries[nodeid * 0x9e3779b97f4a7c15ULL >> 54];

	while (*at && (*at)->nodeid != nodeid)
		at = &(*at)->next;
	return at;
}

uint32_t backing_opened(struct backing *b, uint64_t nodeid, int fd)
{
	struct entry **at, *e;
	uint32_t id = 0;

	if (!b)
		return 0;
	pthread_mutex_lock(&b->lock);
	at = find(b, nodeid);
	e = *at;
	if (!e && (e = calloc(1, sizeof(*e)))) {
		int r = fd < 0 || b->refused ? -EOPNOTSUPP : b->port.open(b->port.arg, fd);

		e->nodeid = nodeid;
		e->id = r > 0 ? (uint32_t)r : 0;
		b->refused |= r == -EPERM || r == -ENOTTY || r == -ELOOP;
		*at = e;
	}
	if (e) {
		e->opens++;
		id = e->id;
	}
	pthread_mutex_unlock(&b->lock);
	return id;
}

void backing_closed(struct backing *b, uint64_t nodeid)
{
	struct entry **at, *e;

	if (!b)
		return;
	pthread_mutex_lock(&b->lock);
	at = find(b, nodeid);
	e = *at;
	if (e && --e->opens == 0) {
		*at = e->next;
		if (e->id)
			b->port.close(b->port.arg, e->id);
		free(e);
	}
	pthread_mutex_unlock(&b->lock);
}
