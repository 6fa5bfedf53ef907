/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directories and files of the host in the container. The virtio-fs device shows them as "0", "1", ... in one file
 * system, each a submount; of each a detached mount is made, which is put on its target later: see setup.h.
 *
 * One with cow is the lower layer of an overlay whose upper layer lies beside the container's own: what is changed
 * stays in the VM, and is there again when the VM is started again. Volumes (volumes.c) are clones of the same kind.
 */
#include "guest/setup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/util.h"
#include "guest/refresh.h"

#define TAG "supermachine"
#define SHARES "/shares"
#define COW SETUP_WRITABLE "/cow"
#define DRIVER_WAIT_NS 10000000000ULL

/* The mount interface of Linux 5.12, by number: the C library at hand need not know it. */
enum { CALL_OPEN_TREE = 428, CALL_MOVE_MOUNT = 429, CALL_MOUNT_SETATTR = 442 };
#define TREE_CLONE 1U
#define FROM_EMPTY_PATH 0x4U
#define TO_SYMLINKS 0x10U
#define EMPTY_PATH 0x1000U
#define ATTR_READ_ONLY 1ULL

struct mount_attributes {
	uint64_t set, clear, propagation, userns_fd;
};

/* The driver's modules may still be loading, in the background. */
static int mount_device(struct sm_error *err)
{
	uint64_t until = time_now_ns() + DRIVER_WAIT_NS;

	mkdir(SHARES, 0700);
	while (mount(TAG, SHARES, "virtiofs", 0, NULL) < 0) {
		if ((errno != ENODEV && errno != EINVAL) || time_now_ns() > until)
			return error_sys(err, errno, "mount the host's directories (virtiofs)");
		usleep(1000);
	}
	return 0;
}

/* The upper layer's root begins with the attributes of the directory below it. */
static int make_layers(const char *lower, const char *upper, const char *work, struct sm_error *err)
{
	struct stat st;

	if (mkdir_p(work, 0700) < 0)
		return error_sys(err, errno, "the writable layer: %s", work);
	if (mkdir(upper, 0755) < 0)
		return errno == EEXIST ? 0 : error_sys(err, errno, "the writable layer: %s", upper);
	if (stat(lower, &st) < 0 || chown(upper, st.st_uid, st.st_gid) < 0 || chmod(upper, st.st_mode & 07777) < 0)
		return error_sys(err, errno, "the writable layer: %s", upper);
	return 0;
}

/* Mounts the overlay for number i, on a directory of its own. */
static int mount_cow(unsigned i, const char *lower, char *ret, size_t size, struct sm_error *err)
{
	char upper[64], work[64], options[256];
	_fd_ int fd =
		open(lower, O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* makes the submount, which overlayfs would not */
	int r;

	if (fd < 0)
		return error_sys(err, errno, "open a directory of the host");

	snprintf(upper, sizeof(upper), COW "/%u/upper", i);
	snprintf(work, sizeof(work), COW "/%u/work", i);
	snprintf(ret, size, COW "/%u/merged", i);
	r = make_layers(lower, upper, work, err);
	if (r < 0)
		return r;
	mkdir(ret, 0700);
	snprintf(options, sizeof(options), "lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work);
	if (mount("overlay", ret, "overlay", 0, options) < 0)
		return error_sys(err, errno, "mount the overlay over a directory of the host");
	return 0;
}

/* What a mount shows, as a path of the agent's own root. */
static int find_source(struct agent *a, const struct shares *shares, const struct proto_mount *m, char *ret,
		       size_t size, struct sm_error *err)
{
	unsigned i = shares->num - shares->num_volumes;
	char path[64], upper[64];
	int r;

	if (m->volume)
		return volume_open(a, m, ret, size, err);
	snprintf(path, sizeof(path), SHARES "/%u", i);
	if (!m->cow) {
		snprintf(ret, size, "%s", path);
		return 0;
	}
	r = mount_cow(i, path, ret, size, err);
	snprintf(upper, sizeof(upper), COW "/%u/upper", i);
	return r < 0 ? r : layers_keep(a, m->target, path, upper, err);
}

/* A detached mount of what is there, as m wants it. */
static int clone_tree(const char *source, const struct proto_mount *m, struct sm_error *err)
{
	struct mount_attributes attributes = {.set = ATTR_READ_ONLY};
	_fd_ int tree = (int)syscall(CALL_OPEN_TREE, AT_FDCWD, source, TREE_CLONE | O_CLOEXEC);

	if (tree < 0)
		return error_sys(err, errno, "open what belongs on %s", m->target);
	if (m->read_only && syscall(CALL_MOUNT_SETATTR, tree, "", EMPTY_PATH, &attributes, sizeof(attributes)) < 0)
		return error_sys(err, errno, "make the mount on %s read-only", m->target);
	return TAKE_FD(tree);
}

static int open_one(struct agent *a, struct shares *shares, const struct proto_mount *m, struct sm_error *err)
{
	char source[64];
	_fd_ int tree = -1;
	int r = find_source(a, shares, m, source, sizeof(source), err);

	if (r < 0)
		return r;
	tree = clone_tree(source, m, err);
	if (tree < 0)
		return tree;
	if (m->volume)
		volume_let_go(m);
	shares->num_volumes += m->volume;
	shares->trees[shares->num++] = TAKE_FD(tree);
	return 0;
}

/* From here on the host may say what changed. Without that the kernel asks again by itself, only less often. */
static void follow_changes(struct agent *a)
{
	int r;

	a->shares_fd = open(SHARES, O_PATH | O_DIRECTORY | O_CLOEXEC);
	r = a->shares_fd < 0 ? -errno : refresh_start(a->shares_fd, a->proc_fd);

	if (r < 0)
		log_warn("agent", "changes of the host's directories will be seen late: %s", strerror(-r));
}

/* Whether any is of the host's: volumes want no device. */
static bool has_shares(const struct proto_setup *s)
{
	struct proto_mount m;

	for (char **text = s->mounts; text && *text; text++)
		if (proto_mount_parse(*text, &m) == 0 && !m.volume)
			return true;
	return false;
}

int shares_open(struct agent *a, const struct proto_setup *s, struct shares *ret, struct sm_error *err)
{
	bool device = has_shares(s);
	int r = device ? mount_device(err) : 0;

	if (r == 0 && device)
		follow_changes(a);

	for (char **text = s->mounts; text && *text && r == 0; text++) {
		struct proto_mount m;

		if (ret->num == MAX_SHARES || proto_mount_parse(*text, &m) < 0)
			return error_set(err, SM_ERROR_INVALID, EINVAL, "mount '%s'", *text);
		r = open_one(a, ret, &m, err);
	}
	return r;
}

/* The mount point, and what is missing on the way to it. */
static int make_target(const struct proto_mount *m, struct sm_error *err)
{
	_free_ char *parent = strdup(m->target);
	struct stat st;
	int fd, r;

	if (!parent)
		return error_sys(err, ENOMEM, "mount on %s", m->target);
	if (stat(m->target, &st) == 0) {
		if (S_ISDIR(st.st_mode) == m->is_file)
			return error_set(err, SM_ERROR_INVALID, ENOTDIR, "%s is %s in the VM, but %s", m->target,
					 m->is_file ? "a directory" : "a file",
					 m->volume    ? "a volume is a directory"
					 : m->is_file ? "a file on the host"
						      : "a directory on the host");
		return 0;
	}
	*strrchr(parent, '/') = '\0';
	r = *parent ? mkdir_p(parent, 0755) : 0;
	if (r == 0 && !m->is_file && mkdir(m->target, 0755) < 0)
		r = -errno;
	if (r == 0 && m->is_file) {
		fd = open(m->target, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
		r = fd < 0 ? -errno : 0;
		fd_close(fd);
	}
	return r < 0 ? error_sys(err, -r, "make the mount point %s", m->target) : 0;
}

static int put_tree(int tree, const struct proto_mount *m, struct sm_error *err)
{
	if (syscall(CALL_MOVE_MOUNT, tree, "", AT_FDCWD, m->target, FROM_EMPTY_PATH | TO_SYMLINKS) < 0)
		return error_sys(err, errno, "mount on %s", m->target);
	return 0;
}

int shares_attach(const struct proto_setup *s, const struct shares *shares, struct sm_error *err)
{
	for (unsigned i = 0; i < shares->num; i++) {
		struct proto_mount m;
		int r = proto_mount_parse(s->mounts[i], &m);

		if (r == 0)
			r = make_target(&m, err);
		if (r < 0)
			return r;
		r = put_tree(shares->trees[i], &m, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* The agent's own root is the container's by now: the target is where the whole of it is mounted for a moment, in which
 * no process runs. */
int shares_add_volume(struct agent *a, const struct proto_mount *m, struct sm_error *err)
{
	_free_ char *data = NULL;
	_fd_ int tree = -1;
	int r;

	if (asprintf(&data, "%s/" VOLUME_DATA, m->target) < 0) {
		data = NULL;
		return error_sys(err, ENOMEM, "mount on %s", m->target);
	}
	volume_take_off(a, m->target);
	r = make_target(m, err);
	if (r == 0)
		r = volume_open_on_target(a, m, err);
	if (r < 0)
		return r;
	tree = clone_tree(data, m, err);
	umount2(m->target, MNT_DETACH);
	return tree < 0 ? tree : put_tree(tree, m, err);
}

void shares_done(struct shares *shares)
{
	while (shares->num)
		fd_close(shares->trees[--shares->num]);
}
