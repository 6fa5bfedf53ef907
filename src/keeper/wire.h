/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What clients say to a keeper beside the agent's own services, which it passes through once the guest is set up
 * (PROTO_EXEC, PROTO_CONNECT, PROTO_READ_FILE, PROTO_WRITE_FILE, PROTO_STATS). Each is a channel of proto/frame.h;
 * requests and replies are TLV.
 *
 * PROTO_KEEPER_STATUS: OPENED with a keeper_status, then CLOSE 0.
 *
 * PROTO_KEEPER_WAIT: OPENED; an EVENT keeper_news "started" when the command runs (at once if it does), "ended" with
 * the exit record when the VM is gone, then CLOSE 0. owner: the VM ends (client-gone) when this channel does.
 *
 * PROTO_KEEPER_STOP: OPENED and CLOSE 0 when the request is under way; CLOSE -ESRCH when the command has ended.
 *
 * PROTO_KEEPER_ATTACH: OPENED when the command runs; from then on the channel is as one of PROTO_EXEC. CLOSE -EBUSY
 * when another client has it.
 *
 * PROTO_KEEPER_BALLOON: OPENED and CLOSE 0 when the monitor has been told; CLOSE -EINVAL for more than the VM has. The
 * guest follows as it can.
 *
 * PROTO_KEEPER_PAUSE: OPENED and CLOSE 0 when the guest stands still (or goes on); CLOSE -EALREADY when it did, -EAGAIN
 * while it starts, -ESRCH when it ends. While it stands still the agent's services are refused with -EHOSTDOWN; a stop
 * lets it go on first. What limits its time is put off by as long.
 *
 * PROTO_KEEPER_SNAPSHOT: OPENED with a keeper_snapshot_reply and CLOSE 0 when the VM is in the files `state` and
 * `memory` of the directory, synced, and runs again; its disk as it was then is in the first `layers` layers of the
 * VM's directory. CLOSE -EHOSTDOWN while it is paused, -EOPNOTSUPP for one with directories of the host, else as above,
 * or what failed; the VM goes on.
 *
 * PROTO_KEEPER_SUSPEND: OPENED and CLOSE 0 when the VM is in its own directory (record.h), synced; the keeper ends
 * then. CLOSE -EPERM for a VM with an owner, else as above; the VM goes on.
 *
 * PROTO_KEEPER_SPAWN: a proto_exec request, for a command that is the keeper's (execs.h). OPENED with a keeper_spawned
 * and CLOSE 0 when it runs; CLOSE -ENOENT or -EACCES when it cannot be executed, -EMFILE for too many.
 *
 * PROTO_KEEPER_EXEC_SIGNAL: OPENED and CLOSE 0 when the signal is on its way to that command; CLOSE -ESRCH when it has
 * ended. PROTO_KEEPER_ATTACH with its number joins such a command; the client's going and its end of file leave it be.
 *
 * A keeper started with --owner waits with the command for the first ATTACH, unless --background.
 */
#ifndef KEEPER_WIRE_H
#define KEEPER_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/messages.h"

struct keeper_status {
	enum sm_vm_state state;
	int64_t keeper_pid, monitor_pid, started_ns; /* pids as seen where the keeper runs */
	bool attached;
};
int keeper_status_encode(struct buf *b, const struct keeper_status *s);
int keeper_status_decode(struct cursor *c, struct keeper_status *ret); /* 0 or -EPROTO, as all decoders here */

struct keeper_wait {
	bool owner;
};
int keeper_wait_encode(struct buf *b, const struct keeper_wait *w);
int keeper_wait_decode(struct cursor *c, struct keeper_wait *ret);

enum keeper_news_kind { KEEPER_STARTED = 1, KEEPER_ENDED = 2 };
#define KEEPER_NEWS_MAX 4000 /* bytes of an exit record: an event is at most 4 KiB */
struct keeper_news {
	enum keeper_news_kind kind;
	const uint8_t *record; /* ENDED: the JSON of exit.json, within the bytes decoded from */
	size_t record_len;
};
int keeper_news_encode(struct buf *b, const struct keeper_news *n);
int keeper_news_decode(struct cursor *c, struct keeper_news *ret);

enum keeper_stop_mode {
	KEEPER_STOP_GRACE = 1,	/* the signal (0: the VM's stop signal), SIGKILL after grace_ns; reason "stopped" */
	KEEPER_STOP_SIGNAL = 2, /* the signal, nothing else; before the command runs a deadly one ends the VM */
	KEEPER_STOP_NOW = 3,	/* the monitor ends at once, the disk as after a power cut; reason "stopped" */
};
struct keeper_stop {
	enum keeper_stop_mode mode;
	int signal;
	uint64_t grace_ns; /* UINT64_MAX: no limit */
};
int keeper_stop_encode(struct buf *b, const struct keeper_stop *s);
int keeper_stop_decode(struct cursor *c, struct keeper_stop *ret);

struct keeper_balloon {
	uint64_t target; /* bytes that the guest is to give up; 0: none */
};
int keeper_balloon_encode(struct buf *b, const struct keeper_balloon *m);
int keeper_balloon_decode(struct cursor *c, struct keeper_balloon *ret);

struct keeper_pause {
	bool pause; /* else: go on */
};
int keeper_pause_encode(struct buf *b, const struct keeper_pause *m);
int keeper_pause_decode(struct cursor *c, struct keeper_pause *ret);

struct keeper_snapshot {
	char dir[1024]; /* absolute, empty */
	bool unsynced;	/* the files need not outlive a power cut */
};
int keeper_snapshot_encode(struct buf *b, const struct keeper_snapshot *m);
int keeper_snapshot_decode(struct cursor *c, struct keeper_snapshot *ret);
struct keeper_snapshot_reply {
	uint64_t pause_ns, memory_bytes; /* how long the VM stood still; what is in the memory file */
	uint64_t window;		 /* of the image window that the machine has, if it is not as booted */
	uint64_t layers;		 /* of its disk; 0: it has none */
	bool booted;			 /* its devices are those of a VM that has booted */
};
int keeper_snapshot_reply_encode(struct buf *b, const struct keeper_snapshot_reply *m);
int keeper_snapshot_reply_decode(struct cursor *c, struct keeper_snapshot_reply *ret);

struct keeper_spawned {
	uint64_t exec; /* its number, from 1 */
	uint32_t pid;  /* in the guest */
};
int keeper_spawned_encode(struct buf *b, const struct keeper_spawned *m);
int keeper_spawned_decode(struct cursor *c, struct keeper_spawned *ret);
struct keeper_exec_signal {
	uint64_t exec;
	int signal;
};
int keeper_exec_signal_encode(struct buf *b, const struct keeper_exec_signal *m);
int keeper_exec_signal_decode(struct cursor *c, struct keeper_exec_signal *ret);

struct keeper_attach {
	bool stdin_open;
	uint16_t rows, cols; /* 0: as it is */
	uint64_t exec;	     /* a detached command; 0: the VM's own */
};
int keeper_attach_encode(struct buf *b, const struct keeper_attach *a);
int keeper_attach_decode(struct cursor *c, struct keeper_attach *ret);

#endif
