/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Applies layers to a tree, lowest first (OCI image-spec, layer.md, "Applying Changesets").
 *
 * - A whiteout takes away what lower layers left, never what its own layer brings, wherever it stands in the archive. A
 * directory that the layer itself has put something into stays, with that.
 * - A later entry of a name wins, also within a layer. A directory over a directory changes its attributes only;
 * anything else is replaced, a directory with all beneath it. Other names of a replaced file keep the old one.
 * - A symbolic link as a parent is followed within the image's root, as umoci does: at most 255 of them, ".." stops at
 * the root. What is missing on the way is made: 0755, owned by 0:0, at the epoch.
 * - An entry under something that is neither is an error, as are hard links to directories and to what is not there. A
 * hard link to itself changes nothing. The attributes that a hard link's own entry carries mean nothing.
 */
#ifndef IMAGE_MERGE_H
#define IMAGE_MERGE_H

#include <stdint.h>

#include "base/error.h"
#include "image/index.h"
#include "image/tree.h"

/* layer: its number, from 1, ascending; blob: what its files' inodes get as theirs. Errors name the entry. After one
 * the tree is good for tree_done only. */
int merge_layer(struct tree *t, struct index_reader *index, uint32_t layer, uint32_t blob,
		struct sm_error *err) MUST_CHECK;

/* What a path (normal) leads to: a directory at the end of symbolic links, else what has that name. *ret: its type as
 * in stat(2), 0: nothing. -ENOTDIR, -ELOOP, -ENAMETOOLONG: something on the way. */
int merge_look(struct tree *t, struct tar_bytes path, uint16_t *ret) MUST_CHECK;

#endif
