/* SPDX-License-Identifier: Apache-2.0 */
/* A snapshot of an image that has been warmed up: load --warm. */
#ifndef CLI_WARM_H
#define CLI_WARM_H

#include "cli/cli.h"

struct warm_values {
	const char *command;	/* for sh -c; NULL: nothing is asked for */
	const char *ready;	/* a path in the VM; NULL: the command's end */
	const char *name;	/* of the snapshot; NULL: by the image's name */
	const char *image_name; /* that it was given; NULL: its first */
	uint64_t memory;	/* 0: default */
};

/* Has a VM of the image run the command and saves it; what it prints goes to standard error. Tells the snapshot's name
 * unless quiet. Returns the exit status. */
int warm_image(struct cli *cli, const struct warm_values *v, const struct sm_image_info *image, bool quiet);

#endif
