/* SPDX-License-Identifier: Apache-2.0 */
/* Diffs: what they lie over, and what may not be removed since they do. See vmsnap.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/util.h"
#include "lib/vmsnap.h"

/* The parent of one as it is now. A descriptor; *ret is to be freed. */
static int open_parent(int snapshots, const char *name, const struct vmsnap *m, bool verify, struct vmsnap *ret,
		       struct sm_error *err)
{
	const char *parent = m->parent.name;
	struct sm_error why = {0};
	_fd_ int dir = vmsnap_open(snapshots, parent, ret, &why);
	uint64_t allocated = 0;
	int r = 0;

	if (dir < 0)
		return error_set(err, why.kind, why.code, "snapshot %s is a diff of %s: %s", name, parent, why.message);
	if (ret->created_ns != m->parent.created_ns || !streq(ret->memory_sum, m->parent_sum))
		r = error_set(err, SM_ERROR_CORRUPT, EBADMSG,
			      "snapshot %s is a diff of %s, and what has this name now is another one", name, parent);
	else if (ret->depth + 1 != m->depth || ret->memory != m->memory || ret->cpus != m->cpus ||
		 ret->window != m->window)
		r = error_set(err, SM_ERROR_CORRUPT, EBADMSG,
			      "snapshot %s is a diff of %s, and their descriptions do not fit together", name, parent);
	else if (vmsnap_check_memory(dir, parent, ret, verify, &allocated, &why) < 0)
		r = error_set(err, why.kind, why.code, "snapshot %s is a diff of %s: %s", name, parent, why.message);
	if (r < 0)
		vmsnap_done(ret);
	return r < 0 ? r : TAKE_FD(dir);
}

/* One more below all others. */
static int put_below(char **under, const char *name, const char *file)
{
	char *more;

	if (asprintf(&more, "../%s/%s%s%s", name, file, *under ? ":" : "", *under ? *under : "") < 0)
		return -ENOMEM;
	free(*under);
	*under = more;
	return 0;
}

/* m is freed, or becomes the parent, whose name is put into `name`. */
static int climb(int snapshots, char name[static VM_NAME_MAX + 1], struct vmsnap *m, bool verify, char **under,
		 struct sm_error *err)
{
	struct vmsnap up;
	int dir = open_parent(snapshots, name, m, verify, &up, err);

	if (dir < 0) {
		vmsnap_done(m);
		return dir;
	}
	fd_close(dir);
	memcpy(name, m->parent.name, sizeof(m->parent.name));
	vmsnap_done(m);
	*m = up;
	return put_below(under, name, "memory") < 0 ? error_sys(err, ENOMEM, "snapshot %s", name) : 0;
}

/* What is needed of a description here, in memory of its own. */
static struct vmsnap parentage(const struct vmsnap *m)
{
	struct vmsnap copy = *m;

	copy.image = copy.image_id = NULL;
	copy.layers = copy.volumes = copy.volume_tops = NULL;
	return copy;
}

int vmsnap_chain(int snapshots, const char *name, const struct vmsnap *m, bool verify, char **ret, struct sm_error *err)
{
	struct vmsnap at = parentage(m);
	char here[VM_NAME_MAX + 1];
	_free_ char *under = NULL;
	int r = 0;

	snprintf(here, sizeof(here), "%s", name);
	while (r == 0 && at.depth && !at.base_file[0])
		r = climb(snapshots, here, &at, verify, &under, err);
	if (r == 0 && at.base_file[0] && put_below(&under, here, "base") < 0)
		r = error_sys(err, ENOMEM, "snapshot %s", name);
	vmsnap_done(&at);
	if (r == 0 && ret)
		*ret = TAKE_PTR(under);
	return r;
}

/* ------------------------------------------------------------------------------------------ making */

static int gone(const struct vm_origin *origin, struct sm_error *err)
{
	return error_set(err, SM_ERROR_UNSUPPORTED, EOPNOTSUPP,
			 "the snapshot %s that it started from is not there any more, and a diff would need it",
			 origin->name);
}

static int over_base(int snapshots, const struct vm_origin *origin, int dir, struct vmsnap *m, struct sm_error *err)
{
	_fd_ int base = openat(snapshots, origin->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	struct base_info info = {0};
	uint64_t allocated = 0;
	bool same;
	int r;

	if (base < 0 || base_info_load(snapshots, origin->name, &info, NULL) < 0)
		return gone(origin, err);
	same = info.created_ns == origin->created_ns && info.whole;
	base_info_done(&info);
	if (!same)
		return gone(origin, err);
	r = linkat(base, "memory", dir, "base", 0) < 0 ? -errno : 0;
	r = r < 0 ? r : snapshot_identity(dir, "base", true, m->base_file, &allocated);
	r = r < 0 ? r : memsum_file(dir, "base", m->base_sum);
	if (r < 0)
		return error_sys(err, -r, "share the memory of %s", origin->name);
	memcpy(m->parent_sum, m->base_sum, sizeof(m->parent_sum));
	m->depth = 1;
	return 0;
}

static int over_vm(int snapshots, const struct vm_origin *origin, struct vmsnap *m, struct sm_error *err)
{
	struct vmsnap parent;
	_fd_ int dir = vmsnap_open(snapshots, origin->name, &parent, NULL);
	uint64_t allocated = 0;
	int r;

	if (dir < 0)
		return gone(origin, err);
	r = parent.created_ns == origin->created_ns ? 0 : gone(origin, err);
	if (r == 0 && parent.depth == VMSNAP_MAX_DEPTH)
		r = error_set(err, SM_ERROR_LIMIT, E2BIG,
			      "the snapshot %s that it started from is a diff over %d others, and more cannot be: save "
			      "it whole",
			      origin->name, VMSNAP_MAX_DEPTH);
	r = r < 0 ? r : vmsnap_check_memory(dir, origin->name, &parent, true, &allocated, err);
	r = r < 0 ? r : vmsnap_chain(snapshots, origin->name, &parent, true, NULL, err);
	memcpy(m->parent_sum, parent.memory_sum, sizeof(m->parent_sum));
	m->depth = parent.depth + 1;
	vmsnap_done(&parent);
	return r;
}

int vmsnap_over(int snapshots, const struct vm_origin *origin, int dir, struct vmsnap *m, struct sm_error *err)
{
	if (!origin->name[0])
		return error_set(err, SM_ERROR_UNSUPPORTED, EOPNOTSUPP,
				 "there is nothing that a diff could be of: it booted, or it was suspended when the "
				 "files that its memory came from had been removed");
	m->parent = *origin;
	return str_starts(origin->name, "base-") ? over_base(snapshots, origin, dir, m, err)
						 : over_vm(snapshots, origin, m, err);
}

/* ---------------------------------------------------------------------------------------- removing */

static bool is_diff_of(int snapshots, const char *name, const char *parent)
{
	struct vmsnap m;
	_fd_ int dir = vmsnap_open(snapshots, name, &m, NULL);
	bool is;

	if (dir < 0)
		return false;
	is = m.depth && streq(m.parent.name, parent);
	vmsnap_done(&m);
	return is;
}

int vmsnap_unneeded(int snapshots, const char *name, struct sm_error *err)
{
	_cleanup_(buf_done) struct buf list = {0};
	char **names;

	if (!vmsnap_name_valid(name))
		return 0;
	names = vmsnap_names(snapshots);
	for (char **n = names; n && *n; n++)
		if (is_diff_of(snapshots, *n, name))
			buf_printf(&list, "%s%s", list.len ? ", " : "", *n);
	if (!names || list.error) {
		strv_free(names);
		return error_sys(err, ENOMEM, "snapshot %s", name);
	}
	strv_free(names);
	return list.len ? error_set(err, SM_ERROR_STATE, EBUSY, "snapshot %s has diffs, which need it: %.*s", name,
				    (int)list.len, (const char *)list.data)
			: 0;
}
