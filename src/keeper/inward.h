/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ports of a guest that lead to the host, in the forwarder's process: each connection that the agent accepts there
 * (ACCEPT) is joined to one made here, to the one address that was given for the port.
 */
#ifndef KEEPER_INWARD_H
#define KEEPER_INWARD_H

#include "base/loop.h"
#include "keeper/porttext.h"
#include "proto/mux.h"

struct inward;

/* port must live as long. Begins with inward_begin, once the VM's command runs. */
int inward_new(struct loop *loop, struct mux *mux, const struct port_text *port, struct inward **ret) MUST_CHECK;
void inward_begin(struct inward *w);

#endif
