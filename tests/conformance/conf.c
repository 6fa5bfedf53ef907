/* SPDX-License-Identifier: Apache-2.0 */
/* The frame of the conformance program: counting, naming, children. See conf.h and main.c. */
#include "conf.h"

#include <grp.h>
#include <sys/wait.h>
#include <time.h>

#include "state.h"

/* The one state of the program: it is a program of one purpose, and its children share the counters by this mapping. */
static struct state *state;
static const char *group_name = "";

void state_set(struct state *s)
{
	state = s;
}

void state_enter(const char *group)
{
	group_name = group;
}

/* One write a line: groups' children write to the same pipe. */
static void say(const char *verdict, const char *name, const char *detail)
{
	char line[1024];
	int n = snprintf(line, sizeof(line), "%s %s.%s%s%s\n", verdict, group_name, name, detail[0] ? ": " : "",
			 detail);

	if (n >= (int)sizeof(line))
		n = sizeof(line) - 1, line[n - 1] = '\n';
	if (write(STDOUT_FILENO, line, (size_t)n) != n)
		_exit(3);
}

static bool count(bool passed, const char *detail, const char *fmt, va_list ap)
{
	char name[256];

	vsnprintf(name, sizeof(name), fmt, ap);
	for (char *p = name; *p; p++)
		if (*p == ' ' || *p == '\n' || *p == ':')
			*p = '-';
	if (state->only[0] && !strstr(name, state->only) && !strstr(group_name, state->only))
		return passed;
	__atomic_add_fetch(passed ? &state->passed : &state->failed, 1, __ATOMIC_RELAXED);
	if (!passed)
		say("not ok", name, detail);
	else if (state->verbose)
		say("ok", name, "");
	return passed;
}

#define COUNTED(cond)                                                                                                  \
	({                                                                                                             \
		va_list ap;                                                                                            \
		bool r;                                                                                                \
                                                                                                                       \
		va_start(ap, name);                                                                                    \
		r = count(cond, detail, name, ap);                                                                     \
		va_end(ap);                                                                                            \
		r;                                                                                                     \
	})

bool is_true(bool cond, const char *name, ...)
{
	const char *detail = "";

	return COUNTED(cond);
}

bool is_eq(long long got, long long want, const char *name, ...)
{
	char detail[96];

	snprintf(detail, sizeof(detail), "got %lld (0%llo), want %lld (0%llo)", got, got, want, want);
	return COUNTED(got == want);
}

static const char *outcome(long long ret, char *buf, size_t size)
{
	if (ret >= 0)
		snprintf(buf, size, "success (%lld)", ret);
	else
		snprintf(buf, size, "%s", strerrorname_np(errno) ? strerrorname_np(errno) : "?");
	return buf;
}

bool works(long long ret, const char *name, ...)
{
	char detail[64] = "";

	outcome(ret, detail, sizeof(detail));
	return COUNTED(ret >= 0);
}

bool fails(long long ret, int err, const char *name, ...)
{
	bool right = ret == -1 && errno == err;
	char detail[160], got[64];

	snprintf(detail, sizeof(detail), "got %s, want %s", outcome(ret, got, sizeof(got)), strerrorname_np(err));
	return COUNTED(right);
}

bool fails_either(long long ret, int err1, int err2, const char *name, ...)
{
	bool right = ret == -1 && (errno == err1 || errno == err2);
	char detail[160], got[64];

	snprintf(detail, sizeof(detail), "got %s, want %s or %s", outcome(ret, got, sizeof(got)), strerrorname_np(err1),
		 strerrorname_np(err2));
	return COUNTED(right);
}

bool same_bytes(const void *got, const void *want, size_t len, const char *name, ...)
{
	const unsigned char *a = got, *b = want;
	char detail[96] = "";
	size_t i = 0;

	while (i < len && a[i] == b[i])
		i++;
	if (i < len)
		snprintf(detail, sizeof(detail), "byte %zu of %zu is %02x, not %02x", i, len, a[i], b[i]);
	return COUNTED(i == len);
}

void skipped(const char *reason, const char *fmt, ...)
{
	char name[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(name, sizeof(name), fmt, ap);
	va_end(ap);
	for (char *p = name; *p; p++)
		if (*p == ' ')
			*p = '-';
	if (state->only[0] && !strstr(name, state->only) && !strstr(group_name, state->only))
		return;
	__atomic_add_fetch(&state->skipped, 1, __ATOMIC_RELAXED);
	if (state->verbose)
		say("skip", name, reason);
}

void need(bool cond, const char *what, ...)
{
	char text[256], detail[128];
	int saved = errno;
	va_list ap;

	if (cond)
		return;
	va_start(ap, what);
	vsnprintf(text, sizeof(text), what, ap);
	va_end(ap);
	snprintf(detail, sizeof(detail), "preparation does not work (%s)", strerrorname_np(saved));
	__atomic_add_fetch(&state->failed, 1, __ATOMIC_RELAXED);
	say("not ok", text, detail);
	_exit(2);
}

/* -------------------------------------------------------------------------------------------- children */

bool am_root(void)
{
	return geteuid() == 0;
}

int in_child(void (*fn)(void *), void *arg)
{
	int status = 0;
	pid_t pid = fork();

	need(pid >= 0, "fork");
	if (pid == 0) {
		fn(arg);
		_exit(0);
	}
	need(waitpid(pid, &status, 0) == pid, "waitpid");
	return status;
}

struct as {
	uid_t uid;
	gid_t gid, group;
	void (*fn)(void *);
	void *arg;
};

static void become_and_run(void *p)
{
	struct as *as = p;

	need(setgroups(as->group ? 1 : 0, &as->group) == 0 && setresgid(as->gid, as->gid, as->gid) == 0 &&
		     setresuid(as->uid, as->uid, as->uid) == 0,
	     "become user %u", as->uid);
	as->fn(as->arg);
}

void as_user(uid_t uid, gid_t gid, gid_t group, void (*fn)(void *), void *arg)
{
	struct as as = {uid, gid, group, fn, arg};
	int status = in_child(become_and_run, &as);

	need(status == 0, "the part as user %u ended with status %x", uid, status);
}

/* ------------------------------------------------------------------------------------------- shorthands */

void put_file(const char *path, const char *text, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, mode);

	need(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && fchmod(fd, mode) == 0 &&
		     close(fd) == 0,
	     "make %s", path);
}

unsigned char pattern(uint64_t offset)
{
	uint64_t x = (offset + 1) * 0x9e3779b97f4a7c15ull;

	return (unsigned char)(1 + (x >> 56) % 255); /* never 0, which a hole is */
}

bool has_pattern(const unsigned char *p, uint64_t offset, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (p[i] != pattern(offset + i))
			return false;
	return true;
}

void put_bytes(const char *path, size_t len)
{
	unsigned char *p = malloc(len + 1);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	need(p != NULL, "memory");
	for (size_t i = 0; i < len; i++)
		p[i] = pattern(i);
	need(fd >= 0 && write(fd, p, len) == (ssize_t)len && close(fd) == 0, "make %s", path);
	free(p);
}

struct stat stat_of(const char *path)
{
	struct stat st = {0};

	need(lstat(path, &st) == 0, "lstat %s", path);
	return st;
}

bool exists(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

size_t read_text(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, size - 1);

	if (fd >= 0)
		close(fd);
	if (n < 0)
		return SIZE_MAX;
	buf[n] = 0;
	return (size_t)n;
}

bool text_is(const char *path, const char *text)
{
	char buf[4096];

	return read_text(path, buf, sizeof(buf)) == strlen(text) && strcmp(buf, text) == 0;
}

void nap(unsigned ms)
{
	struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

	while (nanosleep(&t, &t) < 0 && errno == EINTR)
		;
}

int64_t ns_of(struct timespec t)
{
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void *bad_address(void)
{
	return (void *)1;
}

int minus_one(void)
{
	return -1;
}
