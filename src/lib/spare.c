/* SPDX-License-Identifier: Apache-2.0 */
/* Spares: their shape, and who takes one. See spare.h; spare_make.c makes and ends them. */
#include "lib/spare.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/sha256hex.h"
#include "base/util.h"
#include "lib/base.h"

#define LISTENS_NS SECOND_NS /* a keeper that was just started listens within this time, or it never will */
#define LOOK_MS 2
#define LOOK_THERE_NS (SECOND_NS / 20)

void spare_free(struct spare *s)
{
	if (!s)
		return;
	free(s->record);
	free(s->base);
	free(s);
}

bool spare_possible(const struct sm_vm_options *o, const struct vm_record *r)
{
	return o->spare && !o->detach && !o->background && !r->no_command && !r->cold && !r->num_mounts &&
	       !r->cpu_limit && !r->ksm && !r->dax_size && !r->idle_ns && !r->share_group && !r->audit &&
	       !(r->ports && r->ports[0]) && !(r->secrets && r->secrets[0]);
}

/* ------------------------------------------------------------------------------------------- shapes */

/* The record without what can be told to a guest that is up. */
static int format_fixed(const struct vm_record *rec, char **ret, struct sm_error *err)
{
	char *argv[] = {(char[]){"-"}, NULL}, *env[] = {NULL};
	struct vm_record r = *rec;

	memset(r.id, '0', VM_ID_DIGITS);
	r.name[0] = '\0';
	r.image = r.image_id;
	r.created_ns = 0;
	r.keep = r.trace = r.tty = r.stdin_open = false;
	r.hostname = argv[0];
	r.argv = argv;
	r.env = env;
	r.user = r.cwd = NULL;
	r.labels = NULL;
	r.rows = r.cols = 1;
	r.stop_signal = 15;
	r.timeout_ns = r.ttl_ns = 0;
	return vm_record_format(&r, ret, err);
}

/* The programs that it runs in, and what it came from: whoever takes it must speak their language. */
static int put_programs(struct sm_client *c, struct buf *out, struct sm_error *err)
{
	static const char *const names[] = {"supermachine-keeper", "supermachine-vmm"};
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(names); i++) {
		_free_ char *path = NULL;

		r = client_helper(c, names[i], &path, err);
		if (r == 0 && (r = seat_put_file(out, names[i], path)) < 0)
			r = error_sys(err, -r, "%s", path);
	}
	return r;
}

/* -ENOENT: there is no base, and so no spare. */
static int find_shape(struct sm_client *c, const struct vm_record *rec, struct spare *s, struct sm_error *err)
{
	_cleanup_(buf_done) struct buf key = {0};
	_cleanup_(base_done) struct base base = {0};
	int r = base_find(c, rec, &base, err);

	r = r < 0 ? r : format_fixed(rec, &s->record, err);
	r = r < 0 ? r : put_programs(c, &key, err);
	if (r < 0)
		return r;
	buf_printf(&key, "base %s %lld\n%s\n", base.key, (long long)base.created_ns, s->record);
	if (key.error)
		return error_sys(err, -key.error, "spare");
	sha256_hex(key.data, key.len, SPARE_SHAPE_DIGITS, s->shape);
	s->base = TAKE_PTR(base.dir);
	memcpy(s->disk, base.disk, sizeof(s->disk));
	s->window = base.window;
	s->plugged = rec->memory - base.memory;
	s->created_ns = base.created_ns;
	return 0;
}

/* ------------------------------------------------------------------------------------------- taking */

static uint64_t age_ns(int dir)
{
	struct stat st;
	struct timespec now;
	int64_t age;

	clock_gettime(CLOCK_REALTIME, &now);
	if (fstatat(dir, "start.json", &st, AT_SYMLINK_NOFOLLOW) < 0)
		return UINT64_MAX;
	age = ((int64_t)now.tv_sec - st.st_mtim.tv_sec) * 1000000000 + now.tv_nsec - st.st_mtim.tv_nsec;
	return (uint64_t)MAX(age, 0);
}

/* A socket to its keeper, which may just have been started. */
static int dial(struct sm_client *c, const char *id, int dir)
{
	uint64_t age = age_ns(dir), until = time_now_ns() + LISTENS_NS - MIN(age, LISTENS_NS);
	struct vm_start start;
	int r = vmdir_load_start(dir, &start, NULL);

	while (r == 0) {
		int fd = vm_socket(c, id, &start, age < LISTENS_NS ? LOOK_THERE_NS : 0, NULL);

		if ((fd != -ENOENT && fd != -ECONNREFUSED) || time_now_ns() > until)
			return fd;
		poll(NULL, 0, LOOK_MS);
	}
	return r;
}

/* Has it become the VM of this record, when its guest is up: 0, and the connection, whose end is the VM's. keeper: a
 * socket to it, taken in any case. */
static int claim(struct sm_client *c, int keeper, const struct vm_record *r, uint64_t since, int *ret_fd)
{
	_cleanup_(buf_done) struct buf b = {0};
	_free_ char *path = vmdir_path(c, r->id), *json = NULL;
	struct keeper_claim m = {0};
	struct conn conn;
	struct call call;
	int e = conn_init(&conn, keeper, NULL);

	if (e < 0)
		return e;
	e = path ? vm_record_format(r, &json, NULL) : -ENOMEM;
	if (e == 0 && snprintf(m.dir, sizeof(m.dir), "%s", path) >= (int)sizeof(m.dir))
		e = -ENAMETOOLONG;
	m.record = (const uint8_t *)json;
	m.record_len = json ? strlen(json) : 0;
	m.prepare_ns = time_now_ns() - since;
	e = e < 0 ? e : keeper_claim_encode(&b, &m);
	e = e < 0 ? e : conn_call(&conn, PROTO_KEEPER_CLAIM, &b, &call);
	if (e == 0) {
		e = conn_await_open(&conn, &call, "take a spare", NULL);
		call_done(&call);
	}
	if (e == 0)
		*ret_fd = TAKE_FD(conn.fd);
	conn_done(&conn);
	return e;
}

/* The VM is this process's: it is to be seen. */
static int own(struct sm_client *c, const struct vm_record *r, int spares, const char *name, int fd, struct sm_vm **ret,
	       struct sm_error *err)
{
	struct sm_vm *vm = NULL;
	int e = vm_handle_new(c, r->id, &vm, err);

	if (e == 0)
		e = vmdir_adopt(c, r, spares, name, &vm->transient_fd, err);
	if (e < 0) {
		if (vm)
			vm->transient_fd = fd_close(vm->transient_fd);
		sm_vm_close(vm);
		return e;
	}
	vm->owner_fd = fd;
	*ret = vm;
	return 0;
}

/* The record as that of this spare. Its host name is its id, unless one was asked for. */
static int rename_record(struct vm_record *r, const char *id, const struct sm_vm_options *o)
{
	snprintf(r->id, sizeof(r->id), "%s", id);
	if (o->hostname)
		return 0;
	free(r->hostname);
	r->hostname = strdup(id);
	return r->hostname ? 0 : -ENOMEM;
}

/* 1: it is ours; 0: somebody else has it, or it was of no use and is gone. */
static int take(struct sm_client *c, int spares, const char *name, const struct sm_vm_options *o, struct vm_record *r,
		uint64_t since, struct sm_vm **ret, struct sm_error *err)
{
	const char *id = name + SPARE_SHAPE_DIGITS + 1;
	_fd_ int dir = openat(spares, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	_fd_ int lock = dir < 0 ? -1 : vmdir_flock(dir, "start.lock", true, false), fd = -1;
	char have[32];
	int e, keeper;

	if (lock < 0)
		return 0;
	/* Its keeper must have found the directory before that has another name. */
	keeper = dial(c, id, dir);
	snprintf(have, sizeof(have), ".have-%s", id);
	if (renameat(spares, name, spares, have) < 0) {
		fd_close(keeper);
		return 0;
	}
	e = keeper < 0 ? keeper : rename_record(r, id, o);
	if (e == 0)
		e = claim(c, keeper, r, since, &fd);
	else
		fd_close(keeper);
	if (e == 0) {
		e = own(c, r, spares, have, fd, ret, err);
		if (e == 0) {
			TAKE_FD(fd);
			return 1;
		}
		remove_tree_at(spares, have);
		return e;
	}
	client_say(c, SM_LOG_DEBUG, "spare %s was of no use: %s", id, strerror(-e));
	remove_tree_at(spares, have);
	return 0;
}

static int take_any(struct sm_client *c, int spares, const struct spare *s, const struct sm_vm_options *o,
		    struct vm_record *r, uint64_t since, struct sm_vm **ret, struct sm_error *err)
{
	char **names = spare_names(spares, s->shape), first[VM_ID_DIGITS + 1];
	int e = 0;

	memcpy(first, r->id, sizeof(first));
	for (char **n = names; n && *n && e == 0; n++)
		e = take(c, spares, *n, o, r, since, ret, err);
	strv_free(names);
	if (e == 0 && rename_record(r, first, o) < 0)
		return error_sys(err, ENOMEM, "start");
	return e;
}

int spare_take(struct sm_client *c, const struct sm_vm_options *o, struct vm_record *r, uint64_t since,
	       struct sm_vm **ret_vm, struct spare **ret, struct sm_error *err)
{
	_fd_ int spares = -1;
	struct spare *s;
	int e;

	if (!spare_possible(o, r) || !(s = calloc(1, sizeof(*s))))
		return 0;
	if (find_shape(c, r, s, NULL) < 0) {
		spare_free(s);
		return 0;
	}
	spares = vmdir_sub(c, "spares", NULL);
	s->wanted = spares >= 0 && spare_seen(spares, s->shape);
	e = spares < 0 ? 0 : take_any(c, spares, s, o, r, since, ret_vm, err);
	if (e < 0)
		spare_free(s);
	else
		*ret = s;
	return e;
}
