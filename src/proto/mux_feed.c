/* SPDX-License-Identifier: Apache-2.0 */
/* The frame protocol's state machine: what comes in from the peer, who is never believed. See mux.h and mux_state.h. */
#include <errno.h>
#include <string.h>
#include <sys/types.h>

#include "base/util.h"
#include "proto/mux_state.h"

#define MAX_CONTROL (16u * 1024u * 1024u) /* queued control frames that a peer, by not reading, may make us keep */

struct frame {
	uint32_t len, ch;
	uint8_t type, stream;
	uint16_t reserved;
};

static const char *feed_hello(struct mux *m, struct cursor c)
{
	const void *magic = cursor_take(&c, PROTO_MAGIC_SIZE);
	uint16_t version = cursor_u16(&c), minimum = cursor_u16(&c);
	uint32_t window = cursor_u32(&c);

	if (m->got_hello)
		return "a second HELLO";
	if (c.bad || memcmp(magic, PROTO_MAGIC, PROTO_MAGIC_SIZE) != 0)
		return "not the agent protocol";
	if (!minimum || minimum > version || minimum > PROTO_VERSION || version < PROTO_VERSION_LEAST)
		return "no common protocol version";
	if (!window || window > PROTO_MAX_WINDOW)
		return "HELLO with an impossible window";
	m->got_hello = true;
	m->peer_window = window;
	m->peer_version = MIN(version, PROTO_VERSION);
	/* Opens may have been sent before the peer's HELLO: its windows count for them too. */
	for (unsigned b = 0; b < MUX_BUCKETS; b++)
		for (struct channel *ch = m->buckets[b]; ch; ch = ch->next)
			for (unsigned i = 0; i < PROTO_STREAMS; i++)
				ch->streams[i].credit = window;
	if (m->cb.hello)
		m->cb.hello(m->arg, &c, m->peer_version);
	return NULL;
}

static const char *feed_open(struct mux *m, const struct frame *f, struct cursor c)
{
	uint16_t service = cursor_u16(&c);

	if (m->role != MUX_SERVER)
		return "OPEN from a server";
	if (c.bad)
		return "OPEN without a service";
	if (mux_find(m, f->ch))
		return "OPEN of a channel in use";
	if (m->num_channels >= PROTO_MAX_CHANNELS)
		return "too many channels";
	if (!mux_channel_new(m, f->ch))
		return "out of memory";
	if (m->cb.open)
		m->cb.open(m->arg, f->ch, service, &c);
	else
		mux_close(m, f->ch, -EOPNOTSUPP, "no services here");
	return NULL;
}

static const char *feed_opened(struct mux *m, struct channel *ch, struct cursor c)
{
	void *arg;
	const struct mux_callbacks *cb = mux_callbacks_of(m, ch, &arg);

	if (m->role != MUX_CLIENT || ch->opened)
		return "unexpected OPENED";
	ch->opened = true;
	if (cb->opened && !ch->local_closed)
		cb->opened(arg, ch->id, ch->user, &c);
	return NULL;
}

static const char *feed_data(struct mux *m, struct channel *ch, const struct frame *f, struct cursor c)
{
	void *arg;
	const struct mux_callbacks *cb = mux_callbacks_of(m, ch, &arg);
	struct stream *s;
	size_t len = c.left;

	if (!mux_stream_from_peer(m, f->stream))
		return "DATA on a stream of the other direction";
	s = &ch->streams[f->stream];
	if (s->got_eof)
		return "DATA after EOF";
	if (len > s->window)
		return "DATA beyond the credit";
	s->window -= len;
	if (!len || ch->local_closed)
		return NULL;
	if (cb->data)
		cb->data(arg, ch->id, ch->user, f->stream, cursor_take(&c, len), len);
	else
		mux_consumed(m, ch->id, f->stream, len);
	return NULL;
}

static const char *feed_credit(struct mux *m, struct channel *ch, const struct frame *f, struct cursor c)
{
	uint32_t more = cursor_u32(&c);
	struct stream *s;

	if (c.bad || c.left)
		return "malformed CREDIT";
	if (!mux_stream_to_peer(m, f->stream))
		return "CREDIT on a stream of the other direction";
	s = &ch->streams[f->stream];
	if (more > m->peer_window - s->credit)
		return "CREDIT beyond the window";
	s->credit += more;
	if (!ch->local_closed && !s->sent_eof && more)
		mux_call_writable(m, ch, f->stream);
	return NULL;
}

static const char *feed_eof(struct mux *m, struct channel *ch, const struct frame *f, struct cursor c)
{
	void *arg;
	const struct mux_callbacks *cb = mux_callbacks_of(m, ch, &arg);

	if (c.left)
		return "EOF with a payload";
	if (!mux_stream_from_peer(m, f->stream))
		return "EOF on a stream of the other direction";
	if (ch->streams[f->stream].got_eof)
		return "EOF after EOF";
	ch->streams[f->stream].got_eof = true;
	if (cb->eof && !ch->local_closed)
		cb->eof(arg, ch->id, ch->user, f->stream);
	return NULL;
}

static const char *feed_event(struct mux *m, struct channel *ch, struct cursor c)
{
	void *arg;
	const struct mux_callbacks *cb = mux_callbacks_of(m, ch, &arg);

	if (c.left > MUX_MAX_EVENT)
		return "EVENT too long";
	if (cb->event && !ch->local_closed)
		cb->event(arg, ch->id, ch->user, &c);
	return NULL;
}

static const char *feed_close(struct mux *m, struct channel *ch, struct cursor c)
{
	void *arg;
	const struct mux_callbacks *cb = mux_callbacks_of(m, ch, &arg);
	int32_t code = (int32_t)cursor_u32(&c);
	char text[MUX_MAX_CLOSE_TEXT + 1];
	size_t len = c.left;
	const void *p = cursor_take(&c, len);

	if (c.bad || len > MUX_MAX_CLOSE_TEXT || code > 0 || code < -4095)
		return "malformed CLOSE";
	if (len)
		memcpy(text, p, len);
	text[len] = '\0';
	if (strlen(text) != len)
		return "malformed CLOSE";
	ch->peer_closed = true;
	if (ch->local_closed)
		mux_channel_free(m, ch);
	else if (cb->closed)
		cb->closed(arg, ch->id, ch->user, code, text);
	else
		mux_close(m, ch->id, 0, NULL);
	return NULL;
}

static const char *feed_frame(struct mux *m, const struct frame *f, struct cursor c)
{
	struct channel *ch;

	if (f->reserved || (f->stream && f->type != PROTO_DATA && f->type != PROTO_CREDIT && f->type != PROTO_EOF))
		return "reserved bits set";
	if ((f->type == PROTO_HELLO) != (f->ch == 0))
		return "HELLO belongs on channel 0, and nothing else does";
	if (f->type == PROTO_HELLO)
		return feed_hello(m, c);
	if (!m->got_hello)
		return "no HELLO before the first frame";
	if (f->type == PROTO_OPEN)
		return feed_open(m, f, c);
	ch = mux_find(m, f->ch);
	if (!ch || ch->peer_closed)
		return "frame for a channel that is not open";
	if (f->type == PROTO_CLOSE)
		return feed_close(m, ch, c);
	if (f->type == PROTO_OPENED)
		return feed_opened(m, ch, c);
	/* A client hears of a server's refusal late, but never of its acceptance late: before OPENED only CLOSE may
	 * come. */
	if (!ch->opened)
		return "frame before OPENED";
	switch (f->type) {
	case PROTO_DATA:
		return feed_data(m, ch, f, c);
	case PROTO_CREDIT:
		return feed_credit(m, ch, f, c);
	case PROTO_EOF:
		return feed_eof(m, ch, f, c);
	case PROTO_EVENT:
		return feed_event(m, ch, c);
	default:
		return "unknown frame type";
	}
}

static int frame_header(struct cursor *c, struct frame *f)
{
	f->len = cursor_u32(c);
	f->ch = cursor_u32(c);
	f->type = cursor_u8(c);
	f->stream = cursor_u8(c);
	f->reserved = cursor_u16(c);
	return c->bad ? -EAGAIN : 0;
}

static int fail(struct mux *m, const char **why, const char *text)
{
	if (why)
		*why = text;
	m->dead = true;
	return -EPROTO;
}

/* Requests alone are longer, and only clients make them. */
static size_t payload_limit(const struct mux *m, uint8_t type)
{
	return type == PROTO_OPEN && m->role == MUX_SERVER ? PROTO_MAX_OPEN : PROTO_MAX_PAYLOAD;
}

/* Takes whole frames off p; returns how many bytes, or -EPROTO. */
static ssize_t feed_whole(struct mux *m, const uint8_t *p, size_t len, const char **why)
{
	size_t done = 0;

	while (!m->dead) {
		struct cursor c = cursor_of(p + done, len - done);
		struct frame f;
		const void *payload;
		const char *bad;

		if (frame_header(&c, &f) < 0)
			break;
		if (f.len > payload_limit(m, f.type))
			return fail(m, why, "frame too long");
		payload = cursor_take(&c, f.len);
		if (c.bad)
			break;
		bad = feed_frame(m, &f, cursor_of(payload, f.len));
		if (bad)
			return fail(m, why, bad);
		if (m->control_new + m->control_old > MAX_CONTROL)
			return fail(m, why, "the peer asks and does not read");
		done += PROTO_HEADER_SIZE + f.len;
	}
	return (ssize_t)done;
}

/* Completes the frame that lies in m->in with bytes from *p. */
static int feed_partial(struct mux *m, const uint8_t **p, size_t *len, const char **why)
{
	while (m->in.len && *len) {
		size_t want = PROTO_HEADER_SIZE, n;
		ssize_t used;

		if (m->in.len >= PROTO_HEADER_SIZE) {
			struct cursor c = cursor_of(m->in.data, m->in.len);
			struct frame f;

			if (frame_header(&c, &f) < 0 || f.len > payload_limit(m, f.type))
				return fail(m, why, "frame too long");
			want += f.len;
		}
		n = MIN(*len, want - m->in.len);
		if (buf_put(&m->in, *p, n) < 0)
			return fail(m, why, "out of memory");
		*p += n;
		*len -= n;
		used = feed_whole(m, m->in.data, m->in.len, why);
		if (used < 0)
			return (int)used;
		buf_consume(&m->in, (size_t)used);
	}
	return 0;
}

int mux_feed(struct mux *m, const void *p, size_t len, const char **why)
{
	const uint8_t *bytes = p;
	ssize_t used;
	int r;

	if (m->dead)
		return fail(m, why, "the link is dead");
	r = feed_partial(m, &bytes, &len, why);
	if (r < 0)
		return r;
	used = feed_whole(m, bytes, len, why);
	if (used < 0)
		return (int)used;
	if (m->dead || (size_t)used == len)
		return 0;
	if (buf_put(&m->in, bytes + used, len - (size_t)used) < 0)
		return fail(m, why, "out of memory");
	return 0;
}
