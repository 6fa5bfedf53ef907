/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where images come from: OCI image layouts, OCI and Docker archives (OCI image-spec: image-layout.md, descriptor.md,
 * manifest.md, image-index.md, config.md; Docker image spec v1.2). Everything read here is hostile: JSON types and sizes are checked,
 * every blob's size and digest are verified while it streams, exactly once.
 */
#ifndef OCI_OCI_H
#define OCI_OCI_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

struct oci_source; /* an opened layout or archive; safe for parallel oci_layer_open from several threads */
struct oci_layer_stream;

enum oci_compression { OCI_PLAIN, OCI_GZIP, OCI_ZSTD };

struct oci_layer {
	char digest[72];	/* "sha256:<hex>" of the blob as stored; "" for docker-archive layers that carry none */
	char diff_id[72];	/* "sha256:<hex>" of the uncompressed tar, from the configuration's rootfs.diff_ids */
	uint64_t size;		/* bytes as stored */
	enum oci_compression compression; /* by content, checked against the media type */
};

/* The image configuration (config.md), decoded and checked. Lists are NULL-terminated or NULL. */
struct oci_config {
	char *os, *architecture, *variant;
	int64_t created;
	char **entrypoint, **cmd, **env, **exposed_ports, **volumes, **labels;
	char *user, *working_dir, *stop_signal;
};

struct oci_image {
	char id[72];		/* digest of the configuration */
	char manifest_digest[72]; /* "" for docker-archive */
	char *name;		/* reference the source carries (index annotation org.opencontainers.image.ref.name, RepoTags[0]) or NULL */
	struct oci_config config;
	char *config_json;	/* the verified bytes */
	struct oci_layer *layers; /* lowest first */
	unsigned num_layers;
};
void oci_image_done(struct oci_image *img);

/* spec: "oci:DIR[:TAG]", "oci-archive:FILE[:TAG]", "docker-archive:FILE[:REF]", "dir:PATH" (a skopeo dir: layout), "-" (standard input, spooled to spool_dir). */
int oci_open(const char *spec, const char *spool_dir, struct oci_source **ret, struct sm_error *err) MUST_CHECK;
struct oci_source *oci_close(struct oci_source *src);

/* Chooses a manifest (platform "os/arch[/variant]", NULL: this machine's; tag from the spec), verifies it and the configuration.
 * max_layers: limit. Errors name the spec and the descriptor. */
int oci_resolve(struct oci_source *src, const char *platform, unsigned max_layers, struct oci_image *ret, struct sm_error *err) MUST_CHECK;

/* The uncompressed tar stream of layer i. read: bytes, 0 at the end, by which time size, digest and diff ID have all been verified (else -EBADMSG),
 * or -errno. max_bytes bounds the uncompressed size (-EFBIG). One thread per stream. */
int oci_layer_open(struct oci_source *src, const struct oci_image *img, unsigned i, uint64_t max_bytes, struct oci_layer_stream **ret,
		   struct sm_error *err) MUST_CHECK;
ssize_t oci_layer_read(struct oci_layer_stream *s, void *p, size_t len, struct sm_error *err) MUST_CHECK;
uint64_t oci_layer_position(const struct oci_layer_stream *s); /* compressed bytes consumed, for progress */
struct oci_layer_stream *oci_layer_close(struct oci_layer_stream *s);

/* References: "name[:tag][@digest]" normalised as docker does, without a default registry; ref.c. */
struct oci_ref {
	char *name; /* "debian-demo", "host:5000/a/b" */
	char *tag;  /* "latest" when none was given and there is no digest */
	char *digest; /* or NULL */
};
int oci_ref_parse(const char *s, struct oci_ref *ret, struct sm_error *err) MUST_CHECK;
void oci_ref_done(struct oci_ref *ref);

#endif
