/* SPDX-License-Identifier: Apache-2.0 */
/* Platforms: "os/architecture[/variant]" with the names that Go and the OCI image-index use (image-index.md,
 * "platform"). */
#ifndef OCI_PLATFORM_H
#define OCI_PLATFORM_H

#include <stdbool.h>

#include "base/error.h"

struct platform {
	char os[32], architecture[32], variant[32]; /* variant "" for none */
};

/* Parses, and turns other names (x86_64, aarch64, armhf) into the usual ones; NULL is this machine. */
int platform_parse(const char *s, struct platform *ret, struct sm_error *err) MUST_CHECK;

/* How well an image of this platform (variant may be NULL) serves the wanted one: 0 not at all, higher is better. */
int platform_rank(const struct platform *want, const char *os, const char *architecture, const char *variant);

#endif
