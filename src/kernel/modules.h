/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernel modules: names to files, and the closure of a list over what its members need. File names come from
 * modules.dep (or modules.order where depmod has not run: a package just unpacked); what a module needs is read from
 * the module itself (.modinfo: depends, softdep pre). Names compare with '-' equal to '_', as the kernel's tools do.
 */
#ifndef KERNEL_MODULES_H
#define KERNEL_MODULES_H

#include "kernel/kernel.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

struct module_index;

int module_index_open(const char *dir, struct module_index **ret, struct sm_error *err) MUST_CHECK;
struct module_index *module_index_free(struct module_index *ix);
bool module_is_builtin(const struct module_index *ix, const char *name);

struct module {
	char *name;	 /* "nd_pmem": normalised */
	struct buf data; /* the plain .ko */
};
struct module_list {
	struct module *items;
	size_t count;
};

/* In load order: what a module needs stands before it. "?name": may be absent. */
int module_closure(const struct module_index *ix, const char *const *names, struct module_list *ret,
		   struct sm_error *err) MUST_CHECK;
void module_list_done(struct module_list *list);
/* The same of the modules that this kernel has; -ENOENT: it has none. */
int kernel_modules(const struct kernel *k, const char *const *names, struct module_list *ret,
		   struct sm_error *err) MUST_CHECK;

/*
 * Walks the "key=value" strings of a module's .modinfo section: fn returns nonzero to stop, which is then returned.
 * -EBADMSG: not a 64-bit ELF module.
 */
int module_info(const uint8_t *elf, size_t len, int (*fn)(void *arg, const char *key, const char *value), void *arg);

#endif
