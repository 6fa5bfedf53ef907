/* SPDX-License-Identifier: Apache-2.0 */
/*
 * supermachine-fsd: serves a directory of this host, to one vhost-user front end (QEMU's vhost-user-fs-pci, say), and
 * ends with it; or with --share to any number of this user's programs (fs mount --backend daemon), and ends when none
 *has been there for a while.
 *
 *	supermachine-fsd [--share] --socket PATH | --fd N  --source DIR  [--cache none|auto|always|DURATION]
 *		[--ids caller|same|none|RANGES] [--symlinks opaque|deny|follow] [--xattrs auto|mapped] [--read-only] ...
 *
 * --fd: an already listening (or connected, with --connected) socket instead of a path that this program makes. --share
 * with --fd: --socket is what is to be removed at the end. --source-fd N: what is served, open already; --source is its
 * name then. --lock FILE: is locked before the end, and the end put off
 * while it is not to be had.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/filter.h"
#include "base/util.h"
#include "vhost/vhost_user.h"
#include "fuse/posix.h"
#include "fuse/share_server.h"

struct arguments {
	const char *socket, *source, *cache, *ids, *symlinks, *xattrs, *lock;
	int fd, source_fd;
	uint64_t idle_ns, max_fds, max_open;
	bool share, connected, read_only, direct, die_with_parent;
};

static int usage(void)
{
	fprintf(stderr, "usage: supermachine-fsd [--share [--idle DURATION] [--lock FILE]] --socket PATH | --fd N "
			"[--connected] --source DIR [--source-fd N] [--cache none|auto|always|DURATION] [--ids "
			"caller|same|none|RANGES] "
			"[--symlinks opaque|deny|follow] [--xattrs auto|mapped] [--read-only] [--direct] [--max-fds N] "
			"[--max-open N] [--die-with-parent]\n");
	return 2;
}

static const struct option options[] = {
	{"socket", required_argument, NULL, 's'},    {"fd", required_argument, NULL, 'f'},
	{"source", required_argument, NULL, 'd'},    {"cache", required_argument, NULL, 'c'},
	{"ids", required_argument, NULL, 'i'},	     {"symlinks", required_argument, NULL, 'l'},
	{"xattrs", required_argument, NULL, 'x'},    {"source-fd", required_argument, NULL, 'F'},
	{"lock", required_argument, NULL, 'L'},	     {"idle", required_argument, NULL, 'I'},
	{"max-fds", required_argument, NULL, 'n'},   {"max-open", required_argument, NULL, 'o'},
	{"share", no_argument, NULL, 'S'},	     {"read-only", no_argument, NULL, 'r'},
	{"direct", no_argument, NULL, 'D'},	     {"connected", no_argument, NULL, 'C'},
	{"die-with-parent", no_argument, NULL, 'p'}, {0},
};

/* Options with a value. */
static int take_value(struct arguments *a, int c)
{
	uint64_t number;

	switch (c) {
	case 's':
		a->socket = optarg;
		return 0;
	case 'f':
		if (parse_u64(optarg, 0, 1 << 20, &number) < 0)
			return -EINVAL;
		a->fd = (int)number;
		return 0;
	case 'F':
		if (parse_u64(optarg, 0, 1 << 20, &number) < 0)
			return -EINVAL;
		a->source_fd = (int)number;
		return 0;
	case 'd':
		a->source = optarg;
		return 0;
	case 'c':
		a->cache = optarg;
		return 0;
	case 'i':
		a->ids = optarg;
		return 0;
	case 'l':
		a->symlinks = optarg;
		return 0;
	case 'x':
		a->xattrs = optarg;
		return 0;
	case 'L':
		a->lock = optarg;
		return 0;
	case 'I':
		return parse_duration(optarg, &a->idle_ns);
	case 'n':
		return parse_u64(optarg, 0, 1 << 20, &a->max_fds);
	case 'o':
		return parse_u64(optarg, 0, 1 << 20, &a->max_open);
	default:
		return -EINVAL;
	}
}

static int parse(int argc, char **argv, struct arguments *a)
{
	int c;

	*a = (struct arguments){
		.fd = -1, .source_fd = -1, .cache = "auto", .ids = "caller", .symlinks = "opaque", .xattrs = "auto"};
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'S')
			a->share = true;
		else if (c == 'r')
			a->read_only = true;
		else if (c == 'D')
			a->direct = true;
		else if (c == 'C')
			a->connected = true;
		else if (c == 'p')
			a->die_with_parent = true;
		else if (take_value(a, c) < 0)
			return -EINVAL;
	}
	if (optind != argc || !a->source || (!a->socket && a->fd < 0) || (a->socket && a->fd >= 0 && !a->share))
		return -EINVAL;
	return a->share && a->connected ? -EINVAL : 0;
}

/* none: every use asks. auto: one second. always: a day, for trees that nobody else changes. Or a duration: "100ms". */
static int valid_ns(const char *cache, uint64_t *ret)
{
	if (streq(cache, "none"))
		*ret = 0;
	else if (streq(cache, "auto"))
		*ret = 1000000000ULL;
	else if (streq(cache, "always"))
		*ret = 86400ULL * 1000000000ULL;
	else
		return parse_duration(cache, ret);
	return 0;
}

static int get_connection(const struct arguments *a, struct sm_error *err)
{
	_fd_ int listener = a->fd;
	int sock;

	if (a->connected)
		return TAKE_FD(listener);
	if (a->socket) {
		listener = unix_listen(a->socket, 1);
		if (listener < 0)
			return error_sys(err, -listener, "listen on %s", a->socket);
	}
	sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	return sock < 0 ? error_sys(err, errno, "accept") : sock;
}

static int posix_options(const struct arguments *a, struct fuse_posix_options *o, struct sm_error *err)
{
	*o = (struct fuse_posix_options){
		.read_only = a->read_only,
		.direct = a->direct,
		.max_fds = (unsigned)a->max_fds,
		.max_open = (unsigned)a->max_open,
		.ids = streq(a->ids, "same")   ? FUSE_POSIX_SAME
		       : streq(a->ids, "none") ? FUSE_POSIX_NONE
					       : FUSE_POSIX_CALLER,
		.symlinks = streq(a->symlinks, "deny")	   ? FUSE_POSIX_DENY
			    : streq(a->symlinks, "follow") ? FUSE_POSIX_FOLLOW
							   : FUSE_POSIX_OPAQUE,
		.xattrs = streq(a->xattrs, "mapped") ? FUSE_POSIX_XATTRS_MAPPED : FUSE_POSIX_XATTRS_AUTO,
	};
	if (valid_ns(a->cache, &o->valid_ns) < 0)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "--cache is none, auto, always or a duration, not '%s'",
				 a->cache);
	if (fuse_posix_check_ranges(a->ids) == 0) {
		o->ids = FUSE_POSIX_RANGES;
		o->id_ranges = a->ids;
	} else if (o->ids == FUSE_POSIX_CALLER && !streq(a->ids, "caller")) {
		return error_set(err, SM_ERROR_INVALID, EINVAL, "--ids is caller, same, none or ranges, not '%s'",
				 a->ids);
	}
	if (o->symlinks == FUSE_POSIX_OPAQUE && !streq(a->symlinks, "opaque"))
		return error_set(err, SM_ERROR_INVALID, EINVAL, "--symlinks is opaque, deny or follow, not '%s'",
				 a->symlinks);
	if (o->xattrs == FUSE_POSIX_XATTRS_AUTO && !streq(a->xattrs, "auto"))
		return error_set(err, SM_ERROR_INVALID, EINVAL, "--xattrs is auto or mapped, not '%s'", a->xattrs);
	return 0;
}

/* One front end, on this thread. */
static int serve_front_end(const struct arguments *a, struct sm_fs_backend *be, struct sm_error *err)
{
	struct fuse_session_options so = {.read_only = a->read_only};
	struct fuse_session *session = NULL;
	_fd_ int sock = -1;
	int r = fuse_session_new(be, &so, &session);

	if (r < 0)
		return error_sys(err, -r, "serve %s", a->source);
	r = sock = get_connection(a, err);
	if (r >= 0)
		r = vhost_user_serve(sock, -1, session, err);
	fuse_session_free(session);
	return r;
}

/* Without the lock somebody is about to connect; where its directory is gone nobody can. It is kept until this process
 * is gone. */
static bool may_end(const struct arguments *a, int listener, struct share_server *s)
{
	struct pollfd p = {.fd = listener, .events = POLLIN};
	int lock = a->lock ? open(a->lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
	bool unreachable = a->lock && lock < 0 && errno == ENOENT;
	struct share_server_stats stats;

	if (a->lock && !unreachable && (lock < 0 || flock(lock, LOCK_EX | LOCK_NB) < 0)) {
		fd_close(lock);
		return false;
	}
	share_server_get_stats(s, &stats);
	if (!stats.clients && poll(&p, 1, 0) == 0)
		return true;
	fd_close(lock);
	return false;
}

/*
 * Sealed for good, with all threads to come: files beneath what is served are what it is for, and clients on its
 * socket; no program is executed, nothing is connected to.
 */
static int seal(struct sm_error *err)
{
	static const struct filter_rule rules[] = {
		/* a thread, as the C library makes one */
		CALL_WITH(clone, 0,
			  CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SYSVSEM | CLONE_SIGHAND | CLONE_THREAD |
				  CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID),
		CALL_WITH(unshare, 0, CLONE_FS),
	};
	static const int server[] = {SYS_accept4,
				     SYS_eventfd2,
				     SYS_umask,
				     SYS_flock,
				     SYS_unlink,
				     SYS_openat,
				     SYS_inotify_init1,
				     SYS_inotify_add_watch,
				     SYS_inotify_rm_watch,
				     SYS_epoll_create1,
				     -1};
	int r = filter_process(rules, ARRAY_SIZE(rules), (const int *const[]){server, fuse_posix_syscalls, NULL});

	return r < 0 ? error_sys(err, -r, "seal") : 0;
}

/* Any number of clients, on threads of theirs. This one waits for a signal, or until nobody has been there for long. */
static int serve_shared(const struct arguments *a, struct sm_fs_backend *be, struct sm_error *err)
{
	struct share_server_options o = {.read_only = a->read_only, .path = a->socket};
	struct timespec second = {.tv_sec = 1};
	struct share_server *s;
	struct share_server_stats stats;
	uint64_t since = time_now_ns();
	int listener = a->fd >= 0 ? a->fd : unix_listen(a->socket, 64), r;
	sigset_t ends;

	if (listener < 0)
		return error_sys(err, -listener, "listen on %s", a->socket);
	sigemptyset(&ends);
	sigaddset(&ends, SIGINT);
	sigaddset(&ends, SIGTERM);
	sigprocmask(SIG_BLOCK, &ends, NULL);
	r = seal(err);
	if (r < 0) {
		fd_close(listener);
		return r;
	}
	r = share_server_start(be, listener, &o, &s, err);
	if (r < 0)
		return r;
	while (sigtimedwait(&ends, NULL, &second) < 0) {
		share_server_get_stats(s, &stats);
		if (stats.clients)
			since = time_now_ns();
		else if (a->idle_ns && time_now_ns() - since > a->idle_ns && may_end(a, listener, s))
			break;
	}
	share_server_stop(s);
	return 0;
}

static int serve(const struct arguments *a, struct sm_error *err)
{
	struct fuse_posix_options o;
	struct sm_fs_backend *be = NULL;
	int r = posix_options(a, &o, err);

	if (r == 0)
		r = a->source_fd >= 0 ? fuse_posix_new_fd(a->source_fd, a->source, &o, &be, err)
				      : fuse_posix_new(a->source, &o, &be, err);
	if (r == 0)
		r = a->share ? serve_shared(a, be, err) : serve_front_end(a, be, err);
	fuse_posix_free(be);
	return r;
}

int main(int argc, char **argv)
{
	struct sm_error err = {0};
	struct arguments a;

	if (parse(argc, argv, &a) < 0)
		return usage();
	if (a.die_with_parent)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_IGN);
	umask(0);		    /* modes are the peer's to choose */
	fd_limit_raise(UINT64_MAX); /* nodes and open files share them */
	if (serve(&a, &err) < 0) {
		fprintf(stderr, "supermachine-fsd: %s\n", err.message);
		return 1;
	}
	return 0;
}
