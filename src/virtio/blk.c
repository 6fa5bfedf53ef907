/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-blk: requests and the queue. See blk.h. A request is checked and copied out of the ring here, goes through an
 * engine (blk_worker.c, blk_uring.c) as a struct blk_request, and comes back to request_done() in the event loop.
 *
 * A reset, a snapshot and the end wait for what is in flight: afterwards nothing of ours touches guest memory.
 */
#include "virtio/blk.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_blk.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "virtio/blk_internal.h"

#define SECTOR 512U
#define QUEUE_SIZE 256
#define MAX_DISCARD_SECTORS (4U << 20)	    /* 2 GiB: one call */
#define MAX_WRITE_ZEROES_SECTORS (1U << 17) /* 64 MiB: may have to be written */
#define REPLACEABLE (1ULL << 63)	    /* with the capacity that is saved */

struct blk {
	struct virtio_device dev;
	struct blk_chain *chain; /* owned; NULL: idle */
	struct blk_worker *worker;
	struct blk_uring *uring; /* NULL: plain */
	char serial[VIRTIO_BLK_ID_BYTES];
	struct virtio_blk_config config;
	void (*failed)(void *arg, int error);
	void *arg;
	bool dropping; /* what completes now is not told to the guest */
	bool replaceable;
	struct virtio_blk_stats stats;
	struct virtq_chain scratch;
};

static uint8_t status_of(int result)
{
	if (result == -ENOTSUP)
		return VIRTIO_BLK_S_UNSUPP;
	return result < 0 ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK;
}

static void count(struct blk *blk, const struct blk_request *req)
{
	blk->stats.errors += req->result < 0;
	switch (req->op) {
	case BLK_READ:
		blk->stats.reads++;
		blk->stats.bytes_read += req->len;
		return;
	case BLK_WRITE:
		blk->stats.writes++;
		blk->stats.bytes_written += req->len;
		return;
	case BLK_FLUSH:
		blk->stats.flushes++;
		return;
	default:
		blk->stats.discards++;
		return;
	}
}

static void request_done(void *arg, struct blk_request *req)
{
	struct blk *blk = arg;
	uint8_t status = status_of(req->result);
	uint32_t written = 1 + (req->op == BLK_READ && !req->result ? (uint32_t)req->len : 0);

	if (req->result == BLK_REDO) {
		blk_worker_submit(blk->worker, req);
		return;
	}
	count(blk, req);
	if (!blk->dropping) {
		/* A status byte in a window that is gone: the guest reads what it gets there. */
		if (virtq_iov_write(&req->status, 1, 0, &status, sizeof(status), req->windows) < 0)
			written = 0;
		virtq_push(&blk->dev.queues[0], req->head, written);
	}
	/* EFAULT: the guest's own buffer is gone, the disk is as good as ever. */
	if (req->result < 0 && req->result != -EFAULT && blk->failed && !blk->dropping)
		blk->failed(blk->arg, -req->result);
	free(req);
}

static void batch_done(void *arg)
{
	struct blk *blk = arg;

	if (blk->dev.active && !blk->dev.broken)
		virtio_device_signal(&blk->dev, 0);
}

/* Waits for all that is in flight; its results are told to the guest unless `drop`. */
static void drain(struct blk *blk, bool drop)
{
	blk->dropping = drop;
	if (blk->uring)
		blk_uring_drain(blk->uring);
	if (blk->worker)
		blk_worker_drain(blk->worker);
	blk->dropping = false;
}

/* ---- requests ---- */

/* The answer to a request that needs no engine: the status byte after `len` bytes of ours. */
static int answer(const struct virtq_chain *chain, const void *p, size_t len, uint8_t status)
{
	if (len && virtq_chain_write(chain, 0, p, len) < 0)
		return 0;
	if (virtq_chain_write(chain, chain->len_write - 1, &status, sizeof(status)) < 0)
		return 0;
	return (int)len + 1;
}

static int get_id(struct blk *blk, const struct virtq_chain *chain)
{
	return answer(chain, blk->serial, MIN(sizeof(blk->serial), chain->len_write - 1), VIRTIO_BLK_S_OK);
}

static bool sectors_good(const struct blk *blk, uint64_t sector, uint64_t num)
{
	return num && range_inside(sector, num, blk_chain_size(blk->chain) / SECTOR);
}

/* Data to read or write: `len` bytes of the chain at `at` in the given part. */
static int add_data(struct blk *blk, struct blk_request *req, uint64_t sector, const struct iovec *iov, unsigned n,
		    uint64_t at, uint64_t len)
{
	int used;

	if (len % SECTOR || !sectors_good(blk, sector, len / SECTOR))
		return -EIO;
	used = virtq_iov_slice(iov, n, at, len, req->iov, n);
	if (used < 0)
		return -EIO;
	req->num_iov = (unsigned)used;
	req->off = sector * SECTOR;
	req->len = len;
	return 0;
}

/* Ranges to discard or zero (section 5.2.6.1). */
static int add_segments(struct blk *blk, struct blk_request *req, const struct virtq_chain *chain)
{
	uint64_t len = chain->len_read - sizeof(struct virtio_blk_outhdr);
	uint32_t most = req->op == BLK_DISCARD ? MAX_DISCARD_SECTORS : MAX_WRITE_ZEROES_SECTORS;
	struct virtio_blk_discard_write_zeroes s;

	if (!len || len % sizeof(s) || len / sizeof(s) > BLK_MAX_SEGMENTS)
		return -EIO;
	req->num_segments = (unsigned)(len / sizeof(s));
	for (unsigned i = 0; i < req->num_segments; i++) {
		uint32_t flags, num;

		if (virtq_chain_read(chain, sizeof(struct virtio_blk_outhdr) + i * sizeof(s), &s, sizeof(s)) < 0)
			return -EIO;
		flags = le32toh(s.flags);
		num = le32toh(s.num_sectors);
		if ((flags & ~VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP) || (flags && req->op == BLK_DISCARD))
			return -ENOTSUP;
		if (num > most || !sectors_good(blk, le64toh(s.sector), num))
			return -EIO;
		req->segments[i] = (struct blk_segment){
			.off = le64toh(s.sector) * SECTOR, .len = (uint64_t)num * SECTOR, .unmap = flags != 0};
	}
	return 0;
}

/* Fills a request from its header and chain; 0, -EIO, -ENOTSUP. */
static int fill_request(struct blk *blk, struct blk_request *req, const struct virtio_blk_outhdr *hdr,
			const struct virtq_chain *chain)
{
	uint64_t sector = le64toh(hdr->sector);
	uint32_t type = le32toh(hdr->type);

	if (!blk->chain)
		return -EIO;
	if (type != VIRTIO_BLK_T_IN && type != VIRTIO_BLK_T_FLUSH && blk_chain_read_only(blk->chain))
		return -EIO;
	switch (type) {
	case VIRTIO_BLK_T_IN:
		req->op = BLK_READ;
		return add_data(blk, req, sector, chain->write, chain->num_write, 0, chain->len_write - 1);
	case VIRTIO_BLK_T_OUT:
		req->op = BLK_WRITE;
		return add_data(blk, req, sector, chain->read, chain->num_read, sizeof(*hdr),
				chain->len_read - sizeof(*hdr));
	case VIRTIO_BLK_T_FLUSH:
		req->op = BLK_FLUSH;
		return 0;
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		req->op = type == VIRTIO_BLK_T_DISCARD ? BLK_DISCARD : BLK_WRITE_ZEROES;
		return add_segments(blk, req, chain);
	default:
		return -ENOTSUP;
	}
}

static int handle(struct virtio_device *dev, unsigned queue, struct virtq_chain *chain)
{
	struct blk *blk = (struct blk *)dev;
	struct virtio_blk_outhdr hdr;
	struct blk_request *req;
	int r;

	r = chain->len_write ? virtq_chain_read(chain, 0, &hdr, sizeof(hdr)) : -EPROTO;
	if (r < 0) /* a header in a window that is gone costs this request alone */
		return r == -EFAULT ? answer(chain, NULL, 0, VIRTIO_BLK_S_IOERR) : r;
	if (le32toh(hdr.type) == VIRTIO_BLK_T_GET_ID)
		return get_id(blk, chain);
	req = calloc(1, sizeof(*req) + MAX(chain->num_read, chain->num_write) * sizeof(req->iov[0]));
	if (!req)
		return answer(chain, NULL, 0, VIRTIO_BLK_S_IOERR);
	req->head = chain->head;
	req->windows = chain->windows;
	r = fill_request(blk, req, &hdr, chain);
	if (r == 0 && virtq_iov_slice(chain->write, chain->num_write, chain->len_write - 1, 1, &req->status, 1) != 1)
		r = -EIO;
	if (r < 0) {
		blk->stats.errors++;
		free(req);
		return answer(chain, NULL, 0, status_of(r));
	}
	if (!blk->uring || !blk_uring_submit(blk->uring, req))
		blk_worker_submit(blk->worker, req);
	return -EINPROGRESS;
}

/* ---- the device ---- */

static void notify(struct virtio_device *dev, unsigned queue)
{
	struct blk *blk = (struct blk *)dev;

	virtio_device_drain(dev, queue, &blk->scratch, handle);
	if (!blk->uring)
		return;
	if (blk_uring_kick(blk->uring) < 0 && dev->irq.again)
		dev->irq.again(dev->irq.arg, queue);
	batch_done(blk);
}

static void reset(struct virtio_device *dev)
{
	drain((struct blk *)dev, true);
}

static void config_read(struct virtio_device *dev, uint32_t off, void *p, uint32_t len)
{
	struct blk *blk = (struct blk *)dev;

	virtio_config_copy(p, off, len, &blk->config, sizeof(blk->config));
}

/* Nothing is in flight in a snapshot. */
static int save(struct virtio_device *dev, struct buf *out)
{
	struct blk *blk = (struct blk *)dev;

	drain(blk, false);
	batch_done(blk);
	return buf_put_u64(out, le64toh(blk->config.capacity) | (blk->replaceable ? REPLACEABLE : 0));
}

/* A disk is restored onto one of the same size; an idle one, and one that is replaceable, onto any, and the driver is
 * told the new size. */
static int load(struct virtio_device *dev, struct cursor *in)
{
	struct blk *blk = (struct blk *)dev;
	uint64_t saved = cursor_u64(in), was = saved & ~REPLACEABLE, is = le64toh(blk->config.capacity);

	if (was && was != is && was == saved)
		return -ENOTSUP;
	dev->config_changed = was != is;
	return 0;
}

static void blk_free(struct virtio_device *dev)
{
	struct blk *blk = (struct blk *)dev;

	drain(blk, true);
	blk_uring_free(blk->uring);
	blk_worker_free(blk->worker);
	blk_chain_free(blk->chain);
	free(blk);
}

static const struct virtio_device_ops ops = {
	.notify = notify,
	.reset = reset,
	.config_read = config_read,
	.save = save,
	.load = load,
	.free = blk_free,
};

static void fill_config(struct blk *blk)
{
	struct virtio_blk_config *c = &blk->config;

	c->capacity = htole64(blk->chain ? blk_chain_size(blk->chain) / SECTOR : 0);
	c->seg_max = htole32(QUEUE_SIZE - 2); /* header and status take two descriptors */
	c->blk_size = htole32(SECTOR);
	c->physical_block_exp = 3; /* 4 KiB: less than a block has to be merged */
	c->min_io_size = htole16(BLK_BLOCK / SECTOR);
	c->max_discard_sectors = htole32(MAX_DISCARD_SECTORS);
	c->max_discard_seg = htole32(BLK_MAX_SEGMENTS);
	c->discard_sector_alignment = htole32(BLK_BLOCK / SECTOR);
	c->max_write_zeroes_sectors = htole32(MAX_WRITE_ZEROES_SECTORS);
	c->max_write_zeroes_seg = htole32(BLK_MAX_SEGMENTS);
	c->write_zeroes_may_unmap = 1;
}

static int start_engines(struct blk *blk, struct loop *loop, const struct virtio_blk_options *o, struct sm_error *err)
{
	struct blk_worker_options wo = {
		.done = request_done, .batch = batch_done, .arg = blk, .thread = o->thread, .thread_arg = o->arg};
	enum virtio_blk_engine engine = o->engine;
	int r = blk_worker_new(blk->chain, loop, &wo, &blk->worker);

	if (r < 0)
		return error_sys(err, -r, "%s: start its thread", blk->dev.name);
	if (engine == VIRTIO_BLK_PLAIN)
		return 0;
	r = blk_uring_new(blk->chain, loop, request_done, batch_done, blk, &blk->uring);
	if (r < 0 && engine == VIRTIO_BLK_URING)
		return error_sys(err, -r, "%s: io_uring", blk->dev.name);
	return 0;
}

int virtio_blk_new(struct mem *mem, struct loop *loop, const struct virtio_blk_options *options,
		   struct virtio_device **ret, struct sm_error *err)
{
	struct blk *blk = calloc(1, sizeof(*blk));
	uint64_t features = VIRTIO_DEVICE_FEATURES | 1ULL << VIRTIO_BLK_F_SEG_MAX | 1ULL << VIRTIO_BLK_F_BLK_SIZE |
			    1ULL << VIRTIO_BLK_F_TOPOLOGY | 1ULL << VIRTIO_BLK_F_FLUSH;
	int r = 0;

	if (!blk)
		return error_sys(err, ENOMEM, "%s", options->name);
	if (options->chain ? blk_chain_read_only(options->chain) : options->read_only)
		features |= 1ULL << VIRTIO_BLK_F_RO;
	else
		features |= 1ULL << VIRTIO_BLK_F_DISCARD | 1ULL << VIRTIO_BLK_F_WRITE_ZEROES;
	blk->failed = options->failed;
	blk->arg = options->arg;
	blk->replaceable = options->replaceable;
	if (options->serial)
		memcpy(blk->serial, options->serial, strnlen(options->serial, sizeof(blk->serial)));
	blk->dev = (struct virtio_device){
		.ops = &ops,
		.name = options->name,
		.id = VIRTIO_ID_BLK_,
		.offered = features,
		.config_size = offsetof(struct virtio_blk_config, max_secure_erase_sectors),
		.num_queues = 1,
		.queue_size_max = QUEUE_SIZE,
		.mem = mem,
		.loop = loop,
	};
	blk->chain = options->chain;
	fill_config(blk);
	if (blk->chain)
		r = start_engines(blk, loop, options, err);
	if (r < 0) {
		blk->chain = NULL; /* still the caller's */
		blk_free(&blk->dev);
		return r;
	}
	*ret = &blk->dev;
	return 0;
}

int virtio_blk_push(struct virtio_device *dev, int fd, struct sm_error *err)
{
	struct blk *blk = (struct blk *)dev;

	drain(blk, false);
	batch_done(blk);
	return blk_chain_push(blk->chain, fd, err);
}

int virtio_blk_renew(struct virtio_device *dev)
{
	return blk_chain_renew(((struct blk *)dev)->chain);
}

void virtio_blk_stats(struct virtio_device *dev, struct virtio_blk_stats *ret)
{
	struct blk *blk = (struct blk *)dev;

	*ret = blk->stats;
	ret->uring = blk->uring != NULL;
}

const int virtio_blk_syscalls[] = {SYS_io_uring_enter, SYS_futex, SYS_read,  SYS_write, SYS_mmap,
				   SYS_munmap,	       SYS_brk,	  SYS_close, -1};
const int virtio_blk_worker_syscalls[] = {SYS_preadv,	 SYS_pwritev, SYS_pread64,   SYS_pwrite64,	 SYS_futex,
					  SYS_fdatasync, SYS_write,   SYS_fallocate, SYS_mmap,		 SYS_munmap,
					  SYS_brk,	 SYS_madvise, SYS_exit,	     SYS_rt_sigprocmask, -1};
