/* SPDX-License-Identifier: Apache-2.0 */
/* Resource limits as text, in docker's words ("nofile=1024:2048"). See messages.h. */
#include <errno.h>
#include <string.h>
#include <sys/resource.h>

#include "base/util.h"
#include "proto/messages.h"

static const struct {
	const char *name;
	int resource;
} names[] = {
	{"core", RLIMIT_CORE},	       {"cpu", RLIMIT_CPU},
	{"data", RLIMIT_DATA},	       {"fsize", RLIMIT_FSIZE},
	{"locks", RLIMIT_LOCKS},       {"memlock", RLIMIT_MEMLOCK},
	{"msgqueue", RLIMIT_MSGQUEUE}, {"nice", RLIMIT_NICE},
	{"nofile", RLIMIT_NOFILE},     {"nproc", RLIMIT_NPROC},
	{"rss", RLIMIT_RSS},	       {"rtprio", RLIMIT_RTPRIO},
	{"rttime", RLIMIT_RTTIME},     {"sigpending", RLIMIT_SIGPENDING},
	{"stack", RLIMIT_STACK},
};

static int value(const char *text, size_t len, uint64_t *ret)
{
	char digits[24];

	if (len >= sizeof(digits))
		return -EPROTO;
	memcpy(digits, text, len);
	digits[len] = '\0';
	*ret = UINT64_MAX;
	if (streq(digits, "-1") || streq(digits, "unlimited"))
		return 0;
	return parse_u64(digits, 0, INT64_MAX, ret) < 0 ? -EPROTO : 0;
}

int proto_rlimit_parse(const char *text, struct proto_rlimit *ret)
{
	const char *at = strchr(text, '='), *colon;
	size_t len = at ? (size_t)(at - text) : 0, i = 0;
	int r;

	while (i < ARRAY_SIZE(names) && (strlen(names[i].name) != len || memcmp(names[i].name, text, len) != 0))
		i++;
	if (i == ARRAY_SIZE(names))
		return -EPROTO;
	at++;
	colon = strchr(at, ':');
	r = value(at, colon ? (size_t)(colon - at) : strlen(at), &ret->soft);
	ret->hard = ret->soft;
	if (r == 0 && colon)
		r = value(colon + 1, strlen(colon + 1), &ret->hard);
	ret->resource = names[i].resource;
	return r < 0 || ret->soft > ret->hard ? -EPROTO : 0;
}
