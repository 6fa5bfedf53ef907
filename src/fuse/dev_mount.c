/* SPDX-License-Identifier: Apache-2.0 */
/* Mounting and unmounting for the /dev/fuse door. See dev_mount.h. */
#include "fuse/dev_mount.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/process.h"
#include "base/util.h"

#define FS_TYPE "fuse.supermachine"
#define HELPER_LIMIT_MS 10000

/* ------------------------------------------------------------------------------------- the mount point */

/* mountinfo writes blanks, tabs, newlines and backslashes as \ooo. In place. */
static void unescape_octal(char *s)
{
	char *to = s;

	for (; *s; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' && s[3] >= '0' &&
		    s[3] <= '7') {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 3;
		} else {
			*to++ = *s;
		}
	}
	*to = 0;
}

/* The type of the uppermost mount on exactly this path; false when nothing is mounted there. */
static bool mounted_type(const char *path, char *ret, size_t size)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	_free_ char *line = NULL;
	size_t room = 0;
	bool found = false;

	while (f && getline(&line, &room, f) > 0) {
		char *save, *field = strtok_r(line, " ", &save), *dash;

		for (int i = 0; field && i < 4; i++) /* id, parent, device, root, mount point */
			field = strtok_r(NULL, " ", &save);
		dash = field ? strstr(save, "- ") : NULL; /* optional fields end with a lone dash */
		if (!dash)
			continue;
		unescape_octal(field);
		if (!streq(field, path))
			continue;
		snprintf(ret, size, "%.*s", (int)strcspn(dash + 2, " \n"), dash + 2);
		found = true; /* later lines lie above earlier ones */
	}
	if (f)
		fclose(f);
	return found;
}

/* realpath for a path whose last component cannot be looked at, since a dead mount lies on it. */
static char *path_of_dead(const char *path)
{
	_free_ char *copy = strdup(path), *parent = NULL;
	char *end = copy ? copy + strlen(copy) : NULL, *name, *out = NULL;

	while (end && end > copy + 1 && end[-1] == '/')
		*--end = 0;
	name = copy ? strrchr(copy, '/') : NULL;
	parent = realpath(!copy ? "" : !name ? "." : name == copy ? "/" : (*name = 0, copy), NULL);
	name = name ? name + 1 : copy;
	if (!parent || asprintf(&out, "%s/%s", streq(parent, "/") ? "" : parent, name) < 0)
		return NULL;
	return out;
}

static int clear_dead(const char *path, struct sm_error *err)
{
	_free_ char *real = path_of_dead(path);
	char type[64];

	if (!real || !mounted_type(real, type, sizeof(type)))
		return error_set(err, SM_ERROR_HOST, ENOTCONN, "mount point %s: a dead mount is in the way", path);
	if (!streq(type, FS_TYPE))
		return error_set(err, SM_ERROR_HOST, ENOTCONN,
				 "mount point %s: a dead %s mount is in the way: umount it first", path, type);
	dev_unmount(real);
	return 0;
}

/* Asks the server if there is one: what the kernel has cached of a dead mount would be an answer too. */
static int really_stat(const char *path, mode_t *ret_mode)
{
	struct statx stx;

	if (statx(AT_FDCWD, path, AT_STATX_FORCE_SYNC, STATX_TYPE, &stx) < 0)
		return -errno;
	*ret_mode = stx.stx_mode;
	return 0;
}

int dev_mountpoint(const char *path, char **ret, struct sm_error *err)
{
	_free_ char *real = NULL;
	mode_t mode = 0;
	char type[64];
	int r = really_stat(path, &mode);

	for (int i = 0; r == -ENOTCONN && i < 8; i++) { /* several may lie on each other */
		r = clear_dead(path, err);
		if (r < 0)
			return r;
		r = really_stat(path, &mode);
	}
	if (r == 0 && !(real = realpath(path, NULL)))
		r = -errno;
	if (r == 0 && !S_ISDIR(mode))
		r = -ENOTDIR;
	if (r < 0)
		return error_sys(err, -r, "mount point %s", path);
	if (mounted_type(real, type, sizeof(type)) && streq(type, FS_TYPE))
		return error_set(err, SM_ERROR_STATE, EBUSY,
				 "mount point %s: is in use by another server: umount it first", path);
	*ret = TAKE_PTR(real);
	return 0;
}

/* -------------------------------------------------------------------------------------------- mounting */

static int mount_as_root(const char *mountpoint, const char *source, unsigned long flags, struct sm_error *err)
{
	char data[128];
	struct stat st;
	_fd_ int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (fd < 0 && (errno == ENOENT || errno == ENODEV || errno == ENXIO))
		return error_set(err, SM_ERROR_HOST, ENODEV, "this host has no /dev/fuse: modprobe fuse");
	if (fd < 0)
		return error_sys(err, errno, "open /dev/fuse");
	if (stat(mountpoint, &st) < 0)
		return error_sys(err, errno, "mount point %s", mountpoint);
	snprintf(data, sizeof(data), "fd=%d,rootmode=%o,user_id=0,group_id=0,default_permissions,allow_other", fd,
		 st.st_mode & S_IFMT);
	if (mount(source, mountpoint, FS_TYPE, flags, data) < 0)
		return error_sys(err, errno, "mount on %s", mountpoint);
	return TAKE_FD(fd);
}

/* fusermount3 reads commas as ends of options unless a backslash stands before them. */
static void put_escaped(struct buf *b, const char *s)
{
	for (; *s; s++)
		buf_printf(b, *s == ',' || *s == '\\' ? "\\%c" : "%c", *s);
}

/* The caller's environment and _FUSE_COMMFD, by which the helper knows where to send the descriptor. */
static const char **helper_environment(char *commfd)
{
	size_t n = 0, kept = 0;
	const char **env;

	while (environ && environ[n])
		n++;
	env = calloc(n + 2, sizeof(*env));
	for (size_t i = 0; env && i < n; i++)
		if (!str_starts(environ[i], "_FUSE_COMMFD="))
			env[kept++] = environ[i];
	if (env)
		env[kept] = commfd;
	return env;
}

/* Runs fusermount3. What it prints is why it failed. */
static int run_helper(const char *const *argv, int sock, const char *mountpoint, struct sm_error *err)
{
	struct process_options o = {.argv = argv, .fds = {-1, -1, -1}, .keep = &sock, .num_keep = sock >= 0 ? 1 : 0};
	_cleanup_(buf_done) struct buf said = {0};
	char commfd[32];
	_free_ const char **env = NULL;
	int r, status = 0;

	snprintf(commfd, sizeof(commfd), "_FUSE_COMMFD=%d", sock);
	if (sock >= 0 && !(o.env = env = helper_environment(commfd)))
		return error_sys(err, ENOMEM, "mount on %s", mountpoint);
	r = process_run(&o, HELPER_LIMIT_MS, true, 512, &said, &status, err);
	if (r == -ENOENT)
		return error_set(err, SM_ERROR_HOST, ENOENT, "fusermount3 not found: apt-get install fuse3");
	if (r < 0)
		return r;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return error_set(err, SM_ERROR_HOST, EPERM, "mount on %s: %.*s", mountpoint,
				 said.len ? (int)strcspn((const char *)said.data, "\n") : 19,
				 said.len ? (const char *)said.data : "fusermount3 failed ");
	return 0;
}

static int mount_by_helper(const char *mountpoint, const char *source, bool allow_other, bool read_only,
			   struct sm_error *err)
{
	_cleanup_(buf_done) struct buf options = {0};
	_fd_ int ours = -1, theirs = -1;
	int pair[2], fd = -1, r;
	size_t count = 1;
	char byte;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return error_sys(err, errno, "mount on %s", mountpoint);
	ours = pair[0];
	theirs = pair[1];
	buf_printf(&options, "subtype=supermachine,default_permissions%s%s,fsname=", allow_other ? ",allow_other" : "",
		   read_only ? ",ro" : "");
	put_escaped(&options, source);
	r = buf_put(&options, "", 1);
	if (r < 0)
		return error_sys(err, -r, "mount on %s", mountpoint);
	r = run_helper((const char *const[]){"fusermount3", "-o", (const char *)options.data, "--", mountpoint, NULL},
		       theirs, mountpoint, err);
	if (r < 0)
		return r;
	theirs = fd_close(theirs); /* without the descriptor in the socket, end of file is read at once */
	if (fd_recv(ours, &byte, 1, &fd, &count) <= 0 || count != 1)
		return error_set(err, SM_ERROR_HOST, EPERM, "mount on %s: fusermount3 sent no descriptor", mountpoint);
	return fd;
}

int dev_mount(const char *mountpoint, const char *source, bool allow_other, bool read_only, struct sm_error *err)
{
	if (geteuid() == 0)
		return mount_as_root(mountpoint, source, MS_NOSUID | MS_NODEV | (read_only ? MS_RDONLY : 0), err);
	return mount_by_helper(mountpoint, source, allow_other, read_only, err);
}

/* Through the kernel's cache to the server, which still serves. */
static void write_back(const char *mountpoint)
{
	_fd_ int fd = open(mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd >= 0)
		syncfs(fd);
}

void dev_unmount(const char *mountpoint)
{
	if (geteuid() == 0) {
		if (umount2(mountpoint, 0) == 0)
			return;
		write_back(mountpoint);
		umount2(mountpoint, MNT_DETACH);
		return;
	}
	if (run_helper((const char *const[]){"fusermount3", "-u", "--", mountpoint, NULL}, -1, mountpoint, NULL) == 0)
		return;
	write_back(mountpoint);
	/* Nobody is there to tell when this fails too: it is no longer ours, then. */
	if (run_helper((const char *const[]){"fusermount3", "-u", "-z", "--", mountpoint, NULL}, -1, mountpoint, NULL) <
	    0)
		return;
}
