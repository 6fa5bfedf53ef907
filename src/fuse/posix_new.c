/* SPDX-License-Identifier: Apache-2.0 */
/* The posix backend: how one is made and unmade. See posix.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "fuse/posix_node.h"

#define DEFAULT_FDS 4096u

static void set_budgets(struct posix_fs *fs)
{
	struct rlimit lim = {.rlim_cur = 1024};

	getrlimit(RLIMIT_NOFILE, &lim);
	if (!fs->options.max_fds)
		fs->options.max_fds = DEFAULT_FDS;
	fs->options.max_fds = (unsigned)MIN((rlim_t)fs->options.max_fds, MAX(lim.rlim_cur / 4, (rlim_t)16));
	if (!fs->options.max_open)
		fs->options.max_open = (unsigned)MIN(lim.rlim_cur / 2, (rlim_t)(1u << 20));
}

/* File handles need a file system that has them, and CAP_DAC_READ_SEARCH to open them: tried once on the root. */
static void probe_handles(struct posix_fs *fs, int path_fd)
{
	struct {
		struct file_handle h;
		uint8_t bytes[POSIX_HANDLE_MAX];
	} room = {.h.handle_bytes = POSIX_HANDLE_MAX};
	int mount_id, fd;

	fs->mount_fd = openat(path_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	/* A file system may be one where handles have no meaning: without either, names must do. */
	if (fs->mount_fd < 0 || name_to_handle_at(path_fd, "", &room.h, &mount_id, AT_EMPTY_PATH) < 0)
		return;
	fd = open_by_handle_at(fs->mount_fd, &room.h, O_PATH | O_CLOEXEC);
	fs->by_handle = fd >= 0;
	fd_close(fd);
}

/* Takes fd over. */
static int make_root(struct posix_fs *fs, int fd)
{
	struct posix_seen seen;
	uint64_t id;
	int r = posix_see(fd, "", &seen);

	if (r == 0 && !S_ISDIR(seen.st.st_mode) && !S_ISREG(seen.st.st_mode))
		r = -EINVAL;
	if (r < 0) {
		close(fd);
		return r;
	}
	r = posix_node_enter(fs, NULL, NULL, fd, &seen, NULL, &id);
	if (r < 0)
		return r;
	if (posix_fd_get(fs, id, &fs->root) < 0)
		return -ESTALE;
	posix_fd_put(fs, fs->root);
	return 0;
}

/* Kernels from 6.13 on give a file that was looked at a finer time at its next change (multigrain timestamps). */
static bool has_fine_times(void)
{
	unsigned major = 0, minor = 0;
	struct utsname u;

	return uname(&u) == 0 && sscanf(u.release, "%u.%u", &major, &minor) == 2 &&
	       (major > 6 || (major == 6 && minor >= 13));
}

static int new_on(struct posix_fs *fs, int fd)
{
	pthread_mutexattr_t attr;
	int r;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ADAPTIVE_NP); /* held for moments only */
	pthread_mutex_init(&fs->lock, &attr);
	pthread_mutexattr_destroy(&attr);
	fs->fine_times = has_fine_times();
	fs->proc_fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	fs->be.ops = &posix_ops;
	fs->mount_fd = -1;
	if (getrandom(&fs->generation, sizeof(fs->generation), 0) != sizeof(fs->generation)) {
		close(fd);
		return -EIO;
	}
	fs->generation &= UINT32_MAX; /* the kernel keeps as much of it */
	fs->uid = geteuid();
	fs->gid = getegid();
	fs->capabilities = 1;
	if (fs->options.symlinks == FUSE_POSIX_FOLLOW) /* one file has many names then: none is known to hold */
		fs->options.valid_ns = 0;
	set_budgets(fs);
	probe_handles(fs, fd);
	r = posix_table_init(fs);
	if (r < 0) {
		close(fd);
		return r;
	}
	return make_root(fs, fd);
}

int fuse_posix_new_fd(int fd, const char *name, const struct fuse_posix_options *options, struct sm_fs_backend **ret,
		      struct sm_error *err)
{
	struct posix_fs *fs = calloc(1, sizeof(*fs));
	int r;

	if (!fs) {
		close(fd);
		return error_sys(err, ENOMEM, "%s", name);
	}
	if (options)
		fs->options = *options;
	r = fs->options.ids == FUSE_POSIX_RANGES ? posix_ids_parse(fs->options.id_ranges, &fs->ids) : 0;
	fs->options.id_ranges = NULL;
	if (r < 0) {
		close(fd);
		free(fs);
		return error_set(err, SM_ERROR_INVALID, -r, "%s: ids are given as u:PEER:HOST:COUNT,g:PEER:HOST:COUNT",
				 name);
	}
	r = new_on(fs, fd);
	if (r < 0) {
		fuse_posix_free(&fs->be);
		return error_sys(err, -r, "%s", name);
	}
	*ret = &fs->be;
	return 0;
}

int fuse_posix_new(const char *path, const struct fuse_posix_options *options, struct sm_fs_backend **ret,
		   struct sm_error *err)
{
	int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? error_sys(err, errno, "directory %s", path) : fuse_posix_new_fd(fd, path, options, ret, err);
}

struct sm_fs_backend *fuse_posix_free(struct sm_fs_backend *be)
{
	struct posix_fs *fs = be ? posix_fs_of(be) : NULL;

	if (!fs)
		return NULL;
	posix_table_done(fs);
	fd_close(fs->mount_fd);
	fd_close(fs->proc_fd);
	pthread_mutex_destroy(&fs->lock);
	free(fs);
	return NULL;
}

void fuse_posix_get_stats(struct sm_fs_backend *be, struct fuse_posix_stats *ret)
{
	struct posix_fs *fs = posix_fs_of(be);

	pthread_mutex_lock(&fs->lock);
	*ret = (struct fuse_posix_stats){
		.nodes = fs->num_nodes, .fds = fs->num_fds, .open_files = fs->num_open, .reopened = fs->reopened};
	pthread_mutex_unlock(&fs->lock);
}

const int fuse_posix_syscalls[] = {
	SYS_statx,
	SYS_syncfs,
	SYS_openat,
	SYS_close,
	SYS_newfstatat,
	SYS_fstat,
	SYS_readlinkat,
	SYS_symlinkat,
	SYS_mkdirat,
	SYS_mknodat,
	SYS_unlinkat,
	SYS_linkat,
	SYS_renameat2,
	SYS_renameat,
	SYS_chmod,
	SYS_fchmod,
	SYS_fchownat,
	SYS_utimensat,
	SYS_ftruncate,
	SYS_fstatfs,
	SYS_fgetxattr,
	SYS_getxattr,
	SYS_setxattr,
	SYS_listxattr,
	SYS_removexattr,
	SYS_preadv,
	SYS_pwritev,
	SYS_pwritev2,
	SYS_fsync,
	SYS_fdatasync,
	SYS_fallocate,
	SYS_lseek,
	SYS_copy_file_range,
	SYS_getdents64,
	SYS_futex,
	SYS_mmap,
	SYS_munmap,
	SYS_mremap,
	SYS_brk,
	SYS_madvise,
	SYS_openat2,
	SYS_name_to_handle_at,
	-1,
};
