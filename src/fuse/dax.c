/* SPDX-License-Identifier: Apache-2.0 */
/* The DAX window, the session's side. See dax.h. */
#include "fuse/dax.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "fuse/request.h"

#define BUCKETS 256U
#define NONE UINT32_MAX
#define PAGE 4096U
#define MAX_REMOVALS                                                                                                   \
	(PAGE / sizeof(struct fuse_removemapping_one)) /* FUSE_REMOVEMAPPING_MAX_ENTRY, with the page size */

struct place {
	uint64_t nodeid; /* 0: free */
	uint64_t offset, len;
	int protection;
	uint32_t next; /* of the same bucket */
};

struct dax {
	struct fuse_dax_port port;
	pthread_mutex_t lock; /* guards all below, and the order of the port's calls */
	uint32_t num, used;   /* used: atomic, to look without the lock */
	uint32_t buckets[BUCKETS];
	struct place places[];
};

struct dax *dax_new(const struct fuse_dax_port *port)
{
	uint64_t num = port->size / FUSE_DAX_SLOT;
	struct dax *dax = num && num < NONE ? calloc(1, sizeof(*dax) + num * sizeof(dax->places[0])) : NULL;

	if (!dax)
		return NULL;
	dax->port = *port;
	dax->num = (uint32_t)num;
	for (unsigned i = 0; i < BUCKETS; i++)
		dax->buckets[i] = NONE;
	pthread_mutex_init(&dax->lock, NULL);
	return dax;
}

struct dax *dax_free(struct dax *dax)
{
	if (!dax)
		return NULL;
	pthread_mutex_destroy(&dax->lock);
	free(dax);
	return NULL;
}

static uint32_t *bucket(struct dax *dax, uint64_t nodeid)
{
	return &dax->buckets[nodeid * 0x9e3779b97f4a7c15ULL >> 56];
}

/* ------------------------------------------------------------------------------------------------- the table */

static void take_out(struct dax *dax, uint32_t i)
{
	uint32_t *at = bucket(dax, dax->places[i].nodeid);

	while (*at != i)
		at = &dax->places[*at].next;
	*at = dax->places[i].next;
	dax->places[i].nodeid = 0;
	__atomic_fetch_sub(&dax->used, 1, __ATOMIC_RELAXED);
}

static void put_in(struct dax *dax, uint32_t i, const struct place *p)
{
	uint32_t *head = bucket(dax, p->nodeid);

	if (dax->places[i].nodeid)
		take_out(dax, i);
	dax->places[i] = *p;
	dax->places[i].next = *head;
	*head = i;
	__atomic_fetch_add(&dax->used, 1, __ATOMIC_RELAXED);
}

/* The backend may keep count. */
static void tell_unmapped(struct fuse_session *s, const struct place *p)
{
	if (p->nodeid && s->ops->dax_unmap)
		s->ops->dax_unmap(s->be, p->nodeid, p->offset, p->len);
}

static void remove_place(struct fuse_session *s, uint32_t i)
{
	struct place p = s->dax->places[i];

	s->dax->port.unmap(s->dax->port.arg, i * FUSE_DAX_SLOT);
	take_out(s->dax, i);
	tell_unmapped(s, &p);
}

/* The first place of a node's; NONE. */
static uint32_t find(struct dax *dax, uint64_t nodeid)
{
	uint32_t i = *bucket(dax, nodeid);

	while (i != NONE && dax->places[i].nodeid != nodeid)
		i = dax->places[i].next;
	return i;
}

void dax_clear(struct fuse_session *s)
{
	struct dax *dax = s->dax;

	if (!dax)
		return;
	pthread_mutex_lock(&dax->lock);
	for (uint32_t i = 0; i < dax->num && dax->used; i++)
		if (dax->places[i].nodeid)
			remove_place(s, i);
	pthread_mutex_unlock(&dax->lock);
}

/* ------------------------------------------------------------------------------------------------ mapping */

/* What the backend has given for the place goes there. */
static int map_file(struct fuse_session *s, uint32_t i, const struct place *p, const struct sm_fs_map *map)
{
	struct dax *dax = s->dax;
	struct place old = dax->places[i];
	int r;

	if (p->protection & ~map->protection)
		return -EACCES;
	if (map->fd < 0 || map->length < p->len || map->offset % PAGE)
		return -EIO;
	r = dax->port.map(dax->port.arg, i * FUSE_DAX_SLOT, p->len, map->fd, map->offset, p->protection);
	if (r == 0)
		put_in(dax, i, p);
	else if (old.nodeid)
		take_out(dax, i);
	tell_unmapped(s, &old);
	return r;
}

/* Asks the backend for the part of the file and has the door map it. Under the lock. */
static int map_place(struct fuse_session *s, uint32_t i, const struct place *p, uint64_t fh)
{
	struct sm_fs_map map = {.fd = -1};
	int r = s->ops->dax_map(s->be, p->nodeid, fh, p->offset, p->len, p->protection, &map);

	if (r < 0)
		return r;
	r = map_file(s, i, p, &map);
	if (map.give && map.fd >= 0)
		close(map.fd);
	if (r < 0)
		tell_unmapped(s, p);
	return r;
}

/* What a request asks for: a place's number and what belongs there; 0 or -errno. */
static int decode(struct fuse_request *rq, const struct fuse_setupmapping_in *in, uint32_t *ret,
		  struct place *ret_place)
{
	const struct dax *dax = rq->s->dax;
	int most;

	if (!in->flags || in->flags & ~(uint64_t)(FUSE_SETUPMAPPING_FLAG_READ | FUSE_SETUPMAPPING_FLAG_WRITE))
		return -EINVAL;
	if (!in->len || in->len > FUSE_DAX_SLOT || in->len % PAGE || in->moffset % FUSE_DAX_SLOT ||
	    in->foffset % FUSE_DAX_SLOT)
		return -EINVAL;
	if (!range_inside(in->moffset, in->len, dax->num * FUSE_DAX_SLOT) ||
	    in->foffset > (uint64_t)INT64_MAX - in->len)
		return -EINVAL;
	*ret = (uint32_t)(in->moffset >> FUSE_DAX_SHIFT);
	*ret_place =
		(struct place){.nodeid = rq->h.nodeid, .offset = in->foffset, .len = in->len, .protection = PROT_READ};
	if (in->flags & FUSE_SETUPMAPPING_FLAG_WRITE)
		ret_place->protection |= PROT_WRITE;
	most = dax->port.protection(dax->port.arg, rq->h.nodeid);
	if (!most || !rq->s->ops->dax_map)
		return -EOPNOTSUPP;
	if (rq->s->options.read_only)
		most &= ~PROT_WRITE;
	return ret_place->protection & ~most ? -EROFS : 0;
}

static bool usable(const struct fuse_session *s)
{
	return s->dax && s->features & FUSE_MAP_ALIGNMENT;
}

ssize_t op_setupmapping(struct fuse_request *rq)
{
	struct fuse_setupmapping_in in;
	uint64_t fh = SM_FS_NO_HANDLE;
	struct place place;
	uint32_t i;
	int r;

	if (!usable(rq->s))
		return -ENOSYS;
	if (!request_arg(rq, &in, sizeof(in)))
		return -EPROTO;
	r = decode(rq, &in, &i, &place);
	/* Linux names no open file: the mapping outlives those. */
	if (r == 0 && in.fh != UINT64_MAX)
		r = request_handle(rq, in.fh, rq->h.nodeid, false, &fh);
	if (r < 0)
		return r;
	pthread_mutex_lock(&rq->s->dax->lock);
	r = map_place(rq->s, i, &place, fh);
	pthread_mutex_unlock(&rq->s->dax->lock);
	return r;
}

/* One entry of a request; what is not mapped need not be unmapped. */
static int remove_one(struct fuse_request *rq, const struct fuse_removemapping_one *one)
{
	struct dax *dax = rq->s->dax;
	uint32_t i;

	if (!one->len || one->moffset % FUSE_DAX_SLOT ||
	    !range_inside(one->moffset, one->len, dax->num * FUSE_DAX_SLOT))
		return -EINVAL;
	i = (uint32_t)(one->moffset >> FUSE_DAX_SHIFT);
	if (one->len > FUSE_DAX_SLOT || (dax->places[i].nodeid && dax->places[i].nodeid != rq->h.nodeid))
		return -EINVAL;
	if (dax->places[i].nodeid)
		remove_place(rq->s, i);
	return 0;
}

ssize_t op_removemapping(struct fuse_request *rq)
{
	struct fuse_removemapping_in in;
	struct fuse_removemapping_one one;
	int r = 0;

	if (!usable(rq->s))
		return -ENOSYS;
	if (!request_arg(rq, &in, sizeof(in)))
		return -EPROTO;
	if (!in.count || in.count > MAX_REMOVALS)
		return -EINVAL;
	pthread_mutex_lock(&rq->s->dax->lock);
	for (uint32_t i = 0; i < in.count && r == 0; i++)
		r = request_arg(rq, &one, sizeof(one)) ? remove_one(rq, &one) : -EPROTO;
	pthread_mutex_unlock(&rq->s->dax->lock);
	return r;
}

/* ------------------------------------------------------------------------------------- what else moves it */

void dax_forgotten(struct fuse_session *s, uint64_t nodeid)
{
	struct stat st;
	uint64_t valid;
	uint32_t i;

	if (!s->dax || !__atomic_load_n(&s->dax->used, __ATOMIC_RELAXED))
		return;
	pthread_mutex_lock(&s->dax->lock);
	/* The backend counts the references; a node without any is unknown to it. */
	if (find(s->dax, nodeid) != NONE && s->ops->getattr(s->be, nodeid, false, 0, &st, &valid) == -ESTALE)
		while ((i = find(s->dax, nodeid)) != NONE)
			remove_place(s, i);
	pthread_mutex_unlock(&s->dax->lock);
}

bool dax_wanted(struct fuse_session *s, uint64_t nodeid, const struct stat *st)
{
	uint64_t size = (uint64_t)st->st_size;
	int most;

	if (!s->dax || !(s->features & FUSE_HAS_INODE_DAX) || !(s->features & FUSE_MAP_ALIGNMENT) || !s->ops->dax_map)
		return false;
	if (!S_ISREG(st->st_mode) || size < FUSE_DAX_SLOT || st->st_mode & (S_ISUID | S_ISGID))
		return false;
	most = s->dax->port.protection(s->dax->port.arg, nodeid);
	if (most & PROT_WRITE && !s->options.read_only && (uint64_t)st->st_blocks * 512 < size)
		return false;
	return most != 0;
}

/* Gives a place its file back if that has become longer than what the place still shows of it. */
static void settle_one(struct fuse_session *s, uint32_t i)
{
	struct place p = s->dax->places[i];
	uint64_t left, valid;
	struct stat st;

	if (!p.nodeid || !s->dax->port.is_lost(s->dax->port.arg, i * FUSE_DAX_SLOT, &left) ||
	    s->ops->getattr(s->be, p.nodeid, false, 0, &st, &valid) < 0 || (uint64_t)st.st_size <= p.offset + left)
		return;
	if (map_place(s, i, &p, SM_FS_NO_HANDLE) < 0) /* it stays as it is: the file may be gone by now */
		return;
}

void dax_settle(struct fuse_session *s)
{
	const unsigned *lost = s->dax ? s->dax->port.lost : NULL;

	if (!lost || !__atomic_load_n(lost, __ATOMIC_RELAXED))
		return;
	pthread_mutex_lock(&s->dax->lock);
	for (uint32_t i = 0; i < s->dax->num; i++)
		settle_one(s, i);
	pthread_mutex_unlock(&s->dax->lock);
}
