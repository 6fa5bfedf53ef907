/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any messages on a vhost-user connection, with real memory behind: the input's first bytes fill the memory (rings,
 * descriptors, requests), the rest is a list of messages: u8 request, u8 descriptors (0..2 of memory, or an eventfd),
 * u8 payload length, payload.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cursor.h"
#include "base/fileio.h"
#include "base/log.h"
#include "vhost/vhost_user.h"
#include "fuse/memory.h"

#define RAM_SIZE 65536u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Queues the messages, as many as the socket's buffer holds. */
static void queue_messages(struct cursor *c, int sock, int memfd)
{
	while (!c->bad && c->left > 2) {
		uint8_t request = cursor_u8(c), kind = cursor_u8(c), len = cursor_u8(c);
		uint32_t head[3] = {request & 31, 1 | (kind & 8), 0};
		uint8_t bytes[12 + 255];
		int fds[2] = {memfd, memfd}, event = -1;
		const void *payload;

		head[2] = (uint32_t)(len < c->left ? len : c->left);
		payload = cursor_take(c, head[2]);
		if (!payload && head[2])
			return;
		if (kind & 4)
			fds[0] = event = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
		memcpy(bytes, head, sizeof(head));
		if (head[2])
			memcpy(bytes + 12, payload, head[2]);
		int r = fd_send(sock, bytes, 12 + head[2], fds, kind & 3 ? (kind & 3) == 1 ? 1 : 2 : 0);

		if (event >= 0)
			close(event);
		if (r < 0)
			return; /* the socket is full: that is enough */
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuse_memory_options o = {.max_bytes = 1 << 20, .max_nodes = 64};
	struct cursor c = cursor_of(data, size);
	size_t fill = cursor_u16(&c);
	struct fuse_session *session;
	struct sm_fs_backend *be;
	struct sm_error err = {0};
	int sock[2], memfd = memfd_create("ram", MFD_CLOEXEC);
	const void *bytes;

	if (size > 4096 || ftruncate(memfd, RAM_SIZE) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock) < 0) {
		close(memfd);
		return -1;
	}
	log_set_level(LOG_ERROR);
	fill = fill < c.left ? fill : c.left;
	bytes = cursor_take(&c, fill);
	if (bytes && pwrite_full(memfd, bytes, fill, 0) < 0)
		abort();
	if (fuse_memory_new(&o, &be) < 0 || fuse_session_new(be, NULL, &session) < 0)
		abort();
	fd_set_nonblock(sock[0], true);
	queue_messages(&c, sock[0], memfd);
	shutdown(sock[0], SHUT_WR);
	vhost_user_serve(sock[1], -1, session, &err);
	close(sock[0]);
	close(sock[1]);
	close(memfd);
	fuse_session_free(session);
	fuse_memory_free(be);
	return 0;
}
