/* SPDX-License-Identifier: Apache-2.0 */
/* watch: what happens to files of a VM. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"

struct watch_values {
	const char *format;
	uint64_t count;
	bool recursive;
};

#define V(m) offsetof(struct watch_values, m)
static const struct opt options[] = {
	{'r', "recursive", OPT_FLAG, V(recursive), NULL, "also all directories beneath"},
	{'n', "count", OPT_NUMBER, V(count), "N", "end after N events", 1},
	{0, "format", OPT_TEXT, V(format), "lines|json", "how to print", .choices = "lines|json"},
};
#undef V

struct printer {
	bool json;
	uint64_t left; /* 0: no end */
};

static void print_json(const struct sm_file_event *e)
{
	struct json j = {.compact = true};

	json_open(&j, NULL, '{');
	json_text(&j, "event", sm_file_event_name(e->kind));
	json_text(&j, "path", e->path);
	json_text(&j, "to", e->to[0] ? e->to : NULL);
	json_bool(&j, "directory", e->directory);
	json_close(&j, '}');
	if (!j.out.error)
		fwrite(j.out.data, 1, j.out.len, stdout);
	json_done(&j);
}

static void print_line(const struct sm_file_event *e)
{
	printf("%-10s ", sm_file_event_name(e->kind));
	text_put(stdout, e->path);
	if (e->to[0]) {
		fputs(" -> ", stdout);
		text_put(stdout, e->to);
	}
	putchar('\n');
}

static int on_event(void *arg, const struct sm_file_event *e)
{
	struct printer *p = arg;

	if (p->json)
		print_json(e);
	else
		print_line(e);
	/* Somebody may wait for it; who has gone is told by the next write. */
	return fflush(stdout) || (p->left && --p->left == 0);
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct watch_values *v = values;
	struct sm_watch_options o = SM_WATCH_OPTIONS_INIT;
	struct printer p = {.json = v->format && streq(v->format, "json"), .left = v->count};
	struct sm_watch *watch = NULL;
	struct sm_error err = {0};
	struct sm_vm *vm = cli_open_vm(cli, operands[0]);
	int r;

	if (!vm)
		return CLI_FAILED;
	o.recursive = v->recursive;
	o.event = on_event;
	o.arg = &p;
	r = sm_vm_watch(vm, operands[1], &o, &watch, &err);
	while (r >= 0)
		r = sm_watch_next(watch, -1, &err);
	sm_watch_close(watch);
	sm_vm_close(vm);
	return r == -ECANCELED ? 0 : cli_fail(cli, &err, r == -ESRCH ? "supermachine start lets it run again" : NULL);
}

static const char *const examples[] = {"watch -r web /srv",
				       "everything that changes in there",
				       "watch -n 1 build /out/done",
				       "waits for the next change of that file",
				       "watch --format json work / | jq .path",
				       "an object a line",
				       NULL};

const struct verb verb_watch = {
	.name = "watch",
	.operands = "VM PATH",
	.summary = "Show what happens to files of a VM",
	.details =
		"Of a file, or of a directory and what is in it: created, modified, deleted, moved, attributes (mode, "
		"owner, times, names), overflow (more than could be told). Goes on until it is interrupted, -n, what "
		"is "
		"watched is gone, or the VM ends (status 125).",
	.examples = examples,
	VERB_OPTS(options, struct watch_values),
	.min_operands = 2,
	.max_operands = 2,
	.completes = OPERAND_VM,
	.group = GROUP_VMS,
	.run = verb,
};
