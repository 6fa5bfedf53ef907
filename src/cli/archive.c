/* SPDX-License-Identifier: Apache-2.0 */
/* Tells image layouts and archives apart by what they hold. See archive.h. */
#include "cli/archive.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"

#define MAX_MEMBERS 100000

bool archive_has_prefix(const char *source)
{
	static const char *const prefixes[] = {"oci:", "oci-archive:", "docker-archive:", "dir:"};

	for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++)
		if (str_starts(source, prefixes[i]))
			return true;
	return streq(source, "-");
}

/* Size of a ustar member: octal digits, or base 256 when the top bit is set. UINT64_MAX when it is neither. */
static uint64_t member_size(const unsigned char *h)
{
	const unsigned char *p = h + 124;
	uint64_t v = 0;

	if (p[0] & 0x80) {
		for (int i = 4; i < 12; i++)
			v = v << 8 | p[i];
		return v >> 62 ? UINT64_MAX : v;
	}
	for (int i = 0; i < 12 && p[i] && p[i] != ' '; i++) {
		if (p[i] < '0' || p[i] > '7')
			return UINT64_MAX;
		v = v << 3 | (p[i] - '0');
	}
	return v;
}

/* An archive with an "oci-layout" and no "manifest.json" is an OCI one; both is what docker save writes now. A
 * compressed one cannot be looked into here: the loader can. */
static bool is_oci_archive(int fd)
{
	unsigned char h[512];
	off_t off = 0;
	bool oci = false;

	for (int i = 0; i < MAX_MEMBERS && pread_full(fd, h, sizeof(h), off) == (ssize_t)sizeof(h) && h[0]; i++) {
		uint64_t size = member_size(h);
		const char *name = (const char *)h;

		if (size > INT64_MAX / 4)
			return false;
		if (str_starts(name, "./"))
			name += 2;
		if (streq(name, "manifest.json"))
			return false;
		oci |= streq(name, "oci-layout");
		off += 512 + (off_t)align_up(size, 512);
	}
	return oci;
}

int archive_source(const char *path, char **ret, struct sm_error *err)
{
	const char *kind = "docker-archive";
	_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return error_sys(err, errno, "%s", path);
	if (S_ISDIR(st.st_mode))
		kind = faccessat(fd, "oci-layout", F_OK, 0) == 0 ? "oci" : "dir";
	else if (is_oci_archive(fd))
		kind = "oci-archive";
	if (asprintf(ret, "%s:%s", kind, path) < 0)
		return error_sys(err, ENOMEM, "%s", path);
	return 0;
}
