/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernel a guest gets. See kernel_find in kernel.h. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "kernel/internal.h"

#define IMAGE_PREFIX "vmlinuz-"
#define HINT "apt-get install linux-image-cloud-amd64"

void kernel_done(struct kernel *k)
{
	free(k->image);
	free(k->release);
	free(k->modules);
	*k = (struct kernel){0};
}

static bool is_dir(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && streq(s + n - m, end);
}

/* Modules of this release: beside the image (X/boot/vmlinuz, X/lib/modules), whatever else there is of that name; the
 * system's; those of a kernel unpacked under data_dir. */
static char *find_modules(const char *image, const char *release, const char *data_dir)
{
	const char *slash = strrchr(image, '/');
	char path[PATH_MAX];

	if (slash && !str_starts(image, "/boot/")) {
		snprintf(path, sizeof(path), "%.*s/../lib/modules/%s", (int)(slash - image), image, release);
		if (is_dir(path))
			return realpath(path, NULL);
	}
	snprintf(path, sizeof(path), "/lib/modules/%s", release);
	if (is_dir(path))
		return strdup(path);
	snprintf(path, sizeof(path), "%s/kernels/%s/lib/modules/%s", data_dir ? data_dir : "", release, release);
	return data_dir && is_dir(path) ? strdup(path) : NULL;
}

static int adopt(const char *image, const char *data_dir, struct kernel *ret, struct sm_error *err)
{
	struct kernel k = {0};
	int r;

	k.image = realpath(image, NULL);
	if (!k.image)
		return error_sys(err, errno, "kernel %s", image);
	r = kernel_image_release(k.image, &k.release, err);
	if (r < 0) {
		kernel_done(&k);
		return r;
	}
	k.modules = find_modules(image, k.release, data_dir);
	*ret = k;
	return 0;
}

/* Rank of a release among candidates: stock cloud kernels, then the plain stock ones; others are not ours to pick. */
static int rank(const char *release)
{
	return ends_with(release, "-cloud-amd64") ? 2
	       : ends_with(release, "-rt-amd64")  ? 0
	       : ends_with(release, "-amd64")	  ? 1
						  : 0;
}

static bool better(const char *release, const char *than)
{
	int a = rank(release), b = than ? rank(than) : 0;

	return a != b ? a > b : a > 0 && strverscmp(release, than) > 0;
}

/* The best release in dir whose image (dir/<prefix><release><suffix>) can be read and whose modules (below root) are
 * there. */
static char *best_in(const char *dir, const char *prefix, const char *suffix, const char *root)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	char *best = NULL;

	while (d && (e = readdir(d))) {
		char image[PATH_MAX], modules[PATH_MAX];
		const char *release = e->d_name + strlen(prefix);

		if (!str_starts(e->d_name, prefix) || !better(release, best))
			continue;
		snprintf(image, sizeof(image), "%s/%s%s%s", dir, e->d_name, suffix, *suffix ? release : "");
		snprintf(modules, sizeof(modules), "%s%s%s/lib/modules/%s", root, *suffix ? "/" : "",
			 *suffix ? release : "", release);
		if (access(image, R_OK) < 0 || !is_dir(modules))
			continue;
		free(best);
		best = strdup(release);
	}
	if (d)
		closedir(d);
	return best;
}

static int find_installed(struct kernel *ret)
{
	_free_ char *release = best_in("/boot", IMAGE_PREFIX, "", "");
	char image[PATH_MAX];

	if (!release)
		return -ENOENT;
	snprintf(image, sizeof(image), "/boot/" IMAGE_PREFIX "%s", release);
	return adopt(image, NULL, ret, NULL);
}

static int find_unpacked(const char *data_dir, struct kernel *ret)
{
	_free_ char *kernels = NULL, *release = NULL;
	char image[PATH_MAX];

	if (asprintf(&kernels, "%s/kernels", data_dir) < 0)
		return -ENOMEM;
	release = best_in(kernels, "", "/boot/" IMAGE_PREFIX, kernels);
	if (!release)
		return -ENOENT;
	snprintf(image, sizeof(image), "%s/%s/boot/" IMAGE_PREFIX "%s", kernels, release, release);
	return adopt(image, data_dir, ret, NULL);
}

/* A bundle's. */
static int find_bundled(const char *data_dir, struct kernel *ret)
{
	_free_ char *root = NULL, *boot = NULL, *release = NULL, *image = NULL;

	if (asprintf(&root, "%s/" KERNEL_BUNDLED, data_dir) < 0 || asprintf(&boot, "%s/boot", root) < 0)
		return -ENOMEM;
	release = best_in(boot, IMAGE_PREFIX, "", root);
	if (!release)
		return -ENOENT;
	if (asprintf(&image, "%s/" IMAGE_PREFIX "%s", boot, release) < 0)
		return -ENOMEM;
	return adopt(image, NULL, ret, NULL);
}

int kernel_find(const char *file, const char *data_dir, struct kernel *ret, struct sm_error *err)
{
	struct sm_error why = {0};

	if (file)
		return adopt(file, data_dir, ret, err);
	if (data_dir && find_bundled(data_dir, ret) == 0)
		return 0;
	if (find_installed(ret) == 0)
		return 0;
	if (!data_dir)
		return error_set(err, SM_ERROR_HOST, ENOENT, "no kernel for guests in /boot; try: " HINT);
	if (find_unpacked(data_dir, ret) == 0)
		return 0;
	if (kernel_download(data_dir, &why) == 0 && find_unpacked(data_dir, ret) == 0)
		return 0;
	return error_set(err, SM_ERROR_HOST, ENOENT, "no kernel for guests in /boot (%s); try: " HINT, why.message);
}
