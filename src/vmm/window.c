/* SPDX-License-Identifier: Apache-2.0 */
/* The image window. See window.h. */
#include "vmm/window.h"

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/util.h"
#include "vmm/ram.h"

#define PAGE 4096ULL

int window_map(struct window *w, uint64_t size, const struct vmm_file *parts, unsigned num_parts, struct sm_error *err)
{
	*w = (struct window){.size = size, .parts = parts, .num_parts = num_parts};
	w->host = ram_reserve(size, PROT_READ); /* large parts can be mapped by huge pages */
	if (!w->host)
		return error_sys(err, errno, "image window of %llu MiB", (unsigned long long)(size >> 20));
	for (unsigned i = 0; i < num_parts; i++) {
		int r;

		if (mmap(w->host + parts[i].offset, parts[i].size, PROT_READ, MAP_PRIVATE | MAP_FIXED, parts[i].fd,
			 0) != MAP_FAILED)
			continue;
		r = error_sys(err, errno, "image window: part %u", i);
		window_unmap(w);
		return r;
	}
	return 0;
}

void window_unmap(struct window *w)
{
	if (w->host)
		munmap(w->host, w->size);
	w->host = NULL;
}

static uint64_t missing(const struct window *w)
{
	uint64_t lost = 0;
	struct stat st;

	for (unsigned i = 0; i < w->num_parts; i++)
		if (fstat(w->parts[i].fd, &st) == 0 && (uint64_t)st.st_size < w->parts[i].size)
			lost += w->parts[i].size - (uint64_t)st.st_size;
	return lost;
}

bool window_shrunk(const struct window *w)
{
	return missing(w) != w->missing;
}

int window_repair(struct window *w)
{
	int found = 0;

	w->missing = missing(w);
	for (unsigned i = 0; i < w->num_parts; i++) {
		const struct vmm_file *p = &w->parts[i];
		uint64_t have, end = align_up(p->size, PAGE);
		struct stat st;

		if (fstat(p->fd, &st) < 0)
			return -errno;
		if ((uint64_t)st.st_size >= p->size)
			continue;
		have = align_up((uint64_t)st.st_size, PAGE);
		found++;
		if (have >= end)
			continue;
		if (mmap(w->host + p->offset + have, end - have, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
			 0) == MAP_FAILED)
			return -errno;
		__atomic_fetch_add(&w->repairs, 1, __ATOMIC_RELAXED);
	}
	return found;
}
