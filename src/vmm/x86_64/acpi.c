/* SPDX-License-Identifier: Apache-2.0 */
/* The ACPI tables. See acpi.h. */
#include "vmm/x86_64/acpi.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "vmm/power.h"
#include "vmm/x86_64/aml.h"
#include "vmm/x86_64/layout.h"

#define HEADER_SIZE 36
#define SPACE_IO 1

/* Fixed feature flags (5.2.9, table 5.10). */
#define FADT_WBINVD (1u << 0)
#define FADT_PWR_BUTTON (1u << 4) /* set: there is no fixed one */
#define FADT_SLP_BUTTON (1u << 5)
#define FADT_RESET_REG (1u << 10)
#define FADT_HW_REDUCED (1u << 20)
/* IA-PC boot architecture flags (table 5.11): legacy devices and the keyboard controller are absent by bits 0 and 1. */
#define BOOT_NO_VGA (1u << 2)
#define BOOT_NO_ASPM (1u << 4)
#define BOOT_NO_CMOS_RTC (1u << 5)

static uint8_t checksum(const uint8_t *p, size_t len)
{
	uint8_t sum = 0;

	for (size_t i = 0; i < len; i++)
		sum = (uint8_t)(sum + p[i]);
	return (uint8_t)-sum;
}

static void align(struct buf *b, size_t to)
{
	buf_put_zero(b, (to - b->len % to) % to);
}

static size_t table_open(struct buf *b, const char *signature, uint8_t revision)
{
	size_t start;

	align(b, 16);
	start = b->len;
	buf_put(b, signature, 4);
	buf_put_u32(b, 0); /* length, at the end */
	buf_put_u8(b, revision);
	buf_put_u8(b, 0); /* checksum, at the end */
	buf_put(b, "SUPMCH", 6);
	buf_put(b, "SUPERMCH", 8);
	buf_put_u32(b, 1);
	buf_put(b, "SUPM", 4);
	buf_put_u32(b, 1);
	return start;
}

static uint32_t table_close(struct buf *b, size_t start)
{
	uint32_t len = (uint32_t)(b->len - start);

	if (b->error)
		return 0;
	for (int i = 0; i < 4; i++)
		b->data[start + 4 + (size_t)i] = (uint8_t)(len >> (8 * i));
	b->data[start + 9] = checksum(b->data + start, len);
	return len;
}

static void put_io_register(struct buf *b, uint16_t port)
{
	buf_put_u8(b, SPACE_IO);
	buf_put_u8(b, 8);
	buf_put_u8(b, 0);
	buf_put_u8(b, 1); /* byte access */
	buf_put_u64(b, port);
}

static void put_pci(struct buf *b, const struct acpi_options *o)
{
	size_t dev = aml_open_device(b, "PCI0");
	struct aml_resources r;

	aml_name(b, "_HID");
	aml_eisa_id(b, "PNP0A03");
	aml_name(b, "_SEG");
	aml_int(b, 0);
	aml_name(b, "_BBN");
	aml_int(b, 0);
	aml_name(b, "_UID");
	aml_int(b, 0);
	aml_name(b, "_CRS");
	r = aml_open_resources(b);
	aml_res_bus(b, 0, 0);
	aml_res_io_window(b, LAYOUT_PCI_IO, LAYOUT_PCI_IO_SIZE);
	aml_res_memory_window(b, (uint32_t)LAYOUT_PCI_MMIO, (uint32_t)LAYOUT_PCI_MMIO_SIZE);
	if (o->high_mmio_size)
		aml_res_memory_window64(b, o->high_mmio, o->high_mmio_size);
	aml_close_resources(b, r);
	aml_close(b, dev);

	/* The kernel uses ECAM only where a motherboard resource reserves it. */
	dev = aml_open_device(b, "MBRD");
	aml_name(b, "_HID");
	aml_eisa_id(b, "PNP0C02");
	aml_name(b, "_CRS");
	r = aml_open_resources(b);
	aml_res_memory_fixed(b, (uint32_t)LAYOUT_ECAM, (uint32_t)LAYOUT_ECAM_SIZE);
	aml_close_resources(b, r);
	aml_close(b, dev);
}

static void put_serial(struct buf *b)
{
	size_t dev = aml_open_device(b, "COM1");
	struct aml_resources r;

	aml_name(b, "_HID");
	aml_eisa_id(b, "PNP0501");
	aml_name(b, "_UID");
	aml_int(b, 0);
	aml_name(b, "_CRS");
	r = aml_open_resources(b);
	aml_res_io(b, LAYOUT_SERIAL, 8);
	aml_res_irq_edge(b, LAYOUT_SERIAL_GSI);
	aml_close_resources(b, r);
	aml_close(b, dev);
}

/* "Virtual Machine Generation ID" (Microsoft, 2012): ADDR gives the counter's place; the event device notifies. */
static void put_vmgenid(struct buf *b)
{
	size_t dev = aml_open_device(b, "VGEN"), m;
	struct aml_resources r;

	aml_name(b, "_HID");
	aml_string(b, "SUPM0001");
	aml_name(b, "_CID");
	aml_string(b, "VM_Gen_Counter");
	aml_name(b, "_DDN");
	aml_string(b, "VM_Gen_Counter");
	aml_name(b, "ADDR");
	m = aml_open_package(b, 2);
	aml_int(b, (uint32_t)LAYOUT_VMGENID);
	aml_int(b, LAYOUT_VMGENID >> 32);
	aml_close(b, m);
	aml_close(b, dev);

	dev = aml_open_device(b, "GED0");
	aml_name(b, "_HID");
	aml_string(b, "ACPI0013");
	aml_name(b, "_UID");
	aml_int(b, 0);
	aml_name(b, "_CRS");
	r = aml_open_resources(b);
	aml_res_irq_edge(b, LAYOUT_EVENT_GSI);
	aml_close_resources(b, r);
	m = aml_open_method(b, "_EVT", 1);
	buf_put_u8(b, 0x86); /* NotifyOp */
	aml_path(b, "\\_SB_.VGEN");
	aml_int(b, 0x80);
	aml_close(b, m);
	aml_close(b, dev);
}

static void put_dsdt(struct buf *b, const struct acpi_options *o)
{
	size_t sb, package;

	sb = aml_open_scope(b, "\\_SB_");
	put_pci(b, o);
	put_serial(b);
	put_vmgenid(b);
	aml_close(b, sb);
	aml_name(b, "\\_S5_");
	package = aml_open_package(b, 2);
	aml_int(b, POWER_SLEEP_TYPE_OFF);
	aml_int(b, 0);
	aml_close(b, package);
}

static void put_fadt(struct buf *b, uint64_t dsdt)
{
	size_t start = b->len - HEADER_SIZE;

	buf_put_u32(b, 0); /* FACS: none */
	buf_put_u32(b, (uint32_t)dsdt);
	buf_put_zero(b, 109 - 44);
	buf_put_u16(b, BOOT_NO_VGA | BOOT_NO_ASPM | BOOT_NO_CMOS_RTC);
	buf_put_u8(b, 0);
	buf_put_u32(b, FADT_WBINVD | FADT_PWR_BUTTON | FADT_SLP_BUTTON | FADT_RESET_REG | FADT_HW_REDUCED);
	put_io_register(b, LAYOUT_POWER + POWER_RESET);
	buf_put_u8(b, POWER_RESET_VALUE);
	buf_put_u16(b, 0); /* ARM boot flags */
	buf_put_u8(b, 4);  /* minor version: 6.4 */
	buf_put_u64(b, 0);
	buf_put_u64(b, dsdt);
	buf_put_zero(b, start + 244 - b->len); /* the fixed hardware's extended blocks */
	put_io_register(b, LAYOUT_POWER + POWER_SLEEP_CONTROL);
	put_io_register(b, LAYOUT_POWER + POWER_SLEEP_STATUS);
	buf_put(b, "SUPERMCH", 8); /* hypervisor vendor */
}

static void put_madt(struct buf *b, unsigned cpus)
{
	buf_put_u32(b, (uint32_t)LAYOUT_LAPIC);
	buf_put_u32(b, 0); /* no 8259 */
	for (unsigned i = 0; i < cpus; i++) {
		buf_put_u8(b, 0); /* processor local APIC */
		buf_put_u8(b, 8);
		buf_put_u8(b, (uint8_t)i);
		buf_put_u8(b, (uint8_t)i);
		buf_put_u32(b, 1); /* enabled */
	}
	buf_put_u8(b, 1); /* I/O APIC */
	buf_put_u8(b, 12);
	buf_put_u8(b, 0);
	buf_put_u8(b, 0);
	buf_put_u32(b, (uint32_t)LAYOUT_IOAPIC);
	buf_put_u32(b, 0);
}

static void put_mcfg(struct buf *b)
{
	buf_put_u64(b, 0);
	buf_put_u64(b, LAYOUT_ECAM);
	buf_put_u16(b, 0); /* segment */
	buf_put_u8(b, 0);  /* first and last bus */
	buf_put_u8(b, 0);
	buf_put_u32(b, 0);
}

static void put_rsdp(struct buf *b, uint64_t xsdt)
{
	size_t start;

	align(b, 16);
	start = b->len;
	buf_put(b, "RSD PTR ", 8);
	buf_put_u8(b, 0);
	buf_put(b, "SUPMCH", 6);
	buf_put_u8(b, 2);
	buf_put_u32(b, 0); /* no RSDT */
	buf_put_u32(b, 36);
	buf_put_u64(b, xsdt);
	buf_put_u32(b, 0);
	if (b->error)
		return;
	b->data[start + 8] = checksum(b->data + start, 20);
	b->data[start + 32] = checksum(b->data + start, 36);
}

int acpi_build(uint64_t base, const struct acpi_options *options, struct buf *out, struct acpi_layout *ret,
	       struct sm_error *err)
{
	struct acpi_layout l = {0};

	l.dsdt = (uint32_t)table_open(out, "DSDT", 2);
	put_dsdt(out, options);
	l.dsdt_len = table_close(out, l.dsdt);
	l.facp = (uint32_t)table_open(out, "FACP", 6);
	put_fadt(out, base + l.dsdt);
	l.facp_len = table_close(out, l.facp);
	l.apic = (uint32_t)table_open(out, "APIC", 5);
	put_madt(out, options->cpus);
	l.apic_len = table_close(out, l.apic);
	l.mcfg = (uint32_t)table_open(out, "MCFG", 1);
	put_mcfg(out);
	l.mcfg_len = table_close(out, l.mcfg);
	l.xsdt = (uint32_t)table_open(out, "XSDT", 1);
	buf_put_u64(out, base + l.facp);
	buf_put_u64(out, base + l.apic);
	buf_put_u64(out, base + l.mcfg);
	l.xsdt_len = table_close(out, l.xsdt);
	put_rsdp(out, base + l.xsdt);
	if (out->error)
		return error_sys(err, ENOMEM, "ACPI tables");
	if (out->len > LAYOUT_ACPI_SIZE)
		return error_set(err, SM_ERROR_LIMIT, EFBIG, "ACPI tables: %zu bytes", out->len);
	l.rsdp = base + out->len - 36;
	*ret = l;
	return 0;
}
