/* SPDX-License-Identifier: Apache-2.0 */
/*
 * supermachine: OCI images as hardware-isolated microVMs.
 *
 * The one public header of libsupermachine. Plain C11 (and C++17), opaque handles, no global state,
 * no signal handlers, no printing, no exit.
 */
#ifndef SUPERMACHINE_H
#define SUPERMACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SM_PUBLIC __attribute__((visibility("default")))
#else
#define SM_PUBLIC
#endif

/* ------------------------------------------------------------------------------------------ errors */

/** What sort of thing went wrong: stable numbers that a program may switch on. */
enum sm_error_kind {
	SM_ERROR_NONE = 0,
	SM_ERROR_INVALID = 1,	  /**< The caller's argument or option is wrong. */
	SM_ERROR_NOT_FOUND = 2,	  /**< No such image, VM, file or command. */
	SM_ERROR_EXISTS = 3,	  /**< The name is taken. */
	SM_ERROR_CORRUPT = 4,	  /**< Input that breaks its own format: an image, a record, a frame. */
	SM_ERROR_LIMIT = 5,	  /**< Input larger than a limit allows. */
	SM_ERROR_UNSUPPORTED = 6, /**< A valid request that this version or host cannot serve. */
	SM_ERROR_HOST = 7,	  /**< The host lacks something: KVM, a kernel, space, a permission. */
	SM_ERROR_GUEST = 8,	  /**< The guest failed: a panic, an agent that broke the protocol. */
	SM_ERROR_STATE = 9,	  /**< Not possible in the object's present state (a stopped VM, say). */
	SM_ERROR_TIMEOUT = 10,	  /**< A limit on time ran out. */
	SM_ERROR_CANCELLED = 11,  /**< The caller asked to stop. */
	SM_ERROR_IO = 12,	  /**< A system call failed; @ref sm_error.code says how. */
};

#define SM_ERROR_MESSAGE_SIZE 1024

/**
 * Why a call failed. Caller-owned storage: put it on the stack, zeroed, and pass its address, or pass NULL.
 * Written only on failure. `message` is one line, names the image, VM or path it is about, and ends
 * without a full stop or newline.
 */
struct sm_error {
	enum sm_error_kind kind;
	int code; /**< A positive errno; the call returned its negation. */
	char message[SM_ERROR_MESSAGE_SIZE];
};

/* ------------------------------------------------------------------------------------ common rules */
/*
 * - Calls that can fail return 0 or -errno and fill the optional last `struct sm_error`. Out-parameters (`ret...`) are
 *   written on success only, unless the call says otherwise.
 * - Option structs begin with their own size: always start from the initializer macro. A zero member is the default.
 *   A NULL pointer to options means all defaults, where a call allows it. Options, and what they point to, are only
 * read during the call.
 * - Strings are bytes as the host has them. Lists of strings are arrays that end with a NULL pointer.
 * - Times are nanoseconds; those on the calendar count from 1970 UTC. Sizes are bytes.
 * - Handles are thread-safe, except that nobody may use one while or after it is closed. Close functions take NULL and
 *   return NULL. Every handle belongs to its client: close it before the client.
 * - The library starts helper programs without leaving the caller a child or a SIGCHLD, and every descriptor that it
 *   opens is close-on-exec. Calls that write to a caller's descriptor ask for no SIGPIPE: a caller that passes pipes
 *   and does not ignore SIGPIPE gets it as from write(2).
 */

/** The library's version, "0.1.0". A static string. */
SM_PUBLIC const char *sm_version(void);

/** Frees a string that a call here returned through a `char **ret`. NULL is allowed. */
SM_PUBLIC void sm_free(void *p);

/**
 * How a long call tells how far it is. `stage` is a short static text ("layers", "metadata", "template");
 * `total` is 0 when unknown; the unit is bytes. Called from one thread at a time, maybe not the caller's. A nonzero
 * return asks to stop: the call then fails with -ECANCELED and leaves things as they were.
 */
struct sm_progress {
	int (*update)(void *arg, const char *stage, uint64_t done, uint64_t total);
	void *arg;
};

/* ------------------------------------------------------------------------------------------ client */

/** A state directory with its images and VMs, and the helper programs to run them with. */
struct sm_client;

enum sm_log_level { SM_LOG_ERROR = 1, SM_LOG_NOTICE = 2, SM_LOG_INFO = 3, SM_LOG_DEBUG = 4 };

/** Whether VMs run on this host's KVM or in the machine (a Linux under emulation that has KVM). */
enum sm_machine_mode {
	SM_MACHINE_DEFAULT = 0, /**< As SUPERMACHINE_MACHINE says (auto, always, never), else automatic. */
	SM_MACHINE_AUTO = 1,	/**< The machine where the host's KVM is missing or merely interprets. */
	SM_MACHINE_ALWAYS = 2,
	SM_MACHINE_NEVER = 3,
};

struct sm_client_options {
	size_t size;
	/** Puts data, state and runtime directories under one; NULL: $SUPERMACHINE_HOME, else the three XDG places. */
	const char *home;
	/** Where supermachine-keeper, supermachine-vmm and the agent are; NULL: $SUPERMACHINE_LIBEXEC, else beside the
	 * running executable, else in the installation's libexec directory. */
	const char *libexec_dir;
	enum sm_machine_mode machine;
	/** One line without newline. May come from any thread, one at a time. NOTICE is meant for the user to see. */
	void (*log)(void *arg, enum sm_log_level level, const char *line);
	void *log_arg;
};
#define SM_CLIENT_OPTIONS_INIT                                                                                         \
	{                                                                                                              \
		.size = sizeof(struct sm_client_options)                                                               \
	}

/** Opens a client; makes the directories that are missing. options may be NULL. Cheap: starts nothing. */
SM_PUBLIC int sm_client_open(const struct sm_client_options *options, struct sm_client **ret, struct sm_error *err);
SM_PUBLIC struct sm_client *sm_client_close(struct sm_client *client);

/* ------------------------------------------------------------------------------------------ images */

/** An image in the store, as it was when this handle was made. Immutable. */
struct sm_image;

/** What there is to know about an image. Owned by the handle. */
struct sm_image_info {
	const char *id;		       /**< 64 hexadecimal digits. */
	const char *digest;	       /**< "sha256:..." of its manifest. */
	const char *const *names;      /**< References, maybe none. */
	const char *os, *architecture; /**< As OCI spells them: "linux", "amd64". */
	int64_t created_ns;	       /**< 0: unknown. */
	uint64_t allocated_size;       /**< Bytes on disk of all its files. */
	uint64_t shared_size;	       /**< Of those, what other images use too. */
	unsigned layers;
};

/** Limits against hostile images; 0: the default. See docs/SECURITY. */
struct sm_image_limits {
	uint64_t max_entries, max_layer_bytes, max_image_bytes;
	unsigned max_layers, max_depth, max_path;
};

struct sm_load_options {
	size_t size;
	const char *name;     /**< Reference to give the image; NULL: the one the source carries, or none. */
	const char *platform; /**< "linux/amd64"; NULL: this host's. */
	struct sm_image_limits limits;
	unsigned threads; /**< Layers converted at once; 0: as many as CPUs. */
	struct sm_progress progress;
};
#define SM_LOAD_OPTIONS_INIT                                                                                           \
	{                                                                                                              \
		.size = sizeof(struct sm_load_options)                                                                 \
	}

/**
 * Loads an image: "oci:DIR[:TAG]", "oci-archive:FILE[:TAG]", "docker-archive:FILE[:REF]", "dir:PATH", or "-" (an
 * archive on standard input). ret may be NULL. A failed load leaves the store as it was.
 */
SM_PUBLIC int sm_image_load(struct sm_client *client, const char *source, const struct sm_load_options *options,
			    struct sm_image **ret, struct sm_error *err);
/** Finds one by reference, id, or unique prefix of an id (4 digits or more). */
SM_PUBLIC int sm_image_open(struct sm_client *client, const char *ref, struct sm_image **ret, struct sm_error *err);
SM_PUBLIC struct sm_image *sm_image_close(struct sm_image *image);
SM_PUBLIC const struct sm_image_info *sm_image_info(const struct sm_image *image);

/** All images, newest first. *ret is an array of handles; sm_image_list_free closes them and frees it. */
SM_PUBLIC int sm_image_list(struct sm_client *client, struct sm_image ***ret, size_t *ret_count, struct sm_error *err);
SM_PUBLIC void sm_image_list_free(struct sm_image **images, size_t count);

/** Everything about an image, as JSON text to sm_free. */
SM_PUBLIC int sm_image_inspect(struct sm_client *client, const char *ref, char **ret_json, struct sm_error *err);
/** Gives the image one more name; a name that another image has moves to this one. */
SM_PUBLIC int sm_image_tag(struct sm_client *client, const char *ref, const char *name, struct sm_error *err);
/**
 * Takes one name away; by id, all names. Without a name left the image is removed; its layers go at the next prune.
 * -EBUSY (SM_ERROR_STATE) when a VM still has the image, unless force: running VMs are not disturbed.
 */
SM_PUBLIC int sm_image_remove(struct sm_client *client, const char *ref, bool force, struct sm_error *err);

struct sm_prune_result {
	unsigned images, blobs, temporaries; /**< How many were removed. */
	uint64_t bytes;			     /**< How much space that gave back. */
};
/** Removes what no image refers to; all: also images without a name that no VM has. ret may be NULL. */
SM_PUBLIC int sm_image_prune(struct sm_client *client, bool all, struct sm_prune_result *ret, struct sm_error *err);
/** Writes the image's file system as one sparse EROFS file, to check or to mount elsewhere. */
SM_PUBLIC int sm_image_export_erofs(struct sm_client *client, const char *ref, const char *path, struct sm_error *err);

/* --------------------------------------------------------------------------------------------- VMs */

/** Why a VM or a command ended. */
enum sm_reason {
	SM_REASON_NONE = 0,	 /**< It has not. */
	SM_REASON_EXITED = 1,	 /**< By itself; `status` is its exit status. */
	SM_REASON_SIGNALLED = 2, /**< By the signal `signal`; `status` is 128 + signal. */
	SM_REASON_TIMEOUT = 3,	 /**< Its time limit ran out; status 124. */
	SM_REASON_TTL = 4,
	SM_REASON_IDLE = 5,
	SM_REASON_OOM = 6,	    /**< Killed as the guest was out of memory; status 137. */
	SM_REASON_DISK_FULL = 7,    /**< Failed after its disk had filled up. */
	SM_REASON_GUEST_PANIC = 8,  /**< The guest's kernel gave up: `message` has the console's last line. */
	SM_REASON_MONITOR_DIED = 9, /**< The monitor crashed or was killed. */
	SM_REASON_HOST_RESTARTED = 10,
	SM_REASON_STOPPED = 11,	       /**< By sm_vm_stop, sm_vm_kill or a signal during its start. */
	SM_REASON_KEEPER_DIED = 12,    /**< The keeper crashed or was killed. */
	SM_REASON_CLIENT_GONE = 13,    /**< The program that ran it in the foreground went away. */
	SM_REASON_START_FAILED = 14,   /**< It never came as far as its command: status 125, `message` says why. */
	SM_REASON_NOT_FOUND = 15,      /**< No such command in the image; status 127. */
	SM_REASON_NOT_EXECUTABLE = 16, /**< The command cannot be executed; status 126. */
	SM_REASON_GUEST_SHUTDOWN = 17, /**< The guest powered itself off or rebooted while the command ran. */
};
/** "exited", "disk-full", ... as --outcome writes it; "none" for what is unknown. A static string. */
SM_PUBLIC const char *sm_reason_name(enum sm_reason reason);

#define SM_MAX_STAGES 16
#define SM_STAGE_NAME_SIZE 24

/** One step of a VM's life and how long it took. */
struct sm_stage {
	char name[SM_STAGE_NAME_SIZE]; /**< "prepare", "monitor", "boot", "setup", "command", "shutdown" ... */
	uint64_t ns;
};

/** How a VM or a command ended. Caller-owned; start from the initializer. */
struct sm_outcome {
	size_t size;
	enum sm_reason reason;
	int status;	      /**< What a shell would show: 0-255. */
	int signal;	      /**< The signal that ended it, in Linux x86 numbers, or 0. */
	uint64_t duration_ns; /**< Of the command. */
	uint64_t peak_rss;    /**< Largest resident size of its processes, in bytes; 0: unknown. */
	char message[512];    /**< A line for a person when the reason needs one, else "". */
	unsigned num_stages;
	struct sm_stage stages[SM_MAX_STAGES];
};
#define SM_OUTCOME_INIT                                                                                                \
	{                                                                                                              \
		.size = sizeof(struct sm_outcome)                                                                      \
	}

/** A VM: a record, a disk, and while it runs a keeper to talk to. */
struct sm_vm;

struct sm_vm_options {
	size_t size;
	const char *image; /**< A reference, or a source as for sm_image_load, which is then loaded first. Required. */
	const char *name;  /**< [a-zA-Z0-9][a-zA-Z0-9_.-]*, at most 63; NULL: none. -EEXIST when taken. */
	const char *hostname; /**< NULL: the first 12 digits of its id. */
	uint64_t memory;      /**< Rounded up to 2 MiB; 0: 1 GiB. At least 128 MiB. */
	unsigned cpus;	      /**< 1 to 16; 0: 1. */
	uint64_t disk_size;   /**< Of the writable layer, sparse; 0: 10 GiB. */
	bool tmpfs_root;      /**< The writable layer is in the guest's memory: no disk, nothing stays. */
	const char *kernel;   /**< Kernel file; NULL: the distribution's. */
	const char *const
		*entrypoint;	   /**< Instead of the image's, whose Cmd is then unused too; an empty list: none. */
	const char *const *argv;   /**< Instead of the image's Cmd; NULL: the image's. */
	const char *const *env;	   /**< "K=V" on top of the image's; the last wins. */
	const char *user;	   /**< "user[:group]", by name or number; NULL: the image's. */
	const char *cwd;	   /**< Made if missing; NULL: the image's, or "/". */
	const char *stop_signal;   /**< "SIGTERM", "TERM" or "15"; NULL: the image's, or SIGTERM. */
	bool tty;		   /**< The command gets a terminal; its output is one stream. */
	uint16_t rows, cols;	   /**< The terminal's size; 0: 24 by 80. */
	bool stdin_open;	   /**< Else the command reads end of file. */
	uint64_t timeout_ns;	   /**< For the command, from its start; 0: none. */
	bool keep;		   /**< Record and disk stay when it ends; else they are removed (see sm_vm_close). */
	bool detach;		   /**< It lives on without its client. Else it ends when the handle's owner goes. */
	const char *const *labels; /**< "K=V". */
	struct sm_image_limits limits; /**< When a source is loaded. */
	struct sm_progress progress;
};
#define SM_VM_OPTIONS_INIT                                                                                             \
	{                                                                                                              \
		.size = sizeof(struct sm_vm_options)                                                                   \
	}

/**
 * Makes a VM and starts it. Returns as soon as its keeper runs, before the guest has booted: go on with sm_vm_attach
 * (then sm_exec_wait), sm_vm_wait_started or sm_vm_wait. A failure up to here leaves no VM; a later one is its outcome
 * (SM_REASON_START_FAILED). Where the host's KVM is of no use this starts the machine first, with a NOTICE.
 *
 * Without `detach` the command waits for sm_vm_attach, and the VM ends with the handle, that is when it is closed or
 * the process dies. With `detach` output goes to the log until somebody attaches.
 */
SM_PUBLIC int sm_vm_start(struct sm_client *client, const struct sm_vm_options *options, struct sm_vm **ret,
			  struct sm_error *err);
/** Starts a kept VM that has ended, with its disk and the same command. detach as above. -EBUSY while it runs. */
SM_PUBLIC int sm_vm_start_again(struct sm_vm *vm, bool detach, struct sm_error *err);

/** Finds a VM by id, unique prefix of an id (4 digits or more), or name. */
SM_PUBLIC int sm_vm_open(struct sm_client *client, const char *ref, struct sm_vm **ret, struct sm_error *err);
/** Closes the handle. Ends a VM that this handle started without `detach`; one that has ended and is not kept is
 * removed. */
SM_PUBLIC struct sm_vm *sm_vm_close(struct sm_vm *vm);
/** 12 hexadecimal digits. Owned by the handle. */
SM_PUBLIC const char *sm_vm_id(const struct sm_vm *vm);

enum sm_vm_state {
	SM_VM_STARTING = 1, /**< The guest boots. */
	SM_VM_RUNNING = 2,  /**< The command runs. */
	SM_VM_STOPPING = 3, /**< The command has ended or was asked to; the guest goes down. */
	SM_VM_EXITED = 4,   /**< Ended; the outcome says how. */
};
/** "starting", "running", "stopping", "exited". A static string. */
SM_PUBLIC const char *sm_vm_state_name(enum sm_vm_state state);

/** A VM as it was at one moment. Made by sm_vm_query and sm_vm_list, freed by their counterparts. */
struct sm_vm_info {
	const char *id;
	const char *name;  /**< "" when it has none. */
	const char *image; /**< As it was asked for. */
	const char *image_id;
	const char *const *argv; /**< The whole command, entrypoint included. */
	const char *const *labels;
	const char *directory; /**< With its record, log and console. */
	enum sm_vm_state state;
	bool keep;
	bool tty, stdin_open; /**< As it was started. */
	uint64_t memory, disk_size;
	unsigned cpus;
	int64_t created_ns, started_ns, finished_ns; /**< 0: not yet. started: of the command. */
	int64_t keeper_pid, monitor_pid;	     /**< Where the VM runs: on this host or in the machine; 0: none. */
	bool in_machine;
	struct sm_outcome outcome; /**< When EXITED. */
};
SM_PUBLIC int sm_vm_query(struct sm_vm *vm, struct sm_vm_info **ret, struct sm_error *err);
SM_PUBLIC struct sm_vm_info *sm_vm_info_free(struct sm_vm_info *info);
/** VMs that run, or all; newest first. */
SM_PUBLIC int sm_vm_list(struct sm_client *client, bool all, struct sm_vm_info ***ret, size_t *ret_count,
			 struct sm_error *err);
SM_PUBLIC void sm_vm_list_free(struct sm_vm_info **list, size_t count);
/** Everything about a VM, as JSON text to sm_free. */
SM_PUBLIC int sm_vm_inspect(struct sm_vm *vm, char **ret_json, struct sm_error *err);

/**
 * Waits until the command runs. Fails with the reason when the VM ends before, and with -ETIMEDOUT after timeout_ns
 * (0: no limit). A command that could not be started is such an end: outcome (may be NULL) then has its status.
 */
SM_PUBLIC int sm_vm_wait_started(struct sm_vm *vm, uint64_t timeout_ns, struct sm_outcome *outcome,
				 struct sm_error *err);
/** Waits for the end, up to timeout_ns (0: no limit; then -ETIMEDOUT). At once for a VM that has ended. */
SM_PUBLIC int sm_vm_wait(struct sm_vm *vm, uint64_t timeout_ns, struct sm_outcome *ret, struct sm_error *err);
/** Sends the stop signal, ends the VM after grace_ns at the latest (0: 10 s; UINT64_MAX: no limit), and waits for that.
 * Success when it has ended already. */
SM_PUBLIC int sm_vm_stop(struct sm_vm *vm, uint64_t grace_ns, struct sm_error *err);
/** Sends a signal (Linux x86 number) to the command. After SIGKILL waits for the VM's end, 10 s at most. -ESRCH when it
 * has ended already. */
SM_PUBLIC int sm_vm_kill(struct sm_vm *vm, int signal, struct sm_error *err);
/** Removes a VM with its disk and log. -EBUSY while it runs, unless force, which ends it first. */
SM_PUBLIC int sm_vm_remove(struct sm_vm *vm, bool force, struct sm_error *err);

struct sm_logs_options {
	size_t size;
	bool follow;		  /**< Go on until the VM ends. */
	bool timestamps;	  /**< Put an RFC 3339 time before each line. */
	uint64_t tail;		  /**< Only the last so many lines; 0: all. */
	int stdout_fd, stderr_fd; /**< Where to write; -1: leave that stream out. */
	int cancel_fd;		  /**< Stop (-ECANCELED) when this becomes readable; -1: none. */
};
#define SM_LOGS_OPTIONS_INIT                                                                                           \
	{                                                                                                              \
		.size = sizeof(struct sm_logs_options), .stdout_fd = -1, .stderr_fd = -1, .cancel_fd = -1              \
	}
/** Writes what the command has printed to the caller's descriptors. */
SM_PUBLIC int sm_vm_logs(struct sm_vm *vm, const struct sm_logs_options *options, struct sm_error *err);
/** The guest's console (kernel messages), as text to sm_free. */
SM_PUBLIC int sm_vm_console(struct sm_vm *vm, char **ret, struct sm_error *err);

/* ------------------------------------------------------------------------- commands and their streams */

/** A command in a VM or in the machine, and its streams. */
struct sm_exec;

struct sm_exec_options {
	size_t size;
	const char *const *argv; /**< The command; found by PATH when it has no slash. Required. */
	const char *const *env;	 /**< "K=V" on top of the container's. */
	bool clear_env;		 /**< env is all there is. */
	const char *cwd;	 /**< NULL: the container's. */
	const char *user;	 /**< NULL: the container's. */
	bool tty;
	uint16_t rows, cols; /**< 0: 24 by 80. */
	bool stdin_open;     /**< Else the command reads end of file, and stdin_fd is unused. */
	uint64_t timeout_ns; /**< 0: none. */
	/**
	 * The caller's descriptors that sm_exec_wait pumps to and from; -1: none (output is read and dropped). They
	 * stay the caller's, must live until sm_exec_wait returns, and their flags are left alone. Any kind: file,
	 * pipe, socket, tty.
	 */
	int stdin_fd, stdout_fd, stderr_fd;
};
#define SM_EXEC_OPTIONS_INIT                                                                                           \
	{                                                                                                              \
		.size = sizeof(struct sm_exec_options), .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1               \
	}

/** Starts a command in a running VM (waits for the guest's boot). The command does not run yet when this returns: a
 * command that cannot be started is an outcome (127, 126) of sm_exec_wait. */
SM_PUBLIC int sm_vm_exec(struct sm_vm *vm, const struct sm_exec_options *options, struct sm_exec **ret,
			 struct sm_error *err);
/**
 * Joins the VM's own command: its output from now on (all of it for a VM started without `detach`), and its input if
 * stdin_open here and at the start. Of the options only stdin_open, rows, cols and the descriptors count. One client at
 * a time: -EBUSY. Works while the guest still boots.
 */
SM_PUBLIC int sm_vm_attach(struct sm_vm *vm, const struct sm_exec_options *options, struct sm_exec **ret,
			   struct sm_error *err);

/**
 * Pumps the streams in the calling thread until the command has ended and its output is written, then fills *ret.
 * Call it once. Output that can no longer be written (a closed pipe) is dropped, as if the reader were gone: for stdout
 * and stderr of sm_vm_attach and sm_vm_exec the command then gets end-of-pipe behaviour as far as its streams allow.
 * After sm_exec_detach: -ECANCELED.
 */
SM_PUBLIC int sm_exec_wait(struct sm_exec *exec, struct sm_outcome *ret, struct sm_error *err);
/** These three may be called from any thread while sm_exec_wait runs, and before it. They only queue. */
SM_PUBLIC int sm_exec_resize(struct sm_exec *exec, uint16_t rows, uint16_t cols, struct sm_error *err);
SM_PUBLIC int sm_exec_signal(struct sm_exec *exec, int signal, struct sm_error *err);
SM_PUBLIC int sm_exec_detach(struct sm_exec *exec, struct sm_error *err);
/** Lets go of the streams. A command of sm_vm_exec that still runs gets SIGHUP; one of sm_vm_attach goes on, unless its
 * VM was started without `detach`, which ends with its owner. */
SM_PUBLIC struct sm_exec *sm_exec_close(struct sm_exec *exec);

/* ---------------------------------------------------------------------------------------- the machine */

struct sm_machine_status {
	size_t size;
	bool needed;   /**< VMs of this client run in the machine. */
	char why[256]; /**< What the probe of this host's KVM found, one line. */
	bool running;
	int64_t pid;	 /**< Of its emulator, 0: none. */
	uint64_t memory; /**< Bytes it may use at most. */
	unsigned cpus;
	uint64_t uptime_ns;
	unsigned busy; /**< How many VMs and commands keep it from stopping by itself. */
};
#define SM_MACHINE_STATUS_INIT                                                                                         \
	{                                                                                                              \
		.size = sizeof(struct sm_machine_status)                                                               \
	}

/** Starts it and waits until it answers; success when it runs already. progress may be NULL. */
SM_PUBLIC int sm_machine_start(struct sm_client *client, const struct sm_progress *progress, struct sm_error *err);
/** Stops it and all that runs inside; success when it does not run. */
SM_PUBLIC int sm_machine_stop(struct sm_client *client, struct sm_error *err);
SM_PUBLIC int sm_machine_status(struct sm_client *client, struct sm_machine_status *ret, struct sm_error *err);
/** Runs a command in the machine, starting it if need be. cwd NULL: "/"; the environment is `env` alone. */
SM_PUBLIC int sm_machine_exec(struct sm_client *client, const struct sm_exec_options *options, struct sm_exec **ret,
			      struct sm_error *err);

/* --------------------------------------------------------------------------------------------- doctor */

struct sm_finding {
	const char *id; /**< "kvm", "machine", "kernel", "qemu", "space", "helpers" ...: stable. */
	bool ok;
	bool required;	     /**< VMs cannot run while this is not ok. */
	const char *message; /**< What was found, one line. */
	const char *fix;     /**< The line to paste, or "". */
};
/** Looks at what running a VM needs on this host. Freed by sm_doctor_free. */
SM_PUBLIC int sm_doctor(struct sm_client *client, struct sm_finding **ret, size_t *ret_count, struct sm_error *err);
SM_PUBLIC void sm_doctor_free(struct sm_finding *findings, size_t count);

#ifdef __cplusplus
}
#endif
#endif
