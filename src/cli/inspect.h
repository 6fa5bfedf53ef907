/* SPDX-License-Identifier: Apache-2.0 */
/* inspect --format TEMPLATE of a VM or an image. */
#ifndef CLI_INSPECT_H
#define CLI_INSPECT_H

struct cli;
/* Prints it; the exit status. type: that of --type, or NULL. */
int inspect_formatted(struct cli *cli, const char *type, const char *ref, const char *format);

#endif
