/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-mem. See mem.h. One queue; each request is a range of blocks, and all of it is checked before any is touched.
 */
#include "virtio/mem.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_mem.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/util.h"

#define BLOCK VIRTIO_MEM_BLOCK
/* Linux adds memory in pieces of this size, and only such as lie whole in the usable part of the region. */
#define USABLE_ALIGN (128 * MIB)

struct memory {
	struct virtio_device dev;
	void (*release)(void *arg, void *host, size_t len);
	void *arg;
	uint64_t gpa, region_size;
	uint32_t blocks;  /* that are backed */
	uint32_t plugged; /* of these */
	struct virtq_chain chain;
	uint8_t map[VIRTIO_MEM_REGION_MAX / BLOCK / 8]; /* a bit a block: it is plugged */
};

static bool is_plugged(const struct memory *m, uint32_t block)
{
	return m->map[block / 8] >> (block % 8) & 1;
}

static void set_plugged(struct memory *m, uint32_t block, bool plugged)
{
	uint8_t bit = (uint8_t)(1U << (block % 8));

	m->map[block / 8] = plugged ? m->map[block / 8] | bit : m->map[block / 8] & (uint8_t)~bit;
	m->plugged += plugged ? 1 : UINT32_MAX;
}

static uint64_t usable_size(const struct memory *m)
{
	return MIN(align_up(m->blocks * BLOCK, USABLE_ALIGN), m->region_size);
}

static void release_default(void *arg, void *host, size_t len)
{
	/* Advice: where the kernel refuses it (locked memory), the pages stay, and nothing else changes. */
	(void)madvise(host, len, MADV_DONTNEED);
}

/* A run of blocks that were plugged: not any more. */
static void unplug(struct memory *m, uint32_t first, uint32_t num)
{
	void *host = mem_ram(m->dev.mem, m->gpa + first * BLOCK, num * BLOCK, true);

	for (uint32_t i = 0; i < num; i++)
		set_plugged(m, first + i, false);
	if (host)
		m->release(m->arg, host, num * BLOCK);
}

static void unplug_all(struct memory *m)
{
	for (uint32_t i = 0, n; i < m->blocks; i += n) {
		bool plugged = is_plugged(m, i);

		for (n = 1; i + n < m->blocks && is_plugged(m, i + n) == plugged;)
			n++;
		if (plugged)
			unplug(m, i, n);
	}
}

/* How many of a range are plugged. */
static uint32_t count(const struct memory *m, uint32_t first, uint32_t num)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < num; i++)
		n += is_plugged(m, first + i);
	return n;
}

/* The blocks that a request names, all of them backed: VIRTIO_MEM_RESP_ACK, or what to answer. */
static uint16_t find_blocks(const struct memory *m, uint64_t addr, uint32_t num, uint32_t *ret_first)
{
	uint64_t off = addr - m->gpa, len = num * BLOCK;

	if (addr < m->gpa || off % BLOCK || !num || !range_inside(off, len, usable_size(m)))
		return VIRTIO_MEM_RESP_ERROR;
	*ret_first = (uint32_t)(off / BLOCK);
	/* The last of what is usable may have more room than there is memory. */
	return range_inside(off, len, m->blocks * BLOCK) ? VIRTIO_MEM_RESP_ACK : VIRTIO_MEM_RESP_NACK;
}

static uint16_t state_of(uint32_t plugged, uint32_t num)
{
	return plugged == num ? VIRTIO_MEM_STATE_PLUGGED
	       : plugged      ? VIRTIO_MEM_STATE_MIXED
			      : VIRTIO_MEM_STATE_UNPLUGGED;
}

static uint16_t answer(struct memory *m, const struct virtio_mem_req *req, uint16_t *ret_state)
{
	uint16_t type = le16toh(req->type), r;
	/* The three with a range have it in the same place. */
	uint32_t num = le16toh(req->u.plug.nb_blocks), first = 0, plugged;

	if (type == VIRTIO_MEM_REQ_UNPLUG_ALL) {
		unplug_all(m);
		return VIRTIO_MEM_RESP_ACK;
	}
	if (type != VIRTIO_MEM_REQ_PLUG && type != VIRTIO_MEM_REQ_UNPLUG && type != VIRTIO_MEM_REQ_STATE)
		return VIRTIO_MEM_RESP_ERROR;
	r = find_blocks(m, le64toh(req->u.plug.addr), num, &first);
	if (r != VIRTIO_MEM_RESP_ACK)
		return r;
	plugged = count(m, first, num);
	if (type == VIRTIO_MEM_REQ_STATE)
		*ret_state = state_of(plugged, num);
	else if (plugged != (type == VIRTIO_MEM_REQ_PLUG ? 0 : num))
		r = VIRTIO_MEM_RESP_ERROR;
	else if (type == VIRTIO_MEM_REQ_UNPLUG)
		unplug(m, first, num);
	else
		for (uint32_t i = 0; i < num; i++)
			set_plugged(m, first + i, true);
	return r;
}

static int handle(struct virtio_device *dev, unsigned queue, struct virtq_chain *chain)
{
	struct memory *m = (struct memory *)dev;
	struct virtio_mem_resp resp = {0};
	struct virtio_mem_req req;
	uint16_t state = 0;

	if (chain->len_write < sizeof(resp) || virtq_chain_read(chain, 0, &req, sizeof(req)) < 0)
		return -EPROTO;
	resp.type = htole16(answer(m, &req, &state));
	resp.u.state.state = htole16(state);
	return virtq_chain_write(chain, 0, &resp, sizeof(resp)) < 0 ? 0 : (int)sizeof(resp);
}

static void notify(struct virtio_device *dev, unsigned queue)
{
	virtio_device_drain(dev, queue, &((struct memory *)dev)->chain, handle);
}

/* What is plugged stays so: a driver that comes anew asks for that to end first. */
static void reset(struct virtio_device *dev)
{
}

static void config_read(struct virtio_device *dev, uint32_t off, void *p, uint32_t len)
{
	struct memory *m = (struct memory *)dev;
	struct virtio_mem_config config = {
		.block_size = htole64(BLOCK),
		.addr = htole64(m->gpa),
		.region_size = htole64(m->region_size),
		.usable_region_size = htole64(usable_size(m)),
		.plugged_size = htole64(m->plugged * BLOCK),
		.requested_size = htole64(m->blocks * BLOCK),
	};

	virtio_config_copy(p, off, len, &config, sizeof(config));
}

static size_t map_size(const struct memory *m)
{
	return (m->blocks + 7U) / 8;
}

static int save(struct virtio_device *dev, struct buf *out)
{
	struct memory *m = (struct memory *)dev;

	buf_put_u64(out, m->gpa);
	buf_put_u64(out, m->region_size);
	buf_put_u32(out, m->blocks);
	return buf_put(out, m->map, map_size(m));
}

static int load_map(struct memory *m, struct cursor *in)
{
	const uint8_t *map = cursor_take(in, map_size(m));

	if (!map)
		return -EPROTO;
	for (uint32_t i = 0; i < map_size(m) * 8; i++) {
		bool plugged = map[i / 8] >> (i % 8) & 1;

		if (plugged && i >= m->blocks)
			return -EPROTO;
		if (i < m->blocks && plugged != is_plugged(m, i))
			set_plugged(m, i, plugged);
	}
	return 0;
}

/* The driver has seen where the region is. */
static int load(struct virtio_device *dev, struct cursor *in)
{
	struct memory *m = (struct memory *)dev;
	uint64_t gpa = cursor_u64(in), size = cursor_u64(in);
	uint32_t blocks = cursor_u32(in);

	if (in->bad)
		return -EPROTO;
	if (gpa != m->gpa || size != m->region_size || (blocks && blocks != m->blocks))
		return -ENOTSUP;
	dev->config_changed = blocks != m->blocks;
	return blocks ? load_map(m, in) : 0;
}

static void memory_free(struct virtio_device *dev)
{
	free(dev);
}

static const struct virtio_device_ops ops = {
	.notify = notify,
	.reset = reset,
	.config_read = config_read,
	.save = save,
	.load = load,
	.free = memory_free,
};

int virtio_mem_new(struct mem *mem, struct loop *loop, const struct virtio_mem_options *options,
		   struct virtio_device **ret)
{
	const struct virtio_mem_options *o = options;
	struct memory *m;

	if ((o->gpa | o->region_size | o->backed) % BLOCK || !o->region_size ||
	    o->region_size > VIRTIO_MEM_REGION_MAX || o->backed > o->region_size)
		return -EINVAL;
	m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	m->release = o->release ? o->release : release_default;
	m->arg = o->arg;
	m->gpa = o->gpa;
	m->region_size = o->region_size;
	m->blocks = (uint32_t)(o->backed / BLOCK);
	m->dev = (struct virtio_device){
		.ops = &ops,
		.name = o->name,
		.id = VIRTIO_ID_MEM_,
		/* The driver then never looks at what is not plugged. */
		.offered = VIRTIO_DEVICE_FEATURES | 1ULL << VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE,
		.config_size = sizeof(struct virtio_mem_config),
		.num_queues = 1,
		.queue_size_max = 16,
		.mem = mem,
		.loop = loop,
	};
	*ret = &m->dev;
	return 0;
}

uint64_t virtio_mem_plugged(const struct virtio_device *dev)
{
	return ((const struct memory *)dev)->plugged * BLOCK;
}

const int virtio_mem_syscalls[] = {SYS_madvise, -1};
