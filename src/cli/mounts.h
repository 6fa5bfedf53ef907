/* SPDX-License-Identifier: Apache-2.0 */
/* -v SRC:DST[:OPTIONS]: directories of the host in a VM. */
#ifndef CLI_MOUNTS_H
#define CLI_MOUNTS_H

#include "cli/cli.h"
#include "cli/json.h"

struct cli_mounts {
	struct sm_mount *v;
	char **texts; /* what v points into */
	size_t n;
};

/* 0, or the exit status after a usage error was told. cli_mounts_free in any case. */
int cli_mounts_parse(struct cli *cli, const struct opt_list *options, struct cli_mounts *ret);
void cli_mounts_free(struct cli_mounts *m);

/* A choice of ids, or ranges (into which *ret_ranges points, else NULL); false: it is neither. */
bool cli_ids_parse(const char *word, enum sm_fs_ids *ret, const char **ret_ranges);

/* The member "mounts". */
void cli_mounts_json(struct json *j, const struct sm_mount *mounts, size_t count);

#endif
