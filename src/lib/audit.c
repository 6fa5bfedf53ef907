/* SPDX-License-Identifier: Apache-2.0 */
/* The file that a VM's monitor writes down in what the guest does to files of the host (vmm/share_audit.c). */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "lib/lib.h"

/* Made here, on the host's side, so that what is wrong with it is told at once. */
static int make(const char *path, struct sm_error *err)
{
	_fd_ int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return error_sys(err, errno, "audit file %s", path);
	return S_ISREG(st.st_mode)
		       ? 0
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
	int e;

	free(r->audit);
	r->audit = NULL;
	if (!o->audit)
		return 0;
	e = make(o->audit, err);
	if (e < 0)
		return e;
	r->audit = realpath(o->audit, NULL);
	return r->audit ? check_mounts(r, err) : error_sys(err, errno, "audit file %s", o->audit);
}
