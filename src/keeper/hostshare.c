/* SPDX-License-Identifier: Apache-2.0 */
/*
 * supermachine-keeper --share: a process on the host beside a VM in the machine, which carries the connections of the
 * VM's monitor to the programs that serve file systems on this host's sockets. It has a channel to the VM's keeper for
 * each of them, which that accepts when its monitor wants a connection. It ends with the VM.
 *
 * Whoever is at the other end gets connections to these sockets, one at a time to each, and nothing else. It is sealed:
 * it can connect to sockets of this host, and execute or write nothing.
 */
#include "keeper/hostshare.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/filter.h"
#include "base/loop.h"
#include "base/util.h"
#include "keeper/join.h"
#include "keeper/record.h"
#include "proto/link.h"
#include "proto/messages.h"

struct place {
	struct hostshare_place p;
	struct join join;
};

struct hostshare {
	struct loop *loop;
	struct link *link;
	struct mux *mux;
	struct place places[VM_MAX_MOUNTS];
	unsigned num_places;
};

static int offer(struct hostshare *h, struct place *p)
{
	_cleanup_(buf_done) struct buf b = {0};
	uint32_t ch;

	buf_put_u8(&b, p->p.number);
	return mux_open(h->mux, PROTO_KEEPER_SHARE, &b, p, &ch);
}

/* Wanted. The next is offered in any case. */
static void on_opened(void *arg, uint32_t ch, void *user, struct cursor *reply)
{
	struct hostshare *h = arg;
	struct place *p = user;
	int fd;

	join_end(&p->join);
	fd = unix_connect(p->p.socket);
	if (fd < 0)
		mux_close(h->mux, ch, fd, "");
	else
		join_begin(&p->join, h->loop, h->mux, ch, fd, NULL, NULL);
	if (offer(h, p) < 0)
		loop_stop(h->loop, -ENOMEM);
}

/* One that was not wanted, or is over on both sides. */
static void on_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	mux_close(((struct hostshare *)arg)->mux, ch, 0, "");
}

static const struct mux_callbacks callbacks = {.opened = on_opened, .closed = on_closed};

static void on_link_end(struct link *l, int r, const char *why, void *arg)
{
	loop_stop(((struct hostshare *)arg)->loop, 0);
}

static int begin(struct hostshare *h, int link_fd)
{
	int r = loop_new(&h->loop);

	if (r == 0)
		r = link_client(h->loop, link_fd, &callbacks, on_link_end, h, &h->link);
	if (r == 0)
		h->mux = link_mux(h->link);
	for (unsigned i = 0; i < h->num_places && r == 0; i++)
		r = offer(h, &h->places[i]);
	return r;
}

static const struct filter_rule rules[] = {CALL_WITH(socket, 0, AF_UNIX)};
static const int syscalls[] = {SYS_connect, SYS_openat, -1}; /* openat: of a long path's directory */

int hostshare_run(int link_fd, const struct hostshare_place *places, unsigned count)
{
	struct hostshare *h = calloc(1, sizeof(*h));
	int r;

	if (!h || count > VM_MAX_MOUNTS)
		return -EINVAL;
	for (unsigned i = 0; i < count; i++)
		h->places[h->num_places++] = (struct place){.p = places[i], .join = JOIN_INIT};
	r = begin(h, link_fd);
	if (r == 0)
		r = filter_process(rules, ARRAY_SIZE(rules), (const int *const[]){syscalls, NULL});
	if (r == 0)
		r = loop_run(h->loop);
	/* What goes with the process needs no tidying. */
	return r;
}
