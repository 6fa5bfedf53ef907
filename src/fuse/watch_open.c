/* SPDX-License-Identifier: Apache-2.0 */
/* What an open of the peer's would find that its kernel does not know of yet: another length. See watch.h. */
#include <pthread.h>

#include "base/util.h"
#include "fuse/watch_own.h"

/* For so long after a refusal none follows: whoever tries again finds the file open, even one that grows all the time,
 * or one that is looked up by no name (the root of a mount). */
#define PATIENCE_NS 1000000000ULL

static bool is_told(const struct stat *st, uint64_t valid_ns)
{
	return S_ISREG(st->st_mode) && valid_ns;
}

struct known_node *watch_find_told(struct watch *w, uint64_t nodeid, const struct stat *st, uint64_t valid_ns)
{
	return is_told(st, valid_ns) && w->known.num_nodes < w->known.max_names ? known_enter(&w->known, nodeid)
										: known_find(&w->known, nodeid);
}

void watch_length_told(struct known_node *node, const struct watch_mark *mark, const struct stat *st, uint64_t valid_ns)
{
	node->length_told = is_told(st, valid_ns) && node->written_at <= mark->written;
	node->length = st->st_size;
}

static bool is_another_length(const struct known_node *node, int64_t length)
{
	return length != WATCH_ANY_LENGTH && node->length_told && node->length != length;
}

static enum watch_open look_at(struct known_node *node, int64_t length, bool nameless)
{
	bool outdated = node->outdated, differs = is_another_length(node, length);
	uint64_t now;

	node->outdated = false;
	if (!differs && !(nameless && !node->unlinked))
		return outdated ? WATCH_OPEN_ANEW : WATCH_OPEN_AS_IS;
	now = time_now_ns();
	if (node->refused_ns && now - node->refused_ns < PATIENCE_NS)
		return differs ? WATCH_OPEN_UNCACHED : WATCH_OPEN_ANEW;
	node->refused_ns = now;
	node->outdated = true;
	return WATCH_OPEN_AGAIN;
}

enum watch_open watch_opened(struct watch *w, uint64_t nodeid, int64_t length, bool nameless)
{
	enum watch_open r = WATCH_OPEN_AS_IS;
	struct known_node *node;

	if (!w)
		return r;
	pthread_mutex_lock(&w->lock);
	node = known_find(&w->known, nodeid);
	if (node)
		r = look_at(node, length, nameless);
	pthread_mutex_unlock(&w->lock);
	return r;
}
