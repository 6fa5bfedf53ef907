/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ports of the host that lead into a VM. The library opens them, on this host wherever the VM runs, and hands them,
 * with a socket connected to the VM's keeper, to a process of their own (keeper/forward.c), which lives as long as the
 * VM.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/process.h"
#include "base/util.h"
#include "lib/lib.h"

#define BACKLOG 4096 /* the kernel's own limit is lower, as a rule */
#define ALL "*"
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

int ports_from_options(struct vm_record *r, const struct sm_vm_options *o, struct sm_error *err)
{
	union address a;
	socklen_t len;

	if (!o->num_ports)
		return 0;
	if (o->num_ports > PORTS_MAX)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "%zu ports are too many: at most %d", o->num_ports,
				 PORTS_MAX);
	r->ports = calloc(o->num_ports + 1, sizeof(*r->ports));
	if (!r->ports)
		return error_sys(err, ENOMEM, "ports");
	for (size_t i = 0; i < o->num_ports; i++) {
		struct sm_port p = OPTIONS_GET(struct sm_port, OPTIONS_AT(struct sm_port, o->ports, i));
		const char *address = p.address ? p.address : ALL;

		if (address_of(address, 0, &a, &len) < 0)
			return error_set(err, SM_ERROR_INVALID, EINVAL, "\"%s\" is no address of this host: a number",
					 address);
		if (!p.guest_port)
			return error_set(err, SM_ERROR_INVALID, EINVAL, "port 0 of a VM: from 1 to 65535");
		if (asprintf(&r->ports[i], "%s %u %u", address, p.host_port, p.guest_port) < 0) {
			r->ports[i] = NULL;
			return error_sys(err, ENOMEM, "ports");
		}
	}
	return 0;
}

/* Cuts "ADDRESS HOST GUEST" in place. */
static int parse(char *text, struct sm_port *ret)
{
	char *host = strchr(text, ' '), *guest = host ? strchr(host + 1, ' ') : NULL;
	uint64_t h, g;

	if (!guest)
		return -EINVAL;
	*host++ = *guest++ = '\0';
	if (parse_u64(host, 0, UINT16_MAX, &h) < 0 || parse_u64(guest, 1, UINT16_MAX, &g) < 0)
		return -EINVAL;
	*ret = (struct sm_port){.size = sizeof(*ret),
				.address = streq(text, ALL) ? NULL : text,
				.host_port = (uint16_t)h,
				.guest_port = (uint16_t)g};
	return 0;
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
	if (runs && r->ports)
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

static int listen_on(const struct sm_port *p, struct sm_error *err)
{
	const char *at = p->address ? p->address : "", *open = strchr(at, ':') ? "[" : "", *close = *open ? "]" : "";
	int fd = listen_once(p);

	for (int i = 0; fd == -EADDRINUSE && i < BUSY_TRIES; i++) {
		poll(NULL, 0, BUSY_WAIT_MS);
		fd = listen_once(p);
	}
	if (fd >= 0)
		return fd;
	if (fd == -EADDRINUSE)
		return error_set(err, SM_ERROR_HOST, EADDRINUSE, "port %s%s%s%s%u of this host is taken", open, at,
				 close, *at ? ":" : "", p->host_port);
	error_sys(err, -fd, "port %s%s%s%s%u of this host", open, at, close, *at ? ":" : "", p->host_port);
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

void ports_done(struct ports *p)
{
	while (p->n)
		fd_close(p->fds[--p->n]);
	buf_done(&p->text);
}

int ports_open(const struct vm_record *r, struct ports *ret, struct sm_error *err)
{
	*ret = (struct ports){0};
	for (char *const *t = r->ports; t && *t; t++) {
		_free_ char *text = strdup(*t);
		struct sm_port p;
		int fd;

		if (!text || ret->n == PORTS_MAX || parse(text, &p) < 0)
			return error_set(err, SM_ERROR_CORRUPT, EINVAL, "VM %s: port \"%s\"", r->id, *t);
		fd = listen_on(&p, err);
		if (fd < 0)
			return fd;
		ret->fds[ret->n] = fd;
		ret->guest[ret->n++] = p.guest_port;
		buf_printf(&ret->text, "%s %u %u\n", p.address ? p.address : ALL, port_of(fd), p.guest_port);
	}
	return ret->text.error ? error_sys(err, ENOMEM, "ports") : 0;
}

/* -------------------------------------------------------------------------------------- their process */

static int spawn(struct sm_client *c, const struct ports *p, int link, struct sm_error *err)
{
	const char *argv[PORTS_MAX + 4];
	char texts[PORTS_MAX + 1][24];
	_free_ char *keeper = NULL;
	int keep[PORTS_MAX + 1];
	struct process_options o = {
		.argv = argv, .fds = {-1, -1, -1}, .keep = keep, .num_keep = p->n + 1, .cwd = "/", .new_session = true};
	pid_t pid;
	int r = client_helper(c, "supermachine-keeper", &keeper, err);

	if (r < 0)
		return r;
	snprintf(texts[0], sizeof(texts[0]), "%d", link);
	keep[0] = link;
	argv[0] = keeper;
	argv[1] = "--forward";
	argv[2] = texts[0];
	for (unsigned i = 0; i < p->n; i++) {
		snprintf(texts[i + 1], sizeof(texts[0]), "%d:%u", p->fds[i], p->guest[i]);
		keep[i + 1] = p->fds[i];
		argv[i + 3] = texts[i + 1];
	}
	argv[p->n + 3] = NULL;
	pid = process_detach(&o, err);
	return pid < 0 ? (int)pid : 0;
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
	link = vm_socket(vm->client, vm->id, &start, err);
	return link < 0 ? link : spawn(vm->client, p, link, err);
}
