/* SPDX-License-Identifier: Apache-2.0 */
/* The codec of the daemon's socket. See wire.h. */
#include "machine/wire.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "proto/messages.h"

enum { TAG_KIND = 1, TAG_CODE, TAG_TEXT };
enum {
	TAG_RUNNING = 1,
	TAG_DAEMON,
	TAG_EMULATOR,
	TAG_MEMORY,
	TAG_CPUS,
	TAG_UPTIME,
	TAG_BUSY,
	TAG_BOOT_ID,
};

int wire_put(struct buf *b, enum wire_type type, const void *payload, size_t len)
{
	if (len > WIRE_MAX)
		return -EMSGSIZE;
	buf_put_u32(b, WIRE_MAGIC);
	buf_put_u16(b, (uint16_t)type);
	buf_put_u16(b, 0);
	buf_put_u32(b, (uint32_t)len);
	return len ? buf_put(b, payload, len) : b->error;
}

int wire_header_decode(const void *p, struct wire_header *ret)
{
	struct cursor c = cursor_of(p, WIRE_HEADER);
	uint32_t magic = cursor_u32(&c), len;
	uint16_t type = cursor_u16(&c), zero = cursor_u16(&c);

	len = cursor_u32(&c);
	if (c.bad || magic != WIRE_MAGIC || zero || len > WIRE_MAX)
		return -EPROTO;
	*ret = (struct wire_header){.type = type, .len = len};
	return 0;
}

int wire_error_encode(struct buf *b, const struct sm_error *e)
{
	tlv_put_u64(b, TAG_KIND, (uint64_t)e->kind);
	tlv_put_u64(b, TAG_CODE, (uint64_t)e->code);
	tlv_put_str(b, TAG_TEXT, e->message);
	return b->error;
}

void wire_error_decode(struct cursor *c, struct sm_error *ret)
{
	struct sm_error e = {.kind = SM_ERROR_IO, .code = EPROTO, .message = "the machine's daemon gave no reason"};
	struct tlv t;
	uint64_t v;

	while (tlv_next(c, &t) == 1) {
		if (t.tag == TAG_KIND && tlv_u64(&t, &v) == 0 && v > SM_ERROR_NONE && v <= SM_ERROR_IO)
			e.kind = (enum sm_error_kind)v;
		else if (t.tag == TAG_CODE && tlv_u64(&t, &v) == 0 && v > 0 && v < 4096)
			e.code = (int)v;
		else if (t.tag == TAG_TEXT)
			snprintf(e.message, sizeof(e.message), "%.*s", (int)t.len, (const char *)t.p);
	}
	*ret = e;
}

int wire_status_encode(struct buf *b, const struct seat_machine_status *s)
{
	tlv_put_u64(b, TAG_RUNNING, s->running);
	tlv_put_u64(b, TAG_DAEMON, (uint64_t)s->daemon_pid);
	tlv_put_u64(b, TAG_EMULATOR, (uint64_t)s->emulator_pid);
	tlv_put_u64(b, TAG_MEMORY, s->memory);
	tlv_put_u64(b, TAG_CPUS, s->cpus);
	tlv_put_u64(b, TAG_UPTIME, s->uptime_ns);
	tlv_put_u64(b, TAG_BUSY, s->busy);
	tlv_put_str(b, TAG_BOOT_ID, s->boot_id);
	return b->error;
}

int wire_status_decode(struct cursor *c, struct seat_machine_status *ret)
{
	struct seat_machine_status s = {0};
	struct tlv t;
	uint64_t v;
	int r;

	while ((r = tlv_next(c, &t)) == 1) {
		if (t.tag == TAG_BOOT_ID) {
			if (t.len >= sizeof(s.boot_id))
				return -EPROTO;
			memcpy(s.boot_id, t.p, t.len);
			continue;
		}
		if (tlv_u64(&t, &v) < 0)
			return -EPROTO;
		switch (t.tag) {
		case TAG_RUNNING:
			s.running = v != 0;
			break;
		case TAG_DAEMON:
			s.daemon_pid = (int64_t)v;
			break;
		case TAG_EMULATOR:
			s.emulator_pid = (int64_t)v;
			break;
		case TAG_MEMORY:
			s.memory = v;
			break;
		case TAG_CPUS:
			s.cpus = (unsigned)v;
			break;
		case TAG_UPTIME:
			s.uptime_ns = v;
			break;
		case TAG_BUSY:
			s.busy = (unsigned)v;
			break;
		default:
			return -EPROTO;
		}
	}
	if (r == 0)
		*ret = s;
	return r;
}
