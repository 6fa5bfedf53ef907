/* SPDX-License-Identifier: Apache-2.0 */
/* See slots.h. */
#include "base/slots.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"

#define NOTE_MAX 24

int slots_open(struct slots *s, const char *path)
{
	*s = (struct slots){.dir = -1, .turn = -1};
	s->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (s->dir < 0 && errno == ENOENT && (mkdir(path, 0700) == 0 || errno == EEXIST))
		s->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (s->dir < 0)
		return -errno;
	s->turn = openat(s->dir, "turn", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	return s->turn < 0 ? -errno : 0;
}

void slots_close(struct slots *s)
{
	s->turn = slots_release(s->turn);
	s->dir = fd_close(s->dir);
	s->first = false;
}

static int try_lock(int fd)
{
	int r;

	do
		r = flock(fd, LOCK_EX | LOCK_NB);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

int slots_turn(struct slots *s)
{
	int r = s->first ? 0 : try_lock(s->turn);

	s->first |= r == 0;
	return r;
}

/* What its holder noted: by who has the turn, under which it was written. */
static uint64_t need_of(int fd)
{
	char text[NOTE_MAX + 1] = "";
	uint64_t need = 0;
	ssize_t n = pread_full(fd, text, NOTE_MAX, 0);

	return n <= 0 || parse_u64(text, 0, UINT64_MAX, &need) < 0 ? 0 : need;
}

static int note(int fd, uint64_t need)
{
	char text[NOTE_MAX + 1];
	int n = snprintf(text, sizeof(text), "%llu", (unsigned long long)need), r;

	if (ftruncate(fd, 0) < 0)
		return -errno;
	r = pwrite_full(fd, text, (size_t)n, 0);
	return MIN(r, 0);
}

static uint64_t add(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

int slots_take(struct slots *s, unsigned max, uint64_t need, uint64_t room, unsigned *ret_held)
{
	uint64_t sum = need;
	_fd_ int mine = -1;
	unsigned held = 0;
	int r = 0;

	for (unsigned i = 0; i < max && (mine < 0 || room != UINT64_MAX); i++) {
		char name[12];
		_fd_ int fd = -1;

		snprintf(name, sizeof(name), "%u", i);
		fd = openat(s->dir, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (fd < 0)
			return -errno;
		r = try_lock(fd);
		if (r == -EWOULDBLOCK) {
			held++;
			sum = add(sum, need_of(fd));
		} else if (r < 0) {
			return r;
		} else if (mine < 0) {
			mine = TAKE_FD(fd);
		}
	}
	if (ret_held)
		*ret_held = held;
	if (mine < 0)
		return -EAGAIN;
	if (sum > room)
		return -ENOSPC;
	r = room == UINT64_MAX ? 0 : note(mine, need);
	if (r < 0)
		return r;
	s->turn = slots_release(s->turn);
	s->first = false;
	return TAKE_FD(mine);
}

int slots_release(int fd)
{
	if (fd >= 0)
		flock(fd, LOCK_UN);
	return fd_close(fd);
}
