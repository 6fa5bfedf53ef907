/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as the saved state of a posix backend and its session, over a small tree: refused, or a session that
 * serves. The checks that nothing outside of the tree is reached are the backend's own; here it must neither crash nor
 * leak.
 */
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuse/posix_save.h"
#include "fuse/session_save.h"
#include "fuse/watch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[] = "/tmp/fuzz-save-XXXXXX";
static bool made;

static int open_again(void *arg, uint64_t node, bool is_dir, uint32_t flags, uint64_t *ret_fh)
{
	return fuse_posix_reopen(arg, node, is_dir, flags, ret_fh);
}

/* (The working directory stays: the corpus is looked for from there.) */
static const char *below(const char *name, char path[64])
{
	snprintf(path, 64, "%s/%s", dir, name);
	return path;
}

static void remove_dir(void)
{
	char path[64];

	unlink(below("f", path));
	rmdir(below("d", path));
	rmdir(dir);
}

static void make_dir(void)
{
	char path[64];

	if (!mkdtemp(dir) || mkdir(below("d", path), 0700) < 0)
		abort();
	close(open(below("f", path), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	atexit(remove_dir);
	made = true;
}

static void ask(struct fuse_session *s, uint64_t node)
{
	struct {
		struct fuse_in_header h;
		struct fuse_getattr_in in;
	} rq = {.h = {.len = sizeof(rq), .opcode = FUSE_GETATTR, .nodeid = node, .unique = 1}};
	uint8_t reply[256];
	struct iovec in = {&rq, sizeof(rq)}, out = {reply, sizeof(reply)};

	(void)fuse_session_serve(s, &in, 1, &out, 1);
}

static void on_stale(void *arg, const struct watch_stale *stale)
{
	(void)arg;
	(void)stale;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuse_session_options so = {.watch = size & 1, .max_handles = 1024};
	struct fuse_posix_options o = {.ids = FUSE_POSIX_NONE, .read_only = true, .valid_ns = 1};
	struct cursor in = cursor_of(data, size);
	struct fuse_session_files files = {.open = open_again};
	struct fuse_session *s;
	struct sm_error err;

	if (!made)
		make_dir();
	if (fuse_posix_new(dir, &o, (struct sm_fs_backend **)&files.arg, &err) < 0 ||
	    fuse_session_new(files.arg, &so, &s) < 0)
		abort();
	if (fuse_posix_load(files.arg, &in) == 0 && fuse_session_load(s, &in) == 0) {
		fuse_session_reopen(s, &files);
		if (fuse_session_watch(s))
			watch_compare(fuse_session_watch(s), on_stale, NULL);
		for (uint64_t id = 1; id < 8; id++)
			ask(s, id);
	}
	fuse_session_free(s);
	fuse_posix_free(files.arg);
	return 0;
}
