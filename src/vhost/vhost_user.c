/* SPDX-License-Identifier: Apache-2.0 */
/* The vhost-user protocol, back-end side. See vhost_user.h. */
#include "vhost/vhost_user.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/cursor.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/util.h"
#include "vhost/ring.h"

#define MAX_RINGS 16u /* hiprio and request queues; Linux 6.1 uses one of these */
#define MAX_REGIONS 8u
#define MAX_PAYLOAD 512u
#define NO_FD (1u << 8) /* in a SET_VRING_KICK/CALL payload: there is no descriptor */

enum request {
	GET_FEATURES = 1,
	SET_FEATURES = 2,
	SET_OWNER = 3,
	RESET_OWNER = 4,
	SET_MEM_TABLE = 5,
	SET_VRING_NUM = 8,
	SET_VRING_ADDR = 9,
	SET_VRING_BASE = 10,
	GET_VRING_BASE = 11,
	SET_VRING_KICK = 12,
	SET_VRING_CALL = 13,
	SET_VRING_ERR = 14,
	GET_PROTOCOL_FEATURES = 15,
	SET_PROTOCOL_FEATURES = 16,
	GET_QUEUE_NUM = 17,
	SET_VRING_ENABLE = 18,
};

enum flags { FLAG_VERSION = 1, FLAG_VERSION_MASK = 3, FLAG_REPLY = 4, FLAG_NEED_REPLY = 8 };

#define F_INDIRECT (1ULL << 28)
#define F_EVENT_IDX (1ULL << 29)
#define F_PROTOCOL (1ULL << 30)
#define F_VERSION_1 (1ULL << 32)
#define OFFERED (F_INDIRECT | F_EVENT_IDX | F_PROTOCOL | F_VERSION_1)
#define P_MQ (1ULL << 0)
#define P_REPLY_ACK (1ULL << 3)
#define P_OFFERED (P_MQ | P_REPLY_ACK)

struct region {
	uint64_t gpa, size, user;
	void *map;
	size_t map_len;
};

struct vhost {
	int sock, stop_fd;
	struct mem mem;
	struct region regions[MAX_REGIONS];
	unsigned num_regions;
	uint64_t features, protocol_features;
	struct ring rings[MAX_RINGS];
};

struct message {
	uint32_t request, flags, size;
	uint8_t payload[MAX_PAYLOAD];
	int fds[MAX_REGIONS];
	size_t num_fds;
};

/* --------------------------------------------------------------------------------------------- messages */

/* Waits for a message: 1, or -ECANCELED when the server is to stop. */
static int wait_for_message(struct vhost *v)
{
	struct pollfd p[2] = {{.fd = v->sock, .events = POLLIN}, {.fd = v->stop_fd, .events = POLLIN}};

	while (poll(p, 2, -1) < 0)
		if (errno != EINTR)
			return -errno;
	return p[1].revents ? -ECANCELED : 1;
}

/* 1 with a message, 0 at the end, -errno. Descriptors come with the header. */
static int receive(struct vhost *v, struct message *m)
{
	uint8_t header[12];
	struct cursor c = cursor_of(header, sizeof(header));
	ssize_t n;

	m->num_fds = 0;
	n = wait_for_message(v);
	if (n < 0)
		return (int)n;
	m->num_fds = MAX_REGIONS;
	n = fd_recv(v->sock, header, sizeof(header), m->fds, &m->num_fds);
	if (n == 0)
		return 0;
	if (n > 0 && n < (ssize_t)sizeof(header)) {
		ssize_t more = read_full(v->sock, header + n, sizeof(header) - (size_t)n);

		n = more < 0 ? more : n + more;
	}
	if (n < 0)
		return (int)n;
	if (n != sizeof(header))
		return -EPROTO;
	m->request = cursor_u32(&c);
	m->flags = cursor_u32(&c);
	m->size = cursor_u32(&c);
	if ((m->flags & FLAG_VERSION_MASK) != FLAG_VERSION || m->size > sizeof(m->payload))
		return -EPROTO;
	n = read_full(v->sock, m->payload, m->size);
	return n == (ssize_t)m->size ? 1 : n < 0 ? (int)n : -EPROTO;
}

static int reply(struct vhost *v, const struct message *m, const void *payload, uint32_t size)
{
	uint8_t bytes[12 + 16];
	uint32_t head[3] = {m->request, FLAG_VERSION | FLAG_REPLY, size};

	memcpy(bytes, head, sizeof(head));
	memcpy(bytes + sizeof(head), payload, size);
	return write_full(v->sock, bytes, sizeof(head) + size);
}

static int reply_u64(struct vhost *v, const struct message *m, uint64_t value)
{
	return reply(v, m, &value, sizeof(value));
}

static void close_fds(struct message *m)
{
	for (size_t i = 0; i < m->num_fds; i++)
		fd_close(m->fds[i]);
	m->num_fds = 0;
}

/* ----------------------------------------------------------------------------------------- memory, rings */

static void drop_memory(struct vhost *v)
{
	for (unsigned i = 0; i < v->num_regions; i++)
		munmap(v->regions[i].map, v->regions[i].map_len);
	v->num_regions = 0;
	v->mem = (struct mem){0};
}

/* The front end's address of a ring as a guest-physical one; UINT64_MAX when it is in no region. */
static uint64_t user_to_gpa(const struct vhost *v, uint64_t user)
{
	for (unsigned i = 0; i < v->num_regions; i++) {
		const struct region *r = &v->regions[i];

		if (user >= r->user && user - r->user < r->size)
			return r->gpa + (user - r->user);
	}
	return UINT64_MAX;
}

/* Runs a ring if the front end has given all it needs. It begins where SET_VRING_BASE said, or where it stopped. */
static int start_if_ready(struct vhost *v, struct ring *r)
{
	int e;

	if (r->running || !r->enabled || !r->has_address || r->kick < 0 || !r->vq.size || !v->num_regions)
		return 0;
	r->vq.desc = user_to_gpa(v, r->user_desc);
	r->vq.avail = user_to_gpa(v, r->user_avail);
	r->vq.used = user_to_gpa(v, r->user_used);
	r->vq.ready = true;
	e = virtq_activate(&r->vq, &v->mem, v->features & F_EVENT_IDX, v->features & F_INDIRECT);
	if (e < 0)
		return e;
	r->vq.last_avail = (uint16_t)r->base;
	r->vq.used_idx = (uint16_t)r->base;
	return ring_start(r);
}

static void stop_all(struct vhost *v)
{
	for (unsigned i = 0; i < MAX_RINGS; i++)
		ring_stop(&v->rings[i]);
}

static int start_all(struct vhost *v)
{
	int e = 0;

	for (unsigned i = 0; i < MAX_RINGS && e == 0; i++)
		e = start_if_ready(v, &v->rings[i]);
	return e;
}

static int map_region(struct vhost *v, struct cursor *c, int fd)
{
	struct region *r = &v->regions[v->num_regions];
	uint64_t offset;
	struct stat st;

	r->gpa = cursor_u64(c);
	r->size = cursor_u64(c);
	r->user = cursor_u64(c);
	offset = cursor_u64(c);
	if (c->bad || fstat(fd, &st) < 0 || offset % 4096 || !range_inside(offset, r->size, (uint64_t)st.st_size))
		return -EPROTO;
	r->map_len = r->size;
	r->map = mmap(NULL, r->map_len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
	if (r->map == MAP_FAILED)
		return -errno;
	v->num_regions++;
	return mem_add(&v->mem,
		       &(struct mem_region){
			       .kind = MEM_RAM, .writable = true, .gpa = r->gpa, .size = r->size, .host = r->map});
}

static int set_mem_table(struct vhost *v, struct message *m)
{
	struct cursor c = cursor_of(m->payload, m->size);
	uint32_t count = cursor_u32(&c);
	int e = 0;

	cursor_u32(&c);
	if (c.bad || count > MAX_REGIONS || count != m->num_fds)
		return -EPROTO;
	stop_all(v);
	drop_memory(v);
	for (uint32_t i = 0; i < count && e == 0; i++)
		e = map_region(v, &c, m->fds[i]);
	return e < 0 ? e : start_all(v);
}

static struct ring *ring_at(struct vhost *v, uint64_t index)
{
	return index < MAX_RINGS ? &v->rings[index] : NULL;
}

static int set_vring_addr(struct vhost *v, struct message *m)
{
	struct cursor c = cursor_of(m->payload, m->size);
	struct ring *r = ring_at(v, cursor_u32(&c));

	cursor_u32(&c); /* flags: logging, which is not offered */
	if (!r || r->running)
		return -EPROTO;
	r->user_desc = cursor_u64(&c);
	r->user_used = cursor_u64(&c);
	r->user_avail = cursor_u64(&c);
	r->has_address = !c.bad;
	return c.bad ? -EPROTO : 0;
}

/* SET_VRING_NUM, _BASE and _ENABLE: an index and a number. */
static int set_vring_number(struct vhost *v, struct message *m)
{
	struct cursor c = cursor_of(m->payload, m->size);
	struct ring *r = ring_at(v, cursor_u32(&c));
	uint32_t number = cursor_u32(&c);

	if (c.bad || !r)
		return -EPROTO;
	if (m->request == SET_VRING_ENABLE) {
		r->enabled = number;
		if (!number)
			ring_stop(r);
		return start_if_ready(v, r);
	}
	if (r->running || number > UINT16_MAX)
		return -EPROTO;
	if (m->request == SET_VRING_BASE) {
		r->base = number;
		return 0;
	}
	if (!number || number > VIRTQ_MAX_SIZE || number & (number - 1))
		return -EPROTO;
	r->vq.size = (uint16_t)number;
	return 0;
}

static int get_vring_base(struct vhost *v, struct message *m)
{
	struct cursor c = cursor_of(m->payload, m->size);
	uint32_t index = cursor_u32(&c);
	struct ring *r = ring_at(v, index);
	uint32_t out[2] = {index};

	if (c.bad || !r)
		return -EPROTO;
	ring_stop(r);
	r->kick = fd_close(r->kick); /* the ring stays stopped until the front end sends a new one */
	out[1] = r->base;
	return reply(v, m, out, sizeof(out));
}

static int set_vring_fd(struct vhost *v, struct message *m)
{
	struct cursor c = cursor_of(m->payload, m->size);
	uint64_t value = cursor_u64(&c);
	struct ring *r = ring_at(v, value & 0xff);
	bool was_running;
	int fd = -1;

	if (c.bad || !r || m->num_fds != (value & NO_FD ? 0 : 1))
		return -EPROTO;
	if (m->num_fds) {
		fd = m->fds[0];
		m->num_fds = 0;
	}
	if (m->request == SET_VRING_ERR) {
		fd_close(fd);
		return 0;
	}
	was_running = r->running;
	ring_stop(r);
	if (m->request == SET_VRING_KICK) {
		fd_close(r->kick);
		r->kick = fd;
	} else {
		fd_close(r->call);
		r->call = fd;
	}
	/* Without the protocol feature a ring is enabled by its kick. */
	if (m->request == SET_VRING_KICK && !(v->features & F_PROTOCOL))
		r->enabled = true;
	return was_running || m->request == SET_VRING_KICK ? start_if_ready(v, r) : 0;
}

static int set_features(struct vhost *v, struct message *m, uint64_t offered, uint64_t *ret)
{
	struct cursor c = cursor_of(m->payload, m->size);
	uint64_t wanted = cursor_u64(&c);

	if (c.bad || wanted & ~offered)
		return -EPROTO;
	*ret = wanted;
	return 0;
}

/* 0 or -errno; *ret_replied: the message had a reply of its own. */
static int handle(struct vhost *v, struct message *m, bool *ret_replied)
{
	*ret_replied = false;
	switch (m->request) {
	case GET_FEATURES:
		*ret_replied = true;
		return reply_u64(v, m, OFFERED);
	case SET_FEATURES:
		return set_features(v, m, OFFERED, &v->features);
	case GET_PROTOCOL_FEATURES:
		*ret_replied = true;
		return reply_u64(v, m, P_OFFERED);
	case SET_PROTOCOL_FEATURES:
		return set_features(v, m, P_OFFERED, &v->protocol_features);
	case GET_QUEUE_NUM:
		*ret_replied = true;
		return reply_u64(v, m, MAX_RINGS);
	case SET_OWNER:
		return 0;
	case RESET_OWNER:
		stop_all(v);
		return 0;
	case SET_MEM_TABLE:
		return set_mem_table(v, m);
	case SET_VRING_ADDR:
		return set_vring_addr(v, m);
	case SET_VRING_NUM:
	case SET_VRING_BASE:
	case SET_VRING_ENABLE:
		return set_vring_number(v, m);
	case GET_VRING_BASE:
		*ret_replied = true;
		return get_vring_base(v, m);
	case SET_VRING_KICK:
	case SET_VRING_CALL:
	case SET_VRING_ERR:
		return set_vring_fd(v, m);
	default:
		return -EOPNOTSUPP;
	}
}

int vhost_user_serve(int sock, int stop_fd, struct fuse_session *session, struct sm_error *err)
{
	struct vhost *v = calloc(1, sizeof(*v));
	struct message m = {0};
	int r;

	if (!v)
		return error_sys(err, ENOMEM, "vhost-user");
	v->sock = sock;
	v->stop_fd = stop_fd;
	for (unsigned i = 0; i < MAX_RINGS; i++)
		ring_init(&v->rings[i], session);
	v->rings[0].lazy = true; /* the hiprio queue */
	while ((r = receive(v, &m)) > 0) {
		bool replied;
		int e = handle(v, &m, &replied);

		close_fds(&m);
		if (!replied && m.flags & FLAG_NEED_REPLY && v->protocol_features & P_REPLY_ACK)
			r = reply_u64(v, &m, e < 0);
		else if (e < 0)
			r = e;
		if (r < 0)
			break;
	}
	close_fds(&m); /* of a message that was none */
	if (r < 0)
		error_set(err, SM_ERROR_CORRUPT, -r, "vhost-user: request %u of %u bytes: %s", m.request, m.size,
			  strerror(-r));
	if (r == -ECONNRESET || r == -EPIPE)
		r = 0; /* it left without reading all that was there for it */
	for (unsigned i = 0; i < MAX_RINGS; i++)
		ring_done(&v->rings[i]);
	drop_memory(v);
	free(v);
	return r;
}
