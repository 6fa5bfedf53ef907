/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Services and their messages. Requests, replies and events are TLV lists: u16 tag, u16 flags 0, u32 length, bytes;
 * tags may repeat (argv, env); unknown tags are skipped when their top bit (0x8000) is set and refused otherwise.
 * Integers are little-endian u64, strings raw bytes without NUL. Writers and checked decoders for each message stand
 * below: the only code that knows the layout.
 */
#ifndef PROTO_MESSAGES_H
#define PROTO_MESSAGES_H

#include "proto/frame.h"

enum proto_service {
	/* agent (guest or machine) */
	PROTO_EXEC = 1,	 /* run a process; streams 0,1,2; events: signal, resize (to it), exit (from it) */
	PROTO_SETUP = 2, /* make this guest a container: mounts, hostname, /etc files (guest only, once) */
	PROTO_CONNECT =
		3, /* a byte pipe to a TCP address or unix socket path as the agent sees it; streams 0 in, 1 out */
	PROTO_POWEROFF = 4,
	PROTO_READ_FILE = 5,
	PROTO_WRITE_FILE = 6,
	PROTO_STATS = 7,
	PROTO_SYNC_CLOCK = 8,
	PROTO_PREPARE = 9, /* get ready for a snapshot of a guest that has no image yet; opened when that is done (guest
			      only) */
	PROTO_COPY = 10,   /* a tree of files, either way (src/copy/stream.h); streams 0 in, 1 out */
	PROTO_HOLD = 11,   /* no process runs and no output is read, or they do again; for a snapshot (guest only) */
	PROTO_RESUME = 12, /* a guest restored with its processes becomes one of its own; they run again (guest only) */
	PROTO_SECRET = 14, /* a file of /run/secrets and maybe a variable, before EXEC (guest only) */
	PROTO_ADOPT = 13,  /* the image's command of such a guest: from OPENED on as after EXEC (guest only) */
	PROTO_LISTEN = 15, /* a port or socket of the guest (a proto_connect), until it is closed (guest only) */
	PROTO_ACCEPT = 16, /* a byte pipe to who connects there next: OPENED when somebody has (guest only) */
	PROTO_WATCH = 17,  /* what happens to files (fileevent.h), stream 1, until it is closed */
	/* keeper */
	PROTO_KEEPER_STATUS = 32,      /* reply: state, JSON record */
	PROTO_KEEPER_WAIT = 33,	       /* event exit when the VM ends */
	PROTO_KEEPER_STOP = 34,	       /* TLV: grace period ns, signal */
	PROTO_KEEPER_ATTACH = 35,      /* the main command's streams, as an exec channel */
	PROTO_KEEPER_BALLOON = 36,     /* how much memory the guest should give up */
	PROTO_KEEPER_PAUSE = 37,       /* the guest is to stand still, or to go on */
	PROTO_KEEPER_SNAPSHOT = 38,    /* save the running VM into a directory */
	PROTO_KEEPER_SUSPEND = 39,     /* save it into its own directory, and end */
	PROTO_KEEPER_SECRET = 40,      /* a proto_secret, passed on to the agent before the command runs */
	PROTO_KEEPER_SPAWN = 44,       /* a proto_exec that the keeper itself keeps (keeper/execs.h) */
	PROTO_KEEPER_EXEC_SIGNAL = 45, /* a signal to one of those */
	PROTO_KEEPER_WATCH = 46,       /* records of hostwatch.h, streams 0 in, 1 out; one client, once */
	PROTO_KEEPER_COUNTERS = 48,    /* the monitor's, JSON text */
	PROTO_KEEPER_CLAIM = 49,       /* a spare becomes the VM that somebody wants */
	PROTO_KEEPER_DISOWN = 50,      /* its owner lets go: it goes on, and is kept; OPENED and CLOSE 0 */
	PROTO_KEEPER_MARK = 51,	       /* remember what it is now; OPENED and CLOSE 0 when that is so */
	PROTO_KEEPER_REWIND = 52,      /* back to that; OPENED and CLOSE 0 when it runs again */
	PROTO_KEEPER_SHARE = 47,       /* u8 number of a mount; opened when its monitor wants what is served there */
	/* machine daemon */
	PROTO_MACHINE_STATUS = 64,
	PROTO_MACHINE_STOP = 65,
	PROTO_MACHINE_BUSY = 66, /* held open: keeps the machine from its idle stop */
};

/* A TLV writer: append to a buf. */
void tlv_put(struct buf *b, uint16_t tag, const void *p, size_t len);
void tlv_put_str(struct buf *b, uint16_t tag, const char *s); /* NULL: nothing */
void tlv_put_u64(struct buf *b, uint16_t tag, uint64_t v);

struct tlv {
	uint16_t tag;
	uint32_t len;
	const uint8_t *p;
};
/* The next record: 1, 0 at the end, -EPROTO if it breaks its bounds. */
int tlv_next(struct cursor *c, struct tlv *ret);
int tlv_u64(const struct tlv *t, uint64_t *ret);   /* -EPROTO unless 8 bytes */
char *tlv_strdup(const struct tlv *t, size_t max); /* NULL on an embedded NUL, too long, or no memory */

/* Bytes of the message's own. */
struct proto_bytes {
	uint8_t *data;
	size_t len;
};

/* PROTO_EXEC request. */
struct proto_exec {
	char **argv; /* NULL-terminated, at least one */
	char **env;  /* NULL-terminated "K=V"; complete environment if clear_env, else on top of the container's */
	char *cwd;   /* NULL: the container's. That, and the main command's, is made if it is missing */
	char *user;  /* "user[:group]" by name or number, NULL: the container's */
	bool tty, stdin_open, clear_env, main; /* main: this is the image's command */
	bool hold;     /* nothing is executed: a process that only reaps, until it is killed; argv does not count */
	bool detached; /* when the client closes the channel the process lives on; else its group is killed */
	char *log; /* a file that gets stdout and stderr (appended; made 0600) in place of streams 1 and 2; NULL: none
		    */
	uint16_t rows, cols;
	uint64_t timeout_ns; /* 0: none; the agent kills the whole group after it */
	char **limits;	     /* proto_rlimit_parse; on top of the container's */
	/* stage.h: what is written before the command, and what is run after it while each succeeds */
	char **files, **chain;
	struct proto_bytes contents;
	bool contents_follow; /* on stream 0, and contents is empty */
};
int proto_exec_encode(struct buf *b, const struct proto_exec *x);
int proto_exec_decode(struct cursor *c, struct proto_exec *ret); /* 0, -EPROTO, -ENOMEM; on failure nothing to free */
void proto_exec_done(struct proto_exec *x);

/* PROTO_PREPARE reply. */
struct proto_prepared {
	bool pluggable; /* copies of this guest can get more memory */
};
int proto_prepared_encode(struct buf *b, const struct proto_prepared *x);
int proto_prepared_decode(struct cursor *c, struct proto_prepared *ret);

/* PROTO_SETUP request: what the container is to look like (DESIGN: the container's view). */
#define PROTO_UPPER_SERIAL "upper" /* of the writable disk, a base's as well */
enum proto_root { PROTO_ROOT_PMEM = 1, PROTO_ROOT_BLK = 2 };
struct proto_setup {
	enum proto_root root;
	char *root_device;  /* "pmem0", or the virtio-blk serial ("image") */
	char *upper_serial; /* virtio-blk serial of the writable disk (PROTO_UPPER_SERIAL); NULL: tmpfs upper */
	char *hostname;
	char **env;	      /* the image's */
	char *user, *cwd;     /* the image's defaults for execs */
	char **hosts, **dns;  /* extra "IP name" lines; nameservers */
	char **volumes;	      /* paths that the image declares */
	uint64_t realtime_ns; /* the host's wall clock */
	uint8_t seed[32];     /* entropy */
	bool read_only;
	uint64_t tmpfs_size; /* bytes for a tmpfs upper, 0: half of memory */
	char **mounts; /* proto_mount_format: what the virtio-fs device shows as "0", "1", ... goes there, and volumes
			*/
	char **tmpfs;  /* proto_tmpfs_parse: file systems in memory, on top of the mounts */
	char **limits; /* proto_rlimit_parse: of all commands */
	uint64_t plugged; /* bytes of memory that come beside what the guest booted with: OPENED when they are there */
	bool rehearse;	  /* there is time: the guest starts a process of the agent's own and ends it, before OPENED */
	bool upper_ahead; /* the writable disk is as the one that the guest was prepared with, which it has mounted */
};
/* One resource limit, as text "NAME=SOFT[:HARD]" in docker's words. */
struct proto_rlimit {
	int resource;	     /* RLIMIT_* */
	uint64_t soft, hard; /* UINT64_MAX: none */
};
int proto_rlimit_parse(const char *text, struct proto_rlimit *ret) MUST_CHECK; /* 0 or -EPROTO */
/* One tmpfs. As text: "FLAGS:DATA:PATH" with the flag n, and mount(2)'s data ("size=65536,mode=1777"). */
struct proto_tmpfs {
	char data[64];
	const char *path; /* absolute; points into what was parsed */
	bool noexec;
};
int proto_tmpfs_parse(const char *text, struct proto_tmpfs *ret) MUST_CHECK; /* 0 or -EPROTO */
/* One of the mounts. As text: "FLAGS:TARGET" with the flags r, c, f, v and a digit, n. */
struct proto_mount {
	const char *target; /* absolute; points into what was parsed */
	bool read_only;
	bool cow;     /* below a writable layer of its own */
	bool is_file; /* a regular file instead of a directory */
	bool volume;  /* not of the device: a disk, whose serial is "volume" and the number */
	bool no_copy; /* volume: when it is empty it stays so */
	unsigned number;
};
char *proto_mount_format(const struct proto_mount *m);			     /* NULL: no memory */
int proto_mount_parse(const char *text, struct proto_mount *ret) MUST_CHECK; /* 0 or -EPROTO */
int proto_setup_encode(struct buf *b, const struct proto_setup *s);
int proto_setup_decode(struct cursor *c, struct proto_setup *ret);
void proto_setup_done(struct proto_setup *s);

/* Events of an exec channel. */
enum proto_event_kind { PROTO_EV_SIGNAL = 1, PROTO_EV_RESIZE = 2, PROTO_EV_EXIT = 3 };
enum proto_exit_reason {
	PROTO_EXITED = 1,
	PROTO_SIGNALLED = 2,
	PROTO_EXIT_TIMEOUT = 3,
	PROTO_EXIT_OOM = 4,
	PROTO_EXIT_DISK_FULL = 5,
	PROTO_EXIT_NOT_FOUND = 6,      /* status 127, text says what */
	PROTO_EXIT_NOT_EXECUTABLE = 7, /* status 126 */
};
struct proto_event {
	enum proto_event_kind kind;
	int signal;	     /* SIGNAL; EXIT: the signal that ended it */
	uint16_t rows, cols; /* RESIZE */
	int status;	     /* EXIT: what a shell would show: code, or 128 + signal, 124 on timeout */
	enum proto_exit_reason reason;
	uint64_t duration_ns, peak_rss; /* EXIT; bytes */
	char text[256];			/* EXIT: a line for a person, or "" */
	uint32_t step;			/* EXIT: of a chain, which command it is that ended it, from 0 */
};
int proto_event_encode(struct buf *b, const struct proto_event *e);
int proto_event_decode(struct cursor *c, struct proto_event *ret);

/* PROTO_EXEC reply. pid 0: it could not be executed; the exit event says why. */
int proto_pid_encode(struct buf *b, uint32_t pid);
int proto_pid_decode(struct cursor *c, uint32_t *ret);

/* PROTO_CONNECT request: TCP if host is set (an address or a name of the agent's /etc/hosts), else a unix socket path.
 * wait_ns: a unix socket that nobody listens on yet may come within this time (PROTO_CONNECT_WAIT_MAX at most). */
#define PROTO_CONNECT_WAIT_MAX 1000000000u
struct proto_connect {
	char *host, *path;
	uint16_t port;
	uint64_t wait_ns;
};
int proto_connect_encode(struct buf *b, const struct proto_connect *x);
int proto_connect_decode(struct cursor *c, struct proto_connect *ret);
void proto_connect_done(struct proto_connect *x);

/*
 * PROTO_READ_FILE (bytes on stream 1, then EOF and CLOSE 0) and PROTO_WRITE_FILE (bytes on stream 0; at its EOF the
 * file is complete under its name, and CLOSE 0 comes). CLOSE -errno on failure. The reply to a read: a proto_file with
 * mode and size.
 */
struct proto_file {
	char *path;	   /* in the container; request only */
	uint64_t offset;   /* read: from where */
	uint64_t size;	   /* read: at most so much, 0: to the end; reply: the file's size */
	uint32_t mode;	   /* write: permission bits of a new file, 0: 0644 */
	uint32_t uid, gid; /* write: owner of a new file */
	bool make_dirs;	   /* write: directories on the way are made */
};
int proto_file_encode(struct buf *b, const struct proto_file *x);
int proto_file_decode(struct cursor *c, struct proto_file *ret);
void proto_file_done(struct proto_file *x);

/*
 * PROTO_COPY. Answers are records (src/copy/stream.h) on stream 1: SEND and LIST a tree, the others END or ERROR. A
 * RECEIVE's tree comes on stream 0.
 * CHANGES sends what the VM has changed (stream.h): of its root (path "/") or of a mount with a writable layer of its
 * own (path: its target).
 */
enum proto_copy_op {
	PROTO_COPY_SEND = 1,
	PROTO_COPY_RECEIVE = 2,
	PROTO_COPY_LIST = 3,
	PROTO_COPY_REMOVE = 4,
	PROTO_COPY_CHANGES = 5
};
struct proto_copy {
	uint32_t op;
	char *path;	/* in the container, absolute */
	char *name;	/* RECEIVE: the source's last component; NULL: the stream's */
	uint32_t depth; /* LIST: 1 the path itself, 2 and what is in it */
	bool follow;	/* SEND, LIST: a symbolic link at path */
	bool contents;	/* RECEIVE: copy_place; CHANGES: with the contents of files */
	bool into;
	bool keep_ids;
	bool recursive; /* REMOVE */
	bool whole;	/* CHANGES: as copy_changes has it */
	bool hold;	/* CHANGES: every command's processes stand still until the answer is complete */
	char **skip;	/* CHANGES: further paths of the container that are left out with all that is in them */
};
int proto_copy_encode(struct buf *b, const struct proto_copy *x);
int proto_copy_decode(struct cursor *c, struct proto_copy *ret);
void proto_copy_done(struct proto_copy *x);

/* PROTO_WATCH request. */
struct proto_watch {
	char *path; /* in the container, absolute */
	bool recursive;
};
int proto_watch_encode(struct buf *b, const struct proto_watch *x);
int proto_watch_decode(struct cursor *c, struct proto_watch *ret);
void proto_watch_done(struct proto_watch *x);

/* PROTO_SECRET and PROTO_KEEPER_SECRET: OPENED and CLOSE 0 when it is there (of the keeper: when it has it). */
#define PROTO_SECRET_MAX 61440u
#define PROTO_SECRET_ENV_MAX 255
struct proto_secret {
	char name[64];			    /* one component of a path */
	char env[PROTO_SECRET_ENV_MAX + 1]; /* "": none */
	const uint8_t *data;		    /* decoded: in the request */
	size_t len;
};
int proto_secret_encode(struct buf *b, const struct proto_secret *x);
int proto_secret_decode(struct cursor *c, struct proto_secret *ret);

/* PROTO_SYNC_CLOCK request: the host's wall clock, fresh entropy. Reply when both are in force. */
struct proto_clock {
	uint64_t realtime_ns;
	uint8_t seed[32];
};
int proto_clock_encode(struct buf *b, const struct proto_clock *x);
int proto_clock_decode(struct cursor *c, struct proto_clock *ret);

/*
 * PROTO_HOLD request; OPENED and CLOSE 0 when it is so. hold: every command's processes stand still and their output
 * stays where it is, all of it that was read before has been sent. The file systems of volumes are frozen: what was
 * written is on their disks, which nothing is written to. What is restored from a snapshot that is taken then stands
 * still until PROTO_RESUME, its volumes until PROTO_ADOPT.
 */
struct proto_hold {
	bool hold;    /* else: they go on */
	bool volumes; /* but what writes to a volume waits, until the same comes without this */
	/*
	 * With hold: this stream begins anew behind OPENED, which is all of the answer: neither side says more. The
	 * agent takes its link for lost, but goes on with the stream: it waits for another HELLO on it, and its
	 * processes stand still until RESUME. So a machine that is taken back to what it is then has a connection to a
	 * keeper that knows nothing of it.
	 */
	bool again;
};
int proto_hold_encode(struct buf *b, const struct proto_hold *x);
int proto_hold_decode(struct cursor *c, struct proto_hold *ret);

/*
 * PROTO_RESUME request. OPENED and CLOSE 0 when the kernel has been reseeded and all below is in force; only then the
 * processes run. CLOSE -EALREADY: this guest has not lost its host, and it has run commands. A spare has not, and
 * becomes the VM that somebody wants: user and cwd are its as well, then.
 */
struct proto_resume {
	uint64_t realtime_ns;
	uint8_t seed[32];
	char *hostname;	     /* NULL: it keeps its own */
	char *machine_id;    /* for /etc/machine-id, if the container has one; NULL: it keeps its own */
	char **env;	     /* of commands that are run from now on; NULL: as it was */
	uint64_t timeout_ns; /* for the image's command, from now on; 0: as it was */
	char *user, *cwd;    /* of commands as well; NULL: as they were */
	char **mounts; /* proto_mount_format: volumes that this copy has beside those it was saved with, or in place of
			  one, which is where they go */
};
int proto_resume_encode(struct buf *b, const struct proto_resume *x);
int proto_resume_decode(struct cursor *c, struct proto_resume *ret);
void proto_resume_done(struct proto_resume *x);

/* PROTO_POWEROFF request (reply before it happens) and PROTO_KEEPER_STOP, PROTO_MACHINE_STOP. */
struct proto_stop {
	bool restart;	   /* POWEROFF: reset instead */
	int signal;	   /* STOP: to the command first; 0: the default */
	uint64_t grace_ns; /* STOP, POWEROFF: between the signal (POWEROFF: SIGTERM to all) and SIGKILL; 0: at once */
};
int proto_stop_encode(struct buf *b, const struct proto_stop *x);
int proto_stop_decode(struct cursor *c, struct proto_stop *ret);

/* PROTO_STATS reply: bytes, nanoseconds, counts as the guest's kernel has them. */
struct proto_stats {
	uint64_t mem_total, mem_free, mem_available, mem_cached;
	uint64_t cpu_user_ns, cpu_system_ns, cpu_idle_ns;
	uint64_t disk_total, disk_free; /* of the writable layer */
	uint64_t processes, uptime_ns, load1_milli, oom_kills;
	uint64_t net_rx, net_tx;
};
int proto_stats_encode(struct buf *b, const struct proto_stats *x);
int proto_stats_decode(struct cursor *c, struct proto_stats *ret);

#endif
