/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The seat: the single place that decides whether keepers and monitors sit on this host or in the machine (a Linux
 * under emulation that has KVM and whose root is this host's own /). Whoever holds a seat starts a keeper, connects to
 * it and names its sockets the same way in both cases; nothing outside src/machine knows how a machine is made.
 *
 * Threads: a seat may be used from many threads at once. No signal handlers, no SIGCHLD to the process, all descriptors
 * CLOEXEC.
 */
#ifndef MACHINE_SEAT_H
#define MACHINE_SEAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

enum seat_mode {
	SEAT_AUTO = 1, /* the machine where this host's KVM is missing, forbidden or merely interprets */
	SEAT_ALWAYS = 2,
	SEAT_NEVER = 3,
};

/* "auto", "always", "never" (NULL or "": auto); -EINVAL with a message that names SUPERMACHINE_MACHINE. */
int seat_mode_parse(const char *s, enum seat_mode *ret, struct sm_error *err) MUST_CHECK;

/* What the probe of this host's KVM found. */
enum kvm_state {
	KVM_STATE_WORKS = 1,
	KVM_STATE_ABSENT = 2,	   /* no /dev/kvm, or it creates no VM */
	KVM_STATE_FORBIDDEN = 3,   /* EACCES or EPERM */
	KVM_STATE_INTERPRETED = 4, /* it runs guests, instruction by instruction */
};
struct kvm_probe {
	enum kvm_state state;
	char why[256];	 /* one line for a person: "/dev/kvm only interprets (1.9 million instructions a second)" */
	char fix[128];	 /* the line to paste, or "" */
	uint64_t run_ns; /* how long the probe's guest took, 0: it did not run */
};
/* The probe: a few ms on hardware, at most a second elsewhere. What ran is remembered in runtime_dir (may be NULL) for
 * this boot. Never fails: not knowing is ABSENT with the reason. */
void kvm_probe(const char *runtime_dir, struct kvm_probe *ret);

struct seat;

struct seat_options {
	enum seat_mode mode;
	const char *runtime_dir; /* this host's: absolute, exists or can be made; sockets and the lock of the machine */
	const char *data_dir;	 /* kernels, the machine's initramfs */
	const char *state_dir;	 /* what is removed below it or data_dir, the machine lets go of */
	const char *libexec_dir; /* supermachine-machine, supermachine-agent */
	/* A line for the user (no newline): the machine starts, it had died and starts again. May be NULL. Any thread.
	 */
	void (*notice)(void *arg, const char *line);
	void *notice_arg;
};

/* Decides, by mode and probe. Starts nothing. SEAT_NEVER on a host without KVM: SM_ERROR_HOST with what to do. Options
 * are copied. */
int seat_open(const struct seat_options *options, struct seat **ret, struct sm_error *err) MUST_CHECK;
/* As seat_open, but what the probe found does not make it fail and `machine` is forced: for the verbs of `machine`
 * itself, and for doctor. */
int seat_open_machine(const struct seat_options *options, struct seat **ret, struct sm_error *err) MUST_CHECK;
struct seat *seat_close(struct seat *seat);

bool seat_in_machine(const struct seat *seat);
const char *seat_engine_name(const struct seat *seat);	     /* "kvm" or "machine" */
const struct kvm_probe *seat_probe(const struct seat *seat); /* what was found (state 0 with SEAT_ALWAYS: not asked) */
/* One line for the user: which engine, why, what to expect. "" on this host's KVM. Owned by the seat. */
const char *seat_notice(const struct seat *seat);

/* The directory for a keeper's sockets, as the keeper sees it; exists once seat_ready or seat_spawn has succeeded. Put
 * no data there: in a machine it is memory of the machine. Everything else (state, data, libexec) has the same path in
 * both. */
const char *seat_runtime_dir(const struct seat *seat);

/* Starts the machine if this seat needs one and it does not run; waits until it answers (at most three minutes). No-op
 * on a host with KVM. */
int seat_ready(struct seat *seat, struct sm_error *err) MUST_CHECK;

/*
 * Names this boot of the engine: the host's boot id, or the running machine's instance; "" while the machine is down
 * (that is not an error, and it is not started). A process of another boot id is gone. Room for 40 bytes.
 */
int seat_boot_id(struct seat *seat, char ret[40], struct sm_error *err) MUST_CHECK;

/* Appends a file's identity and age under the name `what`: they stand for its content where reading it would take too
 * long. 0 or -errno. */
int seat_put_file(struct buf *out, const char *what, const char *path) MUST_CHECK;

/* Appends lines that tell apart what guests run on: one saved under some lines need not run under others. Starts
 * nothing; cheap. 0 or -errno. */
int seat_identity(const struct seat *seat, struct buf *out) MUST_CHECK;

struct seat_command {
	const char *const *argv; /* NULL-terminated; argv[0] is a path */
	const char *const *env;	 /* NULL-terminated "K=V", the whole environment */
	const char *cwd;	 /* NULL: "/" */
	const char *log; /* host path that gets its stdout and stderr (appended, made 0600); NULL: /dev/null. stdin is
			    /dev/null */
};
/*
 * Starts a detached process (own session, no parent here, no inherited descriptors) on this host or in the machine,
 * which is started first if need be. In a machine it counts as busy until it ends. Fails if it cannot be executed.
 * *ret_pid: as seen where it runs; may be NULL.
 */
int seat_spawn(struct seat *seat, const struct seat_command *command, int64_t *ret_pid,
	       struct sm_error *err) MUST_CHECK;

/*
 * Connects to a unix socket at a path as a keeper sees it: a connected stream socket on this host, or -errno. In a
 * machine the bytes are carried by the machine's daemon; half-close (shutdown) and end of file pass through both ways.
 * Does not start a machine: -ECONNREFUSED (SM_ERROR_STATE) when none runs. -ENOENT, -ECONNREFUSED: no such socket,
 * nobody listens; in a machine, within wait_ns (a second at most).
 */
int seat_connect(struct seat *seat, const char *path, uint64_t wait_ns, struct sm_error *err) MUST_CHECK;

/*
 * A stream socket that speaks the frame protocol (proto/frame.h) as a client to the machine: send HELLO first, as to a
 * keeper. Services: PROTO_EXEC, PROTO_CONNECT and the rest of the agent's, and PROTO_MACHINE_*. Starts the machine if
 * need be. Only for a seat in a machine (else -ENOTSUP). An open link with a channel keeps the machine from stopping by
 * itself. This is what `machine exec` is made of.
 */
int seat_machine_link(struct seat *seat, struct sm_error *err) MUST_CHECK;

struct seat_machine_status {
	bool running;
	int64_t daemon_pid, emulator_pid;
	uint64_t memory; /* bytes at most */
	unsigned cpus;
	uint64_t uptime_ns;
	unsigned busy; /* commands and keepers that run in it, and streams to it */
	char boot_id[40];
};
/* Asks, never starts. */
int seat_machine_status(struct seat *seat, struct seat_machine_status *ret, struct sm_error *err) MUST_CHECK;
/* Stops it with all that runs in it and waits until nothing of it is left; success when none runs. */
int seat_machine_stop(struct seat *seat, struct sm_error *err) MUST_CHECK;

#endif
