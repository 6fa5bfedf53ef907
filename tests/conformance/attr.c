/* SPDX-License-Identifier: Apache-2.0 */
/* Attributes: chmod, chown, times to the nanosecond, what changes them by itself, stat and statx, statfs. */
#include "conf.h"

#include <time.h>

#include <sys/statvfs.h>
#include <sys/sysmacros.h>

static void all_modes(void)
{
	put_file("f", "x", 0644);
	need(mkdir("d", 0755) == 0, "mkdir");
	for (mode_t mode = 0; mode <= 07777; mode += mode < 0777 ? 1 : 0111) {
		works(chmod("f", mode), "file %04o", mode);
		/* a setgid that a stranger to the group may not set is dropped; ours is our own group */
		is_eq(stat_of("f").st_mode & 07777, mode, "file has %04o", mode);
	}
	for (mode_t mode = 0; mode <= 07777; mode += 0111) {
		works(chmod("d", mode), "directory %04o", mode);
		is_eq(stat_of("d").st_mode & 07777, mode, "directory has %04o", mode);
	}
	chmod("d", 0755);
	int fd = open("f", O_RDONLY);

	if (am_root()) {
		works(fchmod(fd, 0751), "fchmod of a rdonly descriptor");
		is_eq(stat_of("f").st_mode & 07777, 0751, "has it");
	}
	chmod("f", 0640);
	is_true(S_ISREG(stat_of("f").st_mode), "the type stays");
	if (fd >= 0)
		close(fd);
}

static void owners(void)
{
	static const struct {
		uid_t uid;
		gid_t gid;
	} ids[] = {{1, 2},
		   {1000, 1000},
		   {65534, 65534},
		   {65535, 65536},
		   {100000, 200000},
		   {0x7fffffff, 0x7ffffffe},
		   {0xfffffffe, 0xfffffffd},
		   {0, 0}};
	struct stat st;

	if (!am_root()) {
		skipped("needs root", "any owner");
		return;
	}
	put_file("f", "x", 0644);
	for (size_t i = 0; i < COUNT(ids); i++) {
		works(chown("f", ids[i].uid, ids[i].gid), "chown %u %u", ids[i].uid, ids[i].gid);
		st = stat_of("f");
		is_true(st.st_uid == ids[i].uid && st.st_gid == ids[i].gid, "is %u %u", ids[i].uid, ids[i].gid);
	}
	works(chown("f", 7, (gid_t)-1), "the user alone");
	works(chown("f", (uid_t)-1, 8), "the group alone");
	st = stat_of("f");
	is_true(st.st_uid == 7 && st.st_gid == 8, "both are right");
	works(chown("f", (uid_t)-1, (gid_t)-1), "neither");
	st = stat_of("f");
	is_true(st.st_uid == 7 && st.st_gid == 8, "both are as before");
}

static void setuid_bits(void)
{
	static const mode_t modes[] = {04755, 02755, 06755, 04644, 02644, 06711};

	if (!am_root()) {
		skipped("needs root", "setuid after chown");
		return;
	}
	for (size_t i = 0; i < COUNT(modes); i++) {
		mode_t want = modes[i] & ~(mode_t)04000;

		if (want & 010)
			want &= ~(mode_t)02000; /* without group-execute it means mandatory locking, and stays */
		put_file("f", "x", 0644);
		chmod("f", modes[i]);
		works(chown("f", 5, 5), "chown of %04o", modes[i]);
		is_eq(stat_of("f").st_mode & 07777, want, "chown drops of %04o", modes[i]);
		unlink("f");
	}
	need(mkdir("d", 0755) == 0 && chmod("d", 02755) == 0, "mkdir");
	works(chown("d", 5, 5), "chown of a setgid directory");
	is_eq(stat_of("d").st_mode & 07777, 02755, "keeps it");
}

static void writes_as_user(void *arg)
{
	int fd = open("f", O_WRONLY);

	works(fd, "open %s", (char *)arg);
	is_eq(write(fd, "y", 1), 1, "write %s", (char *)arg);
	close(fd);
}

static void truncates_as_user(void *arg)
{
	works(truncate("f", 0), "truncate %s", (char *)arg);
}

static void setuid_after_write(void)
{
	if (!am_root()) {
		skipped("needs root", "setuid after write");
		return;
	}
	put_file("f", "x", 0644);
	chmod("f", 06777);
	as_user(1001, 1001, 0, writes_as_user, (char[]){"by another user"});
	is_eq(stat_of("f").st_mode & 07777, 0777, "write by another user drops setuid and setgid");
	chmod("f", 06777);
	as_user(1001, 1001, 0, truncates_as_user, (char[]){"by another user"});
	is_eq(stat_of("f").st_mode & 07777, 0777, "truncate by another user drops setuid and setgid");
	chmod("f", 06777);
	writes_as_user((char[]){"by root"});
	is_eq(stat_of("f").st_mode & 07777, 06777, "write by root keeps them");
}

static const struct timespec stamps[] = {{0, 0},
					 {0, 1},
					 {1, 999999999},
					 {1000000000, 123456789},
					 {2147483647, 999999999},
					 {2147483648, 0},
					 {4294967295, 5},
					 {4294967296, 500000},
					 {-1, 0},
					 {-1, 999999999},
					 {-86400, 1},
					 {-2147483647, 7},
					 {10000000000, 1}};

static void exact_times(void)
{
	struct timespec ts[2];
	struct stat st;
	int fd;

	put_file("f", "x", 0644);
	need(mkdir("d", 0755) == 0, "mkdir");
	for (size_t i = 0; i < COUNT(stamps); i++) {
		ts[0] = stamps[i], ts[1] = stamps[(i + 3) % COUNT(stamps)];
		works(utimensat(AT_FDCWD, "f", ts, 0), "set %zu", i);
		st = stat_of("f");
		is_eq(ns_of(st.st_atim), ns_of(ts[0]), "atime %zu", i);
		is_eq(ns_of(st.st_mtim), ns_of(ts[1]), "mtime %zu", i);
		works(utimensat(AT_FDCWD, "d", ts, 0), "set directory %zu", i);
		st = stat_of("d");
		is_eq(ns_of(st.st_mtim), ns_of(ts[1]), "directory mtime %zu", i);
	}
	fd = open("f", O_RDONLY);
	ts[0] = (struct timespec){123, 456}, ts[1] = (struct timespec){789, 12};
	works(futimens(fd, ts), "by descriptor");
	st = stat_of("f");
	is_true(ns_of(st.st_atim) == 123000000456 && ns_of(st.st_mtim) == 789000000012, "are set");
	ts[0].tv_nsec = UTIME_OMIT, ts[1] = (struct timespec){5, 6};
	works(futimens(fd, ts), "mtime alone");
	st = stat_of("f");
	is_true(ns_of(st.st_atim) == 123000000456 && ns_of(st.st_mtim) == 5000000006, "atime stays");
	ts[0] = (struct timespec){7, 8}, ts[1].tv_nsec = UTIME_OMIT;
	works(futimens(fd, ts), "atime alone");
	st = stat_of("f");
	is_true(ns_of(st.st_atim) == 7000000008 && ns_of(st.st_mtim) == 5000000006, "mtime stays");
	ts[0].tv_nsec = ts[1].tv_nsec = UTIME_OMIT;
	works(futimens(fd, ts), "neither");
	st = stat_of("f");
	is_true(ns_of(st.st_atim) == 7000000008 && ns_of(st.st_mtim) == 5000000006, "both stay");
	ts[0].tv_nsec = UTIME_NOW, ts[1] = (struct timespec){9, 9};
	works(futimens(fd, ts), "atime now");
	st = stat_of("f");
	is_true(llabs(ns_of(st.st_atim) / 1000000000 - time(NULL)) < 5 && ns_of(st.st_mtim) == 9000000009, "is now");
	works(futimens(fd, NULL), "both now");
	st = stat_of("f");
	is_true(llabs((long long)st.st_mtim.tv_sec - time(NULL)) < 5, "are now");
	ts[0].tv_nsec = 1000000000;
	fails(futimens(fd, ts), EINVAL, "a billion nanoseconds");
	ts[0].tv_nsec = -1;
	fails(futimens(fd, ts), EINVAL, "-1 nanoseconds");
	close(fd);
	st = stat_of("f");
	nap(20);
	ts[0] = ts[1] = (struct timespec){1, 1};
	utimensat(AT_FDCWD, "f", ts, 0);
	is_true(ns_of(stat_of("f").st_ctim) > ns_of(st.st_ctim), "setting times changes ctime");
}

struct change {
	const char *name;
	int (*act)(int fd);
	bool mtime, ctime;
};

static int act_read(int fd)
{
	char c;

	return (int)pread(fd, &c, 1, 0);
}
static int act_write(int fd)
{
	return (int)pwrite(fd, "y", 1, 0);
}
static int act_truncate(int fd)
{
	return ftruncate(fd, 2);
}
static int act_chmod(int fd)
{
	return fchmod(fd, 0600);
}
static int act_link(int fd)
{
	(void)fd;
	return link("f", "g");
}
static int act_unlink(int fd)
{
	(void)fd;
	return unlink("g");
}
static int act_open(int fd)
{
	(void)fd;
	return close(open("f", O_RDWR));
}
static int act_stat(int fd)
{
	struct stat st;

	return fstat(fd, &st);
}
static int act_write_nothing(int fd)
{
	return (int)pwrite(fd, "", 0, 0);
}
static int act_open_truncate(int fd)
{
	(void)fd;
	return close(open("f", O_WRONLY | O_TRUNC));
}
static int act_chown(int fd)
{
	return fchown(fd, geteuid(), getegid());
}

static int act_chown_nobody(int fd)
{
	return fchown(fd, (uid_t)-1, (gid_t)-1);
}

static void automatic_times(void)
{
	static const struct change changes[] = {
		{"read", act_read, false, false},
		{"write", act_write, true, true},
		{"truncate", act_truncate, true, true},
		{"chmod", act_chmod, false, true},
		{"chown", act_chown, false, true},
		{"link", act_link, false, true},
		{"unlink", act_unlink, false, true},
		{"open", act_open, false, false},
		{"stat", act_stat, false, false},
		{"write of nothing", act_write_nothing, false, false},
		{"chown to nobody", act_chown_nobody, false, true},
		{"open truncating", act_open_truncate, true, true},
	};
	int fd;

	put_file("f", "content", 0644);
	fd = open("f", O_RDWR);
	for (size_t i = 0; i < COUNT(changes); i++) {
		struct stat a = stat_of("f"), b;

		nap(20);
		works(changes[i].act(fd), "%s", changes[i].name);
		b = stat_of("f");
		is_true((ns_of(b.st_mtim) > ns_of(a.st_mtim)) == changes[i].mtime, "mtime by %s", changes[i].name);
		is_true((ns_of(b.st_ctim) > ns_of(a.st_ctim)) == changes[i].ctime, "ctime by %s", changes[i].name);
		is_true(ns_of(b.st_mtim) >= ns_of(a.st_mtim), "never goes back by %s", changes[i].name);
	}
	close(fd);
	struct stat a = stat_of("f");

	is_true(llabs((long long)a.st_mtim.tv_sec - time(NULL)) < 5, "the clock is the system's");
	is_true(a.st_mtim.tv_nsec >= 0 && a.st_mtim.tv_nsec < 1000000000, "nanoseconds are in range");
}

static void fields(void)
{
	struct stat f, d, other;
	struct statx x;

	put_bytes("f", 10000);
	need(mkdir("d", 0755) == 0 && symlink("f", "l") == 0, "files");
	f = stat_of("f"), d = stat_of("d");
	is_eq(f.st_size, 10000, "size");
	is_true(f.st_blocks * 512 >= 10000 && f.st_blocks * 512 < 100000, "blocks");
	is_true(f.st_blksize >= 512 && f.st_blksize <= 1 << 24, "blksize");
	is_true(f.st_ino != 0 && d.st_ino != 0 && f.st_ino != d.st_ino, "inode numbers");
	is_true(f.st_dev == d.st_dev, "device");
	is_eq(f.st_uid, geteuid(), "owner");
	is_eq(f.st_gid, getegid(), "group");
	stat("l", &other);
	is_true(other.st_ino == f.st_ino, "stat follows");
	lstat("l", &other);
	is_true(other.st_ino != f.st_ino, "lstat does not");
	is_eq(other.st_size, 1, "size of a link");
	works(statx(AT_FDCWD, "f", 0, STATX_BASIC_STATS, &x), "statx");
	is_true(x.stx_ino == f.st_ino && x.stx_size == 10000 && x.stx_mode == f.st_mode && x.stx_nlink == 1,
		"statx agrees");
	is_true((x.stx_mask & STATX_BASIC_STATS) == STATX_BASIC_STATS, "statx has all basic fields");
	is_true(makedev(x.stx_dev_major, x.stx_dev_minor) == f.st_dev, "statx device");
	fails(statx(AT_FDCWD, "f", 0, 0x80000000u, &x), EINVAL, "statx of a reserved bit");
	int fd = open("f", O_RDONLY);

	fstat(fd, &other);
	is_true(other.st_ino == f.st_ino && other.st_size == f.st_size && ns_of(other.st_mtim) == ns_of(f.st_mtim),
		"fstat agrees");
	fails(fstat(999, &other), EBADF, "fstat of no descriptor");
	close(fd);
}

static void whole_file_system(void)
{
	struct statvfs a, b;
	int fd = open(".", O_RDONLY);

	works(statvfs(".", &a), "statvfs");
	works(fstatvfs(fd, &b), "fstatvfs");
	is_true(a.f_bsize >= 512 && a.f_frsize >= 1, "block size");
	is_true(a.f_blocks > 0 && a.f_bfree <= a.f_blocks && a.f_bavail <= a.f_bfree, "blocks");
	is_true(a.f_files >= a.f_ffree, "files");
	is_eq((long long)a.f_namemax, 255, "longest name");
	is_true(a.f_blocks == b.f_blocks, "both agree");
	is_eq(pathconf(".", _PC_NAME_MAX), 255, "pathconf");
	fails(statvfs("none", &a), ENOENT, "statvfs of nothing");
	close(fd);
}

GROUPS(attr) = {
	{"chmod", all_modes, 0},
	{"chown", owners, 0},
	{"setid-chown", setuid_bits, 0},
	{"setid-write", setuid_after_write, 0},
	{"utimens", exact_times, 0},
	{"times", automatic_times, 0},
	{"stat", fields, 0},
	{"statfs", whole_file_system, 0},
	END_OF_GROUPS,
};
