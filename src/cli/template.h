/* SPDX-License-Identifier: Apache-2.0 */
/* --format '{{.ID}} {{.Name}}': the part of docker's templates that names fields, and no more. */
#ifndef CLI_TEMPLATE_H
#define CLI_TEMPLATE_H

#include <stdbool.h>

#include "base/buf.h"

/* A field's text for one row; ret is appended to. false: there is no such field. */
typedef bool (*template_field)(const void *row, const char *name, struct buf *ret);

/* True if --format's value is a template. */
bool template_is(const char *format);
/*
 * One row's line, without the newline. "{{.NAME}}" with spaces inside the braces or not; "\t" and "\n" outside of them.
 * 0; -EINVAL with what is wrong in `what` (a field that is not there, anything else between braces).
 */
int template_expand(const char *format, const void *row, template_field field, struct buf *ret, char what[static 96]);

#endif
