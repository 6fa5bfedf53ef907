/* SPDX-License-Identifier: Apache-2.0 */
/* sm_volume_create and what else programs do with volumes. */
#include <dirent.h>
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
#include "keeper/recordjson.h"
#include "lib/volume.h"

#define MIN_SIZE (16 * MIB)
#define MAX_SIZE (16 * 1024 * GIB)

/* The public part first: its address is the handle. */
struct volume_info {
	struct sm_volume_info pub;
	struct volume v;
	char *path;
	char **vms;
};

static struct sm_volume_info *info_free(struct volume_info *in)
{
	volume_done(&in->v);
	free(in->path);
	strv_free(in->vms);
	free(in);
	return NULL;
}

static int info_new(struct sm_client *c, int volumes, const char *name, struct volume_info **ret, struct sm_error *err)
{
	struct volume_info *in = calloc(1, sizeof(*in));
	struct stat st = {0};
	int r = in ? volume_load(volumes, name, &in->v, err) : error_sys(err, ENOMEM, "volume %s", name);

	if (r < 0) {
		free(in);
		return r;
	}
	in->path = volume_disk(c, name);
	in->vms = volume_users(c, name);
	if (!in->path || !in->vms) {
		info_free(in);
		return error_sys(err, ENOMEM, "volume %s", name);
	}
	stat(in->path, &st);
	in->pub = (struct sm_volume_info){.name = in->v.name,
					  .path = in->path,
					  .labels = (const char *const *)in->v.labels,
					  .anonymous = in->v.anonymous,
					  .size = in->v.size,
					  .allocated_size = (uint64_t)st.st_blocks * 512,
					  .created_ns = in->v.created_ns,
					  .vms = (const char *const *)in->vms};
	*ret = in;
	return 0;
}

/* ----------------------------------------------------------------------------------------- create */

static int check(const struct sm_volume_options *o, struct volume *v, struct sm_error *err)
{
	char text[16];

	if (o->name && !vm_name_valid(o->name))
		return error_set(err, SM_ERROR_INVALID, EINVAL,
				 "\"%s\" is no name for a volume: letters, digits, _ . -, at most %d, beginning with a "
				 "letter or digit",
				 o->name, VM_NAME_MAX);
	if (o->disk_size && (o->disk_size < MIN_SIZE || o->disk_size > MAX_SIZE))
		return error_set(err, SM_ERROR_INVALID, EINVAL, "a volume of %s: it must be from 16 MiB to 16 TiB",
				 format_size(o->disk_size, text));
	v->size = o->disk_size;
	v->anonymous = !o->name;
	if (o->name)
		snprintf(v->name, sizeof(v->name), "%s", o->name);
	else if (random_hex(v->name, 16) < 0)
		return error_sys(err, EIO, "random numbers");
	v->labels = strv_copy(o->labels);
	return o->labels && !v->labels ? error_sys(err, ENOMEM, "volume") : 0;
}

int sm_volume_create(struct sm_client *client, const struct sm_volume_options *options, char **ret_name,
		     struct sm_error *err)
{
	struct sm_volume_options o = OPTIONS_GET(struct sm_volume_options, options);
	_cleanup_(volume_done) struct volume v = {0};
	_fd_ int volumes = -1, lock = -1;
	_free_ char *name = NULL;
	int r = check(&o, &v, err);

	if (r < 0)
		return r;
	volumes = volumes_open(client, err);
	lock = volumes < 0 ? volumes : volumes_lock(volumes, err);
	if (lock < 0)
		return lock;
	r = volume_make_locked(client, volumes, &v, err);
	if (r > 0)
		return error_set(err, SM_ERROR_EXISTS, EEXIST, "there is a volume %s already", v.name);
	name = strdup(v.name);
	if (r == 0 && ret_name)
		*ret_name = TAKE_PTR(name);
	return r;
}

/* ------------------------------------------------------------------------------------------- list */

static int by_name(const void *a, const void *b)
{
	return strcmp((*(struct sm_volume_info *const *)a)->name, (*(struct sm_volume_info *const *)b)->name);
}

/* One that cannot be read is told of, and left out. */
static int add(struct sm_client *c, int volumes, const char *name, struct sm_volume_info ***list, size_t *n)
{
	struct sm_volume_info **more = realloc(*list, (*n + 1) * sizeof(**list));
	struct volume_info *in;
	struct sm_error own = {0};

	if (!more)
		return -ENOMEM;
	*list = more;
	if (info_new(c, volumes, name, &in, &own) == 0)
		more[(*n)++] = &in->pub;
	else if (own.kind != SM_ERROR_NOT_FOUND)
		client_say(c, SM_LOG_ERROR, "%s", own.message);
	return 0;
}

int sm_volume_list(struct sm_client *client, struct sm_volume_info ***ret, size_t *ret_count, struct sm_error *err)
{
	_fd_ int volumes = volumes_open(client, err);
	struct sm_volume_info **list = NULL;
	struct dirent *e;
	size_t n = 0;
	int r = 0;
	DIR *dir;

	if (volumes < 0)
		return volumes;
	dir = fdopendir(dup(volumes));
	if (!dir)
		return error_sys(err, errno, "read the volumes");
	while (r == 0 && (e = readdir(dir)))
		if (vm_name_valid(e->d_name))
			r = add(client, volumes, e->d_name, &list, &n);
	closedir(dir);
	if (r < 0) {
		sm_volume_list_free(list, n);
		return error_sys(err, -r, "list volumes");
	}
	if (n)
		qsort(list, n, sizeof(*list), by_name);
	*ret = list;
	*ret_count = n;
	return 0;
}

void sm_volume_list_free(struct sm_volume_info **list, size_t count)
{
	for (size_t i = 0; i < count; i++)
		info_free((struct volume_info *)list[i]);
	free(list);
}

int sm_volume_inspect(struct sm_client *client, const char *name, char **ret_json, struct sm_error *err)
{
	_fd_ int volumes = volumes_open(client, err);
	struct volume_info *in;
	json_t *o;
	int r = volumes < 0 ? volumes : info_new(client, volumes, name, &in, err);

	if (r < 0)
		return r;
	o = json_object();
	rj_put_str(o, "name", in->v.name);
	rj_put_str(o, "path", in->path);
	rj_put_u64(o, "size", in->v.size);
	rj_put_u64(o, "allocated_size", in->pub.allocated_size);
	rj_put_u64(o, "created_ns", (uint64_t)in->v.created_ns);
	rj_put_bool(o, "anonymous", in->v.anonymous);
	rj_put_strv(o, "labels", in->v.labels);
	rj_put_strv(o, "vms", in->vms);
	info_free(in);
	return rj_dump(o, ret_json, err);
}

/* --------------------------------------------------------------------------------- remove and prune */

static int remove_unused(struct sm_client *c, int volumes, const char *name, struct sm_error *err)
{
	char **users;
	int r;

	if (!vm_name_valid(name))
		return error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "no such volume: %s", name);
	users = volume_users(c, name);
	if (!users)
		return error_sys(err, ENOMEM, "volume %s", name);
	r = users[0] ? error_set(err, SM_ERROR_BUSY, EBUSY, "volume %s belongs to VM %s", name, users[0])
		     : volume_remove_locked(volumes, name, err);
	strv_free(users);
	return r;
}

int sm_volume_remove(struct sm_client *client, const char *name, struct sm_error *err)
{
	_fd_ int volumes = volumes_open(client, err);
	_fd_ int lock = volumes < 0 ? volumes : volumes_lock(volumes, err);

	return lock < 0 ? lock : remove_unused(client, volumes, name, err);
}

int sm_volume_prune(struct sm_client *client, bool all, unsigned *ret_count, uint64_t *ret_bytes, struct sm_error *err)
{
	_fd_ int volumes = volumes_open(client, err);
	_fd_ int lock = volumes < 0 ? volumes : volumes_lock(volumes, err);
	struct sm_volume_info **list = NULL;
	unsigned removed = 0;
	uint64_t bytes = 0;
	size_t n = 0;
	int r = 0;

	if (lock < 0)
		return lock;
	volumes_sweep_locked(volumes);
	r = sm_volume_list(client, &list, &n, err);
	for (size_t i = 0; r == 0 && i < n; i++) {
		if (list[i]->vms[0] || !(all || list[i]->anonymous))
			continue;
		r = volume_remove_locked(volumes, list[i]->name, err);
		removed += r == 0;
		bytes += r == 0 ? list[i]->allocated_size : 0;
	}
	sm_volume_list_free(list, n);
	if (r == 0 && ret_count)
		*ret_count = removed;
	if (r == 0 && ret_bytes)
		*ret_bytes = bytes;
	return r;
}
