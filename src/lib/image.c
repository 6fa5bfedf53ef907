/* SPDX-License-Identifier: Apache-2.0 */
/* Images through the public header: a thin layer over the store of src/image. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "lib/events.h"
#include "lib/spare.h"
#include "lib/vmsnap.h"

struct sm_image {
	struct image_info info;
	struct sm_image_info view;
};

static struct sm_image *image_new(struct image_info *info)
{
	struct sm_image *image = calloc(1, sizeof(*image));

	if (!image) {
		image_info_done(info);
		return NULL;
	}
	image->info = *info;
	info = &image->info;
	image->view = (struct sm_image_info){.id = info->id,
					     .digest = info->digest,
					     .names = (const char *const *)info->names,
					     .os = info->os ? info->os : "",
					     .architecture = info->architecture ? info->architecture : "",
					     .created_ns = info->created * 1000000000,
					     .allocated_size = info->allocated_size,
					     .shared_size = info->shared_size,
					     .layers = info->num_layers,
					     .entrypoint = (const char *const *)info->entrypoint,
					     .cmd = (const char *const *)info->cmd,
					     .env = (const char *const *)info->env,
					     .user = info->user ? info->user : "",
					     .cwd = info->working_dir ? info->working_dir : "",
					     .stop_signal = info->stop_signal ? info->stop_signal : "",
					     .ports = (const char *const *)info->exposed_ports,
					     .volumes = (const char *const *)info->volumes,
					     .labels = (const char *const *)info->labels,
					     .diff_ids = (const char *const *)info->diff_ids};
	return image;
}

int image_give(struct image_info *info, struct sm_image **ret, struct sm_error *err)
{
	struct sm_image *image;

	if (!ret) {
		image_info_done(info);
		return 0;
	}
	image = image_new(info);
	if (!image)
		return error_sys(err, ENOMEM, "image");
	*ret = image;
	return 0;
}

struct image_limits image_limits_of(const struct sm_image_limits *l, unsigned threads)
{
	return (struct image_limits){.max_entries = l->max_entries,
				     .max_layer_bytes = l->max_layer_bytes,
				     .max_image_bytes = l->max_image_bytes,
				     .max_layers = l->max_layers,
				     .max_depth = l->max_depth,
				     .max_path = l->max_path,
				     .threads = threads};
}

int sm_image_load(struct sm_client *client, const char *source, const struct sm_load_options *options,
		  struct sm_image **ret, struct sm_error *err)
{
	struct sm_load_options o = OPTIONS_GET(struct sm_load_options, options);
	struct image_load_options load = {.name = o.name,
					  .platform = o.platform,
					  .limits = image_limits_of(&o.limits, o.threads),
					  .progress = {.update = o.progress.update, .arg = o.progress.arg}};
	struct image_info info = {0};
	struct image_store *store;
	int r = client_store(client, &store, err);

	if (r == 0)
		r = image_load(store, source, &load, &info, err);
	if (r < 0)
		return r;
	events_object(client, "image", "load", info.id, info.names && info.names[0] ? info.names[0] : source);
	return image_give(&info, ret, err);
}

int sm_image_open(struct sm_client *client, const char *ref, struct sm_image **ret, struct sm_error *err)
{
	struct image_info info = {0};
	struct image_store *store;
	int r = client_store(client, &store, err);

	if (r == 0)
		r = image_find(store, ref, &info, err);
	return r < 0 ? r : image_give(&info, ret, err);
}

struct sm_image *sm_image_close(struct sm_image *image)
{
	if (image)
		image_info_done(&image->info);
	free(image);
	return NULL;
}

const struct sm_image_info *sm_image_info(const struct sm_image *image)
{
	return &image->view;
}

static int newest_first(const void *a, const void *b)
{
	const struct sm_image *x = *(struct sm_image *const *)a, *y = *(struct sm_image *const *)b;

	return (x->info.created < y->info.created) - (x->info.created > y->info.created);
}

int sm_image_list(struct sm_client *client, struct sm_image ***ret, size_t *ret_count, struct sm_error *err)
{
	struct image_info *list = NULL;
	struct image_store *store;
	struct sm_image **out;
	size_t count = 0, n = 0;
	int r = client_store(client, &store, err);

	if (r == 0)
		r = image_list(store, &list, &count, err);
	if (r < 0)
		return r;
	out = calloc(count + 1, sizeof(*out));
	for (; out && n < count; n++) {
		out[n] = image_new(&list[n]);
		list[n] = (struct image_info){0}; /* moved */
		if (!out[n])
			break;
	}
	image_list_free(list, count);
	if (!out || n < count) {
		sm_image_list_free(out, n);
		return error_sys(err, ENOMEM, "list images");
	}
	qsort(out, count, sizeof(*out), newest_first);
	*ret = out;
	*ret_count = count;
	return 0;
}

void sm_image_list_free(struct sm_image **images, size_t count)
{
	for (size_t i = 0; images && i < count; i++)
		sm_image_close(images[i]);
	free(images);
}

int sm_image_inspect(struct sm_client *client, const char *ref, char **ret_json, struct sm_error *err)
{
	struct image_store *store;
	int r = client_store(client, &store, err);

	return r < 0 ? r : image_inspect_json(store, ref, ret_json, err);
}

int sm_image_tag(struct sm_client *client, const char *ref, const char *name, struct sm_error *err)
{
	struct image_store *store;
	struct image_info info = {0};
	int r = client_store(client, &store, err);

	if (r == 0)
		r = image_tag(store, ref, name, err);
	if (r == 0 && image_find(store, name, &info, NULL) == 0)
		events_object(client, "image", "tag", info.id, name);
	image_info_done(&info);
	return r;
}

int sm_image_export_erofs(struct sm_client *client, const char *ref, const char *path, struct sm_error *err)
{
	struct image_store *store;
	int r = client_store(client, &store, err);

	return r < 0 ? r : image_export_erofs(store, ref, path, err);
}

/* ------------------------------------------------------------------------------- what VMs still hold */

/* The image ids of all VM records and of all snapshots of VMs; vms.lock is held. *ret: NULL-terminated. */
static int held_images(struct sm_client *c, char ***ret, struct sm_error *err)
{
	_fd_ int snapshots = base_open_dir(c, err);
	char(*ids)[VM_ID_DIGITS + 1] = NULL;
	char **held, **names;
	size_t count, n = 0;
	int r = snapshots < 0 ? snapshots : vmdir_list(c, &ids, &count, err);

	if (r < 0)
		return r;
	names = vmsnap_names(snapshots);
	held = names ? calloc(count + strv_len((const char *const *)names) + 1, sizeof(*held)) : NULL;
	for (char **s = names; held && *s; s++) {
		struct vmsnap m;
		_fd_ int dir = vmsnap_open(snapshots, *s, &m, NULL);

		if (dir < 0)
			continue;
		held[n++] = TAKE_PTR(m.image_id);
		vmsnap_done(&m);
	}
	strv_free(names);
	for (size_t i = 0; held && i < count; i++) {
		_fd_ int dir = vmdir_open(c, ids[i], NULL);
		struct vm_record rec;

		if (dir < 0 || vmdir_load(dir, ids[i], &rec, NULL) < 0)
			continue;
		held[n++] = TAKE_PTR(rec.image_id);
		vm_record_done(&rec);
	}
	free(ids);
	if (!held)
		return error_sys(err, ENOMEM, "list VMs");
	*ret = held;
	return 0;
}

/* It has another name still, so all that goes is this one. */
static bool only_untags(const struct image_info *info, const char *ref)
{
	return !str_starts(info->id, ref) && strv_len((const char *const *)info->names) > 1;
}

static int refuse_if_held(struct sm_client *c, struct image_store *store, const char *ref, struct sm_error *err)
{
	struct image_info info = {0};
	char **held = NULL;
	int r = image_find(store, ref, &info, err);

	if (r == 0 && !only_untags(&info, ref))
		r = held_images(c, &held, err);
	for (char **h = held; r == 0 && h && *h; h++)
		if (streq(*h, info.id))
			r = error_set(err, SM_ERROR_STATE, EBUSY,
				      "image %s is in use by a VM or a snapshot: remove that first, or force", ref);
	image_info_done(&info);
	strv_free(held);
	return r;
}

static int remove_and_tell(struct sm_client *c, struct image_store *store, const char *ref, struct sm_error *err)
{
	struct image_info before = {0}, after = {0};
	bool found = image_find(store, ref, &before, NULL) == 0;
	int r = image_remove(store, ref, err);

	if (r == 0 && found)
		events_object(c, "image", image_find(store, before.id, &after, NULL) == 0 ? "untag" : "delete",
			      before.id, ref);
	image_info_done(&before);
	image_info_done(&after);
	return r;
}

int sm_image_remove(struct sm_client *client, const char *ref, bool force, struct sm_error *err)
{
	struct image_store *store;
	_fd_ int lock = -1;
	int r;

	vmdir_sweep(client);
	spare_end_all(client);
	r = client_store(client, &store, err);
	if (r < 0)
		return r;
	lock = vmdir_lock(client, err);
	if (lock < 0)
		return lock;
	if (!force)
		r = refuse_if_held(client, store, ref, err);
	return r < 0 ? r : remove_and_tell(client, store, ref, err);
}

/* From image_prune_begin on nobody can pin; who had before has made its record by the time we have vms.lock, or is
 * pinned. */
static int prune(struct sm_client *c, struct image_prune *prune, bool all, struct image_prune_result *result,
		 struct sm_error *err)
{
	char **held = NULL;
	_fd_ int lock = vmdir_lock(c, err);
	int r;

	if (lock < 0)
		return lock;
	r = held_images(c, &held, err);
	lock = fd_close(lock); /* who makes a VM now has pinned its image */
	if (r == 0)
		r = image_prune_with(prune, all, (const char *const *)held, strv_len((const char *const *)held), result,
				     err);
	strv_free(held);
	return r;
}

int sm_image_prune(struct sm_client *client, bool all, struct sm_prune_result *ret, struct sm_error *err)
{
	struct image_prune_result result = {0};
	struct image_prune *p = NULL;
	struct image_store *store;
	int r;

	vmdir_sweep(client);
	spare_end_all(client);
	r = client_store(client, &store, err);
	if (r == 0)
		r = image_prune_begin(store, &p, err);
	if (r < 0)
		return r;
	r = prune(client, p, all, &result, err);
	image_prune_end(p);
	if (r == 0 && ret)
		*ret = (struct sm_prune_result){.images = result.images,
						.blobs = result.blobs,
						.temporaries = result.temporaries,
						.bytes = result.bytes};
	return r;
}
