/* SPDX-License-Identifier: Apache-2.0 */
/* Who a command runs as: "user[:group]" resolved in the container's /etc/passwd and /etc/group, as docker does. */
#ifndef GUEST_USERS_H
#define GUEST_USERS_H

#include <sys/types.h>

#include "base/error.h"

struct user {
	uid_t uid;
	gid_t gid;
	gid_t *groups; /* supplementary */
	size_t num_groups;
	char *home; /* "/" when the user is not listed */
};

/*
 * A name must be listed; a number need not be (then gid 0, no groups). Without ":group" the supplementary groups are
 * those that list the user's name; with it there are none. spec NULL or "": uid 0. The files need not exist. *err on
 * failure.
 */
int user_resolve(const char *spec, const char *passwd_path, const char *group_path, struct user *ret,
		 struct sm_error *err) MUST_CHECK;
void user_done(struct user *u);

#endif
