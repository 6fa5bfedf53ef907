/* SPDX-License-Identifier: Apache-2.0 */
/* The SETUP service: makes this guest the container of one image. Once; a guest that failed half way is of no use and
 * says so. */
#include "guest/setup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/util.h"
#include "guest/boot.h"
#include "guest/cgroup.h"
#include "guest/spawn.h"

/* As docker has them: every user may ping, and any port may be bound. Kernels without these have nothing to allow. */
void setup_network(struct agent *a)
{
	static const char *const settings[][2] = {
		{"sys/net/ipv4/ping_group_range", "0 2147483647"},
		{"sys/net/ipv4/ip_unprivileged_port_start", "0"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
		int r = write_text_at(a->proc_fd, settings[i][0], settings[i][1]);

		if (r < 0)
			log_debug("agent", "%s: %s", settings[i][0], strerror(-r));
	}
	boot_loopback_up();
}

static int set_identity(struct agent *a, const struct proto_setup *s, struct sm_error *err)
{
	static const uint8_t none[32];
	int r = clock_set(s->realtime_ns);

	if (r < 0)
		return error_sys(err, -r, "set the clock");
	a->clock_set = true;
	/* Copies of one guest have the same random numbers until they get a seed each. */
	if (a->prepared && memcmp(s->seed, none, sizeof(none)) == 0)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "a restored guest needs a seed");
	if (memcmp(s->seed, none, sizeof(none)) != 0) {
		r = entropy_add(s->seed);
		if (r < 0)
			return error_sys(err, -r, "seed the random number generator");
	}
	if (a->prepared)
		boot_renew_address();
	if (s->hostname && *s->hostname && sethostname(s->hostname, strlen(s->hostname)) < 0)
		return error_sys(err, errno, "set the host name to '%s'", s->hostname);
	return 0;
}

/* The paths that the image declares as volumes exist, as they do under docker. They are part of the writable layer. */
static int make_volumes(const struct proto_setup *s, struct sm_error *err)
{
	for (char **v = s->volumes; v && *v; v++) {
		int r = (*v)[0] == '/' ? mkdir_p(*v, 0755) : -EINVAL;

		if (r < 0 && r != -EEXIST)
			return error_sys(err, -r, "volume '%s' of the image", *v);
	}
	return 0;
}

static int make_tmpfs(const struct proto_setup *s, struct sm_error *err)
{
	for (char **t = s->tmpfs; t && *t; t++) {
		struct proto_tmpfs x;
		int r = proto_tmpfs_parse(*t, &x);

		if (r == 0)
			r = mkdir_p(x.path, 0755);
		if (r == -EEXIST)
			r = 0;
		if (r == 0 &&
		    mount("tmpfs", x.path, "tmpfs", MS_NOSUID | MS_NODEV | (x.noexec ? MS_NOEXEC : 0), x.data) < 0)
			r = -errno;
		if (r < 0)
			return error_sys(err, -r, "tmpfs '%s'", *t);
	}
	return 0;
}

/* Stage times, for SUPERMACHINE_LOG=debug on the kernel's command line. */
static int stage(uint64_t *since, const char *what, int r)
{
	uint64_t now = time_now_ns();

	log_debug("agent", "%s: %llu us", what, (unsigned long long)(now - *since) / 1000);
	*since = now;
	return r;
}

static int set_up(struct agent *a, const struct proto_setup *s, struct sm_error *err)
{
	_cleanup_(shares_done) struct shares shares = {0};
	uint64_t since = time_now_ns();
	int r = stage(&since, "identity", set_identity(a, s, err));

	if (!a->prepared)
		setup_network(a);
	a->loader_fd = boot_modules_wait(a->loader_fd);
	stage(&since, "modules", 0);
	/* Before anything is made that takes a part of the memory as its size. */
	if (r == 0)
		r = stage(&since, "memory", memory_await(a, s->plugged, err));
	if (r == 0)
		r = stage(&since, "disks", disks_mount(a, s, err));
	if (r == 0)
		r = stage(&since, "mounts", mounts_make(a, err));
	if (r == 0)
		r = stage(&since, "etc", etc_files_make(s, err));
	if (r == 0)
		r = stage(&since, "shares", shares_open(a, s, &shares, err));
	if (r == 0)
		r = stage(&since, "enter", mounts_enter(err));
	if (r == 0 && s->plugged)
		r = mounts_grow(err);
	if (r == 0)
		r = make_volumes(s, err);
	if (r == 0)
		r = stage(&since, "attach", shares_attach(s, &shares, err));
	if (r == 0)
		r = make_tmpfs(s, err);
	if (r == 0 && s->read_only && mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL) < 0)
		r = error_sys(err, errno, "make the root read-only");
	return r;
}

void setup_open(struct agent *a, uint32_t ch, struct cursor *request)
{
	struct sm_error err = {0};
	struct proto_setup s;
	int r;

	if (a->role != ROLE_GUEST || a->set_up) {
		agent_refuse(a, ch, -EALREADY, "this guest is set up already");
		return;
	}
	r = proto_setup_decode(request, &s);
	if (r < 0) {
		agent_refuse(a, ch, r, "malformed SETUP request");
		return;
	}
	r = set_up(a, &s, &err);
	if (r < 0) {
		agent_refuse(a, ch, r, "%s", err.kind ? err.message : strerror(-r));
		proto_setup_done(&s);
		return;
	}
	a->setup = s;
	a->set_up = true;
	a->pid_namespace = true;
	if (s.rehearse)
		spawn_rehearse(a);
	mux_opened(a->mux, ch, NULL);
	mux_close(a->mux, ch, 0, NULL);
}
