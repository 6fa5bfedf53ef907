/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshot's state file, as far as it is read without KVM: any bytes give sections that lie inside the file and
 * memory that can be touched, or an error with a message. The closing sum is put right, so that what is behind it is
 * reached. (Devices' records: virtio/fuzz_pci.)
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "vmm/overlay.h"
#include "vmm/ram.h"
#include "vmm/snapshot.h"

#define MEMORY (4 * RAM_CHUNK)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int ok)
{
	if (!ok)
		abort();
}

static void check_inside(const struct snapshot *s, struct cursor c, size_t size)
{
	check(!c.left || (c.p >= s->data && c.p + c.left <= s->data + size));
}

static void check_memory(const struct snapshot *s, int memory)
{
	struct cursor record = s->ram;
	struct sm_error err = {0};
	struct ram ram;
	int r;

	check(ram_map(&ram, MEMORY, &err) == 0);
	r = s->over ? overlay_load(&ram, memory, memory, &record, &err) : ram_load(&ram, memory, &record, &err);
	if (r == 0)
		for (size_t i = 0; i < MEMORY; i += RAM_CHUNK / 2)
			ram.host[i]++;
	else
		check(err.message[0] != '\0');
	ram_unmap(&ram);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct vmm_config cfg = {.memory = MEMORY, .cpus = 1};
	static int state = -1, memory = -1;
	struct sm_error err = {0};
	struct snapshot s;
	uint32_t sum;

	if (state < 0) {
		state = memfd_create("state", 0);
		memory = memfd_create("memory", 0);
		check(state >= 0 && memory >= 0 && ftruncate(memory, MEMORY) == 0);
	}
	if (size < sizeof(sum) || ftruncate(state, (off_t)size) < 0)
		return 0;
	sum = ~crc32c(UINT32_MAX, data, size - sizeof(sum));
	check(pwrite(state, data, size - sizeof(sum), 0) == (ssize_t)(size - sizeof(sum)));
	check(pwrite(state, &sum, sizeof(sum), (off_t)(size - sizeof(sum))) == sizeof(sum));
	if (snapshot_open(&s, state, &cfg, &err) < 0) {
		check(err.message[0] != '\0');
		return 0;
	}
	check_inside(&s, s.ram, size);
	check_inside(&s, s.arch, size);
	check_inside(&s, s.devices, size);
	check_memory(&s, memory);
	while (s.devices.left) {
		struct cursor c;

		if (!snapshot_section(&s.devices, SNAPSHOT_DEV, &c))
			break;
		check_inside(&s, c, size);
	}
	snapshot_done(&s);
	return 0;
}
