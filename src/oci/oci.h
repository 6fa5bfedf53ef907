/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where images come from: registries, OCI image layouts, OCI and Docker archives (OCI image-spec: image-layout.md,
 * descriptor.md, manifest.md, image-index.md, config.md; Docker image spec v1.2). Everything read here is hostile: JSON
 * types and sizes are checked, every blob's size and digest are verified while it streams, exactly once.
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

/* Room for "sha512:" + 128 digits + NUL. */
#define OCI_DIGEST_SIZE 136

struct oci_layer {
	char digest[OCI_DIGEST_SIZE]; /* of the blob as stored, sha256 or sha512; "" for docker-archive layers that
					 carry none */
	char diff_id[72]; /* "sha256:<hex>" of the uncompressed tar, from the configuration's rootfs.diff_ids */
	uint64_t size;	  /* bytes as stored */
	/* By content, whatever the media type says of it (as containerd and docker do): both digests hold the bytes
	 * anyway. */
	enum oci_compression compression;
	bool unseen;  /* private: of a registry; its first bytes will show how it is compressed */
	char *member; /* private: the blob's name inside the source; NULL: of a registry */
};

/* The image configuration (config.md), decoded and checked. Lists are NULL-terminated or NULL. */
struct oci_config {
	char *os, *architecture, *variant;
	int64_t created;					     /* seconds since 1970, 0 unknown */
	char **entrypoint, **cmd, **env, **exposed_ports, **volumes; /* "80/tcp", "/data" */
	char **labels;						     /* "key=value" */
	char *user, *working_dir, *stop_signal;
};

struct oci_image {
	char id[72]; /* "sha256:<hex>" of the configuration's bytes, whatever algorithm the manifest uses */
	char manifest_digest[OCI_DIGEST_SIZE]; /* "" for docker-archive */
	/* The reference the source carries, "name:tag" in normal form, or NULL: RepoTags[0]; else the index's
	 * annotation io.containerd.image.name; else org.opencontainers.image.ref.name, before which the name of the
	 * layout's directory or of the archive without its suffix is put if it is a mere tag ("oci:/x/demo:latest" is
	 * "demo:latest"). */
	char *name;
	struct oci_config config;
	char *config_json;	  /* the verified bytes */
	struct oci_layer *layers; /* lowest first */
	unsigned num_layers;
};
void oci_image_done(struct oci_image *img);

/* spec: "oci:DIR[:TAG]", "oci-archive:FILE[:TAG]", "docker-archive:FILE[:REF]", "dir:PATH" (a skopeo dir: layout), "-"
 * (standard input, spooled to spool_dir). */
int oci_open(const char *spec, const char *spool_dir, struct oci_source **ret, struct sm_error *err) MUST_CHECK;
struct oci_source *oci_close(struct oci_source *src);

/* spec also allows an archive that is compressed as a whole (gzip, zstd): it is unpacked into spool_dir (NULL: $TMPDIR
 * or /var/tmp), like standard input, into a file without a name.
 *
 * Chooses a manifest (platform "os/arch[/variant]", NULL: this machine's; tag from the spec), verifies it and the
 * configuration. max_layers: limit. Errors name the spec and the descriptor. */
int oci_resolve(struct oci_source *src, const char *platform, unsigned max_layers, struct oci_image *ret,
		struct sm_error *err) MUST_CHECK;

/* The uncompressed tar stream of layer i. read: bytes, 0 at the end, by which time size, digest and diff ID have all
 * been verified (else -EBADMSG), or -errno, which repeats. max_bytes bounds the uncompressed size (-EFBIG). One thread
 * per stream. */
int oci_layer_open(struct oci_source *src, const struct oci_image *img, unsigned i, uint64_t max_bytes,
		   struct oci_layer_stream **ret, struct sm_error *err) MUST_CHECK;
ssize_t oci_layer_read(struct oci_layer_stream *s, void *p, size_t len, struct sm_error *err) MUST_CHECK;
/* Reads what is left and drops it: 0 if the layer is what its digests say, else as oci_layer_read. For a caller to whom
 * the tar makes no sense: if this fails, the bytes were damaged on their way, which is the better thing to tell; if
 * not, they were made that way. */
int oci_layer_verify(struct oci_layer_stream *s, struct sm_error *err) MUST_CHECK;
uint64_t oci_layer_position(const struct oci_layer_stream *s); /* compressed bytes consumed, for progress */
struct oci_layer_stream *oci_layer_close(struct oci_layer_stream *s);

/* ---- images that are made here: another one's layers and one more, an uncompressed tar in a file of ours (amend.h has
 * their configuration) */

/* A source of that layer alone. fd stays the caller's; the file must not change any more. what: for errors. */
int oci_open_layer_file(int fd, const char *what, struct oci_source **ret, struct sm_error *err) MUST_CHECK;
/* The diff ID of what is in the file. */
int oci_file_diff_id(int fd, char ret[static OCI_DIGEST_SIZE], struct sm_error *err) MUST_CHECK;
/* The image with this configuration, which is taken in any case; below: the layers that are there already, as they were
 * stored (member NULL); top: and that layer. */
int oci_made_image(const struct oci_source *src, char *config_json, const struct oci_layer *below, unsigned count,
		   bool top, struct oci_image *ret, struct sm_error *err) MUST_CHECK;
/* A new file without a name in this directory. */
int oci_spool_file(const char *dir, struct sm_error *err) MUST_CHECK;

/* References: "name[:tag][@digest]" in docker's short form, without its default registry and "library/"; ref.c. */
struct oci_ref {
	char *name;   /* "debian-demo", "host:5000/a/b" */
	char *tag;    /* "latest" when none was given and there is no digest */
	char *digest; /* or NULL */
};
int oci_ref_parse(const char *s, struct oci_ref *ret, struct sm_error *err) MUST_CHECK;
void oci_ref_done(struct oci_ref *ref);

/* A registry, and maybe a repository in it. */
struct oci_place {
	char *name;	  /* as people write the registry: "host:5000" */
	char *host;	  /* where it answers */
	char *key;	  /* what it is called in files of credentials */
	char *repository; /* "a/b", "library/debian"; NULL: none */
};
int oci_ref_place(const struct oci_ref *ref, struct oci_place *ret, struct sm_error *err) MUST_CHECK;
/* "host[:port]", after https:// and before a path if these are there; NULL or "": the default registry. */
int oci_host_place(const char *host, struct oci_place *ret, struct sm_error *err) MUST_CHECK;
void oci_place_done(struct oci_place *p);

/* ---- registries (OCI distribution-spec: pull). Everything that one sends is hostile, too. */

struct oci_registry_options {
	const char *auth_file; /* credentials of `login`; NULL: none. docker's are asked next. */
	/* Asked often, from any thread, while the network is waited for: nonzero ends the wait with -ECANCELED. */
	int (*stopped)(void *arg);
	void *arg;
	unsigned stall_ms, retry_ms; /* 0: without a byte for 60 s an answer counts as broken off; 1 s before the first
					retry, twice as much before each further one */
};

/* The image that a reference means in its registry. Cheap: nothing is asked yet. */
int oci_open_registry(const char *ref, const struct oci_registry_options *o, struct oci_source **ret,
		      struct sm_error *err) MUST_CHECK;
/* Asks the registry, in one request, which manifest the reference means: its digest, without anything that hangs on it.
 * oci_resolve goes on from that answer. */
int oci_peek(struct oci_source *src, const char *platform, char ret[static OCI_DIGEST_SIZE],
	     struct sm_error *err) MUST_CHECK;

/* Has the registry judge user and password, and keeps them in o->auth_file, for this user alone. */
int oci_login(const char *host, const char *user, const char *secret, const struct oci_registry_options *o,
	      struct sm_error *err) MUST_CHECK;
/* Forgets them. -ENOENT (SM_ERROR_NOT_FOUND): there are none. */
int oci_logout(const char *host, const char *auth_file, struct sm_error *err) MUST_CHECK;

#endif
