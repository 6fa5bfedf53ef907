/* SPDX-License-Identifier: Apache-2.0 */
/* Small arithmetic and string helpers that every room needs. */
#ifndef BASE_UTIL_H
#define BASE_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define CONTAINER_OF(p, type, member) ((type *)((char *)(p)-offsetof(type, member)))

#define KIB (1024ULL)
#define MIB (1024ULL * KIB)
#define GIB (1024ULL * MIB)

/* Rounds up to a power of two; the caller has checked that v + align does not overflow. */
/* The least power of two that holds v; v is at most 2^63. */
static inline uint64_t round_up_pow2(uint64_t v)
{
	uint64_t p = 1;

	while (p < v)
		p *= 2;
	return p;
}

static inline uint64_t align_up(uint64_t v, uint64_t align)
{
	return (v + align - 1) & ~(align - 1);
}

/* True if [off, off + len) lies inside [0, size), without overflow. */
static inline bool range_inside(uint64_t off, uint64_t len, uint64_t size)
{
	return off <= size && len <= size - off;
}

static inline bool streq(const char *a, const char *b)
{
	return strcmp(a, b) == 0;
}

static inline bool str_starts(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* Whether a label, KEY[=VALUE], is the one that is wanted: KEY, whatever its value, or KEY=VALUE. */
bool label_matches(const char *label, const char *wanted);

/* Monotonic time in nanoseconds. */
uint64_t time_now_ns(void);

/* "12.3 MiB": binary units, at most 16 bytes with the NUL. Returns buf. */
char *format_size(uint64_t bytes, char buf[static 16]);

/* Parses "512", "64K", "1G", "10g", "1.5GiB" (binary units, a bare number is bytes); -EINVAL or -ERANGE. */
int parse_size(const char *s, uint64_t *ret);

/* Parses "500ms", "3s", "10m", "2h", "90" (bare: seconds) into nanoseconds; -EINVAL or -ERANGE. */
int parse_duration(const char *s, uint64_t *ret_ns);

/* Decimal, whole string, within [min, max]; -EINVAL or -ERANGE. */
int parse_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret);
/* Of a text of "label number" lines, as /proc and cgroups have them: the number behind the line's beginning `label`; 0:
 * there is no such line. */
uint64_t number_after(const char *text, const char *label);

/* Lower-case hex of n random bytes from the kernel, NUL-terminated: out has 2 * n + 1 bytes. */
int random_hex(char *out, size_t n);

#endif
