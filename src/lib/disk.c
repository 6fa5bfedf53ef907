/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disk templates: an empty ext4 of each size asked for, formatted once, then only ever read: the lower layer under
 * every VM's own sparse top. Kept under data_dir/templates.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/process.h"
#include "base/util.h"
#include "lib/lib.h"

#define FORMAT_VERSION 1 /* change it when the options of mkfs below change */
#define MKFS_TIMEOUT_MS 120000

static const char *mkfs_path(void)
{
	static const char *const places[] = {"/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4", "/usr/bin/mkfs.ext4",
					     "/usr/local/sbin/mkfs.ext4"};

	for (unsigned i = 0; i < ARRAY_SIZE(places); i++)
		if (access(places[i], X_OK) == 0)
			return places[i];
	return NULL;
}

/* The one that says why. */
static const char *last_line(struct buf *out)
{
	char *line;

	while (out->len && out->data[out->len - 1] == '\n')
		out->len--;
	if (buf_put_u8(out, 0) < 0)
		return "";
	line = strrchr((char *)out->data, '\n');
	return line ? line + 1 : (char *)out->data;
}

/* Nothing is written that a hole says as well: the tables of a fresh sparse file are zero. One inode for 16 KiB, as the
 * default, a small journal (the layer is a cache of one VM's, not a server's disk), no reserved blocks: root in the
 * guest is the user. */
static int run_mkfs(const char *path, uint64_t size, struct sm_error *err)
{
	const char *mkfs = mkfs_path();
	const char *journal = size >= GIB ? "-Jsize=16" : size >= 64 * MIB ? "-Jsize=4" : "-O^has_journal";
	const char *argv[] = {mkfs,
			      "-q",
			      "-F",
			      "-b",
			      "4096",
			      "-m",
			      "0",
			      "-L",
			      "upper",
			      "-E",
			      "lazy_itable_init=1,lazy_journal_init=1,assume_storage_prezeroed=1,nodiscard,hash_seed="
			      "00000000-0000-4000-8000-000000000000",
			      journal,
			      path,
			      NULL};
	struct process_options o = {.argv = argv, .fds = {-1, -1, -1}};
	_cleanup_(buf_done) struct buf out = {0};
	int status = 0, r;

	if (!mkfs)
		return error_set(err, SM_ERROR_HOST, ENOENT,
				 "mkfs.ext4 is missing: apt-get install e2fsprogs, or use --tmpfs-root");
	r = process_run(&o, MKFS_TIMEOUT_MS, true, 4096, &out, &status, err);
	if (r < 0)
		return r;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	return error_set(err, SM_ERROR_HOST, EIO, "mkfs.ext4 of the disk template failed: %s", last_line(&out));
}

static int make_template(const char *dir, const char *path, uint64_t size, struct sm_error *err)
{
	char temporary[PATH_MAX], tag[17];
	int fd, r = random_hex(tag, 8);

	if (r < 0)
		return error_sys(err, -r, "disk template");
	snprintf(temporary, sizeof(temporary), "%s/tmp.%s", dir, tag);
	fd = open(temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return error_sys(err, errno, "make %s", temporary);
	r = ftruncate(fd, (off_t)size) < 0 ? error_sys(err, errno, "size of %s", temporary) : 0;
	if (r == 0)
		r = run_mkfs(temporary, size, err);
	if (r == 0 && (fchmod(fd, 0400) < 0 || fsync(fd) < 0 || rename(temporary, path) < 0))
		r = error_sys(err, errno, "write %s", path);
	if (r < 0)
		unlink(temporary);
	fd_close(fd);
	return r;
}

static char *template_path(struct sm_client *c, uint64_t size)
{
	char *path;

	return asprintf(&path, "%s/templates/ext4-%llu-v%d", c->data_dir, (unsigned long long)size, FORMAT_VERSION) < 0
		       ? NULL
		       : path;
}

bool disk_has_template(struct sm_client *c, uint64_t size)
{
	_free_ char *path = template_path(c, size);

	return path && access(path, R_OK) == 0;
}

int disk_template(struct sm_client *c, uint64_t size, const struct sm_progress *progress, char **ret,
		  struct sm_error *err)
{
	_free_ char *dir = NULL, *path = template_path(c, size);
	_fd_ int dirfd = -1, lock = -1;
	int r;

	if (!path || asprintf(&dir, "%s/templates", c->data_dir) < 0)
		return error_sys(err, ENOMEM, "disk template");
	if (access(path, R_OK) == 0) {
		*ret = TAKE_PTR(path);
		return 0;
	}
	r = mkdir_p(dir, 0700);
	if (r < 0)
		return error_sys(err, -r, "make %s", dir);
	dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dirfd < 0)
		return error_sys(err, errno, "open %s", dir);
	lock = vmdir_flock(dirfd, "lock", true, true);
	if (lock < 0)
		return error_sys(err, -lock, "lock %s", dir);
	if (access(path, R_OK) < 0) {
		if (progress->update && progress->update(progress->arg, "disk template", 0, 0))
			return error_set(err, SM_ERROR_CANCELLED, ECANCELED, "stopped");
		r = make_template(dir, path, size, err);
	}
	if (r == 0)
		*ret = TAKE_PTR(path);
	return r;
}
