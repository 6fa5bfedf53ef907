/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent as PID 1 of a microVM: modules, then a connection to its keeper (vsock, the host's port 1024), then it
 * serves. When the connection goes, as it does for a guest that was restored from a snapshot, it connects anew.
 */
#include "guest/roles.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/vm_sockets.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/util.h"
#include "guest/boot.h"

#define KEEPER_PORT 1024
/* Where the list of modules is first cut: what the link needs. */
#define LINK_MODULE "vmw_vsock_virtio_transport.ko"
#define RETRY_US 2000
#define CONNECT_WAIT_NS 120000000000ULL

/*
 * The kernel gives a connect 2 s. A host that is busy with many guests may answer later, and an attempt given up here
 * has used the one connection that the keeper's socket is joined to.
 */
static void be_patient(int fd)
{
	struct timeval wait = {.tv_sec = CONNECT_WAIT_NS / 1000000000};

	setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &wait, sizeof(wait));
}

static int connect_keeper(void)
{
	struct sockaddr_vm to = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = KEEPER_PORT};
	uint64_t until = time_now_ns() + CONNECT_WAIT_NS;

	for (;;) {
		int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0), r;

		if (fd >= 0)
			be_patient(fd);
		if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0)
			return fd;
		r = -errno;
		fd_close(fd);
		if (time_now_ns() > until)
			return r;
		usleep(RETRY_US);
	}
}

int guest_role(struct agent *a)
{
	int r;

	boot_mounts(a);
	boot_protect_self(a);
	boot_modules(&a->modules_pos, LINK_MODULE);
	a->modules_left = true;
	for (;;) {
		int fd = connect_keeper();

		if (fd < 0) {
			log_error("agent", "no connection to the host: %s", strerror(-fd));
			return fd;
		}
		r = agent_serve(a, fd);
		if (r < 0 && r != -ECONNRESET && r != -ENOTCONN)
			log_warn("agent", "the link ended: %s", strerror(-r));
	}
}
