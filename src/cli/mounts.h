/* SPDX-License-Identifier: Apache-2.0 */
/* -v and --mount: directories of the host and volumes in a VM. */
#ifndef CLI_MOUNTS_H
#define CLI_MOUNTS_H

#include "cli/cli.h"
#include "cli/json.h"

struct cli_mounts {
	struct sm_mount *v;
	size_t n;
	const char **tmpfs; /* as of sm_vm_options */
	size_t num_tmpfs;
	char **texts, **mount_texts; /* what v points into */
	char **made;		     /* of tmpfs, the texts that are ours */
};

/* volumes: of -v; mounts: of --mount; tmpfs: of --tmpfs, to which those of --mount are added. 0, or the exit status
 * after a usage error was told. cli_mounts_free in any case. */
int cli_mounts_parse(struct cli *cli, const struct opt_list *volumes, const struct opt_list *mounts,
		     const struct opt_list *tmpfs, struct cli_mounts *ret);
void cli_mounts_free(struct cli_mounts *m);

/* A choice of ids, or ranges (into which *ret_ranges points, else NULL); false: it is neither. */
bool cli_ids_parse(const char *word, enum sm_fs_ids *ret, const char **ret_ranges);

/* The member "mounts". */
void cli_mounts_json(struct json *j, const struct sm_mount *mounts, size_t count);

#endif
