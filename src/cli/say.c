/* SPDX-License-Identifier: Apache-2.0 */
/* What goes to stderr: messages, errors with something to try, the progress bar. */
#include "cli/cli.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"

#define BAR_WIDTH 24
#define BAR_INTERVAL_NS 100000000ULL

static void bar_clear_locked(struct cli *cli)
{
	if (cli->bar_shown)
		fputs("\r\033[K", stderr);
	cli->bar_shown = false;
}

/* One line; a session may have the terminal in raw mode, hence the carriage return. */
static void say_locked(struct cli *cli, const char *text)
{
	bar_clear_locked(cli);
	fputs("supermachine: ", stderr);
	if (cli->verb && cli->verb->group != GROUP_HIDDEN)
		fprintf(stderr, "%s: ", cli->verb->name);
	text_put(stderr, text);
	fputs(cli->terminal ? "\r\n" : "\n", stderr);
	fflush(stderr);
}

void cli_say(struct cli *cli, const char *fmt, ...)
{
	_free_ char *text = NULL;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (n < 0) {
		text = NULL;
		return;
	}
	pthread_mutex_lock(&cli->lock);
	say_locked(cli, text);
	pthread_mutex_unlock(&cli->lock);
}

static void say_hint(struct cli *cli, const char *hint)
{
	pthread_mutex_lock(&cli->lock);
	fputs("  ", stderr);
	text_put(stderr, hint);
	fputs(cli->terminal ? "\r\n" : "\n", stderr);
	pthread_mutex_unlock(&cli->lock);
}

int cli_fail(struct cli *cli, const struct sm_error *err, const char *hint)
{
	cli_say(cli, "%s", err->message[0] ? err->message : strerror(err->code));
	if (!hint && err->kind == SM_ERROR_HOST && !(cli->verb && streq(cli->verb->name, "doctor")))
		hint = "try: supermachine doctor";
	if (hint && hint[0])
		say_hint(cli, hint);
	return CLI_FAILED;
}

int cli_usage(struct cli *cli, const char *hint, const char *fmt, ...)
{
	_free_ char *text = NULL;
	char help[96];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (n < 0)
		text = NULL;
	cli_say(cli, "%s", text ? text : "wrong command line");
	snprintf(help, sizeof(help), "help: supermachine %s%s--help", cli->verb ? cli->verb->name : "",
		 cli->verb ? " " : "");
	say_hint(cli, hint && hint[0] ? hint : help);
	return CLI_FAILED;
}

void cli_log(void *arg, enum sm_log_level level, const char *line)
{
	struct cli *cli = arg;
	int verbosity = level <= SM_LOG_ERROR ? -1 : level == SM_LOG_NOTICE ? 0 : level == SM_LOG_INFO ? 1 : 2;

	if (verbosity <= cli->verbosity)
		cli_say(cli, "%s", line);
}

static void bar_draw_locked(const char *stage, uint64_t done, uint64_t total)
{
	char a[16], b[16], bar[BAR_WIDTH + 1];
	size_t full;

	if (!total) {
		fprintf(stderr, "\r\033[K%s  %s", stage, done ? format_size(done, a) : "...");
		return;
	}
	full = (size_t)((double)MIN(done, total) / (double)total * BAR_WIDTH);
	memset(bar, '#', full);
	memset(bar + full, '.', BAR_WIDTH - full);
	bar[BAR_WIDTH] = '\0';
	fprintf(stderr, "\r\033[K%s  [%s] %3.0f%%  %s of %s", stage, bar,
		100 * (double)MIN(done, total) / (double)total, format_size(done, a), format_size(total, b));
}

static int bar_update(void *arg, const char *stage, uint64_t done, uint64_t total)
{
	struct cli *cli = arg;
	uint64_t now = time_now_ns();

	pthread_mutex_lock(&cli->lock);
	if (!cli->stopped && now - cli->bar_time >= BAR_INTERVAL_NS) {
		bar_draw_locked(stage, done, total);
		fflush(stderr);
		cli->bar_shown = true;
		cli->bar_time = now;
	}
	pthread_mutex_unlock(&cli->lock);
	return 0;
}

struct sm_progress cli_progress(struct cli *cli)
{
	const char *term = getenv("TERM");

	if (!cli->terminal || cli->verbosity < 0 || !term || streq(term, "dumb"))
		return (struct sm_progress){NULL, NULL};
	pthread_mutex_lock(&cli->lock);
	cli->stopped = false;
	cli->bar_time = time_now_ns(); /* what takes no time shows no bar */
	pthread_mutex_unlock(&cli->lock);
	return (struct sm_progress){bar_update, cli};
}

void cli_progress_clear(struct cli *cli)
{
	pthread_mutex_lock(&cli->lock);
	cli->stopped = true;
	bar_clear_locked(cli);
	fflush(stderr);
	pthread_mutex_unlock(&cli->lock);
}
