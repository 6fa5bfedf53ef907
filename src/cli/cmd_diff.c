/* SPDX-License-Identifier: Apache-2.0 */
/* diff, apply: what a VM has changed, and taking that into a directory of the host. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "cli/cli.h"

static char letter(enum sm_change_kind kind)
{
	return kind == SM_CHANGE_ADDED ? 'A' : kind == SM_CHANGE_DELETED ? 'D' : kind == SM_CHANGE_REFUSED ? '!' : 'C';
}

static void print_change(const struct sm_change *c)
{
	printf("%c ", letter(c->kind));
	text_put(stdout, c->path);
	if (c->link[0]) {
		fputs(" -> ", stdout);
		text_put(stdout, c->link);
	}
	putchar('\n');
}

struct printer {
	struct cli *cli;
	struct json *json; /* NULL: lines */
	unsigned count, refused;
	bool quiet;
};

static int on_change(void *arg, const struct sm_change *c)
{
	struct printer *p = arg;
	char kind[2] = {letter(c->kind), '\0'};

	if (c->kind == SM_CHANGE_REFUSED) {
		p->refused++;
		cli_say(p->cli, "%s: a device is not made on this host", c->path);
		return 0;
	}
	p->count++;
	if (p->json) {
		json_open(p->json, NULL, '{');
		json_text(p->json, "kind", kind);
		json_text(p->json, "path", c->path);
		json_unsigned(p->json, "mode", c->mode);
		json_unsigned(p->json, "size", c->size);
		json_text(p->json, "link", c->link[0] ? c->link : NULL);
		json_close(p->json, '}');
	} else if (!p->quiet) {
		print_change(c);
	}
	return 0;
}

/* ------------------------------------------------------------------------------------------------------ diff */

struct diff_values {
	const char *format;
};

static const struct opt diff_options[] = {
	{0, "format", OPT_TEXT, offsetof(struct diff_values, format), "lines|json", "how to print",
	 .choices = "lines|json"},
};

static int diff_verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct diff_values *v = values;
	struct sm_diff_options o = SM_DIFF_OPTIONS_INIT;
	struct printer p = {.cli = cli};
	struct sm_error err = {0};
	struct json j = {0};
	struct sm_vm *vm = cli_open_vm(cli, operands[0]);
	int r;

	if (!vm)
		return CLI_FAILED;
	if (v->format && streq(v->format, "json"))
		p.json = &j;
	o.change = on_change;
	o.arg = &p;
	if (p.json)
		json_open(&j, NULL, '[');
	r = sm_vm_diff(vm, &o, &err);
	sm_vm_close(vm);
	if (r < 0) {
		json_done(&j);
		return cli_fail(cli, &err, r == -ESRCH ? "supermachine start lets it run again" : NULL);
	}
	if (!p.json)
		return 0;
	json_close(&j, ']');
	return cli_print_json(cli, &j);
}

static const char *const diff_examples[] = {"diff web", "what it has added (A), changed (C), deleted (D)", NULL};

const struct verb verb_diff = {
	.name = "diff",
	.operands = "VM",
	.summary = "List what a VM has changed of its image",
	.details = "A, C or D and the path: added, changed, deleted; also of each directory of the host that it has "
		   "with cow "
		   "(-v DIR:PATH:cow), which apply takes over. What is only in memory (tmpfs) is left out. "
		   "Also of a VM that has ended.",
	.examples = diff_examples,
	VERB_OPTS(diff_options, struct diff_values),
	.min_operands = 1,
	.max_operands = 1,
	.completes = OPERAND_VM,
	.group = GROUP_VMS,
	.run = diff_verb,
};

/* ----------------------------------------------------------------------------------------------------- apply */

struct apply_values {
	bool quiet;
};

static const struct opt apply_options[] = {
	{'q', "quiet", OPT_FLAG, offsetof(struct apply_values, quiet), NULL, "do not list what is applied"},
};

/* Without slashes at the end, which no path that is told has. */
static bool tidy(char **paths)
{
	for (; *paths; paths++) {
		size_t len = strlen(*paths);

		if ((*paths)[0] != '/')
			return false;
		while (len > 1 && (*paths)[len - 1] == '/')
			(*paths)[--len] = '\0';
	}
	return true;
}

static int apply_verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct apply_values *v = values;
	struct sm_diff_options o = SM_DIFF_OPTIONS_INIT;
	struct printer p = {.cli = cli, .quiet = v->quiet};
	struct sm_error err = {0};
	struct sm_vm *vm;
	int r;

	if (!tidy(operands + 1))
		return cli_usage(cli, "as supermachine diff prints them", "paths in the VM begin with /");
	vm = cli_open_vm(cli, operands[0]);
	if (!vm)
		return CLI_FAILED;
	o.change = on_change;
	o.arg = &p;
	r = sm_vm_apply(vm, operands[1] ? (const char *const *)operands + 1 : NULL, &o, &err);
	sm_vm_close(vm);
	if (r < 0)
		return cli_fail(cli, &err, r == -ESRCH ? "supermachine start lets it run again" : NULL);
	if (operands[1] && !p.count && !p.refused) {
		cli_say(cli, "%s has changed nothing of %s%s", operands[0], operands[1],
			operands[2] ? " or the others" : "");
		return CLI_FAILED;
	}
	return p.refused ? CLI_FAILED : 0;
}

static const char *const apply_examples[] = {"run -d --name work -v .:/src:cow image agent",
					     "lets something change its own view of this directory",
					     "diff work",
					     "what it did",
					     "apply work /src/main.c",
					     "take one file of that, or without a path all of it",
					     NULL};

const struct verb verb_apply = {
	.name = "apply",
	.operands = "VM [PATH...]",
	.summary = "Take what a VM has changed of a directory into this host's",
	.details =
		"Of directories that it has with cow (-v DIR:PATH:cow); PATH is as diff prints it, a file or all of a "
		"directory. What this host has there is replaced or removed. Files become the caller's, without set-id "
		"bits; devices are not made. Nothing outside of the directory is touched, but look at what you take: "
		"links, programs, .git/hooks.",
	.examples = apply_examples,
	VERB_OPTS(apply_options, struct apply_values),
	.min_operands = 1,
	.max_operands = -1,
	.completes = OPERAND_VM,
	.group = GROUP_VMS,
	.run = apply_verb,
};
