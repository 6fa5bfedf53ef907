# SPDX-License-Identifier: Apache-2.0
# What a VM takes from the host, and gives back: memory, CPUs, large images.

test_memory_bounds() {
	# memory below what a guest needs and above what there is: one line that says which
	out -125 run_box -m 64M box true
	has "below" "$err" 'the least is 128 MiB'
	out -125 run_box -m 1000G box true
	has "above" "$err" '1000 GiB of memory is more than there is .*\([0-9.]+ .iB\)'
	out -125 run_box -c 17 box true
	has "CPUs" "$err" 'from 1 to 16'
	is "VMs left" "$($sm ps -aq)" ""
}

limit_many_cpus=200
test_many_cpus() {
	# up to 16 CPUs, more than this host may have, and each of them works
	local n
	for n in $([ "$SM_SCALE" -eq 1 ] || echo 4) 16; do
		out run_box -c $n box sh -c 'grep -c ^processor /proc/cpuinfo; for i in $(seq 0 '$((n - 1))'); do taskset -c $i sh -c "echo cpu$i" || echo "cpu$i fails"; done'
		is "CPUs" "$(head -n 1 <<<"$out")" $n
		is "$n that work" "$(grep -cE '^cpu[0-9]+$' <<<"$out")" $n
	done
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
