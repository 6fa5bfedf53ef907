/* SPDX-License-Identifier: Apache-2.0 */
/* machine start, stop, status, exec: the Linux in which VMs run where the host's KVM is of no use. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "cli/session.h"

static int start(struct cli *cli, const void *values, char **operands, int count)
{
	struct sm_progress progress = {0};
	struct sm_error err = {0};
	int r;

	if (!cli_client(cli))
		return CLI_FAILED;
	progress = cli_progress(cli);
	r = sm_machine_start(cli->client, &progress, &err);
	cli_progress_clear(cli);
	return r < 0 ? cli_fail(cli, &err, NULL) : 0;
}

const struct verb verb_machine_start = {
	.name = "machine start",
	.operands = "",
	.summary = "Start the machine now rather than on first use",
	.details = "The machine is a Linux under emulation that has a KVM of its own: VMs run in it where this host's "
		   "KVM is "
		   "missing or of no use (supermachine doctor tells). It starts by itself when it is needed and stops "
		   "when it has "
		   "been idle. Set SUPERMACHINE_MACHINE to always or never to decide otherwise.",
	.group = GROUP_HOST,
	.run = start,
};

static int stop(struct cli *cli, const void *values, char **operands, int count)
{
	struct sm_error err = {0};

	if (!cli_client(cli))
		return CLI_FAILED;
	return sm_machine_stop(cli->client, &err) < 0 ? cli_fail(cli, &err, NULL) : 0;
}

const struct verb verb_machine_stop = {
	.name = "machine stop",
	.operands = "",
	.summary = "Stop the machine and what runs in it",
	.group = GROUP_HOST,
	.run = stop,
};

struct status_values {
	const char *format;
};

static const struct opt status_opts[] = {
	{0, "format", OPT_TEXT, offsetof(struct status_values, format), "text|json", "how to print",
	 .choices = "text|json"},
};

static void print_status(const struct sm_machine_status *s)
{
	char memory[16], uptime[16];

	printf("needed:  %s (", s->needed ? "yes" : "no");
	text_put(stdout, s->why);
	puts(")");
	if (!s->running) {
		puts("running: no");
		return;
	}
	printf("running: yes, for %s, process %lld\n", text_duration(s->uptime_ns, uptime), (long long)s->pid);
	printf("size:    %u CPUs, up to %s of memory\n", s->cpus, format_size(s->memory, memory));
	printf("busy:    %u VM%s or command%s\n", s->busy, s->busy == 1 ? "" : "s", s->busy == 1 ? "" : "s");
}

static int status(struct cli *cli, const void *values, char **operands, int count)
{
	const struct status_values *v = values;
	struct sm_machine_status s = SM_MACHINE_STATUS_INIT;
	struct sm_error err = {0};
	struct json j = {0};

	if (!cli_client(cli))
		return CLI_FAILED;
	if (sm_machine_status(cli->client, &s, &err) < 0)
		return cli_fail(cli, &err, NULL);
	if (!v->format || streq(v->format, "text")) {
		print_status(&s);
		return 0;
	}
	json_open(&j, NULL, '{');
	json_bool(&j, "needed", s.needed);
	json_text(&j, "why", s.why);
	json_bool(&j, "running", s.running);
	json_number(&j, "pid", s.pid);
	json_unsigned(&j, "memory", s.memory);
	json_unsigned(&j, "cpus", s.cpus);
	json_unsigned(&j, "uptime_ns", s.uptime_ns);
	json_unsigned(&j, "busy", s.busy);
	json_close(&j, '}');
	return cli_print_json(cli, &j);
}

const struct verb verb_machine_status = {
	.name = "machine status",
	.operands = "",
	.summary = "Tell whether the machine is needed and runs",
	VERB_OPTS(status_opts, struct status_values),
	.group = GROUP_HOST,
	.run = status,
};

struct exec_values {
	bool interactive, tty;
	const char *workdir, *user;
	struct opt_list env;
	uint64_t timeout;
};

#define V(m) offsetof(struct exec_values, m)
static const struct opt exec_opts[] = {
	{'i', "interactive", OPT_FLAG, V(interactive), NULL, "pass standard input on (also the default)"},
	{'t', "tty", OPT_FLAG, V(tty), NULL, "give the command a terminal (default where this is one)"},
	{'e', "env", OPT_LIST, V(env), "NAME=VALUE", "on top of the caller's environment"},
	{'w', "workdir", OPT_TEXT, V(workdir), "DIR", "working directory (default: the caller's)"},
	{'u', "user", OPT_TEXT, V(user), "USER[:GROUP]", "user (default: root)"},
	{0, "timeout", OPT_DURATION, V(timeout), "TIME", "end the command after so long: status 124"},
};
#undef V

/* The caller's environment, with -e on top: a copy to free whose strings are not. */
static const char **whole_env(const struct opt_list *extra)
{
	size_t n = 0;
	const char **env;

	while (environ[n])
		n++;
	env = calloc(n + extra->n + 1, sizeof(*env));
	if (!env)
		return NULL;
	memcpy(env, environ, n * sizeof(*env));
	if (extra->n)
		memcpy(env + n, extra->v, extra->n * sizeof(*env));
	return env;
}

static int exec_in(struct cli *cli, const struct exec_values *v, struct session *s, char **argv)
{
	bool tty = v->tty || (isatty(STDIN_FILENO) && isatty(STDOUT_FILENO));
	struct sm_exec_options o = SM_EXEC_OPTIONS_INIT;
	struct sm_outcome outcome = SM_OUTCOME_INIT;
	_free_ char *cwd = getcwd(NULL, 0);
	_free_ const char **env = whole_env(&v->env);
	struct sm_exec *exec = NULL;
	struct sm_error err = {0};
	int r;

	if (!cli_client(cli))
		return CLI_FAILED;
	r = env ? session_streams(s, true, tty, false, &o, &err) : error_sys(&err, ENOMEM, "environment");
	o.argv = (const char *const *)argv;
	o.env = env;
	o.clear_env = true;
	o.cwd = v->workdir ? v->workdir : cwd;
	o.user = v->user;
	o.timeout_ns = v->timeout;
	if (r >= 0)
		r = sm_machine_exec(cli->client, &o, &exec, &err);
	if (r >= 0) {
		session_started(s, exec);
		r = session_wait(s, exec, &outcome, &err);
	}
	sm_exec_close(exec);
	return r < 0 ? cli_fail(cli, &err, NULL) : cli_outcome(cli, &outcome, 0, 0);
}

static int machine_exec(struct cli *cli, const void *values, char **operands, int count)
{
	struct sm_error err = {0};
	struct session session;
	int r;

	if (session_begin(&session, cli, &err) < 0)
		return cli_fail(cli, &err, NULL);
	r = exec_in(cli, values, &session, operands);
	session_end(&session);
	return r;
}

static const char *const exec_examples[] = {"machine exec -- ls -l /dev/kvm", "any command; paths mean the same inside",
					    NULL};

const struct verb verb_machine_exec = {
	.name = "machine exec",
	.operands = "[--] COMMAND [ARG...]",
	.summary = "Run a command in the machine, as if it were here",
	.details = "Directory, environment, streams, terminal, signals and exit status are passed through; the "
		   "machine's root is "
		   "this host's.",
	.examples = exec_examples,
	VERB_OPTS(exec_opts, struct exec_values),
	.min_operands = 1,
	.max_operands = -1,
	.command = true,
	.group = GROUP_HOST,
	.run = machine_exec,
};
