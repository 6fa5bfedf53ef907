/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's two lives as PID 1. Neither returns but to power off. */
#ifndef GUEST_ROLES_H
#define GUEST_ROLES_H

#include "guest/agent.h"

int guest_role(struct agent *a);
int machine_role(struct agent *a);

#endif
