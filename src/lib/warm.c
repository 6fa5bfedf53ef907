/* SPDX-License-Identifier: Apache-2.0 */
/* A VM of an image that has run a command, or runs it still, as a snapshot from which others go on. See build.h. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/sha256hex.h"
#include "base/util.h"
#include "lib/build.h"
#include "lib/vmsnap.h"

#define LOOK_EVERY_MS 20
#define FINGERPRINT_VERSION "supermachine snapshot 1"

/* The image's name, without a registry's host, as a snapshot's: "python:3.12" is python-3.12. */
static void snapshot_name(const char *given, const struct image_info *image, char ret[static VM_NAME_MAX + 1])
{
	const char *name = given ? given : image->names && image->names[0] ? image->names[0] : image->id;
	const char *slash = strrchr(name, '/');
	size_t n;

	snprintf(ret, VM_NAME_MAX + 1, "%s", slash ? slash + 1 : name);
	n = strlen(ret);
	if (n > 7 && streq(ret + n - 7, ":latest"))
		ret[n - 7] = 0;
	for (char *p = ret; *p; p++)
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-", *p))
			*p = '-';
}

static int fingerprint(const struct build *b, const struct image_info *image, char ret[static 65], struct sm_error *err)
{
	_cleanup_(buf_done) struct buf text = {0};

	print_text(&text, FINGERPRINT_VERSION);
	print_text(&text, image->id);
	print_list(&text, b->o.warm);
	print_text(&text, b->o.warm_ready);
	buf_put_u64(&text, b->o.memory);
	buf_put_u64(&text, b->o.cpus);
	if (text.error)
		return error_sys(err, -text.error, "snapshot");
	sha256_hex(text.data, text.len, 64, ret);
	return 0;
}

static int cancelled(struct sm_error *err)
{
	return error_set(err, SM_ERROR_CANCELLED, ECANCELED, "the build was cancelled");
}

static int timed_out(struct sm_error *err)
{
	return error_set(err, SM_ERROR_TIMEOUT, ETIMEDOUT,
			 "no snapshot was made: the warm-up command took longer than it may");
}

/* Runs the command to its end in a VM that has none of its own. */
static int run_to_end(struct build *b, struct sm_vm *vm, struct sm_error *err)
{
	struct sm_exec_options o = SM_EXEC_OPTIONS_INIT;
	struct sm_outcome outcome = SM_OUTCOME_INIT;
	struct sm_exec *exec = NULL;
	int r;

	o.argv = b->o.warm;
	o.stdout_fd = o.stderr_fd = b->o.warm_output_fd;
	o.cancel_fd = b->o.cancel_fd;
	o.timeout_ns = b->o.warm_timeout_ns;
	r = sm_vm_exec(vm, &o, &exec, err);
	r = r < 0 ? r : sm_exec_wait(exec, &outcome, err);
	sm_exec_close(exec);
	if (r < 0)
		return r;
	b->result.warm_status = outcome.status;
	if (outcome.timed_out)
		return timed_out(err);
	return outcome.status ? error_set(err, SM_ERROR_GUEST, EIO,
					  "no snapshot was made: the warm-up command ended with status %d%s%s",
					  outcome.status, outcome.message[0] ? ": " : "", outcome.message)
			      : 0;
}

/* Until the path is there, or the VM ends. */
static int await_path(struct build *b, struct sm_vm *vm, struct sm_error *err)
{
	uint64_t limit = b->o.warm_timeout_ns, since = time_now_ns();
	struct sm_file_info *info = NULL;
	struct sm_error why = {0};
	int r;

	while ((r = sm_vm_stat(vm, b->o.warm_ready, true, &info, &why)) == -ENOENT) {
		struct pollfd p = {.fd = b->o.cancel_fd, .events = POLLIN};

		if (limit && time_now_ns() - since >= limit)
			return timed_out(err);
		poll(&p, b->o.cancel_fd >= 0, LOOK_EVERY_MS);
		if (build_is_cancelled(b, "warm-up"))
			return cancelled(err);
		why = (struct sm_error){0};
	}
	sm_file_info_free(info);
	return r < 0 ? error_set(err, SM_ERROR_GUEST, EIO,
				 "no snapshot was made: the warm-up command has to stay, and to make %s: %s",
				 b->o.warm_ready, why.message)
		     : 0;
}

static int start(struct build *b, const struct image_info *image, struct sm_vm **ret, struct sm_error *err)
{
	static const char *const none[] = {NULL};
	struct sm_vm_options o = SM_VM_OPTIONS_INIT;

	o.image = image->id;
	o.pull = SM_PULL_NEVER;
	o.memory = b->o.memory;
	o.cpus = b->o.cpus;
	o.background = true;
	o.no_command = !b->o.warm_ready;
	o.entrypoint = b->o.warm_ready ? none : NULL;
	o.argv = b->o.warm_ready ? b->o.warm : NULL;
	o.progress = (struct sm_progress){.update = b->progress.update, .arg = b->progress.arg};
	return sm_vm_start(b->client, &o, ret, err);
}

static int make(struct build *b, const struct image_info *image, const char *key, struct sm_error *err)
{
	struct sm_vm *vm = NULL;
	int r = start(b, image, &vm, err);

	if (r < 0)
		return r;
	r = b->o.warm_ready ? await_path(b, vm, err) : run_to_end(b, vm, err);
	if (r == 0 && build_is_cancelled(b, "snapshot"))
		r = cancelled(err);
	if (r == 0)
		r = vmsnap_take_built(vm, b->result.snapshot, key, err);
	sm_vm_close(vm);
	return r;
}

/* Whether there is nothing to do; an error if the name is another's. */
static int check_name(struct build *b, int snapshots, const char *key, struct sm_error *err)
{
	const char *name = b->result.snapshot;
	bool same = false;
	int r;

	if (!vmsnap_name_valid(name))
		return error_set(err, SM_ERROR_INVALID, EINVAL,
				 "\"%s\" is no name for a snapshot: letters, digits, _ . -, at most %d, not base-...",
				 name, VM_NAME_MAX);
	if (faccessat(snapshots, name, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	if (b->o.warm_keep)
		return error_set(err, SM_ERROR_EXISTS, EEXIST, "there is a snapshot %s already", name);
	r = vmsnap_is_built(snapshots, name, key, &same, err);
	if (r == 0 && (!same || b->o.rebuild)) {
		same = false;
		r = vmsnap_unneeded(snapshots, name, err); /* before all that work */
	}
	b->result.snapshot_reused = r == 0 && same;
	return r;
}

int warm_snapshot(struct build *b, const struct image_info *image, struct sm_error *err)
{
	_fd_ int snapshots = base_open_dir(b->client, err);
	struct image_turn *turn;
	char key[65];
	int r = snapshots < 0 ? snapshots : fingerprint(b, image, key, err);

	if (r < 0)
		return r;
	if (b->o.warm_name)
		snprintf(b->result.snapshot, sizeof(b->result.snapshot), "%s", b->o.warm_name);
	else
		snapshot_name(b->o.name, image, b->result.snapshot);
	r = image_turn_take(b->store, key, &b->progress, &turn, err);
	if (r < 0)
		return r;
	r = check_name(b, snapshots, key, err);
	if (r == 0 && !b->result.snapshot_reused)
		r = make(b, image, key, err);
	image_turn_end(turn);
	return r;
}
