/* SPDX-License-Identifier: Apache-2.0 */
/* Here or in the machine. See seat.h. */
#include "machine/seat.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/process.h"
#include "base/util.h"
#include "machine/client.h"
#include "proto/messages.h"

#define MACHINE_RUNTIME_DIR "/run/supermachine" /* made by the machine's agent */
#define CPUINFO_MAX 16384			/* the first CPU is in there */
#define CONNECT_LIMIT_NS (30ULL * 1000000000)
#define EXPECTATION "several times slower than on hardware"

struct seat {
	bool in_machine;
	char *runtime_dir, *data_dir, *state_dir, *libexec_dir, *notice;
	struct kvm_probe probe;
	struct machine_place place;
};

int seat_mode_parse(const char *s, enum seat_mode *ret, struct sm_error *err)
{
	if (!s || !*s || streq(s, "auto"))
		*ret = SEAT_AUTO;
	else if (streq(s, "always"))
		*ret = SEAT_ALWAYS;
	else if (streq(s, "never"))
		*ret = SEAT_NEVER;
	else
		return error_set(err, SM_ERROR_INVALID, EINVAL, "SUPERMACHINE_MACHINE=%s: it is auto, always or never",
				 s);
	return 0;
}

static int make_seat(const struct seat_options *o, struct seat **ret, struct sm_error *err)
{
	struct seat *s = calloc(1, sizeof(*s));

	if (!s)
		return error_sys(err, ENOMEM, "seat");
	s->runtime_dir = strdup(o->runtime_dir);
	s->data_dir = strdup(o->data_dir);
	s->state_dir = strdup(o->state_dir);
	s->libexec_dir = strdup(o->libexec_dir);
	if (!s->runtime_dir || !s->data_dir || !s->state_dir || !s->libexec_dir) {
		seat_close(s);
		return error_sys(err, ENOMEM, "seat");
	}
	s->place = (struct machine_place){.runtime_dir = s->runtime_dir,
					  .data_dir = s->data_dir,
					  .state_dir = s->state_dir,
					  .libexec_dir = s->libexec_dir,
					  .notice = o->notice,
					  .notice_arg = o->notice_arg};
	*ret = s;
	return 0;
}

static int compose_notice(struct seat *s)
{
	const char *why = s->probe.state ? s->probe.why : "as SUPERMACHINE_MACHINE=always asks";

	s->place.reason = s->probe.state && s->probe.state != KVM_STATE_WORKS ? s->probe.why : "";
	return asprintf(&s->notice, "running in the machine: %s; expect VMs to be " EXPECTATION, why) < 0 ? -ENOMEM : 0;
}

static int refuse(const struct kvm_probe *p, struct sm_error *err)
{
	return error_set(err, SM_ERROR_HOST, ENODEV, "%s, and SUPERMACHINE_MACHINE=never%s%s", p->why,
			 *p->fix ? "; try: " : "", p->fix);
}

static int open_seat(const struct seat_options *o, bool force, struct seat **ret, struct sm_error *err)
{
	struct seat *s = NULL;
	int r = make_seat(o, &s, err);

	if (r < 0)
		return r;
	if (force || o->mode != SEAT_ALWAYS)
		kvm_probe(s->runtime_dir, &s->probe);
	s->in_machine = force || o->mode == SEAT_ALWAYS || s->probe.state != KVM_STATE_WORKS;
	if (!force && s->in_machine && o->mode == SEAT_NEVER)
		r = refuse(&s->probe, err);
	else if (s->in_machine && compose_notice(s) < 0)
		r = error_sys(err, ENOMEM, "seat");
	if (r < 0) {
		seat_close(s);
		return r;
	}
	*ret = s;
	return 0;
}

int seat_open(const struct seat_options *options, struct seat **ret, struct sm_error *err)
{
	return open_seat(options, false, ret, err);
}

int seat_open_machine(const struct seat_options *options, struct seat **ret, struct sm_error *err)
{
	return open_seat(options, true, ret, err);
}

struct seat *seat_close(struct seat *s)
{
	if (s) {
		free(s->runtime_dir);
		free(s->data_dir);
		free(s->state_dir);
		free(s->libexec_dir);
		free(s->notice);
		free(s);
	}
	return NULL;
}

bool seat_in_machine(const struct seat *s)
{
	return s->in_machine;
}

const char *seat_engine_name(const struct seat *s)
{
	return s->in_machine ? "machine" : "kvm";
}

const struct kvm_probe *seat_probe(const struct seat *s)
{
	return &s->probe;
}

const char *seat_notice(const struct seat *s)
{
	return s->notice ? s->notice : "";
}

const char *seat_runtime_dir(const struct seat *s)
{
	return s->in_machine ? MACHINE_RUNTIME_DIR : s->runtime_dir;
}

/* ------------------------------------------------------------------------------------------------- identity */

int seat_put_file(struct buf *out, const char *what, const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return -errno;
	return buf_printf(out, "%s %s %llx %llx %lld.%ld\n", what, path, (unsigned long long)st.st_ino,
			  (unsigned long long)st.st_size, (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

/* The emulator, and the program that says which CPU it is to emulate. */
static int put_machine(const struct seat *s, struct buf *out)
{
	const char *p = getenv("PATH"), *end;
	char path[4096];
	int r = -ENOENT;

	for (p = p ? p : "/usr/bin:/bin"; *p && r < 0; p = *end ? end + 1 : end) {
		end = strchrnul(p, ':');
		snprintf(path, sizeof(path), "%.*s/" MACHINE_EMULATOR, (int)(end - p), p);
		r = seat_put_file(out, "emulator", path);
	}
	snprintf(path, sizeof(path), "%s/supermachine-machine", s->libexec_dir);
	return r < 0 ? r : seat_put_file(out, "machine", path);
}

/* The first CPU as the kernel describes it: what is the same as long as it is the same model. */
static int put_host(struct buf *out)
{
	static const char *const lines[] = {"vendor_id", "cpu family", "model\t", "stepping", "microcode", "flags"};
	_free_ char *text = malloc(CPUINFO_MAX + 1);
	_fd_ int fd = open("/proc/cpuinfo", O_RDONLY | O_CLOEXEC);
	struct utsname u;
	ssize_t n;

	if (!text)
		return -ENOMEM;
	n = fd < 0 ? -errno : read_full(fd, text, CPUINFO_MAX);
	if (n < 0 || uname(&u) < 0)
		return n < 0 ? (int)n : -errno;
	text[n] = '\0';
	buf_printf(out, "host %s %s\n", u.release, u.version);
	for (char *line = text, *next; *line && *line != '\n'; line = next) {
		next = strchrnul(line, '\n');
		if (*next)
			*next++ = '\0';
		for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
			if (str_starts(line, lines[i]))
				buf_printf(out, "%s\n", line);
	}
	return out->error;
}

int seat_identity(const struct seat *s, struct buf *out)
{
	buf_printf(out, "engine %s\n", seat_engine_name(s));
	return s->in_machine ? put_machine(s, out) : put_host(out);
}

static int make_runtime_dir(struct seat *s, struct sm_error *err)
{
	int r = mkdir_p(s->runtime_dir, 0700);

	return r < 0 ? error_sys(err, -r, "make %s", s->runtime_dir) : 0;
}

int seat_ready(struct seat *s, struct sm_error *err)
{
	int fd;

	if (!s->in_machine)
		return make_runtime_dir(s, err);
	fd = machine_request(&s->place, WIRE_READY, NULL, true, NULL, err);
	fd_close(fd);
	return fd < 0 ? fd : 0;
}

int seat_boot_id(struct seat *s, char ret[40], struct sm_error *err)
{
	struct seat_machine_status status;
	_free_ char *text = NULL;
	size_t len;
	int r;

	if (s->in_machine) {
		r = seat_machine_status(s, &status, err);
		if (r == 0)
			snprintf(ret, 40, "%s", status.running ? status.boot_id : "");
		return r;
	}
	r = read_file_at(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 64, &text, &len);
	if (r < 0)
		return error_sys(err, -r, "boot id");
	snprintf(ret, 40, "%.*s", (int)strcspn(text, "\n"), text);
	return 0;
}

/* ------------------------------------------------------------------------------------------------- spawning */

static int spawn_here(struct seat *s, const struct seat_command *c, int64_t *ret_pid, struct sm_error *err)
{
	struct process_options o = {
		.argv = c->argv, .env = c->env, .cwd = c->cwd ? c->cwd : "/", .fds = {-1, -1, -1}, .new_session = true};
	_fd_ int log = -1;
	pid_t pid;
	int r = make_runtime_dir(s, err);

	if (r < 0)
		return r;
	if (c->log) {
		log = open(c->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
		if (log < 0)
			return error_sys(err, errno, "open %s", c->log);
		o.fds[1] = o.fds[2] = log;
	}
	pid = process_detach(&o, err);
	if (pid < 0)
		return (int)pid;
	if (ret_pid)
		*ret_pid = pid;
	return 0;
}

static int spawn_there(struct seat *s, const struct seat_command *c, int64_t *ret_pid, struct sm_error *err)
{
	struct proto_exec x = {.argv = (char **)(uintptr_t)c->argv,
			       .env = (char **)(uintptr_t)c->env,
			       .cwd = (char *)(uintptr_t)(c->cwd ? c->cwd : "/"),
			       .log = (char *)(uintptr_t)(c->log ? c->log : "/dev/null"),
			       .clear_env = true,
			       .detached = true};
	_cleanup_(buf_done) struct buf request = {0}, reply = {0};
	struct cursor cursor;
	uint32_t pid;
	int fd, r;

	/* The same file there: told here, at once. */
	if (access(c->argv[0], X_OK) < 0)
		return error_sys(err, errno, "start %s", c->argv[0]);
	r = proto_exec_encode(&request, &x);
	if (r < 0)
		return error_sys(err, -r, "start %s", c->argv[0]);
	fd = machine_request(&s->place, WIRE_SPAWN, &request, true, &reply, err);
	if (fd < 0)
		return error_wrap(err, fd, "start %s", c->argv[0]);
	fd_close(fd);
	cursor = cursor_of(reply.data, reply.len);
	r = proto_pid_decode(&cursor, &pid);
	if (r >= 0 && !pid)
		r = -ENOEXEC; /* it was found, but could not be executed there */
	if (r < 0)
		return error_sys(err, -r, "start %s", c->argv[0]);
	if (ret_pid)
		*ret_pid = pid;
	return 0;
}

int seat_spawn(struct seat *s, const struct seat_command *command, int64_t *ret_pid, struct sm_error *err)
{
	return s->in_machine ? spawn_there(s, command, ret_pid, err) : spawn_here(s, command, ret_pid, err);
}

int seat_connect(struct seat *s, const char *path, uint64_t wait_ns, struct sm_error *err)
{
	struct proto_connect x = {.path = (char *)(uintptr_t)path, .wait_ns = wait_ns};
	_cleanup_(buf_done) struct buf request = {0};
	int fd, r;

	if (!s->in_machine) {
		fd = unix_connect_within(path, CONNECT_LIMIT_NS);
		return fd < 0 ? error_sys(err, -fd, "connect to %s", path) : fd;
	}
	r = proto_connect_encode(&request, &x);
	if (r < 0)
		return error_sys(err, -r, "connect to %s", path);
	fd = machine_request(&s->place, WIRE_CONNECT, &request, false, NULL, err);
	return fd < 0 ? error_wrap(err, fd, "connect to %s", path) : fd;
}

/* -------------------------------------------------------------------------------------------------- machine */

int seat_machine_link(struct seat *s, struct sm_error *err)
{
	if (!s->in_machine)
		return error_set(err, SM_ERROR_STATE, ENOTSUP, "this host has KVM and needs no machine");
	return machine_request(&s->place, WIRE_LINK, NULL, true, NULL, err);
}

int seat_machine_status(struct seat *s, struct seat_machine_status *ret, struct sm_error *err)
{
	_cleanup_(buf_done) struct buf reply = {0};
	struct sm_error why = {0};
	struct cursor c;
	int fd = machine_request(&s->place, WIRE_STATUS, NULL, false, &reply, &why), r;

	fd_close(fd);
	if (fd == -ECONNREFUSED) { /* none runs: an answer, not an error */
		*ret = (struct seat_machine_status){0};
		return 0;
	}
	if (fd < 0)
		return error_set(err, why.kind, why.code, "%s", why.message);
	c = cursor_of(reply.data, reply.len);
	r = wire_status_decode(&c, ret);
	return r < 0 ? error_sys(err, -r, "machine: its status") : 0;
}

int seat_machine_stop(struct seat *s, struct sm_error *err)
{
	struct sm_error why = {0};
	int fd = machine_request(&s->place, WIRE_STOP, NULL, false, NULL, &why);

	fd_close(fd);
	return fd >= 0 || fd == -ECONNREFUSED ? 0 : error_set(err, why.kind, why.code, "%s", why.message);
}
