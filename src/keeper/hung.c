/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ends a keeper that hangs, and with it its VM: run by the library beside it, on the host or in the machine, where its
 * process is. Whose socket it is the kernel says, and as long as a connection to that waits, the process lives: so a
 * pidfd that was opened meanwhile is the keeper's, and no other's that was given its number.
 */
#include "keeper/hung.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"

#define LOOK_MS 100

/* By a signal or a debugger: it goes on only if somebody lets it. */
static bool is_stopped(pid_t pid)
{
	_free_ char *text = NULL;
	char path[64];
	const char *state;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	if (read_file_at(-1, path, 4096, &text, NULL) < 0)
		return false;
	state = strrchr(text, ')'); /* a program's name may have more of them */
	return state && state[1] == ' ' && state[2] == 'T';
}

/* It has said something, or hung up. */
static bool is_heard(int sock, int timeout_ms)
{
	struct pollfd p = {.fd = sock, .events = POLLIN};

	return poll(&p, 1, timeout_ms) > 0;
}

int hung_end(const char *socket, uint64_t patience_ns)
{
	_fd_ int sock = unix_connect_nonblock(socket), pidfd = -1;
	uint64_t deadline = time_now_ns() + patience_ns;
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (sock < 0)
		return sock == -ENOENT || sock == -ECONNREFUSED ? 0 : sock;
	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		return -errno;
	pidfd = (int)syscall(SYS_pidfd_open, peer.pid, 0);
	if (pidfd < 0)
		return -errno;
	do {
		if (is_heard(sock, LOOK_MS))
			return 0;
	} while (!is_stopped(peer.pid) && time_now_ns() < deadline);
	return syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) < 0 && errno != ESRCH ? -errno : 0;
}
