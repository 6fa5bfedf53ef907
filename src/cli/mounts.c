/* SPDX-License-Identifier: Apache-2.0 */
/* -v SRC:DST[:OPTIONS]. See mounts.h. SRC ends at the first colon, DST at the next, as docker has it. */
#include "cli/mounts.h"

#include <stdlib.h>
#include <string.h>

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

static int parse_one(struct cli *cli, struct sm_mount *m, char *text, const char *whole)
{
	char *rest = text;

	*m = (struct sm_mount)SM_MOUNT_INIT;
	m->create = true;
	m->source = strsep(&rest, ":");
	m->target = strsep(&rest, ":");
	if (!m->target || !*m->source || !*m->target)
		return cli_usage(cli, "for example: -v .:/src, or -v /data:/data:ro",
				 "-v wants SRC:DST[:OPTIONS], not '%s'", whole);
	if (m->target[0] != '/')
		return cli_usage(cli, NULL, "-v %s: '%s' is not an absolute path in the VM", whole, m->target);
	return rest ? set_options(cli, m, rest, whole) : 0;
}

int cli_mounts_parse(struct cli *cli, const struct opt_list *options, struct cli_mounts *ret)
{
	int status = 0;

	*ret = (struct cli_mounts){.v = calloc(options->n + 1, sizeof(*ret->v)), .texts = opt_list_copy(options)};
	if (!ret->v || !ret->texts)
		return cli_usage(cli, NULL, "no memory");
	for (; ret->n < options->n && status == 0; ret->n++)
		status = parse_one(cli, &ret->v[ret->n], ret->texts[ret->n], options->v[ret->n]);
	return status;
}

void cli_mounts_free(struct cli_mounts *m)
{
	opt_list_copy_free(m->texts);
	free(m->v);
	*m = (struct cli_mounts){0};
}

void cli_mounts_json(struct json *j, const struct sm_mount *mounts, size_t count)
{
	json_open(j, "mounts", '[');
	for (size_t i = 0; i < count; i++) {
		json_open(j, NULL, '{');
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
