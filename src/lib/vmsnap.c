/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots of VMs: finding and checking them. See vmsnap.h; vmsnap_meta.c has the description, vmsnap_take.c makes
 * them. */
#include "lib/vmsnap.h"

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
#include "keeper/recordjson.h"

#define METADATA_MAX 65536

/* -------------------------------------------------------------------------------------------- files */

static int check_file(int dir, const char *file, bool links, const char *want, const char *name, uint64_t *allocated,
		      struct sm_error *err)
{
	char now[128];
	int r = snapshot_identity(dir, file, links, now, allocated);

	if (r == -ENOENT)
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "snapshot %s: its file %s is missing", name, file);
	if (r < 0)
		return error_sys(err, -r, "snapshot %s: its file %s", name, file);
	if (!streq(now, want))
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG,
				 "snapshot %s: its file %s is not the one that was saved", name, file);
	return 0;
}

static void verified_name(const char *file, char ret[static 24])
{
	snprintf(ret, 24, "verified.%.10s", file);
}

/* Whether it is the one that was read and found to be as it was saved. */
static bool is_verified(int dir, const char *file, const char *identity)
{
	_free_ char *text = NULL;
	char name[24];
	size_t len;

	verified_name(file, name);
	return read_file_at(dir, name, 127, &text, &len) == 0 && streq(text, identity);
}

/* Reads a file that is neither the one that was saved nor one that has been read. */
static int verify_file(int dir, const char *file, const char *identity, const char *sum, const char *name,
		       struct sm_error *err)
{
	char got[MEMSUM_DIGITS + 1] = "", note[24];
	int r = memsum_file(dir, file, got);

	if (r < 0)
		return error_sys(err, -r, "snapshot %s: read its file %s", name, file);
	if (!streq(got, sum))
		return error_set(
			err, SM_ERROR_CORRUPT, EBADMSG,
			"snapshot %s: its file %s is damaged: its checksum is %s, and was %s when it was saved", name,
			file, got, sum);
	verified_name(file, note);
	/* Where this cannot be written it is read again next time. */
	(void)!write_file_atomic_at(dir, note, identity, strlen(identity), 0600);
	return 0;
}

/* sum: "" for a snapshot that has none. */
static int check_summed(int dir, const char *file, bool links, const char *want, const char *sum, const char *name,
			bool verify, uint64_t *allocated, struct sm_error *err)
{
	uint64_t bytes = 0;
	char now[128];
	bool other = sum[0] && snapshot_identity(dir, file, links, now, &bytes) == 0 && !streq(now, want);

	if (other && is_verified(dir, file, now)) {
		*allocated += bytes;
		return 0;
	}
	return other && verify ? verify_file(dir, file, now, sum, name, err)
			       : check_file(dir, file, links, want, name, allocated, err);
}

/* The base's own as long as that is there. */
static int check_base(int dir, const char *name, const struct vmsnap *m, bool verify, uint64_t *allocated,
		      struct sm_error *err)
{
	uint64_t bytes = 0;
	struct stat st;
	int r;

	if (!m->base_file[0])
		return 0;
	r = check_summed(dir, "base", true, m->base_file, m->base_sum, name, verify, &bytes, err);
	if (r == 0 && fstatat(dir, "base", &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_nlink == 1)
		*allocated += bytes;
	return r;
}

/* What goes on from it and is suspended has links to its memory. Those of earlier versions are known by their ctime,
 * too, and read once more after that. */
int vmsnap_check_memory(int dir, const char *name, const struct vmsnap *m, bool verify, uint64_t *allocated,
			struct sm_error *err)
{
	bool links = !snapshot_identity_has_ctime(m->memory_file);
	int r = check_summed(dir, "memory", links, m->memory_file, m->memory_sum, name, verify, allocated, err);

	return r < 0 ? r : check_base(dir, name, m, verify, allocated, err);
}

static int check_volumes(int dir, const char *name, const struct vmsnap *m, uint64_t *allocated, struct sm_error *err)
{
	char file[VM_VOLUME_FILE];
	int r = 0;

	for (unsigned i = 0; r == 0 && m->volumes && m->volumes[i]; i++) {
		vm_volume_file(i, true, file);
		r = check_file(dir, file, true, m->volumes[i], name, allocated, err);
		if (r < 0 || streq(m->volume_tops[i], "-"))
			continue;
		vm_volume_file(i, false, file);
		r = check_file(dir, file, false, m->volume_tops[i], name, allocated, err);
	}
	return r;
}

int vmsnap_check(int dir, const char *name, const struct vmsnap *m, bool verify, uint64_t *allocated,
		 struct sm_error *err)
{
	uint64_t sum = 0;
	int r = check_summed(dir, "state", false, m->state_file, m->state_sum, name, verify, &sum, err);

	r = r < 0 ? r : vmsnap_check_memory(dir, name, m, verify, &sum, err);
	for (unsigned i = 0; r == 0 && m->layers && m->layers[i]; i++) {
		char layer[24];

		snprintf(layer, sizeof(layer), "layer.%u", i);
		r = check_file(dir, layer, true, m->layers[i], name, &sum, err);
	}
	r = r < 0 ? r : check_volumes(dir, name, m, &sum, err);
	if (allocated)
		*allocated = sum;
	return r;
}

int vmsnap_link_layers(int from, int to, unsigned layers, struct sm_error *err)
{
	for (unsigned i = 0; i < layers; i++) {
		char name[24];

		snprintf(name, sizeof(name), "layer.%u", i);
		if (linkat(from, name, to, name, 0) < 0)
			return error_sys(err, errno, "share the disk's %s", name);
	}
	return 0;
}

/* ------------------------------------------------------------------------------------------ finding */

bool vmsnap_name_valid(const char *name)
{
	return vm_name_valid(name) && !str_starts(name, "base-") && !str_starts(name, "failed-") &&
	       !streq(name, "lock");
}

static bool is_vmsnap(const char *name, const char *arg)
{
	return vmsnap_name_valid(name);
}

char **vmsnap_names(int snapshots)
{
	return snapshot_names(snapshots, is_vmsnap, NULL);
}

int vmsnap_open(int snapshots, const char *name, struct vmsnap *ret, struct sm_error *err)
{
	_free_ char *text = NULL;
	_fd_ int dir = -1;
	size_t len;
	int r;

	if (!vmsnap_name_valid(name))
		return error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "no such snapshot of a VM: %s", name);
	dir = openat(snapshots, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (dir < 0)
		return errno == ENOENT ? error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "no such snapshot: %s", name)
				       : error_sys(err, errno, "snapshot %s", name);
	r = read_file_at(dir, "metadata.json", METADATA_MAX, &text, &len);
	if (r < 0)
		return error_sys(err, -r, "snapshot %s: metadata.json", name);
	r = vmsnap_parse(text, len, ret, err);
	return r < 0 ? error_wrap(err, r, "snapshot %s", name) : TAKE_FD(dir);
}

int vmsnap_is_built(int snapshots, const char *name, const char *fingerprint, bool *ret, struct sm_error *err)
{
	struct sm_error why = {0};
	struct vmsnap m = {0};
	_fd_ int dir = vmsnap_open(snapshots, name, &m, &why);
	bool built = m.fingerprint[0];

	*ret = false;
	if (dir == -ENOENT)
		return 0;
	if (dir >= 0)
		*ret = streq(m.fingerprint, fingerprint) && vmsnap_check(dir, name, &m, true, NULL, NULL) == 0 &&
		       vmsnap_chain(snapshots, name, &m, true, NULL, NULL) == 0;
	vmsnap_done(&m);
	return built ? 0 : error_set(err, SM_ERROR_EXISTS, EEXIST, "there is a snapshot %s already", name);
}

static int load_record(int dir, const char *name, struct vm_record *rec, struct sm_error *err)
{
	_free_ char *text = NULL;
	size_t len;
	int r = read_file_at(dir, "config.json", VM_RECORD_MAX, &text, &len);

	if (r < 0)
		return error_sys(err, -r, "snapshot %s: config.json", name);
	r = vm_record_parse(text, len, rec, err);
	return r < 0 ? error_wrap(err, r, "snapshot %s", name) : 0;
}

int vmsnap_restore_begin(struct sm_client *c, const char *name, struct vmsnap_restore *ret, struct vm_record *rec,
			 struct sm_error *err)
{
	struct vmsnap_restore x = {.dirfd = -1, .lock = -1, .volumes_fd = -1};
	_fd_ int snapshots = base_open_dir(c, err);
	int r = snapshots < 0 ? snapshots : 0;

	if (r == 0 && asprintf(&x.dir, "%s/snapshots/%s", c->data_dir, name) < 0)
		r = error_sys(err, ENOMEM, "snapshot %s", name);
	if (r == 0) {
		x.lock = base_lock(snapshots, NULL, err);
		r = MIN(x.lock, 0);
	}
	if (r == 0) {
		x.dirfd = vmsnap_open(snapshots, name, &x.meta, err);
		r = MIN(x.dirfd, 0);
	}
	if (r == 0)
		r = vmsnap_check(x.dirfd, name, &x.meta, true, NULL, err);
	if (r == 0)
		r = vmsnap_chain(snapshots, name, &x.meta, true, &x.under, err);
	if (r == 0)
		r = load_record(x.dirfd, name, rec, err);
	x.num_volumes = (unsigned)strv_len((const char *const *)x.meta.volumes);
	if (r == 0 &&
	    (rec->memory != x.meta.memory || rec->cpus != x.meta.cpus || vm_volumes(rec, false) != x.num_volumes))
		r = error_set(err, SM_ERROR_CORRUPT, EBADMSG, "snapshot %s: its two descriptions differ", name);
	if (r == 0)
		utimensat(snapshots, name, NULL, 0);
	if (r < 0)
		vmsnap_restore_done(&x);
	else
		*ret = x;
	return r;
}

void vmsnap_restore_done(struct vmsnap_restore *r)
{
	vmsnap_done(&r->meta);
	free(r->dir);
	free(r->under);
	r->dir = r->under = NULL;
	r->dirfd = fd_close(r->dirfd);
	r->volumes_fd = fd_close(r->volumes_fd);
	r->lock = fd_close(r->lock);
}

int sm_snapshot_inspect(struct sm_client *client, const char *name, char **ret_json, struct sm_error *err)
{
	_fd_ int snapshots = base_open_dir(client, err), dir = -1;
	_free_ char *meta = NULL, *config = NULL;
	struct vmsnap m = {0};
	uint64_t allocated = 0;
	json_t *o;
	int r;

	if (snapshots < 0)
		return snapshots;
	dir = vmsnap_open(snapshots, name, &m, err);
	if (dir < 0)
		return dir;
	r = vmsnap_format(&m, &meta, err);
	o = r < 0 ? NULL : json_loads(meta, 0, NULL);
	rj_put_str(o, "name", name);
	rj_put_bool(o, "whole",
		    vmsnap_check(dir, name, &m, false, &allocated, NULL) == 0 &&
			    vmsnap_chain(snapshots, name, &m, false, NULL, NULL) == 0);
	rj_put_u64(o, "size", allocated);
	if (o && read_file_at(dir, "config.json", VM_RECORD_MAX, &config, NULL) == 0)
		json_object_set_new(o, "config", json_loads(config, 0, NULL));
	vmsnap_done(&m);
	return o ? rj_dump(o, ret_json, err) : r < 0 ? r : error_sys(err, ENOMEM, "snapshot %s", name);
}
