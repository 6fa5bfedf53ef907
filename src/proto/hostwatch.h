/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Watching directories of another kernel. In a machine the files are the host's, and so are the events of what others
 * change there: the monitor asks a process on the host (keeper/hostwatch.c) to watch directories for it, by a stream of
 * records that the keeper passes on, both ways.
 *
 * A record: u32 length of the rest (little-endian), u8 operation, then what belongs to it. Ids are the monitor's choice
 * and never used twice. Neither side trusts the other: what does not parse ends the stream, and what the monitor asks
 * for is looked up beneath the directories that the VM has (their numbers are those of its mounts), through no link.
 */
#ifndef PROTO_HOSTWATCH_H
#define PROTO_HOSTWATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/cursor.h"

#define HOSTWATCH_SHARES 64
#define HOSTWATCH_TEXT 4096 /* longest path with its NUL */
#define HOSTWATCH_RECORD (1 + 4 + 8 + 1 + HOSTWATCH_TEXT)
#define HOSTWATCH_MAX_ID INT32_MAX

enum hostwatch_op {
	/* to the host */
	HOSTWATCH_ADD = 1,    /* u32 id, u64 inode number that it must have, u8 share, path below it ("": itself) */
	HOSTWATCH_REMOVE = 2, /* u32 id; also of one that is not there any more */
	HOSTWATCH_RESET = 3,  /* remove all */
	/* from the host */
	HOSTWATCH_HELLO = 16,	/* first: it is there */
	HOSTWATCH_ADDED = 17,	/* u32 id, u64 ns for which no name has come or gone: from now on that is told */
	HOSTWATCH_REFUSED = 18, /* u32 id */
	HOSTWATCH_EVENT = 19,	/* u32 id, u32 mask as of inotify(7), name in the directory ("": itself) */
	HOSTWATCH_LOST = 20,	/* more happened than could be told */
};

struct hostwatch_record {
	enum hostwatch_op op;
	uint32_t id, mask;
	uint64_t ino, quiet_ns;
	uint8_t share;
	char text[HOSTWATCH_TEXT];
};

/* Appends one; text NULL: "". 0, -ENOMEM, or -ENAMETOOLONG. */
int hostwatch_encode(struct buf *b, const struct hostwatch_record *r);

/* Takes the next whole record: 1; 0: not all of it is there yet (nothing is taken); -EPROTO. from_host: who speaks. */
int hostwatch_decode(struct cursor *c, bool from_host, struct hostwatch_record *ret);

#endif
