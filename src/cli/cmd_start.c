/* SPDX-License-Identifier: Apache-2.0 */
/* start: runs the command of kept VMs again, with their disks. */
#include <errno.h>

#include "base/util.h"
#include "cli/attach.h"
#include "cli/secrets.h"

struct start_values {
	bool attach, interactive;
	struct opt_list secrets, secret_env;
};

#define V(m) offsetof(struct start_values, m)
static const struct opt options[] = {
	{'a', "attach", OPT_FLAG, V(attach), NULL, "show its output, pass signals on, and wait for its end"},
	{'i', "interactive", OPT_FLAG, V(interactive), NULL, "with --attach: pass standard input on"},
	CLI_SECRET_OPTS(V(secrets), V(secret_env)),
};
#undef V

static int start_again(struct sm_vm *vm, const struct cli_secrets *s, bool detach, struct sm_error *err)
{
	int r = s->n ? sm_vm_set_secrets(vm, s->v, s->n, err) : 0;

	return r < 0 ? r : sm_vm_start_again(vm, detach, err);
}

/* -EBUSY: it runs, which is what was wanted. */
static int start_one(struct cli *cli, struct sm_vm *vm, const void *arg)
{
	struct sm_outcome outcome = SM_OUTCOME_INIT;
	struct sm_error err = {0};
	int r;

	r = start_again(vm, arg, true, &err);
	if (r == -EBUSY && err.kind == SM_ERROR_STATE)
		return 0;
	if (r < 0)
		return cli_secrets_fail(cli, vm, arg, "start", &err);
	if (sm_vm_wait_started(vm, 0, &outcome, &err) < 0 && outcome.reason != SM_REASON_EXITED &&
	    outcome.reason != SM_REASON_SIGNALLED)
		return cli_fail(cli, &err, NULL);
	return 0;
}

static int start_attached(struct cli *cli, const char *ref, bool interactive, const struct cli_secrets *secrets)
{
	struct sm_error err = {0};
	struct session session;
	struct sm_vm *vm;
	int status = CLI_FAILED, r;

	if (session_begin(&session, cli, &err) < 0)
		return cli_fail(cli, &err, NULL);
	vm = cli_open_vm(cli, ref);
	r = vm ? start_again(vm, secrets, false, &err) : 0;
	if (r == -EBUSY && err.kind == SM_ERROR_STATE)
		cli_fail(cli, &err, "it runs: supermachine attach joins it");
	else if (r < 0)
		cli_secrets_fail(cli, vm, secrets, "start -a", &err);
	else if (vm)
		status = attach_session(cli, &session, vm, interactive);
	session_end(&session);
	sm_vm_close(vm);
	return status;
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct start_values *v = values;
	struct cli_secrets secrets;
	int status = cli_secrets_parse(cli, &v->secrets, &v->secret_env, &secrets);

	if (status == 0 && !v->attach && !v->interactive)
		status = cli_each_vm(cli, operands, start_one, &secrets);
	else if (status == 0 && count > 1)
		status = cli_usage(cli, NULL, "--attach goes with one VM");
	else if (status == 0)
		status = start_attached(cli, operands[0], v->interactive, &secrets);
	cli_secrets_free(&secrets);
	return status;
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
