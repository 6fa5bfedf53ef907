/* SPDX-License-Identifier: Apache-2.0 */
/* A VM whose keeper hangs is ended by way of that: by a process beside it, wherever it is (keeper/hung.c). */
#include <errno.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "lib/lib.h"

/* Less than a connection waits for the first word (conn.c), so that this one sees the end. */
#define PATIENCE "20000000000"

static int start_killer(struct sm_client *c, const struct vm_start *start, struct sm_error *err)
{
	_free_ char *keeper = NULL;
	const char *argv[] = {NULL, "--end", start->socket, PATIENCE, NULL};
	static const char *const env[] = {NULL};
	struct seat *seat;
	int r = client_seat_of(c, start, &seat, err);

	if (r == 0)
		r = client_helper(c, "supermachine-keeper", &keeper, err);
	argv[0] = keeper;
	return r < 0 ? r : seat_spawn(seat, &(struct seat_command){.argv = argv, .env = env}, NULL, err);
}

int vm_end_hung(struct sm_client *c, const char *id, struct sm_error *err)
{
	_fd_ int dir = vmdir_open(c, id, err);
	struct vm_start start;
	struct conn conn;
	int r = dir < 0 ? dir : vmdir_load_start(dir, &start, err);

	if (r < 0)
		return r;
	r = vm_connect(c, id, &conn, err);
	if (r < 0)
		return r == -ESRCH ? 0 : r;
	r = start_killer(c, &start, err);
	if (r == 0)
		while (conn.silent_ns && conn_step(&conn, NULL, 0, -1) == 0)
			;
	if (r == 0 && conn.error == -ETIME)
		r = error_set(err, SM_ERROR_TIMEOUT, ETIMEDOUT, "VM %s: its keeper hangs, and could not be ended", id);
	conn_done(&conn);
	return r;
}
