/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots of VMs:
 *
 *	data_dir/snapshots/NAME/	whole as soon as it has this name; beside the bases (base.h), under their lock
 *		metadata.json	struct vmsnap
 *		config.json	the record of the VM that it was taken of (keeper/record.h)
 *		state, memory	vmm/snapshot.h
 *		verified.*	of `state` or `memory`, if it is not quite the file that was saved: which one has been
 *				found to have the same checksum
 *		base		of a diff of a base: a link to that one's memory
 *		volume.N.base	its volumes, in the order of its mounts (volume.h)
 *		volume.N	what was written over one, if anything was
 *		layer.0 ...	its disk above the template, lowest first: hard links to files that nobody changes any
 *more
 *
 * A VM's directory, a snapshot and each VM restored from it have links of their own to the layers that they share, so
 * whichever is removed, the others have theirs. Files are believed as long as they are the very ones that were saved;
 *state and memory are read once if they are not, and believed if their checksums are the saved ones'.
 *
 * A diff's memory has what its VM did not share with the snapshot that it came from, its parent (vmm/overlay.h). A
 *parent that is a diff too has one of its own, up to VMSNAP_MAX_DEPTH of them; each names the next by name, time and
 *checksum, and is one deeper than that, so they cannot go round. A snapshot with diffs is not removed. A base may be at
 *any time, and so each of its diffs has a link of its own to that memory.
 */
#ifndef LIB_VMSNAP_H
#define LIB_VMSNAP_H

#include "lib/base.h"
#include "lib/memsum.h"

#define VMSNAP_MAX_DEPTH 8

struct vmsnap {
	char vm[VM_ID_DIGITS + 1]; /* that it was taken of */
	char *image, *image_id;
	uint64_t memory, window, memory_bytes, pause_ns;
	unsigned cpus;
	bool booted; /* keeper.h */
	int64_t created_ns;
	char state_file[128], memory_file[128]; /* which files these are (snapshot_identity) */
	char state_sum[MEMSUM_DIGITS + 1], memory_sum[MEMSUM_DIGITS + 1]; /* their checksums (memsum.h); "": it has none
									   */
	char **layers;
	char fingerprint[65];	       /* of one that was built (build.c): what it was made from; "": it was not */
	char **volumes, **volume_tops; /* which files volume.N.base and volume.N are, "-" for one without; NULL: none */
	/* Of a diff; depth 0: it is none. */
	struct vm_origin parent;
	char parent_sum[MEMSUM_DIGITS + 1]; /* of its memory */
	unsigned depth;			    /* how many snapshots its memory lies over */
	char base_file[128], base_sum[MEMSUM_DIGITS + 1];
};
/* JSON text, malloc'ed through *ret. */
int vmsnap_format(const struct vmsnap *m, char **ret, struct sm_error *err) MUST_CHECK;
/* json is untrusted. On failure there is nothing to free. */
int vmsnap_parse(const char *json, size_t len, struct vmsnap *ret, struct sm_error *err) MUST_CHECK;
void vmsnap_done(struct vmsnap *m);

/* Opens one (a descriptor of its directory) and reads its description. -ENOENT: there is none. */
int vmsnap_open(int snapshots, const char *name, struct vmsnap *ret, struct sm_error *err) MUST_CHECK;
/* That its files are those that were saved, or, for verify, as good; *allocated (may be NULL): bytes on disk. */
int vmsnap_check(int dir, const char *name, const struct vmsnap *m, bool verify, uint64_t *allocated,
		 struct sm_error *err) MUST_CHECK;

/* vmsnap_chain.c: what diffs lie over. */
/*
 * Checks all that its memory lies over, and that it is what it was. *ret (may be NULL): vmsnap_restore.under,
 * malloc'ed; NULL for one that is no diff.
 */
int vmsnap_chain(int snapshots, const char *name, const struct vmsnap *m, bool verify, char **ret,
		 struct sm_error *err) MUST_CHECK;
/* Fills in what a diff over this one has of it; dir: its directory, which may get a link. -EOPNOTSUPP: it is of no use
 * any more. */
int vmsnap_over(int snapshots, const struct vm_origin *origin, int dir, struct vmsnap *m,
		struct sm_error *err) MUST_CHECK;
/* -EBUSY: diffs of it are there, which the message names. */
int vmsnap_unneeded(int snapshots, const char *name, struct sm_error *err) MUST_CHECK;
/* As vmsnap_check, of the memory alone. */
int vmsnap_check_memory(int dir, const char *name, const struct vmsnap *m, bool verify, uint64_t *allocated,
			struct sm_error *err) MUST_CHECK;

/* vmsnap_take.c: of one that was built, in place of another that was. */
int vmsnap_take_built(struct sm_vm *vm, const char *name, const char *fingerprint, struct sm_error *err) MUST_CHECK;
/* Whether there is one of this name, built from this, as it was saved. -EEXIST: there is one that was not built. */
int vmsnap_is_built(int snapshots, const char *name, const char *fingerprint, bool *ret,
		    struct sm_error *err) MUST_CHECK;

/* Names of all; a list to strv_free. NULL: no memory. */
char **vmsnap_names(int snapshots);
bool vmsnap_name_valid(const char *name);
/* Links the layers of one directory into another. */
int vmsnap_link_layers(int from, int to, unsigned layers, struct sm_error *err) MUST_CHECK;

/* For start.c: the record of a VM that goes on from one; the handle keeps the layers until vmsnap_restore_done. */
struct vmsnap_restore {
	struct vmsnap meta;
	char *dir;
	char files[48]; /* of a branch, the names in dir, which is beside the VMs (keeper/branch.c); "": the usual ones
			 */
	char *under;	/* names in dir of what the memory lies over, lowest first, a colon between; NULL: nothing */
	struct vm_origin origin; /* of a branch */
	int volumes_fd;		 /* of a branch with volumes, the directory that has them; -1: dirfd */
	unsigned num_volumes;
	int dirfd, lock;
};
int vmsnap_restore_begin(struct sm_client *c, const char *name, struct vmsnap_restore *ret, struct vm_record *rec,
			 struct sm_error *err) MUST_CHECK;
void vmsnap_restore_done(struct vmsnap_restore *r);

/* A running VM as what others can go on from, for restore.c: its keeper holds it for as long as the connection lasts.
 */
struct vmsnap_branch {
	struct vmsnap_restore from;
	struct conn conn;
	struct call call;
	int vmdir; /* the VM's, for as long as volumes are in volumes_dir there; else -1 */
	char volumes_dir[24];
};
int vmsnap_branch_begin(struct sm_vm *vm, struct vmsnap_branch *ret, struct sm_error *err) MUST_CHECK;
void vmsnap_branch_done(struct vmsnap_branch *b);

#endif
