/* SPDX-License-Identifier: Apache-2.0 */
/*
 * web: a server in a VM, behind a port of this host that nobody else has.
 *
 *	cc web.c -o web $(pkg-config --cflags --libs supermachine)
 *	web PORT PATH IMAGE COMMAND...		web 80 / nginx nginx -g 'daemon off;'
 *
 * Starts the server, asks it for PATH as any client would, prints the answer, and is done: the VM ends with its handle.
 */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <supermachine.h>

#define TRIES 600

static int serve(struct sm_client *client, char **argv, struct sm_vm **ret, struct sm_error *err)
{
	struct sm_vm_options o = SM_VM_OPTIONS_INIT;
	struct sm_port port = SM_PORT_INIT; /* host_port 0: one that is free */

	port.address = "127.0.0.1";
	port.guest_port = (uint16_t)atoi(argv[1]);
	o.image = argv[3];
	o.argv = (const char *const *)argv + 4;
	o.memory = 256 << 20;
	o.background = true;
	o.ports = &port;
	o.num_ports = 1;
	return sm_vm_start(client, &o, ret, err);
}

/* One request; the answer to stdout. False: no answer. */
static int ask(uint16_t port, const char *path)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
	int fd = socket(AF_INET, SOCK_STREAM, 0), any = 0;
	char text[4096];
	ssize_t n;

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	n = snprintf(text, sizeof(text), "GET %s HTTP/1.0\r\n\r\n", path);
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0 && send(fd, text, (size_t)n, MSG_NOSIGNAL) == n)
		while ((n = recv(fd, text, sizeof(text), 0)) > 0)
			any += fwrite(text, 1, (size_t)n, stdout) > 0;
	close(fd);
	return any > 0;
}

int main(int argc, char **argv)
{
	const struct timespec pause = {.tv_nsec = 100000000};
	struct sm_client *client;
	struct sm_vm_info *info;
	struct sm_vm *vm;
	struct sm_error err = {0};
	int answered = 0;

	if (argc < 5) {
		fprintf(stderr, "usage: web PORT PATH IMAGE COMMAND...\n");
		return 2;
	}
	if (sm_client_open(NULL, &client, &err) < 0 || serve(client, argv, &vm, &err) < 0 ||
	    sm_vm_wait_started(vm, 0, NULL, &err) < 0 || sm_vm_query(vm, &info, &err) < 0) {
		fprintf(stderr, "web: %s\n", err.message);
		return 125;
	}
	fprintf(stderr, "web: port %u of VM %s is http://127.0.0.1:%u\n", info->ports[0].guest_port, sm_vm_id(vm),
		info->ports[0].host_port);
	/* The command runs; until it listens, connections end without an answer. */
	for (int i = 0; i < TRIES && !(answered = ask(info->ports[0].host_port, argv[2])); i++)
		nanosleep(&pause, NULL);
	sm_vm_info_free(info);
	sm_vm_close(vm);
	sm_client_close(client);
	return !answered;
}
