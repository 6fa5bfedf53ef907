/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared directories under the seal, each time in a process of its own: every file operation still works there, and
 * nothing outside can be reached, neither by the operations nor by a thread that was taken over.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/fileio.h"
#include "base/util.h"
#include "vmm/seal.h"
#include "vmm/dax_window.h"
#include "vmm/share.h"

#include "sanitized.h"

#define ROOT (1ULL << 56 | 1) /* of the first share */
#define OTHER (2ULL << 56 | 1)

/* What a test does in the sealed thread; its result is the exit status. */
struct scene {
	struct dax_window window;
	struct share *share;
	int (*deed)(struct scene *);
	char dir[64];
	uint64_t unique, node, fh;
	int result;
	bool root;
	uint8_t reply[1 << 16];
};

static void *sealed_thread(void *arg)
{
	struct scene *s = arg;

	struct seal_window window = {.host = s->window.host, .size = s->window.size};

	s->result = seal_server(share_syscalls(s->share), &window) < 0 ? 103 : s->deed(s);
	return NULL;
}

static int deed_follow(struct scene *s);

static int stage(struct scene *s)
{
	struct vmm_config cfg = {.num_fs = 2, .audit = -1};
	pthread_t thread;
	char path[96];

	for (unsigned i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%c", s->dir, i ? 'b' : 'a');
		cfg.fs[i].fd = open(path, O_PATH | O_CLOEXEC);
		cfg.fs[i].read_only = i == 1;
		cfg.fs[i].dax = true;
		if (s->deed == deed_follow)
			cfg.fs[i].symlinks = SM_FS_SYMLINKS_FOLLOW;
		if (cfg.fs[i].fd < 0)
			return 99;
	}
	share_prepare(&cfg);
	if (dax_window_open(&s->window, 2 * DAX_WINDOW_PLACE, NULL) < 0)
		return 98;
	if (seal_process(share_capabilities(&cfg), NULL) < 0)
		return 100;
	if (share_new(&cfg, &s->window, &s->share, NULL) < 0)
		return 101;
	if (share_confine(&cfg, NULL) < 0)
		return 102;
	if (pthread_create(&thread, NULL, sealed_thread, s) || seal_capabilities(0) < 0)
		return 104;
	pthread_join(thread, NULL);
	return s->result;
}

/* The exit status of a process that shares DIR/a and, read-only, DIR/b; -1 if the filter ended it. */
static int play(int (*deed)(struct scene *))
{
	struct scene *s = calloc(1, sizeof(*s));
	char path[96];
	int status;
	pid_t pid;

	assert_non_null(s);
	s->deed = deed;
	s->root = geteuid() == 0;
	strcpy(s->dir, "/tmp/sm-share-XXXXXX");
	assert_non_null(mkdtemp(s->dir));
	for (unsigned i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%c", s->dir, i ? 'b' : 'a');
		assert_int_equal(mkdir(path, 0755), 0);
	}
	snprintf(path, sizeof(path), "%s/secret", s->dir);
	assert_int_equal(write_file_atomic_at(AT_FDCWD, path, "s", 1, 0644), 0);
	snprintf(path, sizeof(path), "%s/b/file", s->dir);
	assert_int_equal(write_file_atomic_at(AT_FDCWD, path, "b", 1, 0644), 0);
	snprintf(path, sizeof(path), "%s/a/foreign", s->dir);
	assert_int_equal(write_file_atomic_at(AT_FDCWD, path, "f", 1, 0600), 0);
	if (geteuid() == 0)
		assert_int_equal(chown(path, 1234, 1234), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct rlimit none = {0};

		setrlimit(RLIMIT_CORE, &none);
		_exit(stage(s));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	remove_tree_at(AT_FDCWD, s->dir);
	free(s);
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS)
		return -1;
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

/* ------------------------------------------------------------------------------------------ operations */

static int call2(struct scene *s, uint32_t opcode, uint64_t node, const void *arg, size_t size, const void *more,
		 size_t more_size)
{
	struct fuse_in_header h = {.len = (uint32_t)(sizeof(h) + size + more_size),
				   .opcode = opcode,
				   .nodeid = node,
				   .unique = ++s->unique};
	struct iovec in[3] = {{&h, sizeof(h)}, {(void *)(uintptr_t)arg, size}, {(void *)(uintptr_t)more, more_size}};
	struct iovec out = {s->reply, sizeof(s->reply)};

	if (share_serve(s->share, in, 3, &out, 1) <= 0)
		return -EPROTO;
	return ((struct fuse_out_header *)s->reply)->error;
}

static int call(struct scene *s, uint32_t opcode, uint64_t node, const void *arg, size_t size, const char *name)
{
	return call2(s, opcode, node, arg, size, name, name ? strlen(name) + 1 : 0);
}

static const void *payload(const struct scene *s)
{
	return s->reply + sizeof(struct fuse_out_header);
}

static int hello(struct scene *s)
{
	struct fuse_init_in in = {.major = 7, .minor = 38, .flags = ~0u, .flags2 = ~0u};

	return call(s, FUSE_INIT, 0, &in, sizeof(in), NULL);
}

/* A new file "f" of the first share, open: s->node, s->fh. */
static int make_file(struct scene *s)
{
	struct fuse_create_in in = {.flags = O_RDWR, .mode = 0644};
	const struct fuse_entry_out *e = payload(s);
	int r = call(s, FUSE_CREATE, ROOT, &in, sizeof(in), "f");

	s->node = e->nodeid;
	s->fh = ((const struct fuse_open_out *)(e + 1))->fh;
	return r;
}

#define TRY(expr)                                                                                                      \
	do {                                                                                                           \
		int _r = (expr);                                                                                       \
		if (_r) {                                                                                              \
			fprintf(stderr, "%s:%d: %s: %s\n", __func__, __LINE__, #expr, strerror(-_r));                  \
			return 1;                                                                                      \
		}                                                                                                      \
	} while (0)

static int deed_data(struct scene *s)
{
	struct fuse_write_in wr = {.size = 5};
	struct fuse_read_in rd = {.size = 100};
	struct fuse_fsync_in fs = {0};
	struct fuse_lseek_in lk = {.whence = SEEK_HOLE};
	struct fuse_fallocate_in fa = {.length = 8192};
	struct fuse_copy_file_range_in cp = {.len = 5, .off_out = 4096};
	struct fuse_release_in rl = {0};
	struct fuse_open_in op = {.flags = O_RDWR | O_TRUNC};

	TRY(hello(s));
	TRY(make_file(s));
	wr.fh = rd.fh = fs.fh = lk.fh = fa.fh = cp.fh_in = cp.fh_out = rl.fh = s->fh;
	cp.nodeid_out = s->node;
	TRY(call2(s, FUSE_WRITE, s->node, &wr, sizeof(wr), "hello", 5));
	TRY(call(s, FUSE_READ, s->node, &rd, sizeof(rd), NULL));
	TRY(memcmp(payload(s), "hello", 5) ? -EIO : 0);
	TRY(call(s, FUSE_FSYNC, s->node, &fs, sizeof(fs), NULL));
	TRY(call(s, FUSE_LSEEK, s->node, &lk, sizeof(lk), NULL));
	TRY(call(s, FUSE_FALLOCATE, s->node, &fa, sizeof(fa), NULL));
	TRY(call(s, FUSE_COPY_FILE_RANGE, s->node, &cp, sizeof(cp), NULL));
	TRY(call(s, FUSE_RELEASE, s->node, &rl, sizeof(rl), NULL));
	TRY(call(s, FUSE_OPEN, s->node, &op, sizeof(op), NULL));
	return 0;
}

/* A file is mapped into the window, written through it, made shorter and mended there, and unmapped. */
static int deed_dax(struct scene *s)
{
	struct fuse_fallocate_in fa = {.length = DAX_WINDOW_PLACE};
	struct fuse_setattr_in cut = {.valid = FATTR_SIZE, .size = 4096};
	struct fuse_setupmapping_in in = {.fh = UINT64_MAX,
					  .len = DAX_WINDOW_PLACE,
					  .flags = FUSE_SETUPMAPPING_FLAG_READ | FUSE_SETUPMAPPING_FLAG_WRITE,
					  .moffset = DAX_WINDOW_PLACE};
	struct fuse_removemapping_in out = {.count = 1};
	struct fuse_removemapping_one one = {.moffset = DAX_WINDOW_PLACE, .len = DAX_WINDOW_PLACE};
	struct fuse_read_in rd = {.size = 100, .offset = 5};
	uint8_t *mapped = s->window.host + DAX_WINDOW_PLACE;

	TRY(hello(s));
	TRY(make_file(s));
	fa.fh = rd.fh = s->fh;
	TRY(call(s, FUSE_FALLOCATE, s->node, &fa, sizeof(fa), NULL));
	TRY(call(s, FUSE_SETUPMAPPING, s->node, &in, sizeof(in), NULL));
	memcpy(mapped + 5, "hello", 5);
	TRY(call(s, FUSE_READ, s->node, &rd, sizeof(rd), NULL));
	TRY(memcmp(payload(s), "hello", 5) ? -EIO : 0);
	TRY(call(s, FUSE_SETATTR, s->node, &cut, sizeof(cut), NULL));
	TRY(dax_window_repair(&s->window, 0) == 1 ? 0 : -EIO);
	TRY(mapped[4096] ? -EIO : 0);
	TRY(call2(s, FUSE_REMOVEMAPPING, s->node, &out, sizeof(out), &one, sizeof(one)));
	TRY(mapped[5] ? -EIO : 0);
	return 0;
}

static int deed_names(struct scene *s)
{
	struct fuse_mkdir_in mk = {.mode = 0755};
	struct fuse_rename2_in rn = {0};
	struct fuse_link_in ln = {0};
	struct fuse_mknod_in mn = {.mode = S_IFIFO | 0644};
	uint64_t dir;

	TRY(hello(s));
	TRY(make_file(s));
	TRY(call(s, FUSE_MKDIR, ROOT, &mk, sizeof(mk), "d"));
	dir = ((const struct fuse_entry_out *)payload(s))->nodeid;
	TRY(call2(s, FUSE_SYMLINK, dir, "l", 2, "/etc/passwd", 12));
	TRY(call(s, FUSE_READLINK, ((const struct fuse_entry_out *)payload(s))->nodeid, NULL, 0, NULL));
	ln.oldnodeid = s->node;
	TRY(call(s, FUSE_LINK, dir, &ln, sizeof(ln), "hard"));
	TRY(call(s, FUSE_MKNOD, dir, &mn, sizeof(mn), "fifo"));
	rn.newdir = dir;
	TRY(call2(s, FUSE_RENAME2, ROOT, &rn, sizeof(rn), "f\0g", 4)); /* from one directory into another */
	TRY(call(s, FUSE_LOOKUP, dir, NULL, 0, "g"));
	TRY(call(s, FUSE_UNLINK, dir, NULL, 0, "g"));
	TRY(call(s, FUSE_UNLINK, dir, NULL, 0, "l"));
	TRY(call(s, FUSE_UNLINK, dir, NULL, 0, "hard"));
	TRY(call(s, FUSE_UNLINK, dir, NULL, 0, "fifo"));
	TRY(call(s, FUSE_RMDIR, ROOT, NULL, 0, "d"));
	TRY(call(s, FUSE_STATFS, ROOT, NULL, 0, NULL));
	return 0;
}

static int deed_attributes(struct scene *s)
{
	struct fuse_setattr_in sa = {.valid = FATTR_MODE | FATTR_SIZE | FATTR_ATIME | FATTR_MTIME_NOW | FATTR_MTIME,
				     .mode = 0600,
				     .size = 100};
	struct fuse_setxattr_in sx = {.size = 1};
	struct fuse_getxattr_in gx = {.size = 4096};
	struct fuse_getattr_in ga = {0};
	uint8_t value[] = "user.x\0v";
	int r;

	TRY(hello(s));
	TRY(make_file(s));
	TRY(call(s, FUSE_SETATTR, s->node, &sa, sizeof(sa), NULL));
	r = call2(s, FUSE_SETXATTR, s->node, &sx, sizeof(sx), value, 8);
	if (r == -EOPNOTSUPP)
		return 0; /* a /tmp without user attributes: the calls were let through */
	TRY(r);
	TRY(call(s, FUSE_GETXATTR, s->node, &gx, sizeof(gx), "user.x"));
	TRY(call(s, FUSE_LISTXATTR, s->node, &gx, sizeof(gx), NULL));
	TRY(call(s, FUSE_REMOVEXATTR, s->node, NULL, 0, "user.x"));
	sa = (struct fuse_setattr_in){.valid = FATTR_UID | FATTR_GID, .uid = 1000, .gid = 1000};
	TRY(call(s, FUSE_SETATTR, s->node, &sa, sizeof(sa), NULL));
	/* A peer's attribute of the name that ours has is the peer's alone. */
	TRY(call2(s, FUSE_SETXATTR, s->node, &sx, sizeof(sx), "user.supermachine.stat\0v", 24));
	TRY(call(s, FUSE_GETXATTR, s->node, &gx, sizeof(gx), "user.supermachine.stat"));
	TRY(*(const char *)payload(s) == 'v' ? 0 : -EIO);
	TRY(call(s, FUSE_LISTXATTR, s->node, &gx, sizeof(gx), NULL));
	TRY(strcmp(payload(s), "user.supermachine.stat") ? -EIO : 0);
	TRY(call(s, FUSE_GETATTR, s->node, &ga, sizeof(ga), NULL));
	TRY(((const struct fuse_attr_out *)payload(s))->attr.uid == 1000 ? 0 : -EIO);
	return 0;
}

static int deed_lists(struct scene *s)
{
	struct fuse_open_in op = {0};
	struct fuse_read_in rd = {.size = 32768};
	struct fuse_fsync_in fs = {0};

	TRY(hello(s));
	TRY(make_file(s));
	/* The guest's kernel is told not to open directories. */
	TRY(call(s, FUSE_OPENDIR, ROOT, &op, sizeof(op), NULL) == -ENOSYS ? 0 : -EIO);
	TRY(call(s, FUSE_READDIRPLUS, ROOT, &rd, sizeof(rd), NULL));
	TRY(call(s, FUSE_READDIR, ROOT, &rd, sizeof(rd), NULL));
	TRY(call(s, FUSE_FSYNCDIR, ROOT, &fs, sizeof(fs), NULL));
	TRY(call(s, FUSE_DESTROY, 0, NULL, 0, NULL));
	return 0;
}

/* Links of a share that follows them: one that leads to a file is it, one that leads out stays one. */
static int deed_follow(struct scene *s)
{
	const struct fuse_entry_out *e = payload(s);
	uint64_t link;

	TRY(hello(s));
	TRY(make_file(s));
	TRY(call2(s, FUSE_SYMLINK, ROOT, "in", 3, "/f", 3));
	TRY(call2(s, FUSE_SYMLINK, ROOT, "out", 4, "../secret", 10));
	TRY(call(s, FUSE_LOOKUP, ROOT, NULL, 0, "in"));
	TRY(S_ISREG(e->attr.mode) && e->nodeid == s->node ? 0 : -EIO);
	TRY(call(s, FUSE_LOOKUP, ROOT, NULL, 0, "out"));
	TRY(S_ISLNK(e->attr.mode) ? 0 : -EIO);
	link = e->nodeid;
	TRY(call(s, FUSE_READLINK, link, NULL, 0, NULL) == -ENOENT ? 0 : -EIO);
	return 0;
}

static int deed_read_only(struct scene *s)
{
	struct fuse_create_in cr = {.flags = O_RDWR, .mode = 0644};
	struct fuse_open_in op = {.flags = O_RDONLY};
	char path[96];

	TRY(hello(s));
	TRY(call(s, FUSE_CREATE, OTHER, &cr, sizeof(cr), "new") == -EROFS ? 0 : -EIO);
	TRY(call(s, FUSE_UNLINK, OTHER, NULL, 0, "file") == -EROFS ? 0 : -EIO);
	TRY(call(s, FUSE_LOOKUP, OTHER, NULL, 0, "file"));
	TRY(call(s, FUSE_OPEN, ((const struct fuse_entry_out *)payload(s))->nodeid, &op, sizeof(op), NULL));
	/* The host's word, not the server's: a thread that was taken over cannot write there either. */
	snprintf(path, sizeof(path), "%s/b/file", s->dir);
	TRY(open(path, O_WRONLY) < 0 && errno == EACCES ? 0 : -EIO);
	TRY(unlinkat(AT_FDCWD, path, 0) < 0 && errno == EACCES ? 0 : -EIO);
	return 0;
}

/* ----------------------------------------------------------------------- what a taken-over thread would try */

static int deed_outside(struct scene *s)
{
	char path[96];
	int root;

	TRY(open("/etc/passwd", O_RDONLY) < 0 && errno == EACCES ? 0 : -EIO);
	snprintf(path, sizeof(path), "%s/secret", s->dir);
	TRY(open(path, O_RDONLY) < 0 && errno == EACCES ? 0 : -EIO);
	TRY(open(path, O_WRONLY) < 0 && errno == EACCES ? 0 : -EIO);
	TRY(unlinkat(AT_FDCWD, path, 0) < 0 && errno == EACCES ? 0 : -EIO);
	snprintf(path, sizeof(path), "%s/a", s->dir);
	root = open(path, O_RDONLY | O_DIRECTORY);
	TRY(root < 0 ? -errno : 0);
	TRY(openat(root, "../secret", O_RDONLY) < 0 && errno == EACCES ? 0 : -EIO);
	TRY(linkat(root, "../secret", root, "link", 0) < 0 && errno == EXDEV ? 0 : -EIO);
	TRY(mkdirat(root, "../new", 0755) < 0 && errno == EACCES ? 0 : -EIO);
	TRY(renameat2(root, "../secret", root, "mine", 0) < 0 ? 0 : -EIO);
	return 0;
}

/* What a thread that serves files may not map, though it has the descriptors and all of this would succeed. */
static int deed_map(struct scene *s, void *at, size_t len, int prot, int flags)
{
	int fd = memfd_create("file", MFD_CLOEXEC);

	(void)mmap(at, len, prot, flags, flags & MAP_ANONYMOUS ? -1 : fd, 0);
	return 0;
}

static int deed_map_file(struct scene *s)
{
	return deed_map(s, NULL, 4096, PROT_READ, MAP_SHARED);
}

static int deed_map_private(struct scene *s)
{
	return deed_map(s, NULL, 4096, PROT_READ, MAP_PRIVATE);
}

static int deed_map_before(struct scene *s)
{
	return deed_map(s, s->window.host - 4096, 4096, PROT_READ, MAP_SHARED | MAP_FIXED);
}

static int deed_map_behind(struct scene *s)
{
	return deed_map(s, s->window.host + s->window.size, 4096, PROT_READ, MAP_SHARED | MAP_FIXED);
}

static int deed_map_long(struct scene *s)
{
	return deed_map(s, s->window.host, DAX_WINDOW_PLACE + 4096, PROT_READ, MAP_SHARED | MAP_FIXED);
}

static int deed_map_code(struct scene *s)
{
	return deed_map(s, s->window.host, 4096, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED);
}

static int deed_map_over(struct scene *s)
{
	return deed_map(s, s->reply, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED);
}

static int deed_move(struct scene *s)
{
	return mremap(s->window.host, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, s->window.host + 8192) == MAP_FAILED;
}

static int deed_exec(struct scene *s)
{
	char *argv[] = {NULL};

	return (int)syscall(__NR_execve, "/bin/true", argv, argv);
}

static int deed_socket(struct scene *s)
{
	return (int)syscall(__NR_socket, AF_UNIX, SOCK_STREAM, 0);
}

static int deed_handle(struct scene *s)
{
	return (int)syscall(__NR_open_by_handle_at, 0, NULL, 0);
}

static int deed_mount(struct scene *s)
{
	return (int)syscall(__NR_mount, "a", "b", "c", 0, NULL);
}

static int deed_capset(struct scene *s)
{
	return (int)syscall(__NR_capset, NULL, NULL);
}

/* Root's server may use its user's files, whoever owns them; but not give them away, unless ids are the same. */
static int deed_capabilities(struct scene *s)
{
	char path[96];

	if (!s->root)
		return 0;
	snprintf(path, sizeof(path), "%s/a/foreign", s->dir);
	TRY(open(path, O_RDONLY) < 0 ? -errno : 0);
	TRY(fchownat(AT_FDCWD, path, 1000, 1000, 0) < 0 && errno == EPERM ? 0 : -EIO);
	return 0;
}

static void skip_without_landlock(void)
{
	if (syscall(SYS_landlock_create_ruleset, NULL, 0, 1) >= 2)
		return;
	print_message("skipped: this kernel has no Landlock\n");
	skip();
}

static void test_operations(void **state)
{
	static int (*const deeds[])(struct scene *) = {deed_data,  deed_dax,	deed_names,    deed_attributes,
						       deed_lists, deed_follow, deed_read_only};

	skip_if_sanitized();
	skip_without_landlock();
	for (size_t i = 0; i < ARRAY_SIZE(deeds); i++) {
		int r = play(deeds[i]);

		if (r)
			fail_msg("deed %zu: %d", i, r);
	}
}

static void test_nothing_outside(void **state)
{
	skip_if_sanitized();
	skip_without_landlock();
	assert_int_equal(play(deed_outside), 0);
}

static void test_forbidden(void **state)
{
	static int (*const deeds[])(struct scene *) = {
		deed_exec,     deed_socket,	 deed_handle,	  deed_mount,	   deed_capset,
		deed_map_file, deed_map_private, deed_map_before, deed_map_behind, deed_map_long,
		deed_map_code, deed_map_over,	 deed_move};

	skip_if_sanitized();
	skip_without_landlock();
	for (size_t i = 0; i < ARRAY_SIZE(deeds); i++)
		if (play(deeds[i]) != -1)
			fail_msg("deed %zu was allowed", i);
}

static void test_capabilities(void **state)
{
	skip_if_sanitized();
	skip_without_landlock();
	assert_int_equal(play(deed_capabilities), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_operations),
		cmocka_unit_test(test_nothing_outside),
		cmocka_unit_test(test_forbidden),
		cmocka_unit_test(test_capabilities),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
