/* SPDX-License-Identifier: Apache-2.0 */
/* inspect --format: the fields of docker's "inspect" that VMs have, by docker's names. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "cli/cli.h"
#include "cli/inspect.h"
#include "cli/template.h"

static void put_time(struct buf *b, int64_t ns)
{
	time_t t = (time_t)(ns / 1000000000);
	char text[40];
	struct tm tm;

	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", gmtime_r(&t, &tm));
	if (ns)
		buf_printf(b, "%s.%09lldZ", text, (long long)(ns % 1000000000));
	else
		buf_printf(b, "0001-01-01T00:00:00Z"); /* as docker says "never" */
}

static bool state_field(const struct sm_vm_info *vm, const char *name, struct buf *b)
{
	bool up = vm->state == SM_VM_RUNNING || vm->state == SM_VM_PAUSED || vm->state == SM_VM_STOPPING;

	if (streq(name, "Status"))
		buf_printf(b, "%s", sm_vm_state_name(vm->state));
	else if (streq(name, "Running"))
		buf_printf(b, "%s", up ? "true" : "false");
	else if (streq(name, "Paused"))
		buf_printf(b, "%s", vm->state == SM_VM_PAUSED ? "true" : "false");
	else if (streq(name, "OOMKilled"))
		buf_printf(b, "%s", vm->outcome.reason == SM_REASON_OOM ? "true" : "false");
	else if (streq(name, "ExitCode"))
		buf_printf(b, "%d", vm->state == SM_VM_EXITED ? vm->outcome.status : 0);
	else if (streq(name, "Error"))
		buf_printf(b, "%s", vm->state == SM_VM_EXITED ? vm->outcome.message : "");
	else if (streq(name, "Pid"))
		buf_printf(b, "%lld", (long long)vm->monitor_pid);
	else if (streq(name, "StartedAt"))
		put_time(b, vm->started_ns);
	else if (streq(name, "FinishedAt"))
		put_time(b, vm->finished_ns);
	else
		return false;
	return true;
}

static bool field(const void *row, const char *name, struct buf *b)
{
	const struct sm_vm_info *vm = row;

	if (str_starts(name, "State."))
		return state_field(vm, name + 6, b);
	if (streq(name, "Id") || streq(name, "ID"))
		buf_printf(b, "%s", vm->id);
	else if (streq(name, "Name"))
		buf_printf(b, "/%s", vm->name);
	else if (streq(name, "Image"))
		buf_printf(b, "%s", vm->image_id);
	else if (streq(name, "Config.Image"))
		buf_printf(b, "%s", vm->image);
	else if (streq(name, "Config.Tty"))
		buf_printf(b, "%s", vm->tty ? "true" : "false");
	else if (streq(name, "Created"))
		put_time(b, vm->created_ns);
	else if (streq(name, "HostConfig.Memory"))
		buf_printf(b, "%llu", (unsigned long long)vm->memory);
	else
		return false;
	return true;
}

int inspect_formatted(struct cli *cli, const char *ref, const char *format)
{
	struct sm_vm *vm = cli_open_vm(cli, ref);
	struct sm_vm_info *info = NULL;
	struct sm_error err = {0};
	struct buf b = {0};
	char what[96];
	int r = vm ? sm_vm_query(vm, &info, &err) : -ENOENT, status = CLI_FAILED;

	if (vm && r < 0)
		cli_fail(cli, &err, NULL);
	if (r == 0)
		r = template_expand(format, info, field, &b, what);
	buf_put_u8(&b, 0);
	if (info && r == -EINVAL)
		cli_usage(cli, "fields: supermachine inspect --help", "--format: %s", what);
	if (r == 0 && !b.error) {
		puts((const char *)b.data);
		status = 0;
	}
	buf_done(&b);
	sm_vm_info_free(info);
	sm_vm_close(vm);
	return status;
}
