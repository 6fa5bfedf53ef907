/* SPDX-License-Identifier: Apache-2.0 */
/*
 * supermachine-keeper: arguments in, one VM's life; or, with --forward, the ports of the host that lead into one; or,
 * with --watch, the host's directories that one in a machine has; or, with --share, file systems that programs on the
 * host serve to one there; or, with --end, the end of one that hangs.
 * Started by the library; nobody types this.
 */
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "keeper/forward.h"
#include "keeper/hostshare.h"
#include "keeper/hostwatch.h"
#include "keeper/hung.h"
#include "keeper/keeper.h"
#include "keeper/waiting.h"

#define SECOND 1000000000ull
#define RESERVE (64 * MIB)
#define CLIENTS 2048u /* each has at most a few hundred KiB here; well below PROTO_MAX_CHANNELS, which all share */
#define SPARE_RESERVE (512 * MIB) /* a spare is made of what others do not need */

static int usage(void)
{
	fputs("usage: supermachine-keeper --socket PATH --vmm PROGRAM [--owner [--background]] [--prepared NS]\n"
	      "                           [--restore DIR [--files NAMES] [--under NAMES] [--adopt "
	      "[--booted]]|--base|--resume] "
	      "[--window BYTES] [--plugged BYTES] [--disk-ahead] "
	      "[--watched] [--patience NS] [--spare NS]\n"
	      "                           VMDIR\n"
	      "       supermachine-keeper --forward LINK-FD VMDIR WAKER [FD]:PORT...\n"
	      "       supermachine-keeper --watch LINK-FD DIRECTORY...\n"
	      "       supermachine-keeper --watch-group LISTENER-FD SOCKET LOCK\n"
	      "       supermachine-keeper --share LINK-FD NUMBER:SOCKET...\n"
	      "       supermachine-keeper --end SOCKET PATIENCE-NS\n",
	      stderr);
	return 2;
}

static bool parse(int argc, char **argv, struct keeper_args *a)
{
	static const struct option options[] = {{"socket", required_argument, NULL, 's'},
						{"vmm", required_argument, NULL, 'm'},
						{"owner", no_argument, NULL, 'o'},
						{"prepared", required_argument, NULL, 'p'},
						{"restore", required_argument, NULL, 'r'},
						{"files", required_argument, NULL, 'f'},
						{"base", no_argument, NULL, 'b'},
						{"window", required_argument, NULL, 'w'},
						{"plugged", required_argument, NULL, 'P'},
						{"adopt", no_argument, NULL, 'a'},
						{"booted", no_argument, NULL, 'B'},
						{"resume", no_argument, NULL, 'R'},
						{"background", no_argument, NULL, 'g'},
						{"watched", no_argument, NULL, 'W'},
						{"patience", required_argument, NULL, 't'},
						{"spare", required_argument, NULL, 'S'},
						{"under", required_argument, NULL, 'u'},
						{"disk-ahead", no_argument, NULL, 'd'},
						{0}};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 's')
			a->socket = optarg;
		else if (c == 'm')
			a->vmm = optarg;
		else if (c == 'o')
			a->owner = true;
		else if (c == 'r')
			a->restore = optarg;
		else if (c == 'f')
			a->files = optarg;
		else if (c == 'u')
			a->under = optarg;
		else if (c == 'b')
			a->base = true;
		else if (c == 'a')
			a->adopt = true;
		else if (c == 'B')
			a->booted = true;
		else if (c == 'R')
			a->resume = true;
		else if (c == 'g')
			a->background = true;
		else if (c == 'd')
			a->disk_ahead = true;
		else if (c == 'W')
			a->watched = true;
		else if ((c != 'p' && c != 'w' && c != 'P' && c != 't' && c != 'S') ||
			 parse_u64(optarg, 0, INT64_MAX,
				   c == 'p'   ? &a->prepare_ns
				   : c == 'w' ? &a->window
				   : c == 'P' ? &a->plugged
				   : c == 'S' ? &a->spare
					      : &a->patience) < 0)
			return false;
	}
	if (optind + 1 != argc || !a->socket || !a->vmm || (a->restore && a->base) ||
	    (a->resume && (a->restore || a->base)) ||
	    ((a->adopt || a->booted || a->files || a->under || a->disk_ahead) && !a->restore) ||
	    (a->background && !a->owner) || (a->spare && (!a->restore || a->adopt || a->owner)))
		return false;
	a->dir = argv[optind];
	return true;
}

/* argv: LINK-FD VMDIR WAKER [FD]:PORT... (porttext.h) */
static int forward(int argc, char **argv)
{
	struct forward_port ports[FORWARD_MAX];
	struct waiting w;
	uint64_t link, fd;
	int first = 3;

	if (argc <= first || argc - first > FORWARD_MAX || parse_u64(argv[0], 3, INT_MAX, &link) < 0)
		return usage();
	w = (struct waiting){.dir = argv[1], .waker = argv[2]};
	for (int i = first; i < argc; i++) {
		struct forward_port *p = &ports[i - first];
		char *colon = strchr(argv[i], ':');

		if (!colon)
			return usage();
		*colon = '\0';
		p->fd = -1;
		if (port_text_parse(colon + 1, &p->at) < 0 ||
		    (!p->at.reverse && parse_u64(argv[i], 3, INT_MAX, &fd) < 0))
			return usage();
		if (!p->at.reverse)
			p->fd = (int)fd;
	}
	return forward_run((int)link, &w, ports, (unsigned)(argc - first)) < 0;
}

/* argv: LINK-FD DIRECTORY... */
static int watch(int argc, char **argv)
{
	uint64_t link;

	if (argc < 2 || parse_u64(argv[0], 3, INT_MAX, &link) < 0)
		return usage();
	return hostwatch_run((int)link, (const char *const *)argv + 1, (unsigned)argc - 1) < 0;
}

/* argv: LISTENER-FD SOCKET LOCK */
static int watch_group(int argc, char **argv)
{
	uint64_t listener;

	if (argc != 3 || parse_u64(argv[0], 3, INT_MAX, &listener) < 0)
		return usage();
	return hostwatch_serve_group((int)listener, argv[1], argv[2]) < 0;
}

/* argv: LINK-FD NUMBER:SOCKET... */
static int share(int argc, char **argv)
{
	struct hostshare_place places[VM_MAX_MOUNTS];
	uint64_t link, number;

	if (argc < 2 || argc - 1 > VM_MAX_MOUNTS || parse_u64(argv[0], 3, INT_MAX, &link) < 0)
		return usage();
	for (int i = 1; i < argc; i++) {
		char *colon = strchr(argv[i], ':');

		if (!colon)
			return usage();
		*colon = '\0';
		if (parse_u64(argv[i], 0, VM_MAX_MOUNTS - 1, &number) < 0)
			return usage();
		places[i - 1] = (struct hostshare_place){(uint8_t)number, colon + 1};
	}
	return hostshare_run((int)link, places, (unsigned)argc - 1) < 0;
}

/* argv: SOCKET PATIENCE-NS */
static int end(int argc, char **argv)
{
	uint64_t patience;

	if (argc != 2 || parse_u64(argv[1], 0, INT64_MAX, &patience) < 0)
		return usage();
	return hung_end(argv[0], patience) < 0;
}

int main(int argc, char **argv)
{
	/*
	 * A cold boot under two levels of emulation on a busy host is the slowest that must not be given up on. An
	 * owner that was killed before it came is noticed sooner by the library's next call.
	 */
	struct keeper_args args = {.reserve = RESERVE,
				   .clients = CLIENTS,
				   .limits = {.boot = 300 * SECOND,
					      .restore = 60 * SECOND,
					      .owner = 120 * SECOND,
					      .poweroff = 20 * SECOND,
					      .stop = 3 * SECOND,
					      .late = 10 * SECOND}};
	struct sm_error err = {0};

	if (argc > 2 && streq(argv[1], "--forward")) {
		signal(SIGPIPE, SIG_IGN);
		return forward(argc - 2, argv + 2);
	}
	if (argc > 2 && streq(argv[1], "--watch")) {
		signal(SIGPIPE, SIG_IGN);
		return watch(argc - 2, argv + 2);
	}
	if (argc > 2 && streq(argv[1], "--watch-group")) {
		signal(SIGPIPE, SIG_IGN);
		return watch_group(argc - 2, argv + 2);
	}
	if (argc > 2 && streq(argv[1], "--share")) {
		signal(SIGPIPE, SIG_IGN);
		return share(argc - 2, argv + 2);
	}
	if (argc > 2 && streq(argv[1], "--end"))
		return end(argc - 2, argv + 2);
	if (!parse(argc, argv, &args))
		return usage();
	if (args.spare)
		args.reserve = SPARE_RESERVE;
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	if (keeper_run(&args, &err) < 0) {
		log_error("keeper", "%s", err.message);
		return 1;
	}
	return 0;
}
