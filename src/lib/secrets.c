/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Secrets: their names go into the record, what they are goes to the keeper over its socket and nowhere else. A handle
 * keeps them, as they will be sent, between the options and the start.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "lib/lib.h"

void secrets_done(struct secrets *s)
{
	for (size_t i = 0; i < s->num; i++) {
		if (s->v[i].data)
			explicit_bzero(s->v[i].data, s->v[i].len);
		buf_done(&s->v[i]);
	}
	free(s->v);
	strv_free(s->names);
	*s = (struct secrets){0};
}

static int check(const struct sm_secret *s, struct sm_error *err)
{
	if (!s->name || !vm_name_valid(s->name))
		return error_set(err, SM_ERROR_INVALID, EINVAL,
				 "\"%s\" is no name for a secret: letters, digits, _ . -, at most %d, beginning with a "
				 "letter or digit",
				 s->name ? s->name : "", VM_NAME_MAX);
	if (s->length > PROTO_SECRET_MAX)
		return error_set(err, SM_ERROR_LIMIT, E2BIG, "secret %s has %zu bytes: at most %u", s->name, s->length,
				 PROTO_SECRET_MAX);
	if (s->length && !s->data)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "secret %s: no data", s->name);
	if (s->env && (!*s->env || strchr(s->env, '=') || strlen(s->env) > PROTO_SECRET_ENV_MAX))
		return error_set(err, SM_ERROR_INVALID, EINVAL, "secret %s: \"%s\" is no name of a variable", s->name,
				 s->env);
	if (s->env && s->length && memchr(s->data, 0, s->length))
		return error_set(err, SM_ERROR_INVALID, EINVAL, "secret %s has a NUL: no variable can hold it",
				 s->name);
	return 0;
}

static int add(struct secrets *to, const struct sm_secret *s, struct sm_error *err)
{
	struct proto_secret x = {.data = s->data, .len = s->length};
	int r = check(s, err);

	if (r < 0)
		return r;
	for (char **n = to->names; *n; n++)
		if (streq(*n, s->name))
			return error_set(err, SM_ERROR_INVALID, EINVAL, "two secrets %s", s->name);
	strcpy(x.name, s->name);
	strcpy(x.env, s->env ? s->env : "");
	to->names[to->num] = strdup(s->name);
	if (!to->names[to->num] || proto_secret_encode(&to->v[to->num], &x) < 0)
		return error_sys(err, ENOMEM, "secret %s", s->name);
	to->num++;
	return 0;
}

int secrets_make(struct secrets *ret, const struct sm_secret *list, size_t count, struct sm_error *err)
{
	struct secrets s = {0};
	int r = 0;

	if (!count)
		return 0;
	if (count > VM_MAX_SECRETS)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "%zu secrets are too many: at most %d", count,
				 VM_MAX_SECRETS);
	s.v = calloc(count, sizeof(*s.v));
	s.names = calloc(count + 1, sizeof(*s.names));
	if (!s.v || !s.names)
		r = error_sys(err, ENOMEM, "secrets");
	for (size_t i = 0; r == 0 && i < count; i++) {
		struct sm_secret one = OPTIONS_GET(struct sm_secret, OPTIONS_AT(struct sm_secret, list, i));

		r = add(&s, &one, err);
	}
	if (r < 0)
		secrets_done(&s);
	else
		*ret = s;
	return r;
}

static bool is_given(const struct secrets *s, const char *name)
{
	for (size_t i = 0; i < s->num; i++)
		if (streq(s->names[i], name))
			return true;
	return false;
}

int secrets_check(const struct vm_record *r, const struct secrets *s, struct sm_error *err)
{
	_cleanup_(buf_done) struct buf missing = {0};

	for (char **n = r->secrets; n && *n; n++)
		if (!is_given(s, *n))
			buf_printf(&missing, "%s%s", missing.len ? ", " : "", *n);
	buf_put_u8(&missing, 0);
	if (missing.len > 1)
		return error_set(err, SM_ERROR_INVALID, ENOKEY,
				 "VM %s was started with secrets that are kept nowhere, and wants them again: %s",
				 *r->name ? r->name : r->id, (const char *)missing.data);
	return s->num > strv_len((const char *const *)r->secrets)
		       ? error_set(err, SM_ERROR_INVALID, EINVAL, "VM %s was started with other secrets", r->id)
		       : 0;
}

int secrets_deliver(struct sm_vm *vm, struct sm_error *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < vm->secrets.num; i++)
		r = vm_request(vm, PROTO_KEEPER_SECRET, &vm->secrets.v[i], "give a secret to", err);
	secrets_done(&vm->secrets);
	return r;
}

static int check_vm(struct sm_vm *vm, const struct secrets *s, struct sm_error *err)
{
	struct vm_record rec = {0};
	_fd_ int dir = vmdir_open(vm->client, vm->id, err);
	int r = dir < 0 ? dir : vmdir_load(dir, vm->id, &rec, err);

	if (r == 0)
		r = secrets_check(&rec, s, err);
	vm_record_done(&rec);
	return r;
}

int sm_vm_set_secrets(struct sm_vm *vm, const struct sm_secret *secrets, size_t count, struct sm_error *err)
{
	struct secrets s = {0};
	int r = secrets_make(&s, secrets, count, err);

	if (r == 0)
		r = check_vm(vm, &s, err);
	if (r < 0) {
		secrets_done(&s);
		return r;
	}
	secrets_done(&vm->secrets);
	vm->secrets = s;
	return 0;
}
