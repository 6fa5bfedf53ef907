/* SPDX-License-Identifier: Apache-2.0 */
/* A vhost-user front end of one queue, for tests of the back-end side: 1 MiB of memory, negotiation, FUSE requests. */
#ifndef TESTS_VHOST_FRONT_H
#define TESTS_VHOST_FRONT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define FRONT_RAM_SIZE (1u << 20)
#define FRONT_USER 0x7f0000000000ull /* where the front end has the memory */
#define FRONT_LIMIT_MS 20000

struct front {
	int sock, memfd, kick, call;
	uint8_t *ram;
	uint16_t count; /* requests sent */
};

/* Takes sock. */
void front_init(struct front *f, int sock);
void front_done(struct front *f);
/* One message, with a descriptor unless fd < 0; ask: and its answer of 8 bytes. */
void front_tell(struct front *f, uint32_t request, uint32_t flags, const void *payload, uint32_t size, int fd);
uint64_t front_ask(struct front *f, uint32_t request, const void *payload, uint32_t size);
void front_tell_pair(struct front *f, uint32_t request, uint32_t index, uint32_t number);
/* Everything up to a started queue. */
void front_bring_up(struct front *f, uint32_t ring);
/* Puts one FUSE request into the queue and waits for its answer: the length of its payload, of which at most room bytes
 * are copied to reply, or the error in it. */
ssize_t front_call(struct front *f, uint32_t opcode, uint64_t nodeid, const void *args, size_t len, void *reply,
		   size_t room);
/* FUSE_INIT as Linux 6.1 sends it. */
void front_fuse_init(struct front *f);

#endif
