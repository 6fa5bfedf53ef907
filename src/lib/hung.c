/* SPDX-License-Identifier: Apache-2.0 */
/* A VM whose keeper hangs is ended by way of that: by a process beside it, wherever it is (keeper/hung.c). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "lib/lib.h"

/* In the VM's directory: it is being ended because its keeper hangs, which whoever derives its record may tell. */
#define MARK "hung"

bool vm_was_hung(int dir)
{
	return faccessat(dir, MARK, F_OK, 0) == 0;
}

/* It has less time than a connection waits for the first word (conn.c), so that this one sees the end. */
static int start_killer(struct sm_client *c, const struct vm_start *start, struct sm_error *err)
{
	_free_ char *keeper = NULL;
	char patience[24];
	const char *argv[] = {NULL, "--end", start->socket, patience, NULL};
	static const char *const env[] = {NULL};
	struct seat *seat;
	int r = client_seat_of(c, start, &seat, err);

	snprintf(patience, sizeof(patience), "%llu", (unsigned long long)(c->patience_ns / 3 * 2));
	if (r == 0)
		r = client_helper(c, "supermachine-keeper", &keeper, err);
	argv[0] = keeper;
	return r < 0 ? r : seat_spawn(seat, &(struct seat_command){.argv = argv, .env = env}, NULL, err);
}

/* Until it has said something, or is gone: 1. */
static int end_by_killer(struct sm_client *c, const char *id, const struct vm_start *start, struct sm_error *err)
{
	struct conn conn;
	int r = vm_connect(c, id, &conn, err);

	if (r < 0)
		return r == -ESRCH ? 0 : r;
	r = start_killer(c, start, err);
	if (r == 0) {
		while (conn.silent_ns && conn_step(&conn, NULL, 0, -1) == 0)
			;
		if (conn.error == -ETIME)
			r = error_set(err, SM_ERROR_TIMEOUT, ETIMEDOUT,
				      "VM %s: its keeper hangs, and could not be ended", id);
		else
			r = conn.error != 0;
	}
	conn_done(&conn);
	return r;
}

int vm_end_hung(struct sm_client *c, const char *id, struct sm_error *err)
{
	_fd_ int dir = vmdir_open(c, id, err);
	struct vm_start start;
	struct vm_view v;
	int r = dir < 0 ? dir : vmdir_load_start(dir, &start, err);

	if (r < 0)
		return r;
	write_file_atomic_at(dir, MARK, "", 0, 0600);
	r = end_by_killer(c, id, &start, err);
	/* Looked at now, so that the record has it, whoever looks next. */
	if (r == 1 && vm_view(c, id, &v, NULL) == 0 && v.state == SM_VM_EXITED)
		client_say(c, SM_LOG_NOTICE, "VM %s: its keeper did not answer, and was ended with it", id);
	unlinkat(dir, MARK, 0);
	return MIN(r, 0);
}
