/* SPDX-License-Identifier: Apache-2.0 */
/* exec: one more command in a running VM, with files that it needs, and others behind it. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "cli/session.h"

#define FILE_LIMIT (1u << 30)

struct exec_values {
	bool interactive, tty, detach;
	const char *workdir, *user;
	struct opt_list env, env_file, ulimits, files;
	const char *then;
	uint64_t timeout;
};

#define V(m) offsetof(struct exec_values, m)
static const struct opt options[] = {
	{'i', "interactive", OPT_FLAG, V(interactive), NULL, "pass standard input on"},
	{'t', "tty", OPT_FLAG, V(tty), NULL, "give the command a terminal"},
	{'d', "detach", OPT_FLAG, V(detach), NULL, "leave it running in the VM and print its number (see exec ls)"},
	{'e', "env", OPT_LIST, V(env), "NAME[=VALUE]", "set an environment variable, or pass on the caller's"},
	{0, "env-file", OPT_LIST, V(env_file), "FILE", "the same from the lines of a file"},
	{'w', "workdir", OPT_TEXT, V(workdir), "DIR", "working directory, which has to be there"},
	{'u', "user", OPT_TEXT, V(user), "USER[:GROUP]", "user, by name or number"},
	{0, "timeout", OPT_DURATION, V(timeout), "TIME", "end the command after so long: status 124"},
	{0, "ulimit", OPT_LIST, V(ulimits), "NAME=SOFT[:HARD]", "limit of its processes: nofile, nproc, core, ..."},
	{0, "file", OPT_LIST, V(files), "FILE:PATH", "write a file of this host into the VM before it runs"},
	{0, "then", OPT_TEXT, V(then), "WORD",
	 "WORD among the arguments separates commands: each runs if the one before it succeeded"},
	{0, "privileged", OPT_IGNORED, 0, NULL, NULL},
};
#undef V

static const char *const examples[] = {"exec web cat /etc/hosts",
				       "a command beside the one that runs",
				       "exec -it web sh",
				       "a shell in it",
				       "exec -d web ./work",
				       "left running: exec logs web 1 shows what it prints",
				       "exec --file x.c:/x.c --then , web cc -o /x /x.c , /x",
				       "a file, and two commands, in one round trip and without a shell",
				       NULL};

/* --file, as the library has it. The data and the paths are to be freed. */
static int take_file(const char *text, struct sm_exec_file *ret, struct sm_error *err)
{
	const char *colon = strrchr(text, ':');
	_free_ char *source = colon ? strndup(text, (size_t)(colon - text)) : NULL;
	struct stat st;
	char *data;
	size_t len;
	int r;

	*ret = (struct sm_exec_file)SM_EXEC_FILE_INIT;
	if (!source || !*source || !colon[1])
		return error_set(err, SM_ERROR_INVALID, EINVAL, "--file %s: FILE:PATH is expected", text);
	r = stat(source, &st) < 0 ? -errno : S_ISDIR(st.st_mode) ? -EISDIR : 0;
	if (r == 0)
		r = read_file_at(AT_FDCWD, source, FILE_LIMIT, &data, &len);
	if (r < 0)
		return error_sys(err, -r, "--file %s", source);
	ret->path = colon + 1;
	ret->data = data;
	ret->length = len;
	ret->mode = st.st_mode & 0777;
	return 0;
}

static void files_free(struct sm_exec_options *o)
{
	for (size_t i = 0; i < o->num_files; i++)
		free((void *)(uintptr_t)o->files[i].data);
	free((void *)(uintptr_t)o->files);
}

static int take_files(const struct opt_list *list, struct sm_exec_options *o, struct sm_error *err)
{
	struct sm_exec_file *files = list->n ? calloc(list->n, sizeof(*files)) : NULL;
	int r = files || !list->n ? 0 : error_sys(err, ENOMEM, "files");

	o->files = files;
	for (size_t i = 0; r == 0 && i < list->n; i++) {
		r = take_file(list->v[i], &files[i], err);
		o->num_files += r == 0;
	}
	return r;
}

/* The command's words, and behind a NULL those of the ones that --then begins: as the library has them. To free. */
static int take_commands(const char *then, char **argv, const char ***ret, struct sm_error *err)
{
	size_t n = 0, begin = 0;
	const char **words;

	while (argv[n])
		n++;
	words = calloc(n + 2, sizeof(*words));
	if (!words)
		return error_sys(err, ENOMEM, "commands");
	*ret = words;
	for (size_t i = 0; i <= n; i++) {
		bool end = i == n || (then && streq(argv[i], then));

		if (end && i == begin)
			return error_set(err, SM_ERROR_INVALID, EINVAL, "--then %s: a command is missing",
					 then ? then : "");
		words[i] = end ? NULL : argv[i];
		if (end)
			begin = i + 1;
	}
	return 0;
}

/* What the options point to. */
struct given {
	const char **words;
	char **env;
};

static void given_done(struct given *g, struct sm_exec_options *o)
{
	files_free(o);
	free(g->words);
	cli_env_free(g->env);
}

static int take_options(const struct exec_values *v, char **argv, struct given *g, struct sm_exec_options *o,
			struct sm_error *err)
{
	int r = cli_env(&v->env_file, &v->env, v->tty, &g->env, err);

	if (r >= 0)
		r = take_files(&v->files, o, err);
	if (r >= 0)
		r = take_commands(v->then, argv, &g->words, err);
	if (r < 0)
		return r;
	o->argv = o->chain = g->words;
	while (*o->chain++) /* to behind the first command's NULL */
		;
	o->env = (const char *const *)g->env;
	o->cwd = v->workdir;
	o->user = v->user;
	o->timeout_ns = v->timeout;
	o->detach = v->detach;
	o->ulimits = v->ulimits.v;
	return 0;
}

/* As the shell says of a command that cannot be started. */
static int fail_detached(struct cli *cli, const struct sm_error *err, int r)
{
	cli_fail(cli, err, NULL);
	return r == -ENOENT ? 127 : r == -EACCES ? 126 : CLI_FAILED;
}

static int run_in(struct cli *cli, const struct exec_values *v, struct session *s, struct sm_vm *vm, char **argv)
{
	struct sm_exec_options o = SM_EXEC_OPTIONS_INIT;
	struct sm_outcome outcome = SM_OUTCOME_INIT;
	struct sm_exec *exec = NULL;
	struct sm_error err = {0};
	struct given given = {0};
	int r = session_streams(s, v->interactive, v->tty, false, &o, &err);

	if (r >= 0)
		r = take_options(v, argv, &given, &o, &err);
	if (r >= 0)
		r = sm_vm_exec(vm, &o, &exec, &err);
	if (r >= 0 && !v->detach) {
		session_started(s, exec);
		r = session_wait(s, exec, &outcome, &err);
	}
	if (r >= 0 && v->detach)
		printf("%u\n", sm_exec_number(exec));
	sm_exec_close(exec);
	given_done(&given, &o);
	if (r < 0)
		return v->detach ? fail_detached(cli, &err, r) : cli_fail(cli, &err, NULL);
	return v->detach ? 0 : cli_outcome(cli, &outcome, 0, 0);
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	struct sm_error err = {0};
	struct session session;
	struct sm_vm *vm;
	int status;

	if (session_begin(&session, cli, &err) < 0)
		return cli_fail(cli, &err, NULL);
	vm = cli_open_vm(cli, operands[0]);
	status = vm ? run_in(cli, values, &session, vm, operands + 1) : CLI_FAILED;
	session_end(&session);
	sm_vm_close(vm);
	return status;
}

const struct verb verb_exec = {
	.name = "exec",
	.operands = "VM COMMAND [ARG...]",
	.summary = "Run one more command in a running VM",
	.details = "The container's environment, user and working directory apply unless options say otherwise. Exit "
		   "status as for run. What -d leaves running is found again by its number: exec ls, exec logs, exec "
		   "kill, exec attach. (A VM with one of these names: exec -- ls COMMAND.)",
	.examples = examples,
	VERB_OPTS(options, struct exec_values),
	.min_operands = 2,
	.max_operands = -1,
	.command = true,
	.completes = OPERAND_VM,
	.group = GROUP_RUN,
	.run = verb,
};
