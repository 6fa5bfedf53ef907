/* SPDX-License-Identifier: Apache-2.0 */
/*
 * supermachine-wake: has one suspended VM go on, by the library, as `supermachine resume` does. Started by the process
 * that waits at the VM's ports (keeper/waiting.c) when somebody connects to one; ends with status 0 when the VM runs,
 * whoever woke it. Which home, helpers and machine: by the environment.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>

#include "supermachine.h"

#define TRIES 600
#define TRY_MS 200

/* Another program may be at it: then what it comes to is as good. */
static int wake(struct sm_vm *vm, struct sm_error *err)
{
	int r = sm_vm_resume(vm, err);

	for (int i = 0; r == -EBUSY && i < TRIES; i++) {
		poll(NULL, 0, TRY_MS);
		r = sm_vm_resume(vm, err);
	}
	return r == -EALREADY ? 0 : r;
}

int main(int argc, char **argv)
{
	struct sm_client *client = NULL;
	struct sm_error err = {0};
	struct sm_vm *vm = NULL;
	int r;

	if (argc != 2) {
		fputs("usage: supermachine-wake VM\n", stderr);
		return 2;
	}
	r = sm_client_open(NULL, &client, &err);
	if (r >= 0)
		r = sm_vm_open(client, argv[1], &vm, &err);
	if (r >= 0)
		r = wake(vm, &err);
	if (r < 0)
		fprintf(stderr, "supermachine-wake: VM %s: %s\n", argv[1], err.message);
	sm_vm_close(vm);
	sm_client_close(client);
	return r < 0;
}
