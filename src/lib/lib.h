/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of libsupermachine share: the client, the directory of VMs, connections to keepers. All of it control
 * plane: errors go into the caller's sm_error.
 */
#ifndef LIB_LIB_H
#define LIB_LIB_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "image/image.h"
#include "keeper/record.h"
#include "keeper/wire.h"
#include "machine/seat.h"
#include "proto/mux.h"

#define SECOND_NS 1000000000ull

/* Reads an option struct that may be smaller or larger than ours (a program built with another version). */
#define OPTIONS_GET(type, options)                                                                                     \
	({                                                                                                             \
		type _o = {.size = sizeof(type)};                                                                      \
		const type *_from = (options);                                                                         \
		options_copy(&_o, sizeof(_o), _from, _from ? _from->size : 0);                                         \
		_o;                                                                                                    \
	})
/* Element i of an array whose first element's size is its stride. */
#define OPTIONS_AT(type, array, i) ((const type *)(const void *)((const char *)(array) + (i) * (array)[0].size))
void options_copy(void *to, size_t to_size, const void *from, size_t from_size);

/* ------------------------------------------------------------------------------------ client.c */

struct sm_client {
	/* fixed after sm_client_open */
	char *data_dir, *state_dir, *runtime_dir, *libexec_dir;
	char *home; /* where all of them are; NULL: as the XDG base directories say */
	enum seat_mode mode;
	void (*log)(void *, enum sm_log_level, const char *);
	void *log_arg;
	uint64_t patience_ns; /* how long a keeper may say nothing */
	/* made on first use, then fixed; lock guards the making */
	pthread_mutex_t lock;
	struct image_store *store;
	struct seat *seat, *machine_seat;
	bool noticed;
	/* log_lock: one line at a time */
	pthread_mutex_t log_lock;
};

void client_say(struct sm_client *c, enum sm_log_level level, const char *fmt, ...) PRINTF_LIKE(3, 4);
int client_store(struct sm_client *c, struct image_store **ret, struct sm_error *err) MUST_CHECK;
/* Where new VMs run. */
int client_seat(struct sm_client *c, struct seat **ret, struct sm_error *err) MUST_CHECK;
/* The machine, needed or not. */
int client_machine_seat(struct sm_client *c, struct seat **ret, struct sm_error *err) MUST_CHECK;
/* Where a VM runs that was started with this start.json. */
int client_seat_of(struct sm_client *c, const struct vm_start *start, struct seat **ret,
		   struct sm_error *err) MUST_CHECK;
/* libexec_dir/name, malloc'ed; an error that names it when it is not there. */
int client_helper(struct sm_client *c, const char *name, char **ret, struct sm_error *err) MUST_CHECK;
/* Starts supermachine-keeper in one of its roles on this host, as a process of nobody's: "ROLE LINK ARG...", and that
 * descriptor. args: at most VM_MAX_MOUNTS. */
int client_start_role(struct sm_client *c, const char *role, int link, const char *const *args, unsigned count,
		      struct sm_error *err) MUST_CHECK;

/* --------------------------------------------------------------------------------------- vmdir.c */
/*
 * state_dir/vms/<id>/	a VM (keeper/record.h), and here:
 *	start.lock	held exclusively while somebody starts it: no exit.json and no keeper then is no death
 *	transient	there when it is not to be kept; held by the owner's handle: without both it is swept away
 * state_dir/names/<name>	symbolic link to an id
 * state_dir/vms.lock		held while VMs are made, removed or swept. All locks are flock(2), on the host alone.
 */
int vmdir_lock(struct sm_client *c, struct sm_error *err) MUST_CHECK; /* a descriptor to close */
int vmdir_sub(struct sm_client *c, const char *name,
	      struct sm_error *err) MUST_CHECK;	       /* state_dir/name, a directory fd */
char *vmdir_path(struct sm_client *c, const char *id); /* NULL: no memory */
int vmdir_open(struct sm_client *c, const char *id, struct sm_error *err) MUST_CHECK; /* O_PATH-like directory fd */
/*
 * Makes the directory with its record; takes the name. The new VM is never seen without its locks: *ret_start holds
 * start.lock, *ret_transient (unless it is to be kept) `transient`. Both may be NULL.
 */
int vmdir_create(struct sm_client *c, const struct vm_record *rec, int *ret_start, int *ret_transient,
		 struct sm_error *err) MUST_CHECK;
/* The same of a directory that is there already, `name` in `from`, whose start.lock the caller holds. */
int vmdir_adopt(struct sm_client *c, const struct vm_record *rec, int from, const char *name, int *ret_transient,
		struct sm_error *err) MUST_CHECK;
int vmdir_resolve(struct sm_client *c, const char *ref, char id[VM_ID_DIGITS + 1], struct sm_error *err) MUST_CHECK;
int vmdir_load(int dirfd, const char *id, struct vm_record *ret, struct sm_error *err) MUST_CHECK;
int vmdir_load_start(int dirfd, struct vm_start *ret, struct sm_error *err) MUST_CHECK;
int vmdir_store(int dirfd, const struct vm_record *rec, struct sm_error *err) MUST_CHECK;
int vmdir_store_start(int dirfd, const struct vm_start *start, struct sm_error *err) MUST_CHECK;
/* 0, -ENOENT: it has not ended. */
int vmdir_load_exit(int dirfd, struct vm_exit *ret, struct sm_error *err);
/* Removes a VM that does not run, with its name. */
int vmdir_remove(struct sm_client *c, const char *id, struct sm_error *err);
/* Of a disk that is about to be removed, unless others have a link to it: its space is free at once. A machine's file
 * server has the file until the machine looks for its name again, which may be never. */
void disk_give_back(int dir, const char *name);
/* Ids of all VMs, each VM_ID_DIGITS + 1 bytes; malloc'ed. */
int vmdir_list(struct sm_client *c, char (**ret)[VM_ID_DIGITS + 1], size_t *ret_count, struct sm_error *err) MUST_CHECK;
int vmdir_list_in(struct sm_client *c, const char *name, char (**ret)[VM_ID_DIGITS + 1], size_t *ret_count,
		  struct sm_error *err) MUST_CHECK;
/* flock of dirfd/name, made if create; -EWOULDBLOCK when held elsewhere. A descriptor. */
int vmdir_flock(int dirfd, const char *name, bool create, bool wait);
/* Removes what has ended and is not kept and has no owner, and what a killed creator left. */
void vmdir_sweep(struct sm_client *c);

/* ------------------------------------------------------------------------------------ vmindex.c */
/* state_dir/unended/<id>: which VMs may be running. See there. */
int vmindex_prepare(struct sm_client *c,
		    struct sm_error *err) MUST_CHECK; /* makes it, of all VMs, where there is none */
int vmindex_add(struct sm_client *c, const char *id, struct sm_error *err) MUST_CHECK;
void vmindex_remove(struct sm_client *c, const char *id);
/* It has ended: it is marked no more, unless somebody starts it again meanwhile, or it is not to be kept. */
void vmindex_ended(struct sm_client *c, const char *id);
void vmindex_stale(struct sm_client *c, const char *id); /* it is marked, and was not there */
int vmindex_list(struct sm_client *c, char (**ret)[VM_ID_DIGITS + 1], size_t *ret_count,
		 struct sm_error *err) MUST_CHECK;

/* ---------------------------------------------------------------------------------------- conn.c */
/*
 * A blocking client end of the frame protocol for one thread: calls are channels, their events end up in them. Whoever
 * waits runs conn_step until its call is where it should be.
 */
#define KEEPER_ANSWER_NS 30000000000ULL /* by then a peer has said hello, however busy the host is */
#define KEEPER_HANGS "its keeper does not answer: it hangs; stop, kill and rm -f end it"
struct call;
struct conn {
	int fd;
	struct mux *mux;
	uint64_t silent_ns;   /* since when nothing was heard; 0: the peer has spoken */
	uint64_t patience_ns; /* how long that may last */
	int error;	      /* the link is dead: -errno */
	const char *why;      /* static */
	/* bytes of streams; the handler must mux_consumed them in time */
	void (*data)(void *arg, struct call *call, unsigned stream, const uint8_t *p, size_t len);
	void *arg;
};
struct call {
	uint32_t ch;
	bool wants_news;				    /* a keeper WAIT: its events are keeper_news */
	bool opened, closed, eof, started, ended, has_exit; /* eof: of any stream */
	int code;					    /* of the close */
	char text[256];
	struct buf reply;	 /* bytes of OPENED */
	struct vm_exit record;	 /* ended */
	struct proto_event exit; /* has_exit */
};

/* fd: a connected stream socket, taken in any case. */
int conn_init(struct conn *conn, int fd, struct sm_error *err) MUST_CHECK;
void conn_done(struct conn *conn);
void conn_move(struct conn *to, struct conn *from); /* from is then as after conn_done */
int conn_call(struct conn *conn, uint16_t service, const struct buf *request, struct call *call) MUST_CHECK;
void call_done(struct call *call);
/* Waits up to timeout_ms (-1: for ever) for the link or one of extra[0 .. n) (their revents are filled in); reads and
 * writes what the link has. 0, or -errno once the link is dead. */
struct pollfd;
int conn_step(struct conn *conn, struct pollfd *extra, unsigned n, int timeout_ms) MUST_CHECK;
/* Until the call was opened or closed. 0, or its closing code with its text in err. what: for messages. */
int conn_await_open(struct conn *conn, struct call *call, const char *what, struct sm_error *err) MUST_CHECK;
int conn_await_open_within(struct conn *conn, struct call *call, uint64_t limit_ns, const char *what,
			   struct sm_error *err) MUST_CHECK; /* -ETIME: the time was up */
/* The error for a call that was closed or lost. */
int call_error(const struct conn *conn, const struct call *call, const char *what, struct sm_error *err);

/* ------------------------------------------------------------------------------------------ vm.c */

/* secrets.c: as they go to the keeper, in the order of their names. */
struct secrets {
	struct buf *v;
	char **names; /* NULL: none */
	size_t num;
};
int secrets_make(struct secrets *ret, const struct sm_secret *list, size_t count, struct sm_error *err) MUST_CHECK;
void secrets_done(struct secrets *s); /* overwrites them */
/* Whether these are all that this VM wants. */
int secrets_check(const struct vm_record *r, const struct secrets *s, struct sm_error *err) MUST_CHECK;

struct sm_vm {
	struct sm_client *client;
	char id[VM_ID_DIGITS + 1];
	pthread_mutex_t lock; /* the two below */
	int owner_fd;	      /* the connection whose end is the VM's, -1 */
	int transient_fd;     /* holds `transient`, -1 */
	bool background;      /* of sm_vm_options; before it is launched */
	uint64_t start_timeout_ns;
	struct secrets secrets;	     /* for the next start; before it is launched */
	pthread_mutex_t files_mutex; /* the two below; held while one of them comes or goes */
	struct sm_vm *files;	     /* what serves this one's files, as it has ended (ended.c); NULL: nothing */
	int files_lock;		     /* holds start.lock meanwhile, -1 */
	struct spare *spare;	     /* for one that is to be left behind (spare.h); NULL: none is */
	bool marked;		     /* of a pool's: it can go back to what it was before its first lease */
	struct conn *ready;	     /* of a pool's: a connection for whoever is first to want one (vm_dial); NULL */
	char **lease_env;	     /* of a pool's: what commands have beside the VM's own; fixed while it is leased */
};

/* A VM's present state. */
struct vm_view {
	enum sm_vm_state state;
	bool in_machine;
	bool hung;		     /* its keeper does not answer, nor is it gone: status is empty */
	struct keeper_status status; /* unless EXITED */
	struct vm_exit exit;	     /* if EXITED */
};
/* Asks the keeper; a VM whose keeper is gone without a record gets one here. -ETIMEDOUT: that hangs, and *ret says so.
 */
int vm_view(struct sm_client *c, const char *id, struct vm_view *ret, struct sm_error *err) MUST_CHECK;
/* Connects to its keeper: 0; -ESRCH (SM_ERROR_STATE) when it does not run. */
int vm_connect(struct sm_client *c, const char *id, struct conn *conn, struct sm_error *err) MUST_CHECK;
/* The same of a VM that is at hand: on the connection that is ready, if there is one. */
int vm_dial(struct sm_vm *vm, struct conn *conn, struct sm_error *err) MUST_CHECK;
/* A connected socket to the keeper that was started so, or -errno. wait_ns: in the machine, how long to wait for it to
 * listen. */
int vm_socket(struct sm_client *c, const char *id, const struct vm_start *start, uint64_t wait_ns,
	      struct sm_error *err) MUST_CHECK;
int vm_handle_new(struct sm_client *c, const char *id, struct sm_vm **ret, struct sm_error *err) MUST_CHECK;
/* The record of a VM that a dead link was about, once it is there. */
int vm_last_word(struct sm_client *c, const char *id, struct vm_exit *ret, struct sm_error *err) MUST_CHECK;
/* Ends its monitor at once. -ESRCH when it does not run. */
int vm_stop_now(struct sm_vm *vm, struct sm_error *err);
/* hung.c: kills its keeper, and the VM with it, if that hangs; the record tells. 0 as well when it did answer. */
int vm_end_hung(struct sm_client *c, const char *id, struct sm_error *err) MUST_CHECK;
bool vm_was_hung(int dir); /* and so it was ended: for its record */
/* As vm_request, and the connection is ready for the next (vm_dial): for a VM of a pool. */
int vm_request_ready(struct sm_vm *vm, uint16_t service, const char *what, struct sm_error *err) MUST_CHECK;
/* Has the keeper do one thing, and waits until it has. b: the request, or NULL; what: for messages. */
int vm_request(struct sm_vm *vm, uint16_t service, const struct buf *b, const char *what,
	       struct sm_error *err) MUST_CHECK;
/* secrets.c: sends those of the handle to its keeper, and forgets them. */
int secrets_deliver(struct sm_vm *vm, struct sm_error *err) MUST_CHECK;
/* The record of its end. */
int vm_write_exit(int dir, const struct vm_exit *x, struct sm_error *err) MUST_CHECK;
void outcome_copy(struct sm_outcome *to, const struct sm_outcome *from);

/* -------------------------------------------------------------------------------------- others */

/* execs.c: removes what a VM's last run has left of detached commands. */
void execs_sweep(int vmdir);

/* served.c: has what programs on this host serve carried to a VM in the machine, whose keeper was started and listens
 * on an early socket. link: a connection to that. */
int served_carry(struct sm_client *c, const struct vm_record *r, int link, struct sm_error *err) MUST_CHECK;

/* launch.c */
#define VM_DEFAULT_MEMORY (1024ULL << 20)
#define VM_DEFAULT_DISK (10ULL << 30)

struct launch {
	const char *dir; /* the VM's directory, absolute, with its record; nobody else starts it meanwhile */
	const char *id;
	bool detach, background;
	bool base;			    /* the VM is there to be saved (keeper.h) */
	const char *restore;		    /* the directory of the snapshot to start from; NULL: boot */
	const char *files;		    /* restore: vmsnap_restore.files, NULL: a snapshot on the disk */
	const char *under;		    /* restore: vmsnap_restore.under */
	const struct vm_origin *origin;	    /* of a branch, its parent's */
	bool adopt, booted;		    /* restore: of a VM with its processes (keeper.h) */
	bool resume;			    /* instead of restore: the VM itself is suspended */
	int64_t created_ns;		    /* of that snapshot */
	uint64_t window;		    /* base, restore: the size of the image window */
	uint64_t plugged;		    /* restore: memory beyond the base's */
	bool disk_ahead;		    /* restore: the base's guest has mounted the template of its disk */
	uint64_t since_ns;		    /* when the work for it began */
	uint64_t spare_ns;		    /* restore: it is a spare, for so long (keeper.h) */
	uint64_t patience_ns;		    /* how long it waits for its turn; 0: the default */
	const struct sm_progress *progress; /* told when that takes long; NULL: nobody is */
	const struct vm_record *rec;	    /* NULL: no mounts that a program serves */
};
/* admission.c: waits for its turn: a slot, for slots_release when the keeper answers; -EBUSY (SM_ERROR_BUSY): in vain.
 */
int admission_slot(struct sm_client *c, const struct launch *l, struct sm_error *err) MUST_CHECK;
uint64_t admission_patience(const struct launch *l);
/* Whether the keeper in this VM's directory waits. -ECANCELED: whoever was told so does not want to. */
int admission_waits(int dir, const struct launch *l, bool *ret, struct sm_error *err) MUST_CHECK;

/* Starts the keeper and waits until it answers: a connected socket. *ret_broken (may be NULL): it failed, and the
 * snapshot is to blame. */
int launch_keeper(struct sm_client *c, const struct launch *l, bool *ret_broken, struct sm_error *err) MUST_CHECK;
/* Starts the keeper of a spare, whose directory is `dir`, and does not wait for it. */
int launch_spare(struct sm_client *c, int dir, const struct launch *l, struct sm_error *err) MUST_CHECK;
/* Says on that connection (taken in any case) that the VM is to end with it, and waits until the keeper knows; call is
 * the WAIT channel. */
int launch_join(int fd, const char *id, struct conn *conn, struct call *call, struct sm_error *err) MUST_CHECK;
/* Starts a VM with this record, from a base snapshot unless the record says cold; without detach becomes its owner. The
 * caller holds its start.lock. */
int launch(struct sm_client *c, struct sm_vm *vm, const struct vm_record *rec, bool detach, uint64_t since_ns,
	   const struct sm_progress *progress, struct sm_error *err) MUST_CHECK;

/* The same from a snapshot of a VM. */
struct vmsnap_restore;
int launch_restored(struct sm_client *c, struct sm_vm *vm, const struct vmsnap_restore *from, bool detach,
		    uint64_t since_ns, const struct sm_progress *progress, struct sm_error *err) MUST_CHECK;

/*
 * suspend.c: VMs on the disk (keeper/suspend.c).
 */
bool vm_is_suspended(int vmdir); /* if no keeper runs it */
/* sm_vm_wait_started, and a suspended VM goes on first. */
int vm_wake(struct sm_vm *vm, struct sm_error *err) MUST_CHECK;
/* Ends a suspended VM: 1; 0: it is not suspended. */
int vm_drop_suspended(struct sm_vm *vm, struct sm_error *err) MUST_CHECK;

/* ended.c: what serves a VM's files, up: itself, which a suspended one wakes for, or in its place another until done.
 */
int vm_files(struct sm_vm *vm, struct sm_vm **ret, struct sm_error *err) MUST_CHECK;
void vm_files_done(struct sm_vm *vm);

/* audit.c: once the record's mounts are known. */
int audit_from_options(struct vm_record *r, const struct sm_vm_options *o, struct sm_error *err) MUST_CHECK;
/* The same for a mount of source on this host: a descriptor. */
int audit_of_mount(const char *path, const char *source, bool read_only, struct sm_error *err) MUST_CHECK;
/* idle.c: checks the options alone; sets the record, whose mounts are known. */
int idle_check(const struct sm_vm_options *o, struct sm_error *err) MUST_CHECK;
int idle_from_options(struct vm_record *r, const struct sm_vm_options *o, struct sm_error *err) MUST_CHECK;

/* start.c, for restore.c and back. */
struct vmsnap_restore;
/* How many CPUs a VM of these options has. */
unsigned start_cpus(const struct sm_vm_options *o);
/* What is a VM's own, wherever it starts from. */
int start_check_own(const struct sm_vm_options *o, struct sm_error *err) MUST_CHECK;
/* An id, the time, and what the options say of name and keeping. */
int start_new_identity(struct vm_record *r, const struct sm_vm_options *o, struct sm_error *err) MUST_CHECK;
/* Makes a VM with this record and starts it. from: the snapshot that it goes on from, NULL: none. disk: the directory
 * of one that has ended, whose disk it has as well; -1: it has its own. */
int start_record(struct sm_client *c, const struct vm_record *r, const struct sm_vm_options *o,
		 struct vmsnap_restore *from, int disk, uint64_t since, struct sm_vm **ret,
		 struct sm_error *err) MUST_CHECK;
/* A descriptor of start.lock, while which is open nobody else starts the VM, that does not run, as it was seen. */
int start_lock(struct sm_vm *vm, int dir, enum sm_vm_state seen, struct sm_error *err) MUST_CHECK;
int start_restored(struct sm_client *c, const struct sm_vm_options *o, struct sm_vm **ret,
		   struct sm_error *err) MUST_CHECK;

/* disk.c: the formatted, read-only template of a disk of this size. */
int disk_template(struct sm_client *c, uint64_t size, const struct sm_progress *progress, char **ret,
		  struct sm_error *err) MUST_CHECK;
/* Whether it is there, so that nothing needs to be formatted. */
bool disk_has_template(struct sm_client *c, uint64_t size);

/* boot.c: kernel and initramfs for microVMs. */
int boot_files(struct sm_client *c, const char *kernel, char **ret_kernel, char **ret_initramfs,
	       struct sm_error *err) MUST_CHECK;

/* image.c: a handle of an image that was found, which it takes over in any case; ret may be NULL. */
int image_give(struct image_info *info, struct sm_image **ret, struct sm_error *err) MUST_CHECK;
struct image_limits image_limits_of(const struct sm_image_limits *l, unsigned threads);

/*
 * pull.c: by reference, from the store or a registry, or by a source that is loaded first. Pinned: safe from prune
 * until image_unpin, that is until the VM's record is there to hold it.
 */
int image_for_run(struct sm_client *c, const struct sm_vm_options *o, struct image_info *ret,
		  struct image_pin **ret_pin, struct sm_error *err) MUST_CHECK;

/* mounts.c: the directories of the host and volumes that the options name, checked, in the order in which they are
 * mounted. */
int mounts_from_options(struct sm_client *c, struct vm_record *r, const struct sm_vm_options *o,
			struct sm_error *err) MUST_CHECK;
/* Of a VM that goes on from a snapshot: other sources for mounts that it has, which stay what they were else. */
int mounts_replace(struct sm_client *c, struct vm_record *r, const struct sm_vm_options *o, bool booted,
		   struct sm_error *err) MUST_CHECK;

/* watched.c: has the mounts of a VM in the machine watched on this host. What fails is said, and no error. */
void mounts_watch(struct sm_vm *vm, const struct vm_record *r);
/* Adds to a running VM's mounts, as JSON, how each is watched. */
struct json_t;
void mounts_say_watched(int dir, struct json_t *mounts);

/* tmpfs.c: what the options say of /etc/hosts, of file systems in memory and of the root. */
int container_from_options(struct vm_record *r, const struct sm_vm_options *o, struct sm_error *err) MUST_CHECK;

/* ports.c: ports of the host that lead into a VM, and of a VM that lead to the host. */
#define PORTS_MAX 64
struct ports {
	unsigned n;
	int fds[PORTS_MAX];	/* listening; -1: it leads from the guest to the host */
	char *texts[PORTS_MAX]; /* as they are now (keeper/porttext.h) */
	struct {
		char *path; /* of a unix socket that was made here, until somebody serves it; NULL: none was */
		dev_t dev;
		ino_t ino;
	} made[PORTS_MAX];
	struct buf text; /* what the VM's file `ports` says */
	int waiter;	 /* the VM was suspended: who waited with these, and is to be told that they are served; -1 */
};
int ports_from_options(struct vm_record *r, const struct sm_vm_options *o, struct sm_error *err) MUST_CHECK;
/* Opens the record's: before anything else of a start, so that one that is taken is told first. Those of a suspended VM
 * are taken over from whoever waits with them. */
int ports_open(struct sm_client *c, const struct vm_record *r, struct ports *ret, struct sm_error *err) MUST_CHECK;
/* How many of a record's lead from the host to the guest. */
unsigned ports_outward(char *const *ports);
/* Has them served for a VM whose keeper runs. */
int ports_serve(struct sm_vm *vm, struct ports *p, struct sm_error *err) MUST_CHECK;
void ports_done(struct ports *p);
/* Whether somebody waits at the ports of this VM, which is suspended, to wake it. */
bool ports_waited(struct sm_client *c, const char *id);
/* Gives him who carried its connections until now a moment to begin to. */
void ports_await_waiter(struct sm_vm *vm);
/* What sm_vm_info tells: texts point into *ret_text. Both to free. */
int ports_read(int vmdir, const struct vm_record *r, bool runs, struct sm_port **ret, size_t *ret_count,
	       char **ret_text) MUST_CHECK;

/* exec.c: "NAME=SOFT[:HARD]", all of them. */
int ulimits_check(const char *const *limits, struct sm_error *err) MUST_CHECK;

/* signals.c: "SIGTERM", "TERM", "15" to a Linux x86 number, -EINVAL. */
int signal_parse(const char *s);

/* What a VM's environment has where its image has no PATH. */
#define START_DEFAULT_PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* strv.c: lists of strings. */
char **strv_copy(const char *const *v); /* NULL: NULL, or no memory */
void strv_free(char **v);
size_t strv_len(const char *const *v);
#define COMMAND_MAX_STRING 131072u
#define COMMAND_MAX (PROTO_MAX_OPEN - 131072u) /* what is left is for the rest of a request */
/* SM_ERROR_LIMIT: longer than a request may be, or than the kernel takes. */
int command_fits(const char *const *argv, const char *const *env, struct sm_error *err) MUST_CHECK;
/* base with over's "K=V" on top; NULL: no memory. */
char **env_merge(const char *const *base, const char *const *over);
bool env_has(char *const *env, const char *key);

#endif
