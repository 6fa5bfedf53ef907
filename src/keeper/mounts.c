/* SPDX-License-Identifier: Apache-2.0 */
/* The mounts of a VM's record. See record.h. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "keeper/record.h"
#include "keeper/recordjson.h"

static const char *const ids_words[] = {"caller", "same", "none", "ranges", NULL};
static const char *const symlinks_words[] = {"opaque", "deny", "follow", NULL};
static const char *const xattrs_words[] = {"auto", "mapped", NULL};
static const char *const cache_words[] = {"auto", "none", "always", NULL};

void vm_mount_format(json_t *o, const struct vm_mount *m)
{
	rj_put_bool(o, "read_only", m->read_only || m->cow);
	rj_put_bool(o, "direct", m->direct);
	rj_put_bool(o, "dax", m->dax);
	rj_put_str(o, "ids", ids_words[m->ids]);
	if (m->id_ranges)
		rj_put_str(o, "id_ranges", m->id_ranges);
	rj_put_str(o, "symlinks", symlinks_words[m->symlinks]);
	rj_put_str(o, "xattrs", xattrs_words[m->xattrs]);
	rj_put_str(o, "cache", cache_words[m->cache]);
}

json_t *vm_mounts_to_json(const struct vm_record *r)
{
	json_t *list = json_array();

	for (unsigned i = 0; list && i < r->num_mounts; i++) {
		const struct vm_mount *m = &r->mounts[i];
		json_t *o = json_object();

		rj_put_str(o, "source", m->source);
		rj_put_str(o, "target", m->target);
		vm_mount_format(o, m);
		rj_put_bool(o, "cow", m->cow);
		if (m->served)
			rj_put_bool(o, "served", true);
		if (m->volume) {
			rj_put_str(o, "volume", m->volume);
			rj_put_bool(o, "no_copy", m->no_copy);
			rj_put_bool(o, "anonymous", m->anonymous);
			if (m->own)
				rj_put_bool(o, "own", true);
			if (m->replaced)
				rj_put_bool(o, "replaced", true);
		}
		json_array_append_new(list, o);
	}
	return list;
}

/* One of the words; the first when absent. */
static unsigned get_word(struct rj *j, const char *member, const char *const *words)
{
	char word[16];

	rj_str_into(j, member, word, sizeof(word));
	for (unsigned i = 0; word[0] && words[i]; i++)
		if (streq(word, words[i]))
			return i;
	if (word[0])
		rj_fail(j, member, "not one of the words it may be");
	return 0;
}

static void get_mount(struct rj *j, struct vm_mount *m)
{
	m->source = rj_str(j, "source", true);
	m->target = rj_str(j, "target", true);
	m->read_only = rj_bool(j, "read_only");
	m->cow = rj_bool(j, "cow");
	m->read_only = m->read_only && !m->cow; /* of cow: the source is, what the guest sees is not */
	m->direct = rj_bool(j, "direct");
	m->dax = rj_bool(j, "dax");
	m->ids = (enum sm_fs_ids)get_word(j, "ids", ids_words);
	m->id_ranges = rj_str(j, "id_ranges", false);
	m->symlinks = (enum sm_fs_symlinks)get_word(j, "symlinks", symlinks_words);
	m->xattrs = (enum sm_fs_xattrs)get_word(j, "xattrs", xattrs_words);
	m->cache = (enum sm_fs_cache)get_word(j, "cache", cache_words);
	m->volume = rj_str(j, "volume", false);
	m->served = rj_bool(j, "served");
	m->no_copy = rj_bool(j, "no_copy");
	m->anonymous = rj_bool(j, "anonymous");
	m->own = rj_bool(j, "own");
	m->replaced = rj_bool(j, "replaced");
	if (!j->member && m->volume && (m->cow || m->served || m->dax || !vm_name_valid(m->volume)))
		rj_fail(j, "volume", "not a volume's");
	if (!j->member && ((m->own && !m->volume) || (m->replaced && !m->own)))
		rj_fail(j, "own", "not a volume's");
	if (!j->member && (m->source[0] != '/' || m->target[0] != '/'))
		rj_fail(j, "mounts", "not absolute");
}

bool vm_mounts_saved(const struct vm_record *r)
{
	for (unsigned i = 0; i < r->num_mounts; i++)
		if (r->mounts[i].dax || r->mounts[i].served || (r->share_group && !r->mounts[i].volume))
			return false;
	return true;
}

void vm_volume_file(unsigned number, bool base, char ret[static VM_VOLUME_FILE])
{
	snprintf(ret, VM_VOLUME_FILE, "volume.%u%s", number, base ? ".base" : "");
}

unsigned vm_volumes(const struct vm_record *r, bool writable)
{
	unsigned n = 0;

	for (unsigned i = 0; i < r->num_mounts; i++)
		n += r->mounts[i].volume && !(writable && r->mounts[i].read_only);
	return n;
}

bool vm_has_served(const struct vm_record *r)
{
	bool any = false;

	for (unsigned i = 0; i < r->num_mounts; i++)
		any |= r->mounts[i].served;
	return any;
}

void vm_mounts_from_json(struct rj *j, struct vm_record *r)
{
	json_t *list = json_object_get(j->object, "mounts");
	size_t n = json_array_size(list);

	if (!list)
		return;
	if (!json_is_array(list) || n > VM_MAX_MOUNTS) {
		rj_fail(j, "mounts", "not a list of at most 64");
		return;
	}
	r->mounts = calloc(n + 1, sizeof(*r->mounts));
	if (!r->mounts) {
		rj_fail(j, "mounts", NULL);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		struct rj one = {.object = json_array_get(list, i)};

		r->num_mounts = (unsigned)i + 1;
		get_mount(&one, &r->mounts[i]);
		if (one.member)
			rj_fail(j, one.member, one.why);
	}
	if (!j->member && vm_volumes(r, false) > VM_MAX_VOLUMES)
		rj_fail(j, "mounts", "more than 6 volumes");
}

void vm_mounts_done(struct vm_record *r)
{
	for (unsigned i = 0; i < r->num_mounts; i++) {
		free(r->mounts[i].source);
		free(r->mounts[i].target);
		free(r->mounts[i].id_ranges);
		free(r->mounts[i].volume);
	}
	free(r->mounts);
	r->mounts = NULL;
	r->num_mounts = 0;
}
