/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether this host's KVM runs guests at speed. The file /dev/kvm proves nothing, so a guest of a few hundred thousand
 * instructions is run: in 64-bit mode with paging on, since that is the mode all real guests spend their time in, in a
 * child process that is killed when its time is over. Hardware, and KVM nested in an emulator, take a few ms; a KVM
 * that interprets takes hundreds. See seat.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/process.h"
#include "base/util.h"
#include "machine/seat.h"

#define GUEST_SIZE (2 * MIB)
#define GUEST_PML4 0x1000u
#define GUEST_PDPT 0x2000u
#define GUEST_PD 0x3000u
#define GUEST_CODE 0x10000u
#define GUEST_ROUNDS 100000u /* of two instructions */
#define TRIES 5
#define TRIES_NS (500u * 1000000u) /* in all */
/*
 * At speed: within 10 ms, or within 40 times what the same loop takes outside of the guest, whichever is more. The
 * second is for a KVM that is nested in a busy emulator. Hardware needs a thousandth of the first, an interpreter
 * several hundred times the second.
 */
#define GOOD_NS (10u * 1000000u)
#define GOOD_RATIO 40u
#define LIMIT_MS 3000
#define CACHE_NAME "kvm-probe"

/* What the child reports; stage names what failed with error. */
struct result {
	int error;
	char stage[28];
	uint64_t best_ns, native_ns;
};

/* This thread's own time, which other processes' turns are not part of; a guest's time is. */
static uint64_t own_time_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* The guest's loop, here. */
static uint64_t time_native(void)
{
	uint64_t start = own_time_ns();
	uint32_t rounds = GUEST_ROUNDS;

	__asm__ volatile("1: dec %0\n\tjnz 1b" : "+r"(rounds) : : "cc");
	return own_time_ns() - start;
}

static uint64_t good_enough_ns(const struct result *res)
{
	return MAX((uint64_t)GOOD_NS, GOOD_RATIO * res->native_ns);
}

static int fail(struct result *res, const char *stage)
{
	res->error = errno ? errno : EIO;
	snprintf(res->stage, sizeof(res->stage), "%s", stage);
	return -res->error;
}

/* Identity map of the first 2 MiB, and a loop: mov ecx, ROUNDS; 1: dec ecx; jnz 1b; hlt; jmp start. */
static void fill_guest(uint8_t *mem)
{
	static const uint8_t code[] = {0xb9,
				       GUEST_ROUNDS & 0xff,
				       (GUEST_ROUNDS >> 8) & 0xff,
				       (GUEST_ROUNDS >> 16) & 0xff,
				       0,
				       0xff,
				       0xc9,
				       0x75,
				       0xfc,
				       0xf4,
				       0xeb,
				       0xf4};
	uint64_t pml4 = GUEST_PDPT | 3, pdpt = GUEST_PD | 3, pd = 0x83;

	memcpy(mem + GUEST_PML4, &pml4, sizeof(pml4));
	memcpy(mem + GUEST_PDPT, &pdpt, sizeof(pdpt));
	memcpy(mem + GUEST_PD, &pd, sizeof(pd));
	memcpy(mem + GUEST_CODE, code, sizeof(code));
}

static int set_long_mode(int vcpu, struct result *res)
{
	struct kvm_segment code = {
		.limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
	struct kvm_segment data = {
		.limit = 0xffffffff, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
	struct kvm_regs regs = {.rip = GUEST_CODE, .rsp = GUEST_SIZE, .rflags = 2};
	struct kvm_sregs sregs;

	if (ioctl(vcpu, KVM_GET_SREGS, &sregs) < 0)
		return fail(res, "KVM_GET_SREGS");
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.cr3 = GUEST_PML4;
	sregs.cr4 = 1u << 5;		     /* PAE */
	sregs.cr0 = 1u | 1u << 4 | 1u << 31; /* PE, ET, PG */
	sregs.efer = 1u << 8 | 1u << 10;     /* LME, LMA */
	if (ioctl(vcpu, KVM_SET_SREGS, &sregs) < 0)
		return fail(res, "KVM_SET_SREGS");
	return ioctl(vcpu, KVM_SET_REGS, &regs) < 0 ? fail(res, "KVM_SET_REGS") : 0;
}

static int time_rounds(int vcpu, const struct kvm_run *run, struct result *res)
{
	uint64_t until = time_now_ns() + TRIES_NS, first = time_native(), second = time_native();

	res->native_ns = MIN(first, second);
	for (int i = 0; i < TRIES && time_now_ns() < until; i++) {
		uint64_t start = own_time_ns(), took;

		while (ioctl(vcpu, KVM_RUN, 0) < 0)
			if (errno != EINTR)
				return fail(res, "KVM_RUN");
		took = own_time_ns() - start;
		if (run->exit_reason != KVM_EXIT_HLT) {
			errno = EIO;
			return fail(res, "the probe's guest");
		}
		if (!res->best_ns || took < res->best_ns)
			res->best_ns = took;
		if (res->best_ns <= good_enough_ns(res))
			break;
	}
	return 0;
}

static int run_guest(int kvm, struct result *res)
{
	struct kvm_userspace_memory_region region = {.memory_size = GUEST_SIZE};
	int vm, vcpu, run_size;
	void *mem, *run;

	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm < 0)
		return fail(res, "KVM_CREATE_VM");
	mem = mmap(NULL, GUEST_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		return fail(res, "mmap");
	fill_guest(mem);
	region.userspace_addr = (uintptr_t)mem;
	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
		return fail(res, "KVM_SET_USER_MEMORY_REGION");
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	if (vcpu < 0)
		return fail(res, "KVM_CREATE_VCPU");
	run_size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	run = run_size > 0 ? mmap(NULL, (size_t)run_size, PROT_READ, MAP_SHARED, vcpu, 0) : MAP_FAILED;
	if (run == MAP_FAILED)
		return fail(res, "KVM_GET_VCPU_MMAP_SIZE");
	return set_long_mode(vcpu, res) < 0 ? -1 : time_rounds(vcpu, run, res);
}

/* In a child, which the kernel cleans up after, also when it must be killed: 0 with res filled, -ETIMEDOUT, or -errno.
 */
static int run_in_child(int kvm, struct result *res)
{
	int pipefd[2], status, r;
	struct pollfd p;
	pid_t pid;

	if (pipe2(pipefd, O_CLOEXEC) < 0)
		return -errno;
	pid = process_fork();
	if (pid == 0) {
		/* No other descriptor may be kept open by this child: somebody may wait for its end of file. */
		int report = dup2(pipefd[1], 0), dev = dup2(kvm, 1);

		syscall(SYS_close_range, 2, ~0U, 0);
		if (report == 0 && dev == 1)
			run_guest(1, res);
		_exit(write(0, res, sizeof(*res)) == sizeof(*res) ? 0 : 1);
	}
	close(pipefd[1]);
	if (pid < 0) {
		close(pipefd[0]);
		return (int)pid;
	}
	p = (struct pollfd){.fd = pipefd[0], .events = POLLIN};
	do
		r = poll(&p, 1, LIMIT_MS);
	while (r < 0 && errno == EINTR);
	if (r == 0)
		r = -ETIMEDOUT;
	else
		r = read_full(pipefd[0], res, sizeof(*res)) == sizeof(*res) ? 0 : -EIO;
	kill(pid, SIGKILL);
	process_wait(pid, &status);
	close(pipefd[0]);
	return r;
}

static void judge(int r, const struct result *res, struct kvm_probe *ret)
{
	double rate;

	if (r == -ETIMEDOUT) {
		ret->state = KVM_STATE_INTERPRETED;
		ret->run_ns = (uint64_t)LIMIT_MS * 1000000;
		snprintf(ret->why, sizeof(ret->why),
			 "/dev/kvm does not run guests at speed (the probe's time was over)");
		return;
	}
	if (r < 0 || res->error) {
		ret->state = KVM_STATE_ABSENT;
		snprintf(ret->why, sizeof(ret->why), "/dev/kvm does not work (%s: %s)", r < 0 ? "probe" : res->stage,
			 strerror(r < 0 ? -r : res->error));
		return;
	}
	ret->run_ns = res->best_ns;
	rate = 2.0 * GUEST_ROUNDS * 1000 / (double)(res->best_ns ? res->best_ns : 1); /* million a second */
	ret->state = res->best_ns <= good_enough_ns(res) ? KVM_STATE_WORKS : KVM_STATE_INTERPRETED;
	if (ret->state == KVM_STATE_WORKS)
		snprintf(ret->why, sizeof(ret->why), "/dev/kvm works");
	else
		snprintf(ret->why, sizeof(ret->why),
			 "/dev/kvm only interprets guests (%.1f million instructions a second)", rate);
}

static const char *open_kvm(int *ret_fd, struct kvm_probe *ret)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	*ret_fd = fd;
	if (fd >= 0)
		return NULL;
	if (errno == EACCES || errno == EPERM) {
		ret->state = KVM_STATE_FORBIDDEN;
		snprintf(ret->fix, sizeof(ret->fix), "sudo usermod -aG kvm $USER   (then log in again)");
		return "no permission to open /dev/kvm";
	}
	ret->state = KVM_STATE_ABSENT;
	if (errno == ENOENT)
		return "no /dev/kvm";
	snprintf(ret->why, sizeof(ret->why), "/dev/kvm does not open: %s", strerror(errno));
	return ret->why;
}

/* ---------------------------------------------------------------------------------------------- memory of a result */

/* The cached answer holds for one boot and one /dev/kvm. */
static int cache_key(int kvm, char key[static 128])
{
	_free_ char *boot = NULL;
	struct stat st;
	size_t len;
	int r = read_file_at(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 64, &boot, &len);

	if (r < 0)
		return r;
	if (fstat(kvm, &st) < 0)
		return -errno;
	boot[strcspn(boot, "\n")] = 0;
	snprintf(key, 128, "1 %s %llx %llx", boot, (unsigned long long)st.st_rdev,
		 (unsigned long long)st.st_ctim.tv_sec);
	return 0;
}

static bool recall(const char *dir, const char *key, struct kvm_probe *ret)
{
	_free_ char *path = NULL, *text = NULL;
	unsigned long long ns;
	unsigned state;
	size_t len, n = strlen(key);
	int at = 0;

	if (asprintf(&path, "%s/" CACHE_NAME, dir) < 0)
		return false;
	if (read_file_at(AT_FDCWD, path, 1024, &text, &len) < 0 || strncmp(text, key, n) != 0 || text[n] != '\n')
		return false;
	if (sscanf(text + n + 1, "%u %llu %n", &state, &ns, &at) != 2 || !at ||
	    (state != KVM_STATE_WORKS && state != KVM_STATE_INTERPRETED))
		return false;
	ret->state = (enum kvm_state)state;
	ret->run_ns = ns;
	snprintf(ret->why, sizeof(ret->why), "%.*s", (int)strcspn(text + n + 1 + at, "\n"), text + n + 1 + at);
	return true;
}

/* Failing to remember costs the next caller some ms, no more. */
static void remember(const char *dir, const char *key, const struct kvm_probe *p)
{
	_cleanup_(buf_done) struct buf b = {0};
	_free_ char *path = NULL;

	if (asprintf(&path, "%s/" CACHE_NAME, dir) < 0)
		return;
	buf_printf(&b, "%s\n%u %llu %s\n", key, (unsigned)p->state, (unsigned long long)p->run_ns, p->why);
	if (!b.error && mkdir_p(dir, 0700) == 0 && write_file_atomic_at(AT_FDCWD, path, b.data, b.len, 0600) < 0)
		unlink(path);
}

void kvm_probe(const char *runtime_dir, struct kvm_probe *ret)
{
	struct result res = {0};
	char key[128];
	_fd_ int kvm = -1;
	const char *why;
	bool keyed;
	int r;

	*ret = (struct kvm_probe){0};
	why = open_kvm(&kvm, ret);
	if (why) {
		if (why != ret->why)
			snprintf(ret->why, sizeof(ret->why), "%s", why);
		return;
	}
	keyed = runtime_dir && cache_key(kvm, key) == 0;
	if (keyed && recall(runtime_dir, key, ret))
		return;
	r = ioctl(kvm, KVM_GET_API_VERSION, 0) == KVM_API_VERSION ? run_in_child(kvm, &res) : -ENOTTY;
	judge(r, &res, ret);
	/* What may be different in a minute (memory, limits) is asked again. */
	if (keyed && ret->state != KVM_STATE_ABSENT)
		remember(runtime_dir, key, ret);
}
