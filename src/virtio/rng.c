/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-rng. See rng.h. A token bucket bounds how much of the host's time one guest can spend: a request beyond it
 * waits in the ring until a timer has refilled the bucket. A request is answered with at most 4 KiB, as the standard
 * allows.
 */
#include "virtio/rng.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/syscall.h>

#include "base/util.h"

#define NS_PER_SEC 1000000000ULL
#define REQUEST_MAX 4096U

struct rng {
	struct virtio_device dev;
	struct loop_source *timer;
	uint64_t rate, tokens, filled_ns;
	struct virtq_chain chain;
};

static void refill(struct rng *rng)
{
	uint64_t now = time_now_ns(), passed = MIN(now - rng->filled_ns, NS_PER_SEC);
	uint64_t more = passed * rng->rate / NS_PER_SEC;

	if (!more)
		return;
	rng->filled_ns = now;
	rng->tokens = MIN(rng->tokens + more, rng->rate);
}

static int handle(struct virtio_device *dev, unsigned queue, struct virtq_chain *chain)
{
	struct rng *rng = (struct rng *)dev;
	uint8_t bytes[REQUEST_MAX];
	size_t want = MIN(chain->len_write, sizeof(bytes));
	ssize_t n;

	if (!want)
		return -EPROTO;
	refill(rng);
	want = MIN(want, rng->rate);
	if (want > rng->tokens) {
		loop_timer_at(rng->timer, time_now_ns() + NS_PER_SEC / 100);
		return -EAGAIN;
	}
	/* The kernel's pool is ready long before any VM runs, so this never waits. */
	n = getrandom(bytes, want, 0);
	if (n <= 0)
		return 0;
	rng->tokens -= (uint64_t)n;
	return virtq_chain_write(chain, 0, bytes, (size_t)n) < 0 ? 0 : (int)n;
}

static void notify(struct virtio_device *dev, unsigned queue)
{
	struct rng *rng = (struct rng *)dev;

	virtio_device_drain(dev, queue, &rng->chain, handle);
}

static void refilled(struct loop *loop, struct loop_source *src, void *arg)
{
	struct virtio_device *dev = arg;

	if (dev->active && !dev->broken)
		notify(dev, 0);
}

static void reset(struct virtio_device *dev)
{
	struct rng *rng = (struct rng *)dev;

	loop_timer_at(rng->timer, 0);
}

static void config_read(struct virtio_device *dev, uint32_t off, void *p, uint32_t len)
{
	virtio_config_copy(p, off, len, NULL, 0);
}

static void rng_free(struct virtio_device *dev)
{
	struct rng *rng = (struct rng *)dev;

	loop_remove(rng->timer);
	free(rng);
}

static const struct virtio_device_ops ops = {
	.notify = notify,
	.reset = reset,
	.config_read = config_read,
	.free = rng_free,
};

int virtio_rng_new(struct mem *mem, struct loop *loop, const struct virtio_rng_options *options,
		   struct virtio_device **ret)
{
	struct rng *rng = calloc(1, sizeof(*rng));
	int r;

	if (!rng)
		return -ENOMEM;
	r = loop_add_timer(loop, refilled, rng, &rng->timer);
	if (r < 0) {
		free(rng);
		return r;
	}
	rng->rate = options->rate ? options->rate : MIB;
	rng->tokens = rng->rate;
	rng->filled_ns = time_now_ns();
	rng->dev = (struct virtio_device){
		.ops = &ops,
		.name = options->name,
		.id = VIRTIO_ID_RNG_,
		.offered = VIRTIO_DEVICE_FEATURES,
		.num_queues = 1,
		.queue_size_max = 64,
		.mem = mem,
		.loop = loop,
	};
	*ret = &rng->dev;
	return 0;
}

const int virtio_rng_syscalls[] = {SYS_getrandom, SYS_clock_gettime, -1};
