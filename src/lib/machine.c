/* SPDX-License-Identifier: Apache-2.0 */
/* The machine through the public header. Commands in it: exec.c. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "lib/spare.h"

int sm_machine_start(struct sm_client *client, const struct sm_progress *progress, struct sm_error *err)
{
	struct seat *seat;
	int r = client_machine_seat(client, &seat, err);

	if (r < 0)
		return r;
	if (progress && progress->update && progress->update(progress->arg, "machine", 0, 0))
		return error_set(err, SM_ERROR_CANCELLED, ECANCELED, "stopped");
	return seat_ready(seat, err);
}

int sm_machine_stop(struct sm_client *client, struct sm_error *err)
{
	struct seat *seat;
	int r = client_machine_seat(client, &seat, err);

	if (r < 0)
		return r;
	spare_end_all(client);
	return seat_machine_stop(seat, err);
}

int sm_machine_status(struct sm_client *client, struct sm_machine_status *ret, struct sm_error *err)
{
	struct sm_machine_status s = SM_MACHINE_STATUS_INIT;
	struct seat_machine_status m = {0};
	struct kvm_probe probe = {0};
	struct seat *seat;
	size_t size = ret->size ? MIN(ret->size, sizeof(s)) : sizeof(s);
	int r = client_machine_seat(client, &seat, err);

	if (r == 0)
		r = seat_machine_status(seat, &m, err);
	if (r < 0)
		return r;
	if (client->mode == SEAT_AUTO)
		kvm_probe(client->runtime_dir, &probe);
	s.needed = client->mode == SEAT_ALWAYS || (client->mode == SEAT_AUTO && probe.state != KVM_STATE_WORKS);
	snprintf(s.why, sizeof(s.why), "%s",
		 client->mode == SEAT_AUTO ? probe.why
		 : s.needed		   ? "asked for"
					   : "not wanted");
	s.running = m.running;
	s.pid = m.emulator_pid;
	s.memory = m.memory;
	s.cpus = m.cpus;
	s.uptime_ns = m.uptime_ns;
	s.busy = m.busy;
	memcpy(ret, &s, size);
	ret->size = size;
	return 0;
}
