/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a source by its spec, and its blobs by their digests. See oci.h and source.h. */
#include "oci/source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "oci/decoder.h"
#include "oci/digest.h"
#include "oci/json.h"
#include "oci/registry.h"
#include "oci/spool.h"

static const struct transport {
	const char *prefix;
	enum source_kind kind;
	bool archive, tagged;
} transports[] = {
	{"oci:", SOURCE_LAYOUT, false, true},
	{"oci-archive:", SOURCE_LAYOUT, true, true},
	{"docker-archive:", SOURCE_DOCKER, true, true},
	{"dir:", SOURCE_DIR, false, false},
};

int source_wrap(const struct oci_source *src, int r, struct sm_error *err)
{
	return error_wrap(err, r, "%s", src->spec);
}

int source_open_blob(const struct oci_source *src, const char *digest, struct extent *ret, char **ret_member,
		     struct sm_error *err)
{
	/* What skopeo's dir: calls a blob, and a manifest below an index. */
	static const char *const suffixes[] = {"", ".manifest.json"};
	bool dir = src->kind == SOURCE_DIR;
	char name[OCI_DIGEST_SIZE + 32];

	for (size_t i = 0; i < (dir ? ARRAY_SIZE(suffixes) : 1); i++) {
		int r;

		if (dir)
			snprintf(name, sizeof(name), "%s%s", digest_hex(digest), suffixes[i]);
		else
			snprintf(name, sizeof(name), "blobs/%.6s/%s", digest, digest_hex(digest));
		r = src->store->open(src->store, name, ret, err);
		if (r == -ENOENT)
			continue;
		if (r == 0 && ret_member) {
			*ret_member = strdup(name);
			if (!*ret_member) {
				extent_close(ret);
				return error_sys(err, ENOMEM, "%s", name);
			}
		}
		return r;
	}
	return -ENOENT;
}

int source_read_blob(const struct oci_source *src, const struct descriptor *d, const char *what, char **ret,
		     size_t *ret_len, struct sm_error *err)
{
	struct extent e = {.fd = -1};
	char have[OCI_DIGEST_SIZE];
	_free_ char *data = NULL;
	ssize_t n;
	int r;

	if (d->size > JSON_MAX_BYTES)
		return error_set(err, SM_ERROR_LIMIT, EFBIG, "%s is over %u bytes", what, JSON_MAX_BYTES);
	if (src->kind == SOURCE_REGISTRY)
		return registry_read(src, d, what, ret, ret_len, err);
	r = source_open_blob(src, d->digest, &e, NULL, err);
	if (r == -ENOENT)
		return error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "%s is missing", what);
	if (r < 0)
		return error_wrap(err, r, "%s", what);
	if (e.size != d->size) {
		extent_close(&e);
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s has %llu bytes, its descriptor says %llu", what,
				 (unsigned long long)e.size, (unsigned long long)d->size);
	}
	data = malloc(e.size + 1);
	n = data ? extent_read(&e, 0, data, e.size) : -ENOMEM;
	extent_close(&e);
	if (n < 0 || (uint64_t)n != e.size)
		return error_sys(err, n < 0 ? (int)-n : EIO, "read %s", what);
	r = digest_of(d->digest, data, e.size, have);
	if (r < 0)
		return error_sys(err, -r, "%s", what);
	if (!streq(have, d->digest))
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s has digest %s", what, have);
	data[n] = 0;
	*ret = TAKE_PTR(data);
	*ret_len = (size_t)n;
	return 0;
}

/*
 * "PATH[:TAG]" where PATH may hold colons too: the longest PATH that exists. Where none does, the text before the first
 * colon is what the error is about. *ret_tag points into rest.
 */
static char *split_path(const char *rest, bool tagged, const char **ret_tag)
{
	char *path = strdup(rest), *colon;

	*ret_tag = NULL;
	while (path && tagged && access(path, F_OK) < 0 && (colon = strrchr(path, ':'))) {
		*colon = 0;
		*ret_tag = rest + (colon - path) + 1;
	}
	return path;
}

/* What the image can be called after: "/x/Demo.tar.gz" is "demo", "." and ".." are nothing. */
static char *base_name_of(const char *path, bool archive)
{
	static const char *const suffixes[] = {".gz", ".zst", ".tgz", ".tar", ".oci"};
	_free_ char *copy = strdup(path);
	char *end = copy ? copy + strlen(copy) : NULL, *base;

	while (end > copy && end[-1] == '/')
		*--end = 0;
	if (!copy)
		return NULL;
	base = strrchr(copy, '/') ? strrchr(copy, '/') + 1 : copy;
	for (size_t i = 0; archive && i < ARRAY_SIZE(suffixes); i++) {
		size_t len = strlen(base), n = strlen(suffixes[i]);

		if (len > n && streq(base + len - n, suffixes[i]))
			base[len - n] = 0;
	}
	for (char *p = base; *p; p++)
		*p = *p >= 'A' && *p <= 'Z' ? (char)(*p - 'A' + 'a') : *p;
	return !*base || streq(base, ".") || streq(base, "..") ? NULL : strdup(base);
}

/* The archive as a file to seek in: itself, or what it unpacks to. */
static int open_archive(const char *path, const char *spool_dir, struct sm_error *err)
{
	_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	enum oci_compression kind = OCI_PLAIN;
	const char *name = NULL;
	struct stat st;
	uint8_t head[6];
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		return error_sys(err, errno, "open %s", path);
	if (S_ISDIR(st.st_mode))
		return error_sys(err, EISDIR, "open %s", path);
	/* A pipe, of <(command) say: what stands behind it is not to be sought in. */
	if (!S_ISREG(st.st_mode))
		return spool(fd, spool_dir, path, err);
	n = pread_full(fd, head, sizeof(head), 0);
	if (n < 0)
		return error_sys(err, (int)-n, "read %s", path);
	if (compression_detect(head, (size_t)n, &kind, &name) < 0 || kind != OCI_PLAIN)
		return spool(fd, spool_dir, path, err);
	return TAKE_FD(fd);
}

static bool has_member(struct store *s, const char *name)
{
	struct extent e = {.fd = -1};
	bool yes = s->open(s, name, &e, NULL) == 0;

	extent_close(&e);
	return yes;
}

/* What the store must have at its root, or a hint at the transport that would fit. */
static int check_layout(struct oci_source *src, bool archive, struct sm_error *err)
{
	bool layout = has_member(src->store, "oci-layout") && has_member(src->store, "index.json");
	bool manifest = has_member(src->store, "manifest.json");

	if (src->kind == SOURCE_LAYOUT && !layout)
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG,
				 "not an OCI layout: oci-layout or index.json is missing%s",
				 !manifest ? ""
				 : archive ? " (docker-archive:FILE?)"
					   : " (dir:PATH?)");
	if (src->kind != SOURCE_LAYOUT && !manifest)
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "not a %s: manifest.json is missing%s",
				 archive ? "Docker archive" : "directory as skopeo makes it",
				 !layout   ? ""
				 : archive ? " (oci-archive:FILE?)"
					   : " (oci:DIR?)");
	return 0;
}

/* oci-layout names the layout's version (image-layout.md); 1.x is what this code knows. */
static int check_version(struct oci_source *src, struct sm_error *err)
{
	_free_ char *text = NULL;
	const char *version;
	char buf[SHOW_SIZE];
	json_t *doc;
	size_t len;
	int r;

	if (src->kind != SOURCE_LAYOUT)
		return 0;
	r = store_read(src->store, "oci-layout", 4096, &text, &len, err);
	if (r == 0)
		r = json_read(text, len, "oci-layout", &doc, err);
	if (r < 0)
		return r;
	r = json_get_string(doc, "imageLayoutVersion", true, "oci-layout", &version, err);
	if (r == 0 && !str_starts(version, "1."))
		r = error_set(err, SM_ERROR_UNSUPPORTED, ENOTSUP, "the layout has version '%s', only 1.x is known",
			      show(version, buf));
	json_decref(doc);
	return r;
}

static int open_stdin(struct oci_source *src, const char *spool_dir, struct sm_error *err)
{
	int fd = spool(STDIN_FILENO, spool_dir, "standard input", err);
	int r = fd < 0 ? fd : store_tar_open(fd, "standard input", &src->store, err);

	if (r < 0)
		return r;
	/* `docker save` writes both forms since version 25: its manifest.json has the better names. */
	src->kind = has_member(src->store, "manifest.json") ? SOURCE_DOCKER : SOURCE_LAYOUT;
	r = check_layout(src, true, err);
	return r < 0 ? r : check_version(src, err);
}

static int open_spec(struct oci_source *src, const char *spool_dir, struct sm_error *err)
{
	const struct transport *t = NULL;
	_free_ char *path = NULL;
	const char *tag;
	int r;

	if (streq(src->spec, "-"))
		return open_stdin(src, spool_dir, err);
	for (size_t i = 0; !t && i < ARRAY_SIZE(transports); i++)
		if (str_starts(src->spec, transports[i].prefix))
			t = &transports[i];
	if (!t)
		return error_set(err, SM_ERROR_INVALID, EINVAL,
				 "not an image source: expected oci:DIR[:TAG], oci-archive:FILE, docker-archive:FILE, "
				 "dir:PATH or -");
	src->kind = t->kind;
	path = split_path(src->spec + strlen(t->prefix), t->tagged, &tag);
	if (!path)
		return error_sys(err, ENOMEM, "open");
	if (!*path)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "there is no path behind '%s'", t->prefix);
	src->tag = tag && *tag ? strdup(tag) : NULL;
	src->base_name = base_name_of(path, t->archive);
	if (t->archive) {
		int fd = open_archive(path, spool_dir, err);

		r = fd < 0 ? fd : store_tar_open(fd, path, &src->store, err);
	} else {
		r = store_dir_open(path, &src->store, err);
	}
	if (r == 0)
		r = check_layout(src, t->archive, err);
	return r < 0 ? r : check_version(src, err);
}

int oci_open(const char *spec, const char *spool_dir, struct oci_source **ret, struct sm_error *err)
{
	struct oci_source *src = calloc(1, sizeof(*src));
	int r;

	if (!src)
		return error_sys(err, ENOMEM, "%s", spec);
	src->spec = strdup(spec);
	r = src->spec ? open_spec(src, spool_dir, err) : -ENOMEM;
	if (r < 0) {
		oci_close(src);
		return error_wrap(err, r, "%s", spec);
	}
	*ret = src;
	return 0;
}

struct oci_source *oci_close(struct oci_source *src)
{
	if (!src)
		return NULL;
	if (src->store)
		src->store->free(src->store);
	registry_free(src->registry);
	oci_ref_done(&src->ref);
	free(src->root);
	free(src->spec);
	free(src->base_name);
	free(src->tag);
	free(src);
	return NULL;
}

int oci_resolve(struct oci_source *src, const char *platform, unsigned max_layers, struct oci_image *ret,
		struct sm_error *err)
{
	struct oci_image img = {0};
	int r = src->kind == SOURCE_REGISTRY ? registry_root(src, err) : 0;

	if (r < 0)
		return source_wrap(src, r, err);
	r = src->kind == SOURCE_DOCKER ? resolve_docker(src, platform, max_layers, &img, err)
				       : resolve_layout(src, platform, max_layers, &img, err);

	if (r < 0) {
		oci_image_done(&img);
		return source_wrap(src, r, err);
	}
	*ret = img;
	return 0;
}
