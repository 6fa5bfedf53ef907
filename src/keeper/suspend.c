/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM that is suspended is a snapshot in its own directory (record.h), and nothing else of it runs.
 *
 *	suspending/	while it is written, the guest standing still; of no meaning
 *	suspended/	the same, whole: renaming it is what suspends the VM. The keeper and the monitor end then
 *	suspended.old/	from the moment on in which the guest goes on; of no meaning
 *
 * Of one whose memory came from files (a base's, or a snapshot's and what that lies over) `memory` has what differs
 *from theirs, to which there are links, `base` and `over.1` and on, lowest first: little is written then, and once it
 *is resumed it lies over them as before, whatever has become of the base or the snapshot.
 *
 * A keeper with --resume goes on from it. Until the guest's agent has let the processes go on nothing has happened that
 * anybody could miss, so whatever fails until then leaves the VM suspended: what the guest's kernel wrote to its disk
 * meanwhile is in the top, which the next attempt throws away.
 */
#include "keeper/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/util.h"

#define WRITING "suspending"
#define OLD "suspended.old"

static void under_name(unsigned i, char ret[static 16])
{
	if (i)
		snprintf(ret, 16, "over.%u", i);
	else
		snprintf(ret, 16, "%s", VM_SUSPENDED_BASE);
}

bool suspend_over_parent(struct keeper *k)
{
	char path[32], name[16];

	for (unsigned i = 0; i < k->num_under; i++) {
		under_name(i, name);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", k->under[i]);
		if (linkat(AT_FDCWD, path, k->saving.dirfd, name, AT_SYMLINK_FOLLOW) == 0)
			continue;
		/* Where that cannot be (another file system, say, or the file has lost its last name) it is saved
		 * whole. */
		while (i--) {
			under_name(i, name);
			unlinkat(k->saving.dirfd, name, 0);
		}
		return false;
	}
	return k->num_under > 0;
}

/* The names of these, as keeper_args.under has them; *ret NULL: there are none. */
static int find_under(const struct keeper *k, char **ret)
{
	_cleanup_(buf_done) struct buf names = {0};
	char name[16], path[32];

	for (unsigned i = 0; i < KEEPER_UNDER_MAX; i++) {
		under_name(i, name);
		snprintf(path, sizeof(path), VM_SUSPENDED "/%s", name);
		if (faccessat(k->dirfd, path, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
			break;
		buf_printf(&names, "%s%s", i ? ":" : "", name);
	}
	*ret = names.len && !names.error ? strndup((const char *)names.data, names.len) : NULL;
	return names.len && !*ret ? -ENOMEM : 0;
}

int suspend_open(struct keeper *k)
{
	int fd;

	remove_tree_at(k->dirfd, WRITING);
	if (mkdirat(k->dirfd, WRITING, 0700) < 0)
		return -errno;
	fd = openat(k->dirfd, WRITING, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/*
 * The guest's memory fits its volumes as they are now. Other VMs cannot have them meanwhile, as this one's record names
 * them (lib/volume_use.c); what somebody else does to the files is noticed by this. malloc'ed.
 */
static int identify_volume(const struct vm_mount *m, char **ret, struct sm_error *err)
{
	_fd_ int fd = m->own ? -1 : open(m->source, O_RDONLY | O_CLOEXEC);
	struct statx st;

	/* In a machine its kernel may believe for a moment what it has heard of the file before. */
	if (!m->own &&
	    (fd < 0 || fsync(fd) < 0 || statx(fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &st) < 0))
		return error_sys(err, errno, "volume %s", m->volume);
	if (m->own)
		*ret = strdup("-");
	else if (asprintf(ret, "%llx %llx %lld.%ld", (unsigned long long)st.stx_ino, (unsigned long long)st.stx_size,
			  (long long)st.stx_mtime.tv_sec, (long)st.stx_mtime.tv_nsec) < 0)
		*ret = NULL;
	return *ret ? 0 : error_sys(err, ENOMEM, "volume %s", m->volume);
}

static int note_volumes(const struct keeper *k, struct vm_suspended *s, struct sm_error *err)
{
	unsigned volumes = vm_volumes(&k->rec, false), n = 0;
	int r = 0;

	s->volumes = volumes ? calloc(volumes + 1, sizeof(char *)) : NULL;
	if (volumes && !s->volumes)
		return error_sys(err, ENOMEM, "volumes");
	for (unsigned i = 0; i < k->rec.num_mounts && r == 0; i++)
		if (k->rec.mounts[i].volume)
			r = identify_volume(&k->rec.mounts[i], &s->volumes[n++], err);
	return r;
}

static int check_volumes(const struct keeper *k, const struct vm_suspended *s, struct sm_error *err)
{
	char **was = s->volumes;

	for (unsigned i = 0; i < k->rec.num_mounts; i++) {
		const struct vm_mount *m = &k->rec.mounts[i];
		_free_ char *now = NULL;
		int r = m->volume ? identify_volume(m, &now, err) : 0;

		if (r < 0)
			return r;
		if (now && (!was || !*was || !streq(*was, now)))
			return error_set(
				err, SM_ERROR_STATE, ESTALE,
				"the file of volume %s, %s, is not what it was when the VM was suspended: what "
				"the VM knows of it is no longer true; supermachine stop gives up what it was "
				"about, and it can be started anew then",
				m->volume, m->source);
		was += now != NULL;
	}
	return 0;
}

int suspend_commit(struct keeper *k, struct vm_suspended *s, struct sm_error *err)
{
	_free_ char *text = NULL;
	int r = note_volumes(k, s, err);

	if (r == 0)
		r = vm_suspended_format(s, &text, err);
	if (r < 0)
		return r;
	r = write_file_atomic_at(k->saving.dirfd, "suspended.json", text, strlen(text), 0400);
	if (r == 0 && (fsync(k->saving.dirfd) < 0 || renameat(k->dirfd, WRITING, k->dirfd, VM_SUSPENDED) < 0))
		r = -errno;
	if (r == 0 && fsync(k->dirfd) < 0)
		log_warn("keeper", "sync the VM's directory: %s", strerror(errno)); /* it has its name */
	return r < 0 ? error_sys(err, -r, "suspend VM %s", k->rec.id) : 0;
}

void suspend_undo(struct keeper *k)
{
	if (monitor_pause(k, false) < 0)
		keeper_end(k, SM_REASON_MONITOR_DIED, 0, "the monitor does not let the guest go on");
	agent_sync_clock(k);
	remove_tree_at(k->dirfd, WRITING);
}

static int load(struct keeper *k, struct vm_suspended *ret, struct sm_error *err)
{
	_free_ char *text = NULL;
	size_t len;
	int r = read_file_at(k->dirfd, VM_SUSPENDED "/suspended.json", VM_RECORD_MAX, &text, &len);

	return r < 0 ? error_sys(err, -r, "VM %s is not suspended", k->rec.id)
		     : vm_suspended_parse(text, len, ret, err);
}

/* A VM that is suspended again and again does not come to an end of layers. */
static int merge_layers(struct keeper *k, struct vm_suspended *s, struct sm_error *err)
{
	_free_ char *text = NULL;
	int r;

	if (!disk_merge(k->dirfd, k->args.vmm, s->layers, k->rec.layers))
		return 0;
	s->layers--;
	r = vm_suspended_format(s, &text, err);
	if (r < 0)
		return r;
	r = write_file_atomic_at(k->dirfd, VM_SUSPENDED "/suspended.json", text, strlen(text), 0400);
	r = r < 0 ? r : disk_reset(k->dirfd, s->layers);
	return r < 0 ? error_sys(err, -r, "the disk of VM %s", k->rec.id) : 0;
}

int resume_prepare(struct keeper *k, struct sm_error *err)
{
	_cleanup_(vm_suspended_done) struct vm_suspended s = {0};
	int r = load(k, &s, err);

	if (r == 0)
		r = check_volumes(k, &s, err);
	if (r < 0)
		return r;
	if (asprintf(&k->suspended, "%s/" VM_SUSPENDED, k->args.dir) < 0) {
		k->suspended = NULL;
		return error_sys(err, ENOMEM, "resume");
	}
	if (find_under(k, &k->suspended_under) < 0)
		return error_sys(err, ENOMEM, "resume");
	k->args.restore = k->suspended;
	k->args.under = k->suspended_under;
	k->args.adopt = true;
	k->args.booted = s.booted;
	k->args.window = s.window;
	if (!k->rec.disk_template)
		return 0;
	r = disk_reset(k->dirfd, s.layers);
	return r < 0 ? error_sys(err, -r, "the disk of VM %s", k->rec.id) : merge_layers(k, &s, err);
}

int resume_done(struct keeper *k)
{
	k->learn = false;
	remove_tree_at(k->dirfd, OLD);
	if (renameat(k->dirfd, VM_SUSPENDED, k->dirfd, OLD) < 0)
		return -errno;
	remove_tree_at(k->dirfd, OLD);
	return fsync(k->dirfd) < 0 ? -errno : 0; /* else, after a power cut, it would go on from there once more */
}
