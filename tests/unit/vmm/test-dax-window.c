/* SPDX-License-Identifier: Apache-2.0 */
/* The DAX window: files in their places, and what is left where they have shrunk. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "vmm/dax_window.h"

#define PAGE 4096ULL
#define PLACE DAX_WINDOW_PLACE
#define BOTH (PROT_READ | PROT_WRITE)

struct world {
	struct dax_window w;
	int fd;
};

static int setup(void **state)
{
	static struct world w;

	*state = &w;
	w.fd = memfd_create("file", MFD_CLOEXEC);
	assert_true(w.fd >= 0);
	assert_int_equal(ftruncate(w.fd, 2 * PLACE), 0);
	for (uint64_t at = 0; at < 2 * PLACE; at += PAGE)
		assert_int_equal(pwrite(w.fd, "x", 1, (off_t)at), 1);
	assert_int_equal(dax_window_open(&w.w, 4 * PLACE, NULL), 0);
	assert_int_equal((uintptr_t)w.w.host % PLACE, 0);
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	dax_window_close(&w->w);
	assert_null(w->w.host);
	close(w->fd);
	return 0;
}

/* As the kernel does it for a guest or a device: 0, or -EFAULT where the page cannot be had. */
static int touch(struct world *w, uint64_t at, bool write)
{
	char c = 'w';
	struct iovec local = {&c, 1}, remote = {w->w.host + at, 1};
	ssize_t n = write ? process_vm_writev(getpid(), &local, 1, &remote, 1, 0)
			  : process_vm_readv(getpid(), &local, 1, &remote, 1, 0);

	return n == 1 ? c : -errno;
}

static void test_places(void **state)
{
	struct world *w = *state;

	assert_int_equal(touch(w, 0, false), 0); /* nothing there: zeros, and they cannot be changed */
	assert_int_equal(touch(w, 0, true), -EFAULT);
	assert_int_equal(dax_window_map(&w->w, 0, PLACE, w->fd, PLACE, PROT_READ), 0);
	assert_int_equal(dax_window_map(&w->w, 3 * PLACE, 8 * PAGE, w->fd, 0, BOTH), 0);
	assert_int_equal(touch(w, 0, false), 'x');
	assert_int_equal(touch(w, 0, true), -EFAULT);
	assert_int_equal(touch(w, 3 * PLACE, true), 'w');
	assert_int_equal(touch(w, 3 * PLACE + 8 * PAGE, false), 0);
	dax_window_unmap(&w->w, 0);
	dax_window_unmap(&w->w, 3 * PLACE);
	assert_int_equal(touch(w, 3 * PLACE, false), 0);
	assert_int_equal(touch(w, 3 * PLACE, true), -EFAULT);
	/* One that cannot be mapped leaves nothing behind. */
	assert_int_equal(dax_window_map(&w->w, 0, PLACE, w->fd, 0, PROT_READ), 0);
	assert_int_equal(dax_window_map(&w->w, 0, PLACE, -1, 0, PROT_READ), -EBADF);
	assert_int_equal(touch(w, 0, false), 0);
}

static void test_truncation(void **state)
{
	struct world *w = *state;
	uint64_t left;

	assert_int_equal(dax_window_map(&w->w, 0, PLACE, w->fd, 0, BOTH), 0);
	assert_int_equal(dax_window_map(&w->w, PLACE, PLACE, w->fd, PLACE, PROT_READ), 0);
	assert_int_equal(dax_window_repair(&w->w, 0), 0);
	assert_int_equal(ftruncate(w->fd, 3 * PAGE + 1), 0);
	assert_int_equal(touch(w, 4 * PAGE, false), -EFAULT);
	assert_int_equal(dax_window_repair(&w->w, 0), 2);
	assert_int_equal(w->w.repairs, 2);
	assert_int_equal(w->w.lost, 2);
	assert_int_equal(dax_window_repair(&w->w, 0) + dax_window_repair(&w->w, 1) + dax_window_repair(&w->w, 2), 0);
	assert_int_equal(touch(w, 0, false), 'x');
	assert_int_equal(touch(w, 3 * PAGE + 1, false), 0); /* what is left of the file's last page */
	assert_int_equal(touch(w, 4 * PAGE, false), 0);
	assert_int_equal(touch(w, 5 * PAGE, true), 'w'); /* goes nowhere */
	assert_int_equal(touch(w, PLACE, false), 0);
	assert_int_equal(touch(w, PLACE, true), -EFAULT);
	assert_true(dax_window_is_lost(&w->w, 0, &left) && left == 4 * PAGE);
	assert_true(dax_window_is_lost(&w->w, PLACE, &left) && left == 0);
	/* Shorter still. */
	assert_int_equal(ftruncate(w->fd, PAGE), 0);
	assert_int_equal(dax_window_repair(&w->w, 0), 1);
	assert_int_equal(touch(w, 2 * PAGE, false), 0);
	/* Mapped anew it is the file again. */
	assert_int_equal(ftruncate(w->fd, PLACE), 0);
	assert_int_equal(pwrite(w->fd, "y", 1, 5 * PAGE), 1);
	assert_int_equal(dax_window_map(&w->w, 0, PLACE, w->fd, 0, BOTH), 0);
	assert_int_equal(touch(w, 5 * PAGE, false), 'y');
	assert_int_equal(w->w.lost, 1);
	dax_window_unmap(&w->w, PLACE);
	assert_int_equal(w->w.lost, 0);
}

static void nothing(void *arg)
{
}

/* Without anybody asking. */
static void test_losses_are_found(void **state)
{
	struct world *w = *state;

	assert_int_equal(dax_window_watch(&w->w, nothing, NULL, NULL), 0);
	assert_int_equal(dax_window_map(&w->w, 0, PLACE, w->fd, 0, PROT_READ), 0);
	assert_int_equal(ftruncate(w->fd, PAGE), 0);
	for (unsigned i = 0; i < 1000 && touch(w, PAGE, false) < 0; i++)
		usleep(10000);
	assert_int_equal(touch(w, PAGE, false), 0);
	assert_int_equal(touch(w, 0, false), 'x');
}

static void test_ends_of_files_are_left_alone(void **state)
{
	struct world *w = *state;

	/* A place that was never full is no loss; if the file has grown meanwhile the second look finds it. */
	assert_int_equal(ftruncate(w->fd, 10 * PAGE), 0);
	assert_int_equal(dax_window_map(&w->w, 0, PLACE, w->fd, 0, PROT_READ), 0);
	assert_int_equal(dax_window_repair(&w->w, 0), 0);
	assert_int_equal(ftruncate(w->fd, 100 * PAGE), 0);
	assert_int_equal(touch(w, 99 * PAGE, false), 0);
	assert_int_equal(ftruncate(w->fd, 50 * PAGE), 0);
	assert_int_equal(touch(w, 60 * PAGE, false), -EFAULT);
	assert_int_equal(dax_window_repair(&w->w, 0), 0);
	assert_int_equal(dax_window_repair(&w->w, 1), 1);
	assert_int_equal(touch(w, 60 * PAGE, false), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_places, setup, teardown),
		cmocka_unit_test_setup_teardown(test_truncation, setup, teardown),
		cmocka_unit_test_setup_teardown(test_losses_are_found, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ends_of_files_are_left_alone, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
