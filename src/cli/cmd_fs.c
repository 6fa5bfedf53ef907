/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs mount: the file server behind /dev/fuse, in the foreground. SIGINT, SIGTERM and SIGHUP unmount; so does somebody
 * else's umount. A second signal while that takes long ends this process at once; the next fs mount clears up after it.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "cli/cli.h"
#include "cli/mounts.h"
#include "cli/restore.h"

struct mount_values {
	const char *backend, *cache, *symlinks, *ids, *xattrs, *group, *audit;
	bool read_only, allow_other;
	uint64_t size, threads;
};

#define V(m) offsetof(struct mount_values, m)
static const struct opt options[] = {
	{0, "backend", OPT_TEXT, V(backend), "posix|mem|daemon",
	 "a directory of this host (default), an empty file system in memory, or a directory by way of the process "
	 "that "
	 "serves it to all",
	 .choices = "posix|mem|daemon"},
	{0, "cache", OPT_TEXT, V(cache), "none|auto|always",
	 "how long names and attributes hold: not at all, until somebody else changes them (default), or for good "
	 "(where "
	 "nobody else changes the source)",
	 .choices = "none|auto|always"},
	{0, "symlinks", OPT_TEXT, V(symlinks), "deny|opaque|follow",
	 "links are refused, shown as they are (default), or shown as what they lead to within the source",
	 .choices = "deny|opaque|follow"},
	{0, "ids", OPT_TEXT, V(ids), "same|caller|none|RANGES",
	 "owners are the host's (default), kept beside the files, which all belong to you, shown while what is made "
	 "belongs to you, or moved by u:MOUNT:HOST:COUNT,g:MOUNT:HOST:COUNT"},
	{0, "xattrs", OPT_TEXT, V(xattrs), "auto|mapped",
	 "attributes security.* and trusted.* are the host's (default, with --ids same), or kept for this mount alone",
	 .choices = "auto|mapped"},
	{0, "share-group", OPT_TEXT, V(group), "NAME",
	 "with --backend daemon: share that process with mounts of the same name alone"},
	{0, "audit", OPT_TEXT, V(audit), "FILE", CLI_AUDIT_HELP("the mount")},
	{0, "ro", OPT_FLAG, V(read_only), NULL, "read-only"},
	{0, "allow-other", OPT_FLAG, V(allow_other), NULL, "let other users in (always so as root)"},
	{0, "size", OPT_SIZE, V(size), "SIZE", "room in memory, with --backend mem (default 1G)", .min = 4096},
	{0, "threads", OPT_NUMBER, V(threads), "N", "threads that serve, without io_uring (default: by CPUs)", .min = 1,
	 .max = 16},
};
#undef V

static bool is_shared(const struct mount_values *v)
{
	return v->backend && streq(v->backend, "daemon");
}

/* A mount inside what it shows would ask itself. */
static bool lies_inside(const char *mountpoint, const char *source)
{
	_free_ char *m = realpath(mountpoint, NULL), *s = realpath(source, NULL);
	size_t len = s ? strlen(s) : 0;

	return m && s && str_starts(m, s) && (len == 1 || m[len] == '/' || !m[len]);
}

static int make_posix(struct cli *cli, const struct mount_values *v, const char *source, const char *mountpoint,
		      struct sm_fs_backend **ret, struct sm_error *err)
{
	struct sm_fs_posix_options o = SM_FS_POSIX_OPTIONS_INIT;

	if (lies_inside(mountpoint, source))
		return error_set(err, SM_ERROR_INVALID, ELOOP, "%s lies inside %s: it would show itself", mountpoint,
				 source);
	o.read_only = v->read_only;
	o.xattrs = v->xattrs && streq(v->xattrs, "mapped") ? SM_FS_XATTRS_MAPPED : SM_FS_XATTRS_AUTO;
	o.ids = SM_FS_IDS_SAME;
	if (v->ids)
		cli_ids_parse(v->ids, &o.ids, &o.id_ranges); /* it was checked */
	o.cache = !v->cache || streq(v->cache, "auto") ? SM_FS_CACHE_AUTO
		  : streq(v->cache, "none")	       ? SM_FS_CACHE_NONE
						       : SM_FS_CACHE_ALWAYS;
	o.symlinks = !v->symlinks || streq(v->symlinks, "opaque") ? SM_FS_SYMLINKS_OPAQUE
		     : streq(v->symlinks, "deny")		  ? SM_FS_SYMLINKS_DENY
								  : SM_FS_SYMLINKS_FOLLOW;
	if (!is_shared(v))
		return sm_fs_posix_new(source, &o, ret, err);
	return sm_fs_daemon_new(cli_client(cli), source, &o, v->group, ret, err);
}

static int make_memory(const struct mount_values *v, struct sm_fs_backend **ret, struct sm_error *err)
{
	struct sm_fs_memory_options o = SM_FS_MEMORY_OPTIONS_INIT;

	o.max_bytes = v->size;
	o.uid = geteuid();
	o.gid = getegid();
	return sm_fs_memory_new(&o, ret, err);
}

/* Until a signal, or until somebody has unmounted it. */
static int serve(struct cli *cli, struct sm_fs_backend *be, const char *mountpoint, const struct sm_fs_mount_options *o,
		 struct sm_error *err)
{
	struct sm_fs_server *server = NULL;
	_fd_ int stop = -1;
	sigset_t ends, before;
	int r;

	sigemptyset(&ends);
	sigaddset(&ends, SIGINT);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGHUP);
	sigprocmask(SIG_BLOCK, &ends, &before);
	stop = signalfd(-1, &ends, SFD_CLOEXEC);
	r = stop < 0 ? error_sys(err, errno, "signals") : sm_fs_mount(be, mountpoint, o, &server, err);
	if (r == 0) {
		cli_say(cli, "%s is mounted on %s until this ends (ctrl-c)", o->source, mountpoint);
		r = sm_fs_wait(server, stop, err);
		if (r == -ECANCELED) {
			struct signalfd_siginfo info;

			r = read(stop, &info, sizeof(info)) < 0 ? error_sys(err, errno, "signals") : 0;
		}
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
	sm_fs_stop(server);
	return r;
}

static int check(struct cli *cli, const struct mount_values *v, bool memory, int count)
{
	const char *usage = "usage: supermachine fs mount SOURCE MOUNTPOINT", *ranges;
	enum sm_fs_ids ids;

	if (v->group && !is_shared(v))
		return cli_usage(cli, NULL, "--share-group is for --backend daemon");
	if (v->ids && !cli_ids_parse(v->ids, &ids, &ranges))
		return cli_usage(cli, "same, caller, none, or for example u:0:1000:1,g:0:1000:1",
				 "--ids %s: there is no such choice", v->ids);
	if (v->ids && streq(v->ids, "caller") && geteuid() != 0)
		return cli_usage(cli, "use --ids same",
				 "--ids caller shows your files as root's: of use to root alone, here on the host");
	if (!memory && count < 2)
		return cli_usage(cli, usage, "the mount point is missing");
	if (memory && (v->cache || v->symlinks || v->ids || v->xattrs))
		return cli_usage(cli, NULL, "--cache, --symlinks, --ids and --xattrs are for directories");
	if (v->audit && (memory || is_shared(v)))
		return cli_usage(cli, NULL, "--audit is for directories that this process serves itself");
	if (!memory && v->size)
		return cli_usage(cli, NULL, "--size is for --backend mem");
	return 0;
}

static int run(struct cli *cli, const void *values, char **operands, int count)
{
	const struct mount_values *v = values;
	struct sm_fs_mount_options o = SM_FS_MOUNT_OPTIONS_INIT;
	bool memory = v->backend && streq(v->backend, "mem");
	const char *mountpoint = operands[count - 1];
	struct sm_fs_backend *be = NULL;
	struct sm_error err = {0};
	int r = check(cli, v, memory, count);

	if (r)
		return r;
	if (is_shared(v) && !cli_client(cli))
		return CLI_FAILED;
	fd_limit_raise(UINT64_MAX); /* nodes and open files are descriptors of this process */
	o.source = memory && count < 2 ? "memory" : operands[0];
	o.read_only = v->read_only;
	o.allow_other = v->allow_other;
	o.threads = (unsigned)v->threads;
	o.audit = v->audit;
	r = memory ? make_memory(v, &be, &err) : make_posix(cli, v, operands[0], mountpoint, &be, &err);
	if (r == 0)
		r = serve(cli, be, mountpoint, &o, &err);
	if (memory)
		sm_fs_memory_free(be);
	else if (is_shared(v))
		sm_fs_daemon_free(be);
	else
		sm_fs_posix_free(be);
	return r < 0 ? cli_fail(cli, &err, NULL) : 0;
}

static const char *const examples[] = {"fs mount --ro ~/src /mnt", "a read-only view of a directory",
				       "fs mount --backend mem --size 256M /mnt",
				       "scratch space that ends with this command", NULL};

const struct verb verb_fs_mount = {
	.name = "fs mount",
	.operands = "SOURCE MOUNTPOINT",
	.summary = "Serve a directory through the file server that VMs use",
	.details =
		"Mounts SOURCE on MOUNTPOINT by /dev/fuse and serves it until ctrl-c, SIGTERM, or umount. With "
		"--backend mem SOURCE may be left out. What a server that was killed left on MOUNTPOINT is replaced.",
	.examples = examples,
	VERB_OPTS(options, struct mount_values),
	.min_operands = 1,
	.max_operands = 2,
	.completes = OPERAND_FILE,
	.group = GROUP_HOST,
	.run = run,
};
