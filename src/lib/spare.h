/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Spares: VMs that nobody has wanted yet (keeper/spare.c), for the next sm_vm_start that wants the same.
 *
 * All in state_dir/spares:
 * - SHAPE-ID/: one that can be taken: a VM's directory (keeper/record.h), whole as soon as it has this name.
 * - .new-SHAPE-ID: one that is being made; .have-ID: one that somebody has taken, and not yet made his; .old-ID: one
 *   that is being removed.
 * - seen-SHAPE: when, as its time of change, a VM of this shape has last ended that might have been one.
 *
 * SHAPE is a hash of all that is fixed when a VM starts. Whoever is at one holds its start.lock, so what has one of the
 * names with a dot and is not locked was left by somebody who was killed. A spare is in none of the places where VMs
 * are looked for: not in vms/, names/, unended/ or among the events.
 */
#ifndef LIB_SPARE_H
#define LIB_SPARE_H

#include "lib/lib.h"

#define SPARE_SHAPE_DIGITS 24

/* Whether a VM with these options and this record may be one that was a spare. */
bool spare_possible(const struct sm_vm_options *o, const struct vm_record *r);

/* Names in state_dir/spares: of those that can be taken, of this shape or (NULL) any; a list to strv_free. */
char **spare_names(int spares, const char *shape);
/* Whether a VM of this shape has ended a short while ago. */
bool spare_seen(int spares, const char *shape);

/* What a start has found out, until its VM has ended. */
struct spare {
	char shape[SPARE_SHAPE_DIGITS + 1];
	char *record;	/* what to make one from, as text */
	char *base;	/* the base's directory */
	char disk[128]; /* struct base */
	uint64_t window, plugged;
	int64_t created_ns;
	bool wanted; /* there was a VM of this shape a short while ago */
};
void spare_free(struct spare *s);

/*
 * Takes a spare for a VM with this record, if there is one: its id becomes the record's, and vm is a handle of it,
 * whose owner this process is, with its locks held. 1; 0: there is none, or it was of no use, and nothing has happened.
 * *ret: for spare_leave; NULL: this VM has nothing to do with spares.
 */
int spare_take(struct sm_client *c, const struct sm_vm_options *o, struct vm_record *r, uint64_t since,
	       struct sm_vm **ret_vm, struct spare **ret, struct sm_error *err) MUST_CHECK;
/* The VM has ended well: has the next one made, if it is likely to be wanted. Does not wait for it. */
void spare_leave(struct sm_client *c, const struct spare *s);

void spare_sweep(struct sm_client *c);	 /* what was killed */
void spare_end_all(struct sm_client *c); /* waits until they are gone */

#endif
