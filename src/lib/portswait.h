/* SPDX-License-Identifier: Apache-2.0 */
/* From whoever waits at the ports of a suspended VM: for ports.c. See portswait.c. */
#ifndef LIB_PORTSWAIT_H
#define LIB_PORTSWAIT_H

#include "lib/lib.h"

int ports_waiter(struct sm_client *c, const char *id); /* a connection to him: a descriptor, or -errno */
/* The next of the sockets, which is to lead to that port of the guest (0: to a path), and which `left` others are to
 * follow. A descriptor, or -errno (-EPROTO: they are not the VM's). */
int ports_take(int waiter, unsigned left, uint16_t guest_port);

#endif
