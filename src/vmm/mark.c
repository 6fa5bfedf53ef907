/* SPDX-License-Identifier: Apache-2.0 */
/* Marking a machine, and going back. See mark.h. */
#include "vmm/mark.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "vmm/snapshot.h"
#include "vmm/vm.h"

void mark_done(struct mark *m)
{
	ram_mark_done(&m->ram);
	buf_done(&m->arch);
	buf_done(&m->devices);
	*m = (struct mark){0};
}

static int check(const struct vm *vm, struct sm_error *err)
{
	if (vm->saver.busy || vm->paused)
		return error_set(err, SM_ERROR_STATE, EBUSY, "it is being saved, or paused");
	if (vm->share)
		return error_set(err, SM_ERROR_UNSUPPORTED, ENOTSUP,
				 "what it has written to shared directories cannot be undone");
	return 0;
}

/* The devices first: they may finish what they are at, which changes RAM. */
static int take(struct vm *vm, int *top, struct sm_error *err)
{
	struct mark *m = &vm->mark;
	int r = snapshot_take_state(vm, &m->arch, &m->devices, err);

	if (r < 0)
		return r;
	r = ram_mark_take(&vm->ram, &m->ram);
	devices_keep_agent(vm, &m->agent);
	if (r < 0)
		return error_set(err, r == -ENOSYS ? SM_ERROR_UNSUPPORTED : SM_ERROR_LIMIT, -r, "%s",
				 r == -E2BIG ? "its guest has written to too much of its memory" : strerror(-r));
	r = *top < 0 ? 0 : devices_push_top(vm, *top, err);
	if (r == 0)
		*top = -1;
	return r;
}

int mark_take(struct vm *vm, int agent, int *top, uint64_t *ret_pause_ns, struct sm_error *err)
{
	uint64_t start = time_now_ns();
	int r = devices_rejoin_agent(vm, agent);

	r = r < 0 ? error_sys(err, -r, "its agent's connection") : check(vm, err);

	if (r < 0)
		return r;
	mark_done(&vm->mark);
	vm_pause_locked(vm);
	r = take(vm, top, err);
	if (r < 0)
		mark_done(&vm->mark);
	vm->mark.set = r == 0;
	vm_resume_locked(vm);
	*ret_pause_ns = time_now_ns() - start;
	return r;
}

static int load(struct vm *vm, struct sm_error *err)
{
	const struct mark *m = &vm->mark;
	struct snapshot s = {.memory = vm->ram.boot,
			     .window_gpa = vm->window_gpa,
			     .arch = cursor_of(m->arch.data, m->arch.len),
			     .devices = cursor_of(m->devices.data, m->devices.len)};
	int r = ram_mark_rewind(&vm->ram, &m->ram);

	return r < 0 ? error_sys(err, -r, "its memory") : snapshot_load(vm, &s, err);
}

int mark_rewind(struct vm *vm, int agent, struct sm_error *err)
{
	_fd_ int fd = agent;
	int r = check(vm, err);

	if (r == 0 && (!vm->mark.set || fd < 0))
		r = error_set(err, SM_ERROR_STATE, EINVAL, "it has no mark");
	if (r < 0)
		return r;
	vm_pause_locked(vm);
	devices_reset(vm);
	r = devices_renew_top(vm);
	r = r < 0 ? error_sys(err, -r, "its disk") : load(vm, err);
	if (r == 0 && (r = devices_revive_agent(vm, &vm->mark.agent, TAKE_FD(fd))) < 0)
		error_sys(err, -r, "its agent's connection");
	if (r < 0)
		return r;
	devices_restart(vm);
	vm_resume_locked(vm);
	return 0;
}
