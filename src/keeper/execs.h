/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands that run detached (`exec -d`): the keeper has their channels, so their output is kept and they can be found
 * again. What it knows of command N is in the VM's directory, for the library to read there, also when the VM has
 *ended:
 *
 *	exec.N		what it is (struct vm_exec_record)
 *	exec.N.log, exec.N.log.1	what it printed (log.h)
 *	exec.N.exit	how it ended, in the form of exit.json; absent while it runs
 *
 * N counts from 1 in each run of the VM: the library removes the files before the next. Of those that have ended the
 *last EXECS_KEPT are kept.
 */
#ifndef KEEPER_EXECS_H
#define KEEPER_EXECS_H

#include "keeper/record.h"

#define EXECS_KEPT 64 /* that have ended */
#define EXECS_MAX 512 /* that run */
#define EXEC_LOG_ROTATE (1u << 20)
#define EXEC_NAME_SIZE 32

enum exec_file { EXEC_RECORD, EXEC_LOG, EXEC_LOG_OLD, EXEC_EXIT };
/* The name of one of its files. */
const char *exec_file_name(char out[static EXEC_NAME_SIZE], unsigned id, enum exec_file which);
/* The command that a file of this name is the record of; 0: it is none. */
unsigned exec_of_file(const char *name);

struct vm_exec_record {
	char **argv;
	char *user; /* NULL: the container's */
	bool tty, stdin_open;
	uint32_t pid; /* in the guest */
	int64_t started_ns;
};
int vm_exec_format(const struct vm_exec_record *r, char **ret, struct sm_error *err) MUST_CHECK;
/* Untrusted, as the others. On failure there is nothing to free. */
int vm_exec_parse(const char *json, size_t len, struct vm_exec_record *ret, struct sm_error *err) MUST_CHECK;
void vm_exec_done(struct vm_exec_record *r);

#endif
