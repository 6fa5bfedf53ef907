/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Volumes: disks with a life of their own. data_dir/volumes/NAME holds
 *
 *	disk		a sparse ext4 file system, whole in itself; VMs see its directory `data` (guest/volumes.c)
 *	volume.json	when it was made, how large it is, labels
 *
 * and has its name only when all of it is there and synced. Who has a volume is written nowhere but in the records of
 * VMs: so nothing that was killed leaves one in use. volumes/.lock (flock, on the host) is held while volumes are made,
 * removed, or taken by a VM that starts; whoever holds vms.lock too has taken that first.
 *
 * A VM that is suspended has its volumes as one that runs. What goes on from a snapshot has copies (below), and the
 * volumes themselves are as free for it as for any other VM.
 */
#ifndef LIB_VOLUME_H
#define LIB_VOLUME_H

#include "lib/lib.h"

struct volume {
	char name[VM_NAME_MAX + 1];
	uint64_t size;
	int64_t created_ns;
	bool anonymous;
	char **labels; /* NULL: none */
};
void volume_done(struct volume *v);

/* Both to close; -errno. Opening makes the directory. */
int volumes_open(struct sm_client *c, struct sm_error *err) MUST_CHECK;
int volumes_lock(int volumes, struct sm_error *err) MUST_CHECK;
char *volume_disk(struct sm_client *c, const char *name); /* the path of its file; NULL: no memory */

int volume_load(int volumes, const char *name, struct volume *ret, struct sm_error *err) MUST_CHECK;
/* With the lock held. Makes one if there is none: 0, or 1 when there was one. */
int volume_make_locked(struct sm_client *c, int volumes, const struct volume *v, struct sm_error *err) MUST_CHECK;
int volume_remove_locked(int volumes, const char *name, struct sm_error *err) MUST_CHECK;
/* With the lock held: what a killed maker or remover left. */
void volumes_sweep_locked(int volumes);

/* volume_use.c */

/* The ids of the VMs whose records name it; list and strings are the caller's (strv_free). NULL: no memory. */
char **volume_users(struct sm_client *c, const char *name);
/* Takes the volumes of a VM that is about to start, whose start.lock the caller holds; makes those that are missing. */
int volumes_claim(struct sm_client *c, const struct vm_record *r, struct sm_error *err) MUST_CHECK;
/* What a removed VM that was not kept had to itself alone. */
void volumes_drop_anonymous(struct sm_client *c, const struct vm_record *r);

/*
 * volume_own.c. A VM that goes on from another, or from a snapshot of it, has of each of that one's volumes a disk of
 * its own with what was in it then (vm_mount.own): volume.N.base, which never changes and several have links to, and
 * what was written over it.
 */

/* The first `size` bytes; what is zero becomes a hole. 0 or -errno. */
int volume_copy_sparse(int from, int to, off_t size) MUST_CHECK;
/* A whole file, flushed; there is none of that name yet. */
int volume_copy_file(int fromdir, const char *from, int todir, const char *to, mode_t mode) MUST_CHECK;
/* Puts them, as they are now, into a directory beside the VM's. Nothing is to be written to them meanwhile. */
int volumes_save(int vmdir, const struct vm_record *r, int to, struct sm_error *err) MUST_CHECK;
/* From such a directory to that of a VM that goes on from there. */
int volumes_give(int from, int to, unsigned count, struct sm_error *err) MUST_CHECK;
/* The VM's own ones to another that has the same files, and writes to them in its place. */
int volumes_lend(int from, int to, const struct vm_record *r, struct sm_error *err) MUST_CHECK;
/* A record of the first becomes that of such a VM, which has its id already. */
int volumes_become_own(struct sm_client *c, struct vm_record *r, struct sm_error *err) MUST_CHECK;

#endif
