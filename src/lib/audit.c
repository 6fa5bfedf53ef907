/* SPDX-License-Identifier: Apache-2.0 */
/* The file in which it is written down what is done to files of the host (fuse/auditlog.c): by a VM, in its monitor, or
 * through a mount on this host. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "lib/lib.h"

/* Made here, on the host's side, so that what is wrong with it is told at once. A descriptor. */
static int make(const char *path, struct sm_error *err)
{
	_fd_ int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return error_sys(err, errno, "audit file %s", path);
	return S_ISREG(st.st_mode)
		       ? TAKE_FD(fd)
		       : error_set(err, SM_ERROR_INVALID, EINVAL, "audit file %s: not a regular file", path);
}

static bool is_beneath(const char *path, const char *dir)
{
	_free_ char *real = realpath(dir, NULL);
	size_t len = real ? strlen(real) : 0;

	if (!real)
		return false;
	return strncmp(path, real, len) == 0 && (path[len] == '/' || !path[len] || len == 1);
}

/* It is to be a witness that the guest cannot get at. */
static int check_mounts(const struct vm_record *r, struct sm_error *err)
{
	bool any = false;

	for (unsigned i = 0; i < r->num_mounts; i++) {
		const struct vm_mount *m = &r->mounts[i];

		if (m->volume)
			continue;
		any = true;
		if (m->served || r->share_group)
			return error_set(err, SM_ERROR_UNSUPPORTED, EOPNOTSUPP,
					 "no audit of %s: another process than the VM's monitor serves it", m->target);
		if (!m->read_only && !m->cow && is_beneath(r->audit, m->source))
			return error_set(err, SM_ERROR_INVALID, EINVAL,
					 "audit file %s lies in a directory that the VM may write to: %s", r->audit,
					 m->source);
	}
	return any ? 0
		   : error_set(err, SM_ERROR_INVALID, EINVAL,
			       "an audit tells of directories of the host that the VM has, and it has none");
}

int audit_from_options(struct vm_record *r, const struct sm_vm_options *o, struct sm_error *err)
{
	_fd_ int fd = -1;

	free(r->audit);
	r->audit = NULL;
	if (!o->audit)
		return 0;
	fd = make(o->audit, err);
	if (fd < 0)
		return fd;
	r->audit = realpath(o->audit, NULL);
	return r->audit ? check_mounts(r, err) : error_sys(err, errno, "audit file %s", o->audit);
}

int audit_of_mount(const char *path, const char *source, bool read_only, struct sm_error *err)
{
	_fd_ int fd = make(path, err);
	_free_ char *real = fd < 0 ? NULL : realpath(path, NULL);

	if (fd < 0)
		return fd;
	if (!real)
		return error_sys(err, errno, "audit file %s", path);
	if (!read_only && is_beneath(real, source))
		return error_set(err, SM_ERROR_INVALID, EINVAL,
				 "audit file %s lies in the directory that the mount lets be written to: %s", real,
				 source);
	return TAKE_FD(fd);
}
