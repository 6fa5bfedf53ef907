/* SPDX-License-Identifier: Apache-2.0 */
/*
 * -v SRC:DST[:OPTIONS] and --mount type=bind|volume|tmpfs,KEY=VALUE... See mounts.h. SRC ends at the first colon, DST
 * at the next, as docker has it; a SRC that begins with neither / nor . nor ~ is the name of a volume, as with docker.
 */
#include "cli/mounts.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"

static const char *const ids_words[] = {"caller", "same", "none", "ranges", NULL};
static const char *const links_words[] = {"opaque", "deny", "follow", NULL};
static const char *const xattrs_words[] = {"auto", "mapped", NULL};
static const char *const cache_words[] = {"auto", "none", "always", NULL};

static int find_word(const char *const *words, const char *word)
{
	for (int i = 0; words[i]; i++)
		if (streq(words[i], word))
			return i;
	return -1;
}

static bool is_range(const char *word)
{
	return word[0] && strchr("ugb", word[0]) && word[1] == ':';
}

bool cli_ids_parse(const char *word, enum sm_fs_ids *ret, const char **ret_ranges)
{
	int i = find_word(ids_words, word);

	if (i == SM_FS_IDS_RANGES || (i < 0 && !is_range(word)))
		return false;
	*ret = i < 0 ? SM_FS_IDS_RANGES : (enum sm_fs_ids)i;
	*ret_ranges = i < 0 ? word : NULL;
	return true;
}

/* Ranges of ids have commas of their own: the words that go on with the one before are put back. */
static void join_ranges(char **rest)
{
	while (*rest && is_range(*rest)) {
		(*rest)[-1] = ',';
		strsep(rest, ",");
	}
}

/* One option of the comma list; false if there is no such. */
static bool set_option(struct sm_mount *m, const char *word)
{
	int i = -1;

	if (streq(word, "ro"))
		m->read_only = true;
	else if (streq(word, "cow"))
		m->cow = true;
	else if (streq(word, "direct"))
		m->direct = true;
	else if (streq(word, "dax"))
		m->dax = true;
	else if (str_starts(word, "cache=") && (i = find_word(cache_words, word + 6)) >= 0)
		m->cache = (enum sm_fs_cache)i;
	else if (str_starts(word, "ids="))
		return cli_ids_parse(word + 4, &m->ids, &m->id_ranges);
	else if (str_starts(word, "xattrs=") && (i = find_word(xattrs_words, word + 7)) >= 0)
		m->xattrs = (enum sm_fs_xattrs)i;
	else if (str_starts(word, "links=") && (i = find_word(links_words, word + 6)) >= 0)
		m->symlinks = (enum sm_fs_symlinks)i;
	else /* docker's: SELinux labels and consistency mean nothing here, rw is so anyway */
		return streq(word, "rw") || streq(word, "z") || streq(word, "Z") || streq(word, "cached") ||
		       streq(word, "delegated") || streq(word, "consistent");
	return true;
}

static int set_options(struct cli *cli, struct sm_mount *m, char *list, const char *whole)
{
	for (char *word; (word = strsep(&list, ","));) {
		if (str_starts(word, "ids="))
			join_ranges(&list);
		if (!set_option(m, word))
			return cli_usage(cli,
					 "ro, cow, cache=none|auto|always, "
					 "ids=caller|same|none|u:PEER:HOST:COUNT,g:..., links=opaque|deny|follow, "
					 "xattrs=auto|mapped, direct, dax",
					 "-v %s: no such option: '%s'", whole, word);
	}
	if (m->read_only && m->cow)
		return cli_usage(cli, NULL, "-v %s: ro and cow exclude each other", whole);
	return 0;
}

static bool is_path(const char *source)
{
	return source[0] == '/' || source[0] == '.' || source[0] == '~' || strchr(source, '/');
}

/* Of a volume: what is docker's for all drivers. */
static int set_volume_options(struct cli *cli, struct sm_mount *m, char *list, const char *whole)
{
	for (char *word; (word = strsep(&list, ","));) {
		if (streq(word, "ro"))
			m->read_only = true;
		else if (streq(word, "nocopy"))
			m->no_copy = true;
		else if (!streq(word, "rw") && !streq(word, "z") && !streq(word, "Z"))
			return cli_usage(cli, "ro, nocopy; a directory of the host is written with a slash: ./NAME",
					 "-v %s: no such option of a volume: '%s'", whole, word);
	}
	return 0;
}

static int parse_one(struct cli *cli, struct sm_mount *m, char *text, const char *whole)
{
	char *rest = text, *source = strsep(&rest, ":");

	*m = (struct sm_mount)SM_MOUNT_INIT;
	m->create = true;
	m->target = strsep(&rest, ":");
	if (!m->target && source[0] == '/') { /* -v DST: a volume of its own */
		m->target = source;
		m->volume = "";
		return 0;
	}
	if (streq(source, "fs") && m->target && *m->target && rest && rest[0] == '/') {
		m->served = true;
		source = (char *)m->target;
		m->target = strsep(&rest, ":");
	}
	if (!m->target || !*source || !*m->target)
		return cli_usage(cli, "for example: -v .:/src, or -v /data:/data:ro, or -v cache:/var/cache",
				 "-v wants SRC:DST[:OPTIONS], not '%s'", whole);
	if (m->target[0] != '/')
		return cli_usage(cli, NULL, "-v %s: '%s' is not an absolute path in the VM", whole, m->target);
	if (is_path(source)) {
		m->source = source;
		return rest ? set_options(cli, m, rest, whole) : 0;
	}
	if (access(source, F_OK) == 0 && cli->verbosity >= 0)
		cli_say(cli, "-v %s: %s is the name of a volume; what is here is ./%s", whole, source, source);
	m->volume = source;
	return rest ? set_volume_options(cli, m, rest, whole) : 0;
}

/* ------------------------------------------------------------------------------------------- --mount */

/* What is collected of one --mount; NULL: not given. */
struct mount_words {
	const char *type, *source, *target, *size, *mode;
};

static bool is_true(const char *value)
{
	return !value || streq(value, "true") || streq(value, "1");
}

/* One KEY[=VALUE]; false: there is none such. */
static bool mount_word(struct mount_words *w, struct sm_mount *m, const char *key, const char *value)
{
	const char **text = NULL;

	if (streq(key, "readonly") || streq(key, "ro")) {
		m->read_only = is_true(value);
		return true;
	}
	if (streq(key, "volume-nocopy")) {
		m->no_copy = is_true(value);
		return true;
	}
	if (streq(key, "type"))
		text = &w->type;
	else if (streq(key, "source") || streq(key, "src"))
		text = &w->source;
	else if (streq(key, "target") || streq(key, "destination") || streq(key, "dst"))
		text = &w->target;
	else if (streq(key, "tmpfs-size"))
		text = &w->size;
	else if (streq(key, "tmpfs-mode"))
		text = &w->mode;
	else /* of docker's others: what is so anyway */
		return streq(key, "consistency") || streq(key, "bind-propagation") ||
		       (streq(key, "volume-driver") && value && streq(value, "local"));
	if (value)
		*text = value;
	return value != NULL;
}

/* A tmpfs becomes one of --tmpfs. */
static int add_tmpfs(struct cli *cli, struct cli_mounts *ret, const struct mount_words *w, const char *whole)
{
	size_t n = ret->num_tmpfs;
	char **made = ret->made;
	char *text;

	if (w->source)
		return cli_usage(cli, NULL, "--mount %s: a tmpfs has no source", whole);
	if (asprintf(&text, "%s:exec%s%s%s%s", w->target, w->size ? ",size=" : "", w->size ? w->size : "",
		     w->mode ? ",mode=" : "", w->mode ? w->mode : "") < 0)
		return cli_usage(cli, NULL, "no memory");
	while (*made)
		made++;
	*made = text;
	ret->tmpfs[n] = text;
	ret->num_tmpfs++;
	return 0;
}

static int finish_mount(struct cli *cli, struct cli_mounts *ret, struct sm_mount *m, const struct mount_words *w,
			const char *whole)
{
	const char *type = w->type ? w->type : "volume";

	if (!w->target || w->target[0] != '/')
		return cli_usage(cli, NULL, "--mount %s: target=PATH is missing, or not absolute", whole);
	if (streq(type, "tmpfs"))
		return add_tmpfs(cli, ret, w, whole);
	if (w->size || w->mode)
		return cli_usage(cli, NULL, "--mount %s: tmpfs-size and tmpfs-mode belong to type=tmpfs", whole);
	if (streq(type, "bind") && !w->source)
		return cli_usage(cli, NULL, "--mount %s: source=PATH is missing", whole);
	m->served = streq(type, "fs");
	if (m->served && !w->source)
		return cli_usage(cli, NULL, "--mount %s: source=SOCKET is missing", whole);
	if (!streq(type, "bind") && !streq(type, "volume") && !m->served)
		return cli_usage(cli, NULL, "--mount %s: type is bind, volume, tmpfs or fs, not '%s'", whole, type);
	if (streq(type, "bind") || m->served)
		m->source = w->source;
	else
		m->volume = w->source ? w->source : "";
	m->target = w->target;
	ret->n++;
	return 0;
}

static int parse_mount(struct cli *cli, struct cli_mounts *ret, char *text, const char *whole)
{
	struct sm_mount *m = &ret->v[ret->n];
	struct mount_words w = {0};

	*m = (struct sm_mount)SM_MOUNT_INIT;
	for (char *word; (word = strsep(&text, ","));) {
		char *value, *key = word;

		/* Also our own options of the host's directories, as with -v. */
		if (set_option(m, word))
			continue;
		value = strchr(word, '=');
		if (value)
			*value++ = '\0';
		if (!mount_word(&w, m, key, value))
			return cli_usage(
				cli,
				"type=bind|volume|tmpfs|fs, source, target, readonly, volume-nocopy, tmpfs-size, "
				"tmpfs-mode",
				"--mount %s: no such option: '%s'", whole, key);
	}
	return finish_mount(cli, ret, m, &w, whole);
}

int cli_mounts_parse(struct cli *cli, const struct opt_list *volumes, const struct opt_list *mounts,
		     const struct opt_list *tmpfs, struct cli_mounts *ret)
{
	int status = 0;

	*ret = (struct cli_mounts){.v = calloc(volumes->n + mounts->n + 1, sizeof(*ret->v)),
				   .tmpfs = calloc(tmpfs->n + mounts->n + 1, sizeof(*ret->tmpfs)),
				   .made = calloc(mounts->n + 1, sizeof(*ret->made)),
				   .texts = opt_list_copy(volumes),
				   .mount_texts = opt_list_copy(mounts)};
	if (!ret->v || !ret->tmpfs || !ret->made || !ret->texts || !ret->mount_texts)
		return cli_usage(cli, NULL, "no memory");
	for (; ret->num_tmpfs < tmpfs->n; ret->num_tmpfs++)
		ret->tmpfs[ret->num_tmpfs] = tmpfs->v[ret->num_tmpfs];
	for (; ret->n < volumes->n && status == 0; ret->n++)
		status = parse_one(cli, &ret->v[ret->n], ret->texts[ret->n], volumes->v[ret->n]);
	for (size_t i = 0; i < mounts->n && status == 0; i++)
		status = parse_mount(cli, ret, ret->mount_texts[i], mounts->v[i]);
	return status;
}

void cli_mounts_free(struct cli_mounts *m)
{
	opt_list_copy_free(m->texts);
	opt_list_copy_free(m->mount_texts);
	opt_list_copy_free(m->made);
	free(m->tmpfs);
	free(m->v);
	*m = (struct cli_mounts){0};
}

void cli_mounts_json(struct json *j, const struct sm_mount *mounts, size_t count)
{
	json_open(j, "mounts", '[');
	for (size_t i = 0; i < count; i++) {
		json_open(j, NULL, '{');
		json_text(j, "type", mounts[i].volume ? "volume" : mounts[i].served ? "fs" : "bind");
		if (mounts[i].volume)
			json_text(j, "name", mounts[i].volume);
		if (mounts[i].copy)
			json_bool(j, "copy", true);
		json_text(j, "source", mounts[i].source);
		json_text(j, "target", mounts[i].target);
		json_bool(j, "read_only", mounts[i].read_only);
		json_bool(j, "cow", mounts[i].cow);
		json_bool(j, "direct", mounts[i].direct);
		json_bool(j, "dax", mounts[i].dax);
		json_text(j, "ids", ids_words[mounts[i].ids]);
		if (mounts[i].id_ranges)
			json_text(j, "id_ranges", mounts[i].id_ranges);
		json_text(j, "links", links_words[mounts[i].symlinks]);
		json_text(j, "xattrs", xattrs_words[mounts[i].xattrs]);
		json_text(j, "cache", cache_words[mounts[i].cache]);
		json_close(j, '}');
	}
	json_close(j, ']');
}
