# SPDX-License-Identifier: Apache-2.0
# Starting from a base snapshot: the first run of a shape makes it, all others restore it, whatever their image.

bases() {
	$sm snapshots --format json
}

stage() { # stage FILE NAME: ms of that stage in an outcome, or "null"
	jq ".stages_ns.$2 | if . then . / 1000000 | floor else . end" "$1"
}

limit_first_and_second=180
test_first_and_second() {
	# the first run makes a base and says nothing, the next ones restore it, with any image
	box
	out beside true # the machine, where there is one, has said so
	out $sm snapshot prune --all
	out run_box --outcome first.json box echo one
	is "output" "$out" one
	is "said" "$err" ""
	is "bases" "$(bases | jq length)" 1
	bases | jq -e '.[0] | .kind == "base" and .fits and .memory == 268435456 and .cpus == 1 and .size > 0 and .size < 66 * 1048576' >/dev/null || fail "$(bases)"
	out run_box --outcome second.json box echo two
	is "output" "$out" two
	image other --cmd '["echo", "three"]' --env PATH=/bin
	out run_box --outcome third.json other
	is "output" "$out" three
	for f in first second third; do
		[ "$(stage $f.json restore)" != null ] || fail "$f did not restore: $(cat $f.json)"
		is "boot of $f" "$(stage $f.json boot)" null
	done
	out run_box --trace box echo four
	is "output" "$out" four
	echo "$err" | tr -s ' ' | grep -qx ' devices [0-9.]* ms' && echo "$err" | tr -s ' ' | grep -qx 'restore [0-9.]* ms' || fail "$err"
	is "bases" "$(bases | jq length)" 1
	is "VMs left" "$($sm ps -aq)" ""
}

limit_cold=120
test_cold() {
	# --cold boots, and makes no base
	box
	local before
	before=$(bases | jq length)
	out run_box -m 192M --cold --outcome o.json box echo cold
	is "output" "$out" cold
	[ "$(stage o.json boot)" != null ] || fail "did not boot: $(cat o.json)"
	is "bases" "$(bases | jq length)" "$before"
}

limit_clones_differ=120
test_clones_differ() {
	# two VMs of one base share no random number, no boot id, no host name; their clocks are right
	local ask='head -c 16 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/boot_id; hostname; cat /proc/sys/kernel/random/uuid' a b t0 t1 t
	out run_box box sh -c "$ask"
	a=$out
	out run_box box sh -c "$ask"
	b=$out
	is "lines" "$(wc -l <<<"$a") $(wc -l <<<"$b")" "4 4"
	is "lines in common" "$(comm -12 <(sort <<<"$a") <(sort <<<"$b"))" ""
	t0=$(date +%s%N)
	out run_box box date +%s%N
	t1=$(date +%s%N)
	t=$out
	[ ${#t} -ge 19 ] || t=$(($(date -d "@${t%%[!0-9]*}" +%s) * 1000000000 + 999999999)) # a date without nanoseconds
	[ "$t" -gt $((t0 - 50000000)) ] && [ "$t" -lt $((t1 + 1050000000)) ] || fail "the clock says $t, not between $t0 and $t1"
}

limit_shapes=240
test_shapes() {
	# other sizes have bases of their own: too small for a window, more CPUs; an image larger than the window is a disk
	out run_box -m 128M --outcome o.json box sh -c 'grep -c ^processor /proc/cpuinfo; ls /dev/pmem0 2>/dev/null; mount | grep -c " / "'
	is "CPUs" "$(head -n 1 <<<"$out")" 1
	[ "$(stage o.json restore)" != null ] || fail "did not restore: $(cat o.json)"
	out run_box -c 2 --outcome o.json box sh -c 'grep -c ^processor /proc/cpuinfo; for i in 0 1; do taskset -c $i echo $i; done'
	is "CPUs" "$out" $'2\n0\n1'
	[ "$(stage o.json restore)" != null ] || fail "did not restore: $(cat o.json)"
	out run_box -c 2 --tmpfs-root box sh -c 'echo x >/file && cat /file'
	is "output" "$out" x
}

test_listing() {
	# snapshots lists bases, snapshot rm takes one away, by its name or the beginning of its key
	local name
	box
	out run_box box true
	name=$(bases | jq -r 'sort_by(.memory == 268435456 and .cpus == 1)[0].name') # rather one that the next tests do not want
	out $sm snapshots
	has "table" "$out" "^NAME +KIND +MEMORY +CPUS +SIZE +CREATED +FITS"
	has "table" "$out" "^$name +base .* yes"
	out $sm snapshot rm "${name#base-}"
	lacks "names" "$($sm snapshots -q)" "$name"
	out -125 $sm snapshot rm "$name"
	has "error" "$err" "no such snapshot"
	out $sm snapshot rm -f "$name"
}

limit_damage=240
test_damage() {
	# a base that is damaged, by whoever, is made anew, and nobody notices
	local dir
	box
	out run_box box true
	dir=$SUPERMACHINE_HOME/data/snapshots/$(bases | jq -r '.[] | select(.memory == 268435456 and .cpus == 1) | .name')
	[ -d "$dir" ] || fail "no base: $(bases)"
	chmod 600 "$dir"/state "$dir"/memory
	printf 'x' | dd of="$dir/memory" bs=1 seek=4096 conv=notrunc 2>/dev/null
	out run_box --outcome o.json box echo again
	is "output" "$out" again
	is "said" "$err" ""
	[ "$(stage o.json restore)" != null ] || fail "did not restore: $(cat o.json)"
	at_length || return 0
	# What the files' identity does not show, the monitor refuses.
	chmod 600 "$dir"/state "$dir"/metadata.json
	printf 'x' | dd of="$dir/state" bs=1 seek=100 conv=notrunc 2>/dev/null
	local id
	id=$(stat -c '%i %s %.Y %.Z' "$dir/state" | awk '{ printf "%x %x %s %s", $1, $2, $3, $4 }')
	jq --arg id "$id" '.state_file = $id' "$dir/metadata.json" >m.json
	cp m.json "$dir/metadata.json"
	out run_box --outcome o.json box echo "and again"
	is "output" "$out" "and again"
	is "said" "$err" ""
	[ "$(stage o.json restore)" != null ] || fail "did not restore: $(cat o.json)"
}

limit_killed_maker=240
test_killed_maker() {
	# kill -9 while a base is made: the next runs make it, and nothing of the first is left; those that want the same base at once wait for one maker
	local i n pid pids=()
	box
	out $sm snapshot prune --all
	for i in $(seq "$(scaled 1 3)"); do
		run_box box true >o1 2>&1 &
		pid=$!
		sleep "$i.$((RANDOM % 10))"
		kill -9 $pid 2>/dev/null || true
		wait $pid 2>/dev/null || true
	done
	for n in 1 2 3; do
		run_box --outcome "o$n.json" box echo "hello $n" >"out$n" 2>"err$n" &
		pids+=($!)
	done
	for n in 1 2 3; do
		wait "${pids[n - 1]}" || fail "run $n: $(cat "err$n")"
		is "run $n" "$(cat "out$n")" "hello $n"
		[ "$(stage "o$n.json" restore)" != null ] || fail "did not restore: $(cat "o$n.json")"
	done
	is "bases" "$(bases | jq length)" 1
	until_true 20 bash -c "[ -z \"\$($sm ps -aq)\" ]"
	lacks "leftovers" "$(ls -A "$SUPERMACHINE_HOME/data/snapshots")" '^\.(new|old)-|^failed-'
}

limit_huge_copy=240
test_huge_copy() {
	# in a machine, what VMs of a base only read lies there once, on huge pages: a VM leaves the copy, the next one maps it, and another base's is never taken for it
	[ "$(engine)" = machine ] || skip "only a machine has a place for copies on huge pages"
	local dir=/run/supermachine/huge name first
	box
	out run_box box true
	is "bases" "$(bases | jq length)" 1
	name=$(bases | jq -r '.[0].name')
	until_true 60 bash -c "$sm machine exec -- ls $dir | grep -qE '^$name:[0-9a-f]+:[0-9a-f]+\.[0-9a-f]+\$'"
	out beside ls $dir
	first=$(grep "^$name:" <<<"$out")
	out run_box -d --name reader box sleep 100
	out beside sh -c "for p in /proc/[0-9]*; do ! grep -qs $dir/$first \$p/maps || cat \$p/smaps_rollup; done"
	has "its monitor" "$out" 'ShmemPmdMapped: +[1-9][0-9]{3,} kB'
	out $sm rm -f reader
	at_length || return 0
	out $sm snapshot prune --all
	out run_box --outcome o.json box echo anew
	is "output" "$out" anew
	until_true 60 bash -c "$sm machine exec -- ls $dir | grep '^$name:' | grep -v '\.new\$' | grep -vq '^$first\$'"
	out beside ls $dir
	lacks "copies" "$out" "^$first\$"
	out run_box --outcome o.json box echo again
	is "output" "$out" again
	[ "$(stage o.json restore)" != null ] || fail "did not restore: $(cat o.json)"
}

limit_kept_and_mounts=150
test_kept_and_mounts() {
	# a kept VM starts again from a base, with its disk; directories of the host work as after a boot
	mkdir host
	echo from-host >host/file
	out run_box --name keeper -v ./host:/mnt box sh -c 'cat /mnt/file; echo from-guest >/mnt/new; echo run >>/log; wc -l </log'
	is "output" "$out" $'from-host\n1'
	is "on the host" "$(cat host/new)" from-guest
	out $sm start -a keeper
	is "output of the second start" "$out" $'from-host\n2'
	$sm inspect keeper | jq -e '.[0].exit.stages.restore' >/dev/null || fail "did not restore: $($sm inspect keeper)"
	out $sm rm keeper
}

test_disk() {
	# a new VM has the disk that the base's guest has mounted already; one whose disk has another size, lies in memory or was written to has its own, and nothing comes into the base's
	local before disk sum='touch /a; sync; ls /a; dmesg | grep -c re-mounted; df -k / | awk "END { print int(\$2 / 1048576) }"'
	box
	out run_box box true
	disk=$(ls -td "$SUPERMACHINE_HOME"/data/snapshots/base-* | head -n 1)/disk # the one used last
	before=$(stat -c "%i %b %y" "$disk")
	out run_box --name fresh --keep box sh -c "$sum"
	is "with the base's" "$out" $'/a\n2\n9'
	out $sm start -a fresh
	is "its own again" "$out" $'/a\n1\n9'
	out $sm rm fresh
	out run_box --disk 3G box sh -c "$sum"
	is "of another size" "$out" $'/a\n1\n2'
	out run_box --tmpfs-root -v base-disk:/v box sh -c 'dmesg | grep -c re-mounted; echo x >/v/x; cat /v/x'
	is "in memory" "$out" $'1\nx'
	out $sm volume rm base-disk
	is "the base's disk" "$(stat -c "%i %b %y" "$disk")" "$before"
}
