/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon backend's connection. See daemon_conn.h. */
#include "fuse/daemon_conn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"

#define RETRY_NS 100000000u
#define HELLO_S 10

/* ------------------------------------------------------------------------------------------ connections */

void daemon_conn_free(struct daemon_conn *c)
{
	if (!c)
		return;
	for (unsigned i = 0; i < c->num_lanes; i++) {
		if (c->lanes[i].mem)
			munmap(c->lanes[i].mem, SHARE_BULK);
		fd_close(c->lanes[i].sock);
	}
	fd_close(c->sock);
	free(c);
}

/* The lane's memory, if nobody can take it away again. */
static uint8_t *map_lane(int memfd)
{
	int seals = fcntl(memfd, F_GET_SEALS);
	uint8_t *mem;

	if (seals < 0 || !(seals & F_SEAL_SHRINK) || lseek(memfd, 0, SEEK_END) != SHARE_BULK)
		return NULL;
	mem = mmap(NULL, SHARE_BULK, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	return mem == MAP_FAILED ? NULL : mem;
}

/* Reads the welcome; the lanes' descriptors are taken. */
static int read_welcome(struct daemon_conn *c)
{
	uint8_t bytes[SHARE_WELCOME];
	struct cursor in = cursor_of(bytes, sizeof(bytes));
	int fds[2 * SHARE_MAX_LANES];
	size_t num_fds = ARRAY_SIZE(fds);
	ssize_t n = fd_recv(c->sock, bytes, sizeof(bytes), fds, &num_fds);
	uint32_t magic = cursor_u32(&in), version = cursor_u32(&in), lanes = cursor_u32(&in);
	int r = n < 0 ? (int)n : n == 0 ? -ECONNREFUSED : 0;

	cursor_u32(&in);
	c->ops = cursor_u64(&in);
	if (r == 0 && (n != sizeof(bytes) || magic != SHARE_MAGIC || version != SHARE_VERSION || !lanes ||
		       lanes > SHARE_MAX_LANES || num_fds != 2 * lanes))
		r = -EPROTO;
	for (size_t i = 0; i < num_fds; i += 2) {
		struct daemon_lane *lane = &c->lanes[c->num_lanes];
		int memfd = i + 1 < num_fds ? fds[i + 1] : -1;

		if (r < 0) {
			fd_close(fds[i]);
		} else {
			lane->sock = fds[i];
			lane->mem = map_lane(memfd);
			c->num_lanes++;
			if (!lane->mem)
				r = -EPROTO;
		}
		fd_close(memfd);
	}
	return r;
}

int daemon_conn_open(int sock, unsigned lanes, struct daemon_conn **ret, struct sm_error *err)
{
	struct daemon_conn *c = calloc(1, sizeof(*c));
	struct timeval limit = {.tv_sec = HELLO_S};
	struct buf b = {0};
	int r;

	if (!c) {
		fd_close(sock);
		return error_sys(err, ENOMEM, "file server");
	}
	c->sock = sock;
	buf_put_u32(&b, SHARE_MAGIC);
	buf_put_u32(&b, SHARE_VERSION);
	buf_put_u32(&b, lanes);
	buf_put_u32(&b, 0);
	setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	r = b.error ? b.error : fd_send(sock, b.data, b.len, NULL, 0);
	if (r == 0)
		r = read_welcome(c);
	buf_done(&b);
	if (r < 0) {
		daemon_conn_free(c);
		return r == -EPROTO ? error_set(err, SM_ERROR_CORRUPT, EPROTO, "file server: it speaks otherwise")
				    : error_sys(err, -r, "file server");
	}
	*ret = c;
	return 0;
}

/* ------------------------------------------------------------------------------------------------ lanes */

static void let_go_locked(struct daemon *d, struct daemon_conn *c)
{
	if (!--c->users && c != d->conn)
		daemon_conn_free(c);
}

/* Nobody begins anything on it any more; who waits for an answer gets none. */
static void give_up_locked(struct daemon *d, struct daemon_conn *c)
{
	if (c->dead)
		return;
	c->dead = true;
	shutdown(c->sock, SHUT_RDWR);
	for (unsigned i = 0; i < c->num_lanes; i++)
		shutdown(c->lanes[i].sock, SHUT_RDWR);
	pthread_cond_broadcast(&d->free);
}

/* Tries for a server in place of the one that is gone. The lock is held meanwhile: nobody else can do anything. */
static int reconnect_locked(struct daemon *d)
{
	struct daemon_conn *fresh;
	int sock;

	if (!d->connect || time_now_ns() < d->retry_at)
		return -ENOTCONN;
	sock = d->connect(d->arg, NULL);
	if (sock < 0 || daemon_conn_open(sock, d->lanes, &fresh, NULL) < 0) {
		d->retry_at = time_now_ns() + RETRY_NS;
		return -ENOTCONN;
	}
	fresh->epoch = (++d->epochs % 255 + 1) << DAEMON_EPOCH_SHIFT;
	if (d->conn && !d->conn->users)
		daemon_conn_free(d->conn);
	d->conn = fresh;
	return 0;
}

/* Its server has ended: seen before anything is sent, so that nobody gets an error when another one is there already.
 */
static bool has_ended(const struct daemon_conn *c)
{
	struct pollfd p = {.fd = c->sock, .events = POLLRDHUP};

	return poll(&p, 1, 0) > 0;
}

/* A lane of the connection as it is now. */
static int take_lane_locked(struct daemon *d, struct daemon_call *call)
{
	for (;;) {
		struct daemon_conn *c = d->conn;
		int r;

		if (c && !c->dead && has_ended(c))
			give_up_locked(d, c);
		r = !c || c->dead ? reconnect_locked(d) : 0;
		if (r < 0)
			return r;
		c = d->conn;
		for (unsigned i = 0; i < c->num_lanes; i++) {
			if (c->lanes[i].busy)
				continue;
			c->lanes[i].busy = true;
			c->users++;
			call->conn = c;
			call->lane = &c->lanes[i];
			return 0;
		}
		pthread_cond_wait(&d->free, &d->lock);
	}
}

static void put_lane_locked(struct daemon *d, struct daemon_call *call)
{
	call->lane->busy = false;
	let_go_locked(d, call->conn);
	pthread_cond_signal(&d->free);
}

/* -------------------------------------------------------------------------------------------- requests */

int daemon_call_node(struct daemon_call *call, uint64_t nodeid, uint64_t *ret)
{
	if (nodeid != SM_FS_ROOT && (nodeid & ~DAEMON_ID_MASK) != call->conn->epoch)
		return -ESTALE;
	*ret = nodeid & DAEMON_ID_MASK;
	return 0;
}

int daemon_call_begin(struct daemon_call *call, struct sm_fs_backend *be, enum share_op op,
		      const struct sm_fs_caller *who, uint64_t nodeid, uint64_t fh, uint32_t bulk)
{
	struct share_request rq = {.op = op, .bulk = bulk, .fh = fh};
	struct daemon *d = (struct daemon *)be;
	int r;

	call->d = d;
	call->out = (struct buf){0};
	call->fd = -1;
	if (who)
		rq.who = *who;
	pthread_mutex_lock(&d->lock);
	r = take_lane_locked(d, call);
	if (r == 0) {
		r = daemon_call_node(call, nodeid, &rq.nodeid);
		if (r < 0)
			put_lane_locked(d, call);
	}
	pthread_mutex_unlock(&d->lock);
	if (r == 0)
		share_put_request(&call->out, &rq);
	return r;
}

int daemon_call_break(struct daemon_call *call)
{
	pthread_mutex_lock(&call->d->lock);
	give_up_locked(call->d, call->conn);
	pthread_mutex_unlock(&call->d->lock);
	return -EIO;
}

int64_t daemon_call_run(struct daemon_call *call)
{
	size_t num_fds = 1;
	int64_t result;
	ssize_t n;

	if (call->out.error)
		return call->out.error;
	if (call->out.len > SHARE_PACKET)
		return -ENAMETOOLONG;
	n = fd_send(call->lane->sock, call->out.data, call->out.len, &call->fd, call->fd >= 0);
	call->fd = -1; /* it was the caller's to lend */
	if (n < 0)
		return daemon_call_break(call);
	n = fd_recv(call->lane->sock, call->packet, sizeof(call->packet), &call->fd, &num_fds);
	if (!num_fds)
		call->fd = -1;
	if (n <= 0)
		return daemon_call_break(call);
	call->in = cursor_of(call->packet, (size_t)n);
	result = (int64_t)cursor_u64(&call->in);
	call->bulk = cursor_u32(&call->in);
	if (call->in.bad || call->bulk > SHARE_BULK || result < -4095)
		return daemon_call_break(call);
	return result;
}

void daemon_call_end(struct daemon_call *call)
{
	fd_close(call->fd);
	buf_done(&call->out);
	pthread_mutex_lock(&call->d->lock);
	put_lane_locked(call->d, call);
	pthread_mutex_unlock(&call->d->lock);
}
