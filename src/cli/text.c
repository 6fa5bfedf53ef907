/* SPDX-License-Identifier: Apache-2.0 */
/* Names made harmless, ages, signals. See text.h. */
#include "cli/text.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/util.h"

/* Length of the UTF-8 sequence at p if it is whole, shortest and no control character, else 0. */
static size_t utf8_printable(const unsigned char *p)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t n = p[0] < 0x80 ? 1 : p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : p[0] >> 3 == 30 ? 4 : 0;
	uint32_t c;

	if (n == 1)
		return p[0] >= 0x20 && p[0] != 0x7f;
	if (n == 0)
		return 0;
	c = p[0] & (0xffU >> (n + 1));
	for (size_t i = 1; i < n; i++) {
		if (p[i] >> 6 != 2)
			return 0;
		c = c << 6 | (p[i] & 0x3f);
	}
	/* C1 controls, surrogates, and the marks that turn the direction of writing around. */
	if (c < least[n] || c > 0x10ffff || c < 0xa0 || (c >= 0xd800 && c < 0xe000) || (c >= 0x202a && c <= 0x202e) ||
	    (c >= 0x2066 && c <= 0x2069))
		return 0;
	return n;
}

char *text_clean(const char *s)
{
	char *out = malloc(4 * strlen(s) + 1), *o = out;

	if (!out)
		return NULL;
	while (*s) {
		size_t n = utf8_printable((const unsigned char *)s);

		if (n) {
			memcpy(o, s, n);
			o += n;
			s += n;
		} else {
			o += sprintf(o, "\\x%02x", (unsigned char)*s++);
		}
	}
	*o = '\0';
	return out;
}

void text_put(FILE *f, const char *s)
{
	char *clean = text_clean(s);

	if (clean)
		fputs(clean, f);
	free(clean);
}

size_t text_width(const char *s)
{
	size_t n = 0;

	for (; *s; s++)
		n += ((unsigned char)*s >> 6) != 2;
	return n;
}

/* ".5": up to nine digits of a second's fraction; what comes behind them. */
static const char *parse_fraction(const char *s, int64_t *ret_ns)
{
	int64_t unit = 100000000;

	*ret_ns = 0;
	if (s[0] != '.' || s[1] < '0' || s[1] > '9')
		return s;
	for (s++; *s >= '0' && *s <= '9'; s++, unit /= 10)
		*ret_ns += (*s - '0') * unit;
	return s;
}

int text_time(const char *s, int64_t now_ns, int64_t *ret_ns)
{
	struct tm tm = {0};
	int64_t fraction = 0;
	const char *end;
	uint64_t v;

	if (strspn(s, "0123456789") == strlen(s)) {
		if (parse_u64(s, 0, INT64_MAX / 1000000000, &v) < 0)
			return -EINVAL;
		*ret_ns = (int64_t)v * 1000000000;
		return 0;
	}
	if (!strchr(s, '-')) {
		if (parse_duration(s, &v) < 0 || v > (uint64_t)now_ns)
			return -EINVAL;
		*ret_ns = now_ns - (int64_t)v;
		return 0;
	}
	end = strptime(s, "%Y-%m-%dT%H:%M:%S", &tm);
	if (end) {
		end = parse_fraction(end, &fraction);
	} else {
		tm = (struct tm){0};
		end = strptime(s, "%Y-%m-%d", &tm);
	}
	if (!end || (*end && !streq(end, "Z")) || tm.tm_year < 70)
		return -EINVAL;
	*ret_ns = (int64_t)timegm(&tm) * 1000000000 + fraction;
	return 0;
}

int64_t text_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

char *text_age(int64_t then_ns, int64_t now_ns, char buf[static 16])
{
	static const struct {
		int64_t seconds;
		char unit;
	} units[] = {{365 * 86400LL, 'y'}, {86400, 'd'}, {3600, 'h'}, {60, 'm'}, {1, 's'}};
	int64_t s = then_ns < now_ns ? (now_ns - then_ns) / 1000000000LL : 0;

	if (!then_ns)
		return strcpy(buf, "-");
	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		if (s >= units[i].seconds || i + 1 == ARRAY_SIZE(units)) {
			snprintf(buf, 16, "%lld%c", (long long)(s / units[i].seconds), units[i].unit);
			break;
		}
	}
	return buf;
}

void text_put_time(struct buf *b, int64_t ns)
{
	time_t t = (time_t)(ns / 1000000000);
	char text[64];
	struct tm tm;

	strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S +0000 UTC", gmtime_r(&t, &tm));
	buf_printf(b, "%s", text);
}

char *text_duration(uint64_t ns, char buf[static 16])
{
	if (ns < 10 * 1000000ULL)
		snprintf(buf, 16, "%.2fms", (double)ns / 1e6);
	else if (ns < 1000000000ULL)
		snprintf(buf, 16, "%.0fms", (double)ns / 1e6);
	else if (ns < 100 * 1000000000ULL)
		snprintf(buf, 16, "%.4gs", (double)ns / 1e9);
	else
		snprintf(buf, 16, "%llum%02llus", (unsigned long long)(ns / 60000000000ULL),
			 (unsigned long long)(ns / 1000000000ULL % 60));
	return buf;
}

int text_signal(const char *s)
{
	uint64_t n;

	if (parse_u64(s, 1, 64, &n) == 0)
		return (int)n;
	if (strncasecmp(s, "SIG", 3) == 0)
		s += 3;
	for (int i = 1; i < NSIG; i++) {
		const char *name = sigabbrev_np(i);

		if (name && strcasecmp(name, s) == 0)
			return i;
	}
	return -EINVAL;
}
