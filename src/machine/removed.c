/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this host's library removes (a VM, a snapshot, an image's layer) while the machine runs: the machine's kernel
 * knows the files by the names that they had, and its file server has them open for as long, so that their space is not
 * free. The kernel lets go of them as it looks such a name up again, which is what a request to read the file makes it
 * do, once it no longer believes what it last heard. The answer does not matter.
 */
#include "machine/daemon.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/util.h"
#include "proto/messages.h"

#define BELIEVED_NS (2 * EMULATOR_FILES_STALE_NS)
#define MAX_PENDING 65536 /* bytes; what is removed beyond that is let go of when its name is used again */

/* With the names that are removed in them, as subdirectories or as files. */
static const char *const in_data[REMOVED_DIRS - 1] = {"snapshots", "volumes", "images/layers", "images/meta"};
static const char in_state[] = "vms";

static const struct mux_callbacks no_answer = {0};

static void look_up(struct daemon *d, char *path)
{
	struct mux *agent = daemon_agent(d);
	struct proto_file file = {.path = path, .size = 1};
	_cleanup_(buf_done) struct buf b = {0};
	uint32_t ch;

	if (!agent || proto_file_encode(&b, &file) < 0 || mux_open(agent, PROTO_READ_FILE, &b, NULL, &ch) < 0)
		return;
	if (mux_set_handler(agent, ch, &no_answer, NULL) == 0)
		mux_close(agent, ch, 0, NULL);
}

static void on_due(struct loop *loop, struct loop_source *src, void *arg)
{
	struct daemon *d = arg;
	struct removed *x = &d->removed;
	char *at = (char *)x->pending.data;

	for (size_t n; x->pending.len; x->pending.len -= n, at += n) {
		n = strlen(at) + 1;
		look_up(d, at);
	}
	buf_done(&x->pending);
}

static void note(struct daemon *d, const struct inotify_event *e)
{
	struct removed *x = &d->removed;
	char path[PATH_MAX];
	int n;

	for (size_t i = 0; i < REMOVED_DIRS; i++) {
		if (e->wd != x->watches[i])
			continue;
		n = i < ARRAY_SIZE(in_data) ? snprintf(path, sizeof(path), "%s/%s/%s", d->data_dir, in_data[i], e->name)
					    : snprintf(path, sizeof(path), "%s/%s/%s", d->state_dir, in_state, e->name);
		if ((size_t)n >= sizeof(path) || x->pending.len + (size_t)n >= MAX_PENDING)
			return;
		if (x->pending.len == 0)
			loop_timer_at(x->timer, time_now_ns() + BELIEVED_NS);
		buf_put(&x->pending, path, (size_t)n + 1);
	}
}

static void on_event(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	char b[16384] __attribute__((aligned(__alignof__(struct inotify_event))));
	struct daemon *d = arg;
	const struct inotify_event *e;
	ssize_t n;

	while ((n = read(d->removed.fd, b, sizeof(b))) > 0)
		for (const char *p = b; p < b + n; p += sizeof(*e) + e->len) {
			e = (const struct inotify_event *)(const void *)p;
			if (e->len && e->name[0] != '.' && daemon_agent(d)) /* those are on their way out */
				note(d, e);
		}
}

void removed_watch(struct daemon *d)
{
	struct removed *x = &d->removed;
	char path[PATH_MAX];

	for (size_t i = 0; x->fd >= 0 && i < REMOVED_DIRS; i++) {
		if (i < ARRAY_SIZE(in_data))
			snprintf(path, sizeof(path), "%s/%s", d->data_dir, in_data[i]);
		else
			snprintf(path, sizeof(path), "%s/%s", d->state_dir, in_state);
		x->watches[i] = inotify_add_watch(x->fd, path, IN_DELETE | IN_MOVED_FROM | IN_ONLYDIR);
	}
}

int removed_begin(struct daemon *d)
{
	struct removed *x = &d->removed;
	int r = loop_add_timer(d->loop, on_due, d, &x->timer);

	x->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (x->fd < 0) {
		log_warn("machine", "what is removed is not watched for: %s", strerror(errno));
		return r;
	}
	if (r == 0)
		r = loop_add(d->loop, x->fd, EPOLLIN, on_event, d, &x->src);
	removed_watch(d);
	return r;
}
