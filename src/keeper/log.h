/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log of what a command printed: records in files `log` (newest) and `log.1` in the VM's directory. A record is
 *
 *	u64 wall clock in ns | u8 stream (1 stdout, 2 stderr) | u8 0 | u16 0 | u32 length | bytes
 *
 * little-endian, written by one writev each, so binary output stays what it was and a reader sees whole records but
 * at most the last. When `log` has reached VM_LOG_ROTATE bytes it replaces `log.1` and a new one begins: at most twice
 * that is kept.
 */
#ifndef KEEPER_LOG_H
#define KEEPER_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cursor.h"
#include "base/error.h"

#define VM_LOG_HEADER 16
#define VM_LOG_MAX_RECORD 65536u
#define VM_LOG_ROTATE (16u << 20)

struct vm_log_header {
	int64_t time_ns;
	unsigned stream;
	uint32_t len;
};
/* -EBADMSG for what no writer here wrote. c has VM_LOG_HEADER bytes. */
int vm_log_header_decode(struct cursor *c, struct vm_log_header *ret);

struct vm_log {
	int dirfd; /* borrowed */
	int fd;
	const char *name; /* "log" */
	uint64_t size, rotate_at;
	bool raw;      /* no record headers: the console */
	uint64_t lost; /* bytes that could not be written (no space) */
};
/* Opens dirfd/name for appending. name is not copied. */
int vm_log_open(struct vm_log *log, int dirfd, const char *name, bool raw, uint64_t rotate_at);
void vm_log_close(struct vm_log *log);
/* Begins anew: what was written is removed. */
int vm_log_restart(struct vm_log *log) MUST_CHECK;
/* Appends; a full disk loses output (counted), it never stops the VM. */
void vm_log_write(struct vm_log *log, unsigned stream, const void *p, size_t len);

#endif
