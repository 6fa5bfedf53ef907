/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a VM's log (keeper/log.h), and following it while the VM runs. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "keeper/execs.h"
#include "keeper/log.h"
#include "lib/lib.h"

#define RECHECK_MS 500 /* if the file system tells nothing of changes */

struct reader {
	const struct sm_logs_options *o;
	int dir, fd;
	char name[EXEC_NAME_SIZE], old[EXEC_NAME_SIZE], exit[EXEC_NAME_SIZE]; /* of files */
	off_t at;
	bool past;	   /* what comes is younger than what was asked for */
	bool line_open[2]; /* the stream's last byte was not a newline: no new timestamp */
	uint64_t skip;	   /* lines still to leave out (tail) */
	bool counting;
	uint64_t lines;
	uint8_t data[VM_LOG_MAX_RECORD];
};

static int64_t wall_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int emit_time(int fd, int64_t ns)
{
	time_t s = (time_t)(ns / 1000000000);
	char text[64], day[32];
	struct tm tm;

	gmtime_r(&s, &tm);
	strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text, sizeof(text), "%s.%09lldZ ", day, (long long)(ns % 1000000000));
	return write_full(fd, text, strlen(text));
}

/* One piece of a line (with its newline, if it has one). */
static int emit_piece(struct reader *r, const struct vm_log_header *h, const uint8_t *p, size_t len, bool ends)
{
	int fd = h->stream == 1 ? r->o->stdout_fd : r->o->stderr_fd, e = 0;
	bool fresh = !r->line_open[h->stream - 1];

	r->line_open[h->stream - 1] = !ends;
	if (r->counting) {
		r->lines += fresh;
		return 0;
	}
	if (r->skip) {
		r->skip -= ends;
		return 0;
	}
	if (fd < 0)
		return 0;
	if (fresh && r->o->timestamps)
		e = emit_time(fd, h->time_ns);
	return e < 0 ? e : write_full(fd, p, len);
}

static int emit(struct reader *r, const struct vm_log_header *h)
{
	const uint8_t *p = r->data, *end = p + h->len;
	int e = 0;

	if (h->time_ns < r->o->since_ns)
		return 0;
	r->past = r->o->until_ns && h->time_ns >= r->o->until_ns;
	if (r->past)
		return 0;
	while (e == 0 && p < end) {
		const uint8_t *nl = memchr(p, '\n', (size_t)(end - p));
		size_t len = (size_t)((nl ? nl + 1 : end) - p);

		e = emit_piece(r, h, p, len, nl != NULL);
		p += len;
	}
	return e;
}

/* One record: 1, 0 when it is not there (yet), or -errno. */
static int read_record(struct reader *r, struct sm_error *err)
{
	uint8_t raw[VM_LOG_HEADER];
	struct cursor c = cursor_of(raw, sizeof(raw));
	struct vm_log_header h;
	ssize_t n = pread_full(r->fd, raw, sizeof(raw), r->at);
	int e;

	if (n < 0)
		return error_sys(err, (int)-n, "read the log");
	if ((size_t)n < sizeof(raw))
		return 0;
	if (vm_log_header_decode(&c, &h) < 0)
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "the log is damaged at byte %lld", (long long)r->at);
	n = pread_full(r->fd, r->data, h.len, r->at + (off_t)sizeof(raw));
	if (n < 0)
		return error_sys(err, (int)-n, "read the log");
	if ((size_t)n < h.len)
		return 0;
	r->at += (off_t)(sizeof(raw) + h.len);
	e = emit(r, &h);
	return e < 0 ? error_sys(err, -e, "write the log") : 1;
}

static int read_rest(struct reader *r, struct sm_error *err)
{
	int e;

	while ((e = read_record(r, err)) > 0)
		;
	return e;
}

/* The newest file, unless it is the one that is open. 1: another one was opened. */
static int open_newest(struct reader *r)
{
	struct stat now, ours;
	int fd = openat(r->dir, r->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	if (r->fd >= 0 && fstat(fd, &now) == 0 && fstat(r->fd, &ours) == 0 && now.st_ino == ours.st_ino) {
		fd_close(fd);
		return 0;
	}
	fd_close(r->fd);
	r->fd = fd;
	r->at = 0;
	return 1;
}

/* Both files, from the first byte. */
static int read_all(struct reader *r, struct sm_error *err)
{
	int e = 0;

	fd_close(r->fd);
	r->at = 0;
	r->line_open[0] = r->line_open[1] = false;
	r->fd = openat(r->dir, r->old, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (r->fd >= 0)
		e = read_rest(r, err);
	r->fd = fd_close(r->fd);
	if (e == 0 && open_newest(r) > 0)
		e = read_rest(r, err);
	return e;
}

/* Until something may have changed; 1 when the caller wants to stop. */
static int await_change(struct reader *r, int watch)
{
	struct pollfd fds[2] = {{.fd = watch, .events = POLLIN}, {.fd = r->o->cancel_fd, .events = POLLIN}};
	char events[4096];

	if (poll(fds, 2, RECHECK_MS) < 0 && errno != EINTR)
		return -errno;
	if (fds[1].revents)
		return 1;
	while (fds[0].revents && read(watch, events, sizeof(events)) > 0)
		;
	return 0;
}

/* A command's end is its VM's, too, if its keeper had no time to write it down. */
static bool has_ended(const struct reader *r)
{
	return faccessat(r->dir, r->exit, F_OK, 0) == 0 || faccessat(r->dir, "exit.json", F_OK, 0) == 0 ||
	       (r->o->until_ns && wall_clock() >= r->o->until_ns);
}

static int follow(struct reader *r, struct sm_vm *vm, struct sm_error *err)
{
	char path[64];
	_fd_ int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	struct vm_view v;
	int e = 0;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", r->dir);
	if (watch >= 0 && inotify_add_watch(watch, path, IN_MODIFY | IN_CREATE | IN_MOVED_TO) < 0)
		watch = fd_close(watch);
	for (;;) {
		/* Ended is asked first: what it wrote last is then there to be read. */
		bool ended = has_ended(r);

		if (r->fd >= 0)
			e = read_rest(r, err);
		while (e == 0 && (e = open_newest(r)) > 0)
			e = read_rest(r, err);
		if (e < 0 || ended || r->past)
			return e;
		e = await_change(r, watch);
		if (e > 0)
			return error_set(err, SM_ERROR_CANCELLED, ECANCELED, "stopped");
		if (e < 0)
			return error_sys(err, -e, "follow the log");
		/* A keeper that was killed writes no record: this derives one. */
		e = vm_view(vm->client, vm->id, &v, NULL);
		if (e == -ETIMEDOUT)
			return error_set(err, SM_ERROR_TIMEOUT, ETIMEDOUT, KEEPER_HANGS);
		if (e < 0)
			return 0;
	}
}

static void choose_files(struct reader *r)
{
	snprintf(r->name, sizeof(r->name), "log");
	snprintf(r->old, sizeof(r->old), "log.1");
	snprintf(r->exit, sizeof(r->exit), "exit.json");
	if (!r->o->exec)
		return;
	exec_file_name(r->name, r->o->exec, EXEC_LOG);
	exec_file_name(r->old, r->o->exec, EXEC_LOG_OLD);
	exec_file_name(r->exit, r->o->exec, EXEC_EXIT);
}

int sm_vm_logs(struct sm_vm *vm, const struct sm_logs_options *options, struct sm_error *err)
{
	static const struct sm_logs_options defaults = SM_LOGS_OPTIONS_INIT;
	struct sm_logs_options o = defaults;
	_fd_ int dir = vmdir_open(vm->client, vm->id, err);
	char name[EXEC_NAME_SIZE];
	struct reader *r;
	int e = 0;

	if (dir < 0)
		return dir;
	options_copy(&o, sizeof(o), options, options ? options->size : 0);
	r = calloc(1, sizeof(*r));
	if (!r)
		return error_sys(err, ENOMEM, "log of VM %s", vm->id);
	r->o = &o;
	r->dir = dir;
	r->fd = -1;
	choose_files(r);
	if (o.exec && faccessat(dir, exec_file_name(name, o.exec, EXEC_RECORD), F_OK, 0) < 0)
		e = error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "no detached command %u", o.exec);
	if (e == 0 && o.tail) {
		r->counting = true;
		e = read_all(r, err);
		r->counting = false;
		r->skip = r->lines > o.tail ? r->lines - o.tail : 0;
	}
	if (e == 0)
		e = read_all(r, err);
	if (e == 0 && o.follow)
		e = follow(r, vm, err);
	fd_close(r->fd);
	free(r);
	return e < 0 ? error_wrap(err, e, "VM %s", vm->id) : 0;
}
