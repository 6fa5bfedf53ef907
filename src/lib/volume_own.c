/* SPDX-License-Identifier: Apache-2.0 */
/* Volumes as they are in a snapshot: copies of their files while nothing is written to them, and what a VM that goes on
 * from there has of these. See volume.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "lib/volume.h"

#define CHUNK 65536

static bool all_zero(const uint8_t *p, size_t len)
{
	return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

/* Where the first has nothing the second has a hole, also where the file system cannot tell what is one. */
static int copy_stretch(int from, int to, off_t at, off_t end)
{
	_free_ uint8_t *chunk = malloc(CHUNK);

	if (!chunk)
		return -ENOMEM;
	while (at < end) {
		ssize_t n = pread_full(from, chunk, (size_t)MIN((off_t)CHUNK, end - at), at);
		int r = n <= 0 || all_zero(chunk, (size_t)n) ? (int)MIN(n, 0) : pwrite_full(to, chunk, (size_t)n, at);

		if (n <= 0 || r < 0)
			return r;
		at += n;
	}
	return 0;
}

int volume_copy_sparse(int from, int to, off_t size)
{
	int r;

	/* Where the file system has copies that share their blocks, that is all. */
	if (ioctl(to, FICLONE, from) == 0)
		return ftruncate(to, size) < 0 ? -errno : 0;
	r = ftruncate(to, size) < 0 ? -errno : 0;
	for (off_t at = 0, end; r == 0 && at < size; at = end) {
		off_t data = lseek(from, at, SEEK_DATA);

		if (data < 0 && errno == ENXIO)
			return 0;
		end = data < 0 ? size : lseek(from, data, SEEK_HOLE);
		r = copy_stretch(from, to, data < 0 ? at : data, end = end < 0 ? size : end);
	}
	return r;
}

int volume_copy_file(int fromdir, const char *from, int todir, const char *to, mode_t mode)
{
	_fd_ int source = openat(fromdir, from, O_RDONLY | O_NOFOLLOW | O_CLOEXEC), copy = -1;
	struct stat st;
	int r;

	if (source < 0 || fstat(source, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	copy = openat(todir, to, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (copy < 0)
		return -errno;
	r = volume_copy_sparse(source, copy, st.st_size);
	return r < 0 ? r : fchmod(copy, mode) < 0 || fsync(copy) < 0 ? -errno : 0;
}

/* One that was never started has none. */
static int copy_top(int from, int to, unsigned number, mode_t mode)
{
	char top[VM_VOLUME_FILE];
	int r;

	vm_volume_file(number, false, top);
	r = volume_copy_file(from, top, to, top, mode);
	return r == -ENOENT ? 0 : r;
}

static int link_base(int from, int to, unsigned number)
{
	char base[VM_VOLUME_FILE];

	vm_volume_file(number, true, base);
	return linkat(from, base, to, base, 0) < 0 ? -errno : 0;
}

static int save_one(int vmdir, const struct vm_mount *m, unsigned number, int to)
{
	char base[VM_VOLUME_FILE];
	int r;

	vm_volume_file(number, true, base);
	r = m->own ? link_base(vmdir, to, number) : volume_copy_file(AT_FDCWD, m->source, to, base, 0400);
	return r < 0 || !(m->own || m->read_only) ? r : copy_top(vmdir, to, number, 0400);
}

int volumes_save(int vmdir, const struct vm_record *r, int to, struct sm_error *err)
{
	unsigned number = 0;

	for (unsigned i = 0; i < r->num_mounts; i++) {
		int e = r->mounts[i].volume ? save_one(vmdir, &r->mounts[i], number++, to) : 0;

		if (e < 0)
			return error_sys(err, -e, "copy volume %s of VM %s", r->mounts[i].volume, r->id);
	}
	return 0;
}

int volumes_give(int from, int to, unsigned count, struct sm_error *err)
{
	for (unsigned i = 0; i < count; i++) {
		int e = link_base(from, to, i);

		if (e == 0)
			e = copy_top(from, to, i, 0600);
		if (e < 0)
			return error_sys(err, -e, "share the %u. volume", i + 1);
	}
	return 0;
}

int volumes_lend(int from, int to, const struct vm_record *r, struct sm_error *err)
{
	unsigned number = 0;

	for (unsigned i = 0; i < r->num_mounts; i++) {
		char top[VM_VOLUME_FILE];
		int e = 0;

		if (!r->mounts[i].volume)
			continue;
		vm_volume_file(number, false, top);
		if (r->mounts[i].own)
			e = link_base(from, to, number);
		if (r->mounts[i].own && e == 0 && linkat(from, top, to, top, 0) < 0 && errno != ENOENT)
			e = -errno;
		if (e < 0)
			return error_sys(err, -e, "share volume %s", r->mounts[i].volume);
		number++;
	}
	return 0;
}

int volumes_become_own(struct sm_client *c, struct vm_record *r, struct sm_error *err)
{
	_free_ char *dir = vmdir_path(c, r->id);
	unsigned number = 0;

	for (unsigned i = 0; dir && i < r->num_mounts; i++) {
		struct vm_mount *m = &r->mounts[i];
		char base[VM_VOLUME_FILE];

		if (!m->volume)
			continue;
		vm_volume_file(number++, true, base);
		free(m->source);
		m->own = true;
		if (asprintf(&m->source, "%s/%s", dir, base) < 0) {
			m->source = NULL;
			return error_sys(err, ENOMEM, "volume %s", m->volume);
		}
	}
	return dir ? 0 : error_sys(err, ENOMEM, "volumes");
}
