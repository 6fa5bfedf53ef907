/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's other services: files, connections, statistics; and requests that make no sense. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent_client.h"
#include "base/fileio.h"
#include "base/util.h"
#include "proto/fileevent.h"

#define START(c)                                                                                                       \
	struct client c;                                                                                               \
	if (!client_start(&(c), NULL))                                                                                 \
	skip()

static void stop(struct client *c)
{
	int status = client_stop(c);

	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void open_file(struct client *c, struct call *k, uint16_t service, const struct proto_file *f)
{
	struct buf b = {0};

	assert_int_equal(proto_file_encode(&b, f), 0);
	call_open(c, k, service, &b);
	buf_done(&b);
}

static int read_back(struct client *c, const char *path, struct call *k, uint64_t offset, uint64_t size)
{
	struct proto_file f = {.path = (char *)(uintptr_t)path, .offset = offset, .size = size};

	open_file(c, k, PROTO_READ_FILE, &f);
	assert_true(client_until(c, &k->closed, 20000));
	return k->code;
}

static void test_files(void **state)
{
	START(c);
	size_t len = 3000000;
	char dir[] = "/tmp/test-agent.XXXXXX", path[64];
	uint8_t *bytes = malloc(len);
	struct proto_file f = {.path = path, .mode = 0640, .uid = 12, .gid = 34, .make_dirs = true}, reply;
	struct cursor cur;
	struct stat st;
	struct call k;

	assert_non_null(mkdtemp(dir));
	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(i * 13 >> 4);
	snprintf(path, sizeof(path), "%s/a/b/file", dir);
	open_file(&c, &k, PROTO_WRITE_FILE, &f);
	assert_true(client_until(&c, &k.opened, 10000));
	assert_int_equal(access(path, F_OK), -1); /* not there until it is whole */
	call_feed(&k, bytes, len);
	assert_true(client_until(&c, &k.closed, 20000));
	assert_int_equal(k.code, 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, len);
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_int_equal(st.st_uid, 12);
	assert_int_equal(st.st_gid, 34);
	call_done(&k);

	assert_int_equal(read_back(&c, path, &k, 0, 0), 0);
	cur = cursor_of(k.out[0].data, k.out[0].len);
	assert_int_equal(proto_file_decode(&cur, &reply), 0);
	assert_int_equal(reply.size, len);
	assert_int_equal(reply.mode, 0640);
	assert_int_equal(k.out[1].len, len);
	assert_memory_equal(k.out[1].data, bytes, len);
	call_done(&k);
	assert_int_equal(read_back(&c, path, &k, 1000, 500), 0);
	assert_int_equal(k.out[1].len, 500);
	assert_memory_equal(k.out[1].data, bytes + 1000, 500);
	call_done(&k);
	assert_int_equal(read_back(&c, path, &k, len + 5, 0), 0);
	assert_int_equal(k.out[1].len, 0);
	call_done(&k);
	assert_int_equal(read_back(&c, "/nonexistent", &k, 0, 0), -ENOENT);
	assert_non_null(strstr(k.text, "/nonexistent"));
	call_done(&k);
	assert_int_equal(read_back(&c, dir, &k, 0, 0), -EISDIR);
	call_done(&k);
	assert_int_equal(read_back(&c, "/dev/zero", &k, 0, 0), -EINVAL); /* has no end */
	call_done(&k);
	/* Broken off: nothing is left, the old file stays. */
	open_file(&c, &k, PROTO_WRITE_FILE, &f);
	assert_true(client_until(&c, &k.opened, 10000));
	mux_send(c.mux, k.ch, 0, "new", 3);
	mux_close(c.mux, k.ch, 0, NULL);
	call_done(&k);
	assert_int_equal(client_sh(&c, "ls -A /tmp/test-agent.*/a/b", &k), 0);
	assert_string_equal((char *)k.out[1].data, "file\n");
	call_done(&k);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, len);
	free(bytes);
	assert_int_equal(remove_tree_at(AT_FDCWD, dir), 0);
	stop(&c);
}

static void open_connect(struct client *c, struct call *k, const struct proto_connect *x)
{
	struct buf b = {0};

	assert_int_equal(proto_connect_encode(&b, x), 0);
	call_open(c, k, PROTO_CONNECT, &b);
	buf_done(&b);
}

/* An echo server for one connection: reads to the end, then sends all of it back. */
static pid_t echo_once(int listener)
{
	pid_t pid = fork();

	if (pid == 0) {
		static char all[4000000];
		int fd = accept(listener, NULL, NULL);
		ssize_t n = read_full(fd, all, sizeof(all));

		_exit(n < 0 || write_full(fd, all, (size_t)n) < 0);
	}
	return pid;
}

static void check_echo(struct client *c, const struct proto_connect *x, int listener)
{
	size_t len = 2000000;
	uint8_t *bytes = malloc(len);
	pid_t pid = echo_once(listener);
	struct call k;
	int status;

	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(i * 7 >> 2);
	open_connect(c, &k, x);
	assert_true(client_until(c, &k.opened, 10000));
	call_feed(&k, bytes, len);
	assert_true(client_until(c, &k.closed, 20000));
	assert_int_equal(k.code, 0);
	assert_int_equal(k.out[1].len, len);
	assert_memory_equal(k.out[1].data, bytes, len);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	call_done(&k);
	free(bytes);
}

static void test_connect(void **state)
{
	START(c);
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	char dir[] = "/tmp/test-agent.XXXXXX", path[64], local[] = "127.0.0.1", name[] = "localhost",
	     unknown[] = "no.such.host.example";
	socklen_t len = sizeof(a);
	struct proto_connect x = {.host = local};
	struct call k;
	int s = socket(AF_INET, SOCK_STREAM, 0), u;

	assert_int_equal(bind(s, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(s, 5), 0);
	assert_int_equal(getsockname(s, (struct sockaddr *)&a, &len), 0);
	x.port = ntohs(a.sin_port);
	check_echo(&c, &x, s);
	x.host = name;
	check_echo(&c, &x, s);
	close(s);
	open_connect(&c, &k, &x);
	assert_true(client_until(&c, &k.closed, 10000));
	assert_int_equal(k.code, -ECONNREFUSED);
	call_done(&k);
	x.host = unknown;
	open_connect(&c, &k, &x);
	assert_true(client_until(&c, &k.closed, 10000));
	assert_true(k.code < 0);
	call_done(&k);
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/socket", dir);
	u = unix_listen(path, 5);
	assert_true(u >= 0);
	x = (struct proto_connect){.path = path};
	check_echo(&c, &x, u);
	close(u);
	assert_int_equal(remove_tree_at(AT_FDCWD, dir), 0);
	stop(&c);
}

/* A socket that is not there yet is waited for, as long as was asked; and who asked may leave meanwhile. */
static void test_connect_later(void **state)
{
	START(c);
	char dir[] = "/tmp/test-agent.XXXXXX", path[64];
	struct proto_connect x = {.path = path, .wait_ns = 20000000};
	struct call k, gone;
	int u;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/socket", dir);
	open_connect(&c, &k, &x);
	assert_true(client_until(&c, &k.closed, 10000));
	assert_int_equal(k.code, -ENOENT);
	call_done(&k);
	x.wait_ns = UINT64_MAX; /* a second */
	open_connect(&c, &gone, &x);
	mux_close(c.mux, gone.ch, 0, NULL);
	open_connect(&c, &k, &x);
	client_turn(&c, 50);
	assert_false(k.opened || k.closed);
	u = unix_listen(path, 5);
	assert_true(u >= 0);
	assert_true(client_until(&c, &k.opened, 10000));
	close(u);
	assert_true(client_until(&c, &k.closed, 10000));
	call_done(&k);
	call_done(&gone);
	assert_int_equal(remove_tree_at(AT_FDCWD, dir), 0);
	stop(&c);
}

static void test_stats(void **state)
{
	START(c);
	struct proto_stats s;
	struct cursor cur;
	struct call k;

	call_open(&c, &k, PROTO_STATS, NULL);
	assert_true(client_until(&c, &k.closed, 10000));
	cur = cursor_of(k.out[0].data, k.out[0].len);
	assert_int_equal(proto_stats_decode(&cur, &s), 0);
	assert_true(s.mem_total > 1 << 20 && s.mem_free <= s.mem_total && s.mem_available <= s.mem_total);
	assert_true(s.uptime_ns && s.processes && s.disk_total);
	call_done(&k);
	stop(&c);
}

/* Requests of every service with bytes that are none: refused one by one, and the agent goes on. */
static void open_at(struct client *c, struct call *k, uint16_t service, const struct proto_connect *x)
{
	struct buf b = {0};

	assert_int_equal(proto_connect_encode(&b, x), 0);
	call_open(c, k, service, &b);
	buf_done(&b);
}

/* Connects where the agent listens, and has it taken: what is said there comes by the channel, and back. */
static void check_accept(struct client *c, const struct proto_connect *x, int fd)
{
	struct call k;
	char got[8];

	assert_true(fd >= 0);
	assert_int_equal(write(fd, "hello", 5), 5);
	shutdown(fd, SHUT_WR);
	open_at(c, &k, PROTO_ACCEPT, x);
	assert_true(client_until(c, &k.opened, 10000));
	assert_true(client_until(c, &k.eof[1], 10000));
	assert_int_equal(k.out[1].len, 5);
	call_feed(&k, "back", 4);
	assert_true(client_until(c, &k.closed, 10000));
	assert_int_equal(read_full(fd, got, sizeof(got)), 4);
	close(fd);
	call_done(&k);
}

static int connect_to(uint16_t port, bool v6)
{
	struct sockaddr_in a4 = {
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in6 a6 = {
		.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	int fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM, 0);

	if (connect(fd, v6 ? (struct sockaddr *)&a6 : (struct sockaddr *)&a4, v6 ? sizeof(a6) : sizeof(a4)) == 0)
		return fd;
	close(fd);
	return -1;
}

/* Ports and sockets that lead out: who connects before there is an ACCEPT waits, and none is left with its channel. */
static void test_listen(void **state)
{
	START(c);
	char path[] = "/tmp/agent-listen-test.sock", host[] = "127.0.0.1";
	struct proto_connect tcp = {.host = host, .port = 47123}, un = {.path = path};
	struct call k, l, again;
	int fd;

	open_at(&c, &k, PROTO_ACCEPT, &tcp);
	assert_true(client_until(&c, &k.closed, 10000));
	assert_int_equal(k.code, -ESRCH);
	call_done(&k);
	unlink(path);
	fd = unix_listen(path, 1); /* one that is left over */
	close(fd);
	open_at(&c, &l, PROTO_LISTEN, &un);
	open_at(&c, &k, PROTO_LISTEN, &tcp);
	assert_true(client_until(&c, &k.opened, 10000) && client_until(&c, &l.opened, 10000));
	open_at(&c, &again, PROTO_LISTEN, &tcp);
	assert_true(client_until(&c, &again.closed, 10000));
	assert_int_equal(again.code, -EADDRINUSE);
	call_done(&again);
	check_accept(&c, &un, unix_connect(path));
	check_accept(&c, &tcp, connect_to(47123, false));
	fd = connect_to(47123, true);
	if (fd >= 0)
		check_accept(&c, &tcp, fd);
	/* One that waits ends with the listener. */
	open_at(&c, &again, PROTO_ACCEPT, &un);
	mux_close(c.mux, l.ch, 0, NULL);
	assert_true(client_until(&c, &again.closed, 10000));
	assert_int_equal(again.code, -ECONNABORTED);
	assert_int_equal(access(path, F_OK), -1);
	call_done(&again);
	call_done(&l);
	call_done(&k);
	stop(&c);
}

static void test_odd_requests(void **state)
{
	START(c);
	unsigned seed = 7;
	struct call k;

	for (int round = 0; round < 400; round++) {
		static const uint16_t services[] = {
			PROTO_EXEC, PROTO_SETUP, PROTO_CONNECT, PROTO_READ_FILE, PROTO_WRITE_FILE, PROTO_SYNC_CLOCK, 0,
			9,	    32,		 65535};
		struct buf b = {0};

		for (int n = rand_r(&seed) % 5; n > 0; n--) {
			buf_put_u16(&b, (uint16_t)(rand_r(&seed) % 20 + 100 * (rand_r(&seed) % 2)));
			buf_put_u16(&b, rand_r(&seed) % 8 ? 0 : 1);
			buf_put_u32(&b, rand_r(&seed) % 8 ? 3 : (uint32_t)rand_r(&seed));
			buf_put(&b, "a\0b", 3);
		}
		call_open(&c, &k, services[round % 10], &b);
		assert_true(client_until(&c, &k.closed, 10000));
		assert_true(k.code < 0);
		assert_false(k.opened);
		buf_done(&b);
		call_done(&k);
	}
	assert_int_equal(client_sh(&c, "exit 3", &k), 3);
	call_done(&k);
	stop(&c);
}

/* Waits for this event; drops those before it. */
static void await_event(struct client *c, struct call *k, enum fileevent_kind kind, const char *path)
{
	static struct fileevent e;
	size_t at = 0;

	for (unsigned rounds = 0; rounds < 500;) {
		size_t used = 0;
		int r = fileevent_next(k->out[1].data + at, k->out[1].len - at, &e, &used);

		assert_true(r >= 0);
		at += used;
		if (r == 1 && e.kind == kind && strcmp(e.path, path) == 0)
			return;
		if (r == 0) {
			client_turn(c, 20);
			rounds++;
		}
	}
	fail_msg("no event %d of %s", kind, path);
}

static void open_watch(struct client *c, struct call *k, const char *path)
{
	struct proto_watch x = {.path = (char *)(uintptr_t)path, .recursive = true};
	struct buf b = {0};

	assert_int_equal(proto_watch_encode(&b, &x), 0);
	call_open(c, k, PROTO_WATCH, &b);
	buf_done(&b);
}

static void test_watch(void **state)
{
	START(c);
	char dir[] = "/tmp/test-watch.XXXXXX", path[64], other[64];
	struct call k;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/d", dir);
	assert_int_equal(mkdir(path, 0755), 0);
	open_watch(&c, &k, dir);
	await_event(&c, &k, FILEEVENT_READY, "");
	snprintf(path, sizeof(path), "%s/d/f", dir);
	assert_int_equal(mknod(path, S_IFREG | 0600, 0), 0);
	await_event(&c, &k, FILEEVENT_CREATED, path);
	/* A directory that comes with something in it, and moves. */
	snprintf(path, sizeof(path), "%s/new", dir);
	assert_int_equal(mkdir(path, 0755), 0);
	await_event(&c, &k, FILEEVENT_CREATED, path);
	snprintf(other, sizeof(other), "%s/d/moved", dir);
	assert_int_equal(rename(path, other), 0);
	await_event(&c, &k, FILEEVENT_MOVED, path);
	snprintf(path, sizeof(path), "%s/d/moved/in", dir);
	assert_int_equal(mkdir(path, 0755), 0);
	await_event(&c, &k, FILEEVENT_CREATED, path);
	/* Moved to where nobody watches, with what is in it. */
	snprintf(path, sizeof(path), "%s.away", dir);
	assert_int_equal(rename(other, path), 0);
	await_event(&c, &k, FILEEVENT_DELETED, other);
	assert_int_equal(remove_tree_at(AT_FDCWD, path), 0);
	assert_int_equal(remove_tree_at(AT_FDCWD, dir), 0);
	await_event(&c, &k, FILEEVENT_GONE, dir);
	call_done(&k);
	open_watch(&c, &k, "/no/where");
	await_event(&c, &k, FILEEVENT_ERROR, "2");
	call_done(&k);
	stop(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_files),  cmocka_unit_test(test_connect), cmocka_unit_test(test_connect_later),
		cmocka_unit_test(test_listen), cmocka_unit_test(test_stats),   cmocka_unit_test(test_odd_requests),
		cmocka_unit_test(test_watch),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
