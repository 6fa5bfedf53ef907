/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tarfs: looks into a tar archive without unpacking it. A file-system backend of one's own, from the public header
 * alone.
 *
 *	cc tarfs.c -o tarfs $(pkg-config --cflags --libs supermachine)
 *	tarfs archive.tar /mnt				until ctrl-c or umount /mnt
 *	tarfs --share fs.sock archive.tar		to VMs: supermachine run -v fs:fs.sock:/mnt ...
 *	tarfs --vhost-user fs.sock archive.tar		to QEMU: -device vhost-user-fs-pci,chardev=c,tag=t -chardev
 *							socket,id=c,path=fs.sock, and memory-backend-memfd,share=on
 *
 * The archive's index is read once into memory (nodes: files; links: their names); contents are read from the archive
 * when somebody reads them. Nothing changes after that, so the functions below need no lock, and the kernel may cache
 * all it has seen. Uncompressed ustar, pax and GNU archives, with hard links; names that would leave the archive are
 * left out.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <supermachine.h>

#define BLOCK 512
#define MAX_HEADER (1 << 20)
#define FOR_GOOD (86400 * 1000000000ull)

struct node {
	struct stat st;	    /* st_ino is the node id */
	off_t data;	    /* where its contents begin in the archive */
	char *target;	    /* of a symbolic link */
	struct link *first; /* of a directory: its names, in the order of the archive */
	struct link *last;
	uint64_t parent; /* of a directory */
};

struct link { /* a name in a directory */
	char *name;
	uint64_t parent, node, offset; /* offset: its place in the directory's listing */
	struct link *next, *bucket;
};

struct tarfs {
	struct sm_fs_backend backend; /* first: what the server gets a pointer to */
	int fd;
	off_t size;
	struct node *nodes; /* by node id - 1 */
	size_t num_nodes, room;
	struct link *buckets[1 << 16];
};

static struct node *node_of(struct sm_fs_backend *be, uint64_t nodeid)
{
	struct tarfs *fs = (struct tarfs *)be;

	return nodeid && nodeid <= fs->num_nodes ? &fs->nodes[nodeid - 1] : NULL;
}

/* ------------------------------------------------------------------------------- what the server asks */

static struct link **bucket_of(struct tarfs *fs, uint64_t parent, const char *name)
{
	uint32_t h = (uint32_t)parent * 2654435761u;

	for (; *name; name++)
		h = (h ^ (unsigned char)*name) * 16777619u;
	return &fs->buckets[h >> 16];
}

static struct link *find(struct tarfs *fs, uint64_t parent, const char *name)
{
	struct link *l = *bucket_of(fs, parent, name);

	while (l && (l->parent != parent || strcmp(l->name, name) != 0))
		l = l->bucket;
	return l;
}

static void fill_entry(const struct node *node, struct sm_fs_entry *ret)
{
	*ret = (struct sm_fs_entry){.entry_valid_ns = FOR_GOOD, .attr_valid_ns = FOR_GOOD};
	if (node) {
		ret->nodeid = node->st.st_ino;
		ret->attr = node->st;
	}
}

static int tarfs_lookup(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
			struct sm_fs_entry *ret)
{
	struct link *l = find((struct tarfs *)be, parent, name);

	(void)who;
	fill_entry(l ? node_of(be, l->node) : NULL, ret); /* an absent name stays absent: that is worth knowing too */
	return 0;
}

static int tarfs_getattr(struct sm_fs_backend *be, uint64_t nodeid, bool has_fh, uint64_t fh, struct stat *ret,
			 uint64_t *ret_valid_ns)
{
	struct node *node = node_of(be, nodeid);

	(void)has_fh, (void)fh;
	if (!node)
		return -ESTALE;
	*ret = node->st;
	*ret_valid_ns = FOR_GOOD;
	return 0;
}

static ssize_t tarfs_readlink(struct sm_fs_backend *be, uint64_t nodeid, char *buf, size_t size)
{
	struct node *node = node_of(be, nodeid);
	size_t len;

	if (!node || !node->target)
		return -EINVAL;
	len = strlen(node->target);
	memcpy(buf, node->target, len < size ? len : size);
	return (ssize_t)(len < size ? len : size);
}

static int tarfs_open(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid, uint32_t flags,
		      struct sm_fs_open *ret)
{
	struct node *node = node_of(be, nodeid);

	(void)who;
	if (!node)
		return -ESTALE;
	if (S_ISDIR(node->st.st_mode))
		return -EISDIR;
	if ((flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC)
		return -EROFS;
	*ret = (struct sm_fs_open){.flags = SM_FS_OPEN_KEEP_CACHE | SM_FS_OPEN_NOFLUSH};
	return 0;
}

static ssize_t tarfs_read(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, const struct iovec *iov, int count,
			  uint64_t offset)
{
	struct node *node = node_of(be, nodeid);
	ssize_t total = 0;

	(void)fh;
	if (!node || !S_ISREG(node->st.st_mode))
		return -EBADF;
	for (int i = 0; i < count && offset < (uint64_t)node->st.st_size; i++) {
		uint64_t left = (uint64_t)node->st.st_size - offset;
		size_t want = iov[i].iov_len < left ? iov[i].iov_len : (size_t)left;
		ssize_t n = pread(((struct tarfs *)be)->fd, iov[i].iov_base, want, node->data + (off_t)offset);

		if (n < 0)
			return -errno;
		total += n;
		offset += (uint64_t)n;
		if ((size_t)n < want) /* somebody has cut the archive short */
			break;
	}
	return total;
}

static int tarfs_readdir(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid, uint64_t fh,
			 uint64_t offset, bool plus, sm_fs_add_dirent add, void *arg)
{
	struct node *dir = node_of(be, nodeid);
	struct sm_fs_entry entry;

	(void)who, (void)fh;
	if (!dir || !S_ISDIR(dir->st.st_mode))
		return -ENOTDIR;
	if (offset < 1 && !add(arg, ".", nodeid, DT_DIR, 1, NULL))
		return 0;
	if (offset < 2 && !add(arg, "..", dir->parent, DT_DIR, 2, NULL))
		return 0;
	for (struct link *l = dir->first; l; l = l->next) {
		struct node *node = node_of(be, l->node);

		if (l->offset <= offset)
			continue;
		fill_entry(node, &entry);
		if (!add(arg, l->name, l->node, node->st.st_mode >> 12, l->offset, plus ? &entry : NULL))
			break;
	}
	return 0;
}

static int tarfs_statfs(struct sm_fs_backend *be, uint64_t nodeid, struct statvfs *ret)
{
	struct tarfs *fs = (struct tarfs *)be;

	(void)nodeid;
	*ret = (struct statvfs){.f_bsize = BLOCK, .f_frsize = BLOCK, .f_namemax = 255};
	ret->f_blocks = (fsblkcnt_t)(fs->size / BLOCK);
	ret->f_files = fs->num_nodes;
	return 0;
}

/* All else is answered by the library: what would change something with EROFS. */
static const struct sm_fs_ops ops = {
	.size = sizeof(ops),
	.lookup = tarfs_lookup,
	.getattr = tarfs_getattr,
	.readlink = tarfs_readlink,
	.open = tarfs_open,
	.read = tarfs_read,
	.readdir = tarfs_readdir,
	.statfs = tarfs_statfs,
};

/* ------------------------------------------------------------------------------------------ the archive */

static _Noreturn void fail(const char *what, const char *why)
{
	fprintf(stderr, "tarfs: %s: %s\n", what, why);
	exit(1);
}

static void *must(void *p)
{
	if (!p)
		fail("memory", strerror(ENOMEM));
	return p;
}

static uint64_t add_node(struct tarfs *fs, const struct stat *st)
{
	if (fs->num_nodes == fs->room) {
		fs->room = fs->room ? fs->room * 2 : 1024;
		fs->nodes = must(realloc(fs->nodes, fs->room * sizeof(*fs->nodes)));
	}
	fs->nodes[fs->num_nodes] = (struct node){.st = *st, .parent = SM_FS_ROOT};
	fs->num_nodes++;
	fs->nodes[fs->num_nodes - 1].st.st_ino = fs->num_nodes;
	return fs->num_nodes;
}

/* Gives a node (one more) name; one that was there under this name is forgotten, as tar overwrites files. */
static void add_link(struct tarfs *fs, uint64_t parent, const char *name, uint64_t node)
{
	struct node *dir = &fs->nodes[parent - 1], *child = &fs->nodes[node - 1];
	struct link *l = find(fs, parent, name);

	child->st.st_nlink++;
	if (S_ISDIR(child->st.st_mode)) {
		child->parent = parent;
		child->st.st_nlink = 2;
		dir->st.st_nlink++;
	}
	if (l) {
		fs->nodes[l->node - 1].st.st_nlink--;
		l->node = node;
		return;
	}
	l = must(calloc(1, sizeof(*l)));
	*l = (struct link){.name = must(strdup(name)), .parent = parent, .node = node};
	l->offset = dir->last ? dir->last->offset + 1 : 3; /* behind "." and ".." */
	*(dir->last ? &dir->last->next : &dir->first) = l;
	dir->last = l;
	l->bucket = *bucket_of(fs, parent, name);
	*bucket_of(fs, parent, name) = l;
}

/* Walks a path to the directory of its last part, making those that are missing. NULL: not inside the archive. */
static const char *walk(struct tarfs *fs, char *path, uint64_t *ret_parent)
{
	struct stat st = {.st_mode = S_IFDIR | 0755};
	char *part, *next, *save;

	*ret_parent = SM_FS_ROOT;
	part = strtok_r(path, "/", &save);
	for (; part; part = next) {
		struct link *l = find(fs, *ret_parent, part);

		next = strtok_r(NULL, "/", &save);
		if (strcmp(part, "..") == 0 || strlen(part) > 255)
			return NULL;
		if (strcmp(part, ".") == 0)
			continue;
		if (!next)
			return part;
		if (!l) {
			add_link(fs, *ret_parent, part, add_node(fs, &st));
			l = find(fs, *ret_parent, part);
		}
		if (!S_ISDIR(fs->nodes[l->node - 1].st.st_mode))
			return NULL;
		*ret_parent = l->node;
	}
	return NULL;
}

/* One entry of the archive, as its header and the records before it say. */
struct entry {
	struct stat st;
	char type, *path, *target;
	off_t data;
	uint64_t size; /* by a pax record */
	bool has_size;
};

static void enter(struct tarfs *fs, const struct entry *e)
{
	uint64_t parent, node, target_parent;
	const char *name = walk(fs, e->path, &parent), *target;
	struct link *l;

	if (!name)
		return;
	if (e->type == '1') { /* a hard link */
		target = walk(fs, e->target, &target_parent);
		l = target ? find(fs, target_parent, target) : NULL;
		if (l && !S_ISDIR(fs->nodes[l->node - 1].st.st_mode))
			add_link(fs, parent, name, l->node);
		return;
	}
	l = find(fs, parent, name);
	if (l && S_ISDIR(e->st.st_mode) && S_ISDIR(fs->nodes[l->node - 1].st.st_mode)) { /* made on the way before */
		struct stat *st = &fs->nodes[l->node - 1].st;

		st->st_mode = e->st.st_mode;
		st->st_uid = e->st.st_uid;
		st->st_gid = e->st.st_gid;
		st->st_mtim = st->st_ctim = st->st_atim = e->st.st_mtim;
		return;
	}
	node = add_node(fs, &e->st);
	fs->nodes[node - 1].data = e->data;
	if (e->type == '2')
		fs->nodes[node - 1].target = must(strdup(e->target));
	add_link(fs, parent, name, node);
}

/* Octal digits, or base 256 where they would not suffice. */
static uint64_t number(const char *field, int len)
{
	uint64_t v = 0;

	if (field[0] & 0x80) {
		for (int i = 1; i < len; i++)
			v = v << 8 | (unsigned char)field[i];
		return v;
	}
	for (int i = 0; i < len && field[i]; i++)
		if (field[i] >= '0' && field[i] <= '7')
			v = v * 8 + (uint64_t)(field[i] - '0');
	return v;
}

/* Records of "LENGTH KEY=VALUE\n". */
static void apply_pax(struct entry *e, char *p, size_t len)
{
	while (len) {
		char *end, *key, *value;
		unsigned long n = strtoul(p, &end, 10);

		if (n < 5 || n > len || *end != ' ' || end + 1 >= p + n || p[n - 1] != '\n')
			fail("archive", "broken pax header");
		key = end + 1;
		value = memchr(key, '=', (size_t)(p + n - key));
		if (!value)
			fail("archive", "broken pax header");
		*value++ = 0;
		p[n - 1] = 0;
		if (strcmp(key, "path") == 0)
			free(e->path), e->path = must(strdup(value));
		else if (strcmp(key, "linkpath") == 0)
			free(e->target), e->target = must(strdup(value));
		else if (strcmp(key, "size") == 0)
			e->size = strtoull(value, NULL, 10), e->has_size = true;
		p += n;
		len -= n;
	}
}

static mode_t type_of(char type)
{
	switch (type) {
	case '2':
		return S_IFLNK;
	case '3':
		return S_IFCHR;
	case '4':
		return S_IFBLK;
	case '5':
		return S_IFDIR;
	case '6':
		return S_IFIFO;
	default:
		return S_IFREG;
	}
}

static void fill_stat(struct stat *st, const char *h, uint64_t size)
{
	*st = (struct stat){.st_mode = type_of(h[156]) | ((mode_t)number(h + 100, 8) & 07777), .st_blksize = 4096};
	st->st_uid = (uid_t)number(h + 108, 8);
	st->st_gid = (gid_t)number(h + 116, 8);
	st->st_mtim.tv_sec = st->st_ctim.tv_sec = st->st_atim.tv_sec = (time_t)number(h + 136, 12);
	st->st_rdev = makedev((unsigned)number(h + 329, 8), (unsigned)number(h + 337, 8));
	if (S_ISREG(st->st_mode) && h[156] != '1') {
		st->st_size = (off_t)size;
		st->st_blocks = (blkcnt_t)(size / BLOCK + !!(size % BLOCK));
	}
}

static char *read_bytes(const struct tarfs *fs, off_t at, size_t len)
{
	char *p = must(malloc(len + 1));

	if (len > MAX_HEADER || pread(fs->fd, p, len, at) != (ssize_t)len)
		fail("archive", "a header is too long");
	p[len] = 0;
	return p;
}

/* pax records ('x'), a long name ('L') or link target ('K') for the entry that follows. */
static void read_extra(const struct tarfs *fs, char type, off_t at, uint64_t size, struct entry *e)
{
	char *text = read_bytes(fs, at, size > MAX_HEADER ? MAX_HEADER + 1 : (size_t)size);
	char **to = type == 'L' ? &e->path : &e->target;

	if (type == 'x') {
		apply_pax(e, text, (size_t)size);
		free(text);
		return;
	}
	free(*to);
	*to = text;
}

static void read_entry(struct tarfs *fs, const char *h, off_t at, uint64_t size, struct entry *e)
{
	bool posix = h[262] == 0; /* "ustar" and a blank is GNU's, which has other things in place of the prefix */

	if (size > (uint64_t)(fs->size - at))
		fail("archive", "ends too early");
	if (!e->path && asprintf(&e->path, "%.155s/%.100s", posix ? h + 345 : "", h) < 0)
		fail("memory", strerror(ENOMEM));
	if (!e->target)
		e->target = must(strndup(h + 157, 100));
	e->type = h[156];
	e->data = at;
	fill_stat(&e->st, h, size);
	if (S_ISLNK(e->st.st_mode))
		e->st.st_size = (off_t)strlen(e->target);
	enter(fs, e);
}

static void read_archive(struct tarfs *fs)
{
	struct entry e = {0};
	char h[BLOCK], zero[BLOCK] = {0};

	if (fs->size < BLOCK)
		fail("archive", "not an uncompressed tar archive");
	for (off_t at = 0; pread(fs->fd, h, BLOCK, at) == BLOCK && memcmp(h, zero, BLOCK) != 0;) {
		uint64_t size = number(h + 124, 12);

		at += BLOCK;
		if (memcmp(h + 257, "ustar", 5) != 0)
			fail("archive", "not an uncompressed tar archive");
		if (h[156] == 'x' || h[156] == 'L' || h[156] == 'K') {
			read_extra(fs, h[156], at, size, &e);
		} else if (h[156] != 'g') {
			size = e.has_size ? e.size : size;
			read_entry(fs, h, at, size, &e);
			free(e.path);
			free(e.target);
			e = (struct entry){0};
		}
		at += (off_t)((size + BLOCK - 1) / BLOCK * BLOCK);
	}
}

static void open_archive(struct tarfs *fs, const char *path)
{
	struct stat st, root = {.st_mode = S_IFDIR | 0755, .st_nlink = 2, .st_uid = getuid(), .st_gid = getgid()};

	fs->backend.ops = &ops;
	fs->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fs->fd < 0 || fstat(fs->fd, &st) < 0)
		fail(path, strerror(errno));
	fs->size = st.st_size;
	root.st_mtim = root.st_ctim = root.st_atim = st.st_mtim;
	add_node(fs, &root);
	read_archive(fs);
}

static void tarfs_free(struct tarfs *fs)
{
	for (size_t i = 0; i < sizeof(fs->buckets) / sizeof(fs->buckets[0]); i++)
		for (struct link *l = fs->buckets[i], *next; l; l = next) {
			next = l->bucket;
			free(l->name);
			free(l);
		}
	for (size_t i = 0; i < fs->num_nodes; i++)
		free(fs->nodes[i].target);
	free(fs->nodes);
	close(fs->fd);
	free(fs);
}

/* Until a signal, or until the other side has gone. */
static int serve(struct tarfs *fs, const char *archive, const char *mountpoint, const char *socket, bool share)
{
	struct sm_fs_vhost_user_options v = SM_FS_VHOST_USER_OPTIONS_INIT;
	struct sm_fs_shared_options s = SM_FS_SHARED_OPTIONS_INIT;
	struct sm_fs_mount_options m = SM_FS_MOUNT_OPTIONS_INIT;
	struct sm_fs_server *server;
	struct sm_error err = {0};
	sigset_t ends;
	int r;

	sigemptyset(&ends);
	sigaddset(&ends, SIGINT);
	sigaddset(&ends, SIGTERM);
	sigprocmask(SIG_BLOCK, &ends, NULL);
	m.source = archive;
	m.read_only = v.read_only = s.read_only = true;
	r = share    ? sm_fs_serve_shared(&fs->backend, socket, -1, &s, &server, &err)
	    : socket ? sm_fs_serve_vhost_user(&fs->backend, socket, -1, &v, &server, &err)
		     : sm_fs_mount(&fs->backend, mountpoint, &m, &server, &err);
	if (r < 0)
		fail(archive, err.message);
	printf("%zu files of %s are on %s until ctrl-c\n", fs->num_nodes, archive, socket ? socket : mountpoint);
	fflush(stdout);
	r = sm_fs_wait(server, signalfd(-1, &ends, SFD_CLOEXEC), &err);
	sm_fs_stop(server);
	if (r < 0 && r != -ECANCELED)
		fail(archive, err.message);
	return 0; /* the kernel frees the rest */
}

int main(int argc, char **argv)
{
	bool share = argc == 4 && strcmp(argv[1], "--share") == 0;
	bool vhost = argc == 4 && strcmp(argv[1], "--vhost-user") == 0;
	struct tarfs *fs = must(calloc(1, sizeof(*fs)));
	const char *archive = argc == 4 ? argv[3] : argv[1];
	int status;

	if (!vhost && !share && argc != 3) {
		fprintf(stderr, "usage: tarfs ARCHIVE MOUNTPOINT | tarfs --share|--vhost-user SOCKET ARCHIVE\n");
		return 2;
	}
	open_archive(fs, archive);
	status = serve(fs, archive, argc == 4 ? NULL : argv[2], argc == 4 ? argv[2] : NULL, share);
	tarfs_free(fs);
	return status;
}
