# SPDX-License-Identifier: Apache-2.0
# VMs restored again and again from a snapshot that was made while its guest was at work on all of its CPUs.

# In the guest: each CPU counts, copies memory and sleeps by turns.
at_work='i=0; while [ $i -lt $CPUS ]; do
	(n=0; while :; do n=$((n + 1)); echo $n >/dev/shm/count.$i; dd if=/dev/urandom of=/dev/shm/x$i bs=4k count=16 2>/dev/null; [ $((n % 8)) -gt 0 ] || usleep 1000; done) &
	i=$((i + 1)); done; wait'

# In the guest: each of them counts on; how many there are, which CPUs are online; the clock; what the kernel has said since the snapshot. All that work leaves it little time, and a process is
# dear there: the shell does what it can by itself, and waits for all of them at once.
still_at_work='cd /dev/shm; now() { b=; read -r b <count.$1; }; n=0; for f in count.*; do now $n; eval a$n=$b; n=$((n + 1)); done
	i=0 k=0; while [ $i -lt $n ]; do now $i; eval a=\$a$i; if [ "$b" ] && [ "$b" != "$a" ]; then i=$((i + 1)); continue; fi
	k=$((k + 1)); [ $k -lt 500 ] || { echo "count.$i stands still at $a"; exit 3; }; usleep 10000; done
	read -r online </sys/devices/system/cpu/online; echo $n $online $EPOCHSECONDS; exec dmesg'

complaints() { # complaints WHAT LOG
	is "$1: the kernel's complaints" "$(grep -E "soft lockup|hard LOCKUP|stall|Call Trace|unstable" <<<"$2" || true)" ""
}

# One at a time: two at once have half of the host's CPUs each, and take no less together.
limit_restores=600
test_restores() {
	# each of many restores in a row answers, goes on where it was, and its clock is right; with one, two and four CPUs
	local cpus i count online clock n=$(scaled 1 334) counts=(1 2 4)
	[ "$n" -gt 1 ] || counts=(2) # each has a base of its own to be made
	for cpus in "${counts[@]}"; do
		vm worker -c $cpus -e CPUS=$cpus -- sh -c "$at_work"
		until_true 60 $sm exec worker sh -c "[ \$(cat /dev/shm/count.$((cpus - 1))) -gt 8 ]"
		out $sm exec worker dmesg -c # what a copy's has is new
		complaints "before the snapshot with $cpus CPUs" "$out"
		out $sm snapshot worker "at-work-$cpus"
		out $sm rm -f worker
		for i in $(seq "$n"); do
			out $sm restore -d --name again "at-work-$cpus"
			out $sm exec again sh -c "$still_at_work"
			read -r count online clock <<<"$(head -n 1 <<<"$out")"
			is "restore $i with $cpus CPUs, all at work" "$count $online" "$cpus $([ "$cpus" = 1 ] && echo 0 || echo "0-$((cpus - 1))")"
			[ "$clock" -ge $(($(date +%s) - 30)) ] && [ "$clock" -le $(($(date +%s) + 1)) ] || fail "restore $i with $cpus CPUs: its clock says $clock, ours $(date +%s)"
			complaints "restore $i with $cpus CPUs" "$(tail -n +2 <<<"$out")"
			out $sm rm -f again
		done
		out $sm snapshot rm "at-work-$cpus"
	done
}
