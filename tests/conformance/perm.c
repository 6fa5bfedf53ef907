/* SPDX-License-Identifier: Apache-2.0 */
/* Permissions as another user: every mode against owner, group and others; directories; sticky; who may change what. */
#include "conf.h"

#include <sys/syscall.h>

#define OWNER 2001
#define MEMBER 2002
#define STRANGER 2003
#define GROUP 3001

struct who {
	const char *name;
	uid_t uid;
	gid_t gid, group;
	int shift; /* of the mode's bits that count for him */
};
static const struct who people[] = {{"owner", OWNER, 3999, 0, 6},
				    {"member", MEMBER, GROUP, 0, 3},
				    {"supplementary", MEMBER, 3998, GROUP, 3},
				    {"stranger", STRANGER, 3997, 0, 0}};

static bool root_only(const char *what)
{
	if (am_root())
		return true;
	skipped("needs root, to be others", "%s", what);
	return false;
}

static void set(const char *path, uid_t uid, gid_t gid, mode_t mode)
{
	need(chown(path, uid, gid) == 0 && chmod(path, mode) == 0, "set up %s", path);
}

/* Every 27th mode would do; all 512 cost little. `arg` is the person; the file f has mode *mode. */
struct look {
	const struct who *who;
	mode_t mode;
};

static void open_file(void *arg)
{
	const struct look *l = arg;
	mode_t bits = l->mode >> l->who->shift & 7;
	int r = open("f", O_RDONLY), w = open("f", O_WRONLY), rw = open("f", O_RDWR);

	is_true((r >= 0) == !!(bits & 4), "%s reads %03o", l->who->name, l->mode);
	is_true((w >= 0) == !!(bits & 2), "%s writes %03o", l->who->name, l->mode);
	is_true((rw >= 0) == ((bits & 6) == 6), "%s reads and writes %03o", l->who->name, l->mode);
	is_true((access("f", X_OK) == 0) == !!(bits & 1), "%s executes %03o", l->who->name, l->mode);
	is_true((truncate("f", 1) == 0) == !!(bits & 2), "%s truncates %03o", l->who->name, l->mode);
}

static void files(void)
{
	if (!root_only("files"))
		return;
	put_file("f", "x", 0644);
	for (size_t p = 0; p < COUNT(people); p++) {
		for (mode_t bits = 0; bits < 8; bits++) {
			/* his own bits, and the opposite for everybody else: no other's bits may count */
			mode_t others = ~bits & 7;
			struct look l = {&people[p], 0};

			l.mode = (others << 6 | others << 3 | others) & ~(mode_t)(7u << people[p].shift);
			l.mode |= bits << people[p].shift;
			set("f", OWNER, GROUP, l.mode);
			as_user(people[p].uid, people[p].gid, people[p].group, open_file, &l);
		}
	}
}

static void in_directory(void *arg)
{
	const struct look *l = arg;
	mode_t bits = l->mode >> l->who->shift & 7;
	bool r = bits & 4, w = bits & 2, x = bits & 1;
	int d = open("d", O_RDONLY | O_DIRECTORY);
	struct stat st;
	const char *who = l->who->name;

	is_true((d >= 0) == r, "%s lists %03o", who, l->mode);
	is_true((stat("d/f", &st) == 0) == x, "%s looks up in %03o", who, l->mode);
	is_true((open("d/new", O_WRONLY | O_CREAT | O_EXCL, 0644) >= 0) == (w && x), "%s creates in %03o", who,
		l->mode);
	is_true((mkdir("d/sub", 0755) == 0) == (w && x), "%s mkdirs in %03o", who, l->mode);
	is_true((symlink("x", "d/link") == 0) == (w && x), "%s symlinks in %03o", who, l->mode);
	is_true((rename("d/f", "d/g") == 0) == (w && x), "%s renames in %03o", who, l->mode);
	is_true((unlink(w && x ? "d/g" : "d/f") == 0) == (w && x), "%s unlinks in %03o", who, l->mode);
	if (!(w && x) || !r)
		is_true(errno == EACCES || (w && x), "%s is told so of %03o", who, l->mode);
	is_true((chdir("d") == 0) == x, "%s enters %03o", who, l->mode);
}

static void directories(void)
{
	if (!root_only("directories"))
		return;
	for (size_t p = 0; p < COUNT(people); p++) {
		for (mode_t bits = 0; bits < 8; bits++) {
			mode_t others = ~bits & 7;
			struct look l = {&people[p], 0};

			l.mode = (others << 6 | others << 3 | others) & ~(mode_t)(7u << people[p].shift);
			l.mode |= bits << people[p].shift;
			need(mkdir("d", 0755) == 0, "mkdir");
			put_file("d/f", "x", 0666);
			set("d", OWNER, GROUP, l.mode);
			as_user(people[p].uid, people[p].gid, people[p].group, in_directory, &l);
			(void)!unlink("d/f"), (void)!unlink("d/g"), (void)!unlink("d/new"), (void)!unlink("d/link");
			(void)!rmdir("d/sub");
			need(rmdir("d") == 0, "rmdir");
		}
	}
}

static void sticky_as(void *arg)
{
	const char *who = arg;
	bool may = strcmp(who, "stranger") != 0; /* owner of the directory, or of the file */

	if (may)
		works(unlink("s/victim"), "%s unlinks", who);
	else
		fails_either(unlink("s/victim"), EPERM, EACCES, "%s unlinks", who);
	if (may)
		works(rename("s/second", "s/other"), "%s renames", who);
	else
		fails_either(rename("s/second", "s/other"), EPERM, EACCES, "%s renames", who);
	if (may)
		works(rmdir("s/dir"), "%s removes a directory", who);
	else
		fails_either(rmdir("s/dir"), EPERM, EACCES, "%s removes a directory", who);
	works(close(open("s/mine", O_WRONLY | O_CREAT, 0644)), "%s creates", who);
	works(unlink("s/mine"), "%s removes his own", who);
}

static void sticky(void)
{
	static const struct {
		const char *name;
		uid_t uid;
	} who[] = {{"directory owner", OWNER}, {"file owner", MEMBER}, {"stranger", STRANGER}};

	if (!root_only("sticky"))
		return;
	need(mkdir("s", 0755) == 0, "mkdir");
	set("s", OWNER, GROUP, 01777);
	for (size_t i = 0; i < COUNT(who); i++) {
		(void)!unlink("s/other");
		put_file("s/victim", "x", 0666), set("s/victim", MEMBER, GROUP, 0666);
		put_file("s/second", "x", 0666), set("s/second", MEMBER, GROUP, 0666);
		(void)!mkdir("s/dir", 0777), set("s/dir", MEMBER, GROUP, 0777);
		as_user(who[i].uid, 9, 0, sticky_as, (void *)(uintptr_t)who[i].name);
	}
}

static void change_as_stranger(void *arg)
{
	struct timespec ts[2] = {{1, 1}, {2, 2}};

	(void)arg;
	fails(chmod("f", 0777), EPERM, "stranger chmods");
	fails(chown("f", STRANGER, (gid_t)-1), EPERM, "stranger takes a file");
	fails(chown("f", (uid_t)-1, 3997), EPERM, "stranger changes the group");
	fails(utimensat(AT_FDCWD, "f", ts, 0), EPERM, "stranger sets times");
	works(utimensat(AT_FDCWD, "f", NULL, 0), "who may write sets times to now");
	chmod("f", 0644);
	fails(utimensat(AT_FDCWD, "ro", NULL, 0), EACCES, "who may not write does not");
	fails(link("secret", "l"), EPERM, "stranger links a file he cannot read");
}

static void change_as_owner(void *arg)
{
	(void)arg;
	works(chmod("f", 0640), "owner chmods");
	fails(chown("f", STRANGER, (gid_t)-1), EPERM, "owner gives a file away");
	works(chown("f", (uid_t)-1, GROUP), "owner gives it to a group of his");
	fails(chown("f", (uid_t)-1, 12345), EPERM, "owner gives it to another group");
	works(chown("f", OWNER, (gid_t)-1), "owner keeps it");
	works(chmod("f", 02755), "owner sets setgid for a group of his");
	is_eq(stat_of("f").st_mode & 07777, 02755, "setgid is set");
	works(chown("f", (uid_t)-1, 3999), "owner changes the group");
	is_eq(stat_of("f").st_mode & 07777, 0755, "setgid is dropped by that");
	works(chmod("foreign", 02755), "owner chmods a file of a foreign group");
	is_eq(stat_of("foreign").st_mode & 07777, 0755, "setgid for a foreign group is dropped");
	works(chmod("f", 01644), "owner sets sticky on a file");
}

static void changing(void)
{
	if (!root_only("changing"))
		return;
	put_file("f", "x", 0666), set("f", OWNER, 3999, 0666);
	put_file("ro", "x", 0644), set("ro", OWNER, 3999, 0644);
	put_file("secret", "x", 0600), set("secret", OWNER, 3999, 0600);
	put_file("foreign", "x", 0600), set("foreign", OWNER, 12345, 0600);
	chmod(".", 0777);
	as_user(STRANGER, 3997, 0, change_as_stranger, NULL);
	as_user(OWNER, 3999, GROUP, change_as_owner, NULL);
}

static void path_as_stranger(void *arg)
{
	struct stat st;

	(void)arg;
	fails(stat("closed/open/f", &st), EACCES, "below a closed directory");
	fails(open("closed/open/f", O_RDONLY), EACCES, "open below it");
	fails(open("closed/new", O_WRONLY | O_CREAT, 0644), EACCES, "create in it");
	fails(mkdir("closed/open/new", 0755), EACCES, "mkdir below it");
	fails(chdir("closed"), EACCES, "enter it");
	works(access("through/f", R_OK), "through a directory that may be passed alone");
	fails(open("through", O_RDONLY), EACCES, "which may not be listed");
	fails(unlink("through/f"), EACCES, "nor changed");
	fails(rename("through/f", "through/g"), EACCES, "nor renamed in");
	works(stat("through/f", &st), "stat needs no right on the file");
	is_eq(faccessat(AT_FDCWD, "through/f", W_OK, AT_EACCESS), -1, "faccessat with effective ids");
}

static void paths(void)
{
	if (!root_only("paths"))
		return;
	need(mkdir("closed", 0755) == 0 && mkdir("closed/open", 0777) == 0 && mkdir("through", 0711) == 0, "mkdir");
	put_file("closed/open/f", "x", 0666);
	put_file("through/f", "x", 0444);
	chmod("closed", 0700);
	as_user(STRANGER, 3997, 0, path_as_stranger, NULL);
	works(access("closed/open/f", R_OK), "root passes everywhere");
	chmod("closed", 0);
	works(access("closed/open/f", R_OK), "root passes mode 0");
	put_file("zero", "x", 0644), chmod("zero", 0);
	is_true(text_is("zero", "x"), "root reads mode 0");
	works(truncate("zero", 0), "root writes mode 0");
	fails(access("zero", X_OK), EACCES, "root does not execute what nobody may");
}

static void own_as_user(void *arg)
{
	struct stat st;

	(void)arg;
	works(close(open("own/f", O_WRONLY | O_CREAT, 0600)), "create");
	st = stat_of("own/f");
	is_true(st.st_uid == STRANGER && st.st_gid == 3997, "a file is its maker's");
	works(mkdir("own/d", 0700), "mkdir");
	st = stat_of("own/d");
	is_true(st.st_uid == STRANGER && st.st_gid == 3997, "a directory too");
	works(symlink("f", "own/l"), "symlink");
	st = stat_of("own/l");
	is_true(st.st_uid == STRANGER && st.st_gid == 3997, "a link too");
	works(mkfifo("own/p", 0600), "mkfifo");
	st = stat_of("own/p");
	is_true(st.st_uid == STRANGER && st.st_gid == 3997, "a fifo too");
	fails(mknod("own/dev", S_IFCHR | 0666, 0x103), EPERM, "no device");
	works(close(open("own/none", O_WRONLY | O_CREAT, 0)), "create with mode 0");
	fails(open("own/none", O_RDONLY), EACCES, "which its maker cannot open then");
	works(chmod("own/none", 0400), "but change");
	works(close(open("own/none", O_RDONLY)), "and open");
	fails(syscall(SYS_openat, AT_FDCWD, "own/f2", O_RDONLY | O_NOATIME, 0), ENOENT, "noatime of nothing");
	works(close(open("own/f", O_RDONLY | O_NOATIME)), "noatime of his own");
	fails(open("root-file", O_RDONLY | O_NOATIME), EPERM, "noatime of another's");
}

static void owning(void)
{
	if (!root_only("owning"))
		return;
	need(mkdir("own", 0755) == 0 && chmod("own", 0777) == 0, "mkdir");
	put_file("root-file", "x", 0644);
	as_user(STRANGER, 3997, 0, own_as_user, NULL);
}

/* What an ordinary user may not do with what is his own. */
static void without_root(void)
{
	if (am_root()) {
		skipped("for an ordinary user", "not root");
		return;
	}
	put_file("f", "x", 0644);
	fails(chown("f", 0, (gid_t)-1), EPERM, "chown to root");
	fails(chown("f", (uid_t)-1, 0), EPERM, "chgrp to root");
	works(chown("f", geteuid(), getegid()), "chown to oneself");
	chmod("f", 0);
	fails(open("f", O_RDONLY), EACCES, "open mode 0");
	fails(open("f", O_WRONLY), EACCES, "open mode 0 for writing");
	fails(truncate("f", 0), EACCES, "truncate mode 0");
	chmod("f", 0444);
	fails(open("f", O_WRONLY), EACCES, "open 0444 for writing");
	fails(open("f", O_RDWR), EACCES, "open 0444 for both");
	fails(open("f", O_RDONLY | O_TRUNC), EACCES, "open 0444 truncating");
	works(access("f", R_OK), "read 0444");
	fails(access("f", W_OK), EACCES, "access for writing");
	works(unlink("f"), "unlink 0444");
	need(mkdir("d", 0755) == 0, "mkdir");
	put_file("d/f", "x", 0644);
	chmod("d", 0555);
	fails(unlink("d/f"), EACCES, "unlink in 0555");
	fails(open("d/g", O_WRONLY | O_CREAT, 0644), EACCES, "create in 0555");
	fails(rename("d/f", "d/g"), EACCES, "rename in 0555");
	fails(rename("d/f", "g"), EACCES, "rename out of 0555");
	fails(rmdir("d"), ENOTEMPTY, "rmdir 0555");
	chmod("d", 0666);
	fails(access("d/f", F_OK), EACCES, "look up in 0666");
	chmod("d", 0333);
	fails(open("d", O_RDONLY), EACCES, "list 0333");
	works(access("d/f", R_OK), "look up in 0333");
	works(unlink("d/f"), "unlink in 0333");
	chmod("d", 0755);
	fails(mknod("dev", S_IFCHR | 0600, 0x103), EPERM, "mknod of a device");
}

GROUPS(perm) = {
	{"perm-file", files, 0}, {"perm-dir", directories, 0}, {"sticky", sticky, 0},	  {"perm-change", changing, 0},
	{"perm-path", paths, 0}, {"owner", owning, 0},	       {"user", without_root, 0}, END_OF_GROUPS,
};
