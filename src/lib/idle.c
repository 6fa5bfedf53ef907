/* SPDX-License-Identifier: Apache-2.0 */
/* What the options say of a VM that nobody uses; its keeper (keeper/idle.c) does it. */
#include <errno.h>

#include "base/util.h"
#include "lib/lib.h"

int idle_check(const struct sm_vm_options *o, struct sm_error *err)
{
	if (o->on_idle > SM_ON_IDLE_KILL)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "unknown action %d of an idle VM", (int)o->on_idle);
	if (!o->idle_ns)
		return o->on_idle ? error_set(err, SM_ERROR_INVALID, EINVAL,
					      "what to do with an idle VM, without a limit on how long it may be idle")
				  : 0;
	if (!o->detach && !o->background && !o->no_command)
		return error_set(err, SM_ERROR_INVALID, EINVAL,
				 "a VM in the foreground is never idle: whoever runs it is attached");
	if (!o->detach && o->on_idle == SM_ON_IDLE_SUSPEND)
		return error_set(err, SM_ERROR_INVALID, EINVAL,
				 "a VM that ends with its owner cannot be suspended: it must be detached");
	return 0;
}

int idle_from_options(struct vm_record *r, const struct sm_vm_options *o, struct sm_error *err)
{
	if (o->idle_ns) {
		r->idle_ns = MIN(o->idle_ns, (uint64_t)INT64_MAX / 2);
		r->on_idle = o->on_idle;
	}
	if (!r->idle_ns || r->on_idle != SM_ON_IDLE_SUSPEND || vm_mounts_saved(r))
		return 0;
	return error_set(err, SM_ERROR_INVALID, EOPNOTSUPP,
			 "a VM with mounts of a share group, or a mount that has the option dax, cannot be suspended: "
			 "stop or kill it when it is idle");
}
