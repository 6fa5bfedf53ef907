/* SPDX-License-Identifier: Apache-2.0 */
/* What several verbs do: the client, finding VMs, environments, widths. */
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "cli/suggest.h"

#define MAX_ENV_FILE (1 << 20)

struct sm_client *cli_client(struct cli *cli)
{
	struct sm_client_options o = SM_CLIENT_OPTIONS_INIT;
	struct sm_error err = {0};

	if (cli->client)
		return cli->client;
	o.home = cli->home;
	o.log = cli_log;
	o.log_arg = cli;
	if (sm_client_open(&o, &cli->client, &err) < 0)
		cli_fail(cli, &err, NULL);
	return cli->client;
}

int cli_no_vm(struct cli *cli, const char *ref, const struct sm_error *err)
{
	const char *best = NULL, **names;
	struct sm_vm_info **list = NULL;
	char hint[160] = "try: supermachine ps -a";
	size_t count = 0;

	if (err->kind != SM_ERROR_NOT_FOUND)
		return cli_fail(cli, err, NULL);
	if (sm_vm_list(cli->client, true, &list, &count, NULL) == 0) {
		names = calloc(count + 1, sizeof(*names));
		for (size_t i = 0; names && i < count; i++)
			names[i] = list[i]->name[0] ? list[i]->name : NULL;
		best = names ? suggest(ref, names, count) : NULL;
		if (best)
			snprintf(hint, sizeof(hint), "did you mean %s?", best);
		free(names);
		sm_vm_list_free(list, count);
	}
	return cli_fail(cli, err, hint);
}

/* The nearest of all images' names; "name:latest" counts as "name". */
static void nearest_image(struct sm_image **images, size_t count, const char *ref, char *hint, size_t size)
{
	unsigned best = (unsigned)(strlen(ref) + 2) / 3 + 1;

	for (size_t i = 0; i < count; i++) {
		for (const char *const *n = sm_image_info(images[i])->names; n && *n; n++) {
			char name[256];
			size_t len;

			snprintf(name, sizeof(name), "%s", *n);
			len = strlen(name);
			if (len > 7 && streq(name + len - 7, ":latest"))
				name[len - 7] = '\0';
			if (edit_distance(ref, name) < best) {
				best = edit_distance(ref, name);
				snprintf(hint, size, "did you mean %s?", name);
			}
		}
	}
}

int cli_no_image(struct cli *cli, const char *ref, bool get, const struct sm_error *err)
{
	char hint[300] = "supermachine images lists them";
	/* A registry's word: it says itself what to do, unless the name was meant for one in the store. */
	bool registry = err->kind == SM_ERROR_DENIED || err->kind == SM_ERROR_NETWORK;
	struct sm_image **images = NULL;
	size_t count = 0;

	if (get)
		snprintf(
			hint, sizeof(hint),
			"get it first: supermachine pull NAME, or load oci:DIR, oci-archive:FILE, docker-archive:FILE");
	if (registry)
		hint[0] = '\0';
	else if (err->kind != SM_ERROR_NOT_FOUND || !strstr(err->message, "image") || strstr(ref, ":/") ||
		 strchr(ref, ' '))
		return cli_fail(cli, err, NULL);
	if (sm_image_list(cli->client, &images, &count, NULL) == 0) {
		nearest_image(images, count, ref, hint, sizeof(hint));
		sm_image_list_free(images, count);
	}
	return cli_fail(cli, err, hint);
}

struct sm_vm *cli_open_vm(struct cli *cli, const char *ref)
{
	struct sm_error err = {0};
	struct sm_vm *vm;

	if (!cli_client(cli))
		return NULL;
	if (sm_vm_open(cli->client, ref, &vm, &err) < 0) {
		cli_no_vm(cli, ref, &err);
		return NULL;
	}
	return vm;
}

int cli_each_vm(struct cli *cli, char **operands, int (*fn)(struct cli *, struct sm_vm *, const void *),
		const void *arg)
{
	int ret = 0;

	for (; *operands; operands++) {
		struct sm_vm *vm = cli_open_vm(cli, *operands);
		int r = vm ? fn(cli, vm, arg) : CLI_FAILED;

		if (r)
			ret = r;
		else
			puts(*operands);
		sm_vm_close(vm);
	}
	return ret;
}

size_t cli_width(FILE *f)
{
	struct winsize ws;

	if (ioctl(fileno(f), TIOCGWINSZ, &ws) == 0 && ws.ws_col >= 40)
		return ws.ws_col;
	return 80;
}

int cli_print_json(struct cli *cli, struct json *j)
{
	if (j->out.error) {
		cli_say(cli, "%s", strerror(-j->out.error));
		json_done(j);
		return CLI_FAILED;
	}
	fwrite(j->out.data, 1, j->out.len, stdout);
	json_done(j);
	return 0;
}

static int env_put(char ***env, size_t *n, char *pair, struct sm_error *err)
{
	char **v = pair ? realloc(*env, (*n + 2) * sizeof(*v)) : NULL;

	if (!v) {
		free(pair);
		return error_sys(err, ENOMEM, "environment");
	}
	v[(*n)++] = pair;
	v[*n] = NULL;
	*env = v;
	return 0;
}

/* "K=V", or "K" for the caller's value (nothing when it has none). */
static int env_add(char ***env, size_t *n, const char *pair, struct sm_error *err)
{
	size_t len = strcspn(pair, "=");
	const char *value;
	char *text;

	if (!len)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "'%s' is no environment variable: NAME=VALUE or NAME",
				 pair);
	if (pair[len] == '=')
		return env_put(env, n, strdup(pair), err);
	value = getenv(pair);
	if (!value)
		return 0;
	return env_put(env, n, asprintf(&text, "%s=%s", pair, value) < 0 ? NULL : text, err);
}

/* Lines of NAME=VALUE or NAME; empty ones and those that begin with # are skipped. Values are taken as they are. */
static int env_file(char ***env, size_t *n, const char *path, struct sm_error *err)
{
	_free_ char *text = NULL;
	char *line, *rest;
	size_t len;
	int r;

	r = read_file_at(AT_FDCWD, path, MAX_ENV_FILE, &text, &len);
	if (r < 0)
		return error_sys(err, -r, "environment file %s", path);
	rest = text;
	while (r >= 0 && (line = strsep(&rest, "\n"))) {
		line += strspn(line, " \t");
		len = strlen(line);
		if (len && line[len - 1] == '\r')
			line[len - 1] = '\0';
		if (*line && *line != '#')
			r = env_add(env, n, line, err);
	}
	return r < 0 ? error_wrap(err, r, "%s", path) : 0;
}

int cli_env(const struct opt_list *files, const struct opt_list *pairs, bool tty, char ***ret, struct sm_error *err)
{
	const char *term = getenv("TERM");
	char **env = NULL, *text;
	size_t n = 0;
	int r = 0;

	if (tty)
		r = env_put(&env, &n, asprintf(&text, "TERM=%s", term && *term ? term : "xterm") < 0 ? NULL : text,
			    err);
	for (size_t i = 0; r >= 0 && i < files->n; i++)
		r = env_file(&env, &n, files->v[i], err);
	for (size_t i = 0; r >= 0 && i < pairs->n; i++)
		r = env_add(&env, &n, pairs->v[i], err);
	if (r < 0) {
		cli_env_free(env);
		return r;
	}
	*ret = env;
	return 0;
}

void cli_env_free(char **env)
{
	for (char **p = env; p && *p; p++)
		free(*p);
	free(env);
}

char *cli_command_line(const char *const *argv)
{
	struct buf b = {0};

	for (; argv && *argv; argv++)
		buf_printf(&b, "%s%s", b.len ? " " : "", *argv);
	buf_put_u8(&b, 0);
	if (b.error) {
		buf_done(&b);
		return NULL;
	}
	return (char *)b.data;
}

int cli_prune(struct cli *cli,
	      int (*prune)(struct sm_client *client, bool all, unsigned *ret_count, uint64_t *ret_bytes,
			   struct sm_error *err),
	      bool all, const char *noun)
{
	struct sm_error err = {0};
	unsigned removed = 0;
	uint64_t bytes = 0;
	char size[16];

	if (!cli_client(cli))
		return CLI_FAILED;
	if (prune(cli->client, all, &removed, &bytes, &err) < 0)
		return cli_fail(cli, &err, NULL);
	printf("Removed %u %s%s: %s freed\n", removed, noun, removed == 1 ? "" : "s", format_size(bytes, size));
	return 0;
}
