/* SPDX-License-Identifier: Apache-2.0 */
/* What run's options say of the container's root beside the image: /etc/hosts, file systems in memory, read-only. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "lib/lib.h"

#define MAX_HOSTS 256
#define MAX_TMPFS 32
#define HOST_CHARS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._"

/* "NAME:ADDRESS" (docker also has NAME=ADDRESS) as a line of /etc/hosts; NULL: it is none, errno 0, or no memory. */
static char *host_line(const char *text)
{
	size_t len = strcspn(text, ":=");
	const char *address = text + len + (text[len] != '\0');
	_free_ char *bare = strdup(address[0] == '[' ? address + 1 : address);
	uint8_t any[16];
	char *line;

	errno = 0;
	if (bare && *bare && bare[strlen(bare) - 1] == ']')
		bare[strlen(bare) - 1] = '\0';
	if (!bare || !len || strspn(text, HOST_CHARS) != len ||
	    (inet_pton(AF_INET, bare, any) != 1 && inet_pton(AF_INET6, bare, any) != 1))
		return NULL;
	if (asprintf(&line, "%s %.*s", bare, (int)len, text) < 0) {
		errno = ENOMEM;
		return NULL;
	}
	return line;
}

static int set_hosts(struct vm_record *r, const char *const *hosts, struct sm_error *err)
{
	size_t n = strv_len(hosts);

	if (!n)
		return 0;
	if (n > MAX_HOSTS)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "more than %d hosts", MAX_HOSTS);
	r->hosts = calloc(n + 1, sizeof(*r->hosts));
	for (size_t i = 0; r->hosts && i < n; i++) {
		r->hosts[i] = host_line(hosts[i]);
		if (!r->hosts[i] && errno == 0)
			return error_set(err, SM_ERROR_INVALID, EINVAL, "host \"%s\" is not NAME:ADDRESS", hosts[i]);
		if (!r->hosts[i])
			break;
	}
	return r->hosts && r->hosts[n - 1] ? 0 : error_sys(err, ENOMEM, "hosts");
}

/* One of "size=64M", "mode=1777", ...; false: it is none. */
static bool tmpfs_option(const char *word, uint64_t *size, unsigned *mode, bool *noexec)
{
	char *end;
	unsigned long v;

	if (str_starts(word, "size="))
		return parse_size(word + 5, size) == 0 && *size > 0;
	if (str_starts(word, "mode=")) {
		v = strtoul(word + 5, &end, 8);
		*mode = (unsigned)v;
		return word[5] >= '0' && word[5] <= '7' && !*end && v <= 07777;
	}
	if (streq(word, "exec") || streq(word, "noexec")) {
		*noexec = word[0] == 'n';
		return true;
	}
	return streq(word, "rw") || streq(word, "nosuid") || streq(word, "nodev");
}

/* "PATH[:OPTIONS]" as proto_setup has it. */
static int tmpfs_text(const char *text, char **ret, struct sm_error *err)
{
	_free_ char *copy = strdup(text);
	char *rest = copy ? strchr(copy, ':') : NULL, *word;
	unsigned mode = 01777;
	bool noexec = true;
	uint64_t size = 0;
	char limit[40] = "";

	if (!copy)
		return error_sys(err, ENOMEM, "tmpfs %s", text);
	if (rest)
		*rest++ = '\0';
	if (copy[0] != '/' || !copy[strspn(copy, "/")] || strstr(copy, "/../") ||
	    (strlen(copy) > 2 && streq(copy + strlen(copy) - 3, "/..")))
		return error_set(err, SM_ERROR_INVALID, EINVAL, "tmpfs \"%s\": not an absolute path of a directory",
				 text);
	while (rest && (word = strsep(&rest, ",")))
		if (*word && !tmpfs_option(word, &size, &mode, &noexec))
			return error_set(err, SM_ERROR_INVALID, EINVAL,
					 "tmpfs \"%s\": \"%s\" is none of size=SIZE, mode=OCTAL, exec, noexec", text,
					 word);
	if (size)
		snprintf(limit, sizeof(limit), "size=%llu,", (unsigned long long)size);
	if (asprintf(ret, "%s:%smode=%o:%s", noexec ? "n" : "", limit, mode, copy) < 0) {
		*ret = NULL;
		return error_sys(err, ENOMEM, "tmpfs %s", text);
	}
	return 0;
}

int container_from_options(struct vm_record *r, const struct sm_vm_options *o, struct sm_error *err)
{
	size_t n = strv_len(o->tmpfs);
	int e = set_hosts(r, o->hosts, err);

	r->read_only = o->read_only;
	if (e < 0 || !n)
		return e;
	if (n > MAX_TMPFS)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "more than %d tmpfs", MAX_TMPFS);
	r->tmpfs = calloc(n + 1, sizeof(*r->tmpfs));
	if (!r->tmpfs)
		return error_sys(err, ENOMEM, "tmpfs");
	for (size_t i = 0; e == 0 && i < n; i++)
		e = tmpfs_text(o->tmpfs[i], &r->tmpfs[i], err);
	return e;
}
