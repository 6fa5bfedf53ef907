/* SPDX-License-Identifier: Apache-2.0 */
/* What people see: tables, ages, cleaned names, suggestions, JSON, detach keys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>

#include "base/util.h"
#include "cli/json.h"
#include "cli/session.h"
#include "cli/suggest.h"
#include "cli/template.h"
#include "cli/text.h"

static void distances(void **state)
{
	assert_int_equal(edit_distance("", ""), 0);
	assert_int_equal(edit_distance("abc", ""), 3);
	assert_int_equal(edit_distance("run", "rnu"), 1);
	assert_int_equal(edit_distance("kitten", "sitting"), 3);
	assert_int_equal(edit_distance("memory", "memroy"), 1);
	/* Words longer than the table are cut, not read past their end. */
	assert_int_equal(
		edit_distance("x", "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"), 63);
}

static void suggestions(void **state)
{
	static const char *const words[] = {"run", "rm", NULL, "rmi", "restart", "images", "completion"};

	assert_string_equal(suggest("rnu", words, ARRAY_SIZE(words)), "run");
	assert_string_equal(suggest("image", words, ARRAY_SIZE(words)), "images");
	assert_string_equal(suggest("comp", words, ARRAY_SIZE(words)), "completion");
	assert_null(suggest("pineapple", words, ARRAY_SIZE(words)));
	assert_null(suggest("", words, ARRAY_SIZE(words)));
}

static void assert_clean(const char *in, const char *out)
{
	char *clean = text_clean(in);

	assert_string_equal(clean, out);
	free(clean);
}

static void names_cannot_drive_the_terminal(void **state)
{
	assert_clean("plain", "plain");
	assert_clean("a\033[31mb\n\r\t\x7f", "a\\x1b[31mb\\x0a\\x0d\\x09\\x7f");
	assert_clean("gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f");
	assert_clean("\xe6\x97\xa5", "\xe6\x97\xa5");
	assert_clean("\xc2\x9b", "\\xc2\\x9b");		 /* C1: control sequence introducer */
	assert_clean("\xff\xc3", "\\xff\\xc3");		 /* no UTF-8; cut short */
	assert_clean("\xc0\xaf", "\\xc0\\xaf");		 /* longer than needed */
	assert_clean("\xed\xa0\x80", "\\xed\\xa0\\x80"); /* surrogate */
	assert_clean("a\xe2\x80\xae"
		     "b",
		     "a\\xe2\\x80\\xae"
		     "b"); /* right-to-left override */
	assert_int_equal(text_width("gr\xc3\xbc\xc3\x9f"), 4);
}

static void ages(void **state)
{
	const int64_t s = 1000000000LL, now = 2000000000LL * s;
	char buf[16];

	assert_string_equal(text_age(0, now, buf), "-");
	assert_string_equal(text_age(now + 5 * s, now, buf), "0s");
	assert_string_equal(text_age(now - 59 * s, now, buf), "59s");
	assert_string_equal(text_age(now - 60 * s, now, buf), "1m");
	assert_string_equal(text_age(now - 7200 * s, now, buf), "2h");
	assert_string_equal(text_age(now - 86400 * s * 364, now, buf), "364d");
	assert_string_equal(text_age(now - 86400 * s * 800, now, buf), "2y");
	assert_string_equal(text_duration(1500000, buf), "1.50ms");
	assert_string_equal(text_duration(350000000, buf), "350ms");
	assert_string_equal(text_duration(1250000000, buf), "1.25s");
	assert_string_equal(text_duration(125 * 1000000000ULL, buf), "2m05s");
}

static void signals(void **state)
{
	assert_int_equal(text_signal("TERM"), SIGTERM);
	assert_int_equal(text_signal("sigterm"), SIGTERM);
	assert_int_equal(text_signal("SIGUSR1"), SIGUSR1);
	assert_int_equal(text_signal("9"), 9);
	assert_int_equal(text_signal("0"), -EINVAL);
	assert_int_equal(text_signal("65"), -EINVAL);
	assert_int_equal(text_signal(""), -EINVAL);
	assert_int_equal(text_signal("SIG"), -EINVAL);
	assert_int_equal(text_signal("NOPE"), -EINVAL);
}

static const struct table_column columns[] = {
	{"ID", TABLE_LEFT, 0}, {"NAME", TABLE_LEFT, 6}, {"SIZE", TABLE_RIGHT, 0}, {"STATUS", TABLE_LEFT, 0}};

static char *print(size_t width, const char *name)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);
	struct table t;

	table_init(&t, columns, ARRAY_SIZE(columns));
	table_add(&t, "abc");
	table_add(&t, "%s", name);
	table_add(&t, "%d", 7);
	table_add(&t, "up");
	assert_int_equal(table_print(&t, f, width), 0);
	table_done(&t);
	fclose(f);
	return text;
}

static void tables(void **state)
{
	char *text = print(0, "x");

	assert_string_equal(text, "ID   NAME  SIZE  STATUS\nabc  x        7  up\n");
	free(text);
	text = print(30, "a-rather-long-name");
	assert_string_equal(text, "ID   NAME         SIZE  STATUS\nabc  a-rather-l~     7  up\n");
	free(text);
	/* Never narrower than the column may be, even where the terminal is. */
	text = print(10, "a-rather-long-name");
	assert_string_equal(text, "ID   NAME    SIZE  STATUS\nabc  a-rat~     7  up\n");
	free(text);
	text = print(0, "\033]0;x\a");
	assert_null(strchr(text, '\033'));
	free(text);
}

static void json_is_json(void **state)
{
	static const char *const list[] = {"a", "b", NULL};
	struct json j = {0};
	json_t *array, *root;

	json_open(&j, NULL, '[');
	json_open(&j, NULL, '{');
	json_text(&j, "text", "q\" b\\ n\n e\033 u\xc3\xbc bad\xff");
	json_text(&j, "none", NULL);
	json_texts(&j, "list", list);
	json_texts(&j, "empty", NULL);
	json_number(&j, "minus", INT64_MIN);
	json_unsigned(&j, "big", 1ULL << 62);
	json_bool(&j, "yes", true);
	json_time(&j, "time", 1000000000LL * 1000000000LL);
	json_time(&j, "never", 0);
	json_raw(&j, "raw", "{\"x\": 1}\n");
	json_close(&j, '}');
	json_close(&j, ']');
	assert_int_equal(j.out.error, 0);
	root = json_loadb((const char *)j.out.data, j.out.len, 0, NULL);
	assert_non_null(root);
	array = root;
	root = json_array_get(array, 0);
	assert_string_equal(json_string_value(json_object_get(root, "text")),
			    "q\" b\\ n\n e\033 u\xc3\xbc bad\xef\xbf\xbd");
	assert_true(json_is_null(json_object_get(root, "none")));
	assert_int_equal(json_array_size(json_object_get(root, "list")), 2);
	assert_int_equal(json_array_size(json_object_get(root, "empty")), 0);
	assert_true(json_integer_value(json_object_get(root, "minus")) == INT64_MIN);
	assert_string_equal(json_string_value(json_object_get(root, "time")), "2001-09-09T01:46:40Z");
	assert_int_equal(json_integer_value(json_object_get(json_object_get(root, "raw"), "x")), 1);
	json_decref(array);
	json_done(&j);
}

/* What comes through of `in`, fed in pieces of `step` bytes; "!" is appended when the keys let go. */
static void assert_keys(const char *in, size_t step, const char *want)
{
	char out[64] = "", piece[16];
	bool held = false, detach = false;
	size_t n = 0;

	for (size_t i = 0; i < strlen(in) && !detach; i += step) {
		size_t len = session_keys(&held, in + i, MIN(step, strlen(in) - i), piece, &detach);

		memcpy(out + n, piece, len);
		n += len;
	}
	if (detach)
		out[n++] = '!';
	out[n] = '\0';
	assert_string_equal(out, want);
}

static void keys_that_let_go(void **state)
{
	for (size_t step = 1; step < 5; step++) {
		assert_keys("ls\r", step, "ls\r");
		assert_keys("a\x10\x11"
			    "b",
			    step, "a!");
		assert_keys("a\x10"
			    "b",
			    step,
			    "a\x10"
			    "b");
		assert_keys("\x10\x10\x11", step, "\x10!");
		assert_keys("\x11\x11", step, "\x11\x11");
	}
}

static void points_in_time(void **state)
{
	const int64_t now = 1700000000ll * 1000000000;
	static const char *const bad[] = {"",	"yesterday", "2026-13-01", "2026-01-31T12:00:00+01:00", "2026-01-31x",
					  "-5", "10x"};
	int64_t t;

	assert_int_equal(text_time("10m", now, &t), 0);
	assert_int_equal(t, now - 600ll * 1000000000);
	assert_int_equal(text_time("1600000000", now, &t), 0);
	assert_int_equal(t, 1600000000ll * 1000000000);
	assert_int_equal(text_time("2001-09-09T01:46:40Z", now, &t), 0);
	assert_int_equal(t, 1000000000ll * 1000000000);
	assert_int_equal(text_time("2001-09-09", now, &t), 0);
	assert_int_equal(t, 999993600ll * 1000000000);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(text_time(bad[i], now, &t), -EINVAL);
}

static void some_fields(const void *row, const char *name, struct template_value *v)
{
	static const char *const list[] = {"one", "tw\"o", NULL}, *const map[] = {"k=v", "a.b=c=d", "bare", NULL};

	if (streq(name, "A"))
		buf_printf(&v->text, "%s", (const char *)row);
	else if (streq(name, "List") || streq(name, "In.Map"))
		template_put_list(v, streq(name, "List") ? list : map, streq(name, "In.Map"));
	else if (streq(name, "In.N"))
		buf_printf(&v->text, "7"), v->raw = true;
	else if (streq(name, "Labels"))
		buf_printf(&v->text, "k=v,bare"), v->list = map, v->is_list = v->map = true;
}

static const struct template_fields some = {
	.names = (const struct template_name[]){{"A", "THE A"},
						{"Empty", NULL},
						{"List", NULL},
						{"In.N", NULL},
						{"In.Map", NULL},
						{"Labels", NULL},
						{NULL, NULL}},
	.get = some_fields,
};

static void expect_template(const char *format, const void *row, const char *want)
{
	struct buf b = {0};
	char what[TEMPLATE_WHAT] = "";
	int r = template_expand(format, row, &some, &b, what);

	buf_put_u8(&b, 0);
	if (r < 0 || strcmp((const char *)b.data, want) != 0)
		fail_msg("%s: %d %s, '%s' is not '%s'", format, r, what, (const char *)b.data, want);
	buf_done(&b);
}

static void expect_what(const char *format, const char *want)
{
	struct buf b = {0};
	char what[TEMPLATE_WHAT] = "";

	if (template_expand(format, "x", &some, &b, what) != -EINVAL || !strstr(what, want))
		fail_msg("%s: '%s' has not '%s'", format, what, want);
	buf_done(&b);
}

static void templates(void **state)
{
	static const char *const bad[] = {"{{.B}}",
					  "{{.A",
					  "{{A}}",
					  "{{}}",
					  "{{.}}",
					  "{{.A .A}}",
					  "{{.A|x}}",
					  "{{range .}}",
					  "{{json}}",
					  "{{index .List}}",
					  "{{index .A \"k\"}}",
					  "{{join .List}}",
					  "{{index . \"k\"}}",
					  "{{upper .}}",
					  "{{.A | index}}",
					  "{{\"a}}",
					  "{{json .In.X}}",
					  "{{json .I}}",
					  "{{.In}}",
					  "{{.Label}}",
					  "{{.A | }}",
					  "{{| json}}",
					  "{{json .A .A}}",
					  "{{a b c d e f g h}}",
					  "{{-.A}}",
					  "{{if .A}}x",
					  "{{if}}x{{end}}",
					  "{{else}}",
					  "{{if .A}}{{else}}{{else}}{{end}}",
					  "{{printf \"%d\" .A}}",
					  "{{printf \"%s\"}}",
					  "{{printf \"%s\" .A .A}}",
					  "{{printf \"%x\" .A}}",
					  "{{eq .A}}",
					  "{{truncate .A \"x\"}}",
					  "{{(.A}}",
					  "{{.A)}}",
					  "{{$}}",
					  "{{$k}}",
					  "{{range $k, .List}}{{end}}",
					  "{{range $k := .List}}{{end}}{{$k}}",
					  "{{((((((((((((((((((.A))))))))))))))))))}}",
					  "{{range .List}}{{.}}",
					  "{{range .A}}{{.}}{{end}}",
					  "{{range .List}}{{.A}}{{end}}",
					  "{{end}}",
					  "{{range .List}}{{range .}}{{end}}{{end}}"};
	struct buf b = {0};
	char what[TEMPLATE_WHAT];

	assert_true(template_is("{{.A}}") && !template_is("json"));
	expect_template("<{{.A}}\\t{{ .A }}{{.Empty}}> {}\\n", "x", "<x\tx> {}\n");
	expect_template("{{json .A}}{{\"\\t}}\"}}{{upper .A}}{{.A|upper}}{{lower .A}}{{len .A}}{{println .A}}", "x\"Y",
			"\"x\\\"Y\"\t}}X\"YX\"Yx\"y3x\"Y\n");
	expect_template(
		"{{.List}} {{json .List}} {{index .List 1}}{{index .List 9}} {{join .List \", \"}} {{len .List}}", "",
		"[one tw\"o] [\"one\",\"tw\\\"o\"] tw\"o one, tw\"o 2");
	expect_template("{{.In.Map}} {{json .In.Map}} {{index .In.Map \"a.b\"}}{{index .In.Map \"a\"}}", "",
			"map[k:v a.b:c=d bare:] {\"k\":\"v\",\"a.b\":\"c=d\",\"bare\":\"\"} c=d");
	expect_template("{{json .In.N}}{{json .In}}", "",
			"7{\"N\":7,\"Map\":{\"k\":\"v\",\"a.b\":\"c=d\",\"bare\":\"\"}}");
	expect_template("{{range .List}}<{{.}}>{{end}}|{{ range .In.Map }}{{println .}}{{ end }}|{{range .List}}{{json "
			".}}{{upper .}}{{end}}",
			"", "<one><tw\"o>|v\nc=d\n\n|\"one\"ONE\"tw\\\"o\"TW\"O");
	expect_template("table {{range .List}}{{.}} {{end}}\\t{{.A}}", NULL, "LIST\tTHE A");
	expect_template("{{json .}}", "x",
			"{\"A\":\"x\",\"Empty\":\"\",\"List\":[\"one\",\"tw\\\"o\"],\"In\":{\"N\":7,\"Map\":{\"k\":"
			"\"v\",\"a.b\":\"c=d\",\"bare\":\"\"}},"
			"\"Labels\":\"k=v,bare\"}");
	expect_template("{{.Labels}} {{.Label \"k\"}}{{.Label \"no\"}} {{json .Labels}}", "",
			"k=v,bare v \"k=v,bare\"");
	expect_template("table {{.A}}\\t{{json .In.Map}} {{.Label \"k\"}}", NULL, "THE A\tMAP LABELS");
	expect_template("{{if .A}}yes{{else}}no{{end}}{{if .Empty}}yes{{else}}no{{end}}{{if .List}}l{{end}}", "x",
			"yesnol");
	expect_template("{{if eq .A \"y\"}}1{{else if or .Empty (eq .A \"z\" \"x\")}}2{{else}}3{{end}}", "x", "2");
	expect_template("{{and .A .Empty}}|{{or .Empty .A}}|{{not .A}}|{{ne .A \"x\"}}|{{and (not .Empty) .A}}", "x",
			"|x|false|false|x");
	expect_template("{{printf \"%-4s|%3s|%.1s|%d|%%|%q|%03d\" .A .A .A .In.N .A .In.N}}", "xy",
			"xy  | xy|x|7|%|\"xy\"|007");
	expect_template("{{range $k, $v := .In.Map}}{{$k}}:{{$v}},{{end}} {{range $i, $v := "
			".List}}{{$i}}={{$v}}{{$.A}} {{end}}",
			"x", "k:v,a.b:c=d,bare:, 0=onex 1=tw\"ox ");
	expect_template("{{range $v := .List}}{{if eq $v \"one\"}}{{$v | upper}}{{else}}-{{end}}{{end}}", "x", "ONE-");
	expect_template("a \n {{- /* said */ -}} \n b{{- .A -}} \t{{`c`}} d", "x", "abxc d");
	expect_template("{{range .List}}{{range $.List}}{{.}}{{end}};{{end}}", "x", "onetw\"o;onetw\"o;");
	expect_template("{{truncate .A 2}}{{print .A 1}}{{len .List | printf \"<%d>\"}}", "abc", "ababc1<2>");
	expect_template("table {{printf \"%-6s %s\" .A .Empty}}{{if .A}}\t{{upper .List}}{{end}}", NULL,
			"THE A  EMPTY\tLIST");
	expect_what("{{.A}} {{nope .A}}", "column 10: there is no function nope, but json index join");
	expect_what("table {{.A}}\\t{{.Nope}}", "column 17: there is no field .Nope");
	expect_what("{{range .List}}{{.A}}{{end}}", "$.A is the row's");
	expect_what("{{if .A}}x", "column 1: '{{if' without '{{end}}'");
	expect_what("{{range .List}}{{range $.List}}{{range $.List}}{{range $.List}}{{range $.List}}{{range $.List}}"
		    "{{range $.List}}{{range $.List}}{{range $.List}}{{range $.List}}{{range $.List}}{{range $.List}}"
		    "{{range $.List}}{{range $.List}}{{range $.List}}{{range $.List}}{{range $.List}}{{range $.List}}",
		    "nested deeper than 16");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		what[0] = '\0';
		if (template_expand(bad[i], "x", &some, &b, what) != -EINVAL || !what[0])
			fail_msg("%s is not refused", bad[i]);
	}
	buf_done(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(distances),
		cmocka_unit_test(suggestions),
		cmocka_unit_test(names_cannot_drive_the_terminal),
		cmocka_unit_test(ages),
		cmocka_unit_test(signals),
		cmocka_unit_test(points_in_time),
		cmocka_unit_test(templates),
		cmocka_unit_test(tables),
		cmocka_unit_test(json_is_json),
		cmocka_unit_test(keys_that_let_go),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
