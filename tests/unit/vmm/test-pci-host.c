/* SPDX-License-Identifier: Apache-2.0 */
/* The PCI bus: enumeration as a kernel does it, BARs that the guest moves, accesses that hit nothing. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/util.h"
#include "virtio/rng.h"
#include "vmm/bus.h"
#include "vmm/pci_host.h"
#include "vmm/x86_64/cpuid.h"

#define MMIO 0xc0000000ULL
#define IO 0x1000

struct world {
	struct mem mem;
	struct loop *loop;
	struct pci_host host;
	struct virtio_pci *fn[2];
	int moved, kicks;
};

static void on_route(void *arg, unsigned vector, uint64_t addr, uint32_t data, bool masked)
{
}

static void on_signal(void *arg, unsigned vector)
{
}

static void on_moved(void *arg, unsigned bar)
{
	((struct world *)arg)->moved++;
}

static void on_kick(void *arg, unsigned queue)
{
	((struct world *)arg)->kicks++;
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct virtio_pci_host host = {
		.route = on_route, .signal = on_signal, .moved = on_moved, .kick = on_kick, .arg = w};
	struct virtio_rng_options o = {.name = "rng"};

	assert_non_null(w);
	assert_int_equal(loop_new(&w->loop), 0);
	pci_host_init(&w->host, MMIO, 0x100000, IO, 0x1000);
	for (int i = 0; i < 2; i++) {
		struct virtio_device *dev;

		assert_int_equal(virtio_rng_new(&w->mem, w->loop, &o, &dev), 0);
		assert_int_equal(virtio_pci_new(dev, &host, &w->fn[i]), 0);
	}
	assert_int_equal(pci_host_add(&w->host, 1, w->fn[0]), 0);
	assert_int_equal(pci_host_add(&w->host, 13, w->fn[1]), 0);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	pci_host_done(&w->host);
	virtio_pci_free(w->fn[0]);
	virtio_pci_free(w->fn[1]);
	loop_free(w->loop);
	free(w);
	return 0;
}

/* By exit, and where a page answers, both must say the same. */
static uint32_t cfg_read(struct world *w, unsigned device, unsigned function, unsigned reg, unsigned len)
{
	uint8_t d[8];

	pci_host_ecam(&w->host, device << 15 | function << 12 | reg, d, len, false);
	if (w->host.pages[device] && !function)
		assert_memory_equal((uint8_t *)w->host.pages[device] + reg, d, len);
	return (uint32_t)bus_value(d, len);
}

static void cfg_write(struct world *w, unsigned device, unsigned reg, unsigned len, uint32_t v)
{
	uint8_t d[8];

	bus_answer(d, len, v);
	pci_host_ecam(&w->host, device << 15 | reg, d, len, true);
}

static void test_enumerate(void **state)
{
	struct world *w = *state;

	assert_int_equal(pci_host_add(&w->host, 1, w->fn[1]), -EEXIST);
	assert_int_equal(pci_host_add(&w->host, 32, w->fn[1]), -EINVAL);
	for (unsigned d = 0; d < 32; d++)
		assert_int_equal(cfg_read(w, d, 0, 0, 4), d == 1 || d == 13 ? 0x10441af4 : 0xffffffff);
	assert_int_equal(cfg_read(w, 1, 1, 0, 4), 0xffffffff);
	assert_int_equal(cfg_read(w, 1, 0, 0x100, 4), 0); /* no extended capability, as opposed to no device */
	assert_int_equal(cfg_read(w, 1, 0, 0xffc, 4), 0);
	assert_int_equal(cfg_read(w, 2, 0, 0x100, 4), 0xffffffff);
	/* Placed, enabled, and apart. */
	assert_int_equal(cfg_read(w, 1, 0, 0x10, 4), (IO + 64) | 1);
	assert_int_equal(cfg_read(w, 13, 0, 0x10, 4), (IO + 13 * 64) | 1);
	assert_int_equal(cfg_read(w, 1, 0, 0x14, 4), MMIO + 0x1000);
	assert_int_equal(cfg_read(w, 13, 0, 0x14, 4), MMIO + 0xd000);
	assert_int_equal(cfg_read(w, 1, 0, 4, 2) & 3, 3);
	/* Sizes as the kernel asks for them. */
	cfg_write(w, 1, 0x14, 4, 0xffffffff);
	assert_int_equal(cfg_read(w, 1, 0, 0x14, 4), 0xfffff000);
	cfg_write(w, 1, 0x14, 4, (uint32_t)(MMIO + 0x1000));
	assert_int_equal(cfg_read(w, 1, 0, 0x14, 4), MMIO + 0x1000);
}

/* num_queues of the common configuration (4.1.4.3): where it is, the function answers. */
static uint32_t num_queues(struct world *w, uint64_t addr)
{
	uint8_t d[2];

	pci_host_mmio(&w->host, addr - MMIO + 0x12, d, 2, false);
	return (uint32_t)bus_value(d, 2);
}

static void test_bar_moves(void **state)
{
	struct world *w = *state;

	assert_int_equal(num_queues(w, MMIO + 0x1000), 1);
	assert_int_equal(num_queues(w, MMIO + 0x2000), 0xffff);
	cfg_write(w, 1, 0x14, 4, (uint32_t)(MMIO + 0x80000));
	assert_int_equal(num_queues(w, MMIO + 0x80000), 1);
	assert_int_equal(num_queues(w, MMIO + 0x1000), 0xffff);
	/* Decoding off: gone. */
	cfg_write(w, 1, 4, 2, 0);
	assert_int_equal(num_queues(w, MMIO + 0x80000), 0xffff);
	cfg_write(w, 1, 4, 2, 3);
	assert_int_equal(num_queues(w, MMIO + 0x80000), 1);
	/* Out of the window: the bus never asks there, and nothing else changes. */
	cfg_write(w, 1, 0x14, 4, 0x1000);
	assert_int_equal(num_queues(w, MMIO + 0xd000), 1);
	/* Over another function: one of them answers, and nothing breaks. */
	cfg_write(w, 1, 0x14, 4, (uint32_t)(MMIO + 0xd000));
	assert_int_equal(num_queues(w, MMIO + 0xd000), 1);
}

static void test_odd_accesses(void **state)
{
	struct world *w = *state;
	uint8_t d[8];

	pci_host_ecam(&w->host, 1 << 15 | 2, d, 4, false); /* unaligned */
	assert_int_equal(bus_value(d, 4), 0xffffffff);
	pci_host_ecam(&w->host, 1 << 15, d, 8, false);
	assert_true(bus_value(d, 8) == UINT64_MAX);
	pci_host_mmio(&w->host, 0x1ffe, d, 4, false); /* over a BAR's end */
	assert_int_equal(bus_value(d, 4), 0xffffffff);
	/* A doorbell that no ioeventfd caught. */
	bus_answer(d, 2, 0);
	pci_host_io(&w->host, 64, d, 2, true);
	pci_host_io(&w->host, 2, d, 2, true);
}

/* The configuration-access capability (virtio 1.2, 4.1.4.9) through the page. */
static void test_access_window(void **state)
{
	struct world *w = *state;
	unsigned cap = w->host.windows[1];
	uint8_t *page = (uint8_t *)w->host.pages[1];

	assert_true(cap >= 0x40);
	cfg_write(w, 1, cap + 4, 1, 1);	   /* BAR 1 */
	cfg_write(w, 1, cap + 8, 4, 0x12); /* num_queues */
	cfg_write(w, 1, cap + 12, 4, 2);
	assert_int_equal(bus_value(page + cap + 16, 2), 1);
	cfg_write(w, 1, cap + 8, 4, 0x04); /* device features, first dword */
	cfg_write(w, 1, cap + 12, 4, 4);
	assert_true(bus_value(page + cap + 16, 4) != 1);
}

static struct kvm_cpuid_entry2 *leaf(struct cpuid *c, uint32_t function, uint32_t index)
{
	for (uint32_t i = 0; i < c->head.nent; i++)
		if (c->entries[i].function == function && c->entries[i].index == index)
			return &c->entries[i];
	return NULL;
}

/* A host that has everything: what must be hidden is hidden, and each vCPU finds its own place. */
static void test_cpuid(void **state)
{
	static const uint32_t functions[] = {1,		 6,	     7,		 0x0a,	     0x14,
					     0x0b,	 0x40000000, 0x40000001, 0x80000001, 0x8000000a,
					     0x80000008, 0x8000001e, 0x80000022};
	struct cpuid c = {0};

	for (size_t i = 0; i < ARRAY_SIZE(functions); i++)
		c.entries[c.head.nent++] = (struct kvm_cpuid_entry2){.function = functions[i],
								     .eax = UINT32_MAX,
								     .ebx = UINT32_MAX,
								     .ecx = UINT32_MAX,
								     .edx = UINT32_MAX};
	cpuid_filter(&c, 4, 2600000);
	assert_int_equal(leaf(&c, 1, 0)->ecx & 1u << 5, 0);	     /* VMX */
	assert_int_equal(leaf(&c, 0x80000001, 0)->ecx & 1u << 2, 0); /* SVM */
	assert_int_equal(leaf(&c, 0x0a, 0)->eax, 0);		     /* performance counters */
	assert_int_equal(leaf(&c, 0x14, 0)->eax, 0);
	assert_int_equal(leaf(&c, 0x8000000a, 0)->eax, 0);
	assert_int_equal(leaf(&c, 7, 0)->edx & (1u << 20 | 1u << 24), 0);	  /* IBT, AMX */
	assert_int_equal(leaf(&c, 0x40000001, 0)->eax & (1u << 4 | 1u << 14), 0); /* asynchronous page faults */
	assert_true(leaf(&c, 1, 0)->ecx & 1u << 21);
	assert_int_equal(leaf(&c, 0x40000010, 0)->eax, 2600000);
	for (unsigned id = 0; id < 4; id++) {
		struct cpuid v = c;

		cpuid_for_vcpu(&v, id, 4);
		assert_int_equal(leaf(&v, 1, 0)->ebx >> 24, id);
		assert_int_equal(leaf(&v, 0x0b, 1)->edx, id);
		assert_int_equal(leaf(&v, 0x0b, 1)->ebx, 4);
		assert_int_equal(leaf(&v, 0x8000001e, 0)->eax, id);
		assert_int_equal(leaf(&v, 0x80000008, 0)->ecx & 0xff, 3);
		assert_true(v.head.nent <= CPUID_MAX_ENTRIES);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_enumerate, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bar_moves, setup, teardown),
		cmocka_unit_test_setup_teardown(test_odd_accesses, setup, teardown),
		cmocka_unit_test_setup_teardown(test_access_window, setup, teardown),
		cmocka_unit_test(test_cpuid),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
