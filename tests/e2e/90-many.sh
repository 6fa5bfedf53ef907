# SPDX-License-Identifier: Apache-2.0
# Many VMs: at once, and one after the other, without a trace.

limit_at_once=300
test_at_once() {
	# many VMs started at once all answer
	box
	local n i
	n=$(scaled 6 20)
	for i in $(seq "$n"); do
		(timeout $((250 * (SM_SCALE > 4 ? 4 : 1) * ${SM_PATIENCE:-1})) $sm run -m 128M box echo "answer $i" >"a$i" 2>"b$i") &
	done
	wait
	for i in $(seq "$n"); do
		is "VM $i ($(cat "b$i"))" "$(cat "a$i")" "answer $i"
	done
	out $sm ps -aq
	is "VMs left" "$out" ""
}

limit_start_timeout=120
test_start_timeout() {
	# run --start-timeout is how long a start waits for its turn
	box
	out $sm run -m 128M box true
	local turn holder
	turn=$(find "$SUPERMACHINE_HOME" -path '*/launching/turn')
	(
		flock 9
		until [ -e done ]; do sleep 0.1; done
	) 9<>"$turn" &
	holder=$!
	until_true 10 sh -c "! flock -n '$turn' true"
	out -125 $sm run --start-timeout 500ms -m 128M box true
	has "busy" "$err" 'busy.*0\.5 s it was not its turn'
	: >done
	wait $holder
	is "its turn" "$($sm run --start-timeout 2m -m 128M box echo now)" now
}

limit_one_process=400
test_one_process() {
	# many VMs of one process: all answer; the monitor of one is killed, which is an error of that handle and of no other
	needs cc
	box
	local n id
	n=$(scaled 6 64)
	cc -std=c11 -Wall -Wextra -Werror -O1 -pthread -o many "$SM_TOP/tests/e2e/many.c" -I "$SM_TOP/include" -L "$SM_BIN/../lib" -l:libsupermachine.so.0
	mkfifo answers
	LD_LIBRARY_PATH=$SM_BIN/../lib SUPERMACHINE_LIBEXEC=$SM_BIN ./many box "$n" <answers >o 2>e &
	local many=$!
	exec 7>answers
	until_true $((300 * (SM_SCALE > 4 ? 4 : 1))) eval 'grep -q ^kill o || ! kill -0 '$many
	id=$(sed -n 's/^kill //p' o)
	[ -n "$id" ] || fail "no VM to kill: $(cat o e)"
	beside kill -9 "$(field "$id" .monitor_pid)"
	echo >&7
	wait $many || fail "status $?: $(cat o e)"
	is "who answered" "$(tail -n 1 o)" "$n answered, $((n - 1)) answered again, 1 failed: monitor-died"
	is "VMs left" "$($sm ps -aq)" ""
}

limit_storm=400
test_storm() {
	# a storm of starts: each VM does what it is to do, or was refused as busy, in words; none is half-dead, and nothing of them stays
	box
	local n i rc busy=0
	n=$(scaled 12 200)
	for i in $(seq "$n"); do
		(rc=0; $sm run -m 128M box sh -c "echo answer $i; exit 3" >"a$i" 2>"b$i" || rc=$?; echo $rc >"c$i") &
	done
	wait
	for i in $(seq "$n"); do
		rc=$(cat "c$i")
		if [ "$rc" = 125 ] && grep -q 'busy: ' "b$i"; then
			busy=$((busy + 1))
			is "output of VM $i, which was refused" "$(cat "a$i")" ""
		else
			is "VM $i: status $rc, $(cat "b$i")" "$rc $(cat "a$i")" "3 answer $i"
		fi
	done
	[ $busy -lt "$n" ] || fail "all were refused: $(cat b1)"
	echo "$busy of $n were refused"
	is "VMs left" "$($sm ps -aq)" ""
	until_true 30 no_vm_processes
}

no_vm_processes() {
	[ "$(vm_processes)" = 0 ]
}

# What stays between runs, a number a line: files under the home; processes of VMs, open files and MiB in use where VMs run; descriptors of what serves this
# home on the host (the machine's, where there is one).
footprint() {
	find "$SUPERMACHINE_HOME" | wc -l
	vm_processes
	beside sh -c '
		awk "{ print \$1 }" /proc/sys/fs/file-nr
		sync; echo 3 >/proc/sys/vm/drop_caches 2>/dev/null
		awk "/^MemTotal/ { t = \$2 } /^(MemFree|Buffers|Cached|SReclaimable):/ { t -= \$2 } END { print int(t / 1024) }" /proc/meminfo'
	local p n=0
	for p in $(grep -lsF -e "$SUPERMACHINE_HOME" /proc/[0-9]*/cmdline | cut -d/ -f3 || true); do
		n=$((n + $(ls "/proc/$p/fd" 2>/dev/null | wc -l || true))) # it may be gone
	done
	echo $n
}

# left_behind BEFORE AFTER: what has grown by more than the noise of a system that others use too.
left_behind() {
	paste "$1" "$2" | awk '
		BEGIN { split("files under the home|processes of VMs|open files|MiB in use|descriptors of our servers", what, "|"); split("0 0 64 24 4", most) }
		$2 > $1 + most[NR] { printf "%s: %d before, %d after; ", what[NR], $1, $2 }'
}

limit_in_a_row=600
test_in_a_row() {
	# many VMs in a row leave no file, process, descriptor or memory
	box
	local n i left
	n=$(scaled 5 200)
	# What the first ones make stays (a base, the disk template), and the machine takes 50 MiB more, once, after it was first told to drop its caches.
	for i in 1 2; do
		out $sm run -m 128M box true
		footprint >before
	done
	for i in $(seq "$n"); do
		out $sm run -m 128M box echo "$i"
		is "answer" "$out" "$i"
	done
	for i in 1 2 3 4 5; do
		footprint >after
		left=$(left_behind before after)
		[ -n "$left" ] || return 0
		sleep 1
	done
	fail "after $n VMs: $left"
}

limit_prune_loop=300
test_prune_loop() {
	# load, run and prune in a loop never lose or collect a file in use
	box
	local i n
	n=$(scaled 3 60)
	(for i in $(seq "$n"); do
		mkdir -p "l$i" && echo "$i" >"l$i/n"
		"$SM_TOP/tests/lib/mkimage" --layer "$SM_SHARED/root" --layer "l$i" --env PATH=/bin --tag latest "lay$i" >/dev/null
		$sm load --name "loop$i" "oci:lay$i" >/dev/null
		is "image $i" "$($sm run --cold -m 128M "loop$i" cat /n)" "$i"
		$sm rmi "loop$i" >/dev/null
	done) &
	local work=$!
	while kill -0 $work 2>/dev/null; do
		$sm prune -a >/dev/null
		sleep 0.3
	done
	wait $work
	is "box is still there" "$(run_box box echo yes)" yes
}
