/* SPDX-License-Identifier: Apache-2.0 */
/* See flowpair.h. */
#include "proto/flowpair.h"

#include <errno.h>
#include <fcntl.h>

#include "base/cleanup.h"

void flow_pair_init(struct flow_pair *p, struct flow_channel from, void (*ended)(struct flow_pair *p))
{
	*p = (struct flow_pair){.in = {.from = from, .fd = -1}, .out.fd = -1, .ended = ended};
}

void flow_pair_settle(struct flow_pair *p)
{
	bool open = p->together ? p->in_open && p->out_open : p->in_open || p->out_open;

	if (!p->busy && (p->error || !open))
		p->ended(p);
}

static void in_ended(void *arg, int error)
{
	struct flow_pair *p = arg;

	p->in_open = false;
	/* A peer that reads no more is no failure: its own words may go on. */
	if (error && error != -EPIPE && (error != -ECONNRESET || p->resets))
		p->error = error;
	flow_pair_settle(p);
}

static void out_ended(void *arg, int error)
{
	struct flow_pair *p = arg;

	p->out_open = false;
	if (error)
		p->error = error;
	flow_pair_settle(p);
}

int flow_pair_in(struct flow_pair *p, struct flow_channel from, int fd, bool regular)
{
	int r = inflow_begin(&p->in, from, fd, regular, in_ended, p);

	p->in_open = r == 0;
	return r;
}

int flow_pair_out(struct flow_pair *p, struct flow_channel to, int fd, bool regular)
{
	int r = outflow_begin(&p->out, to, fd, regular, out_ended, p);

	p->out_open = r == 0;
	return r;
}

int flow_pair_join(struct flow_pair *p, struct flow_channel from, struct flow_channel to, int fd)
{
	int other = fcntl(fd, F_DUPFD_CLOEXEC, 3), r = other < 0 ? -errno : 0;

	if (r < 0)
		fd_close(fd);
	else
		r = flow_pair_in(p, from, fd, false);
	p->in.shut = true;
	if (r == 0)
		return flow_pair_out(p, to, other, false);
	fd_close(other);
	return r;
}

void flow_pair_left(struct flow_pair *p, int code)
{
	p->busy = p->left = true;
	if (code)
		p->error = code;
	else if (p->in_open && !p->in.got_eof)
		inflow_eof(&p->in);
	outflow_done(&p->out);
	p->out_open = false;
	p->busy = false;
	flow_pair_settle(p);
}

/* Whoever sent no end of its own does not know of this one, and may send for ever. */
bool flow_pair_lingers(const struct flow_pair *p)
{
	return !p->error && !p->left && p->in.got_eof;
}

int flow_pair_fd(const struct flow_pair *p)
{
	return p->in.fd >= 0 ? p->in.fd : p->out.fd;
}

void flow_pair_done(struct flow_pair *p)
{
	inflow_done(&p->in);
	outflow_done(&p->out);
	p->in_open = p->out_open = false;
}

void flow_pair_on_data(void *pair, uint32_t ch, void *user, unsigned stream, const uint8_t *p, size_t len)
{
	struct flow_pair *f = pair;

	f->busy = true;
	inflow_data(&f->in, p, len);
	f->busy = false;
	flow_pair_settle(f);
}

void flow_pair_on_eof(void *pair, uint32_t ch, void *user, unsigned stream)
{
	struct flow_pair *f = pair;

	f->busy = true;
	inflow_eof(&f->in);
	f->busy = false;
	flow_pair_settle(f);
}

void flow_pair_on_writable(void *pair, uint32_t ch, void *user, unsigned stream)
{
	struct flow_pair *f = pair;

	f->busy = true;
	outflow_writable(&f->out);
	f->busy = false;
	flow_pair_settle(f);
}
