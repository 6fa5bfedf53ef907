/* SPDX-License-Identifier: Apache-2.0 */
/* See harness.h. */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"

#define PATIENCE_NS (20 * SECOND_NS)

static void write_text(struct rig *r, const char *name, const char *text)
{
	assert_int_equal(write_file_atomic_at(r->dirfd, name, text, strlen(text), 0600), 0);
}

static void write_record(struct rig *r, const struct rig_options *o)
{
	char file[96], disk[96];
	struct vm_mount volume = {.source = disk, .target = "/v", .volume = (char *)(uintptr_t) "data"};
	char *env[] = {NULL}, *json = NULL;
	struct vm_record rec = {.id = "0123456789ab",
				.image = "image",
				.image_id = "id",
				.keep = o->keep,
				.memory = 128 * MIB,
				.cpus = 1,
				.cpu_limit = o->cpu_limit,
				.kernel = file,
				.initramfs = file,
				.cmdline = (char *)(uintptr_t)o->script,
				.disk_template = o->keep ? file : NULL,
				.disk_size = o->keep ? MIB : 0,
				.hostname = "h",
				.argv = (char **)(uintptr_t)o->argv,
				.env = env,
				.stdin_open = o->stdin_open,
				.stop_signal = SIGTERM,
				.secrets = o->secrets[0] ? (char **)(uintptr_t)o->secrets : NULL,
				.timeout_ns = o->timeout_ns,
				.ttl_ns = o->ttl_ns,
				.idle_ns = o->idle_ns,
				.on_idle = o->on_idle,
				.mounts = &volume,
				.num_mounts = o->volume};

	snprintf(disk, sizeof(disk), "%s/disk", r->dir);
	write_text(r, "disk", "content");
	snprintf(file, sizeof(file), "%s/file", r->dir);
	write_text(r, "file", "content");
	assert_int_equal(vm_record_format(&rec, &json, NULL), 0);
	write_text(r, "config.json", json);
	free(json);
}

static uint64_t or_long(uint64_t v)
{
	return v ? v : 60 * SECOND_NS;
}

static void write_snapshot(struct rig *r, const char *state)
{
	snprintf(r->snapshot, sizeof(r->snapshot), "%s/snapshot", r->dir);
	assert_int_equal(mkdir_p(r->snapshot, 0700), 0);
	if (*state)
		write_text(r, "snapshot/state", state);
	write_text(r, "snapshot/memory", "memory");
}

/* One layer was frozen; what was begun since does not count. */
static void write_suspended(struct rig *r, const char *state, bool volume)
{
	char *volumes[] = {(char *)(uintptr_t) "another file", NULL};
	struct vm_suspended s = {.window = GIB, .layers = 1, .volumes = volume ? volumes : NULL};
	char *json, dir[128];

	snprintf(dir, sizeof(dir), "%s/suspended", r->dir);
	assert_int_equal(mkdir_p(dir, 0700), 0);
	assert_int_equal(vm_suspended_format(&s, &json, NULL), 0);
	write_text(r, "suspended/suspended.json", json);
	free(json);
	write_text(r, "suspended/state", state);
	write_text(r, "suspended/memory", "memory");
	write_text(r, "layer.0", "first");
	write_text(r, "layer.1", "stray");
	write_text(r, "top", "stray");
}

void rig_start(struct rig *r, const struct rig_options *o)
{
	*r = (struct rig){.conn = {.fd = -1}};
	strcpy(r->dir, "/tmp/test-keeper.XXXXXX");
	assert_non_null(mkdtemp(r->dir));
	r->dirfd = open(r->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(r->dirfd >= 0);
	snprintf(r->socket, sizeof(r->socket), "%s/socket", r->dir);
	write_record(r, o);
	if (o->resume)
		write_suspended(r, o->state ? o->state : "", o->volume);
	else if (o->state)
		write_snapshot(r, o->state);
	if (o->given_up)
		write_text(r, "exit.json", "{}");
	if (o->first) {
		char path[96];

		snprintf(path, sizeof(path), "%s/starting", r->dir);
		assert_int_equal(slots_open(o->first, path), 0);
		assert_int_equal(slots_turn(o->first), 0);
	}
	r->keeper = fork();
	assert_true(r->keeper >= 0);
	if (r->keeper == 0) {
		struct keeper_args args = {.dir = r->dir,
					   .socket = r->socket,
					   .vmm = o->vmm ? o->vmm : getenv("FAKE_VMM"),
					   .owner = o->owner,
					   .base = o->base,
					   .adopt = o->adopt,
					   .background = o->background,
					   .resume = o->resume,
					   .restore = o->state && !o->resume ? r->snapshot : NULL,
					   .reserve = o->reserve,
					   .patience = o->patience,
					   .spare = o->spare,
					   .clients = o->clients ? o->clients : 1024,
					   .window = o->base || o->state ? GIB : 0,
					   .limits = {.boot = or_long(o->limits.boot),
						      .restore = or_long(o->limits.boot),
						      .owner = or_long(o->limits.owner),
						      .poweroff = or_long(o->limits.poweroff),
						      .stop = or_long(o->limits.stop),
						      .late = or_long(o->limits.late)}};
		struct sm_error err = {0};

		if (o->first) { /* the test's alone */
			fd_close(o->first->turn);
			fd_close(o->first->dir);
		}
		signal(SIGPIPE, SIG_IGN);
		_exit(keeper_run(&args, &err) < 0 ? 1 : 0);
	}
}

static void on_data(void *arg, struct call *call, unsigned stream, const uint8_t *p, size_t len)
{
	struct rig *r = arg;
	size_t room = sizeof(r->text) - 1 - MIN(r->received, sizeof(r->text) - 1);

	memcpy(r->text + MIN(r->received, sizeof(r->text) - 1), p, MIN(len, room));
	r->received += len;
	if (r->hold)
		r->held[stream - 1] += len;
	else
		mux_consumed(r->conn.mux, call->ch, stream, len);
}

void rig_connect(struct rig *r)
{
	uint64_t deadline = time_now_ns() + PATIENCE_NS;
	int fd;

	while ((fd = unix_connect(r->socket)) < 0 && time_now_ns() < deadline)
		poll(NULL, 0, 2);
	assert_true(fd >= 0);
	assert_int_equal(conn_init(&r->conn, fd, NULL), 0);
	r->conn.data = on_data;
	r->conn.arg = r;
}

void rig_wait_channel(struct rig *r, bool owner)
{
	struct keeper_wait w = {.owner = owner};
	struct buf b = {0};

	assert_int_equal(keeper_wait_encode(&b, &w), 0);
	assert_int_equal(conn_call(&r->conn, PROTO_KEEPER_WAIT, &b, &r->wait), 0);
	buf_done(&b);
	rig_until(r, &r->wait.opened);
}

void rig_attach(struct rig *r)
{
	struct keeper_attach a = {.stdin_open = true};
	struct buf b = {0};

	assert_int_equal(keeper_attach_encode(&b, &a), 0);
	assert_int_equal(conn_call(&r->conn, PROTO_KEEPER_ATTACH, &b, &r->main), 0);
	buf_done(&b);
}

void rig_claim(struct rig *r, const char *const *argv, const char *hostname, bool keep)
{
	struct keeper_claim m = {.prepare_ns = 5};
	struct vm_record rec;
	struct buf b = {0};
	char *json = NULL, **old_argv, *old_name;
	size_t len;

	assert_int_equal(read_file_at(r->dirfd, "config.json", VM_RECORD_MAX, &json, &len), 0);
	assert_int_equal(vm_record_parse(json, len, &rec, NULL), 0);
	free(json);
	old_argv = rec.argv;
	old_name = rec.hostname;
	rec.argv = (char **)(uintptr_t)argv;
	rec.hostname = (char *)(uintptr_t)hostname;
	rec.keep = keep;
	assert_int_equal(vm_record_format(&rec, &json, NULL), 0);
	rec.argv = old_argv;
	rec.hostname = old_name;
	vm_record_done(&rec);
	snprintf(m.dir, sizeof(m.dir), "%s", r->dir);
	m.record = (const uint8_t *)json;
	m.record_len = strlen(json);
	assert_int_equal(keeper_claim_encode(&b, &m), 0);
	assert_int_equal(conn_call(&r->conn, PROTO_KEEPER_CLAIM, &b, &r->wait), 0);
	buf_done(&b);
	free(json);
}

void rig_stop(struct rig *r, enum keeper_stop_mode mode, int signal, uint64_t grace_ns)
{
	struct keeper_stop s = {.mode = mode, .signal = signal, .grace_ns = grace_ns};
	struct buf b = {0};
	struct call call;

	assert_int_equal(keeper_stop_encode(&b, &s), 0);
	assert_int_equal(conn_call(&r->conn, PROTO_KEEPER_STOP, &b, &call), 0);
	buf_done(&b);
	rig_until(r, &call.closed);
	assert_int_equal(call.code, 0);
	call_done(&call);
}

void rig_until(struct rig *r, const bool *flag)
{
	uint64_t deadline = time_now_ns() + PATIENCE_NS;

	while (!*flag) {
		assert_true(time_now_ns() < deadline);
		if (conn_step(&r->conn, NULL, 0, 100) < 0 && !*flag)
			fail_msg("the keeper hung up: %s", r->conn.why);
	}
}

void rig_disconnect(struct rig *r)
{
	if (r->conn.mux)
		conn_done(&r->conn);
	call_done(&r->wait);
	call_done(&r->main);
	r->wait = r->main = (struct call){0};
}

static void await_keeper(struct rig *r)
{
	uint64_t deadline = time_now_ns() + PATIENCE_NS;
	int status;
	pid_t pid;

	while ((pid = waitpid(r->keeper, &status, WNOHANG)) == 0 && time_now_ns() < deadline)
		poll(NULL, 0, 5);
	assert_int_equal(pid, r->keeper);
	assert_true(access(r->socket, F_OK) < 0);
}

void rig_vanished(struct rig *r)
{
	await_keeper(r);
	assert_true(access(r->dir, F_OK) < 0);
	rig_disconnect(r);
	close(r->dirfd);
}

struct vm_exit rig_finish(struct rig *r)
{
	struct vm_exit x = {0};
	char *json = NULL;
	size_t len;

	await_keeper(r);
	assert_int_equal(read_file_at(r->dirfd, "exit.json", VM_RECORD_MAX, &json, &len), 0);
	assert_int_equal(vm_exit_parse(json, len, &x, NULL), 0);
	free(json);
	rig_disconnect(r);
	remove_tree_at(AT_FDCWD, r->dir);
	close(r->dirfd);
	return x;
}
