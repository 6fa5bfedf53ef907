/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command. Each verb is one file with its options, its texts and one function; main.c finds the verb, parses,
 * calls.
 *
 * Streams: stdout belongs to the guest, or to the answer that was asked for; all else goes to stderr, in lines that
 * begin with "supermachine: ". Exit status: the command's where a verb runs one; 125 when supermachine itself failed.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"
#include "cli/json.h"
#include "cli/opts.h"
#include "cli/text.h"

#define CLI_FAILED 125 /* exit status of our own failures, as docker has it */

struct verb;

struct cli {
	const struct verb *verb;
	const char *home; /* --home, or NULL */
	int verbosity;	  /* -1 with -q, 0, 1 with -v, 2 with -vv */
	struct sm_client *client;
	pthread_mutex_t lock; /* of stderr: the library may log from its own threads */
	bool bar_shown;	      /* by lock: a progress bar stands on the terminal's last line */
	uint64_t bar_time;    /* by lock: when it was last drawn */
	bool terminal;	      /* stderr is one */
	bool stopped;	      /* by lock: no more progress */
};

enum operand_kind {
	OPERAND_NONE,
	OPERAND_VM,
	OPERAND_IMAGE,
	OPERAND_FILE,
	OPERAND_ANY,
	OPERAND_VERB,
	OPERAND_SNAPSHOT,
	OPERAND_VOLUME,
	OPERAND_EXEC, /* a VM, then numbers of its detached commands */
	OPERAND_COPY  /* a file here, or VM:PATH */
};
enum verb_group { GROUP_RUN, GROUP_VMS, GROUP_IMAGES, GROUP_HOST, GROUP_HIDDEN };

struct verb {
	const char *name;	     /* "run", "machine start" */
	const char *operands;	     /* as the usage line shows them: "IMAGE [COMMAND [ARG...]]" */
	const char *summary;	     /* one line without a full stop */
	const char *details;	     /* paragraphs for --help, or NULL */
	const char *const *examples; /* pairs of command line and comment, NULL-terminated, or NULL */
	const struct opt *opts;
	size_t num_opts, values_size;
	int min_operands, max_operands; /* max -1: any number */
	bool command;			/* options end at the first operand */
	enum operand_kind completes;	/* what the first operand (all, if several are taken) may be */
	enum verb_group group;
	/* values: the parsed options (struct of values_size); operands: NULL-terminated. Returns the exit status. */
	int (*run)(struct cli *cli, const void *values, char **operands, int count);
};
#define VERB_OPTS(array, type) .opts = (array), .num_opts = ARRAY_SIZE(array), .values_size = sizeof(type)

extern const struct verb verb_run, verb_exec, verb_exec_ls, verb_exec_logs, verb_exec_kill, verb_exec_attach, verb_ps,
	verb_start, verb_stop, verb_restart, verb_kill, verb_pause, verb_unpause, verb_suspend, verb_resume,
	verb_snapshot, verb_restore, verb_branch, verb_rm, verb_attach, verb_cp, verb_port, verb_stats, verb_logs,
	verb_wait, verb_images, verb_load, verb_tag, verb_rmi, verb_prune, verb_inspect, verb_fs_mount,
	verb_machine_start, verb_machine_stop, verb_machine_status, verb_machine_exec, verb_doctor, verb_events,
	verb_explain, verb_diff, verb_apply, verb_commit, verb_version, verb_completion, verb_help, verb_complete,
	verb_snapshots, verb_snapshot_rm, verb_snapshot_prune, verb_volume_create, verb_volume_ls, verb_volume_inspect,
	verb_volume_rm, verb_volume_prune, verb_watch, verb_pull, verb_login, verb_logout, verb_build, verb_bundle;

/* All verbs, in the order in which help lists them; ends with NULL. */
const struct verb *const *cli_verbs(void);
const struct verb *cli_find_verb(const char *name);
/* What verbs of two words that begin with this one are about ("machine", "fs"); NULL: there are none. */
const char *cli_family(const char *word);
/* The verb that argv begins with: one word, or two as in "machine start". *ret_words: how many. NULL if none. */
const struct verb *cli_match_verb(char **argv, int argc, int *ret_words);

/* Options before the verb. */
struct cli_globals {
	const char *home;
	bool quiet, verbose, debug, version;
};
extern const struct opt cli_global_opts[];
extern const size_t cli_num_global_opts;

/* say.c: everything that goes to stderr */

/* "supermachine: VERB: TEXT" on stderr, cleaned of control characters, after taking a progress bar away. */
void cli_say(struct cli *cli, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Says what failed and, on a second line, what to try (hint NULL: what fits the kind of error). Returns CLI_FAILED. */
int cli_fail(struct cli *cli, const struct sm_error *err, const char *hint);
/* A mistake on the command line: says it, with a hint or a pointer to --help. Returns CLI_FAILED. */
int cli_usage(struct cli *cli, const char *hint, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Progress for the library's long calls: a bar on a terminal, else nothing. */
struct sm_progress cli_progress(struct cli *cli);
void cli_progress_clear(struct cli *cli);
/* The library's log callback; arg is the struct cli. */
void cli_log(void *arg, enum sm_log_level level, const char *line);

/* common.c */

/* The client, opened when first asked for; NULL after having said why not. */
struct sm_client *cli_client(struct cli *cli);
/* A verb that prunes all of a kind at once, and says how many that were and what they took: its status. */
int cli_prune(struct cli *cli,
	      int (*prune)(struct sm_client *client, bool all, unsigned *ret_count, uint64_t *ret_bytes,
			   struct sm_error *err),
	      bool all, const char *noun);
/* The VM or image that `ref` means; NULL after having said that there is none, with the nearest name. */
struct sm_vm *cli_open_vm(struct cli *cli, const char *ref);
int cli_no_vm(struct cli *cli, const char *ref, const struct sm_error *err);
/* get: it could be got from elsewhere. */
int cli_no_image(struct cli *cli, const char *ref, bool get, const struct sm_error *err);
/* Calls fn for each operand, goes on after a failure, prints each that went well; returns 0 or the last failure. */
int cli_each_vm(struct cli *cli, char **operands, int (*fn)(struct cli *, struct sm_vm *, const void *),
		const void *arg);
/* Width of the terminal that f is, 80 where it is none. */
size_t cli_width(FILE *f);
/* Prints finished JSON to stdout. Returns the exit status. */
int cli_print_json(struct cli *cli, struct json *j);
/* Environment of -e and --env-file, in this order: K alone takes the caller's value. *ret: NULL-terminated list and
 * strings to free with cli_env_free. 0, or -errno with *err filled. */
int cli_env(const struct opt_list *files, const struct opt_list *pairs, bool tty, char ***ret, struct sm_error *err);
void cli_env_free(char **env);
/* The number of a detached command. 0, or the exit status after having said what is wrong. */
int cli_exec_number(struct cli *cli, const char *text, uint32_t *ret);
/* The whole command as one line for people; to free. */
char *cli_command_line(const char *const *argv);

/* help.c */
void cli_help(FILE *f, const struct verb *v);
void cli_help_all(FILE *f);
/* The verbs of two words that begin with this one. */
void cli_help_family(FILE *f, const char *word);
/* Text from column `indent` on, broken at spaces to stay within width; the cursor stands at column `at`. */
void cli_put_wrapped(FILE *f, const char *text, size_t indent, size_t at, size_t width);

/* outcome.c */

/* Says on stderr why a command ended where its status alone would leave people guessing; returns its exit status, which
 * is no success if output was lost. */
int cli_outcome(struct cli *cli, const struct sm_outcome *o, uint64_t memory, uint64_t disk);
void cli_outcome_json(struct json *j, const struct sm_outcome *o);
/* Before it runs: that the outcome can be written to `path` (NULL: nothing is to be). 0, or the exit status. */
int cli_outcome_check(struct cli *cli, const char *path);
/* Writes the outcome as JSON to `path`, replacing it atomically. */
int cli_outcome_write(const char *path, const char *image, const char *vm, const struct sm_outcome *o,
		      struct sm_error *err);
/* Prints the stages with their times on standard error; a part is indented below the stage that it is part of. */
void cli_outcome_trace(const struct sm_outcome *o);

#endif
