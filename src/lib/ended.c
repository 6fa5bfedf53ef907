/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of a VM that has ended: another VM of the same image, mounts and disk, but without a command, serves them
 * for as long as the handle is open. Its disk's files are links to those of the first, whose start.lock is held
 * meanwhile: so nobody starts the first, and what is written is there when it is started again. If all are killed, the
 * second's directory is swept like that of any VM whose owner is gone; the file system on the disk has a journal.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "lib/lib.h"

#define LABEL "supermachine.files-of="

/* The record becomes that of a VM with those files, and nothing else of the first. */
static int become_silent(struct vm_record *r, struct sm_error *err)
{
	static const struct sm_vm_options none = SM_VM_OPTIONS_INIT;
	static const char *const for_show[] = {"init", NULL};
	char label[sizeof(LABEL) + VM_ID_DIGITS];
	const char *const labels[] = {label, NULL};
	int e;

	snprintf(label, sizeof(label), LABEL "%s", r->id);
	e = start_new_identity(r, &none, err);
	if (e < 0)
		return e;
	strv_free(r->argv);
	strv_free(r->labels);
	strv_free(r->ports);
	strv_free(r->secrets);
	strv_free(r->limits);
	free(r->audit);
	r->argv = strv_copy(for_show);
	r->labels = strv_copy(labels);
	r->ports = r->secrets = r->limits = NULL;
	r->audit = NULL;
	r->no_command = true;
	r->tty = r->stdin_open = r->trace = false;
	r->timeout_ns = r->ttl_ns = r->idle_ns = 0;
	r->cpu_limit = 0;
	return r->argv && r->labels ? 0 : error_sys(err, ENOMEM, "VM %s", r->id);
}

static int start(struct sm_client *c, int dir, const struct vm_record *rec, struct sm_vm **ret, struct sm_error *err)
{
	struct sm_vm_options o = SM_VM_OPTIONS_INIT;
	struct sm_vm *vm = NULL;
	int r;

	o.background = true;
	r = start_record(c, rec, &o, NULL, dir, time_now_ns(), &vm, err);
	if (r == 0)
		r = sm_vm_wait_started(vm, 0, NULL, err);
	if (r < 0)
		sm_vm_close(vm);
	else
		*ret = vm;
	return r;
}

static int open_ended(struct sm_vm *vm, int dir, struct sm_error *err)
{
	_cleanup_(vm_record_done) struct vm_record rec = {0};
	_fd_ int lock = start_lock(vm, dir, SM_VM_EXITED, err);
	struct sm_vm *silent = NULL;
	int r = lock < 0 ? lock : vmdir_load(dir, vm->id, &rec, err);

	if (r == 0 && !rec.disk_template)
		r = error_set(err, SM_ERROR_STATE, ENODATA, "VM %s has ended, and its files were in memory", vm->id);
	if (r == 0)
		r = become_silent(&rec, err);
	if (r == 0)
		r = start(vm->client, dir, &rec, &silent, err);
	if (r < 0)
		return error_wrap(err, r, "the files of VM %s", vm->id);
	vm->files = silent;
	vm->files_lock = TAKE_FD(lock);
	return 0;
}

int vm_files(struct sm_vm *vm, struct sm_vm **ret, struct sm_error *err)
{
	_fd_ int dir = vmdir_open(vm->client, vm->id, err);
	struct vm_view v;
	int r = 0;

	if (dir < 0)
		return dir;
	pthread_mutex_lock(&vm->files_mutex);
	if (!vm->files) {
		r = vm_view(vm->client, vm->id, &v, err);
		if (r == 0 && v.state == SM_VM_EXITED)
			r = open_ended(vm, dir, err);
	}
	*ret = vm->files ? vm->files : vm;
	pthread_mutex_unlock(&vm->files_mutex);
	return r < 0 || *ret != vm ? r : vm_wake(vm, err);
}

void vm_files_done(struct sm_vm *vm)
{
	pthread_mutex_lock(&vm->files_mutex);
	if (vm->files) {
		sm_vm_stop(vm->files, 0, NULL);
		vm->files = sm_vm_close(vm->files);
	}
	vm->files_lock = fd_close(vm->files_lock);
	pthread_mutex_unlock(&vm->files_mutex);
}
