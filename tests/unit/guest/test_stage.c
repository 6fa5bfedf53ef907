/* SPDX-License-Identifier: Apache-2.0 */
/* Commands with files that come with them, and commands that follow one another. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent_client.h"
#include "base/util.h"
#include "proto/stage.h"

#define DIR_NAME "/tmp/agent-stage-test"
#define START(c)                                                                                                       \
	struct client c;                                                                                               \
	if (!client_start(&(c), NULL))                                                                                 \
	skip()

static char *s(const char *text)
{
	return (char *)(uintptr_t)text;
}

static void run(struct client *c, struct call *k, const struct proto_exec *x)
{
	call_exec(c, k, x);
	assert_true(client_until(c, &k->closed, 30000));
	buf_put_u8(&k->out[1], 0);
	buf_put_u8(&k->out[2], 0);
}

static void stop(struct client *c)
{
	struct call k;
	int status;

	client_sh(c, "rm -rf " DIR_NAME, &k);
	call_done(&k);
	status = client_stop(c);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* A program that comes with the command is run by it; files are the user's, modes are as said, names are any bytes. */
static void test_files(void **state)
{
	START(c);
	const char *script = "#!/bin/sh\nstat -c '%a %u %s' run sub/dir/empty *name\nabc";
	char *argv[] = {s("./run"), NULL}, size[32],
	     *files[] = {size, s("640:0:sub/dir/empty"), s("600:3:\xff name"), NULL};
	struct proto_exec x = {.argv = argv,
			       .files = files,
			       .contents = {.data = (uint8_t *)s(script), .len = strlen(script)},
			       .cwd = s(DIR_NAME),
			       .user = s("12345:54321")};
	struct call k;

	assert_int_equal(client_sh(&c, "rm -rf " DIR_NAME " && mkdir -m 777 " DIR_NAME, &k), 0);
	call_done(&k);
	snprintf(size, sizeof(size), "755:%zu:run", strlen(script) - 3);
	run(&c, &k, &x);
	assert_int_equal(k.exit.status, 0);
	assert_string_equal((char *)k.out[1].data, "755 12345 53\n640 12345 0\n600 12345 3\n");
	call_done(&k);
	stop(&c);
}

/* What cannot be written is an error with the path in it, and nothing runs. */
static void test_refused_file(void **state)
{
	START(c);
	char *argv[] = {s("true"), NULL}, *files[] = {s("644:0:/proc/no/such"), NULL},
	     *dirs[] = {s("644:0:/tmp"), NULL};
	struct proto_exec x = {.argv = argv, .files = files};
	struct call k;

	run(&c, &k, &x);
	assert_false(k.opened || k.exited);
	assert_int_equal(k.code, -ENOENT);
	assert_non_null(strstr(k.text, "/proc/no/such"));
	call_done(&k);
	x.files = dirs;
	run(&c, &k, &x);
	assert_int_equal(k.code, -EISDIR);
	call_done(&k);
	/* By the channel, which may be open by then. */
	files[0] = s("644:3:/proc/no/such");
	x.files = files;
	x.contents_follow = true;
	call_exec(&c, &k, &x);
	call_feed(&k, "abc", 3);
	assert_true(client_until(&c, &k.closed, 30000));
	assert_false(k.exited);
	assert_int_equal(k.code, -ENOENT);
	call_done(&k);
	stop(&c);
}

/* Contents that come by the channel, and what the command reads behind them. */
static void test_streamed(void **state)
{
	START(c);
	size_t size = 3 * MIB, rest = 5000;
	char *argv[] = {s("sh"), s("-c"), s("cat > b; cat a b | md5sum; stat -c %s a b"), NULL}, name[32],
	     *files[] = {s("644:0:none"), name, NULL};
	struct proto_exec x = {
		.argv = argv, .files = files, .cwd = s(DIR_NAME), .contents_follow = true, .stdin_open = true};
	uint8_t *bytes = malloc(size + rest);
	struct call k;

	for (size_t i = 0; i < size + rest; i++)
		bytes[i] = (uint8_t)(i * 7 + i / 256);
	assert_int_equal(client_sh(&c, "mkdir " DIR_NAME, &k), 0);
	call_done(&k);
	snprintf(name, sizeof(name), "600:%zu:a", size);
	call_exec(&c, &k, &x);
	call_feed(&k, bytes, size + rest);
	assert_true(client_until(&c, &k.closed, 30000));
	assert_int_equal(k.exit.status, 0);
	buf_put_u8(&k.out[1], 0);
	assert_non_null(strstr((char *)k.out[1].data, "\n3145728\n5000\n"));
	call_done(&k);
	/* One whose sender ends too early is no file. */
	snprintf(name, sizeof(name), "600:%zu:c", size);
	call_exec(&c, &k, &x);
	call_feed(&k, bytes, size - 1);
	assert_true(client_until(&c, &k.closed, 30000));
	assert_int_equal(k.code, -ECONNRESET);
	call_done(&k);
	assert_int_equal(client_sh(&c, "cd " DIR_NAME " && ls", &k), 0);
	assert_string_equal((char *)k.out[1].data, "a\nb\nnone\n");
	call_done(&k);
	free(bytes);
	stop(&c);
}

/* Each runs when the one before it has succeeded, with what that left of the input; the end says which it was. */
static void test_chain(void **state)
{
	START(c);
	char *dd[] = {s("dd"), s("bs=2"), s("count=1"), s("status=none"), NULL}, *argv[] = {s("true"), NULL},
	     *chain[] = {s("+echo"), s("=-"), s("+cat"), s("+sh"), s("=-c"), s("=exit 7"), s("+echo"), s("=no"), NULL},
	     *missing[] = {s("+true"), s("+no-such"), s("+true"), NULL},
	     *slow[] = {s("+true"), s("+sleep"), s("=50"), s("+true"), NULL},
	     *many[] = {s("+true"), s("+true"), s("+true"), s("+true"), s("+true"), s("+echo"), s("=end"), NULL};
	struct proto_exec x = {.argv = dd, .chain = chain, .stdin_open = true};
	struct call k;

	call_exec(&c, &k, &x);
	call_feed(&k, "abcdef", 6);
	assert_true(client_until(&c, &k.closed, 30000));
	buf_put_u8(&k.out[1], 0);
	assert_string_equal((char *)k.out[1].data, "ab-\ncdef");
	assert_int_equal(k.exit.status, 7);
	assert_int_equal(k.exit.step, 3);
	call_done(&k);

	x = (struct proto_exec){.argv = argv, .chain = missing};
	run(&c, &k, &x);
	assert_int_equal(k.exit.status, 127);
	assert_int_equal(k.exit.step, 2);
	assert_non_null(strstr(k.exit.text, "no-such"));
	call_done(&k);

	x.chain = slow;
	x.timeout_ns = 300000000;
	run(&c, &k, &x);
	assert_int_equal(k.exit.reason, PROTO_EXIT_TIMEOUT);
	assert_int_equal(k.exit.step, 2);
	call_done(&k);

	x.chain = many;
	x.timeout_ns = 0;
	run(&c, &k, &x);
	assert_int_equal(k.exit.status, 0);
	assert_int_equal(k.exit.step, 6);
	assert_string_equal((char *)k.out[1].data, "end\n");
	call_done(&k);
	stop(&c);
}

/* Who leaves while a command of a chain runs leaves none behind. */
static void test_chain_left(void **state)
{
	START(c);
	char *argv[] = {s("sleep"), s("0.2"), NULL}, *chain[] = {s("+touch"), s("=/tmp/agent-stage-left"), NULL};
	struct proto_exec x = {.argv = argv, .chain = chain};
	struct call k;

	call_exec(&c, &k, &x);
	assert_true(client_until(&c, &k.opened, 10000));
	mux_close(c.mux, k.ch, 0, NULL);
	client_turn(&c, 500);
	call_done(&k);
	assert_int_equal(client_sh(&c, "test -e /tmp/agent-stage-left", &k), 1);
	call_done(&k);
	stop(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_files), cmocka_unit_test(test_refused_file), cmocka_unit_test(test_streamed),
		cmocka_unit_test(test_chain), cmocka_unit_test(test_chain_left),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
