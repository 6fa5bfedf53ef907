/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The image store: layer blobs, merged EROFS metadata, names, garbage collection. Host side only.
 *
 * On disk, under the store directory:
 *	blobs/<diff-id hex>		layer blob: file contents, 4 KiB aligned, files >= 2 MiB on 2 MiB boundaries,
 *sparse layers/<diff-id hex>		layer index: the layer's entries in order (our own versioned format) meta/<key
 *hex>			merged EROFS metadata of one image over its blobs (key: diff IDs + format version)
 *	images/<image-id hex>.json	image record: configuration, layers, sizes, platform, created
 *	removed/<image-id hex>.json	records of images that lost their last name, until prune: kept VMs may still
 *need them refs.json			name -> image id (written atomically under the store's lock) lock
 *flock'ed for as long as something above changes tmp/				in progress, and pins; whatever is there
 *without a living owner's lock is garbage Everything but refs.json is immutable once renamed into place. Readers open
 *files and hold them: removal never breaks a running VM.
 *
 * Who keeps what from prune: a record in images/ keeps its files; an id in `in_use` keeps its record, also a removed
 *one, and so its files; a pin does the same while its owner lives; a load pins what it is about to make before it makes
 *it.
 *
 * Only the machine's owner uses a store, through this code: it is trusted, its content (images) is not. Locks are
 *flock(2): all processes that change a store run on one host. Any number of processes and threads may use one store,
 *also through one struct image_store.
 *
 * Window layout of an image: metadata at 0, then each blob at the next 2 MiB boundary. EROFS block addresses are
 *absolute in that one flat address space (device 0; no device table: Linux 6.1 wants none), so a file is FLAT_PLAIN
 *with an address inside its layer's blob, or chunk-based where it is sparse.
 */
#ifndef IMAGE_IMAGE_H
#define IMAGE_IMAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/error.h"

struct image_store;

/* Progress of a load: called from the loading thread(s), serialised. Return nonzero to cancel (-ECANCELED). */
struct image_progress {
	int (*update)(void *arg, const char *stage, uint64_t done, uint64_t total);
	void *arg;
};

struct image_limits {		  /* 0: the default in parentheses */
	uint64_t max_entries;	  /* entries of one layer (4 million) */
	uint64_t max_layer_bytes; /* uncompressed tar bytes of one layer (256 GiB) */
	uint64_t max_image_bytes; /* all layers (1 TiB) */
	unsigned max_layers;	  /* (512) */
	unsigned max_depth;	  /* path components (1024) */
	unsigned max_path;	  /* bytes (65536) */
	unsigned threads;	  /* layers converted in parallel (online CPUs) */
};

struct image_load_options {
	const char *name;     /* reference to give it; NULL: the one the source carries, or none */
	const char *platform; /* "linux/amd64"; NULL: this machine's */
	struct image_limits limits;
	struct image_progress progress;
};

/* One file of the window, in order of offset. */
struct image_part {
	char *path;	 /* absolute */
	uint64_t offset; /* into the window, 2 MiB aligned */
	uint64_t size;	 /* bytes, 4 KiB aligned; the file is at least that long */
};

/* What a run needs of an image; image_info_done frees. Strings UTF-8 or raw bytes as the configuration has them. */
struct image_info {
	char id[65];	 /* hex sha256 of the configuration blob */
	char digest[72]; /* "sha256:..." of the manifest, or of the configuration for a docker-archive */
	char **names;	 /* references, NULL-terminated */
	char *os, *architecture, *variant;
	int64_t created; /* seconds since the epoch, 0 unknown */
	/* OCI image-spec config.md, section "Properties" */
	char **entrypoint, **cmd, **env; /* NULL-terminated; NULL when absent */
	char *user, *working_dir, *stop_signal;
	char **exposed_ports, **volumes; /* "80/tcp", "/data" */
	char **labels;			 /* "key=value" */
	struct image_part *parts;
	unsigned num_parts;
	uint64_t window_size;	 /* end of the last part */
	uint64_t allocated_size; /* bytes on disk of the metadata and of all layers */
	uint64_t shared_size;	 /* of those, in blobs that other images use too; only of image_list and
				    image_inspect_json, else 0 */
	unsigned num_layers;
	char **diff_ids;
};
void image_info_done(struct image_info *info);

int image_store_open(const char *dir, struct image_store **ret, struct sm_error *err) MUST_CHECK;
struct image_store *image_store_close(struct image_store *store);

/* source: "oci:DIR[:TAG]", "oci-archive:FILE[:TAG]", "docker-archive:FILE[:REF]", "dir:PATH", "-" (standard input:
 * docker save or OCI archive). On success *ret describes the image. On failure the store is as before. */
int image_load(struct image_store *store, const char *source, const struct image_load_options *options,
	       struct image_info *ret, struct sm_error *err) MUST_CHECK;

/* How a registry is spoken to; zero: the defaults of oci.h. */
struct image_registry {
	const char *auth_file; /* credentials of `login`; NULL: none */
	unsigned stall_ms, retry_ms;
};
/* The image that a reference means in its registry, under that name: "name:tag", or "name@digest" if it has a digest.
 * options: all but name. Costs one request if the store has the image; else what the store lacks of it is fetched, and
 * taken in as by image_load. */
int image_pull(struct image_store *store, const char *ref, const struct image_load_options *options,
	       const struct image_registry *registry, struct image_info *ret, struct sm_error *err) MUST_CHECK;

/*
 * An image that is another one (by id) with one layer more. Begun it holds its base, and has a file without a name for
 * the layer, an uncompressed tar; finished it is in the store, under the name if there is one, as if it had been
 * loaded. name NULL: none. If nothing was written to the file it has the base's layers and no more.
 */
struct image_commit;
struct oci_amend;
int image_commit_begin(struct image_store *store, const char *base_id, const char *name, struct image_commit **ret,
		       struct sm_error *err) MUST_CHECK;
const struct image_info *image_commit_base(const struct image_commit *c);
int image_commit_fd(const struct image_commit *c); /* its own */
/* amend: of the base's configuration; its diff_id is found here. */
int image_commit_finish(struct image_commit *c, const struct oci_amend *amend, const struct image_progress *progress,
			struct image_info *ret, struct sm_error *err) MUST_CHECK;
struct image_commit *image_commit_end(struct image_commit *c); /* in any case; NULL allowed; returns NULL */
/* Before it is finished: what it is made from, 64 digits, by which image_find_built finds it. */
void image_commit_fingerprint(struct image_commit *c, const char *fingerprint);
/* An image in the store that was made from this. -ENOENT: there is none. */
int image_find_built(struct image_store *store, const char *fingerprint, struct image_info *ret,
		     struct sm_error *err) MUST_CHECK;

/* One at a time, of all processes, makes what has this key (64 digits); the others wait. update is asked meanwhile. */
struct image_turn;
int image_turn_take(struct image_store *store, const char *key, const struct image_progress *progress,
		    struct image_turn **ret, struct sm_error *err) MUST_CHECK;
struct image_turn *image_turn_end(struct image_turn *t); /* NULL allowed; returns NULL */

/* What is where in an image, by what the store knows of its layers. */
struct image_tree;
enum image_place {
	IMAGE_NOTHING = 1,
	IMAGE_DIRECTORY = 2, /* also at the end of symbolic links */
	IMAGE_OTHER = 3,
	IMAGE_UNREACHABLE = 4, /* something on the way is no directory */
};
int image_tree_open(struct image_store *store, const struct image_info *image, struct image_tree **ret,
		    struct sm_error *err) MUST_CHECK;
/* path: from the root, with or without a slash before it; without "..". */
int image_tree_look(struct image_tree *t, const char *path, enum image_place *ret, struct sm_error *err) MUST_CHECK;
struct image_tree *image_tree_close(struct image_tree *t); /* NULL allowed; returns NULL */

/* By reference ("debian-demo", "debian-demo:latest", "name@sha256:..."), by id or unique prefix of at least 4 digits;
 * an image without names that only kept VMs hold, by its whole id. Looks at the store once: what it finds may be
 * removed right after. See image_pin. */
int image_find(struct image_store *store, const char *ref, struct image_info *ret, struct sm_error *err) MUST_CHECK;
/* As image_find, and keeps the image from prune until image_unpin or the end of the process: for the time from choosing
 * an image until its files are open, or until what holds it (a VM's record) is on disk. */
struct image_pin;
int image_pin(struct image_store *store, const char *ref, struct image_info *ret, struct image_pin **ret_pin,
	      struct sm_error *err) MUST_CHECK;
struct image_pin *image_unpin(struct image_pin *pin); /* NULL allowed; returns NULL */

/* In order of creation, newest first. */
int image_list(struct image_store *store, struct image_info **ret, size_t *ret_count, struct sm_error *err) MUST_CHECK;
void image_list_free(struct image_info *list, size_t count);
int image_tag(struct image_store *store, const char *ref, const char *name, struct sm_error *err) MUST_CHECK;
/* Takes a name away (or, by id, all names of an image); the last one removes the image record. Blobs go at prune. */
int image_remove(struct image_store *store, const char *ref, struct sm_error *err) MUST_CHECK;

struct image_prune_result {
	unsigned images, blobs, temporaries;
	uint64_t bytes;
};
/*
 * Removes what nothing refers to. all: images without a name too. `in_use`: ids of images that kept VMs hold.
 *
 * A VM may be made between listing the VMs and pruning. So: image_prune_begin, then list the VMs, then
 * image_prune_with, then image_prune_end. From begin on nobody can pin, and the pins of that moment count to the end: a
 * VM's image is either pinned or in the list. image_prune does all that in one, for callers who know that no VM is
 * being made.
 */
struct image_prune;
int image_prune_begin(struct image_store *store, struct image_prune **ret, struct sm_error *err) MUST_CHECK;
struct image_prune *image_prune_end(struct image_prune *prune); /* NULL allowed; returns NULL */
int image_prune(struct image_store *store, bool all, const char *const *in_use, size_t num_in_use,
		struct image_prune_result *ret, struct sm_error *err) MUST_CHECK;
int image_prune_with(struct image_prune *prune, bool all, const char *const *in_use, size_t num_in_use,
		     struct image_prune_result *ret, struct sm_error *err) MUST_CHECK;

/* Full JSON description for `inspect`; malloc'ed. */
int image_inspect_json(struct image_store *store, const char *ref, char **ret, struct sm_error *err) MUST_CHECK;
/* Writes the whole window as one sparse EROFS file (for fsck.erofs and mount -o loop). */
int image_export_erofs(struct image_store *store, const char *ref, const char *path, struct sm_error *err) MUST_CHECK;
/* All that a store has of an image, with its names, to another store that nobody else changes meanwhile. */
int image_copy(struct image_store *from, const char *ref, struct image_store *to, struct sm_error *err) MUST_CHECK;

#endif
