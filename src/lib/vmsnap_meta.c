/* SPDX-License-Identifier: Apache-2.0 */
/* metadata.json of a VM's snapshot. See vmsnap.h. */
#include "lib/vmsnap.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "keeper/recordjson.h"

/* Of one with volumes, and of a diff: programs that know of none refuse it. */
#define FORMAT_VERSION 3
#define DIFF_VERSION 2

static void put_parent(json_t *o, const struct vmsnap *m)
{
	if (!m->depth)
		return;
	rj_put_str(o, "parent", m->parent.name);
	rj_put_u64(o, "parent_created_ns", (uint64_t)m->parent.created_ns);
	rj_put_str(o, "parent_crc64", m->parent_sum);
	rj_put_u64(o, "depth", m->depth);
	if (m->base_file[0]) {
		rj_put_str(o, "base_file", m->base_file);
		rj_put_str(o, "base_crc64", m->base_sum);
	}
}

int vmsnap_format(const struct vmsnap *m, char **ret, struct sm_error *err)
{
	json_t *o = json_object();

	rj_put_u64(o, "version", m->volumes ? FORMAT_VERSION : m->depth ? DIFF_VERSION : 1);
	rj_put_str(o, "kind", "vm");
	rj_put_str(o, "vm", m->vm);
	rj_put_str(o, "image", m->image);
	rj_put_str(o, "image_id", m->image_id);
	rj_put_u64(o, "memory", m->memory);
	rj_put_u64(o, "cpus", m->cpus);
	rj_put_u64(o, "window", m->window);
	rj_put_bool(o, "booted", m->booted);
	rj_put_u64(o, "created_ns", (uint64_t)m->created_ns);
	rj_put_u64(o, "pause_ns", m->pause_ns);
	rj_put_u64(o, "memory_bytes", m->memory_bytes);
	rj_put_str(o, "state_file", m->state_file);
	rj_put_str(o, "memory_file", m->memory_file);
	if (m->memory_sum[0]) {
		rj_put_str(o, "state_crc64", m->state_sum);
		rj_put_str(o, "memory_crc64", m->memory_sum);
	}
	rj_put_strv(o, "layers", m->layers);
	if (m->fingerprint[0])
		rj_put_str(o, "fingerprint", m->fingerprint);
	if (m->volumes) {
		rj_put_strv(o, "volumes", m->volumes);
		rj_put_strv(o, "volume_tops", m->volume_tops);
	}
	put_parent(o, m);
	return rj_dump(o, ret, err);
}

void vmsnap_done(struct vmsnap *m)
{
	free(m->image);
	free(m->image_id);
	strv_free(m->layers);
	strv_free(m->volumes);
	strv_free(m->volume_tops);
	*m = (struct vmsnap){0};
}

static void read_parent(struct rj *j, struct vmsnap *m)
{
	bool base;

	rj_str_into(j, "parent", m->parent.name, sizeof(m->parent.name));
	m->parent.created_ns = (int64_t)rj_u64(j, "parent_created_ns", 0, INT64_MAX);
	rj_str_into(j, "parent_crc64", m->parent_sum, sizeof(m->parent_sum));
	m->depth = (unsigned)rj_u64(j, "depth", 0, VMSNAP_MAX_DEPTH);
	rj_str_into(j, "base_file", m->base_file, sizeof(m->base_file));
	rj_str_into(j, "base_crc64", m->base_sum, sizeof(m->base_sum));
	base = str_starts(m->parent.name, "base-");
	if (!m->parent.name[0] != !m->depth || base != !!m->base_file[0] ||
	    (base && (m->depth != 1 || !m->base_sum[0])))
		rj_fail(j, "parent", "does not fit the depth");
	else if (m->depth && !vm_name_valid(m->parent.name))
		rj_fail(j, "parent", "is no snapshot's name");
}

static void read_members(struct rj *j, struct vmsnap *m)
{
	_free_ char *kind = rj_str(j, "kind", true);

	if (kind && !streq(kind, "vm"))
		rj_fail(j, "kind", "is not \"vm\"");
	rj_str_into(j, "vm", m->vm, sizeof(m->vm));
	m->image = rj_str(j, "image", true);
	m->image_id = rj_str(j, "image_id", true);
	m->memory = rj_u64(j, "memory", 1, INT64_MAX);
	m->cpus = (unsigned)rj_u64(j, "cpus", 1, 1024);
	m->window = rj_u64(j, "window", 0, INT64_MAX);
	m->booted = rj_bool(j, "booted");
	m->created_ns = (int64_t)rj_u64(j, "created_ns", 0, INT64_MAX);
	m->pause_ns = rj_u64(j, "pause_ns", 0, INT64_MAX);
	m->memory_bytes = rj_u64(j, "memory_bytes", 0, INT64_MAX);
	rj_str_into(j, "state_file", m->state_file, sizeof(m->state_file));
	rj_str_into(j, "memory_file", m->memory_file, sizeof(m->memory_file));
	rj_str_into(j, "state_crc64", m->state_sum, sizeof(m->state_sum));
	rj_str_into(j, "memory_crc64", m->memory_sum, sizeof(m->memory_sum));
	m->layers = rj_strv(j, "layers", false);
	rj_str_into(j, "fingerprint", m->fingerprint, sizeof(m->fingerprint));
	m->volumes = rj_strv(j, "volumes", false);
	m->volume_tops = rj_strv(j, "volume_tops", false);
	read_parent(j, m);
}

int vmsnap_parse(const char *json, size_t len, struct vmsnap *ret, struct sm_error *err)
{
	struct vmsnap m = {0};
	struct rj j;
	int r = rj_load(&j, json, len, "metadata.json", err);

	if (r < 0)
		return r;
	/* Before all else: another version may mean other members. */
	if (rj_u64(&j, "version", 1, UINT32_MAX) > FORMAT_VERSION)
		rj_fail(&j, "version", "is of a newer supermachine");
	read_members(&j, &m);
	if (!j.member && !vm_id_valid(m.vm))
		rj_fail(&j, "vm", "is no VM's id");
	if (!j.member && strv_len((const char *const *)m.layers) > VM_MAX_LAYERS)
		rj_fail(&j, "layers", "are too many");
	if (!j.member && (strv_len((const char *const *)m.volumes) > VM_MAX_VOLUMES ||
			  strv_len((const char *const *)m.volumes) != strv_len((const char *const *)m.volume_tops)))
		rj_fail(&j, "volumes", "are too many, or their files");
	r = rj_finish(&j, "metadata.json", err);
	if (r < 0)
		vmsnap_done(&m);
	else
		*ret = m;
	return r;
}
