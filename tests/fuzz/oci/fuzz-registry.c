/* SPDX-License-Identifier: Apache-2.0 */
/* What a registry says of itself: the first byte chooses a parser, the rest is its text. What is accepted can be sent
 * on. */
#include <stdlib.h>
#include <string.h>

#include "oci/authdoc.h"
#include "oci/http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Printable ASCII alone may become part of a request. */
static void sendable(const char *s, const char *also)
{
	for (; *s; s++)
		if ((*s < 33 || *s > 126) && !strchr(also, *s))
			abort();
}

static void challenge(const char *text, size_t len)
{
	struct challenge c = {0};

	if (challenge_parse(text, len, &c) < 0)
		return;
	if (!c.bearer && (*c.realm || *c.service))
		abort();
	sendable(c.realm, " ");
	sendable(c.service, " ");
}

static void token(const char *text, size_t len)
{
	char *t = NULL;

	if (token_parse(text, len, &t, NULL) < 0)
		return;
	if (!*t || strlen(t) > TOKEN_MAX)
		abort();
	sendable(t, "");
	free(t);
}

static void file(const char *text, size_t len)
{
	static const struct registry_key key = {.key = "r.example", .host = "r.example", .name = "r.example"};
	struct credentials c = {0}, again = {0};
	char *helper = NULL, *changed = NULL;
	int r = authfile_find(text, len, "file", &key, &c, &helper, NULL);

	if (r < 0 && (helper || c.user || c.secret || c.identity))
		abort();
	if (r == 1 && c.user && c.secret && authfile_change(text, len, "file", &key, &c, &changed, NULL) == 0) {
		if (authfile_find(changed, strlen(changed), "file", &key, &again, NULL, NULL) != 1)
			abort();
		/* a ':' in a user's name moves, and nothing else */
		if (!strchr(c.user, ':') && (strcmp(again.user, c.user) != 0 || strcmp(again.secret, c.secret) != 0))
			abort();
	}
	if (helper && strpbrk(helper, "/ \n"))
		abort();
	free(changed);
	free(helper);
	credentials_done(&again);
	credentials_done(&c);
}

static void answer(const char *text, size_t len)
{
	struct credentials c = {0};

	if (helper_parse(text, len, "helper", &c, NULL) == 0 && !c.identity && (!c.user || !c.secret))
		abort();
	credentials_done(&c);
}

static void address(const char *text)
{
	struct sm_error err = {0};
	struct origin o;
	char *joined = NULL;

	if (origin_parse(text, &o, &err) == 0 && (!*o.host || !*o.port))
		abort();
	if (err.kind && strpbrk(err.message, "\r\n\x1b"))
		abort();
	if (url_join("https://r.example/v2/a", text, &joined, NULL) == 0)
		(void)!origin_parse(joined, &o, NULL);
	free(joined);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text;

	if (!size)
		return 0;
	text = malloc(size);
	memcpy(text, data + 1, size - 1);
	text[size - 1] = 0;
	switch (data[0] % 5) {
	case 0:
		challenge(text, size - 1);
		break;
	case 1:
		token(text, size - 1);
		break;
	case 2:
		file(text, size - 1);
		break;
	case 3:
		answer(text, size - 1);
		break;
	case 4:
		address(text);
		break;
	}
	free(text);
	return 0;
}
