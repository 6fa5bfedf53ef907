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
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

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
	SM_ERROR_BUSY = 13,	  /**< All that may be used at once is in use; later it may not be. */
	SM_ERROR_DENIED = 14,	  /**< A registry wants a login, or another one (sm_registry_login). */
	SM_ERROR_NETWORK = 15,	  /**< A registry cannot be found or reached, or breaks off. */
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
 * How a long call tells how far it is. `stage` is a short static text ("manifest", "layers", "metadata", "template");
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
	/** How long the process that serves a VM, its keeper, may say nothing before it is taken to hang; where only
	 * its state is asked for, a third of that. 0: $SUPERMACHINE_ANSWER_TIMEOUT, else 30 s. */
	uint64_t answer_timeout_ns;
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
	/* Its configuration. Lists are NULL where it has none. */
	const char *const *entrypoint, *const *cmd, *const *env;
	const char *user, *cwd, *stop_signal; /**< "" where it has none. */
	const char *const *ports;	      /**< "80/tcp" */
	const char *const *volumes;	      /**< "/data" */
	const char *const *labels;	      /**< "K=V" */
	const char *const *diff_ids;	      /**< "sha256:..." of each layer, the lowest first. */
};

/** Limits against hostile images; 0: the default. See SECURITY.md. */
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

/** When an image that a VM is made of is fetched from its registry. */
enum sm_pull {
	SM_PULL_DEFAULT = 0, /**< As SUPERMACHINE_PULL says (missing, always, never), else MISSING. */
	SM_PULL_MISSING = 1, /**< If the store has none of that name. */
	SM_PULL_ALWAYS = 2,  /**< The name is looked up anew; what the store has of the image is not fetched again. */
	SM_PULL_NEVER = 3,   /**< What is not in the store is not found. */
};

struct sm_pull_options {
	size_t size;
	const char *platform; /**< "linux/amd64"; NULL: this host's. */
	struct sm_image_limits limits;
	unsigned threads; /**< Layers fetched and converted at once; 0: as many as CPUs. */
	struct sm_progress progress;
};
#define SM_PULL_OPTIONS_INIT                                                                                           \
	{                                                                                                              \
		.size = sizeof(struct sm_pull_options)                                                                 \
	}

/**
 * Fetches the image "name[:tag][@digest]" from its registry, or finds that the store has it: one request then. Each
 * layer goes straight into the store, held to its digest; one that breaks off goes on where it broke. A failed or
 * killed pull leaves the store as it was, but for whole layers, which the next one finds. The image's name is the
 * reference.
 *
 * The registry is part of the name (docker's default one if it has none), and is spoken to by https, one on this host
 * by http too. -EACCES (SM_ERROR_DENIED): it wants a login, see sm_registry_login. SM_ERROR_NETWORK: it cannot be
 * reached; SM_ERROR_CORRUPT: it sent something else than it promised. ret may be NULL.
 */
SM_PUBLIC int sm_image_pull(struct sm_client *client, const char *ref, const struct sm_pull_options *options,
			    struct sm_image **ret, struct sm_error *err);

/**
 * A file or a directory of the host that comes into an image. An array of these has the first one's size as its stride.
 */
struct sm_image_file {
	size_t size;
	const char *source; /**< On the host; relative to the working directory of the caller. A symbolic link is
			       followed here, those in a directory are copied. */
	/**
	 * In the image, absolute. A file is put into what ends with a slash or is a directory there, else it gets this
	 * name. Of a directory the contents are put there; directories that the image has stay as they are, at the end
	 * of symbolic links too, and what is missing on the way is made.
	 */
	const char *target;
	const char *owner; /**< "UID[:GID]", numbers; NULL: 0:0. */
	uint32_t mode;	   /**< Permissions of all files; directories have x where this has r. 0: as on the host. */
};
#define SM_IMAGE_FILE_INIT                                                                                             \
	{                                                                                                              \
		.size = sizeof(struct sm_image_file)                                                                   \
	}

/** What an image is built from. */
struct sm_image_build_options {
	size_t size;
	/** The image that it begins with: a reference (see `pull`), or a source as for sm_image_load. Required. */
	const char *image;
	const char *name; /**< Reference to give the new one, taken from another that has it; NULL: none. */
	/* What its configuration has otherwise; NULL: as the image's. */
	const char *const *entrypoint;	   /**< The image's Cmd is gone then, too; an empty list: none. */
	const char *const *cmd;		   /**< An empty list: none. */
	const char *const *env;		   /**< "K=V" on top of the image's; the last wins. */
	const char *user;		   /**< "user[:group]", by name or number. */
	const char *cwd;		   /**< Absolute. */
	const char *stop_signal;	   /**< "SIGTERM", "TERM" or "15". */
	const char *const *labels;	   /**< "K=V" beside the image's. */
	const char *const *ports;	   /**< "80", "53/udp", "5000-5010", beside the image's: what a VM offers. */
	const char *const *changes;	   /**< After these, as sm_commit_options has them. */
	const struct sm_image_file *files; /**< They come as one layer; of two of the same name the later one. */
	size_t num_files;
	/**
	 * A command (found by PATH) that is run in a VM of the new image, which is then saved as a snapshot: VMs go on
	 * from there by sm_vm_options.snapshot, and run commands of their own. What it leaves in memory and on the disk
	 * they have at once. NULL: no VM is started at all. The memory and CPUs of that VM are theirs, too.
	 */
	const char *const *warm;
	/** A path in the VM: the command goes on in the snapshot, which is made as soon as the path is there. NULL: the
	 * snapshot is made when it has ended with status 0. */
	const char *warm_ready;
	const char *warm_name;	  /**< Of the snapshot; NULL: as the image's, without a registry, with - for / and :. */
	uint64_t memory;	  /**< As of a VM. */
	unsigned cpus;		  /**< As of a VM. */
	uint64_t warm_timeout_ns; /**< For the command, or until the path is there; 0: no limit. */
	int warm_output_fd;	  /**< Where its output goes, unless warm_ready; -1: nowhere. The caller's. */
	bool warm_keep;	   /**< A snapshot of that name is -EEXIST, also one that was made by an earlier build. */
	bool rebuild;	   /**< Also if all that it is made from is the same. */
	enum sm_pull pull; /**< Whether `image` is fetched first. */
	struct sm_image_limits limits;
	struct sm_progress progress;
	int cancel_fd; /**< Gives up (-ECANCELED) when this is readable; -1: none. */
};
#define SM_IMAGE_BUILD_OPTIONS_INIT                                                                                    \
	{                                                                                                              \
		.size = sizeof(struct sm_image_build_options), .warm_output_fd = -1, .cancel_fd = -1                   \
	}

/** What came of it. Caller-owned; start from the initializer. */
struct sm_image_build_result {
	size_t size;
	bool reused;	      /**< The image was there: no layer was written. */
	bool snapshot_reused; /**< The snapshot was there: no VM was started. */
	char fingerprint[72]; /**< 64 hexadecimal digits: of what the image is made from. */
	char snapshot[72];    /**< Its name; "": no warm-up was asked for. */
	int warm_status;      /**< Of the warm-up command. Written on failure, too. */
};
#define SM_IMAGE_BUILD_RESULT_INIT                                                                                     \
	{                                                                                                              \
		.size = sizeof(struct sm_image_build_result)                                                           \
	}

/**
 * Makes an image of another one, unless it is there: the same base, configuration and files (names, contents, owners,
 * modes, times) are the same fingerprint, for which the image that was built last is returned and named; the same
 * image, warm-up command and sizes for the snapshot. What takes time then is to read the files. No VM runs but for
 * `warm`.
 *
 * Several that build the same at once wait for one of them and have what it made. Failed, cancelled or killed at any
 * moment, it leaves the name and the snapshot with what they had before; a new image is named before it is warmed up. A
 * snapshot that an earlier build made gives way to the new one when that is whole, VMs that run from it are not
 * disturbed; one that was made otherwise is -EEXIST, one with diffs -EBUSY. -EIO (SM_ERROR_GUEST): the warm-up command
 * failed.
 *
 * *ret (may be NULL) is the image; result may be NULL.
 */
SM_PUBLIC int sm_image_build(struct sm_client *client, const struct sm_image_build_options *options,
			     struct sm_image **ret, struct sm_image_build_result *result, struct sm_error *err);

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
struct sm_bundle_options {
	size_t size;
	struct sm_progress progress;
};
#define SM_BUNDLE_OPTIONS_INIT                                                                                         \
	{                                                                                                              \
		.size = sizeof(struct sm_bundle_options)                                                               \
	}

/**
 * Makes a directory with all that these images take to run: the programs, their libraries and loader, a kernel, an
 * empty disk, the images with all their names. It may be moved and copied anywhere, and is run as `into`/supermachine,
 * or by a client with `into`/home as its home and `into`/libexec as its libexec_dir. VMs and base snapshots are made in
 * `into`/home, so it must be the user's own; where they run KVM is needed, or an emulator for the machine, which is no
 * part of it. images: references, up to a NULL, at least one. -EEXIST when `into` is there and is not an empty
 * directory; it appears when it is whole. options may be NULL.
 */
SM_PUBLIC int sm_bundle(struct sm_client *client, const char *const *images, const char *into,
			const struct sm_bundle_options *options, struct sm_error *err);

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

/* -------------------------------------------------------------------------------------- registries */
/*
 * Who is asked for credentials by a registry: first what sm_registry_login has kept, then docker's config.json
 * ($DOCKER_CONFIG or ~/.docker), and the credential helpers that this names. They go to that registry and to the token
 * server that it names alone, and are part of no message, record or log.
 *
 * Certificates are checked against the host's authorities (or $SSL_CERT_FILE), and those of the registry in
 * /etc/docker/certs.d/HOST/ca.crt or ~/.config/docker/certs.d/HOST/ca.crt. Proxies are those of the environment
 * (https_proxy, no_proxy).
 */

/**
 * Has a registry judge user and password, and keeps them if they are right, in a file of the client's data directory
 * that this user alone can read. host: "name[:port]"; NULL: docker's default registry. -EACCES (SM_ERROR_DENIED) if
 * they are wrong.
 */
SM_PUBLIC int sm_registry_login(struct sm_client *client, const char *host, const char *user, const char *password,
				struct sm_error *err);
/** Forgets what sm_registry_login has kept; -ENOENT if that is nothing. What docker has stays. */
SM_PUBLIC int sm_registry_logout(struct sm_client *client, const char *host, struct sm_error *err);

/* --------------------------------------------------------------------------------------------- VMs */

/** Why a VM or a command ended. */
enum sm_reason {
	SM_REASON_NONE = 0,	 /**< It has not. */
	SM_REASON_EXITED = 1,	 /**< By itself; `status` is its exit status. */
	SM_REASON_SIGNALLED = 2, /**< By the signal `signal`; `status` is 128 + signal. */
	SM_REASON_TIMEOUT = 3,	 /**< Its time limit ran out; status 124. */
	SM_REASON_TTL = 4,	 /**< Stopped after sm_vm_options.ttl_ns. */
	SM_REASON_IDLE = 5,	 /**< Stopped or killed since nobody used it (sm_vm_options.idle_ns). */
	SM_REASON_OOM = 6,	 /**< Killed as the guest was out of memory; status 137. */
	SM_REASON_DISK_FULL =
		7, /**< Failed after its disk had filled up; with a `message`: it was the disk of the host. */
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
	SM_REASON_SUSPENDED = 18,      /**< It has not: it is on the disk (sm_vm_suspend). */
};
/** "exited", "disk-full", ... as --outcome writes it; "none" for what is unknown. A static string. */
SM_PUBLIC const char *sm_reason_name(enum sm_reason reason);

#define SM_MAX_STAGES 16
#define SM_STAGE_NAME_SIZE 24

/** One step of a VM's life and how long it took. */
struct sm_stage {
	char name[SM_STAGE_NAME_SIZE]; /**< "prepare", "monitor", "boot" or "restore", "setup", "command" ...; "A.B" is
					  part of A. */
	uint64_t ns;
};

/** How a VM or a command ended. Caller-owned; start from the initializer. */
struct sm_outcome {
	size_t size;
	enum sm_reason reason;
	int status;	      /**< What a shell would show: 0-255. */
	int signal;	      /**< The signal that ended it, in Linux x86 numbers, or 0. */
	bool timed_out;	      /**< Its time limit ran out: reason is SM_REASON_TIMEOUT. */
	bool output_lost;     /**< Not all of its output could be written to the caller's descriptors; message has why.
				 Not of a pipe or socket whose reader went away. */
	uint64_t duration_ns; /**< Of the command. */
	uint64_t peak_rss;    /**< Largest resident size of its processes, in bytes; 0: unknown. */
	char message[512]; /**< A line for a person when the reason needs one, or more went wrong than it says; else "".
			    */
	unsigned num_stages;
	unsigned step; /**< Of sm_exec_options.chain: which command ended it; 0: the first. */
	struct sm_stage stages[SM_MAX_STAGES];
};
#define SM_OUTCOME_INIT                                                                                                \
	{                                                                                                              \
		.size = sizeof(struct sm_outcome)                                                                      \
	}

/* ------------------------------------------------------------------------- directories of the host in a VM */

/** Who owns what the peer makes in a directory of the host. */
enum sm_fs_ids {
	/** The user who runs the server, whatever the peer says. Owners, modes and devices that the peer sets are kept
	 * in extended attributes and shown to it; what that user owns otherwise is shown as the peer's root's. */
	SM_FS_IDS_CALLER = 0,
	SM_FS_IDS_SAME = 1, /**< The peer's numbers are the host's; root alone can make files for others. */
	/** Owners are shown as they are; what the peer makes belongs to the user who runs the server. Changes of owner,
	 * set-id bits and devices: EPERM. */
	SM_FS_IDS_NONE = 2,
	/**
	 * As SAME, but moved by id_ranges: "u:PEER:HOST:COUNT,g:PEER:HOST:COUNT,...", b for both u and g; at most 255
	 * bytes and 16 ranges of each kind. What lies in none is shown as 65534; making a file for such a user:
	 * EOVERFLOW, giving one to him: EINVAL. Who is not root can map his own ids alone. Devices: EPERM.
	 */
	SM_FS_IDS_RANGES = 3,
};
/** What symbolic links may do. None leads out of the directory on the host. */
enum sm_fs_symlinks {
	SM_FS_SYMLINKS_OPAQUE = 0, /**< Shown and made as they are; the peer resolves them in its own tree. */
	SM_FS_SYMLINKS_DENY = 1,   /**< Neither made (EPERM) nor seen (EACCES). */
	/**
	 * Resolved by the server, for which the directory is the root ("/x" is SOURCE/x, ".." stops there): the peer
	 * finds the file or directory at the link's name. Nobody gets further than by its own name. A link that leads
	 * nowhere remains one; reading it fails (ENOENT, ELOOP, EACCES). Every use asks, whatever the cache mode says,
	 * and nothing is watched. What removes a tree enters the directories that links in it lead to.
	 */
	SM_FS_SYMLINKS_FOLLOW = 2,
};
/** Extended attributes. user.* are the files' own. POSIX ACLs are refused (EOPNOTSUPP) always. */
enum sm_fs_xattrs {
	/** security.* and trusted.* are the host's with SM_FS_IDS_SAME, if it lets the server's user; else as MAPPED.
	 */
	SM_FS_XATTRS_AUTO = 0,
	/** They are kept as user.supermachine.xattr.*, for the peer alone: they mean nothing to the host. */
	SM_FS_XATTRS_MAPPED = 1,
};
/** How long the peer may believe what it has seen. Contents are right at each open, whatever this says. */
enum sm_fs_cache {
	/**
	 * Until somebody else changes them, where the door can tell the peer so (sm_fs_mount) and the directory can be
	 * watched; else names and attributes for a second.
	 */
	SM_FS_CACHE_AUTO = 0,
	SM_FS_CACHE_NONE = 1,	/**< Every use asks. */
	SM_FS_CACHE_ALWAYS = 2, /**< For a day: only where nobody else changes the tree. */
};

/** A directory or a regular file of the host, seen in a VM. An array of these has the first one's size as its stride.
 */
struct sm_mount {
	size_t size;
	const char *source; /**< On the host; relative to the working directory of the caller. */
	const char *target; /**< In the VM, absolute; made if it is missing. Neither / nor in /proc. */
	bool read_only;	    /**< The host refuses every change. */
	bool cow;    /**< What the VM changes stays in its own writable layer (a directory alone); the host's is as with
			read_only. */
	bool create; /**< A source that is missing is made, as a directory, if its parent is there. */
	enum sm_fs_ids ids;
	enum sm_fs_symlinks symlinks;
	enum sm_fs_cache cache;
	const char *id_ranges; /**< With SM_FS_IDS_RANGES. */
	enum sm_fs_xattrs xattrs;
	bool direct; /**< O_DIRECT in the VM leaves out the host's page cache, too, for aligned buffers. */
	/**
	 * Files of 2 MiB and more are mapped into the VM (DAX): it uses the host's page cache and has none of its own
	 * for them, and what the host changes it sees at once. See dax_size.
	 */
	bool dax;
	/**
	 * Instead of source: the name of a volume (sm_volume_create), which is made if there is none; "": a new one
	 * without a name of its own, which a VM that is not kept takes along. Of the other members target, read_only
	 * and no_copy alone count then. At most 6 in a VM, each of them once. One VM at a time has a volume, or any
	 * number that have it read_only: -EBUSY (SM_ERROR_BUSY) names the VM that has it.
	 */
	const char *volume;
	bool no_copy; /**< An empty volume stays so; else it begins with what the image has at target. */
	/**
	 * source is a socket on which a program serves a backend of its own (sm_fs_serve_shared): its tree is what is
	 * mounted. The program runs on this host, wherever the VM runs. Of the other members target and read_only alone
	 * count then. While nobody serves there what the VM does with it fails (EIO, then
	 * ENOTCONN); who serves there again is used.
	 */
	bool served;
	/** Told of a VM that goes on from a snapshot or a branch: not the volume itself, but a disk of the VM's own
	 * with what was in it then. Not for options. */
	bool copy;
};
#define SM_MOUNT_INIT                                                                                                  \
	{                                                                                                              \
		.size = sizeof(struct sm_mount)                                                                        \
	}

/**
 * A TCP port or unix socket of the host that leads to one in a VM, or the other way: a connection at one end is carried
 * to the other for as long as the VM runs. An array of these has the first one's size as its stride.
 */
struct sm_port {
	size_t size;
	/** Of this host, IPv4 or IPv6; NULL: all of them, or with reverse its loopback, 127.0.0.1. */
	const char *address;
	uint16_t host_port;  /**< 0: one that is free; sm_vm_query tells which. */
	uint16_t guest_port; /**< On the guest's own loopback. */
	/** Instead of address and host_port: a unix socket, made (mode as the umask has it) and removed with the VM;
	 * one that is there and that nobody listens on is replaced. */
	const char *host_path;
	const char *guest_path; /**< Instead of guest_port: a unix socket in the VM, an absolute path. */
	/**
	 * From the guest to the host: the guest listens at guest_port or guest_path, from before its command begins,
	 * and each connection there is one to the host's end, made on the host by the caller's user. Where it leads is
	 * said here alone; the guest has no say in it, and reaches nothing else of the host.
	 */
	bool reverse;
};
#define SM_PORT_INIT                                                                                                   \
	{                                                                                                              \
		.size = sizeof(struct sm_port)                                                                         \
	}

/**
 * What a VM's command is to know and nobody else: a file /run/secrets/NAME in the guest's memory, there before the
 * command runs. The VM's record has its name alone; what it is goes to the guest and is written down nowhere on the
 * host (but where the VM is saved with its memory: sm_vm_snapshot, sm_vm_suspend). An array of these has the first
 * one's size as its stride.
 */
struct sm_secret {
	size_t size;
	const char *name; /**< As a VM's. */
	const void *data;
	size_t length;	 /**< Of data; at most 60 KiB. */
	const char *env; /**< Also a variable of this name in the environment; NULL: none. */
};
#define SM_SECRET_INIT                                                                                                 \
	{                                                                                                              \
		.size = sizeof(struct sm_secret)                                                                       \
	}

/** A VM: a record, a disk, and while it runs a keeper to talk to. */
struct sm_vm;

/** What is done with a VM that nobody has used for so long. */
enum sm_on_idle {
	SM_ON_IDLE_STOP = 0,	/**< As sm_vm_stop does it. */
	SM_ON_IDLE_SUSPEND = 1, /**< As sm_vm_suspend. If that fails it goes on, and is tried again as much later. */
	SM_ON_IDLE_KILL = 2,	/**< At once; status 137. */
};

/** What a VM is for, where its options do not say how many CPUs it has. */
enum sm_profile {
	SM_PROFILE_LATENCY = 0,	   /**< 1 CPU: starts soonest, and most of them fit on a host. */
	SM_PROFILE_THROUGHPUT = 1, /**< 4 CPUs, also on a host that has fewer: they share what it has. */
};

struct sm_vm_options {
	size_t size;
	/** A reference (see `pull`), or a source as for sm_image_load, which is then loaded first. Required. */
	const char *image;
	const char *name;     /**< [a-zA-Z0-9][a-zA-Z0-9_.-]*, at most 63; NULL: none. -EEXIST when taken. */
	const char *hostname; /**< NULL: the first 12 digits of its id. */
	uint64_t memory;      /**< Rounded up to 4 MiB; 0: 1 GiB. At least 128 MiB. */
	unsigned cpus;	      /**< 1 to 16; 0: as many as cpu_limit takes, else the profile's. */
	uint64_t disk_size;   /**< Of the writable layer, sparse; 0: 10 GiB. */
	bool tmpfs_root;      /**< The writable layer is in the guest's memory: no disk, nothing stays. */
	const char *kernel;   /**< Kernel file; NULL: the distribution's. */
	const char *const
		*entrypoint;	 /**< Instead of the image's, whose Cmd is then unused too; an empty list: none. */
	const char *const *argv; /**< Instead of the image's Cmd; NULL: the image's. */
	const char *const *env;	 /**< "K=V" on top of the image's; the last wins. */
	const char *user;	 /**< "user[:group]", by name or number; NULL: the image's. */
	const char *cwd;	 /**< Made if missing; NULL: the image's, or "/". */
	const char *stop_signal; /**< "SIGTERM", "TERM" or "15"; NULL: the image's, or SIGTERM. */
	bool tty;		 /**< The command gets a terminal; its output is one stream. */
	uint16_t rows, cols;	 /**< The terminal's size; 0: 24 by 80. */
	bool stdin_open;	 /**< Else the command reads end of file. */
	uint64_t timeout_ns;	 /**< For the command, from its start; 0: none. */
	bool keep;		 /**< Record and disk stay when it ends; else they are removed (see sm_vm_close). */
	bool detach;		 /**< It lives on without its client. Else it ends when the handle's owner goes. */
	bool background;	 /**< Without detach: the command does not wait for sm_vm_attach. Its output goes to the
				    log until somebody attaches, and goes on when he leaves. */
	bool no_command; /**< No command of its own: it is up until it is stopped, for sm_vm_exec. Nobody attaches to
			    it. */
	const char *const *labels;     /**< "K=V". */
	struct sm_image_limits limits; /**< When a source is loaded. */
	struct sm_progress progress;
	const struct sm_mount *mounts; /**< At most 64. Outer ones are mounted before those inside them. */
	size_t num_mounts;
	/**
	 * Of the window through which files of mounts with `dax` are mapped: what is mapped at once, in pieces of 2
	 * MiB. Rounded up to 2 MiB; 0: 512 MiB if there is such a mount, else none. Costs the guest 1/64 of it in
	 * memory, which may be an eighth of what it has at most.
	 */
	uint64_t dax_size;
	/** At most 64. -EADDRINUSE (SM_ERROR_HOST) when one is taken, before anything starts. They are opened at each
	 * start, and closed with the VM; connections wait until its command runs, 2000 are served at once. */
	const struct sm_port *ports;
	size_t num_ports;
	const char *const *hosts; /**< "NAME:ADDRESS", more lines of /etc/hosts. */
	bool read_only;		  /**< The container's root cannot be written; mounts and tmpfs can. */
	/** "PATH[:OPTIONS]", a file system in memory there; OPTIONS: size=SIZE, mode=OCTAL, exec, noexec (the default),
	 * rw. At most 32. */
	const char *const *tmpfs;
	bool trace; /**< The outcome's stages tell the monitor's own steps, too: "monitor.devices" ... */
	bool cold;  /**< Boot. Else it starts from a base snapshot of its CPUs and its memory, or of less memory, the
		       rest of which it gets as it starts; one is made if there is none yet. */
	/**
	 * Instead of an image: go on from this snapshot of a VM (sm_vm_snapshot), its processes included. Of the other
	 * members only name, hostname, keep, detach, background, labels, progress, ports, mounts, audit, env,
	 * timeout_ns, ttl_ns, idle_ns, on_idle and start_timeout_ns count then; the rest is the snapshot's, and image
	 * must be NULL. env is for commands of sm_vm_exec, and for its own when it is started again. Time that was
	 * limited (timeout_ns, else the snapshot's) is counted anew. Ports of the host stay the first VM's: it has
	 * those that are given here. Its mounts are the snapshot's, each with the source that it had; one that is given
	 * here has the same target and another source, and may be read-only. A source that is not there is an error.
	 * Of its volumes it has disks of its own with what was in them then; a volume that is given here is put in the
	 * place of the one on the same target, or where there was none. The new VM has random numbers, a wall clock, a
	 * host name and a disk of its own.
	 */
	const char *snapshot;
	const struct sm_secret *secrets; /**< At most 32. */
	size_t num_secrets;
	/** Limits of all processes, "NAME=SOFT[:HARD]" as docker has them: nofile, nproc, core ...; -1: none. Without:
	 * nofile 1024:1048576 as docker's, else the kernel's. */
	const char *const *ulimits;
	/**
	 * A name as of a VM. Each of the mounts is served by a process that all VMs of this user with the same group,
	 * directory and options have in common, instead of by the VM itself: what is known of the files is there once,
	 * and what one of them changes the others see at once. It ends ten seconds after the last of them. If it is
	 * killed, what is under way fails with EIO, and another one serves what comes after. NULL: none.
	 */
	const char *share_group;
	/**
	 * What is done with it when it has been idle for so long: when nobody is attached, has a command run in it or
	 * copies files, no byte went over its ports, and it used less than a tenth of one CPU (of its cpu_limit, if
	 * that is less). So what it does by itself, its own command and detached ones, counts by the CPU that it takes:
	 * a server that waits is idle. Paused it is not. 0: no limit. A limit needs `detach`, or `background` and
	 * another action than to suspend it. The outcome's reason is SM_REASON_IDLE, or it is suspended, and woken as
	 * by sm_vm_suspend.
	 */
	uint64_t idle_ns;
	enum sm_on_idle on_idle;
	/** How long it lives at most, from each start on, whatever it does: then it is stopped (SM_REASON_TTL). Unlike
	 * timeout_ns a pause is no time off, and all of a start counts. 0: no limit. */
	uint64_t ttl_ns;
	/**
	 * A file of the host, made if missing, to which a line of JSON is appended for each thing that the guest does
	 * to files of the host through the VM's mounts: time_ns, vm, op ("open", "create", "rename", ...), path (the
	 * host's), to (of a rename or link), write (it changed something, or opened to), result ("ok", or the errno:
	 * what was refused). lost: so many lines before it could not be written. It may not lie in a directory that the
	 * VM may write to. Mounts of a share group and served ones have none. NULL: none.
	 */
	const char *audit;
	/** Whether `image`, a reference, is fetched from its registry first. */
	enum sm_pull pull;
	/**
	 * How long the start may wait for its turn, then -EBUSY (SM_ERROR_BUSY); 0: five minutes. So many VMs of a home
	 * start at once, whatever programs start them, and each only while there is memory for what its start takes: by
	 * what is free where it runs, less what those that start at that moment may still take. What a VM may use later
	 * (memory) is no part of that. While it waits for a second and longer progress is told.
	 */
	uint64_t start_timeout_ns;
	/**
	 * Takes a spare, if there is one like this VM: one that was restored from a base snapshot before anybody wanted
	 * it, has run no command, and stands still. It may differ in what concerns the command, name and host name; all
	 * that is fixed at a start is the same: what the image is, sizes, kernel, limits, tmpfs. And sm_vm_close leaves
	 * one behind, if another VM like this ended less than 30 s before this one was started. It ends by itself after
	 * 30 s. There are at most two in a home, and none where memory is short. No VM with detach, background,
	 * no_command, cold, snapshot, mounts, ports, secrets, audit, ksm or cpu_limit is one; it starts as ever, as all
	 * do for which there is none. Nobody sees a spare, and who has taken one sees a VM that was made at that
	 * moment.
	 */
	bool spare;
	/**
	 * How much time of CPUs it may take, in thousandths of one: 500 is half a CPU, at least 10; of `cpus`, which is
	 * the next whole number unless it is given. It holds in each tenth of a second from the beginning of the
	 * command on, for all that the VM's monitor does: the guest, its disks and mounts. It takes a cgroup
	 * (version 2) with the cpu controller that this user may divide, below which each such VM has one of its own:
	 * the caller's, or the machine's, which has it. Where there is none a start fails with SM_ERROR_UNSUPPORTED,
	 * also another one of a VM that has a limit. VMs that go on from this one have it, too. 0: none.
	 */
	uint64_t cpu_limit;
	/** How many CPUs it has if neither cpus nor cpu_limit says so. */
	enum sm_profile profile;
	/**
	 * The host's kernel may merge pages of its memory with equal ones of other VMs that have this, where KSM is
	 * turned on (/sys/kernel/mm/ksm/run). Whoever is in one of them can then find out by time what is in another's
	 * memory: for VMs that trust each other. VMs that go on from this one have it, too. Memory that nobody has
	 * written since the base is shared without.
	 */
	bool ksm;
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
 * Without `detach` the command waits for sm_vm_attach (unless `background`), and the VM ends with the handle, that is
 * when it is closed or the process dies. With `detach` output goes to the log until somebody attaches.
 */
SM_PUBLIC int sm_vm_start(struct sm_client *client, const struct sm_vm_options *options, struct sm_vm **ret,
			  struct sm_error *err);
/** Starts a kept VM that has ended, with its disk and the same command. detach as above. -EBUSY while it runs. */
SM_PUBLIC int sm_vm_start_again(struct sm_vm *vm, bool detach, struct sm_error *err);
/** What sm_vm_start_again wants of a VM that was started with secrets: all of them again, as they are kept nowhere, for
 * one start. Copied. -ENOKEY when one of those in sm_vm_info.secrets is missing. */
SM_PUBLIC int sm_vm_set_secrets(struct sm_vm *vm, const struct sm_secret *secrets, size_t count, struct sm_error *err);

/** Finds a VM by id, unique prefix of an id (4 digits or more), or name. */
SM_PUBLIC int sm_vm_open(struct sm_client *client, const char *ref, struct sm_vm **ret, struct sm_error *err);
/** Closes the handle. Ends a VM that this handle started without `detach`; one that has ended and is not kept is
 * removed. */
SM_PUBLIC struct sm_vm *sm_vm_close(struct sm_vm *vm);
/**
 * Lets go of a VM that this handle started without `detach`: it goes on as if it had been started with that, outlives
 * this program, and is kept when it ends; what its command prints from then on is in its log. 0 also when there is
 * nothing to let go of. -ESRCH (SM_ERROR_STATE) when it has ended. The lease of a pool must not be let go.
 */
SM_PUBLIC int sm_vm_detach(struct sm_vm *vm, struct sm_error *err);
/** 12 hexadecimal digits. Owned by the handle. */
SM_PUBLIC const char *sm_vm_id(const struct sm_vm *vm);

enum sm_vm_state {
	SM_VM_STARTING = 1,  /**< The guest boots. */
	SM_VM_RUNNING = 2,   /**< The command runs. */
	SM_VM_STOPPING = 3,  /**< The command has ended or was asked to; the guest goes down. */
	SM_VM_EXITED = 4,    /**< Ended; the outcome says how. */
	SM_VM_PAUSED = 5,    /**< The guest stands still (sm_vm_pause). */
	SM_VM_SUSPENDED = 6, /**< It is on the disk (sm_vm_suspend); no process and no memory is its own. */
};
/** "starting", "running", "stopping", "exited", "paused", "suspended". A static string. */
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
	struct sm_outcome outcome;     /**< When EXITED. */
	const struct sm_mount *mounts; /**< Sources are absolute. */
	size_t num_mounts;
	const struct sm_port *ports; /**< As they are open now; of a VM that has ended: as they were asked for. */
	size_t num_ports;
	const char *const *secrets; /**< The names of those it was started with, and a NULL; NULL: none. */
	uint64_t cpu_limit;	    /**< sm_vm_options's. */
	/** Of sm_vm_list and sm_vm_find alone: its keeper does not answer: times, pids and ports are not known, state
	 * is RUNNING. */
	bool hung;
};
/** -ETIMEDOUT where its keeper does not answer. */
SM_PUBLIC int sm_vm_query(struct sm_vm *vm, struct sm_vm_info **ret, struct sm_error *err);
SM_PUBLIC struct sm_vm_info *sm_vm_info_free(struct sm_vm_info *info);
/** VMs that run, or all; newest first. */
SM_PUBLIC int sm_vm_list(struct sm_client *client, bool all, struct sm_vm_info ***ret, size_t *ret_count,
			 struct sm_error *err);
SM_PUBLIC void sm_vm_list_free(struct sm_vm_info **list, size_t count);

/** Which VMs are wanted: those of which all holds that is given. */
struct sm_vm_find_options {
	size_t size;
	bool all;		   /**< Also those that have ended or are suspended. */
	const char *const *labels; /**< "NAME", or "NAME=VALUE" for that value alone: they have each of these. */
	const char *image; /**< As it was asked for, with or without :latest, or the beginning of its id (4 digits
			      or more). */
};
#define SM_VM_FIND_OPTIONS_INIT                                                                                        \
	{                                                                                                              \
		.size = sizeof(struct sm_vm_find_options)                                                              \
	}
/** VMs of this home by label or image, whichever program started them; newest first, none is no error. Freed by
 * sm_vm_list_free. Costs little for those that are not wanted: their keepers are not asked. options may be NULL. By id
 * or name: sm_vm_open. */
SM_PUBLIC int sm_vm_find(struct sm_client *client, const struct sm_vm_find_options *options, struct sm_vm_info ***ret,
			 size_t *ret_count, struct sm_error *err);
/** Everything about a VM, as JSON text to sm_free. */
SM_PUBLIC int sm_vm_inspect(struct sm_vm *vm, char **ret_json, struct sm_error *err);

/**
 * Waits until the command runs. Fails with the reason when the VM ends before, and with -ETIMEDOUT after timeout_ns
 * (0: no limit). A command that could not be started is such an end: outcome (may be NULL) then has its status. A
 * guest has 60 s for its set-up after it was restored, 300 s where it boots, of time in which it had a CPU: then it has
 * failed (SM_REASON_START_FAILED); but one that was restored and said nothing at all is booted instead, and the base
 * snapshot dropped. Who waits less gives up on it by closing the VM.
 */
SM_PUBLIC int sm_vm_wait_started(struct sm_vm *vm, uint64_t timeout_ns, struct sm_outcome *outcome,
				 struct sm_error *err);
/** Waits for the end, up to timeout_ns (0: no limit; then -ETIMEDOUT). At once for a VM that has ended. */
SM_PUBLIC int sm_vm_wait(struct sm_vm *vm, uint64_t timeout_ns, struct sm_outcome *ret, struct sm_error *err);
/** Sends the stop signal, ends the VM after grace_ns at the latest (0: 10 s; UINT64_MAX: no limit), and waits for that.
 * Success when it has ended already. A keeper that hangs, and does not answer in that time either (see
 * answer_timeout_ns), is killed with its VM, which the log and the outcome's message tell; without a limit that is an
 * error, -ETIME. */
SM_PUBLIC int sm_vm_stop(struct sm_vm *vm, uint64_t grace_ns, struct sm_error *err);
/** Sends a signal (Linux x86 number) to the command. After SIGKILL waits for the VM's end, 10 s at most; a
 * keeper that hangs, which has been given time to answer, is killed with its VM. -ESRCH when it has ended already. */
SM_PUBLIC int sm_vm_kill(struct sm_vm *vm, int signal, struct sm_error *err);
/** Asks the guest to give up that much of its memory, which goes back to the host (0: it may have all of it again). It
 * follows within seconds as far as it can spare it, and takes back what it needs before it runs out. What the guest
 * frees by itself goes back without being asked. */
SM_PUBLIC int sm_vm_balloon(struct sm_vm *vm, uint64_t bytes, struct sm_error *err);
/**
 * Has the guest stand still: no process in it runs, no time passes for it, and limits on its time (timeout_ns) are put
 * off by as long. Returns when it does. sm_vm_exec and connections are refused meanwhile (SM_ERROR_STATE), its own
 * command's streams wait; sm_vm_stop and SIGKILL let it go on first, other signals arrive when it does. -EALREADY when
 * it is paused, -EAGAIN before its command runs, -ESRCH when it has ended.
 */
SM_PUBLIC int sm_vm_pause(struct sm_vm *vm, struct sm_error *err);
/** Lets a paused guest go on, with the right wall clock. -EALREADY when it is not paused. */
SM_PUBLIC int sm_vm_unpause(struct sm_vm *vm, struct sm_error *err);
/** Removes a VM with its disk and log. -EBUSY while it runs, unless force, which ends it first, by its keeper's death
 * if that hangs and had time to answer; with force it is no error that somebody else has removed it meanwhile. */
SM_PUBLIC int sm_vm_remove(struct sm_vm *vm, bool force, struct sm_error *err);

/** What a VM uses, by the word of its guest. */
struct sm_vm_stats {
	size_t size;
	uint64_t uptime_ns;
	uint64_t cpu_user_ns, cpu_system_ns;		   /**< Of all its CPUs, since it was booted. */
	uint64_t memory_total, memory_used, memory_cached; /**< used: what programs could not have. */
	uint64_t disk_total, disk_used;			   /**< Of the writable layer. */
	uint64_t processes;				   /**< Threads, the kernel's own too. */
	uint64_t oom_kills;
};
#define SM_VM_STATS_INIT                                                                                               \
	{                                                                                                              \
		.size = sizeof(struct sm_vm_stats)                                                                     \
	}
/** Asks the guest: -ESRCH unless it runs, -ETIMEDOUT when it has not answered for 5 s. */
SM_PUBLIC int sm_vm_get_stats(struct sm_vm *vm, struct sm_vm_stats *ret, struct sm_error *err);
/** What its monitor has counted since it started, as JSON text to sm_free: exits by reason, accesses of ports and
 * memory, interrupts and kicks of each device, requests of mounts by FUSE opcode. What is counted may change from
 * version to version. Also of one that is paused; else as above. */
SM_PUBLIC int sm_vm_get_counters(struct sm_vm *vm, char **ret_json, struct sm_error *err);

struct sm_logs_options {
	size_t size;
	bool follow;		  /**< Go on until the VM ends. */
	bool timestamps;	  /**< Put an RFC 3339 time before each line. */
	uint64_t tail;		  /**< Only the last so many lines; 0: all. */
	int stdout_fd, stderr_fd; /**< Where to write; -1: leave that stream out. */
	int cancel_fd;		  /**< Stop (-ECANCELED) when this becomes readable; -1: none. */
	int64_t since_ns;	  /**< Only what was printed from this time on; 0: all. */
	int64_t until_ns;	  /**< Only what was printed before; 0: all. Following ends there, too. */
	uint32_t exec;		  /**< Of a detached command instead (sm_exec_number). Following ends with it. */
};
#define SM_LOGS_OPTIONS_INIT                                                                                           \
	{                                                                                                              \
		.size = sizeof(struct sm_logs_options), .stdout_fd = -1, .stderr_fd = -1, .cancel_fd = -1              \
	}
/** Writes what the command has printed to the caller's descriptors. */
SM_PUBLIC int sm_vm_logs(struct sm_vm *vm, const struct sm_logs_options *options, struct sm_error *err);
/** The guest's console (kernel messages), as text to sm_free. */
SM_PUBLIC int sm_vm_console(struct sm_vm *vm, char **ret, struct sm_error *err);

/* ----------------------------------------------------------------------------------------- volumes */

/** A disk that VMs have one after the other, or several read-only. It stays when they go. */
struct sm_volume_info {
	const char *name;
	const char *path; /**< Of its file, a sparse ext4 file system whose directory `data` VMs see. */
	const char *const *labels;
	bool anonymous;		 /**< Made without a name, for one VM. */
	uint64_t size;		 /**< Most that it holds. */
	uint64_t allocated_size; /**< Bytes on disk. */
	int64_t created_ns;
	const char *const *vms; /**< Ids of the VMs that have it, whether they run or not. */
};

struct sm_volume_options {
	size_t size;
	const char *name;	   /**< As a VM's; NULL: a new one, anonymous. */
	uint64_t disk_size;	   /**< Sparse; 0: 10 GiB. */
	const char *const *labels; /**< "K=V". */
};
#define SM_VOLUME_OPTIONS_INIT                                                                                         \
	{                                                                                                              \
		.size = sizeof(struct sm_volume_options)                                                               \
	}
/** Makes a volume, empty. -EEXIST when there is one. *ret_name (may be NULL): its name, to sm_free. options may be
 * NULL. */
SM_PUBLIC int sm_volume_create(struct sm_client *client, const struct sm_volume_options *options, char **ret_name,
			       struct sm_error *err);
/** All volumes, by name. */
SM_PUBLIC int sm_volume_list(struct sm_client *client, struct sm_volume_info ***ret, size_t *ret_count,
			     struct sm_error *err);
SM_PUBLIC void sm_volume_list_free(struct sm_volume_info **list, size_t count);
/** Everything about a volume, as JSON text to sm_free. */
SM_PUBLIC int sm_volume_inspect(struct sm_client *client, const char *name, char **ret_json, struct sm_error *err);
/** Removes a volume and what is in it. -EBUSY (SM_ERROR_BUSY) while a VM has it, also one that has ended. */
SM_PUBLIC int sm_volume_remove(struct sm_client *client, const char *name, struct sm_error *err);
/** Removes the anonymous volumes that no VM has; all: also those with names. The counts may be NULL. */
SM_PUBLIC int sm_volume_prune(struct sm_client *client, bool all, unsigned *ret_count, uint64_t *ret_bytes,
			      struct sm_error *err);

/* ------------------------------------------------------------------------------------------ events */

/** Something that has happened. Owned by the caller of the function that gets it. */
struct sm_event {
	int64_t time_ns;
	const char *type; /**< "vm" or "image". */
	/** Of a VM: create, start, exec_start, exec_die, kill, pause, unpause, suspend, resume, rewind, oom, die, stop,
	 * destroy. Of an image: load, build, commit, tag, untag, delete. More may come. */
	const char *action;
	const char *id, *name;	       /**< Of the VM or image; name "": none. */
	const char *image;	       /**< A VM's; else "". */
	const char *const *labels;     /**< A VM's "K=V"; NULL: none. */
	const char *const *attributes; /**< "K=V": exitCode, reason, signal, command; NULL: none. */
};
struct sm_events_options {
	size_t size;
	int64_t since_ns; /**< Also what has happened from this time on; 0: only what is to come. */
	int64_t until_ns; /**< Only what happened before; 0: no end. */
	bool follow;	  /**< Wait for what is to come, up to until_ns. */
	int cancel_fd;	  /**< Stop when this becomes readable; -1: none. */
	int (*event)(void *arg, const struct sm_event *e); /**< Called for each, in order; not 0: stop. Required. */
	void *arg;
};
#define SM_EVENTS_OPTIONS_INIT                                                                                         \
	{                                                                                                              \
		.size = sizeof(struct sm_events_options), .cancel_fd = -1                                              \
	}
/**
 * What has happened in this client's home, by whichever program. It is written down without anybody watching; how far
 * back it goes is limited by size (4 to 8 MiB for VMs that are gone, 128 to 256 KiB for each that is there). One that
 * stops before `until_ns` was told to.
 */
SM_PUBLIC int sm_events(struct sm_client *client, const struct sm_events_options *options, struct sm_error *err);

/* --------------------------------------------------------------------------------------- snapshots */

enum sm_snapshot_kind {
	SM_SNAPSHOT_BASE = 1, /**< A booted guest without an image, from which VMs of its shape start. */
	SM_SNAPSHOT_VM = 2,   /**< A VM as it was, with its processes, memory and disk. */
};

/** A snapshot in the data directory. */
struct sm_snapshot_info {
	const char *name; /**< "base-...", or as it was given. */
	enum sm_snapshot_kind kind;
	uint64_t memory; /**< Of a VM that starts from it; of a base, the least. */
	unsigned cpus;
	uint64_t allocated_size;     /**< Bytes on disk. */
	int64_t created_ns, used_ns; /**< used: when a VM last started from it. */
	const char *kernel;
	bool fits; /**< A VM may still start from it: kernel, programs and host are those that it was made with. Of a
		      VM's: its files are those that were saved. */
	const char *image; /**< A VM's: as it was asked for; else "". */
	/** A diff's: the snapshot that it needs, "base-..." for a base, whose memory it holds itself; else "". */
	const char *parent;
};
/**
 * Saves a running VM under a name ([a-zA-Z0-9][a-zA-Z0-9_.-]*, at most 63, not beginning with "base-" or "failed-";
 * -EEXIST when there is one). The VM goes on; *ret_pause_ns (may be NULL) is how long all of it stood still; its
 * processes are stopped a little earlier and go on a little later. What its
 * disk holds is shared with the snapshot from then on, and neither can change that for the other. Of its volumes the
 * snapshot has copies, whose blocks are shared where the file system can; who writes to a volume in the VM waits until
 * that is made. -EOPNOTSUPP for a VM with a mount that has the option dax. On failure the VM goes on as if nothing had
 * been. Start VMs from it by sm_vm_options.snapshot.
 */
SM_PUBLIC int sm_vm_snapshot(struct sm_vm *vm, const char *name, uint64_t *ret_pause_ns, struct sm_error *err);

struct sm_snapshot_options {
	size_t size;
	/**
	 * Save of its memory what it does not share with the snapshot that it came from (a base, or one that
	 * sm_vm_options.snapshot named; a branch's is its parent's), which is most often little. That one cannot be
	 * removed then as long as this one is there; a base can. Up to 8 lie over each other (-E2BIG). -EOPNOTSUPP for
	 * a VM that booted, or whose snapshot is gone.
	 */
	bool diff;
};
#define SM_SNAPSHOT_OPTIONS_INIT ((struct sm_snapshot_options){.size = sizeof(struct sm_snapshot_options)})
/** sm_vm_snapshot with options, which may be NULL. */
SM_PUBLIC int sm_vm_snapshot_with(struct sm_vm *vm, const char *name, const struct sm_snapshot_options *options,
				  uint64_t *ret_pause_ns, struct sm_error *err);
/**
 * Makes count (1 to 1000) new VMs that go on from where a running VM is now; it goes on too, and all share its memory
 * and disk until one of them writes. options as for sm_vm_start with a snapshot, which is not to be given; of several
 * VMs, NAME-1 is the first one's name. Of the parent's volumes each has a disk of its own with what was in them, for
 * which they are copied once, as for a snapshot. *ret_pause_ns (may be NULL): how long the parent stood still. Memory
 * that the parent has of its own is written to a file of the data directory, without a sync, which goes when the last
 * child has it mapped. All or none: on failure those that had started are removed. ret has room for count handles.
 */
SM_PUBLIC int sm_vm_branch(struct sm_vm *vm, const struct sm_vm_options *options, size_t count, struct sm_vm **ret,
			   uint64_t *ret_pause_ns, struct sm_error *err);
/**
 * Writes a running VM to the disk, its processes and memory included, and ends all that runs for it: it takes no memory
 * and survives a restart of the host. Returns when that is durable; killed at any moment, there is the running VM or
 * the suspended one. Clients that are attached lose their connection. Its volumes stay its own. Only a VM started with
 * `detach`, without a mount with the option dax; not a paused one.
 * On failure the VM goes on. sm_vm_exec, what copies files, sm_vm_start_again, and a connection to one of its ports,
 * which stay open, wake it, too; sm_vm_stop ends it for good.
 */
SM_PUBLIC int sm_vm_suspend(struct sm_vm *vm, struct sm_error *err);
/** Lets a suspended VM go on where it was, with its id, name, disk and ports, the right wall clock and new random
 * numbers. Returns when its keeper runs, as sm_vm_start does. -EALREADY when it is not suspended. If it cannot go on it
 * stays suspended. */
SM_PUBLIC int sm_vm_resume(struct sm_vm *vm, struct sm_error *err);
/** Everything about a snapshot of a VM, as JSON text to sm_free. */
SM_PUBLIC int sm_snapshot_inspect(struct sm_client *client, const char *name, char **ret_json, struct sm_error *err);
/** All snapshots, those used last first. */
SM_PUBLIC int sm_snapshot_list(struct sm_client *client, struct sm_snapshot_info ***ret, size_t *ret_count,
			       struct sm_error *err);
SM_PUBLIC void sm_snapshot_list_free(struct sm_snapshot_info **list, size_t count);
/** Removes one by name, or by a unique beginning of its key (4 digits or more). VMs that run from it are not disturbed;
 * a base is made again when it is needed. -EBUSY (SM_ERROR_STATE) names the diffs of it, which need it. */
SM_PUBLIC int sm_snapshot_remove(struct sm_client *client, const char *name, struct sm_error *err);
/** Removes bases that no VM can start from any more; all: every base. The counts may be NULL. */
SM_PUBLIC int sm_snapshot_prune(struct sm_client *client, bool all, unsigned *ret_count, uint64_t *ret_bytes,
				struct sm_error *err);

/* ------------------------------------------------------------------------- commands and their streams */

/** A command in a VM or in the machine, and its streams. */
struct sm_exec;

/** A file that comes with a command. An array of these has the first one's size as its stride. */
struct sm_exec_file {
	size_t size;
	const char *path; /**< In the VM; beneath the command's cwd unless it is absolute. */
	const void *data;
	size_t length;
	uint32_t mode; /**< Permission bits; 0: 0644. */
};
#define SM_EXEC_FILE_INIT                                                                                              \
	{                                                                                                              \
		.size = sizeof(struct sm_exec_file)                                                                    \
	}

struct sm_exec_options {
	size_t size;
	const char *const *argv; /**< The command; found by PATH when it has no slash. Required. */
	const char *const *env;	 /**< "K=V" on top of the container's. */
	bool clear_env;		 /**< env is all there is. */
	const char *cwd;	 /**< Has to be there, else status 127; NULL: the container's. */
	const char *user;	 /**< NULL: the container's. */
	bool tty;
	uint16_t rows, cols; /**< 0: 24 by 80. */
	bool stdin_open;     /**< Else the command reads end of file, and stdin_fd is unused. */
	uint64_t timeout_ns; /**< 0: none. */
	/**
	 * The caller's descriptors that sm_exec_wait pumps to and from; -1: none (output is read, and kept within
	 * output_max). They stay the caller's, must live until sm_exec_wait returns, and their flags are left alone.
	 * Any kind: file, pipe, socket, tty.
	 */
	int stdin_fd, stdout_fd, stderr_fd;
	/** What the command reads, instead of stdin_fd: these bytes, then end of file. Copied; implies stdin_open. */
	const void *input;
	size_t input_size;
	/** How many bytes of stdout, and of stderr, are kept for sm_exec_collect where there is no descriptor; 0: 1
	 * MiB.
	 */
	size_t output_max;
	int cancel_fd; /**< sm_exec_wait and sm_exec_collect give up (-ECANCELED) when this is readable; -1: none. */
	/** It goes on without its handle, and what it prints is kept in a log of its own (the last 1 to 2 MiB):
	 * sm_vm_exec returns when it runs, fails when it cannot be started (-ENOENT, -EACCES), and the handle is good
	 * for sm_exec_number and sm_exec_close alone. With stdin_open its input stays open for sm_vm_exec_attach. At
	 * most 512 run in a VM (-EMFILE). */
	bool detach;
	const char *const *ulimits; /**< As of sm_vm_options, on top of the VM's. */
	/**
	 * Files that are written before the command begins, in the same round trip, by the command's user; directories
	 * on the way are made, and a file is there whole or not at all. One that cannot be written is a failure of
	 * sm_exec_wait (-ENOSPC, -EACCES ...), which names it, and nothing runs. At most 256; copied. Those of a
	 * detached command have at most some 60 KiB in all (-E2BIG).
	 */
	const struct sm_exec_file *files;
	size_t num_files;
	/**
	 * Commands that run after argv, one after the other, each when the one before it ended with status 0: their
	 * words, with a NULL behind each command's last one and one more NULL at the end. No shell has a part in it.
	 * All share user, environment, directory, streams (a command reads on where the one before it stopped) and
	 * the time limit; the outcome is that of the one that ended it, sm_outcome.step. At most 63; without tty.
	 */
	const char *const *chain;
};
#define SM_EXEC_OPTIONS_INIT                                                                                           \
	{                                                                                                              \
		.size = sizeof(struct sm_exec_options), .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1,              \
		.cancel_fd = -1                                                                                        \
	}

/** Starts a command in a running VM (waits for the guest's boot). The command does not run yet when this returns: a
 * command that cannot be started is an outcome (127, 126) of sm_exec_wait. */
SM_PUBLIC int sm_vm_exec(struct sm_vm *vm, const struct sm_exec_options *options, struct sm_exec **ret,
			 struct sm_error *err);
/**
 * Joins the VM's own command: its output from now on (all of it where it waited for this), and its input if
 * stdin_open here and at the start. Of the options only stdin_open, rows, cols and the descriptors count. One client at
 * a time: -EBUSY. Works while the guest still boots.
 */
SM_PUBLIC int sm_vm_attach(struct sm_vm *vm, const struct sm_exec_options *options, struct sm_exec **ret,
			   struct sm_error *err);

/**
 * Pumps the streams in the calling thread until the command has ended and its output is written, then fills *ret.
 * Call it once. Output that can no longer be written (a closed pipe) is dropped, as if the reader were gone: for stdout
 * and stderr of sm_vm_attach and sm_vm_exec the command then gets end-of-pipe behaviour as far as its streams allow.
 * But a command that was joined, of a VM that does not end with this handle or one that was left running, goes on:
 * where its stdout cannot be written this is -EPIPE, or what the descriptor says. After sm_exec_detach: -ECANCELED.
 */
SM_PUBLIC int sm_exec_wait(struct sm_exec *exec, struct sm_outcome *ret, struct sm_error *err);

/** What a command printed to one of its streams: all of it, or the beginning and the end of what was too much. */
struct sm_output {
	const char *data; /**< Never NULL; a NUL stands behind it. */
	size_t length;	  /**< Bytes at data. */
	size_t head;	  /**< So many of them are the beginning. If truncated, those behind them are the end. */
	uint64_t total;	  /**< Bytes that the command printed. */
	bool truncated;	  /**< total is more than length. */
};

/** How a command ended and what it printed. Made by sm_exec_collect and sm_run. */
struct sm_result {
	struct sm_output out, err; /**< Empty for a stream that went to a descriptor; err also for a terminal. */
	struct sm_outcome outcome;
};
/**
 * As sm_exec_wait, with the output of streams that have no descriptor. The command is never held up by what is not
 * kept. Instead of sm_exec_wait, once.
 */
SM_PUBLIC int sm_exec_collect(struct sm_exec *exec, struct sm_result **ret, struct sm_error *err);
/** NULL is allowed; returns NULL. */
SM_PUBLIC struct sm_result *sm_result_free(struct sm_result *result);
/**
 * For an event loop, instead of a thread in sm_exec_wait: a descriptor that is readable (poll, epoll, io_uring) when
 * sm_exec_poll has something to do. The handle's own: to wait for, not to read or close. Ask again for nothing: it
 * stays.
 */
SM_PUBLIC int sm_exec_fd(struct sm_exec *exec, struct sm_error *err);
/**
 * Moves what can be moved without waiting. 0: it goes on. 1: it is over, and sm_exec_wait or sm_exec_collect, called
 * once now, does not wait. -ECANCELED as of sm_exec_wait. One thread at a time. (A descriptor of the caller that
 * blocks, a terminal say, may hold it up.)
 */
SM_PUBLIC int sm_exec_poll(struct sm_exec *exec, struct sm_error *err);
/** These three may be called from any thread while sm_exec_wait runs, and before it. They only queue. */
SM_PUBLIC int sm_exec_resize(struct sm_exec *exec, uint16_t rows, uint16_t cols, struct sm_error *err);
SM_PUBLIC int sm_exec_signal(struct sm_exec *exec, int signal, struct sm_error *err);
SM_PUBLIC int sm_exec_detach(struct sm_exec *exec, struct sm_error *err);
/** Lets go of the streams. A command of sm_vm_exec that still runs gets SIGHUP; one of sm_vm_attach goes on, unless it
 * had waited for that: then its VM ends. */
SM_PUBLIC struct sm_exec *sm_exec_close(struct sm_exec *exec);

/* Detached commands (sm_exec_options.detach) are found again by a number, which counts from 1 in each run of a VM. */

/** The number of a detached command; 0: it is not one. */
SM_PUBLIC uint32_t sm_exec_number(const struct sm_exec *exec);

/** A detached command as it was at one moment. */
struct sm_exec_info {
	uint32_t number;
	const char *const *argv;
	const char *user; /**< As it was asked for; "": the container's. */
	bool running, tty, stdin_open;
	uint32_t pid;			 /**< In the guest. */
	int64_t started_ns, finished_ns; /**< finished 0: it runs, or ended with its keeper. */
	struct sm_outcome outcome;	 /**< Unless running. */
};
/** Those of a VM's present run, or of its last: all that run and the last 64 that have ended. Freed by
 * sm_exec_list_free. */
SM_PUBLIC int sm_vm_exec_list(struct sm_vm *vm, struct sm_exec_info ***ret, size_t *ret_count, struct sm_error *err);
SM_PUBLIC void sm_exec_list_free(struct sm_exec_info **list, size_t count);
/** Sends it a signal (Linux x86 number). -ESRCH when it has ended, -ENOENT when there is none. */
SM_PUBLIC int sm_vm_exec_kill(struct sm_vm *vm, uint32_t number, int signal, struct sm_error *err);
/** Joins it: its output from now on (sm_vm_logs has what came before), and its input if it has one. One client at a
 * time (-EBUSY). It goes on when the handle is closed. Of the options those count that do for sm_vm_attach. */
SM_PUBLIC int sm_vm_exec_attach(struct sm_vm *vm, uint32_t number, const struct sm_exec_options *options,
				struct sm_exec **ret, struct sm_error *err);

/* ---------------------------------------------------------------------------------------- all in one call */

struct sm_run_options {
	size_t size;
	/** The VM: memory, mounts, environment, timeout ... image and argv are those of the call, if it gives any; the
	 * VM ends with the call, whatever `detach` says. NULL: all defaults. */
	const struct sm_vm_options *vm;
	int stdin_fd, stdout_fd, stderr_fd; /**< As in sm_exec_options; -1: none, output is in the result. */
	const void *input;		    /**< As there. */
	size_t input_size;
	size_t output_max; /**< As there. */
	int cancel_fd;	   /**< End the VM (-ECANCELED) when this is readable; -1: none. Until it has started, the
			      `progress` of vm is what can stop it. */
};
#define SM_RUN_OPTIONS_INIT                                                                                            \
	{                                                                                                              \
		.size = sizeof(struct sm_run_options), .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1,               \
		.cancel_fd = -1                                                                                        \
	}
/**
 * Runs a command in a new VM and waits for it: sm_vm_start, sm_vm_attach, sm_exec_collect, sm_vm_close. image NULL:
 * that of options->vm, or its snapshot. argv NULL: the image's command. Success is that there is a result, whatever the
 * command did: a command that is not there, or a guest that did not come up, is an outcome (SM_REASON_NOT_FOUND,
 * SM_REASON_START_FAILED). Everything is gone when it returns, unless options->vm->keep. From any thread, any number at
 * once. options may be NULL.
 */
SM_PUBLIC int sm_run(struct sm_client *client, const char *image, const char *const *argv,
		     const struct sm_run_options *options, struct sm_result **ret, struct sm_error *err);

/* ---------------------------------------------------------------------------------------------- pools */
/*
 * VMs that are there before they are needed: sm_pool_acquire gives one that is up already, or as soon as there is one.
 * All of them are alike, each a restore of a base snapshot, or of a named one (vm->snapshot: an interpreter that is
 * warm already, say). Nothing of a lease is visible to the next: a VM that is given back becomes what it was before its
 * first lease, memory, disk, processes, log and all, in the same monitor; one with mounts, ports or secrets ends, and a
 * fresh one takes its place. They end with the pool, or with this process.
 *
 * A pool works with threads of its own, in which all signals are blocked and nothing of the caller's is called but the
 * client's log and vm->progress. Calls may come from any thread, any number at once.
 */
struct sm_pool;

struct sm_pool_options {
	size_t size;
	/**
	 * What each VM is; required. Not copied: this, and what it points to, must live as long as the pool. No name,
	 * keep, detach, tty or stdin_open. Without argv and entrypoint its VMs have no command of their own
	 * (no_command); else each is leased once its command runs. Ports of the host: host_port 0, for each has its
	 * own.
	 */
	const struct sm_vm_options *vm;
	unsigned min;		  /**< How many are kept idle, ready to be leased. */
	unsigned max;		  /**< How many there are at once, at most 4096; 0: 16. */
	uint64_t idle_timeout_ns; /**< What has been idle for so long ends, beyond min; 0: 60 s. */
	/** How long sm_pool_acquire waits for a VM, be it to start or to be given back; 0: no limit. */
	uint64_t acquire_timeout_ns;
	bool no_wait;	  /**< sm_pool_acquire fails at once (-EBUSY, SM_ERROR_BUSY) when all are leased. */
	bool keep;	  /**< A VM that is given back is leased again as it is, with all that was done to it. */
	unsigned threads; /**< So many VMs are started or ended at once; 0: as many as CPUs, at least 2; at most 64. */
	/**
	 * Every VM that is given back ends, and a fresh one takes its place: no process of the host serves two leases,
	 * for which each takes several times as long.
	 */
	bool fresh;
};
#define SM_POOL_OPTIONS_INIT                                                                                           \
	{                                                                                                              \
		.size = sizeof(struct sm_pool_options)                                                                 \
	}

/** Makes a pool, which begins to start its first `min` VMs: it does not wait for them, so a VM that cannot be started
 * is an error of sm_pool_acquire. */
SM_PUBLIC int sm_pool_new(struct sm_client *client, const struct sm_pool_options *options, struct sm_pool **ret,
			  struct sm_error *err);
/**
 * Leases a VM that runs: an idle one at once, else one that is started for this call, or given back; who came first is
 * served first. -ETIMEDOUT, -EBUSY: see the options. If its VM cannot be started: why. The handle is the pool's: use it
 * for anything but sm_vm_close, sm_vm_remove and sm_vm_start_again, until it is given back. A VM that dies, or that the
 * lessee ends, is given back all the same.
 */
SM_PUBLIC int sm_pool_acquire(struct sm_pool *pool, struct sm_vm **ret, struct sm_error *err);

/** What one lease alone has. */
struct sm_lease_options {
	size_t size;
	/**
	 * Directories of the host and volumes, beside those of the pool's VMs; of a pool with a snapshot other sources
	 * for mounts that it has, as sm_vm_options.snapshot says. A VM that is up cannot be given any, so one is
	 * started for this lease.
	 */
	const struct sm_mount *mounts;
	size_t num_mounts;
	/**
	 * Beside those of the pool's VMs. An idle VM is given them, unless one of them is `reverse`, or the pool's VMs
	 * have ports: then one is started for this lease.
	 */
	const struct sm_port *ports;
	size_t num_ports;
	const char *const *env; /**< "K=V", for commands of sm_vm_exec by this handle that do not clear theirs. */
};
#define SM_LEASE_OPTIONS_INIT                                                                                          \
	{                                                                                                              \
		.size = sizeof(struct sm_lease_options)                                                                \
	}
/**
 * As sm_pool_acquire, for a VM with things of this lease's own. A VM that has mounts, volumes or ports of a lease ends
 * with it, also in a pool that keeps its VMs. One that is started for a lease counts as one of the pool's `max`; an
 * idle one makes room for it. acquire_timeout_ns counts for its start, too.
 */
SM_PUBLIC int sm_pool_acquire_with(struct sm_pool *pool, const struct sm_lease_options *options, struct sm_vm **ret,
				   struct sm_error *err);
/** Gives a VM back; all that uses the handle must have ended (close its sm_execs first). Does not wait. NULL is
 * allowed; returns NULL. */
SM_PUBLIC struct sm_vm *sm_pool_release(struct sm_pool *pool, struct sm_vm *vm);
/** Ends all its VMs, leased ones too, and waits for that. Who waits in sm_pool_acquire gets -ECANCELED. NULL is
 * allowed; returns NULL. */
SM_PUBLIC struct sm_pool *sm_pool_free(struct sm_pool *pool);

struct sm_pool_stats {
	size_t size;
	unsigned alive, idle, leased; /**< Now; alive: idle or leased. */
	unsigned starting, waiting;   /**< VMs on their way, and calls of sm_pool_acquire that wait. */
	uint64_t acquires;	      /**< Leases so far. */
	uint64_t hits;		      /**< Those that an idle VM served at once. */
	uint64_t restores;	      /**< VMs that were started. */
	uint64_t failures;	      /**< VMs that could not be. */
	uint64_t deaths;	      /**< VMs that died while they were idle, and were replaced. */
};
#define SM_POOL_STATS_INIT                                                                                             \
	{                                                                                                              \
		.size = sizeof(struct sm_pool_stats)                                                                   \
	}
SM_PUBLIC void sm_pool_get_stats(struct sm_pool *pool, struct sm_pool_stats *ret);

/* ---------------------------------------------------------------------------- long calls and event loops */
/*
 * A command is driven by sm_exec_fd. For all other calls that take long (sm_vm_start, sm_image_load, sm_image_pull,
 * sm_run, sm_vm_copy_from, sm_pool_acquire ...) there is this: one or several of them on a thread that the library
 * keeps for it, all signals blocked, and a descriptor that tells when they are done. Cancel them as they can be
 * cancelled.
 */
struct sm_task;

/** Begins `call(arg, ...)` elsewhere. It returns 0 or more, or a negative number with its error filled in. */
SM_PUBLIC int sm_task_start(int (*call)(void *arg, struct sm_error *err), void *arg, struct sm_task **ret,
			    struct sm_error *err);
/** Readable once the call has returned. The task's own: to wait for, not to read or close. */
SM_PUBLIC int sm_task_fd(const struct sm_task *task);
/** What the call returned, and its error; waits for it if need be. The task is gone then. */
SM_PUBLIC int sm_task_finish(struct sm_task *task, struct sm_error *err);

/* ----------------------------------------------------------------------------------------- files of a VM */
/*
 * All of these wait for a VM that starts, and wake one that is suspended. Of one that has ended and was kept they have
 * the files on its disk and in its mounts: the first such call starts another VM with its disk and no command, which
 * the handle keeps until it is closed, or the VM started again or removed through it; meanwhile others cannot start it
 * (-EBUSY). Paths in the VM are those of its container, whatever user its command has; a relative one begins at /.
 */

struct sm_copy_options {
	size_t size;
	bool follow;   /**< A source that is a symbolic link: what it leads to. Links inside a tree are always copied as
			  links. */
	bool keep_ids; /**< Owners and set-id bits as they are (on the host: root alone may). Else all belongs to the
			  caller, in the VM to root. */
	int tar_fd;    /**< The tar stream, where a path is NULL; -1: none. */
	int cancel_fd; /**< Stop (-ECANCELED) when this becomes readable; -1: none. */
	struct sm_progress progress; /**< "copy", bytes. */
};
#define SM_COPY_OPTIONS_INIT                                                                                           \
	{                                                                                                              \
		.size = sizeof(struct sm_copy_options), .tar_fd = -1, .cancel_fd = -1                                  \
	}
/**
 * Copies a file or a tree from a VM to the host, with the rules of "docker cp": into target if that is a directory,
 * else as target, whose parent must be there; the contents of a directory alone if source ends in "/." or target is not
 * there. Modes, times to the ns, symbolic and hard links, holes and user.* attributes are kept; sockets are left out.
 * target NULL: as a tar stream (pax) to tar_fd.
 *
 * The VM is not trusted: whatever it sends, nothing outside of the destination is written, no link followed, no device
 * made. There is no limit on how much it sends: cancel_fd and progress are. A copy that fails leaves what it has
 * written so far. options may be NULL.
 */
SM_PUBLIC int sm_vm_copy_from(struct sm_vm *vm, const char *source, const char *target,
			      const struct sm_copy_options *options, struct sm_error *err);
/** The other way round. source NULL: the entries of the tar stream at tar_fd, into target, a directory that is there.
 */
SM_PUBLIC int sm_vm_copy_to(struct sm_vm *vm, const char *source, const char *target,
			    const struct sm_copy_options *options, struct sm_error *err);

/** Reads a regular file from offset on, at most max bytes (0: to its end; -EFBIG beyond 1 GiB). *ret: to sm_free, with
 * a NUL behind it. */
SM_PUBLIC int sm_vm_read_file(struct sm_vm *vm, const char *path, uint64_t offset, uint64_t max, void **ret,
			      size_t *ret_size, struct sm_error *err);

struct sm_write_options {
	size_t size;
	uint32_t mode;	       /**< Permissions; 0: 0644. */
	uint32_t uid, gid;     /**< Its owner. */
	bool make_directories; /**< Those that are missing on the way. */
};
#define SM_WRITE_OPTIONS_INIT                                                                                          \
	{                                                                                                              \
		.size = sizeof(struct sm_write_options)                                                                \
	}
/** Makes or replaces a file: under its name it is always the old or the new one. options may be NULL. */
SM_PUBLIC int sm_vm_write_file(struct sm_vm *vm, const char *path, const void *data, size_t size,
			       const struct sm_write_options *options, struct sm_error *err);

/** A file in a VM as it was at one moment. */
struct sm_file_info {
	const char *name; /**< Its last component; "" for "/". */
	const char *link; /**< What a symbolic link says, else "". */
	uint32_t mode;	  /**< Type and permissions, as st_mode. */
	uint32_t uid, gid;
	uint64_t size;	  /**< Of a regular file. */
	int64_t mtime_ns; /**< When its contents were changed. */
};
SM_PUBLIC int sm_vm_stat(struct sm_vm *vm, const char *path, bool follow, struct sm_file_info **ret,
			 struct sm_error *err);
SM_PUBLIC struct sm_file_info *sm_file_info_free(struct sm_file_info *info);
/** What is in a directory, in no order; more than a million names: -E2BIG. Freed by sm_file_list_free. */
SM_PUBLIC int sm_vm_list_files(struct sm_vm *vm, const char *path, struct sm_file_info ***ret, size_t *ret_count,
			       struct sm_error *err);
SM_PUBLIC void sm_file_list_free(struct sm_file_info **list, size_t count);
/** Removes a file or an empty directory; recursive: a tree. Links are removed, not followed. */
SM_PUBLIC int sm_vm_remove_file(struct sm_vm *vm, const char *path, bool recursive, struct sm_error *err);

/* What a VM has changed of its image, and of directories of the host that it has with `cow`. */

enum sm_change_kind {
	SM_CHANGE_ADDED = 1,
	SM_CHANGE_CHANGED = 2, /**< Also a directory in which something was. */
	SM_CHANGE_DELETED = 3,
	SM_CHANGE_REFUSED = 4, /**< Of sm_vm_apply: a device, which was left out. */
};
/** Texts are the VM's word: any bytes but NUL. */
struct sm_change {
	enum sm_change_kind kind;
	const char *path; /**< In the VM, absolute. */
	uint32_t mode;	  /**< Type and permissions, as st_mode; 0: deleted. */
	uint64_t size;	  /**< Of a regular file. */
	const char *link; /**< What a symbolic link says, else "". */
};
struct sm_diff_options {
	size_t size;
	int (*change)(void *arg, const struct sm_change *c); /**< Called for each; not 0: stop (-ECANCELED). */
	void *arg;
	int cancel_fd; /**< Stop (-ECANCELED) when this becomes readable; -1: none. */
};
#define SM_DIFF_OPTIONS_INIT                                                                                           \
	{                                                                                                              \
		.size = sizeof(struct sm_diff_options), .cancel_fd = -1                                                \
	}
/** Lists the changes of a VM's root, then those of each mount with `cow`, paths in no order but parents first.
 * File systems in memory, /proc, /sys, /dev and the files of /etc that every VM has of its own are left out. */
SM_PUBLIC int sm_vm_diff(struct sm_vm *vm, const struct sm_diff_options *options, struct sm_error *err);
/**
 * Makes the changes of mounts with `cow` in the host's directories: paths (in the VM, as sm_vm_diff tells them, each a
 * file or all of a directory; NULL: all). What is there is replaced or removed. The VM is not trusted: whatever it
 * sends, nothing outside of the directories is touched and no link followed; files become the caller's, without set-id
 * bits; devices are left out. Symbolic links are made as they are. Other changes of the directory meanwhile are not
 * looked for. One that fails leaves what it has done so far. `change` is told of each as it is made.
 */
SM_PUBLIC int sm_vm_apply(struct sm_vm *vm, const char *const *paths, const struct sm_diff_options *options,
			  struct sm_error *err);

/* Files of a VM that somebody changes. */

enum sm_file_event_kind {
	SM_FILE_CREATED = 1,	/**< Also what was moved in from elsewhere. */
	SM_FILE_MODIFIED = 2,	/**< Its contents. */
	SM_FILE_DELETED = 3,	/**< Also what was moved away to where nobody watches. */
	SM_FILE_MOVED = 4,	/**< It is called `to` now. */
	SM_FILE_ATTRIBUTES = 5, /**< Mode, owner, times, extended attributes, or number of names. */
	SM_FILE_OVERFLOW = 6,	/**< More happened than could be told: look for yourself. path is that of the watch. */
	SM_FILE_GONE = 7,	/**< What is watched is not there any more: the watch ends. */
};
/** "created", "modified", "deleted", "moved", "attributes", "overflow", "gone"; "none" for what is unknown. Static. */
SM_PUBLIC const char *sm_file_event_name(enum sm_file_event_kind kind);

/** Texts are the VM's word: any bytes but NUL. Valid during the call. */
struct sm_file_event {
	enum sm_file_event_kind kind;
	const char *path; /**< In the VM, absolute. */
	const char *to;	  /**< Of what was moved; else "". */
	bool directory;
};
struct sm_watch_options {
	size_t size;
	bool recursive; /**< Also all that is in directories beneath, as they come and go; links are not followed. */
	/** Called for each event by sm_watch_next, in order; not 0: stop there (-ECANCELED). Required. */
	int (*event)(void *arg, const struct sm_file_event *e);
	void *arg;
};
#define SM_WATCH_OPTIONS_INIT                                                                                          \
	{                                                                                                              \
		.size = sizeof(struct sm_watch_options)                                                                \
	}
struct sm_watch;
/**
 * Watches a file or directory of a running VM, a symbolic link at the end of path followed. What happens after this
 * returns is told. It is the VM's own kernel that notices (inotify): what somebody else changes in a directory of the
 * host that it has mounted it sees as far as docs/ARCHITECTURE says. -ENOSPC (SM_ERROR_LIMIT): more directories than
 * its kernel may watch. A handle is for one thread.
 */
SM_PUBLIC int sm_vm_watch(struct sm_vm *vm, const char *path, const struct sm_watch_options *options,
			  struct sm_watch **ret, struct sm_error *err);
/** For an event loop: readable when sm_watch_next has something to do. The handle's own: to wait for, not to read. */
SM_PUBLIC int sm_watch_fd(const struct sm_watch *watch);
/**
 * Waits up to timeout_ms (0: not at all; -1: for ever) for events and tells of all that are there: how many. 0: there
 * were none. A watch that has ended is an error from then on: -ENOENT what is watched is gone (after SM_FILE_GONE),
 * -EPIPE (SM_ERROR_STATE) the VM has ended.
 */
SM_PUBLIC int sm_watch_next(struct sm_watch *watch, int timeout_ms, struct sm_error *err);
/** NULL is allowed; returns NULL. */
SM_PUBLIC struct sm_watch *sm_watch_close(struct sm_watch *watch);

struct sm_commit_options {
	size_t size;
	const char *author, *message; /**< For the image's history; NULL: none. */
	/** What the image is to have otherwise, as lines of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL,
	 * STOPSIGNAL, USER, VOLUME, WORKDIR. NULL: nothing. */
	const char *const *changes;
	bool no_pause; /**< The VM's processes go on meanwhile; else they stand still until their files were read. */
	int cancel_fd; /**< Stop (-ECANCELED) when this becomes readable, until the layer is gathered; -1: none. */
	struct sm_progress progress; /**< "copy", then as of a load. */
};
#define SM_COMMIT_OPTIONS_INIT                                                                                         \
	{                                                                                                              \
		.size = sizeof(struct sm_commit_options), .cancel_fd = -1                                              \
	}
/**
 * Makes an image of the VM's image and, as one more layer, of what sm_vm_diff tells of its root, with owners, modes,
 * times, all attributes, links and devices. What is mounted in it is left out, with the places that were made for that.
 * Of a file system in memory (tmpfs_root) that is possible while it runs. The image's command, environment, user,
 * directory and labels are the VM's, but for `changes`. name: as of sm_load_options; it moves to this image; NULL:
 * none. ret may be NULL. One that fails or is killed leaves the store as it was.
 */
SM_PUBLIC int sm_vm_commit(struct sm_vm *vm, const char *name, const struct sm_commit_options *options,
			   struct sm_image **ret, struct sm_error *err);

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

/* --------------------------------------------------------------------------------------- file systems */

/**
 * A file-system backend: what a FUSE server serves. The same backend works behind every door: a guest's virtio-fs
 * device, a vhost-user socket, the host's own /dev/fuse. The library brings two (in memory, and a directory of the
 * host) and takes yours: embed this struct first in your own, point ops to your functions.
 *
 * Rules for a backend:
 * - Functions return 0 (or a count) or a negated Linux errno. A NULL member is answered as its comment says.
 * - They may be called from several threads at once, none of them the caller's. One that blocks (a lock waited for)
 * holds up a thread of the server, not the others.
 * - Files are known by node ids, the root by SM_FS_ROOT. A node id stays valid, and means the same file, from the
 * lookup (or readdirplus, create, mkdir, ...) that returned it until forget has been called as often as it was
 * returned.
 * - No length, offset, name or handle from the peer needs checking for memory safety: names are NUL-terminated, not
 * empty, without '/', never "." or "..", at most 255 bytes; offset + size never overflows; a handle is one that open or
 * opendir of this very node returned and that was not released.
 */
struct sm_fs_backend;
struct sm_fs_ops;

#define SM_FS_ROOT 1

/** Who asks: ids as the peer's kernel sees them. The peer has checked permissions (mount option default_permissions).
 */
struct sm_fs_caller {
	uint32_t uid, gid, pid;
	uint32_t umask; /**< For create, mkdir, mknod: to be applied to mode, unless a default ACL takes its place. */
};

/** What a lookup yields. */
struct sm_fs_entry {
	uint64_t
		nodeid; /**< 0 in a successful lookup: the name is absent, and that may be cached for entry_valid_ns. */
	uint64_t generation; /**< Tells two files apart that have had the same nodeid. */
	struct stat attr;
	uint64_t entry_valid_ns; /**< How long the name may be taken for this node without asking. */
	uint64_t attr_valid_ns;	 /**< How long the attributes may. */
	bool submount;		 /**< The root of another file system: st_dev changes here. */
};

/** Which members of a setattr count. */
enum sm_fs_set {
	SM_FS_SET_MODE = 1 << 0,
	SM_FS_SET_UID = 1 << 1,
	SM_FS_SET_GID = 1 << 2,
	SM_FS_SET_SIZE = 1 << 3,
	SM_FS_SET_ATIME = 1 << 4,
	SM_FS_SET_MTIME = 1 << 5,
	SM_FS_SET_ATIME_NOW = 1 << 6,
	SM_FS_SET_MTIME_NOW = 1 << 7,
	SM_FS_SET_CTIME = 1 << 8,
	SM_FS_SET_KILL_SUIDGID = 1 << 9, /**< Drop setuid, setgid (if group-executable) and security.capability. */
};

/** How an open file is to be cached by the peer. */
enum sm_fs_open_flags {
	SM_FS_OPEN_DIRECT_IO = 1 << 0,	/**< No page cache: every read and write asks. */
	SM_FS_OPEN_KEEP_CACHE = 1 << 1, /**< What was cached before this open is still right. */
	SM_FS_OPEN_CACHE_DIR = 1 << 3,	/**< The listing may be cached. */
	SM_FS_OPEN_NOFLUSH = 1 << 5,	/**< close() need not tell. */
	SM_FS_OPEN_PARALLEL_WRITES = 1 << 6,
	/** `length` is set. A peer that was told another length and may still believe it looks the file up anew before
	 * the open succeeds. */
	SM_FS_OPEN_LENGTH = 1 << 8,
	/** The file has no name any more. A peer that still believes one looks it up anew before the open succeeds. */
	SM_FS_OPEN_NAMELESS = 1 << 9,
};

/** What a write is. */
enum sm_fs_write_flags {
	SM_FS_WRITE_KILL_SUIDGID = 1 << 0, /**< As SM_FS_SET_KILL_SUIDGID. */
	SM_FS_WRITE_APPEND =
		1 << 1, /**< Behind the end, wherever that is by now; offset is where the peer took it to be. */
};

/** An open file or directory. */
struct sm_fs_open {
	uint64_t fh;	/**< The backend's own; given back to it. */
	uint32_t flags; /**< enum sm_fs_open_flags */
	int64_t length; /**< Of the file, when it was opened, in bytes. */
};

/** A part of a file as a mapping. */
struct sm_fs_map {
	int fd;
	uint64_t offset, length;
	int protection; /**< PROT_READ, PROT_WRITE: the most that is allowed. */
	bool give; /**< The descriptor becomes the caller's, which closes it when the mapping is made; else it stays
		      the backend's. */
};

/** For dax_map: the file of the node, whether the peer has it open or not. */
#define SM_FS_NO_HANDLE UINT64_MAX

/** An advisory lock (POSIX or flock). */
struct sm_fs_lock {
	uint64_t owner, start, end; /**< Inclusive; end UINT64_MAX: to the end of the file. */
	int type;		    /**< F_RDLCK, F_WRLCK, F_UNLCK */
	uint32_t pid;
	bool flock; /**< A flock(2) lock of the whole file. */
};

/**
 * Adds one directory entry to the answer. next_offset: where a later readdir goes on after this entry. entry: for
 * readdirplus, with a lookup reference taken, or NULL for none. Returns false when the entry did not fit: it was not
 * added, a reference taken for it is still the backend's, and the listing ends here.
 */
typedef bool (*sm_fs_add_dirent)(void *arg, const char *name, uint64_t ino, uint32_t d_type, uint64_t next_offset,
				 const struct sm_fs_entry *entry);

/** The functions of a backend. `size` is sizeof(struct sm_fs_ops) of the header it was compiled with. FUSE opcodes in
 * parentheses. */
struct sm_fs_ops {
	size_t size;
	/** The session begins or ends. NULL: nothing to do. (INIT, DESTROY) */
	int (*init)(struct sm_fs_backend *be);
	void (*destroy)(struct sm_fs_backend *be);
	/** Finds a name and takes a reference. Required. -ENOENT, or an entry with nodeid 0, when absent. (LOOKUP) */
	int (*lookup)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
		      struct sm_fs_entry *ret);
	/** Gives references back; more than were taken is harmless. NULL: references do not count. (FORGET,
	 * BATCH_FORGET) */
	void (*forget)(struct sm_fs_backend *be, uint64_t nodeid, uint64_t count);
	/** Required. has_fh: fh is an open handle of the node. (GETATTR, STATX) */
	int (*getattr)(struct sm_fs_backend *be, uint64_t nodeid, bool has_fh, uint64_t fh, struct stat *ret,
		       uint64_t *ret_valid_ns);
	/** set: enum sm_fs_set; NULL: -EROFS. (SETATTR) */
	int (*setattr)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid, bool has_fh,
		       uint64_t fh, uint32_t set, const struct stat *in, struct stat *ret, uint64_t *ret_valid_ns);
	/** Writes up to size bytes, without NUL; returns the length. NULL: -EINVAL. (READLINK) */
	ssize_t (*readlink)(struct sm_fs_backend *be, uint64_t nodeid, char *buf, size_t size);
	/** The makers: take a reference like lookup. -EEXIST when the name is there. NULL: -EROFS. */
	int (*symlink)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
		       const char *target, struct sm_fs_entry *ret);
	int (*mknod)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
		     uint32_t mode, uint32_t rdev, struct sm_fs_entry *ret);
	int (*mkdir)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
		     uint32_t mode, struct sm_fs_entry *ret);
	int (*link)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid, uint64_t parent,
		    const char *name, struct sm_fs_entry *ret);
	/** Opens or makes a regular file; flags: O_* of Linux. NULL: -ENOSYS, the peer then uses mknod and open.
	 * (CREATE) */
	int (*create)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
		      uint32_t mode, uint32_t flags, struct sm_fs_entry *ret, struct sm_fs_open *ret_open);
	/** An unnamed file (O_TMPFILE). NULL: -EOPNOTSUPP. (TMPFILE) */
	int (*tmpfile)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, uint32_t mode,
		       uint32_t flags, struct sm_fs_entry *ret, struct sm_fs_open *ret_open);
	/** NULL: -EROFS. */
	int (*unlink)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name);
	int (*rmdir)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name);
	/** flags: RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT. (RENAME, RENAME2) */
	int (*rename)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
		      uint64_t new_parent, const char *new_name, uint32_t flags);
	/** Opens a regular file. -EISDIR for a directory. NULL: success, handle 0. (OPEN) */
	int (*open)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid, uint32_t flags,
		    struct sm_fs_open *ret);
	/** Straight between the file and the request's buffers. Past the end: 0. Required for files. (READ) */
	ssize_t (*read)(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, const struct iovec *iov, int count,
			uint64_t offset);
	/** flags: enum sm_fs_write_flags. NULL: -EROFS. (WRITE) */
	ssize_t (*write)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid, uint64_t fh,
			 const struct iovec *iov, int count, uint64_t offset, uint32_t flags);
	/** A descriptor of the open file was closed; lock_owner's POSIX locks go. NULL: never asked again. (FLUSH) */
	int (*flush)(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, uint64_t lock_owner);
	void (*release)(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, bool flock_release,
			uint64_t lock_owner);
	/** NULL: success. (FSYNC, FSYNCDIR, SYNCFS) */
	int (*fsync)(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, bool data_only);
	int (*fsyncdir)(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, bool data_only);
	int (*syncfs)(struct sm_fs_backend *be, uint64_t nodeid);
	/** NULL: success, handle 0. Most peers open no directories: then it is called before a listing's first part (or
	 * one whose offset no listing has come to), and releasedir at its end or when it has been left for long. */
	int (*opendir)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid,
		       struct sm_fs_open *ret);
	/** Lists from offset (0: the beginning, else a next_offset) until the end or add says no. plus: give entries
	 * too. Required. */
	int (*readdir)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid, uint64_t fh,
		       uint64_t offset, bool plus, sm_fs_add_dirent add, void *arg);
	void (*releasedir)(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh);
	int (*statfs)(struct sm_fs_backend *be, uint64_t nodeid, struct statvfs *ret);
	/** size 0 asks for the length alone; -ERANGE when it does not fit. NULL: -ENOSYS, never asked again. */
	ssize_t (*getxattr)(struct sm_fs_backend *be, uint64_t nodeid, const char *name, void *value, size_t size);
	ssize_t (*listxattr)(struct sm_fs_backend *be, uint64_t nodeid, char *list, size_t size);
	int (*setxattr)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid, const char *name,
			const void *value, size_t size, int flags);
	int (*removexattr)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid, const char *name);
	/** lock->type F_UNLCK on return: it could be had. NULL: locks stay among the peer's own processes. (GETLK) */
	int (*getlk)(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, struct sm_fs_lock *lock);
	/** wait: block until it is had. (SETLK, SETLKW) */
	int (*setlk)(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, const struct sm_fs_lock *lock, bool wait);
	/** NULL: -EOPNOTSUPP. */
	int (*fallocate)(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, int mode, uint64_t offset,
			 uint64_t length);
	/** SEEK_DATA or SEEK_HOLE. NULL: -ENOSYS, the peer takes the file for one without holes. */
	int64_t (*lseek)(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, uint64_t offset, int whence);
	/** NULL: -EOPNOTSUPP, the peer copies through its cache. */
	ssize_t (*copy_file_range)(struct sm_fs_backend *be, uint64_t nodeid_in, uint64_t fh_in, uint64_t offset_in,
				   uint64_t nodeid_out, uint64_t fh_out, uint64_t offset_out, uint64_t length);
	/** A shared mapping for a DAX window; fh may be SM_FS_NO_HANDLE. -EACCES or -EROFS where it may not be mapped
	 * with that protection. A part that ends behind the end of the file is none the worse for it. NULL:
	 * -EOPNOTSUPP. (SETUPMAPPING) Also asked, with length and protection 0, for the descriptor through which the
	 * host's kernel may move an open file's data itself. */
	int (*dax_map)(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, uint64_t offset, uint64_t length,
		       int protection, struct sm_fs_map *ret);
	/** The peer has no mapping of this part of the node any more. NULL: nothing to do. (REMOVEMAPPING) */
	void (*dax_unmap)(struct sm_fs_backend *be, uint64_t nodeid, uint64_t offset, uint64_t length);
	/** Adds a watch of this directory, for the events of inotify(7) in mask, to an inotify instance: its number, or
	 * -errno (-EREMOTE: others change it where this kernel does not see it). With it the peer may cache names and
	 * attributes for as long as nobody else changes them. NULL: they are valid for as long as each answer says. */
	int (*watch)(struct sm_fs_backend *be, uint64_t nodeid, int inotify_fd, uint32_t mask);
	/** When the file was made; -EOPNOTSUPP where that is not known. NULL: it never is. (STATX) */
	int (*birth)(struct sm_fs_backend *be, uint64_t nodeid, struct timespec *ret);
};

/** What the library knows of a backend. Not copied: it must live as long as a server uses it. */
struct sm_fs_backend {
	const struct sm_fs_ops *ops;
};

/* The library's own backends. They belong to no client. Free one when no server uses it any more; NULL is allowed. */

struct sm_fs_memory_options {
	size_t size;
	uint64_t max_bytes; /**< Of file contents; 0: 1 GiB. Beyond: ENOSPC. */
	uint64_t max_nodes; /**< Files and directories; 0: 2^20. Beyond: ENOSPC. */
	uint32_t root_mode; /**< Permissions of the root directory; 0: 0755. */
	uint32_t uid, gid;  /**< Its owner. */
};
#define SM_FS_MEMORY_OPTIONS_INIT                                                                                      \
	{                                                                                                              \
		.size = sizeof(struct sm_fs_memory_options)                                                            \
	}
/** A complete, writable file system in this process's memory, empty at first. options may be NULL. */
SM_PUBLIC int sm_fs_memory_new(const struct sm_fs_memory_options *options, struct sm_fs_backend **ret,
			       struct sm_error *err);
SM_PUBLIC struct sm_fs_backend *sm_fs_memory_free(struct sm_fs_backend *backend);

struct sm_fs_posix_options {
	size_t size;
	enum sm_fs_ids ids;
	enum sm_fs_symlinks symlinks;
	enum sm_fs_cache cache;
	bool read_only;
	unsigned max_fds;      /**< Descriptors kept for files that are known, not open; 0: 4096, at most a quarter of
				  RLIMIT_NOFILE. */
	unsigned max_open;     /**< Files open at once; 0: half of RLIMIT_NOFILE. Beyond: ENFILE. */
	const char *id_ranges; /**< With SM_FS_IDS_RANGES. */
	enum sm_fs_xattrs xattrs;
	bool direct; /**< O_DIRECT of the peer leaves out the host's page cache, too, for aligned buffers. */
};
#define SM_FS_POSIX_OPTIONS_INIT                                                                                       \
	{                                                                                                              \
		.size = sizeof(struct sm_fs_posix_options)                                                             \
	}
/**
 * A directory of the host, and nothing outside it: names are resolved one by one beneath it, links followed there at
 * most (symlinks), host devices and fifos not opened. -ENOTDIR when path is none. options may be NULL.
 */
SM_PUBLIC int sm_fs_posix_new(const char *path, const struct sm_fs_posix_options *options, struct sm_fs_backend **ret,
			      struct sm_error *err);
SM_PUBLIC struct sm_fs_backend *sm_fs_posix_free(struct sm_fs_backend *backend);

/** A backend in service, by whichever door, and the threads that serve it. */
struct sm_fs_server;

struct sm_fs_mount_options {
	size_t size;
	const char *source; /**< As mount(8) shows it; NULL: "supermachine". */
	/**
	 * 0: one per CPU, at least 2; and by io_uring where the kernel has that on (fuse.enable_uring, Linux 6.14). A
	 * number: so many, at most 16, without.
	 */
	unsigned threads;
	bool read_only;	  /**< Changes are refused (EROFS) without asking the backend. */
	bool allow_other; /**< Other users may enter: always so when root mounts, for others /etc/fuse.conf decides. */
	bool writeback;	  /**< The kernel may keep written data for a while: only where nobody else writes the tree. */
	/** As sm_vm_options.audit, for a backend of sm_fs_posix_new: what whoever uses the mount does to files of that
	 * directory. In place of `vm` a line has `mount`, the mount point. NULL: none. */
	const char *audit;
};
#define SM_FS_MOUNT_OPTIONS_INIT                                                                                       \
	{                                                                                                              \
		.size = sizeof(struct sm_fs_mount_options)                                                             \
	}
/**
 * Mounts a backend on an existing directory of this host, through /dev/fuse, and serves it with threads of its own from
 * then on. The kernel checks permissions by the attributes that the backend gives. Root mounts directly; others by
 * fusermount3, run as a child without SIGCHLD. What a killed server left on the mount point is cleared away; -EBUSY
 * when another still serves there. -ENODEV or -EPERM when this host has no /dev/fuse or does not let us. options may be
 * NULL. One backend serves one mount at a time.
 */
SM_PUBLIC int sm_fs_mount(struct sm_fs_backend *backend, const char *mountpoint,
			  const struct sm_fs_mount_options *options, struct sm_fs_server **ret, struct sm_error *err);
struct sm_fs_vhost_user_options {
	size_t size;
	bool read_only; /**< Changes are refused (EROFS) without asking the backend. */
	bool writeback; /**< The front end's kernel may keep written data for a while: only where nobody else writes the
			   tree. */
};
#define SM_FS_VHOST_USER_OPTIONS_INIT                                                                                  \
	{                                                                                                              \
		.size = sizeof(struct sm_fs_vhost_user_options)                                                        \
	}
/**
 * Serves a backend as a virtio-fs device to one vhost-user front end (QEMU's vhost-user-fs-pci, say), with threads of
 * its own. path: where a socket is made for it to connect to, removed when the server ends; it must not exist
 * (-EADDRINUSE). Or path NULL, and fd a unix stream socket, listening or connected, which is taken over in any case.
 * The front end shares its memory with this process, and is trusted not to shrink it. options may be NULL. One backend
 * serves one front end at a time; when that has left (sm_fs_wait), another may be served by another call.
 */
SM_PUBLIC int sm_fs_serve_vhost_user(struct sm_fs_backend *backend, const char *path, int fd,
				     const struct sm_fs_vhost_user_options *options, struct sm_fs_server **ret,
				     struct sm_error *err);

struct sm_fs_shared_options {
	size_t size;
	bool read_only; /**< Changes are refused (EROFS) without asking the backend. */
};
#define SM_FS_SHARED_OPTIONS_INIT                                                                                      \
	{                                                                                                              \
		.size = sizeof(struct sm_fs_shared_options)                                                            \
	}
/**
 * Serves a backend to other processes, each of which has its own stand-in for it (sm_fs_connect), on threads of its
 * own. path and fd: as of sm_fs_serve_vhost_user, fd listening. Its clients are kept apart: one that dies loses its
 * handles, references and locks, one that breaks the protocol is cut off, and the others go on. Whoever may connect may
 * do with the tree what the backend lets anybody do. File data is moved by the clients themselves where the backend
 * gives descriptors (dax_map). Serves until sm_fs_stop; up to 256 clients. options may be NULL.
 */
SM_PUBLIC int sm_fs_serve_shared(struct sm_fs_backend *backend, const char *path, int fd,
				 const struct sm_fs_shared_options *options, struct sm_fs_server **ret,
				 struct sm_error *err);
/**
 * A backend that another process serves on a socket (sm_fs_serve_shared), for any door of this one. When that process
 * ends, what is under way fails with EIO and what comes after with ENOTCONN, until another serves there. Free it with
 * sm_fs_daemon_free.
 */
SM_PUBLIC int sm_fs_connect(const char *path, struct sm_fs_backend **ret, struct sm_error *err);
/**
 * A directory of the host that a process for all of this user's programs serves, as sm_fs_posix_new does: one for each
 * directory, set of options and group (a name; NULL: the common one). It is started when there is none, also when it
 * was killed, and ends ten seconds after its last client. The client must outlive this call only.
 */
SM_PUBLIC int sm_fs_daemon_new(struct sm_client *client, const char *path, const struct sm_fs_posix_options *options,
			       const char *group, struct sm_fs_backend **ret, struct sm_error *err);
SM_PUBLIC struct sm_fs_backend *sm_fs_daemon_free(struct sm_fs_backend *backend);

/**
 * Waits until the other side has ended it: 0, when somebody unmounted it, or the front end closed its connection;
 * another error when the front end broke the protocol, and was cut off. Nobody else ends a shared tree. -ECANCELED once
 * cancel_fd (-1: none) is readable. From any thread, also several; not during sm_fs_stop.
 */
SM_PUBLIC int sm_fs_wait(struct sm_fs_server *server, int cancel_fd, struct sm_error *err);
/**
 * Ends a server at once, waits for what it is serving, and frees it. A mount is unmounted, also while it is in use
 * (what was written reaches the backend first; who still has files open gets ENOTCONN from then on, except for data
 * that the kernel moves itself); a front end is cut off. NULL is allowed; returns NULL. Not from a function of the
 * backend.
 */
SM_PUBLIC struct sm_fs_server *sm_fs_stop(struct sm_fs_server *server);

/** What a server has done so far. */
struct sm_fs_stats {
	size_t size;
	uint64_t requests, errors;	    /**< Served, and of those answered with an error. */
	uint64_t malformed;		    /**< Requests that no kernel would send. */
	uint64_t bytes_read, bytes_written; /**< Of file data. */
	uint64_t handles_open;		    /**< Files and directories open now. */
};
#define SM_FS_STATS_INIT                                                                                               \
	{                                                                                                              \
		.size = sizeof(struct sm_fs_stats)                                                                     \
	}
SM_PUBLIC void sm_fs_get_stats(struct sm_fs_server *server, struct sm_fs_stats *ret);

/* --------------------------------------------------------------------------------------------- doctor */

struct sm_finding {
	const char *id; /**< "kvm", "machine", "kernel", "qemu", "space", "helpers", "fuse" ...: stable. */
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
