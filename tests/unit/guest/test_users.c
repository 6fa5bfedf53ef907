/* SPDX-License-Identifier: Apache-2.0 */
/* Users and groups as docker resolves them; the environment's rules. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "guest/environment.h"
#include "guest/users.h"

static const char passwd_text[] = "# a comment\n"
				  "root:x:0:0:root:/root:/bin/sh\n"
				  "broken line\n"
				  "al:x:1000:1001:Al,,,:/home/al:/bin/sh\n"
				  "huge:x:99999999999:1:::\n"
				  "1000:x:77:78::/number:/bin/sh\n"
				  "bare:x:5:6\n"
				  ":x:9:9::/:\n"
				  "nohome:x:12:12:::";
static const char group_text[] =
	"root:x:0:\nal:x:1001:\nstaff:x:50:bob,al\ndisk:x:6:al\nnone:x:7:alan,bal\nbad:x:zz:al\nlast:x:8:al";

struct files {
	char dir[32], passwd[64], group[64];
};

static void put(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static int setup(void **state)
{
	struct files *f = calloc(1, sizeof(*f));

	strcpy(f->dir, "/tmp/test-users.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->passwd, sizeof(f->passwd), "%s/passwd", f->dir);
	snprintf(f->group, sizeof(f->group), "%s/group", f->dir);
	put(f->passwd, passwd_text);
	put(f->group, group_text);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct files *f = *state;

	unlink(f->passwd);
	unlink(f->group);
	rmdir(f->dir);
	free(f);
	return 0;
}

/* groups: as text, "50 6 8". */
static void assert_user(const struct files *f, const char *spec, unsigned uid, unsigned gid, const char *groups,
			const char *home)
{
	char text[128] = "";
	struct sm_error err = {0};
	struct user u;

	if (user_resolve(spec, f->passwd, f->group, &u, &err) < 0)
		fail_msg("%s: %s", spec, err.message);
	for (size_t i = 0; i < u.num_groups; i++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%u", i ? " " : "", u.groups[i]);
	assert_int_equal(u.uid, uid);
	assert_int_equal(u.gid, gid);
	assert_string_equal(text, groups);
	assert_string_equal(u.home, home);
	user_done(&u);
}

static void test_resolve(void **state)
{
	struct files *f = *state;

	assert_user(f, NULL, 0, 0, "", "/root");
	assert_user(f, "", 0, 0, "", "/root");
	assert_user(f, "root", 0, 0, "", "/root");
	assert_user(f, "al", 1000, 1001, "50 6 8", "/home/al");
	assert_user(f, "al:", 1000, 1001, "50 6 8", "/home/al");
	assert_user(f, "al:staff", 1000, 50, "", "/home/al");
	assert_user(f, "al:4242", 1000, 4242, "", "/home/al");
	assert_user(f, "1000", 77, 78, "", "/number"); /* a name that is a number is a name */
	assert_user(f, "77", 77, 78, "", "/number");
	assert_user(f, "4000", 4000, 0, "", "/");
	assert_user(f, "4000:disk", 4000, 6, "", "/");
	assert_user(f, "bare", 5, 6, "", "/");
	assert_user(f, "nohome", 12, 12, "", "/");
	assert_user(f, ":staff", 0, 50, "", "/root");
}

static void test_refused(void **state)
{
	static const char *const bad[] = {"nobody", "al:nogroup", "-1",	 "4294967296", "2147483648",
					  "huge",   "al:-5",	  "1e3", " al",	       "0x0"};
	struct files *f = *state;
	struct sm_error err = {0};
	struct user u;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(user_resolve(bad[i], f->passwd, f->group, &u, &err), -ENOENT);
	assert_non_null(strstr(err.message, "0x0"));
}

static void test_odd_files(void **state)
{
	struct files *f = *state;
	struct user u;

	/* None at all, a fifo (which must not block), bytes that are no text. */
	assert_int_equal(user_resolve("7:8", "/nonexistent", "/nonexistent", &u, NULL), 0);
	assert_int_equal(u.uid, 7);
	user_done(&u);
	unlink(f->passwd);
	assert_int_equal(mkfifo(f->passwd, 0600), 0);
	assert_int_equal(user_resolve("7", f->passwd, f->group, &u, NULL), 0);
	user_done(&u);
	unlink(f->passwd);
	put(f->passwd, ":::::::\n\n:\nx\nal:\nal:x:\nal:x:1\n\xff\xfe:x:1:1");
	assert_int_equal(user_resolve("al", f->passwd, f->group, &u, NULL), -ENOENT);
}

static void test_environment(void **state)
{
	char a[] = "A=1", a2[] = "A=2", ab[] = "AB=3", home[] = "HOME=", no_value[] = "NOVALUE", nameless[] = "=x",
	     path[] = "PATH=/p";
	char *base[] = {a, home, no_value, NULL}, *more[] = {ab, a2, nameless, NULL}, *with_path[] = {path, NULL};
	struct environment e;

	assert_int_equal(environment_make(&e, base, more), 0);
	assert_int_equal(environment_defaults(&e, "/h", true), 0);
	assert_string_equal(e.vars[0], "A=2");
	assert_string_equal(e.vars[1], "HOME=/h"); /* set but empty: as unset */
	assert_string_equal(e.vars[2], "AB=3");
	assert_string_equal(e.vars[3], "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
	assert_string_equal(e.vars[4], "TERM=xterm");
	assert_null(e.vars[5]);
	environment_done(&e);
	assert_int_equal(environment_make(&e, with_path, NULL), 0);
	assert_int_equal(environment_defaults(&e, "/", false), 0);
	assert_string_equal(e.vars[0], "PATH=/p");
	assert_string_equal(e.vars[1], "HOME=/");
	assert_null(e.vars[2]);
	environment_done(&e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_resolve, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_odd_files, setup, teardown),
		cmocka_unit_test(test_environment),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
