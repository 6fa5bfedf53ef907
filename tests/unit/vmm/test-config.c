/* SPDX-License-Identifier: Apache-2.0 */
/* The monitor's configuration: everything it takes, and that it takes nothing else. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/util.h"
#include "vmm/config.h"

#define BASE                                                                                                           \
	"\"version\":1,\"name\":\"vm\",\"memory\":268435456,\"cpus\":2,\"kernel\":5,\"initramfs\":6,\"control\":3,"    \
	"\"console\":7"

static int parse(const char *json, struct vmm_config *cfg, struct sm_error *err)
{
	memset(err, 0, sizeof(*err));
	return vmm_config_parse(json, strlen(json), cfg, err);
}

/* Refused, with a message that says this. */
static void refused(const char *json, const char *says)
{
	struct vmm_config cfg;
	struct sm_error err;
	int r = parse(json, &cfg, &err);

	if (r >= 0 || !strstr(err.message, says))
		fail_msg("%s\n gave %d \"%s\", not \"%s\"", json, r, err.message, says);
}

/* The base object with one member added. */
static void refused_with(const char *member, const char *says)
{
	char json[4096];

	snprintf(json, sizeof(json), "{" BASE ",%s}", member);
	refused(json, says);
}

static void test_minimal(void **state)
{
	struct vmm_config cfg;
	struct sm_error err;

	assert_int_equal(parse("{" BASE "}", &cfg, &err), 0);
	assert_string_equal(cfg.name, "vm");
	assert_int_equal(cfg.memory, 256 * MIB);
	assert_false(cfg.pluggable);
	assert_int_equal(cfg.cpus, 2);
	assert_int_equal(cfg.kernel, 5);
	assert_int_equal(cfg.kvm, -1);
	assert_int_equal(cfg.vsock_agent, -1);
	assert_string_equal(cfg.cmdline, "");
	assert_true(cfg.seal);
	assert_false(cfg.trace || cfg.ksm);
	assert_false(cfg.has_vsock);
	vmm_config_done(&cfg);
}

static void test_everything(void **state)
{
	static const char json[] =
		"{" BASE ",\"pluggable\":true,\"cmdline\":\"quiet a=\\\"b\\\"\",\"kvm\":8,"
		"\"window\":{\"size\":4194304,\"parts\":[{\"fd\":9,\"size\":5000,\"offset\":0},"
		"{\"fd\":10,\"size\":4096,\"offset\":8192}]},"
		"\"blk\":[{\"layers\":[{\"fd\":11,\"size\":4096}],\"top\":{\"fd\":12,\"size\":10737418240},"
		"\"read_only\":false,\"serial\":\"12345678901234567890\"},"
		"{\"read_only\":true,\"concat\":[{\"fd\":13,\"size\":4096,\"offset\":0}]}],"
		"\"vsock\":{\"cid\":3,\"agent\":14},\"trace\":true,\"ksm\":true,\"seal\":false}";
	struct vmm_config cfg;
	struct sm_error err;

	assert_int_equal(parse(json, &cfg, &err), 0);
	assert_string_equal(cfg.cmdline, "quiet a=\"b\"");
	assert_true(cfg.pluggable);
	assert_int_equal(cfg.window_size, 4 * MIB);
	assert_int_equal(cfg.num_window, 2);
	assert_int_equal(cfg.window[1].offset, 8192);
	assert_int_equal(cfg.num_blk, 2);
	assert_int_equal(cfg.blk[0].num_layers, 1);
	assert_int_equal(cfg.blk[0].top.size, 10 * GIB);
	assert_string_equal(cfg.blk[0].serial, "12345678901234567890");
	assert_int_equal(cfg.blk[1].num_concat, 1);
	assert_int_equal(cfg.blk[1].top.fd, -1);
	assert_true(cfg.blk[1].read_only);
	assert_int_equal(cfg.vsock_cid, 3);
	assert_int_equal(cfg.vsock_agent, 14);
	assert_true(cfg.trace && cfg.ksm);
	assert_false(cfg.seal);
	vmm_config_done(&cfg);
}

#define RESTORED "\"version\":1,\"name\":\"vm\",\"memory\":268435456,\"cpus\":2,\"control\":3,\"console\":7"

static void test_restore(void **state)
{
	static const char json[] = "{" RESTORED ",\"restore\":{\"state\":8,\"memory\":9},"
				   "\"window\":{\"size\":4194304,\"parts\":[]},"
				   "\"blk\":[{\"idle\":true,\"read_only\":true},{\"idle\":true,\"serial\":\"x\"},"
				   "{\"top\":{\"fd\":10,\"size\":4096},\"replaceable\":true}]}";
	struct vmm_config cfg;
	struct sm_error err;

	assert_int_equal(parse(json, &cfg, &err), 0);
	assert_int_equal(cfg.restore_state, 8);
	assert_int_equal(cfg.restore_memory, 9);
	assert_int_equal(cfg.restore_workingset, -1);
	assert_int_equal(cfg.kernel, -1);
	assert_int_equal(cfg.num_window, 0);
	assert_true(cfg.blk[0].idle && cfg.blk[0].read_only);
	assert_true(cfg.blk[1].idle && !cfg.blk[1].read_only && !cfg.blk[1].replaceable);
	assert_true(cfg.blk[2].replaceable);
	vmm_config_done(&cfg);
	refused_with("\"restore\":{\"state\":8,\"memory\":9}", "not together");
	refused("{" RESTORED ",\"restore\":{\"state\":8}}", "missing");
	refused("{" RESTORED ",\"restore\":{\"state\":8,\"memory\":9},\"cmdline\":\"a\"}", "not together");
	refused("{" RESTORED "}", "missing");
	refused_with("\"blk\":[{\"idle\":true,\"top\":{\"fd\":4,\"size\":4096}}]", "idle");
}

static void test_not_an_object(void **state)
{
	refused("", "configuration");
	refused("{", "configuration");
	refused("[]", "not an object");
	refused("{} {}", "configuration");
	refused("{\"version\":1,\"version\":1}", "configuration");
	refused("{\"version\":2}", "out of range");
	refused("{\"version\":1}", "missing");
}

static void test_members(void **state)
{
	refused_with("\"colour\":1", "unknown member \"colour\"");
	refused_with("\"cmdline\":1", "not a string");
	refused_with("\"cmdline\":\"a\\nb\"", "control character");
	refused_with("\"cmdline\":\"a\\u0000b\"", "configuration");
	refused_with("\"trace\":1", "not a boolean");
	refused_with("\"kvm\":-1", "out of range");
	refused_with("\"kvm\":4294967296", "out of range");
	refused_with("\"kvm\":\"8\"", "not an integer");
	refused_with("\"vsock\":{\"cid\":2}", "out of range");
	refused_with("\"vsock\":{}", "missing");
	refused_with("\"vsock\":{\"cid\":3,\"fd\":1}", "unknown member \"fd\"");
	refused_with("\"vsock\":[]", "not an object");
	refused("{\"version\":1,\"name\":\"vm\",\"memory\":67108864,\"cpus\":1,\"kernel\":5,\"control\":3,\"console\":"
		"7}",
		"at least 128 MiB");
	refused("{\"version\":1,\"name\":\"vm\",\"memory\":134217729,\"cpus\":1,\"kernel\":5,\"control\":3,\"console\":"
		"7}",
		"2 MiB");
	refused("{\"version\":1,\"name\":\"vm\",\"memory\":134217728,\"cpus\":17,\"kernel\":5,\"control\":3,"
		"\"console\":7}",
		"out of range");
}

static void test_windows(void **state)
{
	refused_with("\"window\":{\"size\":4096,\"parts\":[]}", "out of range");
	refused_with("\"window\":{\"size\":2097153,\"parts\":[]}", "2 MiB");
	refused_with("\"window\":{\"size\":2097152}", "missing");
	refused_with("\"window\":{\"size\":2097152,\"parts\":[{\"fd\":1,\"size\":1,\"offset\":1}]}", "unaligned");
	refused_with("\"window\":{\"size\":2097152,\"parts\":[{\"fd\":1,\"size\":0,\"offset\":0}]}", "empty");
	refused_with("\"window\":{\"size\":2097152,\"parts\":[{\"fd\":1,\"size\":2097153,\"offset\":0}]}", "outside");
	refused_with(
		"\"window\":{\"size\":2097152,\"parts\":[{\"fd\":1,\"size\":9223372036854775807,\"offset\":4096}]}",
		"outside");
	refused_with("\"window\":{\"size\":2097152,\"parts\":[{\"fd\":1,\"size\":4097,\"offset\":0},"
		     "{\"fd\":1,\"size\":1,\"offset\":4096}]}",
		     "overlap");
	refused_with("\"window\":{\"size\":2097152,\"parts\":[7]}", "not an object");
}

static void test_disks(void **state)
{
	static const char *const top = "\"top\":{\"fd\":1,\"size\":1048576}";
	char json[512];

	refused_with("\"blk\":{}", "not an array");
	refused_with("\"blk\":[{}]", "missing");
	refused_with("\"blk\":[{\"read_only\":true}]", "missing");
	snprintf(json, sizeof(json), "\"blk\":[{\"read_only\":true,%s}]", top);
	refused_with(json, "read-only disk has none");
	snprintf(json, sizeof(json), "\"blk\":[{%s,\"concat\":[{\"fd\":1,\"size\":1,\"offset\":0}]}]", top);
	refused_with(json, "read-only disk without layers");
	snprintf(json, sizeof(json), "\"blk\":[{%s,\"serial\":\"123456789012345678901\"}]", top);
	refused_with(json, "too long");
	snprintf(json, sizeof(json), "\"blk\":[{%s},{%s},{%s},{%s},{%s},{%s},{%s},{%s},{%s}]", top, top, top, top, top,
		 top, top, top, top);
	refused_with(json, "too many");
}

static void test_shares(void **state)
{
	struct vmm_config cfg;
	struct sm_error err;

	assert_int_equal(
		parse("{" BASE ",\"fs\":[{\"fd\":14,\"read_only\":true,\"ids\":\"same\",\"symlinks\":\"deny\","
		      "\"cache\":\"none\"},{\"fd\":15},{\"fd\":16,\"ids\":\"ranges\",\"id_ranges\":\"u:0:1:1\","
		      "\"symlinks\":\"follow\",\"xattrs\":\"mapped\",\"direct\":true,\"dax\":true}],\"dax\":536870912}",
		      &cfg, &err),
		0);
	assert_int_equal(cfg.num_fs, 3);
	assert_int_equal(cfg.fs[0].fd, 14);
	assert_true(cfg.fs[0].read_only);
	assert_int_equal(cfg.fs[0].ids, SM_FS_IDS_SAME);
	assert_int_equal(cfg.fs[0].symlinks, SM_FS_SYMLINKS_DENY);
	assert_int_equal(cfg.fs[0].cache, SM_FS_CACHE_NONE);
	assert_false(cfg.fs[1].read_only);
	assert_int_equal(cfg.fs[1].ids, SM_FS_IDS_CALLER);
	assert_int_equal(cfg.fs[1].cache, SM_FS_CACHE_AUTO);
	assert_int_equal(cfg.fs[2].ids, SM_FS_IDS_RANGES);
	assert_string_equal(cfg.fs[2].id_ranges, "u:0:1:1");
	assert_true(cfg.fs[2].direct && !cfg.fs[0].direct);
	assert_true(cfg.fs[2].dax && !cfg.fs[0].dax);
	assert_true(cfg.dax_size == 512ULL << 20);
	assert_int_equal(cfg.fs[0].xattrs, SM_FS_XATTRS_AUTO);
	assert_int_equal(cfg.fs[2].xattrs, SM_FS_XATTRS_MAPPED);
	assert_int_equal(cfg.fs[2].symlinks, SM_FS_SYMLINKS_FOLLOW);
	vmm_config_done(&cfg);
	refused_with("\"fs\":[{}]", "fd: missing");
	refused_with("\"fs\":{}", "not an array");
	refused_with("\"dax\":1048576", "not a multiple of 2 MiB");
	refused_with("\"dax\":-2097152", "out of range");
	refused_with("\"fs\":[{\"fd\":4,\"ids\":\"mine\"}]", "ids");
	refused_with("\"fs\":[{\"fd\":4,\"cache\":1}]", "not a string");
	refused_with("\"fs\":[{\"fd\":4,\"path\":\"/\"}]", "unknown member \"path\"");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_minimal),	      cmocka_unit_test(test_everything), cmocka_unit_test(test_restore),
		cmocka_unit_test(test_not_an_object), cmocka_unit_test(test_members),	 cmocka_unit_test(test_windows),
		cmocka_unit_test(test_disks),	      cmocka_unit_test(test_shares),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
