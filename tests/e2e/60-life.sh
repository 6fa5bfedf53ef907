# SPDX-License-Identifier: Apache-2.0
# VMs that stay: detached life, logs, files kept through everything.

limit_life=200
test_life() {
	# run -d, ps, logs, exec, stop, start, kill, wait, rm: a VM's whole life
	box
	local id
	id=$($sm run -d -m 256M --name web --label tier=front box sh -c 'trap "echo bye; exit 0" TERM; n=$(cat /n 2>/dev/null || echo 0); echo $((n+1)) >/n; echo started; while :; do sleep 0.1; done')
	[[ $id =~ ^[0-9a-f]{12}$ ]] || fail "id: $id"
	out $sm ps
	has "ps" "$out" "^$id +web +box .*running"
	is "over 80 columns" "$(awk 'length > 80' "$SM_TMP/.out")" ""
	is "label" "$(field web '.labels[0]')" tier=front
	out $sm ps -q
	is "ps -q" "$out" "$id"
	until_true 20 bash -c "$sm logs web | grep -q started"
	out $sm exec web cat /n
	is "exec" "$out" 1
	out -9 $sm exec "${id:0:6}" sh -c 'exit 9'
	out -125 $sm rm web
	has "advice" "$err" 'stop, or rm -f'
	out $sm stop web
	is "stop prints" "$out" web
	is "state" "$(state web)" exited
	out $sm wait web
	is "wait" "$out" 0
	out $sm logs web
	has "log" "$out" '^bye$'
	out -125 $sm exec web true
	$sm start web >started & # who comes while it is being started waits for that
	until_true 60 bash -c "$sm exec web true 2>>early"
	wait $!
	is "start prints" "$(cat started)" web
	lacks "exec of one being started" "$(cat early)" 'lost the connection'
	until_true 20 bash -c "[ \$($sm logs web | grep -c started) -eq 2 ]"
	out $sm exec web cat /n
	is "the disk was kept" "$out" 2
	out $sm kill -s TERM web
	out $sm wait --timeout 30 web
	is "killed by TERM, which it catches" "$out" 0
	out $sm restart web
	out $sm kill web
	out $sm wait web
	is "kill" "$out" 137
	out $sm ps -a
	has "exited" "$out" 'exited \(137'
	out $sm inspect web
	jq -e '.[0].name == "web"' "$SM_TMP/.out" >/dev/null
	out $sm rm web
	is "gone" "$(state web)" gone
}

test_start_after_stop() {
	# a VM is started again in the moment in which it has ended
	local i
	for i in $(seq "$(scaled 5 30)"); do
		vm quick
		$sm stop -t 1 quick >/dev/null
		sleep "0.0$((i % 5))"
		out $sm start quick
		is "it runs" "$(state quick)" running
		$sm rm -f quick >/dev/null
	done
}

test_detached_failure() {
	# run -d of a command that cannot start says so at once and leaves nothing
	box
	out -127 $sm run -d -m 256M --name bad box nosuch
	is "stdout" "$out" ""
	has "stderr" "$err" 'nosuch'
	is "left" "$(state bad)" gone
	out $sm run -d -m 256M --rm --name quick box true
	until_true 20 bash -c "[ \"\$($sm ps -a --format json | jq -r '.[].name')\" = '' ]"
}

test_logs() {
	# logs keeps the streams apart, follows, and shows the last lines
	vm logger -- sh -c 'for i in 1 2 3 4 5; do echo out$i; done; echo err1 >&2; sleep 4; echo late; sleep 1'
	until_true 20 bash -c "$sm logs logger 2>&1 | grep -q err1"
	out $sm logs logger
	is "stdout" "$(head -n 5 <<<"$out" | xargs)" "out1 out2 out3 out4 out5"
	has "stderr" "$err" '^err1$'
	out $sm logs --tail 0 logger
	is "nothing of it" "$out$err" ""
	out $sm logs --tail 2 logger
	lacks "tail" "$out" out1
	out timeout 60 $sm logs -f logger
	has "follow" "$out" '^late$'
	out $sm logs -t logger
	has "timestamps" "$out" '^20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z? ?.*out1'
	out $sm logs --console logger
	out $sm rm -f logger
}

limit_log_rotation=120
test_log_is_bounded() {
	# a chatty command fills no disk: its log is rotated
	vm chatty -- sh -c 'yes 0123456789012345678901234567890123456789 | head -c 40000000; echo the-end; sleep 1000'
	until_true 100 bash -c "$sm logs --tail 1 chatty | grep -q the-end"
	local dir size
	dir=$($sm inspect chatty | jq -r '.[0].directory')
	size=$(find "$dir" -name '*log*' -printf '%s\n' | awk '{ s += $1 } END { print s }')
	[ "$size" -lt 30000000 ] || fail "log takes $size bytes"
	out $sm rm -f chatty
}

# grep_log VM NUMBER PATTERN: what a detached command has printed
grep_log() {
	$sm exec logs "$1" "$2" | grep -q "$3"
}

test_exec() {
	# exec: environment, user, directory, stdin, binary streams, many at once
	vm ex -e A=vm
	out $sm exec -e B=exec -w /srv -u alice ex sh -c 'echo $A $B $GREETING; pwd; id -un'
	is "view" "$out" "vm exec hello
/srv
alice"
	head -c 3000000 /dev/urandom >data
	$sm exec -i ex cat <data | cmp - data
	out -127 $sm exec ex nosuch
	out -126 $sm exec ex /srv/data
	out -124 $sm exec --timeout 1s ex sleep 50
	out -143 $sm exec ex sh -c 'kill -TERM $$'
	local i
	for i in 1 2 3 4 5 6 7 8; do $sm exec ex sh -c "echo $i; sleep 0.5" >"e$i" & done
	wait
	is "eight at once" "$(cat e? | xargs)" "1 2 3 4 5 6 7 8"
	out $sm exec ex ps
	lacks "what ran is gone" "$out" 'sleep 50'

	# files that come with a command, small ones and one that does not fit its request, and commands that follow it
	printf '#!/bin/sh\nid -un; echo "$@"\n' >job
	chmod 755 job
	: >none
	out $sm exec -u alice -w /tmp --file job:sub/job --file none:none --then , ex sub/job 'a b' , stat -c '%n %s %a' none , cat -
	is "in one go" "$out" 'alice
a b
none 0 644'
	$sm exec -i --file data:/tmp/data --then , ex cat /tmp/data , cat <job | cmp - <(cat data job)
	out -3 $sm exec --then , ex true , sh -c 'exit 3' , touch /tmp/no
	out -1 $sm exec ex test -e /tmp/no
	out -125 $sm exec --file job:/proc/no/job ex touch /tmp/no
	has "which file" "$err" '/proc/no/job: No such file'
	out -125 $sm exec -d --file data:/tmp/data ex true
	has "too large" "$err" 'too large to come with it'
	out -125 $sm exec --then , ex true ,
	has "none behind" "$err" 'a command is missing'
	$sm exec -d --file job:/tmp/job --then , ex sleep 0.2 , /tmp/job done >/dev/null
	until_true 20 grep_log ex 1 '^done$'
	out $sm rm -f ex
}

test_exec_gone_client() {
	# a client that dies takes its exec'd command along, not the VM
	vm ex2
	$sm exec ex2 sleep 777 &
	local pid=$!
	until_true 20 bash -c "$sm exec ex2 ps | grep -q 'sleep 777'"
	kill -9 $pid
	until_true 20 bash -c "! $sm exec ex2 ps | grep -q 'sleep 777'"
	is "VM" "$(state ex2)" running
	out $sm rm -f ex2
}

test_stop_impatient() {
	# a command that ignores the stop signal is ended when its time is up
	vm stubborn -- sh -c 'trap "" TERM; echo ready; while :; do sleep 0.1; done'
	until_true 30 bash -c "$sm logs stubborn | grep -q ready"
	local t0=$SECONDS
	out $sm stop -t 2 stubborn
	[ $((SECONDS - t0)) -lt 15 ] || fail "took $((SECONDS - t0)) s"
	is "status" "$(field stubborn .outcome.status)" 137
	is "reason" "$(field stubborn .outcome.reason)" stopped
	out $sm stop stubborn
	out $sm rm stubborn
}

limit_files_survive=240
test_files_survive() {
	# a kept VM's files survive stop, start and kill -9 of everything
	vm keeper1 -- sh -c 'echo run >>/runs; sync; while :; do sleep 0.1; done'
	out $sm exec keeper1 sh -c 'head -c 500000 /dev/urandom >/blob; sha256sum /blob; ln /blob /hard; mkdir -p /a/b; chmod 4755 /blob; rm /srv/data; sync'
	local sum=$out
	kill_everything keeper1
	is "record" "$(state keeper1)" exited
	out $sm start keeper1
	out $sm exec keeper1 sh -c 'sha256sum /blob; stat -c "%a %h" /blob; ls /srv/data 2>&1; wc -l </runs'
	is "digest" "$(head -n 1 <<<"$out")" "$sum"
	has "mode and links" "$out" '^4755 2$'
	has "removed stays removed" "$out" 'No such file'
	is "runs" "$(tail -n 1 <<<"$out" | xargs)" 2
	out $sm stop -t 5 keeper1
	out $sm start keeper1
	out $sm exec keeper1 sha256sum /blob
	is "digest" "$out" "$sum"
	out $sm rm -f keeper1
}

# kill -9 of the monitor and the keeper of a VM, where they run.
kill_everything() {
	local m k
	m=$(field "$1" .monitor_pid)
	k=$(field "$1" .keeper_pid)
	[ "$m" -gt 1 ] && [ "$k" -gt 1 ] || fail "no pids: $m $k"
	beside kill -9 "$k" "$m" || true
	until_true 30 is_state "$1" exited
}

test_start_attached() {
	# start -a shows the output and has the command's status
	out -6 run_box --name again box sh -c 'echo run; exit 6'
	out -6 $sm start -a again
	is "output" "$out" run
	out $sm rm again
}
