/* SPDX-License-Identifier: Apache-2.0 */
/* Making a base snapshot: between base.c and base_make.c. */
#ifndef LIB_BASE_MAKE_H
#define LIB_BASE_MAKE_H

#include "lib/base.h"

#define BASE_MAX 8 /* so many are kept: the one longest unused goes first */

/* Boots a VM of the record's shape, saves it and gives it its name; with the lock held. A failure leaves nothing. */
int base_make(struct sm_client *c, int snapshots, const char *name, const struct vm_record *rec, struct base *b,
	      const struct sm_progress *progress, struct sm_error *err) MUST_CHECK;
int base_metadata_write(int dir, const struct base *b, const struct vm_record *rec, int64_t created_ns,
			struct sm_error *err) MUST_CHECK;

#endif
