/* SPDX-License-Identifier: Apache-2.0 */
/* What the peer may have cached, in a snapshot of it. See known.h. */
#include <errno.h>
#include <string.h>

#include "fuse/known.h"

#define VERSION 1
#define NODE_RECORD 24U
#define NAME_RECORD 18U

enum { ATTR_KNOWN = 1, WRITTEN = 2, LISTED = 4 };

static void put_time(struct buf *out, const struct timespec *t)
{
	buf_put_u64(out, (uint64_t)t->tv_sec);
	buf_put_u32(out, (uint32_t)t->tv_nsec);
}

static void put_node(const struct known_node *node, struct buf *out)
{
	const struct stat *st = &node->attr;

	buf_put_u64(out, node->id);
	buf_put_u64(out, node->refs);
	buf_put_u64(out,
		    (node->attr_known ? ATTR_KNOWN : 0) | (node->written ? WRITTEN : 0) | (node->listed ? LISTED : 0));
	if (!node->attr_known)
		return;
	buf_put_u32(out, st->st_mode);
	buf_put_u32(out, st->st_uid);
	buf_put_u32(out, st->st_gid);
	buf_put_u64(out, st->st_nlink);
	buf_put_u64(out, (uint64_t)st->st_size);
	put_time(out, &st->st_mtim);
	put_time(out, &st->st_ctim);
}

static void put_name(const struct known_name *n, struct buf *out)
{
	uint16_t len = (uint16_t)strlen(n->name);

	buf_put_u64(out, n->parent->id);
	buf_put_u64(out, n->node ? n->node->id : 0);
	buf_put_u16(out, len);
	buf_put(out, n->name, len);
}

void known_save(const struct known *k, struct buf *out)
{
	buf_put_u32(out, VERSION);
	buf_put_u64(out, k->num_nodes);
	for (struct known_node *node = known_next(k, NULL); node; node = known_next(k, node))
		put_node(node, out);
	buf_put_u64(out, k->num_names);
	for (struct known_node *node = known_next(k, NULL); node; node = known_next(k, node))
		for (const struct known_name *n = node->children; n; n = n->dir_next)
			put_name(n, out);
}

static struct timespec get_time(struct cursor *in)
{
	struct timespec t = {.tv_sec = (time_t)cursor_u64(in)};

	t.tv_nsec = cursor_u32(in);
	return t;
}

static int load_node(struct known *k, struct cursor *in)
{
	uint64_t id = cursor_u64(in), refs = cursor_u64(in), what = cursor_u64(in);
	struct known_node *node;

	if (in->bad || !id || what > (ATTR_KNOWN | WRITTEN | LISTED))
		return -EPROTO;
	node = known_enter(k, id);
	if (!node)
		return -ENOMEM;
	node->refs = refs;
	node->written = what & WRITTEN;
	node->listed = what & LISTED;
	node->attr_known = what & ATTR_KNOWN;
	if (!node->attr_known)
		return 0;
	node->attr.st_mode = cursor_u32(in);
	node->attr.st_uid = cursor_u32(in);
	node->attr.st_gid = cursor_u32(in);
	node->attr.st_nlink = cursor_u64(in);
	node->attr.st_size = (off_t)cursor_u64(in);
	node->attr.st_mtim = get_time(in);
	node->attr.st_ctim = get_time(in);
	node->length_told = S_ISREG(node->attr.st_mode) && !node->written;
	node->length = node->attr.st_size;
	return in->bad ? -EPROTO : 0;
}

static int load_name(struct known *k, struct cursor *in)
{
	uint64_t dir_id = cursor_u64(in), id = cursor_u64(in);
	uint16_t len = cursor_u16(in);
	const char *text = cursor_take(in, len);
	struct known_node *dir = in->bad ? NULL : known_find(k, dir_id), *node = id ? known_find(k, id) : NULL;
	char name[256];

	if (!dir || (id && !node) || !len || len >= sizeof(name) || memchr(text, '/', len) || memchr(text, '\0', len) ||
	    (text[0] == '.' && (len == 1 || (len == 2 && text[1] == '.'))))
		return -EPROTO;
	memcpy(name, text, len);
	name[len] = '\0';
	return known_name_set(k, dir, name, node) ? 0 : -ENOMEM;
}

int known_load(struct known *k, struct cursor *in)
{
	uint64_t count;
	int r = 0;

	if (cursor_u32(in) != VERSION)
		return in->bad ? -EPROTO : -ENOTSUP;
	count = cursor_u64(in);
	if (count > in->left / NODE_RECORD)
		return -EPROTO;
	while (count-- && r == 0)
		r = load_node(k, in);
	count = r < 0 ? 0 : cursor_u64(in);
	if (count > in->left / NAME_RECORD || count > k->max_names)
		return -EPROTO;
	while (count-- && r == 0)
		r = load_name(k, in);
	return r < 0 ? r : in->bad ? -EPROTO : 0;
}
