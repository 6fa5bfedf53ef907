/* SPDX-License-Identifier: Apache-2.0 */
/* -p [ADDRESS:]HOST:GUEST, --reverse GUEST:HOST, and ports as texts. See ports.c. */
#ifndef CLI_PORTS_H
#define CLI_PORTS_H

#include "cli/cli.h"

struct cli_ports {
	struct sm_port *v;
	char **texts, **reverse_texts; /* what v points into */
	size_t n;
};

/* 0, or the exit status after a usage error was told. cli_ports_free in any case. */
int cli_ports_parse(struct cli *cli, const struct opt_list *options, const struct opt_list *reverse,
		    struct cli_ports *ret);
void cli_ports_free(struct cli_ports *p);

/* "PORT" or "PORT/tcp" of a VM: 0 for what is none. */
uint16_t cli_guest_port(const char *text);

/* The host's end, and the guest's; v6: of all addresses, as the IPv6 one. */
#define CLI_PORT_TEXT 4200
void cli_port_text(const struct sm_port *p, bool v6, char ret[static CLI_PORT_TEXT]);
void cli_port_guest_text(const struct sm_port *p, char ret[static CLI_PORT_TEXT]);

/* The member "ports". */
void cli_ports_json(struct json *j, const struct sm_port *ports, size_t count);

#endif
