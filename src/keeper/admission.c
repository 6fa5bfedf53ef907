/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a VM may start now: where it is to run, by what is free there. Memory of VMs is promised to more of them than
 * there would be room for if all used theirs, as it is to processes; what is looked at is what a start takes at once.
 * So many VMs start at a time, and each only while there is memory for it, beside what those that start at the moment
 * may still take and what is to be left to all others. Who does not fit waits, first in line or not, until it does or
 * its time is up. The slots (base/slots.h) are beside the keepers' sockets, and go with their holders.
 */
#include "keeper/admission.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/slots.h"
#include "keeper/keeper.h"

#define STARTS_PER_CPU 4u
#define LEAST_STARTS 8u
/* What a guest and its monitor have touched by the time that the guest is up, or more. */
#define RESTORE_NEED (32 * MIB)
#define BOOT_NEED (128 * MIB)
#define PLUGGED_PER_NEED 64 /* memory that is plugged takes page structures at once */
#define FIRST_PAUSE_MS 1
#define LAST_PAUSE_MS 100
#define SAY_AFTER_NS 300000000ull

struct admission {
	struct slots slots;
	unsigned max, held;
	uint64_t need, room; /* room: what there was at the last look */
};

/* Beside the socket. */
static int open_slots(struct slots *s, const char *socket)
{
	const char *slash = strrchr(socket, '/');
	_free_ char *path = NULL;

	*s = (struct slots){.dir = -1, .turn = -1};
	if (asprintf(&path, "%.*s/starting", slash ? (int)(slash - socket) : 1, slash ? socket : ".") < 0)
		return -ENOMEM;
	return slots_open(s, path);
}

/* A descriptor, or as slots_take. */
static int try(const struct keeper *k, struct admission *a)
{
	int r = slots_turn(&a->slots);

	if (r < 0)
		return r;
	a->room = memory_available(k->args.reserve + a->max * a->need);
	a->room -= MIN(a->room, k->args.reserve);
	/* What nobody knows must not be in the way. */
	return slots_take(&a->slots, a->max, a->need, MIN(a->room, UINT64_MAX - 1), &a->held);
}

static int refuse(const struct keeper *k, const struct admission *a, int why, struct sm_error *err)
{
	char room[16], need[16];

	if (why != -ENOSPC)
		return error_set(err, SM_ERROR_BUSY, EBUSY,
				 "busy: %u VMs are starting, and others were first in line for %.3g s", a->max,
				 (double)k->args.patience / 1e9);
	return error_set(err, SM_ERROR_BUSY, EBUSY,
			 "busy: there is no memory for one more VM: its start takes %s, and %s can be had (%u other "
			 "VM%s starting)",
			 format_size(a->need, need), format_size(a->room, room), a->held,
			 a->held == 1 ? " is" : "s are");
}

static void say(const struct keeper *k, int why)
{
	const char *text = why == -ENOSPC ? ADMISSION_MEMORY : "turn";

	(void)!write_file_atomic_at(k->dirfd, ADMISSION_FILE, text, strlen(text), 0600);
}

static int wait_long(struct keeper *k, struct admission *a, int why, struct sm_error *err)
{
	uint64_t since = time_now_ns();
	int said = 0;

	for (int pause_ms = FIRST_PAUSE_MS; why == -EAGAIN || why == -ENOSPC;
	     pause_ms = MIN(2 * pause_ms, LAST_PAUSE_MS)) {
		uint64_t waited = time_now_ns() - since;

		if (waited >= k->args.patience)
			return refuse(k, a, why, err);
		if (keeper_given_up(k))
			return error_set(err, SM_ERROR_CANCELLED, ECANCELED,
					 "given up before it could be started: the program that started it is gone");
		if (waited >= SAY_AFTER_NS && why != said)
			say(k, said = why);
		poll(NULL, 0, pause_ms);
		why = try(k, a);
	}
	keeper_stage(k, "queue");
	return why;
}

int admission_wait(struct keeper *k, struct sm_error *err)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	struct admission a = {.max = MAX(LEAST_STARTS, STARTS_PER_CPU * (unsigned)MAX(cpus, 1)),
			      .need = (k->args.restore || k->args.resume ? RESTORE_NEED : BOOT_NEED) +
				      k->args.plugged / PLUGGED_PER_NEED};
	int r = open_slots(&a.slots, k->args.socket);

	if (r == 0)
		r = try(k, &a);
	if (r == -EAGAIN || r == -ENOSPC) {
		r = wait_long(k, &a, r, err);
		unlinkat(k->dirfd, ADMISSION_FILE, 0);
	}
	slots_close(&a.slots);
	if (r == -EBUSY || r == -ECANCELED)
		return r;
	if (r < 0) /* no reason not to start */
		log_error("keeper", "who may start: %s", strerror(-r));
	k->admitted = r;
	return 0;
}

void admission_over(struct keeper *k)
{
	k->admitted = slots_release(k->admitted);
}
