/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imagectl STORE load SOURCE [NAME] | pull REF [PLATFORM] | login HOST USER PASSWORD | logout HOST | list | inspect REF
 * | tag REF NAME | rm REF | prune [--all] [ID...] | export REF FILE | copy REF
 * STORE | pin REF
 *
 * The image room by hand, for scripts: what kills a load, compares trees or measures wants a process of its own,
 * without the command on top.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "image/image.h"
#include "oci/oci.h"

static int fail(const struct sm_error *err)
{
	fprintf(stderr, "imagectl: %s\n", err->message);
	return 1;
}

/* The exit status says what kind of error it was. */
static int fail_as(const struct sm_error *err)
{
	fail(err);
	return 100 + (int)err->kind;
}

static void print(const struct image_info *info)
{
	printf("%.12s %s layers=%u window=%llu allocated=%llu shared=%llu\n", info->id,
	       info->names && info->names[0] ? info->names[0] : "-", info->num_layers,
	       (unsigned long long)info->window_size, (unsigned long long)info->allocated_size,
	       (unsigned long long)info->shared_size);
}

static void limit_from_env(struct image_limits *l)
{
	const char *entries = getenv("MAX_ENTRIES"), *bytes = getenv("MAX_LAYER_BYTES"),
		   *image = getenv("MAX_IMAGE_BYTES");
	const char *layers = getenv("MAX_LAYERS"), *depth = getenv("MAX_DEPTH"), *threads = getenv("THREADS");

	l->max_entries = entries ? strtoull(entries, NULL, 10) : 0;
	l->max_layer_bytes = bytes ? strtoull(bytes, NULL, 10) : 0;
	l->max_image_bytes = image ? strtoull(image, NULL, 10) : 0;
	l->max_layers = layers ? (unsigned)strtoul(layers, NULL, 10) : 0;
	l->max_depth = depth ? (unsigned)strtoul(depth, NULL, 10) : 0;
	l->threads = threads ? (unsigned)strtoul(threads, NULL, 10) : 0;
}

static int do_load(struct image_store *store, int n, char **v)
{
	struct image_load_options options = {.name = n > 1 ? v[1] : NULL};
	struct sm_error err = {0};
	struct image_info info;

	limit_from_env(&options.limits);
	if (image_load(store, v[0], &options, &info, &err) < 0)
		return fail(&err);
	print(&info);
	image_info_done(&info);
	return 0;
}

static struct image_registry registry_from_env(void)
{
	const char *stall = getenv("STALL_MS"), *retry = getenv("RETRY_MS");

	return (struct image_registry){.auth_file = getenv("AUTH_FILE"),
				       .stall_ms = stall ? (unsigned)strtoul(stall, NULL, 10) : 0,
				       .retry_ms = retry ? (unsigned)strtoul(retry, NULL, 10) : 0};
}

static int do_pull(struct image_store *store, int n, char **v)
{
	struct image_load_options options = {.platform = n > 1 ? v[1] : NULL};
	struct image_registry registry = registry_from_env();
	struct sm_error err = {0};
	struct image_info info;

	limit_from_env(&options.limits);
	if (image_pull(store, v[0], &options, &registry, &info, &err) < 0)
		return fail_as(&err);
	print(&info);
	image_info_done(&info);
	return 0;
}

static int do_login(int n, char **v)
{
	struct image_registry registry = registry_from_env();
	struct oci_registry_options o = {
		.auth_file = registry.auth_file, .stall_ms = registry.stall_ms, .retry_ms = registry.retry_ms};
	struct sm_error err = {0};

	if (n == 1)
		return oci_logout(v[0], o.auth_file, &err) < 0 ? fail_as(&err) : 0;
	return oci_login(v[0], v[1], v[2], &o, &err) < 0 ? fail_as(&err) : 0;
}

static int do_list(struct image_store *store)
{
	struct sm_error err = {0};
	struct image_info *list;
	size_t n;

	if (image_list(store, &list, &n, &err) < 0)
		return fail(&err);
	for (size_t i = 0; i < n; i++)
		print(&list[i]);
	image_list_free(list, n);
	return 0;
}

static int do_inspect(struct image_store *store, const char *ref)
{
	struct sm_error err = {0};
	char *text;

	if (image_inspect_json(store, ref, &text, &err) < 0)
		return fail(&err);
	puts(text);
	free(text);
	return 0;
}

static int do_prune(struct image_store *store, int n, char **v)
{
	bool all = n > 0 && streq(v[0], "--all");
	struct image_prune_result result;
	struct sm_error err = {0};

	n -= all;
	v += all;
	if (image_prune(store, all, (const char *const *)v, (size_t)n, &result, &err) < 0)
		return fail(&err);
	printf("images=%u blobs=%u temporaries=%u bytes=%llu\n", result.images, result.blobs, result.temporaries,
	       (unsigned long long)result.bytes);
	return 0;
}

/* Holds the image until standard input ends. */
static int do_pin(struct image_store *store, const char *ref)
{
	struct sm_error err = {0};
	struct image_info info;
	struct image_pin *pin;
	char c;

	if (image_pin(store, ref, &info, &pin, &err) < 0)
		return fail(&err);
	puts("pinned");
	fflush(stdout);
	while (read(0, &c, 1) > 0)
		;
	image_info_done(&info);
	image_unpin(pin);
	return 0;
}

static int do_copy(struct image_store *store, const char *ref, const char *dir)
{
	struct image_store *to;
	struct sm_error err = {0};
	int r = image_store_open(dir, &to, &err);

	if (r < 0)
		return fail(&err);
	r = image_copy(store, ref, to, &err) < 0 ? fail(&err) : 0;
	image_store_close(to);
	return r;
}

static int run(struct image_store *store, const char *verb, int n, char **v)
{
	struct sm_error err = {0};

	if (streq(verb, "load") && n)
		return do_load(store, n, v);
	if (streq(verb, "pull") && n)
		return do_pull(store, n, v);
	if ((streq(verb, "login") && n == 3) || (streq(verb, "logout") && n == 1))
		return do_login(n, v);
	if (streq(verb, "list"))
		return do_list(store);
	if (streq(verb, "inspect") && n)
		return do_inspect(store, v[0]);
	if (streq(verb, "prune"))
		return do_prune(store, n, v);
	if (streq(verb, "pin") && n)
		return do_pin(store, v[0]);
	if (streq(verb, "tag") && n == 2)
		return image_tag(store, v[0], v[1], &err) < 0 ? fail(&err) : 0;
	if (streq(verb, "rm") && n)
		return image_remove(store, v[0], &err) < 0 ? fail(&err) : 0;
	if (streq(verb, "export") && n == 2)
		return image_export_erofs(store, v[0], v[1], &err) < 0 ? fail(&err) : 0;
	if (streq(verb, "copy") && n == 2)
		return do_copy(store, v[0], v[1]);
	fprintf(stderr, "imagectl: wrong use\n");
	return 2;
}

int main(int argc, char **argv)
{
	struct image_store *store;
	struct sm_error err = {0};
	int r;

	if (argc < 3) {
		fprintf(stderr, "usage: imagectl STORE VERB ARG...\n");
		return 2;
	}
	if (image_store_open(argv[1], &store, &err) < 0)
		return fail(&err);
	r = run(store, argv[2], argc - 3, argv + 3);
	image_store_close(store);
	return r;
}
