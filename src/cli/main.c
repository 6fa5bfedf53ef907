/* SPDX-License-Identifier: Apache-2.0 */
/* supermachine: finds the verb, parses its options, calls it. */
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/suggest.h"

/* Only the first word of a verb of two. */
static int half_verb(struct cli *cli, const char *word)
{
	char hint[200];
	size_t n = (size_t)snprintf(hint, sizeof(hint), "one of: supermachine %s", word);
	const char *before = " ";

	for (const struct verb *const *v = cli_verbs(); *v && n < sizeof(hint); v++) {
		if (str_starts((*v)->name, word) && (*v)->name[strlen(word)] == ' ') {
			n += (size_t)snprintf(hint + n, sizeof(hint) - n, "%s%s", before,
					      (*v)->name + strlen(word) + 1);
			before = ", ";
		}
	}
	return cli_usage(cli, hint, "%s: what of it?", word);
}

/* What docker has and this has not, with what does it here. */
static const char *instead_of(const char *typed)
{
	static const char *const words[][2] = {
		{"builder", "supermachine build makes an image of another one, without a Dockerfile"},
		{"buildx", "supermachine build makes an image of another one, without a Dockerfile"},
		{"compose", "VMs are started one by one: supermachine run -d"},
		{"container prune", "supermachine rm $(supermachine ps -aq -f status=exited)"},
		{"context", "there is no daemon: --home DIR keeps images and VMs elsewhere"},
		{"create", "supermachine run -d makes a VM and starts it"},
		{"export", "supermachine cp VM:/ - writes its files as a tar stream"},
		{"history", "supermachine inspect IMAGE"},
		{"image history", "supermachine inspect IMAGE"},
		{"import", "supermachine load takes layouts and archives"},
		{"info", "supermachine doctor, and supermachine machine status"},
		{"network", "VMs have no network: run -p and run --reverse carry ports"},
		{"push", "images are pulled and loaded, not pushed"},
		{"rename", "a VM's name is for good: run --name"},
		{"save", "the store's images cannot be written as archives: inspect --export-erofs writes the files"},
		{"search", "the registry's own page does"},
		{"system df", "supermachine images, snapshots and volume ls tell sizes"},
		{"system info", "supermachine doctor, and supermachine machine status"},
		{"top", "supermachine exec VM ps"},
		{"update", "a VM's sizes are those of its start: run -m and -c"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (streq(words[i][0], typed))
			return words[i][1];
	return NULL;
}

static int unknown_verb(struct cli *cli, char **argv, int argc)
{
	const char *words[64], *best;
	char hint[96] = "", typed[64];
	size_t n = 0;

	if (cli_family(argv[0]) && argc > 1 && (streq(argv[1], "--help") || streq(argv[1], "-h"))) {
		cli_help_family(stdout, argv[0]);
		return 0;
	}
	if (cli_family(argv[0]) && (argc < 2 || argv[1][0] == '-'))
		return half_verb(cli, argv[0]);
	if (argc > 1)
		snprintf(typed, sizeof(typed), "%s %s", argv[0], argv[1]);
	best = argc > 1 ? instead_of(typed) : NULL;
	if (!best && !cli_family(argv[0])) {
		snprintf(typed, sizeof(typed), "%s", argv[0]);
		best = instead_of(typed);
	}
	if (best)
		return cli_usage(cli, best, "no such verb: %s", typed);
	for (const struct verb *const *v = cli_verbs(); *v; v++)
		if ((*v)->group != GROUP_HIDDEN)
			words[n++] = (*v)->name;
	best = suggest(typed, words, n);
	if (best)
		snprintf(hint, sizeof(hint), "did you mean supermachine %s?", best);
	return cli_usage(cli, hint, "no such verb: %s", typed);
}

static int check_count(struct cli *cli, const struct verb *v, int count)
{
	char hint[200];

	snprintf(hint, sizeof(hint), "usage: supermachine %s %s", v->name, v->operands);
	if (count < v->min_operands)
		return cli_usage(cli, hint, "something is missing");
	if (v->max_operands >= 0 && count > v->max_operands)
		return cli_usage(cli, hint, "too many arguments");
	return 0;
}

static int run_verb(struct cli *cli, const struct verb *v, int argc, char **argv)
{
	char **operands = calloc((size_t)argc + 1, sizeof(*operands));
	void *values = calloc(1, v->values_size + 1);
	struct opts_error error;
	int count, status, r;

	cli->verb = v;
	r = operands && values
		    ? opts_parse(v->opts, v->num_opts, v->command, argc, argv, values, operands, &count, &error)
		    : -ENOMEM;
	if (r == 1) {
		cli_help(stdout, v);
		status = 0;
	} else if (r == -EINVAL) {
		status = cli_usage(cli, error.hint, "%s", error.what);
	} else if (r < 0) {
		cli_say(cli, "%s", strerror(-r));
		status = CLI_FAILED;
	} else {
		status = check_count(cli, v, count);
		if (!status)
			status = v->run(cli, values, operands, count);
	}
	if (values)
		opts_done(v->opts, v->num_opts, values);
	free(values);
	free(operands);
	return status;
}

static int dispatch(struct cli *cli, int argc, char **argv)
{
	char **operands = calloc((size_t)argc + 1, sizeof(*operands));
	struct cli_globals g = {0};
	struct opts_error error;
	int count = 0, words = 0, r;

	r = operands ? opts_parse(cli_global_opts, cli_num_global_opts, true, argc, argv, &g, operands, &count, &error)
		     : -ENOMEM;
	argv += argc - count;
	free(operands);
	cli->home = g.home;
	cli->verbosity = g.quiet ? -1 : g.debug ? 2 : g.verbose;
	if (r < 0)
		return cli_usage(cli, r == -EINVAL ? error.hint : NULL, "%s", r == -EINVAL ? error.what : strerror(-r));
	if (r == 1) {
		cli_help_all(stdout);
		return 0;
	}
	if (g.version)
		return run_verb(cli, &verb_version, 0, argv);
	if (!count) {
		cli_help_all(stderr);
		return CLI_FAILED;
	}
	if (!cli_match_verb(argv, count, &words))
		return unknown_verb(cli, argv, count);
	return run_verb(cli, cli_match_verb(argv, count, &words), count - words, argv + words);
}

/* A standard stream that the caller has closed stays one that cannot be used: else the first file or socket that is
 * opened would take its place, and what is printed would go there. */
static void hold_streams(void)
{
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
			(void)!open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
}

int main(int argc, char **argv)
{
	struct cli cli = {.lock = PTHREAD_MUTEX_INITIALIZER};
	int status;

	hold_streams();
	cli.terminal = isatty(STDERR_FILENO);
	status = dispatch(&cli, argc - 1, argv + 1);

	cli_progress_clear(&cli);
	sm_client_close(cli.client);
	if (fflush(stdout) || ferror(stdout)) {
		if (errno != EPIPE)
			cli_say(&cli, "standard output: %s", strerror(errno));
		status = status ? status : CLI_FAILED;
	}
	return status;
}
