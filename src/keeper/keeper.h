/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper's own state: one VM, one event loop, one thread. Not for other rooms (they use record.h, log.h, wire.h).
 *
 * A VM's life, as `phase`:
 *
 *	BOOT	the monitor was started; until the agent's HELLO
 *	SETUP	PROTO_SETUP is under way
 *	READY	the container is there; with --owner the command waits for the first ATTACH
 *	MAIN	PROTO_EXEC of the command was sent, from its OPENED on state is RUNNING
 *	ENDING	the command has ended (or was given up): the guest powers off, or the monitor is told to stop
 *	ENDED	the monitor is reaped, exit.json written, clients told; the keeper leaves when their links are drained
 *
 * A spare goes from READY back to SETUP, when it becomes somebody's (spare.c).
 *
 * A base's life is BOOT; SETUP, which is PROTO_PREPARE and the snapshot then; ENDING; ENDED.
 *
 * Every phase may go to ENDING (a stop, a failure, a limit on time) and to ENDED (the monitor went by itself). Only
 * keeper_ended enters ENDED, and it is called for the monitor's end alone: the keeper dies with its VM and not before.
 */
#ifndef KEEPER_KEEPER_H
#define KEEPER_KEEPER_H

#include <sys/types.h>

#include "base/loop.h"
#include "base/util.h"
#include "keeper/cpugroup.h"
#include "keeper/disk.h"
#include "keeper/events.h"
#include "keeper/execs.h"
#include "keeper/join.h"
#include "keeper/log.h"
#include "keeper/record.h"
#include "keeper/wire.h"
#include "proto/clocksync.h"
#include "proto/flow.h"
#include "proto/link.h"
#include "proto/mux.h"
#include "proto/relay.h"

enum keeper_phase { PHASE_BOOT, PHASE_SETUP, PHASE_READY, PHASE_MAIN, PHASE_ENDING, PHASE_ENDED };

/* Limits on time, in ns; tests make them short. */
struct keeper_limits {
	uint64_t boot;	   /* from the start to the command's, not counting time in which no CPU was to be had */
	uint64_t restore;  /* the same for one that starts from a snapshot */
	uint64_t owner;	   /* until a keeper with --owner has its owner */
	uint64_t poweroff; /* from the command's end to the monitor's */
	uint64_t stop;	   /* from {"cmd":"stop"} to SIGKILL */
	uint64_t late;	   /* how much later than the agent the keeper ends a command whose time is over */
};

struct keeper_args {
	const char *dir, *socket, *vmm;
	bool owner;
	bool background;     /* owner: the command does not wait to be attached to; its output goes to the log */
	const char *restore; /* the directory of a snapshot to start from; NULL: boot */
	const char *files;   /* restore: of a branch, the names there of state and memory (branch.c); else NULL */
	const char *under;   /* restore: names there of the files that the memory lies over, a colon between; or NULL */
	bool adopt;	     /* restore: a guest with its container and command, which goes on */
	bool booted;	     /* restore: its devices are those of a VM that has booted, not of a base */
	bool resume;	     /* the VM itself is suspended: it goes on, and the three above follow from that */
	bool base;	     /* boot, save the idle guest into the VM's directory as files `state` and `memory`, end */
	uint64_t window;     /* base, restore: the size of the image window, which the image need not be in; 0: none */
	uint64_t plugged; /* restore: of its memory, what the base's guest has not; VM_PLUGGABLE (record.h) was there */
	bool disk_ahead;  /* restore: the base's guest has mounted this VM's disk, unless that was written to */
	uint64_t patience; /* how long it may wait to be admitted (admission.c) */
	uint64_t reserve;  /* bytes of memory that no start may take */
	uint64_t spare;	   /* restore: a spare (spare.c): how long it waits to be claimed; 0: it is none */
	bool watched;	   /* the mounts are another kernel's, which has their events: somebody there will watch */
	uint64_t prepare_ns;
	unsigned clients; /* at once; more are refused (server.c) */
	struct keeper_limits limits;
};

#define CONSOLE_TAIL 2048

struct monitor {
	pid_t pid;
	int pidfd, control, console;
	struct loop_source *pid_src, *control_src, *console_src, *kill_timer;
	bool started, stopping;
	uint64_t step_ns;	      /* when the last of its steps to the start was done, since its own start */
	char reason[32], detail[256]; /* of its exit event; "" until then */
	int disk_error;		      /* errno of a disk that the host could not serve; want of space goes first */
	char tail[CONSOLE_TAIL];      /* the console's last bytes */
	size_t tail_len;
	struct vm_log console_log;
	int workingset; /* a file that the monitor writes it to, -1 */
};

struct client;
struct detached;
struct shares;

/* Commands that run detached (execs.c). */
struct execs {
	struct detached *list; /* that run, or begin to */
	unsigned running, last_id;
	unsigned ended[EXECS_KEPT], num_ended; /* a ring of those whose files are kept */
};

/* What is to be written of what has happened (events.c). */
struct events {
	struct vm_log log;
	struct buf pending;
	struct loop_source *timer;
	int64_t last_ns;
};

/* A VM that a user paused. */
struct pause {
	bool on;	       /* the guest stands still */
	bool under_way;	       /* the monitor was told and has not answered */
	struct client *client; /* who waits for that answer, NULL: nobody */
	uint32_t ch;
	uint64_t time_left; /* of the command's time limit, when it was paused; 0: none */
};

/* A VM that was made before anybody wanted it (spare.c). */
struct spare {
	enum {
		SPARE_NONE,
		SPARE_WAITS,
		SPARE_CLAIMED,
		SPARE_BECOMES,
		SPARE_TAKEN
	} stage;	       /* NONE: it is an ordinary one */
	bool stands;	       /* the guest stands still */
	bool renamed;	       /* it has another host name now */
	unsigned answers;      /* of the monitor to that, which are still to come */
	struct client *client; /* CLAIMED, BECOMES: who has it, and its channel */
	uint32_t ch;
	uint64_t claimed_ns, prepare_ns;
	char *dir; /* where it is then */
};

/* How the monitor is to save the guest (monitor_snapshot). */
struct monitor_saving {
	int fds[3];		   /* state, memory, top; -1: not open */
	bool stay, over, unsynced; /* over: the memory as what differs from `keep` files */
	bool lean;		   /* over: and nothing else, whatever it takes */
	unsigned keep;
};

/* What children of this VM start from (branch.c). */
struct branch {
	struct client *client; /* who starts them, and its channel */
	uint32_t ch;
	int fds[2]; /* state, memory */
	bool whole; /* they have been written */
	struct branch *next;
};

/* A snapshot of a running VM on its way (snapshot.c). */
struct saving {
	enum { SAVING_NOTHING, SAVING_HOLD, SAVING_FREEZE, SAVING_MEMORY } stage;
	uint32_t hold_ch;
	int dirfd;	 /* where it goes */
	unsigned layers; /* that the disk has below the top which is frozen */
	uint64_t pause_ns;
	bool suspend; /* into the VM's own directory, and it ends then */
	bool branch;  /* into memory */
	bool idle;    /* that is since nobody uses it */
	bool mark;    /* in its monitor's own memory (rewind.c) */
	struct monitor_saving files;
	struct client *client; /* who waits, NULL: nobody any more */
	uint32_t ch;
	/* Who copies the volumes: until then nothing is written to them. NULL: they are not held. */
	struct client *copies;
	uint32_t copies_ch;
};

/* Going back to a mark (rewind.c). */
struct rewinding {
	bool marked;	/* there is one */
	bool under_way; /* until the command runs again */
	bool marking;	/* as it was: the mark has just been taken, or (error) has not */
	char error[160];
	int fd;		       /* the guest's next connection, until the monitor has gone back; -1 */
	struct client *client; /* who waits for that, NULL: nobody */
	uint32_t ch;
};

/* How long nobody has used the VM (idle.c). */
struct idle {
	struct loop_source *timer; /* NULL: there is no limit */
	unsigned busy;		   /* clients at work in it */
	bool announced;		   /* that it is to be suspended: no connection begins any more */
	uint64_t since;
	uint64_t looked_ns, cpu_ns; /* the last look at the CPU time, and what it was */
};

/* What the command is to know, until the agent has been told (secrets.c). */
struct keeper_secrets {
	struct buf v[VM_MAX_SECRETS]; /* requests, as the record names them; empty: not there yet, or no more */
	unsigned num;
	uint32_t ch[VM_MAX_SECRETS]; /* 0: none */
};

#define KEEPER_LISTENS 64

#define COUNTERS_WAITING 16
struct counters { /* who waits for the monitor's (counters.c) */
	struct counters_wait {
		struct mux *near;
		uint32_t ch;
	} v[COUNTERS_WAITING];
	unsigned n;
};

/* The monitor's stream to a process that watches directories for it (watching.c). */
struct watching {
	int fd; /* until it is joined to a channel; -1 */
	bool used;
	struct join join;
};

struct keeper {
	struct keeper_args args;
	struct vm_record rec;
	struct loop *loop;
	int dirfd;
	enum keeper_phase phase;
	struct monitor mon;
	struct cpu_group cpus; /* that the monitor is in, of a VM with a share of the CPUs */
	/* agent.c */
	struct link *agent; /* NULL once it is lost */
	bool agent_lost;
	bool agent_seen;     /* it said HELLO */
	bool learn;	     /* the snapshot has no working set yet: this VM leaves one */
	bool huge_missing;   /* the base has no copy on huge pages yet: this VM makes one */
	bool fresh_disk;     /* its disk is one layer, to which nothing was added */
	bool restore_broken; /* the snapshot to start from is to blame for that this VM does not start */
	uint32_t setup_ch, main_ch, poweroff_ch; /* 0: none */
	bool main_open, main_done, main_has_exit;
	struct proto_event main_exit;
	struct relay *attached;
	struct vm_log log;
	bool logging;
	/* server.c */
	int listen_fd, early_fd;
	struct loop_source *listen_src, *early_src;
	struct client *clients;
	unsigned num_clients, num_late, max_clients;
	struct client *attach_client; /* an ATTACH that waits for the command */
	uint32_t attach_ch;
	struct keeper_attach attach;
	bool owner_seen;
	struct pause pause;
	struct saving saving;
	struct rewinding rewinding;
	struct branch *branches;
	int under[KEEPER_UNDER_MAX]; /* the files that the guest's memory came from, but for a branch's own */
	unsigned num_under;
	struct idle idle;
	struct clocksync clock;
	char *suspended;       /* the directory that it goes on from, until it does; NULL: none */
	char *suspended_under; /* its args.under */
	struct execs execs;
	struct watching watching;
	struct events events;
	struct keeper_secrets secrets;
	uint32_t listens[KEEPER_LISTENS]; /* channels (listens.c) */
	unsigned num_listens;
	struct counters counters;
	struct spare spare;
	struct shares *shares; /* NULL: its mounts are its monitor's own */
	/* vm.c */
	uint64_t time_limit_at; /* when time_limit fires; 0: it does not */
	struct loop_source *deadline, *grace, *owner_timer, *time_limit, *ttl, *linger;
	uint64_t stage_since, boot_since;
	int admitted;	       /* while the guest comes up: its slot among those that do (admission.c), -1 */
	enum sm_reason forced; /* why it is being ended, NONE: it is not */
	int forced_signal;
	char forced_message[256];
	struct vm_exit exit;
	char *exit_json;
};

/* vm.c: the phases. Each callable from any callback. */
int keeper_run(const struct keeper_args *args, struct sm_error *err) MUST_CHECK; /* a VM's whole life */
void keeper_setup_done(struct keeper *k);
void keeper_prepared(struct keeper *k, struct cursor *reply); /* a base's guest is ready to be saved */
void keeper_saved(struct keeper *k, const char *error);	      /* NULL: it is in its files */
/* The command is its owner's alone, who attaches to it first of all. */
static inline bool keeper_foreground(const struct keeper *k)
{
	return k->args.owner && !k->args.background && !k->rec.no_command;
}
bool keeper_root_on_disk(const struct keeper *k);      /* the image is a disk, not in the window */
void keeper_listen(struct keeper *k);		       /* a restore's, once the monitor has accepted it */
void keeper_main_started(struct keeper *k, bool runs); /* runs: else it could not be executed, and its exit follows */
void keeper_main_done(struct keeper *k, int code, const char *text);
void keeper_agent_lost(struct keeper *k, const char *why);
void keeper_ended(struct keeper *k, int wait_status);
void keeper_try_main(struct keeper *k); /* starts the command if all it waits for is there */
void keeper_stop_request(struct keeper *k, const struct keeper_stop *s);
/* Its owner lets go: it goes on as one that was started in the background, and is kept. 0, -ESRCH, or the log's fault.
 */
int keeper_disown(struct keeper *k) MUST_CHECK;
void keeper_end(struct keeper *k, enum sm_reason reason, int signal, const char *fmt, ...) PRINTF_LIKE(4, 5);
void keeper_stage(struct keeper *k, const char *name);
enum sm_vm_state keeper_state(const struct keeper *k);
/* Sends the command that signal, and SIGKILL after grace_ns, UINT64_MAX: never. */
void keeper_stop_gently(struct keeper *k, enum sm_reason reason, int signal, uint64_t grace_ns, const char *message);
/* It goes to the disk, or has gone there: nobody is let in any more. */
static inline bool keeper_suspending(const struct keeper *k)
{
	return k->forced == SM_REASON_SUSPENDED || (k->saving.suspend && k->saving.stage != SAVING_NOTHING);
}

/* How long a command that is to end by itself has for it. */
#define KEEPER_GRACE_NS 10000000000ull

/* admission.c */
/* Waits until the VM may start. -EBUSY (SM_ERROR_BUSY): it may not, and time is up. */
int admission_wait(struct keeper *k, struct sm_error *err) MUST_CHECK;
void admission_over(struct keeper *k); /* the guest is up, or will never be */
bool keeper_given_up(const struct keeper *k);

/* idle.c */
int idle_begin(struct keeper *k) MUST_CHECK; /* the command runs */
static inline void idle_touch(struct keeper *k)
{
	k->idle.since = time_now_ns();
}
static inline void idle_enter(struct keeper *k)
{
	k->idle.busy++;
}
static inline void idle_leave(struct keeper *k)
{
	k->idle.busy--;
	idle_touch(k);
}

/* secrets.c */
bool secrets_missing(const struct keeper *k); /* the command waits for some */
/* One has come: 0; -ENOENT: the VM has none of this name, -EALREADY, -EPROTO. */
int secrets_take(struct keeper *k, const struct cursor *request) MUST_CHECK;
int secrets_send(struct keeper *k) MUST_CHECK; /* to the agent, before the command */
bool secrets_refused(const struct keeper *k, uint32_t ch, int code);
void secrets_forget(struct keeper *k);

/* spare.c */
/* Somebody takes it; server_claimed follows. 0 or -errno: he cannot have it. */
int spare_claim(struct keeper *k, struct client *c, uint32_t ch, struct cursor *request) MUST_CHECK;
bool spare_unclaimed(const struct keeper *k); /* nobody can know of this VM yet */
bool spare_set_up(struct keeper *k);	      /* the guest is up: whether its command may run */
bool spare_paused(struct keeper *k); /* the monitor has answered: whether that was about a spare's standing still */
void spare_client_gone(struct keeper *k); /* who has claimed it, before he could be told that he has it */
void spare_done(struct keeper *k);

/* pause.c */
/* Has the guest stand still, or go on; server_pause_done follows. 0 or -errno: it is no time for that. */
int pause_request(struct keeper *k, bool pause) MUST_CHECK;
void pause_done(struct keeper *k, bool paused); /* the monitor has answered */

/* snapshot.c */
/* Saves the VM into files of this directory (NULL: suspends it; "": for a branch); server_snapshot_done follows. 0 or
 * -errno: it is no time for that. */
int snapshot_request(struct keeper *k, const char *dir, unsigned keep) MUST_CHECK;
/* The same for a mark, in the monitor's memory. */
int snapshot_mark(struct keeper *k) MUST_CHECK;
void snapshot_marked(struct keeper *k, const char *error);	   /* the monitor has answered */
void snapshot_held(struct keeper *k, int error, const char *text); /* the agent has answered; 0: all stands still */
void snapshot_frozen(struct keeper *k, uint64_t pause_ns);	   /* the guest goes on, in the new top of its disk */
void snapshot_saved(struct keeper *k, const char *error, uint64_t memory_bytes); /* error NULL: it is in its files */
/* What it has of volumes is held from the snapshot on until this client (NULL: nobody) has copied it. */
void snapshot_to_copy(struct keeper *k, struct client *c, uint32_t ch);
/* Nobody copies the volumes any more that are held for this client, and this channel (0: any). False: none are. */
bool snapshot_copied(struct keeper *k, const struct client *c, uint32_t ch);
/* The guest is to end, and will write to them: what was copied until now is of no use. */
void snapshot_copies_lost(struct keeper *k);
/* rewind.c */
/* Goes back to the mark; server_rewound follows, unless the VM ends. 0 or -errno: it is no time for that. */
int rewind_request(struct keeper *k) MUST_CHECK;
/* What the guest says does not count any more, until the monitor has answered: its agent waits for another keeper.
 * *ret_fd: the end for its connection, the caller's. */
int rewind_begin(struct keeper *k, int *ret_fd) MUST_CHECK;
/* The monitor has marked the machine, or (error) has not: that is told (to saving.client) when the guest goes on. */
void rewind_marked(struct keeper *k, const char *error);
void rewind_done(struct keeper *k, const char *error); /* the monitor has, or has not */
/* branch.c */
int branch_open(const struct keeper *k, struct monitor_saving *s) MUST_CHECK; /* -ENOMEM: there is no room for a copy */
/* The guest goes on: keeps the files for a client, and fills in where they are. */
int branch_keep(struct keeper *k, struct client *c, uint32_t ch, struct monitor_saving *s,
		struct keeper_snapshot_reply *m) MUST_CHECK;
void branch_written(struct keeper *k);					 /* or given up */
void branch_drop(struct keeper *k, const struct client *c, uint32_t ch); /* 0: all of that client's */
/* suspend.c: the VM as a snapshot in its own directory */
bool suspend_over_parent(struct keeper *k); /* what is saved there need not be whole: what it lies over is there, too */
int suspend_open(struct keeper *k) MUST_CHECK; /* a new directory for it: a descriptor, or -errno */
int suspend_commit(struct keeper *k, struct vm_suspended *s, struct sm_error *err) MUST_CHECK;
void suspend_undo(struct keeper *k); /* the guest goes on */
/* At the start of one that goes on: sets the arguments, and has the disk be what it was. */
int resume_prepare(struct keeper *k, struct sm_error *err) MUST_CHECK;
int resume_done(struct keeper *k) MUST_CHECK; /* it goes on: what it went on from is no more */
/* outcome.c */
void outcome_compute(struct keeper *k, int wait_status);
int outcome_write(struct keeper *k, struct sm_error *err) MUST_CHECK;

/* monitor.c */
int monitor_start(struct keeper *k, int *ret_agent_fd, struct sm_error *err) MUST_CHECK;
bool out_of_space(int error);
/* Has the guest saved into new files `state` and `memory`; snapshot_frozen, then keeper_saved or snapshot_saved
 * follows, or one of these alone with an error. */
/* top: the new top of its writable disk, -1: the disk stays as it is; stay: the guest stands still from then on, until
 * monitor_pause lets it go on; unsynced: the files need not outlive a power cut. */
/* Makes the two files in this directory. */
int monitor_saving_open(struct monitor_saving *s, int dirfd) MUST_CHECK;
void monitor_saving_close(struct monitor_saving *s);
int monitor_snapshot(struct keeper *k, const struct monitor_saving *s, struct sm_error *err) MUST_CHECK;
/* agent: the end for what the agent's connection goes on with; the caller's. snapshot_marked follows; or rewind_done,
 * and if it cannot go back, the monitor ends. */
int monitor_mark(struct keeper *k, int agent, int top, struct sm_error *err) MUST_CHECK;
int monitor_rewind(struct keeper *k, int agent) MUST_CHECK;
void monitor_stop(struct keeper *k);			    /* asks, and kills if that takes too long */
int monitor_count(struct keeper *k) MUST_CHECK;		    /* counters_came follows */
int monitor_pause(struct keeper *k, bool pause) MUST_CHECK; /* 0 or -errno; pause_done follows */
/* How long its most starved thread has waited for a CPU so far: time that is no fault of the guest. */
uint64_t monitor_starved_ns(const struct monitor *m);
/* A socket to the server of a mount, -1: there is none. */
int monitor_give_share(struct keeper *k, unsigned number, int fd) MUST_CHECK;
/* Has the guest give up this much memory, as far as it can. */
int monitor_balloon(struct keeper *k, uint64_t bytes);
void monitor_done(struct monitor *m, struct loop *loop);
void monitor_ungroup(struct keeper *k); /* its group goes, if it had one */

/* config.c: the monitor's configuration. */
#define MAX_MONITOR_FDS 350
struct monitor_files {
	int fds[MAX_MONITOR_FDS]; /* all are the child's to inherit; closed by monitor_files_done */
	unsigned num;
};
void monitor_files_done(struct monitor_files *f);
int monitor_files_add(struct monitor_files *f, int fd); /* takes fd; -EMFILE closes it */
/* control, agent, console: the child's ends, in f already. *ret: JSON text. */
int monitor_config(struct keeper *k, struct monitor_files *f, int control, int agent, int console, char **ret,
		   struct sm_error *err) MUST_CHECK;

/* shares.c: the servers of a group's mounts */
/* Takes what is to be served; a socket to its server, for the monitor. */
int shares_open(struct keeper *k, unsigned number, const struct vm_mount *m, int fd, struct sm_error *err) MUST_CHECK;
void shares_ask(struct keeper *k, int64_t number); /* the monitor wants another: monitor_give_share follows */
/* A process on the host offers to carry a connection. 0 or -errno. */
int shares_serve(struct keeper *k, struct mux *near, uint32_t ch, struct cursor *request) MUST_CHECK;
void shares_done(struct keeper *k);

/* watching.c */
/* A stream for the monitor's configuration: its end, in f already; -1: it needs none; or -errno. */
int watching_new(struct keeper *k, struct monitor_files *f) MUST_CHECK;
int watching_serve(struct keeper *k, struct mux *near, uint32_t ch) MUST_CHECK;
void watching_done(struct keeper *k);

/* listens.c */
int listens_begin(struct keeper *k) MUST_CHECK; /* before the command */
bool listens_refused(const struct keeper *k, uint32_t ch, int code);

/* counters.c. ch 0: all of that client's. */
int counters_ask(struct keeper *k, struct mux *near, uint32_t ch) MUST_CHECK;
void counters_came(struct keeper *k, const char *text, size_t len);
void counters_client_gone(struct keeper *k, const struct mux *near, uint32_t ch);

/* hugecopy.c */
int hugecopy_open(struct keeper *k, int memory); /* of the base with that memory file: a descriptor or -ENOENT */
void hugecopy_make(const struct keeper *k);	 /* if it was missing; when nobody waits any more */

/* workingset.c */
void workingset_ask(struct keeper *k); /* the command runs: has the monitor note what was written until now */
void workingset_noted(struct keeper *k, int64_t pages);

/* agent.c */
int agent_start(struct keeper *k, int fd, struct sm_error *err) MUST_CHECK; /* takes fd on success */
int agent_become(struct keeper *k); /* tells a spare's guest what it is now; keeper_setup_done follows */
/* As agent_start, of a guest that waits for a keeper: RESUME and ADOPT go along, and so are answered at once. Takes fd
 * in any case. */
int agent_again(struct keeper *k, int fd) MUST_CHECK;
int agent_exec_main(struct keeper *k); /* or adopts the one that runs */
/* snapshot_held follows a hold. volumes: when the processes go on, those do not. */
int agent_hold(struct keeper *k, bool hold, bool volumes);
int agent_hold_again(struct keeper *k); /* the same, and then the agent waits for another keeper: agent_again */
void agent_held_not(struct keeper *k);	/* it has refused that, and goes on as before */
int agent_signal(struct keeper *k, int signal);
int agent_resize(struct keeper *k, uint16_t rows, uint16_t cols);
int agent_poweroff(struct keeper *k);
void agent_sync_clock(struct keeper *k); /* its wall clock, after it stood still */
/* Joins the waiting or new ATTACH channel to the command. */
int agent_attach(struct keeper *k, struct mux *near, uint32_t ch, const struct keeper_attach *a);

/* execs.c: `near` and `ch` are the client's channel. 0 or -errno, the channel is then still the caller's to close. */
int execs_spawn(struct keeper *k, struct mux *near, uint32_t ch, struct cursor *request) MUST_CHECK;
int execs_attach(struct keeper *k, struct mux *near, uint32_t ch, const struct keeper_attach *a) MUST_CHECK;
int execs_signal(struct keeper *k, uint64_t id, int signal) MUST_CHECK;
void execs_client_gone(struct keeper *k, struct mux *near, uint32_t ch); /* ch 0: all of its channels */
void execs_done(struct keeper *k);					 /* the VM has ended */
void execs_forget(struct keeper *k);					 /* there never were any */

/* events.c */
/* attributes: "K=V", NULL-terminated, or NULL. */
void events_note(struct keeper *k, const char *action, const char *const *attributes);
void events_note_signal(struct keeper *k, int signal);
void events_note_end(struct keeper *k);	 /* of the VM, by its outcome; written at once */
char *events_command(char *const *argv); /* the attribute that says which command; to free, NULL: no memory */
void events_note_exec(struct keeper *k, const char *command, const struct proto_event *exit); /* exit NULL: it runs */
/* Passes an exec through to the agent. 0 or -errno, the channel is then still the caller's to close. */
int events_pass_exec(struct keeper *k, struct mux *near, uint32_t ch, const struct cursor *request) MUST_CHECK;
void events_flush(struct keeper *k);
void events_done(struct keeper *k);

/* server.c, services.c */
int server_start(struct keeper *k, struct sm_error *err) MUST_CHECK;
/* For one client, who comes before the monitor starts (wire_early_socket). */
int server_start_early(struct keeper *k, struct sm_error *err) MUST_CHECK;
void server_tell_started(struct keeper *k);
void server_tell_suspending(struct keeper *k); /* whoever has connections wait */
void server_tell_ended(struct keeper *k);
void server_attach_pending(struct keeper *k); /* the command runs: let the waiting ATTACH in */
void server_pause_done(struct keeper *k);     /* tells who asked */
void server_claimed(struct keeper *k);	      /* the spare is his, who becomes its owner */
void server_rewound(struct keeper *k);	      /* tells who asked */
void server_branch_frozen(struct keeper *k, struct keeper_snapshot_reply *m); /* its answer comes early */
/* copies: the channel stays open for as long as the client copies volumes. */
void server_snapshot_done(struct keeper *k, const struct keeper_snapshot_reply *m, bool copies, int error,
			  const char *text);
void server_copies_lost(struct keeper *k);
bool server_drained(struct keeper *k);
void server_done(struct keeper *k);

#endif
