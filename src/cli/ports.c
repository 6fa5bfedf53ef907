/* SPDX-License-Identifier: Apache-2.0 */
/* -p as docker spells it: [[ADDRESS:][HOST]:]GUEST[/tcp], where no HOST, or 0, is one that is free; ports may be
 * ranges. Instead of [ADDRESS:]HOST, and of GUEST, a path of a unix socket. And --reverse GUEST:HOST. */
#include "cli/ports.h"

#include <arpa/inet.h>
#include <stdio.h>
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

/* "N" or "N-M". */
static bool range(char *text, uint64_t min, uint16_t *ret_first, uint16_t *ret_last)
{
	char *dash = strchr(text, '-');

	if (dash)
		*dash++ = '\0';
	if (!number(text, min, ret_first) || (dash && !number(dash, 1, ret_last)))
		return false;
	if (!dash)
		*ret_last = *ret_first;
	return *ret_first <= *ret_last && (!dash || *ret_first);
}

static int add_ports(struct cli *cli, struct cli_ports *ret, const struct sm_port *first, unsigned count)
{
	struct sm_port *more = realloc(ret->v, (ret->n + count + 1) * sizeof(*more));

	if (!more)
		return cli_usage(cli, NULL, "no memory");
	ret->v = more;
	for (unsigned i = 0; i < count; i++) {
		struct sm_port *p = &ret->v[ret->n++];

		*p = *first;
		p->guest_port = (uint16_t)(p->guest_port + i);
		p->host_port = (uint16_t)(p->host_port ? p->host_port + i : 0);
	}
	return 0;
}

static int parse_one(struct cli *cli, struct cli_ports *ret, char *text, const char *whole)
{
	struct sm_port p = SM_PORT_INIT;
	char *rest, *colon, *protocol = strchr(text, '/');
	uint16_t last_host = 0, last_guest = 0;

	if (protocol && !streq(protocol, "/tcp"))
		return cli_usage(cli, NULL, "-p %s: TCP alone is carried, not %s", whole, protocol + 1);
	if (protocol)
		*protocol = '\0';
	rest = take_address(text, &p);
	if (!rest || (p.address && !is_address(p.address)))
		return cli_usage(cli, "IPv6 addresses stand in brackets: [::1]:8080:80",
				 "-p %s: what comes first is no address of this host", whole);
	colon = strchr(rest, ':');
	if (colon)
		*colon++ = '\0';
	if (!range(colon ? colon : rest, 1, &p.guest_port, &last_guest) ||
	    (colon && *rest && !range(rest, 0, &p.host_port, &last_host)))
		return cli_usage(cli, NULL, "-p wants [ADDRESS:]HOST:GUEST, ports up to 65535, not '%s'", whole);
	if (p.host_port && last_host - p.host_port != last_guest - p.guest_port)
		return cli_usage(cli, "for example: -p 8000-8010:9000-9010", "-p %s: the two ranges differ in length",
				 whole);
	return add_ports(cli, ret, &p, (unsigned)(last_guest - p.guest_port) + 1);
}

/* Cuts "ADDRESS:PORT" or "[ADDRESS]:PORT". NULL: it is broken. */
static char *take_address_alone(char *text, struct sm_port *p)
{
	char *colon = text[0] == '[' ? strchr(text, ']') : strchr(text, ':');

	if (!colon || (text[0] == '[' && colon[1] != ':'))
		return NULL;
	p->address = text + (text[0] == '[');
	*colon = '\0';
	return colon + 1 + (text[0] == '[');
}

static bool is_path(const char *text)
{
	return *text == '/' || *text == '.';
}

/* Where HOST:GUEST is cut, if one of them is a path: at a colon before one, or at the last. NULL: neither is. */
static char *path_colon(char *text)
{
	char *colon = strstr(text, ":/");

	if (!colon)
		colon = strstr(text, ":.");
	return colon ? colon : is_path(text) ? strrchr(text, ':') : NULL;
}

/* HOST of one that has a path at either end. */
static bool take_host(char *text, struct sm_port *p, uint64_t least)
{
	char *rest;

	if (is_path(text)) {
		p->host_path = text;
		return true;
	}
	if (str_starts(text, "localhost:")) {
		p->address = "127.0.0.1";
		return number(text + strlen("localhost:"), least, &p->host_port);
	}
	/* As for ADDRESS:HOST:GUEST, with nothing behind. */
	rest = text[0] == '[' || strchr(text, ':') ? take_address_alone(text, p) : text;
	return rest && (!p->address || is_address(p->address)) && number(rest, least, &p->host_port);
}

static bool take_guest(char *text, struct sm_port *p)
{
	if (*text == '/')
		p->guest_path = text;
	else
		p->guest_port = cli_guest_port(text);
	return p->guest_path || p->guest_port;
}

static int parse_paths(struct cli *cli, struct cli_ports *ret, char *text, char *colon, const char *whole)
{
	struct sm_port p = SM_PORT_INIT;

	*colon++ = '\0';
	if (!take_host(text, &p, 0) || !take_guest(colon, &p))
		return cli_usage(cli, "for example: -p ./web.sock:80, -p 8080:/run/web.sock",
				 "-p wants HOST:GUEST, each a port or the path of a socket, not '%s'", whole);
	return add_ports(cli, ret, &p, 1);
}

static int parse_reverse(struct cli *cli, struct cli_ports *ret, char *text, const char *whole)
{
	struct sm_port p = SM_PORT_INIT;
	char *colon = strchr(text, ':');

	p.reverse = true;
	if (colon)
		*colon++ = '\0';
	if (!colon || !take_guest(text, &p) || !take_host(colon, &p, 1))
		return cli_usage(cli, "for example: --reverse 5432:localhost:5432, --reverse /run/db.sock:/run/db.sock",
				 "--reverse wants GUEST:HOST, each a port or the path of a socket, not '%s'", whole);
	return add_ports(cli, ret, &p, 1);
}

int cli_ports_parse(struct cli *cli, const struct opt_list *options, const struct opt_list *reverse,
		    struct cli_ports *ret)
{
	int status = 0;

	*ret = (struct cli_ports){.v = calloc(1, sizeof(*ret->v)),
				  .texts = opt_list_copy(options),
				  .reverse_texts = opt_list_copy(reverse)};
	if (!ret->v || !ret->texts || !ret->reverse_texts)
		return cli_usage(cli, NULL, "no memory");
	for (size_t i = 0; i < options->n && status == 0; i++) {
		char *colon = path_colon(ret->texts[i]);

		status = colon ? parse_paths(cli, ret, ret->texts[i], colon, options->v[i])
			       : parse_one(cli, ret, ret->texts[i], options->v[i]);
	}
	for (size_t i = 0; i < reverse->n && status == 0; i++)
		status = parse_reverse(cli, ret, ret->reverse_texts[i], reverse->v[i]);
	return status;
}

void cli_port_text(const struct sm_port *p, bool v6, char ret[static CLI_PORT_TEXT])
{
	const char *address = p->address ? p->address : v6 ? "::" : "0.0.0.0";
	bool brackets = strchr(address, ':') != NULL;

	if (p->host_path)
		snprintf(ret, CLI_PORT_TEXT, "%s", p->host_path);
	else
		snprintf(ret, CLI_PORT_TEXT, "%s%s%s:%u", brackets ? "[" : "", address, brackets ? "]" : "",
			 p->host_port);
}

void cli_port_guest_text(const struct sm_port *p, char ret[static CLI_PORT_TEXT])
{
	if (p->guest_path)
		snprintf(ret, CLI_PORT_TEXT, "%s", p->guest_path);
	else
		snprintf(ret, CLI_PORT_TEXT, "%u/tcp", p->guest_port);
}

void cli_ports_free(struct cli_ports *p)
{
	opt_list_copy_free(p->texts);
	opt_list_copy_free(p->reverse_texts);
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
		if (ports[i].host_path)
			json_text(j, "host_path", ports[i].host_path);
		if (ports[i].guest_path)
			json_text(j, "guest_path", ports[i].guest_path);
		if (ports[i].reverse)
			json_bool(j, "reverse", true);
		json_close(j, '}');
	}
	json_close(j, ']');
}
