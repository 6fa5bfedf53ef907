/* SPDX-License-Identifier: Apache-2.0 */
/* sm_task: a call that takes long, on a thread of its own, and a descriptor that tells when it is over. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "lib/lib.h"

struct sm_task {
	int (*call)(void *arg, struct sm_error *err);
	void *arg;
	pthread_t thread;
	int fd;
	/* the thread's, until it is joined */
	int result;
	struct sm_error err;
};

static void *run(void *arg)
{
	struct sm_task *t = arg;
	uint64_t one = 1;

	t->result = t->call(t->arg, &t->err);
	(void)!write(t->fd, &one, sizeof(one));
	return NULL;
}

int sm_task_start(int (*call)(void *arg, struct sm_error *err), void *arg, struct sm_task **ret, struct sm_error *err)
{
	struct sm_task *t = calloc(1, sizeof(*t));
	sigset_t all, old;
	int r;

	if (!t)
		return error_sys(err, ENOMEM, "task");
	t->call = call;
	t->arg = arg;
	t->fd = eventfd(0, EFD_CLOEXEC);
	r = t->fd < 0 ? errno : 0;
	if (r == 0) {
		sigfillset(&all);
		pthread_sigmask(SIG_SETMASK, &all, &old);
		r = pthread_create(&t->thread, NULL, run, t);
		pthread_sigmask(SIG_SETMASK, &old, NULL);
	}
	if (r) {
		fd_close(t->fd);
		free(t);
		return error_sys(err, r, "task");
	}
	*ret = t;
	return 0;
}

int sm_task_fd(const struct sm_task *t)
{
	return t->fd;
}

int sm_task_finish(struct sm_task *t, struct sm_error *err)
{
	int r;

	pthread_join(t->thread, NULL);
	r = t->result;
	if (r < 0 && err)
		*err = t->err;
	fd_close(t->fd);
	free(t);
	return r;
}
