/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directories of the host in a VM, and volumes: from what the caller asked for to what the record holds. Here, on the
 * host, sources are made absolute and looked at; what a link on their way leads to is decided at each start, by the
 * keeper.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "fuse/posix.h"
#include "lib/volume.h"

/* The path without "." and empty parts, and with ".." taken as the name before it; NULL: no memory. */
static char *clean_path(const char *path)
{
	char *out = malloc(strlen(path) + 2), *end = out;

	if (!out)
		return NULL;
	while (*path) {
		size_t n = strcspn(path, "/");

		if (n == 2 && memcmp(path, "..", 2) == 0) {
			while (end > out && *--end != '/')
				continue;
		} else if (n && !(n == 1 && *path == '.')) {
			*end++ = '/';
			memcpy(end, path, n);
			end += n;
		}
		path += n + (path[n] == '/');
	}
	if (end == out)
		*end++ = '/';
	*end = '\0';
	return out;
}

static int set_target(struct vm_mount *m, const char *target, struct sm_error *err)
{
	if (!target || target[0] != '/')
		return error_set(err, SM_ERROR_INVALID, EINVAL, "mount target \"%s\" is not absolute",
				 target ? target : "");
	m->target = clean_path(target);
	if (!m->target)
		return error_sys(err, ENOMEM, "mount on %s", target);
	if (streq(m->target, "/"))
		return error_set(err, SM_ERROR_INVALID, EINVAL, "nothing can be mounted on / of the VM");
	if (streq(m->target, "/proc") || str_starts(m->target, "/proc/"))
		return error_set(err, SM_ERROR_INVALID, EINVAL, "nothing can be mounted in /proc of the VM: %s",
				 m->target);
	return 0;
}

/* The last part of a relative source may be a link; the directories before it are where the caller stands. */
static int set_source(struct vm_mount *m, const char *source, struct sm_error *err)
{
	_free_ char *cwd = NULL;

	if (!source || !*source)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "mount on %s: no source given", m->target);
	if (source[0] == '/') {
		m->source = strdup(source);
	} else {
		cwd = getcwd(NULL, 0);
		if (!cwd)
			return error_sys(err, errno, "working directory");
		if (asprintf(&m->source, "%s/%s", streq(cwd, "/") ? "" : cwd, source) < 0)
			m->source = NULL;
	}
	return m->source ? 0 : error_sys(err, ENOMEM, "mount %s", source);
}

static int missing_source(const struct vm_mount *m, const struct sm_mount *asked, struct sm_error *err)
{
	if (!asked->create || asked->cow || asked->read_only)
		return error_set(
			err, SM_ERROR_NOT_FOUND, ENOENT,
			"cannot share %s: no such file or directory; only one that the VM may write to is made "
			"(neither ro nor cow)",
			m->source);
	if (mkdir(m->source, 0755) < 0)
		return error_set(err, SM_ERROR_NOT_FOUND, errno, "cannot share %s: it is missing, and making it: %s",
				 m->source, strerror(errno));
	return 0;
}

static int check_source(const struct vm_mount *m, const struct sm_mount *asked, struct sm_error *err)
{
	struct stat st;

	if (stat(m->source, &st) < 0) {
		if (errno == ENOENT)
			return missing_source(m, asked, err);
		return error_set(err, SM_ERROR_INVALID, errno, "cannot share %s: %s", m->source, strerror(errno));
	}
	if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
		return error_set(err, SM_ERROR_INVALID, EINVAL, "cannot share %s: neither a directory nor a file",
				 m->source);
	if (m->cow && !S_ISDIR(st.st_mode))
		return error_set(err, SM_ERROR_INVALID, ENOTDIR, "cannot share %s with cow: it is no directory",
				 m->source);
	return 0;
}

/* Who serves there is found out when the VM starts. */
static int set_served(struct vm_mount *m, const struct sm_mount *asked, struct sm_error *err)
{
	if (asked->cow || asked->dax || asked->direct || asked->ids || asked->symlinks || asked->xattrs || asked->cache)
		return error_set(err, SM_ERROR_INVALID, EINVAL,
				 "file system on %s: no options of the host's directories but read-only", m->source);
	m->served = true;
	m->read_only = asked->read_only;
	return 0;
}

/* Whether there is one, and who has it, is found out when the VM starts (volume_use.c). */
static int set_volume(struct sm_client *c, struct vm_record *r, struct vm_mount *m, const struct sm_mount *asked,
		      struct sm_error *err)
{
	char name[33];

	if (asked->source || asked->served || asked->cow || asked->dax || asked->direct)
		return error_set(err, SM_ERROR_INVALID, EINVAL,
				 "volume on %s: neither a source nor options of the host's directories", m->target);
	m->anonymous = !*asked->volume;
	if (m->anonymous && random_hex(name, 16) < 0)
		return error_sys(err, EIO, "random numbers");
	m->read_only = asked->read_only;
	m->no_copy = asked->no_copy;
	m->volume = strdup(m->anonymous ? name : asked->volume);
	if (!m->volume)
		return error_sys(err, ENOMEM, "volume on %s", m->target);
	if (!vm_name_valid(m->volume))
		return error_set(err, SM_ERROR_INVALID, EINVAL,
				 "\"%s\" is no name for a volume: letters, digits, _ . -, at most %d, beginning with a "
				 "letter or digit; a directory of the host is written with a slash, ./%s",
				 m->volume, VM_NAME_MAX, m->volume);
	m->source = volume_disk(c, m->volume);
	if (!m->source)
		return error_sys(err, ENOMEM, "volume %s", m->volume);
	for (struct vm_mount *o = r->mounts; o < m; o++)
		if (o->volume && streq(o->volume, m->volume))
			return error_set(err, SM_ERROR_INVALID, EINVAL, "volume %s can be mounted once in a VM",
					 m->volume);
	if (vm_volumes(r, false) > VM_MAX_VOLUMES)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "a VM has %d volumes at most", VM_MAX_VOLUMES);
	return 0;
}

static int add(struct sm_client *c, struct vm_record *r, const struct sm_mount *asked, struct sm_error *err)
{
	struct vm_mount *m = &r->mounts[r->num_mounts++];
	int e = set_target(m, asked->target, err);

	if (e == 0 && asked->volume)
		return set_volume(c, r, m, asked, err);
	if (e == 0)
		e = set_source(m, asked->source, err);
	if (e < 0 || asked->served)
		return e < 0 ? e : set_served(m, asked, err);
	m->cow = asked->cow;
	m->read_only = asked->read_only;
	m->ids = asked->ids;
	m->symlinks = asked->symlinks;
	m->cache = asked->cache;
	m->xattrs = asked->xattrs;
	m->direct = asked->direct;
	m->dax = asked->dax;
	if ((unsigned)m->ids > SM_FS_IDS_RANGES || (unsigned)m->symlinks > SM_FS_SYMLINKS_FOLLOW ||
	    (unsigned)m->cache > SM_FS_CACHE_ALWAYS || (unsigned)m->xattrs > SM_FS_XATTRS_MAPPED)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "mount %s: an option has no such value", m->source);
	if (m->ids == SM_FS_IDS_RANGES) {
		if (fuse_posix_check_ranges(asked->id_ranges) < 0)
			return error_set(err, SM_ERROR_INVALID, EINVAL,
					 "mount %s: ids are given as u:PEER:HOST:COUNT,g:PEER:HOST:COUNT", m->source);
		m->id_ranges = strdup(asked->id_ranges);
		if (!m->id_ranges)
			return error_sys(err, ENOMEM, "mount %s", m->source);
	}
	return check_source(m, asked, err);
}

static unsigned depth(const char *path)
{
	unsigned n = 0;

	for (; *path; path++)
		n += *path == '/';
	return n;
}

/* Outer ones first, else as they were given; few enough for the simplest sort that keeps equal ones in order. */
static void sort(struct vm_mount *v, unsigned n)
{
	for (unsigned i = 1; i < n; i++) {
		struct vm_mount m = v[i];
		unsigned at = i;

		for (; at > 0 && depth(v[at - 1].target) > depth(m.target); at--)
			v[at] = v[at - 1];
		v[at] = m;
	}
}

int mounts_from_options(struct sm_client *c, struct vm_record *r, const struct sm_vm_options *o, struct sm_error *err)
{
	const char *at = (const char *)o->mounts;

	if (o->share_group && !vm_name_valid(o->share_group))
		return error_set(err, SM_ERROR_INVALID, EINVAL,
				 "\"%s\" is no name for a share group: letters, digits, _ . -, at most %d, beginning "
				 "with a letter or digit",
				 o->share_group, VM_NAME_MAX);
	if (!o->num_mounts)
		return 0;
	r->share_group = o->share_group ? strdup(o->share_group) : NULL;
	if (o->share_group && !r->share_group)
		return error_sys(err, ENOMEM, "mounts");
	if (o->num_mounts > VM_MAX_MOUNTS)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "%zu mounts are too many: at most %d", o->num_mounts,
				 VM_MAX_MOUNTS);
	r->mounts = calloc(o->num_mounts, sizeof(*r->mounts));
	if (!r->mounts)
		return error_sys(err, ENOMEM, "mounts");
	for (size_t i = 0; i < o->num_mounts; i++, at += o->mounts[0].size) {
		struct sm_mount one = OPTIONS_GET(struct sm_mount, (const struct sm_mount *)(const void *)at);
		int e = add(c, r, &one, err);

		if (e < 0)
			return e;
		for (size_t k = 0; k < i; k++)
			if (streq(r->mounts[k].target, r->mounts[i].target))
				return error_set(err, SM_ERROR_INVALID, EINVAL, "two mounts on %s",
						 r->mounts[i].target);
	}
	sort(r->mounts, r->num_mounts);
	return 0;
}

/* What the options left out is as it was. What they say has to be so already: the guest knows it so; all but that it
 * can be denied to write. */
static int check_same(const struct vm_mount *was, const struct vm_mount *now, struct sm_error *err)
{
	if (!now->volume && !was->volume && now->cow == was->cow && (!now->ids || now->ids == was->ids) &&
	    (!now->id_ranges || (was->id_ranges && streq(now->id_ranges, was->id_ranges))) &&
	    (!now->symlinks || now->symlinks == was->symlinks) && (!now->cache || now->cache == was->cache) &&
	    (!now->xattrs || now->xattrs == was->xattrs) && (!now->direct || was->direct) && now->dax == was->dax)
		return 0;
	return error_set(err, SM_ERROR_INVALID, EINVAL,
			 "the mount on %s stays what it was, save its source and that it may become read-only%s",
			 was->target, was->cow ? ": it has the option cow" : "");
}

static struct vm_mount *find_target(struct vm_record *r, const char *target)
{
	for (unsigned i = 0; i < r->num_mounts; i++)
		if (!r->mounts[i].replaced && streq(r->mounts[i].target, target))
			return &r->mounts[i];
	return NULL;
}

/* One that is there already, from another source. */
static int replace(struct vm_record *r, struct vm_mount *now, struct sm_error *err)
{
	struct vm_mount *was = find_target(r, now->target);
	char *old;
	int e;

	if (!was)
		return error_set(err, SM_ERROR_INVALID, EINVAL,
				 "a VM that goes on from a snapshot has the host's directories that it had, and none "
				 "on %s",
				 now->target);
	if (was->volume)
		return error_set(err, SM_ERROR_INVALID, EINVAL,
				 "on %s is a volume: another can take its place, but nothing of the host", was->target);
	e = check_same(was, now, err);
	if (e < 0)
		return e;
	old = was->source;
	was->source = now->source;
	was->read_only |= now->read_only;
	now->source = old;
	return 0;
}

/* A guest that was saved has some disks without anything in them, for volumes that it has not had. Its own ones stay
 * where they are, whose numbers it knows; the others come after them. */
static int add_volume(struct vm_record *r, struct vm_mount *now, bool booted, struct sm_error *err)
{
	struct vm_mount *was = find_target(r, now->target), *v;

	if (was && !was->volume)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "on %s is what the host has on %s, and no volume",
				 was->target, was->source);
	if (booted)
		return error_set(err, SM_ERROR_INVALID, EOPNOTSUPP,
				 "volume %s: a VM that was booted (--cold) has no place for one more disk",
				 now->volume);
	if (vm_volumes(r, false) >= VM_MAX_VOLUMES || r->num_mounts >= VM_MAX_MOUNTS)
		return error_set(
			err, SM_ERROR_INVALID, EINVAL,
			"volume %s: a VM has %d volumes at most, and one that was saved with some keeps these, "
			"also where others take their places",
			now->volume, VM_MAX_VOLUMES);
	v = realloc(r->mounts, (r->num_mounts + 1) * sizeof(*v));
	if (!v)
		return error_sys(err, ENOMEM, "volume %s", now->volume);
	r->mounts = v;
	was = find_target(r, now->target);
	if (was)
		was->replaced = true;
	v[r->num_mounts++] = *now;
	*now = (struct vm_mount){0};
	return 0;
}

int mounts_replace(struct sm_client *c, struct vm_record *r, const struct sm_vm_options *o, bool booted,
		   struct sm_error *err)
{
	_cleanup_(vm_record_done) struct vm_record own = {0};
	int e = mounts_from_options(c, &own, o, err);

	e = e < 0 ? e : volumes_become_own(c, r, err);
	for (unsigned i = 0; i < own.num_mounts && e == 0; i++)
		e = own.mounts[i].volume ? add_volume(r, &own.mounts[i], booted, err) : replace(r, &own.mounts[i], err);
	return e;
}
