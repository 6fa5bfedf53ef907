/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Going back to a mark (vmm/mark.h), which snapshot.c has had the monitor take: the VM is what it was then, in the same
 * keeper and monitor, for somebody who must not see what was done with it meanwhile (lib/pool.c).
 *
 * To the guest that is a restore like any other: its agent finds its connection cut, makes a new one, and is told what
 * is new (RESUME) before its processes go on (ADOPT). So the keeper forgets all that it knows of the guest, and waits
 * for that connection as at the start of a VM that is restored: phases BOOT, SETUP, READY, MAIN. If anything fails on
 * the way the VM ends.
 */
#include "keeper/keeper.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"

static int check(const struct keeper *k)
{
	if (k->phase >= PHASE_ENDING)
		return -ESRCH;
	if (!k->rewinding.marked)
		return -ENODATA;
	if (k->pause.on || k->pause.under_way)
		return -EHOSTDOWN;
	if (k->phase != PHASE_MAIN || !k->main_open || !k->agent || k->rewinding.under_way ||
	    k->saving.stage != SAVING_NOTHING || k->saving.copies || k->forced != SM_REASON_NONE)
		return -EBUSY;
	return 0;
}

/* Who had a channel to the guest finds it closed. */
static void forget_guest(struct keeper *k)
{
	execs_forget(k);
	k->agent = link_free(k->agent);
	k->agent_lost = false;
	k->main_open = k->main_done = k->main_has_exit = false;
	k->main_ch = k->setup_ch = k->poweroff_ch = 0;
	k->num_listens = 0;
	k->args.adopt = true;
	k->mon.disk_error = 0;
	k->exit = (struct vm_exit){0};
}

/* What the guest says until the monitor has gone back does not count any more. Its connection stays open for so long:
 * an agent that is left alone ends its machine. */
int rewind_request(struct keeper *k)
{
	struct rewinding *w = &k->rewinding;
	int r = check(k), pair[2];

	if (r < 0)
		return r;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	w->under_way = true;
	w->fd = pair[0];
	k->phase = PHASE_BOOT;
	k->boot_since = k->stage_since = time_now_ns();
	loop_timer_at(k->deadline, k->boot_since + k->args.limits.restore);
	k->time_limit_at = 0;
	loop_timer_at(k->time_limit, 0);
	loop_timer_at(k->grace, 0);
	r = monitor_rewind(k, pair[1]);
	fd_close(pair[1]);
	if (r < 0)
		keeper_end(k, SM_REASON_START_FAILED, 0, "go back to the mark: %s", strerror(-r));
	return r;
}

void rewind_done(struct keeper *k, const char *error)
{
	int fd = TAKE_FD(k->rewinding.fd), r;

	/* After an error the monitor ends by itself, and says why. */
	if (fd < 0 || error || k->phase != PHASE_BOOT) {
		fd_close(fd);
		return;
	}
	forget_guest(k);
	r = k->logging ? vm_log_restart(&k->log) : 0;
	if (r == 0 && agent_start(k, fd, NULL) == 0)
		return;
	fd_close(fd);
	keeper_end(k, SM_REASON_START_FAILED, 0, "go back to the mark: %s", strerror(r < 0 ? -r : ENOMEM));
}
