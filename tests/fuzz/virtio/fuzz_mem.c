/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-mem against a random guest; what it gives back must be whole blocks of what there is. See fuzz_device.h. */
#include "fuzz_device.h"

#include <linux/virtio_mem.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/util.h"
#include "virtio/mem.h"

#define REGION (8 * GIB)
#define BACKED (5 * VIRTIO_MEM_BLOCK)

static uint8_t *memory;

static void release(void *arg, void *host, size_t len)
{
	uint64_t off = (uint64_t)((uint8_t *)host - memory);

	if (!range_inside(off, len, BACKED) || (off | len) % VIRTIO_MEM_BLOCK || !len)
		abort();
}

static struct virtio_device *make(struct driver *d, struct cursor *in)
{
	struct virtio_mem_options o = {
		.name = "mem", .gpa = REGION, .region_size = GIB, .backed = BACKED, .release = release};
	struct mem_region region = {.kind = MEM_RAM, .writable = true, .gpa = REGION, .size = BACKED};
	struct virtio_device *dev;

	if (!memory)
		memory = mmap(NULL, BACKED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	region.host = memory;
	if (memory == MAP_FAILED || mem_add(&d->mem, &region) < 0)
		abort();
	return virtio_mem_new(&d->mem, d->loop, &o, &dev) < 0 ? NULL : dev;
}

/* However it came to that: never more than there is. */
static void outside(struct driver *d, struct virtio_device *dev, struct cursor *in)
{
	if (virtio_mem_plugged(dev) > BACKED)
		abort();
}

/* A request near what there is. */
static void header(struct cursor *in, unsigned queue, uint8_t *p, size_t room)
{
	uint8_t type = cursor_u8(in), block = cursor_u8(in);
	struct virtio_mem_req req = {
		.type = type % 5,
		.u.plug = {.addr = REGION + (block % 8) * VIRTIO_MEM_BLOCK - (block & 0x80 ? 4096 : 0),
			   .nb_blocks = (uint16_t)(cursor_u8(in) % 7)}};

	memcpy(p, &req, MIN(room, sizeof(req)));
}

const struct fuzz_device fuzz_device = {
	.make = make, .outside = outside, .header = header, .header_size = sizeof(struct virtio_mem_req)};
