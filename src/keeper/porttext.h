/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A port as the record, the VM's file `ports` and the forwarder's arguments have it: "ADDRESS HOST GUEST". ADDRESS is
 * "*" (all), a number, or "unix"; with that HOST is a path, else a port. GUEST is a port or a path. With "<" before it
 * all it leads the other way: from the guest to the host. In paths what is no plain character is %XX.
 */
#ifndef KEEPER_PORTTEXT_H
#define KEEPER_PORTTEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define PORT_TEXT_REVERSE '<'

struct port_text {
	bool reverse;
	char *address;		      /* NULL: all, or a path; reverse: never NULL unless a path */
	char *host_path, *guest_path; /* absolute; NULL: the port */
	uint16_t host_port, guest_port;
};

/* Cuts text in place; the strings of *ret point into it. 0 or -EINVAL. */
int port_text_parse(char *text, struct port_text *ret) MUST_CHECK;
char *port_text_format(const struct port_text *p); /* NULL: no memory */

#endif
