/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket: the keeper's commands in, events out. Packets as config.h says. */
#ifndef VMM_CONTROL_H
#define VMM_CONTROL_H

#include <stdint.h>

#include "base/error.h"

struct vm;

/* Serves commands in the machine's loop. End of file on the socket ends the process at once. */
int control_attach(struct vm *vm, struct sm_error *err) MUST_CHECK;

/* Events. Losing one to a full socket or a dead keeper changes nothing here. */
void control_started(struct vm *vm);
void control_trace(struct vm *vm, const char *stage); /* only if the configuration asks for it */
void control_stats(struct vm *vm);
/* The server of a shared tree is wanted again: share_answer follows. From any thread; 0 or -errno. */
int control_share(int socket, unsigned number) MUST_CHECK;
/* A request to a disk failed with this errno. */
void control_disk_error(struct vm *vm, const char *disk, int error);
/* A snapshot's two steps: the machine goes on (or stays, as asked), and its files are written (error NULL) or not. */
void control_frozen(struct vm *vm, uint64_t pause_ns);
/* The machine was marked, or went back to its mark; error: or not. */
void control_marked(struct vm *vm, const char *error, uint64_t pause_ns);
void control_rewound(struct vm *vm, const char *error);
void control_saved(struct vm *vm, const char *error, uint64_t bytes);
/* The guest connected to a host port: passes the host's end (still the caller's) to the keeper. 0 or -errno. */
int control_vsock(struct vm *vm, uint32_t port, int fd) MUST_CHECK;
/* The last event: why the machine ended. */
void control_exit(struct vm *vm);
/* The same for a failure before there is a machine. */
void control_exit_error(int socket, const char *detail);

#endif
