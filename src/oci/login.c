/* SPDX-License-Identifier: Apache-2.0 */
/* Logging in to a registry, and out. See oci.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "oci/registry.h"

static int check_words(const char *user, const char *secret, struct sm_error *err)
{
	if (!user || !*user || strchr(user, ':') || strpbrk(user, "\r\n"))
		return error_set(err, SM_ERROR_INVALID, EINVAL, "a user's name is not empty and has no ':' in it");
	if (!secret || !*secret)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "the password is empty");
	return 0;
}

/* Asks for the root of the interface: whoever may see that has logged in. */
static int try_out(struct registry *reg, struct sm_error *err)
{
	struct registry_request req = {0};
	struct http_answer a;
	struct http *h;
	int r = registry_get(reg, &req, &h, &a, err);

	if (r == 0)
		registry_put(reg, h);
	return r;
}

int oci_login(const char *host, const char *user, const char *secret, const struct oci_registry_options *o,
	      struct sm_error *err)
{
	struct credentials given = {0};
	struct oci_place place = {0}, own = {0};
	struct registry *reg = NULL;
	int r = check_words(user, secret, err);

	if (r == 0)
		r = oci_host_place(host, &place, err);
	if (r == 0)
		r = oci_host_place(host, &own, err);
	if (r == 0)
		r = registry_new(&own, o, &reg, err);
	if (r == 0) {
		given.user = strdup(user);
		given.secret = strdup(secret);
		reg->credentials = given;
		reg->looked_up = true; /* these, and no others */
		r = given.user && given.secret ? try_out(reg, err) : error_sys(err, ENOMEM, "login");
	}
	if (r == 0)
		r = credentials_write(&place, o->auth_file, &given, err);
	registry_free(reg); /* and with it what was given */
	oci_place_done(&place);
	return r;
}

int oci_logout(const char *host, const char *auth_file, struct sm_error *err)
{
	struct oci_place place = {0};
	int r = oci_host_place(host, &place, err);

	if (r == 0)
		r = credentials_write(&place, auth_file, NULL, err);
	oci_place_done(&place);
	return r;
}
