/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The monitor's configuration: strict, so that a keeper of another version is told what it got wrong instead of
 * starting something else than it asked for. Every member is consumed by name; one left over is an error.
 */
#include "vmm/config.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#define CONFIG_VERSION 1
#define MAX_MEMORY (4096ULL * GIB)
#define MAX_WINDOW (1024ULL * GIB)
#define MAX_CMDLINE 1500 /* with the monitor's own part it must stay under the kernel's 2047 */
#define MAX_MEMBERS 24	 /* known to one object */
#define HUGE_PAGE (2 * MIB)

/* Members of one object. The first failure sticks in `r`, so that a reader takes all it wants and checks once. */
struct members {
	json_t *obj;
	const char *where;
	const json_t *taken[MAX_MEMBERS];
	size_t used;
	struct sm_error *err;
	int r;
};

static void fail(struct members *m, const char *name, const char *what)
{
	if (!m->r)
		m->r = error_set(m->err, SM_ERROR_INVALID, EINVAL, "%s%s%s: %s", m->where, *m->where ? "." : "", name,
				 what);
}

static json_t *take(struct members *m, const char *name, bool required)
{
	json_t *v = json_object_get(m->obj, name);

	if (v && m->used < MAX_MEMBERS)
		m->taken[m->used++] = v;
	else if (required)
		fail(m, name, "missing");
	return v;
}

static uint64_t take_int(struct members *m, const char *name, bool required, uint64_t min, uint64_t max)
{
	json_t *v = take(m, name, required);
	json_int_t i;

	if (!v)
		return 0;
	i = json_integer_value(v);
	if (!json_is_integer(v)) {
		fail(m, name, "not an integer");
	} else if (i < 0 || (uint64_t)i < min || (uint64_t)i > max) {
		fail(m, name, "out of range");
	} else {
		return (uint64_t)i;
	}
	return 0;
}

static int take_fd(struct members *m, const char *name, bool required)
{
	if (!required && !json_object_get(m->obj, name))
		return -1;
	return (int)take_int(m, name, required, 0, INT_MAX);
}

static bool take_bool(struct members *m, const char *name, bool fallback)
{
	json_t *v = take(m, name, false);

	if (v && !json_is_boolean(v))
		fail(m, name, "not a boolean");
	return v ? json_is_true(v) : fallback;
}

/* A string without control characters; "" when absent and not required. */
static const char *take_str(struct members *m, const char *name, bool required, size_t max)
{
	json_t *v = take(m, name, required);
	const char *s = json_string_value(v);

	if (!v)
		return "";
	if (!s) {
		fail(m, name, "not a string");
		return "";
	}
	if (json_string_length(v) > max)
		fail(m, name, "too long");
	for (const char *c = s; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			fail(m, name, "has a control character");
	if (strlen(s) != json_string_length(v))
		fail(m, name, "has a NUL character");
	return m->r ? "" : s;
}

static json_t *take_array(struct members *m, const char *name, bool required, size_t max)
{
	json_t *v = take(m, name, required);

	if (v && !json_is_array(v)) {
		fail(m, name, "not an array");
		return NULL;
	}
	if (json_array_size(v) > max) {
		fail(m, name, "too many");
		return NULL;
	}
	return v;
}

static struct members enter(struct members *up, json_t *obj, const char *where)
{
	struct members m = {.obj = obj, .where = where, .err = up->err, .r = up->r};

	if (!m.r && !json_is_object(obj))
		m.r = error_set(m.err, SM_ERROR_INVALID, EINVAL, "%s: not an object", where);
	return m;
}

/* Ends an object: names a member that nobody took. */
static int leave(struct members *m)
{
	const char *key;
	json_t *v;

	if (m->r)
		return m->r;
	json_object_foreach(m->obj, key, v)
	{
		bool taken = false;

		for (size_t i = 0; i < m->used; i++)
			taken |= m->taken[i] == v;
		if (!taken)
			return m->r = error_set(m->err, SM_ERROR_INVALID, EINVAL, "%s%sunknown member \"%.64s\"",
						m->where, *m->where ? ": " : "", key);
	}
	return 0;
}

static int parse_file(struct members *up, json_t *v, const char *where, bool with_offset, struct vmm_file *ret)
{
	struct members m = enter(up, v, where);

	ret->fd = take_fd(&m, "fd", true);
	ret->size = take_int(&m, "size", true, 0, INT64_MAX);
	ret->offset = with_offset ? take_int(&m, "offset", true, 0, INT64_MAX) : 0;
	return leave(&m);
}

static int parse_files(struct members *up, json_t *array, const char *where, bool with_offset, struct vmm_file **ret,
		       unsigned *ret_count)
{
	size_t n = json_array_size(array);

	if (up->r || !n)
		return up->r;
	*ret = calloc(n, sizeof(**ret));
	if (!*ret)
		return error_sys(up->err, ENOMEM, "%s", where);
	*ret_count = (unsigned)n;
	for (size_t i = 0; i < n; i++) {
		up->r = parse_file(up, json_array_get(array, i), where, with_offset, &(*ret)[i]);
		if (up->r)
			return up->r;
	}
	return 0;
}

/* Parts of a window or a concatenated disk: page-aligned offsets, inside `limit`, no two over each other. */
static int check_parts(struct members *m, const struct vmm_file *parts, unsigned n, uint64_t limit)
{
	for (unsigned i = 0; i < n && !m->r; i++) {
		if (!parts[i].size || parts[i].offset % 4096 || !range_inside(parts[i].offset, parts[i].size, limit))
			fail(m, "parts", "empty, unaligned or outside");
		for (unsigned j = 0; j < i; j++)
			if (parts[i].offset < parts[j].offset + parts[j].size &&
			    parts[j].offset < parts[i].offset + parts[i].size)
				fail(m, "parts", "overlap");
	}
	return m->r;
}

static int parse_window(struct members *up, struct vmm_config *cfg)
{
	json_t *v = take(up, "window", false), *parts;
	struct members m;

	if (!v || up->r)
		return up->r;
	m = enter(up, v, "window");
	cfg->window_size = take_int(&m, "size", true, HUGE_PAGE, MAX_WINDOW);
	if (cfg->window_size % HUGE_PAGE)
		fail(&m, "size", "not a multiple of 2 MiB");
	parts = take_array(&m, "parts", true, VMM_MAX_PARTS);
	if (!m.r)
		m.r = parse_files(&m, parts, "window.parts", true, &cfg->window, &cfg->num_window);
	check_parts(&m, cfg->window, cfg->num_window, cfg->window_size);
	return up->r = leave(&m);
}

static int parse_blk(struct members *up, json_t *v, struct vmm_blk_config *blk)
{
	struct members m = enter(up, v, "blk");
	json_t *layers, *concat, *top;

	blk->top.fd = -1;
	if (m.r)
		return m.r;
	layers = take_array(&m, "layers", false, VMM_MAX_PARTS);
	concat = take_array(&m, "concat", false, VMM_MAX_PARTS);
	top = take(&m, "top", false);
	blk->read_only = take_bool(&m, "read_only", false);
	strcpy(blk->serial, take_str(&m, "serial", false, sizeof(blk->serial) - 1));
	blk->idle = take_bool(&m, "idle", false);
	blk->replaceable = take_bool(&m, "replaceable", false);
	if (blk->idle) {
		if (layers || concat || top)
			fail(&m, "idle", "an idle disk has no files");
		return leave(&m);
	}
	if (blk->read_only ? !!top : !top)
		fail(&m, "top", blk->read_only ? "a read-only disk has none" : "missing");
	if (concat && (layers || !blk->read_only || !json_array_size(concat)))
		fail(&m, "concat", "needs a read-only disk without layers");
	if (blk->read_only && !concat && !json_array_size(layers))
		fail(&m, "layers", "missing");
	parse_files(&m, layers, "blk.layers", false, &blk->layers, &blk->num_layers);
	parse_files(&m, concat, "blk.concat", true, &blk->concat, &blk->num_concat);
	check_parts(&m, blk->concat, blk->num_concat, INT64_MAX);
	if (top && !m.r)
		m.r = parse_file(&m, top, "blk.top", false, &blk->top);
	return leave(&m);
}

static int parse_disks(struct members *up, struct vmm_config *cfg)
{
	json_t *array = take_array(up, "blk", false, VMM_MAX_BLK);

	for (size_t i = 0; i < json_array_size(array) && !up->r; i++) {
		cfg->num_blk++;
		up->r = parse_blk(up, json_array_get(array, i), &cfg->blk[i]);
	}
	return up->r;
}

static int parse_vsock(struct members *up, struct vmm_config *cfg)
{
	json_t *v = take(up, "vsock", false);
	struct members m;

	cfg->vsock_agent = -1;
	if (!v || up->r)
		return up->r;
	m = enter(up, v, "vsock");
	cfg->has_vsock = true;
	/* 0, 1 and 2 are the hypervisor, local and host addresses; the last one means any (vsock(7)). */
	cfg->vsock_cid = (uint32_t)take_int(&m, "cid", true, 3, UINT32_MAX - 1);
	cfg->vsock_agent = take_fd(&m, "agent", false);
	return up->r = leave(&m);
}

/* One of the words that a NULL ends; the first when absent. */
static int take_word(struct members *m, const char *name, const char *const *words)
{
	const char *s = take_str(m, name, false, 16);

	for (int i = 0; *s && words[i]; i++)
		if (streq(s, words[i]))
			return i;
	if (*s)
		fail(m, name, "not one of the words it may be");
	return 0;
}

static int parse_share(struct members *up, json_t *v, struct vmm_fs_config *fs)
{
	static const char *const ids[] = {"caller", "same", "none", "ranges", NULL};
	static const char *const xattrs[] = {"auto", "mapped", NULL};
	static const char *const symlinks[] = {"opaque", "deny", "follow", NULL};
	static const char *const cache[] = {"auto", "none", "always", NULL};
	struct members m = enter(up, v, "fs");

	fs->fd = take_fd(&m, "fd", true);
	fs->server = take_bool(&m, "server", false);
	fs->read_only = take_bool(&m, "read_only", false);
	fs->direct = take_bool(&m, "direct", false);
	fs->dax = take_bool(&m, "dax", false);
	fs->ids = (enum sm_fs_ids)take_word(&m, "ids", ids);
	strcpy(fs->id_ranges, take_str(&m, "id_ranges", false, sizeof(fs->id_ranges) - 1));
	fs->xattrs = (enum sm_fs_xattrs)take_word(&m, "xattrs", xattrs);
	fs->symlinks = (enum sm_fs_symlinks)take_word(&m, "symlinks", symlinks);
	fs->cache = (enum sm_fs_cache)take_word(&m, "cache", cache);
	fs->source = strdup(take_str(&m, "source", false, PATH_MAX));
	if (!fs->source && !m.r)
		m.r = error_sys(m.err, ENOMEM, "configuration");
	return leave(&m);
}

static int parse_shares(struct members *up, struct vmm_config *cfg)
{
	json_t *array = take_array(up, "fs", false, VMM_MAX_FS);

	for (size_t i = 0; i < json_array_size(array) && !up->r; i++)
		up->r = parse_share(up, json_array_get(array, i), &cfg->fs[cfg->num_fs++]);
	cfg->watch = take_fd(up, "watch", false);
	cfg->audit = take_fd(up, "audit", false);
	cfg->dax_size = take_int(up, "dax", false, 0, MAX_WINDOW);
	if (cfg->dax_size % HUGE_PAGE)
		fail(up, "dax", "not a multiple of 2 MiB");
	return up->r;
}

static void parse_under(struct members *m, struct vmm_config *cfg)
{
	json_t *array = take_array(m, "under", false, OVERLAY_MAX), *v;
	size_t i;

	json_array_foreach(array, i, v)
	{
		if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > INT_MAX)
			fail(m, "under", "not a list of descriptors");
		cfg->restore_under[cfg->num_under++] = (int)json_integer_value(v);
	}
}

static int parse_restore(struct members *up, struct vmm_config *cfg)
{
	json_t *v = take(up, "restore", false);
	struct members m;

	cfg->restore_state = cfg->restore_memory = cfg->restore_workingset = cfg->restore_huge = -1;
	if (!v || up->r)
		return up->r;
	m = enter(up, v, "restore");
	cfg->restore_state = take_fd(&m, "state", true);
	cfg->restore_memory = take_fd(&m, "memory", true);
	parse_under(&m, cfg);
	cfg->restore_wait = take_bool(&m, "wait", false);
	cfg->restore_workingset = take_fd(&m, "workingset", false);
	cfg->restore_huge = take_fd(&m, "huge", false);
	cfg->restore_learns = take_bool(&m, "learns", false);
	return up->r = leave(&m);
}

/* What boots, unless it is restored. */
static void parse_boot(struct members *m, struct vmm_config *cfg)
{
	bool boots = cfg->restore_state < 0;

	cfg->kernel = take_fd(m, "kernel", boots);
	cfg->initramfs = take_fd(m, "initramfs", false);
	cfg->cmdline = strdup(take_str(m, "cmdline", false, MAX_CMDLINE));
	if (!cfg->cmdline && !m->r)
		m->r = error_sys(m->err, ENOMEM, "cmdline");
	if (!boots && (cfg->kernel >= 0 || cfg->initramfs >= 0 || (cfg->cmdline && *cfg->cmdline)))
		fail(m, "restore", "not together with kernel, initramfs or cmdline");
}

static int parse_root(struct members *m, struct vmm_config *cfg)
{
	take_int(m, "version", true, CONFIG_VERSION, CONFIG_VERSION);
	strcpy(cfg->name, take_str(m, "name", true, sizeof(cfg->name) - 1));
	cfg->memory = take_int(m, "memory", true, 0, MAX_MEMORY);
	if (!m->r && cfg->memory < VMM_MIN_MEMORY)
		fail(m, "memory", "a guest needs at least 128 MiB");
	if (cfg->memory % HUGE_PAGE)
		fail(m, "memory", "not a multiple of 2 MiB");
	cfg->cpus = (unsigned)take_int(m, "cpus", true, 1, VMM_MAX_CPUS);
	cfg->pluggable = take_bool(m, "pluggable", false);
	parse_restore(m, cfg);
	parse_boot(m, cfg);
	cfg->control = take_fd(m, "control", true);
	cfg->console = take_fd(m, "console", true);
	cfg->kvm = take_fd(m, "kvm", false);
	parse_window(m, cfg);
	parse_disks(m, cfg);
	parse_vsock(m, cfg);
	parse_shares(m, cfg);
	cfg->trace = take_bool(m, "trace", false);
	cfg->ksm = take_bool(m, "ksm", false);
	cfg->seal = take_bool(m, "seal", true);
	return leave(m);
}

int vmm_config_parse(const char *json, size_t len, struct vmm_config *cfg, struct sm_error *err)
{
	struct members m = {.where = "", .err = err};
	json_error_t bad;

	memset(cfg, 0, sizeof(*cfg));
	m.obj = json_loadb(json, len, JSON_REJECT_DUPLICATES, &bad);
	if (!m.obj)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "configuration: line %d: %.120s", bad.line, bad.text);
	if (json_is_object(m.obj))
		parse_root(&m, cfg);
	else
		m.r = error_set(err, SM_ERROR_INVALID, EINVAL, "configuration: not an object");
	json_decref(m.obj);
	if (m.r) {
		vmm_config_done(cfg);
		return error_wrap(err, m.r, "configuration");
	}
	return 0;
}

void vmm_config_done(struct vmm_config *cfg)
{
	for (unsigned i = 0; i < cfg->num_blk; i++) {
		free(cfg->blk[i].layers);
		free(cfg->blk[i].concat);
	}
	for (unsigned i = 0; i < cfg->num_fs; i++)
		free(cfg->fs[i].source);
	free(cfg->window);
	free(cfg->cmdline);
	memset(cfg, 0, sizeof(*cfg));
}
