/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes into both roles of the frame protocol, with owners that open, answer, send, consume and close as the bytes
 * say. The first byte of the input chooses the role and the size of the pieces. Held: no sanitizer report, no hang, a
 * dead link stays dead, and no more is received on a stream than was granted.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/util.h"
#include "proto/mux.h"

#define WINDOW 4096u

struct owner {
	struct mux *m;
	unsigned turn;
	size_t unread;
	uint32_t last;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Some reaction that depends on where we are, so that the corpus can reach them all. */
static void react(struct owner *o, uint32_t ch)
{
	struct buf b = {0};

	buf_put(&b, "reply", 5);
	switch (o->turn++ % 7) {
	case 0:
		mux_opened(o->m, ch, &b);
		break;
	case 1:
		mux_send(o->m, ch, mux_role(o->m) == MUX_CLIENT ? 0 : 1, "data",
			 MIN(mux_credit(o->m, ch, 1) + 1, (size_t)4));
		break;
	case 2:
		mux_send_event(o->m, ch, &b);
		break;
	case 3:
		mux_send_eof(o->m, ch, mux_role(o->m) == MUX_CLIENT ? 0 : 2);
		break;
	case 4:
		mux_close(o->m, ch, -5, "closed");
		break;
	case 5:
		mux_set_handler(o->m, ch, NULL, NULL);
		break;
	default:
		break;
	}
	buf_done(&b);
}

static void on_hello(void *arg, struct cursor *attributes, uint16_t version)
{
	if (version < PROTO_VERSION_LEAST || version > PROTO_VERSION)
		abort();
}

static void on_open(void *arg, uint32_t ch, uint16_t service, struct cursor *request)
{
	struct owner *o = arg;

	o->last = ch;
	if (service & 1)
		mux_opened(o->m, ch, NULL);
	react(o, ch);
}

static void on_opened(void *arg, uint32_t ch, void *user, struct cursor *reply)
{
	react(arg, ch);
}

static void on_data(void *arg, uint32_t ch, void *user, unsigned stream, const uint8_t *p, size_t len)
{
	struct owner *o = arg;
	volatile uint8_t sum = 0;

	if (len > WINDOW || !len)
		abort();
	for (size_t i = 0; i < len; i++)
		sum = (uint8_t)(sum + p[i]);
	if (o->turn % 3)
		mux_consumed(o->m, ch, stream, len);
	react(o, ch);
}

static void on_eof(void *arg, uint32_t ch, void *user, unsigned stream)
{
	react(arg, ch);
}

static void on_event(void *arg, uint32_t ch, void *user, struct cursor *event)
{
	react(arg, ch);
}

static void on_writable(void *arg, uint32_t ch, void *user, unsigned stream)
{
	react(arg, ch);
}

static void on_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	struct owner *o = arg;

	if (code > 0 || !text)
		abort();
	mux_close(o->m, ch, 0, NULL);
}

static const struct mux_callbacks callbacks = {
	on_hello, on_open, on_opened, on_data, on_eof, on_event, on_writable, on_closed,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct owner o = {0};
	enum mux_role role;
	size_t piece;
	const char *why;
	uint32_t ch;
	int r = 0;

	if (!size)
		return 0;
	role = data[0] & 1 ? MUX_CLIENT : MUX_SERVER;
	piece = (size_t)(data[0] >> 1) + 1;
	data++;
	size--;
	if (mux_new(role, &callbacks, &o, WINDOW, &o.m) < 0)
		return 0;
	mux_hello(o.m, NULL);
	for (int i = 0; i < 4 && role == MUX_CLIENT; i++)
		if (mux_open(o.m, 1, NULL, &o, &ch) < 0)
			abort();
	while (size && r == 0) {
		size_t n = MIN(size, piece), len;

		r = mux_feed(o.m, data, n, &why);
		data += n;
		size -= n;
		mux_output(o.m, &len);
		mux_output_done(o.m, len / 2);
	}
	if (r < 0 && (mux_feed(o.m, "x", 1, &why) != -EPROTO || !why))
		abort();
	mux_free(o.m);
	return 0;
}
