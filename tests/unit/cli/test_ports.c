/* SPDX-License-Identifier: Apache-2.0 */
/* -p as docker spells it, ranges included; secrets from where they may come. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/ports.h"
#include "cli/secrets.h"

static int parse(const char *text, struct cli_ports *p)
{
	struct cli cli = {0};
	const char *v[] = {text, NULL};
	struct opt_list list = {v, 1}, none = {0};

	return cli_ports_parse(&cli, &list, &none, p);
}

static int parse_reverse(const char *text, struct cli_ports *p)
{
	struct cli cli = {0};
	const char *v[] = {text, NULL};
	struct opt_list list = {v, 1}, none = {0};

	return cli_ports_parse(&cli, &none, &list, p);
}

static int secret(const char *text, const char *env, struct cli_secrets *s)
{
	struct cli cli = {0};
	const char *v[] = {text, NULL}, *e[] = {env, NULL};
	struct opt_list list = {v, 1}, variables = {e, env != NULL};

	return cli_secrets_parse(&cli, &list, &variables, s);
}

static void test_ports(void **state)
{
	struct cli_ports p;

	assert_int_equal(parse("127.0.0.1:8000-8010:9000-9010", &p), 0);
	assert_int_equal(p.n, 11);
	assert_int_equal(p.v[0].host_port, 8000);
	assert_int_equal(p.v[10].host_port, 8010);
	assert_int_equal(p.v[10].guest_port, 9010);
	assert_string_equal(p.v[10].address, "127.0.0.1");
	cli_ports_free(&p);
	assert_int_equal(parse("80-81", &p), 0);
	assert_int_equal(p.n, 2);
	assert_int_equal(p.v[1].host_port, 0);
	assert_int_equal(p.v[1].guest_port, 81);
	cli_ports_free(&p);
	assert_int_equal(parse("[::1]:1:2/tcp", &p), 0);
	assert_int_equal(p.n, 1);
	assert_string_equal(p.v[0].address, "::1");
	cli_ports_free(&p);
}

static void test_sockets(void **state)
{
	static const char *const bad[] = {"/a", "/a:", "1:./b", "./a:0", "x:/b", "/a:1-2"},
				 *const bad_reverse[] = {"",	  "1",	      "1:",	 ":1", "1:0",
							 "./a:1", "1:host:1", "1:[::1]", "0:1"};
	struct cli_ports p;

	assert_int_equal(parse("./web.sock:80", &p), 0);
	assert_string_equal(p.v[0].host_path, "./web.sock");
	assert_int_equal(p.v[0].guest_port, 80);
	cli_ports_free(&p);
	assert_int_equal(parse("127.0.0.1:8080:/run/web.sock", &p), 0);
	assert_string_equal(p.v[0].address, "127.0.0.1");
	assert_int_equal(p.v[0].host_port, 8080);
	assert_string_equal(p.v[0].guest_path, "/run/web.sock");
	cli_ports_free(&p);
	assert_int_equal(parse("/a:b.sock:/run/c", &p), 0);
	assert_string_equal(p.v[0].host_path, "/a:b.sock");
	cli_ports_free(&p);
	assert_int_equal(parse_reverse("5432:[::1]:54", &p), 0);
	assert_true(p.v[0].reverse);
	assert_int_equal(p.v[0].guest_port, 5432);
	assert_string_equal(p.v[0].address, "::1");
	assert_int_equal(p.v[0].host_port, 54);
	cli_ports_free(&p);
	assert_int_equal(parse_reverse("/run/db.sock:localhost:54", &p), 0);
	assert_string_equal(p.v[0].guest_path, "/run/db.sock");
	assert_string_equal(p.v[0].address, "127.0.0.1");
	cli_ports_free(&p);
	assert_int_equal(parse_reverse("54:./db.sock", &p), 0);
	assert_string_equal(p.v[0].host_path, "./db.sock");
	cli_ports_free(&p);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_not_equal(parse(bad[i], &p), 0);
		cli_ports_free(&p);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad_reverse); i++) {
		assert_int_not_equal(parse_reverse(bad_reverse[i], &p), 0);
		cli_ports_free(&p);
	}
}

static void test_bad(void **state)
{
	static const char *const ports[] = {"",	       "x",	  "8000-8010:80", "1-3:1-2", "3-1:3-1",
					    "0-2:1-3", "1:65536", "1-65536",	  "1-:1-2",  "1:2/udp"};
	static const char *const secrets[] = {"a", "a=", "a=value", "a=env:SM_NO_SUCH", "a=file:/no/such"};
	int kept = dup(2), null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	const char *accepted = NULL;
	struct cli_secrets s;
	struct cli_ports p;

	unsetenv("a");
	dup2(null, 2); /* the errors are told */
	for (size_t i = 0; i < ARRAY_SIZE(ports); i++) {
		if (parse(ports[i], &p) == 0)
			accepted = ports[i];
		cli_ports_free(&p);
	}
	for (size_t i = 0; i < ARRAY_SIZE(secrets); i++) {
		if (secret(secrets[i], NULL, &s) == 0)
			accepted = secrets[i];
		cli_secrets_free(&s);
	}
	if (secret("w=env:PATH", "x", &s) == 0)
		accepted = "a variable for a secret that there is not";
	cli_secrets_free(&s);
	dup2(kept, 2);
	close(kept);
	close(null);
	assert_null(accepted);
}

static void test_secrets(void **state)
{
	char path[] = "/tmp/test-secret-XXXXXX", text[64] = "key=file:";
	struct cli_secrets s;
	int fd = mkstemp(path);

	setenv("word", "hush", 1);
	assert_int_equal(secret("word", "word=W", &s), 0);
	assert_string_equal(s.v[0].data, "hush");
	assert_int_equal(s.v[0].length, 4);
	assert_string_equal(s.v[0].env, "W");
	cli_secrets_free(&s);
	assert_int_equal(secret("x=env:word", "x", &s), 0);
	assert_string_equal(s.v[0].name, "x");
	assert_string_equal(s.v[0].env, "x");
	cli_secrets_free(&s);
	assert_int_equal(write(fd, "a\0b", 3), 3);
	strcat(text, path);
	assert_int_equal(secret(text, NULL, &s), 0);
	assert_int_equal(s.v[0].length, 3);
	assert_null(s.v[0].env);
	cli_secrets_free(&s);
	close(fd);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_ports), cmocka_unit_test(test_sockets),
					   cmocka_unit_test(test_bad), cmocka_unit_test(test_secrets)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
