/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers of the EROFS format that the writer uses, and that the tests' checker reads (kernel: fs/erofs/erofs_fs.h). */
#ifndef IMAGE_EROFS_FORMAT_H
#define IMAGE_EROFS_FORMAT_H

#include <stdint.h>

#define EROFS_SUPER_OFFSET 1024U
#define EROFS_SUPER_SIZE 128U
#define EROFS_MAGIC 0xE0F5E1E2U
#define EROFS_COMPAT_SB_CHKSUM 0x1U
#define EROFS_COMPAT_MTIME 0x2U
#define EROFS_INCOMPAT_CHUNKED_FILE 0x4U

#define EROFS_INODE_SIZE 64U /* extended */
#define EROFS_SLOT_BITS 5    /* inode numbers count these from the start of the metadata area */
#define EROFS_DIRENT_SIZE 12U

/* Inode format: bit 0 extended, then the layout of the data. */
#define EROFS_FLAT_PLAIN 0U
#define EROFS_FLAT_INLINE 2U
#define EROFS_CHUNK_BASED 4U
#define EROFS_HOLE UINT32_MAX

#endif
