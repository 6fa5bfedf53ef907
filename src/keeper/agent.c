/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper's link to the guest's agent: HELLO, SETUP, the image's command, its output. All the agent says is hostile:
 * it only ever reaches the checked decoders of proto/, the log, and clients as opaque bytes.
 */
#include "keeper/keeper.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"

static struct mux *agent_mux(struct keeper *k)
{
	return k->agent ? link_mux(k->agent) : NULL;
}

static void note_exit(struct keeper *k, struct cursor event)
{
	struct proto_event e;

	if (proto_event_decode(&event, &e) < 0 || e.kind != PROTO_EV_EXIT || k->main_has_exit)
		return;
	k->main_exit = e;
	k->main_has_exit = true;
}

/* ------------------------------------------------------------------------------------------ setup */

static void texts_free(char **v)
{
	for (char **p = v; p && *p; p++)
		free(*p);
	free(v);
}

/* For a guest that begins all of them; for a copy (added) the volumes that it was not saved with. NULL: no memory. */
static char **mount_texts(const struct vm_record *rec, bool added)
{
	char **v = calloc(rec->num_mounts + 1, sizeof(*v));
	unsigned volumes = 0, n = 0;

	for (unsigned i = 0; v && i < rec->num_mounts; i++) {
		const struct vm_mount *m = &rec->mounts[i];
		unsigned number = volumes;
		struct proto_mount p = {.target = m->target,
					.read_only = m->read_only,
					.cow = m->cow,
					.is_file = m->is_file,
					.volume = m->volume != NULL,
					.no_copy = m->volume && m->no_copy,
					.number = number};

		volumes += p.volume;
		if (added ? !p.volume || m->own : m->replaced)
			continue;
		v[n] = proto_mount_format(&p);
		if (!v[n++]) {
			texts_free(v);
			return NULL;
		}
	}
	return v;
}

/* The record's, and the one that secrets go to: a list to free, of texts that are not. NULL: no memory. */
static char **tmpfs_texts(const struct vm_record *rec)
{
	static char secrets[] = "n:mode=755:/run/secrets";
	size_t n = 0;
	char **v;

	while (rec->tmpfs && rec->tmpfs[n])
		n++;
	v = calloc(n + 2, sizeof(*v));
	for (size_t i = 0; v && i < n; i++)
		v[i] = rec->tmpfs[i];
	if (v && rec->secrets && rec->secrets[0])
		v[n] = secrets;
	return v;
}

static int send_setup(struct keeper *k)
{
	struct vm_record *rec = &k->rec;
	char image[] = "image", pmem[] = "pmem0",
	     upper[] = PROTO_UPPER_SERIAL; /* the message's members are not const */
	bool disk = keeper_root_on_disk(k);
	struct proto_setup s = {.root = disk ? PROTO_ROOT_BLK : PROTO_ROOT_PMEM,
				.root_device = disk ? image : pmem,
				.upper_serial = rec->disk_template ? upper : NULL,
				.hostname = rec->hostname,
				.env = rec->env,
				.user = rec->user,
				.cwd = rec->cwd,
				.dns = rec->dns,
				.hosts = rec->hosts,
				.read_only = rec->read_only,
				.limits = rec->limits,
				.plugged = k->args.plugged,
				.upper_ahead = k->args.disk_ahead && k->fresh_disk,
				.rehearse = k->spare.stage == SPARE_WAITS,
				.volumes = rec->volumes};
	_cleanup_(buf_done) struct buf b = {0};
	struct timespec now;
	int r;

	if (getrandom(s.seed, sizeof(s.seed), 0) != sizeof(s.seed))
		return -EIO;
	s.mounts = mount_texts(rec, false);
	s.tmpfs = tmpfs_texts(rec);
	if (!s.mounts || !s.tmpfs) {
		texts_free(s.mounts);
		free(s.tmpfs);
		return -ENOMEM;
	}
	clock_gettime(CLOCK_REALTIME, &now);
	s.realtime_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	r = proto_setup_encode(&b, &s);
	texts_free(s.mounts);
	free(s.tmpfs);
	return r < 0 ? r : mux_open(agent_mux(k), PROTO_SETUP, &b, NULL, &k->setup_ch);
}

/* With the time and random numbers of its own. */
static int open_resume(struct keeper *k, struct proto_resume *m)
{
	_cleanup_(buf_done) struct buf b = {0};
	struct timespec now;
	int r;

	if (getrandom(m->seed, sizeof(m->seed), 0) != sizeof(m->seed))
		return -EIO;
	clock_gettime(CLOCK_REALTIME, &now);
	m->realtime_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	r = proto_resume_encode(&b, m);
	return r < 0 ? r : mux_open(agent_mux(k), PROTO_RESUME, &b, NULL, &k->setup_ch);
}

/* A guest that was saved with its processes: they wait until it has become this VM. */
static int send_resume(struct keeper *k)
{
	char machine_id[33];
	/* One that was suspended is the same as before; one that went back has its name. */
	struct proto_resume m = {.hostname = k->rewinding.under_way ? NULL : k->rec.hostname};
	int r = random_hex(machine_id, 16);

	if (r < 0)
		return r;
	if (!k->args.resume)
		m.machine_id = machine_id;
	if (!k->args.resume && !k->rewinding.under_way) {
		m.env = k->rec.env;
		m.mounts = mount_texts(&k->rec, true);
		if (!m.mounts)
			return -ENOMEM;
	}
	m.timeout_ns = k->args.resume ? 0 : k->rec.timeout_ns;
	r = open_resume(k, &m);
	texts_free(m.mounts);
	return r;
}

/* A guest that was set up for nobody yet: as above, but for processes, of which it has none. */
int agent_become(struct keeper *k)
{
	struct vm_record *rec = &k->rec;
	struct proto_resume m = {.hostname = k->spare.renamed ? rec->hostname : NULL,
				 .env = rec->env,
				 .user = rec->user,
				 .cwd = rec->cwd};

	return k->agent ? open_resume(k, &m) : -ESRCH;
}

static int set_up(struct keeper *k)
{
	if (k->args.base)
		return mux_open(agent_mux(k), PROTO_PREPARE, NULL, NULL, &k->setup_ch);
	return k->args.adopt ? send_resume(k) : send_setup(k);
}

static void on_hello(void *arg, struct cursor *attributes, uint16_t version)
{
	struct keeper *k = arg;
	int r;

	if (k->phase != PHASE_BOOT)
		return;
	k->agent_seen = true;
	keeper_stage(k, k->args.restore ? "restore" : "boot");
	k->phase = PHASE_SETUP;
	r = k->setup_ch ? 0 : set_up(k);
	if (r < 0)
		keeper_end(k, SM_REASON_START_FAILED, 0, "set up the guest: %s", strerror(-r));
}

/* -------------------------------------------------------------------------------------- callbacks */

static void on_opened(void *arg, uint32_t ch, void *user, struct cursor *reply)
{
	struct keeper *k = arg;
	uint32_t pid = 0;

	if (ch == k->setup_ch && k->phase == PHASE_SETUP) {
		if (k->args.base)
			keeper_prepared(k, reply);
		else
			keeper_setup_done(k);
	} else if (ch == k->saving.hold_ch && k->saving.hold_ch) {
		snapshot_held(k, 0, "");
	} else if (ch == k->main_ch) {
		k->main_open = true;
		keeper_main_started(k, proto_pid_decode(reply, &pid) < 0 || pid);
	}
}

static void on_data(void *arg, uint32_t ch, void *user, unsigned stream, const uint8_t *p, size_t len)
{
	struct keeper *k = arg;

	if (ch == k->main_ch && k->logging)
		vm_log_write(&k->log, stream, p, len);
	mux_consumed(agent_mux(k), ch, stream, len);
}

static void on_event(void *arg, uint32_t ch, void *user, struct cursor *event)
{
	struct keeper *k = arg;

	if (ch == k->main_ch)
		note_exit(k, *event);
}

static void on_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	struct keeper *k = arg;

	if (k->agent)
		mux_close(agent_mux(k), ch, 0, "");
	if (k->agent && clocksync_closed(&k->clock, agent_mux(k), ch, code))
		return;
	if (ch == k->main_ch && k->main_ch)
		keeper_main_done(k, code, text);
	else if (ch == k->saving.hold_ch && k->saving.hold_ch)
		snapshot_held(k, code ? code : -EPROTO, text);
	else if (secrets_refused(k, ch, code) || listens_refused(k, ch, code))
		keeper_end(k, SM_REASON_START_FAILED, 0, "%s", *text ? text : strerror(-code));
	else if (ch == k->setup_ch && k->phase == PHASE_SETUP && (code || !k->args.base))
		keeper_end(k, SM_REASON_START_FAILED, 0, "set up the guest: %s", *text ? text : strerror(-code));
}

static void on_link_end(struct link *l, int r, const char *why, void *arg)
{
	struct keeper *k = arg;

	k->agent = link_free(l);
	if (k->rewinding.fd >= 0)
		return;
	k->agent_lost = true;
	keeper_agent_lost(k, r == 0 ? "it closed the connection" : why);
}

static const struct mux_callbacks agent_callbacks = {
	.hello = on_hello,
	.opened = on_opened,
	.data = on_data,
	.event = on_event,
	.closed = on_closed,
};

int agent_start(struct keeper *k, int fd, struct sm_error *err)
{
	int r = link_client(k->loop, fd, &agent_callbacks, on_link_end, k, &k->agent);

	return r < 0 ? error_sys(err, -r, "link to the agent") : 0;
}

int agent_again(struct keeper *k, int fd)
{
	int r = agent_start(k, fd, NULL);

	if (r < 0) {
		fd_close(fd);
		return r;
	}
	r = send_resume(k);
	if (r == 0)
		r = mux_open(agent_mux(k), PROTO_ADOPT, NULL, NULL, &k->main_ch);
	if (r == 0)
		link_flush(k->agent);
	else
		k->agent = link_free(k->agent);
	return r;
}

/* -------------------------------------------------------------------------------------- the command */

int agent_exec_main(struct keeper *k)
{
	struct vm_record *rec = &k->rec;
	struct proto_exec x = {.argv = rec->argv,
			       .tty = rec->tty,
			       .stdin_open = rec->stdin_open,
			       .main = true,
			       .hold = rec->no_command,
			       .rows = rec->rows,
			       .cols = rec->cols,
			       .timeout_ns = rec->timeout_ns};
	_cleanup_(buf_done) struct buf b = {0};
	int r = listens_begin(k);

	if (r < 0)
		return r;
	if (k->args.adopt)
		return k->main_ch ? 0 : mux_open(agent_mux(k), PROTO_ADOPT, NULL, NULL, &k->main_ch);
	r = proto_exec_encode(&b, &x);
	return r < 0 ? r : mux_open(agent_mux(k), PROTO_EXEC, &b, NULL, &k->main_ch);
}

static int send_event(struct keeper *k, const struct proto_event *e)
{
	_cleanup_(buf_done) struct buf b = {0};
	int r;

	if (!k->agent || !k->main_open || k->main_done)
		return -ESRCH;
	r = proto_event_encode(&b, e);
	return r < 0 ? r : mux_send_event(agent_mux(k), k->main_ch, &b);
}

int agent_signal(struct keeper *k, int signal)
{
	struct proto_event e = {.kind = PROTO_EV_SIGNAL, .signal = signal};

	return send_event(k, &e);
}

int agent_resize(struct keeper *k, uint16_t rows, uint16_t cols)
{
	struct proto_event e = {.kind = PROTO_EV_RESIZE, .rows = rows, .cols = cols};

	return send_event(k, &e);
}

static int send_hold(struct keeper *k, const struct proto_hold *h)
{
	_cleanup_(buf_done) struct buf b = {0};
	uint32_t ch;
	int r;

	if (!k->agent || k->agent_lost)
		return -ESRCH;
	r = proto_hold_encode(&b, h);
	return r < 0 ? r : mux_open(agent_mux(k), PROTO_HOLD, &b, NULL, h->hold ? &k->saving.hold_ch : &ch);
}

int agent_hold(struct keeper *k, bool hold, bool volumes)
{
	return send_hold(k, &(struct proto_hold){.hold = hold, .volumes = volumes});
}

int agent_hold_again(struct keeper *k)
{
	int r = send_hold(k, &(struct proto_hold){.hold = true, .again = true});

	/* What came behind it would be from a keeper that the agent does not know any more. */
	if (r == 0 && (r = link_hush(k->agent, true)) < 0)
		keeper_end(k, SM_REASON_START_FAILED, 0, "a mark: its agent does not listen: %s", strerror(-r));
	return r;
}

void agent_held_not(struct keeper *k)
{
	if (k->agent)
		(void)!link_hush(k->agent, false);
}

void agent_sync_clock(struct keeper *k)
{
	if (k->agent && !k->agent_lost)
		(void)!clocksync_begin(&k->clock, agent_mux(k), NULL);
}

int agent_poweroff(struct keeper *k)
{
	struct proto_stop s = {0};
	_cleanup_(buf_done) struct buf b = {0};
	int r;

	if (!k->agent || k->agent_lost)
		return -ESRCH;
	snapshot_copies_lost(k);
	r = proto_stop_encode(&b, &s);
	return r < 0 ? r : mux_open(agent_mux(k), PROTO_POWEROFF, &b, NULL, &k->poweroff_ch);
}

/* ------------------------------------------------------------------------------------------- attach */

static void relay_data(void *arg, struct relay *r, unsigned stream, const uint8_t *p, size_t len)
{
	struct keeper *k = arg;

	if (k->logging)
		vm_log_write(&k->log, stream, p, len);
}

static void relay_event(void *arg, struct relay *r, struct cursor event)
{
	note_exit(arg, event);
}

/* In the background the channel may be ours again; else it is closed, by the agent or because the client left. */
static void relay_ended(void *arg, struct relay *r, bool far_left, int code)
{
	struct keeper *k = arg;

	k->attached = NULL;
	idle_leave(k);
	if (far_left)
		return;
	if (keeper_foreground(k) && !k->main_has_exit && code == 0)
		keeper_end(k, SM_REASON_CLIENT_GONE, 0, "the program that ran it went away");
	else
		keeper_main_done(k, code, "");
}

static const struct relay_hooks attach_hooks = {
	.data = relay_data,
	.event = relay_event,
	.ended = relay_ended,
};

int agent_attach(struct keeper *k, struct mux *near, uint32_t ch, const struct keeper_attach *a)
{
	int r = mux_opened(near, ch, NULL);

	if (r == 0)
		r = relay_join(near, ch, agent_mux(k), k->main_ch, !keeper_foreground(k), &attach_hooks, k,
			       &k->attached);
	if (r < 0)
		return r;
	idle_enter(k);
	if (a->rows && a->cols)
		agent_resize(k, a->rows, a->cols);
	if (keeper_foreground(k) && k->rec.stdin_open && !a->stdin_open)
		mux_send_eof(agent_mux(k), k->main_ch, 0);
	return 0;
}
