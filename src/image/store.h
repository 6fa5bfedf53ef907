/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of the image store: paths, locks, temporaries, records and names. See image.h for the layout on disk and
 * who keeps what. */
#ifndef IMAGE_STORE_H
#define IMAGE_STORE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "image/image.h"
#include "oci/oci.h"

#define HEX_SIZE 65	   /* 64 digits of a sha256 and a NUL */
#define STORE_PATH_MAX 128 /* of a path relative to the store */

struct image_store {
	char *dir; /* absolute */
	int fd;
};

/* "DIR/HEXSUFFIX" relative to the store. Returns out. */
const char *store_path(char out[static STORE_PATH_MAX], const char *dir, const char *hex, const char *suffix);
bool is_hex64(const char *s, size_t len);
/* The digits of "sha256:<64 hex>"; false for anything else. */
bool sha256_digits(const char *digest, char out[static HEX_SIZE]);

/* The store's lock, exclusive, until closed. Waits. */
int store_lock(struct image_store *store, int *ret_fd, struct sm_error *err) MUST_CHECK;
int store_sync_dir(struct image_store *store, const char *dir, struct sm_error *err) MUST_CHECK;

/*
 * A file in tmp/ that one process at a time may make: opened and flock'ed, emptied. `cancel` (NULL allowed) is asked
 * while another holds it; nonzero ends the wait with -ECANCELED. The file is gone, or renamed, before the lock is
 * dropped.
 */
int tmp_open(struct image_store *store, const char *path, int (*cancel)(void *), void *arg, int *ret_fd,
	     struct sm_error *err) MUST_CHECK;
/* fsync, then rename into place. The directory is the caller's to sync. */
int tmp_publish(struct image_store *store, int fd, const char *path, const char *final,
		struct sm_error *err) MUST_CHECK;

/* What a living process keeps from prune. */
struct pin_item {
	const char *kind; /* "image", "layer", "meta" */
	char hex[HEX_SIZE];
};
/* With the store's lock held. The pin lasts until image_unpin, or until the process ends. */
int pin_create_locked(struct image_store *store, const struct pin_item *items, size_t n, struct image_pin **ret,
		      struct sm_error *err) MUST_CHECK;
/* Adds the items of all living pins to an object {"kind hex": true} and counts and removes dead ones. */
int pin_collect_locked(struct image_store *store, json_t *into, struct image_prune_result *dead,
		       struct sm_error *err) MUST_CHECK;

/* ---- records (record.c) */

/* One blob in an image's window. */
struct record_part {
	unsigned layer; /* into the image's layers */
	uint64_t offset, size;
};

struct record_layout {
	char key[HEX_SIZE]; /* of the metadata */
	uint64_t meta_size, window_size, inodes;
	struct record_part *parts;
	unsigned num_parts;
	uint64_t *stripped; /* by layer: extended attributes left out */
};

/* Of an image that was built: image_find_built. When, in ns. */
#define RECORD_FINGERPRINT "fingerprint"
#define RECORD_BUILT "built_ns"

json_t *record_make(const struct oci_image *img, const struct record_layout *layout);
/* id: 64 digits. dir: "images" or "removed". -ENOENT without a word if there is none; a record of another version or
 * shape is an error. */
int record_read(struct image_store *store, const char *dir, const char *id, json_t **ret,
		struct sm_error *err) MUST_CHECK;
int record_write_locked(struct image_store *store, const char *id, const json_t *record,
			struct sm_error *err) MUST_CHECK;
/* Fills everything but names and shared_size. */
int record_info(struct image_store *store, const json_t *record, struct image_info *ret,
		struct sm_error *err) MUST_CHECK;
/* The metadata's key; the record was read by record_read. */
const char *record_key(const json_t *record);
/* Digits of layer i, or NULL past the last one. */
const char *record_layer(const json_t *record, unsigned i);
/* True if all the image's files are there. */
bool record_complete(struct image_store *store, const json_t *record);
/* The key of the metadata over these layers. */
int layout_key(const char *const *diff_hex, unsigned n, char ret[static HEX_SIZE]) MUST_CHECK;

/* Calls fn for each record in "images" or "removed"; it may return nonzero to stop with that. */
int record_each(struct image_store *store, const char *dir, int (*fn)(void *arg, const char *id, json_t *record),
		void *arg, struct sm_error *err) MUST_CHECK;

/* ---- names (refs.c): a JSON object name -> id */

int refs_read(struct image_store *store, json_t **ret, struct sm_error *err) MUST_CHECK;
int refs_write_locked(struct image_store *store, const json_t *refs, struct sm_error *err) MUST_CHECK;
/* "name:tag" of a reference without digest, malloc'ed. */
int ref_name(const char *ref, char **ret, struct sm_error *err) MUST_CHECK;
/* What names an image that was pulled by this reference: "name:tag", or "name@digest" if it has a digest. To free. */
int ref_key(const struct oci_ref *ref, char **ret, struct sm_error *err) MUST_CHECK;
/* The image that a reference, id or prefix means. *ret_name, if wanted: the name by which it was found, or NULL;
 * malloc'ed. */
int ref_resolve(struct image_store *store, const json_t *refs, const char *ref, char ret_id[static HEX_SIZE],
		char **ret_name, struct sm_error *err) MUST_CHECK;
/* All names of an image, sorted; NULL-terminated, malloc'ed as image_info holds them. */
int refs_of(const json_t *refs, const char *id, char ***ret) MUST_CHECK;

/* The record that a reference means, from images/, or by whole id from removed/. */
int store_lookup(struct image_store *store, const char *ref, json_t **ret_refs, json_t **ret_record,
		 struct sm_error *err) MUST_CHECK;

#endif
