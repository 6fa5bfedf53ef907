/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Secrets on their way into the guest: the record has their names alone; what they are comes from whoever starts the
 * VM, is held in this process until the guest is set up, and forgotten as soon as the agent has been told. The command
 * waits for all of them.
 */
#include "keeper/keeper.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

static unsigned wanted(const struct keeper *k)
{
	unsigned n = 0;

	while (k->rec.secrets && k->rec.secrets[n])
		n++;
	return k->args.adopt ? 0 : n; /* a guest that was saved with its processes has them */
}

bool secrets_missing(const struct keeper *k)
{
	return k->secrets.num < wanted(k);
}

static int find(const struct keeper *k, const char *name)
{
	for (unsigned i = 0; i < wanted(k) && i < VM_MAX_SECRETS; i++)
		if (streq(k->rec.secrets[i], name))
			return (int)i;
	return -ENOENT;
}

int secrets_take(struct keeper *k, const struct cursor *request)
{
	struct cursor c = *request;
	struct proto_secret s;
	int r = proto_secret_decode(&c, &s), i;

	if (r < 0)
		return r;
	i = find(k, s.name);
	if (i < 0 || k->secrets.v[i].len)
		return i < 0 ? i : -EALREADY;
	buf_put(&k->secrets.v[i], request->p, request->left);
	if (k->secrets.v[i].error)
		return k->secrets.v[i].error;
	k->secrets.num++;
	return 0;
}

void secrets_forget(struct keeper *k)
{
	for (unsigned i = 0; i < VM_MAX_SECRETS; i++) {
		struct buf *b = &k->secrets.v[i];

		if (b->data)
			explicit_bzero(b->data, b->len);
		buf_done(b);
	}
}

int secrets_send(struct keeper *k)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && k->agent && i < VM_MAX_SECRETS; i++)
		if (k->secrets.v[i].len)
			r = mux_open(link_mux(k->agent), PROTO_SECRET, &k->secrets.v[i], NULL, &k->secrets.ch[i]);
	secrets_forget(k);
	return r;
}

bool secrets_refused(const struct keeper *k, uint32_t ch, int code)
{
	bool ours = false;

	for (unsigned i = 0; i < VM_MAX_SECRETS; i++)
		ours |= ch && k->secrets.ch[i] == ch;
	return ours && code;
}
