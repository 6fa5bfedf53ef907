/* SPDX-License-Identifier: Apache-2.0 */
/* build: an image of another one, with files of this host and another configuration. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "cli/cli.h"

struct build_values {
	struct opt_list tags, env, env_files, labels, ports, files, changes;
	const char *user, *workdir, *entrypoint, *cmd, *stop_signal, *chown, *chmod, *warm, *ready, *warm_name;
	uint64_t memory, cpus, timeout;
	bool no_cache, pull, quiet;
};

#define V(m) offsetof(struct build_values, m)
#define NO_DOCKERFILE                                                                                                  \
	"there are no Dockerfiles here: have docker or buildah build it and supermachine load what that saved, "       \
	"or run its steps in a VM and supermachine commit that"
static const struct opt options[] = {
	{'t', "tag", OPT_LIST, V(tags), "NAME[:TAG]", "name of the new image"},
	{'f', "file", OPT_LIST, V(files), "SRC:DST",
	 "a file of this host, or what is in a directory, to this absolute path in the image; into DST if that is a "
	 "directory there, or ends with a slash"},
	{0, "chown", OPT_TEXT, V(chown), "UID[:GID]", "owner of all these files (default: root)"},
	{0, "chmod", OPT_TEXT, V(chmod), "MODE", "their mode, octal (default: as here)"},
	{'e', "env", OPT_LIST, V(env), "NAME[=VALUE]", "set an environment variable; without a value, the caller's"},
	{0, "env-file", OPT_LIST, V(env_files), "FILE", "set those in a file, a line each"},
	{'u', "user", OPT_TEXT, V(user), "USER[:GROUP]", "who its command runs as"},
	{'w', "workdir", OPT_TEXT, V(workdir), "DIR", "where its command runs"},
	{0, "entrypoint", OPT_TEXT, V(entrypoint), "COMMAND",
	 "as in a Dockerfile: [\"WORD\",...], or a line for sh; \"\" for none"},
	{0, "cmd", OPT_TEXT, V(cmd), "COMMAND", "the same; what it runs, or its entrypoint's arguments"},
	{'l', "label", OPT_LIST, V(labels), "NAME=VALUE", "a label of the image"},
	{0, "expose", OPT_LIST, V(ports), "PORT[/PROTOCOL]", "a port that it offers"},
	{0, "stop-signal", OPT_TEXT, V(stop_signal), "SIGNAL", "what stops it"},
	{'c', "change", OPT_LIST, V(changes), "INSTRUCTION",
	 "one of a Dockerfile's, after these: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR"},
	{0, "warm", OPT_TEXT, V(warm), "COMMAND",
	 "then have a VM of it run this by sh -c, and save the VM as a snapshot: see run --snapshot"},
	{0, "ready", OPT_TEXT, V(ready), "PATH",
	 "COMMAND goes on in the snapshot, which is made as soon as PATH is there in the VM"},
	{0, "warm-name", OPT_TEXT, V(warm_name), "NAME",
	 "name of the snapshot (default: the image's, with - for / and :)"},
	{'m', "memory", OPT_SIZE, V(memory), "SIZE", "memory of that VM (default 1G)", 128 * MIB},
	{0, "cpus", OPT_NUMBER, V(cpus), "N", "its CPUs (default 1)", 1, 16},
	{0, "timeout", OPT_DURATION, V(timeout), "DURATION", "how long that may take"},
	{0, "no-cache", OPT_FLAG, V(no_cache), NULL, "build also what was built already"},
	{0, "pull", OPT_FLAG, V(pull), NULL, "look for a newer IMAGE in its registry first"},
	{'q', "quiet", OPT_FLAG, V(quiet), NULL, "print only the id"},
	{0, "rm", OPT_IGNORED, 0, NULL, NULL},
	{0, "build-arg", OPT_REFUSED, 0, NULL, NULL, .choices = NO_DOCKERFILE},
	{0, "target", OPT_REFUSED, 0, NULL, NULL, .choices = NO_DOCKERFILE},
};
#undef V

/* ---------------------------------------------------------------------------------------- arguments */

/* What docker build wants to be given: a directory, an address of one, a Dockerfile on standard input. */
static bool is_context(const char *operand)
{
	static const char *const begin[] = {".", "/", "~", "http://", "https://", "git@", "git:"};

	for (size_t i = 0; i < ARRAY_SIZE(begin); i++)
		if (str_starts(operand, begin[i]))
			return true;
	return streq(operand, "-");
}

static int refuse_dockerfile(struct cli *cli, const char *what)
{
	return cli_usage(cli, NO_DOCKERFILE, "%s: an image is built from another one, which is named", what);
}

struct files {
	struct sm_image_file *v;
	char **texts;
	size_t n;
};

static void files_free(struct files *f)
{
	opt_list_copy_free(f->texts);
	free(f->v);
}

/* Octal, as chmod has it. */
static int parse_mode(struct cli *cli, const char *text, uint32_t *ret)
{
	unsigned long v;
	char *end;

	*ret = 0;
	if (!text)
		return 0;
	v = strtoul(text, &end, 8);
	if (!*text || *end || !v || v > 07777)
		return cli_usage(cli, "for example --chmod 755", "--chmod %s: an octal mode", text);
	*ret = (uint32_t)v;
	return 0;
}

/* The colon before the last absolute path. */
static char *destination(char *text)
{
	char *found = NULL;

	for (char *p = text; (p = strstr(p, ":/")); p++)
		found = p;
	return found == text ? NULL : found;
}

static int parse_files(struct cli *cli, const struct build_values *v, struct files *ret)
{
	uint32_t mode;
	int status = parse_mode(cli, v->chmod, &mode);

	ret->texts = opt_list_copy(&v->files);
	ret->v = calloc(v->files.n + 1, sizeof(*ret->v));
	if (!ret->texts || !ret->v)
		return cli_usage(cli, NULL, "%s", strerror(ENOMEM));
	for (size_t i = 0; status == 0 && i < v->files.n; i++) {
		char *colon = destination(ret->texts[i]);

		if (!colon && !strchr(ret->texts[i], ':'))
			return refuse_dockerfile(cli, ret->texts[i]);
		if (!colon)
			return cli_usage(cli, "for example --file ./app:/srv/app",
					 "--file %s: the path in the image is to be absolute", ret->texts[i]);
		*colon = '\0';
		ret->v[ret->n++] = (struct sm_image_file){.size = sizeof(*ret->v),
							  .source = ret->texts[i],
							  .target = colon + 1,
							  .owner = v->chown,
							  .mode = mode};
	}
	return status;
}

/* Entrypoint and command as instructions, before those of --change; *entrypoint, *cmd: the empty list, if they are to
 * be none. To free, not what is in it but ret[0 .. made). */
struct changes {
	const char **v;
	char *made[2];
	bool no_entrypoint, no_cmd;
};

static void changes_free(struct changes *c)
{
	free(c->made[0]);
	free(c->made[1]);
	free(c->v);
}

static int make_changes(struct cli *cli, const struct build_values *v, struct changes *ret)
{
	const char *const words[2] = {"ENTRYPOINT", "CMD"}, *const given[2] = {v->entrypoint, v->cmd};
	size_t n = 0;

	ret->no_entrypoint = v->entrypoint && !*v->entrypoint;
	ret->no_cmd = v->cmd && !*v->cmd;
	ret->v = calloc(v->changes.n + 3, sizeof(*ret->v));
	for (size_t i = 0; ret->v && i < 2; i++) {
		if (!given[i] || !*given[i])
			continue;
		if (asprintf(&ret->made[i], "%s %s", words[i], given[i]) < 0) {
			ret->made[i] = NULL;
			return cli_usage(cli, NULL, "%s", strerror(ENOMEM));
		}
		ret->v[n++] = ret->made[i];
	}
	if (!ret->v)
		return cli_usage(cli, NULL, "%s", strerror(ENOMEM));
	for (size_t i = 0; i < v->changes.n; i++)
		ret->v[n++] = v->changes.v[i];
	return 0;
}

/* -------------------------------------------------------------------------------------------- build */

static void tell(const struct build_values *v, const struct sm_image_info *image, const struct sm_image_build_result *r)
{
	char size[16];

	if (v->quiet) {
		printf("sha256:%s\n", image->id);
		return;
	}
	fputs(r->reused ? "Nothing to build: " : "Built ", stdout);
	text_put(stdout, v->tags.n ? v->tags.v[0] : "an image without a name");
	printf(" %s(%.12s, %u layer%s, %s)\n", r->reused ? "is there " : "", image->id, image->layers,
	       image->layers == 1 ? "" : "s", format_size(image->allocated_size, size));
	if (r->snapshot[0])
		printf("%s the snapshot %s: supermachine run --snapshot %s\n",
		       r->snapshot_reused ? "There is" : "Saved", r->snapshot, r->snapshot);
}

static const char *hint_of(const struct sm_error *err)
{
	return err->kind == SM_ERROR_EXISTS ? "another name by --warm-name, or supermachine snapshot rm" : NULL;
}

static int build(struct cli *cli, const struct build_values *v, struct sm_image_build_options *o)
{
	struct sm_image_build_result result = SM_IMAGE_BUILD_RESULT_INIT;
	struct sm_image *image = NULL;
	struct sm_error err = {0};
	int r;

	if (!v->quiet)
		o->progress = cli_progress(cli);
	r = sm_image_build(cli->client, o, &image, &result, &err);
	cli_progress_clear(cli);
	for (size_t i = 1; r == 0 && i < v->tags.n; i++)
		r = sm_image_tag(cli->client, sm_image_info(image)->id, v->tags.v[i], &err);
	if (r < 0) {
		sm_image_close(image);
		if (err.kind == SM_ERROR_NOT_FOUND && strstr(err.message, o->image))
			return cli_no_image(cli, o->image, true, &err);
		cli_fail(cli, &err, hint_of(&err));
		return result.warm_status ? result.warm_status : CLI_FAILED;
	}
	tell(v, sm_image_info(image), &result);
	sm_image_close(image);
	return 0;
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	static const char *const none[] = {NULL};
	const struct build_values *v = values;
	struct sm_image_build_options o = SM_IMAGE_BUILD_OPTIONS_INIT;
	const char *const warm[] = {"sh", "-c", v->warm, NULL};
	_cleanup_(changes_free) struct changes changes = {0};
	_cleanup_(files_free) struct files files = {0};
	struct sm_error err = {0};
	char **env = NULL;
	int status;

	if (is_context(operands[0]))
		return refuse_dockerfile(cli, operands[0]);
	if (!v->warm && (v->ready || v->warm_name || v->memory || v->cpus || v->timeout))
		return cli_usage(cli, NULL, "--ready, --warm-name, --memory, --cpus and --timeout go with --warm");
	status = parse_files(cli, v, &files);
	if (status == 0)
		status = make_changes(cli, v, &changes);
	if (status == 0 && cli_env(&v->env_files, &v->env, false, &env, &err) < 0)
		status = cli_fail(cli, &err, NULL);
	if (status)
		return status;
	o.image = operands[0];
	o.name = v->tags.n ? v->tags.v[0] : NULL;
	o.entrypoint = changes.no_entrypoint ? none : NULL;
	o.cmd = changes.no_cmd ? none : NULL;
	o.env = (const char *const *)env;
	o.user = v->user;
	o.cwd = v->workdir;
	o.stop_signal = v->stop_signal;
	o.labels = (const char *const *)v->labels.v;
	o.ports = (const char *const *)v->ports.v;
	o.changes = changes.v;
	o.files = files.v;
	o.num_files = files.n;
	o.warm = v->warm ? warm : NULL;
	o.warm_ready = v->ready;
	o.warm_name = v->warm_name;
	o.memory = v->memory;
	o.cpus = (unsigned)v->cpus;
	o.warm_timeout_ns = v->timeout;
	o.warm_output_fd = STDERR_FILENO;
	o.rebuild = v->no_cache;
	o.pull = v->pull ? SM_PULL_ALWAYS : SM_PULL_DEFAULT;
	status = cli_client(cli) ? build(cli, v, &o) : CLI_FAILED;
	cli_env_free(env);
	return status;
}

static const char *const examples[] = {"build -t app:1 -f ./app:/srv/app --cmd '[\"/srv/app\"]' debian",
				       "debian with a program of this host",
				       "build -t site -f public:/srv/www --chown 33:33 -e MODE=live --expose 80 nginx",
				       "with what is in a directory, and another configuration",
				       "build -t science --warm 'python3 -c \"import numpy\"' -m 2G python",
				       "and a snapshot that has run a command: run --snapshot science python3 job.py",
				       NULL};

const struct verb verb_build = {
	.name = "build",
	.operands = "IMAGE",
	.summary = "Make an image of another one and files of this host",
	.details =
		"What is given comes on top of IMAGE: files as one layer more, the rest into its configuration. What "
		"was built already from the same image, options and files (contents, owners, modes, times) is not "
		"built again but named. No VM runs, unless --warm asks for one. There are no Dockerfiles: what needs "
		"commands to run is made by run and commit, or by another tool and load.",
	.examples = examples,
	VERB_OPTS(options, struct build_values),
	.min_operands = 1,
	.max_operands = 1,
	.completes = OPERAND_IMAGE,
	.group = GROUP_IMAGES,
	.run = verb,
};
