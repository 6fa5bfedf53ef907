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
	# bash completes verbs, options and names of images
	box
	out $sm completion bash
	bash -n "$SM_TMP/.out"
	cat >complete.sh <<-'S'
		source <(supermachine completion bash)
		try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _supermachine; echo "${COMPREPLY[*]}"; }
		try supermachine im
		try supermachine machine st
		try supermachine run --entry
		try supermachine run b
		try supermachine ps --format j
	S
	out bash complete.sh
	is "candidates" "$out" "images
start stop status
--entrypoint
box:latest
json"
	out $sm completion zsh
	out $sm completion fish
	out -125 $sm completion tcsh
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
