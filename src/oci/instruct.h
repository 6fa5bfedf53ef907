/* SPDX-License-Identifier: Apache-2.0 */
/* One instruction of a Dockerfile, applied to the "config" of an image's configuration. */
#ifndef OCI_INSTRUCT_H
#define OCI_INSTRUCT_H

#include <jansson.h>

#include "base/error.h"

/* CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR, in any case, as a Dockerfile has them. */
int oci_instruct(json_t *config, const char *line, struct sm_error *err) MUST_CHECK;

/* "K=V" into Env: instead of what has that name, else behind the others. */
int oci_set_env(json_t *config, const char *pair) MUST_CHECK;
/* A string, or a list of them, as a member. 0 or -ENOMEM. */
int oci_set(json_t *object, const char *key, json_t *value) MUST_CHECK;
/* The member that is an object, made if there is none; NULL: no memory. */
json_t *oci_object(json_t *object, const char *key);

#endif
