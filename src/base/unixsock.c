/* SPDX-License-Identifier: Apache-2.0 */
/* Unix sockets: long paths, descriptor passing. See fileio.h. */
#include "base/fileio.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"

#define MAX_PASSED_FDS 16
#define LOOK_AGAIN_MS 10

/* sun_path holds 108 bytes; a longer path is reached through its directory's entry in /proc/self/fd. *ret_dir keeps
 * that open. */
static int fill_address(const char *path, struct sockaddr_un *sa, int *ret_dir)
{
	char parent[PATH_MAX];
	const char *slash = strrchr(path, '/');
	size_t len = strlen(path);

	*sa = (struct sockaddr_un){.sun_family = AF_UNIX};
	*ret_dir = -1;
	if (len < sizeof(sa->sun_path)) {
		memcpy(sa->sun_path, path, len + 1);
		return 0;
	}
	if (!slash || (size_t)(slash - path) >= sizeof(parent))
		return -ENAMETOOLONG;
	memcpy(parent, path, (size_t)(slash - path));
	parent[slash - path] = 0;
	*ret_dir = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (*ret_dir < 0)
		return -errno;
	if (snprintf(sa->sun_path, sizeof(sa->sun_path), "/proc/self/fd/%d/%s", *ret_dir, slash + 1) >=
	    (int)sizeof(sa->sun_path))
		return -ENAMETOOLONG;
	return 0;
}

int unix_listen(const char *path, int backlog)
{
	struct sockaddr_un sa;
	_fd_ int dir = -1;
	_fd_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int r;

	if (fd < 0)
		return -errno;
	r = fill_address(path, &sa, &dir);
	if (r < 0)
		return r;
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, backlog) < 0)
		return -errno;
	return TAKE_FD(fd);
}

/* Whether a socket is at path that nobody listens on any more. */
static bool is_left_over(const char *path)
{
	struct stat st;
	int fd;

	if (lstat(path, &st) < 0 || !S_ISSOCK(st.st_mode))
		return false;
	fd = unix_connect_nonblock(path);
	fd_close(fd);
	return fd == -ECONNREFUSED;
}

int unix_listen_again(const char *path, int backlog)
{
	int fd = unix_listen(path, backlog);

	if (fd == -EADDRINUSE && is_left_over(path) && unlink(path) == 0)
		fd = unix_listen(path, backlog);
	return fd;
}

static int connect_to(const char *path, int flags)
{
	struct sockaddr_un sa;
	_fd_ int dir = -1;
	_fd_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
	int r;

	if (fd < 0)
		return -errno;
	r = fill_address(path, &sa, &dir);
	if (r < 0)
		return r;
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		return -errno;
	return TAKE_FD(fd);
}

int unix_connect(const char *path)
{
	return connect_to(path, 0);
}

int unix_connect_nonblock(const char *path)
{
	return connect_to(path, SOCK_NONBLOCK);
}

int unix_connect_within(const char *path, uint64_t timeout_ns)
{
	uint64_t deadline = time_now_ns() + timeout_ns;
	int fd, r;

	while ((fd = unix_connect_nonblock(path)) == -EAGAIN && time_now_ns() < deadline)
		poll(NULL, 0, LOOK_AGAIN_MS);
	r = fd < 0 ? fd : fd_set_nonblock(fd, false);
	if (fd >= 0 && r < 0)
		fd_close(fd);
	return r < 0 ? r : fd;
}

int socket_error(int fd)
{
	socklen_t len = sizeof(int);
	int error = 0;

	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 ? -errno : -error;
}

int fd_send(int sock, const void *p, size_t len, const int *fds, size_t nfds)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int) * MAX_PASSED_FDS)];
	} control = {0};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)p, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (nfds > MAX_PASSED_FDS)
		return -EINVAL;
	if (nfds) {
		struct cmsghdr *c;

		msg.msg_control = control.space;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * nfds);
	}
	do
		n = sendmsg(sock, &msg, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	/* The descriptors went with the first byte; the rest of a stream's bytes follow plainly. */
	while ((size_t)n < len) {
		ssize_t more = send(sock, (const char *)p + n, len - (size_t)n, MSG_NOSIGNAL);

		if (more < 0 && errno == EINTR)
			continue;
		if (more < 0)
			return -errno;
		n += more;
	}
	return 0;
}

ssize_t fd_recv(int sock, void *p, size_t len, int *fds, size_t *nfds)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int) * MAX_PASSED_FDS)];
	} control;
	struct iovec iov = {.iov_base = p, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.space,
			     .msg_controllen = sizeof(control.space)};
	size_t room = *nfds, got = 0;
	ssize_t n;

	*nfds = 0;
	do
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		size_t count;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (got < room)
				fds[got++] = fd;
			else
				close(fd);
		}
	}
	*nfds = got;
	return n;
}
