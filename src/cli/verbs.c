/* SPDX-License-Identifier: Apache-2.0 */
/* The list of verbs, and finding one. */
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"

const struct opt cli_global_opts[] = {
	{'q', "quiet", OPT_FLAG, offsetof(struct cli_globals, quiet), NULL, "say nothing but errors"},
	{'v', "verbose", OPT_FLAG, offsetof(struct cli_globals, verbose), NULL, "say more about what is done"},
	{0, "debug", OPT_FLAG, offsetof(struct cli_globals, debug), NULL, "say everything"},
	{0, "home", OPT_TEXT, offsetof(struct cli_globals, home), "DIR",
	 "keep images and VMs under DIR (default: $SUPERMACHINE_HOME, else ~/.local)"},
	{0, "version", OPT_FLAG, offsetof(struct cli_globals, version), NULL, "the same as the verb version"},
};
const size_t cli_num_global_opts = ARRAY_SIZE(cli_global_opts);

static const struct verb *const verbs[] = {&verb_run,
					   &verb_exec,
					   &verb_attach,
					   &verb_exec_ls,
					   &verb_exec_logs,
					   &verb_exec_kill,
					   &verb_exec_attach,
					   &verb_ps,
					   &verb_start,
					   &verb_stop,
					   &verb_restart,
					   &verb_kill,
					   &verb_pause,
					   &verb_unpause,
					   &verb_suspend,
					   &verb_resume,
					   &verb_rm,
					   &verb_cp,
					   &verb_diff,
					   &verb_apply,
					   &verb_commit,
					   &verb_port,
					   &verb_stats,
					   &verb_logs,
					   &verb_events,
					   &verb_wait,
					   &verb_watch,
					   &verb_explain,
					   &verb_inspect,
					   &verb_images,
					   &verb_pull,
					   &verb_load,
					   &verb_build,
					   &verb_bundle,
					   &verb_tag,
					   &verb_rmi,
					   &verb_prune,
					   &verb_login,
					   &verb_logout,
					   &verb_snapshot,
					   &verb_restore,
					   &verb_branch,
					   &verb_snapshots,
					   &verb_snapshot_rm,
					   &verb_snapshot_prune,
					   &verb_volume_create,
					   &verb_volume_ls,
					   &verb_volume_inspect,
					   &verb_volume_rm,
					   &verb_volume_prune,
					   &verb_machine_start,
					   &verb_machine_stop,
					   &verb_machine_exec,
					   &verb_machine_status,
					   &verb_fs_mount,
					   &verb_doctor,
					   &verb_version,
					   &verb_completion,
					   &verb_help,
					   &verb_complete,
					   NULL};

const struct verb *const *cli_verbs(void)
{
	return verbs;
}

const struct verb *cli_find_verb(const char *name)
{
	for (const struct verb *const *v = verbs; *v; v++)
		if (streq((*v)->name, name))
			return *v;
	return NULL;
}

const char *cli_family(const char *word)
{
	static const struct {
		const char *word, *about;
	} families[] = {
		{"exec", "commands in a running VM"},	   {"fs", "the file server on this host"},
		{"machine", "the Linux in which VMs run"}, {"snapshot", "saving VMs, and what VMs start from"},
		{"volume", "disks that outlive VMs"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(families); i++)
		if (streq(families[i].word, word))
			return families[i].about;
	return NULL;
}

/* docker's longer words for verbs of one: "container VERB" is VERB, and these. */
static const struct verb *docker_verb(const char *first, const char *second)
{
	static const char *const words[][3] = {
		{"container", "ls", "ps"},	 {"container", "list", "ps"},	    {"container", "prune", NULL},
		{"image", "ls", "images"},	 {"image", "list", "images"},	    {"image", "rm", "rmi"},
		{"image", "load", "load"},	 {"image", "build", "build"},	    {"image", "pull", "pull"},
		{"image", "tag", "tag"},	 {"image", "inspect", "inspect"},   {"image", "prune", "prune"},
		{"volume", "list", "volume ls"}, {"volume", "remove", "volume rm"}, {"system", "events", "events"},
		{"system", "prune", "prune"},
	};
	const struct verb *v;

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (streq(words[i][0], first) && streq(words[i][1], second))
			return words[i][2] ? cli_find_verb(words[i][2]) : NULL;
	v = streq(first, "container") ? cli_find_verb(second) : NULL;
	return v && (v->group == GROUP_RUN || v->group == GROUP_VMS) ? v : NULL;
}

const struct verb *cli_match_verb(char **argv, int argc, int *ret_words)
{
	const struct verb *v;
	char two[64];

	if (argc < 1)
		return NULL;
	if (argc > 1) {
		snprintf(two, sizeof(two), "%s %s", argv[0], argv[1]);
		*ret_words = 2;
		v = cli_find_verb(two);
		if (!v)
			v = docker_verb(argv[0], argv[1]);
		if (v)
			return v;
	}
	*ret_words = 1;
	return cli_find_verb(argv[0]);
}
