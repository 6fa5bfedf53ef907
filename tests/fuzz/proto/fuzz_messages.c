/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes into every message decoder (the first byte chooses). What decodes must encode again, and decode to the same
 * bytes. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "proto/messages.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* decode -> encode -> decode -> encode: the two encodings are equal. */
#define ROUND_TRIP(type, name, done)                                                                                   \
	do {                                                                                                           \
		struct type x, y;                                                                                      \
		struct buf a = {0}, b = {0};                                                                           \
		struct cursor c = cursor_of(data, size);                                                               \
		if (name##_decode(&c, &x) < 0)                                                                         \
			break;                                                                                         \
		if (name##_encode(&a, &x) < 0)                                                                         \
			abort();                                                                                       \
		c = cursor_of(a.data, a.len);                                                                          \
		if (name##_decode(&c, &y) < 0 || name##_encode(&b, &y) < 0)                                            \
			abort();                                                                                       \
		if (a.len != b.len || (a.len && memcmp(a.data, b.data, a.len)))                                        \
			abort();                                                                                       \
		done(&x);                                                                                              \
		done(&y);                                                                                              \
		buf_done(&a);                                                                                          \
		buf_done(&b);                                                                                          \
	} while (0)

static void nothing(void *x)
{
}

static void try_pid(const uint8_t *data, size_t size)
{
	struct cursor c = cursor_of(data, size);
	uint32_t pid;

	if (proto_pid_decode(&c, &pid) > 0)
		abort();
}

static void try_tmpfs(const uint8_t *data, size_t size)
{
	char *text = strndup((const char *)data, size);
	struct proto_tmpfs x;

	if (text && proto_tmpfs_parse(text, &x) == 0 && (x.path[0] != '/' || strlen(x.data) >= sizeof(x.data)))
		abort();
	free(text);
}

static void try_rlimit(const uint8_t *data, size_t size)
{
	char *text = strndup((const char *)data, size);
	struct proto_rlimit x;

	if (text && proto_rlimit_parse(text, &x) == 0 && x.soft > x.hard)
		abort();
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t which;

	if (!size)
		return 0;
	which = data[0] % 17;
	data++;
	size--;
	switch (which) {
	case 16:
		ROUND_TRIP(proto_prepared, proto_prepared, nothing);
		break;
	case 13:
		ROUND_TRIP(proto_secret, proto_secret, nothing);
		break;
	case 15:
		ROUND_TRIP(proto_watch, proto_watch, proto_watch_done);
		break;
	case 14:
		try_rlimit(data, size);
		break;
	case 0:
		ROUND_TRIP(proto_exec, proto_exec, proto_exec_done);
		break;
	case 1:
		ROUND_TRIP(proto_setup, proto_setup, proto_setup_done);
		break;
	case 2:
		ROUND_TRIP(proto_event, proto_event, nothing);
		break;
	case 3:
		ROUND_TRIP(proto_connect, proto_connect, proto_connect_done);
		break;
	case 4:
		ROUND_TRIP(proto_file, proto_file, proto_file_done);
		break;
	case 5:
		ROUND_TRIP(proto_clock, proto_clock, nothing);
		break;
	case 6:
		ROUND_TRIP(proto_stop, proto_stop, nothing);
		break;
	case 7:
		ROUND_TRIP(proto_stats, proto_stats, nothing);
		break;
	case 8:
		ROUND_TRIP(proto_copy, proto_copy, proto_copy_done);
		break;
	case 9:
		try_tmpfs(data, size);
		break;
	case 10:
		ROUND_TRIP(proto_hold, proto_hold, nothing);
		break;
	case 11:
		ROUND_TRIP(proto_resume, proto_resume, proto_resume_done);
		break;
	default:
		try_pid(data, size);
	}
	return 0;
}
