/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Assembling an initramfs: the caller's files, lib/modules/<name>.ko and the list `modules`. Uncompressed: it is made
 * once, the monitor maps it, and unpacking in the guest would cost more than the two or three MiB of copying. See
 * kernel.h.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/cursor.h"
#include "base/fileio.h"
#include "base/sha256hex.h"
#include "base/util.h"
#include "kernel/cpio.h"
#include "kernel/internal.h"
#include "kernel/modules.h"

#define MAX_FILE (256 * MIB)
#define UNUSED_LIMIT (7 * 24 * 3600) /* seconds */
#define FORMAT_VERSION 1	     /* part of the cache key: raise it when equal inputs give other bytes */

static int add_modules(struct cpio *c, const struct kernel *k, const char *const *modules, struct sm_error *err)
{
	_cleanup_(module_list_done) struct module_list list = {0};
	_cleanup_(buf_done) struct buf order = {0};
	int r;

	if (!modules || !*modules)
		return 0;
	r = kernel_modules(k, modules, &list, err);
	if (r < 0)
		return r;
	for (size_t i = 0; r == 0 && i < list.count; i++) {
		char path[256];

		snprintf(path, sizeof(path), "lib/modules/%s.ko", list.items[i].name);
		buf_printf(&order, "%s.ko\n", list.items[i].name);
		r = cpio_add(c, path, S_IFREG | 0644, list.items[i].data.data, list.items[i].data.len);
	}
	if (r == 0)
		r = order.error;
	if (r == 0)
		r = cpio_add(c, "modules", S_IFREG | 0644, order.len ? order.data : (const void *)"", order.len);
	return r < 0 ? error_sys(err, -r, "initramfs") : 0;
}

/* An archive under way, and the directories it has: NUL-separated names. */
struct tree {
	struct cpio cpio;
	struct buf dirs;
};

static bool has_dir(const struct tree *t, const char *dir)
{
	struct cursor c = cursor_of(t->dirs.data, t->dirs.len);

	while (c.left)
		if (streq(cursor_str(&c), dir))
			return true;
	return false;
}

static int add_dir(struct tree *t, const char *dir)
{
	int r = has_dir(t, dir) ? 0 : cpio_add(&t->cpio, dir, S_IFDIR | 0755, "", 0);

	return r < 0 ? r : buf_put(&t->dirs, dir, strlen(dir) + 1);
}

static int add_parents(struct tree *t, const char *path)
{
	int r = 0;

	for (const char *slash = strchr(path, '/'); slash && r == 0; slash = strchr(slash + 1, '/')) {
		_free_ char *dir = strndup(path, (size_t)(slash - path));

		r = dir ? add_dir(t, dir) : -ENOMEM;
	}
	return r;
}

static void tree_done(struct tree *t)
{
	cpio_done(&t->cpio);
	buf_done(&t->dirs);
}

static int add_file(struct tree *t, const struct initramfs_file *f, struct sm_error *err)
{
	_free_ char *data = NULL;
	size_t len;
	int r = read_file_at(AT_FDCWD, f->source, MAX_FILE, &data, &len);

	if (r < 0)
		return error_sys(err, -r, "initramfs: %s", f->source);
	r = add_parents(t, f->path);
	if (r == 0)
		r = cpio_add(&t->cpio, f->path, S_IFREG | (f->mode & 07777), data, len);
	return r < 0 ? error_sys(err, -r, "initramfs: %s", f->path) : 0;
}

/* The mount points an init expects, and the console that the kernel opens for it as descriptors 0 to 2. */
static int add_skeleton(struct tree *t)
{
	static const char *const dirs[] = {"dev", "proc", "sys", "run", "root", "lib", "lib/modules"};
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(dirs); i++)
		r = add_dir(t, dirs[i]);
	if (r == 0)
		r = cpio_add_device(&t->cpio, "dev/console", S_IFCHR | 0600, 5, 1);
	return r == 0 ? cpio_add_device(&t->cpio, "dev/null", S_IFCHR | 0666, 1, 3) : r;
}

int initramfs_build(const struct kernel *k, const char *const *modules, const struct initramfs_file *files,
		    size_t num_files, const char *out, struct sm_error *err)
{
	_cleanup_(tree_done) struct tree t = {0};
	int r = add_skeleton(&t);

	if (r < 0)
		return error_sys(err, -r, "initramfs");
	for (size_t i = 0; r == 0 && i < num_files; i++)
		r = add_file(&t, &files[i], err);
	if (r == 0)
		r = add_modules(&t.cpio, k, modules, err);
	if (r < 0)
		return r;
	r = cpio_end(&t.cpio);
	if (r == 0)
		r = write_file_atomic_at(AT_FDCWD, out, t.cpio.out.data, t.cpio.out.len, 0644);
	return r < 0 ? error_sys(err, -r, "write %s", out) : 0;
}

/* A file's identity and age stand for its content: hashing the bytes at each start would cost more than all the rest.
 */
static int key_file(struct buf *key, const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return -errno;
	return buf_printf(key, "%s %llx %llx %llx %lld.%ld %lld.%ld\n", path, (unsigned long long)st.st_dev,
			  (unsigned long long)st.st_ino, (unsigned long long)st.st_size, (long long)st.st_mtim.tv_sec,
			  st.st_mtim.tv_nsec, (long long)st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
}

static int make_key(const struct kernel *k, const char *const *modules, const struct initramfs_file *files,
		    size_t num_files, char hex[static 65], struct sm_error *err)
{
	_cleanup_(buf_done) struct buf key = {0};
	_free_ char *list = NULL;
	int r = 0;

	buf_printf(&key, "initramfs %d\nrelease %s\n", FORMAT_VERSION, k->release);
	for (; modules && *modules; modules++)
		buf_printf(&key, "module %s\n", *modules);
	if (k->modules) {
		if (asprintf(&list, "%s/modules.order", k->modules) < 0)
			return error_sys(err, ENOMEM, "initramfs");
		if (key_file(&key, list) < 0) /* a kernel of one's own may lack it */
			r = key_file(&key, k->modules);
		if (r < 0)
			return error_sys(err, -r, "kernel modules in %s", k->modules);
	}
	for (size_t i = 0; i < num_files; i++) {
		buf_printf(&key, "file %s %o ", files[i].path, files[i].mode);
		r = key_file(&key, files[i].source);
		if (r < 0)
			return error_sys(err, -r, "initramfs: %s", files[i].source);
	}
	if (key.error)
		return error_sys(err, ENOMEM, "initramfs");
	sha256_hex(key.data, key.len, 64, hex);
	return 0;
}

/*
 * Uses keep a file's time recent; whoever makes a new one removes those that nobody has used for a week. A file that
 * somebody has open stays with them.
 */
static void prune(const char *dir)
{
	_fd_ int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	struct stat st;

	if (!d)
		return;
	fd = -1; /* the stream has it */
	while ((e = readdir(d)))
		if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
		    time(NULL) - st.st_mtim.tv_sec > UNUSED_LIMIT)
			unlinkat(dirfd(d), e->d_name, 0);
	closedir(d);
}

static bool use(const char *path)
{
	struct stat st;

	if (access(path, R_OK) < 0 || stat(path, &st) < 0)
		return false;
	if (time(NULL) - st.st_mtim.tv_sec > UNUSED_LIMIT / 7)
		utimensat(AT_FDCWD, path, NULL, 0);
	return true;
}

int initramfs_cached(const struct kernel *k, const char *const *modules, const struct initramfs_file *files,
		     size_t num_files, const char *data_dir, const char *kind, char **ret_path, struct sm_error *err)
{
	_free_ char *dir = NULL, *path = NULL;
	char hex[65];
	int r = make_key(k, modules, files, num_files, hex, err);

	if (r < 0)
		return error_wrap(err, r, "%s", kind);
	if (asprintf(&dir, "%s/initramfs", data_dir) < 0)
		return error_sys(err, ENOMEM, "%s initramfs", kind);
	if (asprintf(&path, "%s/%s", dir, hex) < 0)
		return error_sys(err, ENOMEM, "%s initramfs", kind);
	if (!use(path)) {
		r = mkdir_p(dir, 0700);
		if (r < 0)
			return error_sys(err, -r, "make %s", dir);
		r = initramfs_build(k, modules, files, num_files, path, err);
		if (r < 0)
			return error_wrap(err, r, "%s", kind);
		prune(dir);
	}
	*ret_path = TAKE_PTR(path);
	return 0;
}
