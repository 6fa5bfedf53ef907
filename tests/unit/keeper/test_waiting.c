/* SPDX-License-Identifier: Apache-2.0 */
/* Who waits at the ports of a suspended VM: wakes it once, hands the sockets over, and ends when it is to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fileio.h"
#include "base/util.h"
#include "keeper/waiting.h"

#include "sealed.h"

#define PORTS 2
#define PATIENCE_NS 20000000000ull

struct rig {
	char dir[64], path[128];
	int dirfd;
	struct forward_port ports[PORTS];
	uint16_t host[PORTS];
	pid_t waiter;
};

static void listen_somewhere(struct rig *r, unsigned i)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fd, 16), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	r->ports[i] = (struct forward_port){.fd = fd, .at = {.guest_port = (uint16_t)(80 + i)}};
	r->host[i] = ntohs(a.sin_port);
}

/* waker: a script; it finds the VM's directory in $DIR. */
static void begin(struct rig *r, const char *waker)
{
	strcpy(r->dir, "/tmp/test-waiting.XXXXXX");
	assert_non_null(mkdtemp(r->dir));
	r->dirfd = open(r->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(mkdirat(r->dirfd, "suspended", 0700), 0);
	assert_int_equal(write_file_atomic_at(r->dirfd, "waker", waker, strlen(waker), 0700), 0);
	snprintf(r->path, sizeof(r->path), "%s/waker", r->dir);
	setenv("DIR", r->dir, 1);
	for (unsigned i = 0; i < PORTS; i++)
		listen_somewhere(r, i);
	r->waiter = fork();
	assert_true(r->waiter >= 0);
	if (r->waiter == 0) {
		struct waiting w = {.dir = r->dir, .waker = r->path};

		signal(SIGPIPE, SIG_IGN);
		_exit(waiting_run(&w, r->ports, PORTS) < 0 ? 1 : 0);
	}
	for (unsigned i = 0; i < PORTS; i++)
		close(r->ports[i].fd);
}

/* It ends by itself. */
static void finish(struct rig *r)
{
	uint64_t deadline = time_now_ns() + PATIENCE_NS;
	int status = -1;
	pid_t pid;

	while ((pid = waitpid(r->waiter, &status, WNOHANG)) == 0 && time_now_ns() < deadline)
		poll(NULL, 0, 5);
	assert_int_equal(pid, r->waiter);
	assert_int_equal(status, 0);
	assert_true(faccessat(r->dirfd, WAITING_SOCKET, F_OK, 0) < 0);
	close(r->dirfd);
	remove_tree_at(AT_FDCWD, r->dir);
}

static bool alive(struct rig *r)
{
	return waitpid(r->waiter, NULL, WNOHANG) == 0;
}

static int join(struct rig *r)
{
	uint64_t deadline = time_now_ns() + PATIENCE_NS;
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/" WAITING_SOCKET, r->dir);
	while ((fd = unix_connect(path)) < 0 && time_now_ns() < deadline)
		poll(NULL, 0, 5);
	assert_true(fd >= 0);
	return fd;
}

static void take(int waiter, int fds[PORTS])
{
	for (unsigned i = 0; i < PORTS; i++) {
		struct waiting_port p;
		size_t nfds = 1;

		assert_int_equal(fd_recv(waiter, &p, sizeof(p), &fds[i], &nfds), sizeof(p));
		assert_int_equal(nfds, 1);
		assert_int_equal(p.guest_port, 80 + i);
		assert_int_equal(p.left, PORTS - 1 - i);
	}
}

static int connect_to(struct rig *r, unsigned i)
{
	struct sockaddr_in a = {
		.sin_family = AF_INET, .sin_port = htons(r->host[i]), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static void sockets_are_handed_over(void **state)
{
	int waiter, fds[PORTS], client, served;
	struct rig r;

	begin(&r, "#!/bin/sh\nsleep 100\n");
	/* Who goes away without a word leaves everything as it was. */
	waiter = join(&r);
	take(waiter, fds);
	assert_sealed(r.waiter);
	for (unsigned i = 0; i < PORTS; i++)
		close(fds[i]);
	close(waiter);
	poll(NULL, 0, 50);
	assert_true(alive(&r));
	/* A connection that came before they were taken is there afterwards. */
	waiter = join(&r);
	take(waiter, fds);
	client = connect_to(&r, 1);
	assert_int_equal(send(waiter, &(char){WAITING_DONE}, 1, MSG_NOSIGNAL), 1);
	finish(&r);
	served = accept4(fds[1], NULL, NULL, SOCK_CLOEXEC);
	assert_true(served >= 0);
	close(served);
	close(client);
	close(waiter);
	for (unsigned i = 0; i < PORTS; i++)
		close(fds[i]);
}

/* One attempt for all who connect meanwhile; they are refused when it fails, and it may be tried again. */
static void failed_attempts(void **state)
{
	char *log = NULL, byte;
	int clients[3];
	struct rig r;
	size_t len;

	begin(&r, "#!/bin/sh\necho \"$1\" >>$DIR/attempts\nsleep 0.5\nexit 1\n");
	for (int round = 1; round <= 2; round++) {
		for (unsigned i = 0; i < ARRAY_SIZE(clients); i++)
			clients[i] = connect_to(&r, i % PORTS);
		for (unsigned i = 0; i < ARRAY_SIZE(clients); i++) {
			assert_int_equal(recv(clients[i], &byte, 1, 0), -1);
			assert_int_equal(errno, ECONNRESET);
			close(clients[i]);
		}
		assert_true(alive(&r));
		assert_int_equal(read_file_at(r.dirfd, "attempts", 1000, &log, &len), 0);
		assert_int_equal(len, (size_t)round * (strlen(strrchr(r.dir, '/') + 1) + 1)); /* the VM's name */
		assert_memory_equal(log, strrchr(r.dir, '/') + 1, strlen(strrchr(r.dir, '/') + 1));
		free(log);
	}
	assert_int_equal(unlinkat(r.dirfd, "suspended", AT_REMOVEDIR), 0);
	finish(&r);
}

/* As a VM does that goes on, is stopped, or removed. */
static void ends_with_the_suspension(void **state)
{
	char moved[80];
	struct rig r;

	begin(&r, "#!/bin/sh\n");
	close(join(&r));
	assert_int_equal(renameat(r.dirfd, "suspended", r.dirfd, "suspended.old"), 0);
	finish(&r);

	begin(&r, "#!/bin/sh\n");
	close(join(&r));
	snprintf(moved, sizeof(moved), "%s.old", r.dir);
	assert_int_equal(rename(r.dir, moved), 0);
	remove_tree_at(AT_FDCWD, moved);
	finish(&r);
}

static void nothing_to_wait_for(void **state)
{
	struct waiting w = {.dir = "/tmp", .waker = "/bin/false"};

	assert_int_equal(waiting_run(&w, NULL, 0), 0);
	w.dir = "/nonexistent";
	assert_int_equal(waiting_run(&w, NULL, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sockets_are_handed_over),
		cmocka_unit_test(failed_attempts),
		cmocka_unit_test(ends_with_the_suspension),
		cmocka_unit_test(nothing_to_wait_for),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
