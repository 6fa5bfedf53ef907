/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper against a scripted monitor and agent: every way a VM may end, and clients of every manner. */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fileio.h"
#include "base/util.h"

#define MS 1000000ull

static void expect(const struct vm_exit *x, enum sm_reason reason, int status)
{
	assert_string_equal(vm_reason_name(x->outcome.reason), vm_reason_name(reason));
	assert_int_equal(x->outcome.status, status);
}

static void owner_gets_output_and_status(void **state)
{
	struct rig r;
	struct vm_exit x;

	rig_start(&r, &(struct rig_options){.argv = {"exit", "7"}, .owner = true});
	rig_connect(&r);
	rig_wait_channel(&r, true);
	assert_false(r.wait.started); /* the command waits for the attach */
	rig_attach(&r);
	rig_until(&r, &r.main.closed);
	assert_true(r.main.has_exit);
	assert_int_equal(r.received, 8);
	rig_until(&r, &r.wait.ended);
	assert_int_equal(r.wait.record.outcome.status, 7);
	assert_true(r.wait.started);
	x = rig_finish(&r);
	expect(&x, SM_REASON_EXITED, 7);
	assert_true(x.started_ns > 0 && x.finished_ns >= x.started_ns);
	assert_string_equal(x.outcome.stages[0].name, "prepare");
	assert_string_equal(x.outcome.stages[x.outcome.num_stages - 1].name, "shutdown");
}

static void detached_output_is_logged(void **state)
{
	char *log = NULL;
	struct vm_exit x;
	struct rig r;
	size_t len;

	/* Nobody connects: it may be over before anybody could. */
	rig_start(&r, &(struct rig_options){.argv = {"exit", "3"}, .keep = true});
	for (int i = 0; i < 4000 && faccessat(r.dirfd, "exit.json", F_OK, 0) < 0; i++)
		poll(NULL, 0, 5);
	assert_int_equal(read_file_at(r.dirfd, "log", 1 << 20, &log, &len), 0);
	assert_int_equal(len, 2 * (VM_LOG_HEADER + 4));
	assert_memory_equal(log + VM_LOG_HEADER, "out\n", 4);
	assert_int_equal(log[VM_LOG_HEADER + 4 + 8], 2);
	assert_memory_equal(log + 2 * VM_LOG_HEADER + 4, "err\n", 4);
	free(log);
	x = rig_finish(&r);
	expect(&x, SM_REASON_EXITED, 3);
}

static void owner_gone_ends_the_vm(void **state)
{
	struct vm_exit x;
	struct rig r;

	rig_start(&r, &(struct rig_options){.argv = {"sleep"}, .owner = true});
	rig_connect(&r);
	rig_wait_channel(&r, true);
	rig_attach(&r);
	rig_until(&r, &r.main.opened);
	rig_disconnect(&r);
	x = rig_finish(&r);
	expect(&x, SM_REASON_CLIENT_GONE, 125);
}

/* A killed program's connections end one by one: whichever goes first, the reason is the same. */
static void attached_owner_gone_first(void **state)
{
	struct rig r, attach;
	struct vm_exit x;

	rig_start(&r, &(struct rig_options){.argv = {"sleep"}, .owner = true});
	rig_connect(&r);
	rig_wait_channel(&r, true);
	attach = r;
	attach.wait = attach.main = (struct call){0};
	rig_connect(&attach);
	rig_attach(&attach);
	rig_until(&attach, &attach.main.opened);
	rig_disconnect(&attach);
	rig_until(&r, &r.wait.ended);
	assert_int_equal(r.wait.record.outcome.reason, SM_REASON_CLIENT_GONE);
	x = rig_finish(&r);
	expect(&x, SM_REASON_CLIENT_GONE, 125);
}

static void owner_never_comes(void **state)
{
	struct vm_exit x;
	struct rig r;

	rig_start(&r, &(struct rig_options){.argv = {"sleep"}, .owner = true, .limits = {.owner = 50 * MS}});
	x = rig_finish(&r);
	expect(&x, SM_REASON_CLIENT_GONE, 125);
	assert_int_equal(x.started_ns, 0);
}

static int64_t monitor_pid(struct rig *r)
{
	struct keeper_status s;
	struct cursor c;
	struct call call;

	assert_int_equal(conn_call(&r->conn, PROTO_KEEPER_STATUS, NULL, &call), 0);
	rig_until(r, &call.closed);
	c = cursor_of(call.reply.data, call.reply.len);
	assert_int_equal(keeper_status_decode(&c, &s), 0);
	call_done(&call);
	assert_int_equal(s.keeper_pid, r->keeper);
	return s.monitor_pid;
}

/* Its command does not wait, its output is logged, who attaches may leave; only the owner's end is its own. */
static void background_needs_no_attach(void **state)
{
	struct rig r, attach;
	char *log = NULL;
	struct vm_exit x;
	size_t len;

	rig_start(&r, &(struct rig_options){.argv = {"sleep"}, .owner = true, .background = true});
	rig_connect(&r);
	rig_wait_channel(&r, true);
	rig_until(&r, &r.wait.started);
	attach = r;
	attach.wait = attach.main = (struct call){0};
	rig_connect(&attach);
	rig_attach(&attach);
	rig_until(&attach, &attach.main.opened);
	rig_disconnect(&attach);
	assert_true(monitor_pid(&r) > 0);
	assert_false(r.wait.ended);
	assert_int_equal(read_file_at(r.dirfd, "log", 1 << 20, &log, &len), 0);
	free(log);
	rig_disconnect(&r);
	x = rig_finish(&r);
	expect(&x, SM_REASON_CLIENT_GONE, 125);
}

static void killed_monitor_is_told(void **state)
{
	struct vm_exit x;
	struct rig r;

	rig_start(&r, &(struct rig_options){.argv = {"sleep"}});
	rig_connect(&r);
	rig_wait_channel(&r, false);
	rig_until(&r, &r.wait.started);
	kill((pid_t)monitor_pid(&r), SIGKILL);
	rig_until(&r, &r.wait.ended);
	x = rig_finish(&r);
	expect(&x, SM_REASON_MONITOR_DIED, 125);
	assert_non_null(strstr(x.outcome.message, "signal 9"));
}

static void killed_keeper_takes_the_monitor_along(void **state)
{
	struct rig r;
	pid_t monitor;
	int status;

	rig_start(&r, &(struct rig_options){.argv = {"sleep"}});
	rig_connect(&r);
	rig_wait_channel(&r, false);
	rig_until(&r, &r.wait.started);
	monitor = (pid_t)monitor_pid(&r);
	kill(r.keeper, SIGKILL);
	assert_int_equal(waitpid(r.keeper, &status, 0), r.keeper);
	for (int i = 0; i < 2000 && kill(monitor, 0) == 0; i++) {
		char path[64], *stat = NULL;
		size_t len;
		bool zombie;

		/* Where nobody reaps orphans it stays as a zombie: as good as gone. */
		snprintf(path, sizeof(path), "/proc/%d/stat", (int)monitor);
		if (read_file_at(AT_FDCWD, path, 4096, &stat, &len) < 0)
			break;
		zombie = strstr(stat, ") Z ") != NULL;
		free(stat);
		if (zombie)
			break;
		usleep(5000);
		assert_true(i < 1999);
	}
	rig_disconnect(&r);
	remove_tree_at(AT_FDCWD, r.dir);
	close(r.dirfd);
}

static void ends_by_itself(const char *script, const char *what, struct vm_exit *x)
{
	struct rig r;

	rig_start(&r, &(struct rig_options){.script = script,
					    .argv = {what},
					    .limits = {.boot = script && streq(script, "silent") ? 200 * MS : 0,
						       .stop = 50 * MS,
						       .poweroff = 50 * MS}});
	*x = rig_finish(&r);
}

static void panic_has_its_line(void **state)
{
	struct vm_exit x;

	ends_by_itself(NULL, "panic", &x);
	expect(&x, SM_REASON_GUEST_PANIC, 125);
	assert_non_null(strstr(x.outcome.message, "Kernel panic - not syncing: scripted"));
	assert_null(strstr(x.outcome.message, "end Kernel"));
}

static void full_host_disk_is_told(void **state)
{
	static const char *const statuses[] = {"3", "0"};

	for (size_t i = 0; i < ARRAY_SIZE(statuses); i++) {
		struct vm_exit x;
		struct rig r;

		rig_start(&r, &(struct rig_options){.argv = {"disk-error", statuses[i]}});
		x = rig_finish(&r);
		/* A command that does not notice has not failed; the line is there all the same. */
		expect(&x, i == 0 ? SM_REASON_DISK_FULL : SM_REASON_EXITED, i == 0 ? 3 : 0);
		assert_non_null(strstr(x.outcome.message, "the disk of the host is full"));
	}
}

static void guest_shutdown_is_told(void **state)
{
	struct vm_exit x;

	ends_by_itself(NULL, "poweroff", &x);
	expect(&x, SM_REASON_GUEST_SHUTDOWN, 0);
}

static void failures_before_the_command(void **state)
{
	static const struct {
		const char *script, *what, *message;
		enum sm_reason reason;
	} cases[] = {
		{"setup-fails", "exit", "scripted failure", SM_REASON_START_FAILED},
		{"silent", "exit", "no word from its agent", SM_REASON_START_FAILED},
		{"garbage", "exit", "lost the guest's agent", SM_REASON_START_FAILED},
		{"dies", "exit", "status 9", SM_REASON_START_FAILED},
		{"", "refuse", "no room for a process", SM_REASON_START_FAILED},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vm_exit x;

		ends_by_itself(cases[i].script, cases[i].what, &x);
		expect(&x, cases[i].reason, 125);
		if (!strstr(x.outcome.message, cases[i].message))
			fail_msg("%s: \"%s\"", cases[i].script, x.outcome.message);
		assert_int_equal(x.started_ns, 0);
	}
}

/* A share of the CPUs is had, or it does not start: by which place this is. */
static void share_of_the_cpus(void **state)
{
	struct cpu_group g = {.fd = -1};
	bool can = cpu_group_make(&g, "ffffffffffff", 500, false, NULL) == 0;
	struct vm_exit x;
	struct rig r;

	assert_true(cpu_group_remove(&g));
	rig_start(&r, &(struct rig_options){.argv = {"exit", "3"}, .keep = true, .cpu_limit = 500});
	for (int i = 0; i < 4000 && faccessat(r.dirfd, "exit.json", F_OK, 0) < 0; i++)
		poll(NULL, 0, 5);
	x = rig_finish(&r);
	expect(&x, can ? SM_REASON_EXITED : SM_REASON_START_FAILED, can ? 3 : 125);
	assert_int_equal(x.unsupported, !can);
	if (!can && !strstr(x.outcome.message, "a share of 0.5 CPUs needs a cgroup"))
		fail_msg("\"%s\"", x.outcome.message);
	if (!can)
		return;
	/* One that takes all of a small share is not idle. */
	rig_start(&r,
		  &(struct rig_options){.argv = {"spin", "1500"}, .keep = true, .idle_ns = 400 * MS, .cpu_limit = 50});
	x = rig_finish(&r);
	expect(&x, SM_REASON_IDLE, 143);
	assert_true(x.finished_ns - x.started_ns >= (int64_t)(1500 * MS));
}

/* Asks for a pause or its end; the code of the answer. */
static int ask_pause(struct rig *r, bool pause)
{
	struct keeper_pause m = {.pause = pause};
	struct buf b = {0};
	struct call call;
	int code;

	assert_int_equal(keeper_pause_encode(&b, &m), 0);
	assert_int_equal(conn_call(&r->conn, PROTO_KEEPER_PAUSE, &b, &call), 0);
	buf_done(&b);
	rig_until(r, &call.closed);
	code = call.code;
	assert_int_equal(call.opened, code == 0);
	call_done(&call);
	return code;
}

static enum sm_vm_state ask_state(struct rig *r)
{
	struct keeper_status s;
	struct cursor c;
	struct call call;

	assert_int_equal(conn_call(&r->conn, PROTO_KEEPER_STATUS, NULL, &call), 0);
	rig_until(r, &call.closed);
	c = cursor_of(call.reply.data, call.reply.len);
	assert_int_equal(keeper_status_decode(&c, &s), 0);
	call_done(&call);
	return s.state;
}

static int ask_stats(struct rig *r)
{
	struct call call;
	int code;

	assert_int_equal(conn_call(&r->conn, PROTO_STATS, NULL, &call), 0);
	rig_until(r, &call.closed);
	code = call.code;
	call_done(&call);
	return code;
}

/* The monitor's counters come as it wrote them, to each who asks, also of a VM that stands still. */
static void counters_are_passed_on(void **state)
{
	struct call calls[3];
	struct rig r;

	rig_start(&r, &(struct rig_options){.argv = {"sleep"}, .keep = true});
	rig_connect(&r);
	rig_wait_channel(&r, false);
	rig_until(&r, &r.wait.started);
	assert_int_equal(ask_pause(&r, true), 0);
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
		assert_int_equal(conn_call(&r.conn, PROTO_KEEPER_COUNTERS, NULL, &calls[i]), 0);
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		static const char want[] = "{\"event\":\"stats\",\"exits\":{\"io\":3}}";

		rig_until(&r, &calls[i].closed);
		assert_true(calls[i].opened);
		assert_int_equal(calls[i].code, 0);
		assert_int_equal(calls[i].reply.len, sizeof(want) - 1);
		assert_memory_equal(calls[i].reply.data, want, sizeof(want) - 1);
		call_done(&calls[i]);
	}
	rig_stop(&r, KEEPER_STOP_NOW, 0, 0);
	rig_until(&r, &r.wait.ended);
	rig_finish(&r);
}

/* A paused VM refuses its agent's services, and its time limit waits. */
static void pause_puts_limits_off(void **state)
{
	struct vm_exit x;
	struct rig r;

	rig_start(&r, &(struct rig_options){
			      .argv = {"sleep"}, .timeout_ns = MS, .limits = {.late = 1500 * MS, .stop = 50 * MS}});
	rig_connect(&r);
	rig_wait_channel(&r, false);
	rig_until(&r, &r.wait.started);
	assert_int_equal(ask_pause(&r, false), -EALREADY);
	assert_int_equal(ask_pause(&r, true), 0);
	assert_int_equal(ask_pause(&r, true), -EALREADY);
	assert_int_equal(ask_state(&r), SM_VM_PAUSED);
	assert_int_equal(ask_stats(&r), -EHOSTDOWN);
	poll(NULL, 0, 2500);
	assert_int_equal(ask_state(&r), SM_VM_PAUSED);
	assert_int_equal(ask_pause(&r, false), 0);
	assert_int_equal(ask_state(&r), SM_VM_RUNNING);
	assert_int_equal(ask_stats(&r), -ENOSYS); /* the agent's own answer */
	rig_until(&r, &r.wait.ended);
	x = rig_finish(&r);
	expect(&x, SM_REASON_TIMEOUT, 124);
}

static void stop_ends_a_pause(void **state)
{
	struct vm_exit x;
	struct rig r;

	rig_start(&r, &(struct rig_options){.argv = {"sleep"}});
	rig_connect(&r);
	rig_wait_channel(&r, false);
	rig_until(&r, &r.wait.started);
	assert_int_equal(ask_pause(&r, true), 0);
	rig_stop(&r, KEEPER_STOP_GRACE, 0, 10000 * MS);
	rig_until(&r, &r.wait.ended);
	x = rig_finish(&r);
	expect(&x, SM_REASON_STOPPED, 128 + SIGTERM);
}

/* Asks for a snapshot into the directory "out"; the answer's code. */
static int ask_snapshot(struct rig *r, struct keeper_snapshot_reply *ret)
{
	struct keeper_snapshot m = {0};
	struct buf b = {0};
	struct cursor c;
	struct call call;
	int code;

	snprintf(m.dir, sizeof(m.dir), "%s/out", r->dir);
	remove_tree_at(r->dirfd, "out");
	assert_int_equal(mkdirat(r->dirfd, "out", 0700), 0);
	assert_int_equal(keeper_snapshot_encode(&b, &m), 0);
	assert_int_equal(conn_call(&r->conn, PROTO_KEEPER_SNAPSHOT, &b, &call), 0);
	buf_done(&b);
	rig_until(r, &call.closed);
	code = call.code;
	if (call.opened) {
		c = cursor_of(call.reply.data, call.reply.len);
		assert_int_equal(keeper_snapshot_reply_decode(&c, ret), 0);
	}
	call_done(&call);
	return code;
}

static uint64_t size_of(struct rig *r, const char *name)
{
	struct stat st;

	return fstatat(r->dirfd, name, &st, 0) < 0 ? UINT64_MAX : (uint64_t)st.st_size;
}

/* Each freezes the disk's top, and leaves the VM running on an empty one. */
static void snapshots_of_a_running_vm(void **state)
{
	struct keeper_snapshot_reply reply = {0};
	struct vm_exit x;
	struct rig r;

	rig_start(&r, &(struct rig_options){.argv = {"sleep"}, .keep = true});
	rig_connect(&r);
	rig_wait_channel(&r, false);
	rig_until(&r, &r.wait.started);
	assert_int_equal(write_file_atomic_at(r.dirfd, "top", "first", 5, 0600), 0);
	assert_int_equal(ask_snapshot(&r, &reply), 0);
	assert_true(reply.layers == 1 && reply.booted && reply.pause_ns == 1);
	assert_true(size_of(&r, "out/state") == 5 && size_of(&r, "out/memory") == 6);
	assert_true(size_of(&r, "layer.0") == 5 && size_of(&r, "top") == 0);
	assert_int_equal(ask_snapshot(&r, &reply), 0);
	assert_true(reply.layers == 2 && size_of(&r, "layer.0") == 5 && size_of(&r, "layer.1") == 0);
	assert_int_equal(ask_pause(&r, true), 0);
	assert_int_equal(ask_snapshot(&r, &reply), -EHOSTDOWN);
	rig_stop(&r, KEEPER_STOP_NOW, 0, 0);
	rig_until(&r, &r.wait.ended);
	x = rig_finish(&r);
	expect(&x, SM_REASON_STOPPED, 137);
}

/* Of a VM with volumes the snapshot is not over until its client has copied them, nor is another one begun; and it is
 * told when they were not held so long. */
static void volumes_are_held_for_copies(void **state)
{
	struct keeper_snapshot m = {0};
	struct keeper_snapshot_reply reply;
	struct buf b = {0};
	struct vm_exit x;
	struct call call;
	struct rig r;

	rig_start(&r, &(struct rig_options){.argv = {"sleep"}, .keep = true, .volume = true});
	rig_connect(&r);
	rig_wait_channel(&r, false);
	rig_until(&r, &r.wait.started);
	snprintf(m.dir, sizeof(m.dir), "%s", r.dir);
	assert_int_equal(keeper_snapshot_encode(&b, &m), 0);
	for (int stopped = 0; stopped < 2; stopped++) {
		assert_int_equal(conn_call(&r.conn, PROTO_KEEPER_SNAPSHOT, &b, &call), 0);
		rig_until(&r, &call.opened);
		assert_int_equal(ask_snapshot(&r, &reply), -EBUSY);
		assert_false(call.closed || call.eof);
		if (stopped)
			break;
		assert_int_equal(mux_send_eof(r.conn.mux, call.ch, 0), 0);
		rig_until(&r, &call.eof);
		assert_false(call.closed);
		mux_close(r.conn.mux, call.ch, 0, "");
		call_done(&call);
		unlinkat(r.dirfd, "state", 0);
		unlinkat(r.dirfd, "memory", 0);
	}
	buf_done(&b);
	rig_stop(&r, KEEPER_STOP_GRACE, 0, 0);
	rig_until(&r, &call.closed);
	assert_true(call.code == -ESRCH && !call.eof);
	call_done(&call);
	rig_until(&r, &r.wait.ended);
	x = rig_finish(&r);
	expect(&x, SM_REASON_STOPPED, 143);
}

static void failed_snapshot_changes_nothing(void **state)
{
	struct keeper_snapshot_reply reply;
	struct vm_exit x;
	struct rig r;

	rig_start(&r, &(struct rig_options){.script = "snapshot-fails", .argv = {"sleep"}, .keep = true});
	rig_connect(&r);
	rig_wait_channel(&r, false);
	rig_until(&r, &r.wait.started);
	assert_int_equal(write_file_atomic_at(r.dirfd, "top", "first", 5, 0600), 0);
	assert_int_equal(ask_snapshot(&r, &reply), -EIO);
	assert_true(size_of(&r, "layer.0") == UINT64_MAX && size_of(&r, "top") == 5);
	assert_int_equal(ask_state(&r), SM_VM_RUNNING);
	rig_stop(&r, KEEPER_STOP_NOW, 0, 0);
	rig_until(&r, &r.wait.ended);
	x = rig_finish(&r);
	expect(&x, SM_REASON_STOPPED, 137);
}

/* The guest went on, on its new top, and nobody could write the files: it stays so. */
static void lost_snapshot(void **state)
{
	struct keeper_snapshot_reply reply;
	struct vm_exit x;
	struct rig r;

	rig_start(&r, &(struct rig_options){.script = "snapshot-is-lost", .argv = {"sleep"}, .keep = true});
	rig_connect(&r);
	rig_wait_channel(&r, false);
	rig_until(&r, &r.wait.started);
	assert_int_equal(write_file_atomic_at(r.dirfd, "top", "first", 5, 0600), 0);
	assert_int_equal(ask_snapshot(&r, &reply), -EIO);
	assert_true(size_of(&r, "layer.0") == 5 && size_of(&r, "top") == 0);
	assert_int_equal(ask_state(&r), SM_VM_RUNNING);
	assert_int_equal(ask_pause(&r, true), 0);
	rig_stop(&r, KEEPER_STOP_NOW, 0, 0);
	rig_until(&r, &r.wait.ended);
	x = rig_finish(&r);
	expect(&x, SM_REASON_STOPPED, 137);
}

static int ask_suspend(struct rig *r)
{
	struct call call;
	int code;

	assert_int_equal(conn_call(&r->conn, PROTO_KEEPER_SUSPEND, NULL, &call), 0);
	rig_until(r, &call.closed);
	code = call.code;
	call_done(&call);
	return code;
}

/* It is in its own directory, whole, and its keeper ends. */
static void suspended(void **state)
{
	char *text = NULL;
	struct vm_suspended s;
	struct vm_exit x;
	size_t len;
	struct rig r;

	rig_start(&r, &(struct rig_options){.argv = {"sleep"}, .keep = true});
	rig_connect(&r);
	rig_wait_channel(&r, false);
	rig_until(&r, &r.wait.started);
	assert_int_equal(write_file_atomic_at(r.dirfd, "top", "first", 5, 0600), 0);
	assert_int_equal(ask_suspend(&r), 0);
	rig_until(&r, &r.wait.ended);
	assert_true(size_of(&r, "suspended/state") == 5 && size_of(&r, "suspended/memory") == 6);
	assert_true(size_of(&r, "layer.0") == 5 && size_of(&r, "top") == 0);
	assert_int_equal(read_file_at(r.dirfd, "suspended/suspended.json", 1000, &text, &len), 0);
	assert_int_equal(vm_suspended_parse(text, len, &s, NULL), 0);
	free(text);
	assert_true(s.layers == 1 && s.booted && !s.volumes);
	x = rig_finish(&r);
	assert_int_equal(x.outcome.reason, SM_REASON_SUSPENDED);
}

/* Of one whose memory came from a file, a base's or a snapshot's, there is a link to that beside its own, from wherever
 * it goes on; of one that booted there is none. */
static void suspended_over_a_file(void **state)
{
	struct vm_exit x;
	struct rig r;

	for (int booted = 0; booted < 2; booted++) {
		rig_start(&r, &(struct rig_options){.argv = {"sleep"}, .keep = true, .state = booted ? NULL : "fine"});
		rig_connect(&r);
		rig_wait_channel(&r, false);
		rig_until(&r, &r.wait.started);
		assert_int_equal(ask_suspend(&r), 0);
		rig_until(&r, &r.wait.ended);
		assert_true(size_of(&r, "suspended/base") == (booted ? UINT64_MAX : 6));
		assert_true(size_of(&r, "suspended/over.1") == UINT64_MAX);
		x = rig_finish(&r);
		assert_int_equal(x.outcome.reason, SM_REASON_SUSPENDED);
	}
}

static void suspend_refused_or_failed(void **state)
{
	static const char *const scripts[] = {"snapshot-fails", "snapshot-is-lost"};
	struct vm_exit x;
	struct rig r;

	for (size_t i = 0; i < ARRAY_SIZE(scripts); i++) {
		rig_start(&r, &(struct rig_options){.script = scripts[i], .argv = {"sleep"}, .keep = true});
		rig_connect(&r);
		rig_wait_channel(&r, false);
		rig_until(&r, &r.wait.started);
		assert_int_equal(ask_suspend(&r), -EIO);
		assert_true(size_of(&r, "suspended") == UINT64_MAX);
		assert_int_equal(ask_state(&r), SM_VM_RUNNING);
		rig_stop(&r, KEEPER_STOP_GRACE, 0, 0);
		rig_until(&r, &r.wait.ended);
		x = rig_finish(&r);
		expect(&x, SM_REASON_STOPPED, 143);
	}
	rig_start(&r, &(struct rig_options){.argv = {"sleep"}, .owner = true, .keep = true});
	rig_connect(&r);
	rig_wait_channel(&r, true);
	rig_attach(&r);
	rig_until(&r, &r.wait.started);
	assert_int_equal(ask_suspend(&r), -EPERM);
	rig_stop(&r, KEEPER_STOP_NOW, 0, 0);
	rig_until(&r, &r.wait.ended);
	rig_finish(&r);
}

/* Whoever uses it and however it is paused. */
static void time_to_live_ends(void **state)
{
	for (int paused = 0; paused < 2; paused++) {
		uint64_t since = time_now_ns();
		struct vm_exit x;
		struct rig r;

		rig_start(&r, &(struct rig_options){.argv = {"sleep"}, .keep = true, .ttl_ns = 400 * MS});
		rig_connect(&r);
		rig_wait_channel(&r, false);
		rig_until(&r, &r.wait.started);
		if (paused)
			assert_int_equal(ask_pause(&r, true), 0);
		rig_until(&r, &r.wait.ended);
		assert_true(time_now_ns() - since >= 400 * MS);
		x = rig_finish(&r);
		expect(&x, SM_REASON_TTL, 143);
		assert_string_equal(x.outcome.message, "it had lived for 0.4 s");
	}
}

/* Nobody is in it: it is ended, as it is to be. To look at it is no use of it. */
static void idle_vm_is_ended(void **state)
{
	static const enum sm_on_idle actions[] = {SM_ON_IDLE_STOP, SM_ON_IDLE_KILL};

	for (size_t i = 0; i < ARRAY_SIZE(actions); i++) {
		uint64_t since = time_now_ns();
		struct vm_exit x;
		struct rig r;

		rig_start(&r, &(struct rig_options){
				      .argv = {"sleep"}, .keep = true, .idle_ns = 400 * MS, .on_idle = actions[i]});
		rig_connect(&r);
		rig_wait_channel(&r, false);
		rig_until(&r, &r.wait.started);
		while (!r.wait.ended && time_now_ns() < since + 10000 * MS) {
			if (!r.wait.ended && time_now_ns() < since + 200 * MS)
				assert_int_equal(ask_state(&r), SM_VM_RUNNING);
			if (conn_step(&r.conn, NULL, 0, 50) < 0)
				break;
		}
		assert_true(r.wait.ended);
		assert_true(time_now_ns() - since >= 400 * MS);
		x = rig_finish(&r);
		expect(&x, SM_REASON_IDLE, actions[i] == SM_ON_IDLE_KILL ? 137 : 143);
		assert_string_equal(x.outcome.message, "nobody had used it for 0.4 s");
	}
}

/* Neither is one whose command works, nor one that has a client, however silent. */
static void used_vm_is_not_idle(void **state)
{
	struct vm_exit x;
	struct rig r;

	rig_start(&r, &(struct rig_options){.argv = {"spin", "800"}, .keep = true, .idle_ns = 200 * MS});
	x = rig_finish(&r);
	expect(&x, SM_REASON_IDLE, 143);
	assert_true(x.finished_ns - x.started_ns >= (int64_t)(900 * MS));

	rig_start(&r, &(struct rig_options){.argv = {"cat"}, .keep = true, .idle_ns = 200 * MS});
	rig_connect(&r);
	rig_wait_channel(&r, false);
	rig_attach(&r);
	rig_until(&r, &r.main.opened);
	for (int i = 0; i < 12; i++) {
		poll(NULL, 0, 50);
		assert_int_equal(ask_state(&r), SM_VM_RUNNING);
	}
	mux_close(r.conn.mux, r.main.ch, 0, "");
	rig_until(&r, &r.wait.ended);
	x = rig_finish(&r);
	expect(&x, SM_REASON_IDLE, 143);
}

/* While it goes to the disk nobody is let in, or told that it runs. */
static void idle_vm_is_suspended(void **state)
{
	struct rig r, late;
	struct vm_exit x;

	rig_start(&r, &(struct rig_options){.script = "snapshot-slow",
					    .argv = {"sleep"},
					    .keep = true,
					    .idle_ns = 200 * MS,
					    .on_idle = SM_ON_IDLE_SUSPEND});
	rig_connect(&r);
	rig_wait_channel(&r, false);
	rig_until(&r, &r.wait.started);
	while (size_of(&r, "suspending") == UINT64_MAX)
		poll(NULL, 0, 5);
	late = r;
	late.wait = late.main = (struct call){0};
	rig_connect(&late);
	rig_wait_channel(&late, false);
	assert_int_equal(ask_stats(&late), -ESHUTDOWN);
	rig_until(&late, &late.wait.ended);
	assert_false(late.wait.started);
	assert_int_equal(late.wait.record.outcome.reason, SM_REASON_SUSPENDED);
	rig_disconnect(&late);
	assert_true(size_of(&r, "suspended/state") == 5);
	rig_until(&r, &r.wait.ended);
	x = rig_finish(&r);
	assert_int_equal(x.outcome.reason, SM_REASON_SUSPENDED);
	assert_string_equal(x.outcome.message, "suspended, as nobody used it");

	/* One that cannot be goes on, and whoever waited meanwhile hears so. */
	rig_start(&r, &(struct rig_options){.script = "snapshot-is-lost",
					    .argv = {"sleep"},
					    .keep = true,
					    .idle_ns = 100 * MS,
					    .on_idle = SM_ON_IDLE_SUSPEND});
	rig_connect(&r);
	poll(NULL, 0, 500);
	rig_wait_channel(&r, false);
	rig_until(&r, &r.wait.started);
	assert_int_equal(ask_state(&r), SM_VM_RUNNING);
	rig_stop(&r, KEEPER_STOP_GRACE, 0, 0);
	rig_until(&r, &r.wait.ended);
	x = rig_finish(&r);
	expect(&x, SM_REASON_STOPPED, 143);
}

/* Goes back to the layers that were frozen, and is suspended no more once the agent has let its processes go on. */
static void resumed(void **state)
{
	struct vm_exit x;
	struct rig r;

	rig_start(&r, &(struct rig_options){.argv = {"cat"}, .resume = true, .keep = true});
	rig_connect(&r);
	rig_wait_channel(&r, false);
	rig_until(&r, &r.wait.started);
	assert_true(size_of(&r, "suspended") == UINT64_MAX && size_of(&r, "suspended.old") == UINT64_MAX);
	assert_true(size_of(&r, "layer.0") == 5 && size_of(&r, "layer.1") == UINT64_MAX && size_of(&r, "top") == 0);
	rig_stop(&r, KEEPER_STOP_GRACE, 0, 0);
	rig_until(&r, &r.wait.ended);
	x = rig_finish(&r);
	expect(&x, SM_REASON_STOPPED, 143);
}

/* A resume that fails leaves it suspended. */
static void resume_failed(void **state)
{
	struct rig r;

	rig_start(&r, &(struct rig_options){.argv = {"cat"}, .resume = true, .state = "refused", .keep = true});
	for (int i = 0; size_of(&r, "exit.json") == UINT64_MAX && i < 1000; i++)
		usleep(10000);
	assert_true(size_of(&r, "suspended/state") != UINT64_MAX);
	rig_finish(&r);
}

/* Its memory would not fit. */
static void resume_of_a_changed_volume(void **state)
{
	char *text = NULL;
	struct rig r;

	rig_start(&r, &(struct rig_options){.argv = {"cat"}, .resume = true, .volume = true, .keep = true});
	for (int i = 0; size_of(&r, "exit.json") == UINT64_MAX && i < 1000; i++)
		usleep(10000);
	assert_int_equal(read_file_at(r.dirfd, "exit.json", 10000, &text, NULL), 0);
	assert_non_null(strstr(text, "is not what it was when the VM was suspended"));
	free(text);
	assert_true(size_of(&r, "suspended/state") != UINT64_MAX && size_of(&r, "layer.1") != UINT64_MAX);
	rig_finish(&r);
}

/* A freeze that was not finished left the top as a layer too: it is the top all the same. */
static void unfinished_freeze(void **state)
{
	char dir[] = "/tmp/test-keeper-disk.XXXXXX";
	int fd, top;

	assert_non_null(mkdtemp(dir));
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(write_file_atomic_at(fd, "top", "one", 3, 0600), 0);
	assert_int_equal(disk_layers(fd), 0);
	assert_int_equal(linkat(fd, "top", fd, "layer.0", 0), 0);
	assert_int_equal(disk_layers(fd), 0);
	top = disk_new_top(fd);
	assert_true(top >= 0);
	assert_int_equal(disk_freeze(fd, 0), 0);
	assert_int_equal(disk_layers(fd), 1);
	assert_int_equal(write(top, "more", 4), 4);
	close(top);
	disk_unfreeze(fd, 0);
	assert_int_equal(disk_layers(fd), 0);
	assert_int_equal(disk_freeze(fd, VM_MAX_LAYERS), -E2BIG);
	close(fd);
	remove_tree_at(AT_FDCWD, dir);
}

/* A VM that goes on from a snapshot: its command is adopted, its output attached again. */
static void adopted_command(void **state)
{
	struct vm_exit x;
	struct rig r;

	rig_start(&r, &(struct rig_options){
			      .argv = {"cat"}, .state = "adopt", .adopt = true, .owner = true, .stdin_open = true});
	rig_connect(&r);
	rig_wait_channel(&r, true);
	rig_attach(&r);
	rig_until(&r, &r.main.opened);
	assert_int_equal(mux_send_eof(r.conn.mux, r.main.ch, 0), 0);
	rig_until(&r, &r.wait.ended);
	assert_string_equal(r.text, "again\n");
	x = rig_finish(&r);
	expect(&x, SM_REASON_EXITED, 0);
}

static struct call ask(struct rig *r, uint16_t service, const struct buf *b)
{
	struct call call;

	assert_int_equal(conn_call(&r->conn, service, b, &call), 0);
	rig_until(r, &call.closed);
	return call;
}

/* The code of the answer to a request without a body. */
static int ask_code(struct rig *r, uint16_t service)
{
	struct call call = ask(r, service, NULL);

	assert_int_equal(call.opened, call.code == 0);
	call_done(&call);
	return call.code;
}

static void start_marked(struct rig *r, const struct rig_options *o, int code)
{
	rig_start(r, o);
	rig_connect(r);
	rig_wait_channel(r, false);
	rig_until(r, &r->wait.started);
	assert_int_equal(ask_code(r, PROTO_KEEPER_REWIND), -ENODATA);
	assert_int_equal(write_file_atomic_at(r->dirfd, "top", "first", 5, 0600), 0);
	assert_int_equal(ask_code(r, PROTO_KEEPER_MARK), code);
}

static void stop_marked(struct rig *r)
{
	struct vm_exit x;

	rig_stop(r, KEEPER_STOP_NOW, 0, 0);
	rig_until(r, &r->wait.ended);
	x = rig_finish(r);
	expect(&x, SM_REASON_STOPPED, 137);
}

/* Goes back, twice: the command is adopted, the log is gone; who has waited for the VM goes
 * on waiting. */
static void goes_back_to_its_mark(void **state)
{
	struct keeper_snapshot_reply reply;
	struct rig r;

	start_marked(&r, &(struct rig_options){.argv = {"sleep"}, .keep = true}, 0);
	assert_true(size_of(&r, "layer.0") == 5 && size_of(&r, "top") == 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(ask_pause(&r, true), 0);
		assert_int_equal(ask_code(&r, PROTO_KEEPER_REWIND), -EHOSTDOWN);
		assert_int_equal(ask_pause(&r, false), 0);
		assert_int_equal(ask_code(&r, PROTO_KEEPER_REWIND), 0);
		assert_int_equal(ask_state(&r), SM_VM_RUNNING);
		assert_true(size_of(&r, "layer.0") == 5 && size_of(&r, "top") == 0);
		assert_true(faccessat(r.dirfd, "layer.1", F_OK, 0) < 0 && faccessat(r.dirfd, "log.1", F_OK, 0) < 0);
		/* What the command says when it is adopted is all there is in the log. */
		assert_true(size_of(&r, "log") <= VM_LOG_HEADER + 6);
	}
	/* What it has on its disk is a snapshot's now. */
	assert_int_equal(ask_snapshot(&r, &reply), 0);
	assert_int_equal(ask_code(&r, PROTO_KEEPER_REWIND), -ENODATA);
	stop_marked(&r);
}

/* Without a mark nothing has changed; one that could not go back ends; what a volume holds cannot be taken back. */
static void marks_that_fail(void **state)
{
	struct vm_exit x;
	struct rig r;

	start_marked(&r, &(struct rig_options){.argv = {"sleep"}, .script = "mark-fails", .keep = true}, -EOPNOTSUPP);
	assert_int_equal(ask_code(&r, PROTO_KEEPER_REWIND), -ENODATA);
	assert_true(size_of(&r, "top") == 5);
	stop_marked(&r);

	start_marked(&r, &(struct rig_options){.argv = {"sleep"}, .keep = true, .volume = true}, -EOPNOTSUPP);
	stop_marked(&r);

	start_marked(&r, &(struct rig_options){.argv = {"sleep"}, .script = "rewind-fails", .keep = true}, 0);
	assert_int_equal(ask_code(&r, PROTO_KEEPER_REWIND), -ESRCH);
	rig_until(&r, &r.wait.ended);
	x = rig_finish(&r);
	assert_int_equal(x.outcome.status, 125);
}

static void missing_monitor(void **state)
{
	struct vm_exit x;
	struct rig r;

	rig_start(&r, &(struct rig_options){.argv = {"exit"}, .vmm = "/nonexistent/vmm"});
	x = rig_finish(&r);
	expect(&x, SM_REASON_START_FAILED, 125);
}

static void command_without_exit_status(void **state)
{
	struct vm_exit x;

	ends_by_itself(NULL, "noexit", &x);
	expect(&x, SM_REASON_GUEST_PANIC, 125);
	ends_by_itself(NULL, "notfound", &x);
	expect(&x, SM_REASON_NOT_FOUND, 127);
	assert_int_equal(x.started_ns, 0);
}

static void stops(const char *what, enum keeper_stop_mode mode, int signal, enum sm_reason reason, int status)
{
	struct vm_exit x;
	struct rig r;

	rig_start(&r, &(struct rig_options){.argv = {what}, .limits = {.poweroff = 50 * MS, .stop = 50 * MS}});
	rig_connect(&r);
	rig_wait_channel(&r, false);
	rig_until(&r, &r.wait.started);
	rig_stop(&r, mode, signal, 20 * MS);
	rig_until(&r, &r.wait.ended);
	x = rig_finish(&r);
	expect(&x, reason, status);
}

static void stop_in_every_way(void **state)
{
	stops("sleep", KEEPER_STOP_GRACE, 0, SM_REASON_STOPPED, 128 + SIGTERM);
	stops("stubborn", KEEPER_STOP_GRACE, 0, SM_REASON_STOPPED, 128 + SIGKILL);
	stops("stone", KEEPER_STOP_GRACE, 0, SM_REASON_STOPPED, 128 + SIGKILL); /* not even SIGKILL: the monitor ends */
	stops("sleep", KEEPER_STOP_SIGNAL, SIGUSR1, SM_REASON_SIGNALLED, 128 + SIGUSR1);
	stops("sleep", KEEPER_STOP_NOW, 0, SM_REASON_STOPPED, 128 + SIGKILL);
}

static void stop_before_the_command(void **state)
{
	struct vm_exit x;
	struct rig r;

	rig_start(&r, &(struct rig_options){.script = "silent", .argv = {"exit"}});
	rig_connect(&r);
	rig_wait_channel(&r, false);
	rig_stop(&r, KEEPER_STOP_SIGNAL, SIGUSR1, 0); /* nobody to get it yet */
	rig_stop(&r, KEEPER_STOP_SIGNAL, SIGINT, 0);
	rig_until(&r, &r.wait.ended);
	x = rig_finish(&r);
	expect(&x, SM_REASON_STOPPED, 128 + SIGINT);
}

static void deaf_monitor_is_killed(void **state)
{
	struct vm_exit x;
	struct rig r;

	rig_start(&r, &(struct rig_options){.script = "deaf", .argv = {"exit", "0"}, .limits = {.stop = 50 * MS}});
	x = rig_finish(&r);
	expect(&x, SM_REASON_EXITED, 0);
}

static void kept_disk_gets_a_clean_shutdown(void **state)
{
	struct vm_exit x;
	struct rig r;

	rig_start(&r, &(struct rig_options){.script = "no-poweroff",
					    .argv = {"exit", "0"},
					    .keep = true,
					    .limits = {.poweroff = 50 * MS}});
	x = rig_finish(&r);
	expect(&x, SM_REASON_EXITED, 0);
	assert_true(x.outcome.stages[x.outcome.num_stages - 1].ns >= 50 * MS);
}

static void time_limit_of_the_keeper(void **state)
{
	struct vm_exit x;
	struct rig r;

	rig_start(&r, &(struct rig_options){.argv = {"sleep"}, .timeout_ns = 20 * MS, .limits = {.late = 30 * MS}});
	x = rig_finish(&r);
	expect(&x, SM_REASON_TIMEOUT, 124);
}

static void attach_once_leave_and_return(void **state)
{
	struct rig r, second;
	struct vm_exit x;

	rig_start(&r, &(struct rig_options){.argv = {"cat"}, .stdin_open = true});
	rig_connect(&r);
	rig_wait_channel(&r, false);
	rig_attach(&r);
	rig_until(&r, &r.main.opened);
	second = r;
	second.wait = second.main = (struct call){0};
	rig_connect(&second);
	rig_attach(&second);
	rig_until(&second, &second.main.closed);
	assert_int_equal(second.main.code, -EBUSY);
	rig_disconnect(&r); /* the command goes on */
	do {
		call_done(&second.main);
		rig_attach(&second);
		while (!second.main.opened && !second.main.closed)
			assert_int_equal(conn_step(&second.conn, NULL, 0, 1000), 0);
	} while (second.main.closed && second.main.code == -EBUSY); /* it may not have seen the other go yet */
	assert_true(second.main.opened);
	assert_int_equal(mux_send(second.conn.mux, second.main.ch, 0, "hello", 5), 0);
	while (second.received < 5)
		assert_int_equal(conn_step(&second.conn, NULL, 0, 1000), 0);
	assert_memory_equal(second.text, "hello", 5);
	rig_wait_channel(&second, false);
	rig_stop(&second, KEEPER_STOP_GRACE, SIGTERM, 1000 * MS);
	rig_until(&second, &second.wait.ended);
	x = rig_finish(&second);
	expect(&x, SM_REASON_STOPPED, 128 + SIGTERM);
}

/* How the keeper answers a request for a detached command; 0 and its number, or the closing code. */
static int spawn(struct rig *r, const char *command, struct keeper_spawned *ret)
{
	char *argv[] = {(char *)(uintptr_t)command, NULL};
	struct proto_exec x = {.argv = argv, .stdin_open = true};
	struct cursor reply;
	struct buf b = {0};
	struct call call;
	int code;

	assert_int_equal(proto_exec_encode(&b, &x), 0);
	assert_int_equal(conn_call(&r->conn, PROTO_KEEPER_SPAWN, &b, &call), 0);
	rig_until(r, &call.closed);
	code = call.code;
	reply = cursor_of(call.reply.data, call.reply.len);
	if (code == 0)
		assert_int_equal(keeper_spawned_decode(&reply, ret), 0);
	call_done(&call);
	buf_done(&b);
	return code;
}

static int signal_exec(struct rig *r, uint64_t number, int sig)
{
	struct keeper_exec_signal m = {.exec = number, .signal = sig};
	struct buf b = {0};
	struct call call;
	int code;

	assert_int_equal(keeper_exec_signal_encode(&b, &m), 0);
	assert_int_equal(conn_call(&r->conn, PROTO_KEEPER_EXEC_SIGNAL, &b, &call), 0);
	rig_until(r, &call.closed);
	code = call.code;
	call_done(&call);
	buf_done(&b);
	return code;
}

static void attach_exec(struct rig *r, uint64_t number)
{
	struct keeper_attach a = {.stdin_open = true, .exec = number};
	struct buf b = {0};

	call_done(&r->main);
	assert_int_equal(keeper_attach_encode(&b, &a), 0);
	assert_int_equal(conn_call(&r->conn, PROTO_KEEPER_ATTACH, &b, &r->main), 0);
	buf_done(&b);
	while (!r->main.opened && !r->main.closed)
		assert_int_equal(conn_step(&r->conn, NULL, 0, 1000), 0);
}

static struct vm_exit exec_exit(struct rig *r, unsigned number)
{
	uint64_t deadline = time_now_ns() + 10000 * MS;
	char name[EXEC_NAME_SIZE], *json = NULL;
	struct vm_exit x = {0};
	size_t len;

	exec_file_name(name, number, EXEC_EXIT);
	while (read_file_at(r->dirfd, name, VM_RECORD_MAX, &json, &len) < 0 && time_now_ns() < deadline)
		poll(NULL, 0, 2);
	assert_non_null(json);
	assert_int_equal(vm_exit_parse(json, len, &x, NULL), 0);
	free(json);
	return x;
}

static void detached_commands_are_kept(void **state)
{
	struct keeper_spawned first, second;
	struct vm_exec_record rec;
	char *text = NULL;
	struct vm_exit x;
	struct rig r;
	size_t len;

	rig_start(&r, &(struct rig_options){.argv = {"cat"}, .stdin_open = true});
	rig_connect(&r);
	rig_wait_channel(&r, false);
	rig_until(&r, &r.wait.started);
	assert_int_equal(spawn(&r, "notfound", &first), -ENOENT);
	assert_int_equal(spawn(&r, "first", &first), 0);
	assert_int_equal(spawn(&r, "second", &second), 0);
	assert_true(first.pid == 78 && second.exec == first.exec + 1);

	/* The record, and the log of what it has said before anybody came. */
	assert_int_equal(
		read_file_at(r.dirfd, exec_file_name(r.text, (unsigned)first.exec, EXEC_RECORD), 4096, &text, &len), 0);
	assert_int_equal(vm_exec_parse(text, len, &rec, NULL), 0);
	assert_string_equal(rec.argv[0], "first");
	assert_true(rec.stdin_open && rec.pid == 78 && rec.started_ns);
	vm_exec_done(&rec);
	free(text);

	/* One client at a time; it goes on when that leaves. */
	rig_disconnect(&r);
	rig_connect(&r);
	rig_wait_channel(&r, false);
	r.received = 0;
	attach_exec(&r, second.exec);
	assert_true(r.main.opened);
	assert_int_equal(mux_send(r.conn.mux, r.main.ch, 0, "hello", 5), 0);
	while (r.received < 5)
		assert_int_equal(conn_step(&r.conn, NULL, 0, 1000), 0);
	assert_memory_equal(r.text, "hello", 5);
	assert_int_equal(signal_exec(&r, 99, SIGTERM), -ESRCH);
	assert_int_equal(signal_exec(&r, second.exec, SIGUSR1), 0);
	rig_until(&r, &r.main.closed);
	assert_true(r.main.has_exit && r.main.exit.signal == SIGUSR1);
	x = exec_exit(&r, (unsigned)second.exec);
	assert_true(x.outcome.status == 128 + SIGUSR1 && x.finished_ns >= x.started_ns);
	attach_exec(&r, second.exec);
	assert_true(r.main.closed && r.main.code == -ESRCH);
	assert_int_equal(
		read_file_at(r.dirfd, exec_file_name(r.text, (unsigned)second.exec, EXEC_LOG), 4096, &text, &len), 0);
	assert_int_equal(len, 2 * VM_LOG_HEADER + 10);
	assert_memory_equal(text + VM_LOG_HEADER, "side\n", 5);
	free(text);

	/* The VM's end is the end of the one that still runs. */
	rig_stop(&r, KEEPER_STOP_GRACE, SIGTERM, 1000 * MS);
	rig_until(&r, &r.wait.ended);
	x = exec_exit(&r, (unsigned)first.exec);
	assert_true(x.outcome.reason == SM_REASON_STOPPED && x.outcome.status == 137);
	x = rig_finish(&r);
	expect(&x, SM_REASON_STOPPED, 128 + SIGTERM);
}

static void slow_reader_stops_the_command(void **state)
{
	const size_t total = 8 << 20;
	struct vm_exit x;
	struct rig r;

	rig_start(&r, &(struct rig_options){.argv = {"flood", "8388608"}, .owner = true});
	rig_connect(&r);
	rig_wait_channel(&r, true);
	r.hold = true;
	rig_attach(&r);
	rig_until(&r, &r.main.opened);
	for (int i = 0; i < 20; i++)
		assert_int_equal(conn_step(&r.conn, NULL, 0, 20), 0);
	assert_true(r.received <= PROTO_DEFAULT_WINDOW);
	assert_false(r.main.closed);
	r.hold = false;
	mux_consumed(r.conn.mux, r.main.ch, 1, r.held[0]);
	rig_until(&r, &r.main.closed);
	assert_int_equal(r.received, total);
	x = rig_finish(&r);
	expect(&x, SM_REASON_EXITED, 0);
}

static void hostile_clients_harm_only_themselves(void **state)
{
	static const char junk[] = "GET / HTTP/1.0\r\n\r\n";
	struct vm_exit x;
	struct rig r;
	struct call call;
	char end;

	rig_start(&r, &(struct rig_options){.argv = {"sleep"}});
	rig_connect(&r);
	for (int i = 0; i < 300; i++) {
		int fd = unix_connect(r.socket);

		assert_true(fd >= 0);
		if (i % 3)
			assert_int_equal(write_full(fd, junk, sizeof(junk) - 1), 0);
		if (i % 3 == 1)
			while (read(fd, &end, 1) > 0)
				;
		close(fd);
	}
	for (uint16_t service = 0; service < 80; service++) {
		struct buf b = {0};

		if (service == PROTO_KEEPER_STATUS)
			continue;
		buf_put(&b, "\xff\xff\xff\xff\xff", 5); /* no TLV list */
		assert_int_equal(conn_call(&r.conn, service, &b, &call), 0);
		buf_done(&b);
		rig_until(&r, &call.closed);
		assert_true(call.code < 0);
		call_done(&call);
	}
	assert_true(monitor_pid(&r) > 0);
	rig_wait_channel(&r, false);
	rig_stop(&r, KEEPER_STOP_NOW, 0, 0);
	rig_until(&r, &r.wait.ended);
	x = rig_finish(&r);
	expect(&x, SM_REASON_STOPPED, 128 + SIGKILL);
}

/* Above a keeper's number of clients: SM_ERROR_BUSY. They still see the VM and may end it. */
static void one_client_too_many_is_told(void **state)
{
	static const char *const command[] = {"true", NULL};
	struct proto_exec e = {.argv = (char **)(uintptr_t)command};
	struct sm_error err = {0};
	struct buf b = {0}, wait = {0};
	struct conn taken;
	int first, crowd[100];
	struct vm_exit x;
	struct call call;
	struct rig r;

	rig_start(&r, &(struct rig_options){.argv = {"sleep"}, .clients = 2});
	rig_connect(&r);
	taken = r.conn;
	assert_true((first = unix_connect(r.socket)) >= 0);
	rig_connect(&r);
	assert_int_equal(proto_exec_encode(&b, &e), 0);
	call = ask(&r, PROTO_EXEC, &b);
	assert_int_equal(call.code, -EUSERS);
	assert_int_equal(call_error(&r.conn, &call, "command in VM x", &err), -EBUSY);
	assert_int_equal(err.kind, SM_ERROR_BUSY);
	assert_non_null(strstr(err.message, "command in VM x: it serves as many commands and other clients as it can"));
	assert_non_null(strstr(err.message, "try again when some have ended"));
	call_done(&call);
	assert_true(monitor_pid(&r) > 0);

	/* Those too many have a limit as well: who comes then waits, and is served when there is room. */
	for (int i = 0; i < 100; i++)
		assert_true((crowd[i] = unix_connect(r.socket)) >= 0);
	rig_disconnect(&r);
	close(first);
	conn_done(&taken);
	rig_connect(&r);
	for (int i = 0; i < 100; i++)
		close(crowd[i]);
	assert_true(monitor_pid(&r) > 0);
	rig_disconnect(&r);

	/* And to a stop there is always a way. */
	for (int i = 0; i < 3; i++)
		assert_true((crowd[i] = unix_connect(r.socket)) >= 0);
	rig_connect(&r);
	assert_int_equal(keeper_wait_encode(&wait, &(struct keeper_wait){0}), 0);
	assert_int_equal(conn_call(&r.conn, PROTO_KEEPER_WAIT, &wait, &r.wait), 0);
	rig_until(&r, &r.wait.opened);
	rig_stop(&r, KEEPER_STOP_NOW, 0, 0);
	rig_until(&r, &r.wait.ended);
	for (int i = 0; i < 3; i++)
		close(crowd[i]);
	buf_done(&b);
	buf_done(&wait);
	x = rig_finish(&r);
	expect(&x, SM_REASON_STOPPED, 128 + SIGKILL);
}

static void agent_services_pass_through(void **state)
{
	char *argv[] = {"true", NULL};
	struct proto_exec e = {.argv = argv};
	struct buf b = {0};
	struct vm_exit x;
	struct call call;
	struct rig r;

	rig_start(&r, &(struct rig_options){.argv = {"sleep"}});
	rig_connect(&r);
	rig_wait_channel(&r, false);
	rig_until(&r, &r.wait.started);
	assert_int_equal(proto_exec_encode(&b, &e), 0);
	assert_int_equal(conn_call(&r.conn, PROTO_EXEC, &b, &call), 0);
	buf_done(&b);
	rig_until(&r, &call.closed);
	assert_int_equal(call.code, -ENOENT);
	assert_string_equal(call.text, "scripted refusal");
	call_done(&call);
	rig_stop(&r, KEEPER_STOP_NOW, 0, 0);
	x = rig_finish(&r);
	expect(&x, SM_REASON_STOPPED, 128 + SIGKILL);
}

static int give_secret(struct rig *r, const char *name)
{
	struct proto_secret s = {.data = (const uint8_t *)"x", .len = 1};
	struct buf b = {0};
	struct call call;
	int code;

	strcpy(s.name, name);
	assert_int_equal(proto_secret_encode(&b, &s), 0);
	assert_int_equal(conn_call(&r->conn, PROTO_KEEPER_SECRET, &b, &call), 0);
	buf_done(&b);
	rig_until(r, &call.closed);
	code = call.code;
	call_done(&call);
	return code;
}

/* The command waits for all that the record names, and for nothing else. */
static void secrets_come_first(void **state)
{
	struct vm_exit x;
	struct rig r;

	rig_start(&r, &(struct rig_options){.argv = {"sleep"}, .secrets = {"one", "two"}});
	rig_connect(&r);
	rig_wait_channel(&r, false);
	assert_int_equal(give_secret(&r, "two"), 0);
	assert_int_equal(give_secret(&r, "two"), -EALREADY);
	assert_int_equal(give_secret(&r, "three"), -ENOENT);
	assert_int_equal(conn_step(&r.conn, NULL, 0, 200), 0);
	assert_false(r.wait.started);
	assert_int_equal(give_secret(&r, "one"), 0);
	rig_until(&r, &r.wait.started);
	assert_int_equal(give_secret(&r, "one"), -EALREADY);
	rig_stop(&r, KEEPER_STOP_NOW, 0, 0);
	x = rig_finish(&r);
	expect(&x, SM_REASON_STOPPED, 128 + SIGKILL);
}

static void secret_that_fails(void **state)
{
	struct vm_exit x;
	struct rig r;

	rig_start(&r, &(struct rig_options){.script = "secret-fails", .argv = {"sleep"}, .secrets = {"one"}});
	rig_connect(&r);
	rig_wait_channel(&r, false);
	assert_int_equal(give_secret(&r, "one"), 0);
	rig_until(&r, &r.wait.ended);
	x = rig_finish(&r);
	expect(&x, SM_REASON_START_FAILED, 125);
	assert_non_null(strstr(x.outcome.message, "scripted failure"));
}

static bool has_stage(const struct vm_exit *x, const char *name)
{
	for (unsigned i = 0; i < x->outcome.num_stages; i++)
		if (streq(x->outcome.stages[i].name, name))
			return true;
	return false;
}

static void base_is_saved(void **state)
{
	char *text = NULL;
	struct vm_exit x;
	struct rig r;
	size_t len;

	rig_start(&r, &(struct rig_options){.script = "snapshot-slow", .argv = {"-"}, .base = true, .owner = true});
	rig_connect(&r);
	rig_wait_channel(&r, true);
	rig_until(&r, &r.wait.ended);
	assert_false(r.wait.started);
	assert_int_equal(read_file_at(r.dirfd, "state", 100, &text, &len), 0);
	assert_string_equal(text, "state");
	free(text);
	assert_int_equal(read_file_at(r.dirfd, "memory", 100, &text, &len), 0);
	assert_string_equal(text, "memory");
	free(text);
	assert_int_equal(faccessat(r.dirfd, VM_PLUGGABLE, F_OK, 0), 0);
	x = rig_finish(&r);
	expect(&x, SM_REASON_EXITED, 0);
	assert_true(has_stage(&x, "boot") && has_stage(&x, "snapshot"));
}

static void base_cannot_be_saved(void **state)
{
	static const char *const scripts[] = {"prepare-fails", "snapshot-fails", "dies"};

	for (size_t i = 0; i < ARRAY_SIZE(scripts); i++) {
		struct vm_exit x;
		struct rig r;

		rig_start(&r, &(struct rig_options){.script = scripts[i], .argv = {"-"}, .base = true});
		x = rig_finish(&r);
		expect(&x, SM_REASON_START_FAILED, 125);
		assert_false(x.restore_failed);
	}
}

static void base_ends_with_its_maker(void **state)
{
	struct vm_exit x;
	struct rig r;

	rig_start(&r, &(struct rig_options){.script = "silent", .argv = {"-"}, .base = true, .owner = true});
	rig_connect(&r);
	rig_wait_channel(&r, true);
	rig_disconnect(&r);
	x = rig_finish(&r);
	expect(&x, SM_REASON_CLIENT_GONE, 125);
}

static void restored_vm_runs(void **state)
{
	char *text = NULL;
	struct vm_exit x;
	struct rig r;
	size_t len;

	rig_start(&r, &(struct rig_options){.argv = {"exit", "7"}, .state = "fine", .owner = true});
	rig_connect(&r);
	rig_wait_channel(&r, true);
	rig_attach(&r);
	rig_until(&r, &r.wait.ended);
	/* It is the snapshot's first: what it wrote before its command ran is noted beside it. */
	assert_int_equal(read_file_at(r.dirfd, "snapshot/workingset", 100, &text, &len), 0);
	assert_string_equal(text, "pages");
	free(text);
	x = rig_finish(&r);
	expect(&x, SM_REASON_EXITED, 7);
	assert_true(has_stage(&x, "restore") && !has_stage(&x, "boot"));
	assert_false(x.restore_failed);
}

/* Its starter was killed, and somebody has written the record of its end before it came up. */
static void given_up_before_it_answered(void **state)
{
	for (int i = 0; i < 4; i++) {
		struct vm_exit x;
		struct rig r;

		rig_start(&r, &(struct rig_options){.argv = {"exit", "7"},
						    .state = i % 2 ? "fine" : NULL,
						    .owner = i / 2,
						    .given_up = true});
		x = rig_finish(&r);
		expect(&x, SM_REASON_STOPPED, 125);
		assert_non_null(strstr(x.outcome.message, "given up"));
	}
}

/* Before anybody could connect: the library looks for the record. */
static void broken_snapshots_are_told(void **state)
{
	static const char *const states[] = {"refused", "", "silent"};

	for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
		bool late = streq(states[i], "silent"); /* accepted, but its guest never speaks */
		struct vm_exit x;
		struct rig r;

		rig_start(&r, &(struct rig_options){.argv = {"exit", "7"},
						    .state = states[i],
						    .owner = true,
						    .limits = {.boot = late ? 200 * MS : 0}});
		x = rig_finish(&r);
		expect(&x, SM_REASON_START_FAILED, 125);
		assert_true(x.restore_failed);
	}
}

/* With more memory to be left alone than there is no VM starts, and nothing of one has. */
static void no_memory_is_busy(void **state)
{
	struct vm_exit x;
	struct rig r;

	for (int i = 0; i < 2; i++) {
		rig_start(&r, &(struct rig_options){.argv = {"exit", "7"},
						    .reserve = UINT64_MAX / 2,
						    .patience = i ? 50 * MS : 0,
						    .state = i ? "fine" : NULL});
		x = rig_finish(&r);
		expect(&x, SM_REASON_START_FAILED, 125);
		assert_true(x.busy && !x.restore_failed);
		assert_non_null(strstr(x.outcome.message, "no memory for one more VM"));
		assert_false(has_stage(&x, "boot") || has_stage(&x, "restore"));
	}
}

static void others_start_first(void **state)
{
	struct slots first;
	struct vm_exit x;
	char *text = NULL;
	struct rig r;
	size_t len;

	rig_start(&r, &(struct rig_options){.argv = {"exit", "7"}, .patience = 50 * MS, .first = &first});
	x = rig_finish(&r);
	slots_close(&first);
	expect(&x, SM_REASON_START_FAILED, 125);
	assert_true(x.busy);
	assert_non_null(strstr(x.outcome.message, "VMs are starting"));

	rig_start(&r, &(struct rig_options){
			      .argv = {"exit", "7"}, .owner = true, .patience = 3600 * SECOND_NS, .first = &first});
	while (read_file_at(r.dirfd, "waiting", 100, &text, &len) < 0)
		usleep(1000);
	assert_string_equal(text, "turn");
	free(text);
	slots_close(&first);
	rig_connect(&r);
	rig_wait_channel(&r, true);
	rig_attach(&r);
	rig_until(&r, &r.wait.ended);
	assert_true(faccessat(r.dirfd, "waiting", F_OK, 0) < 0);
	x = rig_finish(&r);
	expect(&x, SM_REASON_EXITED, 7);
	assert_true(has_stage(&x, "queue") && !x.busy);

	/* Whoever started it is gone. */
	rig_start(&r, &(struct rig_options){.argv = {"exit", "7"}, .patience = 3600 * SECOND_NS, .first = &first});
	assert_int_equal(write_file_atomic_at(r.dirfd, "exit.json", "{}", 2, 0600), 0);
	x = rig_finish(&r);
	slots_close(&first);
	expect(&x, SM_REASON_START_FAILED, 125);
	assert_false(x.busy);
}

/* ------------------------------------------------------------------------------------------ spares */

static const struct rig_options a_spare = {.argv = {"-"}, .state = "spare", .spare = 60000 * MS};

/* Claimed as it comes up, and when it stands still. */
static void spare_becomes_a_vm(void **state)
{
	static const char *const argv[] = {"exit", "7", NULL};

	for (int late = 0; late < 2; late++) {
		struct vm_exit x;
		struct rig r;

		rig_start(&r, &a_spare);
		rig_connect(&r);
		poll(NULL, 0, late * 300);
		rig_claim(&r, argv, late ? "other" : "h", late);
		rig_until(&r, &r.wait.opened);
		rig_attach(&r);
		rig_until(&r, &r.wait.ended);
		assert_true(r.wait.started);
		assert_int_equal(faccessat(r.dirfd, "log", F_OK, 0), late ? 0 : -1);
		x = rig_finish(&r);
		expect(&x, SM_REASON_EXITED, 7);
		assert_true(has_stage(&x, "prepare") && has_stage(&x, "spare") && has_stage(&x, "exec"));
		assert_false(has_stage(&x, "restore") || has_stage(&x, "setup") || has_stage(&x, "monitor"));
		assert_string_equal(r.text, "out\nerr\n");
	}
}

static int refused(struct rig *r, uint16_t service)
{
	struct call call;
	int code;

	assert_int_equal(conn_call(&r->conn, service, NULL, &call), 0);
	rig_until(r, &call.closed);
	code = call.code;
	call_done(&call);
	return code;
}

static void spare_serves_nobody(void **state)
{
	static const char *const argv[] = {"cat", NULL};
	struct vm_exit x;
	struct call first;
	struct rig r;

	rig_start(&r, &a_spare);
	rig_connect(&r);
	poll(NULL, 0, 200);
	assert_int_equal(refused(&r, PROTO_KEEPER_ATTACH), -EAGAIN);
	assert_int_equal(refused(&r, PROTO_KEEPER_PAUSE), -EAGAIN);
	assert_int_equal(refused(&r, PROTO_EXEC), -EAGAIN);
	assert_int_equal(refused(&r, PROTO_KEEPER_CLAIM), -EPROTO);
	assert_true(monitor_pid(&r) > 0);
	rig_claim(&r, argv, "h", false);
	rig_until(&r, &r.wait.opened);
	/* What it is to have is another's now. */
	first = r.wait;
	rig_claim(&r, argv, "h", false);
	rig_until(&r, &r.wait.closed);
	assert_int_equal(r.wait.code, -EALREADY);
	call_done(&first);
	rig_disconnect(&r);
	x = rig_finish(&r);
	expect(&x, SM_REASON_CLIENT_GONE, 125);

	/* Stopped as long as it is nobody's. */
	rig_start(&r, &a_spare);
	rig_connect(&r);
	rig_stop(&r, KEEPER_STOP_NOW, 0, 0);
	rig_vanished(&r);
}

static void spare_ends_by_itself(void **state)
{
	struct rig_options o = a_spare;
	struct slots first;
	struct rig r;

	o.spare = 100 * MS;
	rig_start(&r, &o);
	rig_vanished(&r);

	/* Its guest does not come up. */
	o.state = "setup-fails";
	rig_start(&r, &o);
	rig_vanished(&r);

	/* It does not wait for its turn. */
	o.state = "spare";
	o.first = &first;
	rig_start(&r, &o);
	rig_vanished(&r);
	slots_close(&first);
}

static void spare_ends_with_who_took_it(void **state)
{
	static const char *const argv[] = {"cat", NULL};
	struct vm_exit x;
	struct rig r;

	rig_start(&r, &a_spare);
	rig_connect(&r);
	poll(NULL, 0, 200);
	rig_claim(&r, argv, "h", false);
	rig_until(&r, &r.wait.opened);
	rig_attach(&r);
	rig_until(&r, &r.main.opened);
	rig_disconnect(&r);
	x = rig_finish(&r);
	expect(&x, SM_REASON_CLIENT_GONE, 125);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(owner_gets_output_and_status),
		cmocka_unit_test(no_memory_is_busy),
		cmocka_unit_test(others_start_first),
		cmocka_unit_test(detached_output_is_logged),
		cmocka_unit_test(owner_gone_ends_the_vm),
		cmocka_unit_test(attached_owner_gone_first),
		cmocka_unit_test(background_needs_no_attach),
		cmocka_unit_test(owner_never_comes),
		cmocka_unit_test(killed_monitor_is_told),
		cmocka_unit_test(killed_keeper_takes_the_monitor_along),
		cmocka_unit_test(panic_has_its_line),
		cmocka_unit_test(full_host_disk_is_told),
		cmocka_unit_test(guest_shutdown_is_told),
		cmocka_unit_test(failures_before_the_command),
		cmocka_unit_test(share_of_the_cpus),
		cmocka_unit_test(missing_monitor),
		cmocka_unit_test(command_without_exit_status),
		cmocka_unit_test(stop_in_every_way),
		cmocka_unit_test(stop_before_the_command),
		cmocka_unit_test(deaf_monitor_is_killed),
		cmocka_unit_test(kept_disk_gets_a_clean_shutdown),
		cmocka_unit_test(time_limit_of_the_keeper),
		cmocka_unit_test(attach_once_leave_and_return),
		cmocka_unit_test(detached_commands_are_kept),
		cmocka_unit_test(slow_reader_stops_the_command),
		cmocka_unit_test(hostile_clients_harm_only_themselves),
		cmocka_unit_test(one_client_too_many_is_told),
		cmocka_unit_test(agent_services_pass_through),
		cmocka_unit_test(base_is_saved),
		cmocka_unit_test(base_cannot_be_saved),
		cmocka_unit_test(pause_puts_limits_off),
		cmocka_unit_test(stop_ends_a_pause),
		cmocka_unit_test(snapshots_of_a_running_vm),
		cmocka_unit_test(volumes_are_held_for_copies),
		cmocka_unit_test(resume_of_a_changed_volume),
		cmocka_unit_test(failed_snapshot_changes_nothing),
		cmocka_unit_test(lost_snapshot),
		cmocka_unit_test(suspended),
		cmocka_unit_test(suspended_over_a_file),
		cmocka_unit_test(suspend_refused_or_failed),
		cmocka_unit_test(counters_are_passed_on),
		cmocka_unit_test(time_to_live_ends),
		cmocka_unit_test(idle_vm_is_ended),
		cmocka_unit_test(used_vm_is_not_idle),
		cmocka_unit_test(idle_vm_is_suspended),
		cmocka_unit_test(resumed),
		cmocka_unit_test(resume_failed),
		cmocka_unit_test(unfinished_freeze),
		cmocka_unit_test(adopted_command),
		cmocka_unit_test(goes_back_to_its_mark),
		cmocka_unit_test(marks_that_fail),
		cmocka_unit_test(secrets_come_first),
		cmocka_unit_test(secret_that_fails),
		cmocka_unit_test(base_ends_with_its_maker),
		cmocka_unit_test(restored_vm_runs),
		cmocka_unit_test(given_up_before_it_answered),
		cmocka_unit_test(spare_becomes_a_vm),
		cmocka_unit_test(spare_serves_nobody),
		cmocka_unit_test(spare_ends_by_itself),
		cmocka_unit_test(spare_ends_with_who_took_it),
		cmocka_unit_test(broken_snapshots_are_told),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
