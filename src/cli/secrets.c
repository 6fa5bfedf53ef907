/* SPDX-License-Identifier: Apache-2.0 */
/* Secrets from this process's environment or from files: see secrets.h. None is ever part of a command line. */
#include "cli/secrets.h"

#include <errno.h>

#include "base/buf.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/fileio.h"
#include "base/util.h"

#define SECRET_MAX 61440

static int from_file(struct cli *cli, struct cli_secrets *s, size_t i, const char *path)
{
	int r = read_file_at(AT_FDCWD, path, SECRET_MAX, &s->data[i], &s->v[i].length);

	s->v[i].data = s->data[i];
	return r < 0 ? cli_usage(cli, "at most 60 KiB", "--secret %s: %s: %s", s->v[i].name, path, strerror(-r)) : 0;
}

static int from_variable(struct cli *cli, struct cli_secrets *s, size_t i, const char *name)
{
	const char *value = getenv(name);

	if (!value)
		return cli_usage(cli, "NAME=env:VAR, or NAME=file:PATH", "--secret %s: there is no variable %s",
				 s->v[i].name, name);
	s->v[i].data = value;
	s->v[i].length = strlen(value);
	return 0;
}

static int parse_one(struct cli *cli, struct cli_secrets *s, size_t i)
{
	char *from = strchr(s->texts[i], '=');

	s->v[i] = (struct sm_secret)SM_SECRET_INIT;
	s->v[i].name = s->texts[i];
	s->n = i + 1;
	if (!from)
		return from_variable(cli, s, i, s->v[i].name);
	*from++ = '\0';
	if (str_starts(from, "env:"))
		return from_variable(cli, s, i, from + 4);
	if (str_starts(from, "file:"))
		return from_file(cli, s, i, from + 5);
	return cli_usage(cli, "what is on a command line everybody can see",
			 "--secret wants NAME, NAME=env:VAR or NAME=file:PATH");
}

static int give_variable(struct cli *cli, struct cli_secrets *s, char *text)
{
	char *variable = strchr(text, '=');

	if (variable)
		*variable++ = '\0';
	for (size_t i = 0; i < s->n; i++) {
		if (!streq(s->v[i].name, text))
			continue;
		s->v[i].env = variable ? variable : text;
		return 0;
	}
	return cli_usage(cli, NULL, "--secret-env %s: there is no --secret of this name", text);
}

int cli_secrets_parse(struct cli *cli, const struct opt_list *secrets, const struct opt_list *env,
		      struct cli_secrets *ret)
{
	int status = 0;

	*ret = (struct cli_secrets){.v = calloc(secrets->n + 1, sizeof(*ret->v)),
				    .data = calloc(secrets->n + 1, sizeof(*ret->data)),
				    .texts = opt_list_copy(secrets),
				    .env_texts = opt_list_copy(env)};
	if (!ret->v || !ret->data || !ret->texts || !ret->env_texts)
		return cli_usage(cli, NULL, "no memory");
	for (size_t i = 0; status == 0 && i < secrets->n; i++)
		status = parse_one(cli, ret, i);
	for (char **text = ret->env_texts; status == 0 && *text; text++)
		status = give_variable(cli, ret, *text);
	return status;
}

void cli_secrets_free(struct cli_secrets *s)
{
	for (size_t i = 0; i < s->n; i++) {
		if (s->data[i])
			explicit_bzero(s->data[i], s->v[i].length);
		free(s->data[i]);
	}
	free(s->data);
	free(s->v);
	opt_list_copy_free(s->texts);
	opt_list_copy_free(s->env_texts);
	*s = (struct cli_secrets){0};
}

static bool is_given(const struct cli_secrets *s, const char *name)
{
	for (size_t i = 0; i < s->n; i++)
		if (streq(s->v[i].name, name))
			return true;
	return false;
}

/* The whole command line, but for where the missing ones come from. */
static void put_command(struct buf *b, const struct sm_vm_info *vm, const struct cli_secrets *s, const char *verb)
{
	buf_printf(b, "supermachine %s", verb);
	for (const char *const *n = vm->secrets; n && *n; n++)
		buf_printf(b, " --secret %s=%s", *n, is_given(s, *n) ? "..." : "env:VARIABLE|file:PATH");
	buf_printf(b, " %s", vm->name && *vm->name ? vm->name : vm->id);
	buf_put_u8(b, 0);
}

int cli_secrets_fail(struct cli *cli, struct sm_vm *vm, const struct cli_secrets *s, const char *verb,
		     const struct sm_error *err)
{
	struct sm_vm_info *info = NULL;
	struct buf hint = {0};
	int status;

	if (err->code == ENOKEY && sm_vm_query(vm, &info, NULL) == 0)
		put_command(&hint, info, s, verb);
	status = cli_fail(cli, err, hint.data && !hint.error ? (const char *)hint.data : NULL);
	sm_vm_info_free(info);
	buf_done(&hint);
	return status;
}
