/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens to files that are watched, as records (PROTO_WATCH, stream 1): u8 kind, u8 flags, u16 length of path,
 * u16 length of `to`, u16 0, both texts. The first one is FILEEVENT_READY or FILEEVENT_ERROR; after FILEEVENT_GONE or
 * FILEEVENT_ERROR nothing comes.
 */
#ifndef PROTO_FILEEVENT_H
#define PROTO_FILEEVENT_H

#include "proto/messages.h"

#define FILEEVENT_MAX_PATH 4096u

enum fileevent_kind { /* from 1 on as enum sm_file_event_kind has them */
		      FILEEVENT_READY = 0,
		      FILEEVENT_CREATED = 1,
		      FILEEVENT_MODIFIED = 2,
		      FILEEVENT_DELETED = 3,
		      FILEEVENT_MOVED = 4, /* the only one with a `to` */
		      FILEEVENT_ATTRIBUTES = 5,
		      FILEEVENT_OVERFLOW = 6,
		      FILEEVENT_GONE = 7,
		      FILEEVENT_ERROR = 8, /* path: the number of the error, `to`: in words */
};
struct fileevent {
	enum fileevent_kind kind;
	bool directory;
	char path[FILEEVENT_MAX_PATH + 1], to[FILEEVENT_MAX_PATH + 1];
};

/* Texts longer than FILEEVENT_MAX_PATH are -ENAMETOOLONG. to NULL: "". */
int fileevent_put(struct buf *b, enum fileevent_kind kind, bool directory, const char *path, const char *to) MUST_CHECK;
/* Takes the next record off the front: 1, 0: it is not all there yet, -EPROTO: it is none. *used: how long it was. */
int fileevent_next(const uint8_t *p, size_t len, struct fileevent *ret, size_t *used) MUST_CHECK;

#endif
