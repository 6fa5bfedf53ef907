/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper's unix socket: clients, their channels, what each service does. See wire.h. */
#include "keeper/keeper.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/util.h"

#define LISTEN_BACKLOG 1024
#define OWN_FDS 512u /* what the keeper has beside its clients: the monitor's files, logs, watches */
/*
 * Beyond args.clients a client is late: it may look at the VM and end it, and is told what is in its way if it wants
 * more. Late ones have a limit of their own, and a moment each; who comes after them waits in the kernel's queue.
 */
#define MAX_LATE 64
#define MAX_LATE_WAITS 32
#define LATE_NS (10 * 1000000000ull)

struct client {
	struct keeper *k;
	struct link *link;
	struct client *next, **prev;
	struct waiter *waiters;
	struct loop_source *late; /* its moment; NULL: it is not late */
};

/* A PROTO_KEEPER_WAIT channel; the user pointer of its channel. */
struct waiter {
	uint32_t ch;
	bool owner, forwards;
	struct waiter *next;
};

static void client_free(struct client *c)
{
	if (c->k->attach_client == c)
		c->k->attach_client = NULL;
	if (c->k->pause.client == c)
		c->k->pause.client = NULL;
	if (c->k->saving.client == c)
		c->k->saving.client = NULL;
	if (c->k->rewinding.client == c)
		c->k->rewinding.client = NULL;
	if (c->k->spare.client == c)
		spare_client_gone(c->k);
	branch_drop(c->k, c, 0);
	snapshot_copied(c->k, c, 0);
	execs_client_gone(c->k, link_mux(c->link), 0);
	counters_client_gone(c->k, link_mux(c->link), 0);
	*c->prev = c->next;
	if (c->next)
		c->next->prev = c->prev;
	(*(c->late ? &c->k->num_late : &c->k->num_clients))--;
	c->late = loop_remove(c->late);
	if (c->k->listen_src)
		loop_modify(c->k->listen_src, EPOLLIN); /* there is room again */
	while (c->waiters) {
		struct waiter *w = c->waiters;

		c->waiters = w->next;
		free(w);
	}
	link_free(c->link);
	free(c);
}

/* --------------------------------------------------------------------------------------- services */

static void serve_status(struct client *c, uint32_t ch)
{
	struct keeper *k = c->k;
	struct keeper_status s = {.state = keeper_state(k),
				  .keeper_pid = getpid(),
				  .monitor_pid = k->mon.pid,
				  .started_ns = k->exit.started_ns,
				  .attached = k->attached != NULL};
	_cleanup_(buf_done) struct buf b = {0};

	if (keeper_status_encode(&b, &s) == 0)
		mux_opened(link_mux(c->link), ch, &b);
	mux_close(link_mux(c->link), ch, b.error, "");
}

static void send_news(struct client *c, uint32_t ch, enum keeper_news_kind kind)
{
	struct keeper *k = c->k;
	struct keeper_news n = {.kind = kind};
	_cleanup_(buf_done) struct buf b = {0};

	if (kind == KEEPER_ENDED) {
		n.record = (const uint8_t *)(k->exit_json ? k->exit_json : "");
		n.record_len = k->exit_json ? strlen(k->exit_json) : 0;
	}
	if (keeper_news_encode(&b, &n) == 0)
		mux_send_event(link_mux(c->link), ch, &b);
	if (kind == KEEPER_ENDED)
		mux_close(link_mux(c->link), ch, 0, "");
}

static int add_waiter(struct client *c, uint32_t ch, const struct keeper_wait *wait)
{
	struct waiter *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	*w = (struct waiter){.ch = ch, .owner = wait->owner, .forwards = wait->forwards, .next = c->waiters};
	c->waiters = w;
	mux_set_user(link_mux(c->link), ch, w);
	mux_opened(link_mux(c->link), ch, NULL);
	return 0;
}

void server_claimed(struct keeper *k)
{
	struct client *c = k->spare.client;

	k->spare.client = NULL;
	if (add_waiter(c, k->spare.ch, &(struct keeper_wait){.owner = true}) < 0)
		keeper_end(k, SM_REASON_START_FAILED, 0, "take a spare: %s", strerror(ENOMEM));
}

static int serve_wait(struct client *c, uint32_t ch, struct cursor *request)
{
	struct keeper *k = c->k;
	struct keeper_wait wait;
	int r = keeper_wait_decode(request, &wait);

	if (r == 0)
		r = add_waiter(c, ch, &wait);
	if (r < 0)
		return r;
	if (wait.owner && !k->owner_seen) {
		k->owner_seen = true;
		loop_timer_at(k->owner_timer, 0);
	}
	/* Who waits for it to run is about to use it, and is not let down by what begins a moment later. */
	idle_touch(k);
	if (k->exit.started_ns && !keeper_suspending(k))
		send_news(c, ch, KEEPER_STARTED);
	if (k->phase == PHASE_ENDED)
		send_news(c, ch, KEEPER_ENDED);
	return 0;
}

static int serve_stop(struct client *c, uint32_t ch, struct cursor *request)
{
	struct keeper_stop s;
	int r = keeper_stop_decode(request, &s);

	if (r < 0)
		return r;
	if (c->k->phase >= PHASE_ENDING && s.mode != KEEPER_STOP_NOW)
		return -ESRCH;
	mux_opened(link_mux(c->link), ch, NULL);
	mux_close(link_mux(c->link), ch, 0, "");
	keeper_stop_request(c->k, &s);
	return 0;
}

/* Whoever owns it lets go of it. */
static int serve_disown(struct client *c, uint32_t ch, struct cursor *request)
{
	int r = request->left ? -EPROTO : keeper_disown(c->k);

	if (r < 0)
		return r;
	for (struct client *o = c->k->clients; o; o = o->next)
		for (struct waiter *w = o->waiters; w; w = w->next)
			w->owner = false;
	mux_opened(link_mux(c->link), ch, NULL);
	mux_close(link_mux(c->link), ch, 0, "");
	return 0;
}

static int serve_balloon(struct client *c, uint32_t ch, struct cursor *request)
{
	struct keeper_balloon m;
	int r = keeper_balloon_decode(request, &m);

	if (r < 0)
		return r;
	if (m.target > c->k->rec.memory)
		return -EINVAL;
	if (c->k->phase >= PHASE_ENDING)
		return -ESRCH;
	r = monitor_balloon(c->k, m.target);
	if (r < 0)
		return r;
	mux_opened(link_mux(c->link), ch, NULL);
	mux_close(link_mux(c->link), ch, 0, "");
	return 0;
}

static int serve_pause(struct client *c, uint32_t ch, struct cursor *request)
{
	struct keeper *k = c->k;
	struct keeper_pause m;
	int r = keeper_pause_decode(request, &m);

	if (r == 0)
		r = pause_request(k, m.pause);
	if (r < 0)
		return r;
	k->pause.client = c;
	k->pause.ch = ch;
	return 0;
}

static int serve_snapshot(struct client *c, uint32_t ch, struct cursor *request)
{
	struct keeper *k = c->k;
	struct keeper_snapshot m;
	int r = keeper_snapshot_decode(request, &m);

	if (r == 0)
		r = snapshot_request(k, m.dir, (unsigned)m.keep);
	if (r < 0)
		return r;
	k->saving.client = c;
	k->saving.ch = ch;
	return 0;
}

static int serve_suspend(struct client *c, uint32_t ch, const struct cursor *request)
{
	int r = request->left ? -EPROTO : snapshot_request(c->k, NULL, 0);

	if (r < 0)
		return r;
	c->k->saving.client = c;
	c->k->saving.ch = ch;
	return 0;
}

static int serve_mark(struct client *c, uint32_t ch, const struct cursor *request)
{
	int r = request->left ? -EPROTO : snapshot_mark(c->k);

	if (r < 0)
		return r;
	c->k->saving.client = c;
	c->k->saving.ch = ch;
	return 0;
}

static int serve_rewind(struct client *c, uint32_t ch, const struct cursor *request)
{
	int r = request->left ? -EPROTO : rewind_request(c->k);

	if (r < 0)
		return r;
	c->k->rewinding.client = c;
	c->k->rewinding.ch = ch;
	return 0;
}

void server_rewound(struct keeper *k)
{
	struct client *c = k->rewinding.client;

	k->rewinding.client = NULL;
	k->rewinding.under_way = false;
	if (!c)
		return;
	mux_opened(link_mux(c->link), k->rewinding.ch, NULL);
	mux_close(link_mux(c->link), k->rewinding.ch, 0, "");
}

/* The channel stays open for as long as the client wants the files. */
void server_branch_frozen(struct keeper *k, struct keeper_snapshot_reply *m)
{
	struct client *c = k->saving.client;
	_cleanup_(buf_done) struct buf b = {0};
	int r;

	k->saving.client = NULL;
	r = !c ? -ECONNRESET : branch_keep(k, c, k->saving.ch, &k->saving.files, m);
	r = r < 0 ? r : keeper_snapshot_reply_encode(&b, m);
	snapshot_to_copy(k, r == 0 ? c : NULL, k->saving.ch);
	if (!c)
		return;
	if (r == 0)
		mux_opened(link_mux(c->link), k->saving.ch, &b);
	else
		mux_close(link_mux(c->link), k->saving.ch, r, strerror(-r));
}

void server_snapshot_done(struct keeper *k, const struct keeper_snapshot_reply *m, bool copies, int error,
			  const char *text)
{
	struct client *c = k->saving.client;
	_cleanup_(buf_done) struct buf b = {0};

	if (!c) {
		if (copies)
			snapshot_to_copy(k, NULL, 0);
		return;
	}
	if (m && keeper_snapshot_reply_encode(&b, m) == 0)
		mux_opened(link_mux(c->link), k->saving.ch, &b);
	if (m && !b.error && copies) {
		snapshot_to_copy(k, c, k->saving.ch);
		return;
	}
	mux_close(link_mux(c->link), k->saving.ch, m ? b.error : error ? error : -EIO, text);
}

void server_copies_lost(struct keeper *k)
{
	mux_close(link_mux(k->saving.copies->link), k->saving.copies_ch, -ESRCH, "the VM ends");
}

void server_pause_done(struct keeper *k)
{
	struct client *c = k->pause.client;

	if (!c)
		return;
	k->pause.client = NULL;
	mux_opened(link_mux(c->link), k->pause.ch, NULL);
	mux_close(link_mux(c->link), k->pause.ch, 0, "");
}

static int serve_attach(struct client *c, uint32_t ch, struct cursor *request)
{
	struct keeper *k = c->k;
	struct keeper_attach a;
	int r = keeper_attach_decode(request, &a);

	if (r < 0)
		return r;
	if (keeper_suspending(k))
		return -ESHUTDOWN;
	if (k->phase >= PHASE_ENDING || (a.exec && !k->agent))
		return -ESRCH;
	if (a.exec)
		return execs_attach(k, link_mux(c->link), ch, &a);
	if (k->attached || k->attach_client)
		return -EBUSY;
	if (k->main_open)
		return agent_attach(k, link_mux(c->link), ch, &a);
	k->attach_client = c;
	k->attach_ch = ch;
	k->attach = a;
	keeper_try_main(k);
	return 0;
}

static int serve_secret(struct client *c, uint32_t ch, const struct cursor *request)
{
	int r = c->k->phase > PHASE_READY ? -EALREADY : secrets_take(c->k, request);

	if (r < 0)
		return r;
	mux_opened(link_mux(c->link), ch, NULL);
	mux_close(link_mux(c->link), ch, 0, "");
	keeper_try_main(c->k);
	return 0;
}

/* 0: the agent serves. */
static int check_serving(const struct keeper *k)
{
	if (keeper_suspending(k))
		return -ESHUTDOWN;
	if (k->phase >= PHASE_ENDING)
		return -ESRCH;
	if (!k->agent || k->phase < PHASE_READY)
		return -EAGAIN;
	return k->pause.on ? -EHOSTDOWN : 0;
}

static int serve_spawn(struct client *c, uint32_t ch, struct cursor *request)
{
	int r = check_serving(c->k);

	idle_touch(c->k);
	return r < 0 ? r : execs_spawn(c->k, link_mux(c->link), ch, request);
}

static int serve_exec_signal(struct client *c, uint32_t ch, struct cursor *request)
{
	struct keeper_exec_signal m;
	int r = keeper_exec_signal_decode(request, &m);

	if (r == 0)
		r = check_serving(c->k);
	idle_touch(c->k);
	if (r == 0)
		r = execs_signal(c->k, m.exec, m.signal);
	if (r < 0)
		return r;
	mux_opened(link_mux(c->link), ch, NULL);
	mux_close(link_mux(c->link), ch, 0, "");
	return 0;
}

static void files_ended(void *arg, struct relay *r, bool far_left, int code)
{
	idle_leave(arg);
}

/* A connection to a port of the guest: while it is made somebody uses the VM. Or one that the guest may make (ACCEPT),
 * which is no use of it before its first byte. */
struct port {
	struct keeper *k;
	bool made;
};

static void port_made(struct port *p)
{
	if (!p->made)
		idle_leave(p->k);
	p->made = true;
}

static void port_opened(void *arg, struct relay *r, struct cursor reply)
{
	port_made(arg);
}

static void port_data(void *arg, struct relay *r, unsigned stream, const uint8_t *bytes, size_t len)
{
	idle_touch(((struct port *)arg)->k);
}

static void port_near_data(void *arg, struct relay *r, size_t len)
{
	idle_touch(((struct port *)arg)->k);
}

static void port_ended(void *arg, struct relay *r, bool far_left, int code)
{
	port_made(arg);
	free(arg);
}

/* What uses the VM: files as long as they are copied, ports with each byte, statistics and watches not at all. */
static const struct relay_hooks files_hooks = {.ended = files_ended};
static const struct relay_hooks port_hooks = {
	.opened = port_opened, .data = port_data, .near_data = port_near_data, .ended = port_ended};

static int serve_port(struct client *c, uint32_t ch, uint16_t service, const struct cursor *request)
{
	struct port *p = calloc(1, sizeof(*p));
	struct relay *relay;
	int r;

	if (!p)
		return -ENOMEM;
	*p = (struct port){.k = c->k, .made = service == PROTO_ACCEPT};
	r = relay_open(link_mux(c->link), ch, link_mux(c->k->agent), service, request->p, request->left, &port_hooks, p,
		       &relay);
	if (r < 0)
		free(p);
	else if (!p->made)
		idle_enter(c->k);
	return r;
}

/* Passes a channel through to the agent. */
static int serve_relay(struct client *c, uint32_t ch, uint16_t service, struct cursor *request)
{
	bool files = service != PROTO_STATS && service != PROTO_WATCH;
	struct keeper *k = c->k;
	struct relay *relay;
	int r = check_serving(k);

	if (r < 0)
		return r;
	if (service == PROTO_EXEC)
		return events_pass_exec(k, link_mux(c->link), ch, request);
	if (service == PROTO_CONNECT || service == PROTO_ACCEPT)
		return serve_port(c, ch, service, request);
	r = relay_open(link_mux(c->link), ch, link_mux(k->agent), service, request->p, request->left,
		       files ? &files_hooks : NULL, k, &relay);
	if (r == 0 && files)
		idle_enter(k);
	return r;
}

/* Waits may be long: some are let, so that who stops the VM sees it end. */
static bool late_may(const struct client *late, uint16_t service)
{
	unsigned waits = 0;

	if (service != PROTO_KEEPER_WAIT)
		return service == PROTO_KEEPER_STATUS || service == PROTO_KEEPER_STOP;
	for (const struct client *c = late->k->clients; c; c = c->next)
		for (const struct waiter *w = c->late ? c->waiters : NULL; w; w = w->next)
			waits++;
	return waits < MAX_LATE_WAITS;
}

static int serve(struct client *c, uint32_t ch, uint16_t service, struct cursor *request)
{
	if (c->late && !late_may(c, service))
		return -EUSERS;
	if (spare_unclaimed(c->k) && service != PROTO_KEEPER_CLAIM && service != PROTO_KEEPER_STATUS &&
	    service != PROTO_KEEPER_STOP)
		return -EAGAIN;
	switch (service) {
	case PROTO_KEEPER_STATUS:
		serve_status(c, ch);
		return 0;
	case PROTO_KEEPER_WAIT:
		return serve_wait(c, ch, request);
	case PROTO_KEEPER_CLAIM:
		return spare_claim(c->k, c, ch, request);
	case PROTO_KEEPER_DISOWN:
		return serve_disown(c, ch, request);
	case PROTO_KEEPER_STOP:
		return serve_stop(c, ch, request);
	case PROTO_KEEPER_BALLOON:
		return serve_balloon(c, ch, request);
	case PROTO_KEEPER_PAUSE:
		return serve_pause(c, ch, request);
	case PROTO_KEEPER_SNAPSHOT:
		return serve_snapshot(c, ch, request);
	case PROTO_KEEPER_SUSPEND:
		return serve_suspend(c, ch, request);
	case PROTO_KEEPER_MARK:
		return serve_mark(c, ch, request);
	case PROTO_KEEPER_REWIND:
		return serve_rewind(c, ch, request);
	case PROTO_KEEPER_SECRET:
		return serve_secret(c, ch, request);
	case PROTO_KEEPER_ATTACH:
		return serve_attach(c, ch, request);
	case PROTO_KEEPER_SPAWN:
		return serve_spawn(c, ch, request);
	case PROTO_KEEPER_EXEC_SIGNAL:
		return serve_exec_signal(c, ch, request);
	case PROTO_KEEPER_WATCH:
		return request->left ? -EPROTO : watching_serve(c->k, link_mux(c->link), ch);
	case PROTO_KEEPER_COUNTERS:
		return request->left ? -EPROTO : counters_ask(c->k, link_mux(c->link), ch);
	case PROTO_KEEPER_SHARE:
		return shares_serve(c->k, link_mux(c->link), ch, request);
	case PROTO_EXEC:
	case PROTO_CONNECT:
	case PROTO_ACCEPT:
	case PROTO_READ_FILE:
	case PROTO_WRITE_FILE:
	case PROTO_COPY:
	case PROTO_WATCH:
	case PROTO_STATS:
		return serve_relay(c, ch, service, request);
	default:
		return -ENOSYS;
	}
}

static const char *refusal(uint16_t service, int r)
{
	bool saves = service == PROTO_KEEPER_SNAPSHOT || service == PROTO_KEEPER_SUSPEND;

	if (r == -ENODATA)
		return "it has no mark to go back to";
	if (service == PROTO_KEEPER_MARK && r == -EOPNOTSUPP)
		return "what a VM does to mounts, or through ports, cannot be taken back, nor can it forget a secret";

	if (service == PROTO_KEEPER_PAUSE && r == -EALREADY)
		return "it is so already";
	if (service == PROTO_KEEPER_CLAIM)
		return r == -EALREADY ? "it is no spare that is to be had" : strerror(-r);
	if (service == PROTO_KEEPER_SPAWN && r == -EMFILE)
		return "too many detached commands run in it already";
	if (saves && r == -EBUSY)
		return "another snapshot is being taken, or it is being stopped";
	if (saves && r == -EOPNOTSUPP)
		return "a VM with a mount that has the option dax, or is of a server's, cannot be saved";
	if (saves && r == -ENOMEM)
		return "there is not enough free memory for a copy of what it has in its own";
	if (saves && r == -EPERM)
		return "it ends with the program that runs it in the foreground";
	if (service == PROTO_KEEPER_PAUSE && r == -EBUSY)
		return "it is being stopped, paused or unpaused at this moment";
	switch (r) {
	case -ESRCH:
		return "the command has ended";
	case -EBUSY:
		return "another client is attached";
	case -EUSERS:
		return "it serves as many commands and other clients as it can at once: try again when some have ended";
	case -EHOSTDOWN:
		return "the VM is paused; supermachine unpause lets it go on";
	case -ESHUTDOWN:
		return "the VM is being suspended";
	case -EAGAIN:
		return "the guest is still starting";
	case -EINVAL:
		return "the VM does not have that much memory";
	case -ENOSYS:
		return "no such service";
	default:
		return strerror(-r);
	}
}

/* -------------------------------------------------------------------------------------- callbacks */

static void on_open(void *arg, uint32_t ch, uint16_t service, struct cursor *request)
{
	struct client *c = arg;
	int r = serve(c, ch, service, request);

	if (r < 0)
		mux_close(link_mux(c->link), ch, r, refusal(service, r));
}

static void drop_waiter(struct client *c, uint32_t ch)
{
	for (struct waiter **w = &c->waiters, *dead; (dead = *w); w = &(*w)->next) {
		bool owner = dead->owner;

		if (dead->ch != ch)
			continue;
		*w = dead->next;
		free(dead);
		if (owner)
			keeper_end(c->k, SM_REASON_CLIENT_GONE, 0, "the program that ran it went away");
		return;
	}
}

static void on_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	struct client *c = arg;

	mux_close(link_mux(c->link), ch, 0, "");
	if (c->k->attach_client == c && c->k->attach_ch == ch)
		c->k->attach_client = NULL;
	if (c->k->pause.client == c && c->k->pause.ch == ch)
		c->k->pause.client = NULL;
	if (c->k->saving.client == c && c->k->saving.ch == ch)
		c->k->saving.client = NULL;
	if (c->k->rewinding.client == c && c->k->rewinding.ch == ch)
		c->k->rewinding.client = NULL;
	if (c->k->spare.client == c && c->k->spare.ch == ch)
		spare_client_gone(c->k);
	branch_drop(c->k, c, ch);
	snapshot_copied(c->k, c, ch);
	execs_client_gone(c->k, link_mux(c->link), ch);
	counters_client_gone(c->k, link_mux(c->link), ch);
	drop_waiter(c, ch);
}

static void on_data(void *arg, uint32_t ch, void *user, unsigned stream, const uint8_t *p, size_t len)
{
	struct client *c = arg;

	mux_consumed(link_mux(c->link), ch, stream, len);
}

/* The only stream that says so is who has copied volumes, and is told that they were held until now. */
static void on_eof(void *arg, uint32_t ch, void *user, unsigned stream)
{
	struct client *c = arg;

	if (snapshot_copied(c->k, c, ch))
		mux_send_eof(link_mux(c->link), ch, 1);
}

static const struct mux_callbacks client_callbacks = {
	.open = on_open, .data = on_data, .eof = on_eof, .closed = on_closed};

static void on_link_end(struct link *l, int r, const char *why, void *arg)
{
	if (r < 0 && r != -ECONNRESET && r != -EPIPE)
		log_info("keeper", "client cut off: %s", why);
	client_free(arg);
}

static bool peer_allowed(int fd)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 && (cred.uid == geteuid() || cred.uid == 0);
}

static void on_late(struct loop *loop, struct loop_source *src, void *arg)
{
	struct client *c = arg;

	if (c->waiters)
		loop_timer_at(src, time_now_ns() + LATE_NS);
	else
		client_free(c);
}

static int client_new(struct keeper *k, int fd, bool late)
{
	struct client *c = calloc(1, sizeof(*c));
	struct mux *mux = NULL;
	int r;

	if (!c)
		return -ENOMEM;
	c->k = k;
	r = mux_new(MUX_SERVER, &client_callbacks, c, PROTO_DEFAULT_WINDOW, &mux);
	if (r == 0 && late)
		r = loop_add_timer(k->loop, on_late, c, &c->late);
	if (r == 0)
		r = link_new(k->loop, fd, mux, on_link_end, c, &c->link);
	if (r < 0) {
		loop_remove(c->late);
		mux_free(mux);
		free(c);
		return r;
	}
	c->next = k->clients;
	c->prev = &k->clients;
	if (c->next)
		c->next->prev = &c->next;
	k->clients = c;
	(*(late ? &k->num_late : &k->num_clients))++;
	if (late)
		loop_timer_at(c->late, time_now_ns() + LATE_NS);
	return mux_hello(mux, NULL);
}

static int accept_client(struct keeper *k, int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	int r;

	if (fd < 0)
		return -errno;
	r = peer_allowed(fd) ? client_new(k, fd, k->num_clients >= k->max_clients) : -EPERM;
	if (r < 0)
		fd_close(fd);
	return r;
}

/* Whoever cannot be taken waits, until a client goes (client_free). */
static void on_accept(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct keeper *k = arg;
	int r = accept_client(k, k->listen_fd);

	if (k->clients && (r == -EMFILE || r == -ENFILE || k->num_late >= MAX_LATE))
		loop_modify(k->listen_src, 0);
}

static int listen_on(const char *path)
{
	mode_t old = umask(0077);
	int fd;

	unlink(path); /* of a keeper that was killed; the library lets only one start */
	fd = unix_listen(path, LISTEN_BACKLOG);
	umask(old);
	if (fd >= 0)
		fd_set_nonblock(fd, true);
	return fd;
}

/* ------------------------------------------------------------------------------------ before the VM starts */

static void stop_early(struct keeper *k)
{
	char path[PATH_MAX];

	if (k->early_fd >= 0 && wire_early_socket(k->args.socket, path) == 0)
		unlink(path);
	k->early_src = loop_remove(k->early_src);
	k->early_fd = fd_close(k->early_fd);
}

static void on_early(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct keeper *k = arg;

	if (accept_client(k, k->early_fd) == 0)
		stop_early(k);
}

int server_start_early(struct keeper *k, struct sm_error *err)
{
	char path[PATH_MAX];
	int r = wire_early_socket(k->args.socket, path);

	if (r == 0)
		r = k->early_fd = listen_on(path);
	if (r >= 0)
		r = loop_add(k->loop, k->early_fd, EPOLLIN, on_early, k, &k->early_src);
	return r < 0 ? error_sys(err, -r, "listen beside %s", k->args.socket) : 0;
}

/* ------------------------------------------------------------------------------------ for vm.c */

/* The descriptors that the host grants may be fewer than all clients want. */
static unsigned most_clients(unsigned want)
{
	uint64_t have = fd_limit_raise(want + MAX_LATE + OWN_FDS);
	uint64_t own = MIN((uint64_t)MAX_LATE + OWN_FDS, have / 2);

	return (unsigned)MIN(want, have - own);
}

int server_start(struct keeper *k, struct sm_error *err)
{
	int r;

	k->max_clients = most_clients(k->args.clients);
	k->listen_fd = listen_on(k->args.socket);
	if (k->listen_fd < 0)
		return error_sys(err, -k->listen_fd, "listen on %s", k->args.socket);
	r = loop_add(k->loop, k->listen_fd, EPOLLIN, on_accept, k, &k->listen_src);
	return r < 0 ? error_sys(err, -r, "listen on %s", k->args.socket) : 0;
}

static void tell(struct keeper *k, enum keeper_news_kind kind)
{
	for (struct client *c = k->clients; c; c = c->next)
		for (struct waiter *w = c->waiters; w; w = w->next)
			send_news(c, w->ch, kind);
}

void server_tell_started(struct keeper *k)
{
	tell(k, KEEPER_STARTED);
}

void server_tell_suspending(struct keeper *k)
{
	for (struct client *c = k->clients; c; c = c->next)
		for (struct waiter *w = c->waiters; w; w = w->next)
			if (w->forwards)
				send_news(c, w->ch, KEEPER_SUSPENDING);
}

/* After this nobody can connect: who tries finds exit.json written. */
void server_tell_ended(struct keeper *k)
{
	if (k->attach_client)
		mux_close(link_mux(k->attach_client->link), k->attach_ch, -ESRCH, "the VM has ended");
	k->attach_client = NULL;
	if (k->spare.client)
		mux_close(link_mux(k->spare.client->link), k->spare.ch, -ESRCH, "the spare has ended");
	k->spare.client = NULL;
	if (k->rewinding.client)
		mux_close(link_mux(k->rewinding.client->link), k->rewinding.ch, -ESRCH, "the VM has ended");
	k->rewinding.client = NULL;
	k->listen_src = loop_remove(k->listen_src);
	if (k->listen_fd >= 0)
		unlink(k->args.socket);
	k->listen_fd = fd_close(k->listen_fd);
	stop_early(k);
	tell(k, KEEPER_ENDED);
}

void server_attach_pending(struct keeper *k)
{
	struct client *c = k->attach_client;
	int r;

	if (!c)
		return;
	k->attach_client = NULL;
	r = agent_attach(k, link_mux(c->link), k->attach_ch, &k->attach);
	if (r < 0)
		mux_close(link_mux(c->link), k->attach_ch, r, strerror(-r));
}

bool server_drained(struct keeper *k)
{
	for (struct client *c = k->clients; c; c = c->next) {
		size_t len;

		mux_output(link_mux(c->link), &len);
		if (len)
			return false;
	}
	return true;
}

void server_done(struct keeper *k)
{
	while (k->clients)
		client_free(k->clients);
	stop_early(k);
	k->listen_src = loop_remove(k->listen_src);
	if (k->listen_fd >= 0)
		unlink(k->args.socket);
	k->listen_fd = fd_close(k->listen_fd);
}
