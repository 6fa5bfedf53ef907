/* SPDX-License-Identifier: Apache-2.0 */
/* The two halves of sm_image_build: the image (build.c), and a snapshot of it that has been warmed up (warm.c). */
#ifndef LIB_BUILD_H
#define LIB_BUILD_H

#include "base/buf.h"
#include "lib/lib.h"

struct build {
	struct sm_client *client;
	struct image_store *store;
	struct sm_image_build_options o;
	struct sm_image_build_result result;
	struct image_info base;
	struct image_progress progress; /* of all that is done here: told to the caller, and whether he cancels */
};

/* What a fingerprint is made of: each text with its length, so that no two lists of them look alike. NULL is none. */
void print_text(struct buf *b, const char *text);
void print_list(struct buf *b, const char *const *list);
/* Whether the caller has asked to stop, by its descriptor or by the answer to `stage`. */
bool build_is_cancelled(struct build *b, const char *stage);

/* Leaves a snapshot of this image, by the options; the name is in the result. */
int warm_snapshot(struct build *b, const struct image_info *image, struct sm_error *err) MUST_CHECK;

#endif
