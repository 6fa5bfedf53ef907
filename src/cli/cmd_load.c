/* SPDX-License-Identifier: Apache-2.0 */
/* load: brings an image into the store. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "cli/archive.h"
#include "cli/cli.h"
#include "cli/warm.h"

struct load_values {
	const char *input, *name, *platform;
	struct warm_values warm;
	bool quiet;
	uint64_t threads, max_layers, max_entries, max_layer_bytes, max_image_bytes, max_depth, max_path;
};

#define V(m) offsetof(struct load_values, m)
static const struct opt options[] = {
	{'i', "input", OPT_TEXT, V(input), "FILE", "archive to read; the same as naming it"},
	{0, "name", OPT_TEXT, V(name), "NAME[:TAG]", "name to give it (default: the one it carries)"},
	{0, "platform", OPT_TEXT, V(platform), "OS/ARCH", "which of an index (default: this host's)"},
	{0, "warm", OPT_TEXT, V(warm.command), "COMMAND",
	 "then have a VM of it run this by sh -c, and save the VM as a snapshot: see run --snapshot"},
	{0, "ready", OPT_TEXT, V(warm.ready), "PATH",
	 "COMMAND goes on in the snapshot, which is made as soon as PATH is there in the VM"},
	{0, "warm-name", OPT_TEXT, V(warm.name), "NAME",
	 "name of the snapshot (default: the image's, with - for / and :)"},
	{'m', "memory", OPT_SIZE, V(warm.memory), "SIZE", "memory of that VM (default 1G)", 128 * MIB},
	{'q', "quiet", OPT_FLAG, V(quiet), NULL, "print only the id"},
	{0, "threads", OPT_NUMBER, V(threads), "N", "layers converted at once (default: one a CPU)", 1, 256},
	{0, "max-layers", OPT_NUMBER, V(max_layers), "N", "refuse an image of more layers", 1, 4096},
	{0, "max-entries", OPT_NUMBER, V(max_entries), "N", "refuse a layer of more files", 1},
	{0, "max-layer-size", OPT_SIZE, V(max_layer_bytes), "SIZE", "refuse a layer that unpacks to more", 1},
	{0, "max-image-size", OPT_SIZE, V(max_image_bytes), "SIZE", "refuse an image that unpacks to more", 1},
	{0, "max-depth", OPT_NUMBER, V(max_depth), "N", "refuse paths of more components", 1, 65536},
	{0, "max-path", OPT_NUMBER, V(max_path), "N", "refuse longer paths, in bytes", 1, 1 << 20},
};
#undef V

static void put_names(const char *const *names)
{
	if (!names || !names[0])
		fputs("an image without a name", stdout);
	for (size_t i = 0; names && names[i]; i++) {
		fputs(i ? ", " : "", stdout);
		text_put(stdout, names[i]);
	}
}

static int load(struct cli *cli, const struct load_values *v, const char *source)
{
	struct sm_load_options o = SM_LOAD_OPTIONS_INIT;
	const struct sm_image_info *info;
	struct warm_values warm = v->warm;
	struct sm_image *image = NULL;
	struct sm_error err = {0};
	char size[16];
	int r;

	o.name = v->name;
	o.platform = v->platform;
	o.threads = (unsigned)v->threads;
	o.limits = (struct sm_image_limits){
		.max_entries = v->max_entries,
		.max_layer_bytes = v->max_layer_bytes,
		.max_image_bytes = v->max_image_bytes,
		.max_layers = (unsigned)v->max_layers,
		.max_depth = (unsigned)v->max_depth,
		.max_path = (unsigned)v->max_path,
	};
	if (!v->quiet)
		o.progress = cli_progress(cli);
	r = sm_image_load(cli->client, source, &o, &image, &err);
	cli_progress_clear(cli);
	if (r < 0)
		return cli_fail(cli, &err, NULL);
	info = sm_image_info(image);
	if (v->quiet) {
		printf("%.12s\n", info->id);
	} else {
		fputs("Loaded ", stdout);
		put_names(info->names);
		printf(" (%.12s, %u layer%s, %s)\n", info->id, info->layers, info->layers == 1 ? "" : "s",
		       format_size(info->allocated_size, size));
	}
	warm.image_name = v->name;
	r = warm.command ? warm_image(cli, &warm, info, v->quiet) : 0;
	sm_image_close(image);
	return r;
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct load_values *v = values;
	const char *source = v->input ? v->input : operands[0];
	_free_ char *spelled = NULL;
	struct sm_error err = {0};

	if (v->input && count)
		return cli_usage(cli, NULL, "either --input or an operand");
	if (!v->warm.command && (v->warm.ready || v->warm.name || v->warm.memory))
		return cli_usage(cli, NULL, "--ready, --warm-name and --memory go with --warm");
	if (!source && isatty(STDIN_FILENO))
		return cli_usage(cli, "for example: supermachine load image.tar, or supermachine load oci:DIR",
				 "load what?");
	if (!source)
		source = "-";
	if (!archive_has_prefix(source)) {
		if (archive_source(source, &spelled, &err) < 0)
			return cli_fail(cli, &err, NULL);
		source = spelled;
	}
	return cli_client(cli) ? load(cli, v, source) : CLI_FAILED;
}

static const char *const examples[] = {"load oci:bundle:latest",
				       "an image layout, as umoci and skopeo make them",
				       "load image.tar",
				       "an OCI archive, or what docker save wrote",
				       "load --name demo:1 - < image.tar",
				       "from a pipe, under a name of one's choice",
				       "load --warm 'python3 -c \"import numpy\"' oci:science",
				       "and a snapshot that has run it: run --snapshot science python3 job.py",
				       NULL};

const struct verb verb_load = {
	.name = "load",
	.operands = "[SOURCE]",
	.summary = "Load an image from a layout or an archive",
	.details = "SOURCE is oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME], dir:PATH, a plain "
		   "path to any of "
		   "them, or - for standard input.",
	.examples = examples,
	VERB_OPTS(options, struct load_values),
	.max_operands = 1,
	.completes = OPERAND_FILE,
	.group = GROUP_IMAGES,
	.run = verb,
};
