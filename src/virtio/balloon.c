/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-balloon. See balloon.h. Inflated pages come as arrays of 4 KiB frame numbers in any order; they are sorted and
 * neighbours joined, so that a run of frames costs one call; reported ranges come as the buffers themselves. Both are
 * released when they are whole pages of RAM: a buffer in a window, or one that is not page-aligned, is left alone.
 */
#include "virtio/balloon.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_balloon.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/util.h"

#define PAGE 4096ULL
#define FRAMES_AT_ONCE 256U
#define FRAMES_MAX 16384U /* a chain: Linux sends 256 */

enum { QUEUE_INFLATE, QUEUE_DEFLATE, QUEUE_STATS, NUM_QUEUES = 4 };

struct balloon {
	struct virtio_device dev;
	void (*release)(void *arg, void *host, size_t len);
	void *arg;
	uint32_t target, actual; /* pages */
	uint64_t inflated, reported;
	int stats_head; /* the statistics buffer that we hold to ask with; -1: none */
	bool stats_valid;
	uint64_t stats[VIRTIO_BALLOON_S_NR];
	struct virtq_chain chain;
};

static void release_default(void *arg, void *host, size_t len)
{
	/* Advice: where the kernel refuses it (locked memory), the pages stay, and nothing else changes. */
	(void)madvise(host, len, MADV_DONTNEED);
}

/* Gives back a run of frames, as far as it is RAM; the translation knows. */
static void release_frames(struct balloon *b, uint64_t first, uint64_t count)
{
	void *host = mem_ram(b->dev.mem, first * PAGE, count * PAGE, true);

	if (!host && count > 1) {
		/* A run that leaves a region: what is RAM of it still counts. */
		for (uint64_t i = 0; i < count; i++)
			release_frames(b, first + i, 1);
		return;
	}
	if (!host)
		return;
	b->release(b->arg, host, count * PAGE);
	b->inflated += count * PAGE;
}

/* Not qsort: from a kilobyte on, the C library's asks the system for its memory, which a sealed process may not. */
static void sort(uint32_t *v, size_t n)
{
	for (size_t gap = n / 2; gap; gap /= 2)
		for (size_t i = gap; i < n; i++) {
			uint32_t x = v[i];
			size_t k = i;

			for (; k >= gap && v[k - gap] > x; k -= gap)
				v[k] = v[k - gap];
			v[k] = x;
		}
}

/* Gives back n frames, in whatever order they came, neighbours at once. */
static void release_list(struct balloon *b, uint32_t *frames, size_t n)
{
	size_t start = 0;

	sort(frames, n);
	for (size_t i = 1; i <= n; i++) {
		if (i < n && frames[i] - frames[i - 1] <= 1)
			continue;
		release_frames(b, frames[start], frames[i - 1] - frames[start] + 1ULL);
		start = i;
	}
}

static int inflate(struct virtio_device *dev, unsigned queue, struct virtq_chain *chain)
{
	struct balloon *b = (struct balloon *)dev;
	uint32_t frames[FRAMES_AT_ONCE];

	if (chain->num_write || chain->len_read % sizeof(frames[0]) || chain->len_read > FRAMES_MAX * sizeof(frames[0]))
		return -EPROTO;
	for (uint64_t off = 0; off < chain->len_read; off += sizeof(frames)) {
		size_t len = MIN(sizeof(frames), chain->len_read - off);

		if (virtq_chain_read(chain, off, frames, len) < 0)
			break;
		for (size_t i = 0; i < len / sizeof(frames[0]); i++)
			frames[i] = le32toh(frames[i]);
		release_list(b, frames, len / sizeof(frames[0]));
	}
	return 0;
}

/* The guest takes pages back: they come into being again when it touches them. */
static int deflate(struct virtio_device *dev, unsigned queue, struct virtq_chain *chain)
{
	return chain->num_write || chain->len_read % sizeof(uint32_t) ? -EPROTO : 0;
}

static int report(struct virtio_device *dev, unsigned queue, struct virtq_chain *chain)
{
	struct balloon *b = (struct balloon *)dev;

	if (chain->num_read)
		return -EPROTO;
	if (chain->windows)
		return 0;
	for (unsigned i = 0; i < chain->num_write; i++) {
		struct iovec *v = &chain->write[i];

		if (((uintptr_t)v->iov_base | v->iov_len) % PAGE)
			continue;
		b->release(b->arg, v->iov_base, v->iov_len);
		b->reported += v->iov_len;
	}
	return 0;
}

/* A statistics buffer arrives filled, and is kept: giving it back is how to ask for the next (section 5.5.6.3). */
static int take_stats(struct virtio_device *dev, unsigned queue, struct virtq_chain *chain)
{
	struct balloon *b = (struct balloon *)dev;
	struct virtio_balloon_stat s;

	if (b->stats_head >= 0 || chain->num_write)
		return -EPROTO;
	memset(b->stats, 0xff, sizeof(b->stats));
	for (uint64_t off = 0; off + sizeof(s) <= MIN(chain->len_read, 64 * sizeof(s)); off += sizeof(s)) {
		if (virtq_chain_read(chain, off, &s, sizeof(s)) < 0)
			break;
		if (le16toh(s.tag) < VIRTIO_BALLOON_S_NR)
			b->stats[le16toh(s.tag)] = le64toh(s.val);
	}
	b->stats_valid = chain->len_read >= sizeof(s);
	b->stats_head = chain->head;
	return -EINPROGRESS;
}

/*
 * Which queue is which depends on the features: Linux and QEMU number only the queues that exist, so without
 * FREE_PAGE_HINT the reporting queue comes right after the statistics queue, or in its place.
 */
static void notify(struct virtio_device *dev, unsigned queue)
{
	struct balloon *b = (struct balloon *)dev;
	virtio_chain_fn fn = report;

	if (queue == QUEUE_INFLATE)
		fn = inflate;
	else if (queue == QUEUE_DEFLATE)
		fn = deflate;
	else if (queue == QUEUE_STATS && virtio_has(dev, VIRTIO_BALLOON_F_STATS_VQ))
		fn = take_stats;
	else if (!virtio_has(dev, VIRTIO_BALLOON_F_REPORTING))
		return;
	virtio_device_drain(dev, queue, &b->chain, fn);
}

static void reset(struct virtio_device *dev)
{
	struct balloon *b = (struct balloon *)dev;

	b->stats_head = -1;
	b->stats_valid = false;
	b->actual = 0;
}

static void config_read(struct virtio_device *dev, uint32_t off, void *p, uint32_t len)
{
	struct balloon *b = (struct balloon *)dev;
	struct virtio_balloon_config config = {.num_pages = htole32(b->target), .actual = htole32(b->actual)};

	virtio_config_copy(p, off, len, &config, sizeof(config));
}

static void config_write(struct virtio_device *dev, uint32_t off, const void *p, uint32_t len)
{
	struct balloon *b = (struct balloon *)dev;
	uint32_t actual;

	if (off != offsetof(struct virtio_balloon_config, actual) || len != sizeof(actual))
		return;
	memcpy(&actual, p, sizeof(actual));
	b->actual = le32toh(actual);
}

static int save(struct virtio_device *dev, struct buf *out)
{
	struct balloon *b = (struct balloon *)dev;

	buf_put_u32(out, b->target);
	buf_put_u32(out, b->actual);
	return buf_put_u32(out, (uint32_t)b->stats_head);
}

static int load(struct virtio_device *dev, struct cursor *in)
{
	struct balloon *b = (struct balloon *)dev;
	uint32_t head;

	b->target = cursor_u32(in);
	b->actual = cursor_u32(in);
	head = cursor_u32(in);
	if (head != UINT32_MAX && head >= dev->queues[QUEUE_STATS].size)
		return -EPROTO;
	b->stats_head = (int)head;
	return 0;
}

static void balloon_free(struct virtio_device *dev)
{
	free(dev);
}

static const struct virtio_device_ops ops = {
	.notify = notify,
	.reset = reset,
	.config_read = config_read,
	.config_write = config_write,
	.save = save,
	.load = load,
	.free = balloon_free,
};

int virtio_balloon_new(struct mem *mem, struct loop *loop, const struct virtio_balloon_options *options,
		       struct virtio_device **ret)
{
	struct balloon *b = calloc(1, sizeof(*b));

	if (!b)
		return -ENOMEM;
	b->release = options->release ? options->release : release_default;
	b->arg = options->arg;
	b->stats_head = -1;
	b->dev = (struct virtio_device){
		.ops = &ops,
		.name = options->name,
		.id = VIRTIO_ID_BALLOON_,
		.offered = VIRTIO_DEVICE_FEATURES | 1ULL << VIRTIO_BALLOON_F_STATS_VQ |
			   1ULL << VIRTIO_BALLOON_F_DEFLATE_ON_OOM | 1ULL << VIRTIO_BALLOON_F_REPORTING,
		/* The fields after `actual` belong to features that are not offered. */
		.config_size = offsetof(struct virtio_balloon_config, free_page_hint_cmd_id),
		.num_queues = NUM_QUEUES,
		.queue_size_max = 128,
		.mem = mem,
		.loop = loop,
	};
	*ret = &b->dev;
	return 0;
}

void virtio_balloon_set_target(struct virtio_device *dev, uint64_t bytes)
{
	struct balloon *b = (struct balloon *)dev;

	b->target = (uint32_t)MIN(bytes / PAGE, UINT32_MAX);
	if (dev->irq.config)
		dev->irq.config(dev->irq.arg);
}

void virtio_balloon_stats(struct virtio_device *dev, struct virtio_balloon_stats *ret)
{
	struct balloon *b = (struct balloon *)dev;

	*ret = (struct virtio_balloon_stats){
		.target = b->target * PAGE,
		.actual = b->actual * PAGE,
		.inflated = b->inflated,
		.reported = b->reported,
		.valid = b->stats_valid,
		.free = b->stats[VIRTIO_BALLOON_S_MEMFREE],
		.total = b->stats[VIRTIO_BALLOON_S_MEMTOT],
		.available = b->stats[VIRTIO_BALLOON_S_AVAIL],
		.caches = b->stats[VIRTIO_BALLOON_S_CACHES],
		.major_faults = b->stats[VIRTIO_BALLOON_S_MAJFLT],
		.swap_in = b->stats[VIRTIO_BALLOON_S_SWAP_IN],
		.swap_out = b->stats[VIRTIO_BALLOON_S_SWAP_OUT],
	};
	if (b->stats_head < 0 || !dev->active || dev->broken)
		return;
	virtq_push(&dev->queues[QUEUE_STATS], (uint16_t)b->stats_head, 0);
	b->stats_head = -1;
	virtio_device_signal(dev, QUEUE_STATS);
}

const int virtio_balloon_syscalls[] = {SYS_madvise, -1};
