/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What has happened, for `events`: files of lines, each a JSON object. Nobody has to be there to write them down:
 *
 *	vms/<id>/events		one VM's, by its keeper while it runs, by the library before and after. With events.1
 *				before it, at most twice VM_EVENTS_ROTATE is kept
 *	events, events.1	in the state directory, by the library alone (on the host, under events.lock): images,
 *and of VMs that were removed what stood in their own
 *
 * A line is written by one write. One that was torn by a crash, or makes no sense, is left out by readers.
 */
#ifndef KEEPER_EVENTS_H
#define KEEPER_EVENTS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define VM_EVENTS_ROTATE (128u << 10)
#define VM_EVENT_MAX 8192u /* bytes of a line */

struct vm_event {
	int64_t time_ns;   /* wall clock */
	char *type;	   /* "vm", "image" */
	char *action;	   /* "create", "start", "die" ... */
	char *id, *name;   /* name "": none */
	char *image;	   /* a VM's, "": none */
	char **labels;	   /* a VM's "K=V"; NULL: none */
	char **attributes; /* "K=V"; NULL: none */
};

/* One line with its newline, malloc'ed. -E2BIG: longer than VM_EVENT_MAX. */
int vm_event_format(const struct vm_event *e, char **ret) MUST_CHECK;
/* Untrusted. On failure there is nothing to free. */
int vm_event_parse(const char *line, size_t len, struct vm_event *ret) MUST_CHECK;
void vm_event_done(struct vm_event *e);

#endif
