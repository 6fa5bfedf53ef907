/* SPDX-License-Identifier: Apache-2.0 */
/* Where a VM's image comes from: the store, a registry, a source that is loaded first; and logging in to registries. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "lib/events.h"
#include "lib/lib.h"
#include "oci/oci.h"

static char *auth_file(struct sm_client *c)
{
	char *path = NULL;

	return asprintf(&path, "%s/registries.json", c->data_dir) < 0 ? NULL : path;
}

static int pull(struct sm_client *c, const char *ref, const struct image_load_options *load, struct image_info *ret,
		struct sm_error *err)
{
	_free_ char *auth = auth_file(c);
	struct image_registry registry = {.auth_file = auth};
	struct sm_error why = {0}; /* what an attempt left that another one mended is none */
	struct image_store *store;
	int r = auth ? client_store(c, &store, &why) : error_sys(&why, ENOMEM, "%s", ref);

	if (r == 0)
		r = image_pull(store, ref, load, &registry, ret, &why);
	if (r < 0) {
		if (err)
			*err = why;
		return r;
	}
	events_object(c, "image", "pull", ret->id, ref);
	return 0;
}

int sm_image_pull(struct sm_client *client, const char *ref, const struct sm_pull_options *options,
		  struct sm_image **ret, struct sm_error *err)
{
	struct sm_pull_options o = OPTIONS_GET(struct sm_pull_options, options);
	struct image_load_options load = {.platform = o.platform,
					  .limits = image_limits_of(&o.limits, o.threads),
					  .progress = {.update = o.progress.update, .arg = o.progress.arg}};
	struct image_info info = {0};
	int r = pull(client, ref, &load, &info, err);

	return r < 0 ? r : image_give(&info, ret, err);
}

int sm_registry_login(struct sm_client *client, const char *host, const char *user, const char *password,
		      struct sm_error *err)
{
	_free_ char *auth = auth_file(client);
	struct oci_registry_options o = {.auth_file = auth};
	struct sm_error why = {0};
	int r = auth ? oci_login(host, user, password, &o, &why) : error_sys(&why, ENOMEM, "login");

	if (r < 0 && err)
		*err = why;
	return r;
}

int sm_registry_logout(struct sm_client *client, const char *host, struct sm_error *err)
{
	_free_ char *auth = auth_file(client);

	return auth ? oci_logout(host, auth, err) : error_sys(err, ENOMEM, "logout");
}

static int choose_pull(enum sm_pull given, enum sm_pull *ret, struct sm_error *err)
{
	static const char *const words[] = {
		[SM_PULL_MISSING] = "missing", [SM_PULL_ALWAYS] = "always", [SM_PULL_NEVER] = "never"};
	const char *env = getenv("SUPERMACHINE_PULL");

	*ret = given;
	if (given != SM_PULL_DEFAULT)
		return given <= SM_PULL_NEVER
			       ? 0
			       : error_set(err, SM_ERROR_INVALID, EINVAL, "unknown pull policy %d", (int)given);
	*ret = SM_PULL_MISSING;
	if (!env || !*env)
		return 0;
	for (unsigned i = SM_PULL_MISSING; i < ARRAY_SIZE(words); i++)
		if (streq(words[i], env)) {
			*ret = (enum sm_pull)i;
			return 0;
		}
	return error_set(err, SM_ERROR_INVALID, EINVAL, "SUPERMACHINE_PULL=%s: it is missing, always or never", env);
}

/* An id, or what cannot be a name in a registry either: the store alone can have it. */
static bool is_pullable(const char *ref)
{
	struct oci_ref parsed;
	int r = oci_ref_parse(ref, &parsed, NULL);

	if (r == 0)
		oci_ref_done(&parsed);
	return r == 0;
}

/* From the store, or a registry, as the options say. */
static int find_or_pull(struct sm_client *c, const struct sm_vm_options *o, const struct image_load_options *load,
			struct image_info *ret, struct image_pin **ret_pin, struct sm_error *err)
{
	struct image_info pulled = {0};
	struct image_store *store;
	enum sm_pull when = SM_PULL_MISSING;
	int r = client_store(c, &store, err);

	if (r == 0)
		r = choose_pull(o->pull, &when, err);
	if (r < 0)
		return r;
	if (when != SM_PULL_ALWAYS || !is_pullable(o->image)) {
		struct sm_error why = {0};

		r = image_pin(store, o->image, ret, ret_pin, &why);
		if (r != -ENOENT || when == SM_PULL_NEVER || !is_pullable(o->image)) {
			if (r < 0 && err)
				*err = why;
			return r;
		}
	}
	r = pull(c, o->image, load, &pulled, err);
	if (r < 0)
		return r;
	r = image_pin(store, pulled.id, ret, ret_pin, err);
	image_info_done(&pulled);
	return r;
}

static bool is_source(const char *s)
{
	static const char *const schemes[] = {"oci:", "oci-archive:", "docker-archive:", "dir:"};

	for (unsigned i = 0; i < ARRAY_SIZE(schemes); i++)
		if (str_starts(s, schemes[i]))
			return true;
	return streq(s, "-");
}

int image_for_run(struct sm_client *c, const struct sm_vm_options *o, struct image_info *ret,
		  struct image_pin **ret_pin, struct sm_error *err)
{
	struct image_load_options load = {.limits = image_limits_of(&o->limits, 0),
					  .progress = {.update = o->progress.update, .arg = o->progress.arg}};
	struct image_info loaded = {0};
	struct image_store *store;
	int r;

	if (!is_source(o->image))
		return find_or_pull(c, o, &load, ret, ret_pin, err);
	r = client_store(c, &store, err);
	if (r == 0)
		r = image_load(store, o->image, &load, &loaded, err);
	if (r < 0)
		return r;
	r = image_pin(store, loaded.id, ret, ret_pin, err);
	image_info_done(&loaded);
	return r;
}
