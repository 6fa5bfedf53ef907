/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file server of a directory, supermachine-fsd --share: one process for all programs and VMs of a user on this side
 * (host or machine) that mount the directory with the same options and in the same group.
 *
 * It is found, or started, by way of its place (place.h).
 */
#ifndef KEEPER_FILESERVER_H
#define KEEPER_FILESERVER_H

#include "base/error.h"
#include "supermachine.h"

struct fileserver {
	const char *program;	 /* supermachine-fsd, absolute */
	const char *runtime_dir; /* of this side */
	const char *group;	 /* NULL: the common one */
	const char *source;	 /* as messages name it */
	int fd;			 /* the directory, or a regular file; O_PATH will do; the caller's */
	struct sm_fs_posix_options options;
};

/* A connected socket to it, or -errno. May wait for others that look for the same one. */
int fileserver_connect(const struct fileserver *s, struct sm_error *err) MUST_CHECK;

#endif
