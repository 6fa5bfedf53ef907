/* SPDX-License-Identifier: Apache-2.0 */
/* What sort of image a path holds, so that nobody has to spell it out. */
#ifndef CLI_ARCHIVE_H
#define CLI_ARCHIVE_H

#include <stdbool.h>

#include "base/error.h"

/* True if source says itself what it is: "oci:...", "docker-archive:...", "-". */
bool archive_has_prefix(const char *source);
/* "oci:PATH", "oci-archive:PATH" or "docker-archive:PATH" for a path; to free. Fails when there is nothing at the path.
 */
int archive_source(const char *path, char **ret, struct sm_error *err) MUST_CHECK;

#endif
