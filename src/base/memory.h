/* SPDX-License-Identifier: Apache-2.0 */
/* How much memory a process here may still take: of the system, and of the cgroups that it is in. */
#ifndef BASE_MEMORY_H
#define BASE_MEMORY_H

#include <stdint.h>

/* In bytes, page cache that can be dropped included; UINT64_MAX: nobody knows. As soon as `enough` are found no further
 * look is taken. */
uint64_t memory_available(uint64_t enough);

#endif
