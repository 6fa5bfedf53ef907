/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-mem: what a guest may plug, what it may not, what is given back, and a device that is loaded. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>
#include <linux/virtio_mem.h>

#include "base/util.h"
#include "driver.h"
#include "virtio/mem.h"

#define ALL UINT64_MAX
#define A (RAM_BASE + 0x100000)
#define B (RAM_BASE + 0x110000)
#define REGION (8 * GIB)
#define REGION_SIZE GIB
#define BLOCKS 4u
#define BACKED (BLOCKS * VIRTIO_MEM_BLOCK)

struct released {
	uint8_t *host;
	unsigned calls;
	uint64_t off, len;
};

struct guest {
	struct driver d;
	struct virtio_device *dev;
	struct released rel;
};

static void release(void *arg, void *host, size_t len)
{
	struct released *r = arg;

	r->calls++;
	r->off = (uint64_t)((uint8_t *)host - r->host);
	r->len = len;
	assert_true(range_inside(r->off, r->len, BACKED));
}

/* backed: bytes, 0 for the guest of a base. */
static void guest_new(struct guest *g, uint64_t backed)
{
	struct virtio_mem_options o = {.name = "mem",
				       .gpa = REGION,
				       .region_size = REGION_SIZE,
				       .backed = backed,
				       .release = release,
				       .arg = &g->rel};
	struct mem_region region = {.kind = MEM_RAM, .writable = true, .gpa = REGION, .size = BACKED};

	memset(g, 0, sizeof(*g));
	driver_init(&g->d);
	region.host = g->rel.host =
		mmap(NULL, BACKED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_true(region.host != MAP_FAILED);
	if (backed)
		assert_int_equal(mem_add(&g->d.mem, &region), 0);
	assert_int_equal(virtio_mem_new(&g->d.mem, g->d.loop, &o, &g->dev), 0);
	driver_attach(&g->d, g->dev);
}

static void guest_done(struct guest *g)
{
	munmap(g->rel.host, BACKED);
	driver_done(&g->d);
}

static struct virtio_mem_config config(struct guest *g)
{
	struct virtio_mem_config c;

	for (unsigned i = 0; i < sizeof(c); i += 4)
		driver_config(&g->d, i, (uint8_t *)&c + i, 4);
	return c;
}

static struct virtio_mem_resp answer(struct guest *g, uint16_t type, uint64_t addr, uint16_t num)
{
	struct driver_buf bufs[] = {{A, sizeof(struct virtio_mem_req), false},
				    {B, sizeof(struct virtio_mem_resp), true}};
	struct virtio_mem_req req = {.type = type, .u.plug = {.addr = addr, .nb_blocks = num}};
	struct virtio_mem_resp resp;
	uint32_t len;

	memcpy(driver_at(&g->d, A), &req, sizeof(req));
	memset(driver_at(&g->d, B), 0x55, sizeof(resp));
	driver_chain(&g->d, 0, bufs, 2);
	driver_kick(&g->d, 0);
	assert_true(driver_used(&g->d, 0, NULL, &len));
	assert_int_equal(len, sizeof(resp));
	memcpy(&resp, driver_at(&g->d, B), sizeof(resp));
	return resp;
}

static uint16_t ask(struct guest *g, uint16_t type, uint64_t block, uint16_t num)
{
	return answer(g, type, REGION + block * VIRTIO_MEM_BLOCK, num).type;
}

static uint16_t state(struct guest *g, uint64_t block, uint16_t num)
{
	struct virtio_mem_resp r = answer(g, VIRTIO_MEM_REQ_STATE, REGION + block * VIRTIO_MEM_BLOCK, num);

	assert_int_equal(r.type, VIRTIO_MEM_RESP_ACK);
	return r.u.state.state;
}

static void test_config(void **unused)
{
	struct virtio_mem_config c;
	struct guest g;

	guest_new(&g, BACKED);
	assert_true(driver_offered(&g.d) >> VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE & 1);
	assert_true(driver_start(&g.d, ALL));
	c = config(&g);
	assert_int_equal(c.block_size, VIRTIO_MEM_BLOCK);
	assert_int_equal(c.addr, REGION);
	assert_int_equal(c.region_size, REGION_SIZE);
	assert_int_equal(c.usable_region_size, 128 * MIB);
	assert_int_equal(c.plugged_size, 0);
	assert_int_equal(c.requested_size, BACKED);
	guest_done(&g);
	guest_new(&g, 0);
	assert_true(driver_start(&g.d, ALL));
	c = config(&g);
	assert_int_equal(c.usable_region_size, 0);
	assert_int_equal(c.requested_size, 0);
	assert_int_equal(ask(&g, VIRTIO_MEM_REQ_PLUG, 0, 1), VIRTIO_MEM_RESP_ERROR);
	assert_int_equal(ask(&g, VIRTIO_MEM_REQ_UNPLUG_ALL, 0, 0), VIRTIO_MEM_RESP_ACK);
	guest_done(&g);
}

static void test_plug_and_unplug(void **unused)
{
	struct guest g;

	guest_new(&g, BACKED);
	assert_true(driver_start(&g.d, ALL));
	assert_int_equal(state(&g, 0, BLOCKS), VIRTIO_MEM_STATE_UNPLUGGED);
	assert_int_equal(ask(&g, VIRTIO_MEM_REQ_PLUG, 1, 2), VIRTIO_MEM_RESP_ACK);
	assert_int_equal(config(&g).plugged_size, 2 * VIRTIO_MEM_BLOCK);
	assert_int_equal(virtio_mem_plugged(g.dev), 2 * VIRTIO_MEM_BLOCK);
	assert_int_equal(state(&g, 0, BLOCKS), VIRTIO_MEM_STATE_MIXED);
	assert_int_equal(state(&g, 1, 2), VIRTIO_MEM_STATE_PLUGGED);
	/* Neither twice, nor what is not plugged, nor a part of it. */
	assert_int_equal(ask(&g, VIRTIO_MEM_REQ_PLUG, 2, 2), VIRTIO_MEM_RESP_ERROR);
	assert_int_equal(ask(&g, VIRTIO_MEM_REQ_UNPLUG, 0, 2), VIRTIO_MEM_RESP_ERROR);
	assert_int_equal(g.rel.calls, 0);
	assert_int_equal(config(&g).plugged_size, 2 * VIRTIO_MEM_BLOCK);
	assert_int_equal(ask(&g, VIRTIO_MEM_REQ_UNPLUG, 2, 1), VIRTIO_MEM_RESP_ACK);
	assert_int_equal(g.rel.calls, 1);
	assert_int_equal(g.rel.off, 2 * VIRTIO_MEM_BLOCK);
	assert_int_equal(g.rel.len, VIRTIO_MEM_BLOCK);
	assert_int_equal(ask(&g, VIRTIO_MEM_REQ_PLUG, 3, 1), VIRTIO_MEM_RESP_ACK);
	/* All of it: each run by itself. */
	assert_int_equal(ask(&g, VIRTIO_MEM_REQ_UNPLUG_ALL, 0, 0), VIRTIO_MEM_RESP_ACK);
	assert_int_equal(g.rel.calls, 3);
	assert_int_equal(g.rel.off, 3 * VIRTIO_MEM_BLOCK);
	assert_int_equal(config(&g).plugged_size, 0);
	assert_int_equal(state(&g, 0, BLOCKS), VIRTIO_MEM_STATE_UNPLUGGED);
	guest_done(&g);
}

/* What a hostile guest may try: none of it plugs, and none of it breaks the device. */
static void test_beyond(void **unused)
{
	static const uint16_t types[] = {VIRTIO_MEM_REQ_PLUG, VIRTIO_MEM_REQ_UNPLUG, VIRTIO_MEM_REQ_STATE};
	struct guest g;

	guest_new(&g, BACKED);
	assert_true(driver_start(&g.d, ALL));
	for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
		/* In the usable part of the region, where there is no memory. */
		assert_int_equal(ask(&g, types[i], BLOCKS, 1), VIRTIO_MEM_RESP_NACK);
		assert_int_equal(ask(&g, types[i], 0, BLOCKS + 1), VIRTIO_MEM_RESP_NACK);
		assert_int_equal(ask(&g, types[i], 128 * MIB / VIRTIO_MEM_BLOCK, 1), VIRTIO_MEM_RESP_ERROR);
		assert_int_equal(ask(&g, types[i], 0, UINT16_MAX), VIRTIO_MEM_RESP_ERROR);
		assert_int_equal(ask(&g, types[i], 0, 0), VIRTIO_MEM_RESP_ERROR);
		assert_int_equal(answer(&g, types[i], REGION + 4096, 1).type, VIRTIO_MEM_RESP_ERROR);
		assert_int_equal(answer(&g, types[i], REGION - VIRTIO_MEM_BLOCK, 2).type, VIRTIO_MEM_RESP_ERROR);
		assert_int_equal(answer(&g, types[i], 0, 1).type, VIRTIO_MEM_RESP_ERROR);
		assert_int_equal(answer(&g, types[i], UINT64_MAX - VIRTIO_MEM_BLOCK + 1, UINT16_MAX).type,
				 VIRTIO_MEM_RESP_ERROR);
	}
	assert_int_equal(ask(&g, 4, 0, 1), VIRTIO_MEM_RESP_ERROR);
	assert_int_equal(ask(&g, UINT16_MAX, 0, 1), VIRTIO_MEM_RESP_ERROR);
	assert_int_equal(config(&g).plugged_size, 0);
	assert_int_equal(g.rel.calls, 0);
	assert_false(driver_broken(&g.d));
	guest_done(&g);
}

static void refused(struct guest *g, uint32_t read, uint32_t write)
{
	struct driver_buf bufs[] = {{A, read, false}, {B, write, true}};

	driver_chain(&g->d, 0, bufs, 2);
	driver_kick(&g->d, 0);
	assert_true(driver_broken(&g->d));
	assert_true(driver_start(&g->d, ALL));
}

static void test_short_requests(void **unused)
{
	struct guest g;

	guest_new(&g, BACKED);
	assert_true(driver_start(&g.d, ALL));
	assert_int_equal(ask(&g, VIRTIO_MEM_REQ_PLUG, 0, 1), VIRTIO_MEM_RESP_ACK);
	refused(&g, sizeof(struct virtio_mem_req) - 1, sizeof(struct virtio_mem_resp));
	refused(&g, sizeof(struct virtio_mem_req), sizeof(struct virtio_mem_resp) - 1);
	/* A reset unplugs nothing. */
	assert_int_equal(config(&g).plugged_size, VIRTIO_MEM_BLOCK);
	guest_done(&g);
}

static int load_into(struct guest *g, const struct guest *from, const struct buf *saved)
{
	struct cursor in = cursor_of(saved->data, saved->len);

	memcpy(g->d.ram, from->d.ram, RAM_SIZE);
	memcpy(g->d.queues, from->d.queues, sizeof(g->d.queues));
	return virtio_pci_load(g->d.pci, &in);
}

static void test_save_and_load(void **unused)
{
	struct buf base = {0}, full = {0};
	struct guest g, h, small;

	/* A guest of a base hears of its memory when it runs. */
	guest_new(&g, 0);
	assert_true(driver_start(&g.d, ALL));
	assert_int_equal(virtio_pci_save(g.d.pci, &base), 0);
	guest_new(&h, BACKED);
	assert_int_equal(load_into(&h, &g, &base), 0);
	assert_int_equal(h.d.signals[0], 0);
	virtio_pci_restart(h.d.pci);
	assert_int_equal(h.d.signals[0], 1);
	assert_int_equal(h.d.signals[1], 0); /* a queue that was never used has nothing to make up for */
	assert_int_equal(config(&h).requested_size, BACKED);
	assert_int_equal(ask(&h, VIRTIO_MEM_REQ_PLUG, 1, 3), VIRTIO_MEM_RESP_ACK);
	/* One with memory has it again, and hears nothing. */
	assert_int_equal(virtio_pci_save(h.d.pci, &full), 0);
	guest_done(&g);
	guest_new(&g, BACKED);
	assert_int_equal(load_into(&g, &h, &full), 0);
	virtio_pci_restart(g.d.pci);
	assert_int_equal(g.d.signals[0], 0);
	assert_int_equal(g.d.signals[1], 1);
	assert_int_equal(config(&g).plugged_size, 3 * VIRTIO_MEM_BLOCK);
	assert_int_equal(state(&g, 0, 1), VIRTIO_MEM_STATE_UNPLUGGED);
	assert_int_equal(state(&g, 1, 3), VIRTIO_MEM_STATE_PLUGGED);
	/* But not with another amount, or beyond what there is. */
	guest_new(&small, BACKED - VIRTIO_MEM_BLOCK);
	assert_int_equal(load_into(&small, &h, &full), -ENOTSUP);
	guest_done(&small);
	guest_new(&small, 0);
	assert_int_equal(load_into(&small, &h, &full), -ENOTSUP);
	guest_done(&small);
	full.data[full.len - 1] |= 1U << BLOCKS;
	guest_new(&small, BACKED);
	assert_int_equal(load_into(&small, &h, &full), -EPROTO);
	guest_done(&small);
	guest_done(&g);
	guest_done(&h);
	buf_done(&base);
	buf_done(&full);
}

/* The default release. */
static void test_pages_go(void **unused)
{
	struct virtio_mem_options o = {.name = "mem", .gpa = REGION, .region_size = REGION_SIZE, .backed = BACKED};
	struct guest g;

	guest_new(&g, 0);
	assert_int_equal(
		mem_add(&g.d.mem,
			&(struct mem_region){
				.kind = MEM_RAM, .writable = true, .gpa = REGION, .size = BACKED, .host = g.rel.host}),
		0);
	virtio_pci_free(g.d.pci);
	assert_int_equal(virtio_mem_new(&g.d.mem, g.d.loop, &o, &g.dev), 0);
	driver_attach(&g.d, g.dev);
	assert_true(driver_start(&g.d, ALL));
	assert_int_equal(ask(&g, VIRTIO_MEM_REQ_PLUG, 0, 2), VIRTIO_MEM_RESP_ACK);
	memset(g.rel.host, 1, BACKED);
	assert_int_equal(ask(&g, VIRTIO_MEM_REQ_UNPLUG, 1, 1), VIRTIO_MEM_RESP_ACK);
	assert_int_equal(g.rel.host[VIRTIO_MEM_BLOCK - 1], 1);
	assert_int_equal(g.rel.host[VIRTIO_MEM_BLOCK], 0);
	assert_int_equal(g.rel.host[2 * VIRTIO_MEM_BLOCK], 1);
	guest_done(&g);
}

static void test_sizes(void **unused)
{
	static const struct virtio_mem_options wrong[] = {
		{.gpa = REGION + 4096, .region_size = GIB},
		{.gpa = REGION},
		{.gpa = REGION, .region_size = GIB + 4096},
		{.gpa = REGION, .region_size = VIRTIO_MEM_REGION_MAX + VIRTIO_MEM_BLOCK},
		{.gpa = REGION, .region_size = GIB, .backed = GIB + VIRTIO_MEM_BLOCK},
		{.gpa = REGION, .region_size = GIB, .backed = MIB},
	};
	struct virtio_device *dev;
	struct driver d;

	driver_init(&d);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_int_equal(virtio_mem_new(&d.mem, d.loop, &wrong[i], &dev), -EINVAL);
	driver_done(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_config),	      cmocka_unit_test(test_plug_and_unplug),
		cmocka_unit_test(test_beyond),	      cmocka_unit_test(test_short_requests),
		cmocka_unit_test(test_save_and_load), cmocka_unit_test(test_pages_go),
		cmocka_unit_test(test_sizes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
