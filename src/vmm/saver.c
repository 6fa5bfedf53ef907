/* SPDX-License-Identifier: Apache-2.0 */
/* Saving a running machine. See saver.h. */
#include "vmm/saver.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/process.h"
#include "base/util.h"
#include "virtio/fs.h"
#include "vmm/control.h"
#include "vmm/overlay.h"
#include "vmm/vm.h"

#define SHARE_LIMIT_NS 5000000000ULL
/*
 * So many pages are written in the pause, which takes about as long as a copy of the page tables; and after that copy
 * the guest would have to touch all its pages anew, and pay for each that it writes.
 */
#define PAGES_AT_ONCE 2048u

/* What the copy says when it is done: bytes of memory, or why not. */
struct report {
	uint64_t bytes;
	bool failed;
	char message[256];
};

/* ---------------------------------------------------------------------------------------- the files */

/* What is to be written, and where. */
struct work {
	const struct vm *vm;
	const struct snapshot_image *img;
	const int *fds;
	bool unsynced;
};

/* They are on the disk of the host before anybody calls them a snapshot. */
static int write_files(const struct work *w, uint64_t *ret_bytes, struct sm_error *err)
{
	const int *fds = w->fds;
	int r = snapshot_write(w->vm, w->img, fds[0], fds[1], ret_bytes, err);

	if (r == 0 && !w->unsynced && (fsync(fds[0]) < 0 || fsync(fds[1]) < 0))
		r = error_sys(err, errno, "files of the snapshot");
	return r;
}

/* In the copy. It ends with the monitor; one that ended before it could say so has closed the socket's other end. */
static _Noreturn void write_and_leave(const struct work *w, int report)
{
	int keep[3 + OVERLAY_MAX + 1] = {w->fds[0], w->fds[1], report};
	const struct ram *ram = &w->vm->ram;
	struct report rep = {0};
	struct sm_error err = {0};
	struct pollfd p = {.fd = report};
	size_t num = 3;

	/* What it came from is looked at to find out what differs. */
	for (unsigned i = 0; i <= ram->num_over; i++)
		if (ram->files[i] >= 0)
			keep[num++] = ram->files[i];
	process_close_others(keep, num);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (poll(&p, 1, 0) > 0 && (p.revents & POLLHUP))
		_exit(1);
	rep.failed = write_files(w, &rep.bytes, &err) < 0;
	snprintf(rep.message, sizeof(rep.message), "%.255s", err.message);
	_exit(send(report, &rep, sizeof(rep), MSG_NOSIGNAL) != sizeof(rep));
}

static void on_report(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct vm *vm = arg;
	struct saver *s = &vm->saver;
	struct report rep;
	ssize_t n = recv(s->report, &rep, sizeof(rep), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	s->src = loop_remove(s->src);
	s->report = fd_close(s->report);
	s->busy = false;
	if (n != (ssize_t)sizeof(rep))
		control_saved(vm, "the process that wrote it has died", 0);
	else
		control_saved(vm, rep.failed ? rep.message : NULL, rep.bytes);
}

/* Has a copy of this process write the files. */
static int start_copy(struct vm *vm, const struct work *w)
{
	struct saver *s = &vm->saver;
	int pair[2], r;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	r = loop_add(vm->loop, pair[0], EPOLLIN, on_report, vm, &s->src);
	pid = r < 0 ? r : fork();
	if (pid == 0)
		write_and_leave(w, pair[1]);
	if (pid < 0 && r == 0)
		r = -errno;
	close(pair[1]);
	if (r < 0) {
		s->src = loop_remove(s->src);
		close(pair[0]);
		return r;
	}
	s->report = pair[0];
	s->busy = true;
	return 0;
}

/* ---------------------------------------------------------------------------------------- the pause */

static int check(const struct vm *vm, const int fds[3], const struct saver_options *o, struct sm_error *err)
{
	if (o->memory.over && !overlay_possible(&vm->ram, o->memory.keep))
		return error_set(err, SM_ERROR_INVALID, EINVAL, "its memory did not come from %u files",
				 o->memory.keep);
	if (fds[0] < 0 || fds[1] < 0)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "a snapshot needs two files");
	if (vm->saver.busy)
		return error_set(err, SM_ERROR_STATE, EBUSY, "another snapshot is being written");
	if (vm->share && vm->dax.size)
		return error_set(err, SM_ERROR_UNSUPPORTED, ENOTSUP,
				 "a machine that has files mapped (dax) cannot be saved");
	return 0;
}

/* From here on the disk's state is another than the one that was taken. */
static int push_top(struct vm *vm, int *top, struct sm_error *err)
{
	int r = *top < 0 ? 0 : devices_push_top(vm, *top, err);

	if (r == 0)
		*top = -1;
	return r;
}

static void go_on(struct vm *vm, bool stay)
{
	if (vm->paused || stay)
		arch_clock_hold(vm);
	else
		vm_resume_locked(vm);
	vm->paused |= stay;
}

/* Threads that serve files would go on between the state of a queue and that of the memory. */
static int hold_share(struct vm *vm, struct sm_error *err)
{
	int r = vm->share ? virtio_fs_hold(virtio_pci_device(vm->devices.functions[SLOT_FS]->pci), SHARE_LIMIT_NS) : 0;

	return r < 0 ? error_sys(err, -r, "a request to a shared directory does not end") : 0;
}

static void release_share(struct vm *vm)
{
	if (vm->share)
		virtio_fs_release(virtio_pci_device(vm->devices.functions[SLOT_FS]->pci));
}

/* A sync is for nobody to wait for, nor is the reading that finds out what is lean. */
static bool is_little(const struct vm *vm, const struct snapshot_image *img, const struct saver_options *o)
{
	unsigned pages = 0;

	if (!o->memory.over || !o->unsynced || o->memory.lean)
		return false;

	for (uint64_t i = 0; i < vm->ram.size / RAM_PAGE / 8 && pages <= PAGES_AT_ONCE; i++)
		pages += (unsigned)__builtin_popcount(img->touched[i]);
	return pages <= PAGES_AT_ONCE;
}

/* *written: there was no need or no room for a copy, so the files were written meanwhile. */
static int freeze(struct vm *vm, int fds[3], const struct saver_options *o, bool *written, struct report *rep,
		  struct sm_error *err)
{
	_cleanup_(snapshot_image_done) struct snapshot_image img = {0};
	struct work w = {.vm = vm, .img = &img, .fds = fds, .unsynced = o->unsynced};
	int r;

	vm_pause_locked(vm);
	if (vm->paused)
		arch_clock_release(vm);
	r = hold_share(vm, err);
	r = r < 0 ? r : snapshot_take(vm, &o->memory, &img, err);
	r = r < 0 ? r : push_top(vm, &fds[2], err);
	if (r == 0 && (is_little(vm, &img, o) || start_copy(vm, &w) < 0)) {
		struct sm_error own = {0};

		*written = true;
		rep->failed = write_files(&w, &rep->bytes, &own) < 0;
		snprintf(rep->message, sizeof(rep->message), "%.255s", own.message);
	}
	release_share(vm);
	go_on(vm, o->stay && r == 0);
	return r;
}

void saver_start(struct vm *vm, int fds[3], const struct saver_options *o)
{
	struct sm_error err = {0};
	struct report rep = {0};
	bool written = false;
	uint64_t start = time_now_ns();
	int r = check(vm, fds, o, &err);

	r = r < 0 ? r : freeze(vm, fds, o, &written, &rep, &err);
	if (r < 0) {
		control_saved(vm, err.message, 0);
		return;
	}
	control_frozen(vm, time_now_ns() - start);
	if (written)
		control_saved(vm, rep.failed ? rep.message : NULL, rep.bytes);
}
