/* SPDX-License-Identifier: Apache-2.0 */
/* Files of the host as a layer of an image, and what identifies them. */
#ifndef LIB_HOSTLAYER_H
#define LIB_HOSTLAYER_H

#include "base/buf.h"
#include "lib/lib.h"

/* That they can be what is asked for, whatever is on the disk. */
int host_layer_check(const struct sm_image_file *files, size_t count, struct sm_error *err) MUST_CHECK;
/*
 * Reads them all. What they are is added to `ret_print`, the same for the same files: what a tar of them would be. And
 * if fd is not -1 that layer is written to it, over an image whose tree this is.
 */
int host_layer_read(const struct sm_image_file *files, size_t count, const struct image_progress *progress,
		    struct buf *ret_print, struct image_tree *tree, int fd, struct sm_error *err) MUST_CHECK;

#endif
