/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first words on a connection to the machine's daemon. A client sends one request; the daemon answers with any
 *number of notices and then OK or ERROR. After an OK the connection is
 *
 *	LINK	a frame protocol link (proto/frame.h), the daemon being the server; execs and pipes are relayed to the
 *agent CONNECT	a plain byte pipe to what the request (a proto_connect) named SPAWN	over: the request (a proto_exec,
 *detached) runs, and the daemon watches it; OK has its pid STATUS	over: OK has a wire_status STOP	over: OK comes
 *when the emulator and its file server are gone READY	over: OK comes when the machine is up
 *
 * A message is u32 magic, u16 type, u16 zero, u32 length, then TLV records (proto/messages.h). LINK, CONNECT and SPAWN
 *start a machine that is down.
 */
#ifndef MACHINE_WIRE_H
#define MACHINE_WIRE_H

#include "base/buf.h"
#include "base/cursor.h"
#include "machine/seat.h"

#define WIRE_MAGIC 0x314d4d53u /* "SMM1" */
#define WIRE_HEADER 12u
#define WIRE_MAX 65536u

/* Below the runtime directory. All of it is removed when the machine has stopped. */
#define MACHINE_DIR "machine"
#define MACHINE_SOCKET MACHINE_DIR "/socket"

enum wire_type {
	WIRE_LINK = 1,
	WIRE_CONNECT = 2,
	WIRE_SPAWN = 3,
	WIRE_STATUS = 4,
	WIRE_STOP = 5,
	WIRE_READY = 6,
	WIRE_OK = 16,
	WIRE_NOTICE = 17, /* payload: text */
	WIRE_ERROR = 18,
};

struct wire_header {
	uint16_t type;
	uint32_t len;
};

/* Appends a message. */
int wire_put(struct buf *b, enum wire_type type, const void *payload, size_t len);
/* WIRE_HEADER bytes: 0, or -EPROTO. */
int wire_header_decode(const void *p, struct wire_header *ret);

/* ERROR's payload. Decoding fills *ret with what the daemon said (always a nonzero code), or with a fault of its own
 * making. */
int wire_error_encode(struct buf *b, const struct sm_error *e);
void wire_error_decode(struct cursor *c, struct sm_error *ret);

/* OK's payload for STATUS; decoding is 0 or -EPROTO. */
int wire_status_encode(struct buf *b, const struct seat_machine_status *s);
int wire_status_decode(struct cursor *c, struct seat_machine_status *ret);

#endif
