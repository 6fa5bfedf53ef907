/* SPDX-License-Identifier: Apache-2.0 */
/*
 * References, by the grammar of the distribution project ("reference"): [domain[:port]/]path[/path…][:tag][@digest].
 * Names are kept in docker's short form: "docker.io/library/x", "library/x" and "x" are one name, "x"; other registries
 * stay.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "oci/digest.h"
#include "oci/json.h"

#define MAX_NAME 255
#define MAX_TAG 128
#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"

static bool only(const char *p, size_t len, const char *set)
{
	return strspn(p, set) >= len;
}

/* [a-z0-9]+ joined by ".", "_", "__" or any number of "-". */
static bool component_valid(const char *p, size_t len)
{
	size_t i = 0;

	for (;;) {
		size_t word = strspn(p + i, LOWER DIGITS), sep;

		if (word == 0 || i + word > len)
			return false;
		i += word;
		if (i == len)
			return true;
		sep = strspn(p + i, "-");
		if (!sep)
			sep = p[i] == '.' ? 1 : p[i] == '_' ? (p[i + 1] == '_' ? 2 : 1) : 0;
		if (!sep)
			return false;
		i += sep;
	}
}

/* A host: letters, digits, '-' and '.' (or an IPv6 address in brackets), and maybe a port. */
static bool domain_valid(const char *p, size_t len)
{
	const char *colon;
	size_t host = len;

	if (*p == '[') {
		const char *end = memchr(p, ']', len);

		if (!end || !only(p + 1, (size_t)(end - p - 1), DIGITS "abcdefABCDEF:"))
			return false;
		host = (size_t)(end - p) + 1;
	} else {
		colon = memchr(p, ':', len);
		host = colon ? (size_t)(colon - p) : len;
		if (host == 0 || !only(p, host, LOWER UPPER DIGITS ".-") || strchr(".-", p[0]) ||
		    strchr(".-", p[host - 1]))
			return false;
	}
	if (host == len)
		return true;
	return p[host] == ':' && len - host > 1 && len - host <= 6 && only(p + host + 1, len - host - 1, DIGITS);
}

/* The first component is a domain if it could not be a mere path: it has a dot, a port or capitals, or is localhost. */
static bool is_domain(const char *p, size_t len)
{
	return memchr(p, '.', len) || memchr(p, ':', len) || *p == '[' || strcspn(p, UPPER) < len ||
	       (len == 9 && memcmp(p, "localhost", 9) == 0);
}

static const char *check_name(const char *name)
{
	const char *p = name, *slash = strchr(name, '/');

	if (!*name)
		return "it has no name";
	if (strlen(name) > MAX_NAME)
		return "its name is over 255 characters";
	if (slash && is_domain(p, (size_t)(slash - p))) {
		if (!domain_valid(p, (size_t)(slash - p)))
			return "its registry is not a host name";
		p = slash + 1;
	}
	for (;;) {
		size_t len = strcspn(p, "/");

		if (!component_valid(p, len))
			return strcspn(p, UPPER) < len
				       ? "a name must be in lower case"
				       : "a name consists of letters and digits, joined by '.', '_', '-' and '/'";
		if (!p[len])
			break;
		p += len + 1;
	}
	/* 64 hex digits are an image's id, never a name. */
	if (strlen(name) == 64 && strspn(name, "0123456789abcdef") == 64)
		return "64 hex digits are an image's id, not a name";
	return NULL;
}

/* Docker's default registry: as names have it, where it answers, and as files of credentials have it. */
#define DEFAULT_DOMAIN "docker.io"
#define DEFAULT_HOST "registry-1." DEFAULT_DOMAIN
#define DEFAULT_INDEX "index." DEFAULT_DOMAIN
#define DEFAULT_KEY "https://" DEFAULT_INDEX "/v1/"

/* What is left of a name without docker's default registry and its library, which nobody types. */
static const char *familiar(const char *name)
{
	static const char *const defaults[] = {DEFAULT_DOMAIN "/", DEFAULT_INDEX "/"};

	for (size_t i = 0; i < ARRAY_SIZE(defaults); i++) {
		const char *rest = name + strlen(defaults[i]), *slash;

		if (!str_starts(name, defaults[i]))
			continue;
		slash = strchr(rest, '/');
		if (slash && is_domain(rest, (size_t)(slash - rest)))
			return name; /* it would become that registry's */
		name = rest;
		break;
	}
	if (str_starts(name, "library/") && !strchr(name + strlen("library/"), '/'))
		name += strlen("library/");
	return name;
}

static bool tag_valid(const char *tag)
{
	size_t len = strlen(tag);

	return len && len <= MAX_TAG && !strchr(".-", tag[0]) && only(tag, len, LOWER UPPER DIGITS "_.-");
}

/* Splits text, in place, at '@' and at the ':' of a tag (one behind the last '/': before it is a port). */
static const char *split(char *text, char **ret_tag, char **ret_digest)
{
	char *at = strchr(text, '@'), *slash, *colon;

	if (at) {
		*at = 0;
		*ret_digest = at + 1;
		if (!digest_valid(at + 1))
			return "what follows '@' is not a sha256 or sha512 digest";
	}
	slash = strrchr(text, '/');
	colon = strrchr(text, ':');
	if (colon && (!slash || colon > slash)) {
		*colon = 0;
		*ret_tag = colon + 1;
		if (!tag_valid(colon + 1))
			return "a tag consists of up to 128 letters, digits, '_', '.' and '-'";
	}
	return NULL;
}

int oci_ref_parse(const char *s, struct oci_ref *ret, struct sm_error *err)
{
	_free_ char *text = strdup(s);
	char *tag = NULL, *digest = NULL, buf[SHOW_SIZE];
	struct oci_ref ref = {0};
	const char *why, *name = NULL;

	if (!text)
		return error_sys(err, ENOMEM, "reference");
	why = split(text, &tag, &digest);
	if (!why)
		why = check_name(text);
	if (!why) {
		name = familiar(text);
		why = check_name(name);
	}
	if (why)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "'%s' is not an image reference: %s", show(s, buf),
				 why);
	ref.name = strdup(name);
	ref.tag = tag ? strdup(tag) : digest ? NULL : strdup("latest");
	ref.digest = digest ? strdup(digest) : NULL;
	if (!ref.name || (!ref.tag && !digest) || (tag && !ref.tag) || (digest && !ref.digest)) {
		oci_ref_done(&ref);
		return error_sys(err, ENOMEM, "reference");
	}
	*ret = ref;
	return 0;
}

/* ---- where a name leads to */

static int set_place(struct oci_place *ret, const char *host, size_t len, const char *repository, struct sm_error *err)
{
	struct oci_place p = {0};
	bool standard = !len || (len == strlen(DEFAULT_DOMAIN) && strncasecmp(host, DEFAULT_DOMAIN, len) == 0) ||
			(len == strlen(DEFAULT_INDEX) && strncasecmp(host, DEFAULT_INDEX, len) == 0);
	/* Its own images are those of one word. */
	const char *library = standard && repository && !strchr(repository, '/') ? "library/" : "";

	p.host = standard ? strdup(DEFAULT_HOST) : strndup(host, len);
	p.key = standard ? strdup(DEFAULT_KEY) : strndup(host, len);
	p.name = standard ? strdup(DEFAULT_DOMAIN) : strndup(host, len);
	if (repository && asprintf(&p.repository, "%s%s", library, repository) < 0)
		p.repository = NULL;
	if (!p.host || !p.key || !p.name || (repository && !p.repository)) {
		oci_place_done(&p);
		return error_sys(err, ENOMEM, "registry");
	}
	*ret = p;
	return 0;
}

int oci_ref_place(const struct oci_ref *ref, struct oci_place *ret, struct sm_error *err)
{
	const char *slash = strchr(ref->name, '/');

	if (slash && is_domain(ref->name, (size_t)(slash - ref->name)))
		return set_place(ret, ref->name, (size_t)(slash - ref->name), slash + 1, err);
	return set_place(ret, "", 0, ref->name, err);
}

int oci_host_place(const char *host, struct oci_place *ret, struct sm_error *err)
{
	char buf[SHOW_SIZE];
	const char *p = host && *host ? host : DEFAULT_DOMAIN;
	size_t len;

	if (str_starts(p, "https://"))
		p += strlen("https://");
	len = strcspn(p, "/");
	if (!len || len > MAX_NAME || !domain_valid(p, len))
		return error_set(err, SM_ERROR_INVALID, EINVAL, "'%s' is not the host name of a registry",
				 show(host, buf));
	return set_place(ret, p, len, NULL, err);
}

void oci_place_done(struct oci_place *p)
{
	free(p->host);
	free(p->key);
	free(p->name);
	free(p->repository);
	*p = (struct oci_place){0};
}

void oci_ref_done(struct oci_ref *ref)
{
	free(ref->name);
	free(ref->tag);
	free(ref->digest);
	*ref = (struct oci_ref){0};
}
