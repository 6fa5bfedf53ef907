/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request after another to a registry: connections, credentials when it asks for them, attempts again when it is
 * busy or away for a moment, and words for what it answers. See registry.h.
 */
#include "oci/registry.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "oci/json.h"

#define STALL_MS 60000
#define RETRY_MS 1000
#define ATTEMPTS 4
#define SLICE_MS 50

/* The port is left out of a name's host. */
static bool is_local(const char *host)
{
	size_t len = *host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
	char name[256];

	snprintf(name, sizeof(name), "%.*s", (int)len, host);
	return host_is_loopback(name);
}

/* Further authorities where docker has them: certs.d/HOST/ca.crt, the user's own first. */
static char *find_ca(const char *host)
{
	const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME"), *all = getenv("SSL_CERT_FILE");
	char *path = NULL;

	if (config && *config == '/' && asprintf(&path, "%s/docker/certs.d/%s/ca.crt", config, host) < 0)
		return NULL;
	if (!path && home && *home == '/' && asprintf(&path, "%s/.config/docker/certs.d/%s/ca.crt", home, host) < 0)
		return NULL;
	if (path && access(path, R_OK) == 0)
		return path;
	free(path);
	if (asprintf(&path, "/etc/docker/certs.d/%s/ca.crt", host) < 0)
		return NULL;
	if (access(path, R_OK) == 0)
		return path;
	free(path);
	return all && *all ? strdup(all) : NULL;
}

int registry_new(struct oci_place *place, const struct oci_registry_options *o, struct registry **ret,
		 struct sm_error *err)
{
	struct registry *reg = calloc(1, sizeof(*reg));

	if (!reg) {
		oci_place_done(place);
		return error_sys(err, ENOMEM, "registry");
	}
	pthread_mutex_init(&reg->lock, NULL);
	reg->place = *place;
	*place = (struct oci_place){0};
	reg->options = *o;
	reg->options.auth_file = o->auth_file ? strdup(o->auth_file) : NULL;
	reg->options.stall_ms = o->stall_ms ? o->stall_ms : STALL_MS;
	reg->options.retry_ms = o->retry_ms ? o->retry_ms : RETRY_MS;
	reg->ca_file = find_ca(reg->place.host);
	/* A registry on this host is mostly one without TLS; nothing that is said to it leaves the host. */
	reg->https = !is_local(reg->place.host);
	reg->settled = reg->https;
	*ret = reg;
	return 0;
}

struct registry *registry_free(struct registry *reg)
{
	if (!reg)
		return NULL;
	while (reg->num_idle)
		http_free(reg->idle[--reg->num_idle]);
	oci_place_done(&reg->place);
	credentials_done(&reg->credentials);
	secret_forget(&reg->authorization);
	free((char *)(uintptr_t)reg->options.auth_file);
	free(reg->ca_file);
	pthread_mutex_destroy(&reg->lock);
	free(reg);
	return NULL;
}

static int take(struct registry *reg, struct http **ret, struct sm_error *err)
{
	struct http_options o = {
		.stopped = reg->options.stopped, .arg = reg->options.arg, .stall_ms = reg->options.stall_ms};

	pthread_mutex_lock(&reg->lock);
	*ret = reg->num_idle ? reg->idle[--reg->num_idle] : NULL;
	pthread_mutex_unlock(&reg->lock);
	return *ret ? 0 : http_new(&o, ret, err);
}

void registry_put(struct registry *reg, struct http *h)
{
	http_end(h);
	pthread_mutex_lock(&reg->lock);
	if (reg->num_idle < REGISTRY_IDLE) {
		reg->idle[reg->num_idle++] = h;
		h = NULL;
	}
	pthread_mutex_unlock(&reg->lock);
	http_free(h);
}

int registry_pause(struct registry *reg, unsigned n, const atomic_bool *stop, struct sm_error *err)
{
	uint64_t end = time_now_ns() + ((uint64_t)reg->options.retry_ms << MIN(n, 5U)) * 1000000;
	uint64_t now;

	while ((now = time_now_ns()) < end) {
		struct timespec t = {.tv_nsec = (long)MIN(end - now, SLICE_MS * 1000000ULL)};

		if ((stop && atomic_load(stop)) || (reg->options.stopped && reg->options.stopped(reg->options.arg)))
			return error_set(err, SM_ERROR_CANCELLED, ECANCELED, "cancelled");
		nanosleep(&t, NULL);
	}
	return 0;
}

/* ---- one attempt */

struct attempt {
	char *url, *authorization;
	unsigned generation;
	bool https;
};

static void attempt_done(struct attempt *a)
{
	free(a->url);
	secret_forget(&a->authorization);
}

static int prepare(struct registry *reg, const struct registry_request *req, struct attempt *ret, struct sm_error *err)
{
	int r;

	pthread_mutex_lock(&reg->lock);
	ret->https = reg->https;
	ret->generation = reg->generation;
	ret->authorization = reg->authorization ? strdup(reg->authorization) : NULL;
	r = reg->authorization && !ret->authorization ? -1 : 0;
	pthread_mutex_unlock(&reg->lock);
	if (r == 0 && req->kind)
		r = asprintf(&ret->url, "http%s://%s/v2/%s/%s/%s", ret->https ? "s" : "", reg->place.host,
			     reg->place.repository, req->kind, req->name);
	else if (r == 0)
		r = asprintf(&ret->url, "http%s://%s/v2/", ret->https ? "s" : "", reg->place.host);
	if (r < 0)
		ret->url = NULL;
	return r < 0 ? error_sys(err, ENOMEM, "registry") : 0;
}

static int send_once(struct registry *reg, struct http *h, const struct registry_request *req, const struct attempt *a,
		     struct http_answer *ret, bool *ret_temporary, struct sm_error *err)
{
	struct http_request wire = {.url = a->url,
				    .authorization = a->authorization,
				    .accept = req->accept,
				    .ca_file = reg->ca_file,
				    .from = req->from,
				    .stop = req->stop};

	return http_start(h, &wire, ret, ret_temporary, err);
}

/* On this host: what does not speak http, or says that it speaks https, is asked once more by https. */
static bool try_https(struct registry *reg, const struct attempt *a, int r, const struct http_answer *answer)
{
	bool again = false;

	if (a->https || (r < 0 ? r != -ECONNRESET : answer->status != 400))
		return false;
	pthread_mutex_lock(&reg->lock);
	if (!reg->settled) {
		reg->https = reg->settled = true;
		again = true;
	}
	pthread_mutex_unlock(&reg->lock);
	return again;
}

/* ---- what an answer means */

static int not_found(struct registry *reg, const struct registry_request *req, struct sm_error *err)
{
	const char *name = reg->place.name;

	if (!req->kind)
		return error_set(err, SM_ERROR_UNSUPPORTED, EPROTONOSUPPORT, "%s is no registry of images", name);
	if (streq(req->kind, "blobs"))
		return error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "%s does not have the blob %s", name, req->name);
	return error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "%s has no image %s%s%s", name, reg->place.repository,
			 strchr(req->name, ':') ? "@" : ":", req->name);
}

static int unexpected(struct registry *reg, const struct registry_request *req, const struct http_answer *a,
		      struct sm_error *err)
{
	switch (a->status) {
	case 401:
	case 403:
		return registry_denied(reg, err);
	case 404:
		return not_found(reg, req, err);
	case 429:
		return error_set(err, SM_ERROR_BUSY, EBUSY,
				 "%s says that these are too many requests: wait, or log in to be allowed more",
				 a->host);
	default:
		return error_set(err, SM_ERROR_NETWORK, EREMOTEIO, "%s answers with status %ld%s", a->host, a->status,
				 a->status >= 500 ? ": it is in trouble, try again later" : "");
	}
}

static bool worth_another(long status)
{
	return status == 429 || status == 500 || status == 502 || status == 503 || status == 504;
}

/* Attempts until there is an answer, or no use. */
static int get(struct registry *reg, struct http *h, const struct registry_request *req, struct http_answer *ret,
	       struct sm_error *err)
{
	unsigned failures = 0, refused = 0;

	for (;;) {
		_cleanup_(attempt_done) struct attempt a = {0};
		bool temporary = false;
		int r = prepare(reg, req, &a, err);

		if (r < 0)
			return r;
		r = send_once(reg, h, req, &a, ret, &temporary, err);
		if (try_https(reg, &a, r, ret))
			continue;
		if (r == 0 && (ret->status == 200 || ret->status == 206)) {
			pthread_mutex_lock(&reg->lock);
			reg->settled = true;
			pthread_mutex_unlock(&reg->lock);
			return 0;
		}
		if (r == 0 && ret->status == 401 && refused++ < 2) {
			/* Twice: a token may have expired meanwhile. */
			if (ret->bad_challenge && !ret->challenge.bearer && !ret->challenge.basic)
				return error_set(err, SM_ERROR_CORRUPT, EBADMSG,
						 "%s wants a login in a way that makes no sense", ret->host);
			r = registry_authenticate(reg, h, &ret->challenge, a.generation, err);
			if (r < 0)
				return r;
			continue;
		}
		if (r == 0) {
			temporary = worth_another(ret->status);
			r = unexpected(reg, req, ret, err);
		}
		if (!temporary || ++failures == ATTEMPTS)
			return r;
		r = registry_pause(reg, failures - 1, req->stop, err);
		if (r < 0)
			return r;
	}
}

int registry_get(struct registry *reg, const struct registry_request *req, struct http **ret,
		 struct http_answer *ret_answer, struct sm_error *err)
{
	struct http *h;
	int r = take(reg, &h, err);

	if (r < 0)
		return r;
	r = get(reg, h, req, ret_answer, err);
	if (r < 0) {
		registry_put(reg, h);
		return r;
	}
	*ret = h;
	return 0;
}
