/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The JSON documents of logging in: a token server's answer, a file of credentials (ours and docker's config.json have
 * one form), a credential helper's answer. Pure: no files, no network.
 */
#ifndef OCI_AUTHDOC_H
#define OCI_AUTHDOC_H

#include "oci/json.h"

#define TOKEN_MAX 16384 /* what servers take as a header */

/* Who somebody is to a registry. Nothing of it is ever part of a message. */
struct credentials {
	char *user, *secret; /* both, or neither */
	char *identity;	     /* a token to get tokens with, instead of them; or NULL */
};
void credentials_done(struct credentials *c); /* overwrites them */
/* "user:secret" in base64, as docker and HTTP's Basic have it; for secret_forget; NULL: no memory. */
char *credentials_pack(const struct credentials *c);
/* Overwrites and frees a text; also for _cleanup_. */
void secret_forget(char **s);

/* {"token": …} or {"access_token": …}: printable ASCII. To free. */
int token_parse(const char *text, size_t len, char **ret, struct sm_error *err) MUST_CHECK;

/* A registry as files of credentials know it: its key there, which is also its address for credential helpers. */
struct registry_key {
	const char *key, *host; /* the host may be followed by a path, which is not part of it */
	const char *name;	/* as people write it: of the default registry that is another host */
};

/*
 * Reads {"auths": {KEY: {"auth": BASE64 | "username", "password", "identitytoken"}}}. A key is the registry's if it is
 * that once "https://" and a path are taken away. 1: *ret is filled; 0: it has none for this registry, or none that is
 * kept in the file; *ret_helper (optional, to free): the helper that keeps it, by "credHelpers" or "credsStore".
 */
int authfile_find(const char *text, size_t len, const char *what, const struct registry_key *registry,
		  struct credentials *ret, char **ret_helper, struct sm_error *err) MUST_CHECK;

/* The same text with one entry set, or (c NULL) taken away; what else is in it stays. text NULL: there is none yet. To
 * free; NULL when nothing was to be taken away. */
int authfile_change(const char *text, size_t len, const char *what, const struct registry_key *registry,
		    const struct credentials *c, char **ret, struct sm_error *err) MUST_CHECK;

/* {"Username": …, "Secret": …}; the user "<token>" means an identity token. */
int helper_parse(const char *text, size_t len, const char *what, struct credentials *ret,
		 struct sm_error *err) MUST_CHECK;

#endif
