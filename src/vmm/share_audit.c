/* SPDX-License-Identifier: Apache-2.0 */
/* See share_audit.h. In sealed threads: nothing here opens anything. */
#include "vmm/share_audit.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "fuse/mux.h"
#include "fuse/posix.h"

#define PLACE_MAX (2 * PATH_MAX)

struct share_audit {
	const struct vmm_config *cfg;
	struct sm_fs_backend *backends[VMM_MAX_FS];
	unsigned lost; /* atomic: lines that could not be written since the last one that could */
};

/* The host's path of a node, and of a name in it. */
static void put_path(const struct share_audit *a, const char *key, uint64_t nodeid, const char *name, struct buf *out)
{
	uint64_t number = nodeid >> FUSE_MUX_SHIFT;
	_cleanup_(buf_done) struct buf path = {0};
	char place[PLACE_MAX];

	if (!number || number > a->cfg->num_fs)
		return;
	if (!fuse_posix_place(a->backends[number - 1], nodeid & FUSE_MUX_ID_MASK, place, sizeof(place)))
		snprintf(place, sizeof(place), "/?");
	buf_printf(&path, "%s%s%s%s", a->cfg->fs[number - 1].source, place, name ? "/" : "", name ? name : "");
	buf_put_u8(&path, 0);
	buf_printf(out, ",\"%s\":", key);
	if (path.error)
		buf_printf(out, "null");
	else
		buf_put_json(out, (const char *)path.data);
}

static void put_line(struct share_audit *a, const struct fuse_audit *what, unsigned lost, struct buf *out)
{
	const char *error = what->error ? strerrorname_np(what->error) : NULL;
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	buf_printf(out, "{\"time_ns\":%llu,\"vm\":\"%s\",\"op\":\"%s\"",
		   (unsigned long long)now.tv_sec * 1000000000ull + (unsigned long long)now.tv_nsec, a->cfg->name,
		   what->op);
	put_path(a, "path", what->nodeid, what->name, out);
	if (what->as)
		put_path(a, "to", what->to, what->as, out);
	buf_printf(out, ",\"write\":%s,\"result\":\"%s\"", what->writes ? "true" : "false",
		   !what->error ? "ok"
		   : error	? error
				: "error");
	if (lost)
		buf_printf(out, ",\"lost\":%u", lost);
	buf_printf(out, "}\n");
}

/* One write a line, so that lines of several threads, and VMs, do not mix. */
static void note(void *arg, const struct fuse_audit *what)
{
	struct share_audit *a = arg;
	unsigned lost = __atomic_exchange_n(&a->lost, 0, __ATOMIC_RELAXED);
	_cleanup_(buf_done) struct buf line = {0};

	/* The directory of all mounts is no one's. */
	if (!(what->nodeid >> FUSE_MUX_SHIFT))
		return;
	put_line(a, what, lost, &line);
	if (line.error || write(a->cfg->audit, line.data, line.len) != (ssize_t)line.len)
		__atomic_fetch_add(&a->lost, lost + 1, __ATOMIC_RELAXED);
}

struct share_audit *share_audit_new(const struct vmm_config *cfg, struct sm_fs_backend *const *backends)
{
	struct share_audit *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	a->cfg = cfg;
	memcpy(a->backends, backends, cfg->num_fs * sizeof(*backends));
	return a;
}

struct share_audit *share_audit_free(struct share_audit *a)
{
	free(a);
	return NULL;
}

struct fuse_audit_port share_audit_port(struct share_audit *a)
{
	return (struct fuse_audit_port){.note = note, .arg = a};
}
