/* SPDX-License-Identifier: Apache-2.0 */
/* Commands run by the agent: statuses, streams, terminals, signals, limits, and peers that break the rules. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent_client.h"
#include "base/util.h"

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

static int sh(struct client *c, const char *script)
{
	struct call k;
	int r = client_sh(c, script, &k);

	call_done(&k);
	return r;
}

static void assert_says(struct client *c, const char *script, const char *what)
{
	struct call k;

	assert_int_equal(client_sh(c, script, &k), 0);
	assert_string_equal((char *)k.out[1].data, what);
	call_done(&k);
}

static void run_argv(struct client *c, struct call *k, const struct proto_exec *x)
{
	call_exec(c, k, x);
	assert_true(client_until(c, &k->closed, 30000));
}

static void test_statuses(void **state)
{
	START(c);
	char missing[] = "no-such-command", missing_path[] = "/no/such", passwd[] = "/etc/passwd", dir[] = "/etc";
	char *argv[2] = {missing, NULL};
	struct proto_exec x = {.argv = argv};
	struct call k;

	assert_int_equal(sh(&c, "exit 0"), 0);
	assert_int_equal(sh(&c, "exit 7"), 7);
	assert_int_equal(sh(&c, "exit 255"), 255);
	assert_int_equal(client_sh(&c, "kill -TERM $$", &k), 128 + SIGTERM);
	assert_int_equal(k.exit.reason, PROTO_SIGNALLED);
	assert_int_equal(k.exit.signal, SIGTERM);
	call_done(&k);
	for (int i = 0; i < 4; i++) {
		char *const names[] = {missing, missing_path, passwd, dir};

		argv[0] = names[i];
		run_argv(&c, &k, &x);
		assert_true(k.exited);
		assert_int_equal(k.exit.status, i < 2 ? 127 : 126);
		assert_int_equal(k.exit.reason, i < 2 ? PROTO_EXIT_NOT_FOUND : PROTO_EXIT_NOT_EXECUTABLE);
		assert_non_null(strstr(k.exit.text, names[i]));
		call_done(&k);
	}
	stop(&c);
}

static void test_streams(void **state)
{
	START(c);
	char cat[] = "cat", *argv[] = {cat, NULL};
	struct proto_exec x = {.argv = argv, .stdin_open = true};
	uint8_t bytes[256 * 9];
	struct call k;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 7 + i / 256);
	call_exec(&c, &k, &x);
	call_feed(&k, bytes, sizeof(bytes));
	assert_true(client_until(&c, &k.closed, 30000));
	assert_int_equal(k.exit.status, 0);
	assert_int_equal(k.out[1].len, sizeof(bytes));
	assert_memory_equal(k.out[1].data, bytes, sizeof(bytes));
	assert_true(k.eof[1] && k.eof[2]);
	call_done(&k);
	assert_int_equal(client_sh(&c, "echo out; echo err >&2; printf more", &k), 0);
	assert_string_equal((char *)k.out[1].data, "out\nmore");
	assert_string_equal((char *)k.out[2].data, "err\n");
	call_done(&k);
	/* Without an open stdin there is nothing to read, and no terminal. */
	assert_says(&c, "readlink /proc/self/fd/0; wc -c; tty || true", "/dev/null\n0\nnot a tty\n");
	stop(&c);
}

static void test_view(void **state)
{
	START(c);
	char shell[] = "/bin/sh", opt[] = "-c",
	     script[] = "id -u; id -g; id -G; pwd; echo $A; echo $PATH; echo $HOME; cat /proc/self/oom_score_adj";
	char *argv[] = {shell, opt, script, NULL}, user[] = "12345:54321", cwd[] = "/tmp/no/such/dir-of-agent-test",
	     a[] = "A=b c", *env[] = {a, NULL};
	struct proto_exec x = {.argv = argv, .user = user, .cwd = cwd, .env = env};
	char unknown[] = "nobody-has-this-name";
	struct call k;

	assert_says(
		&c, "umask; cat /proc/self/status | grep -E '^Sig(Blk|Ign|Cgt)'; ls /proc/self/fd",
		"0022\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\nSigCgt:\t0000000000000000\n0\n1\n2\n3\n");
	assert_says(&c, "id -un; echo $HOME; ps -o sid= -p $$ | tr -d ' ' | grep -qx $$ && echo leader",
		    "root\n/root\nleader\n");
	/* A working directory that is not there is made for the VM's own command alone. */
	assert_int_equal(sh(&c, "rm -rf /tmp/no"), 0);
	run_argv(&c, &k, &x);
	assert_int_equal(k.exit.status, 127);
	assert_non_null(strstr(k.exit.text, "working directory /tmp/no/such/dir-of-agent-test: No such file"));
	call_done(&k);
	assert_int_equal(sh(&c, "test ! -e /tmp/no && mkdir -p /tmp/no/such/dir-of-agent-test"), 0);
	run_argv(&c, &k, &x);
	buf_put_u8(&k.out[1], 0);
	assert_string_equal((char *)k.out[1].data,
			    "12345\n54321\n54321\n/tmp/no/such/dir-of-agent-test\nb c\n"
			    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n/\n0\n");
	call_done(&k);
	x.user = unknown;
	run_argv(&c, &k, &x);
	assert_false(k.exited);
	assert_int_equal(k.code, -ENOENT);
	assert_non_null(strstr(k.text, unknown));
	call_done(&k);
	assert_int_equal(sh(&c, "rm -rf /tmp/no"), 0);
	stop(&c);
}

static void test_capabilities(void **state)
{
	START(c);
	char cat[] = "/bin/sh", opt[] = "-c", script[] = "grep -E '^Cap(Inh|Prm|Eff|Amb)' /proc/self/status",
	     user[] = "daemon";
	char *argv[] = {cat, opt, script, NULL};
	struct proto_exec x = {.argv = argv, .user = user};
	struct call k;

	run_argv(&c, &k, &x);
	buf_put_u8(&k.out[1], 0);
	assert_string_equal((char *)k.out[1].data, "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\n"
						   "CapEff:\t0000000000000000\nCapAmb:\t0000000000000000\n");
	call_done(&k);
	stop(&c);
}

static void test_terminal(void **state)
{
	START(c);
	char shell[] = "/bin/sh", opt[] = "-c",
	     script[] = "tty; stty size; trap 'stty size; exit 5' WINCH; echo ready; while :; do sleep 0.05; done";
	char *argv[] = {shell, opt, script, NULL};
	struct proto_exec x = {.argv = argv, .tty = true, .stdin_open = true, .rows = 33, .cols = 77};
	bool never = false;
	struct call k;

	call_exec(&c, &k, &x);
	for (int i = 0; i < 200 && (!k.out[1].len || !memmem(k.out[1].data, k.out[1].len, "ready", 5)); i++)
		client_until(&c, &never, 20);
	call_resize(&k, 44, 88);
	assert_true(client_until(&c, &k.closed, 10000));
	assert_int_equal(k.exit.status, 5);
	assert_non_null(memmem(k.out[1].data, k.out[1].len, "/dev/pts/", 9));
	assert_non_null(memmem(k.out[1].data, k.out[1].len, "33 77", 5));
	assert_non_null(memmem(k.out[1].data, k.out[1].len, "44 88", 5));
	call_done(&k);
	/* The terminal's own characters: interrupt, then end of file. */
	strcpy(script, "cat");
	call_exec(&c, &k, &x);
	call_feed(&k, "line\n\x03", 6);
	assert_true(client_until(&c, &k.closed, 10000));
	assert_int_equal(k.exit.status, 128 + SIGINT);
	call_done(&k);
	call_exec(&c, &k, &x);
	call_feed(&k, "line\n", 5);
	assert_true(client_until(&c, &k.closed, 10000));
	assert_int_equal(k.exit.status, 0);
	call_done(&k);
	stop(&c);
}

static void test_signals(void **state)
{
	START(c);
	char shell[] = "/bin/sh", opt[] = "-c", script[] = "trap 'exit 9' TERM; echo ready; sleep 30 & wait";
	char *argv[] = {shell, opt, script, NULL};
	struct proto_exec x = {.argv = argv};
	struct call k;

	call_exec(&c, &k, &x);
	for (int i = 0; i < 500 && !k.out[1].len; i++)
		client_turn(&c, 10);
	call_signal(&k, SIGTERM);
	assert_true(client_until(&c, &k.closed, 10000));
	assert_int_equal(k.exit.status, 9);
	call_done(&k);
	/* The whole group gets it: the sleep too, else this would hang. */
	strcpy(script, "sleep 30; echo after");
	call_exec(&c, &k, &x);
	assert_true(client_until(&c, &k.opened, 10000));
	client_turn(&c, 100);
	call_signal(&k, SIGINT);
	assert_true(client_until(&c, &k.closed, 10000));
	assert_int_equal(k.exit.status, 128 + SIGINT);
	call_done(&k);
	stop(&c);
}

/* A main command that is none: it is there, for others to be run beside it, until it is told to end. */
static void test_no_command(void **state)
{
	static const char *const extra[] = {"--pid-namespace", NULL};
	char show[] = "init", *argv[] = {show, NULL};
	struct proto_exec x = {.argv = argv, .main = true, .hold = true};
	struct client c;
	struct call k;

	if (!client_start(&c, extra))
		skip();
	call_exec(&c, &k, &x);
	assert_true(client_until(&c, &k.opened, 10000));
	assert_true(client_until(&c, &k.eof[1], 10000)); /* it prints nothing */
	assert_says(&c, "cat /proc/1/comm; ls /proc/1/fd | wc -l", "init\n0\n");
	assert_says(&c, "sleep 0.01 & exit", ""); /* an orphan, which it reaps */
	client_turn(&c, 100);
	assert_says(&c, "ps -A -o stat= | grep -c Z || true", "0\n");
	assert_false(k.closed);
	call_signal(&k, SIGTERM);
	assert_true(client_until(&c, &k.closed, 10000));
	assert_int_equal(k.exit.status, 128 + SIGTERM);
	call_done(&k);
	stop(&c);
}

/* PID 1 of a namespace has no default actions of the kernel's; ours are reported as what they are. */
static void test_pid_namespace(void **state)
{
	static const char *const extra[] = {"--pid-namespace", NULL};
	char shell[] = "/bin/sh", opt[] = "-c", script[64] = "echo $$; exec sleep 30";
	char *argv[] = {shell, opt, script, NULL};
	char sleep_[] = "sleep", arg[] = "30", *plain[] = {sleep_, arg, NULL};
	struct proto_exec x = {.argv = argv, .main = true};
	struct client c;
	struct call k, k2;
	uint32_t pid = 0;
	struct cursor reply;

	if (!client_start(&c, extra))
		skip();
	/* With no main command there is a holder; it goes unnoticed but for its pid. */
	assert_says(&c, "test $$ -ne 1 && ls -d /proc/1 && ps -A | wc -l", "/proc/1\n5\n");
	stop(&c);
	assert_true(client_start(&c, extra));
	call_exec(&c, &k, &x);
	for (int i = 0; i < 500 && !k.out[1].len; i++)
		client_turn(&c, 10);
	assert_memory_equal(k.out[1].data, "1\n", 2);
	reply = cursor_of(k.out[0].data, k.out[0].len);
	assert_int_equal(proto_pid_decode(&reply, &pid), 0);
	assert_int_equal(pid, 1);
	assert_says(&c, "cat /proc/1/comm", "sleep\n");
	/* Another command of the namespace ends with its PID 1. */
	strcpy(script, "sleep 30");
	x.main = false;
	call_exec(&c, &k2, &x);
	assert_true(client_until(&c, &k2.opened, 10000));
	call_signal(&k, SIGTERM);
	assert_true(client_until(&c, &k.closed, 10000));
	assert_int_equal(k.exit.status, 128 + SIGTERM);
	assert_int_equal(k.exit.signal, SIGTERM);
	assert_true(client_until(&c, &k2.closed, 10000));
	assert_int_equal(k2.exit.status, 128 + SIGKILL);
	call_done(&k);
	call_done(&k2);
	/* The same by the terminal's key. A command that has a handler gets it itself. */
	x = (struct proto_exec){.argv = plain, .main = true, .tty = true, .stdin_open = true};
	call_exec(&c, &k, &x);
	call_feed(&k, "abc\x03", 4);
	assert_true(client_until(&c, &k.closed, 10000));
	assert_int_equal(k.exit.signal, SIGINT);
	call_done(&k);
	x.argv = argv;
	strcpy(script, "trap 'exit 6' INT; :; cat");
	call_exec(&c, &k, &x);
	assert_true(client_until(&c, &k.opened, 10000));
	client_turn(&c, 300);
	call_feed(&k, "\x03", 1);
	assert_true(client_until(&c, &k.closed, 10000));
	assert_int_equal(k.exit.status, 6);
	call_done(&k);
	stop(&c);
}

static void test_timeout(void **state)
{
	static const char *const extra[] = {"--pid-namespace", NULL};
	char shell[] = "/bin/sh", opt[] = "-c", script[] = "echo begun; setsid sleep 77 & sleep 77 & sleep 77";
	char *argv[] = {shell, opt, script, NULL};
	struct proto_exec x = {.argv = argv, .main = true, .timeout_ns = 300000000};
	struct client c;
	struct call k;

	if (!client_start(&c, extra))
		skip();
	run_argv(&c, &k, &x);
	assert_int_equal(k.exit.status, 124);
	assert_int_equal(k.exit.reason, PROTO_EXIT_TIMEOUT);
	assert_in_range(k.exit.duration_ns / 1000000, 300, 60000); /* the sleeps would take longer */
	assert_memory_equal(k.out[1].data, "begun\n", 6);
	call_done(&k);
	assert_says(&c, "ps -A -o comm | grep -c sleep || true", "0\n");
	stop(&c);
}

/* A daemon that a command leaves behind keeps the pipe; the command ends all the same, and the daemon does not die of
 * writing. */
static void test_left_behind(void **state)
{
	START(c);
	struct call k;

	assert_int_equal(client_sh(&c, "(sleep 0.3; echo late && echo alive > /tmp/agent-test-late) & echo now", &k),
			 0);
	assert_string_equal((char *)k.out[1].data, "now\n");
	call_done(&k);
	assert_says(&c, "sleep 0.7; cat /tmp/agent-test-late; rm /tmp/agent-test-late", "alive\n");
	/* Orphans become the agent's, and are reaped. */
	assert_int_equal(sh(&c, "for i in 1 2 3 4 5 6 7 8; do (sleep 0.05 &) ; done"), 0);
	assert_says(&c, "sleep 0.3; ps -A -o stat | grep -c Z || true", "0\n");
	stop(&c);
}

static void test_close_kills(void **state)
{
	START(c);
	char shell[] = "sleep", arg[] = "77", *argv[] = {shell, arg, NULL};
	struct proto_exec x = {.argv = argv};
	struct call k;

	call_exec(&c, &k, &x);
	assert_true(client_until(&c, &k.opened, 10000));
	mux_close(c.mux, k.ch, 0, NULL);
	assert_says(&c, "sleep 0.2; ps -A -o args | grep -c '^sleep 77' || true", "0\n");
	call_done(&k);
	x.detached = true;
	call_exec(&c, &k, &x);
	assert_true(client_until(&c, &k.opened, 10000));
	mux_close(c.mux, k.ch, 0, NULL);
	assert_says(&c, "sleep 0.2; ps -A -o args | grep -c '^sleep 77' || true", "1\n");
	call_done(&k);
	stop(&c);
}

static size_t scaled(size_t full)
{
	const char *s = getenv("SM_SCALE");
	double f = s ? atof(s) : 0.2;

	return (size_t)((double)full * (f > 0 ? MIN(f, 1.0) : 0.2));
}

static void test_bulk(void **state)
{
	START(c);
	size_t len = MAX(scaled(100 << 20), (size_t)4 << 20);
	uint8_t *bytes = malloc(len);
	char cat[] = "cat", *argv[] = {cat, NULL};
	struct proto_exec x = {.argv = argv, .stdin_open = true};
	struct call k;

	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(i * 2654435761u >> 11);
	call_exec(&c, &k, &x);
	call_feed(&k, bytes, len);
	assert_true(client_until(&c, &k.closed, 120000));
	assert_int_equal(k.exit.status, 0);
	assert_int_equal(k.out[1].len, len);
	assert_memory_equal(k.out[1].data, bytes, len);
	call_done(&k);
	free(bytes);
	stop(&c);
}

/* A client that does not read stops the command, not the agent, and gets all of it in the end. */
static void test_back_pressure(void **state)
{
	START(c);
	char shell[] = "/bin/sh", opt[] = "-c", script[] = "head -c 3000000 /dev/zero; exit 3",
	     *argv[] = {shell, opt, script, NULL};
	struct proto_exec x = {.argv = argv};
	struct call k;

	call_exec(&c, &k, &x);
	k.hold = true;
	client_turn(&c, 500);
	assert_int_equal(k.out[1].len, PROTO_DEFAULT_WINDOW);
	assert_false(k.exited);
	assert_int_equal(sh(&c, "exit 4"), 4); /* others go on */
	k.hold = false;
	mux_consumed(c.mux, k.ch, 1, k.out[1].len);
	assert_true(client_until(&c, &k.closed, 30000));
	assert_int_equal(k.out[1].len, 3000000);
	assert_int_equal(k.exit.status, 3);
	call_done(&k);
	/* The other way: a command that does not read its input. */
	strcpy(script, "sleep 1; wc -c");
	x.stdin_open = true;
	call_exec(&c, &k, &x);
	call_feed(&k, calloc(1, 2000000), 2000000);
	client_turn(&c, 500);
	assert_true(k.in_sent <= PROTO_DEFAULT_WINDOW + 65536);
	assert_true(client_until(&c, &k.closed, 30000));
	assert_memory_equal(k.out[1].data, "2000000\n", 8);
	free((void *)(uintptr_t)k.in);
	call_done(&k);
	/* And one that closes it. */
	strcpy(script, "exec <&-; sleep 0.2; echo ok");
	call_exec(&c, &k, &x);
	call_feed(&k, calloc(1, 2000000), 2000000);
	assert_true(client_until(&c, &k.closed, 30000));
	assert_memory_equal(k.out[1].data, "ok\n", 3);
	free((void *)(uintptr_t)k.in);
	call_done(&k);
	stop(&c);
}

static void test_parallel(void **state)
{
	START(c);
	size_t n = MAX(scaled(200), 40);
	struct call *k = calloc(n, sizeof(*k));
	char cat[] = "/bin/sh", opt[] = "-c", script[] = "read x; echo got $x; exit $x",
	     *argv[] = {cat, opt, script, NULL};
	struct proto_exec x = {.argv = argv, .stdin_open = true};

	for (size_t i = 0; i < n; i++)
		call_exec(&c, &k[i], &x);
	for (size_t i = 0; i < n; i++) {
		static char lines[256][8];

		snprintf(lines[i % 256], 8, "%zu\n", i % 256);
		call_feed(&k[i], lines[i % 256], strlen(lines[i % 256]));
	}
	for (size_t i = 0; i < n; i++) {
		char want[32];

		assert_true(client_until(&c, &k[i].closed, 60000));
		assert_int_equal(k[i].exit.status, i % 256);
		snprintf(want, sizeof(want), "got %zu\n", i % 256);
		assert_memory_equal(k[i].out[1].data, want, strlen(want));
		call_done(&k[i]);
	}
	free(k);
	stop(&c);
}

/* Random and nearly right bytes: the agent ends the link, with a status of its own and never by a crash. */
static void test_hostile(void **state)
{
	unsigned seed = 1;

	for (int round = 0; round < 12; round++) {
		START(c);
		struct buf junk = {0};
		struct call k;
		int status;
		char sleep_[] = "sleep", arg[] = "50", *argv[] = {sleep_, arg, NULL};
		struct proto_exec x = {.argv = argv};

		call_exec(&c, &k, &x);
		assert_true(client_until(&c, &k.opened, 10000));
		for (int i = 0; i < 40; i++) {
			buf_put_u32(&junk, (uint32_t)rand_r(&seed) % (round & 1 ? 64 : 70000));
			buf_put_u32(&junk, round & 2 ? k.ch : (uint32_t)rand_r(&seed));
			buf_put_u8(&junk, (uint8_t)(rand_r(&seed) % 10));
			buf_put_u8(&junk, (uint8_t)(rand_r(&seed) % 4));
			buf_put_u16(&junk, round & 4 ? 0 : (uint16_t)rand_r(&seed));
			for (int n = rand_r(&seed) % 64; n > 0; n--)
				buf_put_u8(&junk, (uint8_t)rand_r(&seed));
		}
		buf_put_zero(&junk, 70000);
		buf_put_zero(&junk, 12);
		/* Straight into the stream. */
		link_drain(c.link, 1000);
		(void)!write(c.fd, junk.data, junk.len);
		for (int i = 0; i < 100 && !c.ended; i++)
			client_turn(&c, 50);
		assert_true(c.ended);
		status = client_stop(&c);
		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status), 1);
		buf_done(&junk);
		call_done(&k);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_statuses),      cmocka_unit_test(test_streams),
		cmocka_unit_test(test_view),	      cmocka_unit_test(test_capabilities),
		cmocka_unit_test(test_terminal),      cmocka_unit_test(test_signals),
		cmocka_unit_test(test_no_command),    cmocka_unit_test(test_pid_namespace),
		cmocka_unit_test(test_timeout),	      cmocka_unit_test(test_left_behind),
		cmocka_unit_test(test_close_kills),   cmocka_unit_test(test_bulk),
		cmocka_unit_test(test_back_pressure), cmocka_unit_test(test_parallel),
		cmocka_unit_test(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
