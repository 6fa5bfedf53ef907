/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshot's working set: any bytes either are refused or make copies of a bounded number of pages, and RAM reads as
 * before. The closing sum is put right, so that what is behind it is reached.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "vmm/workingset.h"

#define MEMORY (4 * RAM_CHUNK)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int ok)
{
	if (!ok)
		abort();
}

/* RAM of which all but the second chunk came from a file of zeros. */
static struct ram *make_ram(void)
{
	static const uint8_t bitmap = 0x0d;
	static struct ram ram;
	struct sm_error err = {0};
	struct buf record = {0};
	struct cursor c;
	int memory = memfd_create("memory", 0);

	buf_put_u64(&record, MEMORY);
	buf_put(&record, &bitmap, 1);
	c = cursor_of(record.data, record.len);
	check(memory >= 0 && ftruncate(memory, MEMORY) == 0 && ram_map(&ram, MEMORY, &err) == 0);
	check(ram_load(&ram, memory, &c, &err) == 0);
	buf_done(&record);
	close(memory);
	return &ram;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct ram *ram;
	static int file = -1;
	uint32_t sum;
	int r;

	if (!ram) {
		ram = make_ram();
		file = memfd_create("workingset", 0);
		check(file >= 0);
	}
	if (size < sizeof(sum) || ftruncate(file, (off_t)size) < 0)
		return 0;
	sum = ~crc32c(UINT32_MAX, data, size - sizeof(sum));
	check(pwrite(file, data, size - sizeof(sum), 0) == (ssize_t)(size - sizeof(sum)));
	check(pwrite(file, &sum, sizeof(sum), (off_t)(size - sizeof(sum))) == sizeof(sum));
	r = workingset_apply(ram, file);
	check(r < 0 || r <= (int)WORKINGSET_MAX_PAGES);
	if (r > 0)
		madvise(ram->host, MEMORY, MADV_DONTNEED);
	return 0;
}
