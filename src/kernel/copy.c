/* SPDX-License-Identifier: Apache-2.0 */
/* A kernel and the few modules that guests load, copied to where nothing else of it is. See kernel_copy in kernel.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "kernel/internal.h"
#include "kernel/modules.h"

#define MAX_FILE (256 * MIB)

static int copy_file(const char *from, int dir, const char *to, struct sm_error *err)
{
	_free_ char *data = NULL;
	size_t len;
	int r = read_file_at(AT_FDCWD, from, MAX_FILE, &data, &len);

	if (r < 0)
		return error_sys(err, -r, "read %s", from);
	r = write_file_atomic_at(dir, to, data, len, 0644);
	return r < 0 ? error_sys(err, -r, "write %s", to) : 0;
}

/* Plain, whatever the distribution did to them; modules.order lists them, as in a package. */
static int write_modules(const struct module_list *list, int dir, struct sm_error *err)
{
	_cleanup_(buf_done) struct buf order = {0};
	int r = mkdirat(dir, "kernel", 0755) < 0 ? -errno : 0;

	for (size_t i = 0; r == 0 && i < list->count; i++) {
		const struct module *m = &list->items[i];
		char path[256];

		snprintf(path, sizeof(path), "kernel/%s.ko", m->name);
		buf_printf(&order, "%s\n", path);
		r = write_file_atomic_at(dir, path, m->data.data, m->data.len, 0644);
	}
	if (r == 0)
		r = order.error;
	if (r == 0)
		r = write_file_atomic_at(dir, "modules.order", order.data, order.len, 0644);
	return r < 0 ? error_sys(err, -r, "write the kernel's modules") : 0;
}

/* What says of other modules that they are built in, or what they offer. */
static int copy_lists(const char *from, int dir, struct sm_error *err)
{
	static const char *const lists[] = {"modules.builtin", "modules.builtin.modinfo", "modules.alias"};
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(lists); i++) {
		_free_ char *path = NULL;

		if (asprintf(&path, "%s/%s", from, lists[i]) < 0)
			return error_sys(err, ENOMEM, "kernel");
		if (access(path, F_OK) == 0)
			r = copy_file(path, dir, lists[i], err);
	}
	return r;
}

static int copy_modules(const struct kernel *k, const char *const *modules, const char *dir, struct sm_error *err)
{
	_cleanup_(module_list_done) struct module_list list = {0};
	_free_ char *path = NULL;
	_fd_ int fd = -1;
	int r;

	r = kernel_modules(k, modules, &list, err);
	if (r < 0)
		return r;
	if (asprintf(&path, "%s/lib/modules/%s", dir, k->release) < 0)
		return error_sys(err, ENOMEM, "kernel");
	r = mkdir_p(path, 0755);
	fd = r < 0 ? -1 : open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return error_sys(err, r < 0 ? -r : errno, "make %s", path);
	r = write_modules(&list, fd, err);
	return r < 0 ? r : copy_lists(k->modules, fd, err);
}

int kernel_copy(const struct kernel *k, const char *const *modules, const char *dir, struct sm_error *err)
{
	_free_ char *boot = NULL, *image = NULL;
	int r;

	if (asprintf(&boot, "%s/boot", dir) < 0 || asprintf(&image, "%s/vmlinuz-%s", boot, k->release) < 0)
		return error_sys(err, ENOMEM, "kernel");
	r = mkdir_p(boot, 0755);
	if (r < 0)
		return error_sys(err, -r, "make %s", boot);
	r = copy_file(k->image, AT_FDCWD, image, err);
	return r < 0 ? r : copy_modules(k, modules, dir, err);
}
