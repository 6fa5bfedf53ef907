/* SPDX-License-Identifier: Apache-2.0 */
/* Images that were built: found again by what they were made from, and made by one process at a time. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "image/store.h"

struct search {
	const char *fingerprint;
	struct image_store *store;
	char id[HEX_SIZE]; /* "": none was found */
	json_int_t built;
};

/* The one that was built last; one whose files are gone was not built. */
static int compare(void *arg, const char *id, json_t *record)
{
	struct search *s = arg;
	const char *has = json_string_value(json_object_get(record, RECORD_FINGERPRINT));
	json_int_t built = json_integer_value(json_object_get(record, RECORD_BUILT));

	if (!has || !streq(has, s->fingerprint) || (s->id[0] && built <= s->built) ||
	    !record_complete(s->store, record))
		return 0;
	memcpy(s->id, id, HEX_SIZE);
	s->built = built;
	return 0;
}

int image_find_built(struct image_store *store, const char *fingerprint, struct image_info *ret, struct sm_error *err)
{
	struct search s = {.fingerprint = fingerprint, .store = store};
	int r = record_each(store, "images", compare, &s, err);

	if (r < 0)
		return r;
	return s.id[0] ? image_find(store, s.id, ret, err)
		       : error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "no image was built from that");
}

/* ------------------------------------------------------------------------------------------- turns */

struct image_turn {
	struct image_store *store;
	char path[STORE_PATH_MAX];
	int fd;
};

static int asked_to_stop(void *arg)
{
	const struct image_progress *p = arg;

	return p->update && p->update(p->arg, "wait", 0, 0);
}

int image_turn_take(struct image_store *store, const char *key, const struct image_progress *progress,
		    struct image_turn **ret, struct sm_error *err)
{
	struct image_turn *t = calloc(1, sizeof(*t));
	struct image_progress p = *progress;
	int r;

	if (!t)
		return error_sys(err, ENOMEM, "build");
	t->store = store;
	store_path(t->path, "tmp", key, ".build");
	r = tmp_open(store, t->path, asked_to_stop, &p, &t->fd, err);
	if (r < 0) {
		free(t);
		return r;
	}
	*ret = t;
	return 0;
}

struct image_turn *image_turn_end(struct image_turn *t)
{
	if (!t)
		return NULL;
	unlinkat(t->store->fd, t->path, 0);
	fd_close(t->fd);
	free(t);
	return NULL;
}
