/* SPDX-License-Identifier: Apache-2.0 */
/* Diagnostic lines of the programs. See log.h. The levels are the one piece of file-scope state: a process has one
 * stderr. */
#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static atomic_int current_level = -1; /* the most that any room says */
static atomic_bool by_room;

void log_set_level(enum log_level level)
{
	atomic_store(&by_room, false);
	atomic_store(&current_level, (int)level);
}

static int level_by_name(const char *s, size_t len)
{
	for (size_t i = 0; i < ARRAY_SIZE(level_names); i++)
		if (strlen(level_names[i]) == len && strncmp(s, level_names[i], len) == 0)
			return (int)i;
	return -1;
}

int log_level_of(const char *spec, const char *room)
{
	int level, all = LOG_WARN, own = -1, most = LOG_WARN;

	for (size_t n; *spec; spec += n + (spec[n] == ',')) {
		const char *eq;

		n = strcspn(spec, ",");
		eq = memchr(spec, '=', n);
		level = eq ? level_by_name(eq + 1, n - (size_t)(eq + 1 - spec)) : level_by_name(spec, n);
		if (level < 0)
			continue;
		most = MAX(most, level);
		if (!eq)
			all = level;
		else if (room && strlen(room) == (size_t)(eq - spec) && strncmp(spec, room, (size_t)(eq - spec)) == 0)
			own = level;
	}
	if (!room)
		return most;
	return own >= 0 ? own : all;
}

static bool is_said(enum log_level level, const char *room)
{
	int limit = atomic_load(&current_level);
	const char *spec;

	if (limit < 0) {
		spec = getenv("SUPERMACHINE_LOG");
		limit = spec ? log_level_of(spec, NULL) : LOG_WARN;
		atomic_store(&by_room, spec && strchr(spec, '='));
		atomic_store(&current_level, limit);
	}
	if ((int)level > limit)
		return false;
	spec = atomic_load(&by_room) ? getenv("SUPERMACHINE_LOG") : NULL;
	return !spec || (int)level <= log_level_of(spec, room);
}

void log_line(enum log_level level, const char *room, const char *fmt, ...)
{
	char line[1024];
	va_list ap;
	int used;

	if (!is_said(level, room))
		return;
	used = snprintf(line, sizeof(line), "%s %s: ", level_names[level], room);
	va_start(ap, fmt);
	used += vsnprintf(line + used, sizeof(line) - (size_t)used, fmt, ap);
	va_end(ap);
	if (used > (int)sizeof(line) - 1)
		used = (int)sizeof(line) - 1;
	line[used] = '\n';
	/* One write, so that lines of several processes on one terminal do not mix; nothing can be done if it fails. */
	if (write(STDERR_FILENO, line, (size_t)used + 1) < 0)
		return;
}
