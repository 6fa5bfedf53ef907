/* SPDX-License-Identifier: Apache-2.0 */
/* Which VMs have a volume, and who may take one. See volume.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "lib/volume.h"

static const struct vm_mount *find(const struct vm_record *r, const char *volume)
{
	for (unsigned i = 0; i < r->num_mounts; i++)
		if (r->mounts[i].volume && !r->mounts[i].own && streq(r->mounts[i].volume, volume))
			return &r->mounts[i];
	return NULL;
}

/* The record of a VM that may be gone by now: then it has no volumes. */
static void load_quietly(struct sm_client *c, const char *id, struct vm_record *ret)
{
	_fd_ int dir = vmdir_open(c, id, NULL);

	if (dir < 0 || vmdir_load(dir, id, ret, NULL) < 0)
		*ret = (struct vm_record){0};
}

char **volume_users(struct sm_client *c, const char *name)
{
	char(*ids)[VM_ID_DIGITS + 1] = NULL;
	size_t count = 0, n = 0;
	char **v;

	if (vmdir_list(c, &ids, &count, NULL) < 0)
		count = 0;
	v = calloc(count + 1, sizeof(*v));
	for (size_t i = 0; v && i < count; i++) {
		_cleanup_(vm_record_done) struct vm_record r = {0};

		load_quietly(c, ids[i], &r);
		if (find(&r, name) && (v[n] = strdup(ids[i])))
			n++;
	}
	free(ids);
	return v;
}

/* One that is being started has it as well: whoever starts a VM holds its start.lock before he comes here. */
static bool is_up(struct sm_client *c, const char *id)
{
	_fd_ int dir = vmdir_open(c, id, NULL);
	_fd_ int lock = dir < 0 ? -1 : vmdir_flock(dir, "start.lock", true, false);
	struct vm_view v;

	if (dir < 0)
		return false;
	if (lock == -EWOULDBLOCK)
		return true;
	lock = fd_close(lock);
	return vm_view(c, id, &v, NULL) < 0 || v.state != SM_VM_EXITED;
}

/* Whether another VM has one of these volumes in a way that excludes this one. */
static int check_against(struct sm_client *c, const struct vm_record *r, const char *other, struct sm_error *err)
{
	_cleanup_(vm_record_done) struct vm_record o = {0};

	load_quietly(c, other, &o);
	for (unsigned i = 0; i < r->num_mounts; i++) {
		const struct vm_mount *m = &r->mounts[i];
		const struct vm_mount *theirs = m->volume && !m->own ? find(&o, m->volume) : NULL;

		if (!theirs || (m->read_only && theirs->read_only))
			continue;
		if (!is_up(c, other))
			return 0;
		return error_set(err, SM_ERROR_BUSY, EBUSY, "volume %s is in use by VM %s%s%s%s", m->volume, other,
				 o.name[0] ? " (" : "", o.name, o.name[0] ? ")" : "");
	}
	return 0;
}

/* Only of VMs that may be running: one that has ended excludes nobody, and one that starts is marked before it comes
 * here. */
static int check_all(struct sm_client *c, const struct vm_record *r, struct sm_error *err)
{
	char(*ids)[VM_ID_DIGITS + 1] = NULL;
	size_t count = 0;
	int e = vmindex_list(c, &ids, &count, err);

	for (size_t i = 0; e == 0 && i < count; i++)
		if (!streq(ids[i], r->id))
			e = check_against(c, r, ids[i], err);
	free(ids);
	return e;
}

int volumes_claim(struct sm_client *c, const struct vm_record *r, struct sm_error *err)
{
	_fd_ int volumes = -1, lock = -1;
	int e = 0;

	if (!vm_volumes(r, false))
		return 0;
	volumes = volumes_open(c, err);
	lock = volumes < 0 ? volumes : volumes_lock(volumes, err);
	if (lock < 0)
		return lock;
	for (unsigned i = 0; e >= 0 && i < r->num_mounts; i++) {
		struct volume v = {.anonymous = r->mounts[i].anonymous};

		if (!r->mounts[i].volume || r->mounts[i].own)
			continue;
		snprintf(v.name, sizeof(v.name), "%s", r->mounts[i].volume);
		e = volume_make_locked(c, volumes, &v, err);
	}
	return e < 0 ? e : check_all(c, r, err);
}

void volumes_drop_anonymous(struct sm_client *c, const struct vm_record *r)
{
	_fd_ int volumes = -1, lock = -1;

	for (unsigned i = 0; i < r->num_mounts; i++) {
		if (!r->mounts[i].volume || !r->mounts[i].anonymous || r->mounts[i].own)
			continue;
		if (volumes < 0 && ((volumes = volumes_open(c, NULL)) < 0 || (lock = volumes_lock(volumes, NULL)) < 0))
			return;
		(void)!volume_remove_locked(volumes, r->mounts[i].volume, NULL);
	}
}
