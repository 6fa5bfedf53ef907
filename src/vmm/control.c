/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket. See control.h and config.h. */
#include "vmm/control.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/util.h"
#include "vmm/saver.h"
#include "vmm/stats.h"
#include "vmm/vm.h"
#include "vmm/workingset.h"

#define PACKET_MAX 4096
#define EXIT_TAIL 1200 /* of console output in the exit event: escaped, it still fits the keeper's packet */

/* A JSON string of bytes that a guest may have chosen: anything but printable ASCII and newlines becomes '?'. */
static void put_json_string(struct buf *b, const char *s)
{
	buf_put_u8(b, '"');
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			buf_put_u8(b, '\\');
		if (*s == '\n')
			buf_put(b, "\\n", 2);
		else if (*s != '\r')
			buf_put_u8(b, *s >= ' ' && *s < 0x7f ? (uint8_t)*s : '?');
	}
	buf_put_u8(b, '"');
}

static void send_event(int sock, struct buf *b)
{
	if (!b->error && send(sock, b->data, b->len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		log_debug("vmm", "control socket: %s", strerror(errno));
	buf_done(b);
}

void control_started(struct vm *vm)
{
	struct buf b = {0};

	buf_printf(&b, "{\"event\":\"started\",\"pid\":%d}", (int)getpid());
	send_event(vm->cfg->control, &b);
}

void control_trace(struct vm *vm, const char *stage)
{
	struct buf b = {0};

	log_debug("vmm", "%s", stage);
	if (!vm->cfg->trace)
		return;
	buf_printf(&b, "{\"event\":\"trace\",\"stage\":\"%s\",\"ns\":%llu}", stage,
		   (unsigned long long)(time_now_ns() - vm->start_ns));
	send_event(vm->cfg->control, &b);
}

void control_stats(struct vm *vm)
{
	struct buf b = {0};

	stats_format(vm, &b);
	send_event(vm->cfg->control, &b);
}

void control_disk_error(struct vm *vm, const char *disk, int error)
{
	struct buf b = {0};

	buf_printf(&b, "{\"event\":\"disk-error\",\"disk\":\"%s\",\"errno\":%d}", disk, error);
	send_event(vm->cfg->control, &b);
}

void control_frozen(struct vm *vm, uint64_t pause_ns)
{
	struct buf b = {0};

	buf_printf(&b, "{\"event\":\"frozen\",\"pause_ns\":%llu}", (unsigned long long)pause_ns);
	send_event(vm->cfg->control, &b);
}

void control_saved(struct vm *vm, const char *error, uint64_t bytes)
{
	struct buf b = {0};

	if (error) {
		buf_printf(&b, "{\"event\":\"snapshot\",\"error\":");
		put_json_string(&b, error);
		buf_put_u8(&b, '}');
	} else {
		buf_printf(&b, "{\"event\":\"snapshot\",\"memory_bytes\":%llu}", (unsigned long long)bytes);
	}
	send_event(vm->cfg->control, &b);
}

static void send_or_error(struct vm *vm, const char *event, const char *error, uint64_t pause_ns)
{
	struct buf b = {0};

	buf_printf(&b, "{\"event\":\"%s\",\"pause_ns\":%llu", event, (unsigned long long)pause_ns);
	if (error) {
		buf_printf(&b, ",\"error\":");
		put_json_string(&b, error);
	}
	buf_put_u8(&b, '}');
	send_event(vm->cfg->control, &b);
}

void control_marked(struct vm *vm, const char *error, uint64_t pause_ns)
{
	send_or_error(vm, "marked", error, pause_ns);
}

void control_rewound(struct vm *vm, const char *error)
{
	send_or_error(vm, "rewound", error, 0);
}

int control_vsock(struct vm *vm, uint32_t port, int fd)
{
	char text[64];
	int n = snprintf(text, sizeof(text), "{\"event\":\"vsock\",\"port\":%u}", port);

	return fd_send(vm->cfg->control, text, (size_t)n, &fd, 1);
}

int control_share(int socket, unsigned number)
{
	char text[48];
	int n = snprintf(text, sizeof(text), "{\"event\":\"share\",\"share\":%u}", number);

	return fd_send(socket, text, (size_t)n, NULL, 0);
}

void control_exit(struct vm *vm)
{
	struct buf b = {0};
	char tail[EXIT_TAIL];

	buf_printf(&b, "{\"event\":\"exit\",\"reason\":\"%s\",\"detail\":", vm_reason_name(vm->reason));
	put_json_string(&b, vm->detail);
	if (vm->reason != VM_SHUTDOWN && console_tail(&vm->console, tail, sizeof(tail))) {
		buf_printf(&b, ",\"console\":");
		put_json_string(&b, tail);
	}
	buf_put_u8(&b, '}');
	send_event(vm->cfg->control, &b);
}

void control_exit_error(int socket, const char *detail)
{
	struct buf b = {0};

	buf_printf(&b, "{\"event\":\"exit\",\"reason\":\"error\",\"detail\":");
	put_json_string(&b, detail);
	buf_put_u8(&b, '}');
	send_event(socket, &b);
}

static void serve_connect(struct vm *vm, json_t *packet, int *fd)
{
	json_t *port = json_object_get(packet, "port");
	json_int_t number = json_integer_value(port);
	int r;

	if (!json_is_integer(port) || number < 0 || number > UINT32_MAX || *fd < 0) {
		log_warn("vmm", "control: connect needs a port and a descriptor");
		return;
	}
	r = devices_connect(vm, (uint32_t)number, TAKE_FD(*fd));
	if (r < 0)
		log_warn("vmm", "control: connect: %s", strerror(-r));
}

static void serve_balloon(struct vm *vm, json_t *packet)
{
	json_t *target = json_object_get(packet, "target");
	json_int_t bytes = json_integer_value(target);

	if (!json_is_integer(target) || bytes < 0 || (uint64_t)bytes > vm->cfg->memory)
		log_warn("vmm", "control: balloon needs a target within the memory");
	else
		devices_balloon(vm, (uint64_t)bytes);
}

static void serve_snapshot(struct vm *vm, json_t *packet, int fds[3])
{
	json_t *over = json_object_get(packet, "over");
	json_int_t keep = json_integer_value(over);
	struct saver_options o = {.stay = json_is_true(json_object_get(packet, "stay")),
				  .memory = {.over = !!over,
					     .lean = json_is_true(json_object_get(packet, "lean")),
					     .keep = keep < 0 || keep > UINT_MAX ? UINT_MAX : (unsigned)keep},
				  .unsynced = json_is_true(json_object_get(packet, "unsynced"))};

	saver_start(vm, fds, &o);
}

/* A machine that a user paused; it stays so whatever else is asked of it. */
static void serve_pause(struct vm *vm, bool pause)
{
	struct buf b = {0};

	if (pause && !vm->paused) {
		vm_pause_locked(vm);
		arch_clock_hold(vm);
	} else if (!pause && vm->paused) {
		arch_clock_release(vm);
		vm_resume_locked(vm);
	}
	vm->paused = pause;
	buf_printf(&b, "{\"event\":\"%s\"}", pause ? "paused" : "resumed");
	send_event(vm->cfg->control, &b);
}

static void serve_share(struct vm *vm, json_t *packet, int *fd)
{
	json_t *number = json_object_get(packet, "share");
	json_int_t n = json_integer_value(number);

	if (json_is_integer(number) && n >= 0 && n < vm->cfg->num_fs && vm->share)
		share_answer(vm->share, (unsigned)n, TAKE_FD(*fd));
}

static void serve_workingset(struct vm *vm, int fd)
{
	struct buf b = {0};
	int pages = fd < 0 || !vm->restored ? 0 : workingset_note(&vm->ram, fd);

	if (pages < 0)
		log_warn("vmm", "working set: %s", strerror(-pages));
	buf_printf(&b, "{\"event\":\"workingset\",\"pages\":%d}", MAX(pages, 0));
	send_event(vm->cfg->control, &b);
}

static void serve_mark(struct vm *vm, int *agent, int *top)
{
	struct sm_error err = {0};
	uint64_t pause_ns = 0;
	int r = mark_take(vm, TAKE_FD(*agent), top, &pause_ns, &err);

	control_marked(vm, r < 0 ? err.message : NULL, pause_ns);
}

/* What could not go back has neither the one memory nor the other: it ends. */
static void serve_rewind(struct vm *vm, int *agent)
{
	struct sm_error err = {0};
	int r = mark_rewind(vm, TAKE_FD(*agent), &err);

	control_rewound(vm, r < 0 ? err.message : NULL);
	if (r < 0)
		vm_finish_locked(vm, VM_ERROR, "go back to the mark: %s", err.message);
}

/* One command. fds: passed along or -1; taken over when used. */
static void serve(struct vm *vm, json_t *packet, int fds[3])
{
	const char *cmd = json_string_value(json_object_get(packet, "cmd"));

	if (!cmd)
		log_warn("vmm", "control: not a command");
	else if (streq(cmd, "stop"))
		vm_finish_locked(vm, VM_STOPPED, "stopped");
	else if (streq(cmd, "pause"))
		serve_pause(vm, true);
	else if (streq(cmd, "resume"))
		serve_pause(vm, false);
	else if (streq(cmd, "stats"))
		control_stats(vm);
	else if (streq(cmd, "connect"))
		serve_connect(vm, packet, &fds[0]);
	else if (streq(cmd, "balloon"))
		serve_balloon(vm, packet);
	else if (streq(cmd, "snapshot"))
		serve_snapshot(vm, packet, fds);
	else if (streq(cmd, "mark"))
		serve_mark(vm, &fds[0], &fds[1]);
	else if (streq(cmd, "rewind"))
		serve_rewind(vm, &fds[0]);
	else if (streq(cmd, "share"))
		serve_share(vm, packet, &fds[0]);
	else if (streq(cmd, "workingset"))
		serve_workingset(vm, fds[0]);
	else
		log_warn("vmm", "control: unknown command \"%.32s\"", cmd);
}

static void on_packet(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct vm *vm = arg;
	char text[PACKET_MAX];
	int fds[16], wanted[3] = {-1, -1, -1};
	size_t nfds = ARRAY_SIZE(fds);
	ssize_t n = fd_recv(vm->cfg->control, text, sizeof(text), fds, &nfds);
	json_t *packet;

	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n <= 0)
		_exit(0); /* the keeper is gone: nobody is left to run for */
	for (size_t i = 0; i < nfds; i++)
		if (i < ARRAY_SIZE(wanted))
			wanted[i] = fds[i];
		else
			fd_close(fds[i]);
	packet = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, NULL);
	serve(vm, packet, wanted);
	json_decref(packet);
	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++)
		fd_close(wanted[i]);
}

int control_attach(struct vm *vm, struct sm_error *err)
{
	int r = fd_set_nonblock(vm->cfg->control, true);

	if (!r)
		r = loop_add(vm->loop, vm->cfg->control, EPOLLIN, on_packet, vm, NULL);
	return r < 0 ? error_sys(err, -r, "control socket") : 0;
}
