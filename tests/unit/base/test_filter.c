/* SPDX-License-Identifier: Apache-2.0 */
/* A process that is sealed: what it was granted it can do, threads as well, and nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/filter.h"

#define CHECK(condition)                                                                                               \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			_exit(__LINE__ & 0xff);                                                                        \
	} while (0)

static void *open_nothing(void *arg)
{
	CHECK(open("/dev/null", O_RDONLY | O_CLOEXEC) < 0 && errno == ENOSYS);
	return arg;
}

static void be_sealed(void)
{
	static const struct filter_rule rules[] = {CALL_WITH(clone, 0,
							     CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SYSVSEM |
								     CLONE_SIGHAND | CLONE_THREAD | CLONE_SETTLS |
								     CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID)};
	static const int lists[] = {SYS_umask, -1};
	pthread_t thread;
	int pair[2];

	CHECK(filter_process(rules, 1, (const int *const[]){lists, NULL}) == 0);
	CHECK(prctl(PR_GET_NO_NEW_PRIVS) == -1 && errno == ENOSYS);
	umask(0);
	CHECK(open("/dev/null", O_RDONLY | O_CLOEXEC) < 0 && errno == ENOSYS);
	CHECK(execl("/bin/true", "true", (char *)NULL) < 0 && errno == ENOSYS);
	CHECK(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) < 0 && errno == ENOSYS);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
	CHECK(write(pair[0], "x", 1) == 1 && close(pair[1]) == 0);
	CHECK(fork() < 0 && errno == ENOSYS);
	CHECK(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
	CHECK(pthread_create(&thread, NULL, open_nothing, NULL) == 0 && pthread_join(thread, NULL) == 0);
	free(malloc(1 << 22));
	_exit(0);
}

static void test_a_sealed_process(void **state)
{
	int status;
	pid_t pid;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	skip(); /* the sanitizer's own system calls are not allowed */
#endif
	pid = fork();
	if (pid == 0)
		be_sealed();
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_a_sealed_process)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
