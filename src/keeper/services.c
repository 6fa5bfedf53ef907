/* SPDX-License-Identifier: Apache-2.0 */
/* What clients ask of the keeper, each a service of wire.h, and how they are answered. */
#include "keeper/client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"

#define MAX_LATE_WAITS 32 /* that clients have which come too late to be served (server.c) */

/* It is done, or under way. */
static void answer(struct client *c, uint32_t ch)
{
	mux_opened(link_mux(c->link), ch, NULL);
	mux_close(link_mux(c->link), ch, 0, "");
}

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

void client_news(struct client *c, uint32_t ch, enum keeper_news_kind kind)
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
		client_news(c, ch, KEEPER_STARTED);
	if (k->phase == PHASE_ENDED)
		client_news(c, ch, KEEPER_ENDED);
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
	answer(c, ch);
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
	answer(c, ch);
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
	answer(c, ch);
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

/* Whoever has begun it (r 0) is told when it is done. */
static int await_saving(struct client *c, uint32_t ch, int r)
{
	if (r < 0)
		return r;
	c->k->saving.client = c;
	c->k->saving.ch = ch;
	return 0;
}

static int serve_snapshot(struct client *c, uint32_t ch, struct cursor *request)
{
	struct keeper_snapshot m;
	int r = keeper_snapshot_decode(request, &m);

	return await_saving(c, ch, r < 0 ? r : snapshot_request(c->k, m.dir, (unsigned)m.keep));
}

static int serve_suspend(struct client *c, uint32_t ch, const struct cursor *request)
{
	return await_saving(c, ch, request->left ? -EPROTO : snapshot_request(c->k, NULL, 0));
}

static int serve_mark(struct client *c, uint32_t ch, const struct cursor *request)
{
	return await_saving(c, ch, request->left ? -EPROTO : snapshot_mark(c->k));
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
	k->rewinding.under_way = k->rewinding.marking = false;
	if (!c)
		return;
	if (k->rewinding.error[0])
		mux_close(link_mux(c->link), k->rewinding.ch, -EOPNOTSUPP, k->rewinding.error);
	else
		answer(c, k->rewinding.ch);
	k->rewinding.error[0] = '\0';
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
	answer(c, k->pause.ch);
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
	answer(c, ch);
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
	answer(c, ch);
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

int client_serve(struct client *c, uint32_t ch, uint16_t service, struct cursor *request)
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

const char *client_refusal(uint16_t service, int r)
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
