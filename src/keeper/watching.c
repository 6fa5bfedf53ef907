/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A monitor in a machine has its shared directories watched on the host: the keeper joins the monitor's stream to the
 * channel of the process there (hostwatch.c), and understands nothing of what they say. When either goes the other
 * finds its end, for good.
 */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "keeper/keeper.h"

int watching_new(struct keeper *k, struct monitor_files *f)
{
	int pair[2], theirs;

	if (!k->args.watched || k->rec.num_mounts == vm_volumes(&k->rec, false))
		return -1;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	theirs = monitor_files_add(f, pair[1]);
	if (theirs < 0) {
		fd_close(pair[0]);
		return theirs;
	}
	k->watching.fd = pair[0];
	return theirs;
}

int watching_serve(struct keeper *k, struct mux *near, uint32_t ch)
{
	struct watching *w = &k->watching;

	if (w->fd < 0)
		return w->used ? -EBUSY : -ENOENT;
	w->used = true;
	mux_opened(near, ch, NULL);
	join_begin(&w->join, k->loop, near, ch, TAKE_FD(w->fd), NULL, NULL);
	return 0;
}

void watching_done(struct keeper *k)
{
	join_end(&k->watching.join);
	k->watching.fd = fd_close(k->watching.fd);
}
