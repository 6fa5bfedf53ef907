/* SPDX-License-Identifier: Apache-2.0 */
/* The writer of the VM's log and console files, with rotation. See log.h. */
#include "keeper/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"

int vm_log_header_decode(struct cursor *c, struct vm_log_header *ret)
{
	uint64_t time = cursor_u64(c);
	uint8_t stream = cursor_u8(c), zero = cursor_u8(c);
	uint16_t zero2 = cursor_u16(c);
	uint32_t len = cursor_u32(c);

	if (c->bad || time > INT64_MAX || (stream != 1 && stream != 2) || zero || zero2 || len > VM_LOG_MAX_RECORD)
		return -EBADMSG;
	*ret = (struct vm_log_header){.time_ns = (int64_t)time, .stream = stream, .len = len};
	return 0;
}

static int open_file(struct vm_log *log, int flags)
{
	struct stat st;
	int fd = openat(log->dirfd, log->name, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | flags, 0600);

	if (fd < 0)
		return -errno;
	log->fd = fd;
	log->size = fstat(fd, &st) == 0 ? (uint64_t)st.st_size : 0;
	return 0;
}

int vm_log_open(struct vm_log *log, int dirfd, const char *name, bool raw, uint64_t rotate_at)
{
	*log = (struct vm_log){.dirfd = dirfd, .fd = -1, .name = name, .rotate_at = rotate_at, .raw = raw};
	return open_file(log, 0);
}

void vm_log_close(struct vm_log *log)
{
	log->fd = fd_close(log->fd);
}

static void old_name(const struct vm_log *log, char out[static 64])
{
	snprintf(out, 64, "%s.1", log->name);
}

int vm_log_restart(struct vm_log *log)
{
	char old[64];

	old_name(log, old);
	unlinkat(log->dirfd, old, 0);
	unlinkat(log->dirfd, log->name, 0);
	log->fd = fd_close(log->fd);
	log->lost = 0;
	return open_file(log, 0);
}

static void rotate(struct vm_log *log)
{
	char old[64];

	old_name(log, old);
	if (renameat(log->dirfd, log->name, log->dirfd, old) < 0)
		return;
	log->fd = fd_close(log->fd);
	if (open_file(log, 0) < 0)
		log->fd = -1;
}

/* Cuts a record that a full disk tore: readers rely on whole records. */
static void write_record(struct vm_log *log, const uint8_t *header, const void *p, size_t len)
{
	struct iovec iov[2] = {{.iov_base = (void *)(uintptr_t)header, .iov_len = log->raw ? 0 : VM_LOG_HEADER},
			       {.iov_base = (void *)(uintptr_t)p, .iov_len = len}};
	size_t want = iov[0].iov_len + len;
	ssize_t n;

	do
		n = writev(log->fd, iov, 2);
	while (n < 0 && errno == EINTR);
	if (n == (ssize_t)want) {
		log->size += want;
		return;
	}
	log->lost += len;
	if (n > 0 && ftruncate(log->fd, (off_t)log->size) < 0)
		log->fd = fd_close(log->fd);
}

static void put_le(uint8_t *p, uint64_t v, size_t size)
{
	for (size_t i = 0; i < size; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

void vm_log_write(struct vm_log *log, unsigned stream, const void *p, size_t len)
{
	uint8_t header[VM_LOG_HEADER] = {0};
	struct timespec now;

	if (len == 0)
		return;
	if (log->fd >= 0 && log->size >= log->rotate_at)
		rotate(log);
	if (log->fd < 0) {
		log->lost += len;
		return;
	}
	clock_gettime(CLOCK_REALTIME, &now);
	put_le(header, (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec, 8);
	header[8] = (uint8_t)stream;
	while (len > 0 && log->fd >= 0) {
		size_t part = MIN(len, (size_t)VM_LOG_MAX_RECORD);

		put_le(header + 12, part, 4);
		write_record(log, header, p, part);
		p = (const char *)p + part;
		len -= part;
	}
}
