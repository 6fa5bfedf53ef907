/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A session: a command in a VM or in the machine whose streams, signals and terminal are this process's.
 *
 * All signals that mean something to the command are blocked from the start and taken by one thread from a signalfd, so
 * nothing here runs in a signal handler. Before the command runs they end this process, which ends the VM; afterwards
 * they go to the command, and the third interrupt of a command that ignores two ends this process after all. The same
 * thread watches a terminal for the keys that let go of it (ctrl-p ctrl-q).
 */
#include "cli/session.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"

#define KEY_P 0x10
#define KEY_Q 0x11
#define FORCE_AFTER 3

static void signal_set(sigset_t *set)
{
	static const int signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGTERM, SIGWINCH, SIGCONT};

	sigemptyset(set);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		sigaddset(set, signals[i]);
}

size_t session_keys(bool *held, const char *in, size_t len, char *out, bool *detach)
{
	size_t n = 0;

	for (size_t i = 0; i < len && !*detach; i++) {
		if (*held) {
			*held = false;
			if (in[i] == KEY_Q) {
				*detach = true;
				break;
			}
			out[n++] = KEY_P;
		}
		if (in[i] == KEY_P)
			*held = true;
		else
			out[n++] = in[i];
	}
	return n;
}

static void terminal_size(uint16_t *rows, uint16_t *cols)
{
	struct winsize ws;

	for (int fd = 0; fd < 3; fd++) {
		if (ioctl(fd, TIOCGWINSZ, &ws) == 0 && ws.ws_row && ws.ws_col) {
			*rows = ws.ws_row;
			*cols = ws.ws_col;
			return;
		}
	}
}

static void terminal_raw(struct session *s)
{
	struct termios t = *(struct termios *)s->saved;

	cfmakeraw(&t);
	s->raw = tcsetattr(STDIN_FILENO, TCSADRAIN, &t) == 0;
}

static void terminal_restore(struct session *s)
{
	if (s->raw)
		tcsetattr(STDIN_FILENO, TCSADRAIN, s->saved);
	s->raw = false;
}

/* Ends this process as the signal would have without us: the VM, if it was ours alone, ends with it. */
static void die_by(struct session *s, int sig)
{
	sigset_t set;

	cli_progress_clear(s->cli);
	terminal_restore(s);
	signal(sig, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, sig);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	raise(sig);
	_exit(128 + sig);
}

static void take_signal(struct session *s, int sig)
{
	uint16_t rows = 0, cols = 0;

	pthread_mutex_lock(&s->lock);
	if (sig == SIGWINCH) {
		terminal_size(&rows, &cols);
		if (s->exec && s->tty && rows)
			sm_exec_resize(s->exec, rows, cols, NULL);
	} else if (sig == SIGCONT) {
		if (s->raw)
			terminal_raw(s);
	} else if (!s->exec || (s->tty && sig == SIGHUP)) {
		die_by(s, sig);
	} else {
		s->interrupts += sig == SIGINT || sig == SIGTERM;
		if (s->interrupts >= FORCE_AFTER)
			die_by(s, sig);
		sm_exec_signal(s->exec, sig, NULL);
		if (sig == SIGINT && s->interrupts == FORCE_AFTER - 1)
			cli_say(s->cli, "the command has not ended: interrupt once more to end it by force");
	}
	pthread_mutex_unlock(&s->lock);
}

/* A VM that would end with this process is not to. */
static bool let_go(struct session *s)
{
	struct sm_error err = {0};

	if (!s->owned || sm_vm_detach(s->owned, &err) == 0)
		return true;
	cli_say(s->cli, "%s", err.message);
	return false;
}

/* Moves what was typed on to the command. False at the end of input or when the keys let go. */
static bool take_keys(struct session *s, bool *held, char *pending, size_t *ret_len)
{
	char in[512];
	bool detach = false;
	ssize_t n;

	n = read(STDIN_FILENO, in, sizeof(in));
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return true;
	if (n > 0)
		*ret_len = session_keys(held, in, (size_t)n, pending, &detach);
	if (detach && !let_go(s))
		detach = false;
	if (detach) {
		pthread_mutex_lock(&s->lock);
		s->detached = true;
		if (s->exec)
			sm_exec_detach(s->exec, NULL);
		pthread_mutex_unlock(&s->lock);
	}
	return n > 0 && !detach;
}

static void wake(struct session *s)
{
	uint64_t one = 1;

	(void)!write(s->wake, &one, sizeof(one));
}

/* True when it is time to end; else something has changed that poll must know of. */
static bool woken(struct session *s)
{
	uint64_t count;
	bool ending;

	(void)!read(s->wake, &count, sizeof(count));
	pthread_mutex_lock(&s->lock);
	ending = s->ending;
	pthread_mutex_unlock(&s->lock);
	return ending;
}

static void *session_thread(void *arg)
{
	struct session *s = arg;
	char pending[1024];
	size_t len = 0, done = 0;
	bool held = false, typing = false;

	for (;;) {
		struct pollfd p[3] = {
			{.fd = s->wake, .events = POLLIN}, {.fd = s->signals, .events = POLLIN}, {.fd = -1}};
		struct signalfd_siginfo si;

		pthread_mutex_lock(&s->lock);
		typing = s->keys[1] >= 0 && s->exec;
		pthread_mutex_unlock(&s->lock);
		if (typing)
			p[2] = done < len ? (struct pollfd){.fd = s->keys[1], .events = POLLOUT}
					  : (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
		if (poll(p, 3, -1) < 0 && errno != EINTR)
			return NULL;
		if (p[0].revents && woken(s))
			return NULL;
		if (p[1].revents && read(s->signals, &si, sizeof(si)) == (ssize_t)sizeof(si))
			take_signal(s, (int)si.ssi_signo);
		if (!typing || !p[2].revents)
			continue;
		if (done < len) {
			ssize_t n = write(s->keys[1], pending + done, len - done);

			if (n > 0)
				done += (size_t)n;
			else if (n < 0 && errno != EAGAIN && errno != EINTR)
				s->keys[1] = fd_close(s->keys[1]);
		} else {
			done = len = 0;
			if (!take_keys(s, &held, pending, &len))
				s->keys[1] = fd_close(s->keys[1]);
		}
	}
}

int session_begin(struct session *s, struct cli *cli, struct sm_error *err)
{
	sigset_t set;
	int r;

	*s = (struct session){.cli = cli, .wake = -1, .signals = -1, .keys = {-1, -1}};
	pthread_mutex_init(&s->lock, NULL);
	signal(SIGPIPE, SIG_IGN); /* a reader that goes away is the command's affair */
	signal_set(&set);
	r = pthread_sigmask(SIG_BLOCK, &set, NULL);
	if (!r && ((s->wake = eventfd(0, EFD_CLOEXEC)) < 0 || (s->signals = signalfd(-1, &set, SFD_CLOEXEC)) < 0))
		r = errno;
	if (!r && !(s->saved = calloc(1, sizeof(struct termios))))
		r = ENOMEM;
	if (!r)
		r = pthread_create(&s->thread, NULL, session_thread, s);
	if (r) {
		session_end(s);
		return error_sys(err, r, "signals");
	}
	s->running = true;
	return 0;
}

int session_streams(struct session *s, bool interactive, bool tty, bool detachable, struct sm_exec_options *o,
		    struct sm_error *err)
{
	bool terminal = isatty(STDIN_FILENO);

	s->tty = o->tty = tty;
	o->stdin_open = interactive;
	o->stdout_fd = STDOUT_FILENO;
	o->stderr_fd = STDERR_FILENO;
	if (tty)
		terminal_size(&o->rows, &o->cols);
	if (!interactive)
		return 0;
	o->stdin_fd = STDIN_FILENO;
	if (!tty || !terminal || !detachable)
		return 0;
	if (pipe2(s->keys, O_CLOEXEC) < 0 || fd_set_nonblock(s->keys[1], true) < 0)
		return error_sys(err, errno, "pipe");
	o->stdin_fd = s->keys[0];
	return 0;
}

void session_started(struct session *s, struct sm_exec *exec)
{
	uint16_t rows = 0, cols = 0;

	cli_progress_clear(s->cli);
	pthread_mutex_lock(&s->lock);
	s->exec = exec;
	if (s->tty && isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, s->saved) == 0)
		terminal_raw(s);
	if (s->tty)
		terminal_size(&rows, &cols); /* it may have changed since the command was asked for */
	if (rows)
		sm_exec_resize(exec, rows, cols, NULL);
	pthread_mutex_unlock(&s->lock);
	wake(s);
}

int session_wait(struct session *s, struct sm_exec *exec, struct sm_outcome *ret, struct sm_error *err)
{
	int r;

	r = sm_exec_wait(exec, ret, err);
	pthread_mutex_lock(&s->lock);
	s->exec = NULL;
	terminal_restore(s);
	pthread_mutex_unlock(&s->lock);
	return r;
}

bool session_was_left(const struct session *s, int r, const char *vm)
{
	if (r != -ECANCELED || !s->detached)
		return false;
	cli_say(s->cli, "detached; %s%s goes on", vm ? "VM " : "", vm ? vm : "it");
	return true;
}

void session_end(struct session *s)
{
	if (s->running) {
		pthread_mutex_lock(&s->lock);
		s->ending = true;
		pthread_mutex_unlock(&s->lock);
		wake(s);
		pthread_join(s->thread, NULL);
	}
	terminal_restore(s);
	fd_close(s->wake);
	fd_close(s->signals);
	fd_close(s->keys[0]);
	fd_close(s->keys[1]);
	free(s->saved);
	pthread_mutex_destroy(&s->lock);
}
