/* SPDX-License-Identifier: Apache-2.0 */
/* See auditlog.h. A monitor's threads that serve are sealed: nothing here opens anything. */
#include "fuse/auditlog.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/util.h"
#include "fuse/mux.h"
#include "fuse/posix.h"

#define PLACE_MAX (2 * PATH_MAX)

struct audit_log {
	struct audit_options o;
	unsigned lost; /* atomic: lines that could not be written since the last one that could */
	struct audit_root roots[];
};

/* Where a node is, and its number there. NULL: the directory of all mounts is no one's. */
static const struct audit_root *root_of(const struct audit_log *a, uint64_t *nodeid)
{
	uint64_t number = *nodeid >> FUSE_MUX_SHIFT;

	if (!a->o.mux)
		return a->roots;
	if (!number || number > a->o.count)
		return NULL;
	*nodeid &= FUSE_MUX_ID_MASK;
	return &a->roots[number - 1];
}

/* The host's path of a node, and of a name in it. */
static void put_path(const struct audit_log *a, const char *key, uint64_t nodeid, const char *name, struct buf *out)
{
	const struct audit_root *root = root_of(a, &nodeid);
	_cleanup_(buf_done) struct buf path = {0};
	char place[PLACE_MAX];

	if (!root)
		return;
	if (!fuse_posix_place(root->backend, nodeid, place, sizeof(place)))
		snprintf(place, sizeof(place), "/?");
	/* Of the host's own root nothing but the names is told. */
	buf_printf(&path, "%s%s%s%s", streq(root->path, "/") ? "" : root->path, place, name ? "/" : "",
		   name ? name : "");
	buf_put_u8(&path, 0);
	buf_printf(out, ",\"%s\":", key);
	if (path.error)
		buf_printf(out, "null");
	else
		buf_put_json(out, *path.data ? (const char *)path.data : "/");
}

static void put_line(struct audit_log *a, const struct fuse_audit *what, unsigned lost, struct buf *out)
{
	const char *error = what->error ? strerrorname_np(what->error) : NULL;
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	buf_printf(out, "{\"time_ns\":%llu,\"%s\":",
		   (unsigned long long)now.tv_sec * 1000000000ull + (unsigned long long)now.tv_nsec, a->o.key);
	buf_put_json(out, a->o.value);
	buf_printf(out, ",\"op\":\"%s\"", what->op);
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
	struct audit_log *a = arg;
	uint64_t nodeid = what->nodeid;
	_cleanup_(buf_done) struct buf line = {0};
	unsigned lost;

	if (!root_of(a, &nodeid))
		return;
	lost = __atomic_exchange_n(&a->lost, 0, __ATOMIC_RELAXED);
	put_line(a, what, lost, &line);
	if (line.error || write(a->o.fd, line.data, line.len) != (ssize_t)line.len)
		__atomic_fetch_add(&a->lost, lost + 1, __ATOMIC_RELAXED);
}

struct audit_log *audit_log_new(const struct audit_options *o)
{
	struct audit_log *a = calloc(1, sizeof(*a) + o->count * sizeof(*a->roots));

	if (!a)
		return NULL;
	a->o = *o;
	a->o.roots = NULL;
	memcpy(a->roots, o->roots, o->count * sizeof(*a->roots));
	return a;
}

struct audit_log *audit_log_free(struct audit_log *a)
{
	free(a);
	return NULL;
}

struct fuse_audit_port audit_log_port(struct audit_log *a)
{
	return (struct fuse_audit_port){.note = note, .arg = a};
}
