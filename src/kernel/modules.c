/* SPDX-License-Identifier: Apache-2.0 */
/* The index of a kernel's modules and their closure. See modules.h. */
#include "kernel/modules.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/cursor.h"
#include "base/fileio.h"
#include "base/util.h"
#include "kernel/internal.h"

#define MAX_LIST (16 * MIB)
#define MAX_MODULE (64 * MIB)
#define MAX_DEPTH 32

struct entry {
	char *name, *path; /* path: below the index's directory; NULL: built in */
};

struct module_index {
	char *dir;
	struct entry *entries; /* sorted by name */
	size_t count, room;
	char *aliases; /* modules.alias as text, or NULL */
	char *builtin; /* modules.builtin.modinfo: NUL-separated "name.key=value", or NULL */
	size_t builtin_len;
};

static void normalise(char *s)
{
	for (; *s; s++)
		if (*s == '-')
			*s = '_';
}

/* "kernel/fs/erofs/erofs.ko.xz" -> "erofs" */
static char *name_of_path(const char *path, size_t len)
{
	size_t at = len, n = 0;
	char *name;

	while (at && path[at - 1] != '/')
		at--;
	while (at + n < len && strncmp(path + at + n, ".ko", 3) != 0)
		n++;
	name = strndup(path + at, n);
	if (name)
		normalise(name);
	return name;
}

static int add_entry(struct module_index *ix, const char *path, size_t len, bool builtin)
{
	struct entry *e;

	if (ix->count == ix->room) {
		size_t room = ix->room ? ix->room * 2 : 256;
		struct entry *bigger = reallocarray(ix->entries, room, sizeof(*bigger));

		if (!bigger)
			return -ENOMEM;
		ix->entries = bigger;
		ix->room = room;
	}
	e = &ix->entries[ix->count++];
	*e = (struct entry){.name = name_of_path(path, len), .path = builtin ? NULL : strndup(path, len)};
	return e->name && (builtin || e->path) ? 0 : -ENOMEM;
}

/* Each line's first word, up to a colon, is a path. */
static int add_lines(struct module_index *ix, const char *text, bool builtin)
{
	for (const char *p = text; *p;) {
		size_t line = strcspn(p, "\n"), len = strcspn(p, ":\n");
		int r = 0;

		if (len && *p != '#')
			r = add_entry(ix, p, len, builtin);
		if (r < 0)
			return r;
		p += line + (p[line] == '\n');
	}
	return 0;
}

static int read_list(const struct module_index *ix, const char *name, char **ret, size_t *ret_len)
{
	char path[PATH_MAX];
	size_t len;

	if (snprintf(path, sizeof(path), "%s/%s", ix->dir, name) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	return read_file_at(AT_FDCWD, path, MAX_LIST, ret, ret_len ? ret_len : &len);
}

static int compare_entries(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	int r = strcmp(x->name, y->name);

	return r ? r : (x->path != NULL) - (y->path != NULL); /* built in comes first */
}

static const struct entry *find(const struct module_index *ix, const char *name)
{
	size_t lo = 0, hi = ix->count;

	while (lo < hi) { /* the first of equal names */
		size_t mid = lo + (hi - lo) / 2;

		if (strcmp(ix->entries[mid].name, name) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < ix->count && streq(ix->entries[lo].name, name) ? &ix->entries[lo] : NULL;
}

static int fill_index(struct module_index *ix)
{
	_free_ char *paths = NULL, *builtin = NULL;
	int r = read_list(ix, "modules.dep", &paths, NULL);

	if (r == -ENOENT)
		r = read_list(ix, "modules.order", &paths, NULL);
	if (r < 0)
		return r;
	r = add_lines(ix, paths, false);
	if (r == 0 && read_list(ix, "modules.builtin", &builtin, NULL) == 0)
		r = add_lines(ix, builtin, true);
	if (r < 0)
		return r;
	/* Both only serve soft dependencies, which name algorithms; a kernel without them has fewer of those. */
	if (read_list(ix, "modules.alias", &ix->aliases, NULL) < 0)
		ix->aliases = NULL;
	if (read_list(ix, "modules.builtin.modinfo", &ix->builtin, &ix->builtin_len) < 0)
		ix->builtin = NULL;
	qsort(ix->entries, ix->count, sizeof(*ix->entries), compare_entries);
	return 0;
}

int module_index_open(const char *dir, struct module_index **ret, struct sm_error *err)
{
	struct module_index *ix = calloc(1, sizeof(*ix));
	int r = -ENOMEM;

	if (ix)
		ix->dir = strdup(dir);
	if (ix && ix->dir)
		r = fill_index(ix);
	if (r < 0) {
		module_index_free(ix);
		return error_sys(err, -r, "kernel modules in %s", dir);
	}
	*ret = ix;
	return 0;
}

struct module_index *module_index_free(struct module_index *ix)
{
	if (!ix)
		return NULL;
	for (size_t i = 0; i < ix->count; i++) {
		free(ix->entries[i].name);
		free(ix->entries[i].path);
	}
	free(ix->entries);
	free(ix->aliases);
	free(ix->builtin);
	free(ix->dir);
	free(ix);
	return NULL;
}

bool module_is_builtin(const struct module_index *ix, const char *name)
{
	_free_ char *own = strdup(name);
	const struct entry *e;

	if (!own)
		return false;
	normalise(own);
	e = find(ix, own);
	return e && !e->path;
}

/* A built-in module answers to this alias. */
static bool builtin_alias(const struct module_index *ix, const char *alias)
{
	struct cursor c = cursor_of(ix->builtin, ix->builtin ? ix->builtin_len : 0);

	while (c.left && !c.bad) {
		const char *s = cursor_str(&c), *value = s ? strstr(s, ".alias=") : NULL;

		if (value && streq(value + strlen(".alias="), alias))
			return true;
	}
	return false;
}

/* The module that modules.alias gives this exact name to. */
static const struct entry *find_alias(const struct module_index *ix, const char *alias)
{
	char line[512];
	const char *at;
	_free_ char *name = NULL;

	snprintf(line, sizeof(line), "alias %s ", alias);
	for (at = ix->aliases; at && (at = strstr(at, line)); at += strlen(line)) {
		if (at != ix->aliases && at[-1] != '\n')
			continue;
		name = strndup(at + strlen(line), strcspn(at + strlen(line), "\n"));
		if (!name)
			return NULL;
		normalise(name);
		return find(ix, name);
	}
	return NULL;
}

static int load(const struct module_index *ix, const struct entry *e, struct buf *out, struct sm_error *err)
{
	/* modules.order names files as they were before the distribution compressed them. */
	static const char *const suffixes[] = {"", ".xz", ".zst", ".gz"};
	_free_ char *data = NULL;
	char path[PATH_MAX];
	size_t len = 0;
	int r = -ENOENT;

	for (size_t i = 0; r == -ENOENT && i < ARRAY_SIZE(suffixes); i++) {
		const char *base = e->path[0] == '/' ? "" : ix->dir;

		if (snprintf(path, sizeof(path), "%s/%s%s", base, e->path, suffixes[i]) >= (int)sizeof(path))
			return error_sys(err, ENAMETOOLONG, "module %s", e->name);
		r = read_file_at(AT_FDCWD, path, MAX_MODULE, &data, &len);
	}
	if (r < 0)
		return error_sys(err, -r, "module %s/%s", ix->dir, e->path);
	if (len >= 4 && memcmp(data, "\177ELF", 4) == 0)
		r = buf_put(out, data, len);
	else
		r = kernel_decompress(data, len, MAX_MODULE, out, err);
	return r < 0 ? error_wrap(err, r, "module %s", path) : 0;
}

/* ---------------------------------------------------------------------------------------------- closure */

struct walk {
	const struct module_index *ix;
	struct module_list *list;
	struct sm_error *err;
	unsigned depth;
};

static int want(struct walk *w, const char *name, bool optional);

static bool listed(const struct module_list *list, const char *name)
{
	for (size_t i = 0; i < list->count; i++)
		if (streq(list->items[i].name, name))
			return true;
	return false;
}

/* A soft dependency names a module or what one offers; it is a wish, so one that is nowhere is none. */
static int want_soft(struct walk *w, const char *name)
{
	const struct entry *e;

	if (builtin_alias(w->ix, name))
		return 0;
	e = find_alias(w->ix, name);
	return want(w, e ? e->name : name, true);
}

static int each_word(struct walk *w, const char *words, const char *separators, bool soft)
{
	_free_ char *copy = strdup(words);
	char *state = NULL;
	int r = copy ? 0 : -ENOMEM;

	if (r == 0 && soft && !str_starts(copy, "pre:")) /* "post:" and bare ones may come later, or never */
		return 0;
	for (char *s = r == 0 ? strtok_r(copy, separators, &state) : NULL; s && r == 0;
	     s = strtok_r(NULL, separators, &state)) {
		if (streq(s, "post:"))
			break;
		if (!streq(s, "pre:"))
			r = soft ? want_soft(w, s) : want(w, s, false);
	}
	return r;
}

static int need(void *arg, const char *key, const char *value)
{
	struct walk *w = arg;

	if (streq(key, "depends"))
		return each_word(w, value, ",", false);
	if (streq(key, "softdep"))
		return each_word(w, value, " ", true);
	return 0;
}

static int append(struct module_list *list, const char *name, struct buf *data)
{
	struct module *bigger = reallocarray(list->items, list->count + 1, sizeof(*bigger));
	char *copy = strdup(name);

	if (bigger)
		list->items = bigger;
	if (!bigger || !copy) {
		free(copy);
		return -ENOMEM;
	}
	list->items[list->count++] = (struct module){.name = copy, .data = *data};
	*data = (struct buf){0};
	return 0;
}

static int want_entry(struct walk *w, const struct entry *e)
{
	_cleanup_(buf_done) struct buf data = {0};
	int r = load(w->ix, e, &data, w->err);

	if (r < 0)
		return r;
	if (++w->depth > MAX_DEPTH)
		return error_set(w->err, SM_ERROR_CORRUPT, ELOOP, "module %s: it needs itself", e->name);
	r = module_info(data.data, data.len, need, w);
	w->depth--;
	/* The walk below may have filled the error already; error_wrap then only names the module. */
	if (r < 0)
		return error_wrap(w->err, r, "module %s", e->name);
	return append(w->list, e->name, &data);
}

static int want(struct walk *w, const char *name, bool optional)
{
	_free_ char *own = strdup(name);
	const struct entry *e;

	if (!own)
		return error_sys(w->err, ENOMEM, "module %s", name);
	normalise(own);
	if (listed(w->list, own))
		return 0;
	e = find(w->ix, own);
	if (!e && !optional)
		return error_set(w->err, SM_ERROR_NOT_FOUND, ENOENT, "module %s: not in %s", name, w->ix->dir);
	return e && e->path ? want_entry(w, e) : 0;
}

int module_closure(const struct module_index *ix, const char *const *names, struct module_list *ret,
		   struct sm_error *err)
{
	struct module_list list = {0};
	struct walk w = {.ix = ix, .list = &list, .err = err};
	int r = 0;

	for (; r == 0 && *names; names++)
		r = want(&w, *names + (**names == '?'), **names == '?');
	if (r < 0) {
		module_list_done(&list);
		return r;
	}
	*ret = list;
	return 0;
}

void module_list_done(struct module_list *list)
{
	for (size_t i = 0; i < list->count; i++) {
		free(list->items[i].name);
		buf_done(&list->items[i].data);
	}
	free(list->items);
	*list = (struct module_list){0};
}

int kernel_modules(const struct kernel *k, const char *const *names, struct module_list *ret, struct sm_error *err)
{
	struct module_index *ix;
	int r;

	if (!k->modules)
		return error_set(err, SM_ERROR_HOST, ENOENT, "kernel %s: its modules (lib/modules/%s) are not there",
				 k->image, k->release);
	r = module_index_open(k->modules, &ix, err);
	if (r < 0)
		return r;
	r = module_closure(ix, names, ret, err);
	module_index_free(ix);
	return r;
}
