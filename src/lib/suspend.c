/* SPDX-License-Identifier: Apache-2.0 */
/* VMs on the disk: sm_vm_suspend, sm_vm_resume, and what else wakes or ends them. keeper/suspend.c does the work. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "lib/lib.h"

#define STATUS_KILLED 137
#define OTHERS_TIMEOUT_NS (120 * SECOND_NS)
#define OTHERS_POLL_MS 20

bool vm_is_suspended(int vmdir)
{
	return faccessat(vmdir, VM_SUSPENDED, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

int sm_vm_suspend(struct sm_vm *vm, struct sm_error *err)
{
	struct vm_exit x;
	int r = vm_request(vm, PROTO_KEEPER_SUSPEND, NULL, "suspend", err);

	if (r < 0)
		return r;
	/* Its memory is given back when its keeper has ended. */
	(void)!vm_last_word(vm->client, vm->id, &x, NULL);
	ports_await_waiter(vm);
	return 0;
}

int sm_vm_resume(struct sm_vm *vm, struct sm_error *err)
{
	struct vm_view v;
	int r = vm_view(vm->client, vm->id, &v, err);

	if (r < 0)
		return r;
	if (v.state != SM_VM_SUSPENDED)
		return error_set(err, SM_ERROR_STATE, EALREADY, "VM %s is not suspended: it is %s", vm->id,
				 sm_vm_state_name(v.state));
	return sm_vm_start_again(vm, true, err);
}

/* Another program may be at it at this moment: that is as good. One that is going to the disk right now is woken when
 * it is there. */
int vm_wake(struct sm_vm *vm, struct sm_error *err)
{
	uint64_t deadline = time_now_ns() + OTHERS_TIMEOUT_NS;
	_fd_ int dir = vmdir_open(vm->client, vm->id, err);

	if (dir < 0)
		return dir;
	for (;;) {
		int r = vm_is_suspended(dir) ? sm_vm_resume(vm, err) : 0;

		if (r == 0 || r == -EALREADY)
			r = sm_vm_wait_started(vm, 0, NULL, err);
		if ((r != -EBUSY && r != -EHOSTDOWN) || time_now_ns() > deadline)
			return r;
		poll(NULL, 0, OTHERS_POLL_MS);
	}
}

static int write_end(int dir, struct sm_error *err)
{
	struct vm_exit x = {.outcome = SM_OUTCOME_INIT};
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	x.finished_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
	x.outcome.reason = SM_REASON_STOPPED;
	x.outcome.status = STATUS_KILLED;
	x.outcome.signal = STATUS_KILLED - 128;
	snprintf(x.outcome.message, sizeof(x.outcome.message), "stopped while it was suspended");
	return vm_write_exit(dir, &x, err);
}

int vm_drop_suspended(struct sm_vm *vm, struct sm_error *err)
{
	_fd_ int dir = vmdir_open(vm->client, vm->id, err), lock = -1;
	struct conn conn;
	int r;

	if (dir < 0)
		return dir;
	if (!vm_is_suspended(dir))
		return 0;
	lock = vmdir_flock(dir, "start.lock", true, true);
	if (lock < 0)
		return error_sys(err, -lock, "VM %s", vm->id);
	/* Whoever woke it before we had the lock has made its keeper answer. */
	r = vm_connect(vm->client, vm->id, &conn, err);
	if (r == 0)
		conn_done(&conn);
	if (r != -ESRCH)
		return r;
	r = write_end(dir, err);
	if (r < 0)
		return r;
	r = remove_tree_at(dir, VM_SUSPENDED);
	return r < 0 ? error_sys(err, -r, "VM %s", vm->id) : 1;
}
