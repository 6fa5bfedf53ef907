/* SPDX-License-Identifier: Apache-2.0 */
/* open(2): every kind of file against every sort of flag, by a small oracle written from the manual page. */
#include "conf.h"

#include <sys/resource.h>

enum kind { ABSENT, FILE_, DIR_, LINK_FILE, LINK_DIR, LINK_NONE, KINDS };

static const char *const kind_names[] = {"absent", "file", "dir", "link-to-file", "link-to-dir", "link-to-none"};

struct flag {
	int bit;
	const char *name;
};
static const struct flag access_modes[] = {{O_RDONLY, "rdonly"}, {O_WRONLY, "wronly"}, {O_RDWR, "rdwr"}};
static const struct flag extra[] = {{O_CREAT, "creat"},		{O_EXCL, "excl"},	  {O_TRUNC, "trunc"},
				    {O_DIRECTORY, "directory"}, {O_NOFOLLOW, "nofollow"}, {O_APPEND, "append"}};

static void prepare(enum kind kind)
{
	(void)!unlink("x"), (void)!rmdir("x"), (void)!unlink("t"), (void)!rmdir("t");
	if (kind == FILE_)
		put_file("x", "content", 0644);
	if (kind == DIR_)
		need(mkdir("x", 0755) == 0, "mkdir");
	if (kind == LINK_FILE)
		put_file("t", "content", 0644);
	if (kind == LINK_DIR)
		need(mkdir("t", 0755) == 0, "mkdir");
	if (kind >= LINK_FILE)
		need(symlink("t", "x") == 0, "symlink");
}

/* 0, or the errno. What is created is a file at the end of the link. */
static int expected(enum kind kind, int flags, bool *ret_creates)
{
	bool creat = flags & O_CREAT, excl = creat && flags & O_EXCL, writes = (flags & O_ACCMODE) != O_RDONLY;
	enum kind at = kind;

	*ret_creates = false;
	if (creat && flags & O_DIRECTORY)
		return EINVAL;
	if (excl && kind != ABSENT)
		return EEXIST;
	if (kind >= LINK_FILE && flags & O_NOFOLLOW)
		return flags & O_DIRECTORY ? ENOTDIR : ELOOP;
	if (kind >= LINK_FILE)
		at = kind == LINK_FILE ? FILE_ : kind == LINK_DIR ? DIR_ : ABSENT;
	if (at == ABSENT && !creat)
		return ENOENT;
	if (at == ABSENT) {
		*ret_creates = true;
		return 0;
	}
	if (at == DIR_)
		return creat || writes || flags & O_TRUNC ? EISDIR : 0;
	return flags & O_DIRECTORY ? ENOTDIR : 0;
}

static void one(enum kind kind, int flags, const char *name)
{
	bool creates;
	int want = expected(kind, flags, &creates), fd;
	struct stat st;

	prepare(kind);
	fd = open("x", flags, 0640);
	if (want) {
		fails(fd, want, "%s %s", kind_names[kind], name);
	} else if (works(fd, "%s %s", kind_names[kind], name)) {
		fstat(fd, &st);
		if (creates)
			is_true(S_ISREG(st.st_mode) && (st.st_mode & 07777) == 0640 && st.st_size == 0 &&
					st.st_uid == geteuid(),
				"%s %s makes a file", kind_names[kind], name);
		else if (S_ISREG(st.st_mode))
			is_eq(st.st_size, flags & O_TRUNC ? 0 : 7, "%s %s size", kind_names[kind], name);
	}
	if (fd >= 0)
		close(fd);
	else
		is_true(exists("x") == (kind != ABSENT) && exists("t") == (kind == LINK_FILE || kind == LINK_DIR),
			"%s %s changes nothing", kind_names[kind], name);
}

static void matrix(void)
{
	char name[128];

	for (int kind = 0; kind < KINDS; kind++) {
		for (size_t a = 0; a < COUNT(access_modes); a++) {
			for (unsigned bits = 0; bits < 1u << COUNT(extra); bits++) {
				int flags = access_modes[a].bit;

				if (bits & 2 && !(bits & 1))
					continue; /* O_EXCL without O_CREAT has no meaning */
				snprintf(name, sizeof(name), "%s", access_modes[a].name);
				for (size_t i = 0; i < COUNT(extra); i++) {
					if (!(bits >> i & 1))
						continue;
					flags |= extra[i].bit;
					strcat(strcat(name, "+"), extra[i].name);
				}
				one((enum kind)kind, flags, name);
			}
		}
	}
}

/* The mode of a new file: what was asked for, without the umask's bits. */
static void modes(void)
{
	static const mode_t masks[] = {0, 022, 077, 0777, 0123};

	for (size_t m = 0; m < COUNT(masks); m++) {
		for (mode_t mode = 0; mode <= 0777; mode += 037) {
			int fd;

			umask(masks[m]);
			fd = open("f", O_RDWR | O_CREAT | O_EXCL, mode);
			works(fd, "open mode %03o umask %03o", mode, masks[m]);
			is_eq(stat_of("f").st_mode & 07777, mode & ~masks[m], "mode %03o umask %03o", mode, masks[m]);
			works(write(fd, "x", 1), "write mode %03o umask %03o", mode, masks[m]); /* whatever the mode */
			close(fd);
			unlink("f");
		}
	}
	umask(022);
	close(open("s", O_WRONLY | O_CREAT, 06755));
	is_eq(stat_of("s").st_mode & 07777, 06755, "setuid and setgid at creation");
	close(open("t", O_WRONLY | O_CREAT, 01644));
	is_eq(stat_of("t").st_mode & 07777, 01644, "sticky at creation");
}

/* What a descriptor may do is fixed when it is opened. */
static void capability_of_descriptors(void)
{
	char byte;
	int r, w, p;

	put_file("f", "abc", 0644);
	r = open("f", O_RDONLY);
	w = open("f", O_WRONLY);
	p = open("f", O_PATH);
	works(p, "open path");
	fails(write(r, "x", 1), EBADF, "write to rdonly");
	fails(ftruncate(r, 0), EINVAL, "ftruncate rdonly");
	fails(read(w, &byte, 1), EBADF, "read from wronly");
	fails(read(p, &byte, 1), EBADF, "read from path");
	fails(write(p, &byte, 1), EBADF, "write to path");
	fails(fchmod(p, 0600), EBADF, "fchmod path");
	fails(ftruncate(p, 0), EBADF, "ftruncate path");
	fails(fsync(p), EBADF, "fsync path");
	works(chmod("f", 0), "chmod 0");
	is_eq(read(r, &byte, 1), 1, "read after chmod 0");
	is_eq(write(w, "z", 1), 1, "write after chmod 0");
	works(unlink("f"), "unlink");
	is_eq(pread(r, &byte, 1, 0), 1, "read after unlink");
	is_true(byte == 'z', "sees what was written");
	close(r), close(w), close(p);
	fails(read(r, &byte, 1), EBADF, "read after close");
}

static void independent_offsets(void)
{
	char buf[4];
	int a, b, c;

	put_file("f", "0123456789", 0644);
	a = open("f", O_RDWR);
	b = open("f", O_RDONLY);
	c = dup(a);
	is_eq(read(a, buf, 4), 4, "read");
	is_eq(lseek(b, 0, SEEK_CUR), 0, "the other open stays");
	is_eq(lseek(c, 0, SEEK_CUR), 4, "the duplicate moves");
	is_eq(write(c, "AB", 2), 2, "write");
	is_eq(lseek(a, 0, SEEK_CUR), 6, "and back");
	is_eq(pread(b, buf, 4, 3), 4, "pread");
	is_true(memcmp(buf, "3AB6", 4) == 0, "sees the write");
	is_eq(lseek(b, 0, SEEK_CUR), 0, "pread does not move");
	close(a), close(b), close(c);
}

static void many_open(void)
{
	int fds[200];
	char name[16];
	unsigned opened = 0, right = 0;

	for (size_t i = 0; i < COUNT(fds); i++) {
		snprintf(name, sizeof(name), "f%zu", i);
		fds[i] = open(name, O_RDWR | O_CREAT | O_EXCL, 0644);
		opened += fds[i] >= 0 && write(fds[i], name, strlen(name)) == (ssize_t)strlen(name);
		unlink(name);
	}
	is_eq(opened, COUNT(fds), "200 files open and unlinked at once");
	for (size_t i = 0; i < COUNT(fds); i++) {
		char buf[16] = "";

		snprintf(name, sizeof(name), "f%zu", i);
		right += pread(fds[i], buf, sizeof(buf), 0) == (ssize_t)strlen(name) && strcmp(buf, name) == 0;
		close(fds[i]);
	}
	is_eq(right, COUNT(fds), "each has its own contents");
}

GROUPS(open) = {
	{"open", matrix, 0},
	{"open-mode", modes, 0},
	{"descriptor", capability_of_descriptors, 0},
	{"offset", independent_offsets, 0},
	{"open-many", many_open, 0},
	END_OF_GROUPS,
};
