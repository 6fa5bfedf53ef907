/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's state, and what its files offer each other. One process, one thread, one loop, one link to its keeper (or
 * to the machine's daemon). Each service is a function that is given an opened channel and answers on it; it takes the
 * channel over with mux_set_handler, so that agent.c need not know what lives on it.
 */
#ifndef GUEST_AGENT_H
#define GUEST_AGENT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "base/loop.h"
#include "proto/link.h"
#include "proto/messages.h"

enum agent_role {
	ROLE_GUEST,   /* PID 1 of a microVM: serves after SETUP, commands live in a PID namespace of their own */
	ROLE_MACHINE, /* PID 1 of the machine: serves the host's own root */
	ROLE_FD,      /* on a given descriptor, as an ordinary process, on the present root: for tests */
};

struct exec;
struct tunnel;

/* An overlay of the container: layers.c. */
struct layer {
	char *target; /* where it is mounted: "/", or a mount with cow */
	int lower, upper;
};

/* A volume's file system: its root, which keeps it mounted until volumes_done (volumes.c). */
struct agent_volume {
	int fd;
	bool frozen;
};
#define AGENT_VOLUMES 10 /* proto_mount.number has a digit */

struct agent {
	enum agent_role role;
	struct loop *loop;
	struct link *link;
	struct mux *mux;
	int signal_fd;
	uint64_t ignored; /* signals, as child_plan has them */
	int proc_fd;   /* a /proc of the agent's own PID namespace, whatever the container does to its own; -1: none */
	int sys_fd;    /* the same of /sys, to find disks by serial */
	int dev_fd;    /* the same of /dev */
	int shares_fd; /* the mount of the host's directories, O_PATH; -1: there are none */
	int cgroup_fd; /* the root of the cgroup2 tree, -1: none */
	uint32_t next_cgroup, *stale; /* stale: groups of commands that have ended, to be removed */
	size_t num_stale;
	struct loop_source *sweep; /* removes these soon (cgroup.c) */
	bool sweeps;		   /* it is about to */
	size_t modules_pos;	   /* how far the list of modules has been worked off (boot.h) */
	bool modules_left;	   /* the rest is to be loaded once HELLO is out */
	int loader_fd;		   /* the modules that SETUP needs are still loading, -1: no more */
	pid_t loader_pid;	   /* who loads what comes after those, 0: nobody has */
	int memory_fd;		   /* tells of memory that was plugged (memory.c), -1 */
	uint64_t memory_total;	   /* before any was */
	bool prepared;		   /* PREPARE was done: this guest may be one of many copies */
	bool mounts_ahead;	   /* and the container's own mounts are there (mounts.c) */
	bool writable_ahead;	   /* and a new disk's file system, read-only (disks.c) */
	bool set_up;		   /* SETUP was done */
	bool used;		   /* a command has begun since */
	bool clock_set;		   /* by the host */
	bool lost;		   /* and the link was lost since: this is a copy, until RESUME */
	bool again;		   /* the link's stream begins anew (HOLD) */
	bool greeted;		   /* HELLO was said on it */
	bool upper_disk;	   /* the writable layer is a disk */
	struct proto_setup setup;  /* the container's defaults, zero before SETUP */
	pid_t init_pid;	 /* PID 1 of the container's PID namespace as the agent sees it, 0: no namespace now */
	int init_fd;	 /* a pidfd of it, -1 */
	bool init_holds; /* it is no command, but a holder (spawn.h) */
	struct exec *execs;
	struct tunnel *tunnels;
	struct listener *listeners;
	struct sink *sinks;
	bool pid_namespace; /* commands get one */
	struct disk *disks; /* those there were at PREPARE (disks.c) */
	size_t num_disks;
	struct layer *layers;
	size_t num_layers;
	struct agent_volume volumes[AGENT_VOLUMES];
	unsigned num_volumes;
	bool held;	      /* HOLD is in force */
	unsigned copies_hold; /* and so many copies want the processes to stand still */
};

/* agent.c */
int agent_init(struct agent *a, enum agent_role role) MUST_CHECK;
/* Serves on this stream until the link ends; kills and forgets all that it started for it. 0 or -errno. */
int agent_serve(struct agent *a, int fd) MUST_CHECK;
void agent_done(struct agent *a);
/* Refuses a channel: logs nothing, tells the client. */
void agent_refuse(struct agent *a, uint32_t ch, int code, const char *fmt, ...) PRINTF_LIKE(4, 5);

/* listen.c */
void listen_open(struct agent *a, uint32_t ch, struct cursor *request);
void accept_open(struct agent *a, uint32_t ch, struct cursor *request);
void listen_abandon_all(struct agent *a);

/* exec.c */
void exec_open(struct agent *a, uint32_t ch, struct cursor *request);
/* A child of the agent ended; was_init: it was PID 1 of the commands' namespace. False if it is no exec's leader. */
bool exec_reaped(struct agent *a, pid_t pid, bool was_init, int status, const struct rusage *usage);
/* The link is gone: kills every exec that is not detached and frees them all, but for the image's command of a guest,
 * which another keeper may adopt. */
void exec_abandon_all(struct agent *a);
/* The streams of all commands stand still, or go on. */
void exec_hold_all(struct agent *a, bool hold);
/* The image's command, which waits for a keeper to adopt it, may run for so long from now on. */
int exec_limit_main(struct agent *a, uint64_t timeout_ns);
void secret_open(struct agent *a, uint32_t ch, struct cursor *request); /* secrets.c */
void adopt_open(struct agent *a, uint32_t ch, struct cursor *request);

/* hold.c */
void hold_open(struct agent *a, uint32_t ch, struct cursor *request);
void resume_open(struct agent *a, uint32_t ch, struct cursor *request);
/* The commands' processes stand still from now on, until hold_copy_ended was called as often. Not their streams. */
int hold_for_copy(struct agent *a) MUST_CHECK;
void hold_copy_ended(struct agent *a);

/* tunnel.c */
void connect_open(struct agent *a, uint32_t ch, struct cursor *request);
void read_file_open(struct agent *a, uint32_t ch, struct cursor *request);
void write_file_open(struct agent *a, uint32_t ch, struct cursor *request);
void tunnel_abandon_all(struct agent *a);
/* A byte pipe between the channel, which is answered, and a stream socket, taken in any case. holds: hold_copy_ended at
 * its end, however that comes. */
void tunnel_join(struct agent *a, uint32_t ch, int fd, bool holds);

/* volumes.c */
void volumes_sync(const struct agent *a); /* what takes long of volumes_freeze, ahead of it */
/* Their disks have all that was written, and nothing is written to them until volumes_thaw. */
int volumes_freeze(struct agent *a) MUST_CHECK;
void volumes_thaw(struct agent *a);
void volumes_done(struct agent *a);

/* layers.c */
const struct layer *layers_find(const struct agent *a, const char *target); /* NULL: there is none */
void layers_done(struct agent *a);

/* copy.c */
void copy_open(struct agent *a, uint32_t ch, struct cursor *request);

/* The same for watching files (filewatch.h). */
void watch_open(struct agent *a, uint32_t ch, struct cursor *request);

/* prepare.c */
void prepare_open(struct agent *a, uint32_t ch, struct cursor *request);

/* setup.c */
void setup_open(struct agent *a, uint32_t ch, struct cursor *request);

/* system.c */
void stats_open(struct agent *a, uint32_t ch, struct cursor *request);
void clock_open(struct agent *a, uint32_t ch, struct cursor *request);
void poweroff_open(struct agent *a, uint32_t ch, struct cursor *request);
/* Sets the wall clock (0: leaves it) and mixes the seed into the kernel's pool, which is then reseeded. 0 or -errno. */
int clock_set(uint64_t realtime_ns);
int entropy_add(const uint8_t seed[static 32]);
/* Ends all processes, syncs, unmounts what can be, and powers off or resets. As an ordinary process it just exits. */
void system_end(struct agent *a, bool restart, uint64_t grace_ns) __attribute__((noreturn));

#endif
