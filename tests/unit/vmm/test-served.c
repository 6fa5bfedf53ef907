/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tree that another process serves, under the seal, each time in a process of its own: the thread that serves the
 * guest opens nothing itself, and when the server is killed it has another one from the keeper.
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
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/fileio.h"
#include "base/util.h"
#include "fuse/posix.h"
#include "fuse/share_server.h"
#include "vmm/dax_window.h"
#include "vmm/seal.h"
#include "vmm/share.h"

#include "sanitized.h"

#define ROOT (1ULL << 56 | 1)

struct scene {
	struct dax_window window;
	struct share *share;
	int (*deed)(struct scene *);
	char dir[64];
	pid_t servers[2];
	int socks[2]; /* one connected to each */
	int keeper;   /* its end of the control socket */
	uint64_t unique, node, fh;
	int result;
	uint8_t reply[1 << 16];
};

/* A process that serves the directory to one client. */
static pid_t start_server(const char *dir, int *ret_sock)
{
	struct fuse_posix_options o = {.ids = FUSE_POSIX_CALLER};
	struct sm_fs_backend *be;
	struct share_server *server;
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -1;
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(pair[0]);
		if (fuse_posix_new(dir, &o, &be, NULL) < 0 || share_server_start(be, -1, NULL, &server, NULL) < 0 ||
		    share_server_add(server, pair[1]) < 0)
			_exit(1);
		for (;;)
			pause();
	}
	close(pair[1]);
	*ret_sock = pair[0];
	return pid;
}

static void *sealed_thread(void *arg)
{
	struct scene *s = arg;
	struct seal_window window = {.host = s->window.host, .size = s->window.size};

	s->result = seal_server(share_syscalls(s->share), &window) < 0 ? 103 : s->deed(s);
	return NULL;
}

/* The keeper: asked for another server it gives the second one, then none. */
static void *keeper_thread(void *arg)
{
	struct scene *s = arg;
	char packet[100];

	while (recv(s->keeper, packet, sizeof(packet), 0) > 0) {
		share_answer(s->share, 0, s->socks[1]);
		s->socks[1] = -1;
	}
	return NULL;
}

static int stage(struct scene *s)
{
	struct vmm_config cfg = {.num_fs = 1, .audit = -1};
	pthread_t thread, keeper;
	int control[2];

	for (unsigned i = 0; i < 2; i++) {
		s->servers[i] = start_server(s->dir, &s->socks[i]);
		if (s->servers[i] < 0)
			return 99;
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) < 0)
		return 98;
	s->keeper = control[1];
	cfg.control = control[0];
	cfg.fs[0] = (struct vmm_fs_config){.fd = s->socks[0], .server = true, .dax = true};
	share_prepare(&cfg);
	if (dax_window_open(&s->window, 2 * DAX_WINDOW_PLACE, NULL) < 0)
		return 97;
	if (share_capabilities(&cfg) || seal_process(0, NULL) < 0)
		return 100;
	if (share_new(&cfg, &s->window, &s->share, NULL) < 0)
		return 101;
	if (share_confine(&cfg, NULL) < 0)
		return 102;
	if (pthread_create(&keeper, NULL, keeper_thread, s) || pthread_create(&thread, NULL, sealed_thread, s))
		return 104;
	pthread_join(thread, NULL);
	return s->result;
}

/* The exit status of a process that serves a guest a tree of others; -1 if the filter ended it. */
static int play(int (*deed)(struct scene *))
{
	struct scene *s = calloc(1, sizeof(*s));
	int status;
	pid_t pid;

	assert_non_null(s);
	s->deed = deed;
	strcpy(s->dir, "/tmp/sm-served-XXXXXX");
	assert_non_null(mkdtemp(s->dir));
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

static int call(struct scene *s, uint32_t opcode, uint64_t node, const void *arg, size_t size, const void *more,
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

static const void *payload(const struct scene *s)
{
	return s->reply + sizeof(struct fuse_out_header);
}

#define TRY(expr)                                                                                                      \
	do {                                                                                                           \
		int _r = (expr);                                                                                       \
		if (_r) {                                                                                              \
			fprintf(stderr, "%s:%d: %s: %s\n", __func__, __LINE__, #expr, strerror(-_r));                  \
			return 1;                                                                                      \
		}                                                                                                      \
	} while (0)

static int begin(struct scene *s)
{
	struct fuse_init_in in = {.major = 7, .minor = 38, .flags = ~0u, .flags2 = ~0u};
	struct fuse_create_in cr = {.flags = O_RDWR, .mode = 0644};
	const struct fuse_entry_out *e = payload(s);

	TRY(call(s, FUSE_INIT, 0, &in, sizeof(in), NULL, 0));
	TRY(call(s, FUSE_CREATE, ROOT, &cr, sizeof(cr), "f", 2));
	s->node = e->nodeid;
	s->fh = ((const struct fuse_open_out *)(e + 1))->fh;
	return 0;
}

static int check(struct scene *s)
{
	struct fuse_read_in rd = {.size = 100, .fh = s->fh};

	TRY(call(s, FUSE_READ, s->node, &rd, sizeof(rd), NULL, 0));
	return memcmp(payload(s), "hello", 5) ? -EIO : 0;
}

static int deed_files(struct scene *s)
{
	struct fuse_write_in wr = {.size = 5};
	struct fuse_open_in op = {0};
	struct fuse_read_in rd = {.size = 32768};
	struct fuse_mkdir_in mk = {.mode = 0755};
	struct fuse_fallocate_in fa = {.length = DAX_WINDOW_PLACE};
	struct fuse_setupmapping_in map = {
		.fh = UINT64_MAX, .len = DAX_WINDOW_PLACE, .flags = FUSE_SETUPMAPPING_FLAG_READ};

	TRY(begin(s));
	wr.fh = fa.fh = s->fh;
	for (int i = 0; i < 2; i++) /* the first by way of the server */
		TRY(call(s, FUSE_WRITE, s->node, &wr, sizeof(wr), "hello", 5));
	TRY(check(s));
	TRY(call(s, FUSE_MKDIR, ROOT, &mk, sizeof(mk), "d", 2));
	TRY(call(s, FUSE_OPENDIR, ROOT, &op, sizeof(op), NULL, 0) == -ENOSYS ? 0 : -EIO); /* it opens none */
	TRY(call(s, FUSE_READDIRPLUS, ROOT, &rd, sizeof(rd), NULL, 0));
	TRY(call(s, FUSE_FALLOCATE, s->node, &fa, sizeof(fa), NULL, 0));
	TRY(call(s, FUSE_SETUPMAPPING, s->node, &map, sizeof(map), NULL, 0));
	TRY(memcmp(s->window.host, "hello", 5) ? -EIO : 0);
	return 0;
}

/* This thread may kill nobody: it cuts the connection, as the death of the server would. */
static int deed_again(struct scene *s)
{
	struct fuse_write_in wr = {.size = 5};
	struct fuse_open_in op = {.flags = O_RDWR};
	uint64_t before;

	TRY(begin(s));
	wr.fh = s->fh;
	TRY(call(s, FUSE_WRITE, s->node, &wr, sizeof(wr), "hello", 5));
	before = s->node;
	shutdown(s->socks[0], SHUT_RDWR);
	TRY(check(s)); /* what was open is */
	TRY(call(s, FUSE_OPEN, before, &op, sizeof(op), NULL, 0) == -ESTALE ? 0 : -EIO);
	TRY(call(s, FUSE_LOOKUP, ROOT, NULL, 0, "f", 2));
	s->node = ((const struct fuse_entry_out *)payload(s))->nodeid;
	TRY(s->node != before ? 0 : -EIO);
	TRY(call(s, FUSE_OPEN, s->node, &op, sizeof(op), NULL, 0));
	s->fh = ((const struct fuse_open_out *)payload(s))->fh;
	TRY(check(s));
	return 0;
}

static int deed_open(struct scene *s)
{
	return (int)syscall(__NR_openat, AT_FDCWD, "/etc/passwd", O_RDONLY);
}

static int deed_connect(struct scene *s)
{
	return (int)syscall(__NR_connect, s->keeper, NULL, 0);
}

static void test_files(void **state)
{
	skip_if_sanitized();
	assert_int_equal(play(deed_files), 0);
}

static void test_another_server(void **state)
{
	skip_if_sanitized();
	assert_int_equal(play(deed_again), 0);
}

static void test_it_opens_nothing(void **state)
{
	assert_int_equal(play(deed_open), -1);
	assert_int_equal(play(deed_connect), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_another_server),
		cmocka_unit_test(test_it_opens_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
