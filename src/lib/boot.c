/* SPDX-License-Identifier: Apache-2.0 */
/* What a microVM boots: the distribution's kernel, and an initramfs of its modules and our agent. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "kernel/guest_modules.h"
#include "kernel/kernel.h"
#include "lib/lib.h"

static const char *const modules[] = {GUEST_MODULES, NULL};

int boot_files(struct sm_client *c, const char *kernel, char **ret_kernel, char **ret_initramfs, struct sm_error *err)
{
	struct initramfs_file init = {.path = "init", .mode = 0755};
	struct kernel k = {0};
	_free_ char *agent = NULL;
	int r = client_helper(c, "supermachine-agent", &agent, err);

	if (r == 0)
		r = kernel_find(kernel, c->data_dir, &k, err);
	if (r < 0)
		return r;
	init.source = agent;
	r = initramfs_cached(&k, modules, &init, 1, c->data_dir, "guest", ret_initramfs, err);
	if (r == 0)
		*ret_kernel = TAKE_PTR(k.image);
	kernel_done(&k);
	return r;
}
