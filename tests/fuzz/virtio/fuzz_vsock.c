/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-vsock against a random guest and a host side that writes, reads, joins and closes at random. See
 * fuzz_device.h. */
#include "fuzz_device.h"

#include <linux/virtio_vsock.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "virtio/vsock.h"

#define MAX_FDS 8

static int fds[MAX_FDS];
static uint32_t last_port;

static void keep(int fd)
{
	for (unsigned i = 0; i < MAX_FDS; i++) {
		if (fds[i] < 0) {
			fds[i] = fd;
			return;
		}
	}
	close(fd);
}

static int on_connect(void *arg, uint32_t port, int fd)
{
	keep(fd);
	return port % 5 == 4 ? -1 : 0;
}

static struct virtio_device *make(struct driver *d, struct cursor *in)
{
	struct virtio_vsock_options o = {.name = "vsock", .cid = 3, .max_connections = 6, .connect = on_connect};
	struct virtio_device *dev;

	for (unsigned i = 0; i < MAX_FDS; i++)
		fds[i] = -1;
	last_port = 0x40000000;
	return virtio_vsock_new(&d->mem, d->loop, &o, &dev) < 0 ? NULL : dev;
}

static void outside(struct driver *d, struct virtio_device *dev, struct cursor *in)
{
	uint8_t a = cursor_u8(in), bytes[4096] = {0};
	int *fd = &fds[a % MAX_FDS], pair[2];

	switch (a / MAX_FDS % 8) {
	case 0:
		if (*fd >= 0)
			close(*fd);
		*fd = -1;
		break;
	case 1:
		if (*fd >= 0)
			shutdown(*fd, a & 0x80 ? SHUT_RD : SHUT_WR);
		break;
	case 2:
		while (*fd >= 0 && recv(*fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
			;
		break;
	case 3:
		if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
			abort();
		/* Little room, so that what the guest sends has to be kept. */
		setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &(int){1}, sizeof(int));
		keep(pair[1]);
		if (virtio_vsock_join(dev, 1 + (a >> 6), pair[0]) == 0)
			last_port++;
		break;
	case 4:
		virtio_vsock_transport_reset(dev);
		break;
	default:
		if (*fd >= 0 && send(*fd, bytes, cursor_u16(in) % sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			break;
	}
}

static void header(struct cursor *in, unsigned queue, uint8_t *p, size_t room)
{
	uint8_t a = cursor_u8(in), b = cursor_u8(in);
	struct virtio_vsock_hdr h = {.src_cid = 3,
				     .dst_cid = 2,
				     .src_port = 1 + (a & 1),
				     .dst_port = a & 4 ? last_port - (a >> 6) : (a & 8 ? 4 : 1),
				     .type = 1,
				     .op = b & 7,
				     .len = b & 8 ? cursor_u16(in) : (b & 0x10 ? 512 : 0),
				     .flags = b >> 5,
				     .buf_alloc = cursor_u16(in) * 16U,
				     .fwd_cnt = b & 0x40 ? cursor_u16(in) : 0};

	memcpy(p, &h, MIN(room, sizeof(h)));
}

static void done(struct driver *d)
{
	for (unsigned i = 0; i < MAX_FDS; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

const struct fuzz_device fuzz_device = {.make = make,
					.outside = outside,
					.header = header,
					.header_size = sizeof(struct virtio_vsock_hdr),
					.done = done};
