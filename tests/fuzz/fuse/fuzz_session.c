/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any request bytes in any order against a session: nothing crashes, leaks or hangs. The input is a list of requests:
 * u16 length, u8 flags (how the request is split into iovecs, how much room its reply has), bytes. Its first byte: bit
 * 0: no valid INIT comes first; bit 1: over the posix backend on a scratch directory (bit 2: FUSE_POSIX_SAME), beside
 * which nothing may change, instead of the memory backend. Bit 6: with a DAX window of four places, outside of which
 * nothing may be mapped. Bit 3: with a watch. A request with bit 4 of its flags is the herald's, and with bit 7 of the
 * first byte all of them are, watch or not, which must leave the directory empty.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cursor.h"
#include "base/fileio.h"
#include "fuse/memory.h"
#include "fuse/posix.h"
#include "fuse/session.h"
#include "fuse/watch.h"

/* All that it is told is there. */
static void told(void *arg, const struct fuse_audit *a)
{
	*(size_t *)arg += strlen(a->op) + (a->name ? strlen(a->name) : 0) + (a->as ? strlen(a->as) : 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void serve(struct fuse_session *s, const uint8_t *bytes, size_t len, uint8_t flags, uint8_t *reply)
{
	size_t split = flags & 1 ? len / 2 : len;
	struct iovec in[2] = {{.iov_base = (void *)(uintptr_t)bytes, .iov_len = split},
			      {.iov_base = (void *)(uintptr_t)(bytes + split), .iov_len = len - split}};
	struct iovec out[2] = {{.iov_base = reply, .iov_len = flags & 2 ? 16 : 4096},
			       {.iov_base = reply + 4096, .iov_len = flags & 4 ? 0 : 4096}};

	if (fuse_session_serve(s, in, 2, out, 2) > 8192)
		abort();
}

#define PLACES 4U

struct window {
	bool mapped[PLACES];
	unsigned lost;
};

static int dax_protection(void *arg, uint64_t nodeid)
{
	return nodeid % 7 ? PROT_READ | PROT_WRITE : PROT_READ;
}

static int dax_map(void *arg, uint64_t at, uint64_t len, int fd, uint64_t offset, int protection)
{
	struct window *w = arg;

	if (at % FUSE_DAX_SLOT || at / FUSE_DAX_SLOT >= PLACES || !len || len > FUSE_DAX_SLOT || offset % 4096 ||
	    !(protection & PROT_READ) || fcntl(fd, F_GETFL) < 0)
		abort();
	w->mapped[at / FUSE_DAX_SLOT] = len % 8192 != 0; /* some fail */
	w->lost = at == 0;
	return len % 8192 ? 0 : -ENODEV;
}

static void dax_unmap(void *arg, uint64_t at)
{
	struct window *w = arg;

	if (at % FUSE_DAX_SLOT || at / FUSE_DAX_SLOT >= PLACES || !w->mapped[at / FUSE_DAX_SLOT])
		abort();
	w->mapped[at / FUSE_DAX_SLOT] = false;
}

static bool dax_is_lost(void *arg, uint64_t at, uint64_t *ret_left)
{
	*ret_left = 0;
	return at == 0 && ((struct window *)arg)->lost;
}

static char scratch_dir[] = "/tmp/sm-fuzz-session.XXXXXX";

static void remove_scratch(void)
{
	remove_tree_at(AT_FDCWD, scratch_dir);
}

/* A scratch directory with the tree to be served and a file beside it; the same in every run of this process. */
static const char *scratch(void)
{
	const char *dir = scratch_dir;
	static bool made;
	char path[64];

	if (!made && (!mkdtemp(scratch_dir) || atexit(remove_scratch)))
		abort();
	made = true;
	snprintf(path, sizeof(path), "%s/tree", dir);
	if (mkdir(path, 0755) < 0)
		abort();
	snprintf(path, sizeof(path), "%s/beside", dir);
	if (write_file_atomic_at(AT_FDCWD, path, "untouched", 9, 0644) < 0)
		abort();
	return dir;
}

static void check_empty(const char *dir)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/tree", dir);
	if (rmdir(path) < 0 || mkdir(path, 0755) < 0)
		abort();
}

static void check_scratch(const char *dir)
{
	char path[64], text[16] = {0};
	int fd, names = 0;
	struct dirent *de;
	DIR *d = opendir(dir);

	while (d && (de = readdir(d)))
		names++;
	snprintf(path, sizeof(path), "%s/beside", dir);
	fd = open(path, O_RDONLY | O_NOFOLLOW);
	if (names != 4 || fd < 0 || read(fd, text, sizeof(text)) != 9 || memcmp(text, "untouched", 9))
		abort();
	close(fd);
	closedir(d);
	if (remove_tree_at(AT_FDCWD, dir) < 0 || mkdir(dir, 0700) < 0)
		abort();
}

static struct sm_fs_backend *make_backend(uint8_t kind, const char *dir)
{
	struct fuse_memory_options m = {.max_bytes = 1 << 20, .max_nodes = 256};
	struct fuse_posix_options p = {.ids = (kind & 4 ? FUSE_POSIX_SAME : FUSE_POSIX_CALLER) +
					      (kind & 32 ? FUSE_POSIX_NONE : 0),
				       .id_ranges = "b:0:0:1000,u:1000:5000:2",
				       .symlinks = kind & 16 ? FUSE_POSIX_FOLLOW : FUSE_POSIX_OPAQUE,
				       .max_fds = 4,
				       .max_open = 16,
				       .valid_ns = 1};
	struct sm_fs_backend *be;
	char path[64];

	snprintf(path, sizeof(path), "%s/tree", dir ? dir : "");
	if ((kind & 2 ? fuse_posix_new(path, &p, &be, NULL) : fuse_memory_new(&m, &be)) < 0)
		abort();
	return be;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct {
		struct fuse_in_header h;
		struct fuse_init_in in;
	} init = {.h = {.len = sizeof(init), .opcode = FUSE_INIT, .unique = 1},
		  .in = {.major = 7,
			 .minor = 38,
			 .flags = FUSE_SETXATTR_EXT | FUSE_INIT_EXT | FUSE_DO_READDIRPLUS | FUSE_MAP_ALIGNMENT |
				  FUSE_NO_OPENDIR_SUPPORT, /* taken where there is a watch, or nobody else */
			 .flags2 = (uint32_t)(FUSE_HAS_INODE_DAX >> 32)}};
	struct window window = {0};
	struct fuse_dax_port dax = {.size = PLACES * FUSE_DAX_SLOT,
				    .protection = dax_protection,
				    .map = dax_map,
				    .unmap = dax_unmap,
				    .lost = &window.lost,
				    .is_lost = dax_is_lost,
				    .arg = &window};
	size_t total = 0;
	struct fuse_audit_port audit = {told, &total};
	struct fuse_session_options o = {.max_handles = 64, .audit = &audit};
	static uint8_t reply[8192];
	struct cursor c = cursor_of(data, size);
	uint8_t kind = cursor_u8(&c);
	const char *dir = kind & 2 ? scratch() : NULL;
	struct sm_fs_backend *be = make_backend(kind, dir);
	struct fuse_session *s;

	o.watch = kind & 8;
	o.sole = !(kind & 2) && kind & 4;
	o.dax = kind & 64 ? &dax : NULL;
	if (fuse_session_new(be, &o, &s) < 0)
		abort();
	if (!(kind & 1))
		serve(s, (uint8_t *)&init, sizeof(init), 0, reply);
	while (!c.bad && c.left) {
		size_t len = cursor_u16(&c);
		uint8_t flags = cursor_u8(&c);
		const uint8_t *bytes;

		len = len > c.left ? c.left : len;
		bytes = cursor_take(&c, len);
		if (bytes && len >= sizeof(struct fuse_in_header)) {
			uint8_t *copy = malloc(len); /* exactly as long as it is, so that ASan sees a read past it */

			memcpy(copy, bytes, len);
			if (!(flags & 8)) /* mostly a right length, to get past the first check */
				((struct fuse_in_header *)copy)->len = (uint32_t)len;
			if (flags & 16 || kind & 128)
				((struct fuse_in_header *)copy)->uid = WATCH_HERALD_UID;
			serve(s, copy, len, flags, reply);
			free(copy);
		}
	}
	fuse_session_free(s);
	for (unsigned i = 0; i < PLACES; i++)
		if (window.mapped[i])
			abort();
	if (dir) {
		fuse_posix_free(be);
		if (kind & 128)
			check_empty(dir);
		check_scratch(dir);
	} else {
		fuse_memory_free(be);
	}
	return 0;
}
