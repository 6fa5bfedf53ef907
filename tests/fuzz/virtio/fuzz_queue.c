/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A split queue whose rings and memory are the input itself: whatever it holds, chains stay inside memory, are bounded,
 * and can be read and written in full.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "base/util.h"
#include "driver.h"
#include "virtio/queue.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct driver *d, const struct virtq_chain *c, const struct virtqueue *vq)
{
	uint64_t sums[2] = {0, 0};

	if (c->num_read + c->num_write > vq->size || c->head >= vq->size)
		abort();
	for (unsigned i = 0; i < c->num_read + c->num_write; i++) {
		const uint8_t *p = c->iov[i].iov_base;

		if (p < d->ram || !c->iov[i].iov_len || (size_t)(p - d->ram) > RAM_SIZE - c->iov[i].iov_len)
			abort();
		sums[i >= c->num_read] += c->iov[i].iov_len;
	}
	if (sums[0] != c->len_read || sums[1] != c->len_write || sums[0] > UINT32_MAX || sums[1] > UINT32_MAX)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct virtq_chain chain;
	struct cursor in = cursor_of(data, size);
	uint8_t shape = cursor_u8(&in), bytes[64];
	struct virtqueue vq = {.size = (uint16_t)(1U << (shape % 8)), .ready = true, .desc = RAM_BASE};
	struct driver d;

	driver_init(&d);
	vq.avail = RAM_BASE + 16 * vq.size;
	vq.used = align_up(vq.avail + 6 + 2 * vq.size, 4);
	if (shape & 0x80) {
		vq.size = cursor_u16(&in);
		vq.desc = RAM_BASE + cursor_u32(&in);
		vq.used = RAM_BASE + cursor_u32(&in);
	}
	memcpy(d.ram, in.p, MIN(in.left, RAM_SIZE));
	if (virtq_activate(&vq, &d.mem, shape & 0x10, shape & 0x20) == 0) {
		for (unsigned i = 0; i < 300 && virtq_pop(&vq, &chain) > 0; i++) {
			check(&d, &chain, &vq);
			if (virtq_chain_read(&chain, 0, bytes, MIN(chain.len_read, sizeof(bytes))) < 0)
				abort();
			if (virtq_chain_write(&chain, chain.len_write / 2, bytes,
					      MIN(chain.len_write - chain.len_write / 2, sizeof(bytes))) < 0)
				abort();
			virtq_push(&vq, chain.head, (uint32_t)chain.len_write);
			virtq_should_signal(&vq);
			virtq_enable_notify(&vq);
		}
	}
	driver_done(&d);
	return 0;
}
