/* SPDX-License-Identifier: Apache-2.0 */
/* A socket joined to a channel. See join.h. */
#include "keeper/join.h"

#include "base/cleanup.h"
#include "base/fileio.h"

static void pair_ended(struct flow_pair *p)
{
	struct join *j = flow_pair_owner(struct join, pair, p);
	struct mux *mux = TAKE_PTR(j->mux);

	flow_pair_done(p);
	if (!mux_lost(mux)) {
		mux_set_handler(mux, j->ch, NULL, NULL);
		mux_close(mux, j->ch, 0, "");
	}
	if (j->ended)
		j->ended(j->arg, j->code);
}

static void on_eof(void *arg, uint32_t ch, void *user, unsigned stream)
{
	pair_ended(arg);
}

static void on_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	flow_pair_owner(struct join, pair, arg)->code = code;
	pair_ended(arg);
}

static const struct mux_callbacks callbacks = {
	.data = flow_pair_on_data, .eof = on_eof, .writable = flow_pair_on_writable, .closed = on_closed};

void join_begin(struct join *j, struct loop *loop, struct mux *mux, uint32_t ch, int fd,
		void (*ended)(void *arg, int code), void *arg)
{
	bool server = mux_role(mux) == MUX_SERVER;
	struct flow_channel in = {loop, mux, ch, server ? 0 : 1}, out = {loop, mux, ch, server ? 1 : 0};

	*j = (struct join){.mux = mux, .ch = ch, .ended = ended, .arg = arg};
	flow_pair_init(&j->pair, in, pair_ended);
	j->pair.together = true;
	j->pair.error = fd_set_nonblock(fd, true);
	if (j->pair.error == 0)
		j->pair.error = mux_set_handler(mux, ch, &callbacks, &j->pair);
	if (j->pair.error == 0)
		j->pair.error = flow_pair_join(&j->pair, in, out, fd);
	else
		fd_close(fd);
	flow_pair_settle(&j->pair);
}

void join_end(struct join *j)
{
	if (j->mux)
		pair_ended(&j->pair);
}
