/* SPDX-License-Identifier: Apache-2.0 */
/* The frame protocol's state machine: channels, what goes out, the end. See mux.h, frame.h and mux_state.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "proto/mux_state.h"

#define STARVED_LOW (MUX_OUTPUT_HIGH / 2)

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

struct channel *mux_find(struct mux *m, uint32_t id)
{
	struct channel *c = m->buckets[id % MUX_BUCKETS];

	while (c && c->id != id)
		c = c->next;
	return c;
}

struct channel *mux_channel_new(struct mux *m, uint32_t id)
{
	struct channel *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->id = id;
	for (unsigned i = 0; i < PROTO_STREAMS; i++) {
		c->streams[i].window = m->window;
		c->streams[i].credit = m->peer_window;
	}
	c->next = m->buckets[id % MUX_BUCKETS];
	m->buckets[id % MUX_BUCKETS] = c;
	m->num_channels++;
	return c;
}

static void unstarve(struct mux *m, struct stream *s)
{
	if (s->starved)
		m->num_starved--;
	s->starved = false;
}

void mux_channel_free(struct mux *m, struct channel *c)
{
	struct channel **link = &m->buckets[c->id % MUX_BUCKETS];

	while (*link != c)
		link = &(*link)->next;
	*link = c->next;
	for (unsigned i = 0; i < PROTO_STREAMS; i++)
		unstarve(m, &c->streams[i]);
	m->num_channels--;
	free(c);
}

const struct mux_callbacks *mux_callbacks_of(struct mux *m, struct channel *c, void **ret_arg)
{
	*ret_arg = c->cb ? c->cb_arg : m->arg;
	return c->cb ? c->cb : &m->cb;
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

void mux_call_writable(struct mux *m, struct channel *c, unsigned stream)
{
	void *arg;
	const struct mux_callbacks *cb = mux_callbacks_of(m, c, &arg);

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

	for (unsigned b = 0; b < MUX_BUCKETS && n < ARRAY_SIZE(told) && left; b++)
		for (struct channel *c = m->buckets[b]; c; c = c->next)
			for (unsigned i = 0; i < PROTO_STREAMS; i++)
				if (c->streams[i].starved && n < ARRAY_SIZE(told)) {
					told[n].id = c->id;
					told[n++].stream = i;
					left--;
				}
	for (size_t i = 0; i < n; i++) {
		struct channel *c = mux_find(m, told[i].id);

		if (c && c->streams[told[i].stream].starved)
			mux_call_writable(m, c, told[i].stream);
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
	buf_put_u16(&b, PROTO_VERSION_LEAST);
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
	} while (mux_find(m, m->next_id));
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
	if (b.error || b.len > (m->peer_version == 1 ? PROTO_MAX_PAYLOAD : PROTO_MAX_OPEN)) {
		r = b.error ? b.error : -EMSGSIZE;
		buf_done(&b);
		return r;
	}
	c = mux_channel_new(m, pick_id(m));
	r = c ? put_frame(m, c->id, PROTO_OPEN, 0, b.data, b.len) : -ENOMEM;
	buf_done(&b);
	if (r < 0) {
		if (c)
			mux_channel_free(m, c);
		return r;
	}
	c->user = user;
	*ret_ch = c->id;
	return 0;
}

/* A channel that we may still send on, or NULL. */
static struct channel *find_sendable(struct mux *m, uint32_t ch)
{
	struct channel *c = m->dead ? NULL : mux_find(m, ch);

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

void mux_set_arg(struct mux *m, void *arg)
{
	m->arg = arg;
}

void mux_set_user(struct mux *m, uint32_t ch, void *user)
{
	struct channel *c = mux_find(m, ch);

	if (c)
		c->user = user;
}

void *mux_user(struct mux *m, uint32_t ch)
{
	struct channel *c = mux_find(m, ch);

	return c ? c->user : NULL;
}

int mux_set_handler(struct mux *m, uint32_t ch, const struct mux_callbacks *cb, void *arg)
{
	struct channel *c = mux_find(m, ch);

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

	if (!c || !c->opened || !mux_stream_to_peer(m, stream) || c->streams[stream].sent_eof)
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
	if (!c->opened || !mux_stream_to_peer(m, stream) || c->streams[stream].sent_eof)
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
	if (event->len > MUX_MAX_EVENT)
		return -EMSGSIZE;
	return put_frame(m, ch, PROTO_EVENT, 0, event->data, event->len);
}

void mux_consumed(struct mux *m, uint32_t ch, unsigned stream, size_t len)
{
	struct channel *c = find_sendable(m, ch);
	struct stream *s;
	uint8_t le[4];

	if (!c || !mux_stream_from_peer(m, stream))
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
	struct channel *c = mux_find(m, ch);
	size_t len = text ? MIN(strlen(text), (size_t)MUX_MAX_CLOSE_TEXT) : 0;
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
		mux_channel_free(m, c);
	return 0;
}

/* ------------------------------------------------------------------------------------------ the end */

static struct channel *next_to_abort(struct mux *m, bool only_handled)
{
	for (unsigned b = 0; b < MUX_BUCKETS; b++)
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
		const struct mux_callbacks *cb = mux_callbacks_of(m, c, &arg);

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
	for (unsigned b = 0; b < MUX_BUCKETS; b++)
		while (m->buckets[b])
			mux_channel_free(m, m->buckets[b]);
	buf_done(&m->in);
	buf_done(&m->out);
	free(m);
	return NULL;
}
