/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests to a registry, one at a time on a connection that stays: a request is sent, the head of its answer comes,
 * and the body is read in pieces, at the reader's speed. Only http and https are spoken, each answer is bounded, and a
 * redirect goes through http_check_redirect: credentials never follow to another origin.
 */
#ifndef OCI_HTTP_H
#define OCI_HTTP_H

#include <stdatomic.h>

#include "oci/challenge.h"
#include "oci/oci.h"

struct http; /* a connection, of one thread at a time */

struct http_options {
	int (*stopped)(void *arg); /* as of oci_registry_options; NULL: never */
	void *arg;
	unsigned stall_ms;
};

int http_new(const struct http_options *o, struct http **ret, struct sm_error *err) MUST_CHECK;
struct http *http_free(struct http *h);

struct http_request {
	const char *url;
	const char *authorization; /* the header's value, to the URL's own origin alone; or NULL */
	const char *accept;	   /* or NULL */
	const char *form;	   /* the body of a POST; NULL: GET */
	const char *ca_file;	   /* of further authorities for https; NULL: the host's alone */
	uint64_t from;		   /* ask for the bytes from here on */
	const atomic_bool *stop;   /* set: any wait ends with -ECANCELED; NULL: only `stopped` counts */
};

#define HTTP_UNKNOWN UINT64_MAX

struct http_answer {
	long status;
	uint64_t length;	    /* of the body that comes; HTTP_UNKNOWN */
	uint64_t first;		    /* of 206: which byte it begins with; HTTP_UNKNOWN: it does not say */
	struct challenge challenge; /* of 401 */
	bool bad_challenge;
	char host[256]; /* who answered, after redirects: for messages */
};

/* Sends a request, follows redirects, and returns with the head of the answer. 0 or -errno; then nothing is open. The
 * errors of a connection are SM_ERROR_NETWORK; *ret_temporary: another attempt may go better. */
int http_start(struct http *h, const struct http_request *req, struct http_answer *ret, bool *ret_temporary,
	       struct sm_error *err) MUST_CHECK;
/* The next bytes of the body, at least one: count, 0 at its end, -errno as above. */
ssize_t http_read(struct http *h, void *p, size_t len, bool *ret_temporary, struct sm_error *err) MUST_CHECK;
/* All of a body of at most max bytes, NUL-terminated, to free. */
int http_read_all(struct http *h, size_t max, const char *what, char **ret, size_t *ret_len, bool *ret_temporary,
		  struct sm_error *err) MUST_CHECK;
/* Ends the request, whatever is left of it. */
void http_end(struct http *h);

/* origin.c. Pure: an absolute URL of http or https, without a user. */
struct origin {
	bool https;
	char host[256], port[8];
};
int origin_parse(const char *url, struct origin *ret, struct sm_error *err) MUST_CHECK;
/* What a Location means that came from base; to free. */
int url_join(const char *base, const char *location, char **ret, struct sm_error *err) MUST_CHECK;
bool origin_same(const struct origin *a, const struct origin *b);
/* A name or address of this host: "localhost", 127.x.y.z, ::1 (in brackets or not), without a port. */
bool host_is_loopback(const char *host);
/* Whether an answer from one origin may send us to another: not from https to http, nor from elsewhere to this host. */
int http_check_redirect(const struct origin *from, const struct origin *to, struct sm_error *err) MUST_CHECK;

#endif
