/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small checked JSON accessors for the VM's files: read every member, check once at the end.
 *
 *	e = rj_load(&j, text, len, "what", err);
 *	a = rj_u64(&j, "a", 0, 9);  b = rj_str(&j, "b", true);
 *	e = rj_finish(&j, "what", err);		-> the first thing that was wrong
 */
#ifndef KEEPER_RECORDJSON_H
#define KEEPER_RECORDJSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct rj {
	json_t *object;	    /* owned by rj_load .. rj_finish */
	const char *member; /* the first that was wrong, else NULL */
	const char *why;    /* NULL: no memory */
};

int rj_load(struct rj *j, const char *json, size_t len, const char *what, struct sm_error *err) MUST_CHECK;
/* Drops the object; 0, -EBADMSG or -ENOMEM. */
int rj_finish(struct rj *j, const char *what, struct sm_error *err) MUST_CHECK;
void rj_fail(struct rj *j, const char *member, const char *why); /* the first one counts */

/* Absent numbers and booleans are 0 and false; min > 0 makes a number required. */
uint64_t rj_u64(struct rj *j, const char *member, uint64_t min, uint64_t max);
bool rj_bool(struct rj *j, const char *member);
char *rj_str(struct rj *j, const char *member, bool required);
void rj_str_into(struct rj *j, const char *member, char *out, size_t size); /* absent: "" */
char **rj_strv(struct rj *j, const char *member, bool required);

/* Writers; a NULL string or list writes nothing. Failures for want of memory show in rj_dump. */
void rj_put_u64(json_t *o, const char *member, uint64_t v);
void rj_put_bool(json_t *o, const char *member, bool v);
void rj_put_str(json_t *o, const char *member, const char *s);
void rj_put_strv(json_t *o, const char *member, char *const *v);
json_t *rj_string(const char *s); /* UTF-8 as a string, other bytes as {"hex": ...} */
/* Takes o. Text with a newline at the end, malloc'ed. */
int rj_dump(json_t *o, char **ret, struct sm_error *err) MUST_CHECK;

/* mounts.c: a record's mounts. */
struct vm_record;
struct vm_mount;
json_t *vm_mounts_to_json(const struct vm_record *r);
void vm_mounts_from_json(struct rj *j, struct vm_record *r);
void vm_mounts_done(struct vm_record *r);
/* How one is served, in the words of the monitor's configuration (vmm/config.h). */
void vm_mount_format(json_t *o, const struct vm_mount *m);

#endif
