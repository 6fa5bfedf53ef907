/* SPDX-License-Identifier: Apache-2.0 */
/* Shared directories. See share.h. */
#include "vmm/share.h"

#include <errno.h>
#include <linux/capability.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "fuse/auditlog.h"
#include "fuse/daemon.h"
#include "fuse/mux.h"
#include "fuse/posix.h"
#include "fuse/posix_save.h"
#include "fuse/session.h"
#include "fuse/session_save.h"
#include "virtio/fs.h"
#include "vmm/control.h"
#include "vmm/dax_window.h"
#include "vmm/landlock.h"
#include "vmm/share_watch.h"

#define SECOND_NS 1000000000ULL
#define NODE_FDS 4096U /* at most, of each share */
#define STATE_VERSION 1U
#define BIT(cap) (1ULL << (cap))
#define ANSWER_S 10 /* a server that has to be started is up by then */
#define MAX_LISTS 7

/* Where connections to a tree's server come from. */
struct server_link {
	struct share *share;
	unsigned number;
	int fd;	       /* that has come and nobody has taken yet; -1: none */
	bool answered; /* since the last question */
};

struct share {
	struct sm_fs_backend *backends[VMM_MAX_FS], *mux;
	bool served[VMM_MAX_FS]; /* by another process */
	struct server_link links[VMM_MAX_FS];
	int control;
	pthread_mutex_t lock; /* guards what is in the links */
	pthread_cond_t answer;
	const int *syscalls[MAX_LISTS];
	char names[VMM_MAX_FS][4];
	unsigned count;
	struct fuse_session *session;
	struct audit_log *audit; /* NULL: none */
	struct dax_window *window;
	int protection[VMM_MAX_FS]; /* of mappings through it; 0: none */
	bool goes_on;		    /* from a snapshot */
	bool closed;		    /* atomic: what was open there is not yet */
	pthread_mutex_t opening;
};

/* As many descriptors as the kernel lets this process have: nodes and open files of all shares take from them. Modes
 * are the guest's to choose. */
void share_prepare(const struct vmm_config *cfg)
{
	if (!cfg->num_fs)
		return;
	umask(0);
	fd_limit_raise(UINT64_MAX);
}

uint64_t share_capabilities(const struct vmm_config *cfg)
{
	uint64_t caps = 0;

	for (unsigned i = 0; i < cfg->num_fs; i++) {
		if (cfg->fs[i].server)
			continue;
		caps |= BIT(CAP_DAC_OVERRIDE) | BIT(CAP_FOWNER) | BIT(CAP_FSETID);
		if (cfg->fs[i].ids == SM_FS_IDS_SAME)
			caps |= BIT(CAP_CHOWN) | BIT(CAP_MKNOD) | BIT(CAP_SETFCAP);
		if (cfg->fs[i].ids == SM_FS_IDS_RANGES)
			caps |= BIT(CAP_CHOWN);
	}
	return caps;
}

static uint64_t valid_ns(enum sm_fs_cache cache)
{
	switch (cache) {
	case SM_FS_CACHE_NONE:
		return 0;
	case SM_FS_CACHE_ALWAYS:
		return 86400 * SECOND_NS;
	default:
		return SECOND_NS;
	}
}

/* ------------------------------------------------------------------------------------- other processes' trees */

void share_answer(struct share *s, unsigned number, int fd)
{
	struct server_link *l = &s->links[number];

	pthread_mutex_lock(&s->lock);
	if (s->served[number]) {
		fd_close(l->fd);
		l->fd = TAKE_FD(fd);
		l->answered = true;
		pthread_cond_broadcast(&s->answer);
	}
	pthread_mutex_unlock(&s->lock);
	fd_close(fd);
}

static int ask_locked(struct server_link *l)
{
	struct share *s = l->share;
	struct timespec limit;
	int r = control_share(s->control, l->number);

	if (r < 0)
		return r;
	l->answered = false;
	clock_gettime(CLOCK_MONOTONIC, &limit);
	limit.tv_sec += ANSWER_S;
	while (!l->answered && r == 0)
		r = -pthread_cond_timedwait(&s->answer, &s->lock, &limit);
	return r < 0 ? r : l->fd < 0 ? -ENOTCONN : 0;
}

/* For fuse_daemon_new_with: what came with the configuration, and later what the keeper gives. */
static int connect_server(void *arg, struct sm_error *err)
{
	struct server_link *l = arg;
	int fd, r;

	pthread_mutex_lock(&l->share->lock);
	r = l->fd < 0 ? ask_locked(l) : 0;
	fd = r < 0 ? r : TAKE_FD(l->fd);
	pthread_mutex_unlock(&l->share->lock);
	return fd < 0 ? error_sys(err, -fd, "file server") : fd;
}

static int open_served(struct share *s, const struct vmm_fs_config *fs, struct sm_error *err)
{
	struct server_link *l = &s->links[s->count];
	struct fuse_daemon_options o = {.read_only = fs->read_only, .connect = connect_server, .arg = l};

	*l = (struct server_link){.share = s, .number = s->count, .fd = fs->fd};
	s->served[s->count] = true;
	return fuse_daemon_new_with(&o, &s->backends[s->count], err);
}

/* ----------------------------------------------------------------------------------------- directories of ours */

static int open_own(struct share *s, const struct vmm_fs_config *fs, unsigned num, struct sm_error *err)
{
	struct rlimit lim = {.rlim_cur = 1024};
	struct fuse_posix_options o = {
		.ids = (enum fuse_posix_ids)fs->ids,
		.id_ranges = fs->id_ranges,
		.xattrs = (enum fuse_posix_xattrs)fs->xattrs,
		.symlinks = (enum fuse_posix_symlinks)fs->symlinks,
		.read_only = fs->read_only,
		.direct = fs->direct,
		.valid_ns = valid_ns(fs->cache),
	};
	unsigned i = s->count;
	int fd;

	getrlimit(RLIMIT_NOFILE, &lim);
	o.max_fds = (unsigned)MIN(lim.rlim_cur / 4 / num, (rlim_t)NODE_FDS);
	o.max_open = (unsigned)MIN(lim.rlim_cur / 2 / num, (rlim_t)(1U << 20));
	fd = dup(fs->fd); /* Landlock wants the configuration's afterwards */
	if (fd < 0)
		return error_sys(err, errno, "shared directory %u", i);
	return fuse_posix_new_fd(fd, s->names[i], &o, &s->backends[i], err);
}

static int open_one(struct share *s, const struct vmm_fs_config *fs, unsigned num, struct sm_error *err)
{
	unsigned i = s->count;
	int r;

	if (fs->ids == SM_FS_IDS_SAME && geteuid() != 0)
		return error_set(err, SM_ERROR_INVALID, EPERM, "shared directory %u: ids=same needs root", i);
	snprintf(s->names[i], sizeof(s->names[i]), "%u", i);
	r = fs->server ? open_served(s, fs, err) : open_own(s, fs, num, err);
	if (r < 0)
		return error_wrap(err, r, "shared directory");
	if (fs->dax)
		s->protection[i] = PROT_READ | (fs->read_only ? 0 : PROT_WRITE);
	s->count++;
	return 0;
}

static int dax_protection(void *arg, uint64_t nodeid)
{
	const struct share *s = arg;
	uint64_t number = nodeid >> FUSE_MUX_SHIFT;

	return number && number <= s->count ? s->protection[number - 1] : 0;
}

static int dax_map(void *arg, uint64_t at, uint64_t len, int fd, uint64_t offset, int protection)
{
	return dax_window_map(((struct share *)arg)->window, at, len, fd, offset, protection);
}

static void dax_unmap(void *arg, uint64_t at)
{
	dax_window_unmap(((struct share *)arg)->window, at);
}

static bool dax_is_lost(void *arg, uint64_t at, uint64_t *ret_left)
{
	return dax_window_is_lost(((struct share *)arg)->window, at, ret_left);
}

static struct audit_log *new_audit(struct share *s, const struct vmm_config *cfg)
{
	struct audit_root roots[VMM_MAX_FS];

	for (unsigned i = 0; i < cfg->num_fs; i++)
		roots[i] = (struct audit_root){cfg->fs[i].source, s->backends[i]};
	return audit_log_new(&(struct audit_options){
		.fd = cfg->audit, .key = "vm", .value = cfg->name, .roots = roots, .count = cfg->num_fs, .mux = true});
}

static int join(struct share *s, const struct vmm_config *cfg, struct sm_error *err)
{
	struct fuse_mux_child children[VMM_MAX_FS];
	struct fuse_session_options o = {.watch = true}; /* of mounts whose answers hold for a moment at all */
	struct fuse_dax_port dax = {.size = s->window->size,
				    .protection = dax_protection,
				    .map = dax_map,
				    .unmap = dax_unmap,
				    .lost = &s->window->lost,
				    .is_lost = dax_is_lost,
				    .arg = s};
	struct fuse_audit_port audit;
	int r;

	if (s->window->size)
		o.dax = &dax;
	if (cfg->audit >= 0) {
		s->audit = new_audit(s, cfg);
		if (!s->audit)
			return error_sys(err, ENOMEM, "shared directories");
		audit = audit_log_port(s->audit);
		o.audit = &audit;
	}

	for (unsigned i = 0; i < s->count; i++)
		children[i] = (struct fuse_mux_child){s->backends[i], s->names[i]};
	r = fuse_mux_new(children, s->count, &s->mux);
	if (r == 0)
		r = fuse_session_new(s->mux, &o, &s->session);
	return r < 0 ? error_sys(err, -r, "shared directories") : 0;
}

/* The window looks at a file before it maps it. */
static const int window_syscalls[] = {SYS_fstat, SYS_newfstatat, -1};

/* Threads that serve may make no other system calls than these. */
static void list_syscalls(struct share *s, const struct vmm_config *cfg)
{
	bool own = false, served = false;
	unsigned n = 0;

	for (unsigned i = 0; i < cfg->num_fs; i++) {
		own |= !cfg->fs[i].server;
		served |= cfg->fs[i].server;
	}
	s->syscalls[n++] = virtio_fs_worker_syscalls;
	s->syscalls[n++] = virtq_syscalls;
	s->syscalls[n++] = share_watch_syscalls;
	if (own)
		s->syscalls[n++] = fuse_posix_syscalls;
	if (served && s->window->size)
		s->syscalls[n++] = window_syscalls;
	if (served)
		s->syscalls[n++] = fuse_daemon_syscalls;
}

static void init(struct share *s, const struct vmm_config *cfg)
{
	pthread_condattr_t attr;

	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->answer, &attr);
	pthread_condattr_destroy(&attr);
	s->control = cfg->control;
	list_syscalls(s, cfg);
}

int share_new(const struct vmm_config *cfg, struct dax_window *window, struct share **ret, struct sm_error *err)
{
	struct share *s = calloc(1, sizeof(*s));
	int r = s ? 0 : error_sys(err, ENOMEM, "shared directories");

	if (s) {
		s->window = window;
		pthread_mutex_init(&s->opening, NULL);
		init(s, cfg);
	}
	for (unsigned i = 0; i < cfg->num_fs && r == 0; i++)
		r = open_one(s, &cfg->fs[i], cfg->num_fs, err);
	if (r == 0)
		r = join(s, cfg, err);
	if (r < 0) {
		share_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

struct share *share_free(struct share *s)
{
	if (!s)
		return NULL;
	if (__atomic_load_n(&s->closed, __ATOMIC_ACQUIRE))
		fuse_session_reopen(s->session, NULL);
	fuse_session_free(s->session);
	fuse_mux_free(s->mux);
	audit_log_free(s->audit);
	for (unsigned i = 0; i < s->count; i++) {
		if (s->served[i])
			fuse_daemon_free(s->backends[i]);
		else
			fuse_posix_free(s->backends[i]);
	}
	pthread_cond_destroy(&s->answer);
	pthread_mutex_destroy(&s->lock);
	free(s);
	return NULL;
}

struct watch *share_watched(struct share *s)
{
	return fuse_session_watch(s->session);
}

int share_confine(const struct vmm_config *cfg, struct sm_error *err)
{
	struct landlock_share shares[VMM_MAX_FS];
	unsigned n = 0;

	for (unsigned i = 0; i < cfg->num_fs; i++)
		if (!cfg->fs[i].server)
			shares[n++] = (struct landlock_share){.fd = cfg->fs[i].fd,
							      .read_only = cfg->fs[i].read_only,
							      .devices = cfg->fs[i].ids == SM_FS_IDS_SAME};
	return landlock_confine(shares, n, err);
}

/* --------------------------------------------------------------------------------------------- snapshots */

/* The backend of a node, and its own number for it; NULL: the directory of them all, or none. */
static struct sm_fs_backend *backend_of(const struct share *s, uint64_t *nodeid)
{
	uint64_t number = *nodeid >> FUSE_MUX_SHIFT;

	*nodeid &= FUSE_MUX_ID_MASK;
	return number && number <= s->count ? s->backends[number - 1] : NULL;
}

static uint32_t file_flags(void *arg, uint64_t nodeid, uint64_t fh)
{
	const struct share *s = arg;

	if (__atomic_load_n(&s->closed, __ATOMIC_ACQUIRE)) /* it stands in the place of the backend's */
		return (uint32_t)fh;
	return backend_of(s, &nodeid) ? fuse_posix_open_flags(fh) : 0;
}

static int file_open(void *arg, uint64_t nodeid, bool is_dir, uint32_t flags, uint64_t *ret_fh)
{
	struct sm_fs_backend *be = backend_of(arg, &nodeid);

	if (!be)
		return is_dir && nodeid == SM_FS_ROOT ? 0 : -ESTALE;
	return fuse_posix_reopen(be, nodeid, is_dir, flags, ret_fh);
}

int share_save(void *arg, struct buf *out)
{
	struct share *s = arg;
	struct fuse_session_files files = {.flags = file_flags, .arg = s};
	int r;

	buf_put_u32(out, STATE_VERSION);
	buf_put_u32(out, s->count);
	for (unsigned i = 0; i < s->count; i++) {
		if (s->served[i]) /* what the guest has of it is its server's to know */
			return -EOPNOTSUPP;
		fuse_posix_save(s->backends[i], out);
	}
	r = fuse_session_save(s->session, &files, out);
	return r < 0 ? r : out->error;
}

int share_load(void *arg, struct cursor *in)
{
	struct share *s = arg;
	int r = 0;

	if (cursor_u32(in) != STATE_VERSION || cursor_u32(in) != s->count)
		return -ENOTSUP;
	for (unsigned i = 0; i < s->count && r == 0; i++)
		r = s->served[i] ? -EOPNOTSUPP : fuse_posix_load(s->backends[i], in);
	r = r < 0 ? r : fuse_session_load(s->session, in);
	s->goes_on = true;
	__atomic_store_n(&s->closed, true, __ATOMIC_RELEASE);
	return r;
}

bool share_goes_on(const struct share *s)
{
	return s->goes_on;
}

/* In a thread that serves: it alone may open files. */
static void open_again(struct share *s)
{
	struct fuse_session_files files = {.open = file_open, .arg = s};

	pthread_mutex_lock(&s->opening);
	if (__atomic_load_n(&s->closed, __ATOMIC_ACQUIRE))
		fuse_session_reopen(s->session, &files);
	__atomic_store_n(&s->closed, false, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&s->opening);
}

ssize_t share_serve(void *arg, const struct iovec *in, int num_in, const struct iovec *out, int num_out)
{
	struct share *s = arg;

	if (__atomic_load_n(&s->closed, __ATOMIC_ACQUIRE))
		open_again(s);
	return fuse_session_serve(s->session, in, num_in, out, num_out);
}

const int *const *share_syscalls(const struct share *s)
{
	return s->syscalls;
}
