# SPDX-License-Identifier: Apache-2.0
# Nothing outlives what it belongs to, whoever dies first; the record tells why. And the monitor is sealed.

# Pids of a VM's processes, as "NAME PID" lines, where they run.
pids() {
	echo "monitor $(field "$1" .monitor_pid)"
	echo "keeper $(field "$1" .keeper_pid)"
}

alive() { # alive PID, where VMs run
	beside test -d "/proc/$1"
}

gone() {
	! alive "$1"
}

limit_kill_orders=300
test_kill_orders() {
	# kill -9 of command, keeper and monitor, in any order: nothing stays running, and the record says who died
	local order n=0 orders=("monitor" "keeper" "cli" "keeper monitor" "monitor keeper" "cli keeper")
	[ "$SM_SCALE" -gt 1 ] && orders+=("cli monitor keeper" "keeper cli monitor" "monitor cli keeper" "cli keeper monitor" "keeper monitor cli" "monitor keeper cli")
	box
	for order in "${orders[@]}"; do
		n=$((n + 1))
		local name=order$n m k who cli
		$sm run -m 256M --name "$name" box sh -c 'echo ready; sleep 1000' >"$name.out" 2>"$name.err" &
		cli=$!
		until_true 120 grep -q ready "$name.out"
		m=$(field "$name" .monitor_pid) k=$(field "$name" .keeper_pid)
		for who in $order; do
			case $who in
			cli) kill -9 $cli 2>/dev/null || true ;; # it may have ended by itself
			monitor) beside kill -9 "$m" 2>/dev/null || true ;;
			keeper) beside kill -9 "$k" 2>/dev/null || true ;;
			esac
		done
		wait $cli 2>/dev/null || true
		until_true 20 gone "$m"
		until_true 20 gone "$k"
		until_true 20 bash -c "[ \"\$($sm ps -q)\" = '' ]"
		is "state after $order" "$(state "$name")" exited
		local reason
		reason=$(field "$name" .outcome.reason)
		case ${order%% *} in
		monitor) has "reason after $order" "$reason" '^(monitor-died|keeper-died)$' ;;
		keeper) has "reason after $order" "$reason" '^(keeper-died)$' ;;
		cli) has "reason after $order" "$reason" '^(client-gone|keeper-died)$' ;;
		esac
		out $sm rm "$name"
	done
}

test_unnamed_vms_vanish() {
	# a foreground VM whose command line is killed leaves neither process nor record
	box
	$sm run -m 256M box sh -c 'echo ready; sleep 1000' >o &
	local cli=$! m
	until_true 120 grep -q ready o
	m=$($sm ps --format json | jq -r '.[0].monitor_pid')
	kill -9 $cli
	until_true 20 gone "$m"
	until_true 20 bash -c "[ -z \"\$($sm ps -aq)\" ]"
}

limit_kill_early=200
test_kill_early() {
	# the command line killed at random moments of a start leaves nothing
	box
	local i
	for i in $(seq "$(scaled 4 60)"); do
		$sm run -m 256M box sleep 1000 >/dev/null 2>&1 &
		local cli=$!
		sleep "$((RANDOM % 3)).$((RANDOM % 10))"
		kill -9 $cli
		wait $cli 2>/dev/null || true
	done
	until_true 30 bash -c "[ -z \"\$($sm ps -aq)\" ]"
	# A base that was being made may still come to its end.
	until_true 90 no_vm_processes
}

no_vm_processes() {
	[ "$(vm_processes)" -eq 0 ]
}

test_sealed_monitor() {
	# a running monitor is sealed: seccomp filter, no capabilities, no new privileges, in every thread
	vm sealed -c 2
	local pid threads
	pid=$(field sealed .monitor_pid)
	out beside sh -c "cat /proc/$pid/task/*/status"
	threads=$(grep -c '^Seccomp:' <<<"$out")
	[ "$threads" -ge 3 ] || fail "only $threads threads"
	is "threads with a filter" "$(grep -c '^Seccomp:.*2$' <<<"$out")" "$threads"
	is "threads without new privileges" "$(grep -c '^NoNewPrivs:.*1$' <<<"$out")" "$threads"
	local cap
	for cap in CapEff CapPrm CapInh CapAmb CapBnd; do
		[ $cap = CapBnd ] && continue
		is "threads without $cap" "$(grep -cE "^$cap:.*0000000000000000\$" <<<"$out")" "$threads"
	done
	out beside sh -c "ls -l /proc/$pid/fd | grep -c ' -> /'" || true
	out $sm rm -f sealed
}

test_monitor_killed_under_exec() {
	# a command of exec whose VM loses its monitor, or its keeper, ends with 125 and a line that tells
	local who rc cli
	for who in monitor keeper; do
		vm under
		$sm exec under sh -c 'echo ready; sleep 1000' >o 2>e &
		cli=$! rc=0
		until_true 60 grep -q ready o
		beside kill -SEGV "$(field under .${who}_pid)"
		wait $cli || rc=$?
		is "status" "$rc" 125
		has "line" "$(cat e)" "^supermachine: exec: .*$who was (ended by signal 11|killed)"
		out $sm rm -f under
	done
}

# hang VM: has its keeper hang.
hang() {
	keeper=$(field "$1" .keeper_pid)
	monitor=$(field "$1" .monitor_pid)
	beside kill -STOP "$keeper"
}

ended() {
	! beside kill -0 "$keeper" 2>/dev/null && ! beside kill -0 "$monitor" 2>/dev/null
}

# all_fail VERB...: of a VM whose keeper hangs, all at once; each ends in time, and says what to do.
all_fail() {
	local verb pid pids=() rc
	for verb; do
		$hasty $verb >"${verb%% *}.out" 2>"${verb%% *}.err" &
		pids+=("$!=${verb%% *}")
	done
	for pid in "${pids[@]}"; do
		rc=0
		wait "${pid%=*}" || rc=$?
		is "${pid#*=}" "$rc" 125
		has "${pid#*=}" "$(cat "${pid#*=}.err")" 'its keeper does not answer: it hangs; stop, kill and rm -f end it'
	done
}

test_keeper_hangs() {
	# a keeper that hangs holds no command up for good; others' VMs are none the worse, and when it goes on so does its VM; stop, kill and rm -f end one all the same
	local keeper monitor verb hasty="env SUPERMACHINE_ANSWER_TIMEOUT=3s $sm"
	vm hung
	vm other
	echo here >file
	hang hung
	all_fail "exec hung true" "wait hung"
	out $hasty logs hung # needs no keeper
	out $hasty ps
	has "said" "$err" 'its keeper does not answer: it hangs; stop, kill and rm -f end it'
	has "its line" "$out" ' hung .* not answering$'
	has "the other's line" "$out" ' other .* running '
	is "for programs" "$($hasty ps --format json 2>/dev/null | jq -c 'map([.name, .state, .hung])')" '[["other","running",false],["hung","running",true]]'
	out $hasty ps -q --filter name=^hung
	has "found by name" "$out" '^[0-9a-f]{12}$'
	out $sm exec other true
	beside kill -CONT "$keeper"
	is "goes on" "$($sm exec hung echo here)" here
	hang hung
	all_fail "logs -f hung" "pause hung" "suspend hung" "snapshot hung saved" "branch hung" "cp file hung:/file" "stats --no-stream hung" "inspect hung" "port hung" \
		"kill -s HUP hung" "stop -t -1 hung"
	for verb in "stop -t 1" $(at_length && echo kill) "restart -t 1"; do
		[ "$verb" = "stop -t 1" ] || hang hung
		out $hasty $verb hung
		has "told by $verb" "$err" 'its keeper did not answer, and was ended with it'
		until_true 20 ended
		[ "${verb%% *}" = restart ] && break
		is "ended by $verb" "$(field hung '"\(.state) \(.outcome.reason) \(.outcome.message)"')" 'exited keeper-died its keeper did not answer, and was ended for that'
		out $sm start hung
	done
	is "restarted" "$($sm exec hung echo here)" here
	hang hung
	out $hasty rm -f hung
	until_true 20 ended
	out $sm ps -a
	lacks "what is left" "$out" hung
	out $sm exec other true
	out $sm rm -f other
}

test_keeper_killed_session() {
	# a session whose keeper is killed ends with 125 and a line that tells
	box
	$sm run -m 256M --name victim box sh -c 'echo ready; sleep 1000' >o 2>e &
	local cli=$! rc=0 k
	until_true 120 grep -q ready o
	k=$(field victim .keeper_pid)
	beside kill -9 "$k"
	wait $cli || rc=$?
	is "status" "$rc" 125
	has "line" "$(cat e)" '^supermachine: run: .*keeper'
	out $sm rm -f victim
}
