/* SPDX-License-Identifier: Apache-2.0 */
/* The steps of a load, each in its file: names, layers (threads), metadata. One struct load a call. */
#ifndef IMAGE_LOAD_H
#define IMAGE_LOAD_H

#include <pthread.h>
#include <stdatomic.h>

#include "image/layer.h"
#include "image/store.h"

struct load {
	struct image_store *store;
	const char *source;
	struct oci_source *oci;
	struct oci_image img;
	struct image_limits limits; /* no zeros */
	struct image_progress progress;
	char (*hex)[HEX_SIZE]; /* diff IDs' digits, by layer */
	unsigned *first;       /* the lowest layer with the same content */
	struct image_pin *pin;
	struct record_layout layout;
	const char *fingerprint; /* for the record; NULL: none */

	/* While layers are converted. */
	atomic_bool stop;
	atomic_uint_fast64_t unpacked; /* bytes of all layers */
	pthread_mutex_t lock;	       /* of what follows, and of calls of progress.update */
	bool *missing;		       /* layers that nobody converts yet */
	uint64_t done, total;	       /* stored bytes */
	int result;
	struct sm_error error;
};

/* load.c. What pull.c shares: the options into a load that is zero but for store and source; the image l->img into the
 * store, under this name (NULL: the one it carries); its record and name; the end. */
void load_begin(struct load *l, const struct image_load_options *options);
int load_resolved(struct load *l, const char *name, struct image_info *ret, struct sm_error *err) MUST_CHECK;
int load_publish(struct load *l, const char *id, const json_t *record, const char *name, struct image_info *ret,
		 struct sm_error *err) MUST_CHECK;
void load_done(struct load *l);

/* load_layers.c: nonzero if the load is to stop; asks progress. */
int load_is_stopped(void *load);

/* Converts all missing layers, in parallel. On failure those that were finished stay, for another attempt or for prune.
 */
int load_layers(struct load *l, struct sm_error *err) MUST_CHECK;

/* True if the layer's blob and index are there and fit each other. */
bool layer_present(struct image_store *store, const char *hex);

/* Merges the layers into l->layout and publishes the metadata. -EUCLEAN: a layer's index is damaged, and was removed.
 */
int load_metadata(struct load *l, struct sm_error *err) MUST_CHECK;

/* 0, or -ECANCELED with err filled. With l->lock held, or before threads start. */
int load_progress(struct load *l, const char *stage, uint64_t done, uint64_t total, struct sm_error *err) MUST_CHECK;

/* "layer 2 (sha256:...)", as src/oci counts and names them. */
int load_layer_error(const struct load *l, unsigned i, int r, struct sm_error *err);

#endif
