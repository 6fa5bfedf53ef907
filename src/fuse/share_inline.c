/* SPDX-License-Identifier: Apache-2.0 */
/* Frames of a shared tree's stream. See share_inline.h. */
#include "fuse/share_inline.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* Takes what was sent off the front. */
static void advance(struct msghdr *m, size_t n)
{
	while (m->msg_iovlen && n >= m->msg_iov->iov_len) {
		n -= m->msg_iov->iov_len;
		m->msg_iov++;
		m->msg_iovlen--;
	}
	if (m->msg_iovlen) {
		m->msg_iov->iov_base = (char *)m->msg_iov->iov_base + n;
		m->msg_iov->iov_len -= n;
	}
}

int share_frame_send(int sock, const struct share_frame *f, const void *packet, const void *bulk)
{
	struct buf head = {0};
	struct iovec iov[3] = {
		{NULL, SHARE_HEAD}, {(void *)(uintptr_t)packet, f->packet}, {(void *)(uintptr_t)bulk, f->bulk}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = 3};
	int r;

	buf_put_u32(&head, f->lane);
	buf_put_u32(&head, f->packet);
	buf_put_u32(&head, f->bulk);
	iov[0].iov_base = head.data;
	r = head.error;
	while (r == 0 && m.msg_iovlen) {
		ssize_t n = sendmsg(sock, &m, MSG_NOSIGNAL);

		if (n >= 0)
			advance(&m, (size_t)n);
		else if (errno != EINTR)
			r = -errno;
	}
	buf_done(&head);
	return r;
}

int share_frame_get(const uint8_t head[SHARE_HEAD], unsigned lanes, struct share_frame *ret)
{
	struct cursor c = cursor_of(head, SHARE_HEAD);

	ret->lane = cursor_u32(&c);
	ret->packet = cursor_u32(&c);
	ret->bulk = cursor_u32(&c);
	return ret->lane < lanes && ret->packet && ret->packet <= SHARE_PACKET && ret->bulk <= SHARE_BULK ? 0 : -EPROTO;
}
