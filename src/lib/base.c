/* SPDX-License-Identifier: Apache-2.0 */
/* Finding base snapshots: keys, metadata, the directory. See base.h; base_make.c makes them. */
#include "lib/base.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/sha256hex.h"
#include "base/util.h"
#include "kernel/kernel.h"
#include "keeper/recordjson.h"
#include "lib/base_make.h"

#define FORMAT_VERSION 1
#define METADATA_MAX 65536
#define WINDOW GIB
/* Below this a window (16 MiB of page structures) would cost more than a tenth of the memory: the image is a disk. */
#define WINDOW_MIN_MEMORY (160 * MIB)
#define FAILURE_COUNTS_S 3600
#define LOCK_POLL_MS 20
/* What is plugged comes in such pieces (mm/page_alloc.c's largest), and its page structures, 1/64 of it, come out of
 * the memory that the base has. */
#define PLUG_STEP (4 * MIB)
#define PLUG_PER_MEMORY 7
/* As of the image's window (start.c). */
#define DAX_PER_MEMORY 8

static const char prefix[] = "base-";
static const uint64_t classes[] = {4096 * MIB, VM_DEFAULT_MEMORY, 512 * MIB, 256 * MIB, 128 * MIB};

void base_done(struct base *b)
{
	free(b->dir);
	b->dir = NULL;
}

void base_info_done(struct base_info *i)
{
	free(i->kernel);
	free(i->initramfs);
	free(i->cmdline);
	*i = (struct base_info){0};
}

/* -------------------------------------------------------------------------------------------- keys */

/* Where it runs: this host, or the machine, whose kernel has the KVM that counts. */
static int key_engine(struct sm_client *c, struct buf *key, struct sm_error *err)
{
	_cleanup_(kernel_done) struct kernel k = {0};
	struct seat *seat;
	int r = client_seat(c, &seat, err);

	if (r < 0)
		return r;
	r = seat_identity(seat, key);
	if (r < 0)
		return error_sys(err, -r, "what VMs run on");
	if (!seat_in_machine(seat))
		return 0;
	r = kernel_find(NULL, c->data_dir, &k, err);
	return r < 0 ? r : seat_put_file(key, "machine", k.image);
}

struct shape {
	uint64_t memory, window, dax;
	unsigned cpus;
	const char *kernel, *initramfs, *cmdline;
};

/* The initramfs has the agent in it. */
static int make_key(struct sm_client *c, const struct shape *s, char ret[static BASE_KEY_DIGITS + 1],
		    struct sm_error *err)
{
	_cleanup_(buf_done) struct buf key = {0};
	_free_ char *vmm = NULL;
	int r = client_helper(c, "supermachine-vmm", &vmm, err);

	if (r < 0)
		return r;
	buf_printf(&key, "base %d\nmemory %llu\nwindow %llu\ndax %llu\ncpus %u\ncmdline %s\n", FORMAT_VERSION,
		   (unsigned long long)s->memory, (unsigned long long)s->window, (unsigned long long)s->dax, s->cpus,
		   s->cmdline ? s->cmdline : "");
	r = seat_put_file(&key, "kernel", s->kernel);
	r = r < 0 ? r : seat_put_file(&key, "initramfs", s->initramfs);
	r = r < 0 ? r : seat_put_file(&key, "monitor", vmm);
	if (r < 0)
		return error_sys(err, -r, "key of the base snapshot");
	r = key_engine(c, &key, err);
	if (r == 0 && key.error)
		r = error_sys(err, ENOMEM, "key of the base snapshot");
	if (r == 0)
		sha256_hex(key.data, key.len, BASE_KEY_DIGITS, ret);
	return r;
}

/* --------------------------------------------------------------------------------------- directory */

int base_open_dir(struct sm_client *c, struct sm_error *err)
{
	_free_ char *dir = NULL;
	int fd, r;

	if (asprintf(&dir, "%s/snapshots", c->data_dir) < 0)
		return error_sys(err, ENOMEM, "snapshots");
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT) {
		r = mkdir_p(dir, 0700);
		if (r < 0)
			return error_sys(err, -r, "make %s", dir);
		fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	}
	return fd < 0 ? error_sys(err, errno, "open %s", dir) : fd;
}

int base_lock(int snapshots, const struct sm_progress *progress, struct sm_error *err)
{
	int fd;

	while ((fd = vmdir_flock(snapshots, "lock", true, false)) == -EWOULDBLOCK) {
		if (progress && progress->update && progress->update(progress->arg, "base snapshot", 0, 0))
			return error_set(err, SM_ERROR_CANCELLED, ECANCELED, "stopped");
		poll(NULL, 0, LOCK_POLL_MS);
	}
	return fd < 0 ? error_sys(err, -fd, "lock of the snapshots") : fd;
}

/* Out of sight in one step, then the bytes. A VM that runs from it has its files open. */
int base_remove_locked(int snapshots, const char *name, struct sm_error *err)
{
	char old[32] = ".old-";
	int r = random_hex(old + 5, 8);

	if (r == 0 && renameat(snapshots, name, snapshots, old) < 0)
		r = -errno;
	if (r == -ENOENT)
		return error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "no such snapshot: %s", name);
	if (r == 0)
		r = remove_tree_at(snapshots, old);
	return r < 0 ? error_sys(err, -r, "remove snapshot %s", name) : 0;
}

char **snapshot_names(int snapshots, bool (*wanted)(const char *name, const char *arg), const char *arg)
{
	int fd = openat(snapshots, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	char **v = calloc(1, sizeof(*v));
	struct dirent *e;
	size_t n = 0;

	while (d && v && (e = readdir(d))) {
		char **more = wanted(e->d_name, arg) ? realloc(v, (n + 2) * sizeof(*v)) : NULL;

		if (!more)
			continue;
		v = more;
		v[n] = strdup(e->d_name);
		v[++n] = NULL;
		if (!v[n - 1])
			break;
	}
	if (d)
		closedir(d);
	else
		fd_close(fd);
	return v;
}

static bool begins(const char *name, const char *with)
{
	return str_starts(name, with);
}

char **base_names(int snapshots)
{
	return snapshot_names(snapshots, begins, prefix);
}

void base_sweep_locked(int snapshots, bool failures)
{
	static const char *const leftovers[] = {".new-", ".old-", "failed-"};

	for (size_t i = 0; i < ARRAY_SIZE(leftovers) - !failures; i++) {
		char **v = snapshot_names(snapshots, begins, leftovers[i]);

		for (char **p = v; p && *p; p++)
			remove_tree_at(snapshots, *p);
		strv_free(v);
	}
}

/* ---------------------------------------------------------------------------------------- metadata */

int snapshot_identity(int dir, const char *name, bool links, char ret[static 128], uint64_t *allocated)
{
	struct stat st;
	int n;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	*allocated += (uint64_t)st.st_blocks * 512;
	n = snprintf(ret, 128, "%llx %llx %lld.%ld", (unsigned long long)st.st_ino, (unsigned long long)st.st_size,
		     (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
	if (!links)
		snprintf(ret + n, 128 - (size_t)n, " %lld.%ld", (long long)st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
	return 0;
}

static bool is_new_disk(int vmdir)
{
	struct stat top;

	return faccessat(vmdir, "layer.1", F_OK, AT_SYMLINK_NOFOLLOW) < 0 &&
	       (fstatat(vmdir, "top", &top, AT_SYMLINK_NOFOLLOW) < 0 || top.st_size == 0);
}

bool base_give_disk(const struct base *b, const struct vm_record *rec, int vmdir, bool *ret_linked)
{
	_fd_ int dir = -1;
	struct stat ours, its;
	uint64_t allocated = 0;
	char now[128];

	*ret_linked = false;
	if (!b->disk[0] || !rec->disk_template || rec->layers ||
	    snapshot_identity(AT_FDCWD, rec->disk_template, true, now, &allocated) < 0 || !streq(now, b->disk) ||
	    !is_new_disk(vmdir))
		return false;
	dir = open(b->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return false;
	*ret_linked = linkat(dir, VM_BASE_DISK, vmdir, "layer.0", 0) == 0;
	return fstatat(dir, VM_BASE_DISK, &ours, AT_SYMLINK_NOFOLLOW) == 0 &&
	       fstatat(vmdir, "layer.0", &its, AT_SYMLINK_NOFOLLOW) == 0 && its.st_ino == ours.st_ino &&
	       its.st_dev == ours.st_dev;
}

bool snapshot_identity_has_ctime(const char *identity)
{
	unsigned spaces = 0;

	while (*identity)
		spaces += *identity++ == ' ';
	return spaces == 3;
}

int base_metadata_write(int dir, const struct base *b, const struct vm_record *rec, int64_t created_ns,
			struct sm_error *err)
{
	char state[128], memory[128], disk[128] = "";
	_free_ char *text = NULL;
	uint64_t allocated = 0;
	json_t *o;
	int r = snapshot_identity(dir, "state", false, state, &allocated);

	r = r < 0 ? r : snapshot_identity(dir, "memory", true, memory, &allocated);
	if (r == 0 && b->disk[0])
		r = snapshot_identity(dir, VM_BASE_DISK, true, disk, &allocated);
	if (r < 0)
		return error_sys(err, -r, "files of the base snapshot");
	o = json_object();
	rj_put_u64(o, "version", FORMAT_VERSION);
	rj_put_str(o, "kind", "base");
	rj_put_str(o, "key", b->key);
	rj_put_u64(o, "memory", b->memory);
	rj_put_bool(o, "pluggable", b->pluggable);
	rj_put_u64(o, "cpus", rec->cpus);
	rj_put_u64(o, "window", b->window);
	rj_put_u64(o, "dax", rec->dax_size);
	rj_put_str(o, "kernel", rec->kernel);
	rj_put_str(o, "initramfs", rec->initramfs);
	rj_put_str(o, "cmdline", rec->cmdline);
	rj_put_u64(o, "created_ns", (uint64_t)created_ns);
	rj_put_str(o, "state_file", state);
	rj_put_str(o, "memory_file", memory);
	rj_put_str(o, "disk", b->disk);
	rj_put_str(o, "disk_file", disk);
	r = rj_dump(o, &text, err);
	if (r < 0)
		return r;
	r = write_file_atomic_at(dir, "metadata.json", text, strlen(text), 0400);
	return r < 0 ? error_sys(err, -r, "write metadata.json") : 0;
}

static int parse_metadata(const char *text, size_t len, int dir, struct base_info *i, struct sm_error *err)
{
	char now[128], state[128], memory[128], disk[128];
	struct stat st;
	struct rj j;
	int r = rj_load(&j, text, len, "metadata.json", err);

	if (r < 0)
		return r;
	rj_u64(&j, "version", FORMAT_VERSION, FORMAT_VERSION);
	rj_str_into(&j, "key", i->key, sizeof(i->key));
	i->memory = rj_u64(&j, "memory", 1, INT64_MAX);
	i->pluggable = rj_bool(&j, "pluggable");
	i->cpus = (unsigned)rj_u64(&j, "cpus", 1, 1024);
	i->window = rj_u64(&j, "window", 0, INT64_MAX);
	i->dax = rj_u64(&j, "dax", 0, INT64_MAX);
	i->kernel = rj_str(&j, "kernel", true);
	i->initramfs = rj_str(&j, "initramfs", true);
	i->cmdline = rj_str(&j, "cmdline", false);
	i->created_ns = (int64_t)rj_u64(&j, "created_ns", 0, INT64_MAX);
	rj_str_into(&j, "state_file", state, sizeof(state));
	rj_str_into(&j, "memory_file", memory, sizeof(memory));
	rj_str_into(&j, "disk", i->disk, sizeof(i->disk));
	rj_str_into(&j, "disk_file", disk, sizeof(disk));
	r = rj_finish(&j, "metadata.json", err);
	if (r == 0)
		i->whole = snapshot_identity(dir, "state", false, now, &i->allocated) == 0 && streq(now, state) &&
			   snapshot_identity(dir, "memory", true, now, &i->allocated) == 0 && streq(now, memory) &&
			   (!i->disk[0] ||
			    (snapshot_identity(dir, VM_BASE_DISK, true, now, &i->allocated) == 0 && streq(now, disk)));
	if (fstatat(dir, "memory", &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_nlink > 1)
		i->shared = (uint64_t)st.st_blocks * 512;
	return r;
}

int base_info_load(int snapshots, const char *name, struct base_info *ret, struct sm_error *err)
{
	struct base_info i = {0};
	_free_ char *text = NULL;
	struct stat st;
	size_t len;
	_fd_ int dir = openat(snapshots, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	int r = dir < 0 ? -errno : read_file_at(dir, "metadata.json", METADATA_MAX, &text, &len);

	if (r < 0)
		return error_sys(err, -r, "snapshot %s", name);
	r = parse_metadata(text, len, dir, &i, err);
	if (r == 0 && !streq(i.key, name + sizeof(prefix) - 1))
		r = error_set(err, SM_ERROR_CORRUPT, EBADMSG, "snapshot %s: it is named %s", name, i.key);
	if (r == 0 && fstat(dir, &st) == 0)
		i.used_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
	if (r < 0)
		base_info_done(&i);
	else
		*ret = i;
	return r;
}

bool base_fits(struct sm_client *c, const struct base_info *i)
{
	struct shape s = {i->memory, i->window, i->dax, i->cpus, i->kernel, i->initramfs, i->cmdline};
	_free_ char *kernel = NULL, *initramfs = NULL;
	char key[BASE_KEY_DIGITS + 1];

	/* With another agent or other modules the initramfs would be another, though the old one may still be there. */
	return i->whole && boot_files(c, i->kernel, &kernel, &initramfs, NULL) == 0 && streq(initramfs, i->initramfs) &&
	       make_key(c, &s, key, NULL) == 0 && streq(key, i->key);
}

/* ------------------------------------------------------------------------------------------ finding */

static bool usable(int snapshots, const char *name, struct base *b)
{
	struct base_info i;
	bool whole;

	if (base_info_load(snapshots, name, &i, NULL) < 0)
		return false;
	whole = i.whole;
	b->created_ns = i.created_ns;
	b->pluggable = i.pluggable;
	memcpy(b->disk, i.disk, sizeof(b->disk));
	base_info_done(&i);
	if (whole)
		utimensat(snapshots, name, NULL, 0);
	return whole;
}

static bool failed_lately(int snapshots, const char *key)
{
	char name[32];
	struct stat st;

	snprintf(name, sizeof(name), "failed-%s", key);
	return fstatat(snapshots, name, &st, 0) == 0 && time(NULL) - st.st_mtim.tv_sec < FAILURE_COUNTS_S;
}

static void note_failure(int snapshots, const char *key, bool failed)
{
	char name[32];

	snprintf(name, sizeof(name), "failed-%s", key);
	if (failed)
		fd_close(openat(snapshots, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
	else
		unlinkat(snapshots, name, 0);
	if (failed)
		utimensat(snapshots, name, NULL, 0);
}

/* Under the lock: whoever waited for it may find what it wanted. */
static int find_or_make(struct sm_client *c, int snapshots, const char *name, const struct vm_record *rec,
			struct base *b, const struct sm_progress *progress, struct sm_error *err)
{
	_fd_ int lock = base_lock(snapshots, progress, err);
	struct seat *seat;
	int r;

	if (lock < 0)
		return lock;
	if (usable(snapshots, name, b))
		return 0;
	if (failed_lately(snapshots, b->key))
		return error_set(err, SM_ERROR_STATE, EAGAIN, "no base snapshot could be made");
	/* A machine that does not start is no base that cannot be made. */
	r = client_seat(c, &seat, err);
	if (r == 0)
		r = seat_ready(seat, err);
	if (r < 0)
		return r;
	base_sweep_locked(snapshots, false);
	base_remove_locked(snapshots, name, NULL);
	client_say(c, SM_LOG_INFO, "making the base snapshot for %llu MiB and %u CPU%s",
		   (unsigned long long)(b->memory / MIB), rec->cpus, rec->cpus == 1 ? "" : "s");
	r = base_make(c, snapshots, name, rec, b, progress, err);
	if (r != -ECANCELED && r != -EBUSY)
		note_failure(snapshots, b->key, r < 0);
	if (r == 0 && !usable(snapshots, name, b))
		r = error_set(err, SM_ERROR_HOST, EIO, "the base snapshot changed as it was made");
	return r;
}

/* Which it is, and where; *ret_name: BASE_KEY_DIGITS more than the prefix. */
static int name_base(struct sm_client *c, const struct vm_record *rec, uint64_t memory, struct base *b,
		     char name[static sizeof(prefix) + BASE_KEY_DIGITS], struct sm_error *err)
{
	struct shape s;
	int r;

	*b = (struct base){.memory = memory, .window = memory >= WINDOW_MIN_MEMORY ? WINDOW : 0};
	s = (struct shape){memory, b->window, rec->dax_size, rec->cpus, rec->kernel, rec->initramfs, rec->cmdline};
	r = make_key(c, &s, b->key, err);
	if (r < 0)
		return r;
	snprintf(name, sizeof(prefix) + BASE_KEY_DIGITS, "%s%s", prefix, b->key);
	if (asprintf(&b->dir, "%s/snapshots/%s", c->data_dir, name) >= 0)
		return 0;
	b->dir = NULL;
	return error_sys(err, ENOMEM, "base snapshot");
}

/* Whether a base of so much memory can serve a VM of this record, if what is missing can be plugged. One without a
 * window, whose image is a disk, serves only those that would have none, or hardly. */
static bool is_near(const struct vm_record *rec, uint64_t memory)
{
	if (memory < WINDOW_MIN_MEMORY && rec->memory >= 2 * memory)
		return false;
	return memory < rec->memory && (rec->memory - memory) % PLUG_STEP == 0 &&
	       rec->memory - memory <= MIN(memory * PLUG_PER_MEMORY, VM_PLUG_MAX) &&
	       rec->dax_size / DAX_PER_MEMORY <= memory;
}

/* The base that serves this record best of those there are: 0. TO_MAKE: none does, and *b is the one to make. */
enum { TO_MAKE = 1 };
static int choose(struct sm_client *c, int snapshots, const struct vm_record *rec, struct base *b,
		  char name[static sizeof(prefix) + BASE_KEY_DIGITS], struct sm_error *err)
{
	uint64_t wanted = 0;
	int r = name_base(c, rec, rec->memory, b, name, err);

	if (r < 0 || usable(snapshots, name, b))
		return r;
	/* What most runs ask for is to have all of its memory at once. */
	if (rec->memory == VM_DEFAULT_MEMORY)
		return TO_MAKE;
	for (size_t i = 0; i < ARRAY_SIZE(classes); i++) {
		if (classes[i] == rec->memory)
			wanted = rec->memory;
		if (!is_near(rec, classes[i]))
			continue;
		base_done(b);
		r = name_base(c, rec, classes[i], b, name, err);
		if (r < 0)
			return r;
		if (!wanted)
			wanted = classes[i];
		if (!usable(snapshots, name, b))
			continue;
		if (b->pluggable)
			return 0;
		wanted = rec->memory; /* a kernel without a driver for it */
	}
	base_done(b);
	r = name_base(c, rec, wanted ? wanted : rec->memory, b, name, err);
	return r < 0 ? r : TO_MAKE;
}

int base_find(struct sm_client *c, const struct vm_record *rec, struct base *ret, struct sm_error *err)
{
	char name[sizeof(prefix) + BASE_KEY_DIGITS];
	_fd_ int snapshots = base_open_dir(c, err);
	struct base b = {0};
	int r = snapshots < 0 ? snapshots : choose(c, snapshots, rec, &b, name, err);

	if (r == TO_MAKE)
		r = error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "there is no base snapshot %s", b.key);
	if (r < 0)
		base_done(&b);
	else
		*ret = b;
	return r;
}

static int get(struct sm_client *c, int snapshots, const struct vm_record *rec, const struct sm_progress *progress,
	       struct base *b, struct sm_error *err)
{
	char name[sizeof(prefix) + BASE_KEY_DIGITS];
	int r = choose(c, snapshots, rec, b, name, err);

	if (r != TO_MAKE)
		return r;
	return failed_lately(snapshots, b->key)
		       ? error_set(err, SM_ERROR_STATE, EAGAIN, "no base snapshot could be made")
		       : find_or_make(c, snapshots, name, rec, b, progress, err);
}

int base_get(struct sm_client *c, const struct vm_record *rec, const struct sm_progress *progress, struct base *ret,
	     struct sm_error *err)
{
	_fd_ int snapshots = base_open_dir(c, err);
	struct base b = {0};
	int r = snapshots < 0 ? snapshots : get(c, snapshots, rec, progress, &b, err);

	/* It shows when a class's first base is made: then this VM has one of its own. */
	if (r == 0 && b.memory != rec->memory && !b.pluggable) {
		base_done(&b);
		r = get(c, snapshots, rec, progress, &b, err);
	}
	if (r < 0)
		base_done(&b);
	else
		*ret = b;
	return r;
}

void base_discard(struct sm_client *c, const struct base *b)
{
	_fd_ int snapshots = base_open_dir(c, NULL);
	_fd_ int lock = snapshots < 0 ? -1 : base_lock(snapshots, NULL, NULL);

	if (lock >= 0)
		base_remove_locked(snapshots, strrchr(b->dir, '/') + 1, NULL);
}

/* There may be a newer one of that name by now, which has done nothing. */
static bool is_same(int snapshots, const struct vm_start *start)
{
	struct base_info i;
	bool same;

	if (base_info_load(snapshots, start->base, &i, NULL) < 0)
		return false;
	same = i.created_ns == start->base_created_ns;
	base_info_done(&i);
	return same;
}

void base_blame(struct sm_client *c, const struct vm_start *start)
{
	_fd_ int snapshots = -1, lock = -1;

	if (!str_starts(start->base, prefix) || strchr(start->base, '/'))
		return;
	snapshots = base_open_dir(c, NULL);
	if (snapshots < 0 || !is_same(snapshots, start))
		return;
	lock = base_lock(snapshots, NULL, NULL);
	if (lock >= 0 && is_same(snapshots, start))
		base_remove_locked(snapshots, start->base, NULL);
}
