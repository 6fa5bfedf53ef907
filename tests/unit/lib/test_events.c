/* SPDX-License-Identifier: Apache-2.0 */
/* Events: each once and in order, read later or followed, of VMs that are there and of those that are gone; torn lines.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "lib/events.h"

struct place {
	char dir[64];
	struct sm_client *client;
	int cancel[2];
	pthread_mutex_t lock;
	char seen[4096]; /* "ACTION:NAME " of each */
	const char *stop_at;
	int result;
};

static int setup(void **state)
{
	struct place *p = calloc(1, sizeof(*p));
	struct sm_client_options o = SM_CLIENT_OPTIONS_INIT;

	strcpy(p->dir, "/tmp/test-events.XXXXXX");
	if (!mkdtemp(p->dir) || pipe(p->cancel) < 0)
		return -1;
	pthread_mutex_init(&p->lock, NULL);
	o.home = p->dir;
	o.libexec_dir = "/tmp";
	o.machine = SM_MACHINE_NEVER;
	*state = p;
	return sm_client_open(&o, &p->client, NULL);
}

static int teardown(void **state)
{
	struct place *p = *state;

	sm_client_close(p->client);
	remove_tree_at(AT_FDCWD, p->dir);
	close(p->cancel[0]);
	close(p->cancel[1]);
	free(p);
	return 0;
}

static struct vm_record record(const char *id, const char *name)
{
	static char *argv[] = {"true", NULL}, *env[] = {NULL}, *labels[] = {"a=b", NULL};
	struct vm_record r = {.image = "i",
			      .image_id = "image-id",
			      .keep = true,
			      .created_ns = 1,
			      .memory = GIB,
			      .cpus = 1,
			      .kernel = "k",
			      .initramfs = "i",
			      .hostname = "h",
			      .argv = argv,
			      .env = env,
			      .labels = labels,
			      .stop_signal = 15};

	snprintf(r.id, sizeof(r.id), "%s", id);
	snprintf(r.name, sizeof(r.name), "%s", name);
	return r;
}

static int on_event(void *arg, const struct sm_event *e)
{
	struct place *p = arg;
	size_t n;

	pthread_mutex_lock(&p->lock);
	n = strlen(p->seen);
	snprintf(p->seen + n, sizeof(p->seen) - n, "%s:%s ", e->action, e->name);
	pthread_mutex_unlock(&p->lock);
	return p->stop_at && streq(e->action, p->stop_at);
}

static bool has_seen(struct place *p, const char *what)
{
	bool seen;

	pthread_mutex_lock(&p->lock);
	seen = strstr(p->seen, what) != NULL;
	pthread_mutex_unlock(&p->lock);
	return seen;
}

static const char *history(struct place *p)
{
	struct sm_events_options o = SM_EVENTS_OPTIONS_INIT;

	o.since_ns = 1;
	o.event = on_event;
	o.arg = p;
	p->seen[0] = '\0';
	assert_int_equal(sm_events(p->client, &o, NULL), 0);
	return p->seen;
}

static void make(struct place *p, const char *id, const char *name)
{
	struct vm_record r = record(id, name);
	_fd_ int start = -1;

	assert_int_equal(vmdir_create(p->client, &r, &start, NULL, NULL), 0);
}

static void note(struct place *p, const char *id, const char *name, const char *action)
{
	struct vm_record r = record(id, name);
	_fd_ int dir = vmdir_open(p->client, id, NULL);

	assert_true(dir >= 0);
	events_vm(dir, &r, action, (const char *const[]){"k=v", NULL});
}

static void history_of_those_there_and_gone(void **state)
{
	struct place *p = *state;

	assert_string_equal(history(p), "");
	make(p, "00000000000a", "a");
	make(p, "00000000000b", "b");
	note(p, "00000000000b", "b", "start");
	note(p, "00000000000a", "a", "start");
	assert_string_equal(history(p), "create:a create:b start:b start:a ");
	assert_int_equal(vmdir_remove(p->client, "00000000000a", NULL), 0);
	events_object(p->client, "image", "tag", "image-id", "x");
	assert_string_equal(history(p), "create:a create:b start:b start:a destroy:a tag:x ");
	p->stop_at = "start";
	assert_string_equal(history(p), "create:a create:b start:b ");
}

static void torn_lines_are_left_out(void **state)
{
	static const char junk[] = "{\"time_ns\":5,\"type\":\"v\n\n[]\n{\"time_ns\":-1}\nnot json at all";
	struct place *p = *state;
	_fd_ int dir = -1;
	int fd;

	make(p, "00000000000a", "a");
	dir = vmdir_open(p->client, "00000000000a", NULL);
	fd = openat(dir, "events", O_WRONLY | O_APPEND);
	assert_true(write(fd, junk, sizeof(junk) - 1) > 0);
	close(fd);
	note(p, "00000000000a", "a", "start"); /* glued to the junk: lost */
	note(p, "00000000000a", "a", "die");
	assert_string_equal(history(p), "create:a die:a ");
	assert_int_equal(vmdir_remove(p->client, "00000000000a", NULL), 0);
	assert_string_equal(history(p), "create:a die:a destroy:a ");
}

static void *follow(void *arg)
{
	struct sm_events_options o = SM_EVENTS_OPTIONS_INIT;
	struct place *p = arg;

	o.follow = true;
	o.cancel_fd = p->cancel[0];
	o.event = on_event;
	o.arg = p;
	p->result = sm_events(p->client, &o, NULL);
	return NULL;
}

static void await(struct place *p, const char *last)
{
	bool there = false;

	for (int i = 0; i < 1000 && !there; i++) {
		poll(NULL, 0, 10);
		there = has_seen(p, last);
	}
	assert_true(there);
}

static void followed_each_once(void **state)
{
	struct place *p = *state;
	pthread_t thread;

	make(p, "00000000000a", "a"); /* before: not told */
	poll(NULL, 0, 1100);
	assert_int_equal(pthread_create(&thread, NULL, follow, p), 0);
	/* Until it watches. */
	for (int i = 0; i < 1000 && !has_seen(p, "tag:x"); i++) {
		events_object(p->client, "image", "tag", "image-id", "x");
		poll(NULL, 0, 10);
	}
	await(p, "tag:x ");
	pthread_mutex_lock(&p->lock);
	p->seen[0] = '\0';
	pthread_mutex_unlock(&p->lock);
	note(p, "00000000000a", "a", "start");
	await(p, "start:a ");
	make(p, "00000000000b", "b");
	await(p, "create:b ");
	note(p, "00000000000b", "b", "start");
	note(p, "00000000000b", "b", "die");
	assert_int_equal(vmdir_remove(p->client, "00000000000b", NULL), 0);
	await(p, "destroy:b ");
	make(p, "00000000000c", "c");
	note(p, "00000000000c", "c", "die");
	assert_int_equal(vmdir_remove(p->client, "00000000000c", NULL), 0); /* maybe before it was looked at */
	await(p, "destroy:c ");
	assert_int_equal(write(p->cancel[1], "", 1), 1);
	pthread_join(thread, NULL);
	assert_int_equal(p->result, 0);
	for (char *t; (t = strstr(p->seen, "tag:x "));)
		memmove(t, t + 6, strlen(t + 6) + 1);
	assert_string_equal(p->seen, "start:a create:b start:b die:b destroy:b create:c die:c destroy:c ");
}

static void ends_with_the_home(void **state)
{
	struct place *p = *state;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, follow, p), 0);
	for (int i = 0; i < 1000 && !has_seen(p, "tag:x"); i++) {
		events_object(p->client, "image", "tag", "image-id", "x");
		poll(NULL, 0, 10);
	}
	remove_tree_at(AT_FDCWD, p->dir);
	pthread_join(thread, NULL);
	assert_int_equal(p->result, -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(history_of_those_there_and_gone, setup, teardown),
		cmocka_unit_test_setup_teardown(torn_lines_are_left_out, setup, teardown),
		cmocka_unit_test_setup_teardown(followed_each_once, setup, teardown),
		cmocka_unit_test_setup_teardown(ends_with_the_home, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
