/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libarchive, loaded when it is first needed: it brings a dozen libraries along (XML, Unicode, C++), whose loading
 * takes longer than all else that most commands do, and only archives and kernel packages need it. So all of its
 * functions are called through the table that archive_load returns.
 */
#ifndef BASE_LIBARCHIVE_H
#define BASE_LIBARCHIVE_H

#include <archive.h>
#include <archive_entry.h>

#include "base/error.h"
#include "base/util.h"

/* What is used of it. */
#define ARCHIVE_FUNCTIONS(F)                                                                                           \
	F(archive_entry_filetype)                                                                                      \
	F(archive_entry_hardlink)                                                                                      \
	F(archive_entry_pathname)                                                                                      \
	F(archive_entry_set_pathname)                                                                                  \
	F(archive_entry_set_perm)                                                                                      \
	F(archive_entry_size)                                                                                          \
	F(archive_entry_sparse_count)                                                                                  \
	F(archive_entry_symlink)                                                                                       \
	F(archive_errno)                                                                                               \
	F(archive_error_string)                                                                                        \
	F(archive_filter_bytes)                                                                                        \
	F(archive_read_data_block)                                                                                     \
	F(archive_read_free)                                                                                           \
	F(archive_read_new)                                                                                            \
	F(archive_read_next_header)                                                                                    \
	F(archive_read_open)                                                                                           \
	F(archive_read_open_fd)                                                                                        \
	F(archive_read_open_filename)                                                                                  \
	F(archive_read_open_memory)                                                                                    \
	F(archive_read_support_filter_all)                                                                             \
	F(archive_read_support_format_ar)                                                                              \
	F(archive_read_support_format_raw)                                                                             \
	F(archive_read_support_format_tar)                                                                             \
	F(archive_set_error)                                                                                           \
	F(archive_write_data_block)                                                                                    \
	F(archive_write_disk_new)                                                                                      \
	F(archive_write_disk_set_options)                                                                              \
	F(archive_write_finish_entry)                                                                                  \
	F(archive_write_free)                                                                                          \
	F(archive_write_header)

struct archive_functions {
#define ARCHIVE_MEMBER(name) __typeof__(name) *name;
	ARCHIVE_FUNCTIONS(ARCHIVE_MEMBER)
#undef ARCHIVE_MEMBER
};
/* The functions, the process's own for good; NULL (SM_ERROR_HOST): err says what is missing. From any thread. */
const struct archive_functions *archive_load(struct sm_error *err) MUST_CHECK;

#endif
