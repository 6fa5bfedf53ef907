/* SPDX-License-Identifier: Apache-2.0 */
/* Shared directories. See share.h. */
#include "vmm/share.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "fuse/mux.h"
#include "fuse/posix.h"
#include "fuse/session.h"
#include "virtio/fs.h"
#include "vmm/dax_window.h"
#include "vmm/landlock.h"
#include "vmm/share_watch.h"

#define SECOND_NS 1000000000ULL
#define NODE_FDS 4096U /* at most, of each share */
#define BIT(cap) (1ULL << (cap))

struct share {
	struct sm_fs_backend *backends[VMM_MAX_FS], *mux;
	char names[VMM_MAX_FS][4];
	unsigned count;
	struct fuse_session *session;
	struct dax_window *window;
	int protection[VMM_MAX_FS]; /* of mappings through it; 0: none */
};

/* As many descriptors as the kernel lets this process have: nodes and open files of all shares take from them. Modes
 * are the guest's to choose. */
void share_prepare(const struct vmm_config *cfg)
{
	struct rlimit lim;

	if (!cfg->num_fs)
		return;
	umask(0);
	if (getrlimit(RLIMIT_NOFILE, &lim) < 0)
		return;
	if (geteuid() == 0 && lim.rlim_max < 1U << 20)
		lim.rlim_max = 1U << 20;
	lim.rlim_cur = lim.rlim_max;
	setrlimit(RLIMIT_NOFILE, &lim); /* a lower budget is no error */
}

uint64_t share_capabilities(const struct vmm_config *cfg)
{
	uint64_t caps = 0;

	for (unsigned i = 0; i < cfg->num_fs; i++) {
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

static int open_one(struct share *s, const struct vmm_fs_config *fs, unsigned num, struct sm_error *err)
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
	int fd, r;

	if (fs->ids == SM_FS_IDS_SAME && geteuid() != 0)
		return error_set(err, SM_ERROR_INVALID, EPERM, "shared directory %u: ids=same needs root", i);
	getrlimit(RLIMIT_NOFILE, &lim);
	o.max_fds = (unsigned)MIN(lim.rlim_cur / 4 / num, (rlim_t)NODE_FDS);
	o.max_open = (unsigned)MIN(lim.rlim_cur / 2 / num, (rlim_t)(1U << 20));
	snprintf(s->names[i], sizeof(s->names[i]), "%u", i);
	fd = dup(fs->fd); /* Landlock wants the configuration's afterwards */
	if (fd < 0)
		return error_sys(err, errno, "shared directory %u", i);
	r = fuse_posix_new_fd(fd, s->names[i], &o, &s->backends[i], err);
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

static int join(struct share *s, struct sm_error *err)
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
	int r;

	if (s->window->size)
		o.dax = &dax;

	for (unsigned i = 0; i < s->count; i++)
		children[i] = (struct fuse_mux_child){s->backends[i], s->names[i]};
	r = fuse_mux_new(children, s->count, &s->mux);
	if (r == 0)
		r = fuse_session_new(s->mux, &o, &s->session);
	return r < 0 ? error_sys(err, -r, "shared directories") : 0;
}

int share_new(const struct vmm_config *cfg, struct dax_window *window, struct share **ret, struct sm_error *err)
{
	struct share *s = calloc(1, sizeof(*s));
	int r = s ? 0 : error_sys(err, ENOMEM, "shared directories");

	if (s)
		s->window = window;
	for (unsigned i = 0; i < cfg->num_fs && r == 0; i++)
		r = open_one(s, &cfg->fs[i], cfg->num_fs, err);
	if (r == 0)
		r = join(s, err);
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
	fuse_session_free(s->session);
	fuse_mux_free(s->mux);
	for (unsigned i = 0; i < s->count; i++)
		fuse_posix_free(s->backends[i]);
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

	for (unsigned i = 0; i < cfg->num_fs; i++)
		shares[i] = (struct landlock_share){.fd = cfg->fs[i].fd,
						    .read_only = cfg->fs[i].read_only,
						    .devices = cfg->fs[i].ids == SM_FS_IDS_SAME};
	return landlock_confine(shares, cfg->num_fs, err);
}

ssize_t share_serve(void *arg, const struct iovec *in, int num_in, const struct iovec *out, int num_out)
{
	return fuse_session_serve(((struct share *)arg)->session, in, num_in, out, num_out);
}

const int *const *share_syscalls(void)
{
	static const int *const lists[] = {virtio_fs_worker_syscalls, virtq_syscalls, fuse_posix_syscalls,
					   share_watch_syscalls, NULL};

	return lists;
}
