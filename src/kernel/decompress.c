/* SPDX-License-Identifier: Apache-2.0 */
/* One compressed stream to memory, by libarchive's filters: modules (.ko.xz, .ko.zst) and the payload of a bzImage. */
#include <errno.h>

#include "base/libarchive.h"
#include "kernel/internal.h"

static int report(struct sm_error *err, const struct archive_functions *la, struct archive *a)
{
	int code = la->archive_errno(a);
	const char *text = la->archive_error_string(a);

	return error_set(err, SM_ERROR_CORRUPT, code > 0 ? code : EBADMSG, "decompress: %s", text ? text : "bad data");
}

int kernel_decompress(const void *p, size_t len, size_t max, struct buf *out, struct sm_error *err)
{
	const struct archive_functions *la = archive_load(err);
	struct archive_entry *entry;
	struct archive *a;
	int r = 0;

	if (!la)
		return -ELIBACC;
	a = la->archive_read_new();
	if (!a)
		return error_sys(err, ENOMEM, "decompress");
	la->archive_read_support_filter_all(a);
	la->archive_read_support_format_raw(a);
	if (la->archive_read_open_memory(a, p, len) != ARCHIVE_OK ||
	    la->archive_read_next_header(a, &entry) != ARCHIVE_OK) {
		r = report(err, la, a);
		goto out;
	}
	for (;;) {
		const void *piece;
		size_t n;
		la_int64_t offset;
		int got = la->archive_read_data_block(a, &piece, &n, &offset);

		if (got == ARCHIVE_EOF)
			break;
		if (got != ARCHIVE_OK) {
			r = report(err, la, a);
			goto out;
		}
		if (n > max - out->len) {
			r = error_set(err, SM_ERROR_LIMIT, EFBIG, "decompress: over %zu bytes", max);
			goto out;
		}
		r = buf_put(out, piece, n);
		if (r < 0) {
			error_sys(err, -r, "decompress");
			goto out;
		}
	}
out:
	la->archive_read_free(a);
	return r;
}
