# SPDX-License-Identifier: Apache-2.0
# run: status, streams, options. What a user of docker run would try first.

test_first_run() {
	# a command prints, stdout is the guest's alone, nothing stays
	run_box box true # the machine and the disk template, where they are needed
	out run_box box echo hello world
	is "stdout" "$out" "hello world"
	is "stderr" "$err" ""
	out $sm ps -aq
	is "VMs left" "$out" ""
}

limit_exit_status=180
test_exit_status() {
	# exit statuses are the command's: 0, 7, 126, 127, 128+n
	out run_box box true
	out -7 run_box box sh -c 'exit 7'
	out -255 run_box box sh -c 'exit 255'
	out -127 run_box box nosuchcommand
	has "not found" "$err" 'nosuchcommand'
	out -127 run_box box /bin/nosuch
	out -126 run_box box /srv/data
	has "not executable" "$err" '/srv/data'
	out -126 run_box box /srv
	out -125 run_box -u nobodyhere box true
	has "no user" "$err" "^supermachine: run: no user 'nobodyhere'"
	out -143 run_box box sh -c 'sh -c "kill -TERM \$\$"; exit $?'
	out -137 run_box box sh -c 'sh -c "kill -KILL \$\$"; exit $?'
}

test_streams() {
	# stdout and stderr stay apart, stdin is end of file without -i and what is piped with it
	out run_box box sh -c 'echo to-out; echo to-err >&2; cat; echo end'
	is "stdout" "$out" "to-out
end"
	is "stderr" "$err" "to-err"
	out bash -c "echo ignored | $sm run -m 256M box sh -c 'read x; echo got:\$x'"
	is "without -i" "$out" "got:"
	out bash -c "printf 'a\nb' | $sm run -m 256M -i box cat"
	is "with -i" "$out" "a
b"
	out $sm run -m 256M -i box sh -c 'cat; echo after' </dev/null
	is "end of file" "$out" "after"
}

limit_binary=400
test_output_nowhere() {
	# output that cannot be written is said and is no success; a closed stream stays closed; who only joined a command leaves it going
	local n="not all of it was written"
	vm out -- sh -c 'echo begun; while sleep 0.2; do echo more; done'
	out -125 bash -c "$sm exec out echo hi >/dev/full"
	is "exec" "$err" "supermachine: exec: standard output: No space left on device: $n"
	out -125 bash -c "$sm exec out sh -c 'echo hi >&2' 2>/dev/full"
	out -125 bash -c "$sm exec out yes >/dev/full"
	out -7 bash -c "$sm exec out sh -c 'trap \"\" PIPE; echo hi; exit 7' >/dev/full"
	out -125 bash -c "$sm run -m 256M box echo hi >/dev/full"
	is "run" "$err" "supermachine: run: standard output: No space left on device: $n"
	out -125 bash -c "$sm exec out echo hi >&-"
	is "closed" "$err" "supermachine: exec: standard output: Bad file descriptor: $n"
	out -125 bash -c "$sm exec out echo hi <&- >&- 2>&-"
	out bash -c "$sm exec -i out cat <&-"
	out bash -c "$sm exec out true <&- >&- 2>&-"
	out -125 bash -c "$sm ps >&-"
	is "ps" "$err" "supermachine: ps: standard output: Bad file descriptor"
	out -141 bash -c "set -o pipefail; $sm exec out yes | head -n 1"

	out -141 bash -c "set -o pipefail; $sm attach out | head -n 1"
	is "joined" "$out:$err" "more:"
	out -125 bash -c "$sm attach out >/dev/full"
	has "joined" "$err" "the command of VM .* goes on: standard output: No space left on device"
	is "goes on" "$(state out)" running
	is "number" "$($sm exec -d out sh -c 'while sleep 0.2; do echo left; done')" 1
	out -141 bash -c "set -o pipefail; $sm exec attach out 1 | head -n 1"
	is "left" "$out:$err" "left:"
	is "goes on" "$($sm exec ls --format json out | jq -c '.[0].running')" true
	out $sm rm -f out
}

test_binary() {
	# bytes pass unchanged both ways, in any amount
	box
	local mib sum
	mib=$(scaled 16 1024)
	head -c $((mib << 20)) /dev/urandom >data
	sum=$(sha256sum <data)
	out bash -c "$sm run -m 256M -i box sha256sum <data"
	is "in" "$out" "$sum"
	$sm run -m 256M -i box cat <data >back
	cmp data back
	$sm run -m 256M -i box sh -c 'tee /dev/stderr | sha256sum' <data >out.sum 2>err.data
	is "stdout while stderr is busy" "$(cat out.sum)" "$sum"
	is "stderr while stdout is busy" "$(sha256sum <err.data)" "$sum"
	printf '\0\1\377\n\r' | $sm run -m 256M -i box cat | cmp - <(printf '\0\1\377\n\r')
}

test_back_pressure() {
	# a slow reader holds the command back: memory does not grow; a reader that goes away ends the command
	box
	mkfifo pipe
	$sm run -m 256M box sh -c 'i=0; while head -c 65536 /dev/zero; do i=$((i+1)); done' >pipe &
	local pid=$!
	exec 8<pipe
	head -c 65536 <&8 >/dev/null
	sleep 3
	local rss
	rss=$(awk '/^VmRSS/ { print $2 }' "/proc/$pid/status")
	[ "$rss" -lt 40000 ] || fail "the command's process has grown to $rss KiB"
	exec 8<&-
	until_true 20 bash -c "! kill -0 $pid"
	out bash -c "timeout 40 $sm run -m 256M box yes | head -n 2"
	is "yes | head" "$out" "y
y"
	until_true 20 bash -c "[ -z \"\$($sm ps -q)\" ]"
}

test_environment() {
	# -e, -e NAME, --env-file, -w, -u, --entrypoint, --hostname, in docker's spellings
	image envy --env PATH=/bin --env A=image --env B=image --workdir /srv --user alice --entrypoint '["sh", "-c"]' --cmd '["env"]'
	out $sm run -m 256M envy
	has "image" "$out" '^A=image$'
	printf '# comment\n\nB=file\nC=file\nHOSTVAR\n' >env.txt
	HOSTVAR=host ONLY=here out $sm run -m256M -e A=option --env=ONLY -eD='x y=z' -e MISSING --env-file env.txt envy 'env; pwd; id -un; hostname'
	has "A" "$out" '^A=option$'
	has "B" "$out" '^B=file$'
	has "C" "$out" '^C=file$'
	has "D" "$out" '^D=x y=z$'
	has "HOSTVAR" "$out" '^HOSTVAR=host$'
	has "ONLY" "$out" '^ONLY=here$'
	lacks "MISSING" "$out" 'MISSING'
	has "workdir" "$out" '^/srv$'
	has "user" "$out" '^alice$'
	out $sm run -m 256M --rm --entrypoint id -w /tmp -u bob:audio --hostname duck envy
	has "id" "$out" '^uid=1001\(bob\) gid=29\(audio\)( groups=29\(audio\))?$'
	out $sm run -m 256M --entrypoint '' -w /new/dir -u 1234:5678 -h duck envy sh -c 'pwd; id -u; id -g; hostname'
	is "numbers" "$out" "/new/dir
1234
5678
duck"
	out -125 $sm run -u nobodyknows envy
	has "unknown user" "$err" 'nobodyknows'
}

test_groups() {
	# a user's other groups come from the image's /etc/group
	out run_box -u alice box id
	has "by name" "$out" '^uid=1000\(alice\) gid=1000\(alice\) groups=.*29\(audio\),50\(staff\)'
	out run_box -u 1000 box id
	has "by number" "$out" '^uid=1000\(alice\) gid=1000\(alice\) groups=.*29\(audio\),50\(staff\)'
}

test_resources() {
	# -m and -c give what they say; --disk bounds the writable layer, --tmpfs-root keeps it in memory
	out run_box -m 512M -c 2 --disk 64M box sh -c 'grep -c ^processor /proc/cpuinfo; awk "/MemTotal/ {print \$2}" /proc/meminfo; df -k / | tail -n 1'
	local lines
	mapfile -t lines <<<"$out"
	is "CPUs" "${lines[0]}" 2
	[ "${lines[1]}" -gt 430000 ] && [ "${lines[1]}" -le 524288 ] || fail "memory: ${lines[1]} KiB"
	local size
	size=$(awk '{ print $2 }' <<<"${lines[2]}")
	[ "$size" -gt 30000 ] && [ "$size" -le 65536 ] || fail "disk: ${lines[2]}"
	out run_box --tmpfs-root box sh -c 'echo x >/file && cat /file; grep " / " /proc/mounts'
	has "tmpfs root" "$out" 'overlay'
	out -125 run_box -m 64M box true
	out run_box -m 128M box echo small
	is "the least memory" "$out" small
}

test_big_defaults() {
	# defaults fit real work: 1 GiB of memory, a 10 GiB disk that takes no space
	box
	out $sm run box sh -c 'awk "/MemTotal/ {print int(\$2/1000)}" /proc/meminfo; df -k / | tail -n 1 | awk "{print int(\$2/1000000)}"'
	local lines
	mapfile -t lines <<<"$out"
	[ "${lines[0]}" -gt 900 ] || fail "memory: ${lines[0]} MB"
	[ "${lines[1]}" -ge 9 ] || fail "disk: ${lines[1]} GB"
}

test_timeout() {
	# --timeout ends the command: status 124, said so
	out -124 run_box --timeout 1s --outcome o.json box sleep 100
	has "stderr" "$err" 'timed out'
	is "reason" "$(jq -r .reason o.json)" timeout
	out run_box --timeout 60 box echo quick
	is "in time" "$out" quick
}

test_outcome() {
	# --outcome writes status, signal, reason and stages, whatever happened; where it cannot be written nothing runs
	out -125 run_box --outcome nowhere/o.json box echo ran
	is "nothing ran" "$out" ""
	has "where" "$err" '^supermachine: run: --outcome nowhere/o.json: No such file or directory'
	mkfifo pipe
	jq -r .reason <pipe >reason &
	out -3 run_box --outcome pipe box sh -c 'exit 3'
	wait $!
	is "through a pipe, which stays one" "$(cat reason) $(stat -c %F pipe)" "exited fifo"
	out -125 run_box --outcome /dev/full box true
	has "nowhere to write" "$err" '--outcome /dev/full: No space left on device'
	[ -c /dev/full ] || fail "/dev/full was replaced"
	out -7 run_box --outcome o.json box sh -c 'exit 7'
	jq -e '.status == 7 and .signal == 0 and .reason == "exited" and .image == "box" and .duration_ns > 0 and (.stages_ns | length > 1)' o.json >/dev/null || fail "$(cat o.json)"
	$sm run -m 256M --outcome o.json box sh -c 'echo ready; exec sleep 1000' >ready &
	local pid=$! rc=0
	until_true 60 grep -q ready ready
	kill -TERM $pid
	wait $pid || rc=$?
	is "ended by a signal it does not catch" "$rc" 143
	jq -e '.status == 143 and .signal == 15 and .reason == "signalled"' o.json >/dev/null || fail "$(cat o.json)"
	out -127 run_box --outcome o.json box nosuch
	jq -e '.status == 127 and .reason == "not-found"' o.json >/dev/null || fail "$(cat o.json)"
	out -126 run_box --outcome o.json box /srv/data
	jq -e '.status == 126 and .reason == "not-executable"' o.json >/dev/null || fail "$(cat o.json)"
	out -125 run_box --outcome o.json nosuchimage true
	jq -e '.status == 125 and .reason == "start-failed" and (.message | contains("nosuchimage"))' o.json >/dev/null || fail "$(cat o.json)"
}

test_run_from_source() {
	# an image runs straight from a layout or an archive
	box
	out $sm run -m 256M "oci:$SM_SHARED/box" echo from-layout
	is "layout" "$out" from-layout
	"$SM_TOP/tests/lib/mkimage" --layer "$SM_SHARED/root" --format docker --tag fromfile:1 --cmd '["echo", "default"]' --env PATH=/bin f.tar
	out $sm run -m 256M docker-archive:f.tar
	is "archive, default command" "$out" default
	out $sm rmi fromfile:1
}

test_signals_proxied() {
	# without a terminal, signals sent to the command line reach the command
	box
	local s
	for s in INT TERM HUP USR1; do
		$sm run -m 256M box sh -c "trap 'echo got $s; exit 9' $s; echo ready; while :; do sleep 0.1; done" >sig.out &
		local pid=$! rc=0
		until_true 40 grep -q ready sig.out
		kill -$s $pid
		wait $pid || rc=$?
		is "status after $s" "$rc" 9
		is "$s" "$(tail -n 1 sig.out)" "got $s"
		: >sig.out
	done
}

test_three_interrupts() {
	# a command that ignores interrupts is ended by the third
	box
	$sm run -m 256M box sh -c 'trap "" INT; echo ready; while :; do sleep 0.1; done' >sig.out 2>sig.err &
	local pid=$! rc=0
	until_true 40 grep -q ready sig.out
	kill -INT $pid
	sleep 0.3
	kill -INT $pid
	until_true 5 grep -q 'once more' sig.err
	kill -INT $pid
	wait $pid || rc=$?
	is "status" "$rc" 130
	until_true 20 bash -c "[ -z \"\$($sm ps -q)\" ]"
}

test_interrupt_during_boot() {
	# Ctrl-C while the guest still boots ends everything at once
	box
	$sm run -m 256M box sleep 100 &
	local pid=$! rc=0
	sleep 0.7
	kill -INT $pid
	wait $pid || rc=$?
	is "status" "$rc" 130
	until_true 20 bash -c "[ -z \"\$($sm ps -aq)\" ]"
}

test_names_of_vms() {
	# a name can be given once; what is kept stays until rm
	out run_box --name one box true
	is "kept" "$(state one)" exited
	out -125 run_box --name one box true
	has "taken" "$err" 'one'
	has "advice" "$err" 'supermachine rm'
	out $sm rm one
	is "removed" "$(state one)" gone
	out run_box --rm --name two box true
	is "--rm" "$(state two)" gone
	out -125 run_box --name 'no/slash' box true
}
