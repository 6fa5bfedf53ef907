/* SPDX-License-Identifier: Apache-2.0 */
/*
 * build: an image with what is in a directory of this host, and its command run.
 *
 *	cc build.c -o build $(pkg-config --cflags --libs supermachine)
 *	build NAME IMAGE DIRECTORY PATH COMMAND...	makes IMAGE with DIRECTORY at PATH, calls it NAME, runs COMMAND
 *in it
 *
 * As long as nothing has changed in the directory nothing is built again.
 */
#include <stdio.h>

#include <supermachine.h>

static int build(struct sm_client *client, char **argv, struct sm_error *err)
{
	static const char *const labels[] = {"made-by=example", NULL};
	struct sm_image_build_options o = SM_IMAGE_BUILD_OPTIONS_INIT;
	struct sm_image_build_result result = SM_IMAGE_BUILD_RESULT_INIT;
	struct sm_image_file tree = SM_IMAGE_FILE_INIT;
	struct sm_image *image;
	int r;

	tree.source = argv[3];
	tree.target = argv[4];
	o.name = argv[1];
	o.image = argv[2];
	o.files = &tree;
	o.num_files = 1;
	o.labels = labels;
	o.cmd = (const char *const *)&argv[5];
	r = sm_image_build(client, &o, &image, &result, err);
	if (r < 0)
		return r;
	fprintf(stderr, "%s is %.12s%s\n", argv[1], sm_image_info(image)->id, result.reused ? ", as before" : "");
	sm_image_close(image);
	return 0;
}

int main(int argc, char **argv)
{
	struct sm_run_options o = SM_RUN_OPTIONS_INIT;
	struct sm_vm_options vm = SM_VM_OPTIONS_INIT;
	struct sm_client *client = NULL;
	struct sm_result *result = NULL;
	struct sm_error err = {0};
	int r, status = 125;

	if (argc < 6) {
		fprintf(stderr, "usage: build NAME IMAGE DIRECTORY PATH COMMAND...\n");
		return 125;
	}
	vm.memory = 256 << 20;
	o.vm = &vm;
	o.stdout_fd = 1;
	o.stderr_fd = 2;
	r = sm_client_open(NULL, &client, &err);
	if (r == 0)
		r = build(client, argv, &err);
	if (r == 0)
		r = sm_run(client, argv[1], NULL, &o, &result, &err);
	if (r == 0)
		status = result->outcome.status;
	else
		fprintf(stderr, "%s\n", err.message);
	sm_result_free(result);
	sm_client_close(client);
	return status;
}
