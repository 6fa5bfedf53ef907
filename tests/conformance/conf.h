/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The conformance program's own small frame: what POSIX and the Linux manual pages say of a file system, as checks with
 * stable names. It uses libc alone, so that it can be linked statically and run in a guest.
 *
 * A topic file defines groups; each group runs in a process of its own, in an empty directory of the file system under
 * test, under a time limit. Every check has a name, "group.text", of which there is only one in the whole program.
 */
#ifndef CONFORMANCE_CONF_H
#define CONFORMANCE_CONF_H

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define NAMED(f, a) __attribute__((format(printf, f, a)))

/* Each counts one check, prints it if it fails (or with -v), and returns whether it passed. */
bool is_true(bool cond, const char *name, ...) NAMED(2, 3);
bool is_eq(long long got, long long want, const char *name, ...) NAMED(3, 4);
/* A system call's return: not negative; or -1 with this errno. Call them with the call itself as argument. */
bool works(long long ret, const char *name, ...) NAMED(2, 3);
bool fails(long long ret, int err, const char *name, ...) NAMED(3, 4);
/* One of two errnos that the manual page allows. */
bool fails_either(long long ret, int err1, int err2, const char *name, ...) NAMED(4, 5);
bool same_bytes(const void *got, const void *want, size_t len, const char *name, ...) NAMED(4, 5);
/* What cannot be checked here; counted. */
void skipped(const char *reason, const char *name, ...) NAMED(2, 3);
/* Preparation that is no check: ends the group as failed when it does not work. */
void need(bool cond, const char *what, ...) NAMED(2, 3);

bool am_root(void);
/*
 * Runs fn in a child as another user (root alone; uid, gid, no further groups), and waits. Checks in it count. With
 * groups: one supplementary group.
 */
void as_user(uid_t uid, gid_t gid, gid_t group, void (*fn)(void *), void *arg);
/* Runs fn in a child and returns its wait status. */
int in_child(void (*fn)(void *), void *arg);

/* Shorthands; all end the group if they do not work. */
void put_file(const char *path, const char *text, mode_t mode);
void put_bytes(const char *path, size_t len); /* a pattern that depends on the offset */
unsigned char pattern(uint64_t offset);
bool has_pattern(const unsigned char *p, uint64_t offset, size_t len);
struct stat stat_of(const char *path); /* lstat */
bool exists(const char *path);
size_t read_text(const char *path, char *buf, size_t size); /* NUL-terminated; SIZE_MAX on failure */
bool text_is(const char *path, const char *text);
void nap(unsigned ms);
/* Wrong on purpose, and unknown to the compiler. */
void *bad_address(void);
int minus_one(void);
int64_t ns_of(struct timespec t);

struct checks {
	const char *name;
	void (*run)(void);
	unsigned limit; /* seconds, 0: 20 */
};
#define GROUPS(topic) const struct checks groups_##topic[]
#define END_OF_GROUPS                                                                                                  \
	{                                                                                                              \
		0                                                                                                      \
	}

#endif
