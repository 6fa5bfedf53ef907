/* SPDX-License-Identifier: Apache-2.0 */
/* The error model's three verbs. See error.h. */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static enum sm_error_kind kind_of_errno(int code)
{
	switch (code) {
	case ENOENT:
		return SM_ERROR_NOT_FOUND;
	case EEXIST:
		return SM_ERROR_EXISTS;
	case ETIMEDOUT:
		return SM_ERROR_TIMEOUT;
	case ECANCELED:
		return SM_ERROR_CANCELLED;
	default:
		return SM_ERROR_IO;
	}
}

int error_set(struct sm_error *err, enum sm_error_kind kind, int code, const char *fmt, ...)
{
	if (err) {
		va_list ap;

		err->kind = kind;
		err->code = code;
		va_start(ap, fmt);
		vsnprintf(err->message, sizeof(err->message), fmt, ap);
		va_end(ap);
	}
	return -code;
}

int error_sys(struct sm_error *err, int code, const char *fmt, ...)
{
	if (err) {
		size_t used;
		va_list ap;

		err->kind = kind_of_errno(code);
		err->code = code;
		va_start(ap, fmt);
		vsnprintf(err->message, sizeof(err->message), fmt, ap);
		va_end(ap);
		used = strlen(err->message);
		/* strerror is thread-safe in glibc (since 2.32) and in musl. */
		snprintf(err->message + used, sizeof(err->message) - used, ": %s", strerror(code));
	}
	return -code;
}

int error_wrap(struct sm_error *err, int r, const char *fmt, ...)
{
	char old[SM_ERROR_MESSAGE_SIZE];
	size_t used;
	va_list ap;

	if (!err || r >= 0)
		return r;
	if (err->kind == SM_ERROR_NONE) {
		err->kind = kind_of_errno(-r);
		err->code = -r;
		snprintf(err->message, sizeof(err->message), "%s", strerror(-r));
	}
	memcpy(old, err->message, sizeof(old));
	va_start(ap, fmt);
	vsnprintf(err->message, sizeof(err->message), fmt, ap);
	va_end(ap);
	used = strlen(err->message);
	snprintf(err->message + used, sizeof(err->message) - used, ": %s", old);
	return r;
}
