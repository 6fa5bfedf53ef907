/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a client may write into the keeper's socket: the real server with its real link and mux over a socket pair, in
 * every phase of a VM. The agent and the VM behind it only count: they have tests of their own.
 */
#include "keeper/server.c"
#include "keeper/services.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The keeper's other parts, as far as the server calls them. */
void keeper_try_main(struct keeper *k)
{
}

void keeper_stop_request(struct keeper *k, const struct keeper_stop *s)
{
	if (s->mode == KEEPER_STOP_NOW)
		k->phase = PHASE_ENDING;
}

void keeper_end(struct keeper *k, enum sm_reason reason, int signal, const char *fmt, ...)
{
	k->phase = PHASE_ENDING;
}

enum sm_vm_state keeper_state(const struct keeper *k)
{
	return SM_VM_RUNNING;
}

int monitor_balloon(struct keeper *k, uint64_t bytes)
{
	if (bytes > k->rec.memory)
		abort();
	return 0;
}

int counters_ask(struct keeper *k, struct mux *near, uint32_t ch)
{
	return -EAGAIN;
}

void counters_client_gone(struct keeper *k, const struct mux *near, uint32_t ch)
{
}

int pause_request(struct keeper *k, bool pause)
{
	return k->main_open ? 0 : -EAGAIN;
}

void snapshot_to_copy(struct keeper *k, struct client *c, uint32_t ch)
{
	k->saving.copies = c;
	k->saving.copies_ch = ch;
}

bool snapshot_copied(struct keeper *k, const struct client *c, uint32_t ch)
{
	bool was = k->saving.copies && k->saving.copies == c && (!ch || ch == k->saving.copies_ch);

	if (was)
		k->saving.copies = NULL;
	return was;
}

int snapshot_request(struct keeper *k, const char *dir, unsigned keep)
{
	if (keep > KEEPER_UNDER_MAX || (dir && dir[0] && dir[0] != '/'))
		abort();
	return k->main_open ? 0 : -EAGAIN;
}

int snapshot_mark(struct keeper *k)
{
	return k->main_open ? 0 : -EAGAIN;
}

int rewind_request(struct keeper *k)
{
	return k->main_open ? 0 : -ENODATA;
}

int branch_keep(struct keeper *k, struct client *c, uint32_t ch, struct monitor_saving *s,
		struct keeper_snapshot_reply *m)
{
	return -ENOMEM;
}

int keeper_disown(struct keeper *k)
{
	k->args.owner = false;
	return 0;
}

void branch_drop(struct keeper *k, const struct client *c, uint32_t ch)
{
}

int agent_attach(struct keeper *k, struct mux *near, uint32_t ch, const struct keeper_attach *a)
{
	return mux_opened(near, ch, NULL);
}

int secrets_take(struct keeper *k, const struct cursor *request)
{
	struct cursor c = *request;
	struct proto_secret s;

	return k->main_open ? proto_secret_decode(&c, &s) : -EALREADY;
}

int watching_serve(struct keeper *k, struct mux *near, uint32_t ch)
{
	return k->main_open ? mux_opened(near, ch, NULL) : -ENOENT;
}

int shares_serve(struct keeper *k, struct mux *near, uint32_t ch, struct cursor *request)
{
	uint8_t number = cursor_u8(request);

	return request->bad || request->left ? -EPROTO : number ? -ENOENT : mux_opened(near, ch, NULL);
}

int execs_spawn(struct keeper *k, struct mux *near, uint32_t ch, struct cursor *request)
{
	struct proto_exec x;
	int r = proto_exec_decode(request, &x);

	if (r < 0)
		return r;
	proto_exec_done(&x);
	return mux_opened(near, ch, NULL);
}

int execs_attach(struct keeper *k, struct mux *near, uint32_t ch, const struct keeper_attach *a)
{
	return mux_opened(near, ch, NULL);
}

int execs_signal(struct keeper *k, uint64_t id, int signal)
{
	if (!id || signal < 1 || signal > 64)
		abort();
	return id == 1 ? 0 : -ESRCH;
}

int events_pass_exec(struct keeper *k, struct mux *near, uint32_t ch, const struct cursor *request)
{
	struct cursor copy = *request;

	return execs_spawn(k, near, ch, &copy);
}

void execs_client_gone(struct keeper *k, struct mux *near, uint32_t ch)
{
}

bool spare_unclaimed(const struct keeper *k)
{
	return k->phase == PHASE_READY && !k->main_open;
}

int spare_claim(struct keeper *k, struct client *c, uint32_t ch, struct cursor *request)
{
	struct keeper_claim m;
	int r = keeper_claim_decode(request, &m);

	if (r < 0)
		return r;
	if (!spare_unclaimed(k) || k->spare.client)
		return -EALREADY;
	k->spare.client = c;
	k->spare.ch = ch;
	return 0;
}

void spare_client_gone(struct keeper *k)
{
	k->spare.client = NULL;
	k->phase = PHASE_ENDING;
}

static void on_timer(struct loop *loop, struct loop_source *src, void *arg)
{
}

static void put_hello(int fd)
{
	struct mux *m = NULL;
	const uint8_t *p;
	size_t len;

	if (mux_new(MUX_CLIENT, &(struct mux_callbacks){0}, NULL, PROTO_DEFAULT_WINDOW, &m) < 0 ||
	    mux_hello(m, NULL) < 0)
		abort();
	p = mux_output(m, &len);
	if (write(fd, p, len) != (ssize_t)len)
		abort();
	mux_free(m);
}

/* First byte: phase, whether the HELLO is made for the input, whether the command runs, whether the
 * client is one too many. Then the socket's bytes. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct keeper k = {.listen_fd = -1, .early_fd = -1, .mon = {.pid = 1}};
	char json[] = "{}", sink[4096];
	int pair[2];

	if (size < 1 || size > 60000)
		return 0;
	k.phase = (enum keeper_phase)(data[0] % (PHASE_ENDED + 1));
	k.main_open = data[0] & 0x10;
	k.exit.started_ns = k.main_open;
	k.exit_json = json;
	if (loop_new(&k.loop) < 0 || loop_add_timer(k.loop, on_timer, NULL, &k.owner_timer) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0 ||
	    client_new(&k, pair[0], data[0] & 0x08) < 0)
		abort();
	if (data[0] & 0x20)
		put_hello(pair[1]);
	if (write(pair[1], data + 1, size - 1) < 0)
		abort();
	for (int i = 0; i < 16 && k.clients; i++) {
		loop_run_once(k.loop, 0);
		while (read(pair[1], sink, sizeof(sink)) > 0)
			;
	}
	if (data[0] & 0x40 && k.spare.client)
		server_claimed(&k);
	if (data[0] & 0x40)
		server_tell_started(&k);
	if (data[0] & 0x40)
		server_pause_done(&k);
	if (data[0] & 0x40)
		server_snapshot_done(&k, &(struct keeper_snapshot_reply){.layers = 1}, !k.saving.copies, 0, "");
	if (data[0] & 0x80)
		server_tell_ended(&k);
	close(pair[1]);
	for (int i = 0; i < 4 && k.clients; i++)
		loop_run_once(k.loop, 0);
	server_done(&k);
	loop_free(k.loop);
	return 0;
}
