/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens and credentials as JSON has them. See authdoc.h. */
#include "oci/authdoc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <nettle/base64.h>

#include "base/cleanup.h"
#include "base/util.h"

#define HELPER_MAX 64

void secret_forget(char **s)
{
	if (*s)
		explicit_bzero(*s, strlen(*s));
	free(*s);
	*s = NULL;
}

void credentials_done(struct credentials *c)
{
	secret_forget(&c->user);
	secret_forget(&c->secret);
	secret_forget(&c->identity);
}

/* ---- tokens */

static bool token_valid(const char *s)
{
	size_t len = strlen(s);

	for (size_t i = 0; i < len; i++)
		if (s[i] <= 32 || s[i] > 126)
			return false;
	return len && len <= TOKEN_MAX;
}

int token_parse(const char *text, size_t len, char **ret, struct sm_error *err)
{
	static const char what[] = "the token server's answer";
	const char *token = NULL, *other = NULL;
	json_t *doc;
	int r = json_read(text, len, what, &doc, err);

	if (r < 0)
		return r;
	r = json_get_string(doc, "token", false, what, &token, err);
	if (r == 0)
		r = json_get_string(doc, "access_token", false, what, &other, err);
	token = token ? token : other;
	if (r == 0 && (!token || !token_valid(token)))
		r = error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s has no token, or one that cannot be sent", what);
	if (r == 0) {
		*ret = strdup(token);
		r = *ret ? 0 : error_sys(err, ENOMEM, "token");
	}
	json_decref(doc);
	return r;
}

/* ---- base64 (RFC 4648, with padding): to free; NULL: no memory, or (decode) it is none */

static char *base64_encode(const char *p, size_t len)
{
	char *out = malloc(BASE64_ENCODE_RAW_LENGTH(len) + 1);

	if (!out)
		return NULL;
	base64_encode_raw(out, len, (const uint8_t *)p);
	out[BASE64_ENCODE_RAW_LENGTH(len)] = 0;
	return out;
}

static char *base64_decode(const char *text)
{
	size_t in = strlen(text), len = BASE64_DECODE_LENGTH(in);
	struct base64_decode_ctx ctx;
	char *out = malloc(len + 1);

	if (!out)
		return NULL;
	base64_decode_init(&ctx);
	if (!base64_decode_update(&ctx, &len, (uint8_t *)out, in, text) || !base64_decode_final(&ctx)) {
		free(out);
		return NULL;
	}
	out[len] = 0;
	return out;
}

/* ---- credentials */

/* A line break in a header would begin another one. */
static bool plain(const char *s)
{
	return !s[strcspn(s, "\r\n")];
}

static int set(struct credentials *ret, const char *user, const char *secret, const char *identity,
	       struct sm_error *err)
{
	struct credentials c = {.user = user ? strdup(user) : NULL,
				.secret = secret ? strdup(secret) : NULL,
				.identity = identity ? strdup(identity) : NULL};

	if ((user && !c.user) || (secret && !c.secret) || (identity && !c.identity)) {
		credentials_done(&c);
		return error_sys(err, ENOMEM, "credentials");
	}
	*ret = c;
	return 1;
}

char *credentials_pack(const struct credentials *c)
{
	char *pair = NULL, *packed;

	if (asprintf(&pair, "%s:%s", c->user, c->secret) < 0)
		return NULL;
	packed = base64_encode(pair, strlen(pair));
	secret_forget(&pair);
	return packed;
}

/* "user:secret" in base64, as docker writes it. */
static int set_packed(struct credentials *ret, const char *auth, const char *identity, const char *what,
		      struct sm_error *err)
{
	char *plain_text = base64_decode(auth), *colon = plain_text ? strchr(plain_text, ':') : NULL;
	int r;

	if (!colon) {
		secret_forget(&plain_text);
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s: an 'auth' is not USER:PASSWORD in base64", what);
	}
	*colon++ = 0;
	r = set(ret, plain_text, identity ? NULL : colon, identity, err);
	explicit_bzero(colon, strlen(colon));
	free(plain_text);
	return r;
}

static bool key_is(const char *key, const struct registry_key *registry)
{
	size_t len;

	if (streq(key, registry->key))
		return true;
	if (str_starts(key, "https://") || str_starts(key, "http://"))
		key = strstr(key, "://") + 3;
	len = strcspn(key, "/");
	return (len == strcspn(registry->host, "/") && strncasecmp(key, registry->host, len) == 0) ||
	       (len == strlen(registry->name) && strncasecmp(key, registry->name, len) == 0);
}

static json_t *find_entry(json_t *table, const struct registry_key *registry, const char **ret_key)
{
	const char *key;
	json_t *value, *exact = json_object_get(table, registry->key);

	*ret_key = registry->key;
	if (exact)
		return exact;
	json_object_foreach(table, key, value)
	{
		*ret_key = key;
		if (key_is(key, registry))
			return value;
	}
	return NULL;
}

/* 1, 0: the entry keeps nothing here, or -errno. */
static int entry_read(json_t *entry, const char *what, struct credentials *ret, struct sm_error *err)
{
	const char *auth = NULL, *user = NULL, *secret = NULL, *identity = NULL;
	int r = json_is_object(entry) ? 0 : json_wrong(what, "auths", "an object of objects", err);

	if (r == 0)
		r = json_get_string(entry, "auth", false, what, &auth, err);
	if (r == 0)
		r = json_get_string(entry, "username", false, what, &user, err);
	if (r == 0)
		r = json_get_string(entry, "password", false, what, &secret, err);
	if (r == 0)
		r = json_get_string(entry, "identitytoken", false, what, &identity, err);
	if (r < 0)
		return r;
	if (identity && (!*identity || !plain(identity)))
		identity = NULL;
	if (auth && *auth)
		return set_packed(ret, auth, identity, what, err);
	if (identity || (user && *user && secret))
		return set(ret, user, identity ? NULL : secret, identity, err);
	return 0;
}

/* It becomes part of a program's name. */
static bool helper_valid(const char *s)
{
	size_t len = strlen(s);

	return len && len <= HELPER_MAX &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == len;
}

static int find_helper(json_t *doc, const char *what, const struct registry_key *registry, char **ret,
		       struct sm_error *err)
{
	json_t *helpers = NULL, *one = NULL;
	const char *key, *name = NULL;
	int r = json_get_object(doc, "credHelpers", false, what, &helpers, err);

	if (r == 0 && helpers)
		one = find_entry(helpers, registry, &key);
	if (r == 0 && !one)
		r = json_get_string(doc, "credsStore", false, what, &name, err);
	if (r < 0)
		return r;
	if (one)
		name = json_string_value(one);
	if (!name || !*name)
		return one && !name ? json_wrong(what, "credHelpers", "an object of strings", err) : 0;
	if (!helper_valid(name))
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s: a credential helper has an impossible name",
				 what);
	*ret = strdup(name);
	return *ret ? 0 : error_sys(err, ENOMEM, "%s", what);
}

int authfile_find(const char *text, size_t len, const char *what, const struct registry_key *registry,
		  struct credentials *ret, char **ret_helper, struct sm_error *err)
{
	_cleanup_(json_cleanup) json_t *doc = NULL;
	json_t *auths = NULL, *entry = NULL;
	const char *key;
	int r = json_read(text, len, what, &doc, err);

	if (ret_helper)
		*ret_helper = NULL;
	if (r == 0)
		r = json_get_object(doc, "auths", false, what, &auths, err);
	if (r == 0 && auths)
		entry = find_entry(auths, registry, &key);
	/* With a helper the file has, at most, an empty entry. */
	if (r == 0 && ret_helper)
		r = find_helper(doc, what, registry, ret_helper, err);
	if (r == 0 && entry)
		r = entry_read(entry, what, ret, err);
	if (r != 0 && ret_helper) {
		free(*ret_helper);
		*ret_helper = NULL;
	}
	return r;
}

static json_t *entry_make(const struct credentials *c)
{
	_cleanup_(secret_forget) char *packed = credentials_pack(c);

	return packed ? json_pack("{s:s}", "auth", packed) : NULL;
}

int authfile_change(const char *text, size_t len, const char *what, const struct registry_key *registry,
		    const struct credentials *c, char **ret, struct sm_error *err)
{
	_cleanup_(json_cleanup) json_t *doc = NULL;
	json_t *auths = NULL;
	const char *key;
	bool had = false;
	int r = 0;

	*ret = NULL;
	if (text)
		r = json_read(text, len, what, &doc, err);
	else
		doc = json_pack("{s:{}}", "auths");
	if (r == 0)
		r = doc ? json_get_object(doc, "auths", false, what, &auths, err) : error_sys(err, ENOMEM, "%s", what);
	if (r < 0)
		return r;
	while (auths && find_entry(auths, registry, &key)) {
		json_object_del(auths, key);
		had = true;
	}
	if (!c && !had)
		return 0;
	if (!auths) {
		auths = json_object();
		json_object_set_new(doc, "auths", auths);
	}
	if (c && json_object_set_new(auths, registry->key, entry_make(c)) < 0)
		return error_sys(err, ENOMEM, "%s", what);
	*ret = json_dumps(doc, JSON_INDENT(2));
	return *ret ? 0 : error_sys(err, ENOMEM, "%s", what);
}

int helper_parse(const char *text, size_t len, const char *what, struct credentials *ret, struct sm_error *err)
{
	_cleanup_(json_cleanup) json_t *doc = NULL;
	const char *user = NULL, *secret = NULL;
	int r = json_read(text, len, what, &doc, err);

	if (r == 0)
		r = json_get_string(doc, "Username", true, what, &user, err);
	if (r == 0)
		r = json_get_string(doc, "Secret", true, what, &secret, err);
	if (r < 0)
		return r;
	if (streq(user, "<token>"))
		r = plain(secret) && *secret ? set(ret, NULL, NULL, secret, err)
					     : json_wrong(what, "Secret", "one", err);
	else
		r = set(ret, user, secret, NULL, err);
	return r < 0 ? r : 0;
}
