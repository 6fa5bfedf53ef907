/* SPDX-License-Identifier: Apache-2.0 */
/* An opened source, as the files of this room see it. */
#ifndef OCI_SOURCE_H
#define OCI_SOURCE_H

#include "oci/doc.h"
#include "oci/store.h"

enum source_kind { SOURCE_LAYOUT, SOURCE_DOCKER, SOURCE_DIR, SOURCE_REGISTRY };

/* Immutable after oci_open (of a registry: after oci_peek). */
struct oci_source {
	enum source_kind kind;
	char *spec;	     /* as given, for errors */
	char *base_name;     /* of the directory or file, without its suffix; NULL for standard input */
	char *tag;	     /* what the spec adds, or NULL */
	struct store *store; /* NULL: a registry */

	struct registry *registry;
	struct oci_ref ref;
	char *root; /* the manifest or index that the reference means, verified, once it was asked for */
	size_t root_len;
	char root_digest[OCI_DIGEST_SIZE];
};

/* Puts "spec: " before an error. */
int source_wrap(const struct oci_source *src, int r, struct sm_error *err);

/* Opens the blob of a digest; *ret_member (optional, malloc'ed) is its name in the store. -ENOENT without err when
 * there is none. */
int source_open_blob(const struct oci_source *src, const char *digest, struct extent *ret, char **ret_member,
		     struct sm_error *err) MUST_CHECK;

/* Reads a JSON blob, checks size and digest. `what` names it in errors. */
int source_read_blob(const struct oci_source *src, const struct descriptor *d, const char *what, char **ret,
		     size_t *ret_len, struct sm_error *err) MUST_CHECK;

/* pull.c: asks for src->root, unless it is there. */
int registry_root(struct oci_source *src, struct sm_error *err) MUST_CHECK;
/* pull.c: source_read_blob of a registry. */
int registry_read(const struct oci_source *src, const struct descriptor *d, const char *what, char **ret,
		  size_t *ret_len, struct sm_error *err) MUST_CHECK;
/* resolve.c: the digest of the manifest that src->root leads to. */
int resolve_peek(const struct oci_source *src, const char *platform, char ret[static OCI_DIGEST_SIZE],
		 struct sm_error *err) MUST_CHECK;

/* resolve.c: the image of a layout, a dir: or a registry; docker.c: of a Docker archive. Both fill all of *ret but
 * leave freeing to the caller. */
int resolve_layout(const struct oci_source *src, const char *platform, unsigned max_layers, struct oci_image *ret,
		   struct sm_error *err) MUST_CHECK;
int resolve_docker(const struct oci_source *src, const char *platform, unsigned max_layers, struct oci_image *ret,
		   struct sm_error *err) MUST_CHECK;

/* Common end: parses the configuration into *ret and checks it against the number of layers, whose diff IDs it fills
 * in, and (where check_platform) against the platform wanted. config_json is taken over. */
int image_set_config(struct oci_image *ret, char *config_json, size_t len, const char *platform, bool check_platform,
		     struct sm_error *err) MUST_CHECK;

/* Gives the image this name, in normal form, unless it is none that a reference can be. */
int image_set_name(struct oci_image *img, const char *name, struct sm_error *err) MUST_CHECK;

/* Fills size, compression and member of layer i from the open extent; `member` is taken over. */
int image_set_layer(struct oci_image *img, unsigned i, const struct extent *e, char *member,
		    struct sm_error *err) MUST_CHECK;

#endif
