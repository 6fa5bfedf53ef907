/* SPDX-License-Identifier: Apache-2.0 */
/* Guest memory: the region table's checks, the translation at every edge, and windows whose files shrink. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "mem/mem.h"

#define PAGE 4096ULL

struct world {
	struct mem mem;
	uint8_t *low, *high, *window;
	int fd;
};

static uint8_t *map_anon(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

/* RAM [0, 4 pages), adjacent RAM [4, 8), a hole, and a read-only window [16, 20) of a file of 4 pages. */
static int setup(void **state)
{
	static struct world w;
	struct mem_region r = {.kind = MEM_RAM, .writable = true, .size = 4 * PAGE};

	memset(&w, 0, sizeof(w));
	w.low = map_anon(4 * PAGE);
	w.high = map_anon(4 * PAGE);
	w.fd = memfd_create("window", MFD_CLOEXEC);
	assert_true(w.fd >= 0);
	assert_int_equal(ftruncate(w.fd, 4 * PAGE), 0);
	assert_int_equal(pwrite(w.fd, "in window", 9, 2 * PAGE), 9);
	w.window = mmap(NULL, 4 * PAGE, PROT_READ, MAP_PRIVATE, w.fd, 0);
	assert_true(w.window != MAP_FAILED);
	/* Out of order on purpose: the table sorts. */
	r.gpa = 4 * PAGE, r.host = w.high;
	assert_int_equal(mem_add(&w.mem, &r), 0);
	r.gpa = 0, r.host = w.low;
	assert_int_equal(mem_add(&w.mem, &r), 0);
	r = (struct mem_region){.kind = MEM_IMAGE_WINDOW, .gpa = 16 * PAGE, .size = 4 * PAGE, .host = w.window};
	assert_int_equal(mem_add(&w.mem, &r), 0);
	*state = &w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	munmap(w->low, 4 * PAGE);
	munmap(w->high, 4 * PAGE);
	munmap(w->window, 4 * PAGE);
	close(w->fd);
	return 0;
}

static void test_add_refuses(void **state)
{
	struct world *w = *state;
	struct mem_region r = {.kind = MEM_RAM, .writable = true, .host = w->low, .gpa = 32 * PAGE, .size = PAGE};
	struct mem_region bad;

	assert_int_equal(w->mem.count, 3);
	assert_int_equal(w->mem.regions[0].gpa, 0);
	assert_int_equal(w->mem.regions[2].gpa, 16 * PAGE);
	bad = r, bad.size = 0;
	assert_int_equal(mem_add(&w->mem, &bad), -EINVAL);
	bad = r, bad.size = 100;
	assert_int_equal(mem_add(&w->mem, &bad), -EINVAL);
	bad = r, bad.gpa += 1;
	assert_int_equal(mem_add(&w->mem, &bad), -EINVAL);
	bad = r, bad.host = NULL;
	assert_int_equal(mem_add(&w->mem, &bad), -EINVAL);
	bad = r, bad.gpa = UINT64_MAX - PAGE + 1, bad.size = 2 * PAGE;
	assert_int_equal(mem_add(&w->mem, &bad), -EINVAL);
	/* Overlaps: same place, from below, from above, enclosing, enclosed. */
	bad = r, bad.gpa = 0;
	assert_int_equal(mem_add(&w->mem, &bad), -EEXIST);
	bad = r, bad.gpa = 15 * PAGE, bad.size = 2 * PAGE;
	assert_int_equal(mem_add(&w->mem, &bad), -EEXIST);
	bad = r, bad.gpa = 19 * PAGE, bad.size = 2 * PAGE;
	assert_int_equal(mem_add(&w->mem, &bad), -EEXIST);
	bad = r, bad.gpa = 10 * PAGE, bad.size = 20 * PAGE;
	assert_int_equal(mem_add(&w->mem, &bad), -EEXIST);
	bad = r, bad.gpa = 17 * PAGE;
	assert_int_equal(mem_add(&w->mem, &bad), -EEXIST);
	/* Touching is fine, and so is the very top of the address space. */
	bad = r, bad.gpa = 20 * PAGE;
	assert_int_equal(mem_add(&w->mem, &bad), 0);
	bad = r, bad.gpa = UINT64_MAX - PAGE + 1;
	assert_int_equal(mem_add(&w->mem, &bad), 0);
	while (w->mem.count < MEM_MAX_REGIONS) {
		assert_int_equal(mem_add(&w->mem, &r), 0);
		r.gpa += PAGE;
	}
	assert_int_equal(mem_add(&w->mem, &r), -ENOSPC);
}

static void test_translate_edges(void **state)
{
	struct world *w = *state;
	enum mem_kind kind = MEM_DAX_WINDOW;
	uint64_t faults;

	assert_ptr_equal(mem_translate(&w->mem, 0, 1, true, &kind), w->low);
	assert_int_equal(kind, MEM_RAM);
	assert_ptr_equal(mem_translate(&w->mem, 4 * PAGE - 1, 1, true, NULL), w->low + 4 * PAGE - 1);
	assert_ptr_equal(mem_translate(&w->mem, 0, 4 * PAGE, true, NULL), w->low);
	assert_ptr_equal(mem_translate(&w->mem, 16 * PAGE, 4 * PAGE, false, &kind), w->window);
	assert_int_equal(kind, MEM_IMAGE_WINDOW);
	faults = w->mem.faults;
	assert_null(mem_translate(&w->mem, 0, 0, false, NULL));
	assert_null(mem_translate(&w->mem, 0, 4 * PAGE + 1, false, NULL)); /* adjacent, yet two regions */
	assert_null(mem_translate(&w->mem, 8 * PAGE, 1, false, NULL));
	assert_null(mem_translate(&w->mem, 1, UINT64_MAX, false, NULL));
	assert_null(mem_translate(&w->mem, UINT64_MAX, 1, false, NULL));
	assert_null(mem_translate(&w->mem, 16 * PAGE, 1, true, NULL)); /* read-only */
	assert_null(mem_ram(&w->mem, 16 * PAGE, 1, false));	       /* never plain loads from a window */
	assert_int_equal(w->mem.faults - faults, 7);
	assert_ptr_equal(mem_ram(&w->mem, 4 * PAGE, 8, true), w->high);
}

static void test_copy_crosses_regions(void **state)
{
	struct world *w = *state;
	uint8_t out[64], in[64];

	for (size_t i = 0; i < sizeof(out); i++)
		out[i] = (uint8_t)(i + 1);
	assert_int_equal(mem_write(&w->mem, 4 * PAGE - 20, out, sizeof(out)), 0);
	assert_memory_equal(w->low + 4 * PAGE - 20, out, 20);
	assert_memory_equal(w->high, out + 20, 44);
	assert_int_equal(mem_read(&w->mem, 4 * PAGE - 20, in, sizeof(in)), 0);
	assert_memory_equal(in, out, sizeof(in));
	assert_int_equal(mem_read(&w->mem, 8 * PAGE - 20, in, sizeof(in)), -EFAULT);
	assert_int_equal(mem_write(&w->mem, 8 * PAGE, out, 1), -EFAULT);
	assert_int_equal(mem_read(&w->mem, 8 * PAGE, in, 0), 0);
}

static void test_top_of_address_space(void **state)
{
	struct world *w = *state;
	struct mem_region r = {.kind = MEM_RAM, .writable = true, .host = w->high, .size = PAGE};
	uint8_t b[16] = {0};

	r.gpa = UINT64_MAX - PAGE + 1;
	assert_int_equal(mem_add(&w->mem, &r), 0);
	assert_int_equal(mem_write(&w->mem, UINT64_MAX - 7, b, 8), 0);
	/* It must not wrap around to the RAM at 0. */
	assert_int_equal(mem_write(&w->mem, UINT64_MAX - 7, b, 9), -EFAULT);
	assert_int_equal(mem_read(&w->mem, UINT64_MAX - 7, b, 16), -EFAULT);
}

static void test_window(void **state)
{
	struct world *w = *state;
	char b[16] = "";
	uint64_t faults;

	assert_int_equal(mem_read(&w->mem, 18 * PAGE, b, 9), 0);
	assert_string_equal(b, "in window");
	assert_int_equal(mem_write(&w->mem, 18 * PAGE, b, 9), -EFAULT);
	/* The host truncates the file: an error, not a SIGBUS; what is left still reads. */
	assert_int_equal(ftruncate(w->fd, PAGE), 0);
	faults = w->mem.faults;
	assert_int_equal(mem_read(&w->mem, 18 * PAGE, b, 9), -EFAULT);
	assert_int_equal(mem_read(&w->mem, 17 * PAGE - 4, b, 9), -EFAULT);
	assert_int_equal(w->mem.faults - faults, 2);
	assert_int_equal(mem_read(&w->mem, 16 * PAGE, b, 9), 0);
	assert_int_equal(b[0], 0);
}

static void test_writable_window(void **state)
{
	struct world *w = *state;
	void *dax = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, w->fd, 0);
	struct mem_region r = {.kind = MEM_DAX_WINDOW, .writable = true, .gpa = 64 * PAGE, .size = 4 * PAGE};
	char b[8] = "";

	assert_true(dax != MAP_FAILED);
	r.host = dax;
	assert_int_equal(mem_add(&w->mem, &r), 0);
	assert_int_equal(mem_write(&w->mem, 65 * PAGE, "dax", 4), 0);
	assert_int_equal(pread(w->fd, b, 4, PAGE), 4);
	assert_string_equal(b, "dax");
	assert_int_equal(ftruncate(w->fd, 0), 0);
	assert_int_equal(mem_write(&w->mem, 65 * PAGE, "dax", 4), -EFAULT);
	munmap(dax, 4 * PAGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_add_refuses, setup, teardown),
		cmocka_unit_test_setup_teardown(test_translate_edges, setup, teardown),
		cmocka_unit_test_setup_teardown(test_copy_crosses_regions, setup, teardown),
		cmocka_unit_test_setup_teardown(test_top_of_address_space, setup, teardown),
		cmocka_unit_test_setup_teardown(test_window, setup, teardown),
		cmocka_unit_test_setup_teardown(test_writable_window, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
