/* SPDX-License-Identifier: Apache-2.0 */
/* References: what is accepted, put together again, is accepted once more and means the same. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "oci/oci.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int same(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = strndup((const char *)data, size), *again = NULL;
	struct sm_error err = {0};
	struct oci_ref a, b;

	if (oci_ref_parse(text, &a, &err) < 0) {
		if (!err.message[0] || strpbrk(err.message, "\n\r\x1b"))
			abort();
		free(text);
		return 0;
	}
	if (!a.name[0] || (!a.tag && !a.digest))
		abort();
	if (asprintf(&again, "%s%s%s%s%s", a.name, a.tag ? ":" : "", a.tag ?: "", a.digest ? "@" : "", a.digest ?: "") <
	    0)
		abort();
	if (oci_ref_parse(again, &b, NULL) < 0 || !same(a.name, b.name) || !same(a.tag, b.tag) ||
	    !same(a.digest, b.digest))
		abort();
	oci_ref_done(&a);
	oci_ref_done(&b);
	free(again);
	free(text);
	return 0;
}
