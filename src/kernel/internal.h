/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this room share: the bzImage, decompression, unpacking a kernel package. */
#ifndef KERNEL_INTERNAL_H
#define KERNEL_INTERNAL_H

#include "base/buf.h"
#include "kernel/kernel.h"

/* The release in a kernel's image, bzImage or ELF: *ret freed by the caller. -EINVAL: it is neither. */
int kernel_image_release(const char *path, char **ret, struct sm_error *err) MUST_CHECK;

/* Unpacks one compressed stream (gzip, xz, zstd, lz4, lzma, bzip2: told by its magic) to at most max bytes, -EFBIG
 * beyond. */
int kernel_decompress(const void *p, size_t len, size_t max, struct buf *out, struct sm_error *err) MUST_CHECK;

/* Downloads the distribution's kernel package by apt-get and unpacks it to data_dir/kernels/<release>. -ENOENT where
 * there is no apt. */
int kernel_download(const char *data_dir, struct sm_error *err) MUST_CHECK;

/* Unpacks the kernel and the modules of a Debian package below dir. */
int kernel_unpack_deb(const char *deb, const char *dir, struct sm_error *err) MUST_CHECK;

#endif
