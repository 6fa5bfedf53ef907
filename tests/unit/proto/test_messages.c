/* SPDX-License-Identifier: Apache-2.0 */
/* The messages: what is encoded comes back, and what no encoder makes is refused. */
#include <errno.h>
#include <sys/resource.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "proto/fileevent.h"
#include "proto/messages.h"
#include "proto/stage.h"

static char *s(const char *text)
{
	return (char *)(uintptr_t)text;
}

static struct cursor over(const struct buf *b)
{
	return cursor_of(b->data, b->len);
}

static void test_exec(void **state)
{
	char *argv[20], *env[] = {s("A=1"), s("EMPTY="), s(""), NULL};
	struct proto_exec x = {.argv = argv,
			       .env = env,
			       .cwd = s("/w"),
			       .user = s("u:g"),
			       .log = s("/log"),
			       .tty = true,
			       .main = true,
			       .detached = true,
			       .rows = 65535,
			       .cols = 80,
			       .timeout_ns = UINT64_MAX},
			  y;
	struct buf b = {0};
	struct cursor c;

	for (int i = 0; i < 19; i++)
		argv[i] = s(i % 2 ? "" : "argument");
	argv[19] = NULL;
	assert_int_equal(proto_exec_encode(&b, &x), 0);
	c = over(&b);
	assert_int_equal(proto_exec_decode(&c, &y), 0);
	for (int i = 0; i < 19; i++)
		assert_string_equal(y.argv[i], argv[i]);
	assert_null(y.argv[19]);
	assert_string_equal(y.env[1], "EMPTY=");
	assert_string_equal(y.env[2], "");
	assert_null(y.env[3]);
	assert_string_equal(y.cwd, "/w");
	assert_string_equal(y.user, "u:g");
	assert_string_equal(y.log, "/log");
	assert_true(y.tty && y.main && y.detached && !y.stdin_open && !y.clear_env);
	assert_int_equal(y.rows, 65535);
	assert_true(y.timeout_ns == UINT64_MAX);
	proto_exec_done(&y);
	/* Every shorter text is refused or is a shorter valid one; none is read past its end (sanitizers see to that).
	 */
	for (size_t len = 0; len < b.len; len++) {
		uint8_t *copy = malloc(len ? len : 1);

		memcpy(copy, b.data, len);
		c = cursor_of(copy, len);
		if (proto_exec_decode(&c, &y) == 0)
			proto_exec_done(&y);
		free(copy);
	}
	buf_done(&b);
}

static int decode_exec(struct buf *b)
{
	struct proto_exec y;
	struct cursor c = over(b);
	int r = proto_exec_decode(&c, &y);

	if (r == 0)
		proto_exec_done(&y);
	buf_done(b);
	return r;
}

static void refuse_staged(const struct proto_exec *x)
{
	struct buf b = {0};

	assert_int_equal(proto_exec_encode(&b, x), 0);
	assert_int_equal(decode_exec(&b), -EPROTO);
}

static void test_staged(void **state)
{
	char *argv[] = {s("c"), NULL}, *files[] = {s("644:3:a"), s("7777:0:/x:y"), NULL},
	     *chain[] = {s("+one"), s("=two"), s("="), s("+three"), NULL}, *bad[] = {s("644:3:a"), NULL};
	static const char *const wrong[] = {"",
					    "644",
					    "644:3:",
					    "8:3:a",
					    "10000:3:a",
					    ":3:a",
					    "644::a",
					    "644:-3:a",
					    "644:9223372036854775808:a",
					    "644:99999999999999999999:a",
					    "644:3a:b"};
	struct proto_exec x = {.argv = argv, .files = files, .chain = chain, .contents = {(uint8_t *)s("abc"), 3}}, y;
	struct proto_staged f;
	struct buf b = {0};
	struct cursor c;
	char **words;

	assert_int_equal(proto_exec_encode(&b, &x), 0);
	c = over(&b);
	assert_int_equal(proto_exec_decode(&c, &y), 0);
	assert_int_equal(proto_staged_total(&y), 3);
	assert_int_equal(proto_staged_parse(y.files[1], &f), 0);
	assert_string_equal(f.path, "/x:y");
	assert_int_equal(f.mode, 07777);
	assert_int_equal(proto_chain_count(&y), 2);
	words = proto_chain_argv(&y, 0);
	assert_string_equal(words[1], "two");
	assert_string_equal(words[2], "");
	assert_null(words[3]);
	free(words);
	words = proto_chain_argv(&y, 1);
	assert_string_equal(words[0], "three");
	assert_null(words[1]);
	free(words);
	assert_null(proto_chain_argv(&y, 2));
	proto_exec_done(&y);
	buf_done(&b);

	x.contents.len = 2;
	refuse_staged(&x);
	x.contents.len = 3;
	x.tty = true;
	refuse_staged(&x);
	x.tty = false;
	x.contents_follow = true;
	refuse_staged(&x);
	x.contents_follow = false;
	x.main = true;
	refuse_staged(&x);
	x.main = false;
	chain[0] = s("=one");
	refuse_staged(&x);
	chain[0] = s("");
	refuse_staged(&x);
	x.chain = NULL;
	x.files = bad;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		bad[0] = s(wrong[i]);
		assert_int_equal(proto_staged_parse(bad[0], &f), -EPROTO);
		refuse_staged(&x);
	}
}

static void test_exec_refused(void **state)
{
	struct buf b = {0};

	assert_int_equal(decode_exec(&b), -EPROTO); /* no argv */
	tlv_put_str(&b, 1, "x");
	assert_int_equal(decode_exec(&b), 0);
	tlv_put_str(&b, 1, "x");
	tlv_put_str(&b, 0x7777, "?"); /* unknown and mandatory */
	assert_int_equal(decode_exec(&b), -EPROTO);
	tlv_put_str(&b, 1, "x");
	tlv_put_str(&b, 0x8777, "?"); /* unknown, to be skipped */
	assert_int_equal(decode_exec(&b), 0);
	tlv_put_str(&b, 1, "x");
	tlv_put_str(&b, 3, "/a");
	tlv_put_str(&b, 3, "/b"); /* twice */
	assert_int_equal(decode_exec(&b), -EPROTO);
	tlv_put(&b, 1, "a\0b", 3); /* NUL inside */
	assert_int_equal(decode_exec(&b), -EPROTO);
	tlv_put_str(&b, 1, "x");
	tlv_put_u64(&b, 5, 2); /* neither true nor false */
	assert_int_equal(decode_exec(&b), -EPROTO);
	tlv_put_str(&b, 1, "x");
	tlv_put_u64(&b, 11, 65536); /* a row too many */
	assert_int_equal(decode_exec(&b), -EPROTO);
	tlv_put_str(&b, 1, "x");
	tlv_put(&b, 13, "1234", 4); /* a number of the wrong size */
	assert_int_equal(decode_exec(&b), -EPROTO);
	tlv_put_str(&b, 1, "x");
	b.data[2] = 1; /* flags */
	assert_int_equal(decode_exec(&b), -EPROTO);
	tlv_put_str(&b, 1, "x");
	b.data[4] = 200; /* longer than there is */
	assert_int_equal(decode_exec(&b), -EPROTO);
	for (int i = 0; i < 66000; i++)
		tlv_put_str(&b, 1, ""); /* too many */
	assert_int_equal(decode_exec(&b), -EPROTO);
}

static void test_setup(void **state)
{
	char *list[] = {s("one"), s("two"), NULL};
	struct proto_setup x = {.root = PROTO_ROOT_BLK,
				.root_device = s("image"),
				.upper_serial = s("upper"),
				.hostname = s("h"),
				.env = list,
				.user = s("u"),
				.cwd = s("/"),
				.hosts = list,
				.dns = list,
				.volumes = list,
				.mounts = list,
				.realtime_ns = 5,
				.seed = {1, 2},
				.read_only = true,
				.tmpfs_size = 9,
				.plugged = 4 * MIB,
				.upper_ahead = true},
			   y;
	struct buf b = {0};
	struct cursor c;

	assert_int_equal(proto_setup_encode(&b, &x), 0);
	c = over(&b);
	assert_int_equal(proto_setup_decode(&c, &y), 0);
	assert_int_equal(y.root, PROTO_ROOT_BLK);
	assert_string_equal(y.root_device, "image");
	assert_string_equal(y.upper_serial, "upper");
	assert_string_equal(y.volumes[1], "two");
	assert_null(y.volumes[2]);
	assert_string_equal(y.mounts[0], "one");
	assert_memory_equal(y.seed, x.seed, 32);
	assert_true(y.read_only);
	assert_int_equal(y.plugged, 4 * MIB);
	assert_true(y.upper_ahead);
	proto_setup_done(&y);
	b.len = 0;
	x.root = 3;
	assert_int_equal(proto_setup_encode(&b, &x), 0);
	c = over(&b);
	assert_int_equal(proto_setup_decode(&c, &y), -EPROTO);
	b.len = 0;
	x.root = PROTO_ROOT_PMEM;
	x.root_device = NULL;
	assert_int_equal(proto_setup_encode(&b, &x), 0);
	c = over(&b);
	assert_int_equal(proto_setup_decode(&c, &y), -EPROTO);
	buf_done(&b);
}

static void test_prepared(void **state)
{
	struct proto_prepared x = {.pluggable = true}, y = {0};
	struct buf b = {0};
	struct cursor c;

	assert_int_equal(proto_prepared_encode(&b, &x), 0);
	c = over(&b);
	assert_int_equal(proto_prepared_decode(&c, &y), 0);
	assert_true(y.pluggable);
	/* An agent that says nothing of it cannot do it. */
	c = cursor_of(NULL, 0);
	assert_int_equal(proto_prepared_decode(&c, &y), 0);
	assert_false(y.pluggable);
	buf_done(&b);
}

static void test_mounts(void **state)
{
	static const char *const bad[] = {"",	     "r",    ":",     ":/",	 ":relative", "x:/a",	"rr:/a", "r/a",
					  "rcfr:/a", "v:/a", "vn:/a", "v0v1:/a", "v10:/a",    "v0c:/a", "n:/a"};
	struct proto_mount x = {.target = "/a:b c", .read_only = true, .is_file = true}, y;
	char *text = proto_mount_format(&x);

	assert_string_equal(text, "rf:/a:b c");
	assert_int_equal(proto_mount_parse(text, &y), 0);
	assert_true(y.read_only && y.is_file && !y.cow);
	assert_string_equal(y.target, "/a:b c");
	free(text);
	x = (struct proto_mount){.target = "/v", .volume = true, .number = 5, .read_only = true, .no_copy = true};
	text = proto_mount_format(&x);
	assert_string_equal(text, "rv5n:/v");
	assert_int_equal(proto_mount_parse(text, &y), 0);
	assert_true(y.read_only && y.volume && y.no_copy && y.number == 5);
	free(text);
	x.number = 10;
	assert_null(proto_mount_format(&x));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(proto_mount_parse(bad[i], &y), -EPROTO);
}

static void test_tmpfs(void **state)
{
	static const char *const bad[] = {"",
					  "n",
					  ":",
					  "n:",
					  "n:mode=1777",
					  "n:mode=1777:",
					  "n:mode=1777:/",
					  ":a:b",
					  "x:a:/b",
					  "n:0123456789012345678901234567890123456789012345678901234567890123:/a"};
	struct proto_tmpfs x;

	assert_int_equal(proto_tmpfs_parse("n:size=1,mode=700:/a:b", &x), 0);
	assert_true(x.noexec);
	assert_string_equal(x.data, "size=1,mode=700");
	assert_string_equal(x.path, "/a:b");
	assert_int_equal(proto_tmpfs_parse("::/a", &x), 0);
	assert_false(x.noexec);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(proto_tmpfs_parse(bad[i], &x), -EPROTO);
}

static void test_events(void **state)
{
	struct proto_event x = {.kind = PROTO_EV_EXIT,
				.status = 137,
				.signal = 9,
				.reason = PROTO_EXIT_OOM,
				.duration_ns = 1,
				.peak_rss = 2,
				.text = "out of memory"},
			   y;
	struct buf b = {0};
	struct cursor c;

	assert_int_equal(proto_event_encode(&b, &x), 0);
	c = over(&b);
	assert_int_equal(proto_event_decode(&c, &y), 0);
	assert_int_equal(y.kind, PROTO_EV_EXIT);
	assert_int_equal(y.status, 137);
	assert_int_equal(y.reason, PROTO_EXIT_OOM);
	assert_string_equal(y.text, "out of memory");
	for (int i = 0; i < 4; i++) {
		struct proto_event bad = x;

		if (i == 0)
			bad.kind = 4;
		else if (i == 1)
			bad.reason = 0;
		else if (i == 2)
			bad.signal = 65;
		else
			bad.status = 256;
		b.len = 0;
		assert_int_equal(proto_event_encode(&b, &bad), 0);
		c = over(&b);
		assert_int_equal(proto_event_decode(&c, &y), -EPROTO);
	}
	b.len = 0;
	tlv_put_u64(&b, 1, 2);
	tlv_put(&b, 9, (char[256]){[0 ... 255] = 'x'}, 256);
	c = over(&b);
	assert_int_equal(proto_event_decode(&c, &y), -EPROTO);
	buf_done(&b);
}

static void test_others(void **state)
{
	struct proto_connect cx = {.host = s("127.0.0.1"), .port = 80, .wait_ns = 5}, cy;
	struct proto_file
		fx = {.path = s("/f"), .offset = 1, .size = 2, .mode = 0755, .uid = 4, .gid = 5, .make_dirs = true},
		fy;
	struct proto_stop sx = {.restart = true, .signal = 15, .grace_ns = 3}, sy;
	struct proto_stats tx = {.mem_total = 1, .net_tx = 2}, ty;
	struct proto_clock kx = {.realtime_ns = 0, .seed = {9}}, ky;
	struct buf b = {0};
	struct cursor c;
	uint32_t pid;

	assert_int_equal(proto_connect_encode(&b, &cx), 0);
	c = over(&b);
	assert_int_equal(proto_connect_decode(&c, &cy), 0);
	assert_string_equal(cy.host, "127.0.0.1");
	assert_int_equal(cy.wait_ns, 5);
	proto_connect_done(&cy);
	tlv_put_str(&b, 2, "/both");
	c = over(&b);
	assert_int_equal(proto_connect_decode(&c, &cy), -EPROTO);
	b.len = 0;
	assert_int_equal(proto_file_encode(&b, &fx), 0);
	c = over(&b);
	assert_int_equal(proto_file_decode(&c, &fy), 0);
	assert_true(fy.mode == 0755 && fy.make_dirs && fy.gid == 5);
	proto_file_done(&fy);
	b.len = 0;
	assert_int_equal(proto_stop_encode(&b, &sx), 0);
	c = over(&b);
	assert_int_equal(proto_stop_decode(&c, &sy), 0);
	assert_true(sy.restart && sy.signal == 15 && sy.grace_ns == 3);
	b.len = 0;
	assert_int_equal(proto_stats_encode(&b, &tx), 0);
	c = over(&b);
	assert_int_equal(proto_stats_decode(&c, &ty), 0);
	assert_true(ty.mem_total == 1 && ty.net_tx == 2 && ty.mem_free == 0);
	b.len = 0;
	assert_int_equal(proto_clock_encode(&b, &kx), 0);
	c = over(&b);
	assert_int_equal(proto_clock_decode(&c, &ky), 0);
	assert_int_equal(ky.seed[0], 9);
	b.len = 0;
	assert_int_equal(proto_pid_encode(&b, 77), 0);
	c = over(&b);
	assert_int_equal(proto_pid_decode(&c, &pid), 0);
	assert_int_equal(pid, 77);
	buf_done(&b);
}

static void test_resume(void **state)
{
	char *env[] = {s("A=1"), s("B=2"), NULL};
	struct proto_resume x = {.realtime_ns = 5, .seed = {7}, .hostname = s("copy"), .machine_id = s("0123")}, y;
	struct proto_hold hx = {.hold = false}, hy;
	struct buf b = {0};
	struct cursor c;

	assert_int_equal(proto_resume_encode(&b, &x), 0);
	c = over(&b);
	assert_int_equal(proto_resume_decode(&c, &y), 0);
	assert_true(y.realtime_ns == 5 && y.seed[0] == 7);
	assert_string_equal(y.hostname, "copy");
	assert_string_equal(y.machine_id, "0123");
	assert_true(!y.env && !y.timeout_ns);
	proto_resume_done(&y);
	b.len = 0;
	x.env = env;
	x.timeout_ns = 9;
	assert_int_equal(proto_resume_encode(&b, &x), 0);
	c = over(&b);
	assert_int_equal(proto_resume_decode(&c, &y), 0);
	assert_string_equal(y.env[1], "B=2");
	assert_true(!y.env[2] && y.timeout_ns == 9);
	proto_resume_done(&y);
	x.env = NULL;
	x.timeout_ns = 0;
	b.len = 0;
	/* A copy without a seed, or without the time, is no request. */
	for (int without = 0; without < 2; without++) {
		struct proto_resume bad = x;

		b.len = 0;
		if (without == 0)
			memset(bad.seed, 0, sizeof(bad.seed));
		assert_int_equal(proto_resume_encode(&b, &bad), 0);
		if (without == 1)
			b.len = 16; /* the time alone */
		c = over(&b);
		assert_int_equal(proto_resume_decode(&c, &y), -EPROTO);
	}
	b.len = 0;
	assert_int_equal(proto_hold_encode(&b, &hx), 0);
	c = over(&b);
	assert_int_equal(proto_hold_decode(&c, &hy), 0);
	assert_false(hy.hold);
	c = cursor_of(b.data, 0);
	assert_int_equal(proto_hold_decode(&c, &hy), -EPROTO);
	buf_done(&b);
}

static void test_secret(void **state)
{
	struct proto_secret x = {.name = "key", .env = "KEY", .data = (const uint8_t *)"a\0b", .len = 3}, y;
	static const char *const bad[] = {"", ".", "..", "a/b"};
	struct buf b = {0};
	struct cursor c;

	assert_int_equal(proto_secret_encode(&b, &x), 0);
	c = over(&b);
	assert_int_equal(proto_secret_decode(&c, &y), 0);
	assert_string_equal(y.name, "key");
	assert_string_equal(y.env, "KEY");
	assert_int_equal(y.len, 3);
	assert_memory_equal(y.data, "a\0b", 3);
	for (size_t cut = 0; cut < b.len; cut++) {
		c = cursor_of(b.data, cut);
		assert_int_equal(proto_secret_decode(&c, &y), -EPROTO);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		b.len = 0;
		strcpy(x.name, bad[i]);
		assert_int_equal(proto_secret_encode(&b, &x), 0);
		c = over(&b);
		assert_int_equal(proto_secret_decode(&c, &y), -EPROTO);
	}
	buf_done(&b);
}

static void test_rlimit(void **state)
{
	static const char *const bad[] = {"",	       "nofile",     "nofile=",	  "nofile=x",
					  "files=1",   "nofile=2:1", "nofile=1:", "nofile=1:2:3",
					  "nofile=-2", "NOFILE=1",   "=1",	  "nofile=99999999999999999999999"};
	struct proto_rlimit l;

	assert_int_equal(proto_rlimit_parse("nofile=1024:2048", &l), 0);
	assert_int_equal(l.resource, RLIMIT_NOFILE);
	assert_int_equal(l.soft, 1024);
	assert_int_equal(l.hard, 2048);
	assert_int_equal(proto_rlimit_parse("core=0", &l), 0);
	assert_int_equal(l.soft | l.hard, 0);
	assert_int_equal(proto_rlimit_parse("memlock=-1", &l), 0);
	assert_true(l.soft == UINT64_MAX && l.hard == UINT64_MAX);
	assert_int_equal(proto_rlimit_parse("stack=8192:unlimited", &l), 0);
	assert_true(l.soft == 8192 && l.hard == UINT64_MAX);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(proto_rlimit_parse(bad[i], &l), -EPROTO);
}

static void test_watch(void **state)
{
	static const struct {
		enum fileevent_kind kind;
		bool directory;
		const char *path, *to;
		int want;
	} cases[] = {
		{FILEEVENT_READY, false, "", NULL, 1},
		{FILEEVENT_READY, false, "/x", NULL, -EPROTO},
		{FILEEVENT_READY, true, "", NULL, -EPROTO},
		{FILEEVENT_CREATED, true, "/a b", NULL, 1},
		{FILEEVENT_CREATED, false, "a", NULL, -EPROTO},
		{FILEEVENT_CREATED, false, "", NULL, -EPROTO},
		{FILEEVENT_DELETED, false, "/a", "/b", -EPROTO},
		{FILEEVENT_MOVED, false, "/a", "/b", 1},
		{FILEEVENT_MOVED, false, "/a", NULL, -EPROTO},
		{FILEEVENT_MOVED, false, "/a", "b", -EPROTO},
		{FILEEVENT_OVERFLOW, false, "/", NULL, 1},
		{FILEEVENT_GONE, true, "/", NULL, 1},
		{FILEEVENT_ERROR, false, "28", "why", 1},
		{FILEEVENT_ERROR, false, "28", NULL, -EPROTO},
		{FILEEVENT_ERROR, false, "x", "why", -EPROTO},
		{FILEEVENT_ERROR, false, "123456", "why", -EPROTO},
		{9, false, "/a", NULL, -EPROTO},
	};
	struct proto_watch x = {.path = s("/a"), .recursive = true}, y;
	static char longest[FILEEVENT_MAX_PATH + 2];
	struct buf b = {0};
	struct cursor c;
	struct fileevent e;
	size_t used;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		b.len = 0;
		assert_int_equal(fileevent_put(&b, cases[i].kind, cases[i].directory, cases[i].path, cases[i].to), 0);
		for (size_t n = 0; n < b.len; n++)
			assert_int_equal(fileevent_next(b.data, n, &e, &used), 0);
		assert_int_equal(fileevent_next(b.data, b.len, &e, &used), cases[i].want);
		if (cases[i].want < 0)
			continue;
		assert_int_equal(used, b.len);
		assert_true(e.kind == cases[i].kind && e.directory == cases[i].directory);
		assert_string_equal(e.path, cases[i].path);
		assert_string_equal(e.to, cases[i].to ? cases[i].to : "");
	}
	memset(longest, '/', sizeof(longest) - 1);
	assert_int_equal(fileevent_put(&b, FILEEVENT_CREATED, false, longest, NULL), -ENAMETOOLONG);
	buf_done(&b);

	assert_int_equal(proto_watch_encode(&b, &x), 0);
	c = over(&b);
	assert_int_equal(proto_watch_decode(&c, &y), 0);
	assert_string_equal(y.path, "/a");
	assert_true(y.recursive);
	proto_watch_done(&y);
	buf_done(&b);
	x.path = s("a");
	assert_int_equal(proto_watch_encode(&b, &x), 0);
	c = over(&b);
	assert_int_equal(proto_watch_decode(&c, &y), -EPROTO);
	buf_done(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exec),   cmocka_unit_test(test_exec_refused), cmocka_unit_test(test_staged),
		cmocka_unit_test(test_setup),  cmocka_unit_test(test_prepared),	    cmocka_unit_test(test_mounts),
		cmocka_unit_test(test_tmpfs),  cmocka_unit_test(test_events),	    cmocka_unit_test(test_others),
		cmocka_unit_test(test_resume), cmocka_unit_test(test_secret),	    cmocka_unit_test(test_rlimit),
		cmocka_unit_test(test_watch),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
