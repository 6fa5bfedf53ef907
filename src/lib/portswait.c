/* SPDX-License-Identifier: Apache-2.0 */
/*
 * While a VM with ports is suspended, the process that carried its connections waits with the listening sockets
 * (keeper/waiting.c). Who resumes the VM takes them over, with all connections that wait in them.
 */
#include "lib/portswait.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "keeper/waiting.h"

#define ANSWER_SECONDS 5
#define BEGIN_TRIES 100
#define BEGIN_WAIT_MS 10

int ports_waiter(struct sm_client *c, const char *id)
{
	const struct timeval limit = {.tv_sec = ANSWER_SECONDS};
	_free_ char *dir = vmdir_path(c, id), *path = NULL;
	int fd;

	if (!dir || asprintf(&path, "%s/" WAITING_SOCKET, dir) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	if (access(path, F_OK) < 0)
		return -errno;
	fd = unix_connect(path);
	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return fd;
}

static bool is_listening(int fd)
{
	int type = 0, on = 0;
	socklen_t len = sizeof(int);

	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_STREAM &&
	       getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &len) == 0 && on;
}

int ports_take(int waiter, unsigned left, uint16_t guest_port)
{
	struct waiting_port p;
	int fd = -1;
	size_t nfds = 1;
	ssize_t n = fd_recv(waiter, &p, sizeof(p), &fd, &nfds);

	if (n < 0)
		return (int)n;
	if (nfds == 1 && n == sizeof(p) && p.guest_port == guest_port && p.left == left && is_listening(fd))
		return fd;
	if (nfds == 1)
		fd_close(fd);
	return -EPROTO;
}

bool ports_waited(struct sm_client *c, const char *id)
{
	int fd = ports_waiter(c, id);

	fd_close(fd);
	return fd >= 0;
}

void ports_await_waiter(struct sm_vm *vm)
{
	_fd_ int dir = vmdir_open(vm->client, vm->id, NULL);
	struct vm_record r;
	bool has;

	if (dir < 0 || vmdir_load(dir, vm->id, &r, NULL) < 0)
		return;
	has = ports_outward(r.ports) > 0;
	vm_record_done(&r);
	for (int i = 0; has && i < BEGIN_TRIES && !ports_waited(vm->client, vm->id); i++)
		poll(NULL, 0, BEGIN_WAIT_MS);
}
