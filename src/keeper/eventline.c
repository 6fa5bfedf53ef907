/* SPDX-License-Identifier: Apache-2.0 */
/* The lines of events. See events.h. */
#include "keeper/events.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "keeper/recordjson.h"

int vm_event_format(const struct vm_event *e, char **ret)
{
	json_t *o = json_object();
	char *text, *line;
	size_t len;

	rj_put_u64(o, "time_ns", (uint64_t)e->time_ns);
	rj_put_str(o, "type", e->type);
	rj_put_str(o, "action", e->action);
	rj_put_str(o, "id", e->id);
	rj_put_str(o, "name", e->name);
	rj_put_str(o, "image", e->image);
	rj_put_strv(o, "labels", e->labels);
	rj_put_strv(o, "attributes", e->attributes);
	text = o ? json_dumps(o, JSON_COMPACT) : NULL;
	json_decref(o);
	len = text ? strlen(text) : 0;
	if (len + 1 > VM_EVENT_MAX) {
		free(text);
		return -E2BIG;
	}
	line = text ? realloc(text, len + 2) : NULL;
	if (!line) {
		free(text);
		return -ENOMEM;
	}
	memcpy(line + len, "\n", 2);
	*ret = line;
	return 0;
}

int vm_event_parse(const char *line, size_t len, struct vm_event *ret)
{
	struct vm_event e = {0};
	struct rj j;
	int r;

	if (len > VM_EVENT_MAX)
		return -E2BIG;
	r = rj_load(&j, line, len, "event", NULL);
	if (r < 0)
		return r;
	e.time_ns = (int64_t)rj_u64(&j, "time_ns", 1, INT64_MAX);
	e.type = rj_str(&j, "type", true);
	e.action = rj_str(&j, "action", true);
	e.id = rj_str(&j, "id", true);
	e.name = rj_str(&j, "name", true);
	e.image = rj_str(&j, "image", true);
	e.labels = rj_strv(&j, "labels", false);
	e.attributes = rj_strv(&j, "attributes", false);
	r = rj_finish(&j, "event", NULL);
	if (r < 0)
		vm_event_done(&e);
	else
		*ret = e;
	return r;
}

static void strv_free(char **v)
{
	for (char **p = v; p && *p; p++)
		free(*p);
	free(v);
}

void vm_event_done(struct vm_event *e)
{
	free(e->type);
	free(e->action);
	free(e->id);
	free(e->name);
	free(e->image);
	strv_free(e->labels);
	strv_free(e->attributes);
	*e = (struct vm_event){0};
}
