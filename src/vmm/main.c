/* SPDX-License-Identifier: Apache-2.0 */
/* supermachine-vmm: the monitor's program. See config.h for how it is started and what it says. */
#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "virtio/blk_layer.h"
#include "vmm/config.h"
#include "vmm/control.h"
#include "vmm/hugecopy.h"
#include "vmm/seal.h"
#include "vmm/vm.h"

#define CONFIG_MAX (256 * KIB)
#define STACK_LIMIT (8 * MIB)

static int read_config(int fd, struct vmm_config *cfg, struct sm_error *err)
{
	_free_ char *text = malloc(CONFIG_MAX);
	ssize_t n;

	if (!text)
		return error_sys(err, ENOMEM, "configuration");
	n = read_full(fd, text, CONFIG_MAX);
	if (n < 0)
		return error_sys(err, (int)-n, "configuration");
	if (n == (ssize_t)CONFIG_MAX)
		return error_set(err, SM_ERROR_LIMIT, EFBIG, "configuration: too long");
	return vmm_config_parse(text, (size_t)n, cfg, err);
}

/* Everything up to the end of the guest. */
static int run(struct vm *vm, const struct vmm_config *cfg, struct sm_error *err)
{
	int r;

	share_prepare(cfg);
	r = cfg->seal ? seal_process(share_capabilities(cfg), err) : 0;

	r = r < 0 ? r : vm_create(vm, cfg, err);
	r = r < 0 ? r : control_attach(vm, err);
	r = r < 0 ? r : vm_start(vm, err);
	if (r < 0)
		return r;
	control_trace(vm, "sealed");
	control_started(vm);
	r = vm_run(vm);
	return r < 0 ? error_sys(err, -r, "event loop") : 0;
}

/* A keeper in a machine says with this limit where the program is to lie (keeper/monitor.c); threads go by it, too. */
static void take_usual_stack(void)
{
	struct rlimit stack;
	pthread_attr_t attr;

	if (getrlimit(RLIMIT_STACK, &stack) < 0 || stack.rlim_cur == RLIM_INFINITY || stack.rlim_cur <= GIB)
		return;
	stack.rlim_cur = STACK_LIMIT;
	setrlimit(RLIMIT_STACK, &stack);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_LIMIT);
	pthread_setattr_default_np(&attr);
	pthread_attr_destroy(&attr);
}

static int usage(void)
{
	fputs("usage: supermachine-vmm --config-fd N\n"
	      "       supermachine-vmm --merge-layers LOWER_FD UPPER_FD\n"
	      "       supermachine-vmm --huge-copy MEMORY_FD WORKINGSET_FD COPY_FD\n",
	      stderr);
	return 2;
}

/* For the keeper of a VM with many layers, which knows no formats of disks. */
static int merge_layers(const char *lower, const char *upper)
{
	struct sm_error err = {0};
	uint64_t fds[2];

	if (parse_u64(lower, 0, INT32_MAX, &fds[0]) < 0 || parse_u64(upper, 0, INT32_MAX, &fds[1]) < 0)
		return usage();
	if (blk_layer_merge((int)fds[0], (int)fds[1], &err) == 0)
		return 0;
	fprintf(stderr, "supermachine-vmm: %s\n", err.message);
	return 1;
}

/* For the keeper of a VM of a base, which knows no formats of memory either. */
static int huge_copy(char **numbers)
{
	uint64_t fds[3];
	int r;

	for (int i = 0; i < 3; i++)
		if (parse_u64(numbers[i], 0, INT32_MAX, &fds[i]) < 0)
			return usage();
	r = hugecopy_make((int)fds[0], (int)fds[1], (int)fds[2]);
	if (r >= 0)
		return 0;
	fprintf(stderr, "supermachine-vmm: copy on huge pages: %s\n", strerror(-r));
	return 1;
}

int main(int argc, char **argv)
{
	struct vmm_config cfg;
	struct sm_error err = {0};
	struct vm *vm;
	uint64_t fd;
	int r;

	if (argc == 4 && streq(argv[1], "--merge-layers"))
		return merge_layers(argv[2], argv[3]);
	if (argc == 5 && streq(argv[1], "--huge-copy"))
		return huge_copy(argv + 2);
	if (argc != 3 || !streq(argv[1], "--config-fd") || parse_u64(argv[2], 0, INT32_MAX, &fd) < 0)
		return usage();
	take_usual_stack();
	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_IGN); /* a copy that writes a snapshot leaves no remains (saver.h) */
	json_object_seed(1);	  /* else jansson opens /dev/urandom; the keeper is no attacker */
	r = read_config((int)fd, &cfg, &err);
	close((int)fd);
	vm = r < 0 ? NULL : malloc(sizeof(*vm));
	if (!vm) {
		fprintf(stderr, "supermachine-vmm: %s\n", r < 0 ? err.message : strerror(ENOMEM));
		return 1;
	}
	r = run(vm, &cfg, &err);
	pthread_mutex_lock(&vm->lock);
	console_flush(&vm->console);
	if (r < 0) {
		control_exit_error(cfg.control, err.message);
	} else {
		control_stats(vm);
		control_exit(vm);
	}
	/* Closing a VM takes the kernel longer than the user wants to wait; the end of the process does it. */
	_exit(0);
}
