/* SPDX-License-Identifier: Apache-2.0 */
/* What of a request is to be told. See audit.h. */
#include "fuse/audit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <string.h>

#include "base/util.h"
#include "fuse/request.h"

struct audited {
	const char *op;
	uint8_t fixed; /* bytes before the first name */
	bool named;    /* a name follows */
	bool writes;
	bool when_refused; /* told only then */
};

static const struct audited table[] = {
	[FUSE_LOOKUP] = {"look up", 0, true, false, true},
	[FUSE_READLINK] = {"read link", 0, false, false, true},
	[FUSE_OPENDIR] = {"open directory", 0, false, false, true},
	[FUSE_READDIR] = {"open directory", 0, false, false, true}, /* of one that was not opened before */
	[FUSE_READDIRPLUS] = {"open directory", 0, false, false, true},
	[FUSE_WRITE] = {"write", 0, false, true, true},
	[FUSE_OPEN] = {"open", sizeof(struct fuse_open_in), false, false, false},
	[FUSE_CREATE] = {"create", sizeof(struct fuse_create_in), true, true, false},
	[FUSE_TMPFILE] = {"create", sizeof(struct fuse_create_in), false, true, false},
	[FUSE_MKNOD] = {"make node", sizeof(struct fuse_mknod_in), true, true, false},
	[FUSE_MKDIR] = {"make directory", sizeof(struct fuse_mkdir_in), true, true, false},
	[FUSE_SYMLINK] = {"make link", 0, true, true, false},
	[FUSE_UNLINK] = {"remove", 0, true, true, false},
	[FUSE_RMDIR] = {"remove directory", 0, true, true, false},
	[FUSE_RENAME] = {"rename", sizeof(struct fuse_rename_in), true, true, false},
	[FUSE_RENAME2] = {"rename", sizeof(struct fuse_rename2_in), true, true, false},
	[FUSE_LINK] = {"link", sizeof(struct fuse_link_in), true, true, false},
	[FUSE_SETATTR] = {"set attributes", 0, false, true, false},
	[FUSE_SETXATTR] = {"set extended attribute", 0, false, true, false},
	[FUSE_REMOVEXATTR] = {"remove extended attribute", 0, false, true, false},
	[FUSE_FALLOCATE] = {"allocate", 0, false, true, false},
	[FUSE_COPY_FILE_RANGE] = {"copy range", 0, false, true, false},
	[NEWER_OP_COPY_FILE_RANGE_64] = {"copy range", 0, false, true, false},
};

static bool is_refusal(int error)
{
	return error == EACCES || error == EPERM || error == EROFS || error == ELOOP || error == EXDEV;
}

/* As the peer sent it, whatever is in it; NULL without its end. */
static const char *take_name(struct cursor *c)
{
	const char *end = c->left ? memchr(c->p, '\0', c->left) : NULL;

	return end ? cursor_take(c, (size_t)(end - (const char *)c->p) + 1) : NULL;
}

static bool opens_to_write(const void *open_in)
{
	struct fuse_open_in in;

	memcpy(&in, open_in, sizeof(in));
	return (in.flags & O_ACCMODE) != O_RDONLY || in.flags & O_TRUNC;
}

static uint64_t first_u64(const void *fixed)
{
	uint64_t v;

	memcpy(&v, fixed, sizeof(v));
	return v;
}

void audit_served(struct fuse_request *rq, struct cursor args, ssize_t r)
{
	const struct audited *what = rq->h.opcode < ARRAY_SIZE(table) ? &table[rq->h.opcode] : NULL;
	struct fuse_audit a = {.nodeid = rq->h.nodeid};
	const void *fixed;

	if (r < 0 && r != FUSE_NO_REPLY)
		a.error = r == -EPROTO ? EINVAL : (int)-r; /* as the peer sees it */
	if (!what || !what->op || rq->herald || (what->when_refused && !is_refusal(a.error)))
		return;
	a.op = what->op;
	a.writes = what->writes;
	fixed = cursor_take(&args, what->fixed);
	if (!fixed)
		return;
	a.name = what->named ? take_name(&args) : NULL;
	switch (rq->h.opcode) {
	case FUSE_OPEN:
		a.writes = opens_to_write(fixed);
		break;
	case FUSE_RENAME:
	case FUSE_RENAME2:
		a.to = first_u64(fixed);
		a.as = take_name(&args);
		break;
	case FUSE_LINK:
		a.to = a.nodeid;
		a.as = a.name;
		a.nodeid = first_u64(fixed);
		a.name = NULL;
		break;
	default:
		break;
	}
	rq->s->audit.note(rq->s->audit.arg, &a);
}
