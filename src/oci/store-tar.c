/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store that is a tar archive in a seekable file. One walk over the headers records where each member's data lies;
 * blobs are then read with pread, by several threads at once. libarchive parses the headers: what it has consumed of
 * the (uncompressed) file right after a header is the offset of the member's data.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/libarchive.h"
#include "base/cleanup.h"
#include "base/util.h"
#include "oci/json.h"
#include "oci/store.h"

#define MAX_MEMBERS 65536
#define MAX_NAME 1024
#define MAX_HOPS 8
#define READ_BLOCK (64 * 1024)

struct member {
	char *name;   /* without "./" and doubled slashes */
	char *target; /* of a link, resolved to a name in the archive; NULL: data */
	uint64_t offset, size;
	unsigned order;
};

struct store_tar {
	struct store base;
	int fd;
	struct member *members; /* sorted by name, each name once, after the walk */
	size_t num_members, cap;
};

/*
 * Joins a directory part and a name lexically into buf: "." and empty components vanish, ".." takes one away.
 * False where that leads out of the archive or the result is too long or empty.
 */
static bool join_name(const char *dir, size_t dir_len, const char *name, char buf[static MAX_NAME])
{
	const char *parts[2] = {dir, name};
	size_t lens[2] = {dir_len, strlen(name)}, used = 0;

	for (int i = 0; i < 2; i++) {
		const char *p = parts[i], *end = p + lens[i];

		while (p < end) {
			const char *slash = memchr(p, '/', (size_t)(end - p));
			size_t len = (size_t)((slash ? slash : end) - p);

			if (len == 2 && memcmp(p, "..", 2) == 0) {
				char *up;

				if (used == 0)
					return false;
				buf[used] = 0;
				up = strrchr(buf, '/');
				used = up ? (size_t)(up - buf) : 0;
			} else if (len && !(len == 1 && *p == '.')) {
				if (used + len + 2 > MAX_NAME)
					return false;
				if (used)
					buf[used++] = '/';
				memcpy(buf + used, p, len);
				used += len;
			}
			p += len + 1;
		}
	}
	buf[used] = 0;
	return used > 0;
}

static void member_done(struct member *m)
{
	free(m->name);
	free(m->target);
}

/* Records one header. Members that no image can name (odd names, devices, directories) are passed over. */
static int add_member(struct store_tar *t, const struct archive_functions *la, struct archive_entry *e, uint64_t offset,
		      const char *what, struct sm_error *err)
{
	const char *path = la->archive_entry_pathname(e), *hard = la->archive_entry_hardlink(e),
		   *soft = la->archive_entry_symlink(e);
	bool regular = la->archive_entry_filetype(e) == AE_IFREG;
	char name[MAX_NAME], target[MAX_NAME], buf[SHOW_SIZE];
	struct member *m;

	if (!path || !join_name("", 0, path, name) || !(hard || soft || regular))
		return 0;
	if (hard && !join_name("", 0, hard, target))
		return 0;
	if (!hard && soft) {
		const char *slash = strrchr(name, '/');

		if (*soft == '/' || !join_name(name, slash ? (size_t)(slash - name) : 0, soft, target))
			return 0;
	}
	if (regular && !hard && la->archive_entry_sparse_count(e) > 0)
		return error_set(err, SM_ERROR_UNSUPPORTED, ENOTSUP, "%s: member %s is stored sparsely", what,
				 show(name, buf));
	if (t->num_members == MAX_MEMBERS)
		return error_set(err, SM_ERROR_LIMIT, EFBIG, "%s has more than %u members", what, MAX_MEMBERS);
	if (t->num_members == t->cap) {
		size_t cap = t->cap ? t->cap * 2 : 64;
		struct member *bigger = reallocarray(t->members, cap, sizeof(*bigger));

		if (!bigger)
			return error_sys(err, ENOMEM, "%s", what);
		t->members = bigger;
		t->cap = cap;
	}
	m = &t->members[t->num_members];
	*m = (struct member){.offset = offset, .order = (unsigned)t->num_members};
	if (regular && !hard)
		m->size = (uint64_t)la->archive_entry_size(e);
	m->name = strdup(name);
	m->target = hard || soft ? strdup(target) : NULL;
	t->num_members++;
	return m->name && (m->target || !(hard || soft)) ? 0 : error_sys(err, ENOMEM, "%s", what);
}

/* The archive's data: libarchive reads and seeks this descriptor, which stays ours. */
static int walk(struct store_tar *t, const struct archive_functions *la, struct archive *a, const char *what,
		struct sm_error *err)
{
	struct archive_entry *e;
	struct stat st;

	if (fstat(t->fd, &st) < 0)
		return error_sys(err, errno, "%s", what);
	for (;;) {
		int64_t offset;
		int r = la->archive_read_next_header(a, &e);

		if (r == ARCHIVE_EOF)
			return 0;
		/* ARCHIVE_WARN: an entry that libarchive could read, if not all of it (a name in another character
		 * set). */
		if (r != ARCHIVE_OK && r != ARCHIVE_WARN)
			return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s is not a sound tar archive: %s", what,
					 la->archive_error_string(a) ? la->archive_error_string(a) : "unknown format");
		offset = la->archive_filter_bytes(a, -1);
		/* A sparse member's size is not what it takes up here: add_member refuses it. */
		if (la->archive_entry_size(e) < 0 || offset < 0)
			return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s has a member of impossible size", what);
		if (la->archive_entry_sparse_count(e) == 0 &&
		    !range_inside((uint64_t)offset, (uint64_t)la->archive_entry_size(e), (uint64_t)st.st_size))
			return error_set(err, SM_ERROR_CORRUPT, EBADMSG,
					 "%s is truncated: a member ends behind the end of the file", what);
		r = add_member(t, la, e, (uint64_t)offset, what, err);
		if (r < 0)
			return r;
	}
}

static int by_name(const void *pa, const void *pb)
{
	const struct member *a = pa, *b = pb;
	int d = strcmp(a->name, b->name);

	return d ? d : a->order < b->order ? -1 : a->order > b->order;
}

/* Sorts, and of each name keeps the last that the archive has. */
static void sort_members(struct store_tar *t)
{
	size_t n = 0;

	if (t->num_members == 0)
		return;
	qsort(t->members, t->num_members, sizeof(*t->members), by_name);
	for (size_t i = 0; i < t->num_members; i++) {
		if (n && streq(t->members[n - 1].name, t->members[i].name))
			member_done(&t->members[--n]);
		t->members[n++] = t->members[i];
	}
	t->num_members = n;
}

static const struct member *find_member(const struct store_tar *t, const char *name)
{
	size_t lo = 0, hi = t->num_members;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		int d = strcmp(name, t->members[mid].name);

		if (d == 0)
			return &t->members[mid];
		if (d < 0)
			hi = mid;
		else
			lo = mid + 1;
	}
	return NULL;
}

static int tar_open(struct store *self, const char *name, struct extent *ret, struct sm_error *err)
{
	struct store_tar *t = CONTAINER_OF(self, struct store_tar, base);
	char plain[MAX_NAME], buf[SHOW_SIZE];
	const struct member *m;
	int fd;

	if (!join_name("", 0, name, plain))
		return -ENOENT;
	m = find_member(t, plain);
	for (int hops = 0; m && m->target; hops++) {
		if (hops == MAX_HOPS)
			return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s is a link that leads nowhere",
					 show(name, buf));
		m = find_member(t, m->target);
	}
	if (!m)
		return -ENOENT;
	fd = fcntl(t->fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return error_sys(err, errno, "open %s", show(name, buf));
	*ret = (struct extent){.fd = fd, .offset = m->offset, .size = m->size};
	return 0;
}

static void tar_free(struct store *self)
{
	struct store_tar *t = CONTAINER_OF(self, struct store_tar, base);

	for (size_t i = 0; i < t->num_members; i++)
		member_done(&t->members[i]);
	free(t->members);
	fd_close(t->fd);
	free(t);
}

int store_tar_open(int fd, const char *what, struct store **ret, struct sm_error *err)
{
	const struct archive_functions *la = archive_load(err);
	struct store_tar *t = la ? calloc(1, sizeof(*t)) : NULL;
	struct archive *a = t ? la->archive_read_new() : NULL;
	int r;

	if (!a) {
		free(t);
		fd_close(fd);
		return la ? error_sys(err, ENOMEM, "open %s", what) : -ELIBACC;
	}
	t->base = (struct store){.open = tar_open, .free = tar_free};
	t->fd = fd;
	if (lseek(fd, 0, SEEK_SET) < 0)
		r = error_sys(err, errno, "%s", what);
	else if (la->archive_read_support_format_tar(a) != ARCHIVE_OK ||
		 la->archive_read_open_fd(a, fd, READ_BLOCK) != ARCHIVE_OK)
		r = error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s is not a tar archive", what);
	else
		r = walk(t, la, a, what, err);
	la->archive_read_free(a);
	if (r < 0) {
		tar_free(&t->base);
		return r;
	}
	sort_members(t);
	*ret = &t->base;
	return 0;
}
