/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshot's state file, as far as it is read without KVM: any bytes give sections that lie inside the file and
 * memory that can be touched, or an error with a message. The closing sum is put right, so that what is behind it is
 * reached. Memory that was loaded is written to, and saved as a diff over what it came from: loaded again it is the
 * same. (Devices' records: virtio/fuzz_pci.)
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

static void touch(uint8_t *p, unsigned round)
{
	for (size_t i = round * RAM_PAGE; i < MEMORY; i += RAM_CHUNK / 2)
		p[i]++;
	memset(p + RAM_CHUNK, 0, 4 * RAM_PAGE);
}

/* files: that ram came from, as many as are not -1, with room for one more. Diffs of diffs, as long as there may be
 * more. */
static void check_diff(struct ram *ram, int *files, unsigned num, unsigned rounds)
{
	struct overlay_options o = {.keep = num, .lean = true};
	struct buf record = {0};
	struct sm_error err = {0};
	uint8_t *changed;
	struct cursor c;
	struct ram again;
	uint64_t bytes;

	touch(ram->host, rounds);
	if (!rounds || !overlay_possible(ram, num))
		return;
	files[num] = memfd_create("diff", 0);
	changed = overlay_changed(ram, num);
	check(files[num] >= 0 && changed && overlay_save(ram, changed, &o, files[num], &record, &bytes, &err) == 0);
	c = cursor_of(record.data, record.len);
	check(ram_map(&again, MEMORY, &err) == 0 && overlay_load(&again, files, num, files[num], &c, &err) == 0);
	check(memcmp(again.host, ram->host, MEMORY) == 0);
	check_diff(&again, files, num + 1, rounds - 1);
	ram_unmap(&again);
	buf_done(&record);
	free(changed);
	close(files[num]);
}

/* All files are the same one, holes; as many as the record says, up to what a chain may have. */
static void check_memory(const struct snapshot *s, int memory)
{
	struct cursor record = s->ram;
	int files[OVERLAY_MAX + 2], r;
	struct sm_error err = {0};
	uint32_t num = 0;
	struct ram ram;

	for (unsigned i = 0; i < OVERLAY_MAX + 2; i++)
		files[i] = memory;
	if (s->over && record.left >= 12)
		memcpy(&num, record.p + 8, sizeof(num));
	num = s->over && num <= OVERLAY_MAX ? num : 0;
	check(ram_map(&ram, MEMORY, &err) == 0);
	ram.boot = s->memory;
	r = s->over ? overlay_load(&ram, files, num, memory, &record, &err) : ram_load(&ram, memory, &record, &err);
	if (r == 0)
		check_diff(&ram, files, num + 1, 2);
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
