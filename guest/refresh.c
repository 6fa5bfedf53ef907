/* SPDX-License-Identifier: Apache-2.0 */
/* Makes this kernel ask again for what changed on the host. See refresh.h. */
#include "guest/refresh.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/securebits.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"

/* As fuse/watch.h has them; the rooms may not know each other. */
#define PROBE_DEVICE makedev(0xfff, 0xfffff)
#define EVENT_TIME ((struct timespec){.tv_sec = -0x5afe736dLL, .tv_nsec = 736764637})

#define HERALD 4294859518U

/* musl 1.2.3 has no statx: its flags, by number. */
#define FORCE_SYNC 0x2000
#define BASIC_STATS 0x7ffU

/* The path of a name in the kernel's caches is looked up afresh for an exclusive create, which is then refused. */
static int ask_for_name(int base, const char *path)
{
	int r = mknodat(base, path, S_IFCHR | 0600, PROBE_DEVICE);

	/* A host without the other half of this would have made it. */
	if (r == 0)
		unlinkat(base, path, 0);
	return r == 0 || errno == EEXIST || errno == EROFS || errno == ENOENT ? 0 : -errno;
}

static int ask_for_attributes(int base, const char *path)
{
	uint64_t answer[32]; /* struct statx: 256 bytes, which nobody reads here */

	return syscall(SYS_statx, base, path, AT_SYMLINK_NOFOLLOW | FORCE_SYNC, BASIC_STATS, answer) < 0 ? -errno : 0;
}

/* The kernel keeps what it has listed in the directory's page cache, for as long as the times are those: a change
 * within the same tick of the host's clock would not show in them. */
static void drop_listing(int base, const char *path)
{
	_fd_ int dir = openat(base, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (dir >= 0)
		posix_fadvise(dir, 0, 0, POSIX_FADV_DONTNEED);
}

/* For those in the guest who watch the file (inotify): changes nothing. */
static void raise_event(int base, const char *path, bool contents)
{
	struct timespec times[2] = {EVENT_TIME, EVENT_TIME};

	if (contents)
		times[0].tv_nsec = UTIME_OMIT;
	if (utimensat(base, path, times, AT_SYMLINK_NOFOLLOW) < 0)
		return; /* a read-only mount raises none */
}

static int tell(int dir, const char *name, enum refresh_what what)
{
	switch (what) {
	case REFRESH_MADE_DIRECTORY:
		return mkdirat(dir, name, 0700);
	case REFRESH_MADE_LINK:
		return symlinkat("-", dir, name);
	case REFRESH_GONE:
		return unlinkat(dir, name, 0);
	case REFRESH_GONE_DIRECTORY:
		return unlinkat(dir, name, AT_REMOVEDIR);
	default:
		return mknodat(dir, name, S_IFREG | 0600, 0);
	}
}

/*
 * For those in the guest who watch the directory: asks, as the user whose requests the host never carries out, for what
 * the host has done already. The kernel then knows the name as it is now, too.
 */
static int tell_as_herald(int base, const char *path, enum refresh_what what)
{
	const char *slash = strrchr(path, '/');
	char parent[REFRESH_MAX];
	_fd_ int dir = -1;
	int r;

	if (!slash || !slash[1])
		return -EINVAL;
	memcpy(parent, path, (size_t)(slash - path));
	parent[slash - path] = '\0';
	dir = openat(base, parent, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	/* Another user for requests, without giving up the privileges that this kernel asks for. */
	if (dir < 0 || prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP) < 0)
		return -errno;
	setfsuid(HERALD);
	/* Had that failed, the host would do as it is told. */
	r = setfsuid(HERALD) == (int)HERALD ? tell(dir, slash + 1, what) < 0 ? -errno : 0 : -EPERM;
	setfsuid(0);
	return r;
}

int refresh_apply(int base, int proc, enum refresh_what what, const char *path)
{
	int r;

	if (what == REFRESH_ALL)
		return write_text_at(proc, "sys/vm/drop_caches", "3"); /* pages and dentries */
	if (what >= REFRESH_MADE_FILE && tell_as_herald(base, path, what) == 0)
		return 0;
	if (what == REFRESH_NAME || what >= REFRESH_MADE_FILE)
		return ask_for_name(base, path);
	if (what == REFRESH_LISTING) {
		drop_listing(base, path);
		return ask_for_attributes(base, path);
	}
	r = ask_for_attributes(base, path);
	if (r == 0)
		raise_event(base, path, what == REFRESH_CONTENTS);
	return r;
}

int refresh_serve(int base, int proc, int fd, int told)
{
	uint8_t record[REFRESH_MAX + 1];
	uint32_t len;

	for (;;) {
		ssize_t n = read_full(fd, &len, sizeof(len));

		if (n <= 0)
			return (int)n;
		len = le32toh(len);
		if (n < (ssize_t)sizeof(len) || len < 1 || len > REFRESH_MAX)
			return -EPROTO;
		n = read_full(fd, record, len);
		if (n < (ssize_t)len)
			return n < 0 ? (int)n : -EPROTO;
		record[len] = '\0';
		if (memchr(record + 1, '\0', len - 1) || record[1] == '/')
			return -EPROTO;
		if (record[0] == REFRESH_CAUGHT_UP) {
			if (told >= 0 && write(told, "", 1) < 0)
				return -errno;
			continue;
		}
		/* What is gone meanwhile needs no refreshing. */
		refresh_apply(base, proc, record[0], (const char *)record + 1);
	}
}

/* Keeps nothing of the agent's but these descriptors. */
static _Noreturn void child(int base, int proc, int told)
{
	struct sockaddr_vm host = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = REFRESH_PORT};
	sigset_t none;
	int fd;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NAME, "sm-refresh");
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if ((told >= 0 && dup2(told, 2) < 0) || dup2(proc, 1) < 0 || dup2(base, 0) < 0 ||
	    syscall(SYS_close_range, 3U, ~0U, 0U) < 0)
		_exit(1);
	fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&host, sizeof(host)) < 0)
		_exit(1); /* a host that does not watch */
	_exit(refresh_serve(0, 1, fd, told < 0 ? -1 : 2) < 0);
}

int refresh_start(int base, int proc)
{
	pid_t pid = fork();

	if (pid == 0)
		child(base, proc, -1);
	return pid < 0 ? -errno : pid;
}

/* What was used lately is only asked to go the first time. */
static int drop_all(int proc)
{
	int r = 0;

	for (int i = 0; i < 4 && r == 0; i++)
		r = refresh_apply(-1, proc, REFRESH_ALL, "");
	return r;
}

int refresh_catch_up(int base, int proc, int limit_ms)
{
	struct pollfd p = {.events = POLLIN};
	_fd_ int told = -1;
	int pair[2];
	pid_t pid;
	char byte;

	if (pipe2(pair, O_CLOEXEC) < 0)
		return -errno;
	told = p.fd = pair[0];
	pid = fork();
	if (pid == 0)
		child(base, proc, pair[1]);
	close(pair[1]);
	if (pid < 0)
		return -errno;
	return poll(&p, 1, limit_ms) > 0 && read(told, &byte, 1) == 1 ? 0 : drop_all(proc);
}
