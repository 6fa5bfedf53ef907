/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's socket protocol, both directions: headers, errors and statuses of any bytes; what decodes must encode to
 * the same again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "machine/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct seat_machine_status status, again;
	_cleanup_(buf_done) struct buf b = {0};
	struct cursor c = cursor_of(data, size);
	struct wire_header h;
	struct sm_error e = {0};

	if (size >= WIRE_HEADER && wire_header_decode(data, &h) == 0 && h.len > WIRE_MAX)
		abort();
	wire_error_decode(&c, &e);
	if (e.code <= 0 || e.kind == SM_ERROR_NONE || memchr(e.message, 0, sizeof(e.message)) == NULL)
		abort();
	c = cursor_of(data, size);
	if (wire_status_decode(&c, &status) < 0)
		return 0;
	if (wire_status_encode(&b, &status) < 0)
		return 0;
	c = cursor_of(b.data, b.len);
	if (wire_status_decode(&c, &again) < 0 || again.memory != status.memory || again.cpus != status.cpus ||
	    strcmp(again.boot_id, status.boot_id) != 0)
		abort();
	return 0;
}
