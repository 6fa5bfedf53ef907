/* SPDX-License-Identifier: Apache-2.0 */
/* start: runs the command of kept VMs again, with their disks. */
#include <errno.h>

#include "base/util.h"
#include "cli/attach.h"

struct start_values {
	bool attach, interactive;
};

#define V(m) offsetof(struct start_values, m)
static const struct opt options[] = {
	{'a', "attach", OPT_FLAG, V(attach), NULL, "show its output, pass signals on, and wait for its end"},
	{'i', "interactive", OPT_FLAG, V(interactive), NULL, "with --attach: pass standard input on"},
};
#undef V

/* -EBUSY: it runs, which is what was wanted. */
static int start_one(struct cli *cli, struct sm_vm *vm, const void *arg)
{
	struct sm_outcome outcome = SM_OUTCOME_INIT;
	struct sm_error err = {0};
	int r;

	r = sm_vm_start_again(vm, true, &err);
	if (r == -EBUSY)
		return 0;
	if (r < 0)
		return cli_fail(cli, &err, NULL);
	if (sm_vm_wait_started(vm, 0, &outcome, &err) < 0 && outcome.reason != SM_REASON_EXITED &&
	    outcome.reason != SM_REASON_SIGNALLED)
		return cli_fail(cli, &err, NULL);
	return 0;
}

static int start_attached(struct cli *cli, const char *ref, bool interactive)
{
	struct sm_error err = {0};
	struct session session;
	struct sm_vm *vm;
	int status = CLI_FAILED;

	if (session_begin(&session, cli, &err) < 0)
		return cli_fail(cli, &err, NULL);
	vm = cli_open_vm(cli, ref);
	if (vm && sm_vm_start_again(vm, false, &err) < 0)
		cli_fail(cli, &err, err.code == EBUSY ? "it runs: supermachine attach joins it" : NULL);
	else if (vm)
		status = attach_session(cli, &session, vm, interactive);
	session_end(&session);
	sm_vm_close(vm);
	return status;
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct start_values *v = values;

	if (!v->attach && !v->interactive)
		return cli_each_vm(cli, operands, start_one, NULL);
	if (count > 1)
		return cli_usage(cli, NULL, "--attach goes with one VM");
	return start_attached(cli, operands[0], v->interactive);
}

const struct verb verb_start = {
	.name = "start",
	.operands = "VM...",
	.summary = "Start kept VMs again: same command, same disk",
	VERB_OPTS(options, struct start_values),
	.min_operands = 1,
	.max_operands = -1,
	.completes = OPERAND_VM,
	.group = GROUP_VMS,
	.run = verb,
};
