/* SPDX-License-Identifier: Apache-2.0 */
/*
 * supermachine-bundled: what stands for a dynamic program in a bundle (lib/bundle.h), under that program's name. A
 * program names its loader by an absolute path, which a bundle cannot have: so this one, which is static, finds the
 * bundle by where it lies itself, and has the bundle's own loader run the program with the bundle's own libraries.
 *
 *	BUNDLE/supermachine, BUNDLE/libexec/NAME	this program
 *	BUNDLE/lib/NAME					what it runs
 *	BUNDLE/lib/loader, BUNDLE/lib/...		by this, with these
 */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FAILED 125 /* as the command's own failures */
#define MORE 6

/* The directory that has lib/NAME: this program's own, or the one above. */
static bool find_bundle(char *dir, const char *name)
{
	char path[PATH_MAX + NAME_MAX];

	for (int up = 0; up < 2; up++) {
		snprintf(path, sizeof(path), "%s/lib/%s", dir, name);
		if (access(path, X_OK) == 0)
			return true;
		dirname(dir);
	}
	return false;
}

/* The command's own: images and VMs are the bundle's, and so are the programs, unless the caller has others. */
static void set_places(const char *dir)
{
	char path[PATH_MAX + 16];

	snprintf(path, sizeof(path), "%s/home", dir);
	setenv("SUPERMACHINE_HOME", path, 0);
	snprintf(path, sizeof(path), "%s/libexec", dir);
	setenv("SUPERMACHINE_LIBEXEC", path, 0);
}

static int run(const char *dir, const char *name, int argc, char **argv)
{
	char loader[PATH_MAX + 16], libraries[PATH_MAX + 16], program[PATH_MAX + NAME_MAX];
	char **args = calloc((size_t)argc + MORE + 1, sizeof(*args));

	if (!args)
		return ENOMEM;
	snprintf(libraries, sizeof(libraries), "%s/lib", dir);
	snprintf(loader, sizeof(loader), "%s/lib/loader", dir);
	snprintf(program, sizeof(program), "%s/lib/%s", dir, name);
	args[0] = loader;
	args[1] = (char[]){"--library-path"};
	args[2] = libraries;
	args[3] = (char[]){"--argv0"};
	args[4] = argc > 0 ? argv[0] : program;
	args[5] = program;
	for (int i = 1; i < argc; i++)
		args[MORE + i - 1] = argv[i];
	execv(loader, args);
	return errno;
}

int main(int argc, char **argv)
{
	char exe[PATH_MAX] = "", dir[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	const char *name = strrchr(exe, '/');
	int e;

	if (n < 0 || !name) {
		fprintf(stderr, "supermachine: a bundle needs /proc: %s\n", strerror(n < 0 ? errno : ENOENT));
		return FAILED;
	}
	name++;
	strcpy(dir, exe);
	dirname(dir);
	if (!find_bundle(dir, name)) {
		fprintf(stderr, "supermachine: %s is not in a bundle: there is no lib/%s beside it or above\n", exe,
			name);
		return FAILED;
	}
	if (strcmp(name, "supermachine") == 0)
		set_places(dir);
	e = run(dir, name, argc, argv);
	fprintf(stderr, "supermachine: %s/lib/loader: %s\n", dir, strerror(e));
	return FAILED;
}
