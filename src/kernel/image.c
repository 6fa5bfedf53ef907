/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's image: its release, and the ELF kernel inside a bzImage. Layout: Documentation/x86/boot.rst (setup
 * header at 0x1f1, kernel_version at 0x20e, payload_offset and payload_length at 0x248). Offsets come from the file and
 * are checked.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/cursor.h"
#include "base/fileio.h"
#include "base/util.h"
#include "kernel/internal.h"

#define SECTOR 512u
#define SETUP_SECTS 0x1f1u
#define HEADER_MAGIC 0x202u
#define VERSION_POINTER 0x20eu
#define PAYLOAD_OFFSET 0x248u
#define SETUP_SIZE 0x260u
#define MAX_IMAGE (256 * MIB)
#define MAX_VMLINUX (1 * GIB)
#define BANNER "Linux version "

static uint32_t field(const uint8_t *head, size_t off, size_t size)
{
	struct cursor c = cursor_of(head + off, size);

	return size == 1 ? cursor_u8(&c) : size == 2 ? cursor_u16(&c) : cursor_u32(&c);
}

static bool is_bzimage(const uint8_t *head, size_t len)
{
	return len >= SETUP_SIZE && memcmp(head + HEADER_MAGIC, "HdrS", 4) == 0;
}

/* The first word of a version string that has at most `left` bytes. */
static char *first_word(const char *s, size_t left)
{
	size_t n = 0;

	while (n < left && s[n] > ' ' && s[n] < 127)
		n++;
	return n && n < left && n < 128 ? strndup(s, n) : NULL;
}

static char *elf_release(int fd, uint64_t size)
{
	_free_ char *all = malloc(size);
	const char *at;

	if (!all || pread_full(fd, all, size, 0) != (ssize_t)size)
		return NULL;
	at = memmem(all, size, BANNER, strlen(BANNER));
	if (!at)
		return NULL;
	at += strlen(BANNER);
	return first_word(at, size - (size_t)(at - all));
}

int kernel_image_release(const char *path, char **ret, struct sm_error *err)
{
	uint8_t head[SETUP_SIZE];
	char version[160] = "";
	_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	ssize_t n;
	char *release = NULL;

	if (fd < 0)
		return error_sys(err, errno, "kernel %s", path);
	if (fstat(fd, &st) < 0)
		return error_sys(err, errno, "kernel %s", path);
	n = S_ISREG(st.st_mode) ? pread_full(fd, head, sizeof(head), 0) : 0;
	if (n < 0)
		return error_sys(err, (int)-n, "kernel %s", path);
	if (is_bzimage(head, (size_t)n)) {
		n = pread_full(fd, version, sizeof(version), (off_t)field(head, VERSION_POINTER, 2) + (off_t)SECTOR);
		release = n > 0 ? first_word(version, (size_t)n) : NULL;
	} else if (n >= SELFMAG && memcmp(head, ELFMAG, SELFMAG) == 0 && (uint64_t)st.st_size <= MAX_VMLINUX) {
		release = elf_release(fd, (uint64_t)st.st_size);
	}
	if (!release)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "kernel %s: not a Linux kernel (bzImage or vmlinux)",
				 path);
	*ret = release;
	return 0;
}

/* The payload is followed by its unpacked size (4 bytes) inside payload_length; decompressors do not want it. */
static int extract(const char *path, struct buf *out, struct sm_error *err)
{
	_free_ char *all = NULL;
	const uint8_t *p;
	size_t len;
	uint64_t offset, length, sects;
	int r = read_file_at(AT_FDCWD, path, MAX_IMAGE, &all, &len);

	if (r < 0)
		return error_sys(err, -r, "kernel %s", path);
	p = (const uint8_t *)all;
	if (!is_bzimage(p, len))
		return error_set(err, SM_ERROR_INVALID, EINVAL, "kernel %s: not a bzImage", path);
	sects = field(p, SETUP_SECTS, 1);
	offset = (sects + 1) * SECTOR + field(p, PAYLOAD_OFFSET, 4);
	length = field(p, PAYLOAD_OFFSET + 4, 4);
	if (length < 4 || !range_inside(offset, length, len))
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "kernel %s: its payload lies outside of the file",
				 path);
	r = kernel_decompress(p + offset, length - 4, MAX_VMLINUX, out, err);
	if (r < 0)
		return error_wrap(err, r, "kernel %s", path);
	if (out->len < SELFMAG || memcmp(out->data, ELFMAG, SELFMAG) != 0)
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "kernel %s: its payload is not an ELF kernel", path);
	return 0;
}

int kernel_vmlinux_cached(const struct kernel *k, const char *data_dir, char **ret_path, struct sm_error *err)
{
	_free_ char *dir = NULL, *path = NULL;
	_cleanup_(buf_done) struct buf elf = {0};
	struct stat st, have;
	int r;

	if (stat(k->image, &st) < 0)
		return error_sys(err, errno, "kernel %s", k->image);
	if (asprintf(&dir, "%s/kernels", data_dir) < 0)
		return error_sys(err, ENOMEM, "kernel %s", k->image);
	/* Told apart by the image's identity and age, so that an upgrade in place is not missed. */
	if (asprintf(&path, "%s/vmlinux-%s-%llx-%llx", dir, k->release, (unsigned long long)st.st_size,
		     (unsigned long long)st.st_mtim.tv_sec) < 0)
		return error_sys(err, ENOMEM, "kernel %s", k->image);
	if (stat(path, &have) < 0 || have.st_size == 0) {
		r = extract(k->image, &elf, err);
		if (r < 0)
			return r;
		r = mkdir_p(dir, 0700);
		if (r == 0)
			r = write_file_atomic_at(AT_FDCWD, path, elf.data, elf.len, 0644);
		if (r < 0)
			return error_sys(err, -r, "write %s", path);
	}
	*ret_path = TAKE_PTR(path);
	return 0;
}
