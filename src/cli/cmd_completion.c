/* SPDX-License-Identifier: Apache-2.0 */
/*
 * completion SHELL prints a script that asks "supermachine __complete WORD..." what may stand where the cursor is: the
 * answer comes from the verbs' tables and the store, a line each, "candidate<TAB>explanation", then ":file" where a
 * file name is wanted.
 */
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"

static const char bash_script[] =
	"# bash completion for supermachine: source <(supermachine completion bash)\n"
	"_supermachine() {\n"
	"\tlocal line=${COMP_LINE:0:COMP_POINT} words=(\"${COMP_WORDS[@]:0:COMP_CWORD+1}\") "
	"breaks=${COMP_WORDBREAKS//[^:=]/} keep=\n"
	"\t# bash takes \"box:1\" and \"--pull=never\" apart, and replaces the last part: a line without quotes is "
	"split again\n"
	"\tif [[ $line != *[\\'\\\"\\\\]* ]]; then\n"
	"\t\tread -ra words <<<\"$line\"\n"
	"\t\t[[ $line == *[[:blank:]] ]] && words+=('')\n"
	"\tfi\n"
	"\t[ -n \"$breaks\" ] && keep=${words[-1]%\"${words[-1]##*[$breaks]}\"}\n"
	"\tCOMPREPLY=()\n"
	"\twhile IFS= read -r line; do\n"
	"\t\tif [ \"$line\" = :file ]; then\n"
	"\t\t\t((${#COMPREPLY[@]})) || compopt -o filenames 2>/dev/null\n"
	"\t\t\tmapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -- \"${words[-1]#\"$keep\"}\")\n"
	"\t\telse\n"
	"\t\t\tline=${line%%$'\\t'*}\n"
	"\t\t\t[[ $line == *: ]] && compopt -o nospace 2>/dev/null\n"
	"\t\t\tCOMPREPLY+=(\"${line#\"$keep\"}\")\n"
	"\t\tfi\n"
	"\tdone < <(\"${words[0]}\" __complete -- \"${words[@]:1}\" 2>/dev/null)\n"
	"}\n"
	"complete -F _supermachine supermachine\n";

static const char zsh_script[] =
	"#compdef supermachine\n"
	"# zsh completion for supermachine: source <(supermachine completion zsh)\n"
	"_supermachine() {\n"
	"\tlocal -a found\n"
	"\tlocal line\n"
	"\twhile IFS= read -r line; do\n"
	"\t\tif [[ $line = :file ]]; then _files; else found+=(\"${${line//:/\\\\:}/$'\\t'/:}\"); fi\n"
	"\tdone < <(\"${words[1]}\" __complete -- \"${(@)words[2,CURRENT]}\" 2>/dev/null)\n"
	"\t(( ${#found} )) && _describe supermachine found\n"
	"}\n"
	"compdef _supermachine supermachine\n";

static const char fish_script[] = "# fish completion for supermachine: supermachine completion fish | source\n"
				  "function __supermachine_complete\n"
				  "\tset -l words (commandline -opc) (commandline -ct)\n"
				  "\tfor line in (supermachine __complete -- $words[2..-1] 2>/dev/null)\n"
				  "\t\tif test \"$line\" = :file\n"
				  "\t\t\t__fish_complete_path (commandline -ct)\n"
				  "\t\telse\n"
				  "\t\t\techo $line\n"
				  "\t\tend\n"
				  "\tend\n"
				  "end\n"
				  "complete -c supermachine -f -a '(__supermachine_complete)'\n";

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	if (streq(operands[0], "bash"))
		fputs(bash_script, stdout);
	else if (streq(operands[0], "zsh"))
		fputs(zsh_script, stdout);
	else if (streq(operands[0], "fish"))
		fputs(fish_script, stdout);
	else
		return cli_usage(cli, "one of: bash, zsh, fish", "no completion for %s", operands[0]);
	return 0;
}

static const char *const examples[] = {"completion bash > /etc/bash_completion.d/supermachine",
				       "for all users, at login", NULL};

const struct verb verb_completion = {
	.name = "completion",
	.operands = "bash|zsh|fish",
	.summary = "Print a script that completes command lines",
	.examples = examples,
	.min_operands = 1,
	.max_operands = 1,
	.completes = OPERAND_NONE,
	.group = GROUP_HOST,
	.run = verb,
};

/* What is typed so far, and who gets the candidates that begin with it. */
struct typed {
	struct cli *cli;
	const char *word;
};

static void offer(const struct typed *t, const char *candidate, const char *explanation)
{
	if (str_starts(candidate, t->word) && candidate[0])
		printf("%s%s%s\n", candidate, explanation ? "\t" : "", explanation ? explanation : "");
}

static void offer_options(const struct typed *t, const struct opt *opts, size_t count)
{
	char name[64];

	for (size_t i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "--%s", opts[i].name);
		if (opts[i].help)
			offer(t, name, opts[i].help);
	}
	offer(t, "--help", "explain");
}

/* First words of verbs, or second words of those that begin with `first`. */
static void offer_verbs(const struct typed *t, const char *first)
{
	char family[32] = "";

	for (const struct verb *const *v = cli_verbs(); *v; v++) {
		const char *space = strchr((*v)->name, ' ');

		if ((*v)->group == GROUP_HIDDEN)
			continue;
		if (!first && space) {
			if (strncmp(family, (*v)->name, (size_t)(space - (*v)->name + 1)) != 0) {
				snprintf(family, sizeof(family), "%.*s", (int)(space - (*v)->name), (*v)->name);
				if (!cli_find_verb(family))
					offer(t, family, cli_family(family));
				family[space - (*v)->name] = ' '; /* as the next one of the family begins */
			}
		} else if (!first && !space) {
			offer(t, (*v)->name, (*v)->summary);
		} else if (first && space && strlen(first) == (size_t)(space - (*v)->name) &&
			   str_starts((*v)->name, first)) {
			offer(t, space + 1, (*v)->summary);
		}
	}
}

static void offer_vms(const struct typed *t)
{
	struct sm_vm_info **list = NULL;
	size_t n = 0;

	if (!cli_client(t->cli) || sm_vm_list(t->cli->client, true, &list, &n, NULL) < 0)
		return;
	for (size_t i = 0; i < n; i++)
		offer(t, list[i]->name[0] ? list[i]->name : list[i]->id, list[i]->image);
	sm_vm_list_free(list, n);
}

/* What a path in a VM begins with. */
static void offer_vm_paths(const struct typed *t)
{
	struct sm_vm_info **list = NULL;
	size_t n = 0;

	if (!cli_client(t->cli) || sm_vm_list(t->cli->client, false, &list, &n, NULL) < 0)
		return;
	for (size_t i = 0; i < n; i++) {
		char word[80];

		snprintf(word, sizeof(word), "%s:", list[i]->name[0] ? list[i]->name : list[i]->id);
		offer(t, word, list[i]->image);
	}
	sm_vm_list_free(list, n);
}

/* Numbers of the commands that run detached in a VM. */
static void offer_execs(const struct typed *t, const char *ref)
{
	struct sm_exec_info **list = NULL;
	struct sm_vm *vm = NULL;
	char number[16];
	size_t n = 0;

	if (!cli_client(t->cli) || sm_vm_open(t->cli->client, ref, &vm, NULL) < 0)
		return;
	if (sm_vm_exec_list(vm, &list, &n, NULL) == 0) {
		for (size_t i = 0; i < n; i++) {
			snprintf(number, sizeof(number), "%u", list[i]->number);
			offer(t, number, list[i]->argv[0]);
		}
		sm_exec_list_free(list, n);
	}
	sm_vm_close(vm);
}

static void offer_images(const struct typed *t)
{
	struct sm_image **list = NULL;
	size_t n = 0;

	if (!cli_client(t->cli) || sm_image_list(t->cli->client, &list, &n, NULL) < 0)
		return;
	for (size_t i = 0; i < n; i++)
		for (const char *const *name = sm_image_info(list[i])->names; name && *name; name++)
			offer(t, *name, NULL);
	sm_image_list_free(list, n);
}

/* vms: those of VMs alone, which restore goes on from. */
static void offer_snapshots(const struct typed *t, bool vms)
{
	struct sm_snapshot_info **list = NULL;
	size_t n = 0;

	if (!cli_client(t->cli) || sm_snapshot_list(t->cli->client, &list, &n, NULL) < 0)
		return;
	for (size_t i = 0; i < n; i++)
		if (!vms || list[i]->kind == SM_SNAPSHOT_VM)
			offer(t, list[i]->name, NULL);
	sm_snapshot_list_free(list, n);
}

static void offer_volumes(const struct typed *t)
{
	struct sm_volume_info **list = NULL;
	size_t n = 0;

	if (!cli_client(t->cli) || sm_volume_list(t->cli->client, &list, &n, NULL) < 0)
		return;
	for (size_t i = 0; i < n; i++)
		offer(t, list[i]->name, NULL);
	sm_volume_list_free(list, n);
}

static void offer_choices(const struct typed *t, const char *choices)
{
	char word[64];

	while (*choices) {
		size_t n = strcspn(choices, "|");

		snprintf(word, sizeof(word), "%.*s", (int)n, choices);
		offer(t, word, NULL);
		choices += n + (choices[n] == '|');
	}
}

static void offer_operands(const struct typed *t, enum operand_kind kind)
{
	if (kind == OPERAND_VM || kind == OPERAND_ANY || kind == OPERAND_EXEC)
		offer_vms(t);
	if (kind == OPERAND_IMAGE || kind == OPERAND_ANY)
		offer_images(t);
	if (kind == OPERAND_SNAPSHOT)
		offer_snapshots(t, false);
	if (kind == OPERAND_VOLUME)
		offer_volumes(t);
	if (kind == OPERAND_COPY)
		offer_vm_paths(t);
	if (kind == OPERAND_FILE || (kind == OPERAND_COPY && !strchr(t->word, ':')))
		puts(":file");
	if (kind == OPERAND_VERB)
		offer_verbs(t, NULL);
}

/* The option whose value the cursor stands on, if the word before it wants one. */
static const struct opt *wants_value(const struct verb *v, const char *before)
{
	const struct opt *o = NULL;
	size_t len = strlen(before);

	if (len > 2 && str_starts(before, "--"))
		o = opts_find(v->opts, v->num_opts, before + 2, len - 2);
	for (size_t i = 0; before[0] == '-' && before[1] != '-' && len > 1 && i < v->num_opts; i++)
		if (v->opts[i].letter == before[len - 1])
			o = &v->opts[i];
	return o && o->type != OPT_FLAG && o->type != OPT_IGNORED ? o : NULL;
}

static void offer_signals(const struct typed *t)
{
	static const char *const names[] = {"HUP",  "INT",  "QUIT", "KILL", "USR1",
					    "USR2", "TERM", "CONT", "STOP", "WINCH"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		offer(t, names[i], NULL);
}

static void offer_values(const struct typed *t, const struct opt *o)
{
	if (o->choices && o->type == OPT_TEXT)
		offer_choices(t, o->choices);
	else if (streq(o->name, "snapshot"))
		offer_snapshots(t, true);
	else if (streq(o->name, "signal") || streq(o->name, "stop-signal"))
		offer_signals(t);
	else
		puts(":file");
}

/* "--option=VALUE": the candidates are whole words. */
static void offer_joined(const struct typed *t, const struct verb *v)
{
	size_t len = strcspn(t->word, "=");
	const struct opt *o = opts_find(v->opts, v->num_opts, t->word + 2, len - 2);
	char word[128];

	if (!o || o->type != OPT_TEXT || !o->choices) {
		puts(":file");
		return;
	}
	for (const char *c = o->choices; *c;) {
		size_t n = strcspn(c, "|");

		snprintf(word, sizeof(word), "%.*s=%.*s", (int)len, t->word, (int)n, c);
		offer(t, word, NULL);
		c += n + (c[n] == '|');
	}
}

/* The first operand that stands between the verb and the cursor already; NULL: none. */
static const char *first_operand(const struct verb *v, char **words, int count)
{
	for (int i = 0; i < count; i++) {
		if (words[i][0] != '-')
			return words[i];
		if (!strchr(words[i], '=') && wants_value(v, words[i]))
			i++;
	}
	return NULL;
}

static void complete_verb(const struct typed *t, const struct verb *v, char **words, int count)
{
	const struct opt *o = count ? wants_value(v, words[count - 1]) : NULL;
	const char *operand = first_operand(v, words, count);

	if (operand && v->command)
		puts(":file"); /* the command's own arguments */
	else if (o)
		offer_values(t, o);
	else if (str_starts(t->word, "--") && strchr(t->word, '='))
		offer_joined(t, v);
	else if (t->word[0] == '-')
		offer_options(t, v->opts, v->num_opts);
	else if (v == &verb_completion)
		offer_choices(t, v->operands);
	else if (!operand && v == &verb_restore)
		offer_snapshots(t, true);
	else if (operand && v->completes == OPERAND_EXEC)
		offer_execs(t, operand);
	else if (!operand || v->max_operands < 0 || v->completes == OPERAND_COPY)
		offer_operands(t, v->completes);
}

static int complete(struct cli *cli, const void *values, char **operands, int count)
{
	struct typed t = {cli, count ? operands[count - 1] : ""};
	int before = count ? count - 1 : 0, words = 0;
	const struct verb *v;

	cli->verbosity = -1;
	while (before && operands[0][0] == '-') { /* global options */
		int skip = streq(operands[0], "--home") && before > 1 ? 2 : 1;

		operands += skip;
		before -= skip;
	}
	v = before ? cli_match_verb(operands, before, &words) : NULL;
	if (v)
		complete_verb(&t, v, operands + words, before - words);
	if (before == 1) /* also of a verb that is one by itself, as exec */
		offer_verbs(&t, operands[0]);
	else if (!v && !before && t.word[0] == '-')
		offer_options(&t, cli_global_opts, cli_num_global_opts);
	else if (!before)
		offer_verbs(&t, NULL);
	return 0;
}

const struct verb verb_complete = {
	.name = "__complete",
	.operands = "WORD...",
	.summary = "For the scripts of completion",
	.max_operands = -1,
	.command = true,
	.group = GROUP_HIDDEN,
	.run = complete,
};
