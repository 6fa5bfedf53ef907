/* SPDX-License-Identifier: Apache-2.0 */
/* See environment.h. */
#include "guest/environment.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static char **find(struct environment *e, const char *var, size_t name_len)
{
	for (size_t i = 0; i < e->num; i++)
		if (strncmp(e->vars[i], var, name_len + 1) == 0)
			return &e->vars[i];
	return NULL;
}

static void set(struct environment *e, char *var)
{
	const char *eq = strchr(var, '=');
	char **old;

	if (!eq || eq == var)
		return;
	old = find(e, var, (size_t)(eq - var));
	if (old)
		*old = var;
	else if (e->num + 1 < e->room)
		e->vars[e->num++] = var;
	e->vars[e->num] = NULL;
}

static size_t count(char *const *v)
{
	size_t n = 0;

	while (v && v[n])
		n++;
	return n;
}

int environment_make(struct environment *e, char *const *base, char *const *more)
{
	*e = (struct environment){.room = count(base) + count(more) + 4};
	e->vars = calloc(e->room, sizeof(*e->vars));
	if (!e->vars)
		return -ENOMEM;
	for (; base && *base; base++)
		set(e, *base);
	for (; more && *more; more++)
		set(e, *more);
	return 0;
}

int environment_defaults(struct environment *e, const char *home, bool tty)
{
	char **old = find(e, "HOME=", 4);

	if (!find(e, "PATH=", 4)) {
		e->owned[0] = strdup(DEFAULT_PATH);
		if (!e->owned[0])
			return -ENOMEM;
		set(e, e->owned[0]);
	}
	if (!old || !(*old)[5]) {
		if (asprintf(&e->owned[1], "HOME=%s", home) < 0) {
			e->owned[1] = NULL;
			return -ENOMEM;
		}
		set(e, e->owned[1]);
	}
	if (tty && !find(e, "TERM=", 4))
		set(e, (char *)(uintptr_t) "TERM=xterm");
	return 0;
}

void environment_done(struct environment *e)
{
	free(e->owned[0]);
	free(e->owned[1]);
	free(e->vars);
	*e = (struct environment){0};
}
