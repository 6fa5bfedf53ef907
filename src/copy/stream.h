/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tree of files as a stream of records, spoken between the library and the agent for copies in both directions. Not
 * tar: names are single components under the directory that is open at that point, so no record can name anything
 * outside the tree and no reader resolves a path. Both ends use the code of this room.
 *
 * Record (little-endian): u8 type, u8 0, u16 0, u32 length; payload.
 *
 *	ENTRY	u8 kind, u8 flags, u16 name length, u32 mode, uid, gid, u64 size, i64 mtime, u32 mtime ns, u32 major,
 *minor, u16 link length, u16 0, u32 length of the attributes; then name, link, attributes (u16 name length, u16 0, u32
 *value length, name, value). A directory is open from its ENTRY to its UP.
 *	DATA	u64 offset, bytes: of the file of the ENTRY before; ascending, what is left out is a hole
 *	UP	the open directory is complete
 *	ERROR	u32 errno, text: the sender gives up
 *	END	all is said
 *
 * Changes of a tree are a tree, too: of what was changed, made (COPY_NEW) or taken away (COPY_GONE), and the
 *directories on the way, which are COPY_IMPLICIT unless they are changed themselves. What takes the place of something
 *of another kind comes after a COPY_GONE of the same name.
 *
 * One tree a stream: the first ENTRY is its root, whose name is only a proposal. A stream without entries says that a
 * thing was done.
 */
#ifndef COPY_STREAM_H
#define COPY_STREAM_H

#include "base/buf.h"
#include "base/error.h"

#define COPY_MAX_NAME 255u
#define COPY_MAX_LINK 4095u
#define COPY_MAX_XATTRS 65536u /* bytes of all attributes of one file */
#define COPY_MAX_DEPTH 256u
#define COPY_CHUNK 61440u

enum copy_kind {
	COPY_FILE = 1,
	COPY_DIR = 2,
	COPY_SYMLINK = 3,
	COPY_HARDLINK = 4, /* link: names from the root down, with slashes between */
	COPY_FIFO = 5,
	COPY_CHAR = 6,
	COPY_BLOCK = 7,
	COPY_SOCKET = 8, /* in lists alone */
	COPY_GONE = 9,	 /* in changes alone: what had this name is not there any more */
};
enum copy_flags {
	COPY_IMPLICIT = 1, /* a directory on the way, of which nothing is known: one that is there stays as it is */
	COPY_NEW = 2,	   /* in changes: nothing had this name before, or a COPY_GONE has just said so */
};

/* Texts end with a NUL; all points into the decoder and is valid during the call. */
struct copy_entry {
	enum copy_kind kind;
	uint8_t flags;
	uint32_t mode; /* 07777 */
	uint32_t uid, gid, mtime_ns, major, minor;
	uint64_t size;
	int64_t mtime;
	const char *name, *link; /* link "": none */
	const void *xattrs;	 /* encoded; copy_xattr_next reads them */
	uint32_t xattrs_len;
};

struct cursor;
/* The next attribute: 1, or 0 at the end. Those of an entry that the decoder passed on are well-formed. name: room for
 * COPY_MAX_NAME + 1 bytes. */
int copy_xattr_next(struct cursor *c, char *name, const void **value, size_t *len);
int copy_xattr_put(struct buf *b, const char *name, const void *value, size_t len) MUST_CHECK;

/* ------------------------------------------------------------------------------------------- writer */

/* Where encoded records go: 0 or -errno, which ends the stream. */
struct copy_out {
	int (*write)(void *arg, const void *p, size_t len);
	void *arg;
	struct buf b;
};
int copy_put_entry(struct copy_out *o, const struct copy_entry *e) MUST_CHECK;
int copy_put_data(struct copy_out *o, uint64_t offset, const void *p, size_t len) MUST_CHECK; /* at most COPY_CHUNK */
int copy_put_up(struct copy_out *o) MUST_CHECK;
int copy_put_end(struct copy_out *o) MUST_CHECK;
int copy_put_error(struct copy_out *o, int code, const char *text) MUST_CHECK;
/* What is still buffered goes out; put_end and put_error do it by themselves. */
int copy_flush(struct copy_out *o) MUST_CHECK;
void copy_out_done(struct copy_out *o);

/* ------------------------------------------------------------------------------------------- reader */

/* Each 0 or -errno, which ends the reading; error: -errno with the sender's text. All required. */
struct copy_sink {
	int (*entry)(void *arg, const struct copy_entry *e, unsigned depth, struct sm_error *err);
	int (*data)(void *arg, uint64_t offset, const void *p, size_t len, struct sm_error *err);
	int (*file_end)(void *arg, struct sm_error *err); /* all of a regular file was said */
	int (*up)(void *arg, struct sm_error *err);
};

/* Decodes what a hostile peer sends: whatever it is, the sink sees entries in order, names of one component, offsets
 * within the file's size, no more UPs than directories. */
struct copy_in {
	const struct copy_sink *sink;
	void *arg;
	struct buf pending;
	unsigned depth;
	bool begun, in_file, ended;
	bool changes;	   /* COPY_GONE and COPY_NEW may come: set after copy_in_init; else they are refused */
	uint64_t size, at; /* of the file */
};
void copy_in_init(struct copy_in *in, const struct copy_sink *sink, void *arg);
/* Bytes of the peer: 0, -EPROTO for what is no stream, the peer's ERROR (-errno) or the sink's. After END anything more
 * is -EPROTO. */
int copy_in_feed(struct copy_in *in, const void *p, size_t len, struct sm_error *err) MUST_CHECK;
void copy_in_done(struct copy_in *in);

/* A single component: not empty, no slash, neither "." nor "..", not too long. */
bool copy_name_valid(const char *name, size_t len);

#endif
