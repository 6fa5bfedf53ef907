/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Converts one layer, once, streaming: a tar in, a blob of file contents and an index of entries out.
 *
 * What is not kept, on purpose: names of users (ids are numeric), access and change times, SCHILY.acl text (ACLs come
 * as system.posix_acl_* attributes), global pax headers, metadata that aufs left (.wh..wh.* other than .wh..wh..opq).
 * Extended attributes that overlayfs would take for its own (trusted.overlay.*, user.overlay.*) and those of name
 * spaces that EROFS cannot hold are left out and counted. Refused, with the entry's name: "..", NUL and over-long
 * names, whiteouts of nothing, entries inside a whiteout, 0:0 character devices (an overlay takes them for whiteouts),
 * device numbers past Linux's, symbolic links over 4095 bytes.
 */
#ifndef IMAGE_LAYER_H
#define IMAGE_LAYER_H

#include <stdint.h>

#include "base/error.h"
#include "image/tar.h"

struct layer_limits { /* none may be 0 */
	uint64_t max_entries;
	uint64_t max_bytes; /* of the archive */
	unsigned max_depth, max_path;
};

struct layer_stats {
	uint64_t entries, blob_size, stripped;
};

/* blob_fd, index_fd: empty files, read-write. Does not sync. Memory: about 4 MiB, and an extended header's size. On
 * error both files hold rubbish. */
int layer_convert(const struct tar_input *input, const struct layer_limits *limits, int blob_fd, int index_fd,
		  struct layer_stats *ret, struct sm_error *err) MUST_CHECK;

#endif
