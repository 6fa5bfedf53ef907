/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent as PID 1 of the machine: the Linux under emulation whose root is the host's own /. What it expects of
 *src/machine:
 *
 *	started as	/init --machine, from an initramfs of /init, /modules and /lib/modules/NAME.ko as src/kernel
 *makes it modules		all of /modules, in order, before anything else; virtio_pci, virtiofs and virtio_console
 *must be among them. Those of the list that only KVM needs (kvm-amd, kvm-intel, vhost*, tun) may fail. root
 *the virtio-fs tag "host", which becomes / (chroot). Over it: proc, sysfs, devtmpfs, devpts, tmpfs on /dev/shm,
 *			/dev/mqueue, /run, and cgroup2 on /sys/fs/cgroup. The host's own files under those are hidden.
 * /run/supermachine is made for sockets, mode 0700, and in it huge, a tmpfs on huge pages.
 *	link		the virtio-serial port named "supermachine.agent"; the daemon should be connected before the
 *guest starts. When the daemon goes away (the port reads as ended), commands that are not detached are killed, and the
 *agent waits for the next one. services	EXEC with clear_env, cwd, user "0" and so on, on the host's root: no
 *SETUP, no PID namespace, a cgroup for each command. proto_exec.log and .detached make daemons. CONNECT, READ_FILE,
 *WRITE_FILE, STATS, SYNC_CLOCK (the machine's clock starts at the emulated RTC), POWEROFF.
 */
#include "guest/roles.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/hugedir.h"
#include "base/log.h"
#include "base/util.h"
#include "guest/boot.h"
#include "guest/cgroup.h"

#define PORT_NAME "supermachine.agent"
#define ROOT_TAG "host"
#define NEW_ROOT "/newroot"
#define PORT_WAIT_MS 10000
#define ROOT_MODULE "virtiofs.ko" /* the last that is needed for the root; those for KVM come behind it */
#define CLOCK "devices/system/clocksource/clocksource0/current_clocksource"
#define HUGE_OPTIONS "mode=700,huge=always,size=512m"
#define CLOCK_WAIT_NS 5000000000ULL

static int mount_over(const char *type, const char *path, unsigned long flags, const char *options)
{
	mkdir(path, 0755);
	if (mount(type, path, type, flags, options) == 0)
		return 0;
	log_error("machine", "mount %s on %s: %s", type, path, strerror(errno));
	return -errno;
}

static int enter_root(void)
{
	static const char *const moved[] = {"proc", "sys", "dev"};
	char to[64], from[16];

	mkdir(NEW_ROOT, 0755);
	if (mount(ROOT_TAG, NEW_ROOT, "virtiofs", 0, NULL) < 0)
		return -errno;
	for (size_t i = 0; i < ARRAY_SIZE(moved); i++) {
		snprintf(from, sizeof(from), "/%s", moved[i]);
		snprintf(to, sizeof(to), NEW_ROOT "/%s", moved[i]);
		if (mount(from, to, NULL, MS_MOVE, NULL) < 0)
			log_error("machine", "move %s: %s", from, strerror(errno));
	}
	if (chdir(NEW_ROOT) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
		return -errno;
	return 0;
}

/* Each VM's KVM puts a thread of its own into its maker's cgroup, which otherwise waits for a grace period. */
static void mount_cgroups(void)
{
	if (mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, "favordynmods") < 0)
		mount_over("cgroup2", "/sys/fs/cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL); /* before Linux 6.0 */
}

/* For copies of what VMs read alike. A kernel without it, or without huge pages, has no such directory. */
static void mount_huge(void)
{
	mkdir(HUGE_DIR, 0700);
	if (mount("tmpfs", HUGE_DIR, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, HUGE_OPTIONS) < 0)
		rmdir(HUGE_DIR);
}

static void mount_rest(struct agent *a)
{
	umask(0022);
	mount_over("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "mode=620,gid=5,ptmxmode=666");
	mount_over("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777");
	mount_over("mqueue", "/dev/mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	mount_over("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=755");
	mount_cgroups();
	mkdir("/run/lock", 01777);
	mkdir("/run/supermachine", 0700);
	mount_huge();
	if (cgroup_use(a, "/sys/fs/cgroup") < 0)
		log_warn("machine", "no cgroups");
	boot_loopback_up();
}

/* The port's device node, by its name; a descriptor or -errno. */
static int open_port(struct agent *a)
{
	_fd_ int dir = openat(a->sys_fd, "class/virtio-ports", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = dir < 0 ? NULL : fdopendir(dir);
	struct dirent *entry;
	int fd = -ENOENT;

	if (!d)
		return -ENOENT;
	dir = -1; /* the stream has it */
	while (fd < 0 && (entry = readdir(d))) {
		char path[300];
		_free_ char *name = NULL;

		snprintf(path, sizeof(path), "%s/name", entry->d_name);
		if (entry->d_name[0] == '.' || read_file_at(dirfd(d), path, 256, &name, NULL) < 0)
			continue;
		if (strcspn(name, "\n") != strlen(PORT_NAME) || !str_starts(name, PORT_NAME))
			continue;
		snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
		fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
		if (fd < 0)
			fd = -errno;
	}
	closedir(d);
	return fd;
}

/* The name comes with a message from the host after the driver has found the device, so it may take a moment. */
static int wait_for_port(struct agent *a)
{
	uint64_t until = time_now_ns() + PORT_WAIT_MS * 1000000ULL;
	int fd;

	while ((fd = open_port(a)) < 0 && time_now_ns() < until)
		usleep(2000);
	return fd;
}

/* A port whose host side is not connected reads as ended and polls as hung up. */
static void wait_for_host(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	while (poll(&p, 1, 1000) >= 0 && (p.revents & POLLHUP))
		usleep(20000);
}

/*
 * Linux measures the TSC at its start and once more a second later, and KVM takes the rate that it finds when it is
 * loaded. Where the second is higher by more than 250 ppm, KVM (6.1) takes each new vCPU for one that wants a slower
 * TSC, which emulated SVM cannot give, and counts with a TSC of zero: the guest's timers come late or never.
 */
static void wait_for_clock(struct agent *a)
{
	uint64_t until = time_now_ns() + CLOCK_WAIT_NS;

	while (time_now_ns() < until) {
		_free_ char *name = NULL;

		if (read_file_at(a->sys_fd, CLOCK, 64, &name, NULL) < 0 || !str_starts(name, "tsc-early"))
			return;
		usleep(2000);
	}
	log_warn("machine", "the TSC's rate is not known for good");
}

int machine_role(struct agent *a)
{
	size_t pos = 0;
	int r;

	boot_mounts(a);
	boot_protect_self(a);
	boot_modules(&pos, ROOT_MODULE);
	wait_for_clock(a);
	boot_modules(&pos, NULL);
	r = enter_root();
	if (r < 0) {
		log_error("machine", "the host's root does not mount: %s", strerror(-r));
		return r;
	}
	mount_rest(a);
	machine_hold_kvm();
	machine_start_cpus();
	for (;;) {
		int fd = wait_for_port(a);

		if (fd < 0) {
			log_error("machine", "no port " PORT_NAME ": %s", strerror(-fd));
			return fd;
		}
		wait_for_host(fd);
		r = agent_serve(a, fd);
		if (r < 0)
			log_warn("machine", "the link ended: %s", strerror(-r));
	}
}
