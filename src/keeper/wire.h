/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What clients say to a keeper beside the agent's own services, which it passes through once the guest is set up
 * (PROTO_EXEC, PROTO_CONNECT, PROTO_READ_FILE, PROTO_WRITE_FILE, PROTO_STATS). Each is a channel of proto/frame.h;
 * requests and replies are TLV.
 *
 * PROTO_KEEPER_STATUS: OPENED with a keeper_status, then CLOSE 0.
 *
 * PROTO_KEEPER_WAIT: OPENED; an EVENT keeper_news "started" when the command runs (at once if it does), "ended" with
 * the exit record when the VM is gone, then CLOSE 0. owner: the VM ends (client-gone) when this channel does. While it
 * goes to the disk it is not said to run; if that fails, "started" is said then, maybe once more. forwards:
 * "suspending" comes when it begins to go there, after which no new connection is to be carried until "started".
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
 * VM's directory. CLOSE -EHOSTDOWN while it is paused, -EOPNOTSUPP for one with mounts that cannot be saved, -ESTALE
 * for a diff over other files than its memory comes from, else as above, or what failed; the VM goes on.
 *
 * The same for a branch (no directory): OPENED as soon as the VM runs again, while its memory is still being copied.
 * The files are memory that the keeper holds until the channel is closed, to be opened by way of /proc/PID/fd; each is
 * whole when the lock of `state` can be had. CLOSE -ENOMEM when there is no room for a copy.
 *
 * Both of a VM with volumes: the channel stays open, and nothing is written to these until the client has copied them:
 * it then sends EOF (stream 0), which is answered by EOF (1), or CLOSE if they were not held all the time.
 *
 * PROTO_KEEPER_SUSPEND: OPENED and CLOSE 0 when the VM is in its own directory (record.h), synced; the keeper ends
 * then. CLOSE -EPERM for a VM with an owner, else as above; the VM goes on. The agent's services are refused with
 * -ESHUTDOWN meanwhile.
 *
 * PROTO_KEEPER_MARK: OPENED and CLOSE 0 when the monitor has in memory what the VM is now. CLOSE -EOPNOTSUPP for one
 * with mounts, ports or secrets, else as SNAPSHOT. PROTO_KEEPER_REWIND: OPENED and CLOSE 0 when the VM is what it was
 * then, but for its clock, its random numbers and its machine id, and its command runs: all that has happened since is
 * undone, every channel to the guest is closed, its log and detached commands are forgotten. CLOSE -ENODATA without a
 * mark, or when it was saved or branched since, -EBUSY while it is saved, -EHOSTDOWN while it is paused.
 *
 * PROTO_KEEPER_SPAWN: a proto_exec request, for a command that is the keeper's (execs.h). OPENED with a keeper_spawned
 * and CLOSE 0 when it runs; CLOSE -ENOENT or -EACCES when it cannot be executed, -EMFILE for too many.
 *
 * PROTO_KEEPER_EXEC_SIGNAL: OPENED and CLOSE 0 when the signal is on its way to that command; CLOSE -ESRCH when it has
 * ended. PROTO_KEEPER_ATTACH with its number joins such a command; the client's going and its end of file leave it be.
 *
 * PROTO_KEEPER_SECRET: a proto_secret that the record names; OPENED and CLOSE 0 when the keeper has it. The command
 * waits for all of them. CLOSE -ENOENT for another, -EALREADY when it is there or too late.
 *
 * PROTO_KEEPER_CLAIM: a spare (spare.c) becomes the VM of this record, which is in this directory from now on or will
 * be. OPENED when it is that; from then on the channel is as one of PROTO_KEEPER_WAIT with owner. CLOSE, or the end of
 * the connection: it is of no use; -EALREADY: another has it. Until it is claimed a spare serves this, STATUS and STOP
 * alone.
 *
 * PROTO_KEEPER_WATCH: OPENED; from then on records of proto/hostwatch.h to and from the monitor, until either goes.
 * CLOSE -ENOENT where the monitor needs nobody to watch for it, -EBUSY when somebody does or did.
 *
 * PROTO_KEEPER_SHARE: u8 number of a mount that a program serves, as the monitor counts. OPENED when the monitor wants
 * a connection to that program: then the client connects, or closes with -errno. From then on bytes, until either goes.
 * CLOSE -ENOENT where there is no such mount, -EBUSY when another channel waits already.
 *
 * PROTO_KEEPER_COUNTERS: OPENED with the monitor's counters, JSON text, and CLOSE 0. CLOSE -EAGAIN while it starts,
 * -ESRCH when it ends, -EBUSY when too many ask.
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
/* The socket on which a keeper in a machine listens before its monitor starts, for the process that carries what the
 * monitor needs for that (hostshare.c): one client. ret: PATH_MAX bytes. 0 or -ENAMETOOLONG. */
int wire_early_socket(const char *socket, char *ret) MUST_CHECK;
int keeper_status_encode(struct buf *b, const struct keeper_status *s);
int keeper_status_decode(struct cursor *c, struct keeper_status *ret); /* 0 or -EPROTO, as all decoders here */

struct keeper_wait {
	bool owner;
	bool forwards; /* ports: is told "suspending", too */
};
int keeper_wait_encode(struct buf *b, const struct keeper_wait *w);
int keeper_wait_decode(struct cursor *c, struct keeper_wait *ret);

enum keeper_news_kind { KEEPER_STARTED = 1, KEEPER_ENDED = 2, KEEPER_SUSPENDING = 3 };
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

#define KEEPER_UNDER_MAX 9 /* files that a VM's memory comes from (vmm/overlay.h) */

struct keeper_snapshot {
	char dir[1024]; /* absolute, empty; "": a branch */
	/* A diff: of how many files the VM's memory is known to come from; `memory` has what it does not share with
	 * these. 0: a whole snapshot. */
	uint64_t keep;
};
int keeper_snapshot_encode(struct buf *b, const struct keeper_snapshot *m);
int keeper_snapshot_decode(struct cursor *c, struct keeper_snapshot *ret);
struct keeper_snapshot_reply {
	uint64_t pause_ns, memory_bytes; /* how long the VM stood still; what is in the memory file */
	uint64_t window;		 /* of the image window that the machine has, if it is not as booted */
	uint64_t layers;		 /* of its disk; 0: it has none */
	bool booted;			 /* its devices are those of a VM that has booted */
	/* A branch's: the keeper's process and its descriptors, as seen where it runs; `under` those of the files that
	 * the memory lies over, lowest first, as many as are not 0. */
	uint64_t pid, state, memory, under[KEEPER_UNDER_MAX];
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

struct keeper_claim {
	char dir[1024];	       /* absolute */
	const uint8_t *record; /* the JSON of config.json, within the bytes decoded from */
	size_t record_len;
	uint64_t prepare_ns; /* what its owner has spent until now */
};
int keeper_claim_encode(struct buf *b, const struct keeper_claim *m); /* -EMSGSIZE: too long for a message */
int keeper_claim_decode(struct cursor *c, struct keeper_claim *ret);

struct keeper_attach {
	bool stdin_open;
	uint16_t rows, cols; /* 0: as it is */
	uint64_t exec;	     /* a detached command; 0: the VM's own */
};
int keeper_attach_encode(struct buf *b, const struct keeper_attach *a);
int keeper_attach_decode(struct cursor *c, struct keeper_attach *ret);

#endif
