/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Landlock by number: there is no library to it. See landlock.h and the kernel's userspace-api/landlock.rst.
 *
 * What it does not decide, in any version so far: looking at attributes, and changing modes, owners, times and extended
 * attributes of files that the process could change anyway. Truncation it decides from version 3 on.
 */
#include "vmm/landlock.h"

#include <errno.h>
#include <linux/landlock.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"

#define LEAST_VERSION 2

/* As bits, so that headers older than the kernel do. */
#define RIGHT_WRITE_FILE (1ULL << 1)
#define RIGHT_READ_FILE (1ULL << 2)
#define RIGHT_READ_DIR (1ULL << 3)
#define RIGHT_REMOVE_DIR (1ULL << 4)
#define RIGHT_REMOVE_FILE (1ULL << 5)
#define RIGHT_MAKE_CHAR (1ULL << 6)
#define RIGHT_MAKE_DIR (1ULL << 7)
#define RIGHT_MAKE_REG (1ULL << 8)
#define RIGHT_MAKE_SOCK (1ULL << 9)
#define RIGHT_MAKE_FIFO (1ULL << 10)
#define RIGHT_MAKE_BLOCK (1ULL << 11)
#define RIGHT_MAKE_SYM (1ULL << 12)
#define RIGHT_REFER (1ULL << 13)     /* version 2 */
#define RIGHT_TRUNCATE (1ULL << 14)  /* version 3 */
#define RIGHT_IOCTL_DEV (1ULL << 15) /* version 5 */

static uint64_t known_rights(long version)
{
	uint64_t rights = (RIGHT_REFER << 1) - 1;

	rights |= version >= 3 ? RIGHT_TRUNCATE : 0;
	return rights | (version >= 5 ? RIGHT_IOCTL_DEV : 0);
}

static uint64_t rights_of(const struct landlock_share *s, bool directory)
{
	uint64_t rights = RIGHT_READ_FILE;

	if (!s->read_only)
		rights |= RIGHT_WRITE_FILE | RIGHT_TRUNCATE;
	if (!directory)
		return rights;
	rights |= RIGHT_READ_DIR;
	if (!s->read_only)
		rights |= RIGHT_REMOVE_DIR | RIGHT_REMOVE_FILE | RIGHT_MAKE_DIR | RIGHT_MAKE_REG | RIGHT_MAKE_SOCK |
			  RIGHT_MAKE_FIFO | RIGHT_MAKE_SYM | RIGHT_REFER;
	if (!s->read_only && s->devices)
		rights |= RIGHT_MAKE_CHAR | RIGHT_MAKE_BLOCK;
	return rights;
}

static int add_share(int ruleset, const struct landlock_share *s, uint64_t known)
{
	struct landlock_path_beneath_attr beneath = {.parent_fd = s->fd};
	struct stat st;

	if (fstat(s->fd, &st) < 0)
		return -errno;
	beneath.allowed_access = rights_of(s, S_ISDIR(st.st_mode)) & known;
	return syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0) < 0 ? -errno : 0;
}

int landlock_confine(const struct landlock_share *shares, unsigned count, struct sm_error *err)
{
	long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	uint64_t known = known_rights(version);
	_fd_ int ruleset = -1;

	if (version < LEAST_VERSION)
		return error_set(
			err, SM_ERROR_HOST, EOPNOTSUPP,
			"directories cannot be shared: this kernel has no Landlock to confine the server with "
			"(Linux 5.19, CONFIG_SECURITY_LANDLOCK, and \"landlock\" in lsm= where that is given)");
	ruleset = (int)syscall(SYS_landlock_create_ruleset, &known, sizeof(known), 0);
	if (ruleset < 0)
		return error_sys(err, errno, "Landlock");
	for (unsigned i = 0; i < count; i++) {
		int r = add_share(ruleset, &shares[i], known);

		if (r < 0)
			return error_sys(err, -r, "Landlock: shared directory %u", i);
	}
	if (syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
		return error_sys(err, errno, "Landlock");
	return 0;
}
