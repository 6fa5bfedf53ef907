/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration of an image that is made of another one: config.md of the image-spec, and the instructions that
 * "docker commit --change" knows. */
#ifndef OCI_AMEND_H
#define OCI_AMEND_H

#include <stdint.h>

#include "base/error.h"

struct oci_amend {
	/* What takes the place of the configuration's own; NULL: it stays. Lists are NULL-terminated. */
	char *const *entrypoint, *const *cmd, *const *env;
	const char *user, *cwd, *stop_signal;
	char *const *labels;			   /* "K=V", beside those that are there */
	const char *const *changes;		   /* then these, in order: "CMD sh", "ENV A=B" ... */
	const char *author, *message, *created_by; /* NULL: none */
	int64_t created_ns;
	const char *diff_id; /* of the layer on top; NULL: there is none */
};

/* *ret: JSON, to free. The given one was verified, its types are checked. */
int oci_amend(const char *config_json, const struct oci_amend *a, char **ret, struct sm_error *err) MUST_CHECK;
/* Whether these instructions can be followed. */
int oci_amend_check(const char *const *changes, struct sm_error *err) MUST_CHECK;

#endif
