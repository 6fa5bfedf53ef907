/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frame protocol's state machine. See mux.h and frame.h.
 *
 * A channel lives from OPEN until both sides have sent CLOSE. Its states, as seen from one end:
 *
 *	opening		OPEN sent (client) or received (server), OPENED not yet. Server may send OPENED or CLOSE, client
 *CLOSE. open		data, credit, events, each stream until its EOF local_closed	we have sent CLOSE: nothing more
 *goes out, what still comes in is checked and dropped
 *	peer_closed	the peer has sent CLOSE: nothing more may come in; we owe a CLOSE
 *
 * Callbacks run inside mux_feed and may change any channel, so none is touched after a callback without a new look-up.
 */
#include "proto/mux.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "base/util.h"

#define BUCKETS 256u
#define MAX_EVENT 4096u
#define MAX_CLOSE_TEXT 1024u
#define MAX_CONTROL (16u * 1024u * 1024u) /* queued control frames that a peer, by not reading, may make us keep */
#define STARVED_LOW (MUX_OUTPUT_HIGH / 2)

struct stream {
	size_t credit;	   /* what we may send */
	size_t window;	   /* what the peer may send */
	size_t unreported; /* consumed but not yet granted back */
	bool sent_eof, got_eof, starved;
};

struct channel {
	struct channel *next;
	uint32_t id;
	bool opened, local_closed, peer_closed, aborted;
	struct stream streams[PROTO_STREAMS];
	void *user;
	const struct mux_callbacks *cb; /* NULL: the mux's */
	void *cb_arg;
};

struct mux {
	enum mux_role role;
	struct mux_callbacks cb;
	void *arg;
	uint32_t window, peer_window, next_id;
	bool sent_hello, got_hello, dead;
	size_t num_channels, num_starved;
	struct channel *buckets[BUCKETS];
	struct buf in; /* a frame that has not come whole */
	struct buf out;
	size_t out_head; /* written part of out */
	/* An upper bound of control bytes queued, in two generations: the older leaves when all that was queued with it
	 * did. */
	size_t control_new, control_old, generation_left;
	void (*hook)(void *);
	void *hook_arg;
};

int mux_new(enum mux_role role, const struct mux_callbacks *cb, void *arg, uint32_t window, struct mux **ret)
{
	struct mux *m;

	if (!window || window > PROTO_MAX_WINDOW)
		return -EINVAL;
	m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	m->role = role;
	if (cb)
		m->cb = *cb;
	m->arg = arg;
	m->window = window;
	m->next_id = 1;
	*ret = m;
	return 0;
}

enum mux_role mux_role(const struct mux *m)
{
	return m->role;
}

bool mux_ready(const struct mux *m)
{
	return m->got_hello;
}

bool mux_lost(const struct mux *m)
{
	return m->dead;
}

void mux_set_output_hook(struct mux *m, void (*fn)(void *), void *arg)
{
	m->hook = fn;
	m->hook_arg = arg;
}

/* ------------------------------------------------------------------------------------------ channels */

static struct channel *find(struct mux *m, uint32_t id)
{
	struct channel *c = m->buckets[id % BUCKETS];

	while (c && c->id != id)
		c = c->next;
	return c;
}

static struct channel *channel_new(struct mux *m, uint32_t id)
{
	struct channel *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->id = id;
	for (unsigned i = 0; i < PROTO_STREAMS; i++) {
		c->streams[i].window = m->window;
		c->streams[i].credit = m->peer_window;
	}
	c->next = m->buckets[id % BUCKETS];
	m->buckets[id % BUCKETS] = c;
	m->num_channels++;
	return c;
}

static void unstarve(struct mux *m, struct stream *s)
{
	if (s->starved)
		m->num_starved--;
	s->starved = false;
}

static void channel_free(struct mux *m, struct channel *c)
{
	struct channel **link = &m->buckets[c->id % BUCKETS];

	while (*link != c)
		link = &(*link)->next;
	*link = c->next;
	for (unsigned i = 0; i < PROTO_STREAMS; i++)
		unstarve(m, &c->streams[i]);
	m->num_channels--;
	free(c);
}

static const struct mux_callbacks *callbacks(struct mux *m, struct channel *c, void **ret_arg)
{
	*ret_arg = c->cb ? c->cb_arg : m->arg;
	return c->cb ? c->cb : &m->cb;
}

/* Streams that the peer sends on: a client on 0 only, a server on the others. */
static bool stream_from_peer(const struct mux *m, unsigned stream)
{
	return stream < PROTO_STREAMS && (m->role == MUX_SERVER) == (stream == 0);
}

static bool stream_to_peer(const struct mux *m, unsigned stream)
{
	return stream < PROTO_STREAMS && (m->role == MUX_CLIENT) == (stream == 0);
}

/* ------------------------------------------------------------------------------------------ output */

static size_t out_queued(const struct mux *m)
{
	return m->out.len - m->out_head;
}

static int put_frame(struct mux *m, uint32_t ch, enum proto_type type, unsigned stream, const void *p, size_t len)
{
	bool was_empty = out_queued(m) == 0;
	int r;

	if (m->dead)
		return -ENOENT;
	r = buf_reserve(&m->out, PROTO_HEADER_SIZE + len);
	if (r < 0) {
		m->out.error = 0; /* nothing was queued; a later, smaller frame may fit */
		return r;
	}
	buf_put_u32(&m->out, (uint32_t)len);
	buf_put_u32(&m->out, ch);
	buf_put_u8(&m->out, (uint8_t)type);
	buf_put_u8(&m->out, (uint8_t)stream);
	buf_put_u16(&m->out, 0);
	buf_put(&m->out, p, len);
	if (type != PROTO_DATA)
		m->control_new += PROTO_HEADER_SIZE + len;
	if (was_empty && m->hook)
		m->hook(m->hook_arg);
	return 0;
}

const uint8_t *mux_output(struct mux *m, size_t *ret_len)
{
	*ret_len = out_queued(m);
	return *ret_len ? m->out.data + m->out_head : NULL;
}

static void call_writable(struct mux *m, struct channel *c, unsigned stream)
{
	void *arg;
	const struct mux_callbacks *cb = callbacks(m, c, &arg);

	unstarve(m, &c->streams[stream]);
	if (cb->writable && !m->dead)
		cb->writable(arg, c->id, c->user, stream);
}

/* Room in the queue again: tells those who were refused for the want of it. Each is told once; who is starved anew
 * waits. */
static void tell_starved(struct mux *m)
{
	size_t n = 0, left = m->num_starved;
	struct {
		uint32_t id;
		unsigned stream;
	} told[64];

	for (unsigned b = 0; b < BUCKETS && n < ARRAY_SIZE(told) && left; b++)
		for (struct channel *c = m->buckets[b]; c; c = c->next)
			for (unsigned i = 0; i < PROTO_STREAMS; i++)
				if (c->streams[i].starved && n < ARRAY_SIZE(told)) {
					told[n].id = c->id;
					told[n++].stream = i;
					left--;
				}
	for (size_t i = 0; i < n; i++) {
		struct channel *c = find(m, told[i].id);

		if (c && c->streams[told[i].stream].starved)
			call_writable(m, c, told[i].stream);
	}
}

void mux_output_done(struct mux *m, size_t n)
{
	m->out_head += MIN(n, out_queued(m));
	if (n < m->generation_left) {
		m->generation_left -= n;
	} else {
		m->control_old = m->control_new;
		m->control_new = 0;
		m->generation_left = out_queued(m);
		if (!m->generation_left)
			m->control_old = 0;
	}
	if (m->out_head == m->out.len) {
		m->out.len = m->out_head = 0;
		if (m->out.cap > 4 * MUX_OUTPUT_HIGH)
			buf_done(&m->out);
	} else if (m->out_head >= out_queued(m)) {
		/* Moves at most as many bytes as have been written since the last move. */
		buf_consume(&m->out, m->out_head);
		m->out_head = 0;
	}
	/* Who is told may starve again only once the queue is full: this ends. */
	while (m->num_starved && out_queued(m) <= STARVED_LOW && !m->dead)
		tell_starved(m);
}

int mux_hello(struct mux *m, const struct buf *attributes)
{
	struct buf b = {0};
	int r;

	if (m->sent_hello)
		return -EINVAL;
	buf_put(&b, PROTO_MAGIC, PROTO_MAGIC_SIZE);
	buf_put_u16(&b, PROTO_VERSION);
	buf_put_u16(&b, PROTO_VERSION);
	buf_put_u32(&b, m->window);
	if (attributes)
		buf_put(&b, attributes->data, attributes->len);
	r = b.error ? b.error : b.len > PROTO_MAX_PAYLOAD ? -EMSGSIZE : put_frame(m, 0, PROTO_HELLO, 0, b.data, b.len);
	if (r == 0)
		m->sent_hello = true;
	buf_done(&b);
	return r;
}

static uint32_t pick_id(struct mux *m)
{
	do {
		m->next_id = m->next_id == UINT32_MAX ? 1 : m->next_id + 1;
	} while (find(m, m->next_id));
	return m->next_id;
}

int mux_open(struct mux *m, uint16_t service, const struct buf *request, void *user, uint32_t *ret_ch)
{
	struct buf b = {0};
	struct channel *c;
	int r;

	if (m->role != MUX_CLIENT || !m->sent_hello)
		return -EINVAL;
	if (m->dead)
		return -ENOTCONN;
	if (m->num_channels >= PROTO_MAX_CHANNELS)
		return -EMFILE;
	buf_put_u16(&b, service);
	if (request)
		buf_put(&b, request->data, request->len);
	if (b.error || b.len > PROTO_MAX_PAYLOAD) {
		r = b.error ? b.error : -EMSGSIZE;
		buf_done(&b);
		return r;
	}
	c = channel_new(m, pick_id(m));
	r = c ? put_frame(m, c->id, PROTO_OPEN, 0, b.data, b.len) : -ENOMEM;
	buf_done(&b);
	if (r < 0) {
		if (c)
			channel_free(m, c);
		return r;
	}
	c->user = user;
	*ret_ch = c->id;
	return 0;
}

/* A channel that we may still send on, or NULL. */
static struct channel *find_sendable(struct mux *m, uint32_t ch)
{
	struct channel *c = m->dead ? NULL : find(m, ch);

	return c && !c->local_closed && !c->peer_closed ? c : NULL;
}

int mux_opened(struct mux *m, uint32_t ch, const struct buf *reply)
{
	struct channel *c = find_sendable(m, ch);
	size_t len = reply ? reply->len : 0;
	int r;

	if (!c)
		return -ENOENT;
	if (m->role != MUX_SERVER || c->opened)
		return -EINVAL;
	if (len > PROTO_MAX_PAYLOAD)
		return -EMSGSIZE;
	r = put_frame(m, ch, PROTO_OPENED, 0, len ? reply->data : NULL, len);
	if (r == 0)
		c->opened = true;
	return r;
}

void mux_set_user(struct mux *m, uint32_t ch, void *user)
{
	struct channel *c = find(m, ch);

	if (c)
		c->user = user;
}

void *mux_user(struct mux *m, uint32_t ch)
{
	struct channel *c = find(m, ch);

	return c ? c->user : NULL;
}

int mux_set_handler(struct mux *m, uint32_t ch, const struct mux_callbacks *cb, void *arg)
{
	struct channel *c = find(m, ch);

	if (!c)
		return -ENOENT;
	c->cb = cb;
	c->cb_arg = arg;
	return 0;
}

size_t mux_credit(struct mux *m, uint32_t ch, unsigned stream)
{
	struct channel *c = find_sendable(m, ch);
	size_t queued = out_queued(m), room = queued < MUX_OUTPUT_HIGH ? MUX_OUTPUT_HIGH - queued : 0;
	struct stream *s;

	if (!c || !c->opened || !stream_to_peer(m, stream) || c->streams[stream].sent_eof)
		return 0;
	s = &c->streams[stream];
	if (s->credit && !room && !s->starved) {
		s->starved = true;
		m->num_starved++;
	}
	return MIN(s->credit, room);
}

static struct stream *sendable_stream(struct mux *m, uint32_t ch, unsigned stream, int *ret_error)
{
	struct channel *c = find_sendable(m, ch);

	*ret_error = -ENOENT;
	if (!c)
		return NULL;
	*ret_error = -EINVAL;
	if (!c->opened || !stream_to_peer(m, stream) || c->streams[stream].sent_eof)
		return NULL;
	return &c->streams[stream];
}

int mux_send(struct mux *m, uint32_t ch, unsigned stream, const void *p, size_t len)
{
	const uint8_t *bytes = p;
	int r;
	struct stream *s = sendable_stream(m, ch, stream, &r);

	if (!s)
		return r;
	if (len > s->credit)
		return -EAGAIN;
	r = buf_reserve(&m->out, len + (len / PROTO_MAX_PAYLOAD + 1) * PROTO_HEADER_SIZE);
	if (r < 0) {
		m->out.error = 0;
		return r;
	}
	s->credit -= len;
	while (len) {
		size_t n = MIN(len, (size_t)PROTO_MAX_PAYLOAD);

		put_frame(m, ch, PROTO_DATA, stream, bytes, n); /* the room is there: cannot fail */
		bytes += n;
		len -= n;
	}
	return 0;
}

int mux_send_eof(struct mux *m, uint32_t ch, unsigned stream)
{
	int r;
	struct stream *s = sendable_stream(m, ch, stream, &r);

	if (!s)
		return r;
	r = put_frame(m, ch, PROTO_EOF, stream, NULL, 0);
	if (r == 0) {
		s->sent_eof = true;
		unstarve(m, s);
	}
	return r;
}

int mux_send_event(struct mux *m, uint32_t ch, const struct buf *event)
{
	struct channel *c = find_sendable(m, ch);

	if (!c)
		return -ENOENT;
	if (!c->opened)
		return -EINVAL;
	if (event->error)
		return event->error;
	if (event->len > MAX_EVENT)
		return -EMSGSIZE;
	return put_frame(m, ch, PROTO_EVENT, 0, event->data, event->len);
}

void mux_consumed(struct mux *m, uint32_t ch, unsigned stream, size_t len)
{
	struct channel *c = find_sendable(m, ch);
	struct stream *s;
	uint8_t le[4];

	if (!c || !stream_from_peer(m, stream))
		return;
	s = &c->streams[stream];
	s->unreported += MIN(len, (size_t)m->window - s->window - s->unreported);
	if (s->got_eof || s->unreported < m->window / 2)
		return;
	for (unsigned i = 0; i < 4; i++)
		le[i] = (uint8_t)(s->unreported >> (8 * i));
	if (put_frame(m, ch, PROTO_CREDIT, stream, le, sizeof(le)) < 0)
		return;
	s->window += s->unreported;
	s->unreported = 0;
}

int mux_close(struct mux *m, uint32_t ch, int code, const char *text)
{
	struct channel *c = find(m, ch);
	size_t len = text ? MIN(strlen(text), (size_t)MAX_CLOSE_TEXT) : 0;
	struct buf b = {0};
	int r;

	if (!c || c->local_closed || m->dead)
		return -ENOENT;
	buf_put_u32(&b, (uint32_t)(code < 0 ? code : 0));
	buf_put(&b, text, len);
	r = b.error ? b.error : put_frame(m, ch, PROTO_CLOSE, 0, b.data, b.len);
	buf_done(&b);
	if (r < 0)
		return r;
	c->local_closed = true;
	if (c->peer_closed)
		channel_free(m, c);
	return 0;
}

/* ------------------------------------------------------------------------------------------ input */

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
	if (!minimum || minimum > version || minimum > PROTO_VERSION || version < PROTO_VERSION)
		return "no common protocol version";
	if (!window || window > PROTO_MAX_WINDOW)
		return "HELLO with an impossible window";
	m->got_hello = true;
	m->peer_window = window;
	/* Opens may have been sent before the peer's HELLO: its windows count for them too. */
	for (unsigned b = 0; b < BUCKETS; b++)
		for (struct channel *ch = m->buckets[b]; ch; ch = ch->next)
			for (unsigned i = 0; i < PROTO_STREAMS; i++)
				ch->streams[i].credit = window;
	if (m->cb.hello)
		m->cb.hello(m->arg, &c, MIN(version, PROTO_VERSION));
	return NULL;
}

static const char *feed_open(struct mux *m, const struct frame *f, struct cursor c)
{
	uint16_t service = cursor_u16(&c);

	if (m->role != MUX_SERVER)
		return "OPEN from a server";
	if (c.bad)
		return "OPEN without a service";
	if (find(m, f->ch))
		return "OPEN of a channel in use";
	if (m->num_channels >= PROTO_MAX_CHANNELS)
		return "too many channels";
	if (!channel_new(m, f->ch))
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
	const struct mux_callbacks *cb = callbacks(m, ch, &arg);

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
	const struct mux_callbacks *cb = callbacks(m, ch, &arg);
	struct stream *s;
	size_t len = c.left;

	if (!stream_from_peer(m, f->stream))
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
	if (!stream_to_peer(m, f->stream))
		return "CREDIT on a stream of the other direction";
	s = &ch->streams[f->stream];
	if (more > m->peer_window - s->credit)
		return "CREDIT beyond the window";
	s->credit += more;
	if (!ch->local_closed && !s->sent_eof && more)
		call_writable(m, ch, f->stream);
	return NULL;
}

static const char *feed_eof(struct mux *m, struct channel *ch, const struct frame *f, struct cursor c)
{
	void *arg;
	const struct mux_callbacks *cb = callbacks(m, ch, &arg);

	if (c.left)
		return "EOF with a payload";
	if (!stream_from_peer(m, f->stream))
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
	const struct mux_callbacks *cb = callbacks(m, ch, &arg);

	if (c.left > MAX_EVENT)
		return "EVENT too long";
	if (cb->event && !ch->local_closed)
		cb->event(arg, ch->id, ch->user, &c);
	return NULL;
}

static const char *feed_close(struct mux *m, struct channel *ch, struct cursor c)
{
	void *arg;
	const struct mux_callbacks *cb = callbacks(m, ch, &arg);
	int32_t code = (int32_t)cursor_u32(&c);
	char text[MAX_CLOSE_TEXT + 1];
	size_t len = c.left;
	const void *p = cursor_take(&c, len);

	if (c.bad || len > MAX_CLOSE_TEXT || code > 0 || code < -4095)
		return "malformed CLOSE";
	if (len)
		memcpy(text, p, len);
	text[len] = '\0';
	if (strlen(text) != len)
		return "malformed CLOSE";
	ch->peer_closed = true;
	if (ch->local_closed)
		channel_free(m, ch);
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
	ch = find(m, f->ch);
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
		if (f.len > PROTO_MAX_PAYLOAD)
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

			want += cursor_u32(&c);
			if (want > PROTO_HEADER_SIZE + PROTO_MAX_PAYLOAD)
				return fail(m, why, "frame too long");
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

/* ------------------------------------------------------------------------------------------ the end */

static struct channel *next_to_abort(struct mux *m, bool only_handled)
{
	for (unsigned b = 0; b < BUCKETS; b++)
		for (struct channel *c = m->buckets[b]; c; c = c->next)
			if (!c->aborted && (!only_handled || c->cb))
				return c;
	return NULL;
}

static void abort_channels(struct mux *m, bool only_handled, int code, const char *text)
{
	struct channel *c;

	m->dead = true;
	m->hook = NULL;
	while ((c = next_to_abort(m, only_handled))) {
		void *arg;
		const struct mux_callbacks *cb = callbacks(m, c, &arg);

		c->aborted = true;
		if (cb->closed && !c->peer_closed && !c->local_closed)
			cb->closed(arg, c->id, c->user, code, text);
	}
}

void mux_abort(struct mux *m, int code, const char *text)
{
	abort_channels(m, false, code, text ? text : "");
}

struct mux *mux_free(struct mux *m)
{
	if (!m)
		return NULL;
	abort_channels(m, true, -ECONNRESET, "the link is lost");
	for (unsigned b = 0; b < BUCKETS; b++)
		while (m->buckets[b])
			channel_free(m, m->buckets[b]);
	buf_done(&m->in);
	buf_done(&m->out);
	free(m);
	return NULL;
}
