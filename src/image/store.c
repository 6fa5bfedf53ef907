/* SPDX-License-Identifier: Apache-2.0 */
/* The store's directory, locks, temporaries and pins. See store.h. */
#include "image/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"

#define PIN_PREFIX "pin-"
#define MAX_PIN (1U << 20)
#define WAIT_NS 20000000L

struct image_pin {
	int dirfd, fd;
	char path[STORE_PATH_MAX];
};

int image_store_open(const char *dir, struct image_store **ret, struct sm_error *err)
{
	static const char *const dirs[] = {"blobs", "layers", "meta", "images", "removed", "tmp"};
	struct image_store *store;
	int r = mkdir_p(dir, 0700);

	if (r < 0)
		return error_sys(err, -r, "image store %s", dir);
	store = calloc(1, sizeof(*store));
	if (!store)
		return error_sys(err, ENOMEM, "image store");
	store->fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	store->dir = realpath(dir, NULL);
	if (store->fd < 0 || !store->dir) {
		r = error_sys(err, errno, "image store %s", dir);
		image_store_close(store);
		return r;
	}
	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		if (mkdirat(store->fd, dirs[i], 0700) == 0 || errno == EEXIST)
			continue;
		r = error_sys(err, errno, "image store %s/%s", dir, dirs[i]);
		image_store_close(store);
		return r;
	}
	*ret = store;
	return 0;
}

struct image_store *image_store_close(struct image_store *store)
{
	if (store) {
		fd_close(store->fd);
		free(store->dir);
		free(store);
	}
	return NULL;
}

const char *store_path(char out[static STORE_PATH_MAX], const char *dir, const char *hex, const char *suffix)
{
	snprintf(out, STORE_PATH_MAX, "%s/%s%s", dir, hex, suffix);
	return out;
}

bool is_hex64(const char *s, size_t len)
{
	return len == 64 && strspn(s, "0123456789abcdef") >= 64;
}

bool sha256_digits(const char *digest, char out[static HEX_SIZE])
{
	if (!str_starts(digest, "sha256:") || !is_hex64(digest + 7, strlen(digest + 7)))
		return false;
	memcpy(out, digest + 7, HEX_SIZE);
	return true;
}

int store_lock(struct image_store *store, int *ret_fd, struct sm_error *err)
{
	/* A descriptor of its own: threads exclude each other like processes. */
	_fd_ int fd = openat(store->fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0)
		return error_sys(err, errno, "lock the image store %s", store->dir);
	while (flock(fd, LOCK_EX) < 0)
		if (errno != EINTR)
			return error_sys(err, errno, "lock the image store %s", store->dir);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int store_sync_dir(struct image_store *store, const char *dir, struct sm_error *err)
{
	_fd_ int fd = openat(store->fd, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || fsync(fd) < 0)
		return error_sys(err, errno, "sync %s/%s", store->dir, dir);
	return 0;
}

/* True if the name still leads to the open file: prune, or its last owner, may have taken it away. */
static bool still_there(struct image_store *store, int fd, const char *path)
{
	struct stat a, b;

	return fstat(fd, &a) == 0 && fstatat(store->fd, path, &b, AT_SYMLINK_NOFOLLOW) == 0 && a.st_dev == b.st_dev &&
	       a.st_ino == b.st_ino;
}

int tmp_open(struct image_store *store, const char *path, int (*cancel)(void *), void *arg, int *ret_fd,
	     struct sm_error *err)
{
	for (;;) {
		_fd_ int fd = openat(store->fd, path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

		if (fd < 0)
			return error_sys(err, errno, "create %s/%s", store->dir, path);
		while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
			if (errno != EWOULDBLOCK && errno != EINTR)
				return error_sys(err, errno, "lock %s/%s", store->dir, path);
			if (cancel && cancel(arg))
				return error_set(err, SM_ERROR_CANCELLED, ECANCELED, "cancelled");
			nanosleep(&(struct timespec){.tv_nsec = WAIT_NS}, NULL);
		}
		if (!still_there(store, fd, path))
			continue;
		if (ftruncate(fd, 0) < 0)
			return error_sys(err, errno, "truncate %s/%s", store->dir, path);
		*ret_fd = TAKE_FD(fd);
		return 0;
	}
}

int tmp_publish(struct image_store *store, int fd, const char *path, const char *final, struct sm_error *err)
{
	if (fsync(fd) < 0)
		return error_sys(err, errno, "write %s/%s", store->dir, path);
	if (renameat(store->fd, path, store->fd, final) < 0)
		return error_sys(err, errno, "rename %s/%s", store->dir, path);
	return 0;
}

int pin_create_locked(struct image_store *store, const struct pin_item *items, size_t n, struct image_pin **ret,
		      struct sm_error *err)
{
	struct image_pin *pin = calloc(1, sizeof(*pin));
	struct buf text = {0};
	char unique[17];
	int r = random_hex(unique, 8);

	if (!pin)
		return error_sys(err, ENOMEM, "pin");
	pin->fd = -1;
	pin->dirfd = fcntl(store->fd, F_DUPFD_CLOEXEC, 0);
	for (size_t i = 0; i < n; i++)
		buf_printf(&text, "%s %s\n", items[i].kind, items[i].hex);
	if (r == 0)
		r = pin->dirfd < 0 ? -errno : text.error;
	if (r == 0) {
		store_path(pin->path, "tmp", PIN_PREFIX, unique);
		pin->fd = openat(store->fd, pin->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		r = pin->fd < 0 ? -errno : 0;
	}
	if (r == 0 && flock(pin->fd, LOCK_EX | LOCK_NB) < 0)
		r = -errno;
	if (r == 0)
		r = write_full(pin->fd, text.data, text.len);
	buf_done(&text);
	if (r < 0) {
		image_unpin(pin);
		return error_sys(err, -r, "pin in %s/tmp", store->dir);
	}
	*ret = pin;
	return 0;
}

struct image_pin *image_unpin(struct image_pin *pin)
{
	if (pin) {
		if (pin->fd >= 0) {
			unlinkat(pin->dirfd, pin->path, 0);
			fd_close(pin->fd);
		}
		fd_close(pin->dirfd);
		free(pin);
	}
	return NULL;
}

/* Adds the lines of one living pin. */
static int pin_read(struct image_store *store, const char *path, json_t *into)
{
	_free_ char *text = NULL;
	int r = read_file_at(store->fd, path, MAX_PIN, &text, NULL);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
		*end = 0;
		if (json_object_set_new(into, line, json_true()) < 0)
			return -ENOMEM;
	}
	return 0;
}

/* One file of tmp/: 1 if it has an owner, 0 if it is garbage and was removed. */
static int tmp_check(struct image_store *store, const char *path, uint64_t *ret_bytes)
{
	_fd_ int fd = openat(store->fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;

	*ret_bytes = 0;
	if (fd >= 0) {
		if (flock(fd, LOCK_EX | LOCK_NB) < 0)
			return errno == EWOULDBLOCK ? 1 : -errno;
		if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 1)
			*ret_bytes = (uint64_t)st.st_blocks * 512;
	} else if (errno == ENOENT) {
		return 1; /* its owner was quicker */
	}
	return remove_tree_at(store->fd, path);
}

int pin_collect_locked(struct image_store *store, json_t *into, struct image_prune_result *dead, struct sm_error *err)
{
	int fd = openat(store->fd, "tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *de;

	if (!dir) {
		fd_close(fd);
		return error_sys(err, errno, "read %s/tmp", store->dir);
	}
	while (r >= 0 && (de = readdir(dir))) {
		char path[STORE_PATH_MAX + NAME_MAX];
		uint64_t bytes;

		if (streq(de->d_name, ".") || streq(de->d_name, ".."))
			continue;
		snprintf(path, sizeof(path), "tmp/%s", de->d_name);
		r = tmp_check(store, path, &bytes);
		if (r == 0) {
			dead->temporaries++;
			dead->bytes += bytes;
		} else if (r == 1 && str_starts(de->d_name, PIN_PREFIX)) {
			r = pin_read(store, path, into);
		}
		if (r < 0)
			error_sys(err, -r, "%s/%s", store->dir, path);
	}
	closedir(dir);
	return r < 0 ? r : 0;
}
