/* SPDX-License-Identifier: Apache-2.0 */
/* restore: a new VM that goes on from a snapshot of another. */
#include "cli/restore.h"

#include "base/util.h"
#include "cli/session.h"

#define V(m) offsetof(struct restore_values, m)
static const struct opt options[] = {
	{'n', "count", OPT_NUMBER, V(count), "N",
	 "so many VMs; with -d, and --name NAME names them NAME-1, NAME-2, ...", 1, 1000},
	{'i', "interactive", OPT_FLAG, V(interactive), NULL,
	 "pass standard input on, if the saved VM's command has one"},
	{'t', "tty", OPT_IGNORED, 0, NULL, NULL},
	{'d', "detach", OPT_FLAG, V(detach), NULL, "leave it running; print the VM's id; implies --keep"},
	{0, "name", OPT_TEXT, V(name), "NAME", "name of the VM; implies --keep"},
	{0, "keep", OPT_FLAG, V(keep), NULL, "keep the VM and its disk when the command ends"},
	{0, "rm", OPT_FLAG, V(rm), NULL, "remove the VM when it ends, also with --name or -d"},
	{'e', "env", OPT_LIST, V(env), "NAME[=VALUE]", "set an environment variable for commands of exec"},
	{0, "env-file", OPT_LIST, V(env_file), "FILE", "the same from the lines of a file"},
	{'v', "volume", OPT_LIST, V(volumes), "SRC:DST[:ro]", RESTORE_VOLUME_HELP},
	{0, "audit", OPT_TEXT, V(audit), "FILE", CLI_AUDIT_HELP("its mounts")},
	{'p', "publish", OPT_LIST, V(ports), "[ADDR:]HOST:GUEST",
	 "a TCP port of this host that leads to one in the VM; HOST 0: a free one, which supermachine port shows"},
	{0, "reverse", OPT_LIST, V(reverse), "GUEST:[ADDR:]HOST",
	 "a port or socket of the VM leads to one of this host (may be repeated)"},
	{0, "timeout", OPT_DURATION, V(timeout), "TIME", "end the command after so long from now on: status 124"},
	{0, "ttl", OPT_DURATION, V(ttl), "TIME", CLI_TTL_HELP, 1},
	{0, "start-timeout", OPT_DURATION, V(start_timeout), "TIME", CLI_START_TIMEOUT_HELP, 1},
	CLI_IDLE_OPTS(V(idle), V(on_idle)),
	{'h', "hostname", OPT_TEXT, V(hostname), "NAME", "host name in the VM (default: its id)"},
	{'l', "label", OPT_LIST, V(labels), "NAME=VALUE", "note on the VM"},
	{0, "outcome", OPT_TEXT, V(outcome), "FILE", "write how it ended as JSON: status, reason, durations"},
};
#undef V

/* What the function holds while it works. */
struct restore {
	struct cli *cli;
	const struct restore_values *v;
	const char *snapshot;
	char **env;
	struct cli_ports ports;
	struct cli_mounts mounts;
	struct session session;
	struct sm_vm *vm;
	struct sm_exec *exec;
	struct sm_outcome outcome;
};

enum sm_on_idle cli_on_idle(const char *text)
{
	return !text || streq(text, "stop") ? SM_ON_IDLE_STOP
	       : streq(text, "suspend")	    ? SM_ON_IDLE_SUSPEND
					    : SM_ON_IDLE_KILL;
}

struct sm_vm_options restore_options(const struct restore_values *v, char **env, const struct cli_ports *ports,
				     const struct cli_mounts *mounts)
{
	struct sm_vm_options o = SM_VM_OPTIONS_INIT;

	o.name = v->name;
	o.hostname = v->hostname;
	o.keep = !v->rm && (v->keep || v->name || v->detach);
	o.detach = v->detach;
	o.labels = v->labels.v;
	o.env = (const char *const *)env;
	o.ports = ports->v;
	o.num_ports = ports->n;
	o.mounts = mounts->v;
	o.num_mounts = mounts->n;
	o.timeout_ns = v->command ? 0 : v->timeout;
	o.ttl_ns = v->ttl;
	o.start_timeout_ns = v->start_timeout;
	o.idle_ns = v->idle;
	o.on_idle = cli_on_idle(v->on_idle);
	o.audit = v->audit;
	return o;
}

/* number: of several, from 1; 0: the only one. */
static int start(struct restore *r, unsigned number, struct sm_error *err)
{
	struct sm_vm_options o = restore_options(r->v, r->env, &r->ports, &r->mounts);
	char name[128];
	int e;

	snprintf(name, sizeof(name), "%.100s-%u", o.name ? o.name : "", number);
	if (o.name && number)
		o.name = name;
	o.snapshot = r->snapshot;
	o.background = r->v->command && !o.detach;
	o.progress = cli_progress(r->cli);
	e = sm_vm_start(r->cli->client, &o, &r->vm, err);
	cli_progress_clear(r->cli);
	return e;
}

static int detached(struct restore *r)
{
	struct sm_error err = {0};

	if (sm_vm_wait_started(r->vm, 0, NULL, &err) < 0) {
		sm_vm_remove(r->vm, true, NULL);
		return cli_fail(r->cli, &err, NULL);
	}
	puts(sm_vm_id(r->vm));
	return 0;
}

static int ended(struct restore *r, uint64_t memory, uint64_t disk)
{
	struct sm_error err = {0};
	int status, unwritten = 0;

	if (r->v->outcome && cli_outcome_write(r->v->outcome, r->snapshot, sm_vm_id(r->vm), &r->outcome, &err) < 0)
		unwritten = cli_fail(r->cli, &err, "");
	status = cli_outcome(r->cli, &r->outcome, memory, disk);
	return status ? status : unwritten;
}

/* A command beside the one that the VM was saved with; the VM is gone when it has ended. */
static int command(struct restore *r)
{
	struct sm_exec_options o = SM_EXEC_OPTIONS_INIT;
	struct sm_error err = {0};
	int e = session_streams(&r->session, r->v->interactive, r->v->tty, false, &o, &err);

	o.argv = (const char *const *)r->v->command;
	o.env = (const char *const *)r->env;
	o.cwd = r->v->workdir;
	o.user = r->v->user;
	o.timeout_ns = r->v->timeout;
	e = e < 0 ? e : sm_vm_exec(r->vm, &o, &r->exec, &err);
	if (e < 0)
		return cli_fail(r->cli, &err, NULL);
	session_started(&r->session, r->exec);
	if (session_wait(&r->session, r->exec, &r->outcome, &err) < 0)
		return cli_fail(r->cli, &err, NULL);
	return ended(r, 0, 0);
}

/* As the VM was started that was saved: with a terminal or without. */
static int foreground(struct restore *r)
{
	struct sm_exec_options streams = SM_EXEC_OPTIONS_INIT;
	struct sm_vm_info *info = NULL;
	struct sm_error err = {0};
	uint64_t memory = 0, disk = 0;
	int e = sm_vm_query(r->vm, &info, &err);

	if (e >= 0) {
		memory = info->memory;
		disk = info->disk_size;
		e = session_streams(&r->session, r->v->interactive && info->stdin_open, info->tty && r->v->interactive,
				    true, &streams, &err);
	}
	sm_vm_info_free(info);
	r->session.owned = r->vm;
	if (e >= 0)
		e = sm_vm_attach(r->vm, &streams, &r->exec, &err);
	if (e < 0)
		return cli_fail(r->cli, &err, NULL);
	if (sm_vm_wait_started(r->vm, 0, NULL, NULL) == 0)
		session_started(&r->session, r->exec);
	e = session_wait(&r->session, r->exec, &r->outcome, &err);
	if (session_was_left(&r->session, e, r->v->name ? r->v->name : sm_vm_id(r->vm)))
		return 0;
	return e < 0 ? cli_fail(r->cli, &err, NULL) : ended(r, memory, disk);
}

/* Those that have started stay when a later one cannot. */
static int run(struct restore *r)
{
	unsigned count = r->v->count > 1 ? (unsigned)r->v->count : 1;
	struct sm_error err = {0};
	int status = 0;

	if (cli_env(&r->v->env_file, &r->v->env, false, &r->env, &err) < 0)
		return cli_fail(r->cli, &err, NULL);
	if (!cli_client(r->cli))
		return CLI_FAILED;
	for (unsigned i = 1; i <= count && status == 0; i++) {
		r->vm = sm_vm_close(r->vm);
		if (start(r, count > 1 ? i : 0, &err) < 0)
			return cli_fail(r->cli, &err,
					err.kind == SM_ERROR_NOT_FOUND ? "supermachine snapshots lists them" : NULL);
		status = r->v->detach ? detached(r) : r->v->command ? command(r) : foreground(r);
	}
	return status;
}

int restore_check_count(struct cli *cli, const struct restore_values *v, const struct cli_ports *ports,
			const struct cli_mounts *mounts)
{
	if (v->count <= 1)
		return 0;
	if (v->hostname)
		return cli_usage(cli, NULL, "several VMs cannot have one host name");
	for (size_t i = 0; i < ports->n; i++)
		if (!ports->v[i].reverse && (ports->v[i].host_port || ports->v[i].host_path))
			return cli_usage(cli, "-p 0:GUEST takes a free one for each", "several VMs cannot have port %u",
					 ports->v[i].host_port);
	for (size_t i = 0; i < mounts->n; i++)
		if (mounts->v[i].volume && *mounts->v[i].volume && !mounts->v[i].read_only)
			return cli_usage(cli, "any number of them may read it: -v NAME:DST:ro",
					 "several VMs cannot have volume %s", mounts->v[i].volume);
	return 0;
}

int restore_vm(struct cli *cli, const struct restore_values *v, const char *snapshot)
{
	struct restore r = {.cli = cli, .v = v, .snapshot = snapshot, .outcome = SM_OUTCOME_INIT};
	struct sm_error err = {0};
	int status;

	if (v->rm && v->keep)
		return cli_usage(cli, NULL, "--rm and --keep exclude each other");
	if (v->detach && v->outcome)
		return cli_usage(cli, "later: supermachine inspect VM", "--outcome needs a run that waits, not -d");
	if (v->count > 1 && !v->detach)
		return cli_usage(cli, NULL, "several VMs run in the background: -n goes with -d");
	status = cli_outcome_check(cli, v->outcome);
	if (status == 0)
		status = cli_ports_parse(cli, &v->ports, &v->reverse, &r.ports);
	if (status == 0)
		status = cli_mounts_parse(cli, &v->volumes, &(struct opt_list){0}, &(struct opt_list){0}, &r.mounts);
	if (status == 0)
		status = restore_check_count(cli, v, &r.ports, &r.mounts);
	if (status == 0 && session_begin(&r.session, cli, &err) < 0)
		status = cli_fail(cli, &err, NULL);
	if (status == 0) {
		status = run(&r);
		session_end(&r.session);
	}
	sm_exec_close(r.exec);
	sm_vm_close(r.vm);
	cli_env_free(r.env);
	cli_ports_free(&r.ports);
	cli_mounts_free(&r.mounts);
	return status;
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	return restore_vm(cli, values, operands[0]);
}

static const char *const examples[] = {"restore warm",
				       "goes on here, with its output",
				       "restore -d --name second warm",
				       "in the background",
				       "restore -d -n 3 --name web -p 0:80 warm",
				       "web-1, web-2 and web-3, each with a port of its own",
				       NULL};

const struct verb verb_restore = {
	.name = "restore",
	.operands = "SNAPSHOT",
	.summary = "Start new VMs that go on from a snapshot",
	.details =
		"Its command goes on where it was when supermachine snapshot saved it, and its output and exit status "
		"come here. Random numbers, clock, host name and disk are its own. Commands that had been run by exec "
		"and whose client is not there are killed. A limit on the command's time, the saved VM's unless "
		"--timeout is given, is counted anew. The ports of the saved VM stay its own. "
		"Directories of the host (-v) are there as they are now: files that are other files than then are "
		"looked up anew, and what was open and is gone fails with EBADF. Of volumes it has disks of its own, "
		"as they were then; -v NAME:DST puts a volume in the place of one, or where there was none.",
	.examples = examples,
	VERB_OPTS(options, struct restore_values),
	.min_operands = 1,
	.max_operands = 1,
	.completes = OPERAND_SNAPSHOT,
	.group = GROUP_RUN,
	.run = verb,
};
