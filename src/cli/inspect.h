/* SPDX-License-Identifier: Apache-2.0 */
/* inspect --format TEMPLATE of a VM. */
#ifndef CLI_INSPECT_H
#define CLI_INSPECT_H

struct cli;
/* Prints it; the exit status. */
int inspect_formatted(struct cli *cli, const char *ref, const char *format);

#endif
