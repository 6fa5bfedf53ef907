/* SPDX-License-Identifier: Apache-2.0 */
/* How a command ended: the line for people, the JSON for programs. */
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"

/* A line for people, or "" where the status says it all. */
static const char *explain(const struct sm_outcome *o, uint64_t memory, uint64_t disk, char *line, size_t size)
{
	char n[16];

	switch (o->reason) {
	case SM_REASON_NONE:
	case SM_REASON_EXITED:
	case SM_REASON_SIGNALLED:
		return o->message; /* of something else that went wrong on the way */
	case SM_REASON_OOM:
		if (memory)
			snprintf(line, size, "killed: out of memory (the VM has %s; -m gives it more)",
				 format_size(memory, n));
		else
			snprintf(line, size, "killed: the VM is out of memory (run -m gives it more)");
		return line;
	case SM_REASON_DISK_FULL:
		if (o->message[0])
			return o->message; /* it was the host's */
		if (disk)
			snprintf(line, size, "the VM's disk is full (it has %s; --disk gives it more)",
				 format_size(disk, n));
		else
			snprintf(line, size, "the VM's disk is full (run --disk gives it more)");
		return line;
	case SM_REASON_TIMEOUT:
		snprintf(line, size, "timed out after %s", text_duration(o->duration_ns, n));
		return line;
	default:
		if (o->message[0])
			return o->message;
		snprintf(line, size, "ended: %s", sm_reason_name(o->reason));
		return line;
	}
}

int cli_outcome(struct cli *cli, const struct sm_outcome *o, uint64_t memory, uint64_t disk)
{
	char line[640];
	const char *text = explain(o, memory, disk, line, sizeof(line));

	if (text[0])
		cli_say(cli, "%s", text);
	/* Then it may have been ended for that, or not have noticed. */
	if (o->output_lost && (o->status == 0 || o->signal == SIGPIPE))
		return CLI_FAILED;
	return o->status;
}

void cli_outcome_json(struct json *j, const struct sm_outcome *o)
{
	json_number(j, "status", o->status);
	json_number(j, "signal", o->signal);
	json_text(j, "reason", sm_reason_name(o->reason));
	json_text(j, "message", o->message);
	json_unsigned(j, "duration_ns", o->duration_ns);
	json_unsigned(j, "peak_rss", o->peak_rss);
	json_open(j, "stages_ns", '{');
	for (unsigned i = 0; i < o->num_stages && i < SM_MAX_STAGES; i++)
		json_unsigned(j, o->stages[i].name, o->stages[i].ns);
	json_close(j, '}');
}

/* A terminal, a pipe or /dev/null is written to; only a file is replaced. */
static bool is_replaced(const char *path)
{
	struct stat st;

	return lstat(path, &st) < 0 || S_ISREG(st.st_mode);
}

static int write_through(const char *path, const void *p, size_t len)
{
	_fd_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOCTTY | O_CLOEXEC, 0666);

	return fd < 0 ? -errno : write_full(fd, p, len);
}

int cli_outcome_check(struct cli *cli, const char *path)
{
	struct sm_error err = {0};
	_free_ char *dir = NULL;

	if (!path)
		return 0;
	if (!is_replaced(path) && faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) == 0)
		return 0;
	dir = strdup(path);
	if (is_replaced(path) && dir && faccessat(AT_FDCWD, dirname(dir), W_OK | X_OK, AT_EACCESS) == 0)
		return 0;
	error_sys(&err, dir ? errno : ENOMEM, "--outcome %s", path);
	return cli_fail(cli, &err, NULL);
}

int cli_outcome_write(const char *path, const char *image, const char *vm, const struct sm_outcome *o,
		      struct sm_error *err)
{
	struct json j = {0};
	int r;

	json_open(&j, NULL, '{');
	json_text(&j, "image", image);
	json_text(&j, "vm", vm);
	cli_outcome_json(&j, o);
	json_close(&j, '}');
	r = j.out.error;
	if (!r)
		r = is_replaced(path) ? write_file_atomic_at(AT_FDCWD, path, j.out.data, j.out.len, 0666)
				      : write_through(path, j.out.data, j.out.len);
	json_done(&j);
	return r < 0 ? error_sys(err, -r, "--outcome %s", path) : 0;
}

static void print_stage(const struct sm_stage *s, const char *indent, const char *name)
{
	fprintf(stderr, "%s%-*s %9.1f ms\n", indent, 20 - (int)strlen(indent), name, (double)s->ns / 1e6);
}

void cli_outcome_trace(const struct sm_outcome *o)
{
	unsigned n = MIN(o->num_stages, SM_MAX_STAGES), parts = 0;
	uint64_t total = 0;

	/* The parts of a stage come before it in time, and behind it in print. */
	for (unsigned i = 0; i < n; i++) {
		const struct sm_stage *s = &o->stages[i];
		const char *dot = strchr(s->name, '.');

		if (dot) {
			parts++;
			continue;
		}
		print_stage(s, "", s->name);
		total += s->ns;
		for (; parts; parts--)
			print_stage(s - parts, "  ", strchr(s[-(int)parts].name, '.') + 1);
	}
	fprintf(stderr, "%-20s %9.1f ms\n", "all", (double)total / 1e6);
}
