/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sealing: once set up, no thread of the monitor can open, execute, connect or trace anything. No new privileges, no
 * capabilities, not dumpable, and a seccomp filter a thread kind. Each list of allowed calls is declared beside what
 * needs them (struct filter_rule tables, and lists of numbers); a call on no list ends the process.
 */
#ifndef VMM_SEAL_H
#define VMM_SEAL_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum seal_kind { SEAL_VCPU, SEAL_LOOP, SEAL_ALONE, SEAL_FS };

/* Address space of the process into which a thread that serves files may map them, in pieces of SEAL_PIECE at most. */
struct seal_window {
	const void *host; /* a multiple of SEAL_PIECE */
	uint64_t size;	  /* a multiple of SEAL_PIECE; 0: none. As much more behind it is the process's, but unused. */
};
#define SEAL_PIECE (2ULL << 20)

/* The process's part, before it starts any thread: capabilities are a thread's own. keep: bits of those that stay for
 * now (seal_capabilities), if the process has them. */
int seal_process(uint64_t keep, struct sm_error *err) MUST_CHECK;
/* Gives up all of the calling thread's capabilities but these; 0 or -errno. */
int seal_capabilities(uint64_t keep) MUST_CHECK;
/*
 * SEAL_LOOP: filters the calling thread and every other thread of the process (a device's workers too), which must have
 * no filter yet, with all that any of them needs. SEAL_VCPU: narrows the calling thread further. For a machine that
 * shares directories, whose threads need different things from the start: SEAL_ALONE is SEAL_LOOP for the calling
 * thread alone; SEAL_FS (seal_server) is for a thread that serves files: `lists` are then all that it needs beside the
 * C library's calls and the interrupt. `lists`: the devices' own calls, each list ending with -1, the lists with NULL.
 * 0 or -errno.
 */
int seal_thread(enum seal_kind kind, const int *const *lists) MUST_CHECK;
/* SEAL_FS: beside memory of its own it maps nothing, save files into the window (NULL: there is none). */
int seal_server(const int *const *lists, const struct seal_window *window) MUST_CHECK;

#endif
