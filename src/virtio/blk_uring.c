/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The io_uring engine: reads, writes and flushes without a thread of ours. Requests of a batch go to the kernel in one
 * call, and what the page cache can answer is done when that call returns. The ring is set up by the constructor;
 * afterwards only io_uring_enter is called. Whatever is not simple (merging, discards, short transfers) goes to the
 * worker.
 *
 * A write of blocks that are new to the top takes two steps: the data, then the bitmap's bytes straight from the live
 * bitmap. Two such writes may overtake each other without harm: whichever the kernel does last copies bytes that hold
 * the bits of both.
 */
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "base/util.h"
#include "virtio/blk_internal.h"
#include "virtio/queue.h"

#define ENTRIES 256

/* What a completion is for: the request, and in the low bits which of its parts. Requests are aligned to 16 by malloc.
 */
_Static_assert(BLK_MAX_EXTENTS <= 16, "an extent's number fits the low bits of a request's address");

struct blk_uring {
	struct io_uring ring;
	struct blk_chain *chain;
	blk_done_fn done;
	void (*batch)(void *arg);
	void *arg;
	struct loop_source *source;
	unsigned in_flight; /* entries that the kernel has, or will have */
};

static struct io_uring_sqe *get_sqe(struct blk_uring *u, struct blk_request *req)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);

	if (!sqe && io_uring_submit(&u->ring) > 0)
		sqe = io_uring_get_sqe(&u->ring);
	if (!sqe)
		return NULL;
	u->in_flight++;
	req->waiting++;
	return sqe;
}

static void *tag(struct blk_request *req, unsigned part)
{
	return (char *)req + part;
}

static bool submit_read(struct blk_uring *u, struct blk_request *req)
{
	struct blk_extent e[BLK_MAX_EXTENTS];
	int n = blk_chain_map_read(u->chain, req->off, req->len, e, BLK_MAX_EXTENTS);
	struct iovec *slices;
	uint64_t at = 0;
	unsigned used = 0, room;

	/* All parts or none: there must be room for them all. */
	if (n <= 0 || (io_uring_sq_space_left(&u->ring) < (unsigned)n &&
		       (io_uring_submit(&u->ring) < 0 || io_uring_sq_space_left(&u->ring) < (unsigned)n)))
		return false;
	room = req->num_iov + (unsigned)n;
	slices = req->iov;
	if (n > 1) {
		slices = req->slices = calloc(room, sizeof(*slices));
		if (!slices)
			return false;
	}
	for (int i = 0; i < n; i++) {
		int parts = n > 1 ? virtq_iov_slice(req->iov, req->num_iov, at, e[i].len, slices + used, room - used)
				  : (int)req->num_iov;
		struct io_uring_sqe *sqe = get_sqe(u, req);

		io_uring_prep_readv(sqe, e[i].fd, slices + used, (unsigned)parts, e[i].off);
		io_uring_sqe_set_data(sqe, tag(req, (unsigned)i));
		req->expect[i] = e[i].len;
		at += e[i].len;
		used += (unsigned)parts;
	}
	return true;
}

static bool submit_write(struct blk_uring *u, struct blk_request *req)
{
	struct blk_extent e;
	struct io_uring_sqe *sqe;

	if (blk_chain_map_write(u->chain, req->off, req->len, &e, &req->new_blocks) <= 0)
		return false;
	sqe = get_sqe(u, req);
	if (!sqe)
		return false;
	io_uring_prep_writev(sqe, e.fd, req->iov, req->num_iov, e.off);
	io_uring_sqe_set_data(sqe, tag(req, 0));
	req->expect[0] = req->len;
	return true;
}

static bool submit_flush(struct blk_uring *u, struct blk_request *req)
{
	int fd = blk_chain_sync_fd(u->chain);
	struct io_uring_sqe *sqe = fd < 0 ? NULL : get_sqe(u, req);

	if (!sqe)
		return false;
	io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
	io_uring_sqe_set_data(sqe, tag(req, 0));
	req->expect[0] = 0;
	return true;
}

bool blk_uring_submit(struct blk_uring *u, struct blk_request *req)
{
	req->result = 0;
	switch (req->op) {
	case BLK_READ:
		return submit_read(u, req);
	case BLK_WRITE:
		return submit_write(u, req);
	case BLK_FLUSH:
		return submit_flush(u, req);
	default:
		return false;
	}
}

/* The second step of a write: the bitmap. False: the worker must do it all once more. */
static bool submit_bitmap(struct blk_uring *u, struct blk_request *req)
{
	struct blk_extent where;
	const void *bytes = blk_chain_mark(u->chain, req->off, req->len, &where);
	struct io_uring_sqe *sqe = get_sqe(u, req);

	if (!sqe) {
		blk_chain_unsaved(u->chain);
		return false;
	}
	req->marked = true;
	io_uring_prep_write(sqe, where.fd, bytes, (unsigned)where.len, where.off);
	io_uring_sqe_set_data(sqe, tag(req, 0));
	req->expect[0] = where.len;
	return true;
}

/* Judges one completion: 0, BLK_REDO or -errno. */
static int judge(const struct blk_request *req, unsigned part, int res)
{
	if (res == -EAGAIN || res == -EINTR || res == -ECANCELED || res == -EOPNOTSUPP || res == -EINVAL)
		return BLK_REDO;
	if (res < 0)
		return res;
	return (uint64_t)res == req->expect[part] ? 0 : BLK_REDO;
}

static void complete(struct blk_uring *u, void *data, int res)
{
	unsigned part = (unsigned)((uintptr_t)data % 16);
	struct blk_request *req = (struct blk_request *)(void *)((char *)data - part);
	int r = judge(req, part, res);

	u->in_flight--;
	req->waiting--;
	if (r < 0 && req->result != BLK_REDO)
		req->result = r;
	if (req->waiting)
		return;
	if (req->marked && req->result < 0)
		blk_chain_unsaved(u->chain);
	if (!req->result && req->op == BLK_WRITE && req->new_blocks && !req->marked) {
		if (submit_bitmap(u, req))
			return;
		req->result = BLK_REDO;
	}
	free(req->slices);
	req->slices = NULL;
	u->done(u->arg, req);
}

static unsigned reap(struct blk_uring *u)
{
	struct io_uring_cqe *cqe;
	unsigned n = 0;

	while (io_uring_peek_cqe(&u->ring, &cqe) == 0) {
		void *data = io_uring_cqe_get_data(cqe);
		int res = cqe->res;

		io_uring_cqe_seen(&u->ring, cqe);
		complete(u, data, res);
		n++;
	}
	return n;
}

int blk_uring_kick(struct blk_uring *u)
{
	/* A completion may queue a further step: go on until nothing is queued and nothing is done. */
	do {
		int r = io_uring_sq_ready(&u->ring) ? io_uring_submit(&u->ring) : 0;

		if (r < 0 && r != -EINTR && !reap(u))
			return -EAGAIN;
	} while (reap(u) || io_uring_sq_ready(&u->ring));
	return 0;
}

static void on_event(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct blk_uring *u = arg;

	(void)blk_uring_kick(u); /* what could not be told stays queued, and the next kick tells it */
	u->batch(u->arg);
}

void blk_uring_drain(struct blk_uring *u)
{
	while (u->in_flight) {
		(void)blk_uring_kick(u);
		if (u->in_flight)
			(void)io_uring_submit_and_wait(&u->ring, 1);
	}
}

/* Everything we use, and no completion ever lost: 5.5 and later. */
static bool supported(struct io_uring *ring, const struct io_uring_params *params)
{
	static const int ops[] = {IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_WRITE, IORING_OP_FSYNC};
	unsigned features = IORING_FEAT_NODROP | IORING_FEAT_SUBMIT_STABLE;
	struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
	bool good = probe && (params->features & features) == features;

	for (size_t i = 0; good && i < ARRAY_SIZE(ops); i++)
		good = io_uring_opcode_supported(probe, ops[i]);
	io_uring_free_probe(probe);
	return good;
}

int blk_uring_new(struct blk_chain *chain, struct loop *loop, blk_done_fn done, void (*batch)(void *arg), void *arg,
		  struct blk_uring **ret)
{
	struct io_uring_params params = {0};
	struct blk_uring *u = calloc(1, sizeof(*u));
	int r;

	if (!u)
		return -ENOMEM;
	r = io_uring_queue_init_params(ENTRIES, &u->ring, &params);
	if (r < 0) {
		free(u);
		return r;
	}
	u->chain = chain;
	u->done = done;
	u->batch = batch;
	u->arg = arg;
	r = supported(&u->ring, &params) ? loop_add(loop, u->ring.ring_fd, EPOLLIN, on_event, u, &u->source)
					 : -EOPNOTSUPP;
	if (r < 0) {
		io_uring_queue_exit(&u->ring);
		free(u);
		return r;
	}
	*ret = u;
	return 0;
}

struct blk_uring *blk_uring_free(struct blk_uring *u)
{
	if (!u)
		return NULL;
	loop_remove(u->source);
	io_uring_queue_exit(&u->ring);
	free(u);
	return NULL;
}
