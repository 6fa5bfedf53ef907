/* SPDX-License-Identifier: Apache-2.0 */
/* The directory of VMs: making, finding, removing them, safe against others doing the same. See lib.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "keeper/cpugroup.h"
#include "lib/events.h"
#include "lib/spare.h"
#include "lib/volume.h"

#define MIN_PREFIX 4
#define NEW_PREFIX ".new-"
#define OLD_PREFIX ".old-"

int vmdir_sub(struct sm_client *c, const char *name, struct sm_error *err)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", c->state_dir, name);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? error_sys(err, errno, "open %s", path) : fd;
}

int vmdir_flock(int dirfd, const char *name, bool create, bool wait)
{
	int fd = openat(dirfd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | (create ? O_CREAT : 0), 0600), r;

	if (fd < 0)
		return -errno;
	do
		r = flock(fd, LOCK_EX | (wait ? 0 : LOCK_NB));
	while (r < 0 && errno == EINTR);
	if (r < 0) {
		r = -errno;
		fd_close(fd);
		return r;
	}
	return fd;
}

int vmdir_lock(struct sm_client *c, struct sm_error *err)
{
	_fd_ int state = vmdir_sub(c, ".", err);
	int fd;

	if (state < 0)
		return state;
	fd = vmdir_flock(state, "vms.lock", true, true);
	return fd < 0 ? error_sys(err, -fd, "lock %s/vms.lock", c->state_dir) : fd;
}

char *vmdir_path(struct sm_client *c, const char *id)
{
	char *path = NULL;

	return asprintf(&path, "%s/vms/%s", c->state_dir, id) < 0 ? NULL : path;
}

int vmdir_open(struct sm_client *c, const char *id, struct sm_error *err)
{
	_fd_ int vms = vmdir_sub(c, "vms", err);
	int fd;

	if (vms < 0)
		return vms;
	fd = openat(vms, id, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 && errno == ENOENT)
		return error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "no such VM: %s", id);
	return fd < 0 ? error_sys(err, errno, "open VM %s", id) : fd;
}

/* ------------------------------------------------------------------------------------------- names */

/* The id a name stands for; -ENOENT when it stands for none, or for a VM that is gone. */
static int name_lookup(struct sm_client *c, const char *name, char id[VM_ID_DIGITS + 1])
{
	_fd_ int names = vmdir_sub(c, "names", NULL), vms = vmdir_sub(c, "vms", NULL);
	ssize_t n;

	if (names < 0 || vms < 0)
		return -EIO;
	n = readlinkat(names, name, id, VM_ID_DIGITS + 1);
	if (n < 0)
		return -errno;
	if (n != VM_ID_DIGITS)
		return -ENOENT;
	id[n] = '\0';
	return vm_id_valid(id) && faccessat(vms, id, F_OK, 0) == 0 ? 0 : -ENOENT;
}

/* With vms.lock held. A link that a killed process left over is replaced. */
static int name_take_locked(struct sm_client *c, const char *name, const char *id, struct sm_error *err)
{
	char owner[VM_ID_DIGITS + 1];
	_fd_ int names = vmdir_sub(c, "names", err);

	if (names < 0)
		return names;
	if (name_lookup(c, name, owner) == 0)
		return error_set(err, SM_ERROR_EXISTS, EEXIST,
				 "the name %s is taken by VM %s: remove that or choose another", name, owner);
	unlinkat(names, name, 0);
	return symlinkat(id, names, name) < 0 ? error_sys(err, errno, "name %s", name) : 0;
}

static void name_drop_locked(struct sm_client *c, const char *name, const char *id)
{
	char owner[VM_ID_DIGITS + 1];
	_fd_ int names = vmdir_sub(c, "names", NULL);
	ssize_t n = names < 0 ? -1 : readlinkat(names, name, owner, sizeof(owner));

	if (n == VM_ID_DIGITS && memcmp(owner, id, VM_ID_DIGITS) == 0)
		unlinkat(names, name, 0);
}

/* ------------------------------------------------------------------------------------------ making */

/* The record, and the lock that says that it is not to be kept. */
static int write_new(int dir, const struct vm_record *rec, int *transient, struct sm_error *err)
{
	int r = vmdir_store(dir, rec, err);

	if (r < 0)
		return r;
	events_vm(dir, rec, "create", NULL);
	if (rec->keep)
		return 0;
	*transient = vmdir_flock(dir, "transient", true, false);
	return *transient < 0 ? error_sys(err, -*transient, "write the record of VM %s", rec->id) : 0;
}

static int fill_new(int vms, const char *temporary, const struct vm_record *rec, int *start, int *transient,
		    struct sm_error *err)
{
	_fd_ int dir = -1;

	if (mkdirat(vms, temporary, 0700) < 0)
		return error_sys(err, errno, "make the directory of VM %s", rec->id);
	dir = openat(vms, temporary, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return error_sys(err, errno, "open the directory of VM %s", rec->id);
	*start = vmdir_flock(dir, "start.lock", true, false);
	if (*start < 0)
		return error_sys(err, -*start, "write the record of VM %s", rec->id);
	return write_new(dir, rec, transient, err);
}

/* With vms.lock held: the directory becomes that of a VM, to be found by id and name. */
static int show_locked(struct sm_client *c, int from, const char *name, int vms, const struct vm_record *rec,
		       struct sm_error *err)
{
	int r = rec->name[0] ? name_take_locked(c, rec->name, rec->id, err) : 0;

	if (r == 0)
		r = vmindex_add(c, rec->id, err);
	if (r == 0 && renameat(from, name, vms, rec->id) < 0)
		r = error_sys(err, errno, "make VM %s", rec->id);
	return r;
}

int vmdir_create(struct sm_client *c, const struct vm_record *rec, int *ret_start, int *ret_transient,
		 struct sm_error *err)
{
	char temporary[32];
	_fd_ int lock = vmdir_lock(c, err);
	_fd_ int vms = lock < 0 ? -1 : vmdir_sub(c, "vms", err);
	_fd_ int start = -1, transient = -1;
	int r;

	if (lock < 0 || vms < 0)
		return lock < 0 ? lock : vms;
	snprintf(temporary, sizeof(temporary), NEW_PREFIX "%s", rec->id);
	r = fill_new(vms, temporary, rec, &start, &transient, err);
	if (r == 0)
		r = show_locked(c, vms, temporary, vms, rec, err);
	if (r < 0) {
		remove_tree_at(vms, temporary);
		return r;
	}
	if (ret_start)
		*ret_start = TAKE_FD(start);
	if (ret_transient)
		*ret_transient = TAKE_FD(transient);
	return 0;
}

int vmdir_adopt(struct sm_client *c, const struct vm_record *rec, int from, const char *name, int *ret_transient,
		struct sm_error *err)
{
	_fd_ int lock = vmdir_lock(c, err);
	_fd_ int vms = lock < 0 ? -1 : vmdir_sub(c, "vms", err);
	_fd_ int dir = -1, transient = -1;
	int r;

	if (lock < 0 || vms < 0)
		return lock < 0 ? lock : vms;
	dir = openat(from, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	r = dir < 0 ? error_sys(err, errno, "make VM %s", rec->id) : write_new(dir, rec, &transient, err);
	if (r == 0)
		r = show_locked(c, from, name, vms, rec, err);
	if (r == 0)
		*ret_transient = TAKE_FD(transient);
	return r;
}

/* --------------------------------------------------------------------------------------- finding */

int vmdir_list_in(struct sm_client *c, const char *name, char (**ret)[VM_ID_DIGITS + 1], size_t *ret_count,
		  struct sm_error *err)
{
	int fd = vmdir_sub(c, name, err);
	char(*ids)[VM_ID_DIGITS + 1] = NULL;
	size_t n = 0, cap = 0;
	struct dirent *e;
	DIR *dir;

	if (fd < 0)
		return fd;
	dir = fdopendir(fd);
	if (!dir) {
		fd_close(fd);
		return error_sys(err, errno, "read %s/%s", c->state_dir, name);
	}
	while ((e = readdir(dir))) {
		if (!vm_id_valid(e->d_name))
			continue;
		if (n == cap) {
			void *more = realloc(ids, (cap = cap ? 2 * cap : 16) * sizeof(*ids));

			if (!more) {
				free(ids);
				closedir(dir);
				return error_sys(err, ENOMEM, "list VMs");
			}
			ids = more;
		}
		memcpy(ids[n++], e->d_name, sizeof(*ids));
	}
	closedir(dir);
	*ret = ids;
	*ret_count = n;
	return 0;
}

int vmdir_list(struct sm_client *c, char (**ret)[VM_ID_DIGITS + 1], size_t *ret_count, struct sm_error *err)
{
	return vmdir_list_in(c, "vms", ret, ret_count, err);
}

static int resolve_prefix(struct sm_client *c, const char *prefix, char id[VM_ID_DIGITS + 1], struct sm_error *err)
{
	char(*ids)[VM_ID_DIGITS + 1] = NULL;
	size_t count, found = 0;
	int r = vmdir_list(c, &ids, &count, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < count; i++) {
		if (!str_starts(ids[i], prefix))
			continue;
		memcpy(id, ids[i], sizeof(*ids));
		found++;
	}
	free(ids);
	if (found > 1)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "%s is the beginning of %zu VMs' ids", prefix, found);
	return found ? 0 : error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "no such VM: %s", prefix);
}

int vmdir_resolve(struct sm_client *c, const char *ref, char id[VM_ID_DIGITS + 1], struct sm_error *err)
{
	size_t len = strlen(ref);

	if (len == 0)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "no VM given: its name is empty");
	if (vm_name_valid(ref) && name_lookup(c, ref, id) == 0)
		return 0;
	if (len >= MIN_PREFIX && len <= VM_ID_DIGITS && strspn(ref, "0123456789abcdef") == len)
		return resolve_prefix(c, ref, id, err);
	return error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "no such VM: %s", ref);
}

/* --------------------------------------------------------------------------------------- reading */

int vmdir_load(int dirfd, const char *id, struct vm_record *ret, struct sm_error *err)
{
	_free_ char *json = NULL;
	size_t len;
	int r = read_file_at(dirfd, "config.json", VM_RECORD_MAX, &json, &len);

	if (r < 0)
		return error_sys(err, -r, "read the record of VM %s", id);
	r = vm_record_parse(json, len, ret, err);
	return r < 0 ? error_wrap(err, r, "VM %s", id) : 0;
}

int vmdir_load_start(int dirfd, struct vm_start *ret, struct sm_error *err)
{
	_free_ char *json = NULL;
	size_t len;
	int r = read_file_at(dirfd, "start.json", VM_RECORD_MAX, &json, &len);

	return r < 0 ? error_sys(err, -r, "read start.json") : vm_start_parse(json, len, ret, err);
}

int vmdir_store(int dirfd, const struct vm_record *rec, struct sm_error *err)
{
	_free_ char *json = NULL;
	int r = vm_record_format(rec, &json, err);

	if (r < 0)
		return r;
	r = write_file_atomic_at(dirfd, "config.json", json, strlen(json), 0600);
	return r < 0 ? error_sys(err, -r, "write the record of VM %s", rec->id) : 0;
}

int vmdir_store_start(int dirfd, const struct vm_start *start, struct sm_error *err)
{
	_free_ char *json = NULL;
	int r = vm_start_format(start, &json, err);

	if (r < 0)
		return r;
	r = write_file_atomic_at(dirfd, "start.json", json, strlen(json), 0600);
	return r < 0 ? error_sys(err, -r, "write start.json") : 0;
}

int vmdir_load_exit(int dirfd, struct vm_exit *ret, struct sm_error *err)
{
	_free_ char *json = NULL;
	size_t len;
	int r = read_file_at(dirfd, "exit.json", VM_RECORD_MAX, &json, &len);

	return r < 0 ? error_sys(err, -r, "read exit.json") : vm_exit_parse(json, len, ret, err);
}

/* -------------------------------------------------------------------------------------- removing */

void disk_give_back(int dir, const char *name)
{
	_fd_ int fd = openat(dir, name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat st;

	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 1)
		(void)!ftruncate(fd, 0);
}

/* The name first, then out of sight in one step, then the bytes: a kill in between leaves only what a sweep removes. */
static int remove_locked(struct sm_client *c, const char *id, struct sm_error *err)
{
	struct vm_record rec = {0};
	char old[32];
	_fd_ int vms = vmdir_sub(c, "vms", err);
	_fd_ int dir = vms < 0 ? -1 : vmdir_open(c, id, err);
	int r;

	if (vms < 0 || dir < 0)
		return vms < 0 ? vms : dir;
	if (vmdir_load(dir, id, &rec, NULL) == 0) {
		if (rec.name[0])
			name_drop_locked(c, rec.name, id);
		events_vm_removed(c, dir, &rec);
	}
	snprintf(old, sizeof(old), OLD_PREFIX "%s", id);
	if (renameat(vms, id, vms, old) < 0) {
		vm_record_done(&rec);
		return error_sys(err, errno, "remove VM %s", id);
	}
	if (!rec.keep)
		volumes_drop_anonymous(c, &rec);
	cpu_group_sweep(dir, id);
	vmindex_remove(c, id);
	disk_give_back(dir, "top");
	r = remove_tree_at(vms, old);
	vm_record_done(&rec);
	return r < 0 ? error_sys(err, -r, "remove VM %s", id) : 0;
}

int vmdir_remove(struct sm_client *c, const char *id, struct sm_error *err)
{
	_fd_ int lock = vmdir_lock(c, err);

	return lock < 0 ? lock : remove_locked(c, id, err);
}

/* It was started for an owner that has never come to its keeper, and never will. */
static void stop_orphan(struct sm_client *c, int dir, const char *id)
{
	struct vm_start start;
	struct sm_vm *vm;

	if (vmdir_load_start(dir, &start, NULL) < 0 || start.detach || vm_handle_new(c, id, &vm, NULL) < 0)
		return;
	vm_stop_now(vm, NULL);
	sm_vm_close(vm);
}

/*
 * Removes this VM if it has ended, is not to be kept and has no owner. One that still runs without its owner is told to
 * end: the next sweep finds it. Asks its keeper, which may take its time: vms.lock is not held meanwhile, `transient`
 * is.
 */
static void sweep_one(struct sm_client *c, const char *id)
{
	_fd_ int dir = vmdir_open(c, id, NULL);
	_fd_ int mark = -1;
	struct vm_view view;

	if (dir < 0)
		vmindex_stale(c, id);
	if (dir < 0 || faccessat(dir, "transient", F_OK, 0) < 0)
		return;
	mark = vmdir_flock(dir, "transient", false, false);
	if (mark < 0 || vm_view(c, id, &view, NULL) < 0)
		return;
	if (view.state == SM_VM_EXITED)
		vmdir_remove(c, id, NULL);
	else if (view.state != SM_VM_STOPPING)
		stop_orphan(c, dir, id);
}

/* What a killed creator or remover left; whoever is at it now holds vms.lock. */
static void sweep_remains(struct sm_client *c)
{
	_fd_ int lock = vmdir_lock(c, NULL);
	int fd = lock < 0 ? -1 : vmdir_sub(c, "vms", NULL);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	while (dir && (e = readdir(dir)))
		if (str_starts(e->d_name, NEW_PREFIX) || str_starts(e->d_name, OLD_PREFIX))
			remove_tree_at(fd, e->d_name);
	if (dir)
		closedir(dir);
}

void vmdir_sweep(struct sm_client *c)
{
	char(*ids)[VM_ID_DIGITS + 1] = NULL;
	size_t count;

	sweep_remains(c);
	spare_sweep(c);
	if (vmindex_list(c, &ids, &count, NULL) < 0)
		return;
	for (size_t i = 0; i < count; i++)
		sweep_one(c, ids[i]);
	free(ids);
}
