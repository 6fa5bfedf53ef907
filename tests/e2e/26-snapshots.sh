# SPDX-License-Identifier: Apache-2.0
# VMs that stand still and go on: paused, or saved and restored.

limit_pause=120
test_pause() {
	# a paused VM does nothing, knows no time, refuses commands; stop works, and so does a limit on its time
	vm still --timeout 40s -- sh -c 'while :; do cut -d" " -f1 /proc/uptime; sleep 0.2; done'
	until_true 30 bash -c "[ \$($sm logs still | wc -l) -ge 3 ]"
	out -125 $sm unpause still
	has "not paused" "$err" 'already'
	out $sm pause still
	is "pause prints" "$out" still
	is "state" "$(state still)" paused
	has "ps" "$($sm ps)" 'still .*paused'
	local before after
	before=$($sm logs still | wc -l)
	out -125 $sm exec still true
	has "exec" "$err" 'paused'
	out -125 $sm pause still
	sleep 3
	is "lines while it was paused" "$($sm logs still | wc -l)" "$before"
	out $sm unpause still
	is "state" "$(state still)" running
	until_true 30 bash -c "[ \$($sm logs still | wc -l) -gt $((before + 2)) ]"
	# no time passed for it between the two lines around the pause
	after=$($sm logs still | sed -n "${before}p;$((before + 1))p" | xargs | awk '{ print ($2 - $1 < 2.5) }')
	is "the pause was no time to it" "$after" 1
	out $sm exec still date +%s
	[ "$out" -ge $(($(date +%s) - 5)) ] && [ "$out" -le $(($(date +%s) + 1)) ] || fail "its clock says $out, ours $(date +%s)"
	out $sm pause still
	out $sm stop -t 10 still
	is "state" "$(state still)" exited
	has "how" "$($sm ps -a)" 'still .*exited \((143|137), stopped\)'
	out $sm rm still
}

limit_snapshot=700
test_snapshot() {
	# a running VM is saved and goes on; VMs that go on from there have its processes, files and disk, and all else of their own
	local ask='cat /file; hostname; head -c 16 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/uuid' a b pid rc=0
	image saved --cmd '["sh"]' --env PATH=/bin
	out $sm run -d -m 256M --name first saved sh -c 'exec 3>/ticks; n=0; while :; do n=$((n+1)); echo $n >&3; echo tick $n; [ -e /stop ] && { rm /stop; exit 7; }; sleep 0.2; done'
	until_true 30 bash -c "[ \$($sm logs first | wc -l) -ge 3 ]"
	out $sm exec first sh -c 'echo shared >/file'
	out $sm snapshot first warm
	is "prints" "$out" warm
	has "the time it took" "$err" 'stood still for [0-9]+ ms'
	out -125 $sm snapshot first warm
	has "twice" "$err" 'already'
	out -125 $sm snapshot first base-x
	$sm snapshots --format json | jq -e '.[] | select(.name == "warm") | .kind == "vm" and .image == "saved" and .fits and .size > 0' >/dev/null || fail "$($sm snapshots)"
	$sm inspect warm | jq -e '.[0].kind == "vm" and .[0].whole and .[0].config.argv[0] == "sh"' >/dev/null || fail "$($sm inspect warm)"
	out $sm exec first sh -c 'echo later >>/file; wc -l </file'
	is "the first goes on" "$out" 2
	out $sm restore -d --name second warm
	out $sm run -d --name third --snapshot warm
	out $sm exec second sh -c "$ask"
	a=$out
	out $sm exec third sh -c "$ask"
	b=$out
	is "lines in common" "$(comm -12 <(sort <<<"$a") <(sort <<<"$b"))" shared
	out $sm exec second sh -c 'echo own >/mine; date +%s'
	[ "$out" -ge $(($(date +%s) - 5)) ] && [ "$out" -le $(($(date +%s) + 1)) ] || fail "its clock says $out, ours $(date +%s)"
	out -1 $sm exec third cat /mine
	until_true 30 bash -c "[ \$($sm logs second | wc -l) -ge 3 ]"
	has "its command goes on" "$($sm logs second | head -n 1)" '^tick ([4-9]|[1-9][0-9]+)$'
	until_true 30 $sm exec second sh -c '[ $(wc -l </ticks) -eq $(tail -n 1 /ticks) ]' # with the file that it had open
	out $sm rm -f first
	out -125 $sm rmi saved
	has "its image is held" "$err" 'in use'
	# its exit status, and a start on its own disk
	out $sm exec second touch /stop
	out $sm wait second
	is "status" "$out" 7
	out $sm start second
	out $sm exec second cat /file /mine
	is "its disk" "$out" $'shared\nown'
	out $sm rm -f second
	# a snapshot of one that was restored; the first snapshot is not needed for it
	out $sm snapshot third again
	out $sm snapshot rm warm
	out $sm exec third cat /file
	is "file" "$out" shared
	$sm restore --rm --name front again >front.out 2>front.err &
	pid=$!
	until_true 60 bash -c "[ \"\$($sm ps --format json | jq -r '.[] | select(.name == \"front\") | .state')\" = running ]"
	out $sm exec front touch /stop
	wait $pid || rc=$?
	is "status in front" "$rc $(cat front.err)" "7 "
	has "output in front" "$(cat front.out)" '^tick [0-9]+$'
	chmod 600 "$SUPERMACHINE_HOME/data/snapshots/again/memory"
	printf x | dd of="$SUPERMACHINE_HOME/data/snapshots/again/memory" bs=1 conv=notrunc 2>/dev/null
	out -125 $sm restore again
	has "damage" "$err" 'snapshot again: its file memory is not the one that was saved'
	out $sm snapshot rm again
	out -125 $sm restore again
	has "gone" "$err" 'no such snapshot'
	out $sm rm -f third
	out $sm rmi saved
}

limit_snapshot_shapes=700
test_snapshot_shapes() {
	# two CPUs, a disk in memory, a VM that booted; what cannot be saved says so; a snapshot that is killed on the way leaves nothing
	local i pid
	vm two -c 2 --tmpfs-root -- sh -c 'while :; do :; done'
	out $sm snapshot two double
	out $sm restore -d --name copy double
	out $sm exec copy sh -c 'for i in 0 1; do taskset -c $i grep -c ^processor /proc/cpuinfo; done; ps | grep -c "[w]hile :"'
	is "CPUs, and its command" "$out" $'2\n2\n1'
	lacks "console" "$($sm logs --console copy)" 'lockup|stall'
	out $sm rm -f copy
	for i in 1 2 3; do
		$sm snapshot two killed >/dev/null 2>&1 &
		pid=$!
		sleep "0.$((RANDOM % 9))"
		kill -9 $pid 2>/dev/null || true
		wait $pid 2>/dev/null || true
		until_true 60 $sm exec two true
		$sm snapshot rm -f killed >/dev/null
	done
	until_true 60 $sm snapshot two whole
	lacks "leftovers" "$(ls -A "$SUPERMACHINE_HOME/data/snapshots")" '^\.(new|old)-'
	out $sm snapshot rm double whole
	out $sm pause two
	out -125 $sm snapshot two paused
	has "a paused VM" "$err" 'paused'
	out $sm rm -f two
	vm cold --cold -v .:/mnt
	out -125 $sm snapshot cold no
	has "directories" "$err" 'directories of the host'
	out $sm rm -f cold
	vm cold --cold
	out $sm exec cold sh -c 'echo booted >/file'
	out $sm snapshot cold cold
	out $sm restore -d --name copy cold
	out $sm exec copy cat /file
	is "file" "$out" booted
	out $sm rm -f cold copy
	out $sm snapshot rm cold
}
