/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-console against a random guest, with a reader that reads now and then. See fuzz_device.h. */
#include "fuzz_device.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "virtio/console.h"

static int out[2], in_pipe[2];

static struct virtio_device *make(struct driver *d, struct cursor *in)
{
	struct virtio_console_options o = {.name = "console"};
	struct virtio_device *dev;

	signal(SIGPIPE, SIG_IGN);
	if (pipe2(out, O_NONBLOCK) < 0 || pipe2(in_pipe, O_NONBLOCK) < 0)
		abort();
	o.output = out[1];
	o.input = in_pipe[0];
	return virtio_console_new(&d->mem, d->loop, &o, &dev) < 0 ? NULL : dev;
}

static void outside(struct driver *d, struct virtio_device *dev, struct cursor *in)
{
	char bytes[256] = {0};

	switch (cursor_u8(in) % 8) {
	case 0:
		if (out[0] >= 0)
			close(out[0]);
		out[0] = -1;
		break;
	case 1:
		if (in_pipe[1] >= 0)
			close(in_pipe[1]);
		in_pipe[1] = -1;
		break;
	case 2:
	case 3:
		if (out[0] >= 0 && read(out[0], bytes, sizeof(bytes)) < 0)
			break;
		break;
	default:
		if (in_pipe[1] >= 0 && write(in_pipe[1], bytes, cursor_u8(in)) < 0)
			break;
	}
}

static void done(struct driver *d)
{
	close(out[1]);
	close(in_pipe[0]);
	if (out[0] >= 0)
		close(out[0]);
	if (in_pipe[1] >= 0)
		close(in_pipe[1]);
}

const struct fuzz_device fuzz_device = {.make = make, .outside = outside, .done = done};
