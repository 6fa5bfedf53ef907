/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One channel joined to another. See relay.h. A stream's bytes that the receiver's credit does not cover yet wait in
 * `pending`, unacknowledged, so they are at most the window that the receiving mux granted. An EOF waits behind them;
 * so does a CLOSE, since the last output of a process must not be lost to its end. Events overtake data, as they do on
 * a plain link.
 */
#include "proto/relay.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

struct side {
	struct mux *mux;
	uint32_t ch;
	void *old_user;
	bool closed;	 /* its CLOSE came, or its link went */
	bool sent_close; /* ours went out, or its link went: its mux is not touched any more, it may be freed */
	int code;	 /* of its CLOSE */
	char text[256];
};

struct relay {
	struct side near, far;
	struct buf pending[PROTO_STREAMS]; /* 0: near to far; 1, 2: far to near */
	bool eof[PROTO_STREAMS];	   /* came, not yet passed on */
	bool keep_far, ending;
	unsigned busy; /* inside a callback: free later */
	const struct relay_hooks *hooks;
	void *arg;
};

static struct side *receiver(struct relay *r, unsigned stream)
{
	return stream == 0 ? &r->far : &r->near;
}

static struct side *sender(struct relay *r, unsigned stream)
{
	return stream == 0 ? &r->near : &r->far;
}

static bool has_pending(const struct relay *r, unsigned first, unsigned last)
{
	for (unsigned i = first; i <= last; i++)
		if (r->pending[i].len || r->eof[i])
			return true;
	return false;
}

static void close_side(struct relay *r, struct side *s, int code, const char *text)
{
	if (s->sent_close)
		return;
	s->sent_close = true;
	mux_set_handler(s->mux, s->ch, NULL, NULL);
	mux_close(s->mux, s->ch, code, text);
}

/* Bytes of stream are off our hands: their sender gets its credit back. */
static void give_back(struct relay *r, unsigned stream, size_t len)
{
	struct side *from = sender(r, stream);

	if (len && !from->sent_close)
		mux_consumed(from->mux, from->ch, stream, len);
}

static void finish(struct relay *r)
{
	bool left = r->keep_far && !r->far.closed;
	int code = r->far.code;

	if (r->busy)
		return;
	if (left) {
		/* What the near side did not take any more. */
		give_back(r, 1, r->pending[1].len);
		give_back(r, 2, r->pending[2].len);
		mux_set_handler(r->far.mux, r->far.ch, NULL, NULL);
		mux_set_user(r->far.mux, r->far.ch, r->far.old_user);
	} else {
		close_side(r, &r->far, r->near.code, r->near.text);
	}
	close_side(r, &r->near, r->far.code, r->far.text);
	if (r->hooks && r->hooks->ended)
		r->hooks->ended(r->arg, r, left, code);
	for (unsigned i = 0; i < PROTO_STREAMS; i++)
		buf_done(&r->pending[i]);
	free(r);
}

/* Sends on what waits, as far as credit goes, then the EOF. */
static void push(struct relay *r, unsigned stream)
{
	struct side *to = receiver(r, stream);
	struct buf *b = &r->pending[stream];
	size_t sent = 0;

	while (sent < b->len && !to->sent_close) {
		size_t n = MIN(mux_credit(to->mux, to->ch, stream), b->len - sent);

		if (!n || mux_send(to->mux, to->ch, stream, b->data + sent, n) < 0)
			break;
		sent += n;
	}
	if (sent) {
		buf_consume(b, sent);
		give_back(r, stream, sent);
	}
	if (!b->len && r->eof[stream]) {
		r->eof[stream] = false;
		if (!to->sent_close)
			mux_send_eof(to->mux, to->ch, stream);
	}
}

/*
 * Whether the relay is over. The near side's CLOSE is passed on at once: nobody waits for the answer. The far side's
 * waits until its output is with the near side.
 */
static void settle(struct relay *r)
{
	if (r->near.closed || r->ending || (r->far.closed && !has_pending(r, 1, 2)))
		finish(r);
}

static void enter(struct relay *r)
{
	r->busy++;
}

static void leave(struct relay *r)
{
	r->busy--;
	settle(r);
}

static void on_opened(void *arg, uint32_t ch, void *user, struct cursor *reply)
{
	struct relay *r = arg;
	struct buf b = {.data = (uint8_t *)reply->p, .len = reply->left, .cap = reply->left};

	enter(r);
	if (r->hooks && r->hooks->opened)
		r->hooks->opened(r->arg, r, *reply);
	if (!r->near.sent_close)
		mux_opened(r->near.mux, r->near.ch, &b);
	leave(r);
}

static void on_data(void *arg, uint32_t ch, void *user, unsigned stream, const uint8_t *p, size_t len)
{
	struct relay *r = arg;
	struct side *to = receiver(r, stream);
	size_t now = 0;

	enter(r);
	if (stream && r->hooks && r->hooks->data)
		r->hooks->data(r->arg, r, stream, p, len);
	if (!stream && r->hooks && r->hooks->near_data)
		r->hooks->near_data(r->arg, r, len);
	if (!r->pending[stream].len && !to->sent_close)
		now = MIN(len, mux_credit(to->mux, to->ch, stream));
	if (now && mux_send(to->mux, to->ch, stream, p, now) < 0)
		now = 0;
	give_back(r, stream, now);
	if (now < len && buf_put(&r->pending[stream], p + now, len - now) < 0) {
		r->near.code = r->far.code = -ENOMEM;
		r->ending = true;
	}
	push(r, stream);
	leave(r);
}

static void on_eof(void *arg, uint32_t ch, void *user, unsigned stream)
{
	struct relay *r = arg;

	if (stream == 0 && r->keep_far)
		return;
	enter(r);
	r->eof[stream] = true;
	push(r, stream);
	leave(r);
}

static void on_far_event(void *arg, uint32_t ch, void *user, struct cursor *event)
{
	struct relay *r = arg;
	struct buf b = {.data = (uint8_t *)event->p, .len = event->left, .cap = event->left};

	enter(r);
	if (r->hooks && r->hooks->event)
		r->hooks->event(r->arg, r, *event);
	if (!r->near.sent_close)
		mux_send_event(r->near.mux, r->near.ch, &b);
	leave(r);
}

static void on_near_event(void *arg, uint32_t ch, void *user, struct cursor *event)
{
	struct relay *r = arg;
	struct buf b = {.data = (uint8_t *)event->p, .len = event->left, .cap = event->left};

	enter(r);
	if (r->hooks && r->hooks->near_event)
		r->hooks->near_event(r->arg, r, *event);
	if (!r->far.sent_close)
		mux_send_event(r->far.mux, r->far.ch, &b);
	leave(r);
}

static void on_writable(void *arg, uint32_t ch, void *user, unsigned stream)
{
	struct relay *r = arg;

	enter(r);
	push(r, stream);
	leave(r);
}

static void on_closed(struct relay *r, struct side *s, int code, const char *text)
{
	enter(r);
	s->closed = true;
	s->code = code;
	snprintf(s->text, sizeof(s->text), "%s", text);
	if (mux_lost(s->mux))
		s->sent_close = true;
	else if (s == &r->far)
		close_side(r, s, 0, NULL); /* what it sent may have to wait for the near side; it need not */
	leave(r);
}

static void on_near_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	struct relay *r = arg;

	on_closed(r, &r->near, code, text);
}

static void on_far_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	struct relay *r = arg;

	on_closed(r, &r->far, code, text);
}

static const struct mux_callbacks near_callbacks = {
	.data = on_data,
	.eof = on_eof,
	.event = on_near_event,
	.writable = on_writable,
	.closed = on_near_closed,
};

static const struct mux_callbacks far_callbacks = {
	.opened = on_opened,
	.data = on_data,
	.eof = on_eof,
	.event = on_far_event,
	.writable = on_writable,
	.closed = on_far_closed,
};

static struct relay *relay_new(struct mux *near, uint32_t near_ch, struct mux *far, const struct relay_hooks *hooks,
			       void *arg)
{
	struct relay *r;

	if (mux_role(near) != MUX_SERVER || mux_role(far) != MUX_CLIENT)
		return NULL;
	r = calloc(1, sizeof(*r));
	if (!r)
		return NULL;
	r->near.mux = near;
	r->near.ch = near_ch;
	r->far.mux = far;
	r->hooks = hooks;
	r->arg = arg;
	return r;
}

int relay_open(struct mux *near, uint32_t near_ch, struct mux *far, uint16_t service, const void *request, size_t len,
	       const struct relay_hooks *hooks, void *arg, struct relay **ret)
{
	struct buf b = {.data = (uint8_t *)request, .len = len, .cap = len};
	struct relay *r = relay_new(near, near_ch, far, hooks, arg);
	int err;

	if (!r)
		return -ENOMEM;
	err = mux_open(far, service, &b, r, &r->far.ch);
	if (err == 0) {
		err = mux_set_handler(near, near_ch, &near_callbacks, r);
		if (err < 0)
			mux_close(far, r->far.ch, -ECANCELED, NULL);
	}
	if (err < 0) {
		free(r);
		return err;
	}
	mux_set_handler(far, r->far.ch, &far_callbacks, r);
	if (ret)
		*ret = r;
	return 0;
}

void relay_keep_far(struct relay *r)
{
	r->keep_far = true;
}

int relay_join(struct mux *near, uint32_t near_ch, struct mux *far, uint32_t far_ch, bool keep_far,
	       const struct relay_hooks *hooks, void *arg, struct relay **ret)
{
	struct relay *r = relay_new(near, near_ch, far, hooks, arg);
	int err;

	if (!r)
		return -ENOMEM;
	r->far.ch = far_ch;
	r->far.old_user = mux_user(far, far_ch);
	r->keep_far = keep_far;
	err = mux_set_handler(near, near_ch, &near_callbacks, r);
	if (err == 0) {
		err = mux_set_handler(far, far_ch, &far_callbacks, r);
		if (err < 0)
			mux_set_handler(near, near_ch, NULL, NULL);
	}
	if (err < 0) {
		free(r);
		return err;
	}
	if (ret)
		*ret = r;
	return 0;
}

void relay_end(struct relay *r, int code, const char *text)
{
	enter(r);
	if (!r->far.closed) {
		r->far.code = code;
		snprintf(r->far.text, sizeof(r->far.text), "%s", text ? text : "");
	}
	r->near.code = code;
	r->ending = true;
	leave(r);
}

uint32_t relay_near_channel(const struct relay *r)
{
	return r->near.ch;
}

uint32_t relay_far_channel(const struct relay *r)
{
	return r->far.ch;
}
