/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ports of the guest that lead to the host: the agent is told to listen before the command begins, so that it finds
 * them there. What connects meanwhile waits until the forwarder takes it (inward.c).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "keeper/keeper.h"
#include "keeper/porttext.h"

static int listen_at(struct keeper *k, const struct port_text *p, uint32_t *ret_ch)
{
	char loopback[] = "127.0.0.1";
	struct proto_connect at = {
		.host = p->guest_path ? NULL : loopback, .path = p->guest_path, .port = p->guest_port};
	_cleanup_(buf_done) struct buf b = {0};
	int r = proto_connect_encode(&b, &at);

	return r < 0 ? r : mux_open(link_mux(k->agent), PROTO_LISTEN, &b, NULL, ret_ch);
}

int listens_begin(struct keeper *k)
{
	int r = 0;

	for (char *const *t = k->rec.ports; t && *t && r == 0 && k->num_listens < KEEPER_LISTENS; t++) {
		_free_ char *text = strdup(*t);
		struct port_text p;

		r = text ? port_text_parse(text, &p) : -ENOMEM;
		if (r == 0 && p.reverse)
			r = listen_at(k, &p, &k->listens[k->num_listens++]);
	}
	return r;
}

bool listens_refused(const struct keeper *k, uint32_t ch, int code)
{
	for (unsigned i = 0; code && i < k->num_listens; i++)
		if (k->listens[i] == ch)
			return true;
	return false;
}
