# SPDX-License-Identifier: Apache-2.0
# VMs restored again and again from a snapshot that was made while its guest was at work on all of its CPUs.

# In the guest: each CPU counts, copies memory and sleeps by turns.
at_work='i=0; while [ $i -lt $CPUS ]; do
	(n=0; while :; do n=$((n + 1)); echo $n >/dev/shm/count.$i; dd if=/dev/urandom of=/dev/shm/x$i bs=4k count=16 2>/dev/null; [ $((n % 8)) -gt 0 ] || usleep 1000; done) &
	i=$((i + 1)); done; wait'

# In the guest: each of them counts on; how many there are, on how many CPUs; the clock; what the kernel complains of.
still_at_work='cd /dev/shm; for f in count.*; do
	a=$(cat $f) k=0; while b=$(cat $f); [ -z "$a$b" ] || [ "$a" = "$b" ]; do k=$((k + 1)); [ $k -lt 500 ] || { echo "$f stands still at $a"; exit 3; }; usleep 10000; done
	done; echo $(ls count.* | wc -l) $(grep -c ^processor /proc/cpuinfo) $(date +%s); dmesg | grep -E "soft lockup|hard LOCKUP|stall|Call Trace|unstable" || true'

limit_restores=1500
test_restores() {
	# each of many restores in a row answers, goes on where it was, and its clock is right; with one, two and four CPUs
	local cpus i count clock n=$(scaled 1 334) counts=(1 2 4)
	[ "$n" -gt 1 ] || counts=(2) # each has a base of its own to be made
	for cpus in "${counts[@]}"; do
		vm worker -c $cpus -e CPUS=$cpus -- sh -c "$at_work"
		until_true 60 $sm exec worker sh -c "[ \$(cat /dev/shm/count.$((cpus - 1))) -gt 8 ]"
		out $sm snapshot worker "at-work-$cpus"
		out $sm rm -f worker
		for i in $(seq "$n"); do
			out $sm restore -d --name again "at-work-$cpus"
			out $sm exec again sh -c "$still_at_work"
			read -r count clock <<<"$(head -n 1 <<<"$out" | sed 's/ /:/')"
			is "restore $i with $cpus CPUs, all at work" "$count" "$cpus:$cpus"
			[ "$clock" -ge $(($(date +%s) - 30)) ] && [ "$clock" -le $(($(date +%s) + 1)) ] || fail "restore $i with $cpus CPUs: its clock says $clock, ours $(date +%s)"
			is "restore $i with $cpus CPUs: the kernel's complaints" "$(tail -n +2 <<<"$out")" ""
			out $sm rm -f again
		done
		out $sm snapshot rm "at-work-$cpus"
	done
}
