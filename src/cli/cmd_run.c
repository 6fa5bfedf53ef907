/* SPDX-License-Identifier: Apache-2.0 */
/* run: an image's command in a new VM. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "cli/mounts.h"
#include "cli/ports.h"
#include "cli/restore.h"
#include "cli/secrets.h"
#include "cli/session.h"

struct run_values {
	bool interactive, tty, detach, keep, rm, tmpfs_root, cold, read_only, trace, ksm;
	const char *name, *hostname, *workdir, *user, *entrypoint, *kernel, *outcome, *stop_signal, *cidfile, *pull,
		*network, *restart, *snapshot, *share_group, *on_idle, *audit, *profile;
	struct opt_list env, env_file, labels, volumes, mounts, ports, reverse, hosts, tmpfs, secrets, secret_env,
		ulimits;
	uint64_t memory, cpus, disk, dax, timeout, ttl, idle, start_timeout;
};

#define SHARES_NOTHING "a VM shares no namespaces with the host or another VM"
#define ALL_CAPABILITIES "the VM is the boundary, and root in it has all capabilities"
#define NO_DEVICES "a VM has no devices of the host"
#define NO_NETWORK "a VM has no network card; -p and --reverse carry ports"
#define OWN_MEMORY "a VM's memory is its own: -m says how much"
#define OWN_CPUS "a VM's CPUs are its own: -c says how many"
#define EVERY_VM "there is one way to run, as a VM"
#define NO_HEALTH "nobody asks a VM how it is; supermachine exec can"

#define V(m) offsetof(struct run_values, m)
static const struct opt options[] = {
	{'i', "interactive", OPT_FLAG, V(interactive), NULL, "pass standard input on"},
	{'t', "tty", OPT_FLAG, V(tty), NULL, "give the command a terminal"},
	{'d', "detach", OPT_FLAG, V(detach), NULL, "leave it running; print the VM's id; implies --keep"},
	{0, "name", OPT_TEXT, V(name), "NAME", "name of the VM; implies --keep"},
	{0, "keep", OPT_FLAG, V(keep), NULL, "keep the VM and its disk when the command ends"},
	{0, "rm", OPT_FLAG, V(rm), NULL, "remove the VM when it ends, also with --name or -d"},
	{'e', "env", OPT_LIST, V(env), "NAME[=VALUE]", "set an environment variable, or pass on the caller's"},
	{0, "env-file", OPT_LIST, V(env_file), "FILE", "the same from the lines of a file"},
	{'v', "volume", OPT_LIST, V(volumes), "SRC:DST[:OPTIONS]",
	 "show a directory or file of the host in the VM, or a volume if SRC is its name; OPTIONS: ro, cow, dax, "
	 "cache=none|auto|always, ids=caller|same; of a volume: ro, nocopy; fs:SOCKET:DST: what a program of yours "
	 "serves there"},
	{0, "mount", OPT_LIST, V(mounts), "type=TYPE,...",
	 "the same in words: type=bind|volume|tmpfs|fs, source=, target=, readonly, volume-nocopy, tmpfs-size=, "
	 "tmpfs-mode="},
	{0, "share-group", OPT_TEXT, V(share_group), "NAME",
	 "have directories of -v served by one process for all VMs of this group: what one changes the others see"},
	{0, "audit", OPT_TEXT, V(audit), "FILE", CLI_AUDIT_HELP("-v")},
	{0, "dax", OPT_SIZE, V(dax), "SIZE",
	 "window for the large files of mounts with dax (default 512M); takes 1/64 of it from the memory", 2 * MIB},
	{'p', "publish", OPT_LIST, V(ports), "[ADDR:]HOST:GUEST",
	 "a TCP port of this host that leads to one in the VM; HOST 0: a free one, which supermachine port shows; "
	 "8000-8010:8000-8010: each of these"},
	{0, "reverse", OPT_LIST, V(reverse), "GUEST:[ADDR:]HOST",
	 "a port or socket of the VM leads to one of this host (may be repeated)"},
	{'w', "workdir", OPT_TEXT, V(workdir), "DIR", "working directory; made if missing, but for --snapshot"},
	{'u', "user", OPT_TEXT, V(user), "USER[:GROUP]", "user, by name or number"},
	{0, "entrypoint", OPT_TEXT, V(entrypoint), "COMMAND", "instead of the image's; \"\" for none"},
	{'m', "memory", OPT_SIZE, V(memory), "SIZE", "memory (default 1G, least 128M); what is not used costs nothing",
	 128 * MIB},
	{'c', "cpus", OPT_DECIMAL, V(cpus), "N",
	 "virtual CPUs (default 1); 0.5 or 1.5: the next whole number of them, and no more time than that", 10, 16000},
	{0, "profile", OPT_TEXT, V(profile), "latency|throughput",
	 "what it is for: latency (the default) is -c 1, throughput -c 4; -c itself wins",
	 .choices = "latency|throughput"},
	{0, "disk", OPT_SIZE, V(disk), "SIZE", "most that the writable layer may take (default 10G, sparse)", 16 * MIB},
	{0, "tmpfs-root", OPT_FLAG, V(tmpfs_root), NULL, "writable layer in memory: no disk, nothing is kept"},
	{0, "timeout", OPT_DURATION, V(timeout), "TIME", "end the command after so long: status 124"},
	{0, "ttl", OPT_DURATION, V(ttl), "TIME", CLI_TTL_HELP, 1},
	{0, "start-timeout", OPT_DURATION, V(start_timeout), "TIME", CLI_START_TIMEOUT_HELP, 1},
	CLI_IDLE_OPTS(V(idle), V(on_idle)),
	{0, "stop-signal", OPT_TEXT, V(stop_signal), "SIGNAL", "what supermachine stop sends (default: the image's)"},
	{'h', "hostname", OPT_TEXT, V(hostname), "NAME", "host name in the VM (default: its id)"},
	{'l', "label", OPT_LIST, V(labels), "NAME=VALUE", "note on the VM"},
	{0, "add-host", OPT_LIST, V(hosts), "NAME:ADDRESS", "one more line of /etc/hosts"},
	{0, "read-only", OPT_FLAG, V(read_only), NULL, "the root cannot be written; -v and --tmpfs can"},
	{0, "tmpfs", OPT_LIST, V(tmpfs), "PATH[:OPTIONS]",
	 "a file system in memory; OPTIONS: size=SIZE, mode=OCTAL, exec"},
	CLI_SECRET_OPTS(V(secrets), V(secret_env)),
	{0, "ulimit", OPT_LIST, V(ulimits), "NAME=SOFT[:HARD]", "limit of all its processes: nofile, nproc, core, ..."},
	{0, "cidfile", OPT_TEXT, V(cidfile), "FILE", "write the VM's id into a new file"},
	{0, "pull", OPT_TEXT, V(pull), "missing|always|never",
	 "when to fetch the image from its registry (default: $SUPERMACHINE_PULL, else missing)",
	 .choices = "missing|always|never"},
	{0, "kernel", OPT_TEXT, V(kernel), "FILE", "kernel to boot (default: the distribution's cloud kernel)"},
	{0, "cold", OPT_FLAG, V(cold), NULL,
	 "boot, instead of starting from a base snapshot; see supermachine snapshots"},
	{0, "snapshot", OPT_TEXT, V(snapshot), "NAME",
	 "instead of IMAGE: in a VM that goes on from a snapshot; without COMMAND the same as restore NAME"},
	{0, "outcome", OPT_TEXT, V(outcome), "FILE", "write how it ended as JSON: status, reason, durations"},
	{0, "ksm", OPT_FLAG, V(ksm), NULL, "let the host merge equal pages of such VMs: they can spy on each other"},
	{0, "trace", OPT_FLAG, V(trace), NULL, "print at the end how long each stage of it took"},
	{0, "init", OPT_IGNORED, 0, NULL, NULL},
	{0, "privileged", OPT_IGNORED, 0, NULL, NULL},
	{0, "network", OPT_TEXT, V(network), "none", NULL, .choices = "none"},
	{0, "net", OPT_TEXT, V(network), "none", NULL, .choices = "none"},
	{0, "no-healthcheck", OPT_IGNORED, 0, NULL, NULL},
	{0, "restart", OPT_TEXT, V(restart), "no", NULL},
	{0, "gpus", OPT_REFUSED, 0, NULL, NULL, .choices = NO_DEVICES},
	{0, "device", OPT_REFUSED, 0, NULL, NULL, .choices = NO_DEVICES},
	{0, "device-cgroup-rule", OPT_REFUSED, 0, NULL, NULL, .choices = NO_DEVICES},
	{0, "blkio-weight", OPT_REFUSED, 0, NULL, NULL, .choices = NO_DEVICES},
	{0, "pid", OPT_REFUSED, 0, NULL, NULL, .choices = SHARES_NOTHING},
	{0, "ipc", OPT_REFUSED, 0, NULL, NULL, .choices = SHARES_NOTHING},
	{0, "uts", OPT_REFUSED, 0, NULL, NULL, .choices = SHARES_NOTHING},
	{0, "userns", OPT_REFUSED, 0, NULL, NULL, .choices = SHARES_NOTHING},
	{0, "cgroupns", OPT_REFUSED, 0, NULL, NULL, .choices = SHARES_NOTHING},
	{0, "cgroup-parent", OPT_REFUSED, 0, NULL, NULL, .choices = SHARES_NOTHING},
	{0, "cap-add", OPT_REFUSED, 0, NULL, NULL, .choices = ALL_CAPABILITIES},
	{0, "cap-drop", OPT_REFUSED, 0, NULL, NULL, .choices = ALL_CAPABILITIES},
	{0, "security-opt", OPT_REFUSED, 0, NULL, NULL, .choices = ALL_CAPABILITIES},
	{0, "link", OPT_REFUSED, 0, NULL, NULL, .choices = "VMs see no other VMs; -p leads to their ports"},
	{0, "dns", OPT_REFUSED, 0, NULL, NULL, .choices = NO_NETWORK},
	{0, "dns-search", OPT_REFUSED, 0, NULL, NULL, .choices = NO_NETWORK},
	{0, "ip", OPT_REFUSED, 0, NULL, NULL, .choices = NO_NETWORK},
	{0, "mac-address", OPT_REFUSED, 0, NULL, NULL, .choices = NO_NETWORK},
	{0, "network-alias", OPT_REFUSED, 0, NULL, NULL, .choices = NO_NETWORK},
	{0, "expose", OPT_REFUSED, 0, NULL, NULL, .choices = NO_NETWORK},
	{'P', "publish-all", OPT_REFUSED, 0, NULL, NULL, .choices = NO_NETWORK},
	{0, "memory-swap", OPT_REFUSED, 0, NULL, NULL, .choices = OWN_MEMORY},
	{0, "memory-swappiness", OPT_REFUSED, 0, NULL, NULL, .choices = OWN_MEMORY},
	{0, "memory-reservation", OPT_REFUSED, 0, NULL, NULL, .choices = OWN_MEMORY},
	{0, "oom-kill-disable", OPT_REFUSED, 0, NULL, NULL, .choices = OWN_MEMORY},
	{0, "oom-score-adj", OPT_REFUSED, 0, NULL, NULL, .choices = OWN_MEMORY},
	{0, "shm-size", OPT_REFUSED, 0, NULL, NULL,
	 .choices = "/dev/shm may take half of the VM's memory: -m gives it more"},
	{0, "cpu-shares", OPT_REFUSED, 0, NULL, NULL, .choices = OWN_CPUS},
	{0, "cpu-period", OPT_REFUSED, 0, NULL, NULL, .choices = OWN_CPUS},
	{0, "cpu-quota", OPT_REFUSED, 0, NULL, NULL, .choices = OWN_CPUS},
	{0, "cpuset-cpus", OPT_REFUSED, 0, NULL, NULL, .choices = OWN_CPUS},
	{0, "cpuset-mems", OPT_REFUSED, 0, NULL, NULL, .choices = OWN_CPUS},
	{0, "pids-limit", OPT_REFUSED, 0, NULL, NULL, .choices = "--ulimit nproc=N limits a user's processes"},
	{0, "sysctl", OPT_REFUSED, 0, NULL, NULL,
	 .choices = "the kernel is the VM's own: its root sets that by itself"},
	{0, "runtime", OPT_REFUSED, 0, NULL, NULL, .choices = EVERY_VM},
	{0, "isolation", OPT_REFUSED, 0, NULL, NULL, .choices = EVERY_VM},
	{0, "log-driver", OPT_REFUSED, 0, NULL, NULL, .choices = "supermachine logs has what it prints"},
	{0, "log-opt", OPT_REFUSED, 0, NULL, NULL, .choices = "supermachine logs has what it prints"},
	{0, "health-cmd", OPT_REFUSED, 0, NULL, NULL, .choices = NO_HEALTH},
	{0, "health-interval", OPT_REFUSED, 0, NULL, NULL, .choices = NO_HEALTH},
	{0, "storage-opt", OPT_REFUSED, 0, NULL, NULL, .choices = "--disk says how much it may write"},
	{0, "volumes-from", OPT_REFUSED, 0, NULL, NULL, .choices = "name each of them: -v NAME:DST"},
	{0, "group-add", OPT_REFUSED, 0, NULL, NULL,
	 .choices = "-u USER:GROUP, or the groups that the image's /etc/group gives the user"},
	{0, "platform", OPT_REFUSED, 0, NULL, NULL,
	 .choices = "VMs run on this host's CPU; supermachine pull --platform fetches another image"},
};
#undef V

static const char *const examples[] = {"run debian echo hello",
				       "one command, nothing left behind",
				       "run -it debian bash",
				       "a shell",
				       "run -i debian sha256sum < file",
				       "a filter in a pipe",
				       "run -d --name web -m 512M -c 2 nginx",
				       "in the background; see ps, logs, stop",
				       "run -v .:/src -w /src debian make",
				       "on the files of this directory",
				       "run -v cache:/root/.cache python pip download x",
				       "with a volume that stays",
				       "run -d -p 8080:80 nginx",
				       "its port 80 as port 8080 of this host",
				       "run oci-archive:image.tar",
				       "straight from a file",
				       "run --snapshot warm python3 job.py",
				       "in a VM that goes on from a snapshot",
				       NULL};

/* What the verb holds while it works: one cleanup for all of it. */
struct run {
	struct cli *cli;
	const struct run_values *v;
	const char *image;
	char **env;
	struct session session;
	struct cli_mounts mounts;
	struct cli_ports ports;
	struct cli_secrets secrets;
	struct sm_vm *vm;
	struct sm_exec *exec;
	struct sm_outcome outcome;
};

static int check(struct cli *cli, const struct run_values *v)
{
	if (v->stop_signal && text_signal(v->stop_signal) < 0)
		return cli_usage(cli, NULL, "no such signal: %s", v->stop_signal);
	if (v->detach && (v->outcome || v->trace))
		return cli_usage(cli, "later: supermachine inspect VM", "%s needs a run that waits, not -d",
				 v->outcome ? "--outcome" : "--trace");
	if (v->idle && !v->detach)
		return cli_usage(cli, "--timeout limits its time",
				 "--idle goes with -d: in the foreground it is never "
				 "idle");
	if (v->on_idle && !v->idle)
		return cli_usage(cli, NULL, "--on-idle goes with --idle TIME");
	if (v->restart && !streq(v->restart, "no"))
		return cli_usage(cli, NULL,
				 "--restart makes no sense here: there is no daemon that would start it again");
	if (v->rm && v->keep)
		return cli_usage(cli, NULL, "--rm and --keep exclude each other");
	if (v->tmpfs_root && v->disk)
		return cli_usage(cli, NULL, "--tmpfs-root and --disk exclude each other");
	for (size_t i = 0; i < v->labels.n; i++)
		if (v->labels.v[i][0] == '=' || !v->labels.v[i][0])
			return cli_usage(cli, NULL, "a label is NAME=VALUE, not '%s'", v->labels.v[i]);
	return cli_outcome_check(cli, v->outcome);
}

static enum sm_pull cli_pull(const char *text)
{
	if (!text)
		return SM_PULL_DEFAULT;
	return streq(text, "always") ? SM_PULL_ALWAYS : streq(text, "never") ? SM_PULL_NEVER : SM_PULL_MISSING;
}

static bool wants_spare(void)
{
	const char *s = getenv("SUPERMACHINE_SPARE");

	return !s || !streq(s, "0");
}

static int start(struct run *run, char **argv, struct sm_exec_options *streams, struct sm_error *err)
{
	const struct run_values *v = run->v;
	const char *entrypoint[2] = {v->entrypoint && v->entrypoint[0] ? v->entrypoint : NULL, NULL};
	struct sm_vm_options o = SM_VM_OPTIONS_INIT;
	int r;

	o.image = run->image;
	o.name = v->name;
	o.hostname = v->hostname;
	o.memory = v->memory;
	o.cpus = (unsigned)((v->cpus + 999) / 1000);
	o.cpu_limit = v->cpus % 1000 ? v->cpus : 0;
	o.profile = v->profile && streq(v->profile, "throughput") ? SM_PROFILE_THROUGHPUT : SM_PROFILE_LATENCY;
	o.disk_size = v->disk;
	o.dax_size = v->dax;
	o.tmpfs_root = v->tmpfs_root;
	o.cold = v->cold;
	o.kernel = v->kernel;
	o.entrypoint = v->entrypoint ? entrypoint : NULL;
	o.argv = argv[0] ? (const char *const *)argv : NULL;
	o.env = (const char *const *)run->env;
	o.user = v->user;
	o.cwd = v->workdir;
	o.stop_signal = v->stop_signal;
	o.tty = streams->tty;
	o.rows = streams->rows;
	o.cols = streams->cols;
	o.stdin_open = streams->stdin_open;
	o.timeout_ns = v->timeout;
	o.ttl_ns = v->ttl;
	o.start_timeout_ns = v->start_timeout;
	o.idle_ns = v->idle;
	o.on_idle = cli_on_idle(v->on_idle);
	o.keep = !v->rm && (v->keep || v->name || v->detach);
	o.detach = v->detach;
	o.labels = v->labels.v;
	o.progress = cli_progress(run->cli);
	o.mounts = run->mounts.v;
	o.num_mounts = run->mounts.n;
	o.ports = run->ports.v;
	o.num_ports = run->ports.n;
	o.hosts = v->hosts.v;
	o.tmpfs = run->mounts.tmpfs;
	o.read_only = v->read_only;
	o.trace = v->trace;
	o.ksm = v->ksm;
	o.secrets = run->secrets.v;
	o.num_secrets = run->secrets.n;
	o.ulimits = v->ulimits.v;
	o.share_group = v->share_group;
	o.audit = v->audit;
	o.pull = cli_pull(v->pull);
	o.spare = wants_spare();
	r = sm_vm_start(run->cli->client, &o, &run->vm, err);
	cli_progress_clear(run->cli);
	return r;
}

/* Waits until the command runs, so that one that cannot is told at once; then says which VM it is. */
static int detached(struct run *run)
{
	struct sm_error err = {0};
	int r = sm_vm_wait_started(run->vm, 0, &run->outcome, &err);
	enum sm_reason reason = run->outcome.reason;

	if (r < 0 && reason != SM_REASON_EXITED && reason != SM_REASON_SIGNALLED) {
		int status = run->outcome.status ? run->outcome.status : CLI_FAILED;

		cli_fail(run->cli, &err, NULL);
		sm_vm_remove(run->vm, true, NULL);
		return status;
	}
	puts(sm_vm_id(run->vm));
	return 0;
}

/* 0, or the exit status of what was wanted and could not be written. */
static int report(struct run *run)
{
	struct sm_error err = {0};
	int status = 0;

	if (run->v->outcome &&
	    cli_outcome_write(run->v->outcome, run->image, run->vm ? sm_vm_id(run->vm) : NULL, &run->outcome, &err) < 0)
		status = cli_fail(run->cli, &err, "");
	if (run->v->trace)
		cli_outcome_trace(&run->outcome);
	return status;
}

/* Our own failure, as an outcome. */
static int failed(struct run *run, const struct sm_error *err, bool starting)
{
	run->outcome.reason = SM_REASON_START_FAILED;
	run->outcome.status = CLI_FAILED;
	snprintf(run->outcome.message, sizeof(run->outcome.message), "%.*s", (int)sizeof(run->outcome.message) - 1,
		 err->message);
	report(run);
	if (starting &&
	    (err->kind == SM_ERROR_NOT_FOUND || err->kind == SM_ERROR_DENIED || err->kind == SM_ERROR_NETWORK))
		return cli_no_image(run->cli, run->image, true, err);
	if (starting && err->kind == SM_ERROR_EXISTS && run->v->name)
		return cli_fail(run->cli, err, "remove it with supermachine rm, or choose another name");
	return cli_fail(run->cli, err, NULL);
}

static int foreground(struct run *run, struct sm_exec_options *streams)
{
	const struct run_values *v = run->v;
	struct sm_error err = {0};
	int status, unwritten;

	run->session.owned = run->vm;
	if (sm_vm_attach(run->vm, streams, &run->exec, &err) < 0)
		return failed(run, &err, false);
	/* Its failure is an outcome, which the wait brings. */
	if (sm_vm_wait_started(run->vm, 0, NULL, NULL) == 0)
		session_started(&run->session, run->exec);
	status = session_wait(&run->session, run->exec, &run->outcome, &err);
	if (session_was_left(&run->session, status, v->name ? v->name : sm_vm_id(run->vm)))
		return 0;
	if (status < 0)
		return failed(run, &err, false);
	unwritten = report(run);
	status = cli_outcome(run->cli, &run->outcome, v->memory ? v->memory : GIB,
			     v->tmpfs_root ? 0
			     : v->disk	   ? v->disk
					   : 10 * GIB);
	return status ? status : unwritten;
}

/* The file is there before the VM, so that nobody else's is overwritten, and gone again if there is no VM. */
static int open_cidfile(const char *path, int *ret, struct sm_error *err)
{
	*ret = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	return *ret < 0 ? error_sys(err, errno, "--cidfile %s", path) : 0;
}

static int start_with_cidfile(struct run *run, char **argv, struct sm_exec_options *streams, struct sm_error *err)
{
	const char *path = run->v->cidfile;
	_fd_ int fd = -1;
	int r = path ? open_cidfile(path, &fd, err) : 0;

	if (r == 0)
		r = start(run, argv, streams, err);
	if (r == 0 && path)
		r = write_full(fd, sm_vm_id(run->vm), strlen(sm_vm_id(run->vm)));
	if (r < 0 && fd >= 0)
		unlink(path);
	return r;
}

static int run_image(struct run *run, char **argv)
{
	struct sm_exec_options streams = SM_EXEC_OPTIONS_INIT;
	struct sm_error err = {0};

	if (cli_env(&run->v->env_file, &run->v->env, run->v->tty, &run->env, &err) < 0)
		return failed(run, &err, false);
	if (session_streams(&run->session, run->v->interactive, run->v->tty, true, &streams, &err) < 0)
		return failed(run, &err, false);
	if (!cli_client(run->cli))
		return CLI_FAILED;
	if (start_with_cidfile(run, argv, &streams, &err) < 0)
		return failed(run, &err, true);
	return run->v->detach ? detached(run) : foreground(run, &streams);
}

/* What it was is not to be chosen again. */
static int run_snapshot(struct cli *cli, const struct run_values *v, char **operands)
{
	struct restore_values r = {.interactive = v->interactive,
				   .detach = v->detach,
				   .command = operands[0] ? operands : NULL,
				   .tty = v->tty,
				   .workdir = v->workdir,
				   .user = v->user,
				   .keep = v->keep,
				   .rm = v->rm,
				   .name = v->name,
				   .hostname = v->hostname,
				   .outcome = v->outcome,
				   .labels = v->labels,
				   .env = v->env,
				   .env_file = v->env_file,
				   .ports = v->ports,
				   .reverse = v->reverse,
				   .volumes = v->volumes,
				   .audit = v->audit,
				   .timeout = v->timeout,
				   .ttl = v->ttl,
				   .start_timeout = v->start_timeout,
				   .idle = v->idle,
				   .on_idle = v->on_idle};

	if (v->tmpfs_root || v->cold || (!r.command && (v->workdir || v->user)) || v->entrypoint || v->kernel ||
	    v->stop_signal || v->mounts.n || v->share_group || v->secrets.n || v->ulimits.n || v->memory || v->cpus ||
	    v->profile || v->disk || v->dax || v->pull || v->hosts.n || v->tmpfs.n || v->read_only || v->ksm)
		return cli_usage(cli, NULL, "--snapshot goes on with the image, command and sizes of the saved VM");
	if (v->cidfile || v->trace)
		return cli_usage(cli, NULL, "--snapshot and --%s exclude each other", v->trace ? "trace" : "cidfile");
	if (r.command && v->detach)
		return cli_usage(cli, "supermachine restore -d, then supermachine exec -d",
				 "with --snapshot a command runs here, not detached");
	return restore_vm(cli, &r, v->snapshot);
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct run_values *given = values;
	struct run run = {.cli = cli, .v = values, .image = operands[0], .outcome = SM_OUTCOME_INIT};
	struct sm_error err = {0};
	int status;

	if (given->snapshot)
		return run_snapshot(cli, given, operands);
	if (!count)
		return cli_usage(cli, "usage: supermachine run IMAGE [COMMAND [ARG...]]", "something is missing");
	status = check(cli, run.v);
	if (status == 0)
		status = cli_mounts_parse(cli, &run.v->volumes, &run.v->mounts, &run.v->tmpfs, &run.mounts);
	if (status == 0)
		status = cli_ports_parse(cli, &run.v->ports, &run.v->reverse, &run.ports);
	if (status == 0)
		status = cli_secrets_parse(cli, &run.v->secrets, &run.v->secret_env, &run.secrets);
	if (status == 0 && session_begin(&run.session, cli, &err) < 0)
		status = cli_fail(cli, &err, NULL);
	if (status == 0) {
		status = run_image(&run, operands + 1);
		session_end(&run.session);
	}
	sm_exec_close(run.exec);
	sm_vm_close(run.vm);
	cli_env_free(run.env);
	cli_mounts_free(&run.mounts);
	cli_ports_free(&run.ports);
	cli_secrets_free(&run.secrets);
	return status;
}

const struct verb verb_run = {
	.name = "run",
	.operands = "IMAGE [COMMAND [ARG...]]",
	.summary = "Run a command in a new VM of an image",
	.details =
		"IMAGE is NAME[:TAG][@DIGEST], from the store (supermachine images) or else its registry, or where to "
		"load it from: oci:DIR[:TAG], oci-archive:FILE, docker-archive:FILE, dir:PATH. Without COMMAND the "
		"image's own "
		"runs.\n"
		"-v: SRC may be relative; a directory that is missing is made if its parent is there. ro: the host "
		"refuses changes. cow: changes stay in the VM. Files that the VM makes are yours on the host, whoever "
		"owns them in the VM; with ids=same (root alone) the owner's number is the same on both sides. A SRC "
		"without a slash is the name of a volume: a disk of its own, made when it is first used, which stays; "
		"see volume ls.\n"
		"In a terminal ctrl-p ctrl-q lets go of the VM, which goes on and is kept, as with -d; attach joins it "
		"again.\n"
		"The exit status is the command's, 128+N when signal N ended it, 124 after --timeout, 126 or 127 "
		"when it "
		"cannot be executed or found, 125 when supermachine itself failed.",
	.examples = examples,
	VERB_OPTS(options, struct run_values),
	.min_operands = 0,
	.max_operands = -1,
	.command = true,
	.completes = OPERAND_IMAGE,
	.group = GROUP_RUN,
	.run = verb,
};
