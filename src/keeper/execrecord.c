/* SPDX-License-Identifier: Apache-2.0 */
/* The files of detached commands. See execs.h. */
#include "keeper/execs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "keeper/recordjson.h"

const char *exec_file_name(char out[static EXEC_NAME_SIZE], unsigned id, enum exec_file which)
{
	static const char *const suffixes[] = {
		[EXEC_RECORD] = "", [EXEC_LOG] = ".log", [EXEC_LOG_OLD] = ".log.1", [EXEC_EXIT] = ".exit"};

	snprintf(out, EXEC_NAME_SIZE, "exec.%u%s", id, suffixes[which]);
	return out;
}

unsigned exec_of_file(const char *name)
{
	uint64_t id;

	if (!str_starts(name, "exec.") || name[5] == '0' || parse_u64(name + 5, 1, UINT32_MAX, &id) < 0)
		return 0;
	return (unsigned)id;
}

int vm_exec_format(const struct vm_exec_record *r, char **ret, struct sm_error *err)
{
	json_t *o = json_object();

	rj_put_u64(o, "version", VM_RECORD_VERSION);
	rj_put_strv(o, "argv", r->argv);
	rj_put_str(o, "user", r->user);
	rj_put_bool(o, "tty", r->tty);
	rj_put_bool(o, "stdin_open", r->stdin_open);
	rj_put_u64(o, "pid", r->pid);
	rj_put_u64(o, "started_ns", (uint64_t)r->started_ns);
	return rj_dump(o, ret, err);
}

int vm_exec_parse(const char *json, size_t len, struct vm_exec_record *ret, struct sm_error *err)
{
	struct vm_exec_record r = {0};
	struct rj j;
	int e = rj_load(&j, json, len, "record of a command", err);

	if (e < 0)
		return e;
	rj_u64(&j, "version", 1, VM_RECORD_VERSION);
	r.argv = rj_strv(&j, "argv", true);
	r.user = rj_str(&j, "user", false);
	r.tty = rj_bool(&j, "tty");
	r.stdin_open = rj_bool(&j, "stdin_open");
	r.pid = (uint32_t)rj_u64(&j, "pid", 0, UINT32_MAX);
	r.started_ns = (int64_t)rj_u64(&j, "started_ns", 0, INT64_MAX);
	if (!j.member && !r.argv[0])
		rj_fail(&j, "argv", "empty");
	e = rj_finish(&j, "record of a command", err);
	if (e < 0)
		vm_exec_done(&r);
	else
		*ret = r;
	return e;
}

void vm_exec_done(struct vm_exec_record *r)
{
	for (char **p = r->argv; p && *p; p++)
		free(*p);
	free(r->argv);
	free(r->user);
	*r = (struct vm_exec_record){0};
}
