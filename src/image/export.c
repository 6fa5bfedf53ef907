/* SPDX-License-Identifier: Apache-2.0 */
/* An image to elsewhere: its window as one sparse file, or what the store has of it to another store. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
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
			int r;

			n = pread_full(from, buffer, (size_t)MIN(end - at, (off_t)sizeof(buffer)), at);
			if (n <= 0)
				return n < 0 ? (int)n : -EIO;
			r = pwrite_full(to, buffer, (size_t)n, (off_t)offset + at);
			if (r < 0)
				return r;
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

/* ---------------------------------------------------------------------------------- to another store */

/* One that is there already another image brought. */
static int copy_whole(struct image_store *from, struct image_store *to, const char *dir, const char *hex)
{
	struct image_part part = {0};
	char path[STORE_PATH_MAX];
	_free_ char *source = NULL;
	_fd_ int fd = -1;
	struct stat st;
	int r;

	store_path(path, dir, hex, "");
	if (fstatat(from->fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (asprintf(&source, "%s/%s", from->dir, path) < 0)
		return -ENOMEM;
	part.path = source;
	part.size = (uint64_t)st.st_size;
	fd = openat(to->fd, path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return errno == EEXIST ? 0 : -errno;
	r = ftruncate(fd, st.st_size) < 0 ? -errno : copy_part(&part, fd);
	if (r < 0)
		return r;
	return fchmod(fd, st.st_mode & 07777) < 0 || fsync(fd) < 0 ? -errno : 0;
}

static int copy_files(struct image_store *from, struct image_store *to, const json_t *record)
{
	int r = copy_whole(from, to, "meta", record_key(record));
	const char *hex;

	for (unsigned i = 0; r == 0 && (hex = record_layer(record, i)); i++) {
		r = copy_whole(from, to, "layers", hex);
		if (r == 0)
			r = copy_whole(from, to, "blobs", hex);
	}
	return r;
}

/* The record last, then the names: until then the other store has files without an image. */
static int take_in(struct image_store *to, const struct image_info *info, const json_t *record, struct sm_error *err)
{
	_fd_ int lock = -1;
	json_t *refs;
	int r = store_lock(to, &lock, err);

	if (r == 0)
		r = record_write_locked(to, info->id, record, err);
	if (r == 0)
		r = refs_read(to, &refs, err);
	if (r < 0)
		return r;
	for (char **name = info->names; name && *name && r == 0; name++)
		if (json_object_set_new(refs, *name, json_string(info->id)) < 0)
			r = error_sys(err, ENOMEM, "%s", *name);
	if (r == 0)
		r = refs_write_locked(to, refs, err);
	json_decref(refs);
	return r;
}

int image_copy(struct image_store *from, const char *ref, struct image_store *to, struct sm_error *err)
{
	struct image_info info;
	struct image_pin *pin;
	json_t *record = NULL;
	int r = image_pin(from, ref, &info, &pin, err);

	if (r < 0)
		return r;
	r = record_read(from, "images", info.id, &record, err);
	if (r == -ENOENT)
		error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "no image %s in the store", ref);
	if (r == 0) {
		r = copy_files(from, to, record);
		if (r < 0)
			error_sys(err, -r, "copy image %s to %s", ref, to->dir);
	}
	if (r == 0)
		r = take_in(to, &info, record, err);
	json_decref(record);
	image_unpin(pin);
	image_info_done(&info);
	return r;
}
