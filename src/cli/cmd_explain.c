/* SPDX-License-Identifier: Apache-2.0 */
/* explain: why a VM's last run was slow or ended, in words. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "cli/cli.h"
#include "cli/explain.h"

#define TAIL_LINES 5

struct reader {
	struct explain_events sum;
	const char *id;
};

static int on_event(void *arg, const struct sm_event *e)
{
	struct reader *r = arg;

	if (streq(e->type, "vm") && streq(e->id, r->id))
		explain_event(&r->sum, e);
	return 0;
}

/* What the command printed last; its bytes pass through a file of memory, since that is what the library writes to. */
static void print_log(struct sm_vm *vm)
{
	struct sm_logs_options o = SM_LOGS_OPTIONS_INIT;
	_fd_ int fd = memfd_create("log", MFD_CLOEXEC);
	char text[8192];
	off_t size;
	ssize_t n;

	o.tail = TAIL_LINES;
	o.stdout_fd = o.stderr_fd = fd;
	if (fd < 0 || sm_vm_logs(vm, &o, NULL) < 0)
		return;
	size = lseek(fd, 0, SEEK_END);
	n = pread(fd, text, sizeof(text) - 1, MAX(size - (off_t)sizeof(text) + 1, 0));
	if (n <= 0)
		return;
	text[n] = '\0';
	explain_tail(stdout, "The last that it printed:", text, TAIL_LINES);
}

static void print_console(struct sm_vm *vm)
{
	char *text = NULL;

	if (sm_vm_console(vm, &text, NULL) < 0)
		return;
	explain_tail(stdout, "The last that its kernel printed:", text, TAIL_LINES);
	sm_free(text);
}

/* The kernel's words where there may be no command's, and only of what went wrong. */
static void print_tail(struct sm_vm *vm, const struct sm_outcome *o)
{
	switch (o->reason) {
	case SM_REASON_GUEST_PANIC:
	case SM_REASON_START_FAILED:
	case SM_REASON_MONITOR_DIED:
		print_console(vm);
		break;
	default:
		if (o->status)
			print_log(vm);
	}
}

static int explain(struct cli *cli, struct sm_vm *vm)
{
	struct sm_events_options o = SM_EVENTS_OPTIONS_INIT;
	struct sm_vm_info *info = NULL;
	struct sm_error err = {0};
	struct reader r = {0};

	if (sm_vm_query(vm, &info, &err) < 0)
		return cli_fail(cli, &err, NULL);
	r.id = info->id;
	o.since_ns = MAX(info->created_ns, 1);
	o.event = on_event;
	o.arg = &r;
	if (sm_events(cli->client, &o, &err) < 0)
		cli_fail(cli, &err, NULL); /* the rest is worth telling */
	explain_put(stdout, info, &r.sum, text_now());
	if (info->state == SM_VM_EXITED)
		print_tail(vm, &info->outcome);
	sm_vm_info_free(info);
	return 0;
}

/* The VM that was made last; NULL after having said that there is none. */
static struct sm_vm *newest(struct cli *cli)
{
	struct sm_vm_info **list = NULL;
	struct sm_error err = {0};
	struct sm_vm *vm = NULL;
	size_t count = 0;

	if (sm_vm_list(cli->client, true, &list, &count, &err) < 0) {
		cli_fail(cli, &err, NULL);
		return NULL;
	}
	if (count)
		vm = cli_open_vm(cli, list[0]->id);
	else
		cli_say(cli, "there is no VM: run --keep keeps one when its command ends");
	sm_vm_list_free(list, count);
	return vm;
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	struct sm_vm *vm;
	int status;

	if (!cli_client(cli))
		return CLI_FAILED;
	vm = count ? cli_open_vm(cli, operands[0]) : newest(cli);
	if (!vm)
		return CLI_FAILED;
	status = explain(cli, vm);
	sm_vm_close(vm);
	return status;
}

static const char *const examples[] = {"explain", "the VM that was made last", "explain web", "that one", NULL};

const struct verb verb_explain = {
	.name = "explain",
	.operands = "[VM]",
	.summary = "Tell why a VM's last run ended, and where its time went",
	.details =
		"Each sentence is something recorded: how it ended, what happened to it, how long the steps of its "
		"start "
		"took, and the last lines that it printed where it failed. A VM is there to be asked about when it was "
		"run with --keep, --name or -d.",
	.examples = examples,
	.max_operands = 1,
	.completes = OPERAND_VM,
	.group = GROUP_VMS,
	.run = verb,
};
