/* SPDX-License-Identifier: Apache-2.0 */
/*
 * supermachine-fsd: serves a directory of this host to one vhost-user front end (QEMU's vhost-user-fs-pci, say), and
 *ends with it.
 *
 *	supermachine-fsd --socket PATH | --fd N  --source DIR  [--cache none|auto|always] [--ids caller|same]
 *[--read-only]
 *
 * --fd: an already listening (or connected, with --connected) socket instead of a path that this program makes.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "vhost/vhost_user.h"
#include "fuse/posix.h"

struct arguments {
	const char *socket, *source, *cache;
	int fd;
	bool connected, read_only, same, die_with_parent;
};

static int usage(void)
{
	fprintf(stderr, "usage: supermachine-fsd --socket PATH | --fd N [--connected]  --source DIR [--cache "
			"none|auto|always|DURATION] "
			"[--ids caller|same] [--read-only] [--die-with-parent]\n");
	return 2;
}

static int parse(int argc, char **argv, struct arguments *a)
{
	static const struct option options[] = {
		{"socket", required_argument, NULL, 's'},
		{"fd", required_argument, NULL, 'f'},
		{"source", required_argument, NULL, 'd'},
		{"cache", required_argument, NULL, 'c'},
		{"ids", required_argument, NULL, 'i'},
		{"read-only", no_argument, NULL, 'r'},
		{"connected", no_argument, NULL, 'C'},
		{"die-with-parent", no_argument, NULL, 'p'},
		{0},
	};
	uint64_t number;
	int c;

	*a = (struct arguments){.fd = -1, .cache = "auto"};
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 's':
			a->socket = optarg;
			break;
		case 'f':
			if (parse_u64(optarg, 0, 1 << 20, &number) < 0)
				return -EINVAL;
			a->fd = (int)number;
			break;
		case 'd':
			a->source = optarg;
			break;
		case 'c':
			a->cache = optarg;
			break;
		case 'i':
			if (!streq(optarg, "same") && !streq(optarg, "caller"))
				return -EINVAL;
			a->same = streq(optarg, "same");
			break;
		case 'r':
			a->read_only = true;
			break;
		case 'C':
			a->connected = true;
			break;
		case 'p':
			a->die_with_parent = true;
			break;
		default:
			return -EINVAL;
		}
	}
	return optind == argc && a->source && !a->socket == (a->fd >= 0) ? 0 : -EINVAL;
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

/* As many descriptors as the kernel lets this process have: nodes and open files share them. */
static void raise_fd_limit(void)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim) < 0)
		return;
	if (geteuid() == 0 && lim.rlim_max < 1u << 20)
		lim.rlim_max = 1u << 20;
	lim.rlim_cur = lim.rlim_max;
	setrlimit(RLIMIT_NOFILE, &lim); /* a lower budget is no error */
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

static int serve(const struct arguments *a, struct sm_error *err)
{
	struct fuse_posix_options o = {.ids = a->same ? FUSE_POSIX_SAME : FUSE_POSIX_CALLER, .read_only = a->read_only};
	struct fuse_session_options so = {.read_only = a->read_only};
	struct fuse_session *session = NULL;
	struct sm_fs_backend *be = NULL;
	_fd_ int sock = -1;
	int r = valid_ns(a->cache, &o.valid_ns);

	if (r < 0)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "--cache is none, auto, always or a duration, not '%s'",
				 a->cache);
	r = fuse_posix_new(a->source, &o, &be, err);
	if (r == 0)
		r = fuse_session_new(be, &so, &session);
	if (r == 0)
		r = sock = get_connection(a, err);
	if (r >= 0)
		r = vhost_user_serve(sock, -1, session, err);
	fuse_session_free(session);
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
	umask(0); /* modes are the peer's to choose */
	raise_fd_limit();
	if (serve(&a, &err) < 0) {
		fprintf(stderr, "supermachine-fsd: %s\n", err.message);
		return 1;
	}
	return 0;
}
