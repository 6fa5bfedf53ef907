/* SPDX-License-Identifier: Apache-2.0 */
/* port: which ports of this host lead into a VM, and of the VM to this host. */
#include <string.h>

#include "cli/ports.h"

/* As docker prints them: all addresses are two lines. */
static void print(const struct sm_port *p, bool whole)
{
	char host[CLI_PORT_TEXT], guest[CLI_PORT_TEXT];

	cli_port_guest_text(p, guest);
	for (int i = 0; i < (p->address || p->host_path ? 1 : 2); i++) {
		cli_port_text(p, i == 1, host);
		if (whole)
			printf("%s %s ", guest, p->reverse ? "<-" : "->");
		printf("%s\n", host);
	}
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	uint16_t wanted = count > 1 ? cli_guest_port(operands[1]) : 0;
	struct sm_vm_info *info = NULL;
	struct sm_error err = {0};
	bool found = false;
	struct sm_vm *vm;
	int r;

	if (count > 1 && !wanted)
		return cli_usage(cli, NULL, "'%s' is no port: PORT or PORT/tcp", operands[1]);
	vm = cli_open_vm(cli, operands[0]);
	if (!vm)
		return CLI_FAILED;
	r = sm_vm_query(vm, &info, &err);
	sm_vm_close(vm);
	if (r < 0)
		return cli_fail(cli, &err, NULL);
	/* None is open of one that has ended; those of a suspended one are, as a rule. */
	for (size_t i = 0; info->state != SM_VM_EXITED && i < info->num_ports; i++) {
		if (wanted && (info->ports[i].guest_port != wanted || info->ports[i].reverse))
			continue;
		print(&info->ports[i], !wanted);
		found = true;
	}
	sm_vm_info_free(info);
	if (!wanted || found)
		return 0;
	cli_say(cli, "no port of this host leads to port %u of %s", wanted, operands[0]);
	return CLI_FAILED;
}

static const char *const examples[] = {"port web", "all of them", "port web 80", "where port 80 is", NULL};

const struct verb verb_port = {
	.name = "port",
	.operands = "VM [PORT[/tcp]]",
	.summary = "Show which ports of this host lead into a VM",
	.details = "Ports are given with run -p; see there.",
	.examples = examples,
	.min_operands = 1,
	.max_operands = 2,
	.completes = OPERAND_VM,
	.group = GROUP_VMS,
	.run = verb,
};
