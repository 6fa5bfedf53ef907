/* SPDX-License-Identifier: Apache-2.0 */
/* exec: one more command in a running VM. */
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "cli/session.h"

struct exec_values {
	bool interactive, tty, detach;
	const char *workdir, *user;
	struct opt_list env, env_file;
	uint64_t timeout;
};

#define V(m) offsetof(struct exec_values, m)
static const struct opt options[] = {
	{'i', "interactive", OPT_FLAG, V(interactive), NULL, "pass standard input on"},
	{'t', "tty", OPT_FLAG, V(tty), NULL, "give the command a terminal"},
	{'d', "detach", OPT_FLAG, V(detach), NULL, "leave it running in the VM and print its number (see exec ls)"},
	{'e', "env", OPT_LIST, V(env), "NAME[=VALUE]", "set an environment variable, or pass on the caller's"},
	{0, "env-file", OPT_LIST, V(env_file), "FILE", "the same from the lines of a file"},
	{'w', "workdir", OPT_TEXT, V(workdir), "DIR", "working directory"},
	{'u', "user", OPT_TEXT, V(user), "USER[:GROUP]", "user, by name or number"},
	{0, "timeout", OPT_DURATION, V(timeout), "TIME", "end the command after so long: status 124"},
	{0, "privileged", OPT_IGNORED, 0, NULL, NULL},
};
#undef V

static const char *const examples[] = {"exec web cat /etc/hosts",
				       "a command beside the one that runs",
				       "exec -it web sh",
				       "a shell in it",
				       "exec -d web ./work",
				       "left running: exec logs web 1 shows what it prints",
				       NULL};

static int run_in(struct cli *cli, const struct exec_values *v, struct session *s, struct sm_vm *vm, char **argv)
{
	struct sm_exec_options o = SM_EXEC_OPTIONS_INIT;
	struct sm_outcome outcome = SM_OUTCOME_INIT;
	struct sm_exec *exec = NULL;
	struct sm_error err = {0};
	char **env = NULL;
	int r;

	r = cli_env(&v->env_file, &v->env, v->tty, &env, &err);
	if (r >= 0)
		r = session_streams(s, v->interactive, v->tty, false, &o, &err);
	o.argv = (const char *const *)argv;
	o.env = (const char *const *)env;
	o.cwd = v->workdir;
	o.user = v->user;
	o.timeout_ns = v->timeout;
	o.detach = v->detach;
	if (r >= 0)
		r = sm_vm_exec(vm, &o, &exec, &err);
	if (r >= 0 && !v->detach) {
		session_started(s, exec);
		r = session_wait(s, exec, &outcome, &err);
	}
	if (r >= 0 && v->detach)
		printf("%u\n", sm_exec_number(exec));
	sm_exec_close(exec);
	cli_env_free(env);
	if (r >= 0 && v->detach)
		return 0;
	if (r < 0 && v->detach)
		return cli_fail(cli, &err, NULL) + (r == -ENOENT   ? 127 - CLI_FAILED
						    : r == -EACCES ? 126 - CLI_FAILED
								   : 0);
	return r < 0 ? cli_fail(cli, &err, NULL) : cli_outcome(cli, &outcome, 0, 0);
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	struct sm_error err = {0};
	struct session session;
	struct sm_vm *vm;
	int status;

	if (session_begin(&session, cli, &err) < 0)
		return cli_fail(cli, &err, NULL);
	vm = cli_open_vm(cli, operands[0]);
	status = vm ? run_in(cli, values, &session, vm, operands + 1) : CLI_FAILED;
	session_end(&session);
	sm_vm_close(vm);
	return status;
}

const struct verb verb_exec = {
	.name = "exec",
	.operands = "VM COMMAND [ARG...]",
	.summary = "Run one more command in a running VM",
	.details = "The container's environment, user and working directory apply unless options say otherwise. Exit "
		   "status as for run. What -d leaves running is found again by its number: exec ls, exec logs, exec "
		   "kill, exec attach. (A VM with one of these names: exec -- ls COMMAND.)",
	.examples = examples,
	VERB_OPTS(options, struct exec_values),
	.min_operands = 2,
	.max_operands = -1,
	.command = true,
	.completes = OPERAND_VM,
	.group = GROUP_RUN,
	.run = verb,
};
