/* SPDX-License-Identifier: Apache-2.0 */
/* Ranges of owners, as the peer and as the host count them (FUSE_POSIX_RANGES): "u:PEER:HOST:COUNT,g:PEER:HOST:COUNT",
 * or b for both. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "fuse/posix_node.h"

#define NOBODY 65534u

static bool overlap(uint32_t a, uint32_t b, uint32_t a_count, uint32_t b_count)
{
	return a < (uint64_t)b + b_count && b < (uint64_t)a + a_count;
}

/* Each number has one meaning on the other side, both ways. */
static int add(struct posix_id_list *l, const struct posix_id_range *r)
{
	if (l->n == POSIX_ID_RANGES)
		return -E2BIG;
	for (unsigned i = 0; i < l->n; i++)
		if (overlap(l->v[i].peer, r->peer, l->v[i].count, r->count) ||
		    overlap(l->v[i].host, r->host, l->v[i].count, r->count))
			return -EINVAL;
	l->v[l->n++] = *r;
	return 0;
}

static int parse_number(char **text, uint64_t min, uint32_t *ret)
{
	char *word = strsep(text, ":");
	uint64_t v;
	int r = word ? parse_u64(word, min, UINT32_MAX, &v) : -EINVAL;

	if (r == 0)
		*ret = (uint32_t)v;
	return r;
}

static int parse_range(struct posix_ids *ids, char *text)
{
	char kind = text[0];
	struct posix_id_range range;
	int r = 0;

	if (!kind || !strchr("ugb", kind) || text[1] != ':')
		return -EINVAL;
	text += 2;
	if (parse_number(&text, 0, &range.peer) < 0 || parse_number(&text, 0, &range.host) < 0 ||
	    parse_number(&text, 1, &range.count) < 0 || text)
		return -EINVAL;
	/* The number -1 is none. */
	if ((uint64_t)range.peer + range.count > UINT32_MAX || (uint64_t)range.host + range.count > UINT32_MAX)
		return -ERANGE;
	if (kind != 'g')
		r = add(&ids->users, &range);
	if (r == 0 && kind != 'u')
		r = add(&ids->groups, &range);
	return r;
}

int posix_ids_parse(const char *text, struct posix_ids *ret)
{
	char copy[FUSE_POSIX_RANGES_MAX + 1], *rest = copy;
	int r = 0;

	*ret = (struct posix_ids){0};
	if (!text || !*text)
		return -EINVAL;
	if (strlen(text) > FUSE_POSIX_RANGES_MAX)
		return -E2BIG;
	strcpy(copy, text);
	for (char *word; r == 0 && (word = strsep(&rest, ","));)
		r = parse_range(ret, word);
	return r;
}

int fuse_posix_check_ranges(const char *text)
{
	struct posix_ids ids;

	return posix_ids_parse(text, &ids);
}

static bool to_host(const struct posix_id_list *l, uint32_t id, uint32_t *ret)
{
	for (unsigned i = 0; i < l->n; i++) {
		if (id >= l->v[i].peer && id - l->v[i].peer < l->v[i].count) {
			*ret = l->v[i].host + (id - l->v[i].peer);
			return true;
		}
	}
	return false;
}

static uint32_t to_peer(const struct posix_id_list *l, uint32_t id)
{
	for (unsigned i = 0; i < l->n; i++)
		if (id >= l->v[i].host && id - l->v[i].host < l->v[i].count)
			return l->v[i].peer + (id - l->v[i].host);
	return NOBODY;
}

bool posix_ids_to_host(const struct posix_fs *fs, uint32_t *uid, uint32_t *gid)
{
	if (fs->options.ids != FUSE_POSIX_RANGES)
		return true;
	return (!uid || to_host(&fs->ids.users, *uid, uid)) && (!gid || to_host(&fs->ids.groups, *gid, gid));
}

void posix_ids_show(const struct posix_fs *fs, struct stat *st)
{
	if (fs->options.ids != FUSE_POSIX_RANGES)
		return;
	st->st_uid = to_peer(&fs->ids.users, st->st_uid);
	st->st_gid = to_peer(&fs->ids.groups, st->st_gid);
}
