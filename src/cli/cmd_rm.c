/* SPDX-License-Identifier: Apache-2.0 */
/* rm: removes VMs with their disks and logs. */
#include <errno.h>

#include "base/util.h"
#include "cli/cli.h"

struct rm_values {
	bool force, volumes;
};

static const struct opt options[] = {
	{'f', "force", OPT_FLAG, offsetof(struct rm_values, force), NULL,
	 "also while it runs; no error when there is none"},
	{'v', "volumes", OPT_FLAG, offsetof(struct rm_values, volumes), NULL, "also its volumes that have no name"},
};

/* Those that nobody else has, and that are nobody's by name. */
static void drop_volumes(struct cli *cli, const struct sm_vm_info *vm)
{
	struct sm_volume_info **list = NULL;
	size_t n = 0;

	if (sm_volume_list(cli->client, &list, &n, NULL) < 0)
		return;
	for (size_t i = 0; i < vm->num_mounts; i++)
		for (size_t k = 0; vm->mounts[i].volume && k < n; k++)
			if (list[k]->anonymous && !vm->mounts[i].copy && streq(list[k]->name, vm->mounts[i].volume))
				sm_volume_remove(cli->client, list[k]->name, NULL);
	sm_volume_list_free(list, n);
}

static int rm_one(struct cli *cli, struct sm_vm *vm, const void *arg)
{
	const struct rm_values *v = arg;
	struct sm_vm_info *info = NULL;
	struct sm_error err = {0};
	int r;

	if (v->volumes)
		sm_vm_query(vm, &info, NULL);
	r = sm_vm_remove(vm, v->force, &err);
	if (r == 0 && info)
		drop_volumes(cli, info);
	sm_vm_info_free(info);
	if (r == -EBUSY)
		return cli_fail(cli, &err, "try: supermachine stop, or rm -f");
	return r < 0 ? cli_fail(cli, &err, NULL) : 0;
}

/* With --force what is not there is as good as removed: cleaning up twice is no mistake. */
static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct rm_values *v = values;
	int kept = 0;

	if (!cli_client(cli))
		return CLI_FAILED;
	for (int i = 0; v->force && i < count; i++) {
		struct sm_error err = {0};
		struct sm_vm *vm;

		if (sm_vm_open(cli->client, operands[i], &vm, &err) == 0 || err.kind != SM_ERROR_NOT_FOUND)
			operands[kept++] = operands[i];
		if (!err.kind)
			sm_vm_close(vm);
	}
	if (v->force)
		operands[kept] = NULL;
	return cli_each_vm(cli, operands, rm_one, v);
}

const struct verb verb_rm = {
	.name = "rm",
	.operands = "VM...",
	.summary = "Remove VMs with their disks and logs",
	VERB_OPTS(options, struct rm_values),
	.min_operands = 1,
	.max_operands = -1,
	.completes = OPERAND_VM,
	.group = GROUP_VMS,
	.run = verb,
};
