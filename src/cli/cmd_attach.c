/* SPDX-License-Identifier: Apache-2.0 */
/* attach: joins a running VM's own command. */
#include "cli/attach.h"

#include <errno.h>
#include <signal.h>

#include "base/util.h"
#include "cli/session.h"

struct attach_values {
	bool no_stdin;
};

static const struct opt options[] = {
	{0, "no-stdin", OPT_FLAG, offsetof(struct attach_values, no_stdin), NULL, "only watch: pass no input on"},
};

int attach_wait(struct cli *cli, struct session *s, struct sm_exec *exec, uint64_t memory, uint64_t disk)
{
	struct sm_outcome outcome = SM_OUTCOME_INIT;
	struct sm_error err = {0};
	int r;

	session_started(s, exec);
	r = session_wait(s, exec, &outcome, &err);
	sm_exec_close(exec);
	if (session_was_left(s, r, NULL))
		return 0;
	if (r == -EPIPE)
		return 128 + SIGPIPE; /* as of any program whose reader has what it wanted */
	return r < 0 ? cli_fail(cli, &err, NULL) : cli_outcome(cli, &outcome, memory, disk);
}

int attach_session(struct cli *cli, struct session *s, struct sm_vm *vm, bool interactive)
{
	struct sm_exec_options o = SM_EXEC_OPTIONS_INIT;
	struct sm_vm_info *info = NULL;
	struct sm_exec *exec = NULL;
	struct sm_error err = {0};
	uint64_t memory = 0, disk = 0;
	int r;

	r = sm_vm_query(vm, &info, &err);
	if (r >= 0) {
		memory = info->memory;
		disk = info->disk_size;
		r = session_streams(s, interactive && info->stdin_open, info->tty, true, &o, &err);
	}
	sm_vm_info_free(info);
	if (r >= 0)
		r = sm_vm_attach(vm, &o, &exec, &err);
	return r < 0 ? cli_fail(cli, &err, NULL) : attach_wait(cli, s, exec, memory, disk);
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct attach_values *v = values;
	struct sm_error err = {0};
	struct session session;
	struct sm_vm *vm;
	int status;

	if (session_begin(&session, cli, &err) < 0)
		return cli_fail(cli, &err, NULL);
	vm = cli_open_vm(cli, operands[0]);
	status = vm ? attach_session(cli, &session, vm, !v->no_stdin) : CLI_FAILED;
	session_end(&session);
	sm_vm_close(vm);
	return status;
}

const struct verb verb_attach = {
	.name = "attach",
	.operands = "VM",
	.summary = "Join the command of a running VM",
	.details =
		"Its output from now on, and its input if it was started with -i. In a terminal ctrl-p ctrl-q lets go "
		"of it again; the command goes on. Exit status as for run.",
	VERB_OPTS(options, struct attach_values),
	.min_operands = 1,
	.max_operands = 1,
	.completes = OPERAND_VM,
	.group = GROUP_RUN,
	.run = verb,
};
