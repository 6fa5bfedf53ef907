/* SPDX-License-Identifier: Apache-2.0 */
/* Codecs of the keeper's own messages. See wire.h. */
#include "keeper/wire.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"

#define MAX_FIELDS (8 + KEEPER_UNDER_MAX)

/* Reads tags 1 .. count, each a number, into v (absent: 0). */
static int read_numbers(struct cursor *c, uint64_t *v, unsigned count)
{
	struct tlv t;
	int r;

	memset(v, 0, count * sizeof(*v));
	while ((r = tlv_next(c, &t)) > 0) {
		if (t.tag & 0x8000)
			continue;
		if (t.tag == 0 || t.tag > count || tlv_u64(&t, &v[t.tag - 1]) < 0)
			return -EPROTO;
	}
	return r;
}

static int write_numbers(struct buf *b, const uint64_t *v, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		tlv_put_u64(b, (uint16_t)(i + 1), v[i]);
	return b->error;
}

int wire_early_socket(const char *socket, char *ret)
{
	return snprintf(ret, PATH_MAX, "%s.early", socket) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

int keeper_status_encode(struct buf *b, const struct keeper_status *s)
{
	uint64_t v[5] = {s->state, (uint64_t)s->keeper_pid, (uint64_t)s->monitor_pid, (uint64_t)s->started_ns,
			 s->attached};

	return write_numbers(b, v, 5);
}

int keeper_status_decode(struct cursor *c, struct keeper_status *ret)
{
	uint64_t v[MAX_FIELDS];
	int r = read_numbers(c, v, 5);

	if (r < 0)
		return r;
	if (v[0] < SM_VM_STARTING || v[0] > SM_VM_PAUSED || v[1] > INT64_MAX || v[2] > INT64_MAX || v[3] > INT64_MAX)
		return -EPROTO;
	*ret = (struct keeper_status){.state = (enum sm_vm_state)v[0],
				      .keeper_pid = (int64_t)v[1],
				      .monitor_pid = (int64_t)v[2],
				      .started_ns = (int64_t)v[3],
				      .attached = v[4] != 0};
	return 0;
}

int keeper_wait_encode(struct buf *b, const struct keeper_wait *w)
{
	uint64_t v[2] = {w->owner, w->forwards};

	return write_numbers(b, v, w->forwards ? 2 : 1);
}

int keeper_wait_decode(struct cursor *c, struct keeper_wait *ret)
{
	uint64_t v[MAX_FIELDS];
	int r = read_numbers(c, v, 2);

	if (r == 0)
		*ret = (struct keeper_wait){.owner = v[0] != 0, .forwards = v[1] != 0};
	return r;
}

int keeper_news_encode(struct buf *b, const struct keeper_news *n)
{
	tlv_put_u64(b, 1, n->kind);
	if (n->record)
		tlv_put(b, 2, n->record, n->record_len);
	return b->error;
}

int keeper_news_decode(struct cursor *c, struct keeper_news *ret)
{
	struct keeper_news n = {0};
	uint64_t kind = 0;
	struct tlv t;
	int r;

	while ((r = tlv_next(c, &t)) > 0) {
		if (t.tag == 1 && tlv_u64(&t, &kind) < 0)
			return -EPROTO;
		if (t.tag == 2) {
			n.record = t.p;
			n.record_len = t.len;
		} else if (t.tag != 1 && !(t.tag & 0x8000)) {
			return -EPROTO;
		}
	}
	if (r < 0 || kind < KEEPER_STARTED || kind > KEEPER_SUSPENDING || (kind == KEEPER_ENDED && !n.record))
		return -EPROTO;
	n.kind = (enum keeper_news_kind)kind;
	*ret = n;
	return 0;
}

int keeper_stop_encode(struct buf *b, const struct keeper_stop *s)
{
	uint64_t v[3] = {s->mode, (uint64_t)s->signal, s->grace_ns};

	return write_numbers(b, v, 3);
}

int keeper_stop_decode(struct cursor *c, struct keeper_stop *ret)
{
	uint64_t v[MAX_FIELDS];
	int r = read_numbers(c, v, 3);

	if (r < 0)
		return r;
	if (v[0] < KEEPER_STOP_GRACE || v[0] > KEEPER_STOP_NOW || v[1] > 64 || (v[0] == KEEPER_STOP_SIGNAL && !v[1]))
		return -EPROTO;
	*ret = (struct keeper_stop){.mode = (enum keeper_stop_mode)v[0], .signal = (int)v[1], .grace_ns = v[2]};
	return 0;
}

int keeper_balloon_encode(struct buf *b, const struct keeper_balloon *m)
{
	return write_numbers(b, &m->target, 1);
}

int keeper_balloon_decode(struct cursor *c, struct keeper_balloon *ret)
{
	uint64_t v[MAX_FIELDS];
	int r = read_numbers(c, v, 1);

	if (r == 0)
		ret->target = v[0];
	return r;
}

int keeper_pause_encode(struct buf *b, const struct keeper_pause *m)
{
	uint64_t v[1] = {m->pause};

	return write_numbers(b, v, 1);
}

int keeper_pause_decode(struct cursor *c, struct keeper_pause *ret)
{
	uint64_t v[MAX_FIELDS];
	int r = read_numbers(c, v, 1);

	if (r == 0 && v[0] > 1)
		r = -EPROTO;
	if (r == 0)
		ret->pause = v[0];
	return r;
}

int keeper_snapshot_encode(struct buf *b, const struct keeper_snapshot *m)
{
	tlv_put_str(b, 1, m->dir);
	if (m->keep)
		tlv_put_u64(b, 2, m->keep);
	return b->error;
}

int keeper_snapshot_decode(struct cursor *c, struct keeper_snapshot *ret)
{
	struct tlv t;
	int r;

	*ret = (struct keeper_snapshot){0};
	while ((r = tlv_next(c, &t)) > 0) {
		if (t.tag & 0x8000)
			continue;
		if (t.tag == 2 && tlv_u64(&t, &ret->keep) == 0 && ret->keep <= KEEPER_UNDER_MAX)
			continue;
		if (t.tag != 1 || ret->dir[0] || t.len >= sizeof(ret->dir) || (t.len && memchr(t.p, 0, t.len)))
			return -EPROTO;
		if (t.len)
			memcpy(ret->dir, t.p, t.len);
	}
	return r < 0 || (ret->dir[0] ? ret->dir[0] != '/' : ret->keep) ? -EPROTO : 0;
}

int keeper_snapshot_reply_encode(struct buf *b, const struct keeper_snapshot_reply *m)
{
	uint64_t v[MAX_FIELDS] = {m->pause_ns, m->memory_bytes, m->window, m->layers,
				  m->booted,   m->pid,		m->state,  m->memory};
	unsigned num = 0;

	for (; num < KEEPER_UNDER_MAX && m->under[num]; num++)
		v[8 + num] = m->under[num];
	return write_numbers(b, v, 8 + num);
}

int keeper_snapshot_reply_decode(struct cursor *c, struct keeper_snapshot_reply *ret)
{
	uint64_t v[MAX_FIELDS];
	int r = read_numbers(c, v, MAX_FIELDS);

	if (r < 0)
		return r;
	if (v[3] > 64 || v[4] > 1)
		return -EPROTO;
	for (unsigned i = 5; i < MAX_FIELDS; i++)
		if (v[i] > INT32_MAX)
			return -EPROTO;
	*ret = (struct keeper_snapshot_reply){.pause_ns = v[0],
					      .memory_bytes = v[1],
					      .window = v[2],
					      .layers = v[3],
					      .booted = v[4],
					      .pid = v[5],
					      .state = v[6],
					      .memory = v[7]};
	memcpy(ret->under, v + 8, sizeof(ret->under));
	return 0;
}

int keeper_spawned_encode(struct buf *b, const struct keeper_spawned *m)
{
	uint64_t v[2] = {m->exec, m->pid};

	return write_numbers(b, v, 2);
}

int keeper_spawned_decode(struct cursor *c, struct keeper_spawned *ret)
{
	uint64_t v[MAX_FIELDS];
	int r = read_numbers(c, v, 2);

	if (r < 0)
		return r;
	if (!v[0] || v[0] > UINT32_MAX || v[1] > UINT32_MAX)
		return -EPROTO;
	*ret = (struct keeper_spawned){.exec = v[0], .pid = (uint32_t)v[1]};
	return 0;
}

int keeper_exec_signal_encode(struct buf *b, const struct keeper_exec_signal *m)
{
	uint64_t v[2] = {m->exec, (uint64_t)m->signal};

	return write_numbers(b, v, 2);
}

int keeper_exec_signal_decode(struct cursor *c, struct keeper_exec_signal *ret)
{
	uint64_t v[MAX_FIELDS];
	int r = read_numbers(c, v, 2);

	if (r < 0)
		return r;
	if (!v[0] || v[1] < 1 || v[1] > 64)
		return -EPROTO;
	*ret = (struct keeper_exec_signal){.exec = v[0], .signal = (int)v[1]};
	return 0;
}

int keeper_claim_encode(struct buf *b, const struct keeper_claim *m)
{
	tlv_put_str(b, 1, m->dir);
	tlv_put(b, 2, m->record, m->record_len);
	tlv_put_u64(b, 3, m->prepare_ns);
	return b->error;
}

int keeper_claim_decode(struct cursor *c, struct keeper_claim *ret)
{
	struct keeper_claim m = {0};
	struct tlv t;
	int r;

	while ((r = tlv_next(c, &t)) > 0) {
		if (t.tag == 1) {
			if (!t.len || t.len >= sizeof(m.dir) || memchr(t.p, '\0', t.len) || t.p[0] != '/')
				return -EPROTO;
			memcpy(m.dir, t.p, t.len);
			m.dir[t.len] = '\0';
		} else if (t.tag == 2) {
			m.record = t.p;
			m.record_len = t.len;
		} else if (t.tag == 3) {
			if (tlv_u64(&t, &m.prepare_ns) < 0)
				return -EPROTO;
		} else if (!(t.tag & 0x8000)) {
			return -EPROTO;
		}
	}
	if (r < 0 || !m.dir[0] || !m.record)
		return -EPROTO;
	*ret = m;
	return 0;
}

int keeper_attach_encode(struct buf *b, const struct keeper_attach *a)
{
	uint64_t v[4] = {a->stdin_open, a->rows, a->cols, a->exec};

	return write_numbers(b, v, a->exec ? 4 : 3);
}

int keeper_attach_decode(struct cursor *c, struct keeper_attach *ret)
{
	uint64_t v[MAX_FIELDS];
	int r = read_numbers(c, v, 4);

	if (r < 0)
		return r;
	if (v[1] > UINT16_MAX || v[2] > UINT16_MAX)
		return -EPROTO;
	*ret = (struct keeper_attach){
		.stdin_open = v[0] != 0, .rows = (uint16_t)v[1], .cols = (uint16_t)v[2], .exec = v[3]};
	return 0;
}
