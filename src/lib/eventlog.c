/* SPDX-License-Identifier: Apache-2.0 */
/* What the library itself writes down for `events` (keeper/events.h). Best effort: nothing fails for want of a line. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "keeper/log.h"
#include "lib/events.h"

#define ROTATE (4u << 20)

static int64_t wall_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* The members are only read. */
static char *line_of(const char *type, const char *action, const char *id, const char *name, const char *image,
		     char **labels, const char *const *attributes)
{
	struct vm_event e = {.time_ns = wall_clock(),
			     .type = (char *)(uintptr_t)type,
			     .action = (char *)(uintptr_t)action,
			     .id = (char *)(uintptr_t)id,
			     .name = (char *)(uintptr_t)name,
			     .image = (char *)(uintptr_t)image,
			     .labels = labels,
			     .attributes = (char **)(uintptr_t)attributes};
	char *line = NULL;

	return vm_event_format(&e, &line) < 0 ? NULL : line;
}

static char *line_of_vm(const struct vm_record *rec, const char *action, const char *const *attributes)
{
	return line_of("vm", action, rec->id, rec->name, rec->image ? rec->image : "", rec->labels, attributes);
}

void events_vm(int vmdir, const struct vm_record *rec, const char *action, const char *const *attributes)
{
	_free_ char *line = line_of_vm(rec, action, attributes);
	struct vm_log log;

	if (!line || vm_log_open(&log, vmdir, "events", true, VM_EVENTS_ROTATE) < 0)
		return;
	vm_log_write(&log, 1, line, strlen(line));
	vm_log_close(&log);
}

/* ------------------------------------------------------------------------------------ the common file */

struct common {
	int dir, lock;
	struct vm_log log;
};

static bool common_open(struct sm_client *c, struct common *o)
{
	*o = (struct common){.lock = -1, .log = {.fd = -1}};
	o->dir = open(c->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (o->dir >= 0)
		o->lock = vmdir_flock(o->dir, "events.lock", true, true);
	return o->lock >= 0 && vm_log_open(&o->log, o->dir, "events", true, ROTATE) == 0;
}

static void common_close(struct common *o)
{
	vm_log_close(&o->log);
	fd_close(o->lock);
	fd_close(o->dir);
}

/* Whole lines of a VM's file, in pieces that are written at once. */
static void append_file(struct common *o, int vmdir, const char *name)
{
	_free_ char *text = NULL;
	const char *p;
	size_t len;

	if (read_file_at(vmdir, name, 4 * VM_EVENTS_ROTATE, &text, &len) < 0)
		return;
	for (p = text; len;) {
		const char *end = memrchr(p, '\n', MIN(len, (size_t)VM_LOG_MAX_RECORD));
		size_t piece;

		if (!end)
			return;
		piece = (size_t)(end - p) + 1;
		vm_log_write(&o->log, 1, p, piece);
		p += piece;
		len -= piece;
	}
}

void events_vm_removed(struct sm_client *c, int vmdir, const struct vm_record *rec)
{
	_free_ char *line = line_of_vm(rec, "destroy", NULL);
	struct common o;

	if (!line)
		return;
	if (common_open(c, &o)) {
		append_file(&o, vmdir, "events.1");
		append_file(&o, vmdir, "events");
		vm_log_write(&o.log, 1, line, strlen(line));
	}
	common_close(&o);
}

void events_object(struct sm_client *c, const char *type, const char *action, const char *id, const char *name)
{
	_free_ char *line = line_of(type, action, id, name, "", NULL, NULL);
	struct common o;

	if (!line)
		return;
	if (common_open(c, &o))
		vm_log_write(&o.log, 1, line, strlen(line));
	common_close(&o);
}
