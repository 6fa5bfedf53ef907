/* SPDX-License-Identifier: Apache-2.0 */
/* The public header alone, and a program that links nothing but the shared library: what others get. */
#include "supermachine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(x)                                                                                                       \
	do {                                                                                                           \
		if (!(x)) {                                                                                            \
			fprintf(stderr, "line %d: %s\n", __LINE__, #x);                                                \
			return 1;                                                                                      \
		}                                                                                                      \
	} while (0)

static void note(void *arg, enum sm_log_level level, const char *line)
{
	++*(int *)arg;
}

int main(void)
{
	struct sm_client_options o = SM_CLIENT_OPTIONS_INIT;
	struct sm_vm_options vo = SM_VM_OPTIONS_INIT;
	char dir[] = "/tmp/test-header.XXXXXX", remove[64];
	struct sm_image **images = NULL;
	struct sm_vm_info **vms = NULL;
	struct sm_error err = {0};
	struct sm_client *client;
	struct sm_vm *vm = NULL;
	size_t count = 9;
	int notes = 0;

	CHECK(mkdtemp(dir));
	o.home = dir;
	o.log = note;
	o.log_arg = &notes;
	CHECK(strlen(sm_version()) >= 5);
	CHECK(sm_client_open(&o, &client, &err) == 0);
	CHECK(sm_image_list(client, &images, &count, &err) == 0 && count == 0);
	sm_image_list_free(images, count);
	CHECK(sm_vm_list(client, true, &vms, &count, &err) == 0 && count == 0);
	sm_vm_list_free(vms, count);
	CHECK(sm_vm_open(client, "nobody", &vm, &err) < 0 && err.kind == SM_ERROR_NOT_FOUND && !vm);
	CHECK(strstr(err.message, "nobody"));
	CHECK(sm_vm_start(client, &vo, &vm, &err) < 0 && err.kind == SM_ERROR_INVALID);
	CHECK(strcmp(sm_reason_name(SM_REASON_DISK_FULL), "disk-full") == 0);
	CHECK(strcmp(sm_reason_name((enum sm_reason)999), "none") == 0);
	CHECK(strcmp(sm_vm_state_name(SM_VM_RUNNING), "running") == 0);
	CHECK(sm_vm_close(NULL) == NULL && sm_image_close(NULL) == NULL && sm_exec_close(NULL) == NULL);
	CHECK(sm_client_close(client) == NULL && sm_client_close(NULL) == NULL);
	snprintf(remove, sizeof(remove), "rm -r %s", dir);
	return system(remove) != 0;
}
