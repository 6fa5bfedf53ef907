/* SPDX-License-Identifier: Apache-2.0 */
/*
 * supermachine-machine: starts the daemon (one for each runtime directory, held by a lock), says one line on its
 * standard output ("ok", "busy", or what is wrong) and serves until it is stopped, idle, or killed. Not for people:
 * `supermachine machine` starts it.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/util.h"
#include "machine/daemon.h"

#define IDLE_DEFAULT_NS (10ULL * 60 * 1000000000)
#define MAX_CPUS 16
#define LISTEN_BACKLOG 1024
#define CONNECTIONS 8192u /* of clients: a descriptor each */

/* A lock on a file that the last holder removes: one that was removed while we waited for it is not the lock any more.
 */
static int take_lock(const char *path, struct sm_error *err)
{
	for (;;) {
		_fd_ int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		struct stat mine, there;

		if (fd < 0)
			return error_sys(err, errno, "open %s", path);
		if (flock(fd, LOCK_EX | LOCK_NB) < 0)
			return errno == EWOULDBLOCK ? -EBUSY : error_sys(err, errno, "lock %s", path);
		if (fstat(fd, &mine) < 0)
			return error_sys(err, errno, "lock %s", path);
		if (stat(path, &there) == 0 && there.st_ino == mine.st_ino && there.st_dev == mine.st_dev)
			return TAKE_FD(fd);
	}
}

static uint64_t total_memory(void)
{
	return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

/*
 * Three quarters of the host's memory and one CPU, unless the environment says otherwise: SUPERMACHINE_MACHINE_MEMORY,
 * _CPUS, _IDLE. One CPU, because QEMU with more of them now and then takes an interrupt between a guest's exit and the
 * first instruction after it (docs/PERFORMANCE.md, Machine), which ends a guest or the machine.
 */
static int size_machine(struct daemon *d, struct sm_error *err)
{
	const char *memory = getenv("SUPERMACHINE_MACHINE_MEMORY"), *cpus = getenv("SUPERMACHINE_MACHINE_CPUS"),
		   *idle = getenv("SUPERMACHINE_MACHINE_IDLE");
	uint64_t n;

	d->memory = total_memory() / 4 * 3;
	d->cpus = 1;
	d->idle_ns = IDLE_DEFAULT_NS;
	if (memory && (parse_size(memory, &d->memory) < 0 || d->memory < 512 * MIB))
		return error_set(err, SM_ERROR_INVALID, EINVAL,
				 "SUPERMACHINE_MACHINE_MEMORY=%s: a size of 512M or more", memory);
	if (cpus && parse_u64(cpus, 1, MAX_CPUS, &n) < 0)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "SUPERMACHINE_MACHINE_CPUS=%s: 1 to %d", cpus,
				 MAX_CPUS);
	if (cpus)
		d->cpus = (unsigned)n;
	if (idle && parse_duration(idle, &d->idle_ns) < 0)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "SUPERMACHINE_MACHINE_IDLE=%s: a duration such as 10m",
				 idle);
	d->memory = d->memory / (2 * MIB) * (2 * MIB);
	return 0;
}

static int parse_args(struct daemon *d, int argc, char **argv)
{
	static const struct option options[] = {{"runtime-dir", required_argument, NULL, 'r'},
						{"data-dir", required_argument, NULL, 'd'},
						{"state-dir", required_argument, NULL, 's'},
						{"libexec-dir", required_argument, NULL, 'l'},
						{0}};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (c == 'r')
			d->runtime_dir = optarg;
		else if (c == 'd')
			d->data_dir = optarg;
		else if (c == 's')
			d->state_dir = optarg;
		else if (c == 'l')
			d->libexec_dir = optarg;
		else
			return -EINVAL;
	}
	return d->runtime_dir && d->data_dir && d->state_dir && d->libexec_dir && optind == argc ? 0 : -EINVAL;
}

/* The lock, a directory without a predecessor's leavings, the socket. */
static int claim(struct daemon *d, const char *lock_path, struct sm_error *err)
{
	_free_ char *path = NULL;
	int r = mkdir_p(d->runtime_dir, 0700);

	if (r < 0)
		return error_sys(err, -r, "make %s", d->runtime_dir);
	d->lock = take_lock(lock_path, err);
	if (d->lock < 0)
		return d->lock;
	r = remove_tree_at(AT_FDCWD, d->dir);
	if (r == 0)
		r = mkdir_p(d->dir, 0700);
	if (r < 0)
		return error_sys(err, -r, "make %s", d->dir);
	if (asprintf(&path, "%s/" MACHINE_SOCKET, d->runtime_dir) < 0)
		return error_sys(err, ENOMEM, "machine");
	d->listen = unix_listen(path, LISTEN_BACKLOG);
	return d->listen < 0 ? error_sys(err, -d->listen, "listen on %s", path) : 0;
}

/* Nobody reads our output any more after the first line; what is said later goes to a file. */
static int detach_output(const struct daemon *d, const char *line)
{
	_free_ char *path = NULL;
	_fd_ int log = -1, null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int r = write_full(STDOUT_FILENO, line, strlen(line));

	if (r == 0 && asprintf(&path, "%s/log", d->dir) < 0)
		r = -ENOMEM;
	if (r < 0)
		return r;
	log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (log < 0 || null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 ||
	    dup2(log, STDERR_FILENO) < 0)
		return -errno;
	return 0;
}

static int open_signals(void)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -errno;
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* All files go before the lock does, so that the next daemon finds nothing; the runtime directory stays, others use it
 * too. */
static void clean_up(struct daemon *d, const char *lock_path)
{
	if (d->lock < 0)
		return;
	if (daemon_owns(d)) {
		remove_tree_at(AT_FDCWD, d->dir);
		unlink(lock_path);
	}
	d->lock = fd_close(d->lock);
}

static int serve(struct daemon *d, const char *lock_path, struct sm_error *err)
{
	int signals, r = size_machine(d, err);

	if (r == 0)
		r = claim(d, lock_path, err);
	if (r < 0)
		return r;
	signals = open_signals();
	if (signals < 0)
		return error_sys(err, errno, "signals");
	r = detach_output(d, "ok\n");
	if (r == 0)
		r = daemon_run(d, signals, err);
	if (r < 0)
		log_error("machine", "%s", err->message);
	return 0;
}

int main(int argc, char **argv)
{
	struct daemon d = {
		.lock = -1, .listen = -1, .watch = -1, .emu = {.pidfd = -1, .files_pidfd = -1, .agent_fd = -1}};
	_free_ char *lock_path = NULL;
	struct sm_error err = {0};
	int r;

	if (parse_args(&d, argc, argv) < 0) {
		fprintf(stderr, "usage: %s --runtime-dir DIR --data-dir DIR --state-dir DIR --libexec-dir DIR\n",
			argv[0]);
		return 2;
	}
	umask(077);
	fd_limit_raise(CONNECTIONS);
	if (asprintf(&d.dir, "%s/" MACHINE_DIR, d.runtime_dir) < 0 ||
	    asprintf(&lock_path, "%s/machine.lock", d.runtime_dir) < 0)
		return 1;
	r = serve(&d, lock_path, &err);
	if (r == -EBUSY)
		puts("busy");
	else if (r < 0)
		printf("%s\n", err.message);
	/* Those who wait for the stop are told last: then nothing is left of it. */
	clean_up(&d, lock_path);
	daemon_done(&d);
	free(d.dir);
	return r < 0 ? 1 : 0;
}
