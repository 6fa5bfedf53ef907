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
#define DYING_TRIES 50 /* at a server that takes connections and drops them */
#define DYING_MS 20
#define HELLO_MS 30000 /* others may carry it, in a machine that is busy */

/* ------------------------------------------------------------------------------------------ connections */

/* Nobody can shrink it under the other's feet. */
static int open_memory(struct daemon_lane *lane)
{
	lane->memfd = memfd_create("lane", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (lane->memfd < 0 || ftruncate(lane->memfd, SHARE_BULK) < 0 ||
	    fcntl(lane->memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	lane->mem = mmap(NULL, SHARE_BULK, PROT_READ | PROT_WRITE, MAP_SHARED, lane->memfd, 0);
	if (lane->mem != MAP_FAILED)
		return 0;
	lane->mem = NULL;
	return -errno;
}

int daemon_lanes_init(struct daemon *d, unsigned lanes)
{
	int r = 0;

	for (; d->num_lanes < lanes && r == 0; d->num_lanes++)
		r = open_memory(&d->lanes[d->num_lanes]);
	return r;
}

void daemon_lanes_done(struct daemon *d)
{
	for (unsigned i = 0; i < d->num_lanes; i++) {
		if (d->lanes[i].mem)
			munmap(d->lanes[i].mem, SHARE_BULK);
		fd_close(d->lanes[i].memfd);
	}
	d->num_lanes = 0;
}

void daemon_conn_free(struct daemon_conn *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(c->lanes); i++)
		fd_close(c->lanes[i]);
	fd_close(c->sock);
	pthread_cond_destroy(&c->arrived);
	pthread_mutex_destroy(&c->receiving);
	pthread_mutex_destroy(&c->sending);
	free(c);
}

static struct daemon_conn *conn_new(int sock)
{
	struct daemon_conn *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->sock = sock;
	memset(c->lanes, 0xff, sizeof(c->lanes));
	pthread_mutex_init(&c->sending, NULL);
	pthread_mutex_init(&c->receiving, NULL);
	pthread_cond_init(&c->arrived, NULL);
	return c;
}

/* Waits for the welcome and reads it; the lanes' sockets are the connection's. */
static int read_welcome(struct daemon_conn *c, unsigned most)
{
	uint8_t bytes[SHARE_WELCOME];
	struct cursor in = cursor_of(bytes, sizeof(bytes));
	struct pollfd p = {.fd = c->sock, .events = POLLIN};
	size_t num_fds = ARRAY_SIZE(c->lanes);
	uint32_t magic, version, lanes, flags;
	ssize_t n;
	int r;

	do
		r = poll(&p, 1, HELLO_MS);
	while (r < 0 && errno == EINTR);
	if (r <= 0)
		return r < 0 ? -errno : -ETIMEDOUT;
	n = fd_recv(c->sock, bytes, sizeof(bytes), c->lanes, &num_fds);
	if (n <= 0)
		return n < 0 ? (int)n : -ECONNREFUSED;
	c->num_lanes = (unsigned)num_fds;
	magic = cursor_u32(&in);
	version = cursor_u32(&in);
	lanes = cursor_u32(&in);
	flags = cursor_u32(&in);
	c->ops = cursor_u64(&in);
	if (n != sizeof(bytes) || magic != SHARE_MAGIC || version != SHARE_VERSION || !lanes || lanes > most)
		return -EPROTO;
	c->inlined = flags & SHARE_INLINE;
	if (num_fds != (c->inlined ? 0 : lanes))
		return -EPROTO;
	c->num_lanes = lanes;
	return 0;
}

static int say_hello(struct daemon *d, int sock)
{
	int memory[SHARE_MAX_LANES], r;
	struct buf b = {0};

	for (unsigned i = 0; i < d->num_lanes; i++)
		memory[i] = d->lanes[i].memfd;
	buf_put_u32(&b, SHARE_MAGIC);
	buf_put_u32(&b, SHARE_VERSION);
	buf_put_u32(&b, d->num_lanes);
	buf_put_u32(&b, SHARE_INLINE);
	r = b.error ? b.error : fd_send(sock, b.data, b.len, memory, d->num_lanes);
	buf_done(&b);
	return r;
}

int daemon_conn_open(struct daemon *d, int sock, struct daemon_conn **ret, struct sm_error *err)
{
	struct daemon_conn *c = conn_new(sock);
	int r;

	if (!c) {
		fd_close(sock);
		return error_sys(err, ENOMEM, "file server");
	}
	r = say_hello(d, sock);
	if (r == 0)
		r = read_welcome(c, d->num_lanes);
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
		shutdown(c->lanes[i], SHUT_RDWR);
	pthread_cond_broadcast(&d->free);
}

/* A process that is being killed can be connected to for a moment longer. */
static int connect_anew(struct daemon *d, struct daemon_conn **ret)
{
	for (int i = 0;; i++) {
		int sock = d->connect(d->arg, NULL), r;

		if (sock < 0)
			return sock;
		r = daemon_conn_open(d, sock, ret, NULL);
		if ((r != -ECONNRESET && r != -ECONNREFUSED && r != -EPIPE) || i == DYING_TRIES)
			return r;
		poll(NULL, 0, DYING_MS);
	}
}

/* Tries for a server in place of the one that is gone. The lock is held meanwhile: nobody else can do anything. */
static int reconnect_locked(struct daemon *d)
{
	struct daemon_conn *fresh;

	if (!d->connect || time_now_ns() < d->retry_at)
		return -ENOTCONN;
	if (connect_anew(d, &fresh) < 0) {
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
			if (d->lanes[i].busy)
				continue;
			d->lanes[i].busy = true;
			c->users++;
			call->conn = c;
			call->lane = &d->lanes[i];
			call->number = i;
			call->sock = c->lanes[i];
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

/* Requests that name nothing but a node and change nothing. */
static bool is_harmless(enum share_op op)
{
	return op == SHARE_LOOKUP || op == SHARE_GETATTR || op == SHARE_READLINK || op == SHARE_OPENDIR ||
	       op == SHARE_STATFS || op == SHARE_GETXATTR || op == SHARE_LISTXATTR;
}

int daemon_call_begin(struct daemon_call *call, struct sm_fs_backend *be, enum share_op op,
		      const struct sm_fs_caller *who, uint64_t nodeid, uint64_t fh, uint32_t bulk)
{
	struct share_request rq = {.op = op, .bulk = bulk, .fh = fh};
	struct daemon *d = (struct daemon *)be;
	int r;

	call->d = d;
	call->out = (struct buf){0};
	call->out_bulk = bulk;
	call->fd = -1;
	call->harmless = is_harmless(op);
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

/* There and back over the lane's socket. */
static int exchange(struct daemon_call *call)
{
	size_t num_fds = 1;
	ssize_t n = fd_send(call->sock, call->out.data, call->out.len, NULL, 0);

	if (n < 0)
		return daemon_call_break(call);
	n = fd_recv(call->sock, call->packet, sizeof(call->packet), &call->fd, &num_fds);
	if (!num_fds)
		call->fd = -1;
	if (n <= 0)
		return daemon_call_break(call);
	call->in = cursor_of(call->packet, (size_t)n);
	return 0;
}

int64_t daemon_call_run(struct daemon_call *call)
{
	bool inlined = call->conn->inlined;
	int64_t result;
	uint32_t bulk;
	int r;

	if (call->out.error)
		return call->out.error;
	if (call->out.len > SHARE_PACKET)
		return -ENAMETOOLONG;
	r = inlined ? daemon_inline_exchange(call) : exchange(call);
	if (r < 0)
		return call->harmless ? -ESTALE : r;
	result = (int64_t)cursor_u64(&call->in);
	bulk = cursor_u32(&call->in);
	if (call->in.bad || bulk > SHARE_BULK || (inlined && bulk != call->bulk) || result < -4095)
		return daemon_call_break(call);
	call->bulk = bulk;
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
