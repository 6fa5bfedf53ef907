/* SPDX-License-Identifier: Apache-2.0 */
/* The VM's files and the keeper's messages: whatever bytes they hold. What parses must format and parse again. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "keeper/events.h"
#include "keeper/execs.h"
#include "keeper/log.h"
#include "keeper/porttext.h"
#include "keeper/record.h"
#include "keeper/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_config(const char *p, size_t len)
{
	struct vm_record r, again;
	char *json = NULL;

	if (vm_record_parse(p, len, &r, NULL) < 0)
		return;
	if (vm_record_format(&r, &json, NULL) < 0 || vm_record_parse(json, strlen(json), &again, NULL) < 0)
		abort();
	vm_record_done(&again);
	vm_record_done(&r);
	free(json);
}

static void fuzz_exit(const char *p, size_t len)
{
	struct vm_exit x;
	char *json = NULL;

	if (vm_exit_parse(p, len, &x, NULL) < 0)
		return;
	if (vm_exit_format(&x, &json, NULL) < 0 || vm_exit_parse(json, strlen(json), &x, NULL) < 0)
		abort();
	free(json);
}

static void fuzz_exec(const char *p, size_t len)
{
	struct vm_exec_record r, again;
	char *json = NULL;

	if (vm_exec_parse(p, len, &r, NULL) < 0)
		return;
	if (vm_exec_format(&r, &json, NULL) < 0 || vm_exec_parse(json, strlen(json), &again, NULL) < 0)
		abort();
	vm_exec_done(&again);
	vm_exec_done(&r);
	free(json);
}

static void fuzz_event(const char *p, size_t len)
{
	struct vm_event e, again;
	char *line = NULL;
	int r;

	if (vm_event_parse(p, len, &e) < 0)
		return;
	r = vm_event_format(&e, &line);
	if (r == 0 && (vm_event_parse(line, strlen(line), &again) < 0 || strchr(line, '\n') != line + strlen(line) - 1))
		abort();
	if (r == 0)
		vm_event_done(&again);
	else if (r != -E2BIG)
		abort();
	vm_event_done(&e);
	free(line);
}

static void fuzz_port(const char *p, size_t len)
{
	char *text = strndup(p, len), *one, *two, *cut;
	struct port_text x, again;

	if (text && port_text_parse(text, &x) == 0) {
		one = port_text_format(&x);
		cut = strdup(one);
		if (port_text_parse(cut, &again) < 0)
			abort();
		two = port_text_format(&again);
		if (strcmp(one, two) != 0)
			abort();
		free(cut);
		free(one);
		free(two);
	}
	free(text);
}

static void fuzz_messages(const uint8_t *p, size_t len)
{
	struct cursor a = cursor_of(p, len), b = a, c = a, d = a, e = a, f = a, g = a, h = a, i = a, j = a, l = a,
		      m = a;
	struct keeper_exec_signal exec_signal;
	struct keeper_spawned spawned;
	struct keeper_status status;
	struct keeper_balloon balloon;
	struct keeper_attach attach;
	struct vm_log_header header;
	struct keeper_wait wait;
	struct keeper_pause pause;
	struct keeper_snapshot snapshot;
	struct keeper_snapshot_reply reply;
	struct keeper_stop stop;
	struct keeper_news news;

	if (keeper_status_decode(&a, &status) == 0 && status.state > SM_VM_PAUSED)
		abort();
	if (keeper_stop_decode(&b, &stop) == 0 && stop.signal > 64)
		abort();
	if (keeper_news_decode(&c, &news) == 0 && news.record_len > len)
		abort();
	if (vm_log_header_decode(&d, &header) == 0 && header.len > VM_LOG_MAX_RECORD)
		abort();
	if (keeper_snapshot_decode(&i, &snapshot) == 0 &&
	    ((snapshot.dir[0] && snapshot.dir[0] != '/') ||
	     strnlen(snapshot.dir, sizeof(snapshot.dir)) == sizeof(snapshot.dir)))
		abort();
	if (keeper_spawned_decode(&l, &spawned) == 0 && !spawned.exec)
		abort();
	if (keeper_exec_signal_decode(&m, &exec_signal) == 0 && (exec_signal.signal < 1 || exec_signal.signal > 64))
		abort();
	if (keeper_snapshot_reply_decode(&j, &reply) == 0 && reply.layers > 64)
		abort();
	if (keeper_attach_decode(&e, &attach) < 0 || keeper_wait_decode(&f, &wait) < 0 ||
	    keeper_balloon_decode(&g, &balloon) < 0 || keeper_pause_decode(&h, &pause) < 0)
		return;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vm_suspended suspended;
	struct vm_start s;

	if (size < 1)
		return 0;
	switch (data[0] % 7) {
	case 0:
		fuzz_config((const char *)data + 1, size - 1);
		break;
	case 1:
		fuzz_exit((const char *)data + 1, size - 1);
		break;
	case 2:
		if (vm_start_parse((const char *)data + 1, size - 1, &s, NULL) == 0 &&
		    strlen(s.boot_id) >= sizeof(s.boot_id))
			abort();
		if (vm_suspended_parse((const char *)data + 1, size - 1, &suspended, NULL) == 0) {
			if (suspended.layers > VM_MAX_LAYERS)
				abort();
			vm_suspended_done(&suspended);
		}
		break;
	case 3:
		fuzz_exec((const char *)data + 1, size - 1);
		break;
	case 4:
		fuzz_event((const char *)data + 1, size - 1);
		break;
	case 5:
		fuzz_port((const char *)data + 1, size - 1);
		break;
	default:
		fuzz_messages(data + 1, size - 1);
	}
	return 0;
}
