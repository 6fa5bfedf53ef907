/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A spare: a VM that is made before anybody wants it. Its guest is restored and set up with the image and nothing else,
 * then it stands still, until somebody CLAIMs it: from then on it is his VM, under a new record, as if it had been
 * started at that moment. If nobody does within its time it ends, and leaves nothing behind, not even its directory.
 *
 * It listens from the start, so that whoever finds it knows at once whether it is alive; a claim that comes before the
 * guest is up waits for that.
 */
#include "keeper/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/fileio.h"
#include "base/log.h"
#include "base/util.h"

bool spare_unclaimed(const struct keeper *k)
{
	return k->spare.stage != SPARE_NONE && k->spare.stage != SPARE_TAKEN;
}

/* Only what concerns the command may differ: the library has seen to that. */
static int take_record(struct keeper *k, const struct keeper_claim *m)
{
	struct vm_record rec;
	int r = vm_record_parse((const char *)m->record, m->record_len, &rec, NULL);

	if (r < 0)
		return r;
	if (!streq(rec.id, k->rec.id) || rec.no_command || rec.memory != k->rec.memory) {
		vm_record_done(&rec);
		return -EINVAL;
	}
	k->spare.renamed = !streq(rec.hostname, k->rec.hostname);
	vm_record_done(&k->rec);
	k->rec = rec;
	return 0;
}

static int go_on(struct keeper *k)
{
	struct spare *s = &k->spare;
	int r = s->stands ? monitor_pause(k, false) : 0;

	s->answers += s->stands && r == 0;
	s->stands = false;
	return r;
}

static int begin_log(struct keeper *k)
{
	k->logging = k->rec.keep;
	return k->logging ? vm_log_open(&k->log, k->dirfd, "log", false, VM_LOG_ROTATE) : 0;
}

/* The guest goes on, and is told what it is now: keeper_setup_done follows. */
static void become(struct keeper *k)
{
	struct spare *s = &k->spare;
	int r;

	s->stage = SPARE_BECOMES;
	k->phase = PHASE_SETUP;
	k->boot_since = time_now_ns();
	loop_timer_at(k->deadline, k->boot_since + k->args.limits.restore);
	if (k->rec.ttl_ns)
		loop_timer_at(k->ttl, s->claimed_ns + k->rec.ttl_ns);
	k->exit = (struct vm_exit){0};
	vm_outcome_stage(&k->exit.outcome, "prepare", s->prepare_ns);
	k->stage_since = s->claimed_ns;
	r = go_on(k);
	r = r < 0 ? r : begin_log(k);
	r = r < 0 ? r : agent_become(k);
	if (r < 0)
		keeper_end(k, SM_REASON_START_FAILED, 0, "take a spare: %s", strerror(-r));
}

/* The guest is up, and nobody wants it yet. */
static void stand_still(struct keeper *k)
{
	struct spare *s = &k->spare;
	int r;

	if (keeper_given_up(k)) {
		keeper_end(k, SM_REASON_STOPPED, 0, "given up before it was ready");
		return;
	}
	r = monitor_pause(k, true);
	s->answers += r == 0;
	s->stands = r == 0;
	loop_timer_at(k->deadline, 0);
	loop_timer_at(k->owner_timer, time_now_ns() + k->args.spare);
}

int spare_claim(struct keeper *k, struct client *c, uint32_t ch, struct cursor *request)
{
	struct spare *s = &k->spare;
	struct keeper_claim m;
	int r = keeper_claim_decode(request, &m);

	if (r < 0)
		return r;
	if (s->stage != SPARE_WAITS)
		return -EALREADY;
	if (k->phase >= PHASE_ENDING)
		return -ESRCH;
	s->dir = strdup(m.dir);
	r = s->dir ? take_record(k, &m) : -ENOMEM;
	if (r < 0)
		return r;
	k->args.dir = s->dir;
	k->args.owner = true;
	k->owner_seen = true;
	loop_timer_at(k->owner_timer, 0);
	s->client = c;
	s->ch = ch;
	s->prepare_ns = m.prepare_ns;
	s->claimed_ns = time_now_ns();
	s->stage = SPARE_CLAIMED;
	if (k->phase == PHASE_READY)
		become(k);
	return 0;
}

bool spare_set_up(struct keeper *k)
{
	switch (k->spare.stage) {
	case SPARE_WAITS:
		stand_still(k);
		return false;
	case SPARE_CLAIMED:
		become(k);
		return false;
	case SPARE_BECOMES:
		k->spare.stage = SPARE_TAKEN;
		server_claimed(k);
		return true;
	default:
		return true;
	}
}

bool spare_paused(struct keeper *k)
{
	if (!k->spare.answers)
		return false;
	k->spare.answers--;
	return true;
}

void spare_client_gone(struct keeper *k)
{
	k->spare.client = NULL;
	keeper_end(k, SM_REASON_CLIENT_GONE, 0, "the program that took it went away");
}

/* Once claimed its directory is elsewhere, and its new owner's. */
void spare_done(struct keeper *k)
{
	if (k->spare.stage == SPARE_WAITS && k->args.dir && remove_tree_at(AT_FDCWD, k->args.dir) < 0)
		log_debug("keeper", "%s cannot be removed", k->args.dir);
	free(k->spare.dir);
}
