/* SPDX-License-Identifier: Apache-2.0 */
/* restore: a new VM that goes on from a snapshot of another. */
#include "cli/restore.h"

#include "base/util.h"
#include "cli/session.h"

#define V(m) offsetof(struct restore_values, m)
static const struct opt options[] = {
	{'i', "interactive", OPT_FLAG, V(interactive), NULL,
	 "pass standard input on, if the saved VM's command has one"},
	{'t', "tty", OPT_IGNORED, 0, NULL, NULL},
	{'d', "detach", OPT_FLAG, V(detach), NULL, "leave it running; print the VM's id; implies --keep"},
	{'n', "name", OPT_TEXT, V(name), "NAME", "name of the VM; implies --keep"},
	{0, "keep", OPT_FLAG, V(keep), NULL, "keep the VM and its disk when the command ends"},
	{0, "rm", OPT_FLAG, V(rm), NULL, "remove the VM when it ends, also with --name or -d"},
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
	struct session session;
	struct sm_vm *vm;
	struct sm_exec *exec;
	struct sm_outcome outcome;
};

static int start(struct restore *r, struct sm_error *err)
{
	const struct restore_values *v = r->v;
	struct sm_vm_options o = SM_VM_OPTIONS_INIT;
	int e;

	o.snapshot = r->snapshot;
	o.name = v->name;
	o.hostname = v->hostname;
	o.keep = !v->rm && (v->keep || v->name || v->detach);
	o.detach = v->detach;
	o.labels = v->labels.v;
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
				    false, &streams, &err);
	}
	sm_vm_info_free(info);
	if (e >= 0)
		e = sm_vm_attach(r->vm, &streams, &r->exec, &err);
	if (e < 0)
		return cli_fail(r->cli, &err, NULL);
	if (sm_vm_wait_started(r->vm, 0, NULL, NULL) == 0)
		session_started(&r->session, r->exec);
	if (session_wait(&r->session, r->exec, &r->outcome, &err) < 0)
		return cli_fail(r->cli, &err, NULL);
	if (r->v->outcome && cli_outcome_write(r->v->outcome, r->snapshot, sm_vm_id(r->vm), &r->outcome, &err) < 0)
		cli_fail(r->cli, &err, "");
	return cli_outcome(r->cli, &r->outcome, memory, disk);
}

static int run(struct restore *r)
{
	struct sm_error err = {0};

	if (!cli_client(r->cli))
		return CLI_FAILED;
	if (start(r, &err) < 0)
		return cli_fail(r->cli, &err,
				err.kind == SM_ERROR_NOT_FOUND ? "supermachine snapshots lists them" : NULL);
	return r->v->detach ? detached(r) : foreground(r);
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
	if (session_begin(&r.session, cli, &err) < 0)
		return cli_fail(cli, &err, NULL);
	status = run(&r);
	session_end(&r.session);
	sm_exec_close(r.exec);
	sm_vm_close(r.vm);
	return status;
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	return restore_vm(cli, values, operands[0]);
}

static const char *const examples[] = {"restore warm", "goes on here, with its output", "restore -d --name second warm",
				       "in the background", NULL};

const struct verb verb_restore = {
	.name = "restore",
	.operands = "SNAPSHOT",
	.summary = "Start a new VM that goes on from a snapshot",
	.details =
		"Its command goes on where it was when supermachine snapshot saved it, and its output and exit status "
		"come here. Random numbers, clock, host name and disk are its own. Commands that had been run by exec "
		"and "
		"whose client is not there are killed.",
	.examples = examples,
	VERB_OPTS(options, struct restore_values),
	.min_operands = 1,
	.max_operands = 1,
	.completes = OPERAND_SNAPSHOT,
	.group = GROUP_RUN,
	.run = verb,
};
