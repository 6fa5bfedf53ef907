/* SPDX-License-Identifier: Apache-2.0 */
/* What both fuzz targets of the image room do with a tree: write it and read it back. */
#ifndef FUZZ_IMAGE_H
#define FUZZ_IMAGE_H

#include "image/erofs.h"

/* Sparse files make large windows of little data; past this one only the writing is exercised. */
#define FUZZ_MAX_WINDOW (1ULL << 30)

/* Aborts if what erofs_write makes of the tree is not a sound file system. */
void fuzz_write_and_check(struct tree *t, struct erofs_blob *blobs, uint32_t n);

#endif
