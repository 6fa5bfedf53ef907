/* SPDX-License-Identifier: Apache-2.0 */
/* Writing an image's window as one sparse file. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "image/store.h"

/* Copies [at, end) of a part, in the kernel where it can (a shared extent on some file systems). */
static int copy_range(int from, int to, uint64_t offset, off_t at, off_t end)
{
	char buffer[64 << 10];

	while (at < end) {
		off_t target = (off_t)offset + at, source = at;
		ssize_t n = copy_file_range(from, &source, to, &target, (size_t)MIN(end - at, (off_t)(1 << 30)), 0);

		if (n <= 0) { /* across file systems, or a kind of file that cannot */
			n = pread_full(from, buffer, (size_t)MIN(end - at, (off_t)sizeof(buffer)), at);
			if (n <= 0)
				return n < 0 ? (int)n : -EIO;
			if (pwrite_full(to, buffer, (size_t)n, (off_t)offset + at) < 0)
				return -EIO;
		}
		at += n;
	}
	return 0;
}

static int copy_part(const struct image_part *part, int to)
{
	_fd_ int from = open(part->path, O_RDONLY | O_CLOEXEC);
	off_t at = 0, size = (off_t)part->size;

	if (from < 0)
		return -errno;
	while (at < size) {
		off_t data = lseek(from, at, SEEK_DATA), hole;
		int r;

		if (data < 0 && errno == ENXIO)
			break; /* holes to the end */
		if (data < 0)
			return -errno;
		hole = lseek(from, data, SEEK_HOLE);
		if (hole < 0)
			return -errno;
		r = copy_range(from, to, part->offset, data, MIN(hole, size));
		if (r < 0)
			return r;
		at = hole;
	}
	return 0;
}

static int export_to(const struct image_info *info, const char *tmp, const char *path, struct sm_error *err)
{
	_fd_ int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	int r;

	if (fd < 0)
		return error_sys(err, errno, "create %s", tmp);
	r = ftruncate(fd, (off_t)info->window_size) < 0 ? error_sys(err, errno, "write %s", tmp) : 0;
	for (unsigned i = 0; r == 0 && i < info->num_parts; i++) {
		r = copy_part(&info->parts[i], fd);
		if (r < 0)
			error_sys(err, -r, "copy %s", info->parts[i].path);
	}
	if (r == 0 && fsync(fd) < 0)
		r = error_sys(err, errno, "write %s", tmp);
	if (r == 0 && rename(tmp, path) < 0)
		r = error_sys(err, errno, "rename %s to %s", tmp, path);
	if (r < 0)
		unlink(tmp);
	return r;
}

int image_export_erofs(struct image_store *store, const char *ref, const char *path, struct sm_error *err)
{
	struct image_info info;
	struct image_pin *pin;
	_free_ char *tmp = NULL;
	char unique[17];
	int r = random_hex(unique, 8);

	if (r < 0 || asprintf(&tmp, "%s.%s.tmp", path, unique) < 0) {
		tmp = NULL;
		return error_sys(err, r < 0 ? -r : ENOMEM, "%s", path);
	}
	r = image_pin(store, ref, &info, &pin, err);
	if (r < 0)
		return r;
	r = export_to(&info, tmp, path, err);
	image_unpin(pin);
	image_info_done(&info);
	return r;
}
