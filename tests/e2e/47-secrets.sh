# SPDX-License-Identifier: Apache-2.0
# --secret: what the command knows, and nothing on the host.

# Which of our processes, here and beside, have one of these words in their command lines or environments.
spilled_to_processes() {
	local p
	for p in /proc/[0-9]*; do
		grep -qa supermachine- "$p/cmdline" 2>/dev/null || continue
		grep -laF -e "$1" -e "$2" "$p/cmdline" "$p/environ" 2>/dev/null || true
	done
	beside sh -c "grep -laF -e '$1' -e '$2' /proc/[0-9]*/environ 2>/dev/null || true"
}

# Which files of the home have one.
spilled_to_files() {
	grep -rlF -D skip -e "$1" -e "$2" "$SUPERMACHINE_HOME" 2>/dev/null || true
}

limit_secrets=300
test_secrets() {
	# secrets are files in the guest's memory and variables if asked for, there when the command begins; the host has them nowhere; ulimits are there, too
	local word=wo${RANDOM}rd$RANDOM$RANDOM key=ke${RANDOM}y$RANDOM$RANDOM
	printf '%s\n' "$key" >key
	box
	WORD=$word $sm run -d -m 256M --name sec --secret word=env:WORD --secret-env word=HUSH --secret key=file:key -p 127.0.0.1:0:80 \
		--ulimit nofile=100:200 --ulimit core=0 box \
		sh -c 'echo ${#HUSH} $(wc -c </run/secrets/key) $(wc -c </run/secrets/word); ulimit -n; ulimit -Hn; sleep 1000' >/dev/null
	until_true 20 bash -c "$sm logs sec | grep -q 200"
	is "at the start" "$($sm logs sec | xargs)" "${#word} $((${#key} + 1)) ${#word} 100 200"
	is "in the VM" "$($sm exec -u alice sec sh -c 'cat /run/secrets/word /run/secrets/key; echo; echo $HUSH; stat -c %a /run/secrets/word; ulimit -n')" "$word$key

$word
444
100"
	is "limits of one command" "$($sm exec --ulimit nofile=50 sec sh -c 'ulimit -n; ulimit -Hn' | xargs)" "50 50"
	has "in memory" "$($sm exec sec mount)" 'tmpfs on /run/secrets'
	is "its name is no secret" "$($sm inspect sec | jq -c '.[0].secrets')" '["word","key"]'
	is "spilled to processes" "$(spilled_to_processes "$word" "$key" | xargs)" ""
	out -125 $sm restart -t 1 --secret key=file:key sec
	has "what is missing" "$err" 'VM sec was started with secrets that are kept nowhere, and wants them again: word$'
	has "what to type" "$err" 'supermachine restart --secret word=env:VARIABLE\|file:PATH --secret key=\.\.\. sec$'
	is_state sec running || fail "it was stopped"
	$sm stop -t 1 sec >/dev/null
	is "spilled to files" "$(spilled_to_files "$word" "$key" | xargs)" ""
	out -125 $sm start sec
	has "again" "$err" 'supermachine start --secret word=env:VARIABLE\|file:PATH --secret key=env:VARIABLE\|file:PATH sec$'
	word=$word $sm start --secret word --secret key=file:key sec >/dev/null
	is "given again" "$($sm exec sec cat /run/secrets/word)" "$word"
	$sm rm -f sec >/dev/null
	out -125 run_box --secret a=plain box true
	has "not on the command line" "$err" 'everybody can see'
	out -125 run_box --ulimit files=1 box true
	has "no such limit" "$err" 'files=1.* is not NAME=SOFT'
}
