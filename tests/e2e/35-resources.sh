# SPDX-License-Identifier: Apache-2.0
# What a VM takes from the host, and gives back: memory, CPUs, large images.

test_memory_bounds() {
	# memory below what a guest needs and above what there is: one line that says which
	out -125 run_box -m 64M box true
	has "below" "$err" 'the least is 128 MiB'
	out -125 run_box -m 1000G box true
	has "above" "$err" '1000 GiB of memory is more than there is .*\([0-9.]+ .iB\)'
	out -125 run_box -c 17 box true
	has "CPUs" "$err" 'from 0.01 to 16'
	out -125 run_box -c 0.001 box true
	has "too little of one" "$err" 'from 0.01 to 16'
	out -125 run_box --cpus half box true
	has "no number" "$err" "not 'half'"
	is "VMs left" "$($sm ps -aq)" ""
}

limit_many_cpus=200
test_many_cpus() {
	# up to 16 CPUs, more than this host may have, and each of them works
	local n
	for n in $(at_length && echo 4) 16; do
		out run_box $(at_length || echo --cold) -c $n box sh -c 'grep -c ^processor /proc/cpuinfo; for i in $(seq 0 '$((n - 1))'); do taskset -c $i sh -c "echo cpu$i" || echo "cpu$i fails"; done'
		is "CPUs" "$(head -n 1 <<<"$out")" $n
		is "$n that work" "$(grep -cE '^cpu[0-9]+$' <<<"$out")" $n
	done
}

limit_profiles=200
test_profiles() {
	# --profile throughput has four CPUs, also where the host has fewer; latency, the default, one; -c wins
	out run_box --profile throughput box nproc
	is "throughput" "$out" 4
	out run_box --profile latency box nproc
	is "latency" "$out" 1
	out run_box --profile throughput -c 2 box nproc
	is "with -c" "$out" 2
	out -125 run_box --profile fast box nproc
	has "another" "$err" "wants one of latency.throughput, not 'fast'"
	out -125 $sm run --profile throughput --snapshot nothing
	has "of a snapshot" "$err" 'sizes of the saved VM'
}

# The directory of a VM's cgroup, as it is where VMs run.
group_of() {
	local name
	name=$(beside sed -n 's/^0:://p' "/proc/$(field "$1" .monitor_pid)/cgroup")
	echo "$(beside awk '/ - cgroup2 / { print $5; exit }' /proc/self/mountinfo)$name"
}

gone_there() { # gone_there DIRECTORY: after any other command
	$sm ps >/dev/null
	! beside test -d "$1"
}

limit_cpu_share=300
test_cpu_share() {
	# --cpus 0.25: a quarter of a CPU for all that its monitor does, in a cgroup that comes and goes with it
	local dir share
	if [ "$(engine)" = host ] && ! run_box --cpus 0.25 box true 2>probe.log; then
		has "refused" "$(cat probe.log)" 'needs a cgroup .*whole CPUs need none'
		skip "this host has no cgroup to divide"
	fi
	vm slow --cpus 0.25 -- sh -c 'while :; do :; done'
	is "inspect" "$(field slow .cpus) $(field slow .cpu_limit)" "1 250"
	dir=$(group_of slow)
	has "its cgroup" "$dir" "/supermachine-$(field slow .id)$"
	out beside sh -c 'cat "$1/cpu.max"; for t in $(ls "/proc/$2/task"); do grep -qx $t "$1/cgroup.threads" || echo "$t is not in it"; done' sh "$dir" "$(field slow .monitor_pid)"
	is "limit, and the monitor's threads" "$out" "25000 100000"
	out beside sh -c 'for i in 1 2; do sed -n "s/^usage_usec //p" "$1/cpu.stat"; cut -d" " -f1 /proc/uptime; [ $i = 2 ] || sleep 8; done' sh "$dir"
	share=$(awk '{ v[NR] = $1 } END { print int((v[3] - v[1]) / (v[4] - v[2]) / 1000) }' <<<"$out")
	[ "$share" -ge 120 ] && [ "$share" -le 320 ] || fail "it took $share thousandths of a CPU, not 250"
	# one that goes on from it has the same
	out $sm branch --name twin slow
	is "limit of a branch" "$(beside cat "$(group_of twin)/cpu.max")" "25000 100000"
	out $sm rm -f twin
	out $sm stop -t 1 slow
	until_true 20 gone_there "$dir"
	# and so has it when it is started again; a keeper that is killed leaves nothing for good
	out $sm start slow
	dir=$(group_of slow)
	is "limit when started again" "$(beside cat "$dir/cpu.max")" "25000 100000"
	beside kill -9 "$(field slow .keeper_pid)"
	until_true 20 gone_there "$dir"
	out $sm rm -f slow
}

limit_cpu_share_refused=120
test_cpu_share_refused() {
	# where there is no cgroup to be had it is refused, and nothing of it stays; whole CPUs run
	[ "$(engine)" = machine ] || skip "this host's cgroups are not the test's"
	beside mount -t tmpfs none /sys/fs/cgroup
	trap 'beside umount /sys/fs/cgroup' EXIT
	out -125 run_box --cpus 0.5 box true
	has "error" "$err" 'a share of 0.5 CPUs needs a cgroup .*whole CPUs need none'
	out run_box --cpus 1 box echo whole
	is "whole" "$out" whole
	beside umount /sys/fs/cgroup
	trap - EXIT
	out run_box --cpus 1.5 box sh -c 'grep -c ^processor /proc/cpuinfo'
	is "CPUs of 1.5" "$out" 2
	is "VMs left" "$($sm ps -aq)" ""
}

test_much_memory() {
	# much memory costs nothing until it is touched
	local have
	have=$(beside awk '/MemTotal/ { print int($2 / 1048576) }' /proc/meminfo)
	out run_box -m "${have}G" box awk '/MemTotal/ { print int($2 / 1048576) }' /proc/meminfo
	[ "$out" -ge $((have - 1)) ] || fail "the guest sees $out of $have GiB"
}

# Resident memory of a VM's monitor in MiB.
resident() {
	beside awk '/^VmRSS/ { print int($2 / 1024) }' "/proc/$(field "$1" .monitor_pid)/status"
}

resident_below() { # resident_below VM MIB
	[ "$(resident "$1")" -lt "$2" ]
}

limit_memory_returns=150
test_memory_returns() {
	# what the guest frees goes back to the host by itself
	local before full
	vm give -m 1G
	out $sm exec give sh -c 'mkdir /m && mount -t tmpfs -o size=800m none /m'
	before=$(resident give)
	out $sm exec give dd if=/dev/zero of=/m/x bs=1M count=500
	full=$(resident give)
	[ $((full - before)) -ge 450 ] || fail "500 MiB were written, but the monitor grew from $before to $full MiB"
	out $sm exec give rm /m/x
	until_true 60 resident_below give $((before + 100))
	out $sm exec give dd if=/dev/zero of=/m/x bs=1M count=500
	out $sm rm -f give
}

limit_merged_pages=200
test_merged_pages() {
	# equal pages of VMs with --ksm are merged where the host does that, of others they are not; one that is restored has it, too
	local ksm=/sys/kernel/mm/ksm was
	is_merged() { # is_merged VM: whether its memory is offered
		beside grep -qE '^VmFlags:.* mg( |$)' "/proc/$(field "$1" .monitor_pid)/smaps"
	}
	[ "$(beside sh -c "test -w $ksm/run && echo yes" 2>/dev/null)" = yes ] || skip "needs KSM, and the right to turn it on"
	was=$(beside cat $ksm/run)
	vm plain
	! is_merged plain || fail "the memory of a VM without --ksm is offered"
	out $sm rm -f plain
	vm same1 --ksm
	out $sm exec same1 sh -c 'head -c 30000000 /dev/zero | tr "\\0" x >/dev/shm/x'
	is_merged same1 || fail "it is not offered"
	out $sm snapshot same1 same
	out $sm restore --name same2 -d same
	is_merged same2 || fail "it is not offered after a restore"
	vm same3 --ksm
	out $sm exec same3 sh -c 'head -c 30000000 /dev/zero | tr "\\0" x >/dev/shm/x'
	beside sh -c "echo 20000 >$ksm/pages_to_scan; echo 1 >$ksm/run"
	until_true 60 beside sh -c "[ \$(cat $ksm/pages_sharing) -gt 7000 ]"
	beside sh -c "echo $was >$ksm/run"
	is "what is in it" "$($sm exec same3 sh -c 'tr -d x </dev/shm/x | wc -c; wc -c </dev/shm/x' | xargs)" "0 30000000"
	out -125 $sm run --snapshot same --ksm true
	out $sm rm -f same1 same2 same3
	out $sm snapshot rm same
}

limit_balloon=150
test_balloon() {
	# the library's balloon takes memory that the guest does not need, even from its page cache, and gives it back
	local before
	needs python3
	vm bal -m 512M
	balloon() { # balloon BYTES
		out python3 "$SM_TOP/tests/e2e/balloon.py" "$SM_TOP/build/src/lib/libsupermachine.so" bal "$1"
	}
	out $sm exec bal sh -c 'dd if=/dev/zero of=/cached bs=1M count=150; cat /cached | wc -c'
	before=$(resident bal)
	[ "$before" -ge 170 ] || fail "only $before MiB resident with 150 MiB cached"
	balloon $((352 << 20))
	until_true 60 resident_below bal $((before - 60))
	out $sm exec bal awk '/^(MemFree|MemAvailable)/ { print int($2 / 1024) }' /proc/meminfo
	[ "$(head -n 1 <<<"$out")" -lt 150 ] || fail "the guest still has $out MiB"
	balloon 0
	until_true 60 bash -c "[ \$($sm exec bal awk '/^MemFree/ { print int(\$2 / 1024) }' /proc/meminfo) -gt 200 ]"
	out -1 python3 "$SM_TOP/tests/e2e/balloon.py" "$SM_TOP/build/src/lib/libsupermachine.so" bal $((2 << 30))
	has "too much" "$err" 'does not have that much memory'
	out $sm rm -f bal
}

limit_large_image=200
test_large_image() {
	# an image 16 times as large as the guest's memory runs, with its content right
	box
	local m n
	# Holes make no window: with the full counts it is all data, and the image a disk instead.
	if [ "$SM_SCALE" -gt 1 ]; then head -c 2176M < <(yes 'not a hole') >large; else truncate -s 2176M large; fi
	for m in 0 1100 2172; do head -c 4M /dev/urandom | dd of=large bs=1M seek=$m conv=notrunc status=none; done
	tar -S --format=pax -cf large.tar large
	"$SM_TOP/tests/lib/mkimage" --layer "$SM_SHARED/root" --layer large.tar --tag latest --env PATH=/bin lay >/dev/null
	out $sm load --name large oci:lay
	out $sm run -m 128M large sh -c 'grep -o "^MemTotal.*" /proc/meminfo; for m in 0 1100 2172; do dd if=/large bs=1M skip=$m count=4 2>/dev/null | sha256sum; done; stat -c %s /large' </dev/null
	for m in 0 1100 2172; do
		has "part at $m MiB" "$out" "^$(dd if=large bs=1M skip=$m count=4 status=none | sha256sum | cut -d' ' -f1)"
	done
	has "length" "$out" "^$((2176 << 20))$"
	out $sm run -m 128M large ls /sys/block
	[ "$SM_SCALE" -eq 1 ] || lacks "as a disk" "$out" '^pmem0$'
	# Of the 16 times its memory, at least six; all of it with the full counts.
	n=$([ "$SM_SCALE" -gt 1 ] && echo 2176 || echo 800)
	out $sm run -m 128M large dd if=/large bs=1M count=$n of=/dev/null
	has "read" "$err" "^$n\\+0 records out"
	# with enough memory it is mapped instead of read
	out $sm run -m 1G large sh -c 'ls /sys/block; dd if=/large bs=1M skip=1100 count=4 2>/dev/null | sha256sum'
	has "as a mapped window" "$out" '^pmem0$'
	has "mapped" "$out" "^$(dd if=large bs=1M skip=1100 count=4 status=none | sha256sum | cut -d' ' -f1)"
	out $sm rmi large
}
