/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a state file: whole, of this version, made of a machine of this shape. See snapshot.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/crc32c.h"
#include "base/fileio.h"
#include "virtio/mem.h"
#include "vmm/devices.h"
#include "vmm/snapshot.h"

#define CRC_SIZE 8 /* the closing tag and the sum */

int snapshot_corrupt(const char *what, struct sm_error *err)
{
	return error_set(err, SM_ERROR_CORRUPT, EINVAL, "the state file is damaged: %s", what);
}

static int read_state(struct snapshot *s, int fd, size_t *ret_len, struct sm_error *err)
{
	struct stat st;
	ssize_t n;

	if (fstat(fd, &st) < 0)
		return error_sys(err, errno, "state file");
	if (!S_ISREG(st.st_mode) || st.st_size < (off_t)(sizeof(snapshot_magic) + 4 + CRC_SIZE) ||
	    st.st_size > (off_t)SNAPSHOT_STATE_MAX)
		return snapshot_corrupt("its size", err);
	s->data = malloc((size_t)st.st_size);
	if (!s->data)
		return error_sys(err, ENOMEM, "state file");
	n = pread_full(fd, s->data, (size_t)st.st_size, 0);
	if (n < 0)
		return error_sys(err, (int)-n, "state file");
	*ret_len = (size_t)n;
	return n == st.st_size ? 0 : snapshot_corrupt("cut short", err);
}

/* Magic, version, sum. *ret: the sections. */
static int check_frame(const struct snapshot *s, size_t len, struct cursor *ret, struct sm_error *err)
{
	struct cursor c = cursor_of(s->data, len), end;
	const void *head = cursor_take(&c, sizeof(snapshot_magic));
	uint32_t version = cursor_u32(&c);

	if (!head || memcmp(head, snapshot_magic, sizeof(snapshot_magic)) != 0)
		return snapshot_corrupt("not a state file at all", err);
	if (version != SNAPSHOT_VERSION)
		return error_set(err, SM_ERROR_UNSUPPORTED, ENOTSUP,
				 "the state file has version %u, this monitor reads %u", version, SNAPSHOT_VERSION);
	*ret = cursor_of(c.p, c.left - CRC_SIZE);
	end = cursor_of(s->data + len - CRC_SIZE, CRC_SIZE);
	if (cursor_u32(&end) != SNAPSHOT_END || cursor_u32(&end) != (uint32_t)~crc32c(UINT32_MAX, s->data, len - 4))
		return snapshot_corrupt("its checksum", err);
	return 0;
}

bool snapshot_section(struct cursor *c, enum snapshot_tag tag, struct cursor *ret)
{
	uint32_t found = cursor_u32(c), len = cursor_u32(c);
	const void *p = cursor_take(c, len);

	*ret = cursor_of(p, p ? len : 0);
	return p && found == tag;
}

/* The memory's section is one of two. */
static bool take_memory(struct snapshot *s, struct cursor *c)
{
	struct cursor again = *c;

	s->over = cursor_u32(&again) == SNAPSHOT_CHAIN;
	return snapshot_section(c, s->over ? SNAPSHOT_CHAIN : SNAPSHOT_RAM, &s->ram);
}

/* The devices' own records are read by them: here it counts that this one has one. */
static bool has_device(struct cursor all, unsigned slot)
{
	struct cursor c;

	while (all.left && snapshot_section(&all, SNAPSHOT_DEV, &c))
		if (cursor_u32(&c) == slot && !c.bad)
			return true;
	return false;
}

static bool may_have_memory(const struct snapshot *s, uint64_t memory)
{
	return memory == s->memory ||
	       (s->pluggable && memory > s->memory && memory - s->memory <= VIRTIO_MEM_REGION_MAX);
}

static int check_shape(struct snapshot *s, struct cursor *c, const struct vmm_config *cfg, struct sm_error *err)
{
	uint64_t window;
	uint32_t cpus;

	s->memory = cursor_u64(c);
	cpus = cursor_u32(c);
	window = cursor_u64(c);
	s->window_gpa = cursor_u64(c);
	if (c->bad || c->left)
		return snapshot_corrupt("its first section", err);
	if (!s->memory || s->memory % RAM_CHUNK)
		return snapshot_corrupt("its memory's size", err);
	if (!may_have_memory(s, cfg->memory) || cpus != cfg->cpus || window != cfg->window_size)
		return error_set(err, SM_ERROR_UNSUPPORTED, ENOTSUP,
				 "it is of a machine with %llu MiB, %u CPUs and a window of %llu MiB",
				 (unsigned long long)(s->memory >> 20), cpus, (unsigned long long)(window >> 20));
	return 0;
}

int snapshot_open(struct snapshot *s, int fd, const struct vmm_config *cfg, struct sm_error *err)
{
	struct cursor c, shape;
	size_t len = 0;
	int r;

	*s = (struct snapshot){0};
	r = read_state(s, fd, &len, err);
	r = r < 0 ? r : check_frame(s, len, &c, err);
	if (r == 0 && !(snapshot_section(&c, SNAPSHOT_VM, &shape) && take_memory(s, &c) &&
			snapshot_section(&c, SNAPSHOT_ARCH, &s->arch)))
		r = snapshot_corrupt("its sections", err);
	s->devices = c;
	s->pluggable = r == 0 && has_device(c, SLOT_MEM);
	r = r < 0 ? r : check_shape(s, &shape, cfg, err);
	if (r < 0)
		snapshot_done(s);
	return r;
}

void snapshot_done(struct snapshot *s)
{
	free(s->data);
	s->data = NULL;
}
