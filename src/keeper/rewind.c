/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Going back to a mark (vmm/mark.h), which snapshot.c has had the monitor take: the VM is what it was then, in the same
 * keeper and monitor, for somebody who must not see what was done with it meanwhile (lib/pool.c).
 *
 * What is marked is an agent that waits for another keeper, on the connection that it has (HOLD, again). So to the
 * guest each way back, and the first way on from the mark, is a restore whose keeper is there at once: its agent hears
 * HELLO, what is new (RESUME), and that its processes go on (ADOPT), all in one. The keeper forgets all that it knows
 * of the guest, and goes through the phases BOOT, SETUP, READY, MAIN as at the start of a VM that is restored. An agent
 * whose connection could not be part of the mark makes a new one. If anything fails on the way the VM ends.
 */
#include "keeper/keeper.h"

#include <errno.h>
#include <stdio.h>
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
static void forget_link(struct keeper *k)
{
	execs_forget(k);
	k->agent = link_free(k->agent);
	k->agent_lost = false;
	k->main_open = k->main_done = k->main_has_exit = false;
	k->main_ch = k->setup_ch = k->poweroff_ch = 0;
	k->num_listens = 0;
	k->clock = (struct clocksync){0}; /* its channel's number is another's soon */
	k->args.adopt = true;
}

/* Its connection stays open until the monitor has taken the other end: an agent that is left alone ends its machine. */
int rewind_begin(struct keeper *k, int *ret_fd)
{
	struct rewinding *w = &k->rewinding;
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	w->under_way = true;
	w->error[0] = '\0';
	w->fd = pair[0];
	*ret_fd = pair[1];
	k->phase = PHASE_BOOT;
	k->boot_since = k->stage_since = time_now_ns();
	loop_timer_at(k->deadline, k->boot_since + k->args.limits.restore);
	k->time_limit_at = 0;
	loop_timer_at(k->time_limit, 0);
	loop_timer_at(k->grace, 0);
	return 0;
}

int rewind_request(struct keeper *k)
{
	_fd_ int fd = -1;
	int r = check(k);

	if (r == 0)
		r = rewind_begin(k, &fd);
	if (r < 0)
		return r;
	r = monitor_rewind(k, fd);
	if (r < 0)
		keeper_end(k, SM_REASON_START_FAILED, 0, "go back to the mark: %s", strerror(-r));
	return r;
}

/* From BOOT to MAIN once more. Takes fd. */
static void go_on(struct keeper *k, int fd)
{
	int r = agent_again(k, fd);

	if (r < 0)
		keeper_end(k, SM_REASON_START_FAILED, 0, "go back to the mark: %s", strerror(-r));
}

void rewind_marked(struct keeper *k, const char *error)
{
	struct rewinding *w = &k->rewinding;
	int fd = TAKE_FD(w->fd);

	w->marked = !error;
	w->marking = true;
	w->client = TAKE_PTR(k->saving.client);
	w->ch = k->saving.ch;
	if (error)
		snprintf(w->error, sizeof(w->error), "%s", error);
	if (fd < 0 || k->phase != PHASE_BOOT) {
		fd_close(fd);
		return;
	}
	forget_link(k);
	go_on(k, fd);
}

void rewind_done(struct keeper *k, const char *error)
{
	int fd = TAKE_FD(k->rewinding.fd), r;

	/* After an error the monitor ends by itself, and says why. */
	if (fd < 0 || error || k->phase != PHASE_BOOT) {
		fd_close(fd);
		return;
	}
	forget_link(k);
	k->mon.disk_error = 0;
	k->exit = (struct vm_exit){0};
	r = k->logging ? vm_log_restart(&k->log) : 0;
	if (r == 0) {
		go_on(k, fd);
		return;
	}
	fd_close(fd);
	keeper_end(k, SM_REASON_START_FAILED, 0, "go back to the mark: %s", strerror(-r));
}
