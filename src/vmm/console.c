/* SPDX-License-Identifier: Apache-2.0 */
/* Console output. See console.h. */
#include "vmm/console.h"

#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"

void console_init(struct console *c, int fd)
{
	memset(c, 0, sizeof(*c));
	c->fd = fd;
}

/*
 * The descriptor may be shared, so its flags are not ours to set; instead it is written only when it can take a whole
 * line (a pipe that polls writable has room for PIPE_BUF). A reader that does not keep up loses output, the guest never
 * waits.
 */
void console_flush(struct console *c)
{
	struct pollfd p = {.fd = c->fd, .events = POLLOUT};
	size_t done = 0;

	if (c->fd >= 0 && c->out_used && poll(&p, 1, 0) > 0 && (p.revents & POLLOUT)) {
		ssize_t n = write(c->fd, c->out, c->out_used);

		done = n > 0 ? (size_t)n : 0;
	}
	c->written += done;
	c->dropped += c->out_used - done;
	c->out_used = 0;
}

/* The first panic line is the cause; what follows are consequences. */
static void line_done(struct console *c)
{
	c->line[c->used] = '\0';
	c->used = 0;
	if (c->panicked)
		return;
	if (strstr(c->line, "Kernel panic - not syncing")) {
		c->panicked = true;
		memcpy(c->panic_line, c->line, sizeof(c->line));
	}
}

void console_note(struct console *c, uint8_t byte)
{
	c->tail[c->tail_end++ % CONSOLE_TAIL] = (char)byte;
	if (byte == '\n')
		line_done(c);
	else if (byte >= ' ' && c->used < sizeof(c->line) - 1)
		c->line[c->used++] = (char)byte;
}

void console_put(struct console *c, uint8_t byte)
{
	console_note(c, byte);
	c->out[c->out_used++] = (char)byte;
	if (byte == '\n' || c->out_used == sizeof(c->out))
		console_flush(c);
}

size_t console_tail(const struct console *c, char *ret, size_t size)
{
	uint64_t have = MIN(c->tail_end, (uint64_t)CONSOLE_TAIL), start, n;
	bool cut;

	if (!size)
		return 0;
	n = MIN(have, (uint64_t)size - 1);
	cut = n < c->tail_end;
	start = c->tail_end - n;
	if (cut) {
		/* Begin after the first newline, unless that leaves nothing. */
		uint64_t at = start;

		while (at < c->tail_end && c->tail[at % CONSOLE_TAIL] != '\n')
			at++;
		if (at + 1 < c->tail_end)
			start = at + 1;
	}
	for (n = 0; start + n < c->tail_end; n++)
		ret[n] = c->tail[(start + n) % CONSOLE_TAIL];
	ret[n] = '\0';
	return (size_t)n;
}
