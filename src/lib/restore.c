/* SPDX-License-Identifier: Apache-2.0 */
/* New VMs that go on from a snapshot, or from a running VM: sm_vm_start with a snapshot, and sm_vm_branch. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "lib/vmsnap.h"

#define BRANCH_MAX 1000

static int check_restore(const struct sm_vm_options *o, struct sm_error *err)
{
	if (o->image || o->memory || o->cpus || o->cpu_limit || o->profile || o->disk_size || o->tmpfs_root ||
	    o->kernel || o->entrypoint || o->argv || o->user || o->cwd || o->stop_signal || o->share_group ||
	    o->dax_size || o->cold || o->ksm || o->no_command || o->num_secrets || o->ulimits)
		return error_set(err, SM_ERROR_INVALID, EINVAL,
				 "a VM that goes on from a snapshot is what it was: its image, command and sizes "
				 "cannot be chosen");
	return start_check_own(o, err);
}

static int add_environment(struct vm_record *r, const char *const *more)
{
	char **env = env_merge((const char *const *)r->env, more);

	if (!env)
		return -ENOMEM;
	strv_free(r->env);
	r->env = env;
	return 0;
}

/* A copy of that VM's record under another identity. */
static int become_new(struct sm_client *c, struct vm_record *r, const struct sm_vm_options *o, const struct vmsnap *m,
		      struct sm_error *err)
{
	int e = start_new_identity(r, o, err);

	if (e < 0)
		return e;
	r->layers = (unsigned)strv_len((const char *const *)m->layers);
	e = mounts_replace(c, r, o, m->booted, err);
	if (e == 0)
		e = audit_from_options(r, o, err);
	if (e < 0)
		return e;
	strv_free(r->ports); /* they lead into the first */
	r->ports = NULL;
	free(r->hostname);
	r->hostname = strdup(o->hostname ? o->hostname : r->id);
	strv_free(r->labels);
	r->labels = strv_copy(o->labels);
	if (o->timeout_ns)
		r->timeout_ns = MIN(o->timeout_ns, (uint64_t)INT64_MAX / 2);
	if (o->ttl_ns)
		r->ttl_ns = MIN(o->ttl_ns, (uint64_t)INT64_MAX / 2);
	e = idle_from_options(r, o, err);
	if (e < 0)
		return e;
	e = add_environment(r, o->env);
	if (e < 0 || !r->hostname)
		return error_sys(err, ENOMEM, "start");
	return ports_from_options(r, o, err);
}

int start_restored(struct sm_client *c, const struct sm_vm_options *o, struct sm_vm **ret, struct sm_error *err)
{
	_cleanup_(vm_record_done) struct vm_record r = {0};
	uint64_t since = time_now_ns();
	struct vmsnap_restore from;
	struct seat *seat;
	int e = check_restore(o, err);

	if (e == 0)
		e = client_seat(c, &seat, err);
	if (e < 0)
		return e;
	vmdir_sweep(c);
	e = vmsnap_restore_begin(c, o->snapshot, &from, &r, err);
	if (e < 0)
		return e;
	e = become_new(c, &r, o, &from.meta, err);
	if (e == 0)
		e = start_record(c, &r, o, &from, -1, since, ret, err);
	vmsnap_restore_done(&from);
	return e < 0 ? error_wrap(err, e, "snapshot %s", o->snapshot) : 0;
}

/* ------------------------------------------------------------------------------------------ branches */

static int check_branch(const struct sm_vm_options *o, size_t count, struct sm_error *err)
{
	if (!count || count > BRANCH_MAX)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "%zu VMs of one: from 1 to %d", count, BRANCH_MAX);
	if (o->snapshot)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "a branch goes on from a running VM, not a snapshot");
	for (size_t i = 0; count > 1 && i < o->num_mounts; i++) {
		struct sm_mount m = OPTIONS_GET(struct sm_mount, OPTIONS_AT(struct sm_mount, o->mounts, i));

		if (m.volume && *m.volume && !m.read_only)
			return error_set(err, SM_ERROR_INVALID, EINVAL,
					 "%zu VMs cannot have volume %s: any number of them may read it", count,
					 m.volume);
	}
	for (size_t i = 0; count > 1 && i < o->num_ports; i++) {
		struct sm_port p = OPTIONS_GET(struct sm_port, OPTIONS_AT(struct sm_port, o->ports, i));

		if (!p.reverse && (p.host_port || p.host_path))
			return error_set(err, SM_ERROR_INVALID, EINVAL,
					 "%zu VMs cannot have one port of this host: 0 takes a free one for each",
					 count);
	}
	return check_restore(o, err);
}

/* number: of several, from 1; 0: the only one. */
static int start_child(struct sm_vm *parent, const struct sm_vm_options *o, struct vmsnap_restore *from,
		       unsigned number, struct sm_vm **ret, struct sm_error *err)
{
	_cleanup_(vm_record_done) struct vm_record r = {0};
	_fd_ int dir = vmdir_open(parent->client, parent->id, err);
	struct sm_vm_options own = *o;
	char name[VM_NAME_MAX + 16];
	int e = dir < 0 ? dir : vmdir_load(dir, parent->id, &r, err);

	snprintf(name, sizeof(name), "%.*s-%u", VM_NAME_MAX, o->name ? o->name : "", number);
	if (o->name && number)
		own.name = name;
	if (e == 0)
		e = start_check_own(&own, err);
	if (e == 0)
		e = become_new(parent->client, &r, &own, &from->meta, err);
	return e < 0 ? e : start_record(parent->client, &r, &own, from, -1, time_now_ns(), ret, err);
}

int sm_vm_branch(struct sm_vm *vm, const struct sm_vm_options *options, size_t count, struct sm_vm **ret,
		 uint64_t *ret_pause_ns, struct sm_error *err)
{
	struct sm_vm_options o = OPTIONS_GET(struct sm_vm_options, options);
	struct vmsnap_branch b;
	size_t n = 0;
	int r = check_branch(&o, count, err);

	if (r == 0)
		r = vmsnap_branch_begin(vm, &b, err);
	if (r < 0)
		return r;
	while (r == 0 && n < count) {
		r = start_child(vm, &o, &b.from, count > 1 ? (unsigned)n + 1 : 0, &ret[n], err);
		n += r == 0;
	}
	if (r == 0 && ret_pause_ns)
		*ret_pause_ns = b.from.meta.pause_ns;
	vmsnap_branch_done(&b);
	while (r < 0 && n) {
		sm_vm_remove(ret[--n], true, NULL);
		sm_vm_close(ret[n]);
	}
	return r < 0 ? error_wrap(err, r, "branch VM %s", vm->id) : 0;
}
