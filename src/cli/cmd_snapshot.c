/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot: saves a running VM, which goes on. */
#include "base/util.h"
#include "cli/cli.h"

struct snapshot_values {
	bool diff;
};

static const struct opt options[] = {
	{0, "diff", OPT_FLAG, offsetof(struct snapshot_values, diff), NULL,
	 "of its memory, only what it does not share with the snapshot that it came from"},
};

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct snapshot_values *v = values;
	struct sm_snapshot_options o = SM_SNAPSHOT_OPTIONS_INIT;
	struct sm_vm *vm = cli_open_vm(cli, operands[0]);
	struct sm_error err = {0};
	uint64_t pause_ns = 0;
	int r;

	if (!vm)
		return CLI_FAILED;
	o.diff = v->diff;
	r = sm_vm_snapshot_with(vm, operands[1], &o, &pause_ns, &err);
	sm_vm_close(vm);
	if (r < 0)
		return cli_fail(cli, &err, err.kind == SM_ERROR_EXISTS ? "supermachine snapshot rm removes it" : NULL);
	puts(operands[1]);
	if (cli->verbosity >= 0)
		cli_say(cli, "the VM stood still for %.0f ms", (double)pause_ns / 1e6);
	return 0;
}

static const char *const examples[] = {"snapshot web warm",
				       "web as it is now, under the name warm",
				       "restore -d warm",
				       "another VM that goes on from there",
				       "snapshot --diff web later",
				       "what has changed in it since its start",
				       NULL};

const struct verb verb_snapshot = {
	.name = "snapshot",
	.operands = "VM NAME",
	.summary = "Save a running VM, which goes on",
	.details =
		"Its processes, memory, open files and disk, under a name from which supermachine restore starts other "
		"VMs. The image stays in the store as long as the snapshot is there. Directories of the host (-v) are "
		"no "
		"part of it; volumes are copied, and what writes to one waits until that is done. A VM with a mount "
		"with the option dax cannot be saved. --diff is much "
		"smaller and faster; it needs the snapshot that the VM came from by restore, which cannot be removed "
		"as long as the diff is there. A diff of a base, from which run starts, holds that memory itself. A "
		"VM that booted, or whose snapshot has been removed, can only be saved whole.",
	VERB_OPTS(options, struct snapshot_values),
	.examples = examples,
	.min_operands = 2,
	.max_operands = 2,
	.completes = OPERAND_VM,
	.group = GROUP_VMS,
	.run = verb,
};
