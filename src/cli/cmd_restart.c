/* SPDX-License-Identifier: Apache-2.0 */
/* restart: stop, then start. */
#include "base/util.h"
#include "cli/secrets.h"
#include "cli/stop.h"

struct restart_values {
	struct stop_values stop;
	struct opt_list secrets, secret_env;
};

#define V(m) offsetof(struct restart_values, m)
static const struct opt options[] = {
	STOP_OPT(V(stop)),
	CLI_SECRET_OPTS(V(secrets), V(secret_env)),
};
#undef V

struct restart {
	uint64_t grace;
	struct cli_secrets secrets;
};

/* Secrets first: one that could not be started again is not stopped. */
static int restart_one(struct cli *cli, struct sm_vm *vm, const void *arg)
{
	const struct restart *r = arg;
	struct sm_outcome outcome = SM_OUTCOME_INIT;
	struct sm_error err = {0};

	if (sm_vm_set_secrets(vm, r->secrets.v, r->secrets.n, &err) < 0)
		return cli_secrets_fail(cli, vm, &r->secrets, "restart", &err);
	if (sm_vm_stop(vm, r->grace, &err) < 0 || sm_vm_start_again(vm, true, &err) < 0)
		return cli_fail(cli, &err, NULL);
	if (sm_vm_wait_started(vm, 0, &outcome, &err) < 0 && outcome.reason != SM_REASON_EXITED &&
	    outcome.reason != SM_REASON_SIGNALLED)
		return cli_fail(cli, &err, NULL);
	return 0;
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct restart_values *v = values;
	struct restart r = {0};
	int status = stop_grace(cli, &v->stop, &r.grace);

	if (status == 0)
		status = cli_secrets_parse(cli, &v->secrets, &v->secret_env, &r.secrets);
	if (status == 0)
		status = cli_each_vm(cli, operands, restart_one, &r);
	cli_secrets_free(&r.secrets);
	return status;
}

static const char *const examples[] = {"restart web", "stop it, and start it again",
				       "restart --secret key=file:key web",
				       "one that was started with a secret, which is kept nowhere", NULL};

const struct verb verb_restart = {
	.name = "restart",
	.operands = "VM...",
	.summary = "Stop VMs and start them again",
	.examples = examples,
	VERB_OPTS(options, struct restart_values),
	.min_operands = 1,
	.max_operands = -1,
	.completes = OPERAND_VM,
	.group = GROUP_VMS,
	.run = verb,
};
