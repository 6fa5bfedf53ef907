/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FUSE over io_uring. See dev_uring.h.
 *
 * Each thread has a ring with one entry: it has one request at a time, so none waits behind another's slow one while a
 * thread of its queue is idle. The kernel takes the entry that came back last, so a queue's second thread runs only
 * while the first one is busy. Header and payload are shared memory: the answer is written over the request, which has
 * been copied by then (of a WRITE the data goes to the file first).
 */
#include "fuse/dev_uring.h"

#include <errno.h>
#include <linux/fuse.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"

#define MAX_QUEUES 64u
#define FEW_QUEUES 8u /* up to so many have two threads each */

/* What a completion is about. */
enum { OF_ENTRY = 1, OF_STOP = 2 };

enum word { WAIT, BEGIN, STOP };

struct server {
	struct dev_uring *uring;
	unsigned qid;
	struct io_uring ring;
	bool has_ring;
	struct newer_uring_header *header;
	uint8_t *payload;
	uint64_t requests; /* atomic */
	pthread_t thread;
};

struct dev_uring {
	struct fuse_session *session;
	struct dev_uring_port port;
	int fd, stop_fd;
	pthread_mutex_t lock; /* the three below */
	pthread_cond_t changed;
	enum word word;
	unsigned ready, failed;
	unsigned num_servers;
	struct server servers[];
};

/* ------------------------------------------------------------------------------------------- a request */

int dev_uring_parts(struct newer_uring_header *h, void *payload, size_t room, struct iovec ret[3])
{
	struct fuse_in_header in;
	size_t payload_size = h->entry.payload_size, operation;

	memcpy(&in, h->in_out, sizeof(in));
	if (in.len < sizeof(in) || payload_size > room || payload_size > in.len - sizeof(in))
		return -EPROTO;
	operation = in.len - sizeof(in) - payload_size;
	if (operation > sizeof(h->operation))
		return -EPROTO;
	ret[0] = (struct iovec){h->in_out, sizeof(in)};
	ret[1] = (struct iovec){h->operation, operation};
	ret[2] = (struct iovec){payload, payload_size};
	return 0;
}

static int error_of(const struct newer_uring_header *h)
{
	struct fuse_out_header out;

	memcpy(&out, h->in_out, sizeof(out));
	return out.error;
}

/* Serves what stands in the entry's memory; the length of the reply, or less than its header. */
static ssize_t serve(struct server *s)
{
	struct newer_uring_header *h = s->header;
	struct iovec in[3],
		out[2] = {{h->in_out, sizeof(struct fuse_out_header)}, {s->payload, FUSE_SESSION_MAX_WRITE}};
	int r = dev_uring_parts(h, s->payload, FUSE_SESSION_MAX_WRITE, in);

	return r < 0 ? r : fuse_session_serve(s->uring->session, in, 3, out, 2);
}

static void answer(struct server *s)
{
	struct newer_uring_header *h = s->header;
	struct fuse_out_header out = {.len = sizeof(out), .error = -EIO};
	struct fuse_in_header head;
	ssize_t n;

	memcpy(&head, h->in_out, sizeof(head));
	n = serve(s);
	/* Forgets come another way, and may be late: what they will free is counted as free. Nothing has been done, and
	 * the request's other parts stand as they were. */
	if (n == sizeof(out) && (error_of(h) == -ENOSPC || error_of(h) == -EDQUOT)) {
		s->uring->port.settle(s->uring->port.arg);
		memcpy(h->in_out, &head, sizeof(head));
		n = serve(s);
	}
	__atomic_fetch_add(&s->requests, 1, __ATOMIC_RELAXED);
	/* Whatever came this way waits for an answer, and its entry with it. */
	if (n < (ssize_t)sizeof(out)) {
		out.unique = head.unique;
		memcpy(h->in_out, &out, sizeof(out));
		n = sizeof(out);
	}
	h->entry.payload_size = (uint32_t)((size_t)n - sizeof(out));
}

/* An empty one, of SQE128's size. NULL: impossible, there are more than are asked for at a time. */
static struct io_uring_sqe *get_sqe(struct server *s)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&s->ring);

	if (sqe)
		memset(sqe, 0, 2 * sizeof(*sqe));
	return sqe;
}

static bool prepare(struct server *s, uint32_t command, uint64_t commit_id, const struct iovec *memory)
{
	struct newer_uring_command c = {.commit_id = commit_id, .qid = (uint16_t)s->qid};
	struct io_uring_sqe *sqe = get_sqe(s);

	if (!sqe)
		return false;
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = s->uring->fd;
	sqe->cmd_op = command;
	sqe->addr = (uint64_t)(uintptr_t)memory;
	sqe->len = memory ? 2 : 0;
	sqe->user_data = OF_ENTRY;
	memcpy(sqe->cmd, &c, sizeof(c));
	return true;
}

static bool watch_stop(struct server *s)
{
	struct io_uring_sqe *sqe = get_sqe(s);

	if (!sqe)
		return false;
	io_uring_prep_poll_add(sqe, s->uring->stop_fd, POLLIN);
	sqe->user_data = OF_STOP;
	return true;
}

/*
 * What has come: false when this thread is done. An entry that fails at once was refused, and the kernel goes back to
 * the descriptor; later it means that the mount is gone, or has to go.
 */
static bool take_completions(struct server *s, bool *ret_request, bool *ret_gone)
{
	struct io_uring_cqe *cqe;
	unsigned head, count = 0;
	bool go_on = true;

	*ret_request = false;
	io_uring_for_each_cqe(&s->ring, head, cqe)
	{
		count++;
		*ret_request |= cqe->user_data == OF_ENTRY && cqe->res == 0;
		go_on &= cqe->user_data == OF_ENTRY && cqe->res == 0;
		if (cqe->user_data == OF_ENTRY && cqe->res < 0)
			*ret_gone = s->requests || cqe->res == -ENOTCONN || cqe->res == -ECONNABORTED;
	}
	io_uring_cq_advance(&s->ring, count);
	return go_on;
}

static bool serve_one(struct server *s)
{
	uint64_t id = s->header->entry.commit_id;

	answer(s);
	return prepare(s, NEWER_URING_COMMIT_AND_FETCH, id, NULL);
}

static void serve_all(struct server *s)
{
	struct iovec memory[2] = {{s->header, sizeof(*s->header)}, {s->payload, FUSE_SESSION_MAX_WRITE}};
	bool request, gone = false, go_on = watch_stop(s) && prepare(s, NEWER_URING_REGISTER, 0, memory);

	while (go_on) {
		int r = io_uring_submit_and_wait(&s->ring, 1);

		if (r < 0 && r != -EINTR && r != -EAGAIN && r != -EBUSY)
			break;
		go_on = take_completions(s, &request, &gone);
		if (request && !serve_one(s))
			break;
	}
	io_uring_submit(&s->ring); /* what was answered last */
	if (gone)
		s->uring->port.gone(s->uring->port.arg);
}

/* ---------------------------------------------------------------------------------------------- threads */

static void say(struct dev_uring *u, bool ok)
{
	pthread_mutex_lock(&u->lock);
	u->ready += ok;
	u->failed += !ok;
	pthread_cond_broadcast(&u->changed);
	pthread_mutex_unlock(&u->lock);
}

static enum word wait_for_word(struct dev_uring *u)
{
	enum word word;

	pthread_mutex_lock(&u->lock);
	while (u->word == WAIT)
		pthread_cond_wait(&u->changed, &u->lock);
	word = u->word;
	pthread_mutex_unlock(&u->lock);
	return word;
}

static void *server_run(void *arg)
{
	struct server *s = arg;
	struct io_uring_params p = {.flags = IORING_SETUP_SQE128 | IORING_SETUP_SINGLE_ISSUER |
					     IORING_SETUP_DEFER_TASKRUN};
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(s->qid, &cpus);
	/* A CPU that is absent, or not for us: anywhere, then. */
	if (sched_setaffinity(0, sizeof(cpus), &cpus) < 0)
		CPU_ZERO(&cpus);
	/* Modes are the peer's to choose: a umask of this thread's own, the process's stays as it is. */
	if (unshare(CLONE_FS) == 0)
		umask(0);
	s->has_ring = io_uring_queue_init_params(4, &s->ring, &p) == 0;
	say(s->uring, s->has_ring);
	if (s->has_ring && wait_for_word(s->uring) == BEGIN)
		serve_all(s);
	return NULL;
}

static int server_start(struct dev_uring *u, unsigned qid)
{
	struct server *s = &u->servers[u->num_servers];
	int r;

	*s = (struct server){.uring = u, .qid = qid};
	s->header = aligned_alloc(4096, 4096);
	s->payload = aligned_alloc(4096, FUSE_SESSION_MAX_WRITE);
	r = s->header && s->payload ? -pthread_create(&s->thread, NULL, server_run, s) : -ENOMEM;
	if (r < 0) {
		free(s->header);
		free(s->payload);
		return r;
	}
	u->num_servers++;
	return 0;
}

/* As the kernel counts queues: CPUs that may ever be there. "0-3,8" */
static unsigned possible_cpus(void)
{
	_free_ char *text = NULL;
	unsigned last = 0;

	if (read_file_at(AT_FDCWD, "/sys/devices/system/cpu/possible", 4096, &text, NULL) < 0)
		return 0;
	for (char *p = text; *p >= '0' && *p <= '9'; p += *p == '-' || *p == ',')
		last = (unsigned)strtoul(p, &p, 10);
	return last + 1;
}

static bool kernel_has_it_on(void)
{
	_free_ char *text = NULL;

	return read_file_at(AT_FDCWD, "/sys/module/fuse/parameters/enable_uring", 16, &text, NULL) == 0 &&
	       text[0] == 'Y';
}

static int start_all(struct dev_uring *u, unsigned queues)
{
	sigset_t all, before;
	int r = 0;

	/* The program's signals are for its own threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	for (unsigned i = 0; r == 0 && i < queues * (queues <= FEW_QUEUES ? 2 : 1); i++)
		r = server_start(u, i % queues);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_mutex_lock(&u->lock);
	while (u->ready + u->failed < u->num_servers)
		pthread_cond_wait(&u->changed, &u->lock);
	r = u->failed ? -EPERM : r;
	pthread_mutex_unlock(&u->lock);
	return r;
}

struct dev_uring *dev_uring_new(void)
{
	unsigned queues = kernel_has_it_on() ? possible_cpus() : 0;
	struct dev_uring *u;

	if (!queues || queues > MAX_QUEUES)
		return NULL;
	u = calloc(1, sizeof(*u) + queues * 2 * sizeof(u->servers[0]));
	if (!u)
		return NULL;
	pthread_mutex_init(&u->lock, NULL);
	pthread_cond_init(&u->changed, NULL);
	u->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (u->stop_fd < 0 || start_all(u, queues) < 0)
		return dev_uring_free(u);
	return u;
}

static void give_word(struct dev_uring *u, enum word word)
{
	pthread_mutex_lock(&u->lock);
	u->word = MAX(u->word, word);
	pthread_cond_broadcast(&u->changed);
	pthread_mutex_unlock(&u->lock);
}

void dev_uring_begin(struct dev_uring *u, struct fuse_session *session, int fd, const struct dev_uring_port *port)
{
	u->session = session;
	u->fd = fd;
	u->port = *port;
	give_word(u, BEGIN);
}

struct dev_uring *dev_uring_free(struct dev_uring *u)
{
	if (!u)
		return NULL;
	if (u->stop_fd >= 0)
		eventfd_write(u->stop_fd, 1);
	give_word(u, STOP);
	for (unsigned i = 0; i < u->num_servers; i++)
		pthread_join(u->servers[i].thread, NULL);
	for (unsigned i = 0; i < u->num_servers; i++) {
		if (u->servers[i].has_ring)
			io_uring_queue_exit(&u->servers[i].ring);
		free(u->servers[i].header);
		free(u->servers[i].payload);
	}
	fd_close(u->stop_fd);
	pthread_cond_destroy(&u->changed);
	pthread_mutex_destroy(&u->lock);
	free(u);
	return NULL;
}

uint64_t dev_uring_requests(const struct dev_uring *u)
{
	uint64_t n = 0;

	for (unsigned i = 0; u && i < u->num_servers; i++)
		n += __atomic_load_n(&u->servers[i].requests, __ATOMIC_RELAXED);
	return n;
}
