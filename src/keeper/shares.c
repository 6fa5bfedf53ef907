/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounts that another process serves: in a share group a file server (fileserver.h), or a program of the user's. The
 * monitor speaks with it over a socket that it is given. When that server is gone the monitor, which can connect to
 * nothing, asks for another: a child of ours finds or starts it, since that may take a while. A user's program that
 * does not run where we do, in a machine, is on the host: a process there carries the connection (carried.h).
 *
 * A monitor that was taken over may ask as often as it likes: it has one connection to a server at a time, and there is
 * one child at a time.
 */
#include "keeper/keeper.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/process.h"
#include "base/util.h"
#include "keeper/carried.h"
#include "keeper/fileserver.h"

#define FIND_S 30

struct share {
	struct keeper *k;
	unsigned number; /* as the monitor counts */
	const struct vm_mount *mount;
	int fd;	  /* what is served, kept open: its name may come to mean something else; -1: none */
	int sock; /* the monitor's connection, ours to cut */
	struct carried carried;
	/* of a child that looks for the server */
	pid_t pid;
	int answer;
	struct loop_source *answer_src;
};

struct shares {
	char *program, *runtime_dir;
	struct share list[VM_MAX_MOUNTS];
};

/* The directory of a path, with more behind it. */
static char *beside(const char *path, const char *more)
{
	const char *slash = strrchr(path, '/');
	char *ret;

	return asprintf(&ret, "%.*s%s", slash ? (int)(slash - path) : 0, path, more) < 0 ? NULL : ret;
}

static void on_refused(void *arg, int error)
{
	struct share *s = arg;

	/* Later the guest sees that what it does there fails. */
	if (s->k->phase == PHASE_BOOT)
		keeper_end(s->k, SM_REASON_START_FAILED, 0, "share %.160s: nobody serves a file system on it: %s",
			   s->mount->source, strerror(-error));
}

static int init(struct keeper *k)
{
	struct shares *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	for (unsigned i = 0; i < VM_MAX_MOUNTS; i++) {
		s->list[i] = (struct share){
			.k = k, .number = i, .fd = -1, .sock = -1, .answer = -1, .carried = CARRIED_INIT};
		s->list[i].carried.loop = k->loop;
		s->list[i].carried.refused = on_refused;
		s->list[i].carried.arg = &s->list[i];
	}
	k->shares = s;
	s->program = beside(k->args.vmm, "/supermachine-fsd");
	s->runtime_dir = beside(k->args.socket, "");
	return s->program && s->runtime_dir ? 0 : -ENOMEM;
}

static int find_server(const struct share *s, struct sm_error *err)
{
	const struct vm_record *rec = &s->k->rec;
	const struct vm_mount *m = s->mount;
	struct fileserver server = {.program = s->k->shares->program,
				    .runtime_dir = s->k->shares->runtime_dir,
				    .group = rec->share_group,
				    .source = m->source,
				    .fd = s->fd,
				    .options = {.size = sizeof(server.options),
						.ids = m->ids,
						.id_ranges = m->id_ranges,
						.symlinks = m->symlinks,
						.xattrs = m->xattrs,
						.cache = m->cache,
						.read_only = m->read_only || m->cow,
						.direct = m->direct}};

	int fd;

	if (!m->served)
		return fileserver_connect(&server, err);
	fd = unix_connect(m->source);
	return fd < 0 ? error_set(err, SM_ERROR_NOT_FOUND, -fd, "nobody serves a file system on it: %s", strerror(-fd))
		      : fd;
}

static bool may_be_carried(const struct share *s)
{
	return s->k->args.watched && s->mount->served;
}

int shares_open(struct keeper *k, unsigned number, const struct vm_mount *m, int fd, struct sm_error *err)
{
	int r = k->shares ? 0 : init(k), copy;
	struct share *s;

	if (r < 0) {
		fd_close(fd);
		return error_sys(err, -r, "shared directory");
	}
	s = &k->shares->list[number];
	s->fd = fd;
	s->mount = m;
	s->sock = find_server(s, may_be_carried(s) ? NULL : err);
	if (s->sock < 0 && may_be_carried(s) && (s->sock = carried_new(&s->carried)) < 0)
		error_sys(err, -s->sock, "socket to the monitor");
	if (s->sock < 0)
		return error_wrap(err, s->sock, "share %s", m->source);
	copy = dup(s->sock);
	return copy < 0 ? error_sys(err, errno, "shared directory") : copy;
}

/* --------------------------------------------------------------------------------------------- once more */

static _Noreturn void find_in_child(struct share *s, int answer)
{
	struct sm_error err = {0};
	int sock;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(FIND_S);
	sock = find_server(s, &err);
	if (sock < 0)
		log_warn("keeper", "%s", err.message);
	_exit(sock < 0 || fd_send(answer, "s", 1, &sock, 1) < 0);
}

static void end_child(struct share *s)
{
	int status;

	s->answer_src = loop_remove(s->answer_src);
	s->answer = fd_close(s->answer);
	if (s->pid > 0) {
		kill(s->pid, SIGKILL); /* it has answered, or never will */
		(void)process_wait(s->pid, &status);
	}
	s->pid = 0;
}

static void on_answer(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct share *s = arg;
	size_t num_fds = 1;
	int sock = -1, r;
	char byte;

	if (fd_recv(s->answer, &byte, 1, &sock, &num_fds) != 1 || num_fds != 1)
		sock = -1;
	end_child(s);
	if (sock < 0 && may_be_carried(s))
		sock = carried_new(&s->carried);
	fd_close(s->sock);
	s->sock = sock;
	r = monitor_give_share(s->k, s->number, sock);
	if (r < 0)
		log_debug("keeper", "share: %s", strerror(-r));
}

static int start_child(struct share *s)
{
	int pair[2], r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	s->answer = pair[0];
	s->pid = process_fork();
	if (s->pid == 0)
		find_in_child(s, pair[1]);
	r = s->pid < 0 ? (int)s->pid : loop_add(s->k->loop, s->answer, EPOLLIN, on_answer, s, &s->answer_src);
	close(pair[1]);
	if (r < 0)
		end_child(s);
	return r;
}

void shares_ask(struct keeper *k, int64_t number)
{
	struct share *s;
	int r;

	if (!k->shares || number < 0 || number >= VM_MAX_MOUNTS)
		return;
	s = &k->shares->list[number];
	if (s->pid > 0 || !s->mount)
		return;
	if (s->sock >= 0)
		shutdown(s->sock, SHUT_RDWR);
	r = start_child(s);
	if (r < 0)
		r = monitor_give_share(k, s->number, -1);
	if (r < 0)
		log_debug("keeper", "share: %s", strerror(-r));
}

int shares_serve(struct keeper *k, struct mux *near, uint32_t ch, struct cursor *request)
{
	uint8_t number = cursor_u8(request);

	if (request->bad || request->left)
		return -EPROTO;
	if (!k->shares || number >= VM_MAX_MOUNTS || !k->shares->list[number].mount ||
	    !may_be_carried(&k->shares->list[number]))
		return -ENOENT;
	return carried_offer(&k->shares->list[number].carried, near, ch);
}

void shares_done(struct keeper *k)
{
	for (unsigned i = 0; k->shares && i < VM_MAX_MOUNTS; i++) {
		struct share *s = &k->shares->list[i];

		end_child(s);
		carried_done(&s->carried);
		fd_close(s->fd);
		fd_close(s->sock);
	}
	if (k->shares) {
		free(k->shares->program);
		free(k->shares->runtime_dir);
	}
	free(k->shares);
	k->shares = NULL;
}
