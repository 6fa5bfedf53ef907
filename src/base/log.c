/* SPDX-License-Identifier: Apache-2.0 */
/* Diagnostic lines of the programs. See log.h. The level is the one piece of file-scope state: a process has one
 * stderr. */
#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static atomic_int current_level = -1;

void log_set_level(enum log_level level)
{
	atomic_store(&current_level, (int)level);
}

static int level_from_environment(void)
{
	const char *s = getenv("SUPERMACHINE_LOG");

	for (size_t i = 0; s && i < ARRAY_SIZE(level_names); i++)
		if (streq(s, level_names[i]))
			return (int)i;
	return LOG_WARN;
}

void log_line(enum log_level level, const char *room, const char *fmt, ...)
{
	char line[1024];
	int used, limit = atomic_load(&current_level);
	va_list ap;

	if (limit < 0) {
		limit = level_from_environment();
		atomic_store(&current_level, limit);
	}
	if ((int)level > limit)
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
