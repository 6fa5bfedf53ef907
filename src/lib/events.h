/* SPDX-License-Identifier: Apache-2.0 */
/* What the library writes down for `events`. See keeper/events.h and eventlog.c. */
#ifndef LIB_EVENTS_H
#define LIB_EVENTS_H

#include "keeper/events.h"
#include "lib/lib.h"

/* Into the VM's own file: for one whose keeper does not run. attributes: "K=V", NULL-terminated, or NULL. */
void events_vm(int vmdir, const struct vm_record *rec, const char *action, const char *const *attributes);
/* Into the common file: all that stood in its own, and that it was removed. */
void events_vm_removed(struct sm_client *c, int vmdir, const struct vm_record *rec);
/* Into the common file: of an image or a volume. */
void events_object(struct sm_client *c, const char *type, const char *action, const char *id, const char *name);

#endif
