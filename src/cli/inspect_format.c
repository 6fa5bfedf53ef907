/* SPDX-License-Identifier: Apache-2.0 */
/* inspect --format: the fields of docker's "inspect" that VMs and images have, by docker's names. */
#include <string.h>
#include <time.h>

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

static void put_bool(struct template_value *v, bool b)
{
	buf_printf(&v->text, "%s", b ? "true" : "false");
	v->raw = true;
}

static void put_number(struct template_value *v, uint64_t n)
{
	buf_printf(&v->text, "%llu", (unsigned long long)n);
	v->raw = true;
}

/* ---------------------------------------------------------------------------------------------- VMs */

static void state_field(const struct sm_vm_info *vm, const char *name, struct template_value *v)
{
	bool up = vm->state == SM_VM_RUNNING || vm->state == SM_VM_PAUSED || vm->state == SM_VM_STOPPING;
	bool ended = vm->state == SM_VM_EXITED;

	if (streq(name, "Status"))
		buf_printf(&v->text, "%s", sm_vm_state_name(vm->state));
	else if (streq(name, "Running"))
		put_bool(v, up);
	else if (streq(name, "Paused"))
		put_bool(v, vm->state == SM_VM_PAUSED);
	else if (streq(name, "OOMKilled"))
		put_bool(v, vm->outcome.reason == SM_REASON_OOM);
	else if (streq(name, "ExitCode"))
		put_number(v, ended ? (uint64_t)vm->outcome.status : 0);
	else if (streq(name, "Error"))
		buf_printf(&v->text, "%s", ended ? vm->outcome.message : "");
	else if (streq(name, "Pid"))
		put_number(v, (uint64_t)vm->monitor_pid);
	else if (streq(name, "StartedAt"))
		put_time(&v->text, vm->started_ns);
	else
		put_time(&v->text, vm->finished_ns);
}

static void vm_field(const void *row, const char *name, struct template_value *v)
{
	const struct sm_vm_info *vm = row;

	if (str_starts(name, "State."))
		state_field(vm, name + 6, v);
	else if (streq(name, "Id") || streq(name, "ID"))
		buf_printf(&v->text, "%s", vm->id);
	else if (streq(name, "Name"))
		buf_printf(&v->text, "/%s", vm->name);
	else if (streq(name, "Image"))
		buf_printf(&v->text, "%s", vm->image_id);
	else if (streq(name, "Config.Image"))
		buf_printf(&v->text, "%s", vm->image);
	else if (streq(name, "Config.Tty"))
		put_bool(v, vm->tty);
	else if (streq(name, "Config.OpenStdin"))
		put_bool(v, vm->stdin_open);
	else if (streq(name, "Config.Cmd"))
		template_put_list(v, vm->argv, false);
	else if (streq(name, "Config.Labels"))
		template_put_list(v, vm->labels, true);
	else if (streq(name, "Created"))
		put_time(&v->text, vm->created_ns);
	else
		put_number(v, vm->memory);
}

static const struct template_fields vm_fields = {
	.names =
		(const struct template_name[]){
			{"Id", NULL},
			{"ID", NULL},
			{"Name", NULL},
			{"Image", NULL},
			{"Created", NULL},
			{"Config.Image", NULL},
			{"Config.Tty", NULL},
			{"Config.OpenStdin", NULL},
			{"Config.Cmd", NULL},
			{"Config.Labels", NULL},
			{"HostConfig.Memory", NULL},
			{"State.Status", NULL},
			{"State.Running", NULL},
			{"State.Paused", NULL},
			{"State.OOMKilled", NULL},
			{"State.ExitCode", NULL},
			{"State.Error", NULL},
			{"State.Pid", NULL},
			{"State.StartedAt", NULL},
			{"State.FinishedAt", NULL},
			{NULL, NULL},
		},
	.get = vm_field,
};

/* ------------------------------------------------------------------------------------------- images */

static void image_field(const void *row, const char *name, struct template_value *v)
{
	const struct sm_image_info *image = row;

	if (streq(name, "Id") || streq(name, "ID"))
		buf_printf(&v->text, "sha256:%s", image->id);
	else if (streq(name, "RepoTags"))
		template_put_list(v, image->names, false);
	else if (streq(name, "Digest"))
		buf_printf(&v->text, "%s", image->digest);
	else if (streq(name, "Created"))
		put_time(&v->text, image->created_ns);
	else if (streq(name, "Os"))
		buf_printf(&v->text, "%s", image->os);
	else if (streq(name, "Architecture"))
		buf_printf(&v->text, "%s", image->architecture);
	else if (streq(name, "Size"))
		put_number(v, image->allocated_size);
	else if (streq(name, "Config.User"))
		buf_printf(&v->text, "%s", image->user);
	else if (streq(name, "Config.WorkingDir"))
		buf_printf(&v->text, "%s", image->cwd);
	else if (streq(name, "Config.StopSignal"))
		buf_printf(&v->text, "%s", image->stop_signal);
	else if (streq(name, "Config.Env"))
		template_put_list(v, image->env, false);
	else if (streq(name, "Config.Cmd"))
		template_put_list(v, image->cmd, false);
	else if (streq(name, "Config.Entrypoint"))
		template_put_list(v, image->entrypoint, false);
	else if (streq(name, "Config.Labels"))
		template_put_list(v, image->labels, true);
	else if (streq(name, "Config.ExposedPorts"))
		template_put_list(v, image->ports, false);
	else if (streq(name, "Config.Volumes"))
		template_put_list(v, image->volumes, false);
	else
		template_put_list(v, image->diff_ids, false);
}

static const struct template_fields image_fields = {
	.names =
		(const struct template_name[]){
			{"Id", NULL},
			{"ID", NULL},
			{"RepoTags", NULL},
			{"Digest", NULL},
			{"Created", NULL},
			{"Os", NULL},
			{"Architecture", NULL},
			{"Size", NULL},
			{"Config.User", NULL},
			{"Config.WorkingDir", NULL},
			{"Config.StopSignal", NULL},
			{"Config.Env", NULL},
			{"Config.Cmd", NULL},
			{"Config.Entrypoint", NULL},
			{"Config.Labels", NULL},
			{"Config.ExposedPorts", NULL},
			{"Config.Volumes", NULL},
			{"RootFS.Layers", NULL},
			{NULL, NULL},
		},
	.get = image_field,
};

static int format_image(struct cli *cli, const char *ref, const char *format, const struct sm_error *no_vm)
{
	struct sm_image *image = NULL;
	struct sm_error err = {0};
	const void *row;
	int status;

	if (sm_image_open(cli->client, ref, &image, &err) < 0)
		return no_vm && err.kind == SM_ERROR_NOT_FOUND ? cli_no_vm(cli, ref, no_vm)
							       : cli_no_image(cli, ref, false, &err);
	row = sm_image_info(image);
	status = template_print(cli, format, &image_fields, &row, 1);
	sm_image_close(image);
	return status;
}

int inspect_formatted(struct cli *cli, const char *type, const char *ref, const char *format)
{
	struct sm_vm_info *info = NULL;
	struct sm_error err = {0};
	struct sm_vm *vm = NULL;
	const void *row;
	int status;

	if (type && streq(type, "image"))
		return format_image(cli, ref, format, NULL);
	if (type && !streq(type, "vm"))
		return cli_usage(cli, "without --format it is JSON", "--format: fields are those of VMs and images");
	if (sm_vm_open(cli->client, ref, &vm, &err) < 0)
		return !type && err.kind == SM_ERROR_NOT_FOUND ? format_image(cli, ref, format, &err)
							       : cli_no_vm(cli, ref, &err);
	if (sm_vm_query(vm, &info, &err) < 0) {
		status = cli_fail(cli, &err, NULL);
	} else {
		row = info;
		status = template_print(cli, format, &vm_fields, &row, 1);
	}
	sm_vm_info_free(info);
	sm_vm_close(vm);
	return status;
}
