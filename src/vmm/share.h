/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The directories that a VM shares with its host: a posix backend for each behind one FUSE session, which the threads
 * of the virtio-fs device serve; or, of a tree that another process serves, a daemon backend. When that process ends a
 * new connection is the keeper's to give: who uses the tree next asks for it and waits.
 *
 * Before any thread starts the process is confined to the directories that it serves itself (Landlock). The device's
 * threads have a system call filter of their own, with the file calls on top, and where the monitor runs as root they
 * alone keep the capabilities without which root could not use its user's files.
 */
#ifndef VMM_SHARE_H
#define VMM_SHARE_H

#include <sys/uio.h>

#include "base/buf.h"
#include "base/cursor.h"
#include "vmm/config.h"

struct dax_window;
struct fuse_session;
struct share;

/* Before the seal: limits of the process. */
void share_prepare(const struct vmm_config *cfg);
/* Capabilities that the device's threads need, as bits; 0 without shares. */
uint64_t share_capabilities(const struct vmm_config *cfg);

/* Opens what the configuration names. cfg->num_fs is not 0. window: into which files are mapped, if there is one; it
 * must outlive the share. */
int share_new(const struct vmm_config *cfg, struct dax_window *window, struct share **ret,
	      struct sm_error *err) MUST_CHECK;
struct share *share_free(struct share *s); /* NULL allowed; returns NULL */
/* What the keeper has to give, after control_share: a socket to the server, -1: there is none. Taken in any case. */
void share_answer(struct share *s, unsigned number, int fd);
/* What watches them for changes of others; NULL: nothing can. */
struct watch;
struct watch *share_watched(struct share *s);
int share_confine(const struct vmm_config *cfg, struct sm_error *err) MUST_CHECK;

/* For struct virtio_fs_options; arg is the share. */
ssize_t share_serve(void *arg, const struct iovec *in, int num_in, const struct iovec *out, int num_out);

/*
 * The same, for snapshots of the guest. What is loaded goes on being served: files are found again when they are used,
 * and those that are open are opened by the first thread that serves.
 */
int share_save(void *arg, struct buf *out);
int share_load(void *arg, struct cursor *in);
/* True if it goes on from a snapshot: then nothing that the guest has cached has been watched until now. */
bool share_goes_on(const struct share *s);

/* The system calls of a thread that serves, for seal_server: those of the backends that there are. */
const int *const *share_syscalls(const struct share *s);

#endif
