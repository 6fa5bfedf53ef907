/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Relays: client mux -- near (server) mux = relay = far (client) mux -- agent (server) mux, all in memory, the two
 * links with different windows; and links over real sockets.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "pair.h"
#include "proto/link.h"
#include "proto/relay.h"

struct chain {
	struct seen client, near, far, agent;
	unsigned tee, opened, events, near_events, ended;
	bool far_left;
	int code;
	struct relay *relay;
	bool relay_opens; /* near passes its opens on */
};

static void hook_opened(void *arg, struct relay *r, struct cursor reply)
{
	((struct chain *)arg)->opened++;
}

static void hook_data(void *arg, struct relay *r, unsigned stream, const uint8_t *p, size_t len)
{
	((struct chain *)arg)->tee += (unsigned)len;
}

static void hook_event(void *arg, struct relay *r, struct cursor event)
{
	((struct chain *)arg)->events++;
}

static void hook_near_event(void *arg, struct relay *r, struct cursor event)
{
	((struct chain *)arg)->near_events++;
}

static void hook_ended(void *arg, struct relay *r, bool far_left, int code)
{
	struct chain *c = arg;

	c->ended++;
	c->far_left = far_left;
	c->code = code;
	c->relay = NULL;
}

static const struct relay_hooks hooks = {hook_opened, hook_data, hook_event, hook_near_event, hook_ended};

static void near_open(void *arg, uint32_t ch, uint16_t service, struct cursor *request)
{
	struct chain *c = arg;

	assert_int_equal(relay_open(c->near.m, ch, c->far.m, service, request->p, request->left, &hooks, c, &c->relay),
			 0);
}

static void chain_new(struct chain *c, uint32_t client_window, uint32_t agent_window)
{
	static const struct mux_callbacks near_callbacks = {.open = near_open};

	memset(c, 0, sizeof(*c));
	assert_int_equal(mux_new(MUX_CLIENT, &seen_callbacks, &c->client, client_window, &c->client.m), 0);
	assert_int_equal(mux_new(MUX_SERVER, &near_callbacks, c, client_window, &c->near.m), 0);
	assert_int_equal(mux_new(MUX_CLIENT, &seen_callbacks, &c->far, agent_window, &c->far.m), 0);
	assert_int_equal(mux_new(MUX_SERVER, &seen_callbacks, &c->agent, agent_window, &c->agent.m), 0);
	mux_hello(c->client.m, NULL);
	mux_hello(c->near.m, NULL);
	mux_hello(c->far.m, NULL);
	mux_hello(c->agent.m, NULL);
}

static void chain_settle(struct chain *c)
{
	size_t a = 1, b = 0, d = 0, e = 0;

	while (a || b || d || e) {
		if (c->client.m && c->near.m)
			settle_pair(c->client.m, c->near.m, 50000);
		if (c->far.m && c->agent.m)
			settle_pair(c->far.m, c->agent.m, 50000);
		a = b = d = e = 0;
		if (c->client.m && c->near.m) {
			mux_output(c->client.m, &a);
			mux_output(c->near.m, &b);
		}
		if (c->far.m && c->agent.m) {
			mux_output(c->far.m, &d);
			mux_output(c->agent.m, &e);
		}
	}
}

static void chain_done(struct chain *c)
{
	seen_done(&c->client);
	seen_done(&c->near);
	seen_done(&c->far);
	seen_done(&c->agent);
	assert_null(c->relay);
}

static uint32_t open_through(struct chain *c)
{
	struct buf req = {0};
	uint32_t ch;

	buf_put(&req, "req", 3);
	assert_int_equal(mux_open(c->client.m, 9, &req, NULL, &ch), 0);
	buf_done(&req);
	chain_settle(c);
	assert_int_equal(c->client.openeds, 1);
	assert_int_equal(c->agent.service, 9);
	assert_int_equal(c->opened, 1);
	return ch;
}

static void test_through(void **state)
{
	struct chain c;
	struct buf ev = {0};
	uint32_t ch;

	chain_new(&c, 1000, 500);
	ch = open_through(&c);
	buf_put(&ev, "event", 5);
	mux_send(c.client.m, ch, 0, "in", 2);
	mux_send_event(c.client.m, ch, &ev);
	mux_send_eof(c.client.m, ch, 0);
	mux_send(c.agent.m, c.agent.ch, 1, "out", 3);
	mux_send_event(c.agent.m, c.agent.ch, &ev);
	chain_settle(&c);
	assert_memory_equal(c.agent.data[0].data, "in", 2);
	assert_int_equal(c.agent.eofs, 1);
	assert_int_equal(c.agent.events, 1);
	assert_memory_equal(c.client.data[1].data, "out", 3);
	assert_int_equal(c.client.events, 1);
	assert_int_equal(c.tee, 3);
	assert_int_equal(c.events, 1);
	assert_int_equal(c.near_events, 1);
	mux_close(c.agent.m, c.agent.ch, -5, "io");
	chain_settle(&c);
	assert_int_equal(c.client.code, -5);
	assert_string_equal(c.client.text, "io");
	assert_int_equal(c.ended, 1);
	assert_int_equal(c.code, -5);
	buf_done(&ev);
	chain_done(&c);
}

/* Much data, unequal windows, a reader that stops: nothing is lost, and the writer is stopped by the reader. */
static void test_back_pressure(void **state)
{
	static uint8_t bytes[100000];
	struct chain c;
	size_t sent = 0, n;
	uint32_t ch;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 31 >> 3);
	chain_new(&c, 700, 3000);
	ch = open_through(&c);
	c.client.hold = true;
	for (int i = 0; i < 20; i++) {
		n = MIN(mux_credit(c.agent.m, c.agent.ch, 1), sizeof(bytes) - sent);
		assert_int_equal(mux_send(c.agent.m, c.agent.ch, 1, bytes + sent, n), 0);
		sent += n;
		chain_settle(&c);
	}
	assert_int_equal(c.client.data[1].len, 700);
	assert_in_range(sent, 3000, 3700);
	/* The end comes behind the data. */
	mux_send_eof(c.agent.m, c.agent.ch, 1);
	mux_close(c.agent.m, c.agent.ch, 0, NULL);
	chain_settle(&c);
	assert_int_equal(c.client.closes, 0);
	assert_int_equal(c.ended, 0);
	c.client.hold = false;
	mux_consumed(c.client.m, ch, 1, 700);
	chain_settle(&c);
	assert_int_equal(c.client.data[1].len, sent);
	assert_memory_equal(c.client.data[1].data, bytes, sent);
	assert_int_equal(c.client.eofs, 2);
	assert_int_equal(c.client.closes, 1);
	assert_int_equal(c.ended, 1);
	chain_done(&c);
}

static void test_lost_links(void **state)
{
	struct chain c;
	uint32_t ch;

	/* The agent's link goes while the client still has to read: it gets what there was, then the news. */
	chain_new(&c, 100, 1000);
	ch = open_through(&c);
	c.client.hold = true;
	mux_send(c.agent.m, c.agent.ch, 1, (char[500]){1}, 500);
	chain_settle(&c);
	mux_abort(c.far.m, -ECONNRESET, "agent died");
	c.far.m = mux_free(c.far.m);
	chain_settle(&c);
	assert_int_equal(c.client.closes, 0);
	c.client.hold = false;
	mux_consumed(c.client.m, ch, 1, 100);
	chain_settle(&c);
	assert_int_equal(c.client.data[1].len, 500);
	assert_int_equal(c.client.code, -ECONNRESET);
	assert_int_equal(c.ended, 1);
	chain_done(&c);
	/* The client's link goes: the far channel is closed. */
	chain_new(&c, 100, 1000);
	open_through(&c);
	c.near.m = mux_free(c.near.m);
	chain_settle(&c);
	assert_int_equal(c.agent.closes, 1);
	assert_int_equal(c.ended, 1);
	chain_done(&c);
}

static void near_accepts(void *arg, uint32_t ch, uint16_t service, struct cursor *request)
{
	struct chain *c = arg;

	mux_opened(c->near.m, ch, NULL);
	assert_int_equal(relay_join(c->near.m, ch, c->far.m, c->far.ch, true, &hooks, c, &c->relay), 0);
}

/* An attach: the far channel outlives the client and is its owner's again. */
static void test_attach(void **state)
{
	static const struct mux_callbacks accepting = {.open = near_accepts};
	struct chain c;
	uint32_t ch;

	chain_new(&c, 100, 1000);
	c.near.m = mux_free(c.near.m);
	assert_int_equal(mux_new(MUX_SERVER, &accepting, &c, 100, &c.near.m), 0);
	mux_hello(c.near.m, NULL);
	assert_int_equal(mux_open(c.far.m, 1, NULL, &c, &c.far.ch), 0);
	chain_settle(&c);
	for (int round = 0; round < 3; round++) {
		mux_send(c.agent.m, c.agent.ch, 1, "alone", 5);
		chain_settle(&c);
		assert_int_equal(c.far.data[1].len, 5);
		c.far.data[1].len = 0;
		c.client.hold = true;
		assert_int_equal(mux_open(c.client.m, 1, NULL, NULL, &ch), 0);
		chain_settle(&c);
		mux_send(c.agent.m, c.agent.ch, 1, (char[400]){1}, 400);
		mux_send(c.client.m, ch, 0, "hi", 2);
		mux_send_eof(c.client.m, ch, 0);
		chain_settle(&c);
		assert_int_equal(c.client.data[1].len, 100);
		assert_int_equal(c.agent.data[0].len, 2 * (size_t)(round + 1));
		assert_int_equal(c.agent.eofs, 0); /* a detaching client does not end the command's input */
		mux_close(c.client.m, ch, 0, NULL);
		chain_settle(&c);
		assert_int_equal(c.ended, (unsigned)round + 1);
		assert_true(c.far_left);
		assert_ptr_equal(mux_user(c.far.m, c.far.ch), &c);
		assert_int_equal(c.agent.closes, 0);
		c.client.data[1].len = 0;
	}
	/* All credit has come back, also for what no client took. */
	for (int i = 0; i < 10; i++) {
		size_t n = mux_credit(c.agent.m, c.agent.ch, 1);

		assert_true(n >= 500);
		mux_send(c.agent.m, c.agent.ch, 1, (char[1000]){1}, n);
		chain_settle(&c);
	}
	chain_done(&c);
}

static void test_end(void **state)
{
	struct chain c;

	chain_new(&c, 100, 1000);
	open_through(&c);
	relay_end(c.relay, -ETIMEDOUT, "stopped");
	chain_settle(&c);
	assert_int_equal(c.client.code, -ETIMEDOUT);
	assert_string_equal(c.client.text, "stopped");
	assert_int_equal(c.agent.closes, 1);
	assert_int_equal(c.ended, 1);
	chain_done(&c);
}

/* ------------------------------------------------------------------------------------------ links */

static void link_ended(struct link *l, int r, const char *why, void *arg)
{
	int *ended = arg;

	(*ended)++;
	link_free(l);
}

static void test_links(void **state)
{
	static uint8_t bytes[3000000];
	struct loop *loop;
	struct link *a, *b;
	struct seen c = {0}, s = {0};
	int pair[2], ended_a = 0, ended_b = 0;
	uint32_t ch;
	size_t sent = 0;

	assert_int_equal(loop_new(&loop), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(mux_new(MUX_CLIENT, &seen_callbacks, &c, 65536, &c.m), 0);
	assert_int_equal(mux_new(MUX_SERVER, &seen_callbacks, &s, 65536, &s.m), 0);
	mux_hello(c.m, NULL); /* before the link: goes out all the same */
	assert_int_equal(link_new(loop, pair[0], c.m, link_ended, &ended_a, &a), 0);
	assert_int_equal(link_new(loop, pair[1], s.m, link_ended, &ended_b, &b), 0);
	mux_hello(s.m, NULL);
	assert_int_equal(mux_open(c.m, 1, NULL, NULL, &ch), 0);
	for (int i = 0; i < 100 && !c.openeds; i++)
		loop_run_once(loop, 100);
	assert_int_equal(c.openeds, 1);
	for (int i = 0; i < 100000 && s.data[0].len < sizeof(bytes); i++) {
		size_t n = MIN(mux_credit(c.m, ch, 0), sizeof(bytes) - sent);

		assert_int_equal(mux_send(c.m, ch, 0, bytes + sent, n), 0);
		sent += n;
		loop_run_once(loop, 10);
	}
	assert_int_equal(s.data[0].len, sizeof(bytes));
	link_free(b);
	for (int i = 0; i < 100 && !ended_a; i++)
		loop_run_once(loop, 100);
	assert_int_equal(ended_a, 1);
	assert_int_equal(ended_b, 0); /* its owner freed it */
	assert_int_equal(c.closes, 1);
	c.m = s.m = NULL;
	seen_done(&c);
	seen_done(&s);
	loop_free(loop);
}

static void turns(struct loop *loop)
{
	for (int i = 0; i < 20; i++)
		loop_run_once(loop, 1);
}

/* One that is hushed says nothing more, and what it had to say comes when it is let; one that is released leaves its
 * stream to another, whose peer hears nothing of the one before. */
static void test_stream_that_begins_anew(void **state)
{
	struct seen c = {0}, s = {0}, next = {0};
	struct link *a, *b;
	struct loop *loop;
	int ended = 0, pair[2];
	uint32_t ch, late;

	assert_int_equal(loop_new(&loop), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(mux_new(MUX_CLIENT, &seen_callbacks, &c, 65536, &c.m), 0);
	assert_int_equal(mux_new(MUX_SERVER, &seen_callbacks, &s, 65536, &s.m), 0);
	assert_int_equal(link_new(loop, pair[0], c.m, link_ended, &ended, &a), 0);
	assert_int_equal(link_new(loop, pair[1], s.m, link_ended, &ended, &b), 0);
	mux_hello(c.m, NULL);
	mux_hello(s.m, NULL);
	assert_int_equal(mux_open(c.m, 1, NULL, NULL, &ch), 0);
	assert_int_equal(link_release(a), -EBUSY);
	assert_int_equal(link_hush(a, true), 0);
	assert_int_equal(mux_open(c.m, 2, NULL, NULL, &late), 0);
	turns(loop);
	assert_int_equal(s.service, 1);
	assert_int_equal(link_hush(a, false), 0);
	turns(loop);
	assert_int_equal(s.service, 2);

	assert_int_equal(link_hush(a, true), 0);
	mux_close(c.m, ch, 0, "");
	pair[1] = link_release(b);
	assert_true(pair[1] >= 0 && s.closes == 2);
	s.m = NULL;
	turns(loop);
	assert_int_equal(mux_new(MUX_SERVER, &seen_callbacks, &next, 65536, &next.m), 0);
	assert_int_equal(link_new(loop, pair[1], next.m, link_ended, &ended, &b), 0);
	turns(loop);
	assert_int_equal(ended, 0);
	link_free(a);
	link_free(b);
	c.m = next.m = NULL;
	seen_done(&c);
	seen_done(&s);
	seen_done(&next);
	loop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_through),
		cmocka_unit_test(test_back_pressure),
		cmocka_unit_test(test_lost_links),
		cmocka_unit_test(test_attach),
		cmocka_unit_test(test_end),
		cmocka_unit_test(test_links),
		cmocka_unit_test(test_stream_that_begins_anew),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
