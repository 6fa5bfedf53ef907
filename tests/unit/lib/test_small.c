/* SPDX-License-Identifier: Apache-2.0 */
/* Environments, signal names, option structs of other sizes, refusals of the public calls. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fileio.h"
#include "base/util.h"
#include "lib/lib.h"

static void environments_merge(void **state)
{
	const char *base[] = {"A=1", "B=2", "A=3", NULL}, *over[] = {"B=", "C=x=y", "BB=4", NULL};
	char **env = env_merge(base, over);

	assert_string_equal(env[0], "A=3");
	assert_string_equal(env[1], "B=");
	assert_string_equal(env[2], "C=x=y");
	assert_string_equal(env[3], "BB=4");
	assert_null(env[4]);
	assert_true(env_has(env, "C"));
	assert_false(env_has(env, "D"));
	assert_false(env_has(env, "BBB"));
	strv_free(env);
	env = env_merge(NULL, NULL);
	assert_null(env[0]);
	strv_free(env);
}

static void signals_parse(void **state)
{
	assert_int_equal(signal_parse("SIGTERM"), 15);
	assert_int_equal(signal_parse("term"), 15);
	assert_int_equal(signal_parse("9"), 9);
	assert_int_equal(signal_parse("SIGRTMIN+3"), 37);
	assert_int_equal(signal_parse("RTMAX"), 64);
	assert_int_equal(signal_parse("SIGRTMAX-2"), 62);
	assert_int_equal(signal_parse("0"), -EINVAL);
	assert_int_equal(signal_parse("65"), -EINVAL);
	assert_int_equal(signal_parse(""), -EINVAL);
	assert_int_equal(signal_parse("SIG"), -EINVAL);
	assert_int_equal(signal_parse("RTMINx"), -EINVAL);
}

/* A program built with an older or a newer header. */
static void option_structs_of_other_sizes(void **state)
{
	struct {
		struct sm_vm_options known;
		uint64_t newer;
	} big = {.known = {.size = sizeof(big), .image = "i"}};
	struct sm_vm_options small = {
		.size = offsetof(struct sm_vm_options, hostname), .image = "i", .hostname = "never read"};
	struct sm_vm_options o = OPTIONS_GET(struct sm_vm_options, &big.known);

	assert_string_equal(o.image, "i");
	o = OPTIONS_GET(struct sm_vm_options, &small);
	assert_string_equal(o.image, "i");
	assert_null(o.hostname);
	o = OPTIONS_GET(struct sm_vm_options, (const struct sm_vm_options *)NULL);
	assert_null(o.image);
}

static void wrong_options_are_named(void **state)
{
	const char *const bad_env[] = {"NOEQUALS", NULL}, *const bad_env2[] = {"=x", NULL};
	const struct {
		struct sm_vm_options o;
		const char *says;
	} cases[] = {
		{{.image = NULL}, "no image"},
		{{.image = ""}, "no image"},
		{{.image = "i", .name = "a/b"}, "a/b"},
		{{.image = "i", .memory = 64 * MIB}, "64.0 MiB"},
		{{.image = "i", .cpus = 17}, "17"},
		{{.image = "i", .profile = (enum sm_profile)2}, "profile 2"},
		{{.image = "i", .cpu_limit = 9}, "0.009 CPUs"},
		{{.image = "i", .cpu_limit = 16001}, "16.001 CPUs"},
		{{.image = "i", .cpus = 2, .cpu_limit = 2001}, "2.001 CPUs"},
		{{.image = "i", .disk_size = 1}, "disk"},
		{{.image = "i", .hostname = ""}, "host name"},
		{{.image = "i", .cwd = "relative"}, "relative"},
		{{.image = "i", .env = bad_env}, "NOEQUALS"},
		{{.image = "i", .env = bad_env2}, "=x"},
	};
	struct sm_client_options co = SM_CLIENT_OPTIONS_INIT;
	char dir[] = "/tmp/test-lib.XXXXXX";
	struct sm_client *c;

	assert_non_null(mkdtemp(dir));
	co.home = dir;
	co.libexec_dir = "/tmp";
	assert_int_equal(sm_client_open(&co, &c, NULL), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct sm_vm_options o = cases[i].o;
		struct sm_error err = {0};
		struct sm_vm *vm;

		o.size = sizeof(o);
		assert_int_equal(sm_vm_start(c, &o, &vm, &err), -EINVAL);
		assert_int_equal(err.kind, SM_ERROR_INVALID);
		if (!strstr(err.message, cases[i].says))
			fail_msg("\"%s\" does not name %s", err.message, cases[i].says);
	}
	sm_client_close(c);
	remove_tree_at(AT_FDCWD, dir);
}

/* What says more wins. */
static void cpus_of_options(void **state)
{
	const struct {
		struct sm_vm_options o;
		unsigned cpus;
	} cases[] = {
		{{.image = "i"}, 1},
		{{.profile = SM_PROFILE_LATENCY}, 1},
		{{.profile = SM_PROFILE_THROUGHPUT}, 4},
		{{.profile = SM_PROFILE_THROUGHPUT, .cpus = 2}, 2},
		{{.profile = SM_PROFILE_THROUGHPUT, .cpu_limit = 1500}, 2},
		{{.cpus = 3, .cpu_limit = 1500}, 3},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(start_cpus(&cases[i].o), cases[i].cpus);
}

/* Where others may write nothing of ours goes. */
static void shared_directories_are_refused(void **state)
{
	struct sm_client_options co = SM_CLIENT_OPTIONS_INIT;
	char dir[] = "/tmp/test-lib.XXXXXX", path[64];
	struct sm_error err = {0};
	struct sm_client *c;

	assert_non_null(mkdtemp(dir));
	co.home = dir;
	co.libexec_dir = "/tmp";
	snprintf(path, sizeof(path), "%s/run", dir);
	assert_int_equal(mkdir_p(path, 0777), 0);
	assert_int_equal(chmod(path, 0777), 0);
	assert_int_equal(sm_client_open(&co, &c, &err), -EPERM);
	assert_int_equal(err.kind, SM_ERROR_HOST);
	assert_non_null(strstr(err.message, path));
	remove_tree_at(AT_FDCWD, dir);
}

static void hosts_and_tmpfs(void **state)
{
	static const char *const bad_hosts[] = {
		"db", "db:", ":1.2.3.4", "db:host-gateway", "a b:1.2.3.4", "db:1.2.3.4\n9.9.9.9 x"};
	static const char *const bad_tmpfs[] = {"",	 "x",	      "/",	   "//",       "/a/../b",
						"/a/..", "/a:size=0", "/a:mode=9", "/a:mode=", "/a:ro"};
	const char *hosts[] = {"db:10.0.0.9", "six=[::1]", "v6:fe80::1", NULL},
		   *tmpfs[] = {"/a", "/b:size=64K,mode=700,exec", NULL};
	struct sm_vm_options o = SM_VM_OPTIONS_INIT;
	struct sm_error err;
	struct vm_record r = {0};

	o.hosts = hosts;
	o.tmpfs = tmpfs;
	o.read_only = true;
	assert_int_equal(container_from_options(&r, &o, NULL), 0);
	assert_string_equal(r.hosts[0], "10.0.0.9 db");
	assert_string_equal(r.hosts[1], "::1 six");
	assert_string_equal(r.hosts[2], "fe80::1 v6");
	assert_string_equal(r.tmpfs[0], "n:mode=1777:/a");
	assert_string_equal(r.tmpfs[1], ":size=65536,mode=700:/b");
	assert_true(r.read_only && !r.hosts[3] && !r.tmpfs[2]);
	vm_record_done(&r);
	for (size_t i = 0; i < ARRAY_SIZE(bad_hosts) + ARRAY_SIZE(bad_tmpfs); i++) {
		const char *one[] = {i < ARRAY_SIZE(bad_hosts) ? bad_hosts[i] : bad_tmpfs[i - ARRAY_SIZE(bad_hosts)],
				     NULL};

		o.hosts = i < ARRAY_SIZE(bad_hosts) ? one : NULL;
		o.tmpfs = i < ARRAY_SIZE(bad_hosts) ? NULL : one;
		r = (struct vm_record){0};
		err = (struct sm_error){0};
		assert_int_equal(container_from_options(&r, &o, &err), -EINVAL);
		assert_int_equal(err.kind, SM_ERROR_INVALID);
		vm_record_done(&r);
	}
}

/* A call that the keeper or the agent refused, or that was lost. */
static void failed_calls_have_a_kind(void **state)
{
	static const struct {
		int code;
		enum sm_error_kind kind;
	} cases[] = {{-EPROTO, SM_ERROR_GUEST},	    {0, SM_ERROR_GUEST},
		     {-ESRCH, SM_ERROR_STATE},	    {-EBUSY, SM_ERROR_STATE},
		     {-EAGAIN, SM_ERROR_STATE},	    {-EALREADY, SM_ERROR_STATE},
		     {-ENOENT, SM_ERROR_NOT_FOUND}, {-EISDIR, SM_ERROR_IO},
		     {-EINVAL, SM_ERROR_INVALID},   {-EOPNOTSUPP, SM_ERROR_UNSUPPORTED},
		     {-E2BIG, SM_ERROR_LIMIT}};
	struct conn conn = {.fd = -1};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct call call = {.closed = true, .code = cases[i].code, .text = "told"};
		struct sm_error err = {0};

		assert_int_equal(call_error(&conn, &call, "VM x", &err), cases[i].code ? cases[i].code : -EPIPE);
		assert_int_equal(err.kind, cases[i].kind);
		assert_string_equal(err.message, "VM x: told");
	}
	conn.error = -ECONNRESET;
	assert_int_equal(call_error(&conn, &(struct call){0}, "VM x", NULL), -ECONNRESET);
}

/* A peer that never speaks is given up on in the time that it has; so is an answer that does not come. */
static void silence_has_a_limit(void **state)
{
	struct sm_error err = {0};
	struct conn conn;
	struct call call;
	int pair[2];

	for (int i = 0; i < 2; i++) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
		assert_int_equal(conn_init(&conn, pair[0], NULL), 0);
		assert_int_equal(conn_call(&conn, PROTO_KEEPER_STATUS, NULL, &call), 0);
		if (i == 0)
			conn.patience_ns = 30 * 1000000;
		assert_int_equal(i == 0 ? conn_await_open(&conn, &call, "VM x", &err)
					: conn_await_open_within(&conn, &call, 30 * 1000000, "VM x", &err),
				 -ETIME);
		assert_int_equal(err.kind, SM_ERROR_TIMEOUT);
		assert_string_equal(err.message, "VM x: " KEEPER_HANGS);
		conn_done(&conn);
		call_done(&call);
		close(pair[1]);
	}
}

static int open_with(const char *home, uint64_t given, uint64_t *ret, struct sm_error *err)
{
	struct sm_client_options o = SM_CLIENT_OPTIONS_INIT;
	struct sm_client *c;
	int r;

	o.home = home;
	o.answer_timeout_ns = given;
	r = sm_client_open(&o, &c, err);
	if (r < 0)
		return r;
	*ret = c->patience_ns;
	sm_client_close(c);
	return 0;
}

static void answer_timeout_is_chosen(void **state)
{
	static const char *const wrong[] = {"0", "-1s", "soon", "61m", "3h"};
	char home[] = "/tmp/test-small.XXXXXX";
	struct sm_error err = {0};
	uint64_t ns;

	assert_non_null(mkdtemp(home));
	unsetenv("SUPERMACHINE_ANSWER_TIMEOUT");
	assert_int_equal(open_with(home, 0, &ns, NULL), 0);
	assert_int_equal(ns, 30000000000);
	setenv("SUPERMACHINE_ANSWER_TIMEOUT", "1500ms", 1);
	assert_int_equal(open_with(home, 0, &ns, NULL), 0);
	assert_int_equal(ns, 1500000000);
	assert_int_equal(open_with(home, 7, &ns, NULL), 0);
	assert_int_equal(ns, 7);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		setenv("SUPERMACHINE_ANSWER_TIMEOUT", wrong[i], 1);
		assert_int_equal(open_with(home, 0, &ns, &err), -EINVAL);
		assert_int_equal(err.kind, SM_ERROR_INVALID);
		assert_non_null(strstr(err.message, "SUPERMACHINE_ANSWER_TIMEOUT"));
	}
	unsetenv("SUPERMACHINE_ANSWER_TIMEOUT");
	remove_tree_at(AT_FDCWD, home);
}

/* What the kernel would refuse, or no request can carry, is said before anything starts. */
static void commands_have_to_fit(void **state)
{
	static char longest[COMMAND_MAX_STRING + 1];
	const char *argv[] = {"sh", longest, longest, longest, longest, longest, longest, longest, NULL};
	const char *one[] = {"A=b", longest, NULL};
	struct sm_error err = {0};

	memset(longest, 'x', COMMAND_MAX_STRING);
	assert_int_equal(command_fits(one, NULL, &err), -E2BIG);
	assert_int_equal(err.kind, SM_ERROR_LIMIT);
	assert_non_null(strstr(err.message, "argument xxx"));
	assert_int_equal(command_fits(NULL, one, &err), -E2BIG);
	assert_non_null(strstr(err.message, "variable xxx"));
	longest[COMMAND_MAX_STRING - 1] = '\0';
	assert_int_equal(command_fits(one, one, NULL), 0);
	assert_int_equal(command_fits(argv, one, &err), -E2BIG);
	assert_non_null(strstr(err.message, "arguments and environment are"));
	assert_int_equal(command_fits(NULL, NULL, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(environments_merge),
		cmocka_unit_test(signals_parse),
		cmocka_unit_test(option_structs_of_other_sizes),
		cmocka_unit_test(wrong_options_are_named),
		cmocka_unit_test(cpus_of_options),
		cmocka_unit_test(shared_directories_are_refused),
		cmocka_unit_test(hosts_and_tmpfs),
		cmocka_unit_test(failed_calls_have_a_kind),
		cmocka_unit_test(silence_has_a_limit),
		cmocka_unit_test(commands_have_to_fit),
		cmocka_unit_test(answer_timeout_is_chosen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
