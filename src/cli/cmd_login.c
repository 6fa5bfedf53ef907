/* SPDX-License-Identifier: Apache-2.0 */
/* login, logout: who this user is to a registry. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "cli/cli.h"

#define MAX_WORD 16384 /* tokens serve as passwords */

struct login_values {
	const char *user, *password;
	bool from_stdin;
};

#define V(m) offsetof(struct login_values, m)
static const struct opt options[] = {
	{'u', "username", OPT_TEXT, V(user), "USER", "who; asked for on a terminal"},
	{0, "password-stdin", OPT_FLAG, V(from_stdin), NULL, "read the password from standard input"},
	{'p', "password", OPT_TEXT, V(password), "PASSWORD", "the password, for everybody on this host to see"},
};
#undef V

#define INTERRUPT '\003'
#define QUIT '\034'

/* Nobody sees what is typed; the keys that would send a signal, and leave the terminal silent, end the line instead. */
static void silence(const struct termios *before)
{
	struct termios quiet = *before;

	quiet.c_lflag &= ~(tcflag_t)(ECHO | ISIG);
	quiet.c_cc[VEOL] = INTERRUPT;
	quiet.c_cc[VEOL2] = QUIT;
	tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
}

/* A line of the terminal without its end; -ECANCELED when the person would rather not. */
static int ask(const char *what, bool hidden, char *out, size_t size)
{
	struct termios before;
	size_t n = 0;
	char c = 0;

	if (tcgetattr(STDIN_FILENO, &before) < 0)
		return -errno;
	if (hidden)
		silence(&before);
	fprintf(stderr, "%s: ", what);
	fflush(stderr);
	while (read(STDIN_FILENO, &c, 1) == 1 && !strchr("\n\r\003\034", c) && n + 1 < size)
		out[n++] = c;
	out[n] = '\0';
	if (hidden) {
		tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
		fputc('\n', stderr);
	}
	return c == '\n' || c == '\r' ? 0 : -ECANCELED;
}

static int read_stdin(char *out, size_t size)
{
	ssize_t n = read_full(STDIN_FILENO, out, size - 1);

	if (n < 0)
		return (int)n;
	if ((size_t)n == size - 1)
		return -EFBIG;
	out[n] = '\0';
	out[strcspn(out, "\r\n")] = '\0';
	return 0;
}

static int get_words(struct cli *cli, const struct login_values *v, char *user, char *password)
{
	bool terminal = isatty(STDIN_FILENO);
	int r = 0;

	if (v->from_stdin && v->password)
		return cli_usage(cli, NULL, "either --password or --password-stdin");
	if (v->from_stdin && !v->user)
		return cli_usage(cli, NULL, "--password-stdin goes with --username");
	if ((!v->user || (!v->password && !v->from_stdin)) && !terminal)
		return cli_usage(cli, "supermachine login -u USER --password-stdin HOST < FILE",
				 "without a terminal to ask on");
	if (v->user)
		snprintf(user, MAX_WORD, "%s", v->user);
	else
		r = ask("User", false, user, MAX_WORD);
	if (r == 0 && v->from_stdin)
		r = read_stdin(password, MAX_WORD);
	else if (r == 0 && v->password)
		snprintf(password, MAX_WORD, "%s", v->password);
	else if (r == 0)
		r = ask("Password", true, password, MAX_WORD);
	if (r < 0)
		cli_say(cli, "no password: %s", strerror(-r));
	return r < 0 ? CLI_FAILED : 0;
}

static int login(struct cli *cli, const void *values, char **operands, int count)
{
	_free_ char *user = calloc(1, MAX_WORD), *password = calloc(1, MAX_WORD);
	struct sm_error err = {0};
	int status = user && password ? get_words(cli, values, user, password) : CLI_FAILED;

	if (status == 0 && !cli_client(cli))
		status = CLI_FAILED;
	if (status == 0 && sm_registry_login(cli->client, operands[0], user, password, &err) < 0)
		status = cli_fail(cli, &err, NULL);
	if (password)
		explicit_bzero(password, MAX_WORD);
	if (status == 0)
		puts("Login Succeeded");
	return status;
}

static int logout(struct cli *cli, const void *values, char **operands, int count)
{
	struct sm_error err = {0};

	if (!cli_client(cli))
		return CLI_FAILED;
	if (sm_registry_logout(cli->client, operands[0], &err) < 0)
		return cli_fail(cli, &err, NULL);
	return 0;
}

static const char *const examples[] = {"login registry.example:5000", "asks for user and password",
				       "login -u me --password-stdin registry.example < token", "in a script", NULL};

const struct verb verb_login = {
	.name = "login",
	.operands = "[HOST]",
	.summary = "Log in to a registry",
	.details =
		"The registry judges the password; then it is kept in a file that only you can read. Without HOST it "
		"is "
		"docker's default registry. What docker login has kept, in its config.json or by a credential helper, "
		"is used as well, where there is nothing here.",
	.examples = examples,
	VERB_OPTS(options, struct login_values),
	.max_operands = 1,
	.group = GROUP_IMAGES,
	.run = login,
};

const struct verb verb_logout = {
	.name = "logout",
	.operands = "[HOST]",
	.summary = "Forget what login has kept",
	.max_operands = 1,
	.group = GROUP_IMAGES,
	.run = logout,
};
