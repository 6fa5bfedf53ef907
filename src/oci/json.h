/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON of unknown origin: bounded before it is parsed, and every member read by the type it must have. An absent member
 * and null are the same, as they are to the tools that write these documents. Errors name the document and the member.
 */
#ifndef OCI_JSON_H
#define OCI_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define JSON_MAX_BYTES (4U << 20) /* also what registries accept of a manifest */
#define JSON_MAX_DEPTH 64
#define JSON_MAX_VALUES (128U << 10) /* a 3-byte value costs the parser 250 bytes: bound them, not only the bytes */

/* Parses an object or an array. `what` names the document in errors. Free with json_decref. */
int json_read(const char *text, size_t len, const char *what, json_t **ret, struct sm_error *err) MUST_CHECK;

/* "what: 'key' is not a string" and the like; -EBADMSG. */
int json_wrong(const char *what, const char *key, const char *expected, struct sm_error *err);

/* Members of an object. *ret is borrowed; NULL (or unchanged for u64) where the member is absent, which is an error if
 * required. */
int json_get_string(json_t *obj, const char *key, bool required, const char *what, const char **ret,
		    struct sm_error *err) MUST_CHECK;
int json_get_object(json_t *obj, const char *key, bool required, const char *what, json_t **ret,
		    struct sm_error *err) MUST_CHECK;
int json_get_array(json_t *obj, const char *key, bool required, const char *what, json_t **ret,
		   struct sm_error *err) MUST_CHECK;
int json_get_u64(json_t *obj, const char *key, bool required, uint64_t max, const char *what, uint64_t *ret,
		 struct sm_error *err) MUST_CHECK;

/* A copy of an optional string member; absent and "" leave *ret alone. */
int json_copy_string(json_t *obj, const char *key, const char *what, char **ret, struct sm_error *err) MUST_CHECK;

/* A NULL-terminated copy of an array of strings; NULL stays NULL. */
int json_copy_strings(json_t *array, const char *key, const char *what, char ***ret, struct sm_error *err) MUST_CHECK;
void strings_free(char **list);

/* A document's text for an error message: what is not printable ASCII becomes '?', what is long is cut. Returns buf. */
#define SHOW_SIZE 104
const char *show(const char *s, char buf[static SHOW_SIZE]);

static inline void json_cleanup(json_t **v)
{
	json_decref(*v);
}

#endif
