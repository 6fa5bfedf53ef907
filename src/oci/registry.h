/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A registry as one pull sees it: where it is, what has been shown to it, connections that can be used again. Safe for
 * several threads.
 */
#ifndef OCI_REGISTRY_H
#define OCI_REGISTRY_H

#include <pthread.h>

#include "oci/authdoc.h"
#include "oci/http.h"
#include "oci/store.h"

#define REGISTRY_IDLE 16

struct registry {
	struct oci_place place;
	struct oci_registry_options options; /* its auth_file is ours */
	char *ca_file;			     /* or NULL */

	pthread_mutex_t lock; /* of what follows */
	bool https, settled;  /* settled: an answer came by this scheme */
	char *authorization;  /* the header, once one was wanted */
	unsigned generation;  /* counts these */
	bool looked_up;
	struct credentials credentials;
	struct http *idle[REGISTRY_IDLE];
	unsigned num_idle;
};

/* Takes place over, in any case. */
int registry_new(struct oci_place *place, const struct oci_registry_options *o, struct registry **ret,
		 struct sm_error *err) MUST_CHECK;
struct registry *registry_free(struct registry *reg);

struct registry_request {
	const char *kind, *name; /* "manifests", a tag or digest; NULL: the root of the interface */
	const char *accept;
	uint64_t from;
	const atomic_bool *stop;
};
/* Sends a GET, with what the registry wants to see, and again where that may help. 0: the answer is 200 or 206, its
 * body is to be read from *ret, which registry_put takes back. Errors say what and where, and what to do. */
int registry_get(struct registry *reg, const struct registry_request *req, struct http **ret,
		 struct http_answer *ret_answer, struct sm_error *err) MUST_CHECK;
void registry_put(struct registry *reg, struct http *h);
/* Sleeps before attempt n (0: the first retry). -ECANCELED. */
int registry_pause(struct registry *reg, unsigned n, const atomic_bool *stop, struct sm_error *err) MUST_CHECK;

/* registry_auth.c: sets reg->authorization as the challenge wants it, unless another thread has since `generation`. h:
 * a connection to ask on. */
int registry_authenticate(struct registry *reg, struct http *h, const struct challenge *c, unsigned generation,
			  struct sm_error *err) MUST_CHECK;
/* "…: supermachine login HOST" */
int registry_denied(struct registry *reg, struct sm_error *err);

/* credentials.c: of a registry, from the files and helpers that there are. 0 also if there are none. */
int credentials_find(const struct oci_place *place, const char *auth_file, struct credentials *ret,
		     struct sm_error *err) MUST_CHECK;
int credentials_write(const struct oci_place *place, const char *auth_file, const struct credentials *c,
		      struct sm_error *err) MUST_CHECK;

/* remote.c: the bytes of a blob, read in order, resumed where the connection breaks. */
struct extent;
int remote_open(struct registry *reg, const char *digest, uint64_t size, struct extent *ret,
		struct sm_error *err) MUST_CHECK;

#endif
