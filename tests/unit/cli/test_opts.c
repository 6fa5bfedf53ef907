/* SPDX-License-Identifier: Apache-2.0 */
/* The option parser, on a table with every type. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <cmocka.h>

#include "base/util.h"
#include "cli/opts.h"

struct values {
	bool interactive, tty, rm;
	const char *name, *format;
	struct opt_list env;
	uint64_t memory, timeout, cpus;
};

#define V(m) offsetof(struct values, m)
static const struct opt table[] = {
	{'i', "interactive", OPT_FLAG, V(interactive), NULL, "i"},
	{'t', "tty", OPT_FLAG, V(tty), NULL, "t"},
	{0, "rm", OPT_FLAG, V(rm), NULL, "rm"},
	{0, "name", OPT_TEXT, V(name), "NAME", "n"},
	{0, "format", OPT_TEXT, V(format), "table|json", "f", .choices = "table|json"},
	{'e', "env", OPT_LIST, V(env), "K=V", "e"},
	{'m', "memory", OPT_SIZE, V(memory), "SIZE", "m", 128 * MIB},
	{'c', "cpus", OPT_DECIMAL, V(cpus), "N", "c", 10, 16000},
	{0, "timeout", OPT_DURATION, V(timeout), "TIME", "t"},
	{0, "init", OPT_IGNORED, 0, NULL, NULL},
	{0, "gpus", OPT_REFUSED, 0, NULL, NULL, .choices = "there are none"},
};

/* One parse, with what it left. */
struct parsed {
	struct values v;
	struct opts_error error;
	char *operands[32];
	int count, r;
};

static void parse(struct parsed *p, bool command, const char *line)
{
	static char copy[8][256];
	char *argv[32], *rest = NULL;
	static unsigned turn;
	int argc = 0;

	memset(p, 0, sizeof(*p));
	p->count = -1;
	strcpy(copy[++turn % 8], line);
	for (char *w = strtok_r(copy[turn % 8], " ", &rest); w; w = strtok_r(NULL, " ", &rest))
		argv[argc++] = streq(w, "''") ? w + 2 : w;
	p->r = opts_parse(table, ARRAY_SIZE(table), command, argc, argv, &p->v, p->operands, &p->count, &p->error);
}

static void done(struct parsed *p)
{
	opts_done(table, ARRAY_SIZE(table), &p->v);
	assert_null(p->v.env.v);
}

static void docker_spellings(void **state)
{
	static const char *const lines[] = {
		"-it -m1G --name=x -eA=1 -e B=2 img cmd -x", "-i -t -m=1g --name x -e=A=1 -eB=2 img cmd -x",
		"--interactive --tty=true --memory 1024M --name x --env A=1 --env=B=2 img cmd -x",
		"-ti --memory=1GiB --name x -e A=1 -e B=2 --init --init=true -- img cmd -x"};

	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		struct parsed p;

		parse(&p, true, lines[i]);
		assert_int_equal(p.r, 0);
		assert_true(p.v.interactive && p.v.tty && !p.v.rm);
		assert_int_equal(p.v.memory, GIB);
		assert_string_equal(p.v.name, "x");
		assert_int_equal(p.v.env.n, 2);
		assert_string_equal(p.v.env.v[0], "A=1");
		assert_string_equal(p.v.env.v[1], "B=2");
		assert_null(p.v.env.v[2]);
		assert_int_equal(p.count, 3);
		assert_string_equal(p.operands[2], "-x");
		assert_null(p.operands[3]);
		done(&p);
	}
}

static void options_after_operands(void **state)
{
	struct parsed p;

	parse(&p, false, "vm --rm other -i -- --name");
	assert_int_equal(p.r, 0);
	assert_true(p.v.rm && p.v.interactive);
	assert_int_equal(p.count, 3);
	assert_string_equal(p.operands[2], "--name");
	assert_null(p.v.name);
	done(&p);

	parse(&p, true, "vm --rm");
	assert_int_equal(p.r, 0);
	assert_false(p.v.rm);
	assert_int_equal(p.count, 2);

	parse(&p, false, "-");
	assert_int_equal(p.count, 1);
	assert_string_equal(p.operands[0], "-");
}

static void the_last_wins_and_flags_can_be_false(void **state)
{
	struct parsed p;

	parse(&p, false, "--name a --name b --rm --rm=false --tty=0 -i --interactive=1");
	assert_int_equal(p.r, 0);
	assert_string_equal(p.v.name, "b");
	assert_true(!p.v.rm && !p.v.tty && p.v.interactive);
}

static void values_are_checked(void **state)
{
	static const struct {
		const char *line, *what;
	} cases[] = {
		{"--memroy 1G", "unknown option --memroy"},
		{"-x", "unknown option -x"},
		{"--gpus all", "--gpus makes no sense here: there are none"},
		{"--gpus=all", "--gpus makes no sense here: there are none"},
		{"-ix", "unknown option -x"},
		{"--memory", "--memory needs a value: --memory SIZE"},
		{"-m", "-m needs a value: -m SIZE"},
		{"-im", "-m needs a value: -m SIZE"},
		{"-m 1x", "--memory wants a size such as 512M or 2G, not '1x'"},
		{"-m -1", "--memory wants a size such as 512M or 2G, not '-1'"},
		{"-m ''", "--memory wants a size such as 512M or 2G, not ''"},
		{"-m 64M", "--memory 64M is too small: the least is 128 MiB"},
		{"-m 99999999999999999999", "--memory wants a size such as 512M or 2G, not '99999999999999999999'"},
#define WANTS "--cpus wants a number from 0.01 to 16, with three decimals at most, not "
		{"-c 17", WANTS "'17'"},
		{"-c 0", WANTS "'0'"},
		{"-c 0.009", WANTS "'0.009'"},
		{"-c 16.001", WANTS "'16.001'"},
		{"-c 0.1234", WANTS "'0.1234'"},
		{"-c .", WANTS "'.'"},
		{"-c ''", WANTS "''"},
		{"-c -1", WANTS "'-1'"},
		{"-c 1,5", WANTS "'1,5'"},
		{"-c 1e0", WANTS "'1e0'"},
		{"-c 1.5.", WANTS "'1.5.'"},
		{"-c 99999999999999999999", WANTS "'99999999999999999999'"},
#undef WANTS
		{"--timeout 5x", "--timeout wants a time such as 500ms, 30s or 5m, not '5x'"},
		{"--rm=perhaps", "--rm is true or false, not 'perhaps'"},
		{"--init=perhaps", "--init is true or false, not 'perhaps'"},
		{"--format xml", "--format wants one of table|json, not 'xml'"},
		{"--format tab", "--format wants one of table|json, not 'tab'"},
		{"--format ''", "--format wants one of table|json, not ''"},
		{"--=x", "unknown option --"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct parsed p;

		parse(&p, true, cases[i].line);
		assert_int_equal(p.r, -EINVAL);
		assert_string_equal(p.error.what, cases[i].what);
		done(&p);
	}
}

static void a_failed_parse_leaks_no_list(void **state)
{
	struct parsed p;

	parse(&p, true, "-e A=1 -e B=2 --nonsense");
	assert_int_equal(p.r, -EINVAL);
	assert_int_equal(p.v.env.n, 2);
	done(&p);
}

static void mistyped_options_get_a_suggestion(void **state)
{
	struct parsed p;

	parse(&p, true, "--memroy=1G");
	assert_string_equal(p.error.hint, "did you mean --memory?");
	parse(&p, true, "--nmae x");
	assert_string_equal(p.error.hint, "did you mean --name?");
	parse(&p, true, "--quux");
	assert_string_equal(p.error.hint, "");
}

static void help_is_asked_for(void **state)
{
	struct parsed p;

	parse(&p, true, "-i --help --nonsense");
	assert_int_equal(p.r, 1);
	parse(&p, true, "-h");
	assert_int_equal(p.r, 1);
	parse(&p, true, "img --help");
	assert_int_equal(p.r, 0);
	assert_string_equal(p.operands[1], "--help");
}

static void scaled_values(void **state)
{
	struct parsed p;

	parse(&p, true, "--timeout 1.5s -c 16 -m 128M");
	assert_int_equal(p.r, 0);
	assert_int_equal(p.v.timeout, 1500000000ULL);
	assert_int_equal(p.v.cpus, 16000);
	assert_int_equal(p.v.memory, 128 * MIB);
	parse(&p, true, "--timeout 90");
	assert_int_equal(p.v.timeout, 90000000000ULL);
	parse(&p, true, "-c 0.5");
	assert_int_equal(p.v.cpus, 500);
	parse(&p, true, "-c .25 --cpus 1.");
	assert_int_equal(p.r, 0);
	assert_int_equal(p.v.cpus, 1000);
	parse(&p, true, "-c1.125");
	assert_int_equal(p.v.cpus, 1125);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(docker_spellings),
		cmocka_unit_test(options_after_operands),
		cmocka_unit_test(the_last_wins_and_flags_can_be_false),
		cmocka_unit_test(values_are_checked),
		cmocka_unit_test(a_failed_parse_leaks_no_list),
		cmocka_unit_test(mistyped_options_get_a_suggestion),
		cmocka_unit_test(help_is_asked_for),
		cmocka_unit_test(scaled_values),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
