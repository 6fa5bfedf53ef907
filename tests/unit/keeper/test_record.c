/* SPDX-License-Identifier: Apache-2.0 */
/* The VM's files: round trips, refusals, the log and its rotation, the keeper's messages. */
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
#include <sys/stat.h>
#include <unistd.h>

#include "base/fileio.h"
#include "base/util.h"
#include "keeper/log.h"
#include "keeper/porttext.h"
#include "keeper/record.h"
#include "keeper/wire.h"
#include "keeper/execs.h"

static void record_survives_a_round_trip(void **state)
{
	char raw[] = {'b', (char)0xff, (char)0xfe, '\n', 0};
	char raw_path[] = "/not \xff utf-8", ranges[] = "u:0:1000:1";
	char *argv[] = {"sh", "-c", raw, "", NULL}, *env[] = {"A=\"\\", NULL}, *none[] = {NULL};
	struct vm_part parts[] = {{"/p/one", 4096, 0}, {"/p/two", 8192, 2 << 20}};
	struct vm_mount mounts[] = {{.source = "/s", .target = "/t", .read_only = true, .cache = SM_FS_CACHE_NONE},
				    {.source = raw_path, .target = "/t/u", .cow = true, .ids = SM_FS_IDS_SAME},
				    {.source = "/s",
				     .target = "/v",
				     .direct = true,
				     .dax = true,
				     .ids = SM_FS_IDS_RANGES,
				     .id_ranges = ranges,
				     .xattrs = SM_FS_XATTRS_MAPPED}};
	struct vm_record in = {.id = "00ff00ff00ff",
			       .mounts = mounts,
			       .num_mounts = 3,
			       .dax_size = 512ULL << 20,
			       .share_group = "g1",
			       .audit = "/tmp/audit",
			       .name = "web-1",
			       .image = "i:t",
			       .image_id = "abc",
			       .created_ns = INT64_MAX,
			       .keep = true,
			       .memory = GIB,
			       .cpus = 16,
			       .cpu_limit = 15500,
			       .kernel = "/k",
			       .initramfs = "/i",
			       .cmdline = "quiet",
			       .window_size = 3 << 20,
			       .parts = parts,
			       .num_parts = 2,
			       .root_blk = true,
			       .disk_template = "/t",
			       .disk_size = 1,
			       .layers = 3,
			       .hostname = "h",
			       .argv = argv,
			       .no_command = true,
			       .env = env,
			       .user = raw,
			       .cwd = "/",
			       .volumes = none,
			       .labels = env,
			       .tty = true,
			       .rows = 65535,
			       .cols = 1,
			       .stop_signal = 64,
			       .timeout_ns = 5,
			       .ttl_ns = 8,
			       .idle_ns = 7,
			       .on_idle = SM_ON_IDLE_SUSPEND};
	struct vm_record out;
	char *json = NULL, *again = NULL;

	assert_int_equal(vm_record_format(&in, &json, NULL), 0);
	assert_int_equal(vm_record_parse(json, strlen(json), &out, NULL), 0);
	assert_string_equal(out.argv[2], raw);
	assert_string_equal(out.argv[3], "");
	assert_null(out.argv[4]);
	assert_string_equal(out.user, raw);
	assert_int_equal(out.num_parts, 2);
	assert_true(out.parts[1].offset == 2 << 20);
	assert_int_equal(out.num_mounts, 3);
	assert_true(out.mounts[0].read_only && !out.mounts[0].cow);
	assert_int_equal(out.mounts[0].cache, SM_FS_CACHE_NONE);
	assert_string_equal(out.mounts[1].source, raw_path);
	assert_true(out.mounts[1].cow && !out.mounts[1].read_only);
	assert_int_equal(out.mounts[1].ids, SM_FS_IDS_SAME);
	assert_null(out.mounts[1].id_ranges);
	assert_int_equal(out.mounts[2].ids, SM_FS_IDS_RANGES);
	assert_true(out.mounts[2].direct && !out.mounts[1].direct);
	assert_true(out.mounts[2].dax && !out.mounts[1].dax);
	assert_true(out.dax_size == 512ULL << 20);
	assert_int_equal(out.cpu_limit, 15500);
	assert_string_equal(out.share_group, "g1");
	assert_string_equal(out.audit, "/tmp/audit");
	assert_true(out.no_command);
	assert_int_equal(out.mounts[2].xattrs, SM_FS_XATTRS_MAPPED);
	assert_string_equal(out.mounts[2].id_ranges, ranges);
	assert_int_equal(vm_record_format(&out, &again, NULL), 0);
	assert_string_equal(json, again);
	vm_record_done(&out);
	free(json);
	free(again);
}

static const char good[] =
	"{\"version\":1,\"id\":\"00ff00ff00ff\",\"image\":\"i\",\"image_id\":\"x\",\"memory\":1,\"cpus\":1,\"kernel\":"
	"\"k\","
	"\"initramfs\":\"i\",\"parts\":[],\"hostname\":\"h\",\"argv\":[\"a\"],\"env\":[],\"stop_signal\":15}";

static void bad_records_are_refused(void **state)
{
	static const struct {
		const char *find, *put;
	} edits[] = {
		{"\"version\":1", "\"version\":2"},
		{"\"version\":1,", ""},
		{"00ff00ff00ff", "../../../etc"},
		{"00ff00ff00ff", "00FF00FF00FF"},
		{"\"image\":\"i\"", "\"image\":7"},
		{"\"image\":\"i\"", "\"image\":{\"hex\":\"zz\"}"},
		{"\"image\":\"i\"", "\"image\":{\"hex\":\"00\"}"},
		{"\"image\":\"i\"", "\"image\":\"a\\u0000b\""},
		{"\"memory\":1", "\"memory\":-1"},
		{"\"memory\":1", "\"memory\":1e99"},
		{"\"cpus\":1", "\"cpus\":true"},
		{"\"cpus\":1", "\"cpu_limit\":-500,\"cpus\":1"},
		{"\"cpus\":1", "\"cpu_limit\":0.5,\"cpus\":1"},
		{"\"parts\":[]", "\"parts\":{}"},
		{"\"parts\":[]", "\"parts\":[7]"},
		{"\"parts\":[]", "\"parts\":[{\"path\":\"p\",\"size\":-4}]"},
		{"\"parts\":[]", "\"parts\":[],\"mounts\":{}"},
		{"\"parts\":[]", "\"parts\":[],\"mounts\":[{\"source\":\"/s\"}]"},
		{"\"parts\":[]", "\"parts\":[],\"mounts\":[{\"source\":\"s\",\"target\":\"/t\"}]"},
		{"\"parts\":[]", "\"parts\":[],\"mounts\":[{\"source\":\"/s\",\"target\":\"/t\",\"ids\":\"x\"}]"},
		{"\"parts\":[]", "\"parts\":[],\"mounts\":[{\"source\":\"/s\",\"target\":\"/t\",\"own\":true}]"},
		{"\"parts\":[]",
		 "\"parts\":[],\"mounts\":[{\"source\":\"/s\",\"target\":\"/t\",\"volume\":\"v\",\"replaced\":true}]"},
		{"[\"a\"]", "[]"},
		{"[\"a\"]", "[1]"},
		{"[\"a\"]", "\"a\""},
		{"\"stop_signal\":15", "\"stop_signal\":65"},
		{"\"stop_signal\":15", "\"on_idle\":\"sleep\",\"stop_signal\":15"},
		{"\"stop_signal\":15", "\"idle_ns\":-1,\"stop_signal\":15"},
		{"\"stop_signal\":15", "\"name\":\"../x\",\"stop_signal\":15"},
		{"\"stop_signal\":15", "\"rows\":65536,\"stop_signal\":15"},
		{"}", "} trailing"},
		{"{", "["},
	};
	struct vm_record r;

	assert_int_equal(vm_record_parse(good, strlen(good), &r, NULL), 0);
	vm_record_done(&r);
	for (unsigned i = 0; i < ARRAY_SIZE(edits); i++) {
		struct sm_error err = {0};
		char text[1024];
		const char *at = strstr(good, edits[i].find);

		assert_non_null(at);
		snprintf(text, sizeof(text), "%.*s%s%s", (int)(at - good), good, edits[i].put,
			 at + strlen(edits[i].find));
		if (vm_record_parse(text, strlen(text), &r, &err) != -EBADMSG)
			fail_msg("accepted: %s", text);
		assert_int_equal(err.kind, SM_ERROR_CORRUPT);
	}
	for (size_t len = 0; len < sizeof(good) - 1; len++)
		assert_int_equal(vm_record_parse(good, len, &r, NULL), -EBADMSG);
}

static void exits_survive_a_round_trip(void **state)
{
	struct vm_exit in = {.outcome = SM_OUTCOME_INIT, .started_ns = 1, .finished_ns = 2}, out;
	char *json = NULL;

	for (int reason = SM_REASON_EXITED; reason <= SM_REASON_SUSPENDED; reason++) {
		in.outcome.reason = (enum sm_reason)reason;
		in.outcome.status = 255;
		in.outcome.num_stages = 0;
		in.restore_failed = reason % 2;
		in.busy = !in.restore_failed;
		in.unsupported = reason % 3 == 0;
		vm_outcome_stage(&in.outcome, "boot", 7);
		vm_outcome_stage(&in.outcome, "exec", 8);
		snprintf(in.outcome.message, sizeof(in.outcome.message), "line \xff %d", reason);
		assert_int_equal(vm_exit_format(&in, &json, NULL), 0);
		assert_int_equal(vm_exit_parse(json, strlen(json), &out, NULL), 0);
		assert_int_equal(out.outcome.reason, reason);
		assert_string_equal(out.outcome.message, in.outcome.message);
		assert_int_equal(out.restore_failed, in.restore_failed);
		assert_int_equal(out.busy, in.busy);
		assert_int_equal(out.unsupported, in.unsupported);
		assert_int_equal(out.outcome.num_stages, 2);
		assert_string_equal(out.outcome.stages[1].name, "exec");
		free(json);
	}
	assert_int_equal(vm_exit_parse("{\"version\":1,\"reason\":\"bored\"}", 30, &out, NULL), -EBADMSG);
	assert_int_equal(vm_exit_parse("{\"version\":1,\"reason\":\"none\"}", 29, &out, NULL), -EBADMSG);
	for (int i = 0; i < 2 * SM_MAX_STAGES; i++)
		vm_outcome_stage(&in.outcome, "x", 1);
	assert_int_equal(in.outcome.num_stages, SM_MAX_STAGES);
}

static void names_and_ids(void **state)
{
	char longest[65];

	memset(longest, 'a', 64);
	longest[64] = '\0';
	assert_false(vm_name_valid(longest));
	longest[63] = '\0';
	assert_true(vm_name_valid(longest));
	assert_true(vm_name_valid("0.a_b-c"));
	assert_false(vm_name_valid(""));
	assert_false(vm_name_valid(".hidden"));
	assert_false(vm_name_valid("a/b"));
	assert_false(vm_name_valid("a b"));
	assert_true(vm_id_valid("0123456789ab"));
	assert_false(vm_id_valid("0123456789a"));
	assert_false(vm_id_valid("0123456789ag"));
}

static void log_rotates_on_whole_records(void **state)
{
	char dir[] = "/tmp/test-log.XXXXXX", chunk[1000];
	struct stat st;
	struct vm_log log;
	int fd;

	assert_non_null(mkdtemp(dir));
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	memset(chunk, 'x', sizeof(chunk));
	assert_int_equal(vm_log_open(&log, fd, "log", false, 10000), 0);
	for (int i = 0; i < 35; i++)
		vm_log_write(&log, 1, chunk, sizeof(chunk));
	vm_log_close(&log);
	assert_int_equal(fstatat(fd, "log.1", &st, 0), 0);
	assert_int_equal(st.st_size, 10 * 1016);
	assert_int_equal(fstatat(fd, "log", &st, 0), 0);
	assert_int_equal(st.st_size, 5 * 1016);
	assert_int_equal(vm_log_open(&log, fd, "log", false, 10000), 0);
	assert_int_equal(log.size, 5 * 1016);
	vm_log_close(&log);
	remove_tree_at(AT_FDCWD, dir);
	close(fd);
}

static void log_headers_are_checked(void **state)
{
	uint8_t raw[VM_LOG_HEADER] = {0};
	struct vm_log_header h;
	struct cursor c;

	raw[8] = 2;
	raw[12] = 5;
	c = cursor_of(raw, sizeof(raw));
	assert_int_equal(vm_log_header_decode(&c, &h), 0);
	assert_int_equal(h.stream, 2);
	assert_int_equal(h.len, 5);
	raw[15] = 1;
	c = cursor_of(raw, sizeof(raw));
	assert_int_equal(vm_log_header_decode(&c, &h), -EBADMSG);
	raw[15] = 0;
	raw[8] = 3;
	c = cursor_of(raw, sizeof(raw));
	assert_int_equal(vm_log_header_decode(&c, &h), -EBADMSG);
	raw[8] = 1;
	c = cursor_of(raw, sizeof(raw) - 1);
	assert_int_equal(vm_log_header_decode(&c, &h), -EBADMSG);
}

static void suspended_round_trip(void **state)
{
	char one[] = "1 2 3", own[] = "-", *volumes[] = {one, own, NULL};
	struct vm_suspended a = {.window = GIB, .layers = VM_MAX_LAYERS, .booted = true, .volumes = volumes}, b;
	static const char *const bad[] = {"",
					  "{}",
					  "{\"version\":2}",
					  "{\"version\":1,\"layers\":64}",
					  "{\"version\":1,\"window\":-1}",
					  "{\"version\":1,\"booted\":1}"};
	char *json;

	assert_int_equal(vm_suspended_format(&a, &json, NULL), 0);
	assert_int_equal(vm_suspended_parse(json, strlen(json), &b, NULL), 0);
	assert_true(b.window == GIB && b.layers == VM_MAX_LAYERS && b.booted);
	assert_string_equal(b.volumes[0], one);
	assert_string_equal(b.volumes[1], own);
	vm_suspended_done(&b);
	free(json);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_true(vm_suspended_parse(bad[i], strlen(bad[i]), &b, NULL) < 0);
}

static void exec_record_round_trip(void **state)
{
	char *argv[] = {"sh", "-c", "\xff;\n", NULL};
	struct vm_exec_record r = {.argv = argv, .user = "alice", .stdin_open = true, .pid = 7, .started_ns = 5}, again;
	char name[EXEC_NAME_SIZE], *json = NULL;

	assert_int_equal(vm_exec_format(&r, &json, NULL), 0);
	assert_int_equal(vm_exec_parse(json, strlen(json), &again, NULL), 0);
	assert_string_equal(again.argv[2], argv[2]);
	assert_string_equal(again.user, "alice");
	assert_true(again.stdin_open && !again.tty && again.pid == 7 && again.started_ns == 5);
	vm_exec_done(&again);
	for (size_t len = 0; len + 2 < strlen(json); len++)
		assert_true(vm_exec_parse(json, len, &again, NULL) < 0);
	free(json);
	assert_int_equal(vm_exec_parse("{\"version\":1,\"argv\":[]}", 23, &again, NULL), -EBADMSG);
	assert_string_equal(exec_file_name(name, 12, EXEC_LOG_OLD), "exec.12.log.1");
	assert_int_equal(exec_of_file("exec.12"), 12);
	assert_int_equal(exec_of_file("exec.12.log") + exec_of_file("exec.") + exec_of_file("exec.012") +
				 exec_of_file("log"),
			 0);
}

static void messages_round_trip(void **state)
{
	struct keeper_exec_signal sig = {.exec = 3, .signal = 64}, sig2;
	struct keeper_spawned spawned = {.exec = 3, .pid = 4}, spawned2;
	struct keeper_stop stop = {.mode = KEEPER_STOP_GRACE, .signal = 9, .grace_ns = UINT64_MAX}, stop2;
	struct keeper_attach attach = {.stdin_open = true, .rows = 50, .cols = 65535}, attach2;
	struct keeper_pause pause = {.pause = true}, pause2;
	struct keeper_snapshot snapshot = {.dir = "/some/where", .keep = KEEPER_UNDER_MAX}, snapshot2;
	struct keeper_snapshot_reply reply = {.pause_ns = 1,
					      .window = 4,
					      .layers = 3,
					      .booted = true,
					      .pid = 5,
					      .state = 6,
					      .memory = 7,
					      .under = {8, 9}};
	struct keeper_snapshot_reply reply2;
	struct keeper_balloon balloon = {.target = UINT64_MAX - 1}, balloon2;
	struct keeper_news news = {.kind = KEEPER_ENDED, .record = (const uint8_t *)"{}", .record_len = 2}, news2;
	struct buf b = {0};
	struct cursor c;

	assert_int_equal(keeper_stop_encode(&b, &stop), 0);
	c = cursor_of(b.data, b.len);
	assert_int_equal(keeper_stop_decode(&c, &stop2), 0);
	assert_true(stop2.grace_ns == UINT64_MAX && stop2.signal == 9);
	for (size_t len = 1; len < b.len; len++) {
		c = cursor_of(b.data, len);
		/* A list cut between records is a shorter list; within one it is an error. */
		assert_true(keeper_stop_decode(&c, &stop2) == (len % 16 ? -EPROTO : 0));
	}
	b.len = 0;
	assert_int_equal(keeper_attach_encode(&b, &attach), 0);
	c = cursor_of(b.data, b.len);
	assert_int_equal(keeper_attach_decode(&c, &attach2), 0);
	assert_true(attach2.stdin_open && attach2.rows == 50 && attach2.cols == 65535);
	b.len = 0;
	assert_int_equal(keeper_spawned_encode(&b, &spawned), 0);
	c = cursor_of(b.data, b.len);
	assert_int_equal(keeper_spawned_decode(&c, &spawned2), 0);
	assert_true(spawned2.exec == 3 && spawned2.pid == 4);
	b.len = 0;
	assert_int_equal(keeper_exec_signal_encode(&b, &sig), 0);
	c = cursor_of(b.data, b.len);
	assert_int_equal(keeper_exec_signal_decode(&c, &sig2), 0);
	assert_true(sig2.exec == 3 && sig2.signal == 64);
	b.len = 0;
	assert_int_equal(keeper_balloon_encode(&b, &balloon), 0);
	c = cursor_of(b.data, b.len);
	assert_int_equal(keeper_balloon_decode(&c, &balloon2), 0);
	assert_true(balloon2.target == UINT64_MAX - 1);
	b.len = 0;
	assert_int_equal(keeper_pause_encode(&b, &pause), 0);
	c = cursor_of(b.data, b.len);
	assert_int_equal(keeper_pause_decode(&c, &pause2), 0);
	assert_true(pause2.pause);
	b.len = 0;
	tlv_put_u64(&b, 1, 2);
	c = cursor_of(b.data, b.len);
	assert_int_equal(keeper_pause_decode(&c, &pause2), -EPROTO);
	b.len = 0;
	assert_int_equal(keeper_snapshot_encode(&b, &snapshot), 0);
	c = cursor_of(b.data, b.len);
	assert_int_equal(keeper_snapshot_decode(&c, &snapshot2), 0);
	assert_string_equal(snapshot2.dir, "/some/where");
	assert_int_equal(snapshot2.keep, KEEPER_UNDER_MAX);
	tlv_put_u64(&b, 2, KEEPER_UNDER_MAX + 1);
	c = cursor_of(b.data, b.len);
	assert_int_equal(keeper_snapshot_decode(&c, &snapshot2), -EPROTO);
	b.len = 0;
	assert_int_equal(keeper_snapshot_encode(&b, &(struct keeper_snapshot){.keep = 1}), 0); /* a branch */
	c = cursor_of(b.data, b.len);
	assert_int_equal(keeper_snapshot_decode(&c, &snapshot2), -EPROTO);
	b.len = 0;
	assert_int_equal(keeper_snapshot_encode(&b, &snapshot), 0);
	tlv_put_str(&b, 1, "/twice");
	c = cursor_of(b.data, b.len);
	assert_int_equal(keeper_snapshot_decode(&c, &snapshot2), -EPROTO);
	b.len = 0;
	tlv_put_str(&b, 1, "relative");
	c = cursor_of(b.data, b.len);
	assert_int_equal(keeper_snapshot_decode(&c, &snapshot2), -EPROTO);
	b.len = 0;
	assert_int_equal(keeper_snapshot_reply_encode(&b, &reply), 0);
	c = cursor_of(b.data, b.len);
	assert_int_equal(keeper_snapshot_reply_decode(&c, &reply2), 0);
	assert_true(reply2.layers == 3 && reply2.booted && reply2.pause_ns == 1 && reply2.window == 4);
	assert_true(reply2.pid == 5 && reply2.state == 6 && reply2.memory == 7);
	assert_true(reply2.under[0] == 8 && reply2.under[1] == 9 && !reply2.under[2]);
	reply.layers = 65;
	b.len = 0;
	assert_int_equal(keeper_snapshot_reply_encode(&b, &reply), 0);
	c = cursor_of(b.data, b.len);
	assert_int_equal(keeper_snapshot_reply_decode(&c, &reply2), -EPROTO);
	b.len = 0;
	assert_int_equal(keeper_news_encode(&b, &news), 0);
	c = cursor_of(b.data, b.len);
	assert_int_equal(keeper_news_decode(&c, &news2), 0);
	assert_int_equal(news2.record_len, 2);
	b.len = 0;
	tlv_put_u64(&b, 1, KEEPER_ENDED);
	c = cursor_of(b.data, b.len);
	assert_int_equal(keeper_news_decode(&c, &news2), -EPROTO);
	b.len = 0;
	tlv_put_u64(&b, 1, 9);
	c = cursor_of(b.data, b.len);
	assert_int_equal(keeper_stop_decode(&c, &stop2), -EPROTO);
	buf_done(&b);
}

static void ports_round_trip(void **state)
{
	static const char *const same[] = {"* 0 80",
					   "::1 8080 1",
					   "unix /a%20b%25%0A 65535",
					   "127.0.0.1 1 /run/x",
					   "<127.0.0.1 5432 5432",
					   "<unix /h /g"},
				 *const bad[] = {"",	       "*",	      "* 1",	     "* 1 0",
						 "* 65536 1",  "* x 1",	      "unix a 1",    "unix / 1",
						 "unix /%0 1", "unix /%00 1", "unix /%gg 1", "unix /% 1",
						 "* 1 /",      "<* 1 1",      "<::1 0 1"};
	struct port_text p;
	char *text, *again;

	for (size_t i = 0; i < ARRAY_SIZE(same); i++) {
		text = strdup(same[i]);
		assert_int_equal(port_text_parse(text, &p), 0);
		again = port_text_format(&p);
		assert_string_equal(again, same[i]);
		free(again);
		free(text);
	}
	text = strdup("unix /a%20b 1");
	assert_int_equal(port_text_parse(text, &p), 0);
	assert_string_equal(p.host_path, "/a b");
	free(text);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		text = strdup(bad[i]);
		assert_int_equal(port_text_parse(text, &p), -EINVAL);
		free(text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(record_survives_a_round_trip), cmocka_unit_test(bad_records_are_refused),
		cmocka_unit_test(exits_survive_a_round_trip),	cmocka_unit_test(names_and_ids),
		cmocka_unit_test(log_rotates_on_whole_records), cmocka_unit_test(log_headers_are_checked),
		cmocka_unit_test(suspended_round_trip),		cmocka_unit_test(messages_round_trip),
		cmocka_unit_test(exec_record_round_trip),	cmocka_unit_test(ports_round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
