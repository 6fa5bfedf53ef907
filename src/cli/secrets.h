/* SPDX-License-Identifier: Apache-2.0 */
/* --secret NAME[=env:VAR|file:PATH] and --secret-env NAME[=VAR]. */
#ifndef CLI_SECRETS_H
#define CLI_SECRETS_H

#include "cli/cli.h"

struct cli_secrets {
	struct sm_secret *v;
	size_t n;
	char **texts, **env_texts; /* what v points into, too */
	char **data;		   /* of files; NULL: a variable of ours */
};

#define CLI_SECRET_OPTS(secrets, env)                                                                                  \
	{0,                                                                                                            \
	 "secret",                                                                                                     \
	 OPT_LIST,                                                                                                     \
	 secrets,                                                                                                      \
	 "NAME[=env:VAR|file:PATH]",                                                                                   \
	 "a file /run/secrets/NAME in the VM's memory, with what a variable (default: NAME) or a file of the host "    \
	 "has; "                                                                                                       \
	 "kept nowhere else"},                                                                                         \
	{                                                                                                              \
		0, "secret-env", OPT_LIST, env, "NAME[=VAR]", "that secret also as the command's variable VAR"         \
	}

/* 0, or the exit status after a usage error was told. cli_secrets_free in any case. */
int cli_secrets_parse(struct cli *cli, const struct opt_list *secrets, const struct opt_list *env,
		      struct cli_secrets *ret);
void cli_secrets_free(struct cli_secrets *s);
/* As cli_fail, of a VM that was to be started again; when a secret was missing it says what to type (verb: as what). */
int cli_secrets_fail(struct cli *cli, struct sm_vm *vm, const struct cli_secrets *s, const char *verb,
		     const struct sm_error *err);

#endif
