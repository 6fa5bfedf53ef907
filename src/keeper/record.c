/* SPDX-License-Identifier: Apache-2.0 */
/* The VM's files as JSON, both ways. See record.h. */
#include "keeper/record.h"

#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "keeper/recordjson.h"
#include "proto/messages.h"

#define MAX_PARTS 256

static const char *const reason_names[] = {
	[SM_REASON_NONE] = "none",
	[SM_REASON_EXITED] = "exited",
	[SM_REASON_SIGNALLED] = "signalled",
	[SM_REASON_TIMEOUT] = "timeout",
	[SM_REASON_TTL] = "ttl",
	[SM_REASON_IDLE] = "idle",
	[SM_REASON_OOM] = "oom",
	[SM_REASON_DISK_FULL] = "disk-full",
	[SM_REASON_GUEST_PANIC] = "guest-panic",
	[SM_REASON_MONITOR_DIED] = "monitor-died",
	[SM_REASON_HOST_RESTARTED] = "host-restarted",
	[SM_REASON_STOPPED] = "stopped",
	[SM_REASON_KEEPER_DIED] = "keeper-died",
	[SM_REASON_CLIENT_GONE] = "client-gone",
	[SM_REASON_START_FAILED] = "start-failed",
	[SM_REASON_NOT_FOUND] = "not-found",
	[SM_REASON_NOT_EXECUTABLE] = "not-executable",
	[SM_REASON_GUEST_SHUTDOWN] = "guest-shutdown",
	[SM_REASON_SUSPENDED] = "suspended",
};

const char *vm_reason_name(enum sm_reason reason)
{
	return (unsigned)reason < ARRAY_SIZE(reason_names) ? reason_names[reason] : "none";
}

enum sm_reason vm_reason_parse(const char *name)
{
	for (unsigned i = 0; i < ARRAY_SIZE(reason_names); i++)
		if (streq(reason_names[i], name))
			return (enum sm_reason)i;
	return SM_REASON_NONE;
}

enum sm_reason vm_reason_of_exit(int proto_exit_reason)
{
	switch (proto_exit_reason) {
	case PROTO_EXITED:
		return SM_REASON_EXITED;
	case PROTO_SIGNALLED:
		return SM_REASON_SIGNALLED;
	case PROTO_EXIT_TIMEOUT:
		return SM_REASON_TIMEOUT;
	case PROTO_EXIT_OOM:
		return SM_REASON_OOM;
	case PROTO_EXIT_DISK_FULL:
		return SM_REASON_DISK_FULL;
	case PROTO_EXIT_NOT_FOUND:
		return SM_REASON_NOT_FOUND;
	case PROTO_EXIT_NOT_EXECUTABLE:
		return SM_REASON_NOT_EXECUTABLE;
	}
	return SM_REASON_EXITED;
}

void vm_outcome_stage(struct sm_outcome *o, const char *name, uint64_t ns)
{
	struct sm_stage *s;

	if (o->num_stages >= SM_MAX_STAGES)
		return;
	s = &o->stages[o->num_stages++];
	snprintf(s->name, sizeof(s->name), "%s", name);
	s->ns = ns;
}

bool vm_name_valid(const char *name)
{
	static const char alnum[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
	size_t len = strlen(name);

	if (len == 0 || len > VM_NAME_MAX || !strchr(alnum, name[0]))
		return false;
	for (size_t i = 0; i < len; i++)
		if (!strchr(alnum, name[i]) && !strchr("_.-", name[i]))
			return false;
	return true;
}

bool vm_id_valid(const char *id)
{
	return strlen(id) == VM_ID_DIGITS && strspn(id, "0123456789abcdef") == VM_ID_DIGITS;
}

/* ------------------------------------------------------------------------------------ config.json */

static json_t *parts_to_json(const struct vm_record *r)
{
	json_t *list = json_array();

	for (unsigned i = 0; list && i < r->num_parts; i++) {
		json_t *o = json_object();

		rj_put_str(o, "path", r->parts[i].path);
		rj_put_u64(o, "size", r->parts[i].size);
		rj_put_u64(o, "offset", r->parts[i].offset);
		json_array_append_new(list, o);
	}
	return list;
}

int vm_record_format(const struct vm_record *r, char **ret, struct sm_error *err)
{
	json_t *o = json_object();

	rj_put_u64(o, "version", VM_RECORD_VERSION);
	rj_put_str(o, "id", r->id);
	rj_put_str(o, "name", r->name);
	rj_put_str(o, "image", r->image);
	rj_put_str(o, "image_id", r->image_id);
	rj_put_u64(o, "created_ns", (uint64_t)r->created_ns);
	rj_put_bool(o, "keep", r->keep);
	if (r->cold)
		rj_put_bool(o, "cold", true);
	rj_put_u64(o, "memory", r->memory);
	rj_put_u64(o, "cpus", r->cpus);
	if (r->cpu_limit)
		rj_put_u64(o, "cpu_limit", r->cpu_limit);
	rj_put_str(o, "kernel", r->kernel);
	rj_put_str(o, "initramfs", r->initramfs);
	rj_put_str(o, "cmdline", r->cmdline);
	rj_put_u64(o, "window_size", r->window_size);
	if (r->dax_size)
		rj_put_u64(o, "dax_size", r->dax_size);
	json_object_set_new(o, "parts", parts_to_json(r));
	rj_put_bool(o, "root_blk", r->root_blk);
	rj_put_str(o, "disk_template", r->disk_template);
	rj_put_u64(o, "disk_size", r->disk_size);
	if (r->layers)
		rj_put_u64(o, "layers", r->layers);
	json_object_set_new(o, "mounts", vm_mounts_to_json(r));
	rj_put_str(o, "share_group", r->share_group);
	rj_put_str(o, "audit", r->audit);
	rj_put_str(o, "hostname", r->hostname);
	rj_put_strv(o, "argv", r->argv);
	if (r->no_command)
		rj_put_bool(o, "no_command", true);
	rj_put_strv(o, "env", r->env);
	rj_put_str(o, "user", r->user);
	rj_put_str(o, "cwd", r->cwd);
	rj_put_strv(o, "volumes", r->volumes);
	rj_put_strv(o, "labels", r->labels);
	rj_put_strv(o, "dns", r->dns);
	if (r->hosts)
		rj_put_strv(o, "hosts", r->hosts);
	if (r->tmpfs)
		rj_put_strv(o, "tmpfs", r->tmpfs);
	if (r->read_only)
		rj_put_bool(o, "read_only", true);
	if (r->trace)
		rj_put_bool(o, "trace", true);
	if (r->ksm)
		rj_put_bool(o, "ksm", true);
	if (r->secrets)
		rj_put_strv(o, "secrets", r->secrets);
	if (r->limits)
		rj_put_strv(o, "ulimits", r->limits);
	if (r->ports)
		rj_put_strv(o, "ports", r->ports);
	rj_put_bool(o, "tty", r->tty);
	rj_put_bool(o, "stdin_open", r->stdin_open);
	rj_put_u64(o, "rows", r->rows);
	rj_put_u64(o, "cols", r->cols);
	rj_put_u64(o, "stop_signal", (uint64_t)r->stop_signal);
	rj_put_u64(o, "timeout_ns", r->timeout_ns);
	if (r->ttl_ns)
		rj_put_u64(o, "ttl_ns", r->ttl_ns);
	if (r->idle_ns) {
		rj_put_u64(o, "idle_ns", r->idle_ns);
		rj_put_str(o, "on_idle", vm_on_idle_name(r->on_idle));
	}
	return rj_dump(o, ret, err);
}

static void get_parts(struct rj *j, struct vm_record *r)
{
	json_t *list = json_object_get(j->object, "parts");
	size_t n = json_array_size(list);

	if (!json_is_array(list) || n > MAX_PARTS) {
		rj_fail(j, "parts", "not a list of at most 256");
		return;
	}
	r->parts = calloc(n + 1, sizeof(*r->parts));
	if (!r->parts) {
		rj_fail(j, "parts", NULL);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		struct rj part = {.object = json_array_get(list, i)};

		r->num_parts = (unsigned)i + 1;
		r->parts[i].path = rj_str(&part, "path", true);
		r->parts[i].size = rj_u64(&part, "size", 0, INT64_MAX);
		r->parts[i].offset = rj_u64(&part, "offset", 0, INT64_MAX);
		if (part.member)
			rj_fail(j, part.member, part.why);
	}
}

const char *vm_on_idle_name(enum sm_on_idle v)
{
	return v == SM_ON_IDLE_SUSPEND ? "suspend" : v == SM_ON_IDLE_KILL ? "kill" : "stop";
}

int vm_on_idle_parse(const char *name, enum sm_on_idle *ret)
{
	for (int v = SM_ON_IDLE_STOP; v <= SM_ON_IDLE_KILL; v++)
		if (streq(name, vm_on_idle_name((enum sm_on_idle)v))) {
			*ret = (enum sm_on_idle)v;
			return 0;
		}
	return -EINVAL;
}

static void get_on_idle(struct rj *j, struct vm_record *r)
{
	char name[16];

	rj_str_into(j, "on_idle", name, sizeof(name));
	if (name[0] && vm_on_idle_parse(name, &r->on_idle) < 0)
		rj_fail(j, "on_idle", "none of stop, suspend, kill");
}

static void get_fields(struct rj *j, struct vm_record *r)
{
	rj_u64(j, "version", 1, VM_RECORD_VERSION);
	rj_str_into(j, "id", r->id, sizeof(r->id));
	rj_str_into(j, "name", r->name, sizeof(r->name));
	r->image = rj_str(j, "image", true);
	r->image_id = rj_str(j, "image_id", true);
	r->created_ns = (int64_t)rj_u64(j, "created_ns", 0, INT64_MAX);
	r->keep = rj_bool(j, "keep");
	r->cold = rj_bool(j, "cold");
	r->memory = rj_u64(j, "memory", 1, INT64_MAX);
	r->cpus = (unsigned)rj_u64(j, "cpus", 1, 1024);
	r->cpu_limit = (unsigned)rj_u64(j, "cpu_limit", 0, 1024 * 1000);
	r->kernel = rj_str(j, "kernel", true);
	r->initramfs = rj_str(j, "initramfs", true);
	r->cmdline = rj_str(j, "cmdline", false);
	r->window_size = rj_u64(j, "window_size", 0, INT64_MAX);
	if (json_object_get(j->object, "dax_size"))
		r->dax_size = rj_u64(j, "dax_size", 1, INT64_MAX);
	get_parts(j, r);
	r->root_blk = rj_bool(j, "root_blk");
	r->disk_template = rj_str(j, "disk_template", false);
	r->disk_size = rj_u64(j, "disk_size", 0, INT64_MAX);
	r->layers = (unsigned)rj_u64(j, "layers", 0, VM_MAX_LAYERS);
	vm_mounts_from_json(j, r);
	r->share_group = rj_str(j, "share_group", false);
	r->audit = rj_str(j, "audit", false);
	r->hostname = rj_str(j, "hostname", true);
	r->argv = rj_strv(j, "argv", true);
	r->no_command = rj_bool(j, "no_command");
	r->env = rj_strv(j, "env", true);
	r->user = rj_str(j, "user", false);
	r->cwd = rj_str(j, "cwd", false);
	r->volumes = rj_strv(j, "volumes", false);
	r->labels = rj_strv(j, "labels", false);
	r->dns = rj_strv(j, "dns", false);
	r->ports = rj_strv(j, "ports", false);
	r->secrets = rj_strv(j, "secrets", false);
	r->limits = rj_strv(j, "ulimits", false);
	r->hosts = rj_strv(j, "hosts", false);
	r->tmpfs = rj_strv(j, "tmpfs", false);
	r->read_only = rj_bool(j, "read_only");
	r->trace = rj_bool(j, "trace");
	r->ksm = rj_bool(j, "ksm");
	r->tty = rj_bool(j, "tty");
	r->stdin_open = rj_bool(j, "stdin_open");
	r->rows = (uint16_t)rj_u64(j, "rows", 0, UINT16_MAX);
	r->cols = (uint16_t)rj_u64(j, "cols", 0, UINT16_MAX);
	r->stop_signal = (int)rj_u64(j, "stop_signal", 1, 64);
	r->timeout_ns = rj_u64(j, "timeout_ns", 0, INT64_MAX);
	r->ttl_ns = rj_u64(j, "ttl_ns", 0, INT64_MAX);
	r->idle_ns = rj_u64(j, "idle_ns", 0, INT64_MAX);
	get_on_idle(j, r);
}

static unsigned strv_count(char *const *v)
{
	unsigned n = 0;

	while (v && v[n])
		n++;
	return n;
}

static void check_fields(struct rj *j, const struct vm_record *r)
{
	if (j->member)
		return;
	if (!vm_id_valid(r->id))
		rj_fail(j, "id", "not 12 hexadecimal digits");
	else if (r->name[0] && !vm_name_valid(r->name))
		rj_fail(j, "name", "not a name");
	else if (strv_count(r->secrets) > VM_MAX_SECRETS)
		rj_fail(j, "secrets", "more than 32");
	else if (r->share_group && !vm_name_valid(r->share_group))
		rj_fail(j, "share_group", "not a name");
	else if (!r->argv[0])
		rj_fail(j, "argv", "empty");
}

int vm_record_parse(const char *json, size_t len, struct vm_record *ret, struct sm_error *err)
{
	struct vm_record r = {0};
	struct rj j;
	int e = rj_load(&j, json, len, "VM record", err);

	if (e < 0)
		return e;
	get_fields(&j, &r);
	check_fields(&j, &r);
	e = rj_finish(&j, "VM record", err);
	if (e < 0)
		vm_record_done(&r);
	else
		*ret = r;
	return e;
}

static void strv_free(char **v)
{
	for (char **p = v; p && *p; p++)
		free(*p);
	free(v);
}

void vm_record_done(struct vm_record *r)
{
	for (unsigned i = 0; i < r->num_parts; i++)
		free(r->parts[i].path);
	free(r->parts);
	vm_mounts_done(r);
	free(r->share_group);
	free(r->audit);
	free(r->image);
	free(r->image_id);
	free(r->kernel);
	free(r->initramfs);
	free(r->cmdline);
	free(r->disk_template);
	free(r->hostname);
	strv_free(r->argv);
	strv_free(r->env);
	free(r->user);
	free(r->cwd);
	strv_free(r->volumes);
	strv_free(r->labels);
	strv_free(r->dns);
	strv_free(r->ports);
	strv_free(r->secrets);
	strv_free(r->limits);
	strv_free(r->hosts);
	strv_free(r->tmpfs);
	*r = (struct vm_record){0};
}

/* ------------------------------------------------------------------------------------- start.json */

int vm_suspended_format(const struct vm_suspended *s, char **ret, struct sm_error *err)
{
	json_t *o = json_object();

	rj_put_u64(o, "version", VM_RECORD_VERSION);
	rj_put_u64(o, "window", s->window);
	rj_put_u64(o, "layers", s->layers);
	rj_put_bool(o, "booted", s->booted);
	rj_put_strv(o, "volumes", s->volumes);
	return rj_dump(o, ret, err);
}

void vm_suspended_done(struct vm_suspended *s)
{
	strv_free(s->volumes);
	*s = (struct vm_suspended){0};
}

int vm_suspended_parse(const char *json, size_t len, struct vm_suspended *ret, struct sm_error *err)
{
	struct vm_suspended s = {0};
	struct rj j;
	int e = rj_load(&j, json, len, "suspended.json", err);

	if (e < 0)
		return e;
	if (rj_u64(&j, "version", 1, UINT32_MAX) > VM_RECORD_VERSION)
		rj_fail(&j, "version", "is of a newer supermachine");
	s.window = rj_u64(&j, "window", 0, INT64_MAX);
	s.layers = (unsigned)rj_u64(&j, "layers", 0, VM_MAX_LAYERS);
	s.booted = rj_bool(&j, "booted");
	s.volumes = rj_strv(&j, "volumes", false);
	e = rj_finish(&j, "suspended.json", err);
	if (e == 0)
		*ret = s;
	else
		vm_suspended_done(&s);
	return e;
}

int vm_start_format(const struct vm_start *s, char **ret, struct sm_error *err)
{
	json_t *o = json_object();

	rj_put_u64(o, "version", VM_RECORD_VERSION);
	rj_put_str(o, "host_boot_id", s->host_boot_id);
	rj_put_str(o, "boot_id", s->boot_id);
	rj_put_str(o, "socket", s->socket);
	rj_put_bool(o, "detach", s->detach);
	rj_put_bool(o, "in_machine", s->in_machine);
	if (s->base[0]) {
		rj_put_str(o, "base", s->base);
		rj_put_u64(o, "base_created_ns", (uint64_t)s->base_created_ns);
	}
	if (s->origin.name[0]) {
		rj_put_str(o, "origin", s->origin.name);
		rj_put_u64(o, "origin_created_ns", (uint64_t)s->origin.created_ns);
	}
	rj_put_u64(o, "prepare_ns", s->prepare_ns);
	return rj_dump(o, ret, err);
}

int vm_start_parse(const char *json, size_t len, struct vm_start *ret, struct sm_error *err)
{
	struct vm_start s = {0};
	struct rj j;
	int e = rj_load(&j, json, len, "start record", err);

	if (e < 0)
		return e;
	rj_u64(&j, "version", 1, VM_RECORD_VERSION);
	rj_str_into(&j, "host_boot_id", s.host_boot_id, sizeof(s.host_boot_id));
	rj_str_into(&j, "boot_id", s.boot_id, sizeof(s.boot_id));
	rj_str_into(&j, "socket", s.socket, sizeof(s.socket));
	s.detach = rj_bool(&j, "detach");
	s.in_machine = rj_bool(&j, "in_machine");
	rj_str_into(&j, "base", s.base, sizeof(s.base));
	s.base_created_ns = (int64_t)rj_u64(&j, "base_created_ns", 0, INT64_MAX);
	rj_str_into(&j, "origin", s.origin.name, sizeof(s.origin.name));
	s.origin.created_ns = (int64_t)rj_u64(&j, "origin_created_ns", 0, INT64_MAX);
	s.prepare_ns = rj_u64(&j, "prepare_ns", 0, INT64_MAX);
	e = rj_finish(&j, "start record", err);
	if (e == 0)
		*ret = s;
	return e;
}

/* -------------------------------------------------------------------------------------- exit.json */

int vm_exit_format(const struct vm_exit *x, char **ret, struct sm_error *err)
{
	const struct sm_outcome *out = &x->outcome;
	json_t *o = json_object(), *stages = json_object();

	rj_put_u64(o, "version", VM_RECORD_VERSION);
	rj_put_str(o, "reason", vm_reason_name(out->reason));
	rj_put_u64(o, "status", (uint64_t)out->status);
	rj_put_u64(o, "signal", (uint64_t)out->signal);
	rj_put_str(o, "message", out->message);
	rj_put_u64(o, "started_ns", (uint64_t)x->started_ns);
	rj_put_u64(o, "finished_ns", (uint64_t)x->finished_ns);
	if (x->restore_failed)
		rj_put_bool(o, "restore_failed", true);
	if (x->busy)
		rj_put_bool(o, "busy", true);
	if (x->unsupported)
		rj_put_bool(o, "unsupported", true);
	rj_put_u64(o, "duration_ns", out->duration_ns);
	rj_put_u64(o, "peak_rss", out->peak_rss);
	for (unsigned i = 0; i < out->num_stages && i < SM_MAX_STAGES; i++)
		rj_put_u64(stages, out->stages[i].name, out->stages[i].ns);
	json_object_set_new(o, "stages", stages);
	return rj_dump(o, ret, err);
}

static void get_stages(struct rj *j, struct sm_outcome *out)
{
	json_t *stages = json_object_get(j->object, "stages"), *value;
	const char *name;

	if (stages && !json_is_object(stages)) {
		rj_fail(j, "stages", "not an object");
		return;
	}
	json_object_foreach(stages, name, value)
	{
		if (!json_is_integer(value) || json_integer_value(value) < 0) {
			rj_fail(j, "stages", "not a time");
			return;
		}
		vm_outcome_stage(out, name, (uint64_t)json_integer_value(value));
	}
}

int vm_exit_parse(const char *json, size_t len, struct vm_exit *ret, struct sm_error *err)
{
	struct vm_exit x = {.outcome = SM_OUTCOME_INIT};
	struct sm_outcome *out = &x.outcome;
	_free_ char *reason = NULL;
	struct rj j;
	int e = rj_load(&j, json, len, "exit record", err);

	if (e < 0)
		return e;
	rj_u64(&j, "version", 1, VM_RECORD_VERSION);
	reason = rj_str(&j, "reason", true);
	out->reason = reason ? vm_reason_parse(reason) : SM_REASON_NONE;
	out->status = (int)rj_u64(&j, "status", 0, 255);
	out->signal = (int)rj_u64(&j, "signal", 0, 64);
	rj_str_into(&j, "message", out->message, sizeof(out->message));
	x.started_ns = (int64_t)rj_u64(&j, "started_ns", 0, INT64_MAX);
	x.finished_ns = (int64_t)rj_u64(&j, "finished_ns", 0, INT64_MAX);
	out->duration_ns = rj_u64(&j, "duration_ns", 0, INT64_MAX);
	out->peak_rss = rj_u64(&j, "peak_rss", 0, INT64_MAX);
	x.restore_failed = rj_bool(&j, "restore_failed");
	x.busy = rj_bool(&j, "busy");
	x.unsupported = rj_bool(&j, "unsupported");
	get_stages(&j, out);
	out->timed_out = out->reason == SM_REASON_TIMEOUT;
	if (!j.member && out->reason == SM_REASON_NONE)
		rj_fail(&j, "reason", "unknown");
	e = rj_finish(&j, "exit record", err);
	if (e == 0)
		*ret = x;
	return e;
}
