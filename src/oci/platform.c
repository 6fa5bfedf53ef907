/* SPDX-License-Identifier: Apache-2.0 */
/* Names and ranking of platforms. See platform.h. */
#include "oci/platform.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/util.h"

static const struct {
	const char *alias, *architecture, *variant;
} aliases[] = {
	{"x86_64", "amd64", ""},  {"x86-64", "amd64", ""},
	{"i386", "386", ""},	  {"i486", "386", ""},
	{"i586", "386", ""},	  {"i686", "386", ""},
	{"aarch64", "arm64", ""}, {"armhf", "arm", "v7"},
	{"armv7l", "arm", "v7"},  {"armv6l", "arm", "v6"},
	{"armel", "arm", "v6"},	  {"ppc64el", "ppc64le", ""},
	{"riscv", "riscv64", ""}, {"loongarch64", "loong64", ""},
};

static int set(struct platform *p, const char *os, const char *architecture, const char *variant)
{
	for (size_t i = 0; i < ARRAY_SIZE(aliases); i++)
		if (streq(architecture, aliases[i].alias)) {
			architecture = aliases[i].architecture;
			if (!*variant)
				variant = aliases[i].variant;
			break;
		}
	if (!*os || !*architecture || strlen(os) >= sizeof(p->os) || strlen(architecture) >= sizeof(p->architecture) ||
	    strlen(variant) >= sizeof(p->variant))
		return -EINVAL;
	strcpy(p->os, os);
	strcpy(p->architecture, architecture);
	strcpy(p->variant, variant);
	return 0;
}

int platform_parse(const char *s, struct platform *ret, struct sm_error *err)
{
	struct utsname u;
	char os[32] = "", architecture[32] = "", variant[32] = "";
	int used = 0;

	if (!s) {
		if (uname(&u) < 0)
			return error_sys(err, errno, "uname");
		return set(ret, "linux", u.machine, "") < 0
			       ? error_set(err, SM_ERROR_UNSUPPORTED, ENOTSUP, "unknown machine '%s'", u.machine)
			       : 0;
	}
	if (sscanf(s, "%31[a-z0-9_-]/%31[a-z0-9_-]%n/%31[a-z0-9_.-]%n", os, architecture, &used, variant, &used) < 2 ||
	    s[used] || set(ret, os, architecture, variant) < 0)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "'%s' is not a platform like linux/amd64", s);
	return 0;
}

/* The number in "v7", -1 where there is none. */
static int version_of(const char *variant)
{
	return variant[0] == 'v' && variant[1] >= '0' && variant[1] <= '9' && !variant[2] ? variant[1] - '0' : -1;
}

/* No variant means the architecture's usual one. */
static const char *usual(const char *architecture, const char *variant)
{
	if (*variant)
		return variant;
	return streq(architecture, "arm64")   ? "v8"
	       : streq(architecture, "arm")   ? "v7"
	       : streq(architecture, "amd64") ? "v1"
					      : "";
}

int platform_rank(const struct platform *want, const char *os, const char *architecture, const char *variant)
{
	struct platform have;
	const char *mine, *its;
	int m, v;

	if (set(&have, os, architecture, variant ? variant : "") < 0)
		return 0;
	if (!streq(want->os, have.os) || !streq(want->architecture, have.architecture))
		return 0;
	mine = usual(want->architecture, want->variant);
	its = usual(have.architecture, have.variant);
	if (streq(mine, its))
		return 100;
	m = version_of(mine);
	v = version_of(its);
	if (m < 0 || v < 0)
		return 1; /* an unknown variant is better than none at all */
	/* A processor runs what was built for an older one, the nearest best. amd64's levels v2 to v4 are not asked for
	 * by default, but a v2 image is all that some indexes have and practically every processor runs it. */
	if (v < m)
		return 90 - (m - v);
	return streq(want->architecture, "amd64") && !*want->variant ? 50 - v : 0;
}
