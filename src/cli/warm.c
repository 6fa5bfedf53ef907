/* SPDX-License-Identifier: Apache-2.0 */
/* load --warm: a snapshot of an image that has been warmed up. See warm.h. */
#include "cli/warm.h"

#include <stdio.h>
#include <unistd.h>

#include "base/util.h"

int warm_image(struct cli *cli, const struct warm_values *v, const struct sm_image_info *image, bool quiet)
{
	const char *const argv[] = {"sh", "-c", v->command, NULL};
	struct sm_image_build_options o = SM_IMAGE_BUILD_OPTIONS_INIT;
	struct sm_image_build_result result = SM_IMAGE_BUILD_RESULT_INIT;
	struct sm_error err = {0};
	int r;

	o.image = image->id;
	o.name = v->image_name;
	o.pull = SM_PULL_NEVER;
	o.warm = argv;
	o.warm_ready = v->ready;
	o.warm_name = v->name;
	o.warm_keep = true;
	o.warm_output_fd = STDERR_FILENO;
	o.memory = v->memory;
	o.progress = cli_progress(cli);
	r = sm_image_build(cli->client, &o, NULL, &result, &err);
	cli_progress_clear(cli);
	if (r < 0) {
		cli_fail(cli, &err,
			 err.kind == SM_ERROR_EXISTS ? "another name by --warm-name, or supermachine snapshot rm"
						     : NULL);
		return result.warm_status ? result.warm_status : CLI_FAILED;
	}
	if (!quiet)
		printf("Saved the snapshot %s: supermachine run --snapshot %s\n", result.snapshot, result.snapshot);
	return 0;
}
