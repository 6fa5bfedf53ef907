/* SPDX-License-Identifier: Apache-2.0 */
/* What a VM is, for `ps` and `inspect`: the record and the present state, as a struct or as JSON. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "keeper/recordjson.h"
#include "lib/lib.h"

/* The public part first: its address is the handle. */
struct info {
	struct sm_vm_info pub;
	struct vm_record rec;
	char *directory;
	struct sm_mount *mounts;
	size_t num_mounts;
	struct sm_port *ports;
	char *port_text;
};

static void fill(struct info *in, const struct vm_view *v)
{
	const struct vm_record *r = &in->rec;
	bool ended = v->state == SM_VM_EXITED;

	size_t num_ports = in->pub.num_ports;

	in->pub = (struct sm_vm_info){.id = r->id,
				      .name = r->name,
				      .image = r->image,
				      .image_id = r->image_id,
				      .argv = (const char *const *)r->argv,
				      .labels = (const char *const *)r->labels,
				      .directory = in->directory,
				      .state = v->state,
				      .keep = r->keep,
				      .tty = r->tty,
				      .stdin_open = r->stdin_open,
				      .memory = r->memory,
				      .disk_size = r->disk_size,
				      .cpus = r->cpus,
				      .created_ns = r->created_ns,
				      .started_ns = ended ? v->exit.started_ns : v->status.started_ns,
				      .finished_ns = ended ? v->exit.finished_ns : 0,
				      .keeper_pid = ended ? 0 : v->status.keeper_pid,
				      .monitor_pid = ended ? 0 : v->status.monitor_pid,
				      .in_machine = v->in_machine,
				      .hung = v->hung,
				      .outcome = SM_OUTCOME_INIT};
	in->pub.mounts = in->mounts;
	in->pub.num_mounts = in->num_mounts;
	in->pub.ports = in->ports;
	in->pub.num_ports = num_ports;
	in->pub.cpu_limit = r->cpu_limit;
	in->pub.secrets = (const char *const *)r->secrets;
	if (ended)
		in->pub.outcome = v->exit.outcome;
}

static struct sm_mount *public_mounts(const struct vm_record *r, size_t *count)
{
	struct sm_mount *v = calloc(r->num_mounts + 1, sizeof(*v));

	*count = 0;
	for (unsigned i = 0; v && i < r->num_mounts; i++) {
		const struct vm_mount *m = &r->mounts[i];

		if (m->replaced)
			continue;
		v[(*count)++] = (struct sm_mount){.size = sizeof(*v),
						  .source = m->source,
						  .target = m->target,
						  .read_only = m->read_only,
						  .cow = m->cow,
						  .direct = m->direct,
						  .dax = m->dax,
						  .ids = m->ids,
						  .symlinks = m->symlinks,
						  .cache = m->cache,
						  .id_ranges = m->id_ranges,
						  .xattrs = m->xattrs,
						  .volume = m->volume,
						  .no_copy = m->no_copy,
						  .served = m->served,
						  .copy = m->own};
	}
	return v;
}

/* hung_too: of one whose keeper hangs, too, what is known without it; *err says so then. */
static int query(struct sm_client *c, const char *id, bool hung_too, struct sm_vm_info **ret, struct sm_error *err)
{
	struct info *in = calloc(1, sizeof(*in));
	_fd_ int dir = -1;
	struct vm_view v = {0};
	int r;

	if (!in)
		return error_sys(err, ENOMEM, "VM %s", id);
	in->directory = vmdir_path(c, id);
	dir = vmdir_open(c, id, err);
	r = dir < 0 ? dir : vmdir_load(dir, id, &in->rec, err);
	if (r == 0)
		r = vm_view(c, id, &v, err);
	if (r == -ETIMEDOUT && hung_too && v.hung)
		r = 0;
	if (r == 0)
		in->mounts = public_mounts(&in->rec, &in->num_mounts);
	if (r == 0)
		r = ports_read(dir, &in->rec, v.state != SM_VM_EXITED, &in->ports, &in->pub.num_ports, &in->port_text);
	/* Whoever waits at them may have been killed, or the host restarted. */
	if (r == 0 && v.state == SM_VM_SUSPENDED && in->pub.num_ports && !ports_waited(c, id))
		in->pub.num_ports = 0;
	if (r == 0 && (!in->directory || !in->mounts))
		r = error_sys(err, ENOMEM, "VM %s", id);
	if (r < 0) {
		sm_vm_info_free(&in->pub);
		return r;
	}
	fill(in, &v);
	*ret = &in->pub;
	return 0;
}

int sm_vm_query(struct sm_vm *vm, struct sm_vm_info **ret, struct sm_error *err)
{
	return query(vm->client, vm->id, false, ret, err);
}

struct sm_vm_info *sm_vm_info_free(struct sm_vm_info *info)
{
	struct info *in = (struct info *)info;

	if (!in)
		return NULL;
	vm_record_done(&in->rec);
	free(in->directory);
	free(in->mounts);
	free(in->ports);
	free(in->port_text);
	free(in);
	return NULL;
}

static int newest_first(const void *a, const void *b)
{
	const struct sm_vm_info *x = *(struct sm_vm_info *const *)a, *y = *(struct sm_vm_info *const *)b;

	return (x->created_ns < y->created_ns) - (x->created_ns > y->created_ns);
}

static bool has_label(char *const *labels, const char *wanted)
{
	for (char *const *l = labels; l && *l; l++)
		if (label_matches(*l, wanted))
			return true;
	return false;
}

static bool has_image(const struct vm_record *rec, const char *wanted)
{
	size_t len = strlen(wanted);

	return streq(rec->image, wanted) ||
	       (strncmp(rec->image, wanted, len) == 0 && streq(rec->image + len, ":latest")) ||
	       (len >= 4 && str_starts(rec->image_id, wanted));
}

/* By its record alone. One that cannot be read is wanted if all are, for then it is told. */
static bool is_wanted(struct sm_client *c, const char *id, const struct sm_vm_find_options *o)
{
	_fd_ int dir = -1;
	struct vm_record rec;
	bool fits;

	if (!o->image && !strv_len(o->labels))
		return true;
	dir = vmdir_open(c, id, NULL);
	if (dir < 0 || vmdir_load(dir, id, &rec, NULL) < 0)
		return false;
	fits = !o->image || has_image(&rec, o->image);
	for (const char *const *l = o->labels; fits && l && *l; l++)
		fits = has_label(rec.labels, *l);
	vm_record_done(&rec);
	return fits;
}

int sm_vm_list(struct sm_client *client, bool all, struct sm_vm_info ***ret, size_t *ret_count, struct sm_error *err)
{
	struct sm_vm_find_options o = SM_VM_FIND_OPTIONS_INIT;

	o.all = all;
	return sm_vm_find(client, &o, ret, ret_count, err);
}

int sm_vm_find(struct sm_client *client, const struct sm_vm_find_options *options, struct sm_vm_info ***ret,
	       size_t *ret_count, struct sm_error *err)
{
	struct sm_vm_find_options o = OPTIONS_GET(struct sm_vm_find_options, options);
	char(*ids)[VM_ID_DIGITS + 1] = NULL;
	struct sm_vm_info **list;
	size_t count, n = 0;
	int r;

	vmdir_sweep(client);
	r = o.all ? vmdir_list(client, &ids, &count, err) : vmindex_list(client, &ids, &count, err);
	if (r < 0)
		return r;
	list = calloc(count + 1, sizeof(*list));
	if (!list)
		r = error_sys(err, ENOMEM, "list VMs");
	for (size_t i = 0; r == 0 && i < count; i++) {
		struct sm_error own = {0};

		if (!is_wanted(client, ids[i], &o))
			continue;
		r = query(client, ids[i], true, &list[n], &own);
		if (r == 0 && list[n]->hung)
			client_say(client, SM_LOG_ERROR, "%s", own.message);
		/* Removed since, or a record nobody can read: the others are still worth showing. */
		if (r < 0) {
			if (r != -ENOENT)
				client_say(client, SM_LOG_ERROR, "%s", own.message);
			r = 0;
		} else if (!o.all && (list[n]->state == SM_VM_EXITED || list[n]->state == SM_VM_SUSPENDED)) {
			vmindex_ended(client, ids[i]);
			list[n] = sm_vm_info_free(list[n]);
		} else {
			n++;
		}
	}
	free(ids);
	if (r < 0)
		return r;
	qsort(list, n, sizeof(*list), newest_first);
	*ret = list;
	*ret_count = n;
	return 0;
}

void sm_vm_list_free(struct sm_vm_info **list, size_t count)
{
	for (size_t i = 0; list && i < count; i++)
		sm_vm_info_free(list[i]);
	free(list);
}

/* ---------------------------------------------------------------------------------------- inspect */

static json_t *load_json(int dir, const char *name)
{
	_free_ char *text = NULL;
	size_t len;

	return read_file_at(dir, name, VM_RECORD_MAX, &text, &len) < 0 ? NULL : json_loadb(text, len, 0, NULL);
}

int sm_vm_inspect(struct sm_vm *vm, char **ret_json, struct sm_error *err)
{
	struct sm_vm_info *info = NULL;
	_fd_ int dir = -1;
	json_t *o, *exit;
	struct stat st;
	int r = sm_vm_query(vm, &info, err);

	if (r < 0)
		return r;
	dir = vmdir_open(vm->client, vm->id, err);
	o = dir < 0 ? NULL : load_json(dir, "config.json");
	if (!o) {
		sm_vm_info_free(info);
		return dir < 0 ? dir
			       : error_set(err, SM_ERROR_CORRUPT, EBADMSG, "VM %s: its record cannot be read", vm->id);
	}
	rj_put_str(o, "state", sm_vm_state_name(info->state));
	rj_put_str(o, "directory", info->directory);
	rj_put_bool(o, "in_machine", info->in_machine);
	rj_put_u64(o, "started_ns", (uint64_t)info->started_ns);
	rj_put_u64(o, "keeper_pid", (uint64_t)info->keeper_pid);
	rj_put_u64(o, "monitor_pid", (uint64_t)info->monitor_pid);
	if (info->state == SM_VM_SUSPENDED && fstatat(dir, VM_SUSPENDED "/memory", &st, AT_SYMLINK_NOFOLLOW) == 0)
		rj_put_u64(o, "suspended_bytes", (uint64_t)st.st_blocks * 512);
	if (info->state != SM_VM_EXITED && info->state != SM_VM_SUSPENDED)
		mounts_say_watched(dir, json_object_get(o, "mounts"));
	exit = info->state == SM_VM_EXITED ? load_json(dir, "exit.json") : NULL;
	if (exit)
		json_object_set_new(o, "exit", exit);
	sm_vm_info_free(info);
	return rj_dump(o, ret_json, err);
}

int sm_vm_console(struct sm_vm *vm, char **ret, struct sm_error *err)
{
	_fd_ int dir = vmdir_open(vm->client, vm->id, err);
	size_t len;
	int r;

	if (dir < 0)
		return dir;
	r = read_file_at(dir, "console", 16 << 20, ret, &len);
	return r < 0 ? error_sys(err, -r, "console of VM %s", vm->id) : 0;
}
