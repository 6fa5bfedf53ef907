# SPDX-License-Identifier: Apache-2.0
# VMs that stand still, and go on: paused.

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
