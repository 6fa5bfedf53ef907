/* SPDX-License-Identifier: Apache-2.0 */
/* Names of entries: from what an archive says to a path that is safe to walk, and to text for messages. */
#ifndef IMAGE_PATH_H
#define IMAGE_PATH_H

#include "base/buf.h"
#include "image/tar.h"

#define PATH_NAME_MAX 255 /* bytes of a component: Linux and EROFS alike */

/*
 * Writes the path relative to the image's root into out (emptied first): components joined by single slashes, none of
 * them empty, "." or
 * "..", none longer than PATH_NAME_MAX; the root itself is "". A leading slash, doubled slashes and "." mean nothing,
 * as in a container engine. ".." is refused (-EBADMSG), although clamping at the root would be harmless: nothing honest
 * writes it.
 */
int path_normalise(struct tar_bytes path, unsigned max_path, unsigned max_depth, struct buf *out,
		   struct sm_error *err) MUST_CHECK;

/* True if the bytes are what path_normalise writes. */
bool path_is_normal(const uint8_t *p, size_t len, unsigned max_depth);

/* Quoted, escaped and shortened in the middle for a message; returns out. */
#define PATH_TEXT_MAX 320
const char *path_text(struct tar_bytes path, char out[static PATH_TEXT_MAX]);

#endif
