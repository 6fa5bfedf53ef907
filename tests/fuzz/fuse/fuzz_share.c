/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any requests of a shared tree's client, over a file system in memory: the input's first 64 bytes are what lies in the
 * lane's memory, the rest a list of packets: u8 length, bytes. Handles of what was opened are put into packets that say
 * so (the length's top bit), else few would ever be right. Whatever came, all is given up in the end. Where a packet
 * would be longer than the input the rest of it is what a client without descriptors puts into its stream: u8 how many
 * bytes of a frame are made right (0: none), then bytes.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fileio.h"
#include "base/util.h"
#include "fuse/memory.h"
#include "fuse/share_client.h"

#define FILL 64u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void serve(struct share_client *c, uint8_t *mem, uint8_t *packet, size_t len, bool known, uint64_t known_ids[2])
{
	struct share_call call = {.client = c, .mem = mem, .out_fd = -1};

	if (known && len >= 40)
		memcpy(packet + 24, known_ids, 16);
	call.args = cursor_of(packet, len);
	share_get_request(&call.args, &call.rq);
	if (share_call_serve(&call) >= 0 && call.values.len >= 12 &&
	    (call.rq.op == SHARE_OPEN || call.rq.op == SHARE_OPENDIR)) {
		known_ids[0] = call.rq.nodeid;
		memcpy(&known_ids[1], call.values.data, 8);
	} else if (call.rq.op == SHARE_CREATE && call.values.len > 12) {
		memcpy(&known_ids[0], call.values.data, 8);
		memcpy(&known_ids[1], call.values.data + call.values.len - 12, 8);
	}
	if (call.bulk > SHARE_BULK)
		abort();
	share_call_done(&call);
}

/* Into the stream: the lane and lengths of a first frame made right, if it is to be. */
static void put_stream(int sock, struct cursor c)
{
	const uint32_t hello[4] = {SHARE_MAGIC, SHARE_VERSION, 2, SHARE_INLINE};
	uint8_t right = cursor_u8(&c);
	uint32_t packet = MIN((uint32_t)c.left, 64u), head[3] = {right & 1, packet, (uint32_t)c.left - packet};
	uint8_t answers[4096];

	if (write_full(sock, hello, sizeof(hello)) < 0 || read_full(sock, answers, SHARE_WELCOME) != SHARE_WELCOME)
		abort();
	if (right)
		(void)!send(sock, head, sizeof(head), MSG_NOSIGNAL);
	if (c.left)
		(void)!send(sock, c.p, c.left, MSG_NOSIGNAL);
	shutdown(sock, SHUT_WR);
	while (recv(sock, answers, sizeof(answers), 0) > 0)
		;
}

static void serve_stream(struct sm_fs_backend *be, struct cursor c)
{
	struct share_server *s;
	int sock[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock) < 0 ||
	    share_server_start(be, -1, NULL, &s, NULL) < 0 || share_server_add(s, sock[0]) < 0)
		abort();
	put_stream(sock[1], c);
	close(sock[1]);
	share_server_stop(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuse_memory_options o = {.max_bytes = 1 << 20, .max_nodes = 64};
	struct cursor c = cursor_of(data, size);
	size_t fill = MIN(size, FILL);
	static uint8_t mem[SHARE_BULK];
	uint8_t packet[255];
	uint64_t known_ids[2] = {0};
	struct share_client client;
	struct sm_fs_backend *be;

	if (fuse_memory_new(&o, &be) < 0 || share_client_init(&client, be, be->ops, size & 1) < 0)
		abort();
	memset(mem, 0, SHARE_LISTING);
	memcpy(mem, cursor_take(&c, fill), fill);
	while (c.left > 1) {
		uint8_t head = cursor_u8(&c);
		size_t len = head & 0x7f;

		if (len > c.left) {
			serve_stream(be, c);
			break;
		}
		memcpy(packet, cursor_take(&c, len), len);
		serve(&client, mem, packet, len, head & 0x80, known_ids);
	}
	share_client_done(&client);
	fuse_memory_free(be);
	return 0;
}
