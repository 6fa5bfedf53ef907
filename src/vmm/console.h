/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Console output: passed on to a descriptor that never blocks the guest, its last bytes kept for the reason of an exit,
 * and searched for the kernel's own word that it panicked.
 */
#ifndef VMM_CONSOLE_H
#define VMM_CONSOLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define CONSOLE_TAIL 4096
#define CONSOLE_LINE 256

struct console {
	int fd;		   /* written only when poll says it takes a line; -1: nowhere */
	uint64_t dropped;  /* metric: bytes that the descriptor did not take */
	uint64_t written;  /* metric */
	size_t used;	   /* of line */
	bool panicked;	   /* a line said so */
	uint64_t tail_end; /* bytes ever put into the tail; modulo its size, where the next goes */
	char line[CONSOLE_LINE];
	char panic_line[CONSOLE_LINE];
	char tail[CONSOLE_TAIL];
	char out[CONSOLE_LINE]; /* gathered until a newline: one write a line */
	size_t out_used;
};

void console_init(struct console *c, int fd);
void console_put(struct console *c, uint8_t byte);
/* Remembers a byte that someone else has written out. */
void console_note(struct console *c, uint8_t byte);
/* Writes what is gathered of an unfinished line. */
void console_flush(struct console *c);
/* Copies the last bytes of output, NUL-terminated, starting at a line's beginning where one fits. Returns the length.
 */
size_t console_tail(const struct console *c, char *ret, size_t size);

#endif
