/* SPDX-License-Identifier: Apache-2.0 */
/* inspect: all there is to know about VMs, images and snapshots of VMs, as JSON. */
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"
#include "cli/inspect.h"
#include "cli/template.h"

struct inspect_values {
	const char *type, *export_erofs, *format;
};

#define V(m) offsetof(struct inspect_values, m)
static const struct opt options[] = {
	{0, "type", OPT_TEXT, V(type), "vm|image|snapshot|volume", "look only among these",
	 .choices = "vm|image|snapshot|volume"},
	{'f', "format", OPT_TEXT, V(format), "json|TEMPLATE",
	 "how to print; '{{.State.Status}}': such fields of VMs and images", .choices = "json", .open = true},
	{0, "export-erofs", OPT_TEXT, V(export_erofs), "FILE", "write an image's file system as one EROFS file"},
};
#undef V

/* JSON to sm_free; NULL after having said what is wrong. A VM's name goes before an image's. */
static char *look(struct cli *cli, const char *type, const char *ref)
{
	struct sm_error err = {0};
	struct sm_vm *vm = NULL;
	char *text = NULL;
	int r;

	if (!type || streq(type, "vm")) {
		r = sm_vm_open(cli->client, ref, &vm, &err);
		if (r >= 0) {
			r = sm_vm_inspect(vm, &text, &err);
			sm_vm_close(vm);
			if (r < 0)
				cli_fail(cli, &err, NULL);
			return r < 0 ? NULL : text;
		}
		if (type || err.kind != SM_ERROR_NOT_FOUND) {
			cli_no_vm(cli, ref, &err);
			return NULL;
		}
	}
	if (type && streq(type, "snapshot")) {
		if (sm_snapshot_inspect(cli->client, ref, &text, &err) < 0)
			cli_fail(cli, &err, "supermachine snapshots lists them");
		return text;
	}
	if (type && streq(type, "volume")) {
		if (sm_volume_inspect(cli->client, ref, &text, &err) < 0)
			cli_fail(cli, &err, "supermachine volume ls lists them");
		return text;
	}
	/* An image's name goes before a snapshot's, and that before a volume's. */
	if (!type && sm_image_inspect(cli->client, ref, &text, NULL) >= 0)
		return text;
	if (!type && (sm_snapshot_inspect(cli->client, ref, &text, NULL) >= 0 ||
		      sm_volume_inspect(cli->client, ref, &text, NULL) >= 0))
		return text;
	err = (struct sm_error){0};
	if (sm_image_inspect(cli->client, ref, &text, &err) < 0) {
		if (!type && err.kind == SM_ERROR_NOT_FOUND)
			snprintf(err.message, sizeof(err.message), "no such VM, image, snapshot or volume: %.256s",
				 ref);
		cli_no_image(cli, ref, false, &err);
		return NULL;
	}
	return text;
}

static int export_erofs(struct cli *cli, const char *ref, const char *path)
{
	struct sm_error err = {0};

	if (sm_image_export_erofs(cli->client, ref, path, &err) < 0)
		return cli_no_image(cli, ref, false, &err);
	return 0;
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct inspect_values *v = values;
	struct json j = {0};
	int status = 0, r;

	if (!cli_client(cli))
		return CLI_FAILED;
	if (v->export_erofs && count > 1)
		return cli_usage(cli, NULL, "--export-erofs goes with one image");
	if (v->export_erofs)
		return export_erofs(cli, operands[0], v->export_erofs);
	if (v->format && !streq(v->format, "json") && !template_is(v->format))
		return cli_usage(cli, "json, or fields such as '{{.State.Status}}'", "--format cannot be '%s'",
				 v->format);
	for (; *operands && v->format && template_is(v->format); operands++) {
		r = inspect_formatted(cli, v->type, *operands, v->format);
		status = r ? r : status;
	}
	if (v->format && template_is(v->format))
		return status;
	json_open(&j, NULL, '[');
	for (; *operands; operands++) {
		char *text = look(cli, v->type, *operands);

		if (text)
			json_raw(&j, NULL, text);
		else
			status = CLI_FAILED;
		sm_free(text);
	}
	json_close(&j, ']');
	r = cli_print_json(cli, &j);
	return status ? status : r;
}

static const char *const examples[] = {"inspect web", "a VM, as a JSON array of one",
				       "inspect debian --export-erofs debian.erofs", "a file to check or to mount",
				       NULL};

const struct verb verb_inspect = {
	.name = "inspect",
	.operands = "VM|IMAGE|SNAPSHOT|VOLUME...",
	.summary = "Print all about VMs, images, snapshots or volumes as JSON",
	.details = "A name that several of them have is the first one's, in that order; see --type. Fields of a "
		   "template by docker's names, of VMs: .Id .Name .Image .Created .Config.Image .Config.Tty "
		   ".Config.OpenStdin .Config.Cmd .Config.Labels .HostConfig.Memory .State.Status .State.Running "
		   ".State.Paused .State.OOMKilled .State.ExitCode .State.Error .State.Pid .State.StartedAt "
		   ".State.FinishedAt; of images: .Id .RepoTags .Digest .Created .Os .Architecture .Size .Config.User "
		   ".Config.WorkingDir .Config.StopSignal .Config.Env .Config.Cmd .Config.Entrypoint .Config.Labels "
		   ".Config.ExposedPorts .Config.Volumes .RootFS.Layers. '{{json .Config}}' and '{{index "
		   ".Config.Labels \"NAME\"}}' look into them.",
	.examples = examples,
	VERB_OPTS(options, struct inspect_values),
	.min_operands = 1,
	.max_operands = -1,
	.completes = OPERAND_ANY,
	.group = GROUP_VMS,
	.run = verb,
};
