/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Split virtqueues, device side (virtio 1.2 section 2.7).
 *
 * The rings lie in guest RAM that the guest rewrites while we read it. So each word is loaded once into our own
 * memory, then checked, then used; what is checked is never loaded again. The rings are translated at
 * activation and stay valid: RAM regions are never removed. Ordering: the avail index is loaded with acquire before the
 * entries that it announces; the used index is stored with release after its entries; and between writing an index and
 * reading the other side's wish for an event stands a full fence on both sides (section 2.7.13.4.1), or both could
 * sleep.
 *
 * System calls at run time: getpid, process_vm_readv, process_vm_writev (buffers in windows only).
 */
#include "virtio/queue.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"

enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4 };
enum { AVAIL_NO_INTERRUPT = 1, USED_NO_NOTIFY = 1 };

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

struct used_elem {
	uint32_t id, len;
};

/* Ring layout: flags, idx, ring[size], then the other side's event index. */
#define AVAIL_BYTES(size) (4 + 2 * (uint64_t)(size) + 2)
#define USED_BYTES(size) (4 + 8 * (uint64_t)(size) + 2)

static uint16_t *ring_u16(void *ring, size_t off)
{
	return (uint16_t *)(void *)((uint8_t *)ring + off);
}

static uint16_t load_u16(void *ring, size_t off)
{
	return le16toh(__atomic_load_n(ring_u16(ring, off), __ATOMIC_ACQUIRE));
}

static void store_u16(void *ring, size_t off, uint16_t v)
{
	__atomic_store_n(ring_u16(ring, off), htole16(v), __ATOMIC_RELEASE);
}

int virtq_activate(struct virtqueue *vq, struct mem *mem, bool event_idx, bool indirect)
{
	vq->desc_host = vq->avail_host = vq->used_host = NULL;
	if (!vq->size || vq->size > VIRTQ_MAX_SIZE || (vq->size & (vq->size - 1)))
		return -EINVAL;
	if (vq->desc % 16 || vq->avail % 2 || vq->used % 4)
		return -EINVAL;
	vq->mem = mem;
	vq->event_idx = event_idx;
	vq->indirect = indirect;
	vq->desc_host = mem_ram(mem, vq->desc, sizeof(struct desc) * vq->size, false);
	vq->avail_host = mem_ram(mem, vq->avail, AVAIL_BYTES(vq->size), false);
	vq->used_host = mem_ram(mem, vq->used, USED_BYTES(vq->size), true);
	if (!vq->desc_host || !vq->avail_host || !vq->used_host) {
		vq->desc_host = vq->avail_host = vq->used_host = NULL;
		return -EINVAL;
	}
	vq->last_avail = vq->used_idx = vq->signalled_used = 0;
	vq->signalled_valid = false;
	return 0;
}

/* Walk of one chain: the table in use and how much of the queue's budget is left. */
struct walk {
	struct virtqueue *vq;
	struct virtq_chain *chain;
	const uint8_t *table;
	uint32_t entries, budget;
	bool nested;
};

/* One descriptor, copied: the guest may change it right after. */
static int load_desc(const struct walk *w, uint32_t index, struct desc *ret)
{
	struct desc d;

	if (index >= w->entries)
		return -EPROTO;
	memcpy(&d, w->table + index * sizeof(d), sizeof(d));
	ret->addr = le64toh(d.addr);
	ret->len = le32toh(d.len);
	ret->flags = le16toh(d.flags);
	ret->next = le16toh(d.next);
	return 0;
}

/* Adds a buffer to the chain: translated and checked, readable ones before writable ones. */
static int add_buffer(struct walk *w, const struct desc *d)
{
	struct virtq_chain *c = w->chain;
	bool write = d->flags & DESC_WRITE;
	uint64_t *sum = write ? &c->len_write : &c->len_read;
	unsigned n = c->num_read + c->num_write;
	enum mem_kind kind;
	void *host;

	if (!write && c->num_write)
		return -EPROTO;
	if (n >= ARRAY_SIZE(c->iov) || d->len > UINT32_MAX - *sum)
		return -EPROTO;
	host = mem_translate(w->vq->mem, d->addr, d->len, write, &kind);
	if (!host)
		return -EPROTO;
	c->windows |= kind != MEM_RAM;
	c->iov[n] = (struct iovec){.iov_base = host, .iov_len = d->len};
	*sum += d->len;
	if (write)
		c->num_write++;
	else
		c->num_read++;
	return 0;
}

/* An indirect descriptor ends the chain in its own table: it may not itself have a successor, nor lie in another one.
 */
static int enter_indirect(struct walk *w, const struct desc *d)
{
	if (!w->vq->indirect || w->nested || (d->flags & DESC_NEXT))
		return -EPROTO;
	if (!d->len || d->len % sizeof(struct desc) || d->len / sizeof(struct desc) > UINT16_MAX + 1U)
		return -EPROTO;
	w->table = mem_ram(w->vq->mem, d->addr, d->len, false);
	if (!w->table)
		return -EPROTO;
	w->entries = d->len / (uint32_t)sizeof(struct desc);
	w->nested = true;
	return 0;
}

static int walk_chain(struct walk *w, uint32_t index)
{
	/* Each step spends budget, so a loop ends after queue-size descriptors at most. */
	for (;;) {
		struct desc d;
		int r = load_desc(w, index, &d);

		if (r < 0)
			return r;
		if (d.flags & DESC_INDIRECT) {
			r = enter_indirect(w, &d);
			if (r < 0)
				return r;
			index = 0;
			continue;
		}
		if (!w->budget--)
			return -EPROTO;
		r = add_buffer(w, &d);
		if (r < 0)
			return r;
		if (!(d.flags & DESC_NEXT))
			return 0;
		index = d.next;
	}
}

int virtq_pop(struct virtqueue *vq, struct virtq_chain *chain)
{
	struct walk w = {.vq = vq, .chain = chain, .table = vq->desc_host, .entries = vq->size, .budget = vq->size};
	uint16_t pending;
	int r;

	if (!vq->avail_host)
		return 0;
	pending = (uint16_t)(load_u16(vq->avail_host, 2) - vq->last_avail);
	if (!pending)
		return 0;
	if (pending > vq->size)
		return -EPROTO;
	chain->head = load_u16(vq->avail_host, 4 + 2 * (size_t)(vq->last_avail & (vq->size - 1)));
	chain->windows = false;
	chain->num_read = chain->num_write = 0;
	chain->len_read = chain->len_write = 0;
	r = walk_chain(&w, chain->head);
	if (r < 0)
		return r;
	chain->read = chain->iov;
	chain->write = chain->iov + chain->num_read;
	/* virtq_pending may look from another thread. */
	__atomic_store_n(&vq->last_avail, (uint16_t)(vq->last_avail + 1), __ATOMIC_RELAXED);
	return 1;
}

void virtq_unpop(struct virtqueue *vq)
{
	vq->last_avail--;
}

void virtq_push(struct virtqueue *vq, uint16_t head, uint32_t written)
{
	struct used_elem e = {.id = htole32(head), .len = htole32(written)};

	if (!vq->used_host)
		return;
	memcpy((uint8_t *)vq->used_host + 4 + sizeof(e) * (vq->used_idx & (vq->size - 1)), &e, sizeof(e));
	vq->used_idx++;
	store_u16(vq->used_host, 2, vq->used_idx);
}

void virtq_disable_notify(struct virtqueue *vq)
{
	if (!vq->used_host)
		return;
	/* With the event index: one that has been passed asks for nothing until 65536 buffers later. */
	if (vq->event_idx)
		store_u16(vq->used_host, 4 + sizeof(struct used_elem) * vq->size, (uint16_t)(vq->last_avail - 1));
	else
		store_u16(vq->used_host, 0, USED_NO_NOTIFY);
}

bool virtq_pending(const struct virtqueue *vq)
{
	void *avail = __atomic_load_n(&vq->avail_host, __ATOMIC_RELAXED);

	return avail && load_u16(avail, 2) != __atomic_load_n(&vq->last_avail, __ATOMIC_RELAXED);
}

bool virtq_enable_notify(struct virtqueue *vq)
{
	if (!vq->used_host)
		return false;
	if (vq->event_idx)
		store_u16(vq->used_host, 4 + sizeof(struct used_elem) * vq->size, vq->last_avail);
	else
		store_u16(vq->used_host, 0, 0);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return load_u16(vq->avail_host, 2) != vq->last_avail;
}

bool virtq_should_signal(struct virtqueue *vq)
{
	uint16_t old = vq->signalled_used, event;
	bool valid = vq->signalled_valid;

	if (!vq->used_host)
		return false;
	if (old == vq->used_idx)
		return false; /* nothing pushed since */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	vq->signalled_used = vq->used_idx;
	vq->signalled_valid = true;
	if (!vq->event_idx)
		return !(load_u16(vq->avail_host, 0) & AVAIL_NO_INTERRUPT);
	event = load_u16(vq->avail_host, 4 + 2 * (size_t)vq->size);
	/* The event lies in [old, used_idx), modulo 2^16; the first time there is no old, so signal. */
	return !valid || (uint16_t)(vq->used_idx - event - 1) < (uint16_t)(vq->used_idx - old);
}

/* One piece of a buffer, in our own memory or (window) through the kernel, which reports a lost page as an error. */
static int copy_piece(void *guest, void *own, size_t len, bool to_guest, bool window)
{
	if (!window) {
		memcpy(to_guest ? guest : own, to_guest ? own : guest, len);
		return 0;
	}
	while (len) {
		struct iovec l = {.iov_base = own, .iov_len = len}, g = {.iov_base = guest, .iov_len = len};
		ssize_t n = to_guest ? process_vm_writev(getpid(), &l, 1, &g, 1, 0)
				     : process_vm_readv(getpid(), &l, 1, &g, 1, 0);

		if (n <= 0)
			return -EFAULT;
		own = (uint8_t *)own + n;
		guest = (uint8_t *)guest + n;
		len -= (size_t)n;
	}
	return 0;
}

static int copy_iov(const struct iovec *iov, unsigned n, uint64_t off, void *own, size_t len, bool to_guest,
		    bool window)
{
	for (unsigned i = 0; i < n && len; i++) {
		size_t here;
		int r;

		if (off >= iov[i].iov_len) {
			off -= iov[i].iov_len;
			continue;
		}
		here = MIN(len, iov[i].iov_len - off);
		r = copy_piece((uint8_t *)iov[i].iov_base + off, own, here, to_guest, window);
		if (r < 0)
			return r;
		own = (uint8_t *)own + here;
		len -= here;
		off = 0;
	}
	return len ? -EPROTO : 0;
}

int virtq_chain_read(const struct virtq_chain *c, uint64_t off, void *p, size_t len)
{
	return copy_iov(c->read, c->num_read, off, p, len, false, c->windows);
}

int virtq_chain_write(const struct virtq_chain *c, uint64_t off, const void *p, size_t len)
{
	return copy_iov(c->write, c->num_write, off, (void *)(uintptr_t)p, len, true, c->windows);
}

int virtq_iov_write(const struct iovec *iov, unsigned n, uint64_t off, const void *p, size_t len, bool windows)
{
	return copy_iov(iov, n, off, (void *)(uintptr_t)p, len, true, windows);
}

int virtq_iov_slice(const struct iovec *in, unsigned n, uint64_t off, uint64_t len, struct iovec *out, unsigned max)
{
	unsigned used = 0;

	for (unsigned i = 0; i < n && len; i++) {
		size_t here;

		if (off >= in[i].iov_len) {
			off -= in[i].iov_len;
			continue;
		}
		if (used == max)
			return -EPROTO;
		here = MIN(len, in[i].iov_len - off);
		out[used++] = (struct iovec){.iov_base = (uint8_t *)in[i].iov_base + off, .iov_len = here};
		len -= here;
		off = 0;
	}
	return len ? -EPROTO : (int)used;
}

const int virtq_syscalls[] = {SYS_getpid, SYS_process_vm_readv, SYS_process_vm_writev, -1};
