/* SPDX-License-Identifier: Apache-2.0 */
/* Fifos, sockets, devices; unnamed files; direct I/O; programs that run; watching; a mount that cannot be written. */
#include "conf.h"

#include <poll.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>

static void fifos(void)
{
	char buf[8] = "";
	struct stat st;
	int r, w;

	works(mkfifo("p", 0640), "make");
	st = stat_of("p");
	is_true(S_ISFIFO(st.st_mode) && (st.st_mode & 0777) == 0640 && st.st_nlink == 1, "attributes");
	fails(mkfifo("p", 0640), EEXIST, "again");
	fails(open("p", O_WRONLY | O_NONBLOCK), ENXIO, "open for writing without a reader");
	r = open("p", O_RDONLY | O_NONBLOCK);
	works(r, "open for reading");
	w = open("p", O_WRONLY | O_NONBLOCK);
	works(w, "open for writing");
	is_eq(write(w, "hello", 5), 5, "write");
	is_eq(read(r, buf, 8), 5, "read");
	is_true(memcmp(buf, "hello", 5) == 0, "the same");
	close(w);
	is_eq(read(r, buf, 8), 0, "end of file");
	close(r);
	is_eq(stat_of("p").st_size, 0, "size");
	works(rename("p", "q"), "rename");
	works(chmod("q", 0600), "chmod");
	works(unlink("q"), "unlink");
	works(mknod("n", S_IFREG | 0600, 0), "mknod of a file");
	is_true(S_ISREG(stat_of("n").st_mode) && stat_of("n").st_size == 0, "is a file");
	fails(mknod("n", S_IFREG | 0600, 0), EEXIST, "mknod again");
	fails(mknod("m", S_IFDIR | 0700, 0), EPERM, "mknod of a directory");
	works(mknod("s", S_IFSOCK | 0600, 0), "mknod of a socket");
	fails(open("s", O_RDWR), ENXIO, "open a socket");
}

static void sockets(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX, .sun_path = "sock"};
	int l = socket(AF_UNIX, SOCK_STREAM, 0), c = socket(AF_UNIX, SOCK_STREAM, 0), a;
	char buf[8] = "";

	works(bind(l, (struct sockaddr *)&addr, sizeof(addr)), "bind");
	is_true(S_ISSOCK(stat_of("sock").st_mode), "is a socket");
	works(listen(l, 1), "listen");
	works(connect(c, (struct sockaddr *)&addr, sizeof(addr)), "connect");
	a = accept(l, NULL, NULL);
	is_eq(write(c, "hi", 2), 2, "write");
	is_eq(read(a, buf, 8), 2, "read");
	close(a), close(c), close(l);
	l = socket(AF_UNIX, SOCK_STREAM, 0);
	fails(bind(l, (struct sockaddr *)&addr, sizeof(addr)), EADDRINUSE, "bind again");
	works(unlink("sock"), "unlink");
	works(bind(l, (struct sockaddr *)&addr, sizeof(addr)), "bind after unlink");
	close(l);
}

static void devices(void)
{
	static const struct {
		mode_t type;
		unsigned major, minor;
	} devs[] = {{S_IFCHR, 1, 3}, {S_IFCHR, 1, 5},	    {S_IFBLK, 7, 200},
		    {S_IFCHR, 0, 0}, {S_IFCHR, 500, 70000}, {S_IFBLK, 259, 1}};
	struct stat st;

	if (!am_root()) {
		skipped("needs root", "devices");
		return;
	}
	for (size_t i = 0; i < COUNT(devs); i++) {
		works(mknod("d", devs[i].type | 0640, makedev(devs[i].major, devs[i].minor)), "make %zu", i);
		st = stat_of("d");
		is_eq(st.st_mode, devs[i].type | 0640, "mode %zu", i);
		is_true(st.st_rdev == makedev(devs[i].major, devs[i].minor), "number %zu", i);
		works(unlink("d"), "unlink %zu", i);
	}
}

static void device_open(void)
{
	int fd;
	char c;

	if (!am_root()) {
		skipped("needs root", "open of a device");
		return;
	}
	need(mknod("zero", S_IFCHR | 0600, makedev(1, 5)) == 0, "mknod");
	fd = open("zero", O_RDONLY);
	works(fd, "a device made here");
	if (fd >= 0)
		is_true(read(fd, &c, 1) == 1 && c == 0, "reads");
}

static void unnamed(void)
{
	char path[64];
	struct stat st;
	int fd = open(".", O_TMPFILE | O_RDWR, 0640), rest;

	if (fd < 0 && errno == EOPNOTSUPP) {
		fails(fd, 0, "open");
		return;
	}
	works(fd, "open");
	fstat(fd, &st);
	is_true(S_ISREG(st.st_mode) && st.st_nlink == 0 && st.st_size == 0, "is a file without a name");
	is_eq(st.st_mode & 07777, 0640, "mode");
	is_eq(write(fd, "content", 7), 7, "write");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	works(linkat(AT_FDCWD, path, AT_FDCWD, "named", AT_SYMLINK_FOLLOW), "give it a name");
	is_true(text_is("named", "content"), "read by the name");
	is_eq(stat_of("named").st_nlink, 1, "one link");
	is_true(stat_of("named").st_ino == st.st_ino, "the same file");
	close(fd);
	is_true(text_is("named", "content"), "stays");
	rest = open(".", O_TMPFILE | O_RDWR | O_EXCL, 0600);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", rest);
	fails(linkat(AT_FDCWD, path, AT_FDCWD, "never", AT_SYMLINK_FOLLOW), ENOENT, "O_EXCL: never a name");
	close(rest);
	fails(open(".", O_TMPFILE | O_RDONLY, 0600), EINVAL, "rdonly");
	fails(open("named", O_TMPFILE | O_RDWR, 0600), ENOTDIR, "in a file");
	fails(open("none", O_TMPFILE | O_RDWR, 0600), ENOENT, "in nothing");
}

static void direct(void)
{
	unsigned char *p = NULL, *q = NULL;
	int fd, cached;

	need(posix_memalign((void **)&p, 4096, 65536) == 0 && posix_memalign((void **)&q, 4096, 65536) == 0, "memory");
	fd = open("f", O_RDWR | O_CREAT | O_DIRECT, 0644);
	works(fd, "open");
	for (int i = 0; i < 65536; i++)
		p[i] = pattern((uint64_t)i);
	is_eq(pwrite(fd, p, 65536, 0), 65536, "write");
	memset(q, 0, 65536);
	is_eq(pread(fd, q, 65536, 0), 65536, "read");
	same_bytes(q, p, 65536, "the same");
	cached = open("f", O_RDWR);
	memset(q, 0, 65536);
	is_eq(pread(cached, q, 65536, 0), 65536, "read through the cache");
	same_bytes(q, p, 65536, "the same through the cache");
	memset(p, 'c', 4096);
	is_eq(pwrite(cached, p, 4096, 8192), 4096, "write through the cache");
	is_eq(pread(fd, q, 4096, 8192), 4096, "read directly");
	same_bytes(q, p, 4096, "sees the cached write");
	memset(p, 'd', 4096);
	is_eq(pwrite(fd, p, 4096, 8192), 4096, "write directly");
	is_eq(pread(cached, q, 4096, 8192), 4096, "read what is cached");
	same_bytes(q, p, 4096, "sees the direct write");
	is_eq(pread(fd, q, 4096, 65536), 0, "end of file");
	is_eq(pread(fd, q, 8192, 61440), 4096, "a short read at the end");
	is_eq(pwrite(fd, p, 4096, 131072), 4096, "write behind the end");
	is_eq(stat_of("f").st_size, 135168, "size");
	is_eq(pread(fd, q, 4096, 100 * 1024), 4096, "read the hole");
	is_true(q[0] == 0 && q[4095] == 0, "zeros");
	close(fd), close(cached);
}

static void programs(void)
{
	char self[64], buf[65536];
	ssize_t n;
	int in = open("/proc/self/exe", O_RDONLY), out = open("prog", O_WRONLY | O_CREAT, 0755), status;
	pid_t pid;

	while ((n = read(in, buf, sizeof(buf))) > 0)
		need(write(out, buf, (size_t)n) == n, "copy");
	close(in);
	snprintf(self, sizeof(self), "./prog");
	pid = fork();
	if (pid == 0) {
		execl(self, self, "--list", NULL);
		_exit(errno == ETXTBSY ? 42 : 43);
	}
	waitpid(pid, &status, 0);
	is_true(WIFEXITED(status) && WEXITSTATUS(status) == 42, "what is open for writing does not run");
	close(out);
	pid = fork();
	if (pid == 0) {
		(void)!freopen("/dev/null", "w", stdout);
		execl(self, self, "--list", NULL);
		_exit(errno);
	}
	waitpid(pid, &status, 0);
	is_eq(status, 0, "runs from here");
	int p[2];

	need(pipe(p) == 0, "pipe");
	pid = fork();
	if (pid == 0) { /* --list into a pipe that is full: stays while we look */
		close(p[0]);
		fcntl(p[1], F_SETPIPE_SZ, 4096);
		memset(buf, 'x', 4096);
		(void)!write(p[1], buf, 4096);
		dup2(p[1], 1);
		execl(self, self, "--list", NULL);
		_exit(1);
	}
	close(p[1]);
	for (int i = 0; i < 200; i++) {
		char link[64], target[256];

		snprintf(link, sizeof(link), "/proc/%d/exe", pid);
		n = readlink(link, target, sizeof(target) - 1);
		if (n > 5 && memcmp(target + n - 5, "/prog", 5) == 0)
			break;
		nap(10);
	}
	fails(open("prog", O_WRONLY), ETXTBSY, "what runs cannot be opened for writing");
	fails(open("prog", O_RDWR), ETXTBSY, "nor for both");
	fails(truncate("prog", 0), ETXTBSY, "nor truncated");
	works(close(open("prog", O_RDONLY)), "but read");
	works(unlink("prog"), "and unlinked");
	close(p[0]);
	waitpid(pid, &status, 0);
	put_file("script", "#!/none/such\n", 0755);
	pid = fork();
	if (pid == 0) {
		execl("./script", "./script", NULL);
		_exit(errno == ENOENT ? 42 : 43);
	}
	waitpid(pid, &status, 0);
	is_true(WIFEXITED(status) && WEXITSTATUS(status) == 42, "an interpreter that is not there");
	put_file("plain", "x", 0644);
	pid = fork();
	if (pid == 0) {
		execl("./plain", "./plain", NULL);
		_exit(errno == EACCES ? 42 : 43);
	}
	waitpid(pid, &status, 0);
	is_true(WIFEXITED(status) && WEXITSTATUS(status) == 42, "what is not executable");
}

static void watching(void)
{
	static const struct {
		const char *name;
		uint32_t event;
	} steps[] = {{"create", IN_CREATE},   {"modify", IN_MODIFY}, {"chmod", IN_ATTRIB},
		     {"rename", IN_MOVED_TO}, {"unlink", IN_DELETE}, {"mkdir", IN_CREATE | IN_ISDIR}};
	int n = inotify_init1(IN_NONBLOCK), fd = -1;
	char buf[4096];

	need(mkdir("d", 0755) == 0, "mkdir");
	works(inotify_add_watch(n, "d", IN_ALL_EVENTS), "watch");
	for (size_t i = 0; i < COUNT(steps); i++) {
		struct pollfd p = {.fd = n, .events = POLLIN};
		bool seen = false;
		ssize_t len;

		switch (i) {
		case 0:
			fd = open("d/f", O_WRONLY | O_CREAT, 0644);
			break;
		case 1:
			(void)!write(fd, "x", 1);
			break;
		case 2:
			fchmod(fd, 0600);
			break;
		case 3:
			rename("d/f", "d/g");
			break;
		case 4:
			close(fd), unlink("d/g");
			break;
		case 5:
			mkdir("d/s", 0755);
			break;
		}
		poll(&p, 1, 1000);
		len = read(n, buf, sizeof(buf));
		for (ssize_t at = 0; at < len;) {
			struct inotify_event *e = (struct inotify_event *)(buf + at);

			seen |= (e->mask & steps[i].event) == steps[i].event;
			at += (ssize_t)(sizeof(*e) + e->len);
		}
		is_true(seen, "%s", steps[i].name);
	}
	close(n);
}

static void read_only(void)
{
	int fd;

	fails(open("file", O_WRONLY), EROFS, "open for writing");
	fails(open("file", O_RDWR), EROFS, "open for both");
	fails(open("file", O_RDONLY | O_TRUNC), EROFS, "open truncating");
	fails(open("new", O_WRONLY | O_CREAT, 0644), EROFS, "create");
	fails(open("new", O_RDONLY | O_CREAT, 0644), EROFS, "create for reading");
	fails(open("file", O_WRONLY | O_CREAT | O_EXCL, 0644), EEXIST, "create what is there");
	works(close(open("file", O_RDONLY | O_CREAT, 0644)), "open what is there with O_CREAT");
	fails(open(".", O_TMPFILE | O_RDWR, 0600), EROFS, "unnamed file");
	fails(mkdir("new", 0755), EROFS, "mkdir");
	fails(mkdir("dir", 0755), EEXIST, "mkdir of what is there");
	fails(symlink("x", "new"), EROFS, "symlink");
	fails(link("file", "new"), EROFS, "link");
	fails(mkfifo("new", 0644), EROFS, "mkfifo");
	fails(rename("file", "new"), EROFS, "rename");
	fails(rename("none", "new"), EROFS, "rename of nothing");
	fails(unlink("file"), EROFS, "unlink");
	fails_either(unlink("none"), EROFS, ENOENT, "unlink of nothing");
	fails(rmdir("dir"), EROFS, "rmdir");
	fails(chmod("file", 0600), EROFS, "chmod");
	fails(chown("file", geteuid(), getegid()), EROFS, "chown");
	fails(truncate("file", 0), EROFS, "truncate");
	fails(utimensat(AT_FDCWD, "file", NULL, 0), EROFS, "utimens");
	fails(setxattr("file", "user.a", "1", 1, 0), EROFS, "setxattr");
	fails(removexattr("file", "user.a"), EROFS, "removexattr");
	fails(access("file", W_OK), EROFS, "access for writing");
	works(access("file", R_OK), "access for reading");
	fd = open("file", O_RDONLY);
	works(fd, "open for reading");
	is_true(read(fd, (char[8]){0}, 8) > 0, "read");
	works(fsync(fd), "fsync");
	close(fd);
	is_true(exists("link") && exists("dir"), "all is as it was");
	is_eq(readlink("link", (char[16]){0}, 16), 4, "readlink");
}

GROUPS(special) = {
	{"fifo", fifos, 0},	 {"socket", sockets, 0}, {"device", devices, 0}, {"device-open", device_open, 0},
	{"tmpfile", unnamed, 0}, {"direct", direct, 0},	 {"exec", programs, 0},	 {"inotify", watching, 0},
	END_OF_GROUPS,
};
GROUPS(readonly) = {
	{"read-only", read_only, 0},
	END_OF_GROUPS,
};
