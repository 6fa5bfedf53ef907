/* SPDX-License-Identifier: Apache-2.0 */
/* sm_vm_snapshot: has the keeper save a VM, and makes a snapshot of what it saved. See vmsnap.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "lib/vmsnap.h"
#include "lib/volume.h"

/* One that is being taken, under the lock of the snapshots. */
struct taking {
	struct sm_vm *vm;
	const char *name, *fingerprint; /* fingerprint: of one that is built, which may replace another; else NULL */
	int snapshots, vmdir, dir;
	char temporary[32];
	struct vm_record rec;
	struct vmsnap over; /* of a diff, what it has of its parent; depth 0: it is none */
	struct keeper_snapshot_reply saved;
};

/* dir: where to, "": a branch. On success conn and call are to be ended. */
static int ask_keeper(struct taking *t, const char *dir, struct conn *conn, struct call *call, struct sm_error *err)
{
	_cleanup_(buf_done) struct buf b = {0};
	struct keeper_snapshot m = {.keep = t->over.depth};
	struct cursor reply;
	char whom[64];
	int r;

	if (strlen(dir) >= sizeof(m.dir))
		return error_set(err, SM_ERROR_LIMIT, ENAMETOOLONG, "the data directory's name is too long");
	memcpy(m.dir, dir, strlen(dir));
	r = vm_connect(t->vm->client, t->vm->id, conn, err);
	if (r < 0)
		return r;
	r = keeper_snapshot_encode(&b, &m);
	r = r < 0 ? r : conn_call(conn, PROTO_KEEPER_SNAPSHOT, &b, call);
	if (r < 0) {
		conn_done(conn);
		return error_sys(err, -r, "VM %s", t->vm->id);
	}
	snprintf(whom, sizeof(whom), "save VM %s", t->vm->id);
	r = conn_await_open(conn, call, whom, err);
	if (r == 0) {
		reply = cursor_of(call->reply.data, call->reply.len);
		r = keeper_snapshot_reply_decode(&reply, &t->saved);
		if (r < 0)
			error_sys(err, -r, "VM %s: its keeper", t->vm->id);
	}
	if (r < 0) {
		conn_done(conn);
		call_done(call);
	}
	return r;
}

/* Nothing is written to its volumes until the keeper is told that they have been copied, and says that this was so. */
static int copy_volumes(struct taking *t, struct conn *conn, struct call *call, int to, struct sm_error *err)
{
	int r;

	if (!vm_volumes(&t->rec, false))
		return 0;
	r = volumes_save(t->vmdir, &t->rec, to, err);
	if (r < 0)
		return r;
	r = mux_send_eof(conn->mux, call->ch, 0);
	while (r == 0 && !call->eof && !call->closed)
		r = conn_step(conn, NULL, 0, -1);
	if (r < 0 || !call->eof)
		return error_set(err, SM_ERROR_STATE, ESRCH, "VM %s ended while its volumes were being copied",
				 t->vm->id);
	return 0;
}

/* That it is one that can be saved. */
static int load_parent(struct taking *t, struct sm_error *err)
{
	int r;

	t->vmdir = vmdir_open(t->vm->client, t->vm->id, err);
	if (t->vmdir < 0)
		return t->vmdir;
	r = vmdir_load(t->vmdir, t->vm->id, &t->rec, err);
	if (r < 0)
		return r;
	if (t->rec.share_group && t->rec.num_mounts > vm_volumes(&t->rec, false))
		return error_set(err, SM_ERROR_UNSUPPORTED, EOPNOTSUPP,
				 "VM %s has its mounts from a share group's server: such a VM cannot be saved",
				 t->vm->id);
	for (unsigned i = 0; i < t->rec.num_mounts; i++) {
		if (t->rec.mounts[i].served)
			return error_set(err, SM_ERROR_UNSUPPORTED, EOPNOTSUPP,
					 "VM %s has what a program serves on %s mounted: such a VM cannot be saved",
					 t->vm->id, t->rec.mounts[i].source);
		if (t->rec.mounts[i].dax)
			return error_set(err, SM_ERROR_UNSUPPORTED, EOPNOTSUPP,
					 "VM %s has files of %s mapped (the mount's option dax): such a VM cannot be "
					 "saved",
					 t->vm->id, t->rec.mounts[i].source);
	}
	return 0;
}

/* That there is none of the name, or one that may go. */
static int check_name(const struct taking *t, struct sm_error *err)
{
	bool same;
	int r;

	if (faccessat(t->snapshots, t->name, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	if (!t->fingerprint)
		return error_set(err, SM_ERROR_EXISTS, EEXIST, "there is a snapshot %s already", t->name);
	r = vmsnap_is_built(t->snapshots, t->name, t->fingerprint, &same, err);
	return r < 0 ? r : vmsnap_unneeded(t->snapshots, t->name, err);
}

/* Under the lock of the snapshots. */
static int prepare(struct taking *t, struct sm_error *err)
{
	int r = load_parent(t, err);

	if (r < 0)
		return r;
	r = check_name(t, err);
	if (r < 0)
		return r;
	strcpy(t->temporary, ".new-");
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

static int prepare_diff(struct taking *t, struct sm_error *err)
{
	struct vm_start start;
	int r = vmdir_load_start(t->vmdir, &start, err);

	r = r < 0 ? r : vmsnap_over(t->snapshots, &start.origin, t->dir, &t->over, err);
	return r < 0 ? error_wrap(err, r, "VM %s", t->vm->id) : 0;
}

/* Which files its volumes are. */
static int describe_volumes(struct taking *t, struct vmsnap *m, uint64_t *allocated)
{
	unsigned n = vm_volumes(&t->rec, false);
	int r = 0;

	if (!n)
		return 0;
	m->volumes = calloc(n + 1, sizeof(char *));
	m->volume_tops = calloc(n + 1, sizeof(char *));
	for (unsigned i = 0; r == 0 && m->volumes && m->volume_tops && i < n; i++) {
		char file[VM_VOLUME_FILE], base[128], top[128] = "-";

		vm_volume_file(i, true, file);
		r = snapshot_identity(t->dir, file, true, base, allocated);
		vm_volume_file(i, false, file);
		r = r < 0 ? r : snapshot_identity(t->dir, file, false, top, allocated);
		r = r == -ENOENT ? 0 : r;
		m->volumes[i] = strdup(base);
		m->volume_tops[i] = strdup(top);
		if (!m->volumes[i] || !m->volume_tops[i])
			r = -ENOMEM;
	}
	return m->volumes && m->volume_tops ? r : -ENOMEM;
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
			   .memory_bytes = t->saved.memory_bytes,
			   .parent = t->over.parent,
			   .depth = t->over.depth};
	char ids[VM_MAX_LAYERS + 1][128], *layers[VM_MAX_LAYERS + 2] = {NULL};
	_free_ char *text = NULL;
	uint64_t allocated = 0;
	struct timespec now;
	int r = snapshot_identity(t->dir, "state", false, m.state_file, &allocated);

	r = r < 0 ? r : snapshot_identity(t->dir, "memory", true, m.memory_file, &allocated);
	r = r < 0 ? r : memsum_file(t->dir, "state", m.state_sum);
	r = r < 0 ? r : memsum_file(t->dir, "memory", m.memory_sum);
	for (unsigned i = 0; r == 0 && i < t->saved.layers; i++) {
		char name[24];

		snprintf(name, sizeof(name), "layer.%u", i);
		r = snapshot_identity(t->dir, name, true, ids[i], &allocated);
		layers[i] = ids[i];
	}
	r = r < 0 ? r : describe_volumes(t, &m, &allocated);
	if (r < 0) {
		strv_free(m.volumes);
		strv_free(m.volume_tops);
		return error_sys(err, -r, "files of the snapshot");
	}
	if (t->fingerprint)
		snprintf(m.fingerprint, sizeof(m.fingerprint), "%s", t->fingerprint);
	memcpy(m.parent_sum, t->over.parent_sum, sizeof(m.parent_sum));
	memcpy(m.base_file, t->over.base_file, sizeof(m.base_file));
	memcpy(m.base_sum, t->over.base_sum, sizeof(m.base_sum));
	snprintf(m.vm, sizeof(m.vm), "%s", t->vm->id);
	m.layers = t->saved.layers ? layers : NULL;
	clock_gettime(CLOCK_REALTIME, &now);
	m.created_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
	r = vmsnap_format(&m, &text, err);
	strv_free(m.volumes);
	strv_free(m.volume_tops);
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

/* Under the name there is at any moment the old one or the new one; the old one is the temporary then. */
static int publish(struct taking *t)
{
	if (renameat(t->snapshots, t->temporary, t->snapshots, t->name) == 0) {
		t->temporary[0] = '\0';
		return 0;
	}
	if ((errno == EEXIST || errno == ENOTEMPTY) && t->fingerprint &&
	    renameat2(t->snapshots, t->temporary, t->snapshots, t->name, RENAME_EXCHANGE) == 0)
		return 0;
	return -errno;
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
	r = fsync(t->dir) < 0 ? -errno : publish(t);
	if (r == 0 && fsync(t->snapshots) < 0)
		r = -errno;
	return r < 0 ? error_sys(err, -r, "name the snapshot") : 0;
}

static int save(struct taking *t, struct sm_error *err)
{
	_free_ char *path = NULL;
	struct conn conn;
	struct call call;
	int r;

	if (asprintf(&path, "%s/snapshots/%s", t->vm->client->data_dir, t->temporary) < 0)
		return error_sys(err, ENOMEM, "snapshot");
	r = ask_keeper(t, path, &conn, &call, err);
	if (r < 0)
		return r;
	r = copy_volumes(t, &conn, &call, t->dir, err);
	conn_done(&conn);
	call_done(&call);
	return r;
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

static int take(struct taking *t, bool diff, uint64_t *ret_pause_ns, struct sm_error *err)
{
	_fd_ int lock = -1;
	int r;

	t->vmdir = t->dir = -1;
	if (!vmsnap_name_valid(t->name))
		return error_set(err, SM_ERROR_INVALID, EINVAL,
				 "\"%s\" is no name for a snapshot: letters, digits, _ . -, at most %d, not base-...",
				 t->name, VM_NAME_MAX);
	t->snapshots = base_open_dir(t->vm->client, err);
	if (t->snapshots < 0)
		return t->snapshots;
	lock = base_lock(t->snapshots, NULL, err);
	r = lock < 0 ? lock : prepare(t, err);
	r = r < 0 || !diff ? r : prepare_diff(t, err);
	r = r < 0 ? r : save(t, err);
	r = r < 0 ? r : finish(t, err);
	if (r == 0 && ret_pause_ns)
		*ret_pause_ns = t->saved.pause_ns;
	taking_done(t);
	return r;
}

int sm_vm_snapshot(struct sm_vm *vm, const char *name, uint64_t *ret_pause_ns, struct sm_error *err)
{
	return sm_vm_snapshot_with(vm, name, NULL, ret_pause_ns, err);
}

int sm_vm_snapshot_with(struct sm_vm *vm, const char *name, const struct sm_snapshot_options *options,
			uint64_t *ret_pause_ns, struct sm_error *err)
{
	struct sm_snapshot_options o = OPTIONS_GET(struct sm_snapshot_options, options);
	struct taking t = {.vm = vm, .name = name};

	return take(&t, o.diff, ret_pause_ns, err);
}

int vmsnap_take_built(struct sm_vm *vm, const char *name, const char *fingerprint, struct sm_error *err)
{
	struct taking t = {.vm = vm, .name = name, .fingerprint = fingerprint};

	return take(&t, false, NULL, err);
}
/* --------------------------------------------------------------------------------------- a branch */

/* The parent's directory is where the layers come from. */
static int describe_branch(struct taking *t, struct vmsnap_restore *from, struct sm_error *err)
{
	const struct keeper_snapshot_reply *m = &t->saved;
	_cleanup_(buf_done) struct buf under = {0};
	struct vm_start start;

	if (!m->pid || !m->state || !m->memory)
		return error_set(err, SM_ERROR_UNSUPPORTED, EPROTO, "VM %s runs under another version", t->vm->id);
	if (vmdir_load_start(t->vmdir, &start, NULL) == 0)
		from->origin = start.origin;
	for (unsigned i = 0; i < ARRAY_SIZE(m->under) && m->under[i]; i++)
		buf_printf(&under, "%s%llu", i ? ":" : "", (unsigned long long)m->under[i]);
	if (under.len && (under.error || !(from->under = strndup((const char *)under.data, under.len))))
		return error_sys(err, ENOMEM, "branch");
	from->meta = (struct vmsnap){.window = m->window,
				     .booted = m->booted,
				     .pause_ns = m->pause_ns,
				     .layers = calloc(m->layers + 1, sizeof(char *))};
	for (unsigned i = 0; from->meta.layers && i < m->layers; i++)
		if (!(from->meta.layers[i] = strdup("")))
			return error_sys(err, ENOMEM, "branch");
	if (!from->meta.layers || asprintf(&from->dir, "/proc/%llu/fd", (unsigned long long)m->pid) < 0) {
		from->dir = NULL;
		return error_sys(err, ENOMEM, "branch");
	}
	snprintf(from->files, sizeof(from->files), "%llu:%llu", (unsigned long long)m->state,
		 (unsigned long long)m->memory);
	from->dirfd = TAKE_FD(t->vmdir);
	return 0;
}

#define BRANCH_PREFIX ".branch-"

/* Whoever copied volumes for a branch and was killed has left them; one at work holds the lock of its directory. */
static void sweep_branches(int vmdir)
{
	int fd = openat(vmdir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	while (dir && (e = readdir(dir))) {
		_fd_ int one = -1;

		if (!str_starts(e->d_name, BRANCH_PREFIX))
			continue;
		one = openat(vmdir, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (one >= 0 && flock(one, LOCK_EX | LOCK_NB) == 0)
			remove_tree_at(vmdir, e->d_name);
	}
	if (dir)
		closedir(dir);
	else
		fd_close(fd);
}

/* The children's volumes begin as copies of the parent's, which are made once. */
static int branch_volumes(struct taking *t, struct vmsnap_branch *b, struct sm_error *err)
{
	char name[sizeof(b->volumes_dir)] = BRANCH_PREFIX;
	int r;

	b->from.num_volumes = vm_volumes(&t->rec, false);
	if (!b->from.num_volumes)
		return 0;
	sweep_branches(t->vmdir);
	r = random_hex(name + strlen(name), 6);
	if (r < 0)
		return error_sys(err, -r, "random numbers");
	if (mkdirat(t->vmdir, name, 0700) < 0)
		return error_sys(err, errno, "make a directory for copies of volumes");
	strcpy(b->volumes_dir, name);
	b->vmdir = fcntl(t->vmdir, F_DUPFD_CLOEXEC, 0);
	b->from.volumes_fd = openat(t->vmdir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (b->vmdir < 0 || b->from.volumes_fd < 0 || flock(b->from.volumes_fd, LOCK_EX) < 0)
		return error_sys(err, errno, "make a directory for copies of volumes");
	return copy_volumes(t, &b->conn, &b->call, b->from.volumes_fd, err);
}

int vmsnap_branch_begin(struct sm_vm *vm, struct vmsnap_branch *ret, struct sm_error *err)
{
	struct taking t = {.vm = vm, .vmdir = -1, .dir = -1, .snapshots = -1};
	int r = load_parent(&t, err);

	*ret = (struct vmsnap_branch){.from = {.dirfd = -1, .lock = -1, .volumes_fd = -1}, .vmdir = -1};
	r = r < 0 ? r : ask_keeper(&t, "", &ret->conn, &ret->call, err);
	if (r == 0) {
		r = branch_volumes(&t, ret, err);
		r = r < 0 ? r : describe_branch(&t, &ret->from, err);
		if (r < 0)
			vmsnap_branch_done(ret);
	}
	taking_done(&t);
	return r;
}

/* The keeper then lets go of its files. */
void vmsnap_branch_done(struct vmsnap_branch *b)
{
	if (b->volumes_dir[0])
		remove_tree_at(b->vmdir, b->volumes_dir);
	b->vmdir = fd_close(b->vmdir);
	conn_done(&b->conn);
	call_done(&b->call);
	vmsnap_restore_done(&b->from);
}
