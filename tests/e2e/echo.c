/* SPDX-License-Identifier: Apache-2.0 */
/* A server that says back what it is told, at TCP port 81, to thousands at once: for tests of ports (49-ports.sh). */
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static void serve(int epoll, int listener, int fd)
{
	static char bytes[65536];
	struct epoll_event ev = {.events = EPOLLIN};
	ssize_t n, at = 0, w;

	if (fd == listener) {
		ev.data.fd = accept(listener, NULL, NULL);
		epoll_ctl(epoll, EPOLL_CTL_ADD, ev.data.fd, &ev);
		return;
	}
	n = read(fd, bytes, sizeof(bytes));
	if (n <= 0)
		close(fd);
	for (; at < n; at += w) {
		w = write(fd, bytes + at, (size_t)(n - at));
		if (w <= 0)
			return;
	}
}

int main(void)
{
	struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(81)};
	struct rlimit files = {4000, 4000};
	struct epoll_event ev = {.events = EPOLLIN};
	int epoll = epoll_create1(0), listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	setrlimit(RLIMIT_NOFILE, &files);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, (struct sockaddr *)&any, sizeof(any)) < 0 || listen(listener, 1024) < 0)
		return 1;
	ev.data.fd = listener;
	epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &ev);
	while (epoll_wait(epoll, &ev, 1, -1) >= 0)
		serve(epoll, listener, ev.data.fd);
	return 1;
}
