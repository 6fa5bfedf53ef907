/* SPDX-License-Identifier: Apache-2.0 */
/* sm_snapshot_list and what else programs do with snapshots that are there. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "lib/vmsnap.h"

#define MIN_PREFIX 4

/* The public part first: its address is the handle. */
struct snapshot_info {
	struct sm_snapshot_info pub;
	struct base_info base;
	struct vmsnap vm;
	char *name;
};

static void info_free(struct snapshot_info *s)
{
	base_info_done(&s->base);
	vmsnap_done(&s->vm);
	free(s->name);
	free(s);
}

/* One whose description cannot be read fits nothing, and is there to be removed. */
static struct snapshot_info *info_new(struct sm_client *c, int snapshots, const char *name)
{
	struct snapshot_info *s = calloc(1, sizeof(*s));
	struct base_info *b;

	if (!s || !(s->name = strdup(name))) {
		free(s);
		return NULL;
	}
	b = &s->base;
	if (base_info_load(snapshots, name, b, NULL) < 0)
		*b = (struct base_info){0};
	s->pub = (struct sm_snapshot_info){.name = s->name,
					   .kind = SM_SNAPSHOT_BASE,
					   .memory = b->memory,
					   .cpus = b->cpus,
					   .allocated_size = b->allocated,
					   .created_ns = b->created_ns,
					   .used_ns = b->used_ns,
					   .kernel = b->kernel ? b->kernel : "",
					   .image = "",
					   .parent = "",
					   .fits = base_fits(c, b)};
	return s;
}

static struct snapshot_info *info_of_vm(int snapshots, const char *name)
{
	struct snapshot_info *s = calloc(1, sizeof(*s));
	uint64_t allocated = 0;
	_fd_ int dir = -1;
	struct stat st;

	if (!s || !(s->name = strdup(name))) {
		free(s);
		return NULL;
	}
	dir = vmsnap_open(snapshots, name, &s->vm, NULL);
	s->pub = (struct sm_snapshot_info){.name = s->name,
					   .kind = SM_SNAPSHOT_VM,
					   .memory = s->vm.memory,
					   .cpus = s->vm.cpus,
					   .created_ns = s->vm.created_ns,
					   .kernel = "",
					   .image = s->vm.image ? s->vm.image : "",
					   .fits = dir >= 0 &&
						   vmsnap_check(dir, name, &s->vm, false, &allocated, NULL) == 0 &&
						   vmsnap_chain(snapshots, name, &s->vm, false, NULL, NULL) == 0,
					   .parent = s->vm.parent.name};
	s->pub.allocated_size = allocated;
	if (fstatat(snapshots, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		s->pub.used_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
	return s;
}

/* What a base's removal does not give back. */
static uint64_t info_shared(const struct sm_snapshot_info *s)
{
	return CONTAINER_OF(s, const struct snapshot_info, pub)->base.shared;
}

static int used_last_first(const void *a, const void *b)
{
	const struct sm_snapshot_info *x = *(struct sm_snapshot_info *const *)a,
				      *y = *(struct sm_snapshot_info *const *)b;

	return (x->used_ns < y->used_ns) - (x->used_ns > y->used_ns);
}

int sm_snapshot_list(struct sm_client *client, struct sm_snapshot_info ***ret, size_t *ret_count, struct sm_error *err)
{
	_fd_ int snapshots = base_open_dir(client, err);
	struct sm_snapshot_info **list = NULL;
	char **names, **vms;
	size_t count = 0;

	if (snapshots < 0)
		return snapshots;
	names = base_names(snapshots);
	vms = vmsnap_names(snapshots);
	if (names && vms)
		list = calloc(strv_len((const char *const *)names) + strv_len((const char *const *)vms) + 1,
			      sizeof(struct sm_snapshot_info *));
	for (char **n = vms; list && *n; n++) {
		struct snapshot_info *s = info_of_vm(snapshots, *n);

		if (s)
			list[count++] = &s->pub;
	}
	strv_free(vms);
	for (char **n = names; list && *n; n++) {
		struct snapshot_info *s = info_new(client, snapshots, *n);

		if (s)
			list[count++] = &s->pub;
	}
	strv_free(names);
	if (!list)
		return error_sys(err, ENOMEM, "list snapshots");
	qsort(list, count, sizeof(struct sm_snapshot_info *), used_last_first);
	*ret = list;
	*ret_count = count;
	return 0;
}

void sm_snapshot_list_free(struct sm_snapshot_info **list, size_t count)
{
	for (size_t i = 0; i < count; i++)
		info_free(CONTAINER_OF(list[i], struct snapshot_info, pub));
	free(list);
}

/* The whole name of the one that is meant, malloc'ed. */
static int resolve(int snapshots, const char *ref, char **ret, struct sm_error *err)
{
	char **names = vmsnap_name_valid(ref) && faccessat(snapshots, ref, F_OK, AT_SYMLINK_NOFOLLOW) == 0
			       ? NULL
			       : base_names(snapshots);
	const char *key = str_starts(ref, "base-") ? ref + 5 : ref;
	bool whole = !names && vmsnap_name_valid(ref);
	bool usable = strlen(key) >= MIN_PREFIX && strspn(key, "0123456789abcdef") == strlen(key);
	char *found = NULL;
	unsigned count = 0;

	for (char **n = names; usable && n && *n; n++)
		if (str_starts(*n + 5, key)) {
			free(found);
			found = strdup(*n);
			count++;
		}
	strv_free(names);
	if (whole && (found = strdup(ref)))
		count = 1;
	if (count == 1 && found) {
		*ret = found;
		return 0;
	}
	free(found);
	if (count > 1)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "%s is the beginning of %u snapshots' keys", ref,
				 count);
	return error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "no such snapshot: %s", ref);
}

int sm_snapshot_remove(struct sm_client *client, const char *name, struct sm_error *err)
{
	_fd_ int snapshots = base_open_dir(client, err);
	_fd_ int lock = snapshots < 0 ? -1 : base_lock(snapshots, NULL, err);
	_free_ char *whole = NULL;
	int r;

	if (snapshots < 0 || lock < 0)
		return MIN(snapshots, lock);
	r = resolve(snapshots, name, &whole, err);
	r = r < 0 ? r : vmsnap_unneeded(snapshots, whole, err);
	return r < 0 ? r : base_remove_locked(snapshots, whole, err);
}

int sm_snapshot_prune(struct sm_client *client, bool all, unsigned *ret_count, uint64_t *ret_bytes,
		      struct sm_error *err)
{
	_fd_ int snapshots = base_open_dir(client, err);
	_fd_ int lock = snapshots < 0 ? -1 : base_lock(snapshots, NULL, err);
	struct sm_snapshot_info **list;
	unsigned removed = 0;
	uint64_t bytes = 0;
	size_t count;
	int r;

	if (snapshots < 0 || lock < 0)
		return MIN(snapshots, lock);
	base_sweep_locked(snapshots, true);
	r = sm_snapshot_list(client, &list, &count, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < count && r == 0; i++) {
		if (list[i]->kind != SM_SNAPSHOT_BASE || (!all && list[i]->fits))
			continue;
		r = base_remove_locked(snapshots, list[i]->name, err);
		removed += r == 0;
		bytes += r == 0 ? list[i]->allocated_size - info_shared(list[i]) : 0;
	}
	sm_snapshot_list_free(list, count);
	if (r == 0 && ret_count)
		*ret_count = removed;
	if (r == 0 && ret_bytes)
		*ret_bytes = bytes;
	return r;
}
