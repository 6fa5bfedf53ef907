/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes that cannot be read twice or sought in, put into a file without a name. */
#ifndef OCI_SPOOL_H
#define OCI_SPOOL_H

#include "oci/oci.h"

/*
 * Copies fd to its end into a new unnamed file in dir (NULL: $TMPDIR or /var/tmp), decompressing gzip or zstd that the
 * bytes begin with. Against bombs, what comes out is limited to 100 times what went in and a GiB: an archive as a
 * whole, made of blobs that are mostly compressed already, is far from that. Returns the file's descriptor at offset 0,
 * or -errno; fd stays the caller's.
 */
int spool(int fd, const char *dir, const char *what, struct sm_error *err) MUST_CHECK;

#endif
