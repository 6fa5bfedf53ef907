/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ports of the host that lead into a VM. The library opens them, on this host wherever the VM runs, and hands them,
 * with a socket connected to the VM's keeper, to a process of their own (keeper/forward.c), which lives as long as the
 * VM, and waits with them while that is suspended.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/process.h"
#include "base/util.h"
#include "keeper/porttext.h"
#include "keeper/waiting.h"
#include "lib/lib.h"
#include "lib/portswait.h"

#define BACKLOG 4096 /* the kernel's own limit is lower, as a rule */
#define ALL "*"
#define LOOPBACK "127.0.0.1"
/* The process that had a port may still be on its way out when its VM has ended. */
#define BUSY_TRIES 25
#define BUSY_WAIT_MS 20
#define MAX_TEXT 16384

union address {
	struct sockaddr sa;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

/* ------------------------------------------------------------------------------------------ as texts */

static int address_of(const char *text, uint16_t port, union address *ret, socklen_t *len)
{
	*ret = (union address){0};
	if (inet_pton(AF_INET, text, &ret->v4.sin_addr) == 1) {
		ret->v4.sin_family = AF_INET;
		ret->v4.sin_port = htons(port);
		*len = sizeof(ret->v4);
		return 0;
	}
	if (!streq(text, ALL) && inet_pton(AF_INET6, text, &ret->v6.sin6_addr) != 1)
		return -EINVAL;
	ret->v6.sin6_family = AF_INET6;
	ret->v6.sin6_port = htons(port);
	*len = sizeof(ret->v6);
	return 0;
}

/* To free; made absolute where it is one of this host. */
static char *host_path(const char *path)
{
	char cwd[PATH_MAX];
	char *whole;

	if (path[0] == '/')
		return strdup(path);
	return getcwd(cwd, sizeof(cwd)) && asprintf(&whole, "%s/%s", cwd, path) >= 0 ? whole : NULL;
}

static int check_port(const struct sm_port *p, struct sm_error *err)
{
	union address a;
	socklen_t len;

	if (p->host_path ? !*p->host_path || p->host_port || p->address
			 : p->address && address_of(p->address, 0, &a, &len) < 0)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "\"%s\" is no address of this host: %s",
				 p->host_path ? p->host_path : p->address,
				 p->host_path ? "a path stands alone" : "a number");
	if (p->guest_path ? p->guest_path[0] != '/' || !p->guest_path[1] || p->guest_port : !p->guest_port)
		return error_set(err, SM_ERROR_INVALID, EINVAL,
				 p->guest_path ? "socket \"%s\" of a VM: an absolute path"
					       : "port 0 of a VM: from 1 to 65535",
				 p->guest_path);
	if (p->reverse && !p->host_path && !p->host_port)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "port 0 of this host: from 1 to 65535");
	return 0;
}

static int text_of(const struct sm_port *p, char **ret, struct sm_error *err)
{
	_free_ char *path = p->host_path ? host_path(p->host_path) : NULL;
	const char *address = p->address ? p->address : p->reverse && !path ? LOOPBACK : NULL;
	struct port_text t = {.reverse = p->reverse,
			      .address = (char *)(uintptr_t)address, /* only read */
			      .host_path = path,
			      .guest_path = (char *)(uintptr_t)p->guest_path,
			      .host_port = p->host_port,
			      .guest_port = p->guest_port};

	*ret = p->host_path && !path ? NULL : port_text_format(&t);
	return *ret ? 0 : error_sys(err, ENOMEM, "ports");
}

int ports_from_options(struct vm_record *r, const struct sm_vm_options *o, struct sm_error *err)
{
	int e = 0;

	if (!o->num_ports)
		return 0;
	if (o->num_ports > PORTS_MAX)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "%zu ports are too many: at most %d", o->num_ports,
				 PORTS_MAX);
	r->ports = calloc(o->num_ports + 1, sizeof(*r->ports));
	if (!r->ports)
		return error_sys(err, ENOMEM, "ports");
	for (size_t i = 0; i < o->num_ports && e == 0; i++) {
		struct sm_port p = OPTIONS_GET(struct sm_port, OPTIONS_AT(struct sm_port, o->ports, i));

		e = check_port(&p, err);
		if (e == 0)
			e = text_of(&p, &r->ports[i], err);
	}
	return e;
}

static int parse(char *text, struct sm_port *ret)
{
	struct port_text t;
	int r = port_text_parse(text, &t);

	if (r == 0)
		*ret = (struct sm_port){.size = sizeof(*ret),
					.address = t.address,
					.host_port = t.host_port,
					.guest_port = t.guest_port,
					.host_path = t.host_path,
					.guest_path = t.guest_path,
					.reverse = t.reverse};
	return r;
}

/* The file says which port a 0 became. It is as trustworthy as the directory it is in, and checked all the same. */
int ports_read(int vmdir, const struct vm_record *r, bool runs, struct sm_port **ret, size_t *ret_count,
	       char **ret_text)
{
	struct sm_port *v = calloc(PORTS_MAX, sizeof(*v));
	_cleanup_(buf_done) struct buf all = {0};
	char *text = NULL, *lines, *line;
	size_t n = 0;

	for (char *const *p = r->ports; p && *p; p++)
		buf_printf(&all, "%s\n", *p);
	buf_put_u8(&all, 0);
	if (runs) /* also of those that a lease has given it */
		(void)!read_file_at(vmdir, "ports", MAX_TEXT, &text, NULL);
	if (!text && !all.error)
		text = strdup((const char *)all.data);
	if (!v || !text) {
		free(v);
		free(text);
		return -ENOMEM;
	}
	for (lines = text; n < PORTS_MAX && (line = strsep(&lines, "\n"));)
		n += *line && parse(line, &v[n]) == 0;
	*ret = v;
	*ret_count = n;
	*ret_text = text;
	return 0;
}

/* --------------------------------------------------------------------------------------------- sockets */

static int open_socket(const union address *a, socklen_t len, bool both)
{
	int fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1, v6only = !both;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (a->sa.sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof(v6only));
	if (bind(fd, &a->sa, len) < 0 || listen(fd, BACKLOG) < 0) {
		int r = -errno;

		fd_close(fd);
		return r;
	}
	return fd;
}

/* All addresses: IPv6 and IPv4 at once, or IPv4 alone where there is no IPv6. */
static int listen_once(const struct sm_port *p)
{
	union address a;
	socklen_t len;
	int fd, r = address_of(p->address ? p->address : ALL, p->host_port, &a, &len);

	if (r < 0)
		return r;
	fd = open_socket(&a, len, !p->address);
	if (p->address || (fd != -EAFNOSUPPORT && fd != -EADDRNOTAVAIL))
		return fd;
	r = address_of("0.0.0.0", p->host_port, &a, &len);
	return r < 0 ? r : open_socket(&a, len, false);
}

static int listen_somewhere(const struct sm_port *p)
{
	return p->host_path ? unix_listen_again(p->host_path, BACKLOG) : listen_once(p);
}

/* For people; to free. */
static char *name_of(const struct sm_port *p)
{
	const char *at = p->address ? p->address : "", *open = strchr(at, ':') ? "[" : "", *close = *open ? "]" : "";
	char *name;

	if (p->host_path)
		return asprintf(&name, "socket %s", p->host_path) < 0 ? NULL : name;
	return asprintf(&name, "port %s%s%s%s%u", open, at, close, *at ? ":" : "", p->host_port) < 0 ? NULL : name;
}

static int listen_on(const struct sm_port *p, struct sm_error *err)
{
	_free_ char *name = name_of(p);
	int fd = listen_somewhere(p);

	if (fd >= 0)
		return fd;
	if (fd == -EADDRINUSE)
		return error_set(err, SM_ERROR_HOST, EADDRINUSE, "%s of this host is taken", name ? name : "a port");
	error_sys(err, -fd, "%s of this host", name ? name : "a port");
	if (err)
		err->kind = SM_ERROR_HOST;
	return fd;
}

static uint16_t port_of(int fd)
{
	union address a = {0};
	socklen_t len = sizeof(a);

	if (getsockname(fd, &a.sa, &len) < 0)
		return 0;
	return ntohs(a.sa.sa_family == AF_INET ? a.v4.sin_port : a.v6.sin6_port);
}

static bool is_made(const struct ports *p, unsigned i)
{
	struct stat st;

	return p->made[i].path && lstat(p->made[i].path, &st) == 0 && S_ISSOCK(st.st_mode) &&
	       st.st_dev == p->made[i].dev && st.st_ino == p->made[i].ino;
}

/* What nobody serves goes, by its name too. */
static void close_sockets(struct ports *p)
{
	while (p->n) {
		unsigned i = --p->n;

		if (is_made(p, i))
			unlink(p->made[i].path);
		free(p->made[i].path);
		p->made[i].path = NULL;
		fd_close(p->fds[i]);
		free(p->texts[i]);
	}
	buf_done(&p->text);
	p->text = (struct buf){0};
}

void ports_done(struct ports *p)
{
	close_sockets(p);
	p->waiter = fd_close(p->waiter);
}

static int note_made(struct ports *p, const char *path, struct sm_error *err)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return error_sys(err, errno, "socket %s", path);
	p->made[p->n].path = strdup(path);
	p->made[p->n].dev = st.st_dev;
	p->made[p->n].ino = st.st_ino;
	return p->made[p->n].path ? 0 : error_sys(err, ENOMEM, "socket %s", path);
}

/* One of the record's; text: a copy to cut. waiter: takes its socket from there, `left` others come after it; -1: opens
 * it. */
static int open_one(char *text, const char *id, int waiter, unsigned left, struct ports *ret, struct sm_error *err)
{
	struct sm_port p = {0};
	unsigned i = ret->n;
	int r;

	if (i == PORTS_MAX || parse(text, &p) < 0)
		return error_set(err, SM_ERROR_CORRUPT, EINVAL, "VM %s: a port that makes no sense", id);
	ret->fds[i] = p.reverse ? -1 : waiter < 0 ? listen_on(&p, err) : ports_take(waiter, left, p.guest_port);
	if (!p.reverse && ret->fds[i] < 0)
		return ret->fds[i];
	ret->texts[i] = NULL;
	ret->made[i].path = NULL;
	r = !p.reverse && p.host_path && waiter < 0 ? note_made(ret, p.host_path, err) : 0;
	ret->n++;
	if (r < 0)
		return r;
	if (!p.reverse && !p.host_path)
		p.host_port = port_of(ret->fds[i]);
	r = text_of(&p, &ret->texts[i], err);
	if (r == 0)
		buf_printf(&ret->text, "%s\n", ret->texts[i]);
	return r;
}

unsigned ports_outward(char *const *ports)
{
	unsigned n = 0;

	for (; ports && *ports; ports++)
		n += **ports != PORT_TEXT_REVERSE;
	return n;
}

/* waiter: takes them from there; -1: opens them. */
static int open_all(const struct vm_record *r, int waiter, struct ports *ret, struct sm_error *err)
{
	unsigned left = ports_outward(r->ports);
	int e = 0;

	for (char *const *t = r->ports; *t && e == 0; t++) {
		_free_ char *text = strdup(*t);

		left -= **t != PORT_TEXT_REVERSE;
		e = text ? open_one(text, r->id, waiter, left, ret, err) : error_sys(err, ENOMEM, "ports");
	}
	return e == 0 && ret->text.error ? error_sys(err, ENOMEM, "ports") : e;
}

static bool take_over(struct sm_client *c, const struct vm_record *r, struct ports *ret)
{
	int fd = ports_waiter(c, r->id);

	if (fd >= 0 && open_all(r, fd, ret, NULL) == 0) {
		ret->waiter = fd;
		return true;
	}
	fd_close(fd);
	close_sockets(ret);
	return false;
}

int ports_open(struct sm_client *c, const struct vm_record *r, struct ports *ret, struct sm_error *err)
{
	*ret = (struct ports){.waiter = -1};
	if (!r->ports || !r->ports[0])
		return 0;
	for (int i = 0;; i++) {
		int e = take_over(c, r, ret) ? 0 : open_all(r, -1, ret, err);

		if (e != -EADDRINUSE || i == BUSY_TRIES)
			return e;
		close_sockets(ret);
		poll(NULL, 0, BUSY_WAIT_MS);
	}
}

/* -------------------------------------------------------------------------------------- their process */

/* For supermachine-wake, which is to find what this client has found: first, so that it goes before the caller's own.
 */
static const char **waker_env(struct sm_client *c, char *texts[3])
{
	static const char *const modes[] = {[SEAT_AUTO] = "auto", [SEAT_ALWAYS] = "always", [SEAT_NEVER] = "never"};
	_free_ const char **plain = process_plain_env();
	const char **env;
	size_t n = 0, count = 0;

	if (!plain || asprintf(&texts[n], "SUPERMACHINE_MACHINE=%s", modes[c->mode]) < 0)
		return NULL;
	if (asprintf(&texts[++n], "SUPERMACHINE_LIBEXEC=%s", c->libexec_dir) < 0)
		return NULL;
	if (c->home && asprintf(&texts[++n], "SUPERMACHINE_HOME=%s", c->home) < 0)
		return NULL;
	while (plain[count])
		count++;
	env = calloc(n + 1 + count + 1, sizeof(*env));
	for (size_t i = 0; env && i <= n; i++)
		env[i] = texts[i];
	for (size_t i = 0; env && i < count; i++)
		env[n + 1 + i] = plain[i];
	return env;
}

static int start_process(struct sm_client *c, const struct process_options *plain, struct sm_error *err)
{
	struct process_options o = *plain;
	char *texts[3] = {0};
	const char **env = waker_env(c, texts);
	pid_t pid;

	o.env = env;
	pid = env ? process_detach(&o, err) : error_sys(err, ENOMEM, "ports");
	free(env);
	for (unsigned i = 0; i < ARRAY_SIZE(texts); i++)
		free(texts[i]);
	return pid < 0 ? (int)pid : 0;
}

/* "FD:PORT" of each, and ":PORT" of one that leads the other way. 0, or -ENOMEM. */
static int arguments(const struct ports *p, const char **argv, int *keep, size_t *num_keep)
{
	for (unsigned i = 0; i < p->n; i++) {
		char *text, number[16] = "";

		if (p->fds[i] >= 0)
			snprintf(number, sizeof(number), "%d", p->fds[i]);
		if (asprintf(&text, "%s:%s", number, p->texts[i]) < 0)
			return -ENOMEM;
		argv[i] = text;
		if (p->fds[i] >= 0)
			keep[(*num_keep)++] = p->fds[i];
	}
	return 0;
}

static int spawn(struct sm_client *c, const char *id, const struct ports *p, int link, struct sm_error *err)
{
	_free_ char *keeper = NULL, *waker = NULL, *dir = vmdir_path(c, id);
	const char *argv[PORTS_MAX + 6] = {NULL};
	char number[16];
	int keep[PORTS_MAX + 1] = {link};
	struct process_options o = {
		.argv = argv, .fds = {-1, -1, -1}, .keep = keep, .num_keep = 1, .cwd = "/", .new_session = true};
	int r = dir ? client_helper(c, "supermachine-keeper", &keeper, err) : error_sys(err, ENOMEM, "ports");

	if (r == 0)
		r = client_helper(c, "supermachine-wake", &waker, err);
	if (r < 0)
		return r;
	snprintf(number, sizeof(number), "%d", link);
	argv[0] = keeper;
	argv[1] = "--forward";
	argv[2] = number;
	argv[3] = dir;
	argv[4] = waker;
	r = arguments(p, argv + 5, keep, &o.num_keep);
	r = r < 0 ? error_sys(err, -r, "ports") : start_process(c, &o, err);
	for (unsigned i = 0; i < p->n; i++)
		free((char *)(uintptr_t)argv[i + 5]);
	return r;
}

int ports_serve(struct sm_vm *vm, struct ports *p, struct sm_error *err)
{
	struct vm_start start;
	_fd_ int dir = -1, link = -1;
	int r;

	if (!p->n)
		return 0;
	dir = vmdir_open(vm->client, vm->id, err);
	if (dir < 0)
		return dir;
	r = write_file_atomic_at(dir, "ports", p->text.data, p->text.len, 0600);
	if (r < 0)
		return error_sys(err, -r, "VM %s: ports", vm->id);
	r = vmdir_load_start(dir, &start, err);
	if (r < 0)
		return error_wrap(err, r, "VM %s", vm->id);
	link = vm_socket(vm->client, vm->id, &start, 0, err);
	r = link < 0 ? link : spawn(vm->client, vm->id, p, link, err);
	for (unsigned i = 0; r == 0 && i < p->n; i++) {
		free(p->made[i].path);
		p->made[i].path = NULL;
	}
	if (r == 0 && p->waiter >= 0)
		(void)!send(p->waiter, &(char){WAITING_DONE}, 1, MSG_NOSIGNAL);
	return r;
}
