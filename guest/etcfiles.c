/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /etc/hosts, /etc/resolv.conf and /etc/hostname. They are files of the initramfs mounted over the image's own, as
 * docker does it: the writable layer, and what is committed from it, does not have them.
 */
#include "guest/setup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"

#define SOURCES "/etc-files"

/* The image's file, made if it is missing. A symbolic link is replaced: mounting through it would hit whatever it
 * names. */
static int make_target(const char *path)
{
	struct stat st;
	int fd;

	if (lstat(path, &st) == 0 && S_ISREG(st.st_mode))
		return 0;
	if (lstat(path, &st) == 0 && !S_ISDIR(st.st_mode) && unlink(path) < 0)
		return -errno;
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	fd_close(fd);
	return 0;
}

static int put_file(const char *name, const struct buf *text, struct sm_error *err)
{
	char source[64], target[64];
	_fd_ int fd = -1;
	int r;

	snprintf(source, sizeof(source), SOURCES "/%s", name);
	snprintf(target, sizeof(target), SETUP_ROOT "/etc/%s", name);
	if (text->error)
		return error_sys(err, -text->error, "/etc/%s", name);
	fd = open(source, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return error_sys(err, errno, "/etc/%s", name);
	r = write_full(fd, text->data, text->len);
	if (r == 0)
		r = make_target(target);
	if (r == 0 && mount(source, target, NULL, MS_BIND, NULL) < 0)
		r = -errno;
	return r < 0 ? error_sys(err, -r, "/etc/%s", name) : 0;
}

static int make_hosts(const struct proto_setup *s, struct sm_error *err)
{
	_cleanup_(buf_done) struct buf b = {0};

	buf_printf(&b, "127.0.0.1\tlocalhost\n"
		       "::1\tlocalhost ip6-localhost ip6-loopback\n"
		       "fe00::\tip6-localnet\n"
		       "ff00::\tip6-mcastprefix\n"
		       "ff02::1\tip6-allnodes\n"
		       "ff02::2\tip6-allrouters\n");
	for (char **h = s->hosts; h && *h; h++)
		buf_printf(&b, "%s\n", *h);
	/* Last, so that an address given for the name comes first. */
	if (s->hostname && *s->hostname)
		buf_printf(&b, "127.0.1.1\t%s\n", s->hostname);
	return put_file("hosts", &b, err);
}

static int make_resolv_conf(const struct proto_setup *s, struct sm_error *err)
{
	_cleanup_(buf_done) struct buf b = {0};

	for (char **d = s->dns; d && *d; d++)
		buf_printf(&b, "nameserver %s\n", *d);
	return put_file("resolv.conf", &b, err);
}

int etc_files_make(const struct proto_setup *s, struct sm_error *err)
{
	_cleanup_(buf_done) struct buf name = {0};
	struct stat st;
	int r;

	mkdir(SOURCES, 0755);
	if (mkdir(SETUP_ROOT "/etc", 0755) < 0 && errno != EEXIST)
		return error_sys(err, errno, "make /etc");
	if (lstat(SETUP_ROOT "/etc", &st) < 0 || !S_ISDIR(st.st_mode))
		return error_set(err, SM_ERROR_INVALID, ENOTDIR, "the image's /etc is not a directory");
	buf_printf(&name, "%s\n", s->hostname ? s->hostname : "");
	r = put_file("hostname", &name, err);
	if (r == 0)
		r = make_hosts(s, err);
	return r == 0 ? make_resolv_conf(s, err) : r;
}
