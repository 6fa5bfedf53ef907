/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes, durations, numbers, random names, labels. See util.h. */
#include "base/util.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/random.h>
#include <time.h>

uint64_t time_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

char *format_size(uint64_t bytes, char buf[static 16])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double v = (double)bytes;
	size_t u = 0;

	while (v >= 1024 && u + 1 < ARRAY_SIZE(units)) {
		v /= 1024;
		u++;
	}
	snprintf(buf, 16, u && v < 100 ? "%.1f %s" : "%.0f %s", v, units[u]);
	return buf;
}

struct unit {
	const char *name;
	uint64_t factor;
};

/* A decimal number with an optional fraction and a unit from the table ("" is in it where a bare number is allowed). */
static int parse_scaled(const char *s, const struct unit *units, size_t count, uint64_t *ret)
{
	uint64_t whole = 0, result, fraction = 0, scale = 1, factor = 0;
	const char *p = s;

	if (!isdigit((unsigned char)*p))
		return -EINVAL;
	for (; isdigit((unsigned char)*p); p++) {
		if (__builtin_mul_overflow(whole, 10, &whole) ||
		    __builtin_add_overflow(whole, (uint64_t)(*p - '0'), &whole))
			return -ERANGE;
	}
	if (*p == '.') {
		if (!isdigit((unsigned char)*++p))
			return -EINVAL;
		for (; isdigit((unsigned char)*p); p++) {
			if (scale >= 1000000)
				continue;
			fraction = fraction * 10 + (uint64_t)(*p - '0');
			scale *= 10;
		}
	}
	for (size_t i = 0; i < count && !factor; i++)
		if (strcasecmp(p, units[i].name) == 0)
			factor = units[i].factor;
	if (!factor)
		return -EINVAL;
	if (__builtin_mul_overflow(whole, factor, &result) ||
	    __builtin_add_overflow(result, (uint64_t)((double)factor * ((double)fraction / (double)scale)), &result))
		return -ERANGE;
	*ret = result;
	return 0;
}

int parse_size(const char *s, uint64_t *ret)
{
	static const struct unit units[] = {
		{"", 1},      {"b", 1},		 {"k", KIB},	     {"kb", KIB},	  {"kib", KIB},
		{"m", MIB},   {"mb", MIB},	 {"mib", MIB},	     {"g", GIB},	  {"gb", GIB},
		{"gib", GIB}, {"t", GIB * 1024}, {"tb", GIB * 1024}, {"tib", GIB * 1024},
	};

	return parse_scaled(s, units, ARRAY_SIZE(units), ret);
}

int parse_duration(const char *s, uint64_t *ret_ns)
{
	static const struct unit units[] = {
		{"", 1000000000ULL},
		{"ns", 1},
		{"us", 1000},
		{"ms", 1000000},
		{"s", 1000000000ULL},
		{"m", 60000000000ULL},
		{"h", 3600000000000ULL},
		{"d", 86400000000000ULL},
	};

	return parse_scaled(s, units, ARRAY_SIZE(units), ret_ns);
}

int parse_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret)
{
	static const struct unit plain[] = {{"", 1}};
	uint64_t v;
	int r = strchr(s, '.') ? -EINVAL : parse_scaled(s, plain, 1, &v);

	if (r < 0)
		return r;
	if (v < min || v > max)
		return -ERANGE;
	*ret = v;
	return 0;
}

uint64_t number_after(const char *text, const char *label)
{
	for (const char *at = text; (at = strstr(at, label)); at += strlen(label))
		if (at == text || at[-1] == '\n')
			return strtoull(at + strlen(label), NULL, 10);
	return 0;
}

int random_hex(char *out, size_t n)
{
	static const char digits[] = "0123456789abcdef";
	uint8_t bytes[32];

	while (n) {
		size_t step = MIN(n, sizeof(bytes));
		ssize_t got = getrandom(bytes, step, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		for (ssize_t i = 0; i < got; i++) {
			*out++ = digits[bytes[i] >> 4];
			*out++ = digits[bytes[i] & 15];
		}
		n -= (size_t)got;
	}
	*out = 0;
	return 0;
}

/* A label without a value has an empty one. */
bool label_matches(const char *label, const char *wanted)
{
	size_t key = strcspn(wanted, "=");

	return strcspn(label, "=") == key && strncmp(label, wanted, key) == 0 &&
	       (!wanted[key] || streq(label[key] ? label + key : "=", wanted + key));
}
