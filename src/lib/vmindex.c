/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which VMs may be running: state_dir/unended/<id>, an empty file for each VM that nobody has seen ended yet, and for
 * each that is not kept for as long as it is there. Listing what runs, and each start's sweep, look at those alone,
 * however many finished VMs are kept.
 *
 * The mark is made before the VM can be seen or started, and goes, once it has ended, with start.lock held: nobody
 * starts it then. One too many is found and removed by whoever comes upon it; one too few cannot be.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "lib/lib.h"

#define INDEX "unended"
#define UNFINISHED ".unended-new"

static int make_mark(int index, const char *id)
{
	int fd = openat(index, id, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return -errno;
	fd_close(fd);
	return 0;
}

/* All VMs there are, since nobody knows which of them run. Nobody sees the index before it is whole. */
static int build(struct sm_client *c, int state, struct sm_error *err)
{
	char(*ids)[VM_ID_DIGITS + 1] = NULL;
	_fd_ int index = -1;
	size_t count;
	int r = vmdir_list(c, &ids, &count, err);

	if (r < 0)
		return r;
	remove_tree_at(state, UNFINISHED);
	if (mkdirat(state, UNFINISHED, 0700) < 0 ||
	    (index = openat(state, UNFINISHED, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
		r = -errno;
	for (size_t i = 0; r == 0 && i < count; i++)
		r = make_mark(index, ids[i]);
	free(ids);
	if (r == 0 && renameat(state, UNFINISHED, state, INDEX) < 0)
		r = -errno;
	return r < 0 ? error_sys(err, -r, "make %s/" INDEX, c->state_dir) : 0;
}

int vmindex_prepare(struct sm_client *c, struct sm_error *err)
{
	_fd_ int state = vmdir_sub(c, ".", err);
	_fd_ int lock = -1;

	if (state < 0)
		return state;
	if (faccessat(state, INDEX, F_OK, 0) == 0)
		return 0;
	lock = vmdir_lock(c, err);
	if (lock < 0)
		return lock;
	return faccessat(state, INDEX, F_OK, 0) == 0 ? 0 : build(c, state, err);
}

int vmindex_add(struct sm_client *c, const char *id, struct sm_error *err)
{
	_fd_ int index = vmdir_sub(c, INDEX, err);
	int r = index < 0 ? index : make_mark(index, id);

	return index >= 0 && r < 0 ? error_sys(err, -r, "mark VM %s as one that may run", id) : r;
}

void vmindex_remove(struct sm_client *c, const char *id)
{
	_fd_ int index = vmdir_sub(c, INDEX, NULL);

	if (index >= 0)
		unlinkat(index, id, 0);
}

void vmindex_ended(struct sm_client *c, const char *id)
{
	_fd_ int dir = vmdir_open(c, id, NULL);
	_fd_ int lock = dir < 0 ? -1 : vmdir_flock(dir, "start.lock", true, false);

	if (lock >= 0 && faccessat(dir, "exit.json", F_OK, 0) == 0 && faccessat(dir, "transient", F_OK, 0) < 0)
		vmindex_remove(c, id);
}

/* Its maker marked it and was killed before it was there; or is about to make it, under vms.lock. */
void vmindex_stale(struct sm_client *c, const char *id)
{
	_fd_ int lock = vmdir_lock(c, NULL);
	_fd_ int dir = lock < 0 ? -1 : vmdir_open(c, id, NULL);

	if (lock >= 0 && dir < 0)
		vmindex_remove(c, id);
}

int vmindex_list(struct sm_client *c, char (**ret)[VM_ID_DIGITS + 1], size_t *ret_count, struct sm_error *err)
{
	return vmdir_list_in(c, INDEX, ret, ret_count, err);
}
