/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is shown to a registry that asks who we are: a token from where it sends us (distribution-spec's "token"
 * authentication), or user and password themselves. Credentials go to the registry and to the token server that it
 * names, nowhere else, and to that only by https, unless both are on this host.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/util.h"
#include "oci/registry.h"

#define MAX_TOKEN_ANSWER (64U << 10)
#define CLIENT_ID "supermachine"

int registry_denied(struct registry *reg, struct sm_error *err)
{
	bool known;

	pthread_mutex_lock(&reg->lock);
	known = reg->credentials.user || reg->credentials.identity;
	pthread_mutex_unlock(&reg->lock);
	if (!reg->place.repository)
		return error_set(err, SM_ERROR_DENIED, EACCES, "%s does not accept this user and password",
				 reg->place.name);
	if (known)
		return error_set(err, SM_ERROR_DENIED, EACCES,
				 "%s refuses %s to the user who is logged in: supermachine login %s as another",
				 reg->place.name, reg->place.repository, reg->place.name);
	return error_set(err, SM_ERROR_DENIED, EACCES,
			 "%s refuses %s to who is not logged in, or has no such image: supermachine login %s",
			 reg->place.name, reg->place.repository, reg->place.name);
}

static void put_escaped(struct buf *b, const char *s)
{
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if ((c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || strchr("-._~", c))
			buf_put_u8(b, c);
		else
			buf_printf(b, "%%%02X", c);
	}
}

static void put_pair(struct buf *b, const char *separator, const char *name, const char *value)
{
	buf_printf(b, "%s%s=", separator, name);
	put_escaped(b, value);
}

static void put_scope(struct buf *b, const struct registry *reg)
{
	_free_ char *scope = NULL;

	if (!reg->place.repository)
		return;
	if (asprintf(&scope, "repository:%s:pull", reg->place.repository) < 0) {
		scope = NULL;
		b->error = -ENOMEM;
		return;
	}
	put_pair(b, "&", "scope", scope);
}

/* "Basic …", to free; NULL: no memory. */
static char *basic(const struct credentials *c)
{
	_cleanup_(secret_forget) char *packed = credentials_pack(c);
	char *line = NULL;

	return !packed || asprintf(&line, "Basic %s", packed) < 0 ? NULL : line;
}

/* The registry itself says who gives tokens for it. */
static int check_realm(struct registry *reg, const char *realm, struct sm_error *err)
{
	struct origin own = {.https = reg->https}, to;
	char url[512];
	int r;

	snprintf(url, sizeof(url), "http%s://%s/", reg->https ? "s" : "", reg->place.host);
	r = origin_parse(url, &own, err);
	if (r == 0)
		r = origin_parse(realm, &to, err);
	return r < 0 ? r : http_check_redirect(&own, &to, err);
}

/* GET with the user, or POST with an identity token. */
static int make_request(struct registry *reg, const struct challenge *c, struct buf *url, struct buf *form)
{
	const struct credentials *who = &reg->credentials;

	buf_printf(url, "%s", c->realm);
	if (who->identity) {
		put_pair(form, "", "grant_type", "refresh_token");
		put_pair(form, "&", "client_id", CLIENT_ID);
		put_pair(form, "&", "service", c->service);
		put_scope(form, reg);
		put_pair(form, "&", "refresh_token", who->identity);
		buf_put_u8(form, 0);
	} else {
		put_pair(url, strchr(c->realm, '?') ? "&" : "?", "service", c->service);
		put_scope(url, reg);
		if (who->user)
			put_pair(url, "&", "account", who->user);
	}
	buf_put_u8(url, 0);
	return url->error ? url->error : form->error;
}

static int ask_for_token(struct registry *reg, struct http *h, const struct http_request *req, char **ret,
			 struct sm_error *err)
{
	struct http_answer a;
	_free_ char *text = NULL;
	bool temporary;
	size_t len;
	int r = http_start(h, req, &a, &temporary, err);

	if (r < 0)
		return error_wrap(err, r, "token for %s", reg->place.name);
	if (a.status == 401 || a.status == 403 || (a.status == 400 && req->form))
		return -EACCES; /* the caller has the lock that registry_denied wants */
	if (a.status != 200)
		return error_set(err, SM_ERROR_NETWORK, EREMOTEIO,
				 "%s, which gives tokens for %s, answers with status %ld", a.host, reg->place.name,
				 a.status);
	r = http_read_all(h, MAX_TOKEN_ANSWER, "the token server's answer", &text, &len, &temporary, err);
	if (r == 0) {
		r = token_parse(text, len, ret, err);
		explicit_bzero(text, len);
	}
	return r;
}

static int bearer(struct registry *reg, struct http *h, const struct challenge *c, char **ret, struct sm_error *err)
{
	_cleanup_(buf_done) struct buf url = {0}, form = {0};
	_cleanup_(secret_forget) char *token = NULL, *user = NULL;
	struct http_request req = {.ca_file = reg->ca_file};
	int r;

	if (!*c->realm)
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s wants a token, but does not say whose",
				 reg->place.name);
	r = check_realm(reg, c->realm, err);
	if (r < 0)
		return r;
	if (make_request(reg, c, &url, &form) < 0)
		return error_sys(err, ENOMEM, "token");
	if (reg->credentials.user && reg->credentials.secret) {
		user = basic(&reg->credentials);
		if (!user)
			return error_sys(err, ENOMEM, "token");
	}
	req.url = (const char *)url.data;
	req.form = form.len ? (const char *)form.data : NULL;
	req.authorization = user;
	r = ask_for_token(reg, h, &req, &token, err);
	if (form.len)
		explicit_bzero(form.data, form.len);
	if (r == 0 && asprintf(ret, "Bearer %s", token) < 0) {
		*ret = NULL;
		r = error_sys(err, ENOMEM, "token");
	}
	return r;
}

/* With the lock held. *ret stays NULL where nothing fits: denied. */
static int answer_challenge(struct registry *reg, struct http *h, const struct challenge *c, char **ret,
			    struct sm_error *err)
{
	int r = 0;

	if (!reg->looked_up) {
		r = credentials_find(&reg->place, reg->options.auth_file, &reg->credentials, err);
		reg->looked_up = r == 0;
	}
	if (r < 0)
		return r;
	if (c->bearer)
		return bearer(reg, h, c, ret, err);
	/* The same once more would be no better. */
	if (c->basic && reg->credentials.user && reg->credentials.secret && !reg->authorization) {
		*ret = basic(&reg->credentials);
		return *ret ? 0 : error_sys(err, ENOMEM, "login");
	}
	return -EACCES;
}

int registry_authenticate(struct registry *reg, struct http *h, const struct challenge *c, unsigned generation,
			  struct sm_error *err)
{
	char *line = NULL;
	int r = 0;

	http_end(h);
	pthread_mutex_lock(&reg->lock);
	if (reg->generation == generation) {
		struct sm_error why = {0};

		r = answer_challenge(reg, h, c, &line, &why);
		if (r < 0 && err)
			*err = why;
		if (r == -EACCES && why.kind != SM_ERROR_NONE)
			r = -EREMOTEIO;
		if (r == 0) {
			secret_forget(&reg->authorization);
			reg->authorization = line;
			reg->generation++;
		}
	}
	pthread_mutex_unlock(&reg->lock);
	http_end(h);
	return r == -EACCES ? registry_denied(reg, err) : r;
}
