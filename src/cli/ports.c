/* SPDX-License-Identifier: Apache-2.0 */
/* -p as docker spells it: [[ADDRESS:][HOST]:]GUEST[/tcp], where no HOST, or 0, is one that is free. */
#include "cli/ports.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

static bool number(const char *text, uint64_t min, uint16_t *ret)
{
	uint64_t v;

	if (parse_u64(text, min, UINT16_MAX, &v) < 0)
		return false;
	*ret = (uint16_t)v;
	return true;
}

uint16_t cli_guest_port(const char *text)
{
	char digits[8];
	size_t len = strcspn(text, "/");
	uint16_t port = 0;

	if (len >= sizeof(digits) || (text[len] && !streq(text + len, "/tcp")))
		return 0;
	memcpy(digits, text, len);
	digits[len] = '\0';
	return number(digits, 1, &port) ? port : 0;
}

static bool is_address(const char *text)
{
	uint8_t any[16];

	return inet_pton(AF_INET, text, any) == 1 || inet_pton(AF_INET6, text, any) == 1;
}

/* Takes "ADDRESS:" off the front, if a second colon (or brackets) shows that there is one. NULL: it is broken. */
static char *take_address(char *text, struct sm_port *p)
{
	char *close, *last = strrchr(text, ':'), *colon;

	if (text[0] == '[') {
		close = strchr(text, ']');
		if (!close || close[1] != ':')
			return NULL;
		*close = '\0';
		p->address = text + 1;
		return close + 2;
	}
	colon = strchr(text, ':');
	if (!last || colon == last)
		return text;
	*colon = '\0';
	p->address = text;
	return colon + 1;
}

static int parse_one(struct cli *cli, struct sm_port *p, char *text, const char *whole)
{
	char *rest, *colon, *protocol = strchr(text, '/');

	*p = (struct sm_port)SM_PORT_INIT;
	if (protocol && !streq(protocol, "/tcp"))
		return cli_usage(cli, NULL, "-p %s: TCP alone is carried, not %s", whole, protocol + 1);
	if (protocol)
		*protocol = '\0';
	rest = take_address(text, p);
	if (!rest || (p->address && !is_address(p->address)))
		return cli_usage(cli, "IPv6 addresses stand in brackets: [::1]:8080:80",
				 "-p %s: what comes first is no address of this host", whole);
	colon = strchr(rest, ':');
	if (colon)
		*colon++ = '\0';
	if (strchr(rest, '-') || (colon && strchr(colon, '-')))
		return cli_usage(cli, "give -p once for each", "-p %s: ranges are not supported", whole);
	if (!number(colon ? colon : rest, 1, &p->guest_port) || (colon && *rest && !number(rest, 0, &p->host_port)))
		return cli_usage(cli, NULL, "-p wants [ADDRESS:]HOST:GUEST, ports up to 65535, not '%s'", whole);
	return 0;
}

int cli_ports_parse(struct cli *cli, const struct opt_list *options, struct cli_ports *ret)
{
	int status = 0;

	*ret = (struct cli_ports){.v = calloc(options->n + 1, sizeof(*ret->v)), .texts = opt_list_copy(options)};
	if (!ret->v || !ret->texts)
		return cli_usage(cli, NULL, "no memory");
	for (; ret->n < options->n && status == 0; ret->n++)
		status = parse_one(cli, &ret->v[ret->n], ret->texts[ret->n], options->v[ret->n]);
	return status;
}

void cli_ports_free(struct cli_ports *p)
{
	opt_list_copy_free(p->texts);
	free(p->v);
	*p = (struct cli_ports){0};
}

void cli_ports_json(struct json *j, const struct sm_port *ports, size_t count)
{
	json_open(j, "ports", '[');
	for (size_t i = 0; i < count; i++) {
		json_open(j, NULL, '{');
		json_text(j, "address", ports[i].address);
		json_unsigned(j, "host_port", ports[i].host_port);
		json_unsigned(j, "guest_port", ports[i].guest_port);
		json_close(j, '}');
	}
	json_close(j, ']');
}
