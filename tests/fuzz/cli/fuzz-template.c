/* SPDX-License-Identifier: Apache-2.0 */
/* --format templates: any text is carried out or refused with what is wrong, for the titles and for a row. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "cli/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void get(const void *row, const char *name, struct template_value *v)
{
	static const char *const list[] = {"one", "tw\"o", NULL}, *const map[] = {"k=v", "bare", NULL};

	if (streq(name, "L") || streq(name, "O.M"))
		template_put_list(v, *name == 'L' ? list : map, *name == 'O');
	else if (streq(name, "O.N"))
		buf_printf(&v->text, "7"), v->raw = true;
	else if (streq(name, "Labels"))
		buf_printf(&v->text, "k=v"), v->list = map, v->is_list = v->map = true;
	else
		buf_printf(&v->text, "%s", (const char *)row);
}

static const struct template_fields fields = {
	.names =
		(const struct template_name[]){
			{"A", "THE A"}, {"L", NULL}, {"O.N", NULL}, {"O.M", NULL}, {"Labels", NULL}, {NULL, NULL}},
	.get = get,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *const rows[] = {NULL, "", "x"};
	char *format = strndup((const char *)data, size);

	for (size_t i = 0; format && i < ARRAY_SIZE(rows); i++) {
		char what[TEMPLATE_WHAT] = "";
		struct buf b = {0};
		int r = template_expand(format, rows[i], &fields, &b, what);

		if (r < 0 && (r != -EINVAL || !what[0]))
			abort();
		buf_done(&b);
	}
	free(format);
	return 0;
}
