/* SPDX-License-Identifier: Apache-2.0 */
/* Making a bundle: in a directory beside its place, which then gets its name. See bundle.h. */
#include "lib/bundle.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "kernel/guest_modules.h"
#include "kernel/kernel.h"
#include "lib/volume.h"

int bundle_copy(struct bundle *b, const char *from, const char *to, mode_t mode, struct sm_error *err)
{
	char real[PATH_MAX];
	int r;

	if (b->progress.update && b->progress.update(b->progress.arg, "bundle", 0, 0))
		return error_set(err, SM_ERROR_CANCELLED, ECANCELED, "stopped");
	if (!realpath(from, real))
		return error_sys(err, errno, "%s", from);
	r = volume_copy_file(AT_FDCWD, real, b->dir, to, mode);
	return r < 0 && r != -EEXIST ? error_sys(err, -r, "copy %s to %s/%s", real, b->path, to) : 0;
}

/* --------------------------------------------------------------------------------------- what is in it */

static int make_directories(struct bundle *b, struct sm_error *err)
{
	static const struct {
		const char *name;
		mode_t mode;
	} dirs[] = {
		{"lib", 0755}, {"libexec", 0755}, {"home", 0700}, {"home/data", 0700}, {"home/data/templates", 0700}};

	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++)
		if (mkdirat(b->dir, dirs[i].name, dirs[i].mode) < 0)
			return error_sys(err, errno, "make %s/%s", b->path, dirs[i].name);
	return 0;
}

static int add_images(struct bundle *b, const char *const *images, struct sm_error *err)
{
	struct image_store *from, *to = NULL;
	_free_ char *dir = NULL;
	int r = client_store(b->client, &from, err);

	if (r < 0)
		return r;
	if (asprintf(&dir, "%s/home/data/images", b->path) < 0)
		return error_sys(err, ENOMEM, "bundle");
	r = image_store_open(dir, &to, err);
	for (; r == 0 && *images; images++)
		r = image_copy(from, *images, to, err);
	image_store_close(to);
	return r;
}

static int add_kernel(struct bundle *b, struct sm_error *err)
{
	static const char *const modules[] = {GUEST_MODULES, MACHINE_MODULES, NULL};
	_cleanup_(kernel_done) struct kernel k = {0};
	_free_ char *dir = NULL;
	int r = kernel_find(NULL, b->client->data_dir, &k, err);

	if (r < 0)
		return r;
	if (asprintf(&dir, "%s/home/data/" KERNEL_BUNDLED, b->path) < 0)
		return error_sys(err, ENOMEM, "bundle");
	return kernel_copy(&k, modules, dir, err);
}

static int add_disk(struct bundle *b, struct sm_error *err)
{
	_free_ char *path = NULL, *to = NULL;
	int r = disk_template(b->client, VM_DEFAULT_DISK, &b->progress, &path, err);

	if (r < 0)
		return r;
	if (asprintf(&to, "home/data/templates%s", strrchr(path, '/')) < 0)
		return error_sys(err, ENOMEM, "bundle");
	return bundle_copy(b, path, to, 0400, err);
}

static int fill(struct bundle *b, const char *const *images, struct sm_error *err)
{
	int r = make_directories(b, err);

	if (r == 0)
		r = add_images(b, images, err);
	if (r == 0)
		r = bundle_programs(b, err);
	if (r == 0)
		r = add_kernel(b, err);
	if (r == 0)
		r = add_disk(b, err);
	if (r == 0 && syncfs(b->dir) < 0)
		r = error_sys(err, errno, "write %s", b->path);
	return r;
}

/* -------------------------------------------------------------------------------------------- its place */

/* Calls fn, if there is one, for each name in it. How many there are, or -errno; it stops at what fn fails with. */
static int each_name(int dir, int (*fn)(int dir, const char *name))
{
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), n = 0, r = 0;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!d) {
		r = -errno;
		fd_close(fd);
		return r;
	}
	while (r == 0 && (e = readdir(d))) {
		if (streq(e->d_name, ".") || streq(e->d_name, ".."))
			continue;
		n++;
		r = fn ? fn(dirfd(d), e->d_name) : 0;
	}
	closedir(d);
	return r < 0 ? r : n;
}

/* At its place is nothing, or an empty directory: what else is there is not touched. */
static int check_place(const char *into, struct sm_error *err)
{
	_fd_ int fd = open(into, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int n = fd < 0 ? -errno : each_name(fd, NULL);

	if (n > 0)
		return error_set(err, SM_ERROR_EXISTS, EEXIST, "bundle %s: that directory is not empty", into);
	return n < 0 && n != -ENOENT ? error_sys(err, -n, "bundle %s", into) : 0;
}

/* ".NAME.part" beside it, always the same: what was killed there is found and removed. */
static int name_part(const char *into, char **ret, struct sm_error *err)
{
	_free_ char *a = strdup(into), *b = strdup(into);
	const char *name;

	if (!a || !b)
		return error_sys(err, ENOMEM, "bundle");
	name = basename(a);
	if (!*into || streq(name, ".") || streq(name, "..") || streq(name, "/"))
		return error_set(err, SM_ERROR_INVALID, EINVAL, "bundle: \"%s\" is no name for a new directory", into);
	return asprintf(ret, "%s/.%s.part", dirname(b), name) < 0 ? error_sys(err, ENOMEM, "bundle") : 0;
}

static bool still_there(int fd, const char *path)
{
	struct stat a, b;

	return fstat(fd, &a) == 0 && lstat(path, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* Whoever holds the directory's lock makes the bundle in it. *ret: the directory, locked and empty. */
static int open_part(const char *part, const char *into, int *ret, struct sm_error *err)
{
	for (;;) {
		_fd_ int fd = -1;
		int r;

		if (mkdir(part, 0755) < 0 && errno != EEXIST)
			return error_sys(err, errno, "make %s", part);
		fd = open(part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0 && errno == ENOENT)
			continue;
		if (fd < 0)
			return error_sys(err, errno, "open %s", part);
		if (flock(fd, LOCK_EX | LOCK_NB) < 0)
			return error_set(err, SM_ERROR_BUSY, EBUSY, "bundle %s: another program makes it just now",
					 into);
		if (!still_there(fd, part))
			continue; /* that other one is ready */
		r = each_name(fd, remove_tree_at);
		if (r < 0)
			return error_sys(err, -r, "empty %s", part);
		*ret = TAKE_FD(fd);
		return 0;
	}
}

/* Its name, in one step. rename(2) replaces an empty directory, and no other. */
static int give_name(const char *part, const char *into, struct sm_error *err)
{
	_free_ char *copy = strdup(into);
	_fd_ int parent = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	if (rename(part, into) < 0)
		return error_sys(err, errno, "bundle %s", into);
	return parent < 0 || fsync(parent) < 0 ? error_sys(err, errno, "directory of %s", into) : 0;
}

int sm_bundle(struct sm_client *client, const char *const *images, const char *into,
	      const struct sm_bundle_options *options, struct sm_error *err)
{
	struct sm_bundle_options o = OPTIONS_GET(struct sm_bundle_options, options);
	struct bundle b = {.client = client, .progress = o.progress};
	_free_ char *part = NULL;
	_fd_ int dir = -1;
	int r;

	if (!images || !images[0])
		return error_set(err, SM_ERROR_INVALID, EINVAL, "a bundle of no images");
	r = name_part(into, &part, err);
	if (r == 0)
		r = check_place(into, err);
	if (r == 0)
		r = open_part(part, into, &dir, err);
	if (r < 0)
		return r;
	b.dir = dir;
	b.path = part;
	r = fill(&b, images, err);
	if (r == 0)
		r = give_name(part, into, err);
	if (r < 0)
		remove_tree_at(AT_FDCWD, part);
	return r;
}
