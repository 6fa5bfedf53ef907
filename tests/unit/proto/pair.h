/* SPDX-License-Identifier: Apache-2.0 */
/* Two muxes joined in memory, and a record of what each was told. */
#ifndef TESTS_PROTO_PAIR_H
#define TESTS_PROTO_PAIR_H

#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "proto/mux.h"

struct seen {
	struct mux *m;
	unsigned hellos, opens, openeds, eofs, events, closes, writables;
	uint32_t ch, service;
	struct buf data[3], request;
	int code;
	char text[1100];
	bool hold, refuse, keep_open; /* data not acknowledged; opens refused; CLOSE not answered */
};

static void seen_hello(void *arg, struct cursor *attributes, uint16_t version)
{
	((struct seen *)arg)->hellos++;
}

static void seen_open(void *arg, uint32_t ch, uint16_t service, struct cursor *request)
{
	struct seen *s = arg;

	s->opens++;
	s->ch = ch;
	s->service = service;
	s->request.len = 0;
	buf_put(&s->request, request->p, request->left);
	if (s->refuse)
		mux_close(s->m, ch, -13, "no");
	else
		mux_opened(s->m, ch, &s->request);
}

static void seen_opened(void *arg, uint32_t ch, void *user, struct cursor *reply)
{
	((struct seen *)arg)->openeds++;
}

static void seen_data(void *arg, uint32_t ch, void *user, unsigned stream, const uint8_t *p, size_t len)
{
	struct seen *s = arg;

	buf_put(&s->data[stream], p, len);
	if (!s->hold)
		mux_consumed(s->m, ch, stream, len);
}

static void seen_eof(void *arg, uint32_t ch, void *user, unsigned stream)
{
	((struct seen *)arg)->eofs |= 1u << stream;
}

static void seen_event(void *arg, uint32_t ch, void *user, struct cursor *event)
{
	((struct seen *)arg)->events++;
}

static void seen_writable(void *arg, uint32_t ch, void *user, unsigned stream)
{
	((struct seen *)arg)->writables++;
}

static void seen_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	struct seen *s = arg;

	s->closes++;
	s->code = code;
	snprintf(s->text, sizeof(s->text), "%s", text);
	if (!s->keep_open)
		mux_close(s->m, ch, 0, NULL);
}

static const struct mux_callbacks seen_callbacks = {
	.hello = seen_hello,
	.open = seen_open,
	.opened = seen_opened,
	.data = seen_data,
	.eof = seen_eof,
	.event = seen_event,
	.writable = seen_writable,
	.closed = seen_closed,
};

static inline void seen_done(struct seen *s)
{
	for (int i = 0; i < 3; i++)
		buf_done(&s->data[i]);
	buf_done(&s->request);
	s->m = mux_free(s->m);
}

/* Moves what is queued from a to b in pieces of at most `piece`; 0 or what mux_feed said. */
static inline int carry(struct mux *a, struct mux *b, size_t piece, const char **why)
{
	size_t len;
	const uint8_t *p;

	while ((p = mux_output(a, &len))) {
		size_t n = MIN(len, piece);
		int r = mux_feed(b, p, n, why);

		mux_output_done(a, n);
		if (r < 0)
			return r;
	}
	return 0;
}

static inline void settle_pair(struct mux *a, struct mux *b, size_t piece)
{
	const char *why = "";
	size_t x = 1, y = 1;

	while (x || y) {
		if (carry(a, b, piece, &why) < 0 || carry(b, a, piece, &why) < 0) {
			fprintf(stderr, "broken: %s\n", why);
			return;
		}
		mux_output(a, &x);
		mux_output(b, &y);
	}
}

static inline int pair_new(struct seen *client, struct seen *server, uint32_t window)
{
	memset(client, 0, sizeof(*client));
	memset(server, 0, sizeof(*server));
	if (mux_new(MUX_CLIENT, &seen_callbacks, client, window, &client->m) < 0 ||
	    mux_new(MUX_SERVER, &seen_callbacks, server, window, &server->m) < 0)
		return -1;
	mux_hello(client->m, NULL);
	mux_hello(server->m, NULL);
	settle_pair(client->m, server->m, 7);
	return client->hellos == 1 && server->hellos == 1 ? 0 : -1;
}

#endif
