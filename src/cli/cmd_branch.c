/* SPDX-License-Identifier: Apache-2.0 */
/* branch: new VMs that go on from where a running one is. */
#include <stdlib.h>

#include "base/util.h"
#include "cli/restore.h"

#define V(m) offsetof(struct restore_values, m)
static const struct opt options[] = {
	{'n', "count", OPT_NUMBER, V(count), "N", "so many VMs (default 1); --name NAME names them NAME-1, NAME-2, ...",
	 1, 1000},
	{0, "name", OPT_TEXT, V(name), "NAME", "name of the new VM"},
	{0, "rm", OPT_FLAG, V(rm), NULL, "remove the new VMs when they end"},
	{'e', "env", OPT_LIST, V(env), "NAME[=VALUE]", "set an environment variable for commands of exec"},
	{0, "env-file", OPT_LIST, V(env_file), "FILE", "the same from the lines of a file"},
	{'v', "volume", OPT_LIST, V(volumes), "SRC:DST[:ro]", RESTORE_VOLUME_HELP},
	{0, "audit", OPT_TEXT, V(audit), "FILE", CLI_AUDIT_HELP("the new VMs' mounts")},
	{'p', "publish", OPT_LIST, V(ports), "[ADDR:]HOST:GUEST",
	 "a TCP port of this host that leads to one in the new VM; HOST 0: a free one, which supermachine port shows"},
	{0, "reverse", OPT_LIST, V(reverse), "GUEST:[ADDR:]HOST",
	 "a port or socket of the VM leads to one of this host (may be repeated)"},
	{0, "timeout", OPT_DURATION, V(timeout), "TIME", "end the command after so long from now on: status 124"},
	{0, "ttl", OPT_DURATION, V(ttl), "TIME", CLI_TTL_HELP, 1},
	{0, "start-timeout", OPT_DURATION, V(start_timeout), "TIME", CLI_START_TIMEOUT_HELP, 1},
	CLI_IDLE_OPTS(V(idle), V(on_idle)),
	{'h', "hostname", OPT_TEXT, V(hostname), "NAME", "host name in the new VM (default: its id)"},
	{'l', "label", OPT_LIST, V(labels), "NAME=VALUE", "note on the new VMs"},
	{'d', "detach", OPT_IGNORED, 0, NULL, NULL},
};
#undef V

static int report(struct cli *cli, struct sm_vm **children, size_t count, uint64_t pause_ns)
{
	struct sm_error err = {0};
	int status = 0;

	for (size_t i = 0; i < count; i++) {
		if (sm_vm_wait_started(children[i], 0, NULL, &err) < 0)
			status = cli_fail(cli, &err, NULL);
		else
			puts(sm_vm_id(children[i]));
		sm_vm_close(children[i]);
	}
	if (cli->verbosity >= 0)
		cli_say(cli, "the VM stood still for %.0f ms", (double)pause_ns / 1e6);
	return status;
}

static int branch(struct cli *cli, const struct restore_values *v, char **env, const struct cli_ports *ports,
		  const struct cli_mounts *mounts, const char *ref)
{
	struct sm_vm_options o = restore_options(v, env, ports, mounts);
	size_t count = v->count ? v->count : 1;
	struct sm_vm **children = calloc(count, sizeof(*children));
	struct sm_vm *vm = children ? cli_open_vm(cli, ref) : NULL;
	struct sm_error err = {0};
	uint64_t pause_ns = 0;
	int status = CLI_FAILED;

	o.detach = true;
	o.keep = !v->rm;
	if (vm && sm_vm_branch(vm, &o, count, children, &pause_ns, &err) < 0)
		status = cli_fail(cli, &err, NULL);
	else if (vm)
		status = report(cli, children, count, pause_ns);
	sm_vm_close(vm);
	free(children);
	return status;
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct restore_values *v = values;
	struct cli_ports ports = {0};
	struct cli_mounts mounts = {0};
	struct sm_error err = {0};
	char **env = NULL;
	int status = cli_ports_parse(cli, &v->ports, &v->reverse, &ports);

	if (status == 0 && cli_env(&v->env_file, &v->env, false, &env, &err) < 0)
		status = cli_fail(cli, &err, NULL);
	if (status == 0)
		status = cli_mounts_parse(cli, &v->volumes, &(struct opt_list){0}, &(struct opt_list){0}, &mounts);
	if (status == 0)
		status = restore_check_count(cli, v, &ports, &mounts);
	if (status == 0)
		status = branch(cli, v, env, &ports, &mounts, operands[0]);
	cli_env_free(env);
	cli_ports_free(&ports);
	cli_mounts_free(&mounts);
	return status;
}

static const char *const examples[] = {"branch web", "one more web, from here on its own",
				       "branch -n 10 --name try -p 0:80 web",
				       "try-1 to try-10, each with a port of its own", NULL};

const struct verb verb_branch = {
	.name = "branch",
	.operands = "VM",
	.summary = "Start new VMs that go on from where a running VM is",
	.details = "The VM goes on, and so does each new one, in the background, with its processes, memory, open "
		   "files and "
		   "disk as they are now; all of it is shared until one of them writes. Random numbers, clock, host "
		   "name and "
		   "ports are each one's own. Directories of the host (-v) are shared by all of them: what "
		   "one writes there the others see. Of its volumes each one has a disk of its own, for which they are "
		   "copied once, and -v NAME:DST puts a volume in the place of one.\n"
		   "The VM stands still for its state alone. What of its memory is its own is copied meanwhile, which "
		   "takes that much of free memory. Either all of them start or none.",
	.examples = examples,
	VERB_OPTS(options, struct restore_values),
	.min_operands = 1,
	.max_operands = 1,
	.completes = OPERAND_VM,
	.group = GROUP_RUN,
	.run = verb,
};
