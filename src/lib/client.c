/* SPDX-License-Identifier: Apache-2.0 */
/* The client: directories, helper programs, the seat and the image store it opens when they are first needed. */
#include "lib/lib.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/process.h"
#include "base/util.h"

const char *sm_version(void)
{
	return SM_VERSION;
}

void sm_free(void *p)
{
	free(p);
}

void client_say(struct sm_client *c, enum sm_log_level level, const char *fmt, ...)
{
	char line[1024];
	va_list ap;

	if (!c->log)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	pthread_mutex_lock(&c->log_lock);
	c->log(c->log_arg, level, line);
	pthread_mutex_unlock(&c->log_lock);
}

/* ------------------------------------------------------------------------------------ directories */

/* "<value of env>/supermachine", or "<home>/<fallback>/supermachine"; NULL: no memory or nowhere. */
static char *xdg_dir(const char *env, const char *fallback)
{
	const char *base = getenv(env), *home = getenv("HOME");
	char *dir = NULL;

	if (base && base[0] == '/') {
		if (asprintf(&dir, "%s/supermachine", base) < 0)
			return NULL;
	} else if (fallback && home && home[0] == '/') {
		if (asprintf(&dir, "%s/%s/supermachine", home, fallback) < 0)
			return NULL;
	}
	return dir;
}

static char *sub_dir(const char *home, const char *name)
{
	char *dir = NULL;

	return asprintf(&dir, "%s/%s", home, name) < 0 ? NULL : dir;
}

/* Without XDG_RUNTIME_DIR (a cron job, a container): a directory of ours under /run or /tmp. */
static char *fallback_runtime(void)
{
	char *dir = NULL;

	if (geteuid() == 0)
		return strdup("/run/supermachine");
	return asprintf(&dir, "/tmp/supermachine-%u", (unsigned)geteuid()) < 0 ? NULL : dir;
}

static int choose_directories(struct sm_client *c, const char *home, struct sm_error *err)
{
	char absolute[PATH_MAX];

	if (!home || !*home)
		home = getenv("SUPERMACHINE_HOME");
	if (home && *home) {
		if (mkdir_p(home, 0700) < 0 || !realpath(home, absolute))
			return error_sys(err, errno, "directory %s", home);
		c->home = strdup(absolute);
		c->data_dir = sub_dir(absolute, "data");
		c->state_dir = sub_dir(absolute, "state");
		c->runtime_dir = sub_dir(absolute, "run");
	} else {
		c->data_dir = xdg_dir("XDG_DATA_HOME", ".local/share");
		c->state_dir = xdg_dir("XDG_STATE_HOME", ".local/state");
		c->runtime_dir = xdg_dir("XDG_RUNTIME_DIR", NULL);
		if (!c->runtime_dir)
			c->runtime_dir = fallback_runtime();
	}
	if ((home && *home && !c->home) || !c->data_dir || !c->state_dir || !c->runtime_dir)
		return error_set(err, SM_ERROR_HOST, ENOENT,
				 "no place for images and VMs: set SUPERMACHINE_HOME or HOME");
	return 0;
}

/* Makes dir for this user alone. One in a shared place (/tmp) that somebody else made is refused. */
static int make_private(const char *dir, struct sm_error *err)
{
	struct stat st;
	int r = mkdir_p(dir, 0700);

	if (r < 0)
		return error_sys(err, -r, "make directory %s", dir);
	if (lstat(dir, &st) < 0)
		return error_sys(err, errno, "directory %s", dir);
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 022))
		return error_set(err, SM_ERROR_HOST, EPERM, "directory %s is not this user's own", dir);
	return 0;
}

static int make_directories(struct sm_client *c, struct sm_error *err)
{
	const char *const dirs[] = {c->data_dir, c->state_dir, c->runtime_dir};
	static const char *const state[] = {"vms", "names"};
	int r = 0;

	for (unsigned i = 0; r == 0 && i < ARRAY_SIZE(dirs); i++)
		r = make_private(dirs[i], err);
	for (unsigned i = 0; r == 0 && i < ARRAY_SIZE(state); i++) {
		char *dir = sub_dir(c->state_dir, state[i]);

		r = dir ? make_private(dir, err) : error_sys(err, ENOMEM, "client");
		free(dir);
	}
	return r < 0 ? r : vmindex_prepare(c, err);
}

/* ---------------------------------------------------------------------------------------- helpers */

static bool has_keeper(const char *dir)
{
	char path[PATH_MAX];

	return snprintf(path, sizeof(path), "%s/supermachine-keeper", dir) < (int)sizeof(path) &&
	       access(path, X_OK) == 0;
}

/* The helpers: where the caller says; beside this program (a build's folder), or in the tree it was installed in,
 * wherever that has been put; else where they were configured to be. */
static char *find_libexec(const char *given)
{
	char exe[PATH_MAX], tree[PATH_MAX + 32];
	ssize_t n;

	if (!given || !*given)
		given = getenv("SUPERMACHINE_LIBEXEC");
	if (given && *given)
		return realpath(given, NULL);
	n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	if (n > 0) {
		exe[n] = '\0';
		dirname(exe);
		if (has_keeper(exe))
			return strdup(exe);
		snprintf(tree, sizeof(tree), "%s/../libexec/supermachine", exe);
		if (has_keeper(tree))
			return realpath(tree, NULL);
	}
	return strdup(SM_LIBEXECDIR);
}

int client_helper(struct sm_client *c, const char *name, char **ret, struct sm_error *err)
{
	char *path = sub_dir(c->libexec_dir, name);

	if (!path)
		return error_sys(err, ENOMEM, "%s", name);
	if (access(path, X_OK) < 0) {
		int r = error_set(err, SM_ERROR_HOST, ENOENT,
				  "helper program %s is missing: install it there or set SUPERMACHINE_LIBEXEC", path);

		free(path);
		return r;
	}
	*ret = path;
	return 0;
}

int client_start_role(struct sm_client *c, const char *role, int link, const char *const *args, unsigned count,
		      struct sm_error *err)
{
	const char *argv[VM_MAX_MOUNTS + 4] = {NULL};
	_free_ const char **env = process_plain_env();
	_free_ char *keeper = NULL;
	char number[16];
	struct process_options o = {.argv = argv,
				    .env = env,
				    .fds = {-1, -1, -1},
				    .keep = &link,
				    .num_keep = 1,
				    .cwd = "/",
				    .new_session = true};
	int r = client_helper(c, "supermachine-keeper", &keeper, err);

	if (r < 0)
		return r;
	snprintf(number, sizeof(number), "%d", link);
	argv[0] = keeper;
	argv[1] = role;
	argv[2] = number;
	memcpy(argv + 3, args, count * sizeof(*args));
	return MIN((int)process_detach(&o, err), 0);
}

/* ------------------------------------------------------------------------------------------- open */

static int choose_mode(struct sm_client *c, enum sm_machine_mode mode, struct sm_error *err)
{
	switch (mode) {
	case SM_MACHINE_AUTO:
		c->mode = SEAT_AUTO;
		return 0;
	case SM_MACHINE_ALWAYS:
		c->mode = SEAT_ALWAYS;
		return 0;
	case SM_MACHINE_NEVER:
		c->mode = SEAT_NEVER;
		return 0;
	case SM_MACHINE_DEFAULT:
		return seat_mode_parse(getenv("SUPERMACHINE_MACHINE"), &c->mode, err);
	}
	return error_set(err, SM_ERROR_INVALID, EINVAL, "unknown machine mode %d", (int)mode);
}

#define ANSWER_TIMEOUT_MAX (3600ull * 1000000000)

/* How long a keeper may say nothing. */
static int choose_patience(struct sm_client *c, uint64_t given, struct sm_error *err)
{
	const char *env = getenv("SUPERMACHINE_ANSWER_TIMEOUT");

	c->patience_ns = KEEPER_ANSWER_NS;
	if (given)
		c->patience_ns = MIN(given, ANSWER_TIMEOUT_MAX);
	else if (env && env[0] &&
		 (parse_duration(env, &c->patience_ns) < 0 || !c->patience_ns || c->patience_ns > ANSWER_TIMEOUT_MAX))
		return error_set(err, SM_ERROR_INVALID, EINVAL,
				 "SUPERMACHINE_ANSWER_TIMEOUT wants a time such as 30s, at most an hour, not '%s'",
				 env);
	return 0;
}

int sm_client_open(const struct sm_client_options *options, struct sm_client **ret, struct sm_error *err)
{
	struct sm_client_options o = OPTIONS_GET(struct sm_client_options, options);
	struct sm_client *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return error_sys(err, ENOMEM, "client");
	pthread_mutex_init(&c->lock, NULL);
	pthread_mutex_init(&c->log_lock, NULL);
	c->log = o.log;
	c->log_arg = o.log_arg;
	r = choose_mode(c, o.machine, err);
	if (r == 0)
		r = choose_patience(c, o.answer_timeout_ns, err);
	if (r == 0)
		r = choose_directories(c, o.home, err);
	if (r == 0)
		r = make_directories(c, err);
	if (r == 0) {
		c->libexec_dir = find_libexec(o.libexec_dir);
		if (!c->libexec_dir)
			r = error_sys(err, errno, "helper programs' directory %s",
				      o.libexec_dir ? o.libexec_dir : getenv("SUPERMACHINE_LIBEXEC"));
	}
	if (r < 0) {
		sm_client_close(c);
		return r;
	}
	*ret = c;
	return 0;
}

struct sm_client *sm_client_close(struct sm_client *c)
{
	if (!c)
		return NULL;
	seat_close(c->seat);
	seat_close(c->machine_seat);
	image_store_close(c->store);
	pthread_mutex_destroy(&c->lock);
	pthread_mutex_destroy(&c->log_lock);
	free(c->data_dir);
	free(c->state_dir);
	free(c->runtime_dir);
	free(c->libexec_dir);
	free(c->home);
	free(c);
	return NULL;
}

/* -------------------------------------------------------------------------------- made on first use */

int client_store(struct sm_client *c, struct image_store **ret, struct sm_error *err)
{
	_free_ char *dir = sub_dir(c->data_dir, "images");
	int r = 0;

	if (!dir)
		return error_sys(err, ENOMEM, "image store");
	pthread_mutex_lock(&c->lock);
	if (!c->store)
		r = image_store_open(dir, &c->store, err);
	*ret = c->store;
	pthread_mutex_unlock(&c->lock);
	return r;
}

static void seat_says(void *arg, const char *line)
{
	client_say(arg, SM_LOG_NOTICE, "%s", line);
}

static struct seat_options seat_options_of(struct sm_client *c, enum seat_mode mode)
{
	return (struct seat_options){.mode = mode,
				     .runtime_dir = c->runtime_dir,
				     .data_dir = c->data_dir,
				     .state_dir = c->state_dir,
				     .libexec_dir = c->libexec_dir,
				     .notice = seat_says,
				     .notice_arg = c};
}

int client_seat(struct sm_client *c, struct seat **ret, struct sm_error *err)
{
	struct seat_options o = seat_options_of(c, c->mode);
	int r = 0;

	pthread_mutex_lock(&c->lock);
	if (!c->seat)
		r = seat_open(&o, &c->seat, err);
	*ret = c->seat;
	pthread_mutex_unlock(&c->lock);
	return r;
}

int client_machine_seat(struct sm_client *c, struct seat **ret, struct sm_error *err)
{
	struct seat_options o = seat_options_of(c, SEAT_ALWAYS);
	int r = 0;

	pthread_mutex_lock(&c->lock);
	if (!c->machine_seat)
		r = seat_open_machine(&o, &c->machine_seat, err);
	*ret = c->machine_seat;
	pthread_mutex_unlock(&c->lock);
	return r;
}

int client_seat_of(struct sm_client *c, const struct vm_start *start, struct seat **ret, struct sm_error *err)
{
	return start->in_machine ? client_machine_seat(c, ret, err) : client_seat(c, ret, err);
}
