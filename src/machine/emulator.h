/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's processes: QEMU (TCG, emulated AMD SVM) and the file server that gives it this host's root. The only
 * file that knows either of them. Both get SIGKILL when the daemon ends, however it ends, and hold no path: their
 * sockets are descriptors.
 */
#ifndef MACHINE_EMULATOR_H
#define MACHINE_EMULATOR_H

#include <sys/types.h>

#include "base/error.h"

#include <stdint.h>

/* The machine's virtio-serial port, as the agent looks for it, and its root's tag. */
#define EMULATOR_PORT "supermachine.agent"
#define EMULATOR_ROOT_TAG "host"

/* For so long after a look at a file the machine may not see that the host has changed it. */
#define EMULATOR_FILES_STALE_NS (100ULL * 1000000)

struct emulator_options {
	const char *kernel, *initramfs;
	const char *libexec_dir; /* the file server */
	const char *dir;	 /* for its logs: console, emulator.log, files.log */
	uint64_t memory;	 /* bytes */
	unsigned cpus;
};

struct emulator {
	pid_t pid, files_pid;	/* 0: none */
	int pidfd, files_pidfd; /* readable when it has ended */
	int agent_fd;		/* the stream to the agent; the caller takes it (and sets -1) */
};

/* What this host lacks for a machine, as an error with the line to paste; 0 when nothing. */
int emulator_check(struct sm_error *err) MUST_CHECK;

/* On failure *ret needs no emulator_stop. Must be called by the thread that lives as long as the daemon
 * (PR_SET_PDEATHSIG). */
int emulator_start(const struct emulator_options *o, struct emulator *ret, struct sm_error *err) MUST_CHECK;

/* Kills what still runs, waits, closes; *how (may be NULL, size) gets a few words on how the emulator ended ("killed by
 * signal 9"). */
void emulator_stop(struct emulator *e, char *how, size_t size);

#endif
