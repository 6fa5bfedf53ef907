/* SPDX-License-Identifier: Apache-2.0 */
/* Configurations of images that are made of others: what stays, what is changed, which instructions are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "oci/amend.h"
#include "oci/instruct.h"

#define A "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

static void instructs(const char *before, const char *line, const char *after)
{
	json_t *config = json_loads(before, 0, NULL), *want = after ? json_loads(after, 0, NULL) : NULL;
	struct sm_error err = {0};
	int r = oci_instruct(config, line, &err);

	if (after && (r < 0 || !json_equal(config, want)))
		fail_msg("%s: %d %s, got %s", line, r, err.message, json_dumps(config, JSON_COMPACT));
	if (!after) {
		if (r != -EINVAL)
			fail_msg("%s: taken", line);
		assert_int_equal(err.kind, SM_ERROR_INVALID);
		assert_non_null(strstr(err.message, "change '"));
	}
	json_decref(config);
	json_decref(want);
}

static void test_instructions(void **state)
{
	static const char *const bad[] = {"",		"CMD",		 "FROM x",	"RUN x",	"CMD [1]",
					  "CMD [\"a\"", "ENV",		 "ENV A",	"ENV A=1 B",	"ENV =1",
					  "ENV A=\"b",	"EXPOSE x",	 "EXPOSE 0",	"EXPOSE 65536", "EXPOSE 9-8",
					  "EXPOSE 1/x", "EXPOSE 1/tcpx", "LABEL a",	"USER a b",	"WORKDIR",
					  "VOLUME [1]", "VOLUME [\"\"]", "STOPSIGNAL ", "CMDX a"};

	instructs("{}", "CMD [\"a\", \"b c\"]", "{\"Cmd\":[\"a\",\"b c\"]}");
	instructs("{}", "  cmd  a | b", "{\"Cmd\":[\"/bin/sh\",\"-c\",\"a | b\"]}");
	instructs("{\"Cmd\":[\"x\"]}", "ENTRYPOINT [\"e\"]", "{\"Entrypoint\":[\"e\"]}");
	instructs("{\"Env\":[\"A=1\",\"AB=2\"]}", "ENV A=3 C='x y' D=\"q\\\"\" E=1\\ 2",
		  "{\"Env\":[\"A=3\",\"AB=2\",\"C=x y\",\"D=q\\\"\",\"E=1 2\"]}");
	instructs("{}", "ENV A all the rest", "{\"Env\":[\"A=all the rest\"]}");
	instructs("{\"ExposedPorts\":{\"1/tcp\":{}}}", "EXPOSE 80 5-6/udp",
		  "{\"ExposedPorts\":{\"1/tcp\":{},\"80/tcp\":{},\"5/udp\":{},\"6/udp\":{}}}");
	instructs("{\"Labels\":{\"a\":\"1\"}}", "LABEL a=2 \"b c\"=d", "{\"Labels\":{\"a\":\"2\",\"b c\":\"d\"}}");
	instructs("{}", "USER 1:2", "{\"User\":\"1:2\"}");
	instructs("{\"WorkingDir\":\"/a\"}", "WORKDIR b", "{\"WorkingDir\":\"/a/b\"}");
	instructs("{\"WorkingDir\":\"/a\"}", "WORKDIR /b", "{\"WorkingDir\":\"/b\"}");
	instructs("{}", "VOLUME [\"/a\"]", "{\"Volumes\":{\"/a\":{}}}");
	instructs("{}", "VOLUME /a /b", "{\"Volumes\":{\"/a\":{},\"/b\":{}}}");
	instructs("{}", "STOPSIGNAL SIGINT", "{\"StopSignal\":\"SIGINT\"}");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		instructs("{}", bad[i], NULL);
}

static void test_amended(void **state)
{
	static const char before[] =
		"{\"os\":\"linux\",\"x\":{\"y\":[1,2.5]},\"container\":\"c\",\"created\":\"2001-01-01T00:00:00Z\","
		"\"config\":{\"Cmd\":[\"old\"],\"Entrypoint\":[\"e\"],\"Labels\":{\"a\":\"1\"},\"User\":\"u\"},"
		"\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"" A "\"]},\"history\":[{\"comment\":\"first\"}]}";
	static const char after[] =
		"{\"os\":\"linux\",\"x\":{\"y\":[1,2.5]},\"created\":\"2026-01-02T03:04:05.000000006Z\",\"author\":"
		"\"me\","
		"\"config\":{\"Cmd\":[\"new\"],\"Env\":[\"A=1\",\"B=2\"],\"Labels\":{\"a\":\"1\",\"k\":\"v=w\"},"
		"\"User\":\"u\",\"WorkingDir\":\"/w\"},"
		"\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"" A "\",\"" B "\"]},"
		"\"history\":[{\"comment\":\"first\"},{\"created\":\"2026-01-02T03:04:05.000000006Z\","
		"\"created_by\":\"by\",\"author\":\"me\",\"comment\":\"second\"}]}";
	char *none[] = {NULL}, *cmd[] = {(char *)"new", NULL}, *env[] = {(char *)"A=1", NULL},
	     *labels[] = {(char *)"k=v=w", NULL}, *bytes[] = {(char *)"A=\xff", NULL}, *text;
	const char *changes[] = {"ENV B=2", NULL}, *bad[] = {"ENV", NULL};
	struct oci_amend a = {.entrypoint = none,
			      .cmd = cmd,
			      .env = env,
			      .cwd = "/w",
			      .labels = labels,
			      .changes = changes,
			      .author = "me",
			      .message = "second",
			      .created_by = "by",
			      .created_ns = 1767323045000000006,
			      .diff_id = B};
	json_t *got, *want = json_loads(after, 0, NULL);
	struct sm_error err = {0};

	assert_int_equal(oci_amend(before, &a, &text, &err), 0);
	got = json_loads(text, 0, NULL);
	if (!json_equal(got, want))
		fail_msg("got %s", text);
	json_decref(got);
	json_decref(want);
	free(text);
	/* The least that there can be. */
	assert_int_equal(oci_amend("{}", &(struct oci_amend){.diff_id = B}, &text, &err), 0);
	assert_non_null(strstr(text, "\"diff_ids\":[\"" B "\"]"));
	free(text);
	assert_int_equal(oci_amend("[]", &a, &text, &err), -EBADMSG);
	a.env = bytes;
	assert_int_equal(oci_amend(before, &a, &text, &err), -EILSEQ);
	a.env = env;
	a.message = "\xff";
	assert_int_equal(oci_amend(before, &a, &text, &err), -EINVAL);
	assert_int_equal(oci_amend_check(changes, &err), 0);
	assert_int_equal(oci_amend_check(NULL, &err), 0);
	assert_int_equal(oci_amend_check(bad, &err), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_instructions), cmocka_unit_test(test_amended)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
