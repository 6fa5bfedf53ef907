/* SPDX-License-Identifier: Apache-2.0 */
/* The first steps of a PID 1. See boot.h. */
#include "guest/boot.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/util.h"

#define MODULE_LIST "/modules"
#define MODULE_DIR "/lib/modules"

void boot_mounts(struct agent *a)
{
	static const struct {
		const char *type, *path;
	} mounts[] = {{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}};

	for (size_t i = 0; i < ARRAY_SIZE(mounts); i++) {
		mkdir(mounts[i].path, 0755);
		if (mount(mounts[i].type, mounts[i].path, mounts[i].type, MS_NOSUID | MS_NOEXEC, NULL) < 0 &&
		    errno != EBUSY)
			log_error("agent", "mount %s: %s", mounts[i].path, strerror(errno));
	}
	a->proc_fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	a->sys_fd = open("/sys", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

void boot_protect_self(struct agent *a)
{
	_fd_ int fd = a->proc_fd < 0 ? -1 : openat(a->proc_fd, "self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd >= 0 && write_full(fd, "-1000", 5) < 0)
		log_warn("agent", "no protection from the memory killer: %s", strerror(errno));
}

static void load(const char *name)
{
	char path[300];
	_fd_ int fd = -1;

	snprintf(path, sizeof(path), MODULE_DIR "/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
		log_error("agent", "module %s: %s", name, strerror(errno));
	unlink(path);
}

void boot_modules(size_t *pos, const char *last)
{
	_free_ char *list = NULL;
	size_t len;
	char *p, *end;

	if (read_file_at(AT_FDCWD, MODULE_LIST, 65536, &list, &len) < 0)
		return;
	for (p = list + MIN(*pos, len); *p; p = end + 1) {
		end = strchrnul(p, '\n');
		*pos = (size_t)(end - list) + 1;
		if (!*end)
			end--; /* a last line without newline */
		else
			*end = '\0';
		if (*p && !strchr(p, '/') && strlen(p) < 200)
			load(p);
		if (last && streq(p, last))
			break;
	}
}

void boot_loopback_up(void)
{
	struct ifreq ifr = {.ifr_name = "lo"};
	_fd_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &ifr) < 0)
		return;
	ifr.ifr_flags |= IFF_UP | IFF_RUNNING;
	ioctl(fd, SIOCSIFFLAGS, &ifr);
}
