/* SPDX-License-Identifier: Apache-2.0 */
/* See users.h. The files are the image's and may hold anything: broken lines are skipped, sizes are bounded. */
#include "guest/users.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"

#define MAX_FILE (8u << 20)
#define MAX_GROUPS 65536u
#define MAX_ID INT32_MAX

/* The file's text; an absent one, or one that is no file, is empty. */
static int read_table(const char *path, char **ret)
{
	struct stat st;
	int r;

	if (stat(path, &st) < 0 || !S_ISREG(st.st_mode)) {
		*ret = strdup("");
		return *ret ? 0 : -ENOMEM;
	}
	r = read_file_at(AT_FDCWD, path, MAX_FILE, ret, NULL);
	return r;
}

/* Splits off the text up to sep; NULL when the line is used up. */
static char *next_field(char **p, char sep)
{
	char *start = *p, *end;

	if (!start)
		return NULL;
	end = strchr(start, sep);
	*p = end ? end + 1 : NULL;
	if (end)
		*end = '\0';
	return start;
}

static bool parse_id(const char *s, uint32_t *ret)
{
	uint64_t v;

	if (!s || parse_u64(s, 0, MAX_ID, &v) < 0)
		return false;
	*ret = (uint32_t)v;
	return true;
}

/* Finds by name, else by number. True if listed; then *name is its name (inside text). */
static bool find_user(char *text, const char *want, struct user *u, const char **name)
{
	uint32_t number = 0;
	bool numeric = parse_id(want, &number), found = false;
	char *line;

	while ((line = next_field(&text, '\n'))) {
		char *login = next_field(&line, ':');
		char *home;
		uint32_t uid, gid;
		bool by_name = streq(login, want);

		next_field(&line, ':');
		if (!parse_id(next_field(&line, ':'), &uid) || !parse_id(next_field(&line, ':'), &gid))
			continue;
		if (!by_name && (found || !numeric || uid != number))
			continue;
		next_field(&line, ':');
		home = next_field(&line, ':');
		u->uid = uid;
		u->gid = gid;
		free(u->home);
		u->home = strdup(home && *home ? home : "/");
		*name = login;
		found = true;
		if (by_name)
			break;
	}
	return found;
}

static int add_group(struct user *u, gid_t gid)
{
	gid_t *more;

	for (size_t i = 0; i < u->num_groups; i++)
		if (u->groups[i] == gid)
			return 0;
	if (u->num_groups >= MAX_GROUPS)
		return -E2BIG;
	if ((u->num_groups & (u->num_groups - 1)) == 0) {
		more = realloc(u->groups, sizeof(gid_t) * (u->num_groups ? 2 * u->num_groups : 1));
		if (!more)
			return -ENOMEM;
		u->groups = more;
	}
	u->groups[u->num_groups++] = gid;
	return 0;
}

static bool lists(char *members, const char *name)
{
	char *m;

	while ((m = next_field(&members, ',')))
		if (streq(m, name))
			return true;
	return false;
}

static int add_memberships(char *text, const char *name, struct user *u)
{
	char *line;

	while ((line = next_field(&text, '\n'))) {
		uint32_t gid;
		int r;

		next_field(&line, ':');
		next_field(&line, ':');
		if (!parse_id(next_field(&line, ':'), &gid) || !line || !lists(line, name))
			continue;
		r = add_group(u, gid);
		if (r < 0)
			return r;
	}
	return 0;
}

static bool find_group(char *text, const char *want, gid_t *ret)
{
	uint32_t number = 0, gid;
	bool numeric = parse_id(want, &number);
	char *line;

	while ((line = next_field(&text, '\n'))) {
		char *name = next_field(&line, ':');

		next_field(&line, ':');
		if (parse_id(next_field(&line, ':'), &gid) && streq(name, want)) {
			*ret = gid;
			return true;
		}
	}
	*ret = number;
	return numeric;
}

static int resolve(char *spec, char *passwd, char *groups, struct user *u, struct sm_error *err)
{
	char *rest = spec, *who = next_field(&rest, ':');
	const char *name = NULL, *wanted = *who ? who : "0";
	uint32_t number;

	if (!find_user(passwd, wanted, u, &name)) {
		if (!parse_id(wanted, &number))
			return error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "no user '%s' in the image's /etc/passwd",
					 wanted);
		u->uid = number;
	}
	if (!u->home)
		u->home = strdup("/");
	if (!u->home)
		return -ENOMEM;
	if (rest && *rest) {
		if (!find_group(groups, rest, &u->gid))
			return error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "no group '%s' in the image's /etc/group",
					 rest);
		return 0;
	}
	return name ? add_memberships(groups, name, u) : 0;
}

int user_resolve(const char *spec, const char *passwd_path, const char *group_path, struct user *ret,
		 struct sm_error *err)
{
	_free_ char *copy = strdup(spec ? spec : ""), *passwd = NULL, *groups = NULL;
	int r;

	*ret = (struct user){0};
	if (!copy)
		return -ENOMEM;
	r = read_table(passwd_path, &passwd);
	if (r < 0)
		return error_sys(err, -r, "%s in the image", passwd_path);
	r = read_table(group_path, &groups);
	if (r < 0)
		return error_sys(err, -r, "%s in the image", group_path);
	r = resolve(copy, passwd, groups, ret, err);
	if (r < 0)
		user_done(ret);
	return r;
}

void user_done(struct user *u)
{
	free(u->groups);
	free(u->home);
	*u = (struct user){0};
}
