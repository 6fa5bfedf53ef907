/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lease IMAGE DIRECTORY: leases with things of their own, from a pool of one VM that is ready and at most two. Says on
 * standard output what commands in them said, and about the pool what the test is to know.
 *
 * lease IMAGE again CPUS TIMES: one VM, leased so often, each lease doing to it whatever may be left for the next.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <supermachine.h>

static _Noreturn void die(const char *what, const struct sm_error *err)
{
	fprintf(stderr, "lease: %s: %s\n", what, err->message);
	exit(1);
}

static void command(const char *title, struct sm_vm *vm, const char *script)
{
	const char *argv[] = {"sh", "-c", script, NULL};
	struct sm_exec_options o = SM_EXEC_OPTIONS_INIT;
	struct sm_result *res = NULL;
	struct sm_exec *exec = NULL;
	struct sm_error err = {0};

	o.argv = argv;
	if (sm_vm_exec(vm, &o, &exec, &err) < 0 || sm_exec_collect(exec, &res, &err) < 0)
		die(title, &err);
	printf("%s: status %d: %s%s\n", title, res->outcome.status, res->out.data, res->err.data);
	sm_result_free(res);
	sm_exec_close(exec);
}

static uint16_t port_of(struct sm_vm *vm)
{
	struct sm_vm_info *info = NULL;
	struct sm_error err = {0};
	uint16_t port;

	if (sm_vm_query(vm, &info, &err) < 0)
		die("query", &err);
	port = info->num_ports == 1 ? info->ports[0].host_port : 0;
	sm_vm_info_free(info);
	return port;
}

/* What is said there first; waits for somebody who listens in the VM. */
static void connect_to(const char *title, uint16_t port, int tries)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
	char text[64] = "";
	ssize_t n = 0;

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	for (; tries > 0 && n <= 0; tries--) {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

		n = connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ? -errno : read(fd, text, sizeof(text) - 1);
		close(fd);
		if (n <= 0)
			usleep(100000);
	}
	printf("%s: %s\n", title, n > 0 ? text : n < 0 ? "refused" : "closed");
}

static struct sm_vm *acquire(struct sm_pool *pool, const struct sm_lease_options *o)
{
	struct sm_error err = {0};
	struct sm_vm *vm = NULL;

	if (sm_pool_acquire_with(pool, o, &vm, &err) < 0)
		die("acquire", &err);
	return vm;
}

/* Files, processes, memory, connections, environment, clock. */
#define LEAVE                                                                                                          \
	"echo \"$LEASE\"; echo left >/left; echo left >/dev/shm/left; cat /data/in; echo out >/data/out; echo kept "   \
	">/vol/file; sleep 54321 & (while :; do echo served | nc -l -p 80; done) >/dev/null 2>&1 &"
#define LOOK                                                                                                           \
	"ls -d /left /dev/shm/left /data /vol 2>/dev/null; ps | grep -c '[s]leep 54321'; netstat -tln | grep -c :80; " \
	"echo \"[$LEASE]\"; date +%s"

/* Files on the disk and in memory, processes, mounts, the kernel's own settings, devices, much memory and much of the
 * disk, a detached command. */
#define DEVASTATE                                                                                                      \
	"echo left >/left; rm -rf /srv; mkdir /left-too; hostname left; mount -t tmpfs none /mnt 2>/dev/null; "        \
	"echo 1 >/proc/sys/vm/overcommit_memory 2>/dev/null; "                                                         \
	"dd if=/dev/zero of=/dev/shm/much bs=1M count=20 2>/dev/null; "                                                \
	"dd if=/dev/zero of=/much bs=1M count=10 2>/dev/null; sync; "                                                  \
	"(sleep 54321 & while :; do echo x | nc -l -p 80; done) >/dev/null 2>&1 & "                                    \
	"(while :; do :; done) & date -s @1000000000 >/dev/null 2>&1; echo done"
#define LOOK_AROUND                                                                                                    \
	"ls -d /left /left-too /dev/shm/much /much 2>/dev/null; ls /srv | wc -l; hostname | grep -c left; "            \
	"ps | grep -c '[s]leep 54321'; netstat -tln | grep -c :80; mount | grep -c ' /mnt '"

/* A detached command that a lease leaves is none of the next one's. */
static void leave_detached(struct sm_vm *vm)
{
	const char *argv[] = {"sleep", "1000", NULL};
	struct sm_exec_options o = SM_EXEC_OPTIONS_INIT;
	struct sm_exec_info **list = NULL;
	struct sm_exec *exec = NULL;
	struct sm_error err = {0};
	size_t count = 0;

	if (sm_vm_exec_list(vm, &list, &count, &err) < 0)
		die("list", &err);
	printf("detached: %u\n", (unsigned)count);
	sm_exec_list_free(list, count);
	o.argv = argv;
	o.detach = true;
	if (sm_vm_exec(vm, &o, &exec, &err) < 0)
		die("detached", &err);
	sm_exec_close(exec);
}

static void again(struct sm_pool *pool, int times)
{
	struct sm_pool_stats stats = SM_POOL_STATS_INIT;

	for (int i = 0; i < times; i++) {
		struct sm_vm *vm = acquire(pool, NULL);

		printf("id: %s\n", sm_vm_id(vm));
		command("look", vm, LOOK_AROUND);
		printf("wall: %ld\n", (long)time(NULL));
		command("date", vm, "date +%s");
		command("random", vm, "head -c 8 /dev/urandom | md5sum; cat /proc/sys/kernel/random/uuid");
		leave_detached(vm);
		command("devastate", vm, DEVASTATE);
		sm_pool_release(pool, vm);
	}
	sm_pool_get_stats(pool, &stats);
	printf("%u leases, %u restores, %u failures, %u deaths\n", (unsigned)stats.acquires, (unsigned)stats.restores,
	       (unsigned)stats.failures, (unsigned)stats.deaths);
}

static void own_things(struct sm_pool *pool, const char *directory)
{
	static const char *const env[] = {"LEASE=one", NULL};
	struct sm_port port = SM_PORT_INIT;
	struct sm_mount mounts[2] = {SM_MOUNT_INIT, SM_MOUNT_INIT};
	struct sm_lease_options all = SM_LEASE_OPTIONS_INIT, ports = SM_LEASE_OPTIONS_INIT,
				volume = SM_LEASE_OPTIONS_INIT;
	struct sm_pool_stats stats = SM_POOL_STATS_INIT;
	struct sm_vm *vm;
	uint16_t at;

	port.address = "127.0.0.1";
	port.guest_port = 80;
	mounts[0].source = directory;
	mounts[0].target = "/data";
	mounts[1].volume = "lease-volume";
	mounts[1].target = "/vol";
	all = (struct sm_lease_options){
		.size = sizeof(all), .mounts = mounts, .num_mounts = 2, .ports = &port, .num_ports = 1, .env = env};
	ports.ports = &port;
	ports.num_ports = 1;
	volume.mounts = &mounts[1];
	volume.num_mounts = 1;

	vm = acquire(pool, &all);
	command("first", vm, LEAVE);
	at = port_of(vm);
	connect_to("its port", at, 200);
	sm_pool_release(pool, vm);

	vm = acquire(pool, NULL);
	command("second", vm, LOOK);
	connect_to("the first one's port", at, 1);
	sm_pool_release(pool, vm);

	vm = acquire(pool, &volume);
	command("third", vm, "cat /vol/file");
	sm_pool_release(pool, vm);

	vm = acquire(pool, &ports);
	at = port_of(vm);
	command("fourth", vm, "(while :; do echo again | nc -l -p 80; done) >/dev/null 2>&1 &");
	connect_to("its port", at, 200);
	sm_pool_release(pool, vm);
	sm_pool_get_stats(pool, &stats);
	printf("%u leases, %u failures\n", (unsigned)stats.acquires, (unsigned)stats.failures);
}

int main(int argc, char **argv)
{
	struct sm_vm_options v = SM_VM_OPTIONS_INIT;
	struct sm_pool_options p = SM_POOL_OPTIONS_INIT;
	struct sm_client *client = NULL;
	struct sm_pool *pool = NULL;
	struct sm_error err = {0};

	if (argc != 3 && argc != 5)
		return 2;
	v.image = argv[1];
	v.memory = 256 << 20;
	v.cpus = argc == 5 ? (unsigned)atoi(argv[3]) : 0;
	p.vm = &v;
	p.max = argc == 5 ? 1 : 2;
	if (sm_client_open(NULL, &client, &err) < 0 || sm_pool_new(client, &p, &pool, &err) < 0)
		die("pool", &err);
	if (argc == 5)
		again(pool, atoi(argv[4]));
	else
		own_things(pool, argv[2]);
	sm_pool_free(pool);
	sm_client_close(client);
	return 0;
}
