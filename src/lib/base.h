/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Base snapshots: a guest that has booted and waits for an image, saved once, from which every VM of its shape starts.
 *
 * In data_dir/snapshots:
 * - base-KEY/: state, memory (vmm/snapshot.h), disk (VM_BASE_DISK), metadata.json; whole as soon as it has this name.
 *   Its time of change is when it was last used
 * - .new-*: one that is being made: a VM's directory (keeper/record.h)
 * - .old-*: one that is being removed
 * - failed-KEY: making it failed, at the time of the file's change: not tried again for a while
 * - lock: held (flock) while one is made or removed
 *
 * KEY is a hash of all that shaped it: what the guest boots, the programs that make and restore it, the size of the VM,
 * and where it runs. One that nobody asks for any more is removed by prune, or when there are too many.
 */
#ifndef LIB_BASE_H
#define LIB_BASE_H

#include "lib/lib.h"

#define BASE_KEY_DIGITS 16

struct base {
	char key[BASE_KEY_DIGITS + 1];
	char *dir; /* absolute */
	int64_t created_ns;
	uint64_t window; /* of its image window, 0: none */
	uint64_t memory; /* a VM that is restored from it gets the rest of its own plugged */
	bool pluggable;
	char disk[128]; /* snapshot_identity of the template of the disk that its guest has mounted, "": none */
};
void base_done(struct base *b);
/*
 * Gives a VM that has nothing on its disk yet the disk that the base's guest has mounted: a layer over the template.
 * True: it has that. *ret_linked: since now.
 */
bool base_give_disk(const struct base *b, const struct vm_record *rec, int vmdir, bool *ret_linked);

/*
 * The base for a VM like this; made now if there is none. -EAGAIN: there is none and making one failed not long ago.
 * -ECANCELED (SM_ERROR_CANCELLED): progress asked to stop.
 */
int base_get(struct sm_client *c, const struct vm_record *rec, const struct sm_progress *progress, struct base *ret,
	     struct sm_error *err) MUST_CHECK;
/* The same, but it is not made: -ENOENT. */
int base_find(struct sm_client *c, const struct vm_record *rec, struct base *ret, struct sm_error *err) MUST_CHECK;
/* Removes one that turned out to be of no use. */
void base_discard(struct sm_client *c, const struct base *b);

/* The same for the one that a VM was started from, when that VM's record says that it is to blame. */
void base_blame(struct sm_client *c, const struct vm_start *start);

/* What stands in metadata.json, and what the files say. */
struct base_info {
	char key[BASE_KEY_DIGITS + 1];
	uint64_t memory, window, dax, allocated;
	uint64_t shared; /* of the allocated bytes, what diffs hold too (vmsnap.h) */
	unsigned cpus;
	char *kernel, *initramfs, *cmdline;
	int64_t created_ns, used_ns;
	bool pluggable; /* what is restored from it may have more memory */
	bool whole;	/* its files are as they were when it was made */
	char disk[128]; /* struct base */
};
void base_info_done(struct base_info *i);
int base_info_load(int snapshots, const char *name, struct base_info *ret, struct sm_error *err) MUST_CHECK;
/* Whether a run on this host may still ask for it. */
bool base_fits(struct sm_client *c, const struct base_info *i);

/* data_dir/snapshots, made if it is missing: a descriptor. */
int base_open_dir(struct sm_client *c, struct sm_error *err) MUST_CHECK;
/* The lock there; progress (may be NULL) is asked while it waits. A descriptor. */
int base_lock(int snapshots, const struct sm_progress *progress, struct sm_error *err) MUST_CHECK;
/* With the lock held. Sweeping removes what killed makers left; failures: also the notes of what could not be made. */
int base_remove_locked(int snapshots, const char *name, struct sm_error *err);
void base_sweep_locked(int snapshots, bool failures);
/*
 * Which file this is, as text: files of a snapshot are written once, so one that is still the same file of the same age
 * has the same bytes. links: it may get more names, which changes its ctime. Adds to *allocated. 0 or -errno.
 */
int snapshot_identity(int dir, const char *name, bool links, char ret[static 128], uint64_t *allocated) MUST_CHECK;
/* Whether this one was made without `links`. */
bool snapshot_identity_has_ctime(const char *identity);
/* Names in the directory that are wanted; a list to strv_free. NULL: no memory. */
char **snapshot_names(int snapshots, bool (*wanted)(const char *name, const char *arg), const char *arg);
/* Names of all bases; a list to strv_free. NULL: no memory. */
char **base_names(int snapshots);

#endif
