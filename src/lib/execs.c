/* SPDX-License-Identifier: Apache-2.0 */
/* Detached commands of a VM: the keeper has them, their files (keeper/execs.h) say what they are. */
#include "keeper/execs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "lib/exec.h"

/* The public part first: its address is the handle. */
struct exec_info {
	struct sm_exec_info pub;
	struct vm_exec_record rec;
};

static DIR *open_list(int vmdir)
{
	int fd = openat(vmdir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d)
		fd_close(fd);
	return d;
}

void execs_sweep(int vmdir)
{
	DIR *d = open_list(vmdir);
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (str_starts(e->d_name, "exec."))
			unlinkat(vmdir, e->d_name, 0);
	if (d)
		closedir(d);
}

uint32_t sm_exec_number(const struct sm_exec *exec)
{
	return exec->number;
}

/* ------------------------------------------------------------------------------------------- list */

static void info_free(struct exec_info *in)
{
	vm_exec_done(&in->rec);
	free(in);
}

static int load_exit(int vmdir, unsigned number, struct vm_exit *ret)
{
	char name[EXEC_NAME_SIZE];
	_free_ char *json = NULL;
	size_t len;
	int r = read_file_at(vmdir, exec_file_name(name, number, EXEC_EXIT), VM_RECORD_MAX, &json, &len);

	return r < 0 ? r : vm_exit_parse(json, len, ret, NULL);
}

/* NULL: it went away meanwhile, or its record makes no sense. */
static struct exec_info *load(int vmdir, unsigned number, bool vm_runs)
{
	struct exec_info *in = calloc(1, sizeof(*in));
	char name[EXEC_NAME_SIZE];
	_free_ char *json = NULL;
	struct vm_exit x;
	size_t len;

	if (!in || read_file_at(vmdir, exec_file_name(name, number, EXEC_RECORD), VM_RECORD_MAX, &json, &len) < 0 ||
	    vm_exec_parse(json, len, &in->rec, NULL) < 0) {
		free(in);
		return NULL;
	}
	in->pub = (struct sm_exec_info){.number = number,
					.argv = (const char *const *)in->rec.argv,
					.user = in->rec.user ? in->rec.user : "",
					.running = vm_runs,
					.tty = in->rec.tty,
					.stdin_open = in->rec.stdin_open,
					.pid = in->rec.pid,
					.started_ns = in->rec.started_ns,
					.outcome = SM_OUTCOME_INIT};
	if (load_exit(vmdir, number, &x) == 0) {
		in->pub.running = false;
		in->pub.finished_ns = x.finished_ns;
		in->pub.outcome = x.outcome;
	} else if (!vm_runs) {
		/* Its keeper had no time to say so. */
		in->pub.outcome.reason = SM_REASON_KEEPER_DIED;
		in->pub.outcome.status = 128 + SIGKILL;
		in->pub.outcome.signal = SIGKILL;
	}
	return in;
}

static int by_number(const void *a, const void *b)
{
	const struct sm_exec_info *x = *(struct sm_exec_info *const *)a, *y = *(struct sm_exec_info *const *)b;

	return (x->number > y->number) - (x->number < y->number);
}

static int collect(int vmdir, bool vm_runs, struct sm_exec_info ***ret, size_t *ret_count)
{
	struct sm_exec_info **list = NULL, **more;
	DIR *d = open_list(vmdir);
	struct exec_info *in;
	struct dirent *e;
	size_t n = 0;
	int r = d ? 0 : -errno;

	while (d && (e = readdir(d))) {
		unsigned number = exec_of_file(e->d_name);

		in = number ? load(vmdir, number, vm_runs) : NULL;
		if (!in)
			continue;
		more = realloc(list, (n + 1) * sizeof(struct sm_exec_info *));
		if (!more) {
			info_free(in);
			r = -ENOMEM;
			break;
		}
		list = more;
		list[n++] = &in->pub;
	}
	if (d)
		closedir(d);
	if (r < 0) {
		sm_exec_list_free(list, n);
		return r;
	}
	if (n)
		qsort(list, n, sizeof(*list), by_number);
	*ret = list;
	*ret_count = n;
	return 0;
}

int sm_vm_exec_list(struct sm_vm *vm, struct sm_exec_info ***ret, size_t *ret_count, struct sm_error *err)
{
	_fd_ int dir = vmdir_open(vm->client, vm->id, err);
	struct vm_view v;
	int r = dir < 0 ? dir : vm_view(vm->client, vm->id, &v, err);

	if (r < 0)
		return r;
	r = collect(dir, v.state != SM_VM_EXITED, ret, ret_count);
	return r < 0 ? error_sys(err, -r, "commands of VM %s", vm->id) : 0;
}

void sm_exec_list_free(struct sm_exec_info **list, size_t count)
{
	for (size_t i = 0; i < count; i++)
		info_free((struct exec_info *)list[i]);
	free(list);
}

/* ----------------------------------------------------------------------------------- signal, attach */

/* One that has ended, and one that never was, are the same to the keeper. */
static int say_gone(struct sm_vm *vm, uint32_t number, struct sm_error *err)
{
	_fd_ int dir = vmdir_open(vm->client, vm->id, err);
	char name[EXEC_NAME_SIZE];

	if (dir < 0)
		return dir;
	if (faccessat(dir, exec_file_name(name, number, EXEC_RECORD), F_OK, 0) < 0)
		return error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "VM %s has no detached command %u", vm->id, number);
	return error_set(err, SM_ERROR_STATE, ESRCH, "command %u of VM %s has ended", number, vm->id);
}

int sm_vm_exec_kill(struct sm_vm *vm, uint32_t number, int signal, struct sm_error *err)
{
	struct keeper_exec_signal m = {.exec = number, .signal = signal};
	_cleanup_(buf_done) struct buf b = {0};
	struct conn conn;
	struct call call;
	int r;

	if (!number || signal < 1 || signal > 64)
		return error_set(err, SM_ERROR_INVALID, EINVAL,
				 number ? "no such signal: %d" : "a command's number is 1 or more", signal);
	r = vm_connect(vm->client, vm->id, &conn, err);
	if (r < 0)
		return r;
	r = keeper_exec_signal_encode(&b, &m);
	if (r == 0)
		r = conn_call(&conn, PROTO_KEEPER_EXEC_SIGNAL, &b, &call);
	if (r < 0) {
		conn_done(&conn);
		return error_sys(err, -r, "VM %s", vm->id);
	}
	r = conn_await_open(&conn, &call, "signal", err);
	conn_done(&conn);
	call_done(&call);
	return r == -ESRCH ? say_gone(vm, number, err) : r;
}

static int open_attach(struct sm_exec *x, const struct sm_exec_options *o, struct sm_error *err)
{
	struct keeper_attach a = {.stdin_open = o->stdin_open, .rows = o->rows, .cols = o->cols, .exec = x->number};
	_cleanup_(buf_done) struct buf b = {0};
	int r = keeper_attach_encode(&b, &a);

	exec_set_data_handler(x);
	if (r == 0)
		r = conn_call(&x->conn, PROTO_KEEPER_ATTACH, &b, &x->call);
	return r < 0 ? error_sys(err, -r, "VM %s", x->id) : conn_await_open(&x->conn, &x->call, "attach", err);
}

int sm_vm_exec_attach(struct sm_vm *vm, uint32_t number, const struct sm_exec_options *options, struct sm_exec **ret,
		      struct sm_error *err)
{
	struct sm_exec_options o = OPTIONS_GET(struct sm_exec_options, options);
	struct sm_exec *x;
	int r;

	if (!number)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "a command's number is 1 or more");
	x = exec_new(vm->client, vm->id, &o);
	if (!x)
		return error_sys(err, ENOMEM, "VM %s", vm->id);
	x->number = number;
	x->joined = true;
	r = vm_connect(vm->client, vm->id, &x->conn, err);
	if (r == 0) {
		r = open_attach(x, &o, err);
		if (r == -ESRCH)
			r = say_gone(vm, number, err);
	}
	if (r < 0) {
		sm_exec_close(x);
		return r;
	}
	*ret = x;
	return 0;
}
