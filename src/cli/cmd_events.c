/* SPDX-License-Identifier: Apache-2.0 */
/* events: what happens to VMs and images. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "cli/cli.h"
#include "cli/filter.h"
#include "cli/template.h"

struct events_values {
	const char *since, *until, *format;
	struct opt_list filter;
};

#define V(m) offsetof(struct events_values, m)
static const struct opt options[] = {
	{0, "since", OPT_TEXT, V(since), "TIME",
	 "also what has happened from then on: 10m (ago), 2026-01-31T12:00:00Z, or seconds since 1970"},
	{0, "until", OPT_TEXT, V(until), "TIME", "end there, in the same words"},
	{'f', "filter", OPT_LIST, V(filter), "KEY=VALUE", "only these: event=, vm=, image=, label=, type="},
	{0, "format", OPT_TEXT, V(format), "json|TEMPLATE", "how to print: JSON, or fields as in {{.Action}} {{.ID}}",
	 .choices = "json", .open = true},
};
#undef V

struct printer {
	struct cli *cli;
	const struct events_values *v;
	int status;
};

/* -------------------------------------------------------------------------------------------- filters */

static bool is_event(const void *item, const char *wanted)
{
	const struct sm_event *e = item;

	return streq(e->action, wanted);
}

/* docker calls a VM a container. */
static bool is_type(const void *item, const char *wanted)
{
	const struct sm_event *e = item;

	return streq(e->type, streq(wanted, "container") ? "vm" : wanted);
}

static bool is_vm(const void *item, const char *wanted)
{
	const struct sm_event *e = item;

	return streq(e->type, "vm") && (streq(e->name, wanted) || (strlen(wanted) >= 4 && str_starts(e->id, wanted)));
}

static bool is_image(const void *item, const char *wanted)
{
	const struct sm_event *e = item;

	return streq(e->image, wanted) ||
	       (streq(e->type, "image") &&
		(streq(e->name, wanted) || (strlen(wanted) >= 4 && str_starts(e->id, wanted))));
}

static bool has_label(const void *item, const char *wanted)
{
	return filter_has_label(((const struct sm_event *)item)->labels, wanted);
}

static const struct filter filters[] = {
	{"event", is_event}, {"vm", is_vm},	   {"container", is_vm},
	{"image", is_image}, {"label", has_label}, {"type", is_type},
};

/* -------------------------------------------------------------------------------------------- printing */

static const char *time_text(int64_t ns, char text[static 48])
{
	time_t s = (time_t)(ns / 1000000000);
	char day[32] = "";
	struct tm tm;

	if (gmtime_r(&s, &tm))
		strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text, 48, "%s.%09lldZ", day, (long long)(ns % 1000000000));
	return text;
}

static void put_attribute(bool *more, const char *key, const char *value)
{
	fputs(*more ? ", " : " (", stdout);
	*more = true;
	text_put(stdout, key);
	if (value) {
		putchar('=');
		text_put(stdout, value);
	}
}

/* As docker has it: 2026-01-31T12:00:00.000000000Z vm die 0123456789ab (exitCode=0, image=box, name=web) */
static void print_line(const struct sm_event *e)
{
	bool more = false;
	char text[48];

	printf("%s ", time_text(e->time_ns, text));
	text_put(stdout, e->type);
	putchar(' ');
	text_put(stdout, e->action);
	putchar(' ');
	printf("%.12s", e->id);
	for (const char *const *a = e->attributes; a && *a; a++)
		put_attribute(&more, *a, NULL);
	if (e->image[0])
		put_attribute(&more, "image", e->image);
	if (e->name[0])
		put_attribute(&more, "name", e->name);
	for (const char *const *l = e->labels; l && *l; l++)
		put_attribute(&more, *l, NULL);
	puts(more ? ")" : "");
}

static void put_pairs(struct json *j, const char *key, const char *const *pairs)
{
	json_open(j, key, '{');
	for (; pairs && *pairs; pairs++) {
		const char *equals = strchr(*pairs, '=');
		_free_ char *name = strndup(*pairs, equals ? (size_t)(equals - *pairs) : strlen(*pairs));

		if (name)
			json_pair(j, name, equals ? equals + 1 : "");
	}
	json_close(j, '}');
}

static void print_json(const struct sm_event *e)
{
	struct json j = {.compact = true};
	char text[48];

	json_open(&j, NULL, '{');
	json_text(&j, "time", time_text(e->time_ns, text));
	json_number(&j, "time_ns", e->time_ns);
	json_text(&j, "type", e->type);
	json_text(&j, "action", e->action);
	json_text(&j, "id", e->id);
	json_text(&j, "name", e->name);
	json_text(&j, "image", e->image);
	put_pairs(&j, "attributes", e->attributes);
	put_pairs(&j, "labels", e->labels);
	json_close(&j, '}');
	if (!j.out.error)
		fwrite(j.out.data, 1, j.out.len, stdout);
	json_done(&j);
}

static void get_field(const void *row, const char *name, struct template_value *v)
{
	const struct sm_event *e = row;
	struct buf *b = &v->text;
	char text[48];

	if (streq(name, "Time") || streq(name, "TimeNano")) {
		buf_printf(b, "%lld", (long long)(e->time_ns / (streq(name, "Time") ? 1000000000 : 1)));
		v->raw = true;
	} else if (streq(name, "At")) {
		buf_printf(b, "%s", time_text(e->time_ns, text));
	} else if (streq(name, "Type")) {
		buf_printf(b, "%s", e->type);
	} else if (streq(name, "Action") || streq(name, "Status")) {
		buf_printf(b, "%s", e->action);
	} else if (streq(name, "ID") || streq(name, "Actor.ID")) {
		buf_printf(b, "%.12s", e->id);
	} else if (streq(name, "Name")) {
		buf_printf(b, "%s", e->name);
	} else if (streq(name, "Image") || streq(name, "From")) {
		buf_printf(b, "%s", e->image);
	} else {
		template_put_list(v, streq(name, "Labels") ? e->labels : e->attributes, true);
	}
}

static const struct template_fields fields = {
	.names =
		(const struct template_name[]){
			{"Time", NULL},
			{"TimeNano", NULL},
			{"At", NULL},
			{"Type", NULL},
			{"Action", NULL},
			{"Status", NULL},
			{"ID", NULL},
			{"Actor.ID", NULL},
			{"Actor.Attributes", NULL},
			{"Name", NULL},
			{"Image", NULL},
			{"From", NULL},
			{"Labels", NULL},
			{NULL, NULL},
		},
	.get = get_field,
};

static int print_template(struct printer *p, const struct sm_event *e)
{
	_cleanup_(buf_done) struct buf b = {0};
	_free_ char *clean = NULL;
	char what[TEMPLATE_WHAT];

	if (template_expand(p->v->format, e, &fields, &b, what) < 0) {
		p->status =
			cli_usage(p->cli, "fields: Time TimeNano At Type Action ID Name Image Labels Actor.Attributes",
				  "--format: %s", what);
		return 1;
	}
	buf_put_u8(&b, 0);
	clean = b.error ? NULL : text_clean((const char *)b.data);
	puts(clean ? clean : "");
	return 0;
}

static int on_event(void *arg, const struct sm_event *e)
{
	struct printer *p = arg;
	int stop = 0;

	if (!filters_pass(filters, ARRAY_SIZE(filters), &p->v->filter, e))
		return 0;
	if (p->v->format && template_is(p->v->format))
		stop = print_template(p, e);
	else if (p->v->format)
		print_json(e);
	else
		print_line(e);
	/* Somebody may wait for it; who has gone is told by the next write. */
	return fflush(stdout) || stop;
}

/* ---------------------------------------------------------------------------------------------- verb */

static int time_option(struct cli *cli, const char *name, const char *value, int64_t *ret)
{
	if (!value || text_time(value, text_now(), ret) >= 0)
		return 0;
	return cli_usage(cli, "10m, 2026-01-31T12:00:00Z", "--%s wants a time, not '%s'", name, value);
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct events_values *v = values;
	struct sm_events_options o = SM_EVENTS_OPTIONS_INIT;
	struct printer p = {.cli = cli, .v = v};
	struct sm_error err = {0};
	int status;

	status = time_option(cli, "since", v->since, &o.since_ns);
	if (!status)
		status = time_option(cli, "until", v->until, &o.until_ns);
	if (!status)
		status = filters_check(cli, filters, ARRAY_SIZE(filters), &v->filter,
				       "event=, vm=, image=, label=, type=");
	if (!status && v->format && !template_is(v->format) && !streq(v->format, "json"))
		status = cli_usage(cli, "json, or a template as {{.Action}} {{.ID}}", "no such format: %s", v->format);
	if (status || !cli_client(cli))
		return status ? status : CLI_FAILED;
	o.follow = !o.until_ns || o.until_ns > text_now();
	o.event = on_event;
	o.arg = &p;
	if (sm_events(cli->client, &o, &err) < 0)
		return cli_fail(cli, &err, NULL);
	return p.status;
}

static const char *const examples[] = {"events --since 1h -f event=die",
				       "what has ended in the last hour, and what ends",
				       "events --format '{{.Action}} {{.Name}}'", "short lines", NULL};

const struct verb verb_events = {
	.name = "events",
	.operands = "",
	.summary = "Show what happens to VMs and images",
	.details = "Goes on until it is interrupted, or --until. Of a VM: create, start, exec_start, exec_die, kill, "
		   "pause, "
		   "unpause, suspend, resume, rewind, oom, die, stop, destroy; of an image: load, build, commit, tag, "
		   "untag, "
		   "delete. "
		   "Filters "
		   "with the same "
		   "key: any "
		   "of them.",
	.examples = examples,
	VERB_OPTS(options, struct events_values),
	.group = GROUP_VMS,
	.run = verb,
};
