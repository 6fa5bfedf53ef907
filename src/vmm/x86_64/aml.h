/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The few AML encodings that our DSDT uses (ACPI 6.4 chapter 20). A package is opened, filled and closed; closing
 * inserts its length, whose own size depends on it.
 */
#ifndef VMM_X86_64_AML_H
#define VMM_X86_64_AML_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

/* aml_open: emits the opcode (1 or 2 bytes: high byte 0x5b if extended) and returns the mark for aml_close. */
size_t aml_open(struct buf *b, uint16_t opcode);
void aml_close(struct buf *b, size_t mark);

void aml_path(struct buf *b, const char *path); /* "\\_SB_.PCI0", "_HID": segments of four characters */
void aml_name(struct buf *b, const char *path); /* NameOp: the value follows */
void aml_int(struct buf *b, uint64_t v);
void aml_string(struct buf *b, const char *s);
void aml_eisa_id(struct buf *b, const char *id); /* "PNP0A03" */
size_t aml_open_scope(struct buf *b, const char *path);
size_t aml_open_device(struct buf *b, const char *name);
size_t aml_open_method(struct buf *b, const char *name, unsigned args);
size_t aml_open_package(struct buf *b, unsigned count);

/* Resource templates (6.4): open, descriptors, close. */
struct aml_resources {
	size_t package, start;
};
struct aml_resources aml_open_resources(struct buf *b);
void aml_close_resources(struct buf *b, struct aml_resources r);
void aml_res_io(struct buf *b, uint16_t base, uint8_t len);
void aml_res_irq_edge(struct buf *b, uint32_t gsi);
void aml_res_memory_fixed(struct buf *b, uint32_t base, uint32_t len);
void aml_res_bus(struct buf *b, uint16_t min, uint16_t max);
void aml_res_io_window(struct buf *b, uint16_t base, uint16_t len);
void aml_res_memory_window(struct buf *b, uint32_t base, uint32_t len);
void aml_res_memory_window64(struct buf *b, uint64_t base, uint64_t len); /* prefetchable */

#endif
