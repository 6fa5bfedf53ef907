/* SPDX-License-Identifier: Apache-2.0 */
/* commit: an image of what a VM has changed. */
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"

struct commit_values {
	const char *message, *author;
	struct opt_list changes;
	bool no_pause, quiet;
};

#define V(m) offsetof(struct commit_values, m)
static const struct opt options[] = {
	{'m', "message", OPT_TEXT, V(message), "TEXT", "what was done, for the image's history"},
	{'a', "author", OPT_TEXT, V(author), "NAME", "who has made it"},
	{'c', "change", OPT_LIST, V(changes), "INSTRUCTION",
	 "what the image is to have otherwise, as in a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, "
	 "USER, VOLUME or WORKDIR"},
	{'p', "pause", OPT_FLAG, V(no_pause), NULL,
	 "have its processes stand still while their files are read (so by default); with --pause=false they go on, "
	 "and "
	 "what they write meanwhile may be in the image or not",
	 1},
	{'q', "quiet", OPT_FLAG, V(quiet), NULL, "no progress"},
};
#undef V

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct commit_values *v = values;
	struct sm_commit_options o = SM_COMMIT_OPTIONS_INIT;
	struct sm_image *image = NULL;
	struct sm_error err = {0};
	struct sm_vm *vm;
	int r;

	vm = cli_open_vm(cli, operands[0]);
	if (!vm)
		return CLI_FAILED;
	o.message = v->message;
	o.author = v->author;
	o.changes = (const char *const *)v->changes.v;
	o.no_pause = v->no_pause;
	if (!v->quiet)
		o.progress = cli_progress(cli);
	r = sm_vm_commit(vm, count > 1 ? operands[1] : NULL, &o, &image, &err);
	cli_progress_clear(cli);
	sm_vm_close(vm);
	if (r < 0)
		return cli_fail(cli, &err, NULL);
	printf("sha256:%s\n", sm_image_info(image)->id);
	sm_image_close(image);
	return 0;
}

static const char *const examples[] = {"commit work demo:2", "an image of what work has made of its own",
				       "commit -c 'CMD [\"server\"]' -c 'ENV MODE=test' work demo:test",
				       "with another command and environment", NULL};

const struct verb verb_commit = {
	.name = "commit",
	.operands = "VM [IMAGE[:TAG]]",
	.summary = "Make an image of what a VM has changed",
	.details =
		"Its image and, as one layer more, what diff shows of its own file system, with owners, times and all "
		"attributes. What is mounted in it (volumes, directories of the host, secrets, tmpfs) is no part of "
		"it. The image has the VM's command, environment, user, working directory and labels, unless -c says "
		"otherwise. Also of a VM that has ended. Prints the image's id.",
	.examples = examples,
	VERB_OPTS(options, struct commit_values),
	.min_operands = 1,
	.max_operands = 2,
	.completes = OPERAND_VM,
	.group = GROUP_VMS,
	.run = verb,
};
