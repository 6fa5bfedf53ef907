/* SPDX-License-Identifier: Apache-2.0 */
/* Where a copy goes: docker's rules ("docker container cp"), for paths of whoever asked. See copy.h. */
#include "copy/copy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"

static size_t trimmed(const char *path)
{
	size_t len = strlen(path);

	while (len > 1 && path[len - 1] == '/')
		len--;
	return len;
}

char *copy_source_name(const char *path, bool *contents)
{
	size_t len = trimmed(path), start = len;
	char *name;

	while (start > 0 && path[start - 1] != '/')
		start--;
	name = strndup(path + start, len - start);
	*contents = false;
	if (name && (streq(name, ".") || streq(name, "..") || streq(name, "/") || !*name)) {
		*name = '\0';
		*contents = true;
	}
	return name;
}

/* The directory that a new name goes to, and the name. */
static int split(const char *path, int *ret_parent, char **ret_name, struct sm_error *err)
{
	size_t len = trimmed(path), start = len;
	_free_ char *dir = NULL;

	while (start > 0 && path[start - 1] != '/')
		start--;
	dir = start ? strndup(path, start) : strdup(".");
	*ret_name = strndup(path + start, len - start);
	if (!dir || !*ret_name)
		return error_sys(err, ENOMEM, "%s", path);
	if (!copy_name_valid(*ret_name, len - start))
		return error_sys(err, EINVAL, "%s", path);
	*ret_parent = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return *ret_parent < 0 ? error_sys(err, errno, "%s: directory %s", path, dir) : 0;
}

static int into_directory(const char *path, const struct copy_place *how, int *ret_parent, char **ret_name,
			  struct sm_error *err)
{
	bool itself = how->source_is_dir && (how->contents || !*how->source_name);

	*ret_parent = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (*ret_parent < 0)
		return error_sys(err, errno, "%s", path);
	if (!itself && !copy_name_valid(how->source_name, strlen(how->source_name)))
		return error_sys(err, EINVAL, "%s: no name for what is copied", path);
	*ret_name = strdup(itself ? "." : how->source_name);
	return *ret_name ? 0 : error_sys(err, ENOMEM, "%s", path);
}

static int place(const char *path, const struct copy_place *how, int *ret_parent, char **ret_name, struct sm_error *err)
{
	size_t len = strlen(path);
	bool slash = len && (path[len - 1] == '/' || (len > 1 && streq(path + len - 2, "/.")));
	_free_ char *real = NULL;
	struct stat st;

	if (!len)
		return error_sys(err, ENOENT, "an empty path");
	if (stat(path, &st) < 0) {
		if (errno != ENOENT || (slash && !how->source_is_dir) || how->into)
			return error_sys(err, errno, "%s", path);
		return split(path, ret_parent, ret_name, err);
	}
	if (S_ISDIR(st.st_mode))
		return into_directory(path, how, ret_parent, ret_name, err);
	if (how->into)
		return error_sys(err, ENOTDIR, "%s", path);
	if (how->source_is_dir)
		return error_set(err, SM_ERROR_INVALID, ENOTDIR, "%s: a directory cannot take the place of a file",
				 path);
	/* The host's /dev/null, say: a file in its place would be everybody's loss. */
	if (!S_ISREG(st.st_mode))
		return error_set(err, SM_ERROR_INVALID, EINVAL,
				 "%s: neither a file nor a directory: it is not replaced", path);
	/* A link that leads to a file: the file is replaced, not the link. */
	real = realpath(path, NULL);
	return real ? split(real, ret_parent, ret_name, err) : error_sys(err, errno, "%s", path);
}

int copy_place(const char *path, const struct copy_place *how, int *ret_parent, char **ret_name, struct sm_error *err)
{
	int r;

	*ret_parent = -1;
	*ret_name = NULL;
	r = place(path, how, ret_parent, ret_name, err);
	if (r < 0) {
		*ret_parent = fd_close(*ret_parent);
		free(*ret_name);
		*ret_name = NULL;
	}
	return r;
}

int copy_remove(const char *path, bool recursive, struct sm_error *err)
{
	struct stat st;
	int r;

	if (lstat(path, &st) < 0)
		return error_sys(err, errno, "%s", path);
	if (recursive)
		r = remove_tree_at(AT_FDCWD, path);
	else
		r = (S_ISDIR(st.st_mode) ? rmdir(path) : unlink(path)) < 0 ? -errno : 0;
	return r < 0 ? error_sys(err, -r, "%s", path) : 0;
}
