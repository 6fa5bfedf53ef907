/* SPDX-License-Identifier: Apache-2.0 */
/* The steps of SETUP: the root file system, the container's mounts, its /etc files. Paths are below `root`, the overlay
 * before it is /. */
#ifndef GUEST_SETUP_H
#define GUEST_SETUP_H

#include "guest/agent.h"

#define SETUP_ROOT "/container"
#define SETUP_WRITABLE "/writable" /* the writable layer's file system */
/*
 * Of a disk's file system. What is deleted is given back to the host's sparse file. One whose journal could not be
 * written (the host's disk is full) takes nothing any more.
 */
#define DISK_OPTIONS "discard,errors=remount-ro"

/* disks.c: finds the disks that there may be, for the copies' search among them by serial number. */
void disks_learn(struct agent *a);
/* Mounts a new disk's file system, for the copies that go on with it. */
void disks_ahead(struct agent *a);
/* diskerror.c: a disk (/dev/NAME) whose file system, mounted on place, fails becomes read-only at once. */
void disk_error_watch(struct agent *a, const char *device, const char *place);
/* The image, the writable layer and the overlay of them on SETUP_ROOT. */
int disks_mount(struct agent *a, const struct proto_setup *s, struct sm_error *err) MUST_CHECK;
/* "/dev/vdc": the disk with this serial number, waited for a while. */
int disks_find(struct agent *a, const char *serial, char *ret, size_t size, struct sm_error *err) MUST_CHECK;

/* layers.c: keeps the two directories open, for what the VM changes of the lower one. */
int layers_keep(struct agent *a, const char *target, const char *lower, const char *upper,
		struct sm_error *err) MUST_CHECK;

/* mounts.c; ahead: what of it needs no image yet, once for all copies of this guest. */
int mounts_ahead(struct agent *a) MUST_CHECK;
int mounts_make(struct agent *a, struct sm_error *err) MUST_CHECK;
/* Makes SETUP_ROOT the root of the agent and of all that it starts. */
int mounts_enter(struct sm_error *err) MUST_CHECK;
/* /dev/shm may take half of the memory that there is now. */
int mounts_grow(struct sm_error *err) MUST_CHECK;

/*
 * shares.c: the directories of the host, and volumes. They are opened while the agent's own root is still there, and
 * put on their targets once the container's is the root, so that links on the way mean what they mean in the container.
 */
#define MAX_SHARES 64
struct shares {
	int trees[MAX_SHARES]; /* detached mounts, as they stand in proto_setup.mounts */
	unsigned num;
	unsigned num_volumes; /* of them; the others are the device's, in their order */
};
int shares_open(struct agent *a, const struct proto_setup *s, struct shares *ret, struct sm_error *err) MUST_CHECK;
int shares_attach(const struct proto_setup *s, const struct shares *shares, struct sm_error *err) MUST_CHECK;
void shares_done(struct shares *shares);

/* In a copy that is to go on: a volume on its target, in place of the one that was there or on top of what was. */
int shares_add_volume(struct agent *a, const struct proto_mount *m, struct sm_error *err) MUST_CHECK;

/* volumes.c: mounts a volume out of sight; *ret: the directory that belongs on m's target. When there is a clone of it,
 * volume_let_go. */
int volume_open(struct agent *a, const struct proto_mount *m, char *ret, size_t size, struct sm_error *err) MUST_CHECK;
void volume_let_go(const struct proto_mount *m);
/* In the container: mounts it on its target, which is there; what belongs there is its directory VOLUME_DATA. */
#define VOLUME_DATA "data"
int volume_open_on_target(struct agent *a, const struct proto_mount *m, struct sm_error *err) MUST_CHECK;
/* Takes a volume off there, if there is one; who has files of it open goes on with them. */
void volume_take_off(const struct agent *a, const char *target);

/* prepare.c: whether this driver (a path in /sys) has a device. */
bool has_driver(struct agent *a, const char *driver);
/* memory.c: gets ready for memory to be plugged; false: that cannot be. Then waits until so much has come. */
bool memory_prepare(struct agent *a);
int memory_await(struct agent *a, uint64_t plugged, struct sm_error *err) MUST_CHECK;

/* setup.c: the loopback interface, and what docker allows every user. */
void setup_network(struct agent *a);

/* etcfiles.c: hosts, resolv.conf and hostname, each mounted over the image's own. */
int etc_files_make(const struct proto_setup *s, struct sm_error *err) MUST_CHECK;

#endif
