/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest kernel without root: the distribution's package, fetched by apt-get download (which checks its signature
 * chain) and unpacked into the data directory. A .deb is an ar archive with a data.tar member; only the kernel and its
 * modules are taken from it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/libarchive.h"
#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/process.h"
#include "base/util.h"
#include "kernel/internal.h"

#define META_PACKAGE "linux-image-cloud-amd64"
#define DOWNLOAD_LIMIT_MS (10 * 60 * 1000)

static int archive_failed(struct sm_error *err, const struct archive_functions *la, struct archive *a, const char *what)
{
	const char *text = la->archive_error_string(a);

	return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s: %s", what, text ? text : "not a package");
}

/* A member's path below dir if it is wanted: "./boot/vmlinuz-*", "./lib/modules/..." (also under usr/). */
static bool wanted(const char *path, char out[PATH_MAX], const char *dir)
{
	if (str_starts(path, "./"))
		path += 2;
	if (str_starts(path, "usr/"))
		path += 4;
	if (strstr(path, "..") || (!str_starts(path, "boot/vmlinuz-") && !str_starts(path, "lib/modules/")))
		return false;
	return snprintf(out, PATH_MAX, "%s/%s", dir, path) < PATH_MAX;
}

/* Copies the wanted members of the inner archive. */
static int unpack_data(const struct archive_functions *la, struct archive *in, const char *dir, const char *deb,
		       struct sm_error *err)
{
	struct archive *out = la->archive_write_disk_new();
	struct archive_entry *entry;
	char path[PATH_MAX];
	int got, r = 0;

	if (!out)
		return error_sys(err, ENOMEM, "%s", deb);
	la->archive_write_disk_set_options(out, ARCHIVE_EXTRACT_SECURE_NODOTDOT | ARCHIVE_EXTRACT_UNLINK);
	while (r == 0 && (got = la->archive_read_next_header(in, &entry)) == ARCHIVE_OK) {
		const void *piece;
		size_t n;
		la_int64_t offset;

		if (la->archive_entry_filetype(entry) != AE_IFREG || la->archive_entry_hardlink(entry) ||
		    !wanted(la->archive_entry_pathname(entry), path, dir))
			continue;
		la->archive_entry_set_pathname(entry, path);
		la->archive_entry_set_perm(entry, 0644);
		if (la->archive_write_header(out, entry) != ARCHIVE_OK) {
			r = archive_failed(err, la, out, path);
			break;
		}
		while ((got = la->archive_read_data_block(in, &piece, &n, &offset)) == ARCHIVE_OK)
			if (la->archive_write_data_block(out, piece, n, offset) < ARCHIVE_OK)
				break;
		if (got != ARCHIVE_EOF || la->archive_write_finish_entry(out) != ARCHIVE_OK)
			r = archive_failed(err, la, got == ARCHIVE_OK ? out : in, path);
	}
	if (r == 0 && got != ARCHIVE_EOF)
		r = archive_failed(err, la, in, deb);
	la->archive_write_free(out);
	return r;
}

/* The inner archive reads through the outer one: no copy of data.tar is kept. */
static la_ssize_t read_member(struct archive *inner, void *arg, const void **ret)
{
	const struct archive_functions *la = archive_load(NULL); /* is loaded */
	struct archive *outer = arg;
	size_t n;
	la_int64_t offset;
	int got = la->archive_read_data_block(outer, ret, &n, &offset);

	if (got == ARCHIVE_EOF)
		return 0;
	if (got != ARCHIVE_OK) {
		la->archive_set_error(inner, EBADMSG, "%s", la->archive_error_string(outer));
		return -1;
	}
	return (la_ssize_t)n;
}

int kernel_unpack_deb(const char *deb, const char *dir, struct sm_error *err)
{
	const struct archive_functions *la = archive_load(err);
	struct archive *outer, *inner;
	struct archive_entry *entry;
	bool found = false;
	int r = 0;

	if (!la)
		return -ELIBACC;
	outer = la->archive_read_new();
	inner = la->archive_read_new();
	if (!outer || !inner) {
		r = error_sys(err, ENOMEM, "%s", deb);
		goto out;
	}
	la->archive_read_support_format_ar(outer);
	la->archive_read_support_filter_all(inner);
	la->archive_read_support_format_tar(inner);
	if (la->archive_read_open_filename(outer, deb, 65536) != ARCHIVE_OK) {
		r = archive_failed(err, la, outer, deb);
		goto out;
	}
	while (!found && la->archive_read_next_header(outer, &entry) == ARCHIVE_OK)
		found = str_starts(la->archive_entry_pathname(entry), "data.tar");
	if (!found)
		r = error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s: not a Debian package", deb);
	else if (la->archive_read_open(inner, outer, NULL, read_member, NULL) != ARCHIVE_OK)
		r = archive_failed(err, la, inner, deb);
	else
		r = unpack_data(la, inner, dir, deb, err);
out:
	la->archive_read_free(inner);
	la->archive_read_free(outer);
	return r;
}

/* Runs a command whose output is wanted; a status other than 0 is an error with its last line. */
static int run(const char *const *argv, const char *cwd, struct buf *out, struct sm_error *err)
{
	struct process_options o = {.argv = argv, .cwd = cwd, .fds = {-1, -1, -1}};
	int status = 0, r;
	const char *last;

	r = process_run(&o, DOWNLOAD_LIMIT_MS, true, 64 * KIB, out, &status, err);
	if (r == 0)
		r = buf_put_u8(out, 0);
	if (r < 0)
		return r;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	out->data[out->len > 1 ? out->len - 2 : 0] = 0;
	last = strrchr((char *)out->data, '\n');
	return error_set(err, SM_ERROR_HOST, EIO, "%s: %s", argv[0], last ? last + 1 : (char *)out->data);
}

/* The versioned package that the meta package stands for. */
static int package_name(char name[static 128], struct sm_error *err)
{
	static const char *const argv[] = {"apt-cache", "depends", META_PACKAGE, NULL};
	_cleanup_(buf_done) struct buf out = {0};
	const char *at;
	int r = run(argv, "/", &out, err);

	if (r < 0)
		return r;
	at = strstr((char *)out.data, "Depends: linux-image-");
	if (!at)
		return error_set(err, SM_ERROR_HOST, ENOENT, "apt-cache knows no " META_PACKAGE);
	at += strlen("Depends: ");
	snprintf(name, 128, "%.*s", (int)strcspn(at, " \n"), at);
	return 0;
}

/* Names the unpacked directory after the one release in it. */
static int adopt(const char *tmp, const char *kernels, struct sm_error *err)
{
	char boot[PATH_MAX], target[PATH_MAX];
	struct dirent *d;
	DIR *dir;
	int r = -ENOENT;

	snprintf(boot, sizeof(boot), "%s/boot", tmp);
	dir = opendir(boot);
	while (dir && (d = readdir(dir))) {
		if (!str_starts(d->d_name, "vmlinuz-"))
			continue;
		snprintf(target, sizeof(target), "%s/%s", kernels, d->d_name + strlen("vmlinuz-"));
		r = rename(tmp, target) < 0 ? -errno : 0;
		if (r == -EEXIST || r == -ENOTEMPTY) /* another process was quicker */
			r = 0;
		break;
	}
	if (dir)
		closedir(dir);
	return r < 0 ? error_sys(err, -r, "unpack a kernel into %s", kernels) : 0;
}

static int download_into(const char *tmp, const char *kernels, struct sm_error *err)
{
	_cleanup_(buf_done) struct buf out = {0};
	char package[128];
	const char *argv[] = {"apt-get", "-qq", "download", package, NULL};
	struct dirent *d;
	DIR *dir;
	int r = package_name(package, err);

	if (r == 0)
		r = run(argv, tmp, &out, err);
	if (r < 0)
		return r;
	dir = opendir(tmp);
	r = -ENOENT;
	while (dir && (d = readdir(dir))) {
		char path[PATH_MAX];
		size_t n = strlen(d->d_name);

		if (n < 4 || !streq(d->d_name + n - 4, ".deb"))
			continue;
		snprintf(path, sizeof(path), "%s/%s", tmp, d->d_name);
		r = kernel_unpack_deb(path, tmp, err);
		unlink(path);
		break;
	}
	if (dir)
		closedir(dir);
	return r < 0 ? error_wrap(err, r, "unpack %s", package) : adopt(tmp, kernels, err);
}

int kernel_download(const char *data_dir, struct sm_error *err)
{
	_free_ char *kernels = NULL, *tmp = NULL;
	int r;

	if (asprintf(&kernels, "%s/kernels", data_dir) < 0)
		return error_sys(err, ENOMEM, "download a kernel");
	if (asprintf(&tmp, "%s/tmp.XXXXXX", kernels) < 0)
		return error_sys(err, ENOMEM, "download a kernel");
	r = mkdir_p(kernels, 0700);
	if (r < 0)
		return error_sys(err, -r, "make %s", kernels);
	if (!mkdtemp(tmp))
		return error_sys(err, errno, "make %s", tmp);
	r = download_into(tmp, kernels, err);
	remove_tree_at(AT_FDCWD, tmp);
	return r;
}
