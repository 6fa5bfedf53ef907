/* SPDX-License-Identifier: Apache-2.0 */
/* What a registry, and files of credentials, say: the parsers alone. What is done with it is
 * tests/unit/image/registry-test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "oci/authdoc.h"
#include "oci/http.h"

static void check_challenge(const char *value, bool bearer, bool basic, const char *realm, const char *service)
{
	struct challenge c = {0};

	if (challenge_parse(value, strlen(value), &c) < 0)
		fail_msg("refused: %s", value);
	assert_int_equal(c.bearer, bearer);
	assert_int_equal(c.basic, basic);
	assert_string_equal(c.realm, realm);
	assert_string_equal(c.service, service);
}

static void test_challenges(void **state)
{
	check_challenge("Bearer realm=\"https://t.example/token\",service=\"r.example\",scope=\"repository:a:pull\"",
			true, false, "https://t.example/token", "r.example");
	check_challenge("bearer REALM=\"https://t.example/\" , service=r.example", true, false, "https://t.example/",
			"r.example");
	check_challenge("Basic realm=\"x, y=\\\"z\\\"\"", false, true, "", "");
	check_challenge("Basic", false, true, "", "");
	check_challenge("Basic realm=\"a\", Bearer realm=\"b\",service=\"c\"", true, true, "b", "c");
	check_challenge("Bearer realm=\"b\", Basic realm=\"a\"", true, true, "b", "");
	check_challenge("Digest realm=\"a\", nonce=\"b\", Basic realm=\"c\"", false, true, "", "");
	check_challenge("Bearer realm=\"first\", Bearer realm=\"second\"", true, false, "first", "");
	check_challenge("Bearer realm=\"a\\\\b\\\"c\"", true, false, "a\\b\"c", "");
	check_challenge("", false, false, "", "");
	check_challenge(" , ,Basic , ", false, true, "", "");
}

static void test_challenges_refused(void **state)
{
	static const char *const bad[] = {
		"Bearer realm=",
		"Bearer realm=\"x",
		"Bearer realm=\"x\\",
		"Bearer realm=\"x\"y",
		"Bearer =x",
		"Bearer realm=\"\x01\"",
		"Bearer realm=\"\xff\"",
		"\"Bearer\"",
		"Bearer;realm=x",
		"Bearer realm = ",
		"=",
		"Bearer realm=\"a\nb\"",
		"Negotiate YWJj==",
	};
	char text[CHALLENGE_MAX_HEADER + 64];
	struct challenge c = {.basic = true}, before = c;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (challenge_parse(bad[i], strlen(bad[i]), &c) != -EBADMSG)
			fail_msg("accepted: %s", bad[i]);
	memset(text, 'a', sizeof(text));
	assert_int_equal(challenge_parse(text, sizeof(text), &c), -EBADMSG);
	snprintf(text, sizeof(text), "Bearer realm=\"%0*d\"", CHALLENGE_MAX_VALUE, 0);
	assert_int_equal(challenge_parse(text, strlen(text), &c), -EBADMSG);
	snprintf(text, sizeof(text), "Bearer realm=\"%0*d\"", CHALLENGE_MAX_VALUE - 1, 0);
	assert_memory_equal(&c, &before, sizeof(c));
	assert_int_equal(challenge_parse(text, strlen(text), &c), 0);
	/* more parameters than anybody has */
	text[0] = 0;
	strcat(text, "Bearer a=b");
	for (int i = 0; i < 40; i++)
		strcat(text, ",a=b");
	assert_int_equal(challenge_parse(text, strlen(text), &c), -EBADMSG);
}

static void check_token(const char *text, const char *want)
{
	struct sm_error err = {0};
	char *token = NULL;
	int r = token_parse(text, strlen(text), &token, &err);

	if (want) {
		assert_int_equal(r, 0);
		assert_string_equal(token, want);
	} else {
		assert_true(r < 0);
		assert_non_null(strstr(err.message, "token"));
	}
	free(token);
}

static void test_tokens(void **state)
{
	check_token("{\"token\":\"abc.def-_\"}", "abc.def-_");
	check_token("{\"access_token\":\"x\",\"expires_in\":300}", "x");
	check_token("{\"token\":\"a\",\"access_token\":\"b\"}", "a");
	check_token("{\"token\":null,\"access_token\":\"b\"}", "b");
	check_token("{\"token\":\"\"}", NULL);
	check_token("{\"token\":\"a b\"}", NULL);
	check_token("{\"token\":\"a\\nb\"}", NULL);
	check_token("{\"token\":[]}", NULL);
	check_token("[]", NULL);
	check_token("", NULL);
}

static void check_place(const char *ref, const char *name, const char *host, const char *repository)
{
	struct oci_place p;
	struct oci_ref r;

	assert_int_equal(oci_ref_parse(ref, &r, NULL), 0);
	assert_int_equal(oci_ref_place(&r, &p, NULL), 0);
	if (name)
		assert_string_equal(p.name, name);
	if (host)
		assert_string_equal(p.host, host);
	assert_string_equal(p.repository, repository);
	oci_place_done(&p);
	oci_ref_done(&r);
}

static void test_places(void **state)
{
	struct oci_place p, q;
	struct oci_ref r;

	check_place("r.example/a/b:1", "r.example", "r.example", "a/b");
	check_place("localhost:5000/library/x", "localhost:5000", "localhost:5000", "library/x");
	check_place("localhost/x", "localhost", "localhost", "x");
	check_place("[::1]:5/x", "[::1]:5", "[::1]:5", "x");
	check_place("debian:12", NULL, NULL, "library/debian");
	check_place("someone/x", NULL, NULL, "someone/x");
	/* the default registry is one, however it is called */
	assert_int_equal(oci_ref_parse("debian", &r, NULL), 0);
	assert_int_equal(oci_ref_place(&r, &p, NULL), 0);
	assert_int_equal(oci_host_place(NULL, &q, NULL), 0);
	assert_string_equal(p.host, q.host);
	assert_string_equal(p.key, q.key);
	oci_place_done(&q);
	assert_int_equal(oci_host_place(p.key, &q, NULL), 0);
	assert_string_equal(p.host, q.host);
	oci_place_done(&q);
	oci_place_done(&p);
	oci_ref_done(&r);
	assert_int_equal(oci_host_place("https://r.example:5/v2/", &p, NULL), 0);
	assert_string_equal(p.host, "r.example:5");
	assert_string_equal(p.key, "r.example:5");
	assert_null(p.repository);
	oci_place_done(&p);
	assert_int_equal(oci_host_place("a b", &p, NULL), -EINVAL);
	assert_int_equal(oci_host_place("http://r.example", &p, NULL), -EINVAL);
	assert_int_equal(oci_host_place("r.example:99999999", &p, NULL), -EINVAL);
	assert_int_equal(oci_host_place("https://", &p, NULL), -EINVAL);
}

/* " stands for itself in C, so ' does in these documents. */
static char *doc(const char *text)
{
	char *copy = strdup(text);

	for (char *p = copy; *p; p++)
		*p = *p == '\'' ? '"' : *p;
	return copy;
}

static const struct registry_key key = {.key = "r.example:5", .host = "r.example:5", .name = "r.example:5"};

/* want: "user:secret", "identity", "" or NULL: an error */
static void check_find(const char *text, const char *want, const char *helper)
{
	struct credentials c = {0};
	char *json = doc(text), *found = NULL, have[200] = "";
	int r = authfile_find(json, strlen(json), "file", &key, &c, &found, NULL);

	if (!want) {
		assert_int_equal(r, -EBADMSG);
	} else {
		assert_int_equal(r, *want ? 1 : 0);
		if (r == 1)
			snprintf(have, sizeof(have), "%s%s%s", c.identity ? c.identity : c.user, c.identity ? "" : ":",
				 c.identity ? "" : c.secret);
		assert_string_equal(have, want);
	}
	if (helper)
		assert_string_equal(found, helper);
	else
		assert_null(found);
	credentials_done(&c);
	free(found);
	free(json);
}

static void test_files(void **state)
{
	check_find("{}", "", NULL);
	check_find("{'auths':{}}", "", NULL);
	check_find("{'auths':{'other.example':{'auth':'bWU6c2VjcmV0'}}}", "", NULL);
	check_find("{'auths':{'r.example:5':{'auth':'bWU6c2VjcmV0'}}}", "me:secret", NULL);
	check_find("{'auths':{'https://R.example:5/v1/':{'auth':'bWU6c2VjcmV0'}},'HttpHeaders':{}}", "me:secret", NULL);
	check_find("{'auths':{'r.example:5':{'auth':'bWU6YTpi'}}}", "me:a:b", NULL);
	check_find("{'auths':{'r.example:5':{'username':'me','password':''}}}", "me:", NULL);
	check_find("{'auths':{'r.example:5':{'auth':'bWU6','identitytoken':'tok'}}}", "tok", NULL);
	check_find("{'auths':{'r.example:5':{'identitytoken':'tok'}}}", "tok", NULL);
	check_find("{'auths':{'r.example:5':{}},'credsStore':'pass'}", "", "pass");
	check_find("{'auths':{'r.example:5':{'auth':'bWU6c2VjcmV0'}},'credHelpers':{'r.example:5':'x'}}", "me:secret",
		   NULL);
	check_find("{'credHelpers':{'other':'x'},'credsStore':'y'}", "", "y");
	check_find("{'auths':{'r.example:5':{'auth':'%'}}}", NULL, NULL);
	check_find("{'auths':{'r.example:5':{'auth':'bWU='}}}", NULL, NULL);
	check_find("{'auths':{'r.example:5':7}}", NULL, NULL);
	check_find("{'auths':[]}", NULL, NULL);
	check_find("{'credHelpers':{'r.example:5':7}}", NULL, NULL);
	check_find("{'credsStore':'a/b'}", NULL, NULL);
	check_find("{'credsStore':'a b'}", NULL, NULL);
	check_find("{", NULL, NULL);
}

/* The default registry's key is an address with a path; others write its host, or its name. */
static void test_the_default_key(void **state)
{
	static const struct registry_key standard = {
		.key = "https://index.example/v1/", .host = "index.example/v1/", .name = "hub.example"};
	static const char *const keys[] = {"https://index.example/v1/", "index.example", "https://hub.example",
					   "HUB.example/x"};
	struct credentials c = {0};
	char text[200];

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		snprintf(text, sizeof(text), "{\"auths\":{\"%s\":{\"auth\":\"bWU6c2VjcmV0\"}}}", keys[i]);
		assert_int_equal(authfile_find(text, strlen(text), "file", &standard, &c, NULL, NULL), 1);
		credentials_done(&c);
	}
	snprintf(text, sizeof(text), "{\"auths\":{\"index.example.org\":{\"auth\":\"bWU6c2VjcmV0\"}}}");
	assert_int_equal(authfile_find(text, strlen(text), "file", &standard, &c, NULL, NULL), 0);
}

static void test_changing_files(void **state)
{
	struct credentials c = {.user = (char *)"me", .secret = (char *)"s:\"x"}, found = {0};
	char *json = doc("{'auths':{'https://r.example:5/':{'auth':'eDp5'},'other':{'auth':'eDp5'}},'more':1}"), *new,
	     *gone;

	assert_int_equal(authfile_change(json, strlen(json), "file", &key, &c, &new, NULL), 0);
	assert_int_equal(authfile_find(new, strlen(new), "file", &key, &found, NULL, NULL), 1);
	assert_string_equal(found.user, c.user);
	assert_string_equal(found.secret, c.secret);
	assert_non_null(strstr(new, "other"));
	assert_non_null(strstr(new, "more"));
	assert_null(strstr(new, "https:"));
	credentials_done(&found);
	assert_int_equal(authfile_change(new, strlen(new), "file", &key, NULL, &gone, NULL), 0);
	assert_int_equal(authfile_find(gone, strlen(gone), "file", &key, &found, NULL, NULL), 0);
	free(new);
	assert_int_equal(authfile_change(gone, strlen(gone), "file", &key, NULL, &new, NULL), 0);
	assert_null(new);
	free(gone);
	assert_int_equal(authfile_change(NULL, 0, "file", &key, &c, &new, NULL), 0);
	free(new);
	free(json);
}

static void check_origin(const char *url, const char *host, const char *port, bool https)
{
	struct sm_error err = {0};
	struct origin o;

	if (!host) {
		assert_int_equal(origin_parse(url, &o, &err), -EBADMSG);
		assert_null(strpbrk(err.message, "\r\n"));
		assert_null(strstr(err.message, "secret"));
		return;
	}
	if (origin_parse(url, &o, &err) < 0)
		fail_msg("%s: %s", url, err.message);
	assert_string_equal(o.host, host);
	assert_string_equal(o.port, port);
	assert_int_equal(o.https, https);
}

static bool may(const char *from, const char *to)
{
	struct origin a, b;

	assert_int_equal(origin_parse(from, &a, NULL), 0);
	assert_int_equal(origin_parse(to, &b, NULL), 0);
	return http_check_redirect(&a, &b, NULL) == 0;
}

static void test_origins(void **state)
{
	char *joined;

	check_origin("https://r.example/x?y", "r.example", "443", true);
	check_origin("http://127.0.0.1:5000/", "127.0.0.1", "5000", false);
	check_origin("https://[::1]:5/", "[::1]", "5", true);
	check_origin("ftp://r.example/", NULL, NULL, false);
	check_origin("file:///etc/passwd", NULL, NULL, false);
	check_origin("https://user:secret@r.example/", NULL, NULL, false);
	check_origin("/v2/?secret", NULL, NULL, false);
	check_origin("https://r.exa\nmple/", NULL, NULL, false);
	check_origin("", NULL, NULL, false);
	assert_true(may("https://r.example/", "https://cdn.example/"));
	assert_false(may("https://r.example/", "http://r.example/"));
	assert_false(may("https://r.example/", "https://localhost/"));
	assert_false(may("https://r.example/", "https://127.0.0.1/"));
	assert_false(may("https://r.example/", "http://127.0.0.1/"));
	assert_true(may("http://localhost:5000/", "http://127.0.0.1:7/"));
	assert_true(may("http://localhost:5000/", "https://cdn.example/"));
	assert_false(may("http://localhost:5000/", "http://cdn.example/"));
	assert_true(host_is_loopback("127.1.2.3"));
	assert_false(host_is_loopback("127.0.0.1.example"));
	assert_false(host_is_loopback("localhost.example"));
	assert_int_equal(url_join("https://r.example/v2/x?a", "../y", &joined, NULL), 0);
	assert_string_equal(joined, "https://r.example/y");
	free(joined);
	assert_int_equal(url_join("https://r.example/v2/x", "//cdn.example/z", &joined, NULL), 0);
	assert_string_equal(joined, "https://cdn.example/z");
	free(joined);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_challenges), cmocka_unit_test(test_challenges_refused),
		cmocka_unit_test(test_tokens),	   cmocka_unit_test(test_places),
		cmocka_unit_test(test_files),	   cmocka_unit_test(test_changing_files),
		cmocka_unit_test(test_origins),	   cmocka_unit_test(test_the_default_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
