/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One virtual machine, with one vCPU, that the machine keeps as long as it lives and never runs.
 *
 * KVM rewrites the kernel's own code (static keys) when the first VM of a host comes and when the last one goes: the
 * switch of tasks then looks, or does not look, for a vCPU to put back. QEMU's emulation of more than one CPU (7.2)
 * can translate an instruction while another CPU rewrites it, and go on with what it was: here a breakpoint that was
 * there for a moment, at which both CPUs then stop for ever. With this VM held, the keys stay as they are. It also
 * saves every first VM the time to switch the CPUs' virtualization on.
 *
 * For the same reason the machine boots on one CPU (maxcpus=1): modules, and this VM, rewrite code while there is
 * nobody else to run it. Then the others come up.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/log.h"
#include "guest/roles.h"

#define IOAPIC_PINS 24

/* The descriptors stay open: the VM lives as long as they do, and nobody needs them. */
void machine_hold_kvm(void)
{
	struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {IOAPIC_PINS}};
	_fd_ int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);

	/* With the kernel's APIC, whose keys count vCPUs that have theirs switched off, as this one's remains. */
	if (vm < 0 || ioctl(vm, KVM_ENABLE_CAP, &split) < 0 || ioctl(vm, KVM_CREATE_VCPU, 0) < 0)
		log_warn("machine", "KVM: %s", strerror(errno));
}

void machine_start_cpus(void)
{
	char path[64];
	unsigned cpu = 1;
	int r;

	do {
		snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%u/online", cpu++);
		r = write_text_at(AT_FDCWD, path, "1");
	} while (r == 0);
	if (r != -ENOENT) /* there is no such CPU: all are up */
		log_warn("machine", "%s: %s", path, strerror(-r));
}
