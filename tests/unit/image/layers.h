/* SPDX-License-Identifier: Apache-2.0 */
/* Test helper: tar layers, in memory or in files, to one flat EROFS file, without a store. */
#ifndef TESTS_IMAGE_LAYERS_H
#define TESTS_IMAGE_LAYERS_H

#include <stddef.h>

#include "image/erofs.h"
#include "image/layer.h"

#define TEST_MAX_LAYERS 16

/* A tar_input over a file descriptor. */
ssize_t layers_read_fd(void *arg, void *p, size_t len, struct sm_error *err);

extern const struct layer_limits layers_limits;

/* Converts and merges the layers at these descriptors (lowest first) and writes the window to out_fd. */
int layers_build(const int *tar_fds, unsigned n, int out_fd, struct erofs_result *ret, struct sm_error *err);

#endif
