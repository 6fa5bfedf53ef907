/* SPDX-License-Identifier: Apache-2.0 */
/* sm_vm_start: from options and an image's configuration to a record (OCI image-spec config.md says what each member
 * means). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "keeper/disk.h"
#include "lib/spare.h"
#include "lib/vmsnap.h"
#include "lib/volume.h"

#define MIN_MEMORY (128 * MIB)
#define MEMORY_STEP (4 * MIB) /* what is plugged comes in such pieces (base.c) */
#define MIN_DISK (16 * MIB)
#define MAX_DISK (16 * 1024 * GIB)
#define MAX_CPUS 16
#define THROUGHPUT_CPUS 4
#define MIN_CPU_LIMIT 10u /* in a tenth of a second, the least that the kernel knows: a millisecond */
#define HOSTNAME_MAX 64
/* A window costs the guest 1/64 of its size in RAM; where that is over 1/8 the image is a disk instead. */
#define WINDOW_PER_MEMORY 8
#define WINDOW_ALIGN (128 * MIB)
#define DEFAULT_DAX (512 * MIB)
#define MAX_DAX (1024 * GIB)

int start_check_own(const struct sm_vm_options *o, struct sm_error *err)
{
	if (o->name && !vm_name_valid(o->name))
		return error_set(err, SM_ERROR_INVALID, EINVAL,
				 "\"%s\" is no name for a VM: letters, digits, _ . -, at most %d, beginning with a "
				 "letter or digit",
				 o->name, VM_NAME_MAX);
	if (o->hostname && (!*o->hostname || strlen(o->hostname) > HOSTNAME_MAX))
		return error_set(err, SM_ERROR_INVALID, EINVAL, "host name \"%s\": 1 to %d bytes", o->hostname,
				 HOSTNAME_MAX);
	for (const char *const *e = o->env; e && *e; e++)
		if (!strchr(*e, '=') || **e == '=')
			return error_set(err, SM_ERROR_INVALID, EINVAL, "environment \"%s\" is not NAME=VALUE", *e);
	return idle_check(o, err);
}

static int check_options(const struct sm_vm_options *o, struct sm_error *err)
{
	char text[16];

	if (!o->image || !*o->image)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "no image given");
	if (o->memory && o->memory < MIN_MEMORY)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "%s of memory is too little: at least 128 MiB",
				 format_size(o->memory, text));
	if (o->profile > SM_PROFILE_THROUGHPUT)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "unknown profile %d", (int)o->profile);
	if (o->cpus > MAX_CPUS)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "%u CPUs are too many: at most %d", o->cpus, MAX_CPUS);
	if (o->cpu_limit && (o->cpu_limit < MIN_CPU_LIMIT || o->cpu_limit > 1000ull * (o->cpus ? o->cpus : MAX_CPUS)))
		return error_set(err, SM_ERROR_INVALID, EINVAL,
				 "a share of %g CPUs: from %g to as many as it has, at most %d",
				 (double)o->cpu_limit / 1e3, MIN_CPU_LIMIT / 1e3, MAX_CPUS);
	if (o->disk_size && (o->disk_size < MIN_DISK || o->disk_size > MAX_DISK))
		return error_set(err, SM_ERROR_INVALID, EINVAL, "a disk of %s: it must be from 16 MiB to 16 TiB",
				 format_size(o->disk_size, text));
	if (o->cwd && o->cwd[0] != '/')
		return error_set(err, SM_ERROR_INVALID, EINVAL, "working directory \"%s\" is not absolute", o->cwd);
	return start_check_own(o, err);
}

/* Entrypoint and Cmd as image-spec has them; a given entrypoint takes the image's Cmd with it, as docker does. */
static char **command_line(const struct sm_vm_options *o, const struct image_info *img)
{
	const char *const *entry = o->entrypoint ? o->entrypoint : (const char *const *)img->entrypoint;
	const char *const *cmd = o->argv ? o->argv : o->entrypoint ? NULL : (const char *const *)img->cmd;
	size_t ne = strv_len(entry), nc = strv_len(cmd);
	char **v = calloc(ne + nc + 1, sizeof(*v));

	for (size_t i = 0; v && i < ne + nc; i++) {
		v[i] = strdup(i < ne ? entry[i] : cmd[i - ne]);
		if (!v[i]) {
			strv_free(v);
			return NULL;
		}
	}
	return v;
}

static char **environment(const struct sm_vm_options *o, const struct image_info *img)
{
	const char *extra[3] = {0};
	unsigned n = 0;
	char **image = env_merge((const char *const *)img->env, o->env), **env;

	if (!image)
		return NULL;
	if (!env_has(image, "PATH"))
		extra[n++] = START_DEFAULT_PATH;
	if (o->tty && !env_has(image, "TERM"))
		extra[n++] = "TERM=xterm";
	env = env_merge(extra, (const char *const *)image);
	strv_free(image);
	return env;
}

static int set_stop_signal(struct vm_record *r, const struct sm_vm_options *o, const struct image_info *img,
			   struct sm_error *err)
{
	const char *s = o->stop_signal ? o->stop_signal : img->stop_signal;

	r->stop_signal = s && *s ? signal_parse(s) : signal_parse("TERM");
	if (r->stop_signal < 0)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "stop signal \"%s\" is not a signal", s);
	return 0;
}

static char *dup_nonempty(const char *s)
{
	return s && *s ? strdup(s) : NULL;
}

static int set_process(struct vm_record *r, const struct sm_vm_options *o, const struct image_info *img,
		       struct sm_error *err)
{
	static const char *const for_show[] = {"init", NULL};
	int e;

	if (o->no_command && (o->entrypoint || o->argv || o->tty || o->stdin_open))
		return error_set(err, SM_ERROR_INVALID, EINVAL,
				 "a VM without a command of its own has no arguments, terminal or input either");
	r->no_command = o->no_command;
	r->argv = o->no_command ? strv_copy(for_show) : command_line(o, img);
	r->env = environment(o, img);
	if (!r->argv || !r->env)
		return error_sys(err, ENOMEM, "image %s", o->image);
	if (!r->argv[0])
		return error_set(err, SM_ERROR_INVALID, EINVAL, "image %s names no command: give one", o->image);
	e = command_fits((const char *const *)r->argv, (const char *const *)r->env, err);
	if (e < 0)
		return e;
	r->user = dup_nonempty(o->user ? o->user : img->user);
	r->cwd = dup_nonempty(o->cwd ? o->cwd : img->working_dir);
	r->volumes = strv_copy((const char *const *)img->volumes);
	r->labels = strv_copy(o->labels);
	r->hostname = strdup(o->hostname ? o->hostname : r->id);
	r->tty = o->tty;
	r->stdin_open = o->stdin_open;
	r->rows = o->rows ? o->rows : 24;
	r->cols = o->cols ? o->cols : 80;
	r->timeout_ns = MIN(o->timeout_ns, (uint64_t)INT64_MAX / 2);
	r->ttl_ns = MIN(o->ttl_ns, (uint64_t)INT64_MAX / 2);
	return r->hostname ? set_stop_signal(r, o, img, err) : error_sys(err, ENOMEM, "image %s", o->image);
}

static int set_image(struct vm_record *r, const struct sm_vm_options *o, const struct image_info *img,
		     struct sm_error *err)
{
	r->image = strdup(o->image);
	r->image_id = strdup(img->id);
	r->parts = calloc(img->num_parts + 1, sizeof(*r->parts));
	if (!r->image || !r->image_id || !r->parts)
		return error_sys(err, ENOMEM, "image %s", o->image);
	for (unsigned i = 0; i < img->num_parts; i++) {
		const struct image_part *p = &img->parts[i];

		r->num_parts = i + 1;
		r->parts[i] = (struct vm_part){.path = strdup(p->path), .size = p->size, .offset = p->offset};
		if (!r->parts[i].path)
			return error_sys(err, ENOMEM, "image %s", o->image);
	}
	r->window_size = align_up(img->window_size, WINDOW_ALIGN);
	r->root_blk = r->window_size / WINDOW_PER_MEMORY > r->memory;
	return 0;
}

unsigned start_cpus(const struct sm_vm_options *o)
{
	if (o->cpus)
		return o->cpus;
	if (o->cpu_limit)
		return (unsigned)((o->cpu_limit + 999) / 1000);
	return o->profile == SM_PROFILE_THROUGHPUT ? THROUGHPUT_CPUS : 1;
}

static int set_machine(struct sm_client *c, struct vm_record *r, const struct sm_vm_options *o, struct sm_error *err)
{
	int e;

	r->memory = align_up(o->memory ? o->memory : VM_DEFAULT_MEMORY, MEMORY_STEP);
	r->cpus = start_cpus(o);
	r->cpu_limit = (unsigned)o->cpu_limit;
	e = boot_files(c, o->kernel, &r->kernel, &r->initramfs, err);
	if (e < 0 || o->tmpfs_root)
		return e;
	r->disk_size = align_up(o->disk_size ? o->disk_size : VM_DEFAULT_DISK, MIB);
	return disk_template(c, r->disk_size, &o->progress, &r->disk_template, err);
}

/* The window for files of mounts: beside the image's it may take the same share of the memory. */
static int set_dax(struct vm_record *r, const struct sm_vm_options *o, struct sm_error *err)
{
	char size[16], least[16];

	for (unsigned i = 0; i < r->num_mounts; i++)
		r->dax_size = r->mounts[i].dax ? DEFAULT_DAX : r->dax_size;
	if (!r->dax_size)
		return o->dax_size ? error_set(err, SM_ERROR_INVALID, EINVAL,
					       "a DAX window is of no use without a mount that has the option dax")
				   : 0;
	if (o->dax_size)
		r->dax_size = align_up(MIN(o->dax_size, MAX_DAX), 2 * MIB);
	if (r->dax_size / WINDOW_PER_MEMORY > r->memory)
		return error_set(
			err, SM_ERROR_INVALID, EINVAL,
			"a DAX window of %s would take more than an eighth of the memory: it wants %s at least",
			format_size(r->dax_size, size), format_size(r->dax_size / WINDOW_PER_MEMORY, least));
	return 0;
}

int start_new_identity(struct vm_record *r, const struct sm_vm_options *o, struct sm_error *err)
{
	struct timespec now;
	int e = random_hex(r->id, VM_ID_DIGITS / 2);

	if (e < 0)
		return error_sys(err, -e, "random numbers");
	clock_gettime(CLOCK_REALTIME, &now);
	r->created_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
	snprintf(r->name, sizeof(r->name), "%s", o->name ? o->name : "");
	r->keep = o->keep;
	return 0;
}

static int set_secret_names(struct vm_record *r, const struct sm_vm_options *o, struct sm_error *err)
{
	struct secrets s = {0};
	int e = secrets_make(&s, o->secrets, o->num_secrets, err);

	r->secrets = s.names;
	s.names = NULL;
	secrets_done(&s);
	return e;
}

static int set_limits(struct vm_record *r, const char *const *limits, struct sm_error *err)
{
	int e = ulimits_check(limits, err);

	r->limits = e < 0 ? NULL : strv_copy(limits);
	return e < 0 ? e : limits && !r->limits ? error_sys(err, ENOMEM, "limits") : 0;
}

static int make_record(struct sm_client *c, const struct sm_vm_options *o, const struct image_info *img,
		       struct vm_record *r, struct sm_error *err)
{
	int e = start_new_identity(r, o, err);

	if (e < 0)
		return e;
	r->cold = o->cold;
	r->trace = o->trace;
	r->ksm = o->ksm;
	e = set_process(r, o, img, err);
	if (e == 0)
		e = set_limits(r, o->ulimits, err);
	if (e == 0)
		e = set_machine(c, r, o, err);
	if (e == 0)
		e = set_image(r, o, img, err);
	if (e == 0)
		e = mounts_from_options(c, r, o, err);
	if (e == 0)
		e = audit_from_options(r, o, err);
	if (e == 0)
		e = idle_from_options(r, o, err);
	if (e == 0)
		e = set_dax(r, o, err);
	if (e == 0)
		e = ports_from_options(r, o, err);
	if (e == 0)
		e = container_from_options(r, o, err);
	if (e == 0)
		e = set_secret_names(r, o, err);
	return e;
}

/* The new VM's disk begins with the snapshot's layers. The lock is not needed any more: these links are its own. */
static int launch_from(struct sm_client *c, struct sm_vm *vm, struct vmsnap_restore *from, bool detach, uint64_t since,
		       const struct sm_progress *progress, struct sm_error *err)
{
	unsigned layers = (unsigned)strv_len((const char *const *)from->meta.layers);
	_fd_ int dir = vmdir_open(c, vm->id, err);
	int r = dir;

	if (r >= 0)
		r = vmsnap_link_layers(from->dirfd, dir, layers, err);
	if (r >= 0)
		r = volumes_give(from->volumes_fd < 0 ? from->dirfd : from->volumes_fd, dir, from->num_volumes, err);
	from->lock = fd_close(from->lock);
	return r < 0 ? r : launch_restored(c, vm, from, detach, since, progress, err);
}

/* The VM's disk is that of the one in `from`, top and all. */
static int link_disk(struct sm_client *c, const struct vm_record *rec, int from, struct sm_error *err)
{
	_fd_ int dir = vmdir_open(c, rec->id, err);
	int r = dir < 0 ? dir : vmsnap_link_layers(from, dir, disk_layers(from), err);

	if (r == 0 && linkat(from, "top", dir, "top", 0) < 0 && errno != ENOENT)
		r = error_sys(err, errno, "share the disk");
	return r < 0 ? r : volumes_lend(from, dir, rec, err);
}

/* from: the snapshot that it goes on from, NULL: none. The ports come first: one that is taken is told before anything
 * starts. */
static int start_with_ports(struct sm_client *c, struct sm_vm *vm, const struct vm_record *r,
			    struct vmsnap_restore *from, bool detach, uint64_t since,
			    const struct sm_progress *progress, struct sm_error *err)
{
	_cleanup_(ports_done) struct ports ports = {.waiter = -1};
	int e = ports_open(c, r, &ports, err);

	if (e == 0)
		e = volumes_claim(c, r, err);
	if (e == 0)
		e = from ? launch_from(c, vm, from, detach, since, progress, err)
			 : launch(c, vm, r, detach, since, progress, err);
	if (e < 0)
		return e;
	e = secrets_deliver(vm, err);
	if (e == 0)
		e = ports_serve(vm, &ports, err);
	if (e == 0)
		mounts_watch(vm, r);
	if (e < 0) {
		vm_stop_now(vm, NULL);
		sm_vm_wait(vm, 0, NULL, NULL);
	}
	return e;
}

int start_record(struct sm_client *c, const struct vm_record *r, const struct sm_vm_options *o,
		 struct vmsnap_restore *from, int disk, uint64_t since, struct sm_vm **ret, struct sm_error *err)
{
	struct sm_vm *vm = NULL;
	_fd_ int start = -1;
	int e = vm_handle_new(c, r->id, &vm, err);

	if (e == 0) {
		vm->background = o->background;
		vm->start_timeout_ns = o->start_timeout_ns;
		e = secrets_make(&vm->secrets, o->secrets, o->num_secrets, err);
	}
	if (e == 0)
		e = vmdir_create(c, r, &start, &vm->transient_fd, err);
	if (e < 0) {
		sm_vm_close(vm);
		return e;
	}
	/* With nobody to come back for it, it is litter as soon as it has ended. */
	if (o->detach)
		vm->transient_fd = fd_close(vm->transient_fd);
	e = disk < 0 ? 0 : link_disk(c, r, disk, err);
	if (e == 0)
		e = start_with_ports(c, vm, r, from, o->detach, since, &o->progress, err);
	if (e < 0) {
		vmdir_remove(c, r->id, NULL);
		vm->transient_fd = fd_close(vm->transient_fd);
		sm_vm_close(vm);
		return e;
	}
	*ret = vm;
	return 0;
}

int sm_vm_start(struct sm_client *client, const struct sm_vm_options *options, struct sm_vm **ret, struct sm_error *err)
{
	struct sm_vm_options o = OPTIONS_GET(struct sm_vm_options, options);
	uint64_t since = time_now_ns();
	struct image_info img = {0};
	struct image_pin *pin = NULL;
	struct spare *spare = NULL;
	struct vm_record r = {0};
	struct seat *seat;
	int e;

	if (o.snapshot)
		return start_restored(client, &o, ret, err);
	e = check_options(&o, err);
	if (e == 0)
		e = client_seat(client, &seat, err);
	if (e < 0)
		return e;
	vmdir_sweep(client);
	e = image_for_run(client, &o, &img, &pin, err);
	if (e < 0)
		return e;
	e = make_record(client, &o, &img, &r, err);
	image_info_done(&img);
	if (e == 0)
		e = spare_take(client, &o, &r, since, ret, &spare, err);
	if (e == 0)
		e = start_record(client, &r, &o, NULL, -1, since, ret, err);
	if (e >= 0)
		(*ret)->spare = TAKE_PTR(spare);
	spare_free(spare);
	image_unpin(pin);
	vm_record_done(&r);
	return MIN(e, 0);
}

/* Whoever started it since it was seen has made it run or fail by the time that we hold this. */
int start_lock(struct sm_vm *vm, int dir, enum sm_vm_state seen, struct sm_error *err)
{
	_fd_ int lock = vmdir_flock(dir, "start.lock", true, false);

	if (lock == -EWOULDBLOCK)
		return error_set(err, SM_ERROR_STATE, EBUSY,
				 "VM %s is being started, or its files used, by another program", vm->id);
	if (lock < 0)
		return error_sys(err, -lock, "VM %s", vm->id);
	if (!(seen == SM_VM_SUSPENDED && vm_is_suspended(dir)) &&
	    (seen != SM_VM_EXITED || faccessat(dir, "exit.json", F_OK, 0) < 0))
		return error_set(err, SM_ERROR_STATE, EBUSY, "VM %s is %s already", vm->id,
				 sm_vm_state_name(seen == SM_VM_EXITED ? SM_VM_RUNNING : seen));
	return TAKE_FD(lock);
}

int sm_vm_start_again(struct sm_vm *vm, bool detach, struct sm_error *err)
{
	uint64_t since = time_now_ns();
	_fd_ int dir = vmdir_open(vm->client, vm->id, err);
	_cleanup_(vm_record_done) struct vm_record rec = {0};
	_fd_ int lock = -1;
	struct vm_view v;
	int r;

	if (dir < 0)
		return dir;
	vm_files_done(vm);
	r = vm_view(vm->client, vm->id, &v, err);
	if (r < 0)
		return r;
	lock = start_lock(vm, dir, v.state, err);
	if (lock < 0)
		return lock;
	r = vmindex_add(vm->client, vm->id, err);
	if (r == 0)
		r = vmdir_load(dir, vm->id, &rec, err);
	if (r == 0 && v.state != SM_VM_SUSPENDED)
		r = secrets_check(&rec, &vm->secrets, err);
	if (r == 0)
		execs_sweep(dir);
	return r < 0 ? r : start_with_ports(vm->client, vm, &rec, NULL, detach, since, &(struct sm_progress){0}, err);
}
