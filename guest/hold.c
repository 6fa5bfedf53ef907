/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots of a guest with its processes: HOLD before one is taken, RESUME in what is restored from it; and in a
 * spare, which has no processes yet, when it becomes the VM that somebody wants.
 *
 * All processes of commands stand still while the snapshot is taken, so in a copy nothing but this agent runs until
 * RESUME has given the copy what must be its own; first of all random numbers that no other copy has. What of the
 * processes' memory repeats in each copy is beyond us; docs/GUEST.md says so.
 */
#include "guest/setup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/util.h"
#include "guest/boot.h"
#include "guest/cgroup.h"
#include "guest/refresh.h"

#define STOP_LIMIT_NS 10000000000ULL
#define CATCH_UP_MS 20000
#define HOSTS_MAX 65536
#define OWN_ADDRESS "127.0.1.1\t"

static int hold(struct agent *a, bool on)
{
	int r = !on && a->copies_hold ? 0 : cgroup_hold_all(a, on, STOP_LIMIT_NS);

	a->held = r == 0 ? on : a->held;
	return r;
}

int hold_for_copy(struct agent *a)
{
	int r = a->held || a->copies_hold ? 0 : cgroup_hold_all(a, true, STOP_LIMIT_NS);

	a->copies_hold += r == 0;
	return r;
}

void hold_copy_ended(struct agent *a)
{
	if (--a->copies_hold || a->held)
		return;
	if (cgroup_hold_all(a, false, 0) < 0)
		log_warn("agent", "processes that stood still for a copy do not go on");
}

/* Once the answer is written. What the next command needs, whoever's it is, is part of what it finds. */
static void begin_again(struct agent *a)
{
	cgroup_make_ahead(a);
	a->again = true;
	loop_stop(a->loop, 0);
}

void hold_open(struct agent *a, uint32_t ch, struct cursor *request)
{
	struct proto_hold h;
	int r = proto_hold_decode(request, &h);

	if (r == 0 && a->role != ROLE_GUEST)
		r = -EOPNOTSUPP;
	if (r == 0 && h.again && !h.hold)
		r = -EPROTO;
	if (r == 0 && h.hold)
		volumes_sync(a);
	if (r == 0)
		r = hold(a, h.hold);
	if (r < 0) {
		agent_refuse(a, ch, r, r == -ETIMEDOUT ? "a process of the VM does not stop" : "hold its processes: %s",
			     strerror(-r));
		return;
	}
	r = h.hold ? volumes_freeze(a) : 0;
	if (r < 0) {
		(void)!hold(a, false);
		agent_refuse(a, ch, r, "the file system of a volume cannot stand still: %s", strerror(-r));
		return;
	}
	if (!h.hold && !h.volumes)
		volumes_thaw(a);
	exec_hold_all(a, h.hold);
	mux_opened(a->mux, ch, NULL);
	if (h.again)
		begin_again(a);
	else
		mux_close(a->mux, ch, 0, NULL);
}

/* Of a file that is there, in place: it may be mounted, or open. */
static int rewrite(const char *path, const void *p, size_t len)
{
	_fd_ int fd = open(path, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat st;
	int r;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return -EINVAL;
	if (ftruncate(fd, 0) < 0)
		return -errno;
	r = write_full(fd, p, len);
	return r;
}

/* The line that SETUP wrote for the name; whatever else is in the file stays. */
static int rename_in_hosts(const char *hostname)
{
	_cleanup_(buf_done) struct buf b = {0};
	_free_ char *text = NULL;
	char *lines, *line;
	int r = read_file_at(AT_FDCWD, "/etc/hosts", HOSTS_MAX, &text, NULL);

	lines = text;
	while (r == 0 && (line = strsep(&lines, "\n"))) {
		if (str_starts(line, OWN_ADDRESS))
			buf_printf(&b, OWN_ADDRESS "%s\n", hostname);
		else if (*line || lines)
			buf_printf(&b, "%s\n", line);
	}
	r = r < 0 ? r : b.error;
	return r < 0 ? r : rewrite("/etc/hosts", b.data, b.len);
}

/* Files that the container may have changed or removed: then they are its own affair. */
static int set_names(const struct proto_resume *m)
{
	_cleanup_(buf_done) struct buf b = {0};
	struct stat st;
	int r;

	if (m->hostname && *m->hostname) {
		if (sethostname(m->hostname, strlen(m->hostname)) < 0)
			return -errno;
		buf_printf(&b, "%s\n", m->hostname);
		r = b.error ? b.error : rewrite("/etc/hostname", b.data, b.len);
		if (r == 0)
			r = rename_in_hosts(m->hostname);
		if (r < 0)
			log_debug("agent", "files of the host name: %s", strerror(-r));
	}
	if (m->machine_id && lstat("/etc/machine-id", &st) == 0 && S_ISREG(st.st_mode) && st.st_size) {
		b.len = 0;
		buf_printf(&b, "%s\n", m->machine_id);
		r = b.error ? b.error : rewrite("/etc/machine-id", b.data, b.len);
		if (r < 0)
			log_debug("agent", "machine-id: %s", strerror(-r));
	}
	return 0;
}

static void swap(char **have, char **given)
{
	char *old = *have;

	if (!*given)
		return;
	*have = *given;
	*given = old;
}

/* What commands of exec find; the message has it no more. */
static void take_defaults(struct agent *a, struct proto_resume *m)
{
	char **old = a->setup.env;

	swap(&a->setup.user, &m->user);
	swap(&a->setup.cwd, &m->cwd);
	if (!m->env)
		return;
	a->setup.env = m->env;
	m->env = old;
}

/* Those that it was saved with are this copy's alone. */
static int add_volumes(struct agent *a, const struct proto_resume *m, struct sm_error *err)
{
	int r = 0;

	if (m->mounts)
		volumes_thaw(a);
	for (char **text = m->mounts; text && *text && r == 0; text++) {
		struct proto_mount one;

		if (proto_mount_parse(*text, &one) < 0 || !one.volume)
			return error_set(err, SM_ERROR_INVALID, EINVAL, "volume '%s'", *text);
		r = shares_add_volume(a, &one, err);
	}
	return r;
}

static int renew(struct agent *a, const struct proto_resume *m, struct sm_error *err)
{
	static const uint8_t none[32];
	int r = memcmp(m->seed, none, sizeof(none)) == 0 ? -EINVAL : entropy_add(m->seed);

	if (r < 0)
		return error_sys(err, -r, "seed the random number generator");
	boot_renew_address();
	r = clock_set(m->realtime_ns);
	if (r < 0)
		return error_sys(err, -r, "set the clock");
	a->clock_set = true;
	r = set_names(m);
	if (r < 0)
		return error_sys(err, -r, "set the host name");
	r = a->shares_fd < 0 ? 0 : refresh_catch_up(a->shares_fd, a->proc_fd, CATCH_UP_MS);
	if (r < 0)
		return error_sys(err, -r, "ask anew for the host's directories");
	r = add_volumes(a, m, err);
	if (r < 0)
		return r;
	r = m->timeout_ns ? exec_limit_main(a, m->timeout_ns) : 0;
	if (r < 0)
		return error_sys(err, -r, "limit its time");
	r = a->lost ? hold(a, false) : 0;
	return r < 0 ? error_sys(err, -r, "let its processes go on") : 0;
}

/* A spare: set up, and nothing has run in it. */
static bool is_unused(const struct agent *a)
{
	return a->set_up && !a->lost && !a->used;
}

void resume_open(struct agent *a, uint32_t ch, struct cursor *request)
{
	struct sm_error err = {0};
	struct proto_resume m;
	int r;

	if (a->role != ROLE_GUEST || (!a->lost && !is_unused(a))) {
		agent_refuse(a, ch, -EALREADY, "this guest is no copy");
		return;
	}
	r = proto_resume_decode(request, &m);
	if (r < 0) {
		agent_refuse(a, ch, r, "malformed RESUME request");
		return;
	}
	r = renew(a, &m, &err);
	if (r == 0)
		take_defaults(a, &m);
	proto_resume_done(&m);
	if (r < 0) {
		agent_refuse(a, ch, r, "%s", err.message);
		return;
	}
	a->lost = false;
	mux_opened(a->mux, ch, NULL);
	mux_close(a->mux, ch, 0, NULL);
}
