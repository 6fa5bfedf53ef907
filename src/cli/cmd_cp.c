/* SPDX-License-Identifier: Apache-2.0 */
/* cp: files between this host and a VM. */
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "cli/cli.h"

struct cp_values {
	bool archive, follow;
};

#define V(m) offsetof(struct cp_values, m)
static const struct opt options[] = {
	{'a', "archive", OPT_FLAG, V(archive), NULL, "keep owners and set-id bits (on the host: root alone may)"},
	{'L', "follow-link", OPT_FLAG, V(follow), NULL, "copy what SRC leads to, if it is a symbolic link"},
	{'q', "quiet", OPT_IGNORED, 0, NULL, NULL},
};
#undef V

/* "VM:PATH", as docker has it: what begins with / or . or has a slash before the colon is a path of this host. */
static const char *split(char *operand)
{
	char *colon = strchr(operand, ':'), *slash = strchr(operand, '/');

	if (operand[0] == '.' || operand[0] == '/' || !colon || (slash && slash < colon))
		return NULL;
	*colon = '\0';
	return colon + 1;
}

/* Signals that end this program are to end the copy, and no more. -1: they do as ever. */
static int watch_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	return sigprocmask(SIG_BLOCK, &set, NULL) < 0 ? -1 : signalfd(-1, &set, SFD_CLOEXEC);
}

/* As every other verb ends that a signal ends. */
static int cancelled(struct cli *cli, int signals, const struct sm_error *err)
{
	struct signalfd_siginfo info;
	int status = cli_fail(cli, err, NULL);

	return read(signals, &info, sizeof(info)) == sizeof(info) ? 128 + (int)info.ssi_signo : status;
}

static int copy(struct cli *cli, const struct cp_values *v, const char *ref, const char *from, const char *to,
		bool out_of_vm)
{
	struct sm_copy_options o = SM_COPY_OPTIONS_INIT;
	_fd_ int signals = watch_signals();
	bool tar = streq(out_of_vm ? to : from, "-");
	struct sm_error err = {0};
	struct sm_vm *vm;
	int r;

	if (tar && isatty(out_of_vm ? STDOUT_FILENO : STDIN_FILENO))
		return cli_usage(cli, "redirect it, or give a path", "a tar stream does not go %s a terminal",
				 out_of_vm ? "to" : "from");
	vm = cli_open_vm(cli, ref);
	if (!vm)
		return CLI_FAILED;
	o.follow = v->follow;
	o.keep_ids = v->archive;
	o.cancel_fd = signals;
	o.progress = cli_progress(cli);
	o.tar_fd = tar ? (out_of_vm ? STDOUT_FILENO : STDIN_FILENO) : -1;
	r = out_of_vm ? sm_vm_copy_from(vm, from, tar ? NULL : to, &o, &err)
		      : sm_vm_copy_to(vm, tar ? NULL : from, to, &o, &err);
	cli_progress_clear(cli);
	sm_vm_close(vm);
	if (r >= 0)
		return 0;
	return r == -ECANCELED ? cancelled(cli, signals, &err) : cli_fail(cli, &err, NULL);
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	const char *from = split(operands[0]), *to = split(operands[1]);

	if (from && to)
		return cli_usage(cli, "copy to this host in between", "from one VM to another at once is not possible");
	if (!from && !to)
		return cli_usage(cli, "write it as VM:PATH", "one of the two has to be in a VM");
	if (from && !*from)
		return cli_usage(cli, NULL, "no path behind '%s:'", operands[0]);
	if (to && !*to)
		return cli_usage(cli, NULL, "no path behind '%s:'", operands[1]);
	return from ? copy(cli, values, operands[0], from, operands[1], true)
		    : copy(cli, values, operands[1], operands[0], to, false);
}

static const char *const examples[] = {"cp web:/var/log ./logs",
				       "a directory out of a VM",
				       "cp ./site/. web:/srv/www",
				       "what is in a directory, into one",
				       "cp web:/etc - | tar tv",
				       "as a tar stream",
				       NULL};

const struct verb verb_cp = {
	.name = "cp",
	.operands = "SRC DST",
	.summary = "Copy files between this host and a VM",
	.details =
		"One of SRC and DST is VM:PATH. Rules as docker's: into DST if it is a directory, else as DST, whose "
		"parent must be there; SRC/. means what is in SRC. - is a tar stream on standard output, or from "
		"standard input into a directory.\n"
		"A VM that has ended gives and takes files too, from its disk, for which it is not started.\n"
		"Modes, times, links and holes are kept. What is copied belongs to you, in the VM to root, unless -a "
		"is given.",
	.examples = examples,
	VERB_OPTS(options, struct cp_values),
	.min_operands = 2,
	.max_operands = 2,
	.completes = OPERAND_COPY,
	.group = GROUP_VMS,
	.run = verb,
};
