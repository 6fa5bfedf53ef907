/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that watches a directory, for tests in guests: watcher DIR
 * Says "ready", and then a line for each change of a name in it: "made NAME", "gone NAME", "modified NAME"; names of
 *directories end in a slash.
 */
#include <limits.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <unistd.h>

static const char *verb_of(const struct inotify_event *ev)
{
	if (ev->mask & (IN_CREATE | IN_MOVED_TO))
		return "made";
	return ev->mask & (IN_DELETE | IN_MOVED_FROM) ? "gone" : "modified";
}

int main(int argc, char **argv)
{
	char buf[sizeof(struct inotify_event) + NAME_MAX + 1] __attribute__((aligned(8)));
	const struct inotify_event *ev = (const struct inotify_event *)buf;
	int fd = inotify_init1(IN_CLOEXEC);

	if (argc != 2 || fd < 0 || inotify_add_watch(fd, argv[1], IN_CREATE | IN_DELETE | IN_MOVE | IN_MODIFY) < 0) {
		perror("watcher");
		return 1;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	while (read(fd, buf, sizeof(buf)) > 0)
		printf("%s %s%s\n", verb_of(ev), ev->len ? ev->name : "", ev->mask & IN_ISDIR ? "/" : "");
	return 0;
}
