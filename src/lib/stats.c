/* SPDX-License-Identifier: Apache-2.0 */
/* What a VM uses, by its agent's word, and what its monitor has counted. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "lib/lib.h"

#define ANSWER_NS (5 * SECOND_NS)

/* A guest that is busy with itself is not waited for. */
static int await(struct conn *conn, struct call *call)
{
	uint64_t until = time_now_ns() + ANSWER_NS;
	int r = 0;

	while (r == 0 && !call->opened && !call->closed) {
		uint64_t now = time_now_ns();

		if (now >= until)
			return -ETIMEDOUT;
		r = conn_step(conn, NULL, 0, (int)((until - now) / 1000000 + 1));
	}
	return 0;
}

/* The bytes of the answer, to buf_done. */
static int ask(struct sm_vm *vm, uint16_t service, struct buf *ret, struct sm_error *err)
{
	struct conn conn;
	struct call call;
	char what[64];
	int r = vm_connect(vm->client, vm->id, &conn, err);

	if (r < 0)
		return r;
	snprintf(what, sizeof(what), "VM %s", vm->id);
	r = conn_call(&conn, service, NULL, &call);
	if (r == 0)
		r = await(&conn, &call);
	if (r < 0) {
		error_sys(err, -r, "%s: it does not answer", what);
	} else if (!call.opened) {
		r = call_error(&conn, &call, what, err);
	} else {
		*ret = call.reply;
		call.reply = (struct buf){0};
	}
	conn_done(&conn);
	call_done(&call);
	return r;
}

int sm_vm_get_counters(struct sm_vm *vm, char **ret_json, struct sm_error *err)
{
	_cleanup_(buf_done) struct buf b = {0};
	int r = ask(vm, PROTO_KEEPER_COUNTERS, &b, err);

	if (r < 0)
		return r;
	if (!b.len || memchr(b.data, 0, b.len))
		return error_set(err, SM_ERROR_GUEST, EPROTO, "VM %s: an answer that makes no sense", vm->id);
	*ret_json = strndup((const char *)b.data, b.len);
	return *ret_json ? 0 : error_sys(err, ENOMEM, "VM %s", vm->id);
}

int sm_vm_get_stats(struct sm_vm *vm, struct sm_vm_stats *ret, struct sm_error *err)
{
	size_t size = ret->size ? MIN(ret->size, sizeof(*ret)) : sizeof(*ret);
	_cleanup_(buf_done) struct buf b = {0};
	struct proto_stats s = {0};
	struct sm_vm_stats v;
	struct cursor reply;
	int r = ask(vm, PROTO_STATS, &b, err);

	if (r < 0)
		return r;
	reply = cursor_of(b.data, b.len);
	if (proto_stats_decode(&reply, &s) < 0)
		return error_set(err, SM_ERROR_GUEST, EPROTO, "VM %s: an answer that makes no sense", vm->id);
	v = (struct sm_vm_stats){.size = size,
				 .uptime_ns = s.uptime_ns,
				 .cpu_user_ns = s.cpu_user_ns,
				 .cpu_system_ns = s.cpu_system_ns,
				 .memory_total = s.mem_total,
				 .memory_used = s.mem_total - MIN(s.mem_available, s.mem_total),
				 .memory_cached = s.mem_cached,
				 .disk_total = s.disk_total,
				 .disk_used = s.disk_total - MIN(s.disk_free, s.disk_total),
				 .processes = s.processes,
				 .oom_kills = s.oom_kills};
	memcpy(ret, &v, size);
	return 0;
}
