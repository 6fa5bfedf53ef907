/* SPDX-License-Identifier: Apache-2.0 */
/* Where a machine has files on huge pages: its agent mounts it, its keepers keep copies of bases there (hugecopy.c). */
#ifndef BASE_HUGEDIR_H
#define BASE_HUGEDIR_H

#define HUGE_DIR "/run/supermachine/huge"

#endif
