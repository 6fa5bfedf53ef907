/* SPDX-License-Identifier: Apache-2.0 */
/* The small devices: pmem, rng, net, fs, balloon, console. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>
#include <linux/fuse.h>
#include <linux/virtio_balloon.h>

#include "base/util.h"
#include "driver.h"
#include "virtio/balloon.h"
#include "virtio/console.h"
#include "virtio/fs.h"
#include "virtio/net.h"
#include "virtio/pmem.h"
#include "virtio/rng.h"

#define ALL UINT64_MAX
#define A (RAM_BASE + 0x100000)
#define B (RAM_BASE + 0x110000)

static void start(struct driver *d, struct virtio_device *dev)
{
	driver_attach(d, dev);
	assert_true(driver_start(d, ALL));
}

static void put32(struct driver *d, uint64_t gpa, uint32_t v)
{
	memcpy(driver_at(d, gpa), &v, sizeof(v));
}

static uint32_t get32(struct driver *d, uint64_t gpa)
{
	uint32_t v;

	memcpy(&v, driver_at(d, gpa), sizeof(v));
	return v;
}

/* Sends a chain and gets it back. */
static uint32_t exchange(struct driver *d, unsigned q, const struct driver_buf *bufs, unsigned n)
{
	uint32_t len;

	driver_chain(d, q, bufs, n);
	driver_kick(d, q);
	assert_true(driver_used(d, q, NULL, &len));
	return len;
}

/* Sends a chain that the device cannot answer, and sees it broken. */
static void refused(struct driver *d, unsigned q, const struct driver_buf *bufs, unsigned n)
{
	driver_chain(d, q, bufs, n);
	driver_kick(d, q);
	assert_true(driver_broken(d));
	assert_false(driver_used(d, q, NULL, NULL));
	assert_true(driver_start(d, ALL));
}

static void test_pmem(void **state)
{
	struct virtio_pmem_options o = {.name = "pmem", .gpa = 4 * GIB, .size = GIB};
	struct driver_buf flush[] = {{A, 4, false}, {B, 4, true}}, mute = {A, 4, false},
			  small[] = {{A, 3, false}, {B, 4, true}};
	struct virtio_device *dev;
	uint64_t config[2];
	struct driver d;

	driver_init(&d);
	assert_int_equal(virtio_pmem_new(&d.mem, d.loop, &o, &dev), 0);
	start(&d, dev);
	driver_config(&d, 0, config, sizeof(config));
	assert_int_equal(config[0], 4 * GIB);
	assert_int_equal(config[1], GIB);
	put32(&d, B, 77);
	assert_int_equal(exchange(&d, 0, flush, 2), 4);
	assert_int_equal(get32(&d, B), 0);
	put32(&d, A, 9); /* no such request */
	assert_int_equal(exchange(&d, 0, flush, 2), 4);
	assert_int_equal(get32(&d, B), 1);
	refused(&d, 0, &mute, 1);
	refused(&d, 0, small, 2);
	driver_done(&d);
	driver_init(&d);
	o.size = 100;
	assert_int_equal(virtio_pmem_new(&d.mem, d.loop, &o, &dev), -22);
	driver_done(&d);
}

static void test_rng(void **state)
{
	struct virtio_rng_options o = {.name = "rng", .rate = 8192};
	struct driver_buf buf = {A, 4096, true}, huge = {RAM_BASE + MIB, MIB, true}, wrong = {A, 16, false};
	struct virtio_device *dev;
	struct driver d;
	uint64_t start_ns;
	uint32_t len;

	driver_init(&d);
	assert_int_equal(virtio_rng_new(&d.mem, d.loop, &o, &dev), 0);
	start(&d, dev);
	assert_int_equal(exchange(&d, 0, &buf, 1), 4096);
	assert_int_not_equal(memcmp(driver_at(&d, A), driver_at(&d, A + 2048), 2048), 0);
	assert_int_equal(exchange(&d, 0, &huge, 1), 4096);
	/* The bucket is empty: the next comes when it has filled, not before. */
	start_ns = time_now_ns();
	driver_chain(&d, 0, &buf, 1);
	driver_kick(&d, 0);
	assert_false(driver_used(&d, 0, NULL, NULL));
	assert_true(driver_wait(&d, 0, NULL, &len));
	assert_int_equal(len, 4096);
	assert_true(time_now_ns() - start_ns > 300000000);
	refused(&d, 0, &wrong, 1);
	driver_done(&d);
}

static void test_net(void **state)
{
	struct virtio_net_options o = {.name = "net", .mac = {2, 3, 4, 5, 6, 7}};
	struct driver_buf frame = {A, 1514, false}, room = {B, 1514, true}, ctrl[] = {{A, 8, false}, {B, 1, true}};
	struct driver_buf tiny = {A, 4, false};
	struct virtio_device *dev;
	struct driver d;
	uint8_t config[8];

	driver_init(&d);
	assert_int_equal(virtio_net_new(&d.mem, d.loop, &o, &dev), 0);
	start(&d, dev);
	driver_config(&d, 0, config, sizeof(config));
	assert_memory_equal(config, o.mac, 6);
	assert_int_equal(config[6] & 1, 0); /* link down */
	driver_chain(&d, 0, &room, 1);
	driver_kick(&d, 0);
	assert_int_equal(exchange(&d, 1, &frame, 1), 0);
	assert_false(driver_used(&d, 0, NULL, NULL));
	assert_int_equal(exchange(&d, 2, ctrl, 2), 1);
	assert_int_equal(*(uint8_t *)driver_at(&d, B), 1); /* VIRTIO_NET_ERR */
	refused(&d, 1, &tiny, 1);
	refused(&d, 2, &tiny, 1);
	driver_done(&d);
}

static void test_fs(void **state)
{
	struct virtio_fs_options o = {.name = "fs", .tag = "supermachine"};
	struct fuse_in_header in = {.len = sizeof(in), .opcode = FUSE_INIT, .unique = 42};
	struct fuse_out_header out;
	struct driver_buf bufs[] = {{A, sizeof(in), false}, {B, 512, true}}, forget = {A, sizeof(in), false};
	struct virtio_device *dev;
	struct driver d;
	char tag[40];

	driver_init(&d);
	assert_int_equal(virtio_fs_new(&d.mem, d.loop, &o, &dev), 0);
	start(&d, dev);
	driver_config(&d, 0, tag, sizeof(tag));
	assert_string_equal(tag, "supermachine");
	assert_int_equal(*(uint32_t *)(void *)(tag + 36), 1);
	memcpy(driver_at(&d, A), &in, sizeof(in));
	assert_int_equal(exchange(&d, 1, bufs, 2), sizeof(out));
	memcpy(&out, driver_at(&d, B), sizeof(out));
	assert_int_equal(out.error, -19);
	assert_int_equal(out.unique, 42);
	assert_int_equal(out.len, sizeof(out));
	in.opcode = FUSE_LOOKUP;
	memcpy(driver_at(&d, A), &in, sizeof(in));
	assert_int_equal(exchange(&d, 1, bufs, 2), sizeof(out));
	memcpy(&out, driver_at(&d, B), sizeof(out));
	assert_int_equal(out.error, -38);
	refused(&d, 1, &forget, 1); /* a lookup without room for an answer */
	in.opcode = FUSE_FORGET;
	memcpy(driver_at(&d, A), &in, sizeof(in));
	assert_int_equal(exchange(&d, 0, &forget, 1), 0);
	driver_done(&d);
	driver_init(&d);
	o.tag = "";
	assert_int_equal(virtio_fs_new(&d.mem, d.loop, &o, &dev), -22);
	o.tag = "1234567890123456789012345678901234567";
	assert_int_equal(virtio_fs_new(&d.mem, d.loop, &o, &dev), -22);
	driver_done(&d);
}

struct released {
	uint8_t *ram;
	uint64_t bytes;
	unsigned calls;
	uint64_t first;
};

static void release(void *arg, void *host, size_t len)
{
	struct released *r = arg;

	assert_true((uint8_t *)host >= r->ram && (uint8_t *)host + len <= r->ram + RAM_SIZE);
	assert_int_equal(len % 4096, 0);
	if (!r->calls)
		r->first = (uint64_t)((uint8_t *)host - r->ram);
	r->calls++;
	r->bytes += len;
	memset(host, 0, len);
}

static void test_balloon_inflate(void **state)
{
	struct released rel = {0};
	struct virtio_balloon_options o = {.name = "balloon", .release = release, .arg = &rel};
	struct virtio_balloon_stats stats;
	struct driver_buf buf = {A, 16, false}, odd = {A, 15, false}, out = {A, 16, true};
	struct virtio_device *dev;
	struct driver d;
	uint32_t frame = (RAM_BASE + 0x200000) / 4096, config[2], v = 3;

	driver_init(&d);
	rel.ram = d.ram;
	assert_int_equal(virtio_balloon_new(&d.mem, d.loop, &o, &dev), 0);
	start(&d, dev);
	virtio_balloon_set_target(dev, 5 * 4096 + 1);
	assert_int_equal(d.signals[0], 1);
	driver_config(&d, 0, config, sizeof(config));
	assert_int_equal(config[0], 5);
	virtio_pci_bar_write(d.pci, 1, 0x204, &v, 4);
	virtio_pci_bar_write(d.pci, 1, 0x200, &v, 4); /* the target is ours */
	driver_config(&d, 0, config, sizeof(config));
	assert_int_equal(config[0], 5);
	assert_int_equal(config[1], 3);
	/* Three neighbours, in some order, then one alone: two calls. */
	memset(driver_at(&d, RAM_BASE + 0x200000), 0x55, 0x10000);
	for (unsigned i = 0; i < 3; i++)
		put32(&d, A + 4 * i, frame + (i + 1) % 3);
	put32(&d, A + 12, frame + 8);
	assert_int_equal(exchange(&d, 0, &buf, 1), 0);
	assert_int_equal(rel.calls, 2);
	assert_int_equal(rel.bytes, 4 * 4096);
	assert_int_equal(rel.first, 0x200000);
	assert_int_equal(get32(&d, RAM_BASE + 0x200000), 0);
	assert_int_equal(get32(&d, RAM_BASE + 0x203000), 0x55555555);
	/* Frames that are not there: ignored. */
	put32(&d, A, 0);
	put32(&d, A + 4, UINT32_MAX);
	put32(&d, A + 8, (uint32_t)(RAM_END / 4096));
	put32(&d, A + 12, (uint32_t)(RAM_BASE / 4096 - 1));
	assert_int_equal(exchange(&d, 0, &buf, 1), 0);
	assert_int_equal(rel.bytes, 4 * 4096);
	/* A run that leaves RAM counts as far as it is RAM. */
	for (uint32_t i = 0; i < 4; i++)
		put32(&d, A + 4 * i, (uint32_t)(RAM_END / 4096) - 2 + i);
	assert_int_equal(exchange(&d, 0, &buf, 1), 0);
	assert_int_equal(rel.bytes, 6 * 4096);
	assert_int_equal(exchange(&d, 1, &buf, 1), 0);
	virtio_balloon_stats(dev, &stats);
	assert_int_equal(stats.target, 5 * 4096);
	assert_int_equal(stats.actual, 3 * 4096);
	assert_int_equal(stats.inflated, 6 * 4096);
	assert_false(stats.valid);
	refused(&d, 0, &odd, 1);
	refused(&d, 0, &out, 1);
	refused(&d, 1, &odd, 1);
	driver_done(&d);
}

static void test_balloon_reporting_and_stats(void **state)
{
	struct released rel = {0};
	struct virtio_balloon_options o = {.name = "balloon", .release = release, .arg = &rel};
	struct virtio_balloon_stats stats;
	struct virtio_balloon_stat s[] = {{VIRTIO_BALLOON_S_MEMFREE, 1234}, {VIRTIO_BALLOON_S_MEMTOT, 9999}, {77, 1}};
	struct driver_buf pages[] = {{RAM_BASE + 0x200000, 0x4000, true}, {RAM_BASE + 0x300010, 4096, true}};
	struct driver_buf buf = {A, sizeof(s), false}, wrong = {A, 4096, false};
	struct virtio_device *dev;
	struct driver d;

	driver_init(&d);
	rel.ram = d.ram;
	assert_int_equal(virtio_balloon_new(&d.mem, d.loop, &o, &dev), 0);
	start(&d, dev);
	assert_int_equal(exchange(&d, 3, pages, 2), 0);
	assert_int_equal(rel.bytes, 0x4000); /* not what is unaligned */
	memcpy(driver_at(&d, A), s, sizeof(s));
	driver_chain(&d, 2, &buf, 1);
	driver_kick(&d, 2);
	assert_false(driver_used(&d, 2, NULL, NULL)); /* kept, to ask with */
	virtio_balloon_stats(dev, &stats);
	assert_true(stats.valid);
	assert_int_equal(stats.free, 1234);
	assert_int_equal(stats.total, 9999);
	assert_int_equal(stats.available, UINT64_MAX);
	assert_int_equal(stats.reported, 0x4000);
	assert_true(driver_used(&d, 2, NULL, NULL));
	virtio_balloon_stats(dev, &stats); /* asked already */
	assert_false(driver_used(&d, 2, NULL, NULL));
	refused(&d, 3, &wrong, 1);
	/* Two statistics buffers at once break the rule. */
	driver_chain(&d, 2, &buf, 1);
	driver_chain(&d, 2, &buf, 1);
	driver_kick(&d, 2);
	assert_true(driver_broken(&d));
	driver_done(&d);
}

/* Without statistics, Linux gives the reporting queue the number of the statistics queue. */
static void test_balloon_without_stats(void **state)
{
	struct released rel = {0};
	struct virtio_balloon_options o = {.name = "balloon", .release = release, .arg = &rel};
	struct driver_buf page = {RAM_BASE + 0x200000, 0x1000, true};
	struct virtio_device *dev;
	struct driver d;

	driver_init(&d);
	rel.ram = d.ram;
	assert_int_equal(virtio_balloon_new(&d.mem, d.loop, &o, &dev), 0);
	driver_attach(&d, dev);
	assert_true(driver_start(&d, ~(1ULL << VIRTIO_BALLOON_F_STATS_VQ)));
	assert_int_equal(exchange(&d, 2, &page, 1), 0);
	assert_int_equal(rel.bytes, 0x1000);
	driver_done(&d);
}

/* The default release: pages of an anonymous mapping become zeros, and leave memory. */
static void test_balloon_default_release(void **state)
{
	struct virtio_balloon_options o = {.name = "balloon"};
	struct mem_region region = {.kind = MEM_RAM, .writable = true, .gpa = GIB, .size = MIB};
	struct driver_buf page = {GIB, 0x10000, true};
	struct virtio_device *dev;
	unsigned char in_core[16];
	struct driver d;

	driver_init(&d);
	region.host = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(region.host, 1, MIB);
	assert_int_equal(mem_add(&d.mem, &region), 0);
	assert_int_equal(virtio_balloon_new(&d.mem, d.loop, &o, &dev), 0);
	start(&d, dev);
	assert_int_equal(exchange(&d, 3, &page, 1), 0);
	assert_int_equal(mincore(region.host, 0x10000, in_core), 0);
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(in_core[i] & 1, 0);
	assert_int_equal(region.host[0], 0);
	assert_int_equal(region.host[0x10000], 1);
	munmap(region.host, MIB);
	driver_done(&d);
}

struct tapped {
	char text[64];
	size_t len;
};

static void tap(void *arg, const void *p, size_t len)
{
	struct tapped *t = arg;

	memcpy(t->text + t->len, p, MIN(len, sizeof(t->text) - t->len));
	t->len += len;
}

static void test_console(void **state)
{
	struct tapped t = {0};
	struct virtio_console_options o = {.name = "console", .tap = tap, .arg = &t};
	struct driver_buf out[] = {{A, 6, false}, {A + 100, 6, false}}, in = {B, 100, true};
	struct virtio_device *dev;
	int output[2], input[2];
	char text[16] = {0};
	struct driver d;
	uint32_t len;

	driver_init(&d);
	assert_int_equal(pipe(output), 0);
	assert_int_equal(pipe(input), 0);
	o.output = output[1];
	o.input = input[0];
	assert_int_equal(virtio_console_new(&d.mem, d.loop, &o, &dev), 0);
	start(&d, dev);
	memcpy(driver_at(&d, A), "hello ", 6);
	memcpy(driver_at(&d, A + 100), "world\n", 6);
	assert_int_equal(exchange(&d, 1, out, 2), 0);
	assert_int_equal(read(output[0], text, sizeof(text)), 12);
	assert_string_equal(text, "hello world\n");
	assert_int_equal(t.len, 12);
	/* Input that came before the buffer, and after it. */
	assert_int_equal(write(input[1], "abc", 3), 3);
	driver_spin(&d, 5);
	driver_chain(&d, 0, &in, 1);
	driver_kick(&d, 0);
	assert_true(driver_wait(&d, 0, NULL, &len));
	assert_int_equal(len, 3);
	assert_memory_equal(driver_at(&d, B), "abc", 3);
	driver_chain(&d, 0, &in, 1);
	driver_kick(&d, 0);
	driver_spin(&d, 5);
	assert_false(driver_used(&d, 0, NULL, NULL));
	assert_int_equal(write(input[1], "defg", 4), 4);
	assert_true(driver_wait(&d, 0, NULL, &len));
	assert_int_equal(len, 4);
	refused(&d, 0, out, 1);
	close(input[1]); /* end of input: nothing spins */
	driver_chain(&d, 0, &in, 1);
	driver_kick(&d, 0);
	driver_spin(&d, 5);
	assert_false(driver_used(&d, 0, NULL, NULL));
	refused(&d, 1, &in, 1);
	close(output[0]);
	close(output[1]);
	close(input[0]);
	driver_done(&d);
}

/* A reader that does not read holds up neither the guest nor us; what was kept arrives in order. */
static void test_console_slow_reader(void **state)
{
	struct virtio_console_options o = {.name = "console", .input = -1};
	struct driver_buf out = {A, 4096, false};
	struct virtio_device *dev;
	uint8_t got[4096];
	int output[2];
	size_t total = 0;
	struct driver d;

	driver_init(&d);
	assert_int_equal(pipe(output), 0);
	o.output = output[1]; /* in blocking mode */
	assert_int_equal(virtio_console_new(&d.mem, d.loop, &o, &dev), 0);
	start(&d, dev);
	for (unsigned i = 0; i < 100; i++) {
		memset(driver_at(&d, A), (int)i, 4096);
		assert_int_equal(exchange(&d, 1, &out, 1), 0);
	}
	assert_int_equal(fcntl(output[0], F_SETFL, O_NONBLOCK), 0);
	for (unsigned i = 0; i < 200; i++) {
		ssize_t n = read(output[0], got, sizeof(got));

		if (n > 0) {
			assert_int_equal(got[0], total / 4096);
			total += (size_t)n;
		}
		driver_spin(&d, 1);
	}
	assert_true(total >= 2 * 65536); /* the pipe's and ours */
	close(output[0]);
	signal(SIGPIPE, SIG_IGN);
	assert_int_equal(exchange(&d, 1, &out, 1), 0); /* nobody reads: nobody minds */
	assert_int_equal(exchange(&d, 1, &out, 1), 0);
	close(output[1]);
	driver_done(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pmem),
		cmocka_unit_test(test_rng),
		cmocka_unit_test(test_net),
		cmocka_unit_test(test_fs),
		cmocka_unit_test(test_balloon_inflate),
		cmocka_unit_test(test_balloon_reporting_and_stats),
		cmocka_unit_test(test_balloon_without_stats),
		cmocka_unit_test(test_balloon_default_release),
		cmocka_unit_test(test_console),
		cmocka_unit_test(test_console_slow_reader),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
