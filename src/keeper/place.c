/* SPDX-License-Identifier: Apache-2.0 */
/* Where a process that several have in common is found. See place.h. */
#include "keeper/place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"

#define CONNECT_TRIES 5
#define MOST_ALIKE 8 /* of one hash */

static uint64_t hash(const struct buf *key) /* FNV-1a */
{
	uint64_t h = 0xcbf29ce484222325;

	for (size_t i = 0; i < key->len; i++)
		h = (h ^ key->data[i]) * 0x100000001b3;
	return h;
}

/* The lock, taken, if it is of this key: its file has the key in it. Else -EEXIST. */
static int lock_one(const char *path, const struct buf *key)
{
	_fd_ int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	char have[PLACE_KEY_MAX];
	ssize_t n;

	if (fd < 0 || flock(fd, LOCK_EX) < 0)
		return -errno;
	n = pread_full(fd, have, sizeof(have), 0);
	if (n < 0)
		return (int)n;
	if (n == 0) {
		int r = write_full(fd, key->data, key->len);

		return r < 0 ? r : TAKE_FD(fd);
	}
	return (size_t)n == key->len && memcmp(have, key->data, key->len) == 0 ? TAKE_FD(fd) : -EEXIST;
}

int place_find(const char *runtime_dir, const char *prefix, const struct buf *key, struct place *ret,
	       struct sm_error *err)
{
	int lock = key->error ? key->error : key->len < PLACE_KEY_MAX ? -EEXIST : -ENAMETOOLONG;

	for (unsigned i = 0; i < MOST_ALIKE && lock == -EEXIST; i++) {
		char name[64];

		snprintf(name, sizeof(name), "%s-%016jx-%u", prefix, (uintmax_t)hash(key), i);
		if (snprintf(ret->socket, sizeof(ret->socket), "%s/%s.sock", runtime_dir, name) >=
			    (int)sizeof(ret->socket) ||
		    snprintf(ret->lock, sizeof(ret->lock), "%s/%s.lock", runtime_dir, name) >= (int)sizeof(ret->lock))
			lock = -ENAMETOOLONG;
		else
			lock = lock_one(ret->lock, key);
	}
	return lock < 0 ? error_sys(err, -lock, "lock in %s", runtime_dir) : lock;
}

int place_put_program(struct buf *key, const char *program)
{
	struct stat st;

	if (stat(program, &st) < 0)
		return -errno;
	return buf_printf(key, "program %ju %ju %jd\n", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino,
			  (intmax_t)st.st_mtime);
}

int place_connect(const struct place *at,
		  int (*start)(void *arg, const struct place *at, int listener, struct sm_error *err), void *arg,
		  struct sm_error *err)
{
	int sock = unix_connect(at->socket);

	for (int i = 0; sock < 0 && i < CONNECT_TRIES; i++) {
		_fd_ int listener = -1;
		int r;

		unlink(at->socket); /* of one that was killed */
		listener = unix_listen(at->socket, 64);
		if (listener < 0)
			return error_sys(err, -listener, "listen on %s", at->socket);
		r = start(arg, at, listener, err);
		if (r < 0)
			return r;
		sock = unix_connect(at->socket);
	}
	return sock < 0 ? error_sys(err, -sock, "connect to %s", at->socket) : sock;
}
