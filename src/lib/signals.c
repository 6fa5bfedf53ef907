/* SPDX-License-Identifier: Apache-2.0 */
/* Signal names, as images and users write them. Guests are Linux on x86 or arm64: both have these numbers. */
#include <errno.h>
#include <stdint.h>
#include <strings.h>

#include "base/util.h"
#include "lib/lib.h"

static const char *const names[] = {
	"",	"HUP",	"INT",	"QUIT", "ILL",	  "TRAP",   "ABRT",  "BUS",  "FPE",  "KILL", "USR1",
	"SEGV", "USR2", "PIPE", "ALRM", "TERM",	  "STKFLT", "CHLD",  "CONT", "STOP", "TSTP", "TTIN",
	"TTOU", "URG",	"XCPU", "XFSZ", "VTALRM", "PROF",   "WINCH", "IO",   "PWR",  "SYS",
};

int signal_parse(const char *s)
{
	uint64_t n;

	if (parse_u64(s, 1, 64, &n) == 0)
		return (int)n;
	if (strncasecmp(s, "SIG", 3) == 0)
		s += 3;
	for (unsigned i = 1; i < ARRAY_SIZE(names); i++)
		if (strcasecmp(s, names[i]) == 0)
			return (int)i;
	/* RTMIN+n and RTMAX-n with the C library's view of the range, as images use them (systemd: RTMIN+3). */
	if (strncasecmp(s, "RTMIN", 5) == 0 && (!s[5] || s[5] == '+'))
		return !s[5] ? 34 : parse_u64(s + 6, 0, 30, &n) == 0 ? 34 + (int)n : -EINVAL;
	if (strncasecmp(s, "RTMAX", 5) == 0 && (!s[5] || s[5] == '-'))
		return !s[5] ? 64 : parse_u64(s + 6, 0, 30, &n) == 0 ? 64 - (int)n : -EINVAL;
	return -EINVAL;
}
