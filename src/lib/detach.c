/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sm_vm_detach: a VM that was its handle's becomes one of the background. What is on the disk says so before the keeper
 * does: killed in between, the VM has ended with its owner, as it would have. The mark of one that is not kept goes
 * last; without its lock, while that is there, nobody sweeps a VM away that runs detached.
 */
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "lib/lib.h"
#include "lib/spare.h"

static int rewrite(int dir, const char *id, struct sm_error *err)
{
	struct vm_record rec = {0};
	struct vm_start start;
	int r = vmdir_load(dir, id, &rec, err);

	if (r < 0)
		return r;
	rec.keep = true;
	r = vmdir_store(dir, &rec, err);
	vm_record_done(&rec);
	if (r == 0)
		r = vmdir_load_start(dir, &start, err);
	if (r < 0)
		return r;
	start.detach = true;
	return vmdir_store_start(dir, &start, err);
}

int sm_vm_detach(struct sm_vm *vm, struct sm_error *err)
{
	_fd_ int dir = -1;
	int r;

	if (vm->owner_fd < 0)
		return 0;
	dir = vmdir_open(vm->client, vm->id, err);
	r = dir < 0 ? dir : rewrite(dir, vm->id, err);
	if (r == 0)
		r = vm_request(vm, PROTO_KEEPER_DISOWN, NULL, "let go of", err);
	if (r < 0)
		return r;
	pthread_mutex_lock(&vm->lock);
	if (vm->transient_fd >= 0)
		unlinkat(dir, "transient", 0);
	vm->transient_fd = fd_close(vm->transient_fd);
	vm->owner_fd = fd_close(vm->owner_fd);
	spare_free(vm->spare);
	vm->spare = NULL;
	pthread_mutex_unlock(&vm->lock);
	return 0;
}
