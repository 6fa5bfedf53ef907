/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the keeper tells the monitor, and what the monitor tells the keeper: the contract of `supermachine-vmm`.
 *
 * The monitor is started as `supermachine-vmm --config-fd N`. Descriptor N yields one JSON object, then end of file;
 *all files and sockets the VM needs are open descriptors whose numbers stand in it. The monitor opens nothing but
 * /dev/kvm (unless "kvm" gives a descriptor). Unknown members are an error. Example, with every member:
 *
 *	{ "version": 1,
 *	  "name": "ab12cd34",               for messages and the thread names
 *	  "memory": 1073741824,             bytes, multiple of 2 MiB, >= 128 MiB
 *	  "pluggable": true,                of a machine that boots: what is restored from its snapshots may have more
 *	  "cpus": 2,                        1..16
 *	  "kernel": 5,                      descriptor of a bzImage (vmlinuz) or ELF vmlinux
 *	  "initramfs": 6,
 *	  "cmdline": "quiet ...",           appended to the monitor's own
 *	  "restore": { "state": 20, "memory": 21, "workingset": 22 },
 *	                                    instead of kernel, initramfs and cmdline: a snapshot's files; cpus,
 *window size and the kinds of disks are those of the machine that it was made of; workingset (optional): what a machine
 *restored from it noted. Of memory that is an overlay: "under": [23, 24], the memory files that it lies over, lowest
 *first, up to 9 (none: over nothing). Of a branch: "wait": true, the files are whole when the state's lock (flock) can
 *be had "control": 3,                     SOCK_SEQPACKET unix socket to the keeper, see below "console": 7, output of
 *the early serial port and of the virtio console (written, never read) "kvm": 8,                         optional
 *"window": { "size": 1073741824, "parts": [ { "fd": 9, "size": 4096000, "offset": 0 }, ... ] }, the image window
 *(virtio-pmem), absent: none. offset: into the window "blk": [ { "layers": [ { "fd": 10, "size": 4096 } ], "top": {
 *"fd": 12, "size": 10737418240 }, "read_only": false, "serial": "upper" } ], up to 8; layers: read-only, lowest first,
 *may be empty; top: writable sparse file, absent when read_only. "idle": true instead of all that: a disk of size 0, on
 *which a restore may put one; "concat": [ { "fd", "size", "offset" } ] instead of layers: the image window's parts laid
 *out as one read-only disk; "replaceable": true, a machine restored from this one's snapshot may have another disk
 *there, or none "vsock": { "cid": 3, "agent": 13 }, agent: stream socket that the guest's first connection
 *to host port 1024 is joined to "fs": [ { "fd": 14, "read_only": false, "ids": "caller", "symlinks": "opaque", "cache":
 *"auto" } ], up to 64: directories or regular files of the host (descriptors, O_PATH will do), shown to the guest by
 *the virtio-fs device with the tag "supermachine" under the names "0", "1", ... ids: caller|same|none|ranges (then
 *"id_ranges": "u:0:1000:1"), symlinks: opaque|deny|follow, cache: auto|none|always, as the public header has them;
 *"dax": true, large files of it are mapped through the DAX window "dax": 536870912,                size of the device's
 *DAX window, a multiple of 2 MiB; absent: none "watch": 15,                      optional, stream socket, records of
 *proto/hostwatch.h: where the shared directories' events are not this kernel's, somebody who has them "trace": false,
 *stage timestamps as "trace" events "seal": true, "ksm": false, pages may be merged with others' }
 *
 * Of a restore also, both optional: "huge": 25, a copy of parts of the memory on huge pages (hugecopy.h); "learns":
 * true, it is to note a working set, so nothing of the memory may be missing from this kernel's cache.
 *
 * An fs with "server": true is a tree that another process serves: the descriptor is a socket that is connected to it.
 *
 * Control socket: one JSON object per packet.
 *	to the keeper:	 {"event":"started","pid":N} after the seal and before the first KVM_RUN;
 *			 {"event":"exit","reason":"shutdown|reset|panic|triple-fault|error","detail":"..."} last, then
 *the monitor ends (status 0);
 *			 {"event":"trace","stage":"...","ns":N}  {"event":"stats", ...}
 *			 {"event":"vsock","port":P} with one descriptor (SCM_RIGHTS): the guest connected to host port P
 *			 {"event":"share","share":N}: the server of that fs is gone, another is wanted
 *			 {"event":"disk-error","disk":"blk1","errno":N}: the host could not do what the guest asked of a
 *disk; a disk's first, and its first for want of space (ENOSPC, EDQUOT) from the keeper: {"cmd":"stop"}: end now;
 *{"cmd":"pause"}, {"cmd":"resume"}: the guest stands still, its clock too; answered by {"event":"paused"},
 *{"event":"resumed"}, also when it did or ran already; {"cmd":"stats"};
 *			 {"cmd":"connect","port":P} with one descriptor: join it to guest port P;
 *{"cmd":"balloon","target":BYTES}
 *			 {"cmd":"snapshot"} with two empty files (state, memory) and, if the writable disk is to go on
 *in a new top layer (what it has then belongs to the snapshot), a third, of a machine that shares no directories:
 *answered by {"event":"frozen","pause_ns":N} as soon as the machine goes on (with "stay":true it stands still, as if
 *paused), then, when the files hold what it was and (but for "unsynced":true) are synced, by
 *{"event":"snapshot","memory_bytes":N}; at any point by {"event":"snapshot","error":"..."} instead: without a "frozen"
 *before, nothing has changed. "over":N: the memory as what it does not share with the first N files that it came from,
 *"lean":true: nor what is the same there
 *			 {"cmd":"mark"} with a socket that the agent's connection goes on with, and an empty file in
 *which the writable disk goes on, if there is one: keeps in memory what the machine is now (mark.h); answered by
 *{"event":"marked","pause_ns":N}, with "error" if it was not. {"cmd":"rewind"} with another such socket: goes back to
 *that; answered by {"event":"rewound"}, with "error": it could not, and the exit follows
 *			 {"cmd":"share","share":N} with a socket that is connected to the server of that fs, or without:
 *there is none to be had
 *			 {"cmd":"workingset"} with an empty file, of a restored machine: notes in it what the guest has
 *written so far; answered by {"event":"workingset","pages":N}, 0 if nothing was noted. A restore that does not fit ends
 *with reason "error" and a detail that begins with "restore: ". End of file on the control socket means the keeper
 *died: the monitor ends at once.
 */
#ifndef VMM_CONFIG_H
#define VMM_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "supermachine.h"
#include "vmm/ram.h"

#define VMM_MAX_BLK 8
#define VMM_MAX_PARTS 256
#define VMM_MAX_CPUS 16
#define VMM_MIN_MEMORY (128ULL << 20)
#define VMM_MAX_FS 64
#define VMM_AGENT_PORT 1024

struct vmm_file {
	int fd;
	uint64_t size, offset;
};

struct vmm_blk_config {
	struct vmm_file *layers;
	unsigned num_layers;
	struct vmm_file *concat;
	unsigned num_concat;
	struct vmm_file top; /* fd -1: none */
	bool read_only;
	bool idle;	  /* no files: a place for a disk that a restored machine may have */
	bool replaceable; /* such a machine may have another disk there */
	char serial[21];  /* virtio-blk GET_ID: 20 bytes */
};

struct vmm_fs_config {
	int fd;
	bool server; /* fd is a socket to the server of a shared tree (fuse/daemon.h) */
	bool read_only, direct, dax;
	enum sm_fs_ids ids;
	enum sm_fs_symlinks symlinks;
	enum sm_fs_cache cache;
	enum sm_fs_xattrs xattrs;
	char id_ranges[256];
	char *source; /* the host's path, for the audit; "" without */
};

struct vmm_config {
	char name[64];
	uint64_t memory;
	bool pluggable;
	unsigned cpus;
	int kernel, initramfs, control, console, kvm; /* kernel -1: restores */
	int restore_state, restore_memory;	      /* -1: boots */
	int restore_under[OVERLAY_MAX];		      /* that the memory lies over, lowest first */
	unsigned num_under;
	bool restore_wait;	/* somebody holds a lock of the state until both are whole */
	int restore_workingset; /* -1: none */
	int restore_huge;	/* -1: none */
	bool restore_learns;	/* it is to note a working set */
	char *cmdline;
	uint64_t window_size;
	struct vmm_file *window;
	unsigned num_window;
	struct vmm_blk_config blk[VMM_MAX_BLK];
	unsigned num_blk;
	bool has_vsock;
	uint32_t vsock_cid;
	int vsock_agent;
	struct vmm_fs_config fs[VMM_MAX_FS];
	unsigned num_fs;
	int watch;	   /* stream to who watches these on the host; -1: none */
	int audit;	   /* file for a record of what the guest does there; -1: none */
	uint64_t dax_size; /* of the window; 0: none */
	bool trace, seal, ksm;
};

/* Parses and checks a configuration (json: len bytes, untrusted). On failure *cfg needs no vmm_config_done. */
int vmm_config_parse(const char *json, size_t len, struct vmm_config *cfg, struct sm_error *err) MUST_CHECK;
void vmm_config_done(struct vmm_config *cfg);

#endif
