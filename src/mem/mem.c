/* SPDX-License-Identifier: Apache-2.0 */
/* The region table, the checked translation, and copies that survive windows whose files shrank. */
#include "mem/mem.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/util.h"

#define MEM_PAGE 4096ULL

int mem_add(struct mem *mem, const struct mem_region *region)
{
	size_t at = 0;

	if (!region->host || !region->size || (region->gpa | region->size) % MEM_PAGE ||
	    (uintptr_t)region->host % MEM_PAGE || region->gpa + region->size - 1 < region->gpa)
		return -EINVAL;
	if (mem->count >= MEM_MAX_REGIONS)
		return -ENOSPC;
	while (at < mem->count && mem->regions[at].gpa < region->gpa)
		at++;
	/* Both neighbours compare by subtraction: no sum can overflow. */
	if (at > 0 && region->gpa - mem->regions[at - 1].gpa < mem->regions[at - 1].size)
		return -EEXIST;
	if (at < mem->count && mem->regions[at].gpa - region->gpa < region->size)
		return -EEXIST;
	memmove(&mem->regions[at + 1], &mem->regions[at], (mem->count - at) * sizeof(mem->regions[0]));
	mem->regions[at] = *region;
	mem->count++;
	return 0;
}

static void count_fault(struct mem *mem)
{
	__atomic_fetch_add(&mem->faults, 1, __ATOMIC_RELAXED);
}

static const struct mem_region *find(const struct mem *mem, uint64_t gpa)
{
	for (size_t i = 0; i < mem->count; i++) {
		const struct mem_region *r = &mem->regions[i];

		if (gpa >= r->gpa && gpa - r->gpa < r->size)
			return r;
	}
	return NULL;
}

static void *translate(struct mem *mem, uint64_t gpa, uint64_t len, bool write, enum mem_kind *ret_kind)
{
	const struct mem_region *r = find(mem, gpa);

	if (!r || !len || (write && !r->writable) || !range_inside(gpa - r->gpa, len, r->size))
		return NULL;
	if (ret_kind)
		*ret_kind = r->kind;
	return r->host + (gpa - r->gpa);
}

void *mem_translate(struct mem *mem, uint64_t gpa, uint64_t len, bool write, enum mem_kind *ret_kind)
{
	void *p = translate(mem, gpa, len, write, ret_kind);

	if (!p)
		count_fault(mem);
	return p;
}

void *mem_ram(struct mem *mem, uint64_t gpa, uint64_t len, bool write)
{
	enum mem_kind kind;
	void *p = translate(mem, gpa, len, write, &kind);

	if (p && kind == MEM_RAM)
		return p;
	count_fault(mem);
	return NULL;
}

/* Copies to or from a window through the kernel, which reports a missing page as an error instead of SIGBUS. */
static int copy_window(void *host, void *own, size_t len, bool write)
{
	while (len) {
		struct iovec local = {.iov_base = own, .iov_len = len};
		struct iovec remote = {.iov_base = host, .iov_len = len};
		ssize_t n = write ? process_vm_writev(getpid(), &local, 1, &remote, 1, 0)
				  : process_vm_readv(getpid(), &local, 1, &remote, 1, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -EFAULT;
		host = (char *)host + n;
		own = (char *)own + n;
		len -= (size_t)n;
	}
	return 0;
}

/* One walk for both directions, region by region. `own` is only read when `write`. */
static int copy(struct mem *mem, uint64_t gpa, void *own, size_t len, bool write)
{
	while (len) {
		const struct mem_region *r = find(mem, gpa);
		size_t n;
		uint8_t *host;

		if (!r || (write && !r->writable))
			goto fault;
		n = MIN(len, r->size - (gpa - r->gpa));
		host = r->host + (gpa - r->gpa);
		if (r->kind != MEM_RAM) {
			if (copy_window(host, own, n, write))
				goto fault;
		} else if (write) {
			memcpy(host, own, n);
		} else {
			memcpy(own, host, n);
		}
		own = (char *)own + n;
		gpa += n; /* wraps to 0 only past the top of the address space, where no region lies */
		len -= n;
		if (len && !gpa)
			goto fault;
	}
	return 0;
fault:
	count_fault(mem);
	return -EFAULT;
}

int mem_read(struct mem *mem, uint64_t gpa, void *dst, size_t len)
{
	return copy(mem, gpa, dst, len, false);
}

int mem_write(struct mem *mem, uint64_t gpa, const void *src, size_t len)
{
	return copy(mem, gpa, (void *)(uintptr_t)src, len, true);
}
