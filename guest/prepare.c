/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PREPARE service: before a snapshot is taken of a guest that has no image yet, whatever every copy of it would
 * otherwise do at its set-up is done here, once, and memory that nobody needs is made free, so that it is not saved.
 * Nothing secret and nothing of an image is in the guest then. What the copies must not share is renewed in SETUP.
 */
#include "guest/setup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/util.h"
#include "guest/boot.h"
#include "guest/cgroup.h"
#include "guest/spawn.h"

#define WINDOW_DRIVER "bus/virtio/drivers/virtio_pmem"
#define WINDOW_DISK "block/pmem0/size"
#define WINDOW_WAIT_NS 20000000000ULL
#define SPARE "/spare"
/*
 * Free pages are told to the host two seconds after the first became free (mm/page_reporting.c), then block by block.
 * If any became free meanwhile that is done once more, two seconds later, and looks at each large free block: 70 pages
 * that a copy touches. It is not to come in the first second of one.
 */
#define REPORTING_NS 2600000000ULL
#define REPORTING_AGAIN_NS 2300000000ULL
#define REPORTING_FAR_NS 1000000000ULL
#define REPORTING_LOOK_US 100000
#define REPORTED_ORDER 9 /* and what is larger */
#define PAGE 4096u

/* All modules, also those that nothing at hand waits for. */
static void finish_modules(struct agent *a)
{
	a->loader_fd = boot_modules_wait(a->loader_fd);
	while (a->loader_pid > 0 && waitpid(a->loader_pid, NULL, 0) < 0 && errno == EINTR)
		continue;
	a->loader_pid = 0; /* reaped here or before: both are its end */
}

bool has_driver(struct agent *a, const char *driver)
{
	int fd = openat(a->sys_fd, driver, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	bool found = false;

	if (!d) {
		fd_close(fd);
		return false;
	}
	while (!found && (e = readdir(d)))
		found = str_starts(e->d_name, "virtio");
	closedir(d);
	return found;
}

/* The window's disk is found in the background: every copy is to have it already. */
static int await_window(struct agent *a)
{
	uint64_t until = time_now_ns() + WINDOW_WAIT_NS;

	while (has_driver(a, WINDOW_DRIVER) && faccessat(a->sys_fd, WINDOW_DISK, F_OK, 0) < 0) {
		if (time_now_ns() > until)
			return -ENODEV;
		usleep(2000);
	}
	return 0;
}

/* What a set-up mounts, mounted once and taken away: what the kernel makes on first use is there then. */
static void rehearse(void)
{
	static const struct {
		const char *type, *path, *options;
	} mounts[] = {
		{"tmpfs", SPARE, "mode=755"},
		{"overlay", SPARE "/root", "lowerdir=" SPARE "/lower,upperdir=" SPARE "/upper,workdir=" SPARE "/work"},
		{"proc", SPARE "/proc", NULL},
	};
	static const char *const points[] = {"lower", "upper", "work", "root", "proc"};

	mkdir(SPARE, 0700);
	for (size_t i = 0; i < ARRAY_SIZE(mounts); i++) {
		if (mount(mounts[i].type, mounts[i].path, mounts[i].type, 0, mounts[i].options) < 0)
			log_debug("agent", "rehearsal: %s: %s", mounts[i].type, strerror(errno));
		for (size_t p = 0; i == 0 && p < ARRAY_SIZE(points); p++) {
			char path[64];

			snprintf(path, sizeof(path), SPARE "/%s", points[p]);
			mkdir(path, 0755);
		}
	}
	for (size_t i = ARRAY_SIZE(mounts); i--;)
		umount2(mounts[i].path, 0);
	rmdir(SPARE);
}

/*
 * The container's own mounts, its network and its first command's cgroup. That one alone saves each copy much: with the
 * first group that accounts memory the kernel rewrites its code in a hundred places, on some 60 pages, which then are
 * no longer shared.
 */
static void get_ready(struct agent *a)
{
	int r = mounts_ahead(a);

	if (r < 0)
		log_warn("agent", "mounts ahead: %s", strerror(-r));
	cgroup_make_ahead(a);
	spawn_ahead(a);
	setup_network(a);
	disks_learn(a);
}

static void tell_kernel(struct agent *a, const char *file, const char *text)
{
	int r = write_text_at(a->proc_fd, file, text);

	if (r < 0)
		log_debug("agent", "%s: %s", file, strerror(-r));
}

/* Pages that are free in blocks of less than what is told to the host, of a line of buddyinfo: "Node 0, zone DMA32",
 * then how many there are of each order. */
static uint64_t small_pages(const char *line)
{
	const char *at = strstr(line, "zone");
	uint64_t pages = 0;
	char *end;

	if (!at)
		return 0;
	at += strcspn(at, " ");
	at += strspn(at, " ");
	if (str_starts(at, "DMA "))
		return 0; /* kept for devices that there are none of */
	at += strcspn(at, " ");
	for (unsigned order = 0; order < REPORTED_ORDER; order++, at = end) {
		unsigned long long n = strtoull(at, &end, 10);

		if (end == at)
			break;
		pages += n << order;
	}
	return pages;
}

/*
 * A free page keeps what it held, and would be saved with it; one of zeros is a hole. Large free blocks are told to the
 * host and are holes already; the small ones are what is given to whoever asks for page by page: a process's pages,
 * which are zeros.
 */
static void clear_small_blocks(struct agent *a)
{
	_free_ char *text = NULL;
	char *lines, *line;
	struct sysinfo info;
	uint64_t size = 0;
	uint8_t *p;

	if (read_file_at(a->proc_fd, "buddyinfo", 1 << 16, &text, NULL) < 0)
		return;
	for (lines = text; (line = strsep(&lines, "\n"));)
		size += small_pages(line) * PAGE;
	/* Never so much that the kernel would have to look for more. */
	if (sysinfo(&info) < 0)
		return;
	size = MIN(size, (uint64_t)info.freeram * info.mem_unit / 2 / PAGE * PAGE);
	p = size ? mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
		 : MAP_FAILED;
	if (p == MAP_FAILED)
		return;
	madvise(p, size, MADV_NOHUGEPAGE);
	for (uint64_t i = 0; i < size; i += PAGE)
		((volatile uint8_t *)p)[i] = 0;
	munmap(p, size);
}

/* How often the host has answered that it was told; 0: this kernel does not say. */
static unsigned long long reports(struct agent *a)
{
	_free_ char *text = NULL;
	const char *line;

	if (read_file_at(a->proc_fd, "interrupts", 1 << 18, &text, NULL) < 0 || !(line = strstr(text, "-reporting")))
		return 0;
	while (line > text && line[-1] != '\n')
		line--;
	line += strcspn(line, ":\n");
	return *line == ':' ? strtoull(line + 1, NULL, 10) : 0;
}

static void await_reporting(struct agent *a)
{
	uint64_t start = time_now_ns(), last = 0, now;
	unsigned long long seen = reports(a), n;

	for (;;) {
		usleep(REPORTING_LOOK_US);
		now = time_now_ns();
		n = reports(a);
		if (n != seen)
			last = now;
		seen = n;
		if (now - start >= REPORTING_NS &&
		    (!last || now - last <= REPORTING_FAR_NS || now - last >= REPORTING_AGAIN_NS))
			return;
	}
}

static int prepare(struct agent *a, struct proto_prepared *ret)
{
	int r;

	finish_modules(a);
	r = await_window(a);
	if (r < 0)
		return r;
	get_ready(a);
	ret->pluggable = memory_prepare(a);
	rehearse();
	sync();
	tell_kernel(a, "sys/vm/drop_caches", "3");
	tell_kernel(a, "sys/vm/compact_memory", "1");
	disks_ahead(a);
	clear_small_blocks(a);
	await_reporting(a);
	return 0;
}

void prepare_open(struct agent *a, uint32_t ch, struct cursor *request)
{
	_cleanup_(buf_done) struct buf reply = {0};
	struct proto_prepared p = {0};
	int r;

	if (a->role != ROLE_GUEST || a->set_up) {
		agent_refuse(a, ch, -EALREADY, "only a guest without an image can be prepared for a snapshot");
		return;
	}
	r = prepare(a, &p);
	if (r < 0) {
		agent_refuse(a, ch, r, "the image window's disk did not appear");
		return;
	}
	r = proto_prepared_encode(&reply, &p);
	a->prepared = true;
	mux_opened(a->mux, ch, r < 0 ? NULL : &reply);
	mux_close(a->mux, ch, 0, NULL);
}
