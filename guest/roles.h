/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's two lives as PID 1. Neither returns but to power off. */
#ifndef GUEST_ROLES_H
#define GUEST_ROLES_H

#include "guest/agent.h"

int guest_role(struct agent *a);
int machine_role(struct agent *a);

/* kvm_hold.c: keeps the kernel's code for VMs switched on as long as the machine lives. Fails with a warning. */
void machine_hold_kvm(void);
/* Brings up the CPUs that the kernel was told to leave alone while it booted. */
void machine_start_cpus(void);

#endif
