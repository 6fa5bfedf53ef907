/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-fs with a server: threads, a blocked request, resets in the middle, and drivers that break the rules. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "driver.h"
#include "fuse/memory.h"
#include "fuse/session.h"
#include "virtio/fs.h"

#define IN (RAM_BASE + MIB)
#define OUT (RAM_BASE + 2 * MIB)
#define HIPRIO 0
#define REQUEST 1
#define BLOCKING 0x12345678u /* as a request's node: waits for the gate */

struct server {
	struct sm_fs_backend *be;
	struct fuse_session *session;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool open;		   /* the gate */
	unsigned blocked, threads; /* in it now; started */
	unsigned destroyed;
	unsigned together, apart; /* calls of on_pair */
	unsigned held;		  /* requests served by a thread that is held on one CPU */
	pid_t paired;		  /* the thread that asked last */
};

struct fixture {
	struct driver d;
	struct server s;
	struct virtio_device *dev;
	uint64_t unique;
};

static ssize_t serve(void *arg, const struct iovec *in, int num_in, const struct iovec *out, int num_out)
{
	struct server *s = arg;
	struct fuse_in_header h = {0};
	cpu_set_t cpus;

	if (num_in && in[0].iov_len >= sizeof(h))
		memcpy(&h, in[0].iov_base, sizeof(h));
	pthread_mutex_lock(&s->lock);
	s->destroyed += h.opcode == FUSE_DESTROY;
	s->held += sched_getaffinity(0, sizeof(cpus), &cpus) == 0 && CPU_COUNT(&cpus) == 1;
	if (h.nodeid == BLOCKING) {
		s->blocked++;
		pthread_cond_broadcast(&s->changed);
		while (!s->open)
			pthread_cond_wait(&s->changed, &s->lock);
		s->blocked--;
	}
	pthread_mutex_unlock(&s->lock);
	return fuse_session_serve(s->session, in, num_in, out, num_out);
}

static void on_thread(void *arg)
{
	__atomic_fetch_add(&((struct server *)arg)->threads, 1, __ATOMIC_RELAXED);
}

static bool on_pair(void *arg, bool together)
{
	struct server *s = arg;
	cpu_set_t here;

	CPU_ZERO(&here);
	CPU_SET((unsigned)sched_getcpu(), &here);
	if (together && sched_setaffinity(0, sizeof(here), &here) < 0)
		return false;
	__atomic_store_n(&s->paired, gettid(), __ATOMIC_RELAXED);
	__atomic_fetch_add(together ? &s->together : &s->apart, 1, __ATOMIC_RELAXED);
	return true;
}

static void start(struct fixture *f)
{
	f->d.brk = RAM_BASE;
	assert_true(driver_start(&f->d, UINT64_MAX));
}

static int setup(void **state)
{
	static struct fixture fixture;
	struct virtio_fs_options o = {.name = "fs", .tag = "tag", .serve = serve, .thread = on_thread, .pair = on_pair};
	struct fixture *f = &fixture;

	memset(f, 0, sizeof(*f));
	*state = f;
	pthread_mutex_init(&f->s.lock, NULL);
	pthread_cond_init(&f->s.changed, NULL);
	o.arg = &f->s;
	driver_init(&f->d);
	if (fuse_memory_new(NULL, &f->s.be) < 0 || fuse_session_new(f->s.be, NULL, &f->s.session) < 0 ||
	    virtio_fs_new(&f->d.mem, f->d.loop, &o, &f->dev) < 0)
		return -1;
	driver_attach(&f->d, f->dev);
	start(f);
	return 0;
}

static void open_gate(struct fixture *f, bool open)
{
	pthread_mutex_lock(&f->s.lock);
	f->s.open = open;
	pthread_cond_broadcast(&f->s.changed);
	pthread_mutex_unlock(&f->s.lock);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	open_gate(f, true);
	driver_done(&f->d);
	fuse_session_free(f->s.session);
	fuse_memory_free(f->s.be);
	return 0;
}

/* Posts a request at `slot` (its buffers' place); the reply goes beside it. */
static void post(struct fixture *f, unsigned slot, uint32_t opcode, uint64_t node, const void *arg, size_t size,
		 const char *name)
{
	size_t name_len = name ? strlen(name) + 1 : 0;
	struct fuse_in_header h = {.len = (uint32_t)(sizeof(h) + size + name_len),
				   .opcode = opcode,
				   .nodeid = node,
				   .unique = ++f->unique};
	uint64_t in = IN + slot * 8192, out = OUT + slot * 8192;
	struct driver_buf bufs[3] = {
		{in, sizeof(h), false}, {in + sizeof(h), (uint32_t)(size + name_len), false}, {out, 8192, true}};

	memcpy(driver_at(&f->d, in), &h, sizeof(h));
	if (size)
		memcpy(driver_at(&f->d, in + sizeof(h)), arg, size);
	if (name)
		memcpy(driver_at(&f->d, in + sizeof(h) + size), name, name_len);
	if (size + name_len) {
		driver_chain(&f->d, REQUEST, bufs, 3);
	} else {
		bufs[1] = bufs[2];
		driver_chain(&f->d, REQUEST, bufs, 2);
	}
	driver_kick(&f->d, REQUEST);
}

static struct fuse_out_header *reply(struct fixture *f, unsigned slot)
{
	return driver_at(&f->d, OUT + slot * 8192);
}

static int call(struct fixture *f, uint32_t opcode, uint64_t node, const void *arg, size_t size, const char *name)
{
	uint32_t len;

	post(f, 0, opcode, node, arg, size, name);
	assert_true(driver_wait(&f->d, REQUEST, NULL, &len));
	assert_int_equal(len, reply(f, 0)->len);
	assert_true(reply(f, 0)->unique == f->unique);
	return reply(f, 0)->error;
}

static void init(struct fixture *f)
{
	struct fuse_init_in in = {.major = 7, .minor = 38, .flags = FUSE_INIT_EXT};

	assert_int_equal(call(f, FUSE_INIT, 0, &in, sizeof(in), NULL), 0);
}

static void test_files(void **state)
{
	struct fixture *f = *state;
	struct fuse_create_in cr = {.flags = O_RDWR, .mode = 0644};
	struct fuse_write_in wr = {.size = 6};
	struct fuse_read_in rd = {.size = 4096};
	struct virtio_fs_stats stats;
	uint64_t node;
	uint8_t args[64];

	init(f);
	assert_int_equal(call(f, FUSE_CREATE, 1, &cr, sizeof(cr), "name"), 0);
	node = ((struct fuse_entry_out *)(reply(f, 0) + 1))->nodeid;
	wr.fh = rd.fh = ((struct fuse_open_out *)((struct fuse_entry_out *)(reply(f, 0) + 1) + 1))->fh;
	memcpy(args, &wr, sizeof(wr));
	memcpy(args + sizeof(wr), "hello", 6);
	assert_int_equal(call(f, FUSE_WRITE, node, args, sizeof(wr) + 6, NULL), 0);
	assert_int_equal(call(f, FUSE_READ, node, &rd, sizeof(rd), NULL), 0);
	assert_string_equal((char *)(reply(f, 0) + 1), "hello");
	assert_int_equal(call(f, FUSE_UNLINK, 1, NULL, 0, "none"), -ENOENT);
	assert_true(virtio_fs_get_stats(f->dev, &stats));
	assert_int_equal(stats.requests, 5);
	assert_int_equal(stats.ops[FUSE_CREATE], 1);
	while (__atomic_load_n(&f->s.threads, __ATOMIC_RELAXED) < 4)
		usleep(100);
	/* The driver had every interrupt that it asked for, by way of the loop. */
	driver_spin(&f->d, 5);
	assert_true(f->d.signals[REQUEST + 1] >= 1);
}

/* A request without an answer, on the queue of its own: comes back in time, though nobody waits for it. */
static void test_forget(void **state)
{
	struct fixture *f = *state;
	struct fuse_in_header h = {
		.len = sizeof(h) + sizeof(struct fuse_forget_in), .opcode = FUSE_FORGET, .nodeid = 2};
	struct fuse_forget_in in = {.nlookup = 1};
	struct driver_buf buf = {IN, h.len, false};

	init(f);
	memcpy(driver_at(&f->d, IN), &h, sizeof(h));
	memcpy(driver_at(&f->d, IN + sizeof(h)), &in, sizeof(in));
	for (unsigned i = 0; i < 100; i++) {
		driver_chain(&f->d, HIPRIO, &buf, 1);
		if (i % 10 == 0)
			driver_kick(&f->d, HIPRIO);
	}
	for (unsigned i = 0; i < 100; i++)
		assert_true(driver_wait(&f->d, HIPRIO, NULL, NULL));
	/* After a pause the doorbell counts again. */
	driver_spin(&f->d, 30);
	driver_chain(&f->d, HIPRIO, &buf, 1);
	driver_kick(&f->d, HIPRIO);
	assert_true(driver_wait(&f->d, HIPRIO, NULL, NULL));
}

static void await_blocked(struct fixture *f, unsigned n)
{
	pthread_mutex_lock(&f->s.lock);
	while (f->s.blocked < n)
		pthread_cond_wait(&f->s.changed, &f->s.lock);
	pthread_mutex_unlock(&f->s.lock);
}

static void test_a_blocked_request_holds_up_no_other(void **state)
{
	struct fixture *f = *state;
	struct fuse_getattr_in in = {0};
	uint16_t head;

	init(f);
	for (unsigned i = 1; i <= 3; i++)
		post(f, i, FUSE_GETATTR, BLOCKING, &in, sizeof(in), NULL);
	await_blocked(f, 3);
	for (unsigned i = 0; i < 50; i++)
		assert_int_equal(call(f, FUSE_GETATTR, 1, &in, sizeof(in), NULL), 0);
	open_gate(f, true);
	for (unsigned i = 0; i < 3; i++)
		assert_true(driver_wait(&f->d, REQUEST, &head, NULL));
	for (unsigned i = 1; i <= 3; i++)
		assert_true(reply(f, i)->error < 0); /* no such node */
}

static void *opener(void *arg)
{
	usleep(50000);
	open_gate(arg, true);
	return NULL;
}

/* The thread that serves a guest who waits is held where the guest is, and no longer than that goes on. */
static void test_who_serves_is_paired_as_long_as_it_serves(void **state)
{
	struct fixture *f = *state;
	struct fuse_getattr_in in = {0};
	struct server *s = &f->s;
	cpu_set_t all, now;
	unsigned held = 0;

	assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
	init(f);
	/* One kick each: what comes at once is found by looking, by a thread that no kick has paired. */
	for (unsigned i = 0; i < 5000 && !held; i++) {
		assert_int_equal(call(f, FUSE_GETATTR, 1, &in, sizeof(in), NULL), 0);
		pthread_mutex_lock(&s->lock);
		held = s->held;
		pthread_mutex_unlock(&s->lock);
		usleep(1000);
	}
	assert_true(held > 0);
	assert_true(__atomic_load_n(&s->together, __ATOMIC_RELAXED) > 0);
	for (unsigned i = 0; i < 5000 && !__atomic_load_n(&s->apart, __ATOMIC_RELAXED); i++)
		usleep(1000);
	assert_true(__atomic_load_n(&s->apart, __ATOMIC_RELAXED) > 0);
	for (unsigned i = 0; i < 5000; i++) {
		assert_int_equal(sched_getaffinity(__atomic_load_n(&s->paired, __ATOMIC_RELAXED), sizeof(now), &now),
				 0);
		if (CPU_EQUAL(&all, &now))
			break;
		usleep(1000);
	}
	assert_true(CPU_EQUAL(&all, &now));
}

/* The reset waits for what is being served, tells nobody of it, and the next driver finds a fresh session. */
static void test_reset_with_a_request_in_flight(void **state)
{
	struct fixture *f = *state;
	struct fuse_getattr_in in = {0};
	pthread_t thread;
	uint64_t since;

	init(f);
	post(f, 1, FUSE_GETATTR, BLOCKING, &in, sizeof(in), NULL);
	await_blocked(f, 1);
	assert_int_equal(pthread_create(&thread, NULL, opener, f), 0);
	since = time_now_ns();
	driver_set_status(&f->d, 0);
	assert_true(time_now_ns() - since > 20000000);
	pthread_join(thread, NULL);
	assert_false(driver_used(&f->d, REQUEST, NULL, NULL));
	open_gate(f, false);
	start(f);
	init(f); /* a second INIT without the end of the first session would be refused */
	assert_int_equal(f->s.destroyed, 1);
	assert_int_equal(call(f, FUSE_GETATTR, 1, &in, sizeof(in), NULL), 0);
}

static void test_what_breaks_the_rules_breaks_the_device_alone(void **state)
{
	struct fixture *f = *state;
	struct driver_buf bad[][2] = {
		{{IN, 8, false}, {OUT, 64, true}},			      /* no whole header */
		{{IN, sizeof(struct fuse_in_header), false}, {OUT, 8, true}}, /* no room for an answer */
		{{RAM_END - 8, 64, false}, {OUT, 64, true}},		      /* outside memory */
		{{OUT, 64, true}, {IN, 64, false}},			      /* the wrong way round */
		{{IN, 0, false}, {OUT, 64, true}},			      /* nothing at all */
	};
	struct fuse_getattr_in in = {0};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct fuse_in_header h = {.len = sizeof(h), .opcode = FUSE_GETATTR, .nodeid = 1};

		init(f);
		memcpy(driver_at(&f->d, IN), &h, sizeof(h));
		driver_chain(&f->d, REQUEST, bad[i], 2);
		driver_kick(&f->d, REQUEST);
		for (unsigned n = 0; n < 1000 && !driver_broken(&f->d); n++)
			driver_spin(&f->d, 5);
		assert_true(driver_broken(&f->d));
		driver_kick(&f->d, REQUEST); /* harmless */
		driver_spin(&f->d, 2);
		start(f);
	}
	init(f);
	assert_int_equal(call(f, FUSE_GETATTR, 1, &in, sizeof(in), NULL), 0);
}

/* Lengths in the request that are not the chain's: an error for the peer, nothing else. */
static void test_requests_that_lie_are_refused(void **state)
{
	struct fixture *f = *state;
	struct fuse_write_in wr = {.size = 1 << 20, .fh = 77};
	struct fuse_read_in rd = {.size = UINT32_MAX, .fh = 77};

	init(f);
	assert_true(call(f, FUSE_WRITE, 1, &wr, sizeof(wr), NULL) < 0);
	assert_true(call(f, FUSE_READ, 1, &rd, sizeof(rd), NULL) < 0);
	assert_true(call(f, 4711, 1, &rd, sizeof(rd), NULL) < 0);
	assert_true(call(f, FUSE_LOOKUP, 1, NULL, 0, "../etc") < 0);
	assert_false(driver_broken(&f->d));
}

/* Buffers in a window whose file has lost its second page: the request is copied by system calls, a lost page is no
 * SIGBUS of ours. */
static void test_windows(void **state)
{
	struct fixture *f = *state;
	int fd = memfd_create("window", MFD_CLOEXEC);
	struct mem_region region = {.kind = MEM_DAX_WINDOW, .writable = true, .gpa = 1ULL << 32, .size = 8192};
	struct fuse_in_header h = {
		.len = sizeof(h) + sizeof(struct fuse_getattr_in), .opcode = FUSE_GETATTR, .nodeid = 1};
	struct driver_buf good[2] = {{region.gpa, h.len, false}, {region.gpa + 2048, 512, true}};
	struct driver_buf no_header[2] = {{region.gpa + 4096, h.len, false}, {region.gpa + 2048, 512, true}};
	struct driver_buf no_arguments[3] = {
		{region.gpa, sizeof(h), false}, {region.gpa + 4096, sizeof(struct fuse_getattr_in), false}, good[1]};
	struct driver_buf no_room[3] = {
		good[0], {region.gpa + 2048, sizeof(struct fuse_out_header), true}, {region.gpa + 4096, 512, true}};
	struct fuse_out_header out;
	uint32_t len;

	assert_true(fd >= 0 && ftruncate(fd, 8192) == 0);
	region.host = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(region.host != MAP_FAILED);
	assert_int_equal(mem_add(&f->d.mem, &region), 0);
	memset(region.host, 0, 8192);
	memcpy(region.host, &h, sizeof(h));
	init(f);
	driver_chain(&f->d, REQUEST, good, 2);
	driver_kick(&f->d, REQUEST);
	assert_true(driver_wait(&f->d, REQUEST, NULL, NULL));
	memcpy(&out, region.host + 2048, sizeof(out));
	assert_int_equal(out.error, 0);
	assert_int_equal(out.len, sizeof(out) + sizeof(struct fuse_attr_out));
	assert_int_equal(ftruncate(fd, 4096), 0);
	/* Each costs the request that it belongs to, and no more. */
	for (unsigned i = 0; i < 2; i++) {
		driver_chain(&f->d, REQUEST, i ? no_room : no_arguments, 3);
		driver_kick(&f->d, REQUEST);
		assert_true(driver_wait(&f->d, REQUEST, NULL, &len));
		assert_int_equal(len, sizeof(out));
		memcpy(&out, region.host + 2048, sizeof(out));
		assert_int_equal(out.error, -EFAULT);
		assert_int_equal(out.len, sizeof(out));
	}
	driver_chain(&f->d, REQUEST, no_header, 2);
	driver_kick(&f->d, REQUEST);
	assert_true(driver_wait(&f->d, REQUEST, NULL, &len));
	assert_int_equal(len, 0);
	assert_false(driver_broken(&f->d));
	driver_set_status(&f->d, 0);
	munmap(region.host, 8192);
	close(fd);
}

/* A snapshot's save waits too, but loses nothing. */
static void test_save_keeps_what_is_in_flight(void **state)
{
	struct fixture *f = *state;
	struct fuse_getattr_in in = {0};
	struct buf saved = {0};
	pthread_t thread;

	init(f);
	post(f, 1, FUSE_GETATTR, BLOCKING, &in, sizeof(in), NULL);
	await_blocked(f, 1);
	assert_int_equal(pthread_create(&thread, NULL, opener, f), 0);
	assert_int_equal(virtio_pci_save(f->d.pci, &saved), 0);
	buf_done(&saved);
	pthread_join(thread, NULL);
	assert_true(driver_wait(&f->d, REQUEST, NULL, NULL));
	assert_int_equal(call(f, FUSE_GETATTR, 1, &in, sizeof(in), NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_files, setup, teardown),
		cmocka_unit_test_setup_teardown(test_forget, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_blocked_request_holds_up_no_other, setup, teardown),
		cmocka_unit_test_setup_teardown(test_who_serves_is_paired_as_long_as_it_serves, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reset_with_a_request_in_flight, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_breaks_the_rules_breaks_the_device_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(test_requests_that_lie_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_windows, setup, teardown),
		cmocka_unit_test_setup_teardown(test_save_keeps_what_is_in_flight, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
