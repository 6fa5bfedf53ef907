/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SECRET: a file below /run/secrets, which SETUP has made a file system in memory, and if asked for a variable in the
 * environment of what runs from now on.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "guest/agent.h"

#define SECRETS "/run/secrets"

/* Others than root read it, too, as with docker: whoever is not to must not be in the VM. */
static int write_secret(const struct proto_secret *s)
{
	_fd_ int dir = open(SECRETS, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	_fd_ int fd = -1;

	if (dir < 0)
		return -errno;
	fd = openat(dir, s->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0444);
	if (fd < 0)
		return -errno;
	return fchmod(fd, 0444) < 0 ? -errno : write_full(fd, s->data, s->len);
}

/* The last of the same name wins (environment.c). */
static int add_variable(struct agent *a, const struct proto_secret *s)
{
	size_t n = 0, len = strlen(s->env);
	char **more, *text;

	while (a->setup.env && a->setup.env[n])
		n++;
	if (s->len && memchr(s->data, 0, s->len))
		return -EINVAL;
	text = malloc(len + s->len + 2);
	more = text ? realloc(a->setup.env, (n + 2) * sizeof(*more)) : NULL;
	if (!more) {
		free(text);
		return -ENOMEM;
	}
	memcpy(text, s->env, len);
	text[len] = '=';
	if (s->len)
		memcpy(text + len + 1, s->data, s->len);
	text[len + 1 + s->len] = '\0';
	more[n] = text;
	more[n + 1] = NULL;
	a->setup.env = more;
	return 0;
}

void secret_open(struct agent *a, uint32_t ch, struct cursor *request)
{
	struct proto_secret s;
	int r = proto_secret_decode(request, &s);

	if (r < 0) {
		agent_refuse(a, ch, r, "malformed SECRET request");
		return;
	}
	r = write_secret(&s);
	if (r == 0 && s.env[0])
		r = add_variable(a, &s);
	if (r < 0) {
		agent_refuse(a, ch, r, "secret %s: %s", s.name, strerror(-r));
		return;
	}
	mux_opened(a->mux, ch, NULL);
	mux_close(a->mux, ch, 0, NULL);
}
