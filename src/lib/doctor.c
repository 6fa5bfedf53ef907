/* SPDX-License-Identifier: Apache-2.0 */
/* What running a VM needs on this host, looked at one by one, each with the line that mends it. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "kernel/kernel.h"
#include "lib/lib.h"

#define MAX_FINDINGS 16
#define ENOUGH_SPACE (2 * GIB)

struct report {
	struct sm_finding *list;
	size_t count;
};

static void add(struct report *rep, const char *id, bool ok, bool required, const char *fix, const char *fmt, ...)
	PRINTF_LIKE(6, 7);

static void add(struct report *rep, const char *id, bool ok, bool required, const char *fix, const char *fmt, ...)
{
	struct sm_finding *f = &rep->list[rep->count];
	char *message = NULL;
	va_list ap;

	if (rep->count == MAX_FINDINGS)
		return;
	va_start(ap, fmt);
	if (vasprintf(&message, fmt, ap) < 0)
		message = NULL;
	va_end(ap);
	*f = (struct sm_finding){
		.id = id, .ok = ok, .required = required, .message = message, .fix = ok ? strdup("") : strdup(fix)};
	if (f->message && f->fix) {
		rep->count++;
		return;
	}
	free((char *)f->message);
	free((char *)f->fix);
}

static bool on_path(const char *name)
{
	static const char *const places[] = {"/usr/bin", "/usr/local/bin", "/bin", "/usr/sbin", "/sbin"};
	char path[256];

	for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
		snprintf(path, sizeof(path), "%s/%s", places[i], name);
		if (access(path, X_OK) == 0)
			return true;
	}
	return false;
}

static void look_at_engine(struct report *rep, struct sm_client *c)
{
	struct kvm_probe probe = {0};
	bool works, qemu = on_path("qemu-system-x86_64");
	const char *install = "apt-get install --no-install-recommends qemu-system-x86 qemu-system-common";

	kvm_probe(c->runtime_dir, &probe);
	works = probe.state == KVM_STATE_WORKS;
	add(rep, "kvm", works, c->mode == SEAT_NEVER, probe.fix, "%s",
	    probe.why[0] ? probe.why : "KVM of this host works");
	if (c->mode == SEAT_NEVER)
		return;
	if (works && c->mode == SEAT_AUTO)
		add(rep, "machine", true, false, "", "not needed: VMs run on this host's KVM");
	else
		add(rep, "machine", qemu, true, install,
		    qemu ? "VMs run in the machine (Linux under QEMU's emulation): expect them 10 to 30 times slower"
			 : "VMs need the machine here, and QEMU is not installed");
}

static void look_at_kernel(struct report *rep, struct sm_client *c)
{
	struct sm_error err = {0};
	struct kernel k = {0};

	if (kernel_find(NULL, c->data_dir, &k, &err) < 0) {
		add(rep, "kernel", false, true, "apt-get install linux-image-cloud-amd64", "%s", err.message);
		return;
	}
	if (k.modules)
		add(rep, "kernel", true, true, "", "guests boot %s (%s)", k.image, k.release);
	else
		add(rep, "kernel", false, true, "apt-get install linux-image-cloud-amd64", "no modules for %s",
		    k.image);
	kernel_done(&k);
}

static void look_at_helpers(struct report *rep, struct sm_client *c)
{
	static const char *const names[] = {"supermachine-keeper", "supermachine-vmm", "supermachine-agent",
					    "supermachine-wake"};

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		struct sm_error err = {0};
		_free_ char *path = NULL;

		if (client_helper(c, names[i], &path, &err) < 0) {
			add(rep, "helpers", false, true, "make install", "%s", err.message);
			return;
		}
	}
	add(rep, "helpers", true, true, "", "helper programs are in %s", c->libexec_dir);
}

static void look_at_space(struct report *rep, struct sm_client *c)
{
	char text[16];
	struct statvfs st;
	uint64_t left;

	if (statvfs(c->data_dir, &st) < 0) {
		add(rep, "space", false, false, "", "%s: %s", c->data_dir, strerror(errno));
		return;
	}
	left = (uint64_t)st.f_bavail * st.f_frsize;
	add(rep, "space", left >= ENOUGH_SPACE, false, "supermachine prune --all", "%s free in %s",
	    format_size(left, text), c->data_dir);
}

/* For sm_fs_mount. */
static void look_at_fuse(struct report *rep)
{
	if (access("/dev/fuse", R_OK | W_OK) < 0)
		add(rep, "fuse", false, false, "modprobe fuse", "/dev/fuse: %s: no file systems can be mounted here",
		    strerror(errno));
	else if (geteuid() != 0 && !on_path("fusermount3"))
		add(rep, "fuse", false, false, "apt-get install fuse3", "fusermount3 is missing: only root can mount");
	else
		add(rep, "fuse", true, false, "", "fs mount can use /dev/fuse");
}

/* A bundle has the template, and a home where it was made before. */
static void look_at_mkfs(struct report *rep, struct sm_client *c)
{
	bool there = disk_has_template(c, VM_DEFAULT_DISK);

	if (on_path("mkfs.ext4"))
		add(rep, "mkfs", true, false, "", "mkfs.ext4 makes the disk template");
	else
		add(rep, "mkfs", false, false, "apt-get install e2fsprogs", "mkfs.ext4 is missing: only %s",
		    there ? "disks of 10G, the default, and --tmpfs-root work" : "--tmpfs-root works");
}

int sm_doctor(struct sm_client *client, struct sm_finding **ret, size_t *ret_count, struct sm_error *err)
{
	struct report rep = {.list = calloc(MAX_FINDINGS, sizeof(*rep.list))};

	if (!rep.list)
		return error_sys(err, ENOMEM, "doctor");
	look_at_engine(&rep, client);
	look_at_kernel(&rep, client);
	look_at_helpers(&rep, client);
	look_at_mkfs(&rep, client);
	look_at_space(&rep, client);
	look_at_fuse(&rep);
	*ret = rep.list;
	*ret_count = rep.count;
	return 0;
}

void sm_doctor_free(struct sm_finding *findings, size_t count)
{
	for (size_t i = 0; findings && i < count; i++) {
		free((char *)findings[i].message);
		free((char *)findings[i].fix);
	}
	free(findings);
}
