/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The JSON documents of an image, from bytes to checked structures: descriptor.md, image-index.md, manifest.md and
 * config.md of the OCI image-spec, their Docker twins (distribution manifest v2, schema 2), and manifest.json of
 * `docker save`. Pure: no files. `what` names the document in errors. On error nothing is left to free.
 */
#ifndef OCI_DOC_H
#define OCI_DOC_H

#include "oci/oci.h"

enum media_kind {
	MEDIA_UNKNOWN,
	MEDIA_INDEX,
	MEDIA_MANIFEST,
	MEDIA_CONFIG,
	MEDIA_LAYER,
	MEDIA_FOREIGN_LAYER, /* "non-distributable": the blob may be absent from any source */
};

/* Kind of a media type without its parameters ("; charset=…"). */
enum media_kind media_kind(const char *media_type);

struct descriptor {
	enum media_kind kind;
	char *media_type;
	char digest[OCI_DIGEST_SIZE]; /* valid */
	uint64_t size;
	char *ref_name;			   /* org.opencontainers.image.ref.name */
	char *full_name;		   /* io.containerd.image.name */
	char *os, *architecture, *variant; /* NULL where it says no platform */
};
void descriptors_free(struct descriptor *list, size_t n);

/* Children are indexes and manifests in order; what is neither (a signature, say) is kept as MEDIA_UNKNOWN. */
struct index_doc {
	struct descriptor *children;
	size_t num_children;
};
int index_parse(const char *text, size_t len, const char *what, struct index_doc *ret, struct sm_error *err) MUST_CHECK;
void index_done(struct index_doc *doc);

/* All layers are layers (else the media type is named in the error), the configuration is an image's. */
struct manifest_doc {
	struct descriptor *config; /* one */
	struct descriptor *layers;
	size_t num_layers;
};
int manifest_parse(const char *text, size_t len, const char *what, unsigned max_layers, struct manifest_doc *ret,
		   struct sm_error *err) MUST_CHECK;
void manifest_done(struct manifest_doc *doc);

/* The kind a document gives itself by "mediaType", or by having "manifests" or "layers": for skopeo's dir:, whose
 * manifest.json may be both. */
int document_kind(const char *text, size_t len, const char *what, enum media_kind *ret,
		  struct sm_error *err) MUST_CHECK;

/* manifest.json of a Docker archive. */
struct docker_image {
	char *config;  /* member name */
	char **tags;   /* NULL: none */
	char **layers; /* member names, NULL-terminated */
};
struct docker_doc {
	struct docker_image *images;
	size_t num_images;
};
int docker_parse(const char *text, size_t len, const char *what, struct docker_doc *ret,
		 struct sm_error *err) MUST_CHECK;
void docker_done(struct docker_doc *doc);

/* The configuration; *ret_diff_ids are valid sha256 digests, NULL-terminated. */
int config_parse(const char *text, size_t len, const char *what, struct oci_config *ret, char ***ret_diff_ids,
		 struct sm_error *err) MUST_CHECK;
void config_done(struct oci_config *c);

/* Seconds since 1970 of an RFC 3339 date-time; -EINVAL. */
int time_parse(const char *s, int64_t *ret);

#endif
