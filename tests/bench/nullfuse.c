/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The least a FUSE server can do, for bench-devfuse: answers GETATTR and LOOKUP with the same bytes each time, valid
 *for no time at all, with as many threads as asked for on cloned descriptors. What a real server takes longer, it takes
 *itself.
 *
 *	nullfuse THREADS MOUNTPOINT		serves until unmounted
 *	nullfuse fstat THREADS SECONDS FILE	calls fstat on FILE from so many threads and prints calls a second
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ROOM (1 << 20)

static int dev_fd;

struct reply {
	struct fuse_out_header h;
	union {
		struct fuse_init_out init;
		struct fuse_attr_out attr;
		struct fuse_entry_out entry;
		struct fuse_open_out open;
	};
};

static size_t answer(const struct fuse_in_header *in, const struct fuse_init_in *init, struct reply *r)
{
	struct fuse_attr attr = {.ino = in->nodeid,
				 .mode = in->nodeid == 1 ? S_IFDIR | 0755 : S_IFREG | 0644,
				 .nlink = 1,
				 .blksize = 4096};

	switch (in->opcode) {
	case FUSE_INIT:
		r->init = (struct fuse_init_out){.major = 7,
						 .minor = init->minor < 38 ? init->minor : 38,
						 .max_readahead = init->max_readahead,
						 .max_write = 4096};
		return sizeof(r->init);
	case FUSE_GETATTR:
		r->attr = (struct fuse_attr_out){.attr = attr};
		return sizeof(r->attr);
	case FUSE_LOOKUP:
		attr.mode = S_IFREG | 0644;
		attr.ino = 2;
		r->entry = (struct fuse_entry_out){.nodeid = 2, .attr = attr};
		return sizeof(r->entry);
	case FUSE_OPEN:
		r->open = (struct fuse_open_out){.fh = 1};
		return sizeof(r->open);
	case FUSE_RELEASE:
	case FUSE_FLUSH:
		return 0;
	default:
		r->h.error = -38; /* ENOSYS */
		return 0;
	}
}

static void *serve(void *arg)
{
	char *buf = malloc(ROOM);
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	(void)arg;
	if (!buf || ioctl(fd, FUSE_DEV_IOC_CLONE, &dev_fd) < 0)
		exit(1);
	for (;;) {
		struct fuse_in_header *in = (void *)buf;
		struct reply r = {0};

		if (read(fd, buf, ROOM) <= 0)
			return NULL;
		if (in->opcode == FUSE_FORGET || in->opcode == FUSE_BATCH_FORGET || in->opcode == FUSE_INTERRUPT)
			continue;
		r.h.unique = in->unique;
		r.h.len = (uint32_t)(sizeof(r.h) + answer(in, (void *)(in + 1), &r));
		if (write(fd, &r, r.h.len) < 0)
			continue;
	}
}

struct caller {
	const char *file;
	double seconds;
	unsigned long calls;
};

static void *call(void *arg)
{
	struct caller *c = arg;
	struct timespec t0, t;
	struct stat st;
	int fd = open(c->file, O_RDONLY);

	clock_gettime(CLOCK_MONOTONIC, &t0);
	do {
		for (int i = 0; i < 256; i++)
			if (fstat(fd, &st) < 0)
				exit(1);
		c->calls += 256;
		clock_gettime(CLOCK_MONOTONIC, &t);
	} while ((double)(t.tv_sec - t0.tv_sec) + (double)(t.tv_nsec - t0.tv_nsec) / 1e9 < c->seconds);
	return NULL;
}

static int measure(int threads, double seconds, const char *file)
{
	struct caller c[64] = {0};
	pthread_t t[64];
	double sum = 0;

	for (int i = 0; i < threads && i < 64; i++) {
		c[i] = (struct caller){.file = file, .seconds = seconds};
		pthread_create(&t[i], NULL, call, &c[i]);
	}
	for (int i = 0; i < threads && i < 64; i++) {
		pthread_join(t[i], NULL);
		sum += (double)c[i].calls / seconds;
	}
	printf("%.0f\n", sum);
	return 0;
}

int main(int argc, char **argv)
{
	char data[128];
	pthread_t t;

	if (argc == 5 && !strcmp(argv[1], "fstat"))
		return measure(atoi(argv[2]), atof(argv[3]), argv[4]);
	if (argc != 3 || (dev_fd = open("/dev/fuse", O_RDWR | O_CLOEXEC)) < 0)
		return 2;
	snprintf(data, sizeof(data), "fd=%d,rootmode=40000,user_id=0,group_id=0", dev_fd);
	if (mount("null", argv[2], "fuse", 0, data) < 0) {
		perror("mount");
		return 1;
	}
	for (int i = 1; i < atoi(argv[1]); i++)
		pthread_create(&t, NULL, serve, NULL);
	serve(NULL);
	return 0;
}
