/* SPDX-License-Identifier: Apache-2.0 */
/* Locks: POSIX record locks, locks of open files (OFD), flock(2); between processes. */
#include "conf.h"

#include <signal.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <time.h>

static int lock(int fd, int cmd, int type, off_t start, off_t len)
{
	struct flock l = {.l_type = (short)type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};

	return fcntl(fd, cmd, &l);
}

struct ask {
	int type, result, pid;
	off_t start, len, got_start, got_len;
	int got_type;
};

/* Asks in another process, by F_SETLK and F_GETLK; the answer comes back by a shared file's bytes: a pipe. */
static struct ask other(int type, off_t start, off_t len)
{
	struct ask a = {.type = type, .start = start, .len = len};
	int p[2], status;
	pid_t pid;

	need(pipe(p) == 0, "pipe");
	pid = fork();
	if (pid == 0) {
		struct flock l = {.l_type = (short)type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
		int fd = open("f", O_RDWR);

		fcntl(fd, F_GETLK, &l);
		a.got_type = l.l_type, a.got_start = l.l_start, a.got_len = l.l_len, a.pid = l.l_pid;
		a.result = lock(fd, F_SETLK, type, start, len) == 0 ? 0 : errno;
		_exit(write(p[1], &a, sizeof(a)) == sizeof(a) ? 0 : 1);
	}
	close(p[1]);
	need(read(p[0], &a, sizeof(a)) == sizeof(a), "answer");
	close(p[0]);
	waitpid(pid, &status, 0);
	return a;
}

static void records(void)
{
	static const struct {
		int held;
		off_t start, len;
		int asked;
		off_t ask_start, ask_len;
		bool conflicts;
	} cases[] = {
		{F_WRLCK, 0, 10, F_WRLCK, 0, 10, true},
		{F_WRLCK, 0, 10, F_RDLCK, 0, 10, true},
		{F_RDLCK, 0, 10, F_RDLCK, 0, 10, false},
		{F_RDLCK, 0, 10, F_WRLCK, 0, 10, true},
		{F_WRLCK, 0, 10, F_WRLCK, 10, 10, false},
		{F_WRLCK, 0, 10, F_WRLCK, 9, 1, true},
		{F_WRLCK, 10, 10, F_WRLCK, 0, 10, false},
		{F_WRLCK, 10, 10, F_WRLCK, 0, 11, true},
		{F_WRLCK, 10, 0, F_WRLCK, 1000000, 1, true},
		{F_WRLCK, 10, 0, F_WRLCK, 0, 10, false},
		{F_WRLCK, 0, 0, F_RDLCK, 5, 5, true},
		{F_RDLCK, 0, 0, F_RDLCK, 5, 5, false},
		{F_WRLCK, 5, 1, F_WRLCK, 0, 0, true},
		{F_WRLCK, 1LL << 40, 10, F_WRLCK, (1LL << 40) + 9, 1, true},
		{F_WRLCK, 1LL << 40, 10, F_WRLCK, 0, 10, false},
	};
	int fd;

	put_file("f", "0123456789", 0644);
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct ask a;

		fd = open("f", O_RDWR);
		works(lock(fd, F_SETLK, cases[i].held, cases[i].start, cases[i].len), "case %zu is taken", i);
		a = other(cases[i].asked, cases[i].ask_start, cases[i].ask_len);
		if (cases[i].conflicts) {
			is_true(a.result == EAGAIN || a.result == EACCES, "case %zu conflicts", i);
			is_true(a.got_type == cases[i].held && a.got_start == cases[i].start &&
					a.got_len == cases[i].len,
				"case %zu is told", i);
			is_eq(a.pid, getpid(), "case %zu names the holder", i);
		} else {
			is_eq(a.result, 0, "case %zu is free", i);
			is_eq(a.got_type, F_UNLCK, "case %zu is told to be free", i);
		}
		works(lock(fd, F_SETLK, F_UNLCK, 0, 0), "case %zu is unlocked", i);
		is_eq(other(F_WRLCK, 0, 0).result, 0, "case %zu leaves nothing", i);
		close(fd);
	}
}

static void splitting(void)
{
	int fd;

	put_file("f", "", 0644);
	fd = open("f", O_RDWR);
	works(lock(fd, F_SETLK, F_WRLCK, 0, 100), "take");
	works(lock(fd, F_SETLK, F_UNLCK, 40, 20), "free the middle");
	is_eq(other(F_WRLCK, 40, 20).result, 0, "the middle is free");
	is_true(other(F_WRLCK, 39, 1).result != 0, "before it is not");
	is_true(other(F_WRLCK, 60, 1).result != 0, "behind it is not");
	works(lock(fd, F_SETLK, F_RDLCK, 0, 20), "turn the beginning to reading");
	is_eq(other(F_RDLCK, 0, 20).result, 0, "may be read-locked");
	is_true(other(F_RDLCK, 20, 1).result != 0, "the rest not");
	works(lock(fd, F_SETLK, F_WRLCK, 0, 200), "take all");
	is_true(other(F_RDLCK, 150, 1).result != 0, "is one lock");
	is_eq(other(F_RDLCK, 200, 1).result, 0, "ends where it ends");
	close(fd);
}

static void closing(void)
{
	int fd, second;

	put_file("f", "", 0644);
	fd = open("f", O_RDWR);
	second = open("f", O_RDONLY);
	works(lock(fd, F_SETLK, F_WRLCK, 0, 0), "take");
	is_true(other(F_WRLCK, 0, 0).result != 0, "is taken");
	close(second);
	is_eq(other(F_WRLCK, 0, 0).result, 0, "closing any descriptor of the file lets go, as POSIX has it");
	works(lock(fd, F_SETLK, F_WRLCK, 0, 0), "take again");
	second = dup(fd);
	close(second);
	is_eq(other(F_WRLCK, 0, 0).result, 0, "closing a duplicate too");
	second = open("f", O_RDONLY);
	fails(lock(second, F_SETLK, F_WRLCK, 0, 0), EBADF, "a write lock of rdonly");
	works(lock(second, F_SETLK, F_RDLCK, 0, 0), "a read lock of rdonly");
	close(second);
	second = open("f", O_WRONLY);
	fails(lock(second, F_SETLK, F_RDLCK, 0, 0), EBADF, "a read lock of wronly");
	close(second);
	fails(lock(fd, F_SETLK, 99, 0, 0), EINVAL, "an unknown type");
	fails(lock(fd, F_SETLK, F_WRLCK, -5, 0), EINVAL, "a negative start");
	close(fd);
}

static void hold(void *arg)
{
	int *p = arg, fd = open("f", O_RDWR);
	char byte = 'x';

	if (lock(fd, F_SETLK, F_WRLCK, 0, 0) < 0 || write(p[1], &byte, 1) != 1)
		_exit(1);
	nap(300);
	_exit(0); /* its end lets go */
}

static void interrupted(int sig)
{
	(void)sig;
}

static void waiting(void)
{
	struct sigaction sa = {.sa_handler = interrupted};
	int p[2], fd, status;
	struct timespec t0, t1;
	char byte;
	pid_t pid;

	put_file("f", "", 0644);
	need(pipe(p) == 0, "pipe");
	pid = fork();
	if (pid == 0)
		hold(p);
	need(read(p[0], &byte, 1) == 1, "holder");
	fd = open("f", O_RDWR);
	fails_either(lock(fd, F_SETLK, F_WRLCK, 0, 0), EAGAIN, EACCES, "is held");
	clock_gettime(CLOCK_MONOTONIC, &t0);
	works(lock(fd, F_SETLKW, F_WRLCK, 0, 0), "wait");
	clock_gettime(CLOCK_MONOTONIC, &t1);
	is_true(ns_of(t1) - ns_of(t0) > 100000000, "waited until the holder ended");
	waitpid(pid, &status, 0);
	lock(fd, F_SETLK, F_UNLCK, 0, 0);
	pid = fork();
	if (pid == 0) {
		lock(fd, F_SETLK, F_WRLCK, 0, 0);
		byte = 'x';
		_exit(write(p[1], &byte, 1) == 1 ? pause() : 1);
	}
	need(read(p[0], &byte, 1) == 1, "holder");
	sigaction(SIGUSR1, &sa, NULL);
	pid_t self = getpid(), killer = fork();

	if (killer == 0) {
		nap(100);
		kill(self, SIGUSR1);
		_exit(0);
	}
	fails(lock(fd, F_SETLKW, F_WRLCK, 0, 0), EINTR, "a signal ends the waiting");
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	waitpid(killer, &status, 0);
	works(lock(fd, F_SETLKW, F_WRLCK, 0, 0), "a killed holder lets go");
	close(fd);
}

static void deadlock(void)
{
	int p[2], q[2], fd, status;
	char byte = 'x';
	pid_t pid;

	put_file("f", "", 0644);
	need(pipe(p) == 0 && pipe(q) == 0, "pipe");
	fd = open("f", O_RDWR);
	works(lock(fd, F_SETLK, F_WRLCK, 0, 1), "take the first byte");
	pid = fork();
	if (pid == 0) {
		lock(fd, F_SETLK, F_WRLCK, 1, 1);
		(void)!write(p[1], &byte, 1);
		_exit(lock(fd, F_SETLKW, F_WRLCK, 0, 1) == 0 ? 0 : 1);
	}
	need(read(p[0], &byte, 1) == 1, "child");
	nap(100);
	fails(lock(fd, F_SETLKW, F_WRLCK, 1, 1), EDEADLK, "a deadlock is found");
	lock(fd, F_SETLK, F_UNLCK, 0, 0);
	waitpid(pid, &status, 0);
	is_eq(status, 0, "the other goes on");
	close(fd);
}

static void of_open_files(void)
{
	int a, b, c, status;

	put_file("f", "", 0644);
	a = open("f", O_RDWR), b = open("f", O_RDWR);
	works(lock(a, F_OFD_SETLK, F_WRLCK, 0, 10), "take");
	fails_either(lock(b, F_OFD_SETLK, F_WRLCK, 5, 1), EAGAIN, EACCES, "another open of the same process conflicts");
	works(lock(b, F_OFD_SETLK, F_WRLCK, 10, 1), "elsewhere it does not");
	fails_either(lock(b, F_SETLK, F_WRLCK, 0, 1), EAGAIN, EACCES, "a record lock conflicts too");
	c = dup(a);
	close(a);
	fails_either(lock(b, F_OFD_SETLK, F_RDLCK, 0, 1), EAGAIN, EACCES, "a duplicate keeps it");
	if (fork() == 0)
		_exit(0);
	wait(&status);
	fails_either(lock(b, F_OFD_SETLK, F_RDLCK, 0, 1), EAGAIN, EACCES, "a child's end changes nothing");
	close(c);
	works(lock(b, F_OFD_SETLK, F_WRLCK, 0, 10), "the last close lets go");
	close(b);
}

static void flocks(void)
{
	int a, b, c;

	put_file("f", "", 0644);
	a = open("f", O_RDWR), b = open("f", O_RDONLY);
	works(flock(a, LOCK_EX | LOCK_NB), "exclusive");
	fails(flock(b, LOCK_EX | LOCK_NB), EWOULDBLOCK, "exclusive by another");
	fails(flock(b, LOCK_SH | LOCK_NB), EWOULDBLOCK, "shared by another");
	works(flock(a, LOCK_SH | LOCK_NB), "turn to shared");
	works(flock(b, LOCK_SH | LOCK_NB), "both shared");
	fails(flock(a, LOCK_EX | LOCK_NB), EWOULDBLOCK, "back to exclusive");
	works(flock(b, LOCK_UN), "unlock");
	works(flock(a, LOCK_EX | LOCK_NB), "exclusive then");
	works(lock(b, F_GETLK, F_RDLCK, 0, 0), "record locks are others");
	works(lock(a, F_SETLK, F_WRLCK, 0, 0), "record lock beside");
	c = dup(a);
	close(a);
	fails(flock(b, LOCK_SH | LOCK_NB), EWOULDBLOCK, "a duplicate keeps it");
	close(c);
	works(flock(b, LOCK_SH | LOCK_NB), "the last close lets go");
	fails(flock(b, 64), EINVAL, "unknown operation");
	fails(flock(999, LOCK_SH), EBADF, "no descriptor");
	close(b);
	need(mkdir("d", 0755) == 0, "mkdir");
	a = open("d", O_RDONLY), b = open("d", O_RDONLY);
	works(flock(a, LOCK_EX | LOCK_NB), "a directory");
	fails(flock(b, LOCK_EX | LOCK_NB), EWOULDBLOCK, "a directory by another");
	close(a), close(b);
}

GROUPS(lock) = {
	{"lock", records, 0},	    {"lock-split", splitting, 0},
	{"lock-close", closing, 0}, {"lock-wait", waiting, 0},
	{"lock-dead", deadlock, 0}, {"lock-ofd", of_open_files, 0},
	{"flock", flocks, 0},	    END_OF_GROUPS,
};
