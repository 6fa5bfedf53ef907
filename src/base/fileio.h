/* SPDX-License-Identifier: Apache-2.0 */
/* Whole reads and writes, atomic replacement of files, directories made on the way, descriptor passing. */
#ifndef BASE_FILEIO_H
#define BASE_FILEIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

/* Read or write all of len unless an error or end of file comes first; retry EINTR. Return the count or -errno. */
ssize_t read_full(int fd, void *p, size_t len);
ssize_t pread_full(int fd, void *p, size_t len, off_t off);
/*
 * read(2) of a non-blocking stream, for throughput: after a piece of 2 KiB and more its writer is let go on, where it
 * waits for this processor, and what it adds is read as well. Else a reader that wakes at each small write makes a
 * message of each.
 */
ssize_t read_gathered(int fd, void *p, size_t len);
int write_full(int fd, const void *p, size_t len);
int pwrite_full(int fd, const void *p, size_t len, off_t off);

/* Writes text into a file that is there, at its start, in one go: a kernel's control file. 0 or -errno. */
int write_text_at(int dirfd, const char *path, const char *text);

/* Reads a whole file of at most max bytes; *ret is NUL-terminated and freed by the caller. -EFBIG past max. */
int read_file_at(int dirfd, const char *path, size_t max, char **ret, size_t *ret_len);

/* Replaces path by these bytes so that a crash leaves the old or the new: temporary name, fsync, rename, fsync dir. */
int write_file_atomic_at(int dirfd, const char *path, const void *p, size_t len, mode_t mode);

/* mkdir -p; an existing directory is success. */
int mkdir_p(const char *path, mode_t mode);

/* Removes a tree without following symbolic links; absent is success. */
int remove_tree_at(int dirfd, const char *path);

/* False on file systems whose contents others change without an event (inotify) here. */
bool fd_raises_events(int fd);

int fd_set_cloexec(int fd, bool on);
int fd_set_nonblock(int fd, bool on);
/* Lets this process have that many descriptors, or as many as it may (root: 2^20). Returns how many it may have now. */
uint64_t fd_limit_raise(uint64_t want);

/* Sends/receives a message with up to 16 descriptors over a unix socket (received ones are CLOEXEC).
 * send: 0 or -errno. recv: bytes (0 at end of stream) or -errno; *nfds in: room, out: received. */
int fd_send(int sock, const void *p, size_t len, const int *fds, size_t nfds);
ssize_t fd_recv(int sock, void *p, size_t len, int *fds, size_t *nfds);

/* Unix stream sockets whose path may exceed sun_path (by way of /proc/self/fd of the directory). fd or -errno. */
int unix_listen(const char *path, int backlog);
/* As unix_listen; a socket that is there and that nobody listens on any more is replaced. */
int unix_listen_again(const char *path, int backlog);
int unix_connect(const char *path);
int unix_connect_nonblock(const char *path); /* and the socket is; -EAGAIN: more wait there than it takes */
/* As unix_connect, which has no limit where more wait than the listener takes; -EAGAIN: they did for so long. */
int unix_connect_within(const char *path, uint64_t timeout_ns);
/* How a connect that was not waited for has ended: 0 or -errno. */
int socket_error(int fd);

#endif
