/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files that describe one VM, in its own directory. The contract between the library, which makes and reads the
 * directory on the host, and the keeper, which runs it (on the host or in the machine).
 *
 *	config.json	the library, once: what the VM is (struct vm_record)
 *	start.json	the library, at each start: which boot of the host, where, for whom (struct vm_start)
 *	exit.json	how its last run ended (struct vm_exit). The keeper writes it; the library where no
 *			keeper could. Absent while it runs: the library removes it before a start
 *	top		the private writable disk layer over the shared template; an empty file is a fresh one
 *	layer.0 ...	what snapshots have frozen of it, lowest first, between template and top (disk.c)
 *	suspended/	a VM that is suspended: state, memory (vmm/snapshot.h) and suspended.json (struct
 *			vm_suspended), whole as soon as it has this name; the disk is its first `layers` layers then,
 *			and what is in the top does not count; and base, if the memory is not whole (suspend.c)
 *	volume.N	what was written over volume N, if it is read-only or a copy; volume.N.base is that copy
 *			(vm_mount)
 *	waiting		why a keeper waits before it starts its VM, while it does (admission.h)
 *	log, log.1	what the command printed (log.h)
 *	exec.N...	commands that run detached (execs.h)
 *	events, events.1	what has happened to it (events.h)
 *	console, console.1	what the guest's kernel printed
 *	cgroup		on a host, while a keeper runs it: the cgroup of a VM with a share of the CPUs (cpugroup.h)
 *	stats		the monitor's counters at its end, of a kept VM (vmm/stats.h)
 *	vmm.log, keeper.log	what the programs had to complain about
 *
 * All JSON files are replaced whole (temporary name, fsync, rename). A string that is not UTF-8 is stored as
 * {"hex":"..."}. Unknown members are ignored, a "version" above ours is refused.
 */
#ifndef KEEPER_RECORD_H
#define KEEPER_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define VM_RECORD_VERSION 1
#define VM_RECORD_MAX (4u << 20) /* bytes of any of the JSON files */
#define VM_ID_DIGITS 12
#define VM_NAME_MAX 63
#define VM_MAX_MOUNTS 64
#define VM_MAX_VOLUMES 6 /* of a base's disks (config.c) the image and the writable layer take two */
#define VM_MAX_LAYERS 63
#define VM_MAX_SECRETS 32

struct vm_part {
	char *path;	       /* absolute */
	uint64_t size, offset; /* bytes; offset into the image window */
};

struct vm_mount {
	char *source; /* absolute */
	bool served;  /* it is a socket on which somebody serves a backend of his own */
	char *target; /* absolute, without . .. and empty parts; outer ones come first */
	bool read_only, cow, direct, dax;
	enum sm_fs_ids ids;
	enum sm_fs_symlinks symlinks;
	enum sm_fs_cache cache;
	enum sm_fs_xattrs xattrs;
	char *id_ranges; /* NULL: none */
	char *volume;	 /* NULL: a directory of the host; else its name, and source is its file (lib/volume.h) */
	bool no_copy, anonymous; /* volume: as the public header has them */
	/* volume: what it was in the snapshot that the VM goes on from, a disk of the VM's own: in its directory
	 * `volume.N.base`, which several have links to, and over it `volume.N`, N counting its volumes from 0. */
	bool own;
	bool replaced; /* own: it is not mounted any more, but the guest that was saved knows its disk */
	bool is_file;  /* not in the record: found when the source is opened */
};

struct vm_record {
	char id[VM_ID_DIGITS + 1];
	char name[VM_NAME_MAX + 1]; /* "": none */
	char *image;		    /* as the user spelled it */
	char *image_id;
	int64_t created_ns; /* wall clock */
	bool keep;
	bool cold; /* boots, though it might start from a snapshot */
	/* the monitor's part */
	uint64_t memory;
	unsigned cpus;
	unsigned cpu_limit;		    /* of all of them, in thousandths of one (cpugroup.h); 0: none */
	char *kernel, *initramfs, *cmdline; /* cmdline NULL: nothing to add */
	uint64_t window_size;
	uint64_t dax_size; /* of the window for files of mounts; 0: none */
	struct vm_part *parts;
	unsigned num_parts;
	bool root_blk;	     /* the image as a read-only disk instead of the pmem window */
	char *disk_template; /* absolute path of the read-only lower layer; NULL: tmpfs */
	uint64_t disk_size;
	unsigned layers; /* that the disk had when the VM was made: of the snapshot that it goes on from */
	struct vm_mount *mounts;
	unsigned num_mounts;
	char *share_group; /* mounts are served by file servers that VMs of one group have in common; NULL: by its own
			      monitor */
	char *audit;	   /* file for a record of what it does to the host's files; NULL: none */
	/* the agent's part */
	char *hostname;
	char **argv, **env; /* env: the container's whole environment */
	bool no_command;    /* argv is for show: nothing runs until somebody has it run (proto_exec.hold) */
	char *user, *cwd;   /* NULL: root, "/" */
	char **volumes, **labels;
	char **dns;
	char **hosts; /* "ADDRESS NAME" */
	char **tmpfs; /* proto_setup's */
	bool read_only, trace;
	bool ksm;	/* its memory may be merged with that of others */
	char **secrets; /* their names: what they are is kept nowhere (secrets.c) */
	char **limits;	/* proto_setup's */
	char **ports; /* "ADDRESS HOST GUEST", ADDRESS "*" for all of the host's, HOST 0 for a free one (lib/ports.c) */
	bool tty, stdin_open;
	uint16_t rows, cols;
	int stop_signal; /* Linux x86 number */
	uint64_t timeout_ns;
	uint64_t ttl_ns;  /* how long each start of it lasts at most, whatever it does; 0: no limit */
	uint64_t idle_ns; /* for how long nobody may use it (idle.c); 0: for ever */
	enum sm_on_idle on_idle;
};

/* JSON text from a record; malloc'ed through *ret. */
int vm_record_format(const struct vm_record *r, char **ret, struct sm_error *err) MUST_CHECK;
/* Checks everything: json is untrusted. On failure there is nothing to free. */
int vm_record_parse(const char *json, size_t len, struct vm_record *ret, struct sm_error *err) MUST_CHECK;
void vm_record_done(struct vm_record *r);
/* How many volumes it has; writable: but for those that it only reads. */
unsigned vm_volumes(const struct vm_record *r, bool writable);
/* "volume.N", or with base "volume.N.base": a file of a VM's directory and of a snapshot's. */
#define VM_VOLUME_FILE 24
void vm_volume_file(unsigned number, bool base, char ret[static VM_VOLUME_FILE]);
/* All of its mounts can go into a snapshot. */
bool vm_mounts_saved(const struct vm_record *r);
/* Whether a program of the user's serves one of its mounts. */
bool vm_has_served(const struct vm_record *r);

/* A snapshot, and which of that name. */
struct vm_origin {
	char name[VM_NAME_MAX + 1]; /* "": none */
	int64_t created_ns;
};

struct vm_start {
	char host_boot_id[40]; /* from /proc/sys/kernel/random/boot_id of the host */
	char boot_id[40];      /* of where it runs: the same, or the machine's instance (machine/seat.h) */
	char socket[512];      /* the keeper's, as it sees the path */
	bool detach;
	bool in_machine;
	char base[40]; /* the base snapshot that it started from (lib/base.h), "": none */
	int64_t base_created_ns;
	struct vm_origin origin; /* that its memory came from, by way of VMs that it was branched from, too */
	uint64_t prepare_ns;	 /* what the library spent before it started the keeper */
};
int vm_start_format(const struct vm_start *s, char **ret, struct sm_error *err) MUST_CHECK;
int vm_start_parse(const char *json, size_t len, struct vm_start *ret, struct sm_error *err) MUST_CHECK;

/* What it takes to let a suspended VM go on: keeper_args has the meaning. */
struct vm_suspended {
	uint64_t window;
	unsigned layers;
	bool booted;
	char **volumes; /* which files they are, in the order of the mounts (suspend.c), of its own ones "-"; NULL: none
			 */
};
#define VM_SUSPENDED "suspended"
#define VM_SUSPENDED_BASE "base" /* there: the lowest of what the memory lies over, if it is not whole */
void vm_suspended_done(struct vm_suspended *s);
int vm_suspended_format(const struct vm_suspended *s, char **ret, struct sm_error *err) MUST_CHECK;
int vm_suspended_parse(const char *json, size_t len, struct vm_suspended *ret, struct sm_error *err) MUST_CHECK;

/* In the directory of a base's VM: what is restored from it may have more memory than it. */
#define VM_PLUGGABLE "pluggable"
#define VM_BASE_DISK "disk"	  /* in a base's directory: what its guest wrote to its disk */
#define VM_PLUG_MAX (64ULL << 30) /* so much more, at most (virtio/mem.h) */

struct vm_exit {
	struct sm_outcome outcome;
	int64_t started_ns, finished_ns; /* wall clock; started 0: the command never ran */
	bool busy;			 /* it was not even tried: there was no room for it (keeper/admission.c) */
	bool unsupported;		 /* nor this: it asks for what there is not where it was to run */
	bool restore_failed;		 /* it never ran since the snapshot that it was to start from is of no use */
};
int vm_exit_format(const struct vm_exit *x, char **ret, struct sm_error *err) MUST_CHECK;
int vm_exit_parse(const char *json, size_t len, struct vm_exit *ret, struct sm_error *err) MUST_CHECK;

/* "stop", "suspend", "kill". And back: -EINVAL for another. */
const char *vm_on_idle_name(enum sm_on_idle v);
int vm_on_idle_parse(const char *name, enum sm_on_idle *ret) MUST_CHECK;

/* "exited" ...; "none" for what is unknown. And back: SM_REASON_NONE for an unknown name. */
const char *vm_reason_name(enum sm_reason reason);
enum sm_reason vm_reason_parse(const char *name);

/* What an agent says of a command's end (enum proto_exit_reason of proto/messages.h; anything else: exited). */
enum sm_reason vm_reason_of_exit(int proto_exit_reason);

/* Appends a stage; silently not when all places are taken. */
void vm_outcome_stage(struct sm_outcome *o, const char *name, uint64_t ns);

/* True for a name that a VM may have. */
bool vm_name_valid(const char *name);
/* True for VM_ID_DIGITS lower-case hexadecimal digits. */
bool vm_id_valid(const char *id);

#endif
