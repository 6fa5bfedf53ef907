/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any answers of a shared tree's server to a daemon backend: the input's first 64 bytes are what lies in the lane's
 * memory, the rest a list of answers: u8 which call of the backend gets it (top bit: with a descriptor), u8 length,
 * bytes. An input of an odd size is for a stream: there the answers are frames, the first 64 bytes their bulk as far as
 * an answer says that it has some, and one with the next bit is bytes that need not be a frame.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/fileio.h"
#include "base/util.h"
#include "fuse/daemon.h"
#include "fuse/share_proto.h"

#define FILL 64u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct sides {
	struct sm_fs_backend *be;
	bool inlined;
	int sock, lane, memfd; /* the server's; inline: lane is sock */
	uint8_t *mem;
	uint64_t file, dir, node; /* open ones; 0: none */
};

static const struct sm_fs_caller who;

static void open_sides(struct sides *s)
{
	uint32_t welcome[6] = {SHARE_MAGIC, SHARE_VERSION, 1, s->inlined ? SHARE_INLINE : 0, UINT32_MAX, UINT32_MAX};
	struct fuse_daemon_options o = {.lanes = 1};
	uint8_t hello[SHARE_HELLO];
	int sock[2], lane[2], mine;
	size_t num_fds = 1;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock) < 0 ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, lane) < 0)
		abort();
	s->lane = s->inlined ? sock[0] : lane[0];
	mine = dup(s->inlined ? sock[1] : lane[1]);
	if (fd_send(sock[0], welcome, sizeof(welcome), &lane[1], s->inlined ? 0 : 1) < 0 ||
	    fuse_daemon_new_fd(sock[1], &o, &s->be, NULL) < 0 ||
	    fd_recv(sock[0], hello, sizeof(hello), &s->memfd, &num_fds) != sizeof(hello) || num_fds != 1)
		abort();
	s->mem = mmap(NULL, SHARE_BULK, PROT_READ | PROT_WRITE, MAP_SHARED, s->memfd, 0);
	/* Where no answer is left the wait for one ends. */
	setsockopt(mine, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){.tv_usec = 1000}, sizeof(struct timeval));
	close(mine);
	close(lane[1]);
	if (s->inlined)
		close(lane[0]);
	fcntl(s->lane, F_SETFL, O_NONBLOCK);
	s->sock = sock[0];
	s->dir = s->file = 0;
	s->node = SM_FS_ROOT;
}

/* Into the lane, or the stream. */
static int put_answer(struct sides *s, uint8_t which, const uint8_t *p, size_t len, const uint8_t *fill)
{
	uint32_t bulk = len >= 12 ? (uint32_t)p[8] & (FILL - 1) : 0, head[3] = {0, (uint32_t)len, bulk};

	if (!s->inlined || which & 0x40)
		return fd_send(s->lane, p, len, &s->memfd, which & 0x80 ? 1 : 0);
	if (fd_send(s->lane, head, sizeof(head), NULL, 0) < 0 || (len && fd_send(s->lane, p, len, NULL, 0) < 0))
		return -EPIPE;
	return bulk ? fd_send(s->lane, fill, bulk, NULL, 0) : 0;
}

static bool take_name(void *arg, const char *name, uint64_t ino, uint32_t type, uint64_t next,
		      const struct sm_fs_entry *entry)
{
	unsigned *left = arg;

	if (strlen(name) > 255 || strchr(name, '/'))
		abort();
	return (*left)-- > 0;
}

static void call_files(struct sides *s, unsigned which)
{
	const struct sm_fs_ops *ops = s->be->ops;
	struct sm_fs_entry e;
	struct sm_fs_open o = {0};
	struct sm_fs_lock lock = {.type = F_WRLCK};
	uint8_t bytes[300];
	struct iovec iov[2] = {{bytes, 100}, {bytes + 100, 200}};
	unsigned left = 3;

	if (which == 0 && !s->file && ops->open(s->be, &who, s->node, O_RDWR, &o) == 0)
		s->file = o.fh;
	if (which == 1 && !s->file && ops->create(s->be, &who, SM_FS_ROOT, "a", 0644, O_RDWR, &e, &o) == 0)
		s->file = o.fh;
	if (which == 2 && !s->dir && ops->opendir(s->be, &who, SM_FS_ROOT, &o) == 0)
		s->dir = o.fh;
	if (which == 3 && s->dir)
		(void)ops->readdir(s->be, &who, SM_FS_ROOT, s->dir, 0, true, take_name, &left);
	if (!s->file)
		return;
	if (which == 4 && ops->read(s->be, s->node, s->file, iov, 2, 0) > 300)
		abort();
	if (which == 5 && ops->write(s->be, &who, s->node, s->file, iov, 2, 0, 0) > 300)
		abort();
	if (which == 6)
		(void)ops->getlk(s->be, s->node, s->file, &lock);
	if (which == 7)
		(void)ops->lseek(s->be, s->node, s->file, 0, SEEK_DATA);
}

static void call_one(struct sides *s, unsigned which)
{
	const struct sm_fs_ops *ops = s->be->ops;
	struct sm_fs_entry e = {0};
	struct statvfs v;
	struct stat st;
	uint64_t valid;
	char bytes[300];

	if (which == 0 && ops->lookup(s->be, &who, SM_FS_ROOT, "name", &e) == 0 && e.nodeid)
		s->node = e.nodeid;
	if (which == 1)
		(void)ops->getattr(s->be, s->node, false, 0, &st, &valid);
	if (which == 2 && ops->readlink(s->be, s->node, bytes, sizeof(bytes)) > (ssize_t)sizeof(bytes))
		abort();
	if (which == 3 && ops->getxattr(s->be, s->node, "user.x", bytes, sizeof(bytes)) > (ssize_t)sizeof(bytes))
		abort();
	if (which == 4)
		(void)ops->listxattr(s->be, s->node, NULL, 0);
	if (which == 5)
		(void)ops->statfs(s->be, s->node, &v);
	if (which == 6)
		(void)ops->rename(s->be, &who, SM_FS_ROOT, "a", s->node, "b", 0);
	if (which == 7)
		ops->forget(s->be, s->node, 1);
	if (which >= 8)
		call_files(s, which - 8);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cursor c = cursor_of(data, size);
	size_t fill = MIN(size, FILL);
	uint8_t request[SHARE_PACKET], first[FILL] = {0};
	struct sides s = {.inlined = size & 1};

	open_sides(&s);
	memcpy(first, cursor_take(&c, fill), fill);
	memcpy(s.mem, first, fill);
	while (c.left > 2) {
		uint8_t which = cursor_u8(&c), most = cursor_u8(&c);
		size_t len = MIN((size_t)most, c.left);

		if (put_answer(&s, which, cursor_take(&c, len), len, first) < 0)
			break;
		call_one(&s, which & 15);
		while (recv(s.lane, request, sizeof(request), 0) > 0)
			;
	}
	shutdown(s.lane, SHUT_RDWR); /* whoever still waits for an answer gets none */
	if (s.file)
		s.be->ops->release(s.be, s.node, s.file, false, 0);
	if (s.dir)
		s.be->ops->releasedir(s.be, SM_FS_ROOT, s.dir);
	fuse_daemon_free(s.be);
	munmap(s.mem, SHARE_BULK);
	close(s.memfd);
	close(s.lane);
	if (!s.inlined)
		close(s.sock);
	return 0;
}
