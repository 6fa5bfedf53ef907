/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the monitor tells the guest's agent what others changed in the host's directories: a stream that the guest joins
 * at a vsock port of the host, records in one direction.
 *
 * A record: u32 length of the rest (little-endian), u8 what, the path below the mount of the device, without a leading
 * slash or NUL.
 */
#ifndef PROTO_REFRESH_H
#define PROTO_REFRESH_H

#define REFRESH_PORT 1025
#define REFRESH_MAX 4096 /* length of a record without its first word */

enum refresh_what {
	REFRESH_NAME = 1,     /* it may be absent, new, or another file */
	REFRESH_ATTR = 2,     /* its attributes */
	REFRESH_CONTENTS = 4, /* those and its data */
	REFRESH_LISTING = 5,  /* those and what is listed of the directory */
	REFRESH_ALL = 8,      /* anything may have changed; no path */
	/* As NAME, and news for those who watch the directory it is in: */
	REFRESH_MADE_FILE = 16,
	REFRESH_MADE_DIRECTORY = 17,
	REFRESH_MADE_LINK = 18,
	REFRESH_GONE = 32,
	REFRESH_GONE_DIRECTORY = 33,
	/* To a guest that goes on from a snapshot: what had changed by then has been told. No path. */
	REFRESH_CAUGHT_UP = 64,
};

#endif
