/* SPDX-License-Identifier: Apache-2.0 */
/* The DAX window. See dax_window.h. */
#include "vmm/dax_window.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/util.h"
#include "vmm/ram.h"

#define PAGE 4096ULL
#define MEND_MS 100
#define STACK_SIZE (64 * KIB)

int dax_window_open(struct dax_window *w, uint64_t size, struct sm_error *err)
{
	*w = (struct dax_window){.size = size, .wake = -1};
	w->places = calloc(size / DAX_WINDOW_PLACE, sizeof(w->places[0]));
	/* One place more: nothing else lies where a mapping that begins in the window could end. */
	w->host = w->places ? ram_reserve(size + DAX_WINDOW_PLACE, PROT_READ) : NULL;
	if (!w->host) {
		free(w->places);
		return error_sys(err, ENOMEM, "DAX window of %llu MiB", (unsigned long long)(size >> 20));
	}
	pthread_mutex_init(&w->lock, NULL);
	return 0;
}

void dax_window_close(struct dax_window *w)
{
	if (!w->host)
		return;
	if (w->started) {
		__atomic_store_n(&w->stopping, true, __ATOMIC_RELEASE);
		(void)eventfd_write(w->wake, 1);
		pthread_join(w->thread, NULL);
	}
	if (w->wake >= 0)
		close(w->wake);
	munmap(w->host, w->size + DAX_WINDOW_PLACE);
	free(w->places);
	pthread_mutex_destroy(&w->lock);
	*w = (struct dax_window){0};
}

static struct dax_place *place_of(struct dax_window *w, uint64_t at)
{
	return &w->places[at / DAX_WINDOW_PLACE];
}

static void set_left(struct dax_window *w, struct dax_place *p, uint32_t left)
{
	bool was = p->left < p->pages, is = left < p->pages;

	p->left = left;
	if (is != was)
		__atomic_fetch_add(&w->lost, is ? 1U : -1U, __ATOMIC_RELAXED);
}

static int put_memory(uint8_t *at, uint64_t len, int prot)
{
	return mmap(at, len, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED
		       ? -errno
		       : 0;
}

static void unmap_locked(struct dax_window *w, uint64_t at)
{
	struct dax_place *p = place_of(w, at);

	set_left(w, p, p->pages);
	w->used -= p->pages != 0;
	*p = (struct dax_place){0};
	/* Only without memory for another mapping in the kernel: then the file stays visible, to a guest that has it.
	 */
	(void)put_memory(w->host + at, DAX_WINDOW_PLACE, PROT_READ);
}

static uint32_t pages_of_file(int fd, uint64_t offset, uint64_t len)
{
	struct stat st;
	uint64_t size = fstat(fd, &st) < 0 ? 0 : (uint64_t)st.st_size;

	return size <= offset ? 0 : (uint32_t)(align_up(MIN(size - offset, len), PAGE) / PAGE);
}

int dax_window_map(struct dax_window *w, uint64_t at, uint64_t len, int fd, uint64_t offset, int prot)
{
	struct dax_place p = {.pages = (uint32_t)(len / PAGE),
			      .left = (uint32_t)(len / PAGE),
			      .file = pages_of_file(fd, offset, len),
			      .writable = prot & PROT_WRITE};
	int r = 0;

	pthread_mutex_lock(&w->lock);
	set_left(w, place_of(w, at), place_of(w, at)->pages);
	if (mmap(w->host + at, len, prot, MAP_SHARED | MAP_FIXED, fd, (off_t)offset) == MAP_FAILED) {
		r = -errno;
		unmap_locked(w, at);
	} else {
		w->used += place_of(w, at)->pages == 0;
		*place_of(w, at) = p;
		if (w->used == 1 && w->started)
			(void)eventfd_write(w->wake, 1);
	}
	pthread_mutex_unlock(&w->lock);
	return r;
}

void dax_window_unmap(struct dax_window *w, uint64_t at)
{
	pthread_mutex_lock(&w->lock);
	unmap_locked(w, at);
	pthread_mutex_unlock(&w->lock);
}

bool dax_window_is_lost(struct dax_window *w, uint64_t at, uint64_t *ret_left)
{
	struct dax_place *p = place_of(w, at);
	bool lost;

	pthread_mutex_lock(&w->lock);
	lost = p->left < p->pages;
	*ret_left = p->left * PAGE;
	pthread_mutex_unlock(&w->lock);
	return lost;
}

/* ------------------------------------------------------------------------------------------------- repair */

/* Whether the page can be had. The kernel says so of a copy, where a load would be a signal. */
static bool is_there(const uint8_t *page)
{
	uint8_t byte;
	struct iovec local = {&byte, 1}, remote = {(void *)(uintptr_t)page, 1};

	return process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == 1;
}

/* The first page of [0, n) that is not there, where those that are not lie behind those that are; n: all are. */
static uint32_t first_missing(const uint8_t *from, uint32_t n)
{
	uint32_t low = 0, high = n;

	if (!n || is_there(from + (n - 1) * PAGE))
		return n;
	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (is_there(from + mid * PAGE))
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* The end of the file has moved to before its last page that the guest may know of. */
static int mend_end(struct dax_window *w, struct dax_place *p, uint8_t *host, uint32_t pages)
{
	uint32_t first = first_missing(host, MIN(pages, p->left));

	if (first >= MIN(pages, p->left) ||
	    put_memory(host + first * PAGE, (p->pages - first) * PAGE, PROT_READ | (p->writable ? PROT_WRITE : 0)) < 0)
		return 0;
	set_left(w, p, first);
	return 1;
}

/* Pages that cannot be read for another reason, wherever they are. */
static int mend_pages(struct dax_window *w, struct dax_place *p, uint8_t *host)
{
	int found = 0;

	for (uint32_t i = 0; i < p->left; i++)
		if (!is_there(host + i * PAGE) &&
		    put_memory(host + i * PAGE, PAGE, PROT_READ | (p->writable ? PROT_WRITE : 0)) == 0)
			found = 1;
	return found;
}

int dax_window_repair(struct dax_window *w, unsigned thorough)
{
	int found = 0;

	if (!w->host)
		return 0;
	pthread_mutex_lock(&w->lock);
	for (uint64_t i = 0; i < w->size / DAX_WINDOW_PLACE; i++) {
		struct dax_place *p = &w->places[i];
		uint8_t *host = w->host + i * DAX_WINDOW_PLACE;

		if (!p->pages)
			continue;
		found += thorough < 2 ? mend_end(w, p, host, thorough ? p->pages : p->file) : mend_pages(w, p, host);
	}
	__atomic_fetch_add(&w->repairs, (unsigned)found, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&w->lock);
	return found;
}

/* ------------------------------------------------------------------------------------------------- thread */

static bool in_use(struct dax_window *w)
{
	bool used;

	pthread_mutex_lock(&w->lock);
	used = w->used;
	pthread_mutex_unlock(&w->lock);
	return used;
}

static void *watch(void *arg)
{
	struct dax_window *w = arg;
	struct pollfd p = {.fd = w->wake, .events = POLLIN};
	eventfd_t n;

	prctl(PR_SET_NAME, "fs"); /* one of the threads that serve files */
	w->begin(w->arg);
	while (!__atomic_load_n(&w->stopping, __ATOMIC_ACQUIRE)) {
		if (poll(&p, 1, in_use(w) ? MEND_MS : -1) > 0)
			(void)eventfd_read(w->wake, &n);
		(void)dax_window_repair(w, 0);
	}
	return NULL;
}

int dax_window_watch(struct dax_window *w, void (*begin)(void *arg), void *arg, struct sm_error *err)
{
	pthread_attr_t attr;
	sigset_t all, before;
	int r;

	w->begin = begin;
	w->arg = arg;
	w->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->wake < 0)
		return error_sys(err, errno, "DAX window");
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&w->thread, &attr, watch, w);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	w->started = r == 0;
	return r ? error_sys(err, r, "DAX window: thread") : 0;
}
