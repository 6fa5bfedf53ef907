/* SPDX-License-Identifier: Apache-2.0 */
/* Libraries that a program loads when it needs them first (libarchive.h, libcurl.h), for a start should not wait. */
#ifndef BASE_DYNAMIC_H
#define BASE_DYNAMIC_H

#include <stdbool.h>
#include <stddef.h>

/* One entry of `names`, of a macro that lists a library's functions. */
#define DYNAMIC_NAME(name) #name,

/* Loads the first of the libraries (NULL-terminated) that is there, and looks up `num` functions: ret[i] is names[i].
 * False: none is there, or it lacks one. */
bool dynamic_load(const char *const *libraries, const char *const *names, void **ret, size_t num);

#endif
