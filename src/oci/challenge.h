/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a registry wants to know of who asks: the header WWW-Authenticate (RFC 9110, 11.6.1), whose every byte is the
 * registry's. Pure.
 */
#ifndef OCI_CHALLENGE_H
#define OCI_CHALLENGE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

#define CHALLENGE_MAX_HEADER 4096
#define CHALLENGE_MAX_VALUE 1024

struct challenge {
	bool bearer, basic;		   /* ways it takes */
	char realm[CHALLENGE_MAX_VALUE];   /* of bearer: where tokens are to be had; "" if it does not say */
	char service[CHALLENGE_MAX_VALUE]; /* "": none */
};

/* Adds what one header's value (len bytes, of no particular end) says; of two challenges of a kind the first counts.
 * -EBADMSG: it breaks the grammar, or a limit; *ret is as it was. */
int challenge_parse(const char *value, size_t len, struct challenge *ret) MUST_CHECK;

#endif
