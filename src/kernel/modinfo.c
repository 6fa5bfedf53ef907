/* SPDX-License-Identifier: Apache-2.0 */
/* A module's .modinfo section. All offsets are checked: a broken file is -EBADMSG. See modules.h. */
#include <elf.h>
#include <errno.h>
#include <string.h>

#include "base/cursor.h"
#include "base/util.h"
#include "kernel/modules.h"

static bool section_at(const uint8_t *elf, size_t len, const Elf64_Ehdr *eh, unsigned index, Elf64_Shdr *ret)
{
	uint64_t off = (uint64_t)index * sizeof(*ret);

	if (index >= eh->e_shnum || eh->e_shoff > len || !range_inside(off, sizeof(*ret), len - eh->e_shoff))
		return false;
	memcpy(ret, elf + eh->e_shoff + off, sizeof(*ret));
	return ret->sh_type == SHT_NOBITS || range_inside(ret->sh_offset, ret->sh_size, len);
}

static int walk(struct cursor c, int (*fn)(void *, const char *, const char *), void *arg)
{
	while (c.left) {
		const char *s = cursor_str(&c), *eq;
		char key[64];
		int r;

		if (!s)
			return -EBADMSG;
		eq = strchr(s, '=');
		if (!eq || (size_t)(eq - s) >= sizeof(key))
			continue; /* padding between strings, or nothing that is asked for */
		memcpy(key, s, (size_t)(eq - s));
		key[eq - s] = 0;
		r = fn(arg, key, eq + 1);
		if (r)
			return r;
	}
	return 0;
}

int module_info(const uint8_t *elf, size_t len, int (*fn)(void *arg, const char *key, const char *value), void *arg)
{
	Elf64_Ehdr eh;
	Elf64_Shdr names, s;

	if (len < sizeof(eh))
		return -EBADMSG;
	memcpy(&eh, elf, sizeof(eh));
	if (memcmp(eh.e_ident, ELFMAG, SELFMAG) != 0 || eh.e_ident[EI_CLASS] != ELFCLASS64 ||
	    eh.e_shentsize != sizeof(s) || !section_at(elf, len, &eh, eh.e_shstrndx, &names) ||
	    names.sh_type != SHT_STRTAB)
		return -EBADMSG;
	for (unsigned i = 0; i < eh.e_shnum; i++) {
		struct cursor name;
		const char *text;

		if (!section_at(elf, len, &eh, i, &s) || s.sh_name > names.sh_size)
			return -EBADMSG;
		name = cursor_of(elf + names.sh_offset + s.sh_name, names.sh_size - s.sh_name);
		text = cursor_str(&name);
		if (text && streq(text, ".modinfo") && s.sh_type == SHT_PROGBITS)
			return walk(cursor_of(elf + s.sh_offset, s.sh_size), fn, arg);
	}
	return 0;
}
