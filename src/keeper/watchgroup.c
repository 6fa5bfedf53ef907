/* SPDX-License-Identifier: Apache-2.0 */
/* Handing a VM over to the process that watches for its share group. See watchgroup.h. */
#include "keeper/watchgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/cursor.h"
#include "base/fileio.h"
#include "base/process.h"
#include "base/util.h"
#include "keeper/place.h"

#define MAGIC 0x47574d53u /* "SMWG" */
#define PATIENCE_MS 10000
#define MESSAGE 12 /* u32 magic, u32 how many directories, u32 which of these come along */

static int wait_for(int sock)
{
	struct pollfd p = {.fd = sock, .events = POLLIN};
	int n;

	do
		n = poll(&p, 1, PATIENCE_MS);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n ? 0 : -ETIMEDOUT;
}

static int start(void *arg, const struct place *at, int listener, struct sm_error *err)
{
	const struct watchgroup *g = arg;
	char number[16];
	const char *argv[] = {g->program, "--watch-group", number, at->socket, at->lock, NULL};
	_free_ const char **env = process_plain_env();
	struct process_options o = {.argv = argv,
				    .env = env,
				    .fds = {-1, -1, -1},
				    .keep = &listener,
				    .num_keep = 1,
				    .cwd = "/",
				    .new_session = true};

	snprintf(number, sizeof(number), "%d", listener);
	return MIN((int)process_detach(&o, err), 0);
}

/* The connection and the directories that there are, in one message; the answer is a byte. */
static int hand_over(int sock, int link, const char *const *sources, unsigned count)
{
	_cleanup_(buf_done) struct buf b = {0};
	int fds[1 + WATCHGROUP_SOURCES] = {link}, r;
	unsigned n = 1, present = 0;
	uint8_t done;

	for (unsigned i = 0; i < count; i++) {
		fds[n] = open(sources[i], O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (fds[n] < 0)
			continue; /* not there, or a file: it has nothing to be watched */
		present |= 1u << i;
		n++;
	}
	buf_put_u32(&b, MAGIC);
	buf_put_u32(&b, count);
	buf_put_u32(&b, present);
	r = b.error ? b.error : fd_send(sock, b.data, b.len, fds, n);
	while (n > 1)
		fd_close(fds[--n]);
	if (r == 0)
		r = wait_for(sock);
	return r < 0 ? r : read_full(sock, &done, 1) == 1 ? 0 : -EPIPE;
}

int watchgroup_join(const struct watchgroup *g, int link, const char *const *sources, unsigned count,
		    struct sm_error *err)
{
	_cleanup_(buf_done) struct buf key = {0};
	_fd_ int lock = -1, sock = -1;
	struct place at;
	int r;

	if (count > WATCHGROUP_SOURCES)
		return error_sys(err, E2BIG, "watch of %u directories", count);
	buf_printf(&key, "group %s\n", g->group);
	r = place_put_program(&key, g->program);
	if (r < 0)
		return error_sys(err, -r, "%s", g->program);
	lock = place_find(g->runtime_dir, "watch", &key, &at, err);
	sock = lock < 0 ? lock : place_connect(&at, start, (void *)g, err);
	if (sock < 0)
		return sock;
	r = hand_over(sock, link, sources, count);
	return r < 0 ? error_sys(err, -r, "watch of share group %s", g->group) : 0;
}

int watchgroup_receive(int sock, int *ret_link, int *ret_sources)
{
	uint8_t message[MESSAGE];
	struct cursor c = cursor_of(message, sizeof(message));
	int fds[1 + WATCHGROUP_SOURCES], r = wait_for(sock);
	size_t num_fds = ARRAY_SIZE(fds), used = 1;
	uint32_t magic, count, present;
	ssize_t n = r < 0 ? r : fd_recv(sock, message, sizeof(message), fds, &num_fds);

	if (n < 0)
		return (int)n;
	magic = cursor_u32(&c);
	count = cursor_u32(&c);
	present = cursor_u32(&c);
	if (n != sizeof(message) || magic != MAGIC || count > WATCHGROUP_SOURCES || present >> count ||
	    num_fds != 1u + (unsigned)__builtin_popcount(present)) {
		while (num_fds)
			fd_close(fds[--num_fds]);
		return -EPROTO;
	}
	*ret_link = fds[0];
	for (unsigned i = 0; i < count; i++)
		ret_sources[i] = present >> i & 1 ? fds[used++] : -1;
	return (int)count;
}
