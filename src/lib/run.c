/* SPDX-License-Identifier: Apache-2.0 */
/* sm_run: a command in a VM of its own, from image to output, in one call. */
#include <errno.h>

#include "base/util.h"
#include "lib/lib.h"

static int attach_and_collect(struct sm_vm *vm, const struct sm_run_options *o, struct sm_result **ret,
			      struct sm_error *err)
{
	struct sm_exec_options x = SM_EXEC_OPTIONS_INIT;
	struct sm_exec *exec = NULL;
	int r;

	x.stdin_fd = o->stdin_fd;
	x.stdin_open = o->stdin_fd >= 0;
	x.stdout_fd = o->stdout_fd;
	x.stderr_fd = o->stderr_fd;
	x.input = o->input;
	x.input_size = o->input_size;
	x.output_max = o->output_max;
	x.cancel_fd = o->cancel_fd;
	r = sm_vm_attach(vm, &x, &exec, err);
	if (r == 0)
		r = sm_exec_collect(exec, ret, err);
	sm_exec_close(exec);
	return r;
}

int sm_run(struct sm_client *client, const char *image, const char *const *argv, const struct sm_run_options *options,
	   struct sm_result **ret, struct sm_error *err)
{
	static const struct sm_run_options defaults = SM_RUN_OPTIONS_INIT;
	struct sm_run_options o = OPTIONS_GET(struct sm_run_options, options ? options : &defaults);
	struct sm_vm_options v = OPTIONS_GET(struct sm_vm_options, o.vm);
	struct sm_vm *vm = NULL;
	int r;

	v.image = image ? image : v.image;
	v.argv = argv ? argv : v.argv;
	v.detach = false;
	if (!v.snapshot)
		v.stdin_open |= o.stdin_fd >= 0 || o.input;
	r = sm_vm_start(client, &v, &vm, err);
	if (r == 0)
		r = attach_and_collect(vm, &o, ret, err);
	sm_vm_close(vm);
	return r;
}
