/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QEMU and its file server. See emulator.h.
 *
 * Always `-accel tcg`: on hosts whose /dev/kvm interprets, QEMU's own choice would be that. The clock is the TSC
 * (`tsc=reliable`), else Linux takes the HPET and the nested KVM has no master clock. RAM is a sparse memfd, shared
 * with the file server, which reads and writes the guest's buffers in it.
 *
 * Files: names and attributes are believed for a tenth of a second, so what changes on the host is soon seen inside;
 * data is kept for as long as the attributes agree (cache=always drops it when they show a change, while cache=auto
 * would read it again at each open). Without any caching the start of a program took twice as long.
 *
 * No debugfs: KVM would make some fifty files of counters there for each VM and remove them at its end.
 */
#include "machine/emulator.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/process.h"
#include "base/util.h"
#include "machine/client.h"

#define QEMU MACHINE_EMULATOR
#define FILE_SERVER "supermachine-fsd"
#define HINT "apt-get install qemu-system-x86"
#define FILES_CACHE "100ms" /* EMULATOR_FILES_STALE_NS */
#define KERNEL_ARGS                                                                                                    \
	"console=ttyS0 quiet loglevel=4 panic=-1 tsc=reliable no_timer_check mitigations=off random.trust_cpu=on "     \
	"maxcpus=1 noreplace-smp debugfs=off "                                                                         \
	"-- --machine"

static bool in_path(const char *name)
{
	const char *p = getenv("PATH"), *end;
	char path[4096];

	for (p = p ? p : "/usr/bin:/bin"; *p; p = *end ? end + 1 : end) {
		end = strchrnul(p, ':');
		snprintf(path, sizeof(path), "%.*s/%s", (int)(end - p), p, name);
		if (access(path, X_OK) == 0)
			return true;
	}
	return false;
}

int emulator_check(struct sm_error *err)
{
	if (!in_path(QEMU))
		return error_set(err, SM_ERROR_HOST, ENOENT, QEMU " is not installed; try: " HINT);
	return 0;
}

static int open_log(const char *dir, const char *name)
{
	_free_ char *path = NULL;
	int fd;

	if (asprintf(&path, "%s/%s", dir, name) < 0)
		return -ENOMEM;
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : fd;
}

/* The file server's end of a socket pair is `theirs`; its caching rule is that of FILES_CACHE. */
static int start_files(const struct emulator_options *o, struct emulator *e, int theirs, struct sm_error *err)
{
	_free_ char *program = NULL;
	char fd[16];
	/* For root owners are what they are; whatever the machine makes for an ordinary user is that user's. */
	const char *argv[] = {NULL,
			      "--fd",
			      fd,
			      "--connected",
			      "--source",
			      "/",
			      "--cache",
			      FILES_CACHE,
			      "--die-with-parent",
			      "--ids",
			      geteuid() == 0 ? "same" : "caller",
			      NULL};
	struct process_options p = {
		.argv = argv, .cwd = "/", .fds = {-1, -1, -1}, .keep = &theirs, .num_keep = 1, .death_signal = SIGKILL};
	_fd_ int log = open_log(o->dir, "files.log");
	int r = 0;

	if (asprintf(&program, "%s/" FILE_SERVER, o->libexec_dir) < 0)
		return error_sys(err, ENOMEM, "file server");
	argv[0] = program;
	snprintf(fd, sizeof(fd), "%d", theirs);
	p.fds[1] = p.fds[2] = log;
	e->files_pid = process_start(&p, &e->files_pidfd, err);
	if (e->files_pid < 0) {
		r = (int)e->files_pid;
		e->files_pid = 0;
	}
	return r;
}

static int start_qemu(const struct emulator_options *o, struct emulator *e, int files, int agent, struct sm_error *err)
{
	char cpus[16], memory[80], size[32], files_dev[48], agent_dev[48], serial[4200];
	const char *argv[] = {QEMU,
			      "-name",
			      "supermachine",
			      "-no-user-config",
			      "-nodefaults",
			      "-display",
			      "none",
			      "-no-reboot",
			      "-M",
			      "q35,memory-backend=ram,i8042=off,vmport=off",
			      "-accel",
			      "tcg,thread=multi",
			      "-cpu",
			      "EPYC,+svm,+npt,+nrip-save",
			      "-smp",
			      cpus,
			      "-object",
			      memory,
			      "-m",
			      size,
			      "-kernel",
			      o->kernel,
			      "-initrd",
			      o->initramfs,
			      "-append",
			      KERNEL_ARGS,
			      "-chardev",
			      files_dev,
			      "-device",
			      "vhost-user-fs-pci,chardev=files,tag=" EMULATOR_ROOT_TAG ",queue-size=1024",
			      "-device",
			      "virtio-serial-pci",
			      "-chardev",
			      agent_dev,
			      "-device",
			      "virtserialport,chardev=agent,name=" EMULATOR_PORT,
			      "-device",
			      "virtio-rng-pci",
			      "-serial",
			      serial,
			      NULL};
	int keep[] = {files, agent};
	struct process_options p = {
		.argv = argv, .cwd = "/", .fds = {-1, -1, -1}, .keep = keep, .num_keep = 2, .death_signal = SIGKILL};
	_fd_ int log = open_log(o->dir, "emulator.log");

	snprintf(cpus, sizeof(cpus), "%u", o->cpus);
	snprintf(memory, sizeof(memory), "memory-backend-memfd,id=ram,share=on,size=%llu",
		 (unsigned long long)o->memory);
	snprintf(size, sizeof(size), "%lluM", (unsigned long long)(o->memory / MIB));
	snprintf(files_dev, sizeof(files_dev), "socket,id=files,fd=%d", files);
	snprintf(agent_dev, sizeof(agent_dev), "socket,id=agent,fd=%d", agent);
	snprintf(serial, sizeof(serial), "file:%s/console", o->dir);
	p.fds[1] = p.fds[2] = log;
	e->pid = process_start(&p, &e->pidfd, err);
	if (e->pid < 0) {
		int r = (int)e->pid;

		e->pid = 0;
		return r;
	}
	return 0;
}

static int make_pair(int *ret_a, int *ret_b, struct sm_error *err)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return error_sys(err, errno, "machine");
	*ret_a = pair[0];
	*ret_b = pair[1];
	return 0;
}

int emulator_start(const struct emulator_options *o, struct emulator *ret, struct sm_error *err)
{
	struct emulator e = {.pidfd = -1, .files_pidfd = -1, .agent_fd = -1};
	_fd_ int ours = -1, agent = -1, files = -1, server = -1;
	int r = emulator_check(err);

	if (r == 0)
		r = make_pair(&ours, &agent, err);
	if (r == 0)
		r = make_pair(&files, &server, err);
	if (r < 0)
		return r;
	r = start_files(o, &e, server, err);
	if (r == 0)
		r = start_qemu(o, &e, files, agent, err);
	if (r < 0) {
		emulator_stop(&e, NULL, 0);
		return r;
	}
	e.agent_fd = TAKE_FD(ours);
	*ret = e;
	return 0;
}

/* False: it had not ended by itself. */
static bool end_process(pid_t *pid, int *pidfd, int *status)
{
	bool ended = false;

	*status = 0;
	if (*pid > 0) {
		ended = waitpid(*pid, status, WNOHANG | __WALL) == *pid;
		if (!ended) {
			kill(*pid, SIGKILL);
			process_wait(*pid, status);
		}
	}
	*pid = 0;
	*pidfd = fd_close(*pidfd);
	return ended;
}

void emulator_stop(struct emulator *e, char *how, size_t size)
{
	int status;
	bool ended = end_process(&e->pid, &e->pidfd, &status);

	if (how && !ended)
		snprintf(how, size, "it did not answer any more");
	else if (how && WIFSIGNALED(status))
		snprintf(how, size, "its emulator was killed by signal %d", WTERMSIG(status));
	else if (how)
		snprintf(how, size, "its emulator ended with status %d", WEXITSTATUS(status));
	end_process(&e->files_pid, &e->files_pidfd, &status);
	e->agent_fd = fd_close(e->agent_fd);
}
