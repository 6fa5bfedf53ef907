/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Command lines. A verb describes its options in a table; from it come parsing, --help and completion, so that they
 * cannot disagree. Values land in the verb's own struct, zeroed before: what was not given stays 0, false or NULL.
 *
 * Spelling as docker and GNU have it: -i -t, -it, -m1G, -m 1G, -m=1G, --memory 1G, --memory=1G, --rm=false; "--" ends
 * the options, and so does the first operand where the verb runs a command.
 */
#ifndef CLI_OPTS_H
#define CLI_OPTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum opt_type {
	OPT_FLAG,     /* bool */
	OPT_TEXT,     /* const char * */
	OPT_LIST,     /* struct opt_list; may be repeated */
	OPT_SIZE,     /* uint64_t, bytes */
	OPT_DURATION, /* uint64_t, ns */
	OPT_NUMBER,   /* uint64_t within [min, max] */
	OPT_DECIMAL,  /* uint64_t, thousandths, within [min, max] of them: "1.5" is 1500 */
	OPT_IGNORED,  /* a flag of docker's that says what is so anyway: accepted, no value */
	OPT_REFUSED,  /* an option of docker's that makes no sense here; choices: why */
};

/* Values of a repeated option, pointing into argv; v is NULL when n is 0, else ends with a NULL. */
struct opt_list {
	const char **v;
	size_t n;
};

/* The values, to take apart; ends with a NULL. NULL: no memory. */
char **opt_list_copy(const struct opt_list *list);
void opt_list_copy_free(char **copy);

struct opt {
	char letter;	  /* 0: none */
	const char *name; /* long name */
	enum opt_type type;
	size_t offset;	     /* of the value in the verb's struct */
	const char *arg;     /* what help calls the value: "SIZE"; NULL for flags */
	const char *help;    /* one line; NULL: not listed */
	uint64_t min, max;   /* of OPT_NUMBER, OPT_DECIMAL and OPT_SIZE; max 0: no limit. OPT_FLAG: min 1: it is on by
				itself, the   value is whether it was turned off */
	const char *choices; /* "table|json": the values OPT_TEXT may have; NULL: any */
	bool open;	     /* other values than the choices may be given, too */
};

/* What was wrong with a command line and what to do about it; hint may be "". */
struct opts_error {
	char what[384];
	char hint[256];
};

/*
 * Parses argv[0..argc) (without program and verb). `command`: options end at the first operand. Operands are left in
 * order in operands[0..*ret_count), which has room for argc + 1 and is NULL-terminated. 0; -EINVAL with *error filled;
 * -ENOMEM; 1 when --help was asked for. Whatever it returns, opts_done frees the lists.
 */
int opts_parse(const struct opt *opts, size_t count, bool command, int argc, char **argv, void *values, char **operands,
	       int *ret_count, struct opts_error *error);
void opts_done(const struct opt *opts, size_t count, void *values);

/* An option by its long name, NULL if there is none. */
const struct opt *opts_find(const struct opt *opts, size_t count, const char *name, size_t len);

#endif
