/* SPDX-License-Identifier: Apache-2.0 */
/* A store that is a directory; and what both kinds of store share. See store.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "oci/json.h"
#include "oci/store.h"

struct store_dir {
	struct store base;
	int fd;
};

void extent_close(struct extent *e)
{
	e->fd = fd_close(e->fd);
	if (e->remote)
		e->remote->close(e->remote);
	e->remote = NULL;
}

ssize_t extent_read(const struct extent *e, uint64_t at, void *p, size_t len)
{
	if (at >= e->size)
		return 0;
	return pread_full(e->fd, p, (size_t)MIN(len, e->size - at), (off_t)(e->offset + at));
}

int store_read(struct store *s, const char *name, size_t max, char **ret, size_t *ret_len, struct sm_error *err)
{
	struct extent e = {.fd = -1};
	char buf[SHOW_SIZE], *data;
	ssize_t n;
	int r = s->open(s, name, &e, err);

	if (r < 0)
		return r;
	if (e.size > max) {
		extent_close(&e);
		return error_set(err, SM_ERROR_LIMIT, EFBIG, "%s is over %zu bytes", show(name, buf), max);
	}
	data = malloc(e.size + 1);
	n = data ? extent_read(&e, 0, data, e.size) : -ENOMEM;
	extent_close(&e);
	if (n < 0) {
		free(data);
		return error_sys(err, (int)-n, "read %s", show(name, buf));
	}
	data[n] = 0;
	*ret = data;
	*ret_len = (size_t)n;
	return 0;
}

/* Only plain relative names: no "..", no empty components, not absolute. */
static bool name_is_inside(const char *name)
{
	for (const char *p = name;; p++) {
		size_t len = strcspn(p, "/");

		if (len == 0 || (len == 2 && p[0] == '.' && p[1] == '.'))
			return false;
		p += len;
		if (!*p)
			return true;
	}
}

static int dir_open(struct store *self, const char *name, struct extent *ret, struct sm_error *err)
{
	struct store_dir *d = CONTAINER_OF(self, struct store_dir, base);
	char buf[SHOW_SIZE];
	_fd_ int fd = -1;
	struct stat st;

	if (!name_is_inside(name))
		return -ENOENT;
	/* O_NONBLOCK: a fifo must not hold us up before it is refused. */
	fd = openat(d->fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
		return -ENOENT;
	if (fd < 0 || fstat(fd, &st) < 0)
		return error_sys(err, errno, "open %s", show(name, buf));
	if (!S_ISREG(st.st_mode))
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s is not a regular file", show(name, buf));
	*ret = (struct extent){.fd = TAKE_FD(fd), .size = (uint64_t)st.st_size};
	return 0;
}

static void dir_free(struct store *self)
{
	struct store_dir *d = CONTAINER_OF(self, struct store_dir, base);

	fd_close(d->fd);
	free(d);
}

int store_dir_open(const char *path, struct store **ret, struct sm_error *err)
{
	struct store_dir *d = calloc(1, sizeof(*d));

	if (!d)
		return error_sys(err, ENOMEM, "open %s", path);
	d->base = (struct store){.open = dir_open, .free = dir_free};
	d->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d->fd < 0) {
		int code = errno;

		free(d);
		return error_sys(err, code, "open %s", path);
	}
	*ret = &d->base;
	return 0;
}
