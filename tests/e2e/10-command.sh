# SPDX-License-Identifier: Apache-2.0
# The command itself, before any VM: help, mistakes, doctor, completion.

test_help() {
	# every verb explains itself within 80 columns, on standard output
	out $sm help
	has "list of verbs" "$out" '^  run +Run a command'
	for verb in run exec attach ps start stop restart kill rm logs wait inspect images load tag rmi prune snapshots "snapshot rm" "snapshot prune" "machine start" \
		"machine stop" "machine exec" "machine status" "fs mount" cp port stats explain doctor version completion help; do
		out $sm $verb --help
		has "$verb" "$out" "^Usage: supermachine $verb"
		is "stderr of $verb --help" "$err" ""
		is "longest line of $verb --help over 80" "$(awk 'length > 80' "$SM_TMP/.out")" ""
	done
	for verb in machine volume fs; do
		out $sm $verb --help
		is "the verbs of $verb" "$out" "$($sm help $verb)"
		has "the verbs of $verb" "$out" "^Usage: supermachine $verb VERB"
	done
	has "a verb of volume" "$($sm help volume)" '^  volume create +Make a volume$'
	out -125 $sm
	has "no verb at all" "$err" '^Usage: supermachine'
}

test_typos() {
	# a mistyped verb or option gets one line and a suggestion
	out -125 $sm rnu
	is "lines" "$(wc -l <"$SM_TMP/.err")" 2
	has "verb" "$err" 'no such verb: rnu'
	has "verb" "$err" 'did you mean supermachine run\?'
	out -125 $sm run --memroy 1G x
	has "option" "$err" 'did you mean --memory\?'
	out -125 $sm machine stpo
	has "machine" "$err" 'did you mean supermachine machine stop\?'
	out -125 $sm run -m 1x img
	has "size" "$err" "size such as 512M"
	out -125 $sm run -m 64M img
	has "memory" "$err" "least is 128"
	for option in "--cidfile f" --trace; do
		out -125 $sm run --snapshot warm $option true
		has "what is not said to a snapshot" "$err" "exclude each other"
	done
	for option in "--add-host a:1.2.3.4" "--tmpfs /x" --read-only; do
		out -125 $sm run --snapshot warm $option true
		has "what a snapshot has of its own" "$err" 'goes on with the image'
	done
	out -125 $sm run
	has "operand" "$err" 'usage: supermachine run IMAGE'
	is "stdout" "$out" ""
}

test_unknown_image() {
	# an image that is not there: what is missing, and the nearest name
	box
	out -125 $sm run bix true
	has "error" "$err" '^supermachine: run: .*bix'
	has "suggestion" "$err" 'did you mean box\?'
	is "lines" "$(wc -l <"$SM_TMP/.err")" 2
	out -125 $sm run something-else true
	has "advice" "$err" 'supermachine pull NAME, or load'
	out -125 $sm exec nosuchvm true
	has "VM" "$err" 'nosuchvm'
	has "advice" "$err" 'supermachine ps -a'
	for verb in start stop kill rm logs wait attach inspect; do
		out -125 $sm $verb nosuchvm
		has "$verb" "$err" "^supermachine: $verb: .*nosuchvm"
		is "lines of $verb" "$(wc -l <"$SM_TMP/.err")" 2
	done
	out $sm rm -f nosuchvm
	out -125 $sm rmi bix:2
	has "rmi" "$err" 'did you mean box\?|supermachine images'
	out -125 $sm rmi quite-another
	has "rmi" "$err" '^  supermachine images lists them$'
	out -125 $sm inspect quite-another
	has "inspect" "$err" 'no such VM, image, snapshot or volume: quite-another'
}

test_doctor() {
	# doctor tells what was found, with a line to paste for what is missing
	out $sm doctor
	has "kvm" "$out" '(ok|note|MISSING) +kvm '
	has "kernel" "$out" ' kernel '
	out $sm doctor --format json
	jq -e 'length > 3 and all(.[]; has("id") and has("ok") and has("message") and has("fix"))' "$SM_TMP/.out" >/dev/null
	NO_COLOR=1 out script -qec "$sm doctor" /dev/null
	lacks "NO_COLOR" "$out" $'\033'
	out env PATH=/nonexistent "$SM_BIN/supermachine" doctor --format json || true
}

test_version() {
	# version, in both spellings
	out $sm version
	has "version" "$out" '^supermachine [0-9]+\.[0-9]+\.[0-9]+$'
	local v=$out
	out $sm --version
	is "--version" "$out" "$v"
}

test_completion() {
	# shells on a terminal complete verbs, options, their values and names of images, colons included
	box
	out $sm completion bash
	bash -n "$SM_TMP/.out"
	cat >rc <<-'S'
		PS1='ready> '
		bind 'set bell-style none' 'set show-all-if-ambiguous on' 2>/dev/null
		source <(supermachine completion bash)
	S
	: >some-file
	# try LINE EXPECTED: what a bash on a terminal makes of LINE and the tab key, at its end
	try() {
		out python3 "$(dirname "${BASH_SOURCE[0]}")/person.py" 'expect:ready> ' "send:$1\t" "expect:$2" 'send:\x15exit\r' -- \
			bash --noprofile --rcfile rc -i
	}
	try 'supermachine ima' 'images '
	try 'supermachine machine stat' 'status '
	try 'supermachine run --entry' 'entrypoint '
	try 'supermachine run b' 'box:latest '
	try 'supermachine rmi box:la' 'box:latest '
	try 'supermachine ps --format j' 'json '
	try 'supermachine run --pull=n' '=never '
	try 'supermachine load oci:some' 'oci:some-file '
	try 'supermachine kill -s WI' 'WINCH '
	is "values" "$($sm __complete ps --format=)" $'--format=table\n--format=json'
	is "a path in a VM is no file of the host" "$($sm __complete cp x:/e)" ""
	out $sm completion zsh
	out $sm completion fish
	out -125 $sm completion tcsh
}

test_completion_elsewhere() {
	# fish and zsh complete the same
	needs fish zsh
	box
	$sm completion fish >fish
	is "fish" "$(fish -c "source fish; complete -C 'supermachine rmi box:la'; complete -C 'supermachine run --pull=n'; complete -C 'supermachine ima'")" \
		$'box:latest\n--pull=never\nimages\tList images'
	printf '%s\n' "PS1='ready> '" 'autoload -U compinit; compinit -u -D' 'source <(supermachine completion zsh)' >.zshrc
	out python3 "$(dirname "${BASH_SOURCE[0]}")/person.py" 'expect:ready> ' 'send:supermachine rmi box:la\t' 'expect:box:latest' \
		'send:\x15exit\r' -- env ZDOTDIR="$PWD" zsh -i
}

test_full_output() {
	# an answer that cannot be written is an error, not silence
	out -125 bash -c "$sm help >/dev/full"
	has "error" "$err" 'No space left'
}

test_bad_home() {
	# a home that cannot be used is named
	out -125 $sm --home /proc/nowhere images
	has "error" "$err" '/proc/nowhere'
	is "lines" "$(wc -l <"$SM_TMP/.err")" 1
}

test_empty_names() {
	# an empty name, of a variable that is not set, say, is told as that; a filter of any length in one short line
	local verb
	for verb in "exec '' true" "rm ''" "logs ''" "cp :/etc ." "inspect ''"; do
		out -125 bash -c "$sm $verb"
		has "$verb" "$err" 'no VM given: its name is empty'
	done
	for verb in "rmi ''" "tag '' x"; do
		out -125 bash -c "$sm $verb"
		has "$verb" "$err" 'no image given: its name is empty'
	done
	out -125 $sm images -f "$(printf %0100000d 0)"
	[ ${#err} -lt 300 ] || fail "the error has ${#err} characters"
}

test_no_test() {
	# a pattern by which no test is chosen is a failure of the test run, not a success
	out -1 env -u SM_QUEUE SM_LANES=2 "$SM_TOP/tests/e2e/run" -k 'no such test, anywhere'
	has "said" "$out" "^no test matches 'no such test, anywhere'"
}
