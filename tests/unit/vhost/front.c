/* SPDX-License-Identifier: Apache-2.0 */
/* See front.h. The queue has 8 entries; every request uses descriptors 0 (request) and 1 (reply). */
#include "front.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <linux/fuse.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fileio.h"

#define QUEUE 8
#define AVAIL 0x1000
#define USED 0x2000
#define REQUEST 0x3000
#define REPLY 0x10000

void front_init(struct front *f, int sock)
{
	*f = (struct front){.sock = sock, .memfd = memfd_create("ram", MFD_CLOEXEC)};
	assert_int_equal(ftruncate(f->memfd, FRONT_RAM_SIZE), 0);
	f->ram = mmap(NULL, FRONT_RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, f->memfd, 0);
	assert_true(f->ram != MAP_FAILED);
	f->kick = eventfd(0, EFD_CLOEXEC);
	f->call = eventfd(0, EFD_CLOEXEC);
}

void front_done(struct front *f)
{
	munmap(f->ram, FRONT_RAM_SIZE);
	close(f->memfd);
	close(f->kick);
	close(f->call);
	if (f->sock >= 0)
		close(f->sock);
}

void front_tell(struct front *f, uint32_t request, uint32_t flags, const void *payload, uint32_t size, int fd)
{
	uint8_t bytes[600];
	uint32_t head[3] = {request, 1 | flags, size};

	memcpy(bytes, head, sizeof(head));
	if (size)
		memcpy(bytes + sizeof(head), payload, size);
	fd_send(f->sock, bytes, sizeof(head) + size, &fd, fd >= 0);
}

uint64_t front_ask(struct front *f, uint32_t request, const void *payload, uint32_t size)
{
	uint8_t bytes[20];
	uint64_t value;

	front_tell(f, request, 0, payload, size, -1);
	assert_int_equal(read_full(f->sock, bytes, sizeof(bytes)), sizeof(bytes));
	assert_memory_equal(bytes, &request, 4);
	memcpy(&value, bytes + 12, 8);
	return value;
}

void front_tell_pair(struct front *f, uint32_t request, uint32_t index, uint32_t number)
{
	uint32_t pair[2] = {index, number};

	front_tell(f, request, 0, pair, sizeof(pair), -1);
}

void front_bring_up(struct front *f, uint32_t ring)
{
	uint64_t table[5] = {1, 0, FRONT_RAM_SIZE, FRONT_USER, 0}, features = 1ull << 32 | 1u << 30, protocol = 1u << 3,
		 index = ring;
	struct {
		uint32_t index, flags;
		uint64_t desc, used, avail, log;
	} addr = {ring, 0, FRONT_USER, FRONT_USER + USED, FRONT_USER + AVAIL, 0};

	assert_true(front_ask(f, 1, NULL, 0) & 1ull << 32);
	front_tell(f, 2, 0, &features, 8, -1);
	assert_true(front_ask(f, 15, NULL, 0) & 1u << 3);
	front_tell(f, 16, 0, &protocol, 8, -1);
	front_tell(f, 3, 0, NULL, 0, -1);
	front_tell(f, 5, 0, table, sizeof(table), f->memfd);
	front_tell_pair(f, 8, ring, QUEUE);
	front_tell_pair(f, 10, ring, 0);
	front_tell(f, 9, 0, &addr, sizeof(addr), -1);
	front_tell(f, 13, 0, &index, 8, f->call);
	front_tell(f, 12, 0, &index, 8, f->kick);
	front_tell_pair(f, 18, ring, 1);
}

/* Makes descriptors 0 and 1 available and rings the bell. */
static void send_request(struct front *f, uint32_t len)
{
	struct desc {
		uint64_t addr;
		uint32_t len;
		uint16_t flags, next;
	} *desc = (void *)f->ram;
	uint16_t *avail = (void *)(f->ram + AVAIL);

	desc[0] = (struct desc){REQUEST, len, 1, 1};
	desc[1] = (struct desc){REPLY, FRONT_RAM_SIZE - REPLY, 2, 0};
	avail[2 + f->count % QUEUE] = 0;
	__atomic_store_n(&avail[1], ++f->count, __ATOMIC_SEQ_CST);
	assert_int_equal(eventfd_write(f->kick, 1), 0);
}

ssize_t front_call(struct front *f, uint32_t opcode, uint64_t nodeid, const void *args, size_t len, void *reply,
		   size_t room)
{
	const uint16_t *used = (void *)(f->ram + USED);
	const struct fuse_out_header *out = (void *)(f->ram + REPLY);
	struct pollfd p = {.fd = f->call, .events = POLLIN};
	struct fuse_in_header h = {.len = (uint32_t)(sizeof(h) + len), .opcode = opcode, .nodeid = nodeid};
	eventfd_t n;

	h.unique = f->count + 9u;
	memcpy(f->ram + REQUEST, &h, sizeof(h));
	if (len)
		memcpy(f->ram + REQUEST + sizeof(h), args, len);
	send_request(f, h.len);
	while (__atomic_load_n(&used[1], __ATOMIC_ACQUIRE) != f->count) {
		assert_int_equal(poll(&p, 1, FRONT_LIMIT_MS), 1);
		eventfd_read(f->call, &n);
	}
	assert_true(out->unique == h.unique);
	if (out->error)
		return out->error;
	len = out->len - sizeof(*out);
	memcpy(reply, out + 1, len < room ? len : room);
	return (ssize_t)len;
}

void front_fuse_init(struct front *f)
{
	struct fuse_init_in in = {.major = 7, .minor = 38};
	struct fuse_init_out out;

	assert_int_equal(front_call(f, FUSE_INIT, 0, &in, sizeof(in), &out, sizeof(out)), sizeof(out));
	assert_int_equal(out.major, 7);
}
