/* SPDX-License-Identifier: Apache-2.0 */
/*
 * supermachine-agent: PID 1 of a microVM (no argument), of the machine (--machine), or an ordinary process that serves
 * the descriptor N on the root it finds (--fd N [--pid-namespace] [--cgroup DIR], for tests; the namespace needs a
 * mount namespace of its own).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fileio.h"
#include "base/log.h"
#include "base/util.h"
#include "guest/cgroup.h"
#include "guest/child.h"
#include "guest/roles.h"

static int usage(void)
{
	fprintf(stderr, "usage: supermachine-agent --fd N [--pid-namespace] [--cgroup DIR]\n"
			"(otherwise it is started by a kernel, as PID 1)\n");
	return 2;
}

static int serve_fd(struct agent *a, int argc, char **argv)
{
	uint64_t fd = 0;
	int r = -EINVAL;

	for (int i = 1; i < argc; i++) {
		if (streq(argv[i], "--fd") && i + 1 < argc)
			r = parse_u64(argv[++i], 0, 1 << 20, &fd);
		else if (streq(argv[i], "--pid-namespace"))
			a->pid_namespace = true;
		else if (streq(argv[i], "--cgroup") && i + 1 < argc)
			r = cgroup_use(a, argv[++i]);
		else
			return usage();
		if (r < 0 && r != -EINVAL)
			break;
	}
	if (r < 0)
		return usage();
	fd_set_cloexec((int)fd, true);
	a->proc_fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	a->sys_fd = open("/sys", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r = agent_serve(a, (int)fd);
	agent_done(a);
	return r < 0 ? 1 : 0;
}

/* A connection to a port is a descriptor of the agent's: as many as the kernel allows. Programs have limits of their
 * own (child.c). */
static void raise_limits(void)
{
	if (fd_limit_raise(NOFILE_HARD) < NOFILE_HARD)
		log_warn("agent", "limit of open files: %s", strerror(errno));
}

/* A PID 1 that ends is a kernel panic, so the host sees a guest that failed; the last words are on the console. */
int main(int argc, char **argv)
{
	enum agent_role role = ROLE_GUEST;
	struct agent a;
	int r;

	if (getpid() != 1 || (argc > 1 && streq(argv[1], "--fd")))
		role = ROLE_FD;
	else if (argc > 1 && streq(argv[1], "--machine"))
		role = ROLE_MACHINE;
	umask(0022);
	r = agent_init(&a, role);
	if (r < 0) {
		log_error("agent", "cannot start: %s", strerror(-r));
		return 1;
	}
	if (role == ROLE_FD)
		return serve_fd(&a, argc, argv);
	raise_limits();
	r = role == ROLE_MACHINE ? machine_role(&a) : guest_role(&a);
	log_error("agent", "ended: %s", strerror(-r));
	sync();
	return 1;
}
