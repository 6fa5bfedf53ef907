/* SPDX-License-Identifier: Apache-2.0 */
/* The PCI transport as a driver finds it, and as a hostile one abuses it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>

#include "driver.h"
#include "virtio/fs.h"
#include "virtio/rng.h"
#include "virtio/net.h"

#define ALL UINT64_MAX

static struct driver *rng_new(void)
{
	struct virtio_rng_options o = {.name = "rng"};
	struct driver *d = malloc(sizeof(*d));
	struct virtio_device *dev;

	driver_init(d);
	assert_int_equal(virtio_rng_new(&d->mem, d->loop, &o, &dev), 0);
	driver_attach(d, dev);
	return d;
}

static struct driver *net_new(void)
{
	struct virtio_net_options o = {.name = "net", .mac = {2, 3, 4, 5, 6, 7}};
	struct driver *d = malloc(sizeof(*d));
	struct virtio_device *dev;

	driver_init(d);
	assert_int_equal(virtio_net_new(&d->mem, d->loop, &o, &dev), 0);
	driver_attach(d, dev);
	return d;
}

static struct driver *fs_new(uint64_t gpa, uint64_t size)
{
	struct virtio_fs_options o = {.name = "fs", .tag = "t", .window = {.gpa = gpa, .size = size}};
	struct driver *d = malloc(sizeof(*d));
	struct virtio_device *dev;

	driver_init(d);
	assert_int_equal(virtio_fs_new(&d->mem, d->loop, &o, &dev), 0);
	driver_attach(d, dev);
	return d;
}

static void driver_free(struct driver *d)
{
	driver_done(d);
	free(d);
}

static uint32_t cfg(struct driver *d, uint32_t off, unsigned len)
{
	return virtio_pci_config_read(d->pci, off, len);
}

static void test_identity(void **state)
{
	struct driver *d = net_new();

	assert_int_equal(cfg(d, 0, 2), 0x1af4);
	assert_int_equal(cfg(d, 2, 2), 0x1041);
	assert_int_equal(cfg(d, 8, 1), 1);
	assert_int_equal(cfg(d, 0xa, 2), 0x0200);
	assert_int_equal(cfg(d, 0x3d, 1), 0); /* no interrupt pin */
	assert_int_equal(cfg(d, 6, 2), 0x10);
	/* Out of range or misaligned. */
	assert_int_equal(cfg(d, 0x100, 4), 0xffffffff);
	assert_int_equal(cfg(d, 0xfe, 4), 0xffffffff);
	assert_int_equal(cfg(d, 1, 2), 0xffffffff);
	assert_int_equal(cfg(d, 0, 3), 0xffffffff);
	/* Constant bytes stay. */
	virtio_pci_config_write(d->pci, 0, 4, 0);
	virtio_pci_config_write(d->pci, 0x34, 4, 0);
	assert_int_equal(cfg(d, 0, 4), 0x10411af4);
	assert_int_equal(cfg(d, 0x34, 1), 0x40);
	driver_free(d);
}

/* The list ends, and names each structure once, inside its BAR. */
static void test_capabilities(void **state)
{
	struct driver *d = net_new();
	unsigned seen[16] = {0}, msix = 0, steps = 0;

	for (uint32_t at = cfg(d, 0x34, 1); at; at = cfg(d, at + 1, 1)) {
		assert_true(++steps < 16 && at >= 0x40 && at % 4 == 0);
		if (cfg(d, at, 1) == 0x11) {
			msix++;
			assert_int_equal(cfg(d, at + 2, 2) & 0x7ff, virtio_pci_num_vectors(d->pci) - 1);
			continue;
		}
		assert_int_equal(cfg(d, at, 1), 9);
		seen[cfg(d, at + 3, 1)]++;
		if (cfg(d, at + 3, 1) != VIRTIO_PCI_CAP_PCI_CFG) {
			struct virtio_pci_bar bar = virtio_pci_bar(d->pci, cfg(d, at + 4, 1));

			assert_true(cfg(d, at + 8, 4) + cfg(d, at + 12, 4) <= bar.size);
			assert_true(cfg(d, at + 12, 4) > 0);
		}
	}
	assert_int_equal(msix, 1);
	for (unsigned type = 1; type <= 5; type++)
		assert_int_equal(seen[type], 1);
	driver_free(d);
}

static void test_bars(void **state)
{
	struct driver *d = net_new();
	struct virtio_pci_bar bar;

	virtio_pci_config_write(d->pci, 0x10, 4, 0xffffffff);
	assert_int_equal(cfg(d, 0x10, 4), 0xfffffff1); /* three queues: 16 ports */
	virtio_pci_config_write(d->pci, 0x14, 4, 0xffffffff);
	assert_int_equal(cfg(d, 0x14, 4), 0xfffff000);
	virtio_pci_config_write(d->pci, 0x10, 4, 0xc041);
	virtio_pci_config_write(d->pci, 0x14, 4, 0xe0000000);
	bar = virtio_pci_bar(d->pci, 0);
	assert_true(bar.io && !bar.enabled && bar.addr == 0xc040 && bar.size == 16);
	d->moves = 0;
	virtio_pci_config_write(d->pci, 4, 2, 3);
	assert_int_equal(d->moves, 2);
	assert_true(virtio_pci_bar(d->pci, 0).enabled);
	assert_true(virtio_pci_bar(d->pci, 1).enabled);
	/* Byte by byte is as good. */
	virtio_pci_config_write(d->pci, 0x15, 1, 0x10);
	assert_int_equal(virtio_pci_bar(d->pci, 1).addr, 0xe0001000);
	assert_int_equal(virtio_pci_bar_place(d->pci, 0, 0xc010), 0);
	assert_int_equal(virtio_pci_bar_place(d->pci, 0, 0xc018), -22);
	assert_int_equal(virtio_pci_bar_place(d->pci, 1, 0), -22);
	assert_int_equal(virtio_pci_bar_place(d->pci, 2, 0x1000), -22);
	assert_int_equal(virtio_pci_bar(d->pci, 0).addr, 0xc010);
	driver_free(d);
}

/* Shared memory: found in a 64-bit BAR that has its place, sized as any other, and never an access of ours. */
static void test_shared_memory(void **state)
{
	const uint64_t gpa = 12ULL << 30, size = 6ULL << 29; /* 3 GiB, so the BAR has 4 */
	struct driver *d = fs_new(gpa, size), *small = fs_new(gpa, 2 << 20), *none = fs_new(0, 0);
	uint32_t at = cfg(d, 0x34, 1), word = 0;
	struct buf out = {0};
	struct cursor in;

	while (at && (cfg(d, at, 1) != 9 || cfg(d, at + 3, 1) != VIRTIO_PCI_CAP_SHARED_MEMORY_CFG))
		at = cfg(d, at + 1, 1);
	assert_true(at);
	assert_int_equal(cfg(d, at + 2, 1), 24);
	assert_int_equal(cfg(d, at + 4, 1), 2);
	assert_int_equal(cfg(d, at + 5, 1), 0);
	assert_int_equal(cfg(d, at + 8, 4) | cfg(d, at + 16, 4), 0);
	assert_int_equal(cfg(d, at + 12, 4), (uint32_t)size);
	assert_int_equal(cfg(d, at + 20, 4), size >> 32);
	assert_int_equal(cfg(d, 0x18, 4), 0xc); /* 64 bits, prefetchable */
	assert_int_equal(cfg(d, 0x1c, 4), 3);
	virtio_pci_config_write(d->pci, 0x18, 4, 0xffffffff);
	virtio_pci_config_write(d->pci, 0x1c, 4, 0xffffffff);
	assert_int_equal(cfg(d, 0x18, 4), 0xc);
	assert_int_equal(cfg(d, 0x1c, 4), 0xffffffff);
	virtio_pci_config_write(d->pci, 0x18, 4, 0);
	virtio_pci_config_write(d->pci, 0x1c, 4, 3);
	assert_true(virtio_pci_bar(d->pci, 2).addr == gpa && virtio_pci_bar(d->pci, 2).size == 4ULL << 30);
	virtio_pci_bar_write(d->pci, 2, 0, &word, 4);
	virtio_pci_bar_read(d->pci, 2, 0, &word, 4);
	assert_int_equal(word, 0xffffffff);
	assert_int_equal(cfg(none, 0x18, 4) | cfg(none, 0x1c, 4), 0);
	virtio_pci_config_write(none->pci, 0x18, 4, 0xffffffff);
	assert_int_equal(cfg(none, 0x18, 4), 0);
	/* A driver that has seen the window is not restored onto another. */
	assert_int_equal(virtio_pci_save(d->pci, &out), 0);
	in = cursor_of(out.data, out.len);
	assert_int_equal(virtio_pci_load(small->pci, &in), -95);
	buf_done(&out);
	driver_free(d);
	driver_free(small);
	driver_free(none);
}

static void test_start_and_serve(void **state)
{
	struct driver *d = rng_new();
	struct driver_buf buf = {RAM_BASE + 0x10000, 64, true};
	uint32_t len;

	assert_int_equal(driver_status(d), 0);
	assert_true(driver_start(d, ALL));
	driver_chain(d, 0, &buf, 1);
	driver_kick(d, 0);
	assert_true(driver_used(d, 0, NULL, &len));
	assert_int_equal(len, 64);
	assert_int_equal(d->signals[1], 1);
	driver_free(d);
}

static void test_features(void **state)
{
	struct driver *d = rng_new();

	/* Something that is not offered, and something that is needed. */
	uint64_t bad[] = {1ULL << 32 | 1ULL << 40, 1ULL << 32 | 1, 1ULL << 28, 0};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		driver_set_status(d, 0);
		driver_set_status(d, 3);
		for (unsigned half = 0; half < 2; half++) {
			driver_common32(d, VIRTIO_PCI_COMMON_GFSELECT, half);
			driver_common32(d, VIRTIO_PCI_COMMON_GF, (uint32_t)(bad[i] >> (32 * half)));
		}
		driver_set_status(d, 0xb);
		assert_int_equal(driver_status(d), 3);
		driver_set_status(d, 0xf); /* and DRIVER_OK without FEATURES_OK */
		assert_int_equal(driver_status(d) & 4, 0);
	}
	/* Feature words that do not exist read as zero; setting them spoils the lot. */
	driver_common32(d, VIRTIO_PCI_COMMON_DFSELECT, 2);
	assert_int_equal(driver_read_common(d, VIRTIO_PCI_COMMON_DF, 4), 0);
	/* Frozen once agreed. */
	assert_true(driver_start(d, ALL));
	driver_common32(d, VIRTIO_PCI_COMMON_GFSELECT, 0);
	driver_common32(d, VIRTIO_PCI_COMMON_GF, 0);
	assert_int_equal(driver_read_common(d, VIRTIO_PCI_COMMON_GF, 4), 3U << 28);
	driver_free(d);
}

static void test_registers_freeze(void **state)
{
	struct driver *d = rng_new();
	struct driver_buf buf = {RAM_BASE + 0x10000, 64, true};

	assert_true(driver_start(d, ALL));
	driver_common16(d, VIRTIO_PCI_COMMON_Q_SELECT, 0);
	driver_common32(d, VIRTIO_PCI_COMMON_Q_DESCLO, 0);
	driver_common32(d, VIRTIO_PCI_COMMON_Q_AVAILLO, 0xdeadbeef);
	driver_common32(d, VIRTIO_PCI_COMMON_Q_USEDHI, 0xffffffff);
	driver_common16(d, VIRTIO_PCI_COMMON_Q_SIZE, 2);
	driver_common16(d, VIRTIO_PCI_COMMON_Q_ENABLE, 0);
	assert_int_equal(driver_read_common(d, VIRTIO_PCI_COMMON_Q_DESCLO, 4), d->queues[0].desc);
	assert_int_equal(driver_read_common(d, VIRTIO_PCI_COMMON_Q_AVAILLO, 4), d->queues[0].avail);
	assert_int_equal(driver_read_common(d, VIRTIO_PCI_COMMON_Q_USEDHI, 4), 0);
	assert_int_equal(driver_read_common(d, VIRTIO_PCI_COMMON_Q_SIZE, 2), d->queues[0].size);
	assert_int_equal(driver_read_common(d, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1);
	driver_chain(d, 0, &buf, 1);
	driver_kick(d, 0);
	assert_true(driver_used(d, 0, NULL, NULL));
	driver_free(d);
}

static void test_queue_registers(void **state)
{
	struct driver *d = rng_new();
	uint16_t sizes[] = {0, 3, 128, 0xffff};

	driver_set_status(d, 3);
	driver_common16(d, VIRTIO_PCI_COMMON_Q_SELECT, 0);
	for (size_t i = 0; i < 4; i++) {
		driver_common16(d, VIRTIO_PCI_COMMON_Q_SIZE, sizes[i]);
		assert_int_equal(driver_read_common(d, VIRTIO_PCI_COMMON_Q_SIZE, 2), 64);
	}
	driver_common16(d, VIRTIO_PCI_COMMON_Q_SIZE, 16);
	assert_int_equal(driver_read_common(d, VIRTIO_PCI_COMMON_Q_SIZE, 2), 16);
	driver_common16(d, VIRTIO_PCI_COMMON_Q_MSIX, 5); /* no such vector */
	assert_int_equal(driver_read_common(d, VIRTIO_PCI_COMMON_Q_MSIX, 2), 0xffff);
	driver_common16(d, VIRTIO_PCI_COMMON_Q_SELECT, 7); /* no such queue */
	assert_int_equal(driver_read_common(d, VIRTIO_PCI_COMMON_Q_SIZE, 2), 0);
	driver_common16(d, VIRTIO_PCI_COMMON_Q_ENABLE, 1);
	assert_int_equal(driver_read_common(d, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
	driver_free(d);
}

/* Rings that are not in RAM: the device asks to be reset, and is as new after it. */
static void test_bad_rings_then_reset(void **state)
{
	struct driver *d = rng_new();
	struct driver_buf buf = {RAM_BASE + 0x10000, 64, true};

	driver_set_status(d, 3);
	driver_common32(d, VIRTIO_PCI_COMMON_GFSELECT, 1);
	driver_common32(d, VIRTIO_PCI_COMMON_GF, 1);
	driver_set_status(d, 0xb);
	driver_common16(d, VIRTIO_PCI_COMMON_Q_SELECT, 0);
	driver_common32(d, VIRTIO_PCI_COMMON_Q_DESCLO, 0x10);
	driver_common16(d, VIRTIO_PCI_COMMON_Q_ENABLE, 1);
	driver_set_status(d, 0xf);
	assert_true(driver_broken(d));
	driver_kick(d, 0);
	driver_set_status(d, 0);
	assert_int_equal(driver_status(d), 0);
	assert_int_equal(driver_read_common(d, VIRTIO_PCI_COMMON_Q_DESCLO, 4), 0);
	assert_true(driver_start(d, ALL));
	driver_chain(d, 0, &buf, 1);
	driver_kick(d, 0);
	assert_true(driver_used(d, 0, NULL, NULL));
	/* Broken by a chain: silent until reset. */
	buf.addr = 0;
	driver_chain(d, 0, &buf, 1);
	driver_kick(d, 0);
	assert_true(driver_broken(d));
	assert_int_equal(d->signals[0], 1); /* the configuration vector says so */
	buf.addr = RAM_BASE + 0x10000;
	driver_chain(d, 0, &buf, 1);
	driver_kick(d, 0);
	assert_false(driver_used(d, 0, NULL, NULL));
	assert_true(driver_start(d, ALL));
	assert_false(driver_broken(d));
	driver_free(d);
}

static void test_msix(void **state)
{
	struct driver *d = rng_new();
	struct driver_buf buf = {RAM_BASE + 0x10000, 64, true};

	assert_true(driver_start(d, ALL));
	assert_int_equal(d->route_addr[1], 0xfee00000);
	assert_int_equal(d->route_data[1], 0x41);
	assert_false(d->route_masked[1]);
	/* A masked vector waits, visibly, and fires once when unmasked. */
	driver_common32(d, 0x81c, 1);
	assert_true(d->route_masked[1]);
	for (unsigned i = 0; i < 2; i++) {
		driver_chain(d, 0, &buf, 1);
		driver_kick(d, 0);
	}
	assert_int_equal(d->signals[1], 0);
	assert_int_equal(driver_read_common(d, 0xc00, 4), 2);
	driver_common32(d, 0x81c, 0);
	assert_int_equal(d->signals[1], 1);
	assert_int_equal(driver_read_common(d, 0xc00, 4), 0);
	/* So does the whole function. */
	virtio_pci_config_write(d->pci, 0x42, 2, 0xc000);
	driver_chain(d, 0, &buf, 1);
	driver_kick(d, 0);
	assert_int_equal(d->signals[1], 1);
	virtio_pci_config_write(d->pci, 0x42, 2, 0x8000);
	assert_int_equal(d->signals[1], 2);
	/* No vector: no interrupt. */
	driver_common16(d, VIRTIO_PCI_COMMON_Q_SELECT, 0);
	driver_common16(d, VIRTIO_PCI_COMMON_Q_MSIX, 0xffff);
	driver_chain(d, 0, &buf, 1);
	driver_kick(d, 0);
	assert_int_equal(d->signals[1], 2);
	/* MSI-X off: the ISR says it, once. */
	virtio_pci_config_write(d->pci, 0x42, 2, 0);
	driver_chain(d, 0, &buf, 1);
	driver_kick(d, 0);
	assert_int_equal(driver_read_common(d, 0x100, 1), 1);
	assert_int_equal(driver_read_common(d, 0x100, 1), 0);
	/* 64-bit table accesses, and accesses beyond the table. */
	virtio_pci_bar_write(d->pci, 1, 0x810, &(uint64_t){0x11223344fee01000ULL}, 8);
	assert_int_equal(d->route_addr[1], 0x11223344fee01000ULL);
	driver_common32(d, 0x820, 1);
	assert_int_equal(driver_read_common(d, 0x820, 4), 0);
	driver_free(d);
}

static void test_doorbell_by_register(void **state)
{
	struct driver *d = net_new();
	uint16_t v = 1;

	virtio_pci_bar_write(d->pci, 0, virtio_pci_notify_offset(1), &v, 2);
	assert_true(d->kicked[1]);
	assert_false(d->kicked[0]);
	virtio_pci_bar_write(d->pci, 0, 12, &v, 2); /* no queue 3 */
	assert_false(d->kicked[3]);
	virtio_pci_notify(d->pci, 0);
	virtio_pci_notify(d->pci, 99);
	driver_free(d);
}

/* The capability that reaches BARs through configuration space. */
static void test_config_window(void **state)
{
	struct driver *d = net_new();

	virtio_pci_config_write(d->pci, 0x9c, 1, 1);
	virtio_pci_config_write(d->pci, 0xa0, 4, VIRTIO_PCI_COMMON_NUMQ);
	virtio_pci_config_write(d->pci, 0xa4, 4, 2);
	assert_int_equal(cfg(d, 0xa8, 2), 3);
	assert_int_equal(cfg(d, 0xa8, 4), 0); /* not the length that was said */
	virtio_pci_config_write(d->pci, 0xa0, 4, VIRTIO_PCI_COMMON_STATUS);
	virtio_pci_config_write(d->pci, 0xa4, 4, 1);
	virtio_pci_config_write(d->pci, 0xa8, 1, 1);
	assert_int_equal(driver_status(d), 1);
	virtio_pci_config_write(d->pci, 0x9c, 1, 0);
	virtio_pci_config_write(d->pci, 0xa0, 4, 4);
	virtio_pci_config_write(d->pci, 0xa8, 1, 0);
	assert_true(d->kicked[1]);
	virtio_pci_config_write(d->pci, 0x9c, 1, 5); /* no such BAR */
	assert_int_equal(cfg(d, 0xa8, 1), 0);
	virtio_pci_config_write(d->pci, 0x9c, 1, 1);
	virtio_pci_config_write(d->pci, 0xa0, 4, 0xfffffffc);
	virtio_pci_config_write(d->pci, 0xa4, 4, 4);
	assert_int_equal(cfg(d, 0xa8, 4), 0xffffffff);
	driver_free(d);
}

/* Every offset and length of either BAR, and of configuration space, is harmless at any time. */
static void test_every_access(void **state)
{
	for (unsigned started = 0; started < 2; started++) {
		struct driver *d = net_new();

		assert_true(!started || driver_start(d, ALL));
		for (uint32_t off = 0; off < 0x1010; off++) {
			for (unsigned len = 1; len <= 8; len++) {
				uint8_t bytes[8];

				for (unsigned bar = 0; bar < 3; bar++) {
					memset(bytes, 0xff, sizeof(bytes));
					virtio_pci_bar_write(d->pci, bar, off, bytes, len);
					virtio_pci_bar_read(d->pci, bar, off, bytes, len);
				}
				virtio_pci_config_write(d->pci, off, len, 0xffffffff);
				cfg(d, off, len);
			}
		}
		driver_free(d);
	}
}

static void test_save_and_load(void **state)
{
	struct driver *d = rng_new(), *e = rng_new();
	struct driver_buf buf = {RAM_BASE + 0x10000, 64, true};
	struct buf out = {0}, again = {0};
	struct cursor in;
	uint16_t head;

	assert_int_equal(virtio_pci_bar_place(d->pci, 0, 0xc000), 0);
	assert_true(driver_start(d, ALL));
	driver_chain(d, 0, &buf, 1);
	driver_kick(d, 0);
	driver_chain(d, 0, &buf, 1); /* its kick is lost in the snapshot */
	assert_int_equal(virtio_pci_save(d->pci, &out), 0);

	memcpy(e->ram, d->ram, RAM_SIZE);
	memcpy(e->queues, d->queues, sizeof(d->queues));
	in = cursor_of(out.data, out.len);
	assert_int_equal(virtio_pci_load(e->pci, &in), 0);
	assert_int_equal(in.left, 0);
	assert_int_equal(driver_status(e), 0xf);
	assert_int_equal(virtio_pci_bar(e->pci, 0).addr, 0xc000);
	assert_int_equal(e->route_data[1], 0x41);
	assert_true(driver_used(e, 0, &head, NULL) && head == 0);
	assert_false(driver_used(e, 0, &head, NULL));
	virtio_pci_restart(e->pci);
	assert_true(driver_used(e, 0, &head, NULL) && head == 1);
	assert_true(e->signals[1] >= 1);
	driver_chain(e, 0, &buf, 1);
	driver_kick(e, 0);
	assert_true(driver_used(e, 0, &head, NULL) && head == 2);
	/* What was loaded saves as the same. */
	assert_int_equal(virtio_pci_save(e->pci, &again), 0);
	assert_int_equal(again.len, out.len);
	buf_done(&out);
	buf_done(&again);
	driver_free(d);
	driver_free(e);
}

/* Cut short anywhere, or with any byte changed: refused or loaded, but never out of bounds. */
static void test_load_of_bad_records(void **state)
{
	struct driver *d = rng_new(), *n = net_new();
	struct buf out = {0};
	struct cursor in;

	assert_true(driver_start(d, ALL));
	assert_int_equal(virtio_pci_save(d->pci, &out), 0);
	in = cursor_of(out.data, out.len);
	assert_int_equal(virtio_pci_load(n->pci, &in), -95); /* another device's */
	for (size_t len = 0; len < out.len; len++) {
		struct driver *e = rng_new();

		in = cursor_of(out.data, len);
		assert_true(virtio_pci_load(e->pci, &in) < 0);
		driver_free(e);
	}
	for (size_t at = 0; at < out.len; at++) {
		struct driver *e = rng_new();

		out.data[at] ^= 0xff;
		in = cursor_of(out.data, out.len);
		if (virtio_pci_load(e->pci, &in) == 0) {
			virtio_pci_restart(e->pci);
			driver_kick(e, 0);
		}
		out.data[at] ^= 0xff;
		driver_free(e);
	}
	buf_done(&out);
	driver_free(n);
	driver_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_identity),
		cmocka_unit_test(test_capabilities),
		cmocka_unit_test(test_bars),
		cmocka_unit_test(test_start_and_serve),
		cmocka_unit_test(test_features),
		cmocka_unit_test(test_registers_freeze),
		cmocka_unit_test(test_queue_registers),
		cmocka_unit_test(test_bad_rings_then_reset),
		cmocka_unit_test(test_msix),
		cmocka_unit_test(test_shared_memory),
		cmocka_unit_test(test_doorbell_by_register),
		cmocka_unit_test(test_config_window),
		cmocka_unit_test(test_every_access),
		cmocka_unit_test(test_save_and_load),
		cmocka_unit_test(test_load_of_bad_records),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
