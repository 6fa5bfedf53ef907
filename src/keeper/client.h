/* SPDX-License-Identifier: Apache-2.0 */
/* A client of the keeper: server.c has its connection, services.c does what it asks for. For these two alone. */
#ifndef KEEPER_CLIENT_H
#define KEEPER_CLIENT_H

#include "keeper/keeper.h"

struct client {
	struct keeper *k;
	struct link *link;
	struct client *next, **prev;
	struct waiter *waiters;
	struct loop_source *late; /* its moment; NULL: it is not late */
};

/* A PROTO_KEEPER_WAIT channel; the user pointer of its channel. */
struct waiter {
	uint32_t ch;
	bool owner, forwards;
	struct waiter *next;
};

/* Does what a request for a service asks: 0, or -errno, for which client_refusal has the words. */
int client_serve(struct client *c, uint32_t ch, uint16_t service, struct cursor *request) MUST_CHECK;
const char *client_refusal(uint16_t service, int r);
/* To one that waits. */
void client_news(struct client *c, uint32_t ch, enum keeper_news_kind kind);

#endif
