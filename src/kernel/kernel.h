/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest kernels: finding the distribution's stock kernel, its modules, and assembling an initramfs from them by our own
 * code. Used by the library (microVMs) and by the machine. Room: kernel -> base.
 */
#ifndef KERNEL_KERNEL_H
#define KERNEL_KERNEL_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct kernel {
	char *image;   /* absolute path of vmlinuz */
	char *release; /* "6.1.0-56-cloud-amd64", from the bzImage header's version string */
	char *modules; /* absolute path of lib/modules/<release>, NULL when none was found */
};
void kernel_done(struct kernel *k);

/* Where a bundle has its kernel, under the data directory: boot/vmlinuz-RELEASE, lib/modules/RELEASE. */
#define KERNEL_BUNDLED "kernels/bundled"

/*
 * The kernel to use. file: an explicit path (--kernel), or NULL for the default: a bundle's own; else the newest
 * linux-image-*-cloud-amd64 (then -amd64) found in /boot with its modules in /lib/modules; else one unpacked earlier
 * under data_dir/kernels/; else, when a linux-image package can be had with `apt-get download` (no root needed),
 * unpacked from it there (libarchive). Fails with a message that has the line to paste: apt-get install
 * linux-image-cloud-amd64.
 */
int kernel_find(const char *file, const char *data_dir, struct kernel *ret, struct sm_error *err) MUST_CHECK;

/*
 * Copies a kernel for a bundle: its image, and these modules with all they depend on, to dir/boot and dir/lib/modules.
 * dir is made.
 */
int kernel_copy(const struct kernel *k, const char *const *modules, const char *dir, struct sm_error *err) MUST_CHECK;

struct initramfs_file {
	const char *path;   /* inside, without leading slash: "init" */
	const char *source; /* host file */
	unsigned mode;
};

/*
 * Writes a newc initramfs (uncompressed unless the measure says otherwise) atomically to out: the files, the named
 * kernel modules with all they depend on (modules.dep, modules.builtin; .ko, .ko.xz, .ko.zst unpacked to plain .ko),
 * and "modules" listing them in load order. A module that is built in or absent-and-optional ("?name") is left out.
 * Deterministic: equal inputs give equal bytes.
 */
int initramfs_build(const struct kernel *k, const char *const *modules, const struct initramfs_file *files,
		    size_t num_files, const char *out, struct sm_error *err) MUST_CHECK;

/*
 * The cached form: builds into data_dir/initramfs/<sha256 of inputs> unless it is there, and returns that path. `kind`
 * names it in messages.
 */
int initramfs_cached(const struct kernel *k, const char *const *modules, const struct initramfs_file *files,
		     size_t num_files, const char *data_dir, const char *kind, char **ret_path,
		     struct sm_error *err) MUST_CHECK;

/*
 * The ELF kernel inside k's bzImage, unpacked once into data_dir/kernels/ and kept: a monitor that boots it spares the
 * guest its own decompression. -EINVAL when the image is no bzImage (it may be used as it is). Path freed by the
 * caller.
 */
int kernel_vmlinux_cached(const struct kernel *k, const char *data_dir, char **ret_path,
			  struct sm_error *err) MUST_CHECK;

#endif
