/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tests of whole images share: a scratch directory with two small layers (a.tar, b.tar and a larger one, c.tar, of
 * several chunks), images made there by tests/lib/mkimage, and streaming of all layers.
 */
#ifndef TESTS_OCI_SUPPORT_H
#define TESTS_OCI_SUPPORT_H

#include "oci/oci.h"

/* Makes the scratch directory and changes into it; group fixtures of cmocka. */
int scratch_setup(void **state);
int scratch_teardown(void **state);

/* Runs a shell command in the scratch directory; true if it ended with 0. "mkimage" is found. */
bool run(const char *fmt, ...) PRINTF_LIKE(1, 2);
void must_run(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* Opens, resolves and reads every layer to its end. 0, or the first error. *ret_bytes (optional): uncompressed bytes.
 */
int stream_all(const char *spec, const char *platform, uint64_t max_bytes, uint64_t *ret_bytes, struct sm_error *err);

/* That, with an expected result: 0, or an error whose one-line message starts with the spec and has this text. */
void expect_stream(const char *spec, int want, const char *text);

#endif
