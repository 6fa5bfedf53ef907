/* SPDX-License-Identifier: Apache-2.0 */
/*
 * File systems that programs on this host serve, for a VM in the machine: a process (keeper/hostshare.c), which lives
 * as long as the VM, carries the connections there. Where the VM runs on this host its keeper connects by itself.
 */
#include <stdio.h>
#include <stdlib.h>

#include "lib/lib.h"

int served_carry(struct sm_client *c, const struct vm_record *r, int link, struct sm_error *err)
{
	char *places[VM_MAX_MOUNTS] = {NULL};
	unsigned n = 0, others = 0;
	int e;

	for (unsigned i = 0; i < r->num_mounts; i++) {
		if (r->mounts[i].volume)
			others++; /* the monitor does not count them */
		else if (r->mounts[i].served && asprintf(&places[n], "%u:%s", i - others, r->mounts[i].source) >= 0)
			n++;
	}
	e = client_start_role(c, "--share", link, (const char *const *)places, n, err);
	while (n)
		free(places[--n]);
	return e;
}
