# SPDX-License-Identifier: Apache-2.0
# Files of the host that are mapped into the VM (-v SRC:DST:dax).

# dax_dirs [BIG]: $dir, on a file system of the side where VMs run (only there a change is seen at once, and memory is shared), with
# random files, the largest of BIG bytes; and the program that maps, in ./prog.
dax_dirs() {
	local large=${1:-6291456}
	local program=$SM_TOP/build/tests/conformance/mapped
	[ -x "$program" ] || skip "the program that maps files is not built"
	mkdir -p prog
	cp "$program" prog/
	dir=/dev/shm/sm-e2e-dax.$$
	mkdir -p "$dir" && beside mkdir -p "$dir"
	beside sh -c "cd $dir; head -c $large /dev/urandom >big; head -c 4194304 /dev/urandom >other; head -c 100000 /dev/urandom >small; chmod -R a+rwX ."
	box
}

dax_done() {
	beside rm -rf "$dir"
	rm -rf "$dir"
}

sum_of() { beside md5sum "$dir/$1" | cut -d' ' -f1; }

limit_contents=420
test_contents() {
	# a mapped file is the host's, without a copy in the VM's page cache; writes through a mapping land on the host; read-only holds
	dax_dirs
	local big other
	big=$(sum_of big) other=$(sum_of other)
	out run_box -v "$dir:/data:dax" -v "$dir:/ro:ro,dax" -v "$dir:/plain:ro" -v "$SM_TMP/prog:/prog:ro" box sh -c '
		cached() { awk "/^Cached:/ { print \$2 }" /proc/meminfo; }
		md5sum </data/small >/dev/null; /prog/mapped cat /prog/mapped >/dev/null
		a=$(cached); md5sum </data/big; /prog/mapped cat /data/big | md5sum; b=$(cached); echo "in the cache: $((b - a >= 1000))"
		md5sum </plain/other; c=$(cached); echo "without dax: $((c - b >= 4000))"
		/prog/mapped deny /ro/big; md5sum </ro/other
		/prog/mapped direct /data/other /copy && md5sum </copy
		/prog/mapped write /data/big 5000000 through-the-mapping; dd if=/data/big bs=1 skip=5000000 count=19 2>/dev/null; echo'
	is "guest" "$out" "$big  -
$big  -
in the cache: 0
$other  -
without dax: 1
EROFS
EACCES
$other  -
$other  -
through-the-mapping"
	is "host" "$(beside sh -c "tail -c +5000001 $dir/big | head -c 19")" through-the-mapping
	dax_done
}

limit_shared_and_cut_off=420
test_shared_and_cut_off() {
	# two VMs that map one file share the host's memory and cache nothing; where the host makes it shorter no VM suffers beyond the program that reads it
	local other pids=() pid big=6291456 patience=90 options=()
	if [ "$SM_SCALE" -gt 1 ]; then # the full count: a file of 1 GiB
		big=1073741824 patience=700 options=(-m 1G --dax 2G) # of a window the kernel keeps a fifth free
	fi
	dax_dirs $big
	other=$(sum_of other)
	# Of the second one nothing is watched, so that its kernel does not hear of the end in time.
	for v in dax-a dax-b; do
		vm $v "${options[@]}" -v "$dir:/data:dax$([ $v = dax-a ] || echo ,links=follow)" -v "$SM_TMP/prog:/prog:ro" -- sh -c '/prog/mapped hold /data/big /data/go; while :; do sleep 100; done'
	done
	for v in dax-a dax-b; do
		until_true $patience bash -c "$sm logs $v | grep -q ready"
		[ "$($sm exec $v awk '/^Cached:/ { print $2 }' /proc/meminfo)" -lt 100000 ] || fail "$v caches what it has mapped"
		pids+=("$($sm inspect $v | jq -r '.[0].monitor_pid')")
	done
	# Each monitor has all pages of the file, and of them half are counted as its own.
	for pid in "${pids[@]}"; do
		beside cat "/proc/$pid/smaps" 2>/dev/null | awk -v f="$dir/big" -v least=$((big / 1024 * 95 / 100)) '$1 ~ /^[0-9a-f]+-[0-9a-f]+$/ { on = $NF == f } on && $1 == "Rss:" { r += $2 } on && $1 == "Pss:" { p += $2 }
			END { print r, p; exit !(r >= least && p <= r * 0.55) }' >pss || fail "memory of the file in monitor $pid, in all and its own: $(cat pss) kB"
	done
	beside truncate -s 5000000 "$dir/big"
	beside touch "$dir/go"
	for v in dax-a dax-b; do
		until_true 60 bash -c "$sm logs $v | grep -qE '^(other|bus)'"
		is "$v goes on" "$($sm exec $v sh -c 'md5sum </data/other; wc -c </data/big; tail -c +4999991 /data/big | wc -c')" "$other  -
5000000
10"
	done
	# What grows again is the file again, though zeros stood in its place.
	beside sh -c "echo regrown >>$dir/big"
	sleep 1.5
	is "grown" "$($sm exec dax-a tail -c 8 /data/big)" regrown
	$sm rm -f dax-a dax-b >/dev/null
	dax_done
}

test_window_sizes() {
	# a window must fit the memory, and is of no use without a mount that asks for it
	mkdir -p s
	out -125 run_box --dax 1G -v "$SM_TMP/s:/data" box true
	has "no mount" "$err" 'without a mount that has the option dax'
	out -125 run_box --dax 4G -v "$SM_TMP/s:/data:dax" box true
	has "too large" "$err" 'more than an eighth of the memory'
}
