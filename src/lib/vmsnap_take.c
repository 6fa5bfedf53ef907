/* SPDX-License-Identifier: Apache-2.0 */
/* sm_vm_snapshot: has the keeper save a VM, and makes a snapshot of what it saved. See vmsnap.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "lib/vmsnap.h"

/* One that is being taken, under the lock of the snapshots. */
struct taking {
	struct sm_vm *vm;
	const char *name;
	int snapshots, vmdir, dir;
	char temporary[32];
	struct vm_record rec;
	struct keeper_snapshot_reply saved;
	bool unsynced;
};

static int ask_keeper(struct taking *t, const char *path, struct sm_error *err)
{
	_cleanup_(buf_done) struct buf b = {0};
	struct keeper_snapshot m = {0};
	struct cursor reply;
	struct conn conn;
	struct call call;
	int r;

	if (strlen(path) >= sizeof(m.dir))
		return error_set(err, SM_ERROR_LIMIT, ENAMETOOLONG, "the data directory's name is too long");
	memcpy(m.dir, path, strlen(path));
	m.unsynced = t->unsynced;
	r = vm_connect(t->vm->client, t->vm->id, &conn, err);
	if (r < 0)
		return r;
	r = keeper_snapshot_encode(&b, &m);
	r = r < 0 ? r : conn_call(&conn, PROTO_KEEPER_SNAPSHOT, &b, &call);
	if (r < 0) {
		conn_done(&conn);
		return error_sys(err, -r, "VM %s", t->vm->id);
	}
	r = conn_await_open(&conn, &call, "snapshot", err);
	if (r == 0) {
		reply = cursor_of(call.reply.data, call.reply.len);
		r = keeper_snapshot_reply_decode(&reply, &t->saved);
		if (r < 0)
			error_sys(err, -r, "VM %s: its keeper", t->vm->id);
	}
	conn_done(&conn);
	call_done(&call);
	return r;
}

/* Under the lock of the snapshots. */
static int prepare(struct taking *t, struct sm_error *err)
{
	struct sm_client *c = t->vm->client;
	int r;

	t->vmdir = vmdir_open(c, t->vm->id, err);
	if (t->vmdir < 0)
		return t->vmdir;
	r = vmdir_load(t->vmdir, t->vm->id, &t->rec, err);
	if (r < 0)
		return r;
	if (t->rec.num_mounts)
		return error_set(err, SM_ERROR_UNSUPPORTED, EOPNOTSUPP,
				 "VM %s has directories of the host (-v): such a VM cannot be saved", t->vm->id);
	if (t->name && faccessat(t->snapshots, t->name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return error_set(err, SM_ERROR_EXISTS, EEXIST, "there is a snapshot %s already", t->name);
	strcpy(t->temporary, t->name ? ".new-" : ".branch-");
	r = random_hex(t->temporary + strlen(t->temporary), 8);
	if (r < 0)
		return error_sys(err, -r, "random numbers");
	base_sweep_locked(t->snapshots, false);
	if (mkdirat(t->snapshots, t->temporary, 0700) < 0)
		return error_sys(err, errno, "make the snapshot's directory");
	t->dir = openat(t->snapshots, t->temporary, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (t->dir < 0)
		return error_sys(err, errno, "open the snapshot's directory");
	/* The disk's layers will be links: better to know now that there can be none. */
	if (linkat(t->vmdir, "config.json", t->dir, "probe", 0) < 0)
		return error_set(err, SM_ERROR_HOST, errno,
				 "the VM's files and the snapshots must be on one file system: %s", strerror(errno));
	unlinkat(t->dir, "probe", 0);
	return 0;
}

static int describe(struct taking *t, struct sm_error *err)
{
	struct vmsnap m = {.image = t->rec.image,
			   .image_id = t->rec.image_id,
			   .memory = t->rec.memory,
			   .cpus = t->rec.cpus,
			   .window = t->saved.window,
			   .booted = t->saved.booted,
			   .pause_ns = t->saved.pause_ns,
			   .memory_bytes = t->saved.memory_bytes};
	char ids[VM_MAX_LAYERS + 1][128], *layers[VM_MAX_LAYERS + 2] = {NULL};
	_free_ char *text = NULL;
	uint64_t allocated = 0;
	struct timespec now;
	int r = snapshot_identity(t->dir, "state", false, m.state_file, &allocated);

	r = r < 0 ? r : snapshot_identity(t->dir, "memory", false, m.memory_file, &allocated);
	for (unsigned i = 0; r == 0 && i < t->saved.layers; i++) {
		char name[24];

		snprintf(name, sizeof(name), "layer.%u", i);
		r = snapshot_identity(t->dir, name, true, ids[i], &allocated);
		layers[i] = ids[i];
	}
	if (r < 0)
		return error_sys(err, -r, "files of the snapshot");
	snprintf(m.vm, sizeof(m.vm), "%s", t->vm->id);
	m.layers = t->saved.layers ? layers : NULL;
	clock_gettime(CLOCK_REALTIME, &now);
	m.created_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
	r = vmsnap_format(&m, &text, err);
	if (r < 0)
		return r;
	r = write_file_atomic_at(t->dir, "metadata.json", text, strlen(text), 0400);
	return r < 0 ? error_sys(err, -r, "write metadata.json") : 0;
}

static int copy_record(struct taking *t, struct sm_error *err)
{
	_free_ char *text = NULL;
	int r = vm_record_format(&t->rec, &text, err);

	if (r < 0)
		return r;
	r = write_file_atomic_at(t->dir, "config.json", text, strlen(text), 0400);
	return r < 0 ? error_sys(err, -r, "write config.json") : 0;
}

/* All of it is on the disk before it has its name. */
static int finish(struct taking *t, struct sm_error *err)
{
	int r;

	if (t->saved.layers > VM_MAX_LAYERS)
		return error_set(err, SM_ERROR_LIMIT, E2BIG, "the disk has %llu layers",
				 (unsigned long long)t->saved.layers);
	if (fchmodat(t->dir, "state", 0400, 0) < 0 || fchmodat(t->dir, "memory", 0400, 0) < 0)
		return error_sys(err, errno, "files of the snapshot");
	r = vmsnap_link_layers(t->vmdir, t->dir, (unsigned)t->saved.layers, err);
	r = r < 0 ? r : copy_record(t, err);
	r = r < 0 ? r : describe(t, err);
	if (r < 0)
		return r;
	if (fsync(t->dir) < 0 || renameat(t->snapshots, t->temporary, t->snapshots, t->name) < 0 ||
	    fsync(t->snapshots) < 0)
		return error_sys(err, errno, "name the snapshot");
	t->temporary[0] = '\0';
	return 0;
}

static int save(struct taking *t, struct sm_error *err)
{
	_free_ char *path = NULL;

	if (asprintf(&path, "%s/snapshots/%s", t->vm->client->data_dir, t->temporary) < 0)
		return error_sys(err, ENOMEM, "snapshot");
	return ask_keeper(t, path, err);
}

static void taking_done(struct taking *t)
{
	if (t->dir >= 0 && t->temporary[0])
		remove_tree_at(t->snapshots, t->temporary);
	vm_record_done(&t->rec);
	fd_close(t->vmdir);
	fd_close(t->dir);
	fd_close(t->snapshots);
}

int sm_vm_snapshot(struct sm_vm *vm, const char *name, uint64_t *ret_pause_ns, struct sm_error *err)
{
	struct taking t = {.vm = vm, .name = name, .vmdir = -1, .dir = -1};
	_fd_ int lock = -1;
	int r;

	if (!vmsnap_name_valid(name))
		return error_set(err, SM_ERROR_INVALID, EINVAL,
				 "\"%s\" is no name for a snapshot: letters, digits, _ . -, at most %d, not base-...",
				 name, VM_NAME_MAX);
	t.snapshots = base_open_dir(vm->client, err);
	if (t.snapshots < 0)
		return t.snapshots;
	lock = base_lock(t.snapshots, NULL, err);
	r = lock < 0 ? lock : prepare(&t, err);
	r = r < 0 ? r : save(&t, err);
	r = r < 0 ? r : finish(&t, err);
	if (r == 0 && ret_pause_ns)
		*ret_pause_ns = t.saved.pause_ns;
	taking_done(&t);
	return r;
}

/* Nobody but us has seen it, so nothing of it is written down. */
static int describe_branch(struct taking *t, struct vmsnap_branch *b, struct sm_error *err)
{
	struct vmsnap_restore *from = &b->from;

	from->meta = (struct vmsnap){.window = t->saved.window,
				     .booted = t->saved.booted,
				     .pause_ns = t->saved.pause_ns,
				     .layers = calloc(t->saved.layers + 1, sizeof(char *))};
	for (unsigned i = 0; from->meta.layers && i < t->saved.layers; i++)
		if (!(from->meta.layers[i] = strdup("")))
			return error_sys(err, ENOMEM, "branch");
	if (!from->meta.layers || asprintf(&from->dir, "%s/snapshots/%s", t->vm->client->data_dir, t->temporary) < 0) {
		from->dir = NULL;
		return error_sys(err, ENOMEM, "branch");
	}
	return vmsnap_link_layers(t->vmdir, t->dir, (unsigned)t->saved.layers, err);
}

int vmsnap_branch_begin(struct sm_vm *vm, struct vmsnap_branch *ret, struct sm_error *err)
{
	struct taking t = {.vm = vm, .vmdir = -1, .dir = -1, .unsynced = true};
	struct vmsnap_branch b = {.from = {.dirfd = -1, .lock = -1}, .snapshots = -1};
	int lock, r;

	t.snapshots = base_open_dir(vm->client, err);
	if (t.snapshots < 0)
		return t.snapshots;
	lock = base_lock(t.snapshots, NULL, err);
	r = lock < 0 ? lock : prepare(&t, err);
	if (r == 0 && flock(t.dir, LOCK_EX | LOCK_NB) < 0)
		r = error_sys(err, errno, "lock the branch");
	fd_close(lock);
	r = r < 0 ? r : save(&t, err);
	r = r < 0 ? r : describe_branch(&t, &b, err);
	if (r < 0) {
		vmsnap_restore_done(&b.from);
	} else {
		b.from.dirfd = TAKE_FD(t.dir);
		b.snapshots = TAKE_FD(t.snapshots);
		memcpy(b.name, t.temporary, sizeof(b.name));
		*ret = b;
	}
	taking_done(&t);
	return r;
}

/* What a first VM may still write beside it is for the next sweep. */
void vmsnap_branch_done(struct vmsnap_branch *b)
{
	remove_tree_at(b->snapshots, b->name);
	vmsnap_restore_done(&b->from);
	b->snapshots = fd_close(b->snapshots);
}
