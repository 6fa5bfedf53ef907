/* SPDX-License-Identifier: Apache-2.0 */
/* See cgroup.h. proc(5) has the formats, cgroups(7) what their paths mean. */
#include "base/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/vfs.h>

#include "base/cleanup.h"
#include "base/util.h"

/* The next of a line's fields, which a space ends; `line` is moved behind it. The length is *len. */
static const char *next_field(const char **line, size_t *len)
{
	const char *field = *line;

	*len = strcspn(field, " \n");
	*line = field + *len + (field[*len] == ' ');
	return field;
}

static bool is_octal(const char *p, size_t left)
{
	return left >= 4 && p[0] == '\\' && p[1] >= '0' && p[1] <= '3' && p[2] >= '0' && p[2] <= '7' && p[3] >= '0' &&
	       p[3] <= '7';
}

/* A path of mountinfo, in which spaces and the like are \ooo. False: it is too long, or no path. */
static bool unescape(const char *p, size_t len, char out[static PATH_MAX])
{
	size_t n = 0;

	if (!len || *p != '/')
		return false;
	for (size_t i = 0; i < len; i++, n++) {
		if (n + 1 >= PATH_MAX)
			return false;
		out[n] = p[i];
		if (!is_octal(p + i, len - i))
			continue;
		out[n] = (char)((p[i + 1] - '0') * 64 + (p[i + 2] - '0') * 8 + (p[i + 3] - '0'));
		if (!out[n])
			return false;
		i += 3;
	}
	out[n] = '\0';
	return true;
}

/* One line of mountinfo: the root that it shows, and where. False: it is no mount of cgroups of version 2. */
static bool parse_mount(const char *line, char root[static PATH_MAX], char at[static PATH_MAX])
{
	const char *p = line, *fields[6], *type;
	size_t len[6], n;

	for (int i = 0; i < 6; i++)
		fields[i] = next_field(&p, &len[i]);
	do
		type = next_field(&p, &n);
	while (n && !(n == 1 && *type == '-'));
	if (!n)
		return false;
	type = next_field(&p, &n);
	return n == strlen("cgroup2") && memcmp(type, "cgroup2", n) == 0 && unescape(fields[3], len[3], root) &&
	       unescape(fields[4], len[4], at);
}

/* What of the path lies beneath root: "" or "/...". NULL: it does not. */
static const char *beneath(const char *path, const char *root)
{
	size_t len = streq(root, "/") ? 0 : strlen(root);

	if (strncmp(path, root, len) != 0 || (path[len] && path[len] != '/'))
		return NULL;
	return path + len + streq(path + len, "/");
}

/* Version 2's line is "0::PATH"; the others' names are chosen by whoever mounts them. */
static int own_name(const char *self, char name[static PATH_MAX])
{
	for (const char *line = self; *line; line += strcspn(line, "\n"), line += *line == '\n') {
		size_t len = strcspn(line, "\n");

		if (!str_starts(line, "0::/"))
			continue;
		if (len - 3 >= PATH_MAX)
			return -ENAMETOOLONG;
		snprintf(name, PATH_MAX, "%.*s", (int)(len - 3), line + 3);
		return 0;
	}
	return -ENOENT;
}

/* Above the root of this process's view of cgroups the kernel writes "/..". */
static bool goes_up(const char *name)
{
	for (const char *p = strstr(name, "/.."); p; p = strstr(p + 1, "/.."))
		if (!p[3] || p[3] == '/')
			return true;
	return false;
}

int cgroup_path(const char *self, const char *mountinfo, char path[static PATH_MAX])
{
	char name[PATH_MAX], root[PATH_MAX], at[PATH_MAX];
	int r = own_name(self, name), found = -ENOENT;

	if (r < 0)
		return r;
	if (goes_up(name))
		return -EXDEV;
	for (const char *line = mountinfo; *line; line += strcspn(line, "\n"), line += *line == '\n') {
		const char *rest;

		if (!parse_mount(line, root, at))
			continue;
		found = -EXDEV;
		rest = beneath(name, root);
		if (rest)
			return snprintf(path, PATH_MAX, "%s%s", at, rest) >= PATH_MAX ? -ENAMETOOLONG : 0;
	}
	return found;
}

int cgroup_open(const char *path)
{
	_fd_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	struct statfs s;

	if (fd < 0 || fstatfs(fd, &s) < 0)
		return -errno;
	return s.f_type == CGROUP2_SUPER_MAGIC ? TAKE_FD(fd) : -ENOTDIR;
}
