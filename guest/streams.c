/* SPDX-License-Identifier: Apache-2.0 */
/* The standard streams of a new command: pipes, a log file, or a terminal. See exec.h. */
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "guest/exec.h"

#define TTY_GROUP 5

void ends_close(struct ends *s)
{
	for (int i = 0; i < 3; i++) {
		s->child[i] = fd_close(s->child[i]);
		s->ours[i] = fd_close(s->ours[i]);
	}
	s->staged = fd_close(s->staged);
	s->stage = fd_close(s->stage);
}

static int make_pipe(struct ends *s, int i, const struct user *u)
{
	int p[2], ours = i == 0 ? 1 : 0;

	if (pipe2(p, O_CLOEXEC) < 0)
		return -errno;
	s->ours[i] = p[ours];
	s->child[i] = p[!ours];
	/* So that the user can reopen it by /dev/stdout; failure shows when it does. */
	if (u->uid && fchown(p[0], u->uid, u->gid) < 0)
		return -errno;
	return fd_set_nonblock(s->ours[i], true);
}

static int make_pipes(struct ends *s, const struct proto_exec *x, const struct user *u)
{
	int r = 0;

	if (x->stdin_open)
		r = make_pipe(s, 0, u);
	else if ((s->child[0] = open("/dev/null", O_RDONLY | O_CLOEXEC)) < 0)
		r = -errno;
	if (r < 0)
		return r;
	if (!x->log) {
		r = make_pipe(s, 1, u);
		return r < 0 ? r : make_pipe(s, 2, u);
	}
	s->child[1] = open(x->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600);
	if (s->child[1] < 0)
		return -errno;
	s->child[2] = fcntl(s->child[1], F_DUPFD_CLOEXEC, 3);
	return s->child[2] < 0 ? -errno : 0;
}

static int make_terminal(struct ends *s, const struct proto_exec *x, const struct user *u)
{
	struct winsize w = {.ws_row = x->rows, .ws_col = x->cols};
	int zero = 0, master;

	/* The container's own devpts, so that the name which programs ask for exists there. */
	master = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (master < 0)
		master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (master < 0)
		return -errno;
	s->ours[1] = master;
	if (ioctl(master, TIOCSPTLCK, &zero) < 0)
		return -errno;
	if (x->rows && x->cols)
		ioctl(master, TIOCSWINSZ, &w);
	s->child[0] = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (s->child[0] < 0)
		return -errno;
	if (fchown(s->child[0], u->uid, TTY_GROUP) < 0 || fchmod(s->child[0], 0620) < 0)
		return -errno;
	for (int i = 1; i < 3; i++)
		if ((s->child[i] = fcntl(s->child[0], F_DUPFD_CLOEXEC, 3)) < 0)
			return -errno;
	s->ours[0] = fcntl(master, F_DUPFD_CLOEXEC, 3);
	return s->ours[0] < 0 ? -errno : 0;
}

static int make_stage(struct ends *s)
{
	int p[2];

	if (pipe2(p, O_CLOEXEC) < 0)
		return -errno;
	s->staged = p[0];
	s->stage = p[1];
	return fd_set_nonblock(s->stage, true);
}

int ends_make(struct ends *s, const struct proto_exec *x, const struct user *u)
{
	int r = x->contents_follow ? make_stage(s) : 0;

	if (r < 0)
		return r;
	return x->tty ? make_terminal(s, x, u) : make_pipes(s, x, u);
}
