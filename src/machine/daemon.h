/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's daemon: one process and one loop that own the emulator, the link to its agent, and the clients. See
 * daemon.c for its life, session.c for what a client may ask, pipe.c for raw pipes.
 */
#ifndef MACHINE_DAEMON_H
#define MACHINE_DAEMON_H

#include "base/loop.h"
#include "machine/emulator.h"
#include "machine/wire.h"
#include "proto/clocksync.h"
#include "proto/link.h"

/*
 * DOWN -> BOOTING		a request that needs the machine
 * BOOTING -> UP		the agent said HELLO
 * BOOTING -> DOWN		it could not: every waiting request fails with the reason
 * UP -> DOWN			the emulator or the link died: every channel fails with the reason
 * any -> STOPPING		asked to, idle, or SIGTERM; then the process ends
 */
enum daemon_state { DAEMON_DOWN, DAEMON_BOOTING, DAEMON_UP, DAEMON_STOPPING };

struct session;

/* removed.c */
#define REMOVED_DIRS 5
struct removed {
	int fd, watches[REMOVED_DIRS];
	struct buf pending; /* paths, each with its NUL */
	struct loop_source *src, *timer;
};

struct daemon {
	struct loop *loop;
	struct clocksync clock; /* the machine's */
	enum daemon_state state;
	const char *runtime_dir, *data_dir, *state_dir, *libexec_dir;
	char *dir;	  /* runtime_dir/machine */
	int lock, listen; /* -1: none */
	int watch;	  /* of the lock, that it is still there; -1: none */
	uint64_t memory, idle_ns, up_since_ns;
	unsigned cpus;
	char boot_id[33];
	char died[200]; /* why it is down since it was last up; "": it was not */
	struct removed removed;
	struct emulator emu;
	struct link *agent; /* NULL unless BOOTING, UP or STOPPING */
	struct session *sessions;
	unsigned busy; /* open channels to the agent, and BUSY holds */
	/*
	 * When the last command's view of the host's files has expired. A new link is answered no sooner, so that of
	 * two commands one after the other the second sees what the host did in between.
	 */
	uint64_t fresh_at_ns;
	struct loop_source *fresh_timer, *clock_timer;
	bool clock_goes; /* the latter is set */
	struct loop_source *listen_src, *watch_src, *emu_src, *files_src, *signal_src, *idle_timer, *boot_timer,
		*stop_timer;
};

/* daemon.c */
/* Serves until it is to end, and takes the machine down. daemon_done then tells those who waited for that, and frees.
 */
int daemon_run(struct daemon *d, int signal_fd, struct sm_error *err) MUST_CHECK;
void daemon_done(struct daemon *d);
void daemon_busy(struct daemon *d, int change);
/* Boots it if it is down. A failure is told to the waiting sessions, as any later one. */
void daemon_want_up(struct daemon *d);
void daemon_begin_stop(struct daemon *d);
/* The lock is still where others look for it: what is in the directory is ours. */
bool daemon_owns(const struct daemon *d);
void daemon_status(const struct daemon *d, struct seat_machine_status *ret);
/* The mux to the agent, NULL unless UP. */
struct mux *daemon_agent(struct daemon *d);

/* removed.c: what this host removes is let go of in the machine. */
int removed_begin(struct daemon *d) MUST_CHECK;
/* Again: also in the directories that were made meanwhile. */
void removed_watch(struct daemon *d);

/* session.c */
int session_accept(struct daemon *d, int fd) MUST_CHECK; /* owns fd */
/* The machine is up (r 0) or will not be (why): those that wait are served or refused. */
void sessions_up(struct daemon *d, const struct sm_error *why);
/* Everybody who waits for the stop is told OK; all connections close. */
void sessions_end(struct daemon *d);
bool sessions_waiting(const struct daemon *d);

/* pipe.c: fd <-> a PROTO_CONNECT channel. Owns fd from here on; ends by itself, also when the link does. */
struct pipe;
typedef void (*pipe_open_fn)(void *arg, int r, const char *why);
/* request: an encoded proto_connect. done is called once: the channel is open (r 0, fd now carries its bytes) or is not
 * (the pipe is gone, and fd is the caller's again). */
int pipe_open(struct daemon *d, int fd, const struct buf *request, pipe_open_fn done, void *arg,
	      struct pipe **ret) MUST_CHECK;
/* Before done was called: forgets the caller. */
void pipe_cancel(struct pipe *p);

#endif
