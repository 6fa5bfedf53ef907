/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starts that wait. All starts of a home, whatever program they are in, pass one place: so many keepers come up at
 * once, and all others wait here, where they cost nothing, until theirs may be started (base/slots.h: what a program
 * that is killed held is free again). Whether there is memory for its VM is the keeper's to find out, where the VM runs
 * (keeper/admission.c): while it waits it says so in the VM's directory.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/slots.h"
#include "base/util.h"
#include "keeper/admission.h"
#include "lib/lib.h"

#define LAUNCHES_PER_CPU 2u
#define LEAST_LAUNCHES 4u
#define FIRST_PAUSE_MS 1
#define LAST_PAUSE_MS 50
#define SAY_AFTER_NS SECOND_NS
#define DEFAULT_PATIENCE_NS (300 * SECOND_NS)

uint64_t admission_patience(const struct launch *l)
{
	return l->patience_ns ? MIN(l->patience_ns, (uint64_t)INT64_MAX / 2) : DEFAULT_PATIENCE_NS;
}

static int tell(const struct launch *l, const char *what, struct sm_error *err)
{
	if (l->progress && l->progress->update && l->progress->update(l->progress->arg, what, 0, 0))
		return error_set(err, SM_ERROR_CANCELLED, ECANCELED, "stopped while it waited to be started");
	return 0;
}

static int try(struct slots *s)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	int r = slots_turn(s);

	return r < 0 ? r
		     : slots_take(s, MAX(LEAST_LAUNCHES, LAUNCHES_PER_CPU * (unsigned)MAX(cpus, 1)), 0, UINT64_MAX,
				  NULL);
}

static int wait_for_slot(struct slots *s, const struct launch *l, struct sm_error *err)
{
	uint64_t since = time_now_ns(), patience = admission_patience(l), waited;
	int slot = -EAGAIN, r;

	for (int pause_ms = FIRST_PAUSE_MS; slot == -EAGAIN; pause_ms = MIN(2 * pause_ms, LAST_PAUSE_MS)) {
		waited = time_now_ns() - since;
		if (waited >= patience)
			return error_set(err, SM_ERROR_BUSY, EBUSY,
					 "VM %s: busy: other VMs are being started, and for %.3g s it was not its turn",
					 l->id, (double)patience / 1e9);
		r = waited < SAY_AFTER_NS ? 0 : tell(l, "waiting until other VMs have started", err);
		if (r < 0)
			return r;
		poll(NULL, 0, (int)MIN((uint64_t)pause_ms, (patience - waited) / 1000000 + 1));
		slot = try(s);
	}
	return slot;
}

int admission_slot(struct sm_client *c, const struct launch *l, struct sm_error *err)
{
	_free_ char *path = NULL;
	struct slots s;
	int slot;

	if (asprintf(&path, "%s/launching", c->runtime_dir) < 0)
		return error_sys(err, ENOMEM, "start");
	slot = slots_open(&s, path);
	slot = slot < 0 ? slot : try(&s);
	if (slot == -EAGAIN)
		slot = wait_for_slot(&s, l, err);
	else if (slot < 0)
		error_sys(err, -slot, "%s", path);
	slots_close(&s);
	return slot;
}

int admission_waits(int dir, const struct launch *l, bool *ret, struct sm_error *err)
{
	_free_ char *text = NULL;
	size_t len;

	*ret = read_file_at(dir, ADMISSION_FILE, 64, &text, &len) == 0;
	if (!*ret)
		return 0;
	return tell(l,
		    streq(text, ADMISSION_MEMORY) ? "waiting for free memory" : "waiting until other VMs have started",
		    err);
}
