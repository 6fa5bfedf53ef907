/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Watching files: see filewatch.h. A table says which path each watch of the kernel's is about; numbers of watches only
 * grow, so it is in their order. Who reads too slowly makes the socket fill, this process wait, and the kernel's queue
 * run over, which is told: nothing here grows with what happens.
 *
 * A directory that appears is watched first and listed then, so what came into it before is told, too, and what comes
 * in between may be told twice.
 */
#include "guest/filewatch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "proto/fileevent.h"

#define MAX_WATCHES 262144u
#define MAX_DEPTH 128u
#define PAIR_WAIT_MS 20 /* how long the second half of a move may take to come */
#define OWN (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT)
#define INTEREST                                                                                                       \
	(IN_CREATE | IN_MODIFY | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF)

struct place {
	int wd;
	char *path; /* NULL: it is not watched any more */
};

struct filewatch {
	int socket, fd;
	bool recursive;
	const char *root;
	struct stat what; /* the root, as it was */
	struct place *places;
	size_t num, room;
	struct buf out;
	/* Moved away, and not yet clear where to; from "": nothing is */
	char from[FILEEVENT_MAX_PATH + 1];
	uint32_t cookie;
	bool from_directory;
};

/* -------------------------------------------------------------------------------------------- telling */

static int send_out(struct filewatch *w)
{
	int r = w->out.error ? w->out.error : write_full(w->socket, w->out.data, w->out.len);

	w->out.len = 0;
	return r;
}

static int tell(struct filewatch *w, enum fileevent_kind kind, bool directory, const char *path, const char *to)
{
	int r = fileevent_put(&w->out, kind, directory, path, to);

	return r == 0 && w->out.len > 32768 ? send_out(w) : r;
}

static int tell_error(struct filewatch *w, int code, const char *path)
{
	char number[8], words[FILEEVENT_MAX_PATH];
	int r;

	snprintf(number, sizeof(number), "%d", code);
	snprintf(words, sizeof(words), "%.3000s: %s", path,
		 code == ENOSPC ? "more directories than the VM's kernel may watch (fs.inotify.max_user_watches)"
				: strerror(code));
	r = tell(w, FILEEVENT_ERROR, false, number, words);
	return r < 0 ? r : send_out(w);
}

/* -------------------------------------------------------------------------------------------- places */

static struct place *place_of(const struct filewatch *w, int wd)
{
	size_t low = 0, high = w->num;

	while (low < high) {
		size_t mid = (low + high) / 2;

		if (w->places[mid].wd < wd)
			low = mid + 1;
		else
			high = mid;
	}
	return low < w->num && w->places[low].wd == wd ? &w->places[low] : NULL;
}

static void forget(struct place *p)
{
	free(p->path);
	p->path = NULL;
}

/* Whether path is top, or beneath it. */
static bool is_in(const char *path, const char *top)
{
	size_t len = strlen(top);

	return strncmp(path, top, len) == 0 && (!path[len] || path[len] == '/' || (len && top[len - 1] == '/'));
}

static void forget_in(struct filewatch *w, const char *top)
{
	for (size_t i = 0; i < w->num; i++)
		if (w->places[i].path && is_in(w->places[i].path, top)) {
			inotify_rm_watch(w->fd, w->places[i].wd);
			forget(&w->places[i]);
		}
}

static int rename_in(struct filewatch *w, const char *from, const char *to)
{
	size_t len = strlen(from);

	for (size_t i = 0; i < w->num; i++) {
		struct place *p = &w->places[i];
		char *path;

		if (!p->path || !is_in(p->path, from))
			continue;
		if (asprintf(&path, "%s%s", to, p->path + len) < 0)
			return -ENOMEM;
		free(p->path);
		p->path = path;
	}
	return 0;
}

/* Those that are not watched any more take no room for ever. */
static void compact(struct filewatch *w)
{
	size_t n = 0;

	for (size_t i = 0; i < w->num; i++)
		if (w->places[i].path)
			w->places[n++] = w->places[i];
	w->num = n;
}

/* 1: it is new; 0: it was watched before, by this name or another. */
static int add(struct filewatch *w, const char *path, uint32_t more)
{
	int wd = inotify_add_watch(w->fd, path, INTEREST | more);
	struct place *p = wd < 0 ? NULL : place_of(w, wd);
	char *copy;

	if (wd < 0)
		return -errno;
	copy = strdup(path);
	if (!copy)
		return -ENOMEM;
	if (p) {
		bool new = !p->path;

		free(p->path);
		p->path = copy;
		return new;
	}
	if (w->num == w->room)
		compact(w);
	if (w->num == w->room) {
		size_t room = w->room ? 2 * w->room : 64;
		struct place *v = room > MAX_WATCHES ? NULL : realloc(w->places, room * sizeof(*v));

		if (!v) {
			free(copy);
			return room > MAX_WATCHES ? -ENOSPC : -ENOMEM;
		}
		w->places = v;
		w->room = room;
	}
	w->places[w->num++] = (struct place){wd, copy};
	return 1;
}

/* ------------------------------------------------------------------------------------------- the tree */

static int join(char ret[static FILEEVENT_MAX_PATH + 1], const char *dir, const char *name)
{
	size_t len = strlen(dir);
	const char *slash = len && dir[len - 1] == '/' ? "" : "/";

	return snprintf(ret, FILEEVENT_MAX_PATH + 1, "%s%s%s", dir, slash, name) > (int)FILEEVENT_MAX_PATH
		       ? -ENAMETOOLONG
		       : 0;
}

static bool is_directory(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Watches path and, if that is asked for, all directories beneath; new: what is found in them has just come. What goes
 * away meanwhile is no error. */
static int add_tree(struct filewatch *w, const char *path, unsigned depth, bool new)
{
	int r = add(w, path, IN_ONLYDIR | (depth ? IN_DONT_FOLLOW : 0));
	char *below = NULL;
	struct dirent *e;
	DIR *d;

	if (r == -ENOENT || r == -ENOTDIR)
		return depth ? 0 : r;
	if (r < 0 || !w->recursive || depth >= MAX_DEPTH)
		return r < 0 ? r : 0;
	d = opendir(path);
	below = malloc(FILEEVENT_MAX_PATH + 1);
	r = below ? 0 : -ENOMEM;
	while (r == 0 && d && (e = readdir(d))) {
		bool directory;

		if (streq(e->d_name, ".") || streq(e->d_name, "..") || join(below, path, e->d_name) < 0)
			continue;
		directory = e->d_type == DT_DIR || (e->d_type == DT_UNKNOWN && is_directory(below));
		if (new)
			r = tell(w, FILEEVENT_CREATED, directory, below, NULL);
		if (r == 0 && directory)
			r = add_tree(w, below, depth + 1, new);
	}
	if (d)
		closedir(d);
	free(below);
	return r;
}

/* --------------------------------------------------------------------------------------------- events */

/* It went to where nobody watches. */
static int flush_from(struct filewatch *w)
{
	int r;

	if (!w->from[0])
		return 0;
	r = tell(w, FILEEVENT_DELETED, w->from_directory, w->from, NULL);
	if (w->from_directory)
		forget_in(w, w->from);
	w->from[0] = '\0';
	return r;
}

static int moved_to(struct filewatch *w, const char *path, uint32_t cookie, bool directory)
{
	bool known = w->from[0] && w->cookie == cookie;
	int r = known ? tell(w, FILEEVENT_MOVED, directory, w->from, path) : flush_from(w);

	if (known && directory && r == 0)
		r = rename_in(w, w->from, path);
	if (known)
		w->from[0] = '\0';
	else if (r == 0)
		r = tell(w, FILEEVENT_CREATED, directory, path, NULL);
	return r == 0 && !known && directory && w->recursive ? add_tree(w, path, 1, true) : r;
}

/* Something in a directory. */
static int on_name(struct filewatch *w, const char *dir, const struct inotify_event *e)
{
	bool directory = e->mask & IN_ISDIR;
	char path[FILEEVENT_MAX_PATH + 1];
	int r = join(path, dir, e->name);

	if (r < 0)
		return 0; /* nobody could name it either */
	if (e->mask & IN_MOVED_TO)
		return moved_to(w, path, e->cookie, directory);
	r = flush_from(w);
	if (r < 0)
		return r;
	if (e->mask & IN_MOVED_FROM) {
		memcpy(w->from, path, sizeof(path));
		w->cookie = e->cookie;
		w->from_directory = directory;
		return 0;
	}
	if (e->mask & IN_CREATE) {
		r = tell(w, FILEEVENT_CREATED, directory, path, NULL);
		return r == 0 && directory && w->recursive ? add_tree(w, path, 1, true) : r;
	}
	return tell(w,
		    e->mask & IN_DELETE	  ? FILEEVENT_DELETED
		    : e->mask & IN_MODIFY ? FILEEVENT_MODIFIED
					  : FILEEVENT_ATTRIBUTES,
		    directory, path, NULL);
}

/* 1: what is watched is gone. A file of which somebody has the last name removed lives on without one. */
static int on_root(struct filewatch *w, uint32_t mask)
{
	struct stat st;
	bool there = stat(w->root, &st) == 0 && st.st_dev == w->what.st_dev && st.st_ino == w->what.st_ino;
	int r;

	if (mask & OWN || !there) {
		r = tell(w, FILEEVENT_GONE, S_ISDIR(w->what.st_mode), w->root, NULL);
		return r < 0 ? r : 1;
	}
	return tell(w, mask & IN_MODIFY ? FILEEVENT_MODIFIED : FILEEVENT_ATTRIBUTES, S_ISDIR(w->what.st_mode), w->root,
		    NULL);
}

/* What was missed may have been directories. */
static int on_overflow(struct filewatch *w)
{
	int r = flush_from(w);

	if (r == 0)
		r = tell(w, FILEEVENT_OVERFLOW, false, w->root, NULL);
	return r == 0 && w->recursive ? add_tree(w, w->root, 0, false) : r;
}

static int on_event(struct filewatch *w, const struct inotify_event *e)
{
	struct place *p = place_of(w, e->wd);
	int r;

	if (e->mask & IN_Q_OVERFLOW)
		return on_overflow(w);
	if (!p || !p->path)
		return 0;
	if (e->len)
		return on_name(w, p->path, e);
	r = flush_from(w);
	if (r < 0 || !p->path) /* it was what had gone */
		return r;
	if (streq(p->path, w->root) && (e->mask & (INTEREST | OWN)))
		return on_root(w, e->mask);
	if (e->mask & IN_IGNORED)
		forget(p);
	return 0; /* of a directory beneath the one above it tells */
}

static int read_events(struct filewatch *w)
{
	char chunk[16384] __attribute__((aligned(__alignof__(struct inotify_event))));
	ssize_t n = read(w->fd, chunk, sizeof(chunk));
	int r = n < 0 && errno != EAGAIN && errno != EINTR ? -errno : 0;

	for (ssize_t at = 0; r == 0 && at < n;) {
		const struct inotify_event *e = (const void *)(chunk + at);

		r = on_event(w, e);
		at += (ssize_t)(sizeof(*e) + e->len);
	}
	return r;
}

static int follow(struct filewatch *w)
{
	int r = 0;

	while (r == 0) {
		struct pollfd fds[] = {{.fd = w->fd, .events = POLLIN}, {.fd = w->socket}};
		int n = poll(fds, 2, w->from[0] ? PAIR_WAIT_MS : -1);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0 && fds[1].revents)
			return 0;
		if (n > 0 && fds[0].revents)
			r = read_events(w);
		else if (n == 0)
			r = flush_from(w);
		/* Together what came together. */
		if (r >= 0 && w->out.len) {
			int sent = send_out(w);

			r = sent < 0 ? sent : r;
		}
	}
	return r;
}

static int begin(struct filewatch *w)
{
	int r;

	w->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (w->fd < 0 || stat(w->root, &w->what) < 0)
		return -errno;
	r = S_ISDIR(w->what.st_mode) ? add_tree(w, w->root, 0, false) : add(w, w->root, 0);
	if (r >= 0)
		r = tell(w, FILEEVENT_READY, false, "", NULL);
	return r < 0 ? r : send_out(w);
}

void filewatch_run(int socket, const char *path, bool recursive)
{
	_free_ char *root = strdup(path);
	struct filewatch w = {.socket = socket, .fd = -1, .recursive = recursive, .root = root};
	size_t len = root ? strlen(root) : 0;
	int r = root ? 0 : -ENOMEM;

	while (len > 1 && root[len - 1] == '/')
		root[--len] = '\0';
	if (r == 0)
		r = begin(&w);
	if (r >= 0)
		r = follow(&w);
	if (r < 0 && r != -EPIPE && tell_error(&w, -r, path) < 0)
		r = -EPIPE; /* nobody hears it */
	for (size_t i = 0; i < w.num; i++)
		free(w.places[i].path);
	free(w.places);
	buf_done(&w.out);
	fd_close(w.fd);
}
