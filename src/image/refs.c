/* SPDX-License-Identifier: Apache-2.0 */
/* Names of images, and what a user may call one by. See store.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "image/store.h"

#define MAX_REFS (64U << 20)
#define MIN_PREFIX 4

int refs_read(struct image_store *store, json_t **ret, struct sm_error *err)
{
	_free_ char *text = NULL;
	json_t *root, *refs;
	const char *name;
	json_t *id;
	size_t len;
	int r = read_file_at(store->fd, "refs.json", MAX_REFS, &text, &len);

	if (r == -ENOENT) {
		*ret = json_object();
		return *ret ? 0 : error_sys(err, ENOMEM, "names of images");
	}
	if (r < 0)
		return error_sys(err, -r, "read %s/refs.json", store->dir);
	root = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	refs = json_object_get(root, "refs");
	if (json_integer_value(json_object_get(root, "version")) != 1 || !json_is_object(refs)) {
		json_decref(root);
		return error_set(err, SM_ERROR_CORRUPT, EUCLEAN, "%s/refs.json is damaged, or of another version",
				 store->dir);
	}
	json_object_foreach(refs, name, id)
	{
		if (!json_is_string(id) || !is_hex64(json_string_value(id), json_string_length(id))) {
			json_decref(root);
			return error_set(err, SM_ERROR_CORRUPT, EUCLEAN, "%s/refs.json is damaged at %s", store->dir,
					 name);
		}
	}
	json_incref(refs);
	json_decref(root);
	*ret = refs;
	return 0;
}

int refs_write_locked(struct image_store *store, const json_t *refs, struct sm_error *err)
{
	json_t *root = json_pack("{s:i,s:O}", "version", 1, "refs", (json_t *)(uintptr_t)refs);
	_free_ char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_SORT_KEYS) : NULL;
	int r = text ? write_file_atomic_at(store->fd, "refs.json", text, strlen(text), 0600) : -ENOMEM;

	json_decref(root);
	return r < 0 ? error_sys(err, -r, "write %s/refs.json", store->dir) : 0;
}

int ref_name(const char *ref, char **ret, struct sm_error *err)
{
	struct oci_ref parsed = {0};
	int r = oci_ref_parse(ref, &parsed, err);

	if (r < 0)
		return r;
	if (!parsed.tag)
		r = error_set(err, SM_ERROR_INVALID, EINVAL, "%s: a name for an image has no digest in it", ref);
	else if (asprintf(ret, "%s:%s", parsed.name, parsed.tag) < 0)
		r = error_sys(err, ENOMEM, "%s", ref);
	oci_ref_done(&parsed);
	return r;
}

int ref_key(const struct oci_ref *ref, char **ret, struct sm_error *err)
{
	if (asprintf(ret, "%s%s%s", ref->name, ref->digest ? "@" : ":", ref->digest ? ref->digest : ref->tag) < 0) {
		*ret = NULL;
		return error_sys(err, ENOMEM, "%s", ref->name);
	}
	return 0;
}

int refs_of(const json_t *refs, const char *id, char ***ret)
{
	char **names = calloc(json_object_size(refs) + 1, sizeof(*names));
	size_t n = 0;

	if (!names)
		return -ENOMEM;
	for (void *it = json_object_iter((json_t *)(uintptr_t)refs); it;
	     it = json_object_iter_next((json_t *)(uintptr_t)refs, it)) {
		size_t at = n;
		char *name;

		if (!streq(json_string_value(json_object_iter_value(it)), id))
			continue;
		name = strdup(json_object_iter_key(it));
		if (!name)
			break;
		for (; at && strcmp(names[at - 1], name) > 0; at--)
			names[at] = names[at - 1];
		names[at] = name;
		n++;
	}
	*ret = names;
	return 0;
}

/* An id or a unique prefix of one. */
struct prefix_search {
	const char *prefix;
	size_t len;
	char id[HEX_SIZE];
	unsigned found;
};

static int match_prefix(void *arg, const char *id, json_t *record)
{
	struct prefix_search *s = arg;

	(void)record;
	if (strncmp(id, s->prefix, s->len) == 0) {
		memcpy(s->id, id, HEX_SIZE);
		s->found++;
	}
	return 0;
}

static int not_found(const char *ref, struct sm_error *err)
{
	if (!*ref)
		return error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "no image given: its name is empty");
	return error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "no image %s in the store", ref);
}

static int resolve_id(struct image_store *store, const char *ref, char ret_id[static HEX_SIZE], struct sm_error *err)
{
	struct prefix_search s = {.prefix = str_starts(ref, "sha256:") ? ref + 7 : ref};
	int r;

	s.len = strlen(s.prefix);
	if (s.len < MIN_PREFIX || s.len > 64 || strspn(s.prefix, "0123456789abcdef") != s.len)
		return not_found(ref, err);
	if (s.len == 64) { /* may be a removed one that a VM still holds: the caller looks */
		memcpy(ret_id, s.prefix, HEX_SIZE);
		return 0;
	}
	r = record_each(store, "images", match_prefix, &s, err);
	if (r < 0)
		return r;
	if (s.found > 1)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "%s is the start of %u images' ids", ref, s.found);
	if (!s.found)
		return not_found(ref, err);
	memcpy(ret_id, s.id, HEX_SIZE);
	return 0;
}

/* "name@sha256:...": an image of that name, whatever its tag, whose manifest or configuration has the digest. */
static int resolve_digest(struct image_store *store, const json_t *refs, const struct oci_ref *ref, const char *text,
			  char ret_id[static HEX_SIZE], struct sm_error *err)
{
	size_t name_len = strlen(ref->name);
	const char *name;
	json_t *id;

	json_object_foreach((json_t *)(uintptr_t)refs, name, id)
	{
		const char *hex = json_string_value(id);
		json_t *record;
		bool same;

		if (strncmp(name, ref->name, name_len) != 0 || name[name_len] != ':' || strchr(name + name_len, '/'))
			continue;
		if (record_read(store, "images", hex, &record, NULL) < 0)
			continue;
		same = streq(json_string_value(json_object_get(record, "digest")), ref->digest) ||
		       (str_starts(ref->digest, "sha256:") && streq(ref->digest + 7, hex));
		json_decref(record);
		if (same) {
			memcpy(ret_id, hex, HEX_SIZE);
			return 0;
		}
	}
	return not_found(text, err);
}

int ref_resolve(struct image_store *store, const json_t *refs, const char *ref, char ret_id[static HEX_SIZE],
		char **ret_name, struct sm_error *err)
{
	struct oci_ref parsed = {0};
	_free_ char *name = NULL;
	const char *id = NULL;
	int r = oci_ref_parse(ref, &parsed, NULL);

	if (ret_name)
		*ret_name = NULL;
	if (r < 0)
		return resolve_id(store, ref, ret_id, err);
	r = ref_key(&parsed, &name, err);
	if (r == 0)
		id = json_string_value(json_object_get(refs, name));
	if (r == 0 && !id && parsed.digest) {
		r = resolve_digest(store, refs, &parsed, ref, ret_id, err);
		oci_ref_done(&parsed);
		return r;
	}
	oci_ref_done(&parsed);
	if (r < 0)
		return r;
	if (!id)
		return resolve_id(store, ref, ret_id, err);
	memcpy(ret_id, id, HEX_SIZE);
	if (ret_name)
		*ret_name = TAKE_PTR(name);
	return 0;
}

int store_lookup(struct image_store *store, const char *ref, json_t **ret_refs, json_t **ret_record,
		 struct sm_error *err)
{
	char id[HEX_SIZE];
	json_t *refs;
	int r = refs_read(store, &refs, err);

	if (r < 0)
		return r;
	r = ref_resolve(store, refs, ref, id, NULL, err);
	if (r == 0) {
		r = record_read(store, "images", id, ret_record, err);
		if (r == -ENOENT)
			r = record_read(store, "removed", id, ret_record, err);
		if (r == -ENOENT)
			not_found(ref, err);
	}
	if (r < 0)
		json_decref(refs);
	else
		*ret_refs = refs;
	return r;
}
