/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a daemon backend (daemon.h) and the server of a shared tree (share_server.h) say to each other. Internal to the
 * room.
 *
 * The client connects to a unix stream socket and says hello (struct sizes below), which brings each lane's memory (a
 * memory file of SHARE_BULK bytes, sealed against shrinking: the client's, so that one that is confined needs no more
 * to greet another server); the answer brings a socket of packets for each lane. A lane carries one request at a time:
 * a packet there, a packet back. What is bulky (data, listings, values of attributes) lies in the lane's memory,
 * from its beginning; a file that the backend gives a descriptor of comes as that, and the client moves its data
 * itself. The stream stays open: whichever side closes it ends everything.
 *
 * Inline: where no descriptor comes through, since others carry the stream from one kernel to another, the server finds
 * none with the hello and says so in its welcome. The lanes' packets then go through the stream, each with its bulk
 * behind it, both ways: u32 lane, u32 bytes of the packet, u32 bytes of bulk, the packet, the bulk. Files have no
 * descriptors then, and what needs one (SHARE_WATCH, SHARE_MAP) is not there.
 *
 * What changes in directories that a client watches (SHARE_WATCH) it is told over a stream of its own: share_feed.h.
 *
 * Both sides take the other for hostile: packets are read through cursors, lengths are checked, and what lies in the
 * shared memory is copied before it is looked at, once. Numbers are little-endian.
 *
 * request: u32 op, u32 bytes of bulk, u32 uid, gid, pid, umask, u64 node, u64 handle, arguments
 * answer:  s64 result (-errno, or a count), u32 bytes of bulk, values; one descriptor at most
 */
#ifndef FUSE_SHARE_PROTO_H
#define FUSE_SHARE_PROTO_H

#include <sys/stat.h>

#include "base/buf.h"
#include "base/cursor.h"
#include "supermachine.h"

#define SHARE_MAGIC 0x48534d53u /* "SMSH" */
#define SHARE_VERSION 4u
#define SHARE_MAX_LANES 8u
#define SHARE_BULK (1u << 20)
#define SHARE_PACKET (8u << 10)	  /* the longest: a link's target and a name */
#define SHARE_LISTING (32u << 10) /* of one listing's part */
#define SHARE_HELLO 16		  /* u32 magic, version, lanes wanted, SHARE_INLINE if that will do */
#define SHARE_WELCOME 24 /* u32 magic, version, lanes given, 0 or SHARE_INLINE; u64 operations that there are */
#define SHARE_INLINE 1u
#define SHARE_HEAD 12 /* of a frame in the stream */

enum share_op {
	SHARE_LOOKUP = 1,
	SHARE_FORGET,
	SHARE_GETATTR,
	SHARE_SETATTR,
	SHARE_READLINK,
	SHARE_SYMLINK,
	SHARE_MKNOD,
	SHARE_MKDIR,
	SHARE_LINK,
	SHARE_CREATE,
	SHARE_TMPFILE,
	SHARE_UNLINK,
	SHARE_RMDIR,
	SHARE_RENAME,
	SHARE_OPEN,
	SHARE_READ,
	SHARE_WRITE,
	SHARE_FLUSH,
	SHARE_RELEASE,
	SHARE_FSYNC,
	SHARE_FSYNCDIR,
	SHARE_SYNCFS,
	SHARE_OPENDIR,
	SHARE_READDIR,
	SHARE_RELEASEDIR,
	SHARE_STATFS,
	SHARE_GETXATTR,
	SHARE_LISTXATTR,
	SHARE_SETXATTR,
	SHARE_REMOVEXATTR,
	SHARE_GETLK,
	SHARE_SETLK,
	SHARE_FALLOCATE,
	SHARE_LSEEK,
	SHARE_COPY_FILE_RANGE,
	SHARE_WATCH,
	SHARE_BIRTH,
	SHARE_RESET,
	SHARE_MAP,
	SHARE_NUM_OPS
};

struct share_request {
	uint32_t op, bulk;
	struct sm_fs_caller who;
	uint64_t nodeid, fh;
};

void share_put_request(struct buf *b, const struct share_request *rq);
void share_get_request(struct cursor *c, struct share_request *ret);
void share_put_stat(struct buf *b, const struct stat *st);
void share_get_stat(struct cursor *c, struct stat *ret);
void share_put_entry(struct buf *b, const struct sm_fs_entry *e);
void share_get_entry(struct cursor *c, struct sm_fs_entry *ret);
void share_put_lock(struct buf *b, const struct sm_fs_lock *lock);
void share_get_lock(struct cursor *c, struct sm_fs_lock *ret);
void share_put_str(struct buf *b, const char *s);
/* A file name as a backend may be given one; NULL and bad: it is none. */
const char *share_get_name(struct cursor *c);

#endif
