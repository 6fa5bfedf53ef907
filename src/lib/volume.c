/* SPDX-License-Identifier: Apache-2.0 */
/* The directory of volumes: making, reading and removing one. See volume.h. */
#include "lib/volume.h"

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
#include "base/fileio.h"
#include "base/util.h"
#include "keeper/recordjson.h"

#define VERSION 1
#define DEFAULT_SIZE (10 * GIB)
#define NEW_PREFIX ".new-"
#define OLD_PREFIX ".old-"

void volume_done(struct volume *v)
{
	strv_free(v->labels);
	*v = (struct volume){0};
}

char *volume_disk(struct sm_client *c, const char *name)
{
	char *path;

	return asprintf(&path, "%s/volumes/%s/disk", c->data_dir, name) < 0 ? NULL : path;
}

int volumes_open(struct sm_client *c, struct sm_error *err)
{
	_free_ char *path = NULL;
	int fd, r;

	if (asprintf(&path, "%s/volumes", c->data_dir) < 0)
		return error_sys(err, ENOMEM, "volumes");
	r = mkdir_p(path, 0700);
	if (r < 0)
		return error_sys(err, -r, "make %s", path);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? error_sys(err, errno, "open %s", path) : fd;
}

int volumes_lock(int volumes, struct sm_error *err)
{
	int fd = vmdir_flock(volumes, ".lock", true, true);

	return fd < 0 ? error_sys(err, -fd, "lock the volumes") : fd;
}

/* ---------------------------------------------------------------------------------------- volume.json */

static int format(const struct volume *v, char **ret, struct sm_error *err)
{
	json_t *o = json_object();

	rj_put_u64(o, "version", VERSION);
	rj_put_str(o, "name", v->name);
	rj_put_u64(o, "size", v->size);
	rj_put_u64(o, "created_ns", (uint64_t)v->created_ns);
	rj_put_bool(o, "anonymous", v->anonymous);
	rj_put_strv(o, "labels", v->labels);
	return rj_dump(o, ret, err);
}

static int parse(const char *json, size_t len, struct volume *ret, struct sm_error *err)
{
	struct rj j;
	int r = rj_load(&j, json, len, "volume.json", err);

	if (r < 0)
		return r;
	rj_u64(&j, "version", 1, VERSION);
	ret->size = rj_u64(&j, "size", 1, INT64_MAX);
	ret->created_ns = (int64_t)rj_u64(&j, "created_ns", 0, INT64_MAX);
	ret->anonymous = rj_bool(&j, "anonymous");
	ret->labels = rj_strv(&j, "labels", false);
	return rj_finish(&j, "volume.json", err);
}

int volume_load(int volumes, const char *name, struct volume *ret, struct sm_error *err)
{
	_free_ char *json = NULL;
	struct volume v = {0};
	_fd_ int dir = -1;
	size_t len;
	int r;

	if (!vm_name_valid(name))
		return error_set(err, SM_ERROR_INVALID, EINVAL,
				 "\"%s\" is no name for a volume: letters, digits, _ . -, at most %d, beginning with a "
				 "letter or digit",
				 name, VM_NAME_MAX);
	dir = openat(volumes, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir < 0 && (errno == ENOENT || errno == ENOTDIR))
		return error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "no such volume: %s", name);
	if (dir < 0)
		return error_sys(err, errno, "volume %s", name);
	r = read_file_at(dir, "volume.json", VM_RECORD_MAX, &json, &len);
	if (r < 0)
		return error_sys(err, -r, "volume %s", name);
	snprintf(v.name, sizeof(v.name), "%s", name);
	r = parse(json, len, &v, err);
	if (r < 0) {
		volume_done(&v);
		return error_wrap(err, r, "volume %s", name);
	}
	*ret = v;
	return 0;
}

/* ------------------------------------------------------------------------------------------- making */

static int make_disk(struct sm_client *c, int dir, uint64_t size, struct sm_error *err)
{
	_free_ char *template = NULL;
	_fd_ int from = -1, to = -1;
	int r = disk_template(c, size, &(struct sm_progress){0}, &template, err);

	if (r < 0)
		return r;
	from = open(template, O_RDONLY | O_CLOEXEC);
	to = openat(dir, "disk", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (from < 0 || to < 0)
		return error_sys(err, errno, "make the volume's disk");
	r = volume_copy_sparse(from, to, (off_t)size);
	if (r == 0 && fsync(to) < 0)
		r = -errno;
	return r < 0 ? error_sys(err, -r, "make the volume's disk") : 0;
}

static int fill_new(struct sm_client *c, int volumes, const char *temporary, const struct volume *v,
		    struct sm_error *err)
{
	_free_ char *json = NULL;
	_fd_ int dir = -1;
	int r = format(v, &json, err);

	if (r < 0)
		return r;
	if (mkdirat(volumes, temporary, 0700) < 0)
		return error_sys(err, errno, "make volume %s", v->name);
	dir = openat(volumes, temporary, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return error_sys(err, errno, "make volume %s", v->name);
	r = make_disk(c, dir, v->size, err);
	if (r < 0)
		return r;
	r = write_file_atomic_at(dir, "volume.json", json, strlen(json), 0600); /* syncs the directory, too */
	return r < 0 ? error_sys(err, -r, "make volume %s", v->name) : 0;
}

int volume_make_locked(struct sm_client *c, int volumes, const struct volume *v, struct sm_error *err)
{
	struct volume made = *v;
	struct timespec now;
	char temporary[VM_NAME_MAX + 16];
	int r;

	if (faccessat(volumes, v->name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return 1;
	volumes_sweep_locked(volumes);
	clock_gettime(CLOCK_REALTIME, &now);
	made.created_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
	made.size = v->size ? align_up(v->size, MIB) : DEFAULT_SIZE;
	snprintf(temporary, sizeof(temporary), NEW_PREFIX "%s", v->name);
	r = fill_new(c, volumes, temporary, &made, err);
	if (r == 0 && (renameat(volumes, temporary, volumes, v->name) < 0 || fsync(volumes) < 0))
		r = error_sys(err, errno, "make volume %s", v->name);
	if (r < 0)
		remove_tree_at(volumes, temporary);
	return r;
}

/* ----------------------------------------------------------------------------------------- removing */

int volume_remove_locked(int volumes, const char *name, struct sm_error *err)
{
	char old[VM_NAME_MAX + 16];
	_fd_ int dir = -1;
	int r;

	snprintf(old, sizeof(old), OLD_PREFIX "%s", name);
	remove_tree_at(volumes, old);
	if (renameat(volumes, name, volumes, old) < 0)
		return errno == ENOENT ? error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "no such volume: %s", name)
				       : error_sys(err, errno, "remove volume %s", name);
	dir = openat(volumes, old, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir >= 0)
		disk_give_back(dir, "disk");
	r = remove_tree_at(volumes, old);
	return r < 0 ? error_sys(err, -r, "remove volume %s", name) : 0;
}

void volumes_sweep_locked(int volumes)
{
	int fd = openat(volumes, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	while (dir && (e = readdir(dir)))
		if (str_starts(e->d_name, NEW_PREFIX) || str_starts(e->d_name, OLD_PREFIX))
			remove_tree_at(volumes, e->d_name);
	if (dir)
		closedir(dir);
}
