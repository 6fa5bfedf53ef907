/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frame protocol: many channels with credit windows over one byte stream. No sockets, no threads: bytes in, events
 *out; calls in, bytes out. The same protocol is spoken
 *
 *	library <-> keeper	(unix socket, or a stream through the machine)
 *	keeper  <-> guest agent	(vsock)
 *	library <-> machine daemon <-> machine agent (unix socket, virtio-serial)
 *
 * and the keeper and the machine daemon relay channels between two such links (relay.h).
 *
 * Frame (little-endian): u32 length of payload (<= PROTO_MAX_PAYLOAD, of OPEN PROTO_MAX_OPEN), u32 channel, u8 type, u8
 *stream, u16 reserved 0. Then payload.
 *
 * Channel 0 carries HELLO only. The initiator (client) side opens channels with numbers it picks, never reused within
 *2^31 opens, nonzero.
 *
 *	HELLO	both ways, first frame on channel 0: "SMAGENT\0", u16 version, u16 minimum version, u32 window (initial
 *credit, in bytes, that the sender grants to each stream of each channel), then TLV attributes (kernel release, role
 *...) OPEN	client->server: u16 service (enum proto_service), then the service's request as TLV (messages.h) OPENED
 *server->client: TLV reply (pid of an exec, ...). Only after it may data flow from the client. DATA	either way:
 *`stream` (0 client->server "stdin"; 1 stdout, 2 stderr server->client; for byte pipes 0 and 1), payload CREDIT
 *u32 bytes: grants the peer that much more on `stream`. A peer that sends beyond its credit is cut off (-EPROTO). EOF
 *no more DATA on `stream`
 *	EVENT	server->client or client->server, TLV: signal, resize, exit status, progress: not flow-controlled, at
 *most 4 KiB each CLOSE	ends a channel: i32 negative errno or 0, then UTF-8 text. Each side sends it once; the channel
 *is gone when both were sent.
 */
#ifndef PROTO_FRAME_H
#define PROTO_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/cursor.h"
#include "base/error.h"

#define PROTO_VERSION 2
#define PROTO_VERSION_LEAST 1 /* what takes no longer request than PROTO_MAX_PAYLOAD */
#define PROTO_MAX_PAYLOAD 65536u
#define PROTO_MAX_OPEN (1024u * 1024u) /* a request has the arguments and environment of a command */
#define PROTO_HEADER_SIZE 12u
#define PROTO_DEFAULT_WINDOW (256u * 1024u)
#define PROTO_MAX_WINDOW (16u * 1024u * 1024u)
#define PROTO_MAX_CHANNELS 4096u
#define PROTO_STREAMS 3
#define PROTO_MAGIC "SMAGENT" /* with its NUL */
#define PROTO_MAGIC_SIZE 8u

enum proto_type {
	PROTO_HELLO = 1,
	PROTO_OPEN = 2,
	PROTO_OPENED = 3,
	PROTO_DATA = 4,
	PROTO_CREDIT = 5,
	PROTO_EOF = 6,
	PROTO_EVENT = 7,
	PROTO_CLOSE = 8,
};

#endif
