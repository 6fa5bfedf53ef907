/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making a base snapshot. A keeper boots a guest in a directory of its own, has it saved there and ends; what is left
 * of that directory, flushed and described, gets the base's name in one step. Until then whoever is killed leaves only
 * what the next maker sweeps away: the keeper ends with the connection of the process that started it.
 */
#include "lib/base_make.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"

#define STEP_MS 100

/* Most VMs have a disk of this size: their file system is mounted once for all. *ret NULL: there is no such template.
 */
static void find_disk(struct sm_client *c, struct base *b, const struct sm_progress *progress, char **ret)
{
	_free_ char *path = NULL;
	uint64_t allocated = 0;

	if (disk_template(c, VM_DEFAULT_DISK, progress, &path, NULL) == 0 &&
	    snapshot_identity(AT_FDCWD, path, true, b->disk, &allocated) == 0)
		*ret = TAKE_PTR(path);
	else
		b->disk[0] = '\0';
}

static int write_record(int dir, const char *id, const struct vm_record *like, uint64_t memory, char *disk,
			struct sm_error *err)
{
	char *argv[] = {(char[]){"-"}, NULL}, *env[] = {NULL};
	struct vm_record rec = {.image = (char[]){""},
				.image_id = (char[]){""},
				.memory = memory,
				.dax_size = like->dax_size,
				.cpus = like->cpus,
				.kernel = like->kernel,
				.initramfs = like->initramfs,
				.cmdline = like->cmdline,
				.disk_template = disk,
				.disk_size = disk ? VM_DEFAULT_DISK : 0,
				.hostname = (char[]){"base"},
				.argv = argv,
				.env = env,
				.stop_signal = 15};
	_free_ char *json = NULL;
	int r;

	memcpy(rec.id, id, sizeof(rec.id));
	r = vm_record_format(&rec, &json, err);
	if (r < 0)
		return r;
	r = write_file_atomic_at(dir, "config.json", json, strlen(json), 0600);
	return r < 0 ? error_sys(err, -r, "record of the base snapshot") : 0;
}

/* Until the keeper has ended: its own word, or what it left. */
static int await_end(struct conn *conn, struct call *call, int dir, const struct sm_progress *progress,
		     struct vm_exit *ret, struct sm_error *err)
{
	int r = 0;

	while (r == 0 && !call->ended && !call->closed) {
		if (progress->update && progress->update(progress->arg, "base snapshot", 0, 0))
			return error_set(err, SM_ERROR_CANCELLED, ECANCELED, "stopped");
		r = conn_step(conn, NULL, 0, STEP_MS);
	}
	if (call->ended)
		*ret = call->record;
	else if (vmdir_load_exit(dir, ret, NULL) < 0)
		return error_set(err, SM_ERROR_HOST, EPROTO, "the keeper of the base snapshot's VM was killed");
	if (ret->outcome.reason != SM_REASON_EXITED)
		return error_set(err, SM_ERROR_GUEST, EPROTO, "base snapshot: %.400s",
				 ret->outcome.message[0] ? ret->outcome.message : vm_reason_name(ret->outcome.reason));
	return 0;
}

static int run_vm(struct sm_client *c, const char *path, int dir, const char *id, const struct base *b,
		  const struct sm_progress *progress, struct sm_error *err)
{
	struct launch l = {.dir = path,
			   .id = id,
			   .base = true,
			   .window = b->window,
			   .since_ns = time_now_ns(),
			   .progress = progress};
	struct vm_exit x;
	struct conn conn;
	struct call call;
	int r = launch_keeper(c, &l, NULL, err);

	if (r < 0)
		return r;
	r = launch_join(r, id, &conn, &call, err);
	if (r < 0)
		return r;
	r = await_end(&conn, &call, dir, progress, &x, err);
	conn_done(&conn);
	call_done(&call);
	return r;
}

static int flush(int dir, const char *name)
{
	_fd_ int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0 || fchmod(fd, 0400) < 0 || fsync(fd) < 0)
		return -errno;
	return 0;
}

/* The guest's files stay; what the VM's life left goes. */
static void remove_traces(int dir)
{
	static const char *const names[] = {"config.json", "start.json", "exit.json",  "console",
					    "console.1",   "vmm.log",	 "keeper.log", VM_PLUGGABLE};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		unlinkat(dir, names[i], 0);
}

static int finish(int snapshots, const char *temporary, const char *name, int dir, struct base *b,
		  const struct vm_record *rec, struct sm_error *err)
{
	struct timespec now;
	int r = flush(dir, "state");

	if (r == 0)
		r = flush(dir, "memory");
	if (r == 0 && b->disk[0])
		r = flush(dir, VM_BASE_DISK);
	if (r < 0)
		return error_sys(err, -r, "files of the base snapshot");
	b->pluggable = faccessat(dir, VM_PLUGGABLE, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
	remove_traces(dir);
	clock_gettime(CLOCK_REALTIME, &now);
	r = base_metadata_write(dir, b, rec, (int64_t)now.tv_sec * 1000000000 + now.tv_nsec, err);
	if (r < 0)
		return r;
	if (fsync(dir) < 0 || renameat(snapshots, temporary, snapshots, name) < 0 || fsync(snapshots) < 0)
		return error_sys(err, errno, "name the base snapshot");
	return 0;
}

/* Those used last stay. */
static void make_room(int snapshots, const char *keep)
{
	char **names = base_names(snapshots);
	size_t n = strv_len((const char *const *)names);

	for (; n > BASE_MAX; n--) {
		struct timespec oldest = {0};
		char **victim = NULL;

		for (char **p = names; *p; p++) {
			struct stat st;

			if (!**p || streq(*p, keep) || fstatat(snapshots, *p, &st, AT_SYMLINK_NOFOLLOW) < 0)
				continue;
			if (!victim || st.st_mtim.tv_sec < oldest.tv_sec ||
			    (st.st_mtim.tv_sec == oldest.tv_sec && st.st_mtim.tv_nsec < oldest.tv_nsec)) {
				victim = p;
				oldest = st.st_mtim;
			}
		}
		if (!victim)
			break;
		base_remove_locked(snapshots, *victim, NULL);
		**victim = '\0';
	}
	strv_free(names);
}

int base_make(struct sm_client *c, int snapshots, const char *name, const struct vm_record *rec, struct base *b,
	      const struct sm_progress *progress, struct sm_error *err)
{
	char temporary[32] = ".new-", id[VM_ID_DIGITS + 1];
	_free_ char *path = NULL, *disk = NULL;
	_fd_ int dir = -1;
	int r = random_hex(id, VM_ID_DIGITS / 2);

	if (r < 0)
		return error_sys(err, -r, "random numbers");
	memcpy(temporary + 5, id, sizeof(id));
	if (asprintf(&path, "%s/snapshots/%s", c->data_dir, temporary) < 0)
		return error_sys(err, ENOMEM, "base snapshot");
	if (mkdirat(snapshots, temporary, 0700) < 0)
		return error_sys(err, errno, "make %s", path);
	dir = openat(snapshots, temporary, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	find_disk(c, b, progress, &disk);
	r = dir < 0 ? error_sys(err, errno, "open %s", path) : write_record(dir, id, rec, b->memory, disk, err);
	if (r == 0)
		r = run_vm(c, path, dir, id, b, progress, err);
	if (r == 0)
		r = finish(snapshots, temporary, name, dir, b, rec, err);
	if (r < 0)
		remove_tree_at(snapshots, temporary);
	else
		make_room(snapshots, name);
	return r;
}
