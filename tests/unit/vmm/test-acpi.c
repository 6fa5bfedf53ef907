/* SPDX-License-Identifier: Apache-2.0 */
/* The ACPI tables: checksums, links, and what the reference compiler makes of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/fileio.h"
#include "vmm/x86_64/acpi.h"
#include "vmm/x86_64/aml.h"
#include "vmm/x86_64/layout.h"

static uint8_t sum(const uint8_t *p, size_t len)
{
	uint8_t s = 0;

	while (len--)
		s = (uint8_t)(s + *p++);
	return s;
}

static uint64_t get(const uint8_t *p, size_t len)
{
	uint64_t v = 0;

	for (size_t i = 0; i < len; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

static void test_links(void **state)
{
	struct acpi_options o = {.cpus = 16};
	struct acpi_layout l;
	struct buf b = {0};
	const uint8_t *rsdp;

	assert_int_equal(acpi_build(LAYOUT_ACPI, &o, &b, &l, NULL), 0);
	rsdp = b.data + (l.rsdp - LAYOUT_ACPI);
	assert_memory_equal(rsdp, "RSD PTR ", 8);
	assert_int_equal(l.rsdp % 16, 0);
	assert_int_equal(sum(rsdp, 20), 0);
	assert_int_equal(sum(rsdp, 36), 0);
	assert_int_equal(get(rsdp + 24, 8), LAYOUT_ACPI + l.xsdt);
	assert_int_equal(sum(b.data + l.xsdt, l.xsdt_len), 0);
	assert_int_equal(sum(b.data + l.facp, l.facp_len), 0);
	assert_int_equal(sum(b.data + l.apic, l.apic_len), 0);
	assert_int_equal(sum(b.data + l.mcfg, l.mcfg_len), 0);
	assert_int_equal(sum(b.data + l.dsdt, l.dsdt_len), 0);
	assert_int_equal(get(b.data + l.xsdt + 36, 8), LAYOUT_ACPI + l.facp);
	assert_int_equal(l.facp_len, 276);
	assert_int_equal(get(b.data + l.facp + 140, 8), LAYOUT_ACPI + l.dsdt);
	/* What the kernel must not look for. */
	assert_int_equal(get(b.data + l.facp + 109, 2) & 0x27, 0x24);
	assert_int_equal(get(b.data + l.facp + 112, 4) & (1u << 20), 1u << 20);
	assert_int_equal(l.apic_len, 44 + 16 * 8 + 12);
	buf_done(&b);
}

static void test_package_lengths(void **state)
{
	/* Around the borders where the length's own encoding grows. */
	static const size_t sizes[] = {0, 1, 62, 63, 64, 4092, 4093, 4094, 5000, 70000};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct buf b = {0};
		size_t mark = aml_open(&b, 0x10), extra, len;

		buf_put_zero(&b, sizes[i]);
		aml_close(&b, mark);
		assert_int_equal(b.error, 0);
		extra = b.data[1] >> 6;
		len = extra ? b.data[1] & 0x0f : b.data[1] & 0x3f;
		for (size_t j = 1; j <= extra; j++)
			len |= (size_t)b.data[1 + j] << (8 * j - 4);
		assert_int_equal(len, b.len - 1);
		assert_int_equal(b.len, 2 + extra + sizes[i]);
		buf_done(&b);
	}
}

static void write_file(const char *dir, const char *name, const uint8_t *p, size_t len)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(p, 1, len, f), len);
	fclose(f);
}

/* Disassembles each table and compiles the DSDT again: no errors, no warnings, and the names that must be there. */
static void test_iasl(void **state)
{
	char dir[] = "/tmp/supermachine-acpi.XXXXXX", cmd[512], *dsl = NULL;
	struct acpi_options o = {.cpus = 4, .high_mmio = 6ULL << 30, .high_mmio_size = 1ULL << 30};
	struct acpi_layout l;
	struct buf b = {0};
	size_t len;
	int r;

	if (system("command -v iasl >/dev/null") != 0) {
		print_message("skipped: iasl (acpica-tools) is not installed\n");
		skip();
	}
	assert_non_null(mkdtemp(dir));
	assert_int_equal(acpi_build(LAYOUT_ACPI, &o, &b, &l, NULL), 0);
	write_file(dir, "dsdt.aml", b.data + l.dsdt, l.dsdt_len);
	write_file(dir, "facp.aml", b.data + l.facp, l.facp_len);
	write_file(dir, "apic.aml", b.data + l.apic, l.apic_len);
	write_file(dir, "mcfg.aml", b.data + l.mcfg, l.mcfg_len);
	buf_done(&b);
	snprintf(cmd, sizeof(cmd),
		 "cd %s && for t in dsdt facp apic mcfg; do iasl -d $t.aml >$t.log 2>&1 || exit 1; "
		 "! grep -iE 'error|warning|invalid' $t.log || exit 2; done; "
		 "! grep -i 'unknown\\|invalid\\|incorrect' facp.dsl apic.dsl mcfg.dsl || exit 3; "
		 "iasl -p again dsdt.dsl >again.log 2>&1 && grep '0 Errors, 0 Warnings' again.log >/dev/null || "
		 "{ cat again.log; exit 4; }",
		 dir);
	r = system(cmd);
	assert_int_equal(r, 0);
	snprintf(cmd, sizeof(cmd), "%s/dsdt.dsl", dir);
	assert_int_equal(read_file_at(-100, cmd, 1 << 20, &dsl, &len), 0);
	assert_non_null(strstr(dsl, "PNP0A03"));
	/* The bridge passes on what is in the window above RAM. */
	assert_non_null(strstr(dsl, "QWordMemory"));
	assert_non_null(strstr(dsl, "0x0000000180000000"));
	assert_non_null(strstr(dsl, "0x00000001BFFFFFFF"));
	assert_non_null(strstr(dsl, "ACPI0013"));
	assert_non_null(strstr(dsl, "VM_Gen_Counter"));
	assert_non_null(strstr(dsl, "_S5"));
	assert_non_null(strstr(dsl, "Notify ("));
	free(dsl);
	remove_tree_at(-100, dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_links),
		cmocka_unit_test(test_package_lengths),
		cmocka_unit_test(test_iasl),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
