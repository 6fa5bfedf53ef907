/* SPDX-License-Identifier: Apache-2.0 */
/* See newfile.h. */
#include "guest/newfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"

static int make_parents(const char *path)
{
	const char *slash = strrchr(path, '/');
	_free_ char *dir = slash && slash != path ? strndup(path, (size_t)(slash - path)) : NULL;

	return dir ? mkdir_p(dir, 0755) : 0;
}

int newfile_begin(struct newfile *f, const char *path, bool make_dirs, mode_t mode)
{
	char unique[17];
	struct stat st;
	int r;

	*f = (struct newfile){.fd = -1};
	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
		return S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
	r = make_dirs ? make_parents(path) : 0;
	if (r == 0)
		r = random_hex(unique, 8);
	if (r < 0)
		return r;
	f->path = realpath(path, NULL);
	if (!f->path)
		f->path = strdup(path);
	if (!f->path || asprintf(&f->temporary, "%s.%s", f->path, unique) < 0) {
		f->temporary = NULL;
		return -ENOMEM;
	}
	f->fd = open(f->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (f->fd < 0) {
		r = -errno;
		free(f->temporary);
		f->temporary = NULL;
		return r;
	}
	return fchmod(f->fd, mode) < 0 ? -errno : 0;
}

int newfile_commit(struct newfile *f)
{
	if (rename(f->temporary, f->path) < 0)
		return -errno;
	free(f->temporary);
	f->temporary = NULL;
	return 0;
}

void newfile_done(struct newfile *f)
{
	if (f->temporary)
		unlink(f->temporary);
	free(f->temporary);
	free(f->path);
	f->path = f->temporary = NULL;
	f->fd = fd_close(f->fd);
}
