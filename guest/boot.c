/* SPDX-License-Identifier: Apache-2.0 */
/* The first steps of a PID 1. See boot.h. */
#include "guest/boot.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/if_ether.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/resource.h>
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
	a->dev_fd = open("/dev", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/*
 * As a batch process the agent does not pre-empt a command that writes, so on one CPU it wakes to a full pipe and not
 * to each write: a fifth of the frames for a program that writes 4 KiB at a time.
 */
static void be_patient(void)
{
	struct sched_param none = {0};

	/* By number: musl has the function only as a stub. */
	syscall(SYS_sched_setscheduler, 0, SCHED_BATCH, &none);
}

void boot_protect_self(struct agent *a)
{
	_fd_ int fd = a->proc_fd < 0 ? -1 : openat(a->proc_fd, "self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd >= 0 && write_full(fd, "-1000", 5) < 0)
		log_warn("agent", "no protection from the memory killer: %s", strerror(errno));
	be_patient();
}

/*
 * The length of a module without the signature appended to it. Checking that costs several ms each where the CPU is
 * emulated, and the initramfs that we were started from is as trusted as the kernel beside it. (The kernel notes it by
 * its taint flag E.)
 */
static size_t unsigned_length(const uint8_t *p, size_t len)
{
	static const char magic[] = "~Module signature appended~\n";
	size_t trailer = sizeof(magic) - 1 + 12;
	uint32_t sig;

	if (len < trailer || memcmp(p + len - (sizeof(magic) - 1), magic, sizeof(magic) - 1) != 0)
		return len;
	/* struct module_signature ends in the signature's length, big-endian. */
	p += len - sizeof(magic) + 1 - 4;
	sig = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
	return sig <= len - trailer ? len - trailer - sig : len;
}

static int insert(const char *path)
{
	_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	void *p;
	long r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	r = syscall(SYS_init_module, p, unsigned_length(p, (size_t)st.st_size), "");
	if (r < 0 && errno != EEXIST) /* one that insists on signatures */
		r = syscall(SYS_finit_module, fd, "", 0);
	r = r < 0 && errno != EEXIST ? -errno : 0;
	munmap(p, (size_t)st.st_size);
	return (int)r;
}

static void load(const char *name)
{
	uint64_t start = time_now_ns();
	char path[300];
	int r;

	snprintf(path, sizeof(path), MODULE_DIR "/%s", name);
	r = insert(path);
	if (r < 0)
		log_error("agent", "module %s: %s", name, strerror(-r));
	unlink(path);
	log_debug("agent", "module %s: %llu us", name, (unsigned long long)(time_now_ns() - start) / 1000);
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

/* In the child. */
static void load_rest(size_t pos, const char *last, int done) __attribute__((noreturn));
static void load_rest(size_t pos, const char *last, int done)
{
	boot_modules(&pos, last);
	close(done);
	setpriority(PRIO_PROCESS, 0, 19);
	boot_modules(&pos, NULL);
	_exit(0);
}

int boot_modules_behind(size_t pos, const char *last, pid_t *ret_pid)
{
	int ends[2];
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) == 0) {
		pid = fork();
		if (pid == 0)
			load_rest(pos, last, ends[1]);
		close(ends[1]);
		if (pid > 0) {
			*ret_pid = pid;
			return ends[0];
		}
		close(ends[0]);
	}
	boot_modules(&pos, NULL);
	return -1;
}

int boot_modules_wait(int fd)
{
	char c;

	while (fd >= 0 && read(fd, &c, 1) < 0 && errno == EINTR)
		continue;
	return fd_close(fd);
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

void boot_renew_address(void)
{
	struct ifreq ifr = {.ifr_name = "eth0"};
	uint8_t *mac = (uint8_t *)ifr.ifr_hwaddr.sa_data;
	_fd_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	ifr.ifr_hwaddr.sa_family = ARPHRD_ETHER;
	if (fd < 0 || getrandom(mac, ETH_ALEN, GRND_NONBLOCK) != ETH_ALEN)
		return;
	mac[0] = (uint8_t)((mac[0] & 0xfc) | 0x02); /* locally administered, for one station */
	ioctl(fd, SIOCSIFHWADDR, &ifr);
}
