# SPDX-License-Identifier: Apache-2.0
# What a copy of a running VM must have right, however it came to be: clocks, connections, who it is; and what is refused or survives when a snapshot is harmed.

# wall VM: the VM's wall clock is ours to 50 ms: what each of some looks says of the difference, beside the time that the look takes, must leave that possible.
wall() {
	local i t0 t t1 low=-999999999 high=999999999
	for i in $(seq $(scaled 4 8)); do
		t0=${EPOCHREALTIME/./}
		out $sm exec "$1" sh -c 'echo $EPOCHREALTIME'
		t1=${EPOCHREALTIME/./}
		t=${out/./}
		[ $((t - t1)) -le "$low" ] || low=$((t - t1))
		[ $((t - t0)) -ge "$high" ] || high=$((t - t0))
	done
	[ "$low" -le 50000 ] && [ "$high" -ge -50000 ] || fail "the wall clock of $1 is between $low and $high us from ours"
}

# clocks VM WHAT: clocks.c there goes on, no clock went back, none jumped, and its kernel has nothing to complain of.
clocks() {
	local back longest looks wakes then_looks then_wakes
	out $sm exec "$1" cat /dev/shm/clocks
	read -r back longest then_looks then_wakes <<<"$out"
	until_true 30 $sm exec "$1" sh -c "read -r b l looks wakes </dev/shm/clocks; [ \$looks -gt $((then_looks + 1000)) ] && [ \$wakes -gt $((then_wakes + 5)) ]"
	out $sm exec "$1" cat /dev/shm/clocks
	read -r back longest looks wakes <<<"$out"
	is "$2: clocks that went back" "$back" 0
	[ "$longest" -lt 5000 ] || fail "$2: CLOCK_MONOTONIC went on by $longest ms at once"
	out $sm exec "$1" sh -c 'cat /sys/devices/system/clocksource/clocksource0/current_clocksource; dmesg'
	is "$2: its clock source" "$(head -n 1 <<<"$out")" "$source"
	is "$2: the kernel's complaints" "$(grep -E "lockup|LOCKUP|stall|Call Trace|nstable|WARNING" <<<"$out" || true)" ""
	wall "$1"
}

limit_clocks=400
test_clocks() {
	# in a copy no clock of any CPU goes back or jumps, timers go on, the wall clock is right to 50 ms and the kernel complains of nothing: restored, branched, suspended and resumed, and paused
	local source
	cc -static -O1 -pthread -Wall -Wextra -Werror -o clocks "$SM_TOP/tests/e2e/clocks.c" || skip "needs a static C library"
	vm timed -c 2
	out $sm cp clocks timed:/clocks
	out $sm exec -d timed /clocks /dev/shm/clocks
	until_true 30 $sm exec timed test -s /dev/shm/clocks
	out $sm exec timed sh -c 'cat /sys/devices/system/clocksource/clocksource0/current_clocksource; dmesg -c >/dev/null'
	source=$out
	! at_length || clocks timed "before"
	out $sm snapshot timed timed
	! at_length || clocks timed "after a snapshot of it"
	out $sm branch --name branched timed
	! at_length || clocks timed "after a branch of it"
	clocks branched "a branch"
	out $sm rm -f branched
	if at_length; then
		out $sm pause timed
		sleep 8
		out $sm unpause timed
		clocks timed "after a pause"
	fi
	out $sm suspend timed
	sleep $(scaled 3 8)
	out $sm resume timed
	clocks timed "resumed"
	out $sm rm -f timed
	out $sm restore -d --name restored timed # saved some time ago
	clocks restored "restored"
	out $sm rm -f restored
	out $sm snapshot rm timed
}

# A line for each who says who it is, in the guest.
identity='cat /proc/sys/kernel/hostname /etc/hostname /etc/machine-id /sys/class/net/eth0/address; tail -n 1 /etc/hosts; head -c 1 /dev/urandom >/dev/null; cat /proc/sys/kernel/random/uuid; for i in 1 2 3 4; do head -c 8 /dev/urandom | od -An -tx1; done'

limit_identity=200
test_identity() {
	# every copy has a name, machine id and random numbers of its own, from the first on; what GUEST.md says stays is as it was
	local who all='' boot
	image someone --cmd '["sh"]' --env PATH=/bin
	$sm run -d -m 256M --name someone someone sh -c 'echo 0123456789abcdef0123456789abcdef >/etc/machine-id; sleep 1000' >/dev/null
	until_true 30 $sm exec someone test -s /etc/machine-id
	out $sm exec someone cat /proc/sys/kernel/random/boot_id
	boot=$out
	out $sm snapshot someone someone
	out $sm restore -d -n 2 --name copy someone
	out $sm branch -n 2 --name twig someone
	out $sm suspend someone
	out $sm resume someone
	for who in someone copy-1 copy-2 twig-1 twig-2; do
		out $sm exec "$who" sh -c "$identity"
		all+=$out$'\n'
		out $sm exec "$who" cat /proc/sys/kernel/random/boot_id
		is "boot_id of $who, which was read before" "$out" "$boot"
	done
	# a name of each stands in three places
	is "lines that two have" "$(sort <<<"$all" | uniq -c | awk '$1 > 2 { print $2 }' | xargs)" ""
	is "lines" "$(grep -c . <<<"$all")" 50
	is "different ones" "$(grep . <<<"$all" | sort -u | wc -l)" 45
	out $sm rm -f someone copy-1 copy-2 twig-1 twig-2
	out $sm snapshot rm someone
}

limit_connections=200
test_connections() {
	# a connection that a VM had when it was saved is the VM's alone: in a copy it is reset, in the VM it goes on; a copy's own port works at once
	local port fd back who
	vm server -p 0:80 -- sh -c 'nc -ll -p 80 -e cat'
	port=$($sm port server 80 | sed -n '1s/.*://p')
	until_true 30 bash -c "exec 3<>/dev/tcp/127.0.0.1/$port; echo x >&3; read -r -t 5 x <&3 && [ \"\$x\" = x ]"
	exec {fd}<>"/dev/tcp/127.0.0.1/$port"
	echo one >&$fd
	read -r -t 20 back <&$fd
	is "echo" "$back" one
	until_true 20 bash -c "[ \$($sm exec server pidof cat | wc -w) = 1 ]"
	out $sm snapshot server server
	out $sm branch --name twig -p 0:80 server
	out $sm restore -d --name copy -p 0:80 server
	for who in twig copy; do
		port=$($sm port "$who" 80 | sed -n '1s/.*://p')
		out timeout 10 bash -c "exec 3<>/dev/tcp/127.0.0.1/$port; echo new >&3; read -r x <&3; echo \$x"
		is "a new connection to $who" "$out" new
		until_true 20 bash -c "[ \"\$($sm exec $who pidof cat | wc -w)\" = 0 ]" # the old one's, and the new one's
	done
	echo two >&$fd
	read -r -t 20 back <&$fd
	is "the VM's own goes on" "$back" two
	out $sm rm -f server twig copy
	exec {fd}>&-
	out $sm snapshot rm server
}

limit_harmed=300
test_harmed() {
	# a snapshot of which anything is damaged, cut off, missing or not its own is refused, and what is said names the file
	local d=$SUPERMACHINE_HOME/data/snapshots/good f size bad
	needs python3
	vm one
	out $sm exec one sh -c 'echo x >/file; sync'
	out $sm snapshot one good
	out $sm rm -f one
	refused() { # refused PATTERN
		out -125 $sm restore -d --name no good
		has "refusal" "$err" "$1"
		is "what is left" "$(state no)" gone
	}
	cp -a "$d" kept
	# another CPU's, whole in all else: who may write it can make it so that it counts as read
	chmod 600 "$d/state" "$d/metadata.json"
	python3 -B - "$d" "$SM_TOP/tests/e2e" <<-'END'
		import sys
		sys.path.insert(0, sys.argv[2])
		import statefile
		statefile.of_another_cpu(sys.argv[1])
	END
	refused "made on another kind of CPU \(CPUID 0x80000002"
	for f in state metadata.json; do
		cp "kept/$f" "$d/$f"
		chmod 400 "$d/$f"
	done
	for f in state memory layer.0; do
		chmod 600 "$d/$f"
		size=$(stat -c %s "$d/$f")
		truncate -s $((size / 2)) "$d/$f"
		refused "snapshot good: its file $f (is damaged|is not the one that was saved)"
		rm "$d/$f"
		refused "snapshot good: its file $f is missing"
		cp --sparse=always "kept/$f" "$d/$f"
		chmod 600 "$d/$f"
		python3 -c 'import sys; f = open(sys.argv[1], "r+b"); f.seek(int(sys.argv[2])); b = f.read(1)[0]; f.seek(-1, 1); f.write(bytes([b ^ 1]))' "$d/$f" $((size / 3))
		refused "snapshot good: its file $f (is damaged|is not the one that was saved)"
		rm "$d/$f"
		: >"$d/$f"
		refused "snapshot good: its file $f (is damaged|is not the one that was saved)"
		rm "$d/$f"
		mkdir "$d/$f"
		refused "snapshot good: .*$f"
		rmdir "$d/$f"
		cp --sparse=always "kept/$f" "$d/$f"
		chmod 400 "$d/$f"
		[ $f != layer.0 ] || { rm "$d/$f"; break; }
		out $sm restore -d --name yes good # a whole copy is as good
		out $sm rm -f yes
	done
	for f in metadata.json config.json; do
		for bad in '' '{' '[]' '{"version": 99}' "$(head -c 300000 /dev/zero | tr '\0' x)"; do
			chmod 600 "$d/$f"
			printf %s "$bad" >"$d/$f"
			out -125 $sm restore -d --name no good
			has "$f" "$err" 'good|VM '
		done
		cp "kept/$f" "$d/$f"
	done
	out $sm snapshot rm good
}

limit_unseeded=100
test_unseeded() {
	# a copy whose kernel takes no new random numbers does not start: no command runs in it
	vm sly
	out $sm exec sly sh -c 'mv /dev/urandom /dev/kept; : >/dev/urandom'
	out $sm snapshot sly sly
	out -125 $sm restore -d --name copy sly
	has "refusal" "$err" "seed the random number generator"
	is "what is left" "$(state copy)" gone
	out $sm exec sly sh -c 'mv /dev/kept /dev/urandom; head -c 4 /dev/urandom | wc -c' # the VM itself goes on
	is "its own" "$out" 4
	out $sm rm -f sly
	out $sm snapshot rm sly
}

limit_killed=900
test_killed() {
	# kill -9 of who makes a snapshot, or of its VM's keeper or monitor, at random moments: there is none, or a whole one; of one that is made in place of another, the old or the new one
	local d=$SUPERMACHINE_HOME/data/snapshots i what pid rc n=$(scaled 3 50)
	vm victim -- sh -c 'while :; do dd if=/dev/urandom of=/dev/shm/x bs=64k count=16 2>/dev/null; usleep 10000; done'
	out $sm load --name old:1 --warm 'echo 0 >/which' -m 256M "oci:$SM_SHARED/box"
	for i in $(seq "$n"); do
		what=(client keeper monitor warm warm)
		what=${what[$((i % 5))]}
		if [ "$what" = warm ]; then
			$sm load --name old:1 --warm "echo $i >/which" -m 256M "oci:$SM_SHARED/box" >/dev/null 2>&1 &
			pid=$!
			sleep "$((RANDOM % 3)).$((RANDOM % 9))"
			kill -9 $pid 2>/dev/null || true
			wait $pid 2>/dev/null || true
			out $sm run --rm --snapshot "$($sm snapshots -q | grep '^old' | head -n 1)" cat /which
			[[ $out =~ ^[0-9]+$ ]] && [ "$out" -le "$i" ] || fail "round $i: it has '$out'"
			continue
		fi
		pid=$([ "$what" = client ] || field victim ".${what}_pid")
		$sm snapshot victim "killed-$i" >/dev/null 2>&1 &
		[ "$what" = client ] && pid=$!
		sleep "0.$(printf %02d $((RANDOM % 80)))"
		if [ "$what" = client ]; then kill -9 "$pid" 2>/dev/null || true; else beside kill -9 "$pid" 2>/dev/null || true; fi
		wait $! 2>/dev/null || true
		if $sm snapshots -q | grep -q "^killed-$i\$"; then
			out $sm restore -d --name risen "killed-$i"
			out $sm exec risen test -e /dev/shm/x
			out $sm rm -f risen
			out $sm snapshot rm "killed-$i"
		fi
		[ "$what" = client ] || until_true 20 bash -c "[ \"\$($sm ps -q)\" = '' ]"
		[ "$(state victim)" = running ] || out $sm start victim
	done
	until_true 60 $sm snapshot victim after
	lacks "leftovers" "$(ls -A "$d")" '^\.(new|old)-'
	out $sm rm -f victim
	out $sm snapshot rm after
	out $sm snapshot prune -a
}

# The programs of the commit before this one, or those in $SM_PREVIOUS: built, which takes a while.
previous() {
	if [ -z "${SM_PREVIOUS:-}" ]; then
		[ "$SM_SCALE" -ge 100 ] || skip "builds the commit before: at full scale, or give SM_PREVIOUS=DIRECTORY with its programs"
		git -C "$SM_TOP" rev-parse -q --verify HEAD~1 >/dev/null || skip "there is no commit before"
		mkdir previous
		git -C "$SM_TOP" archive HEAD~1 | tar -x -C previous
		make -s -C previous >build.log 2>&1 || fail "$(tail -n 20 build.log)"
		SM_PREVIOUS=$SM_TMP/previous/build/bin
	fi
	[ -x "$SM_PREVIOUS/supermachine" ] || fail "there is no supermachine in $SM_PREVIOUS"
}

limit_previous=900
test_previous() {
	# what the commit before saved (whole, as a diff of a base and of a snapshot) and suspended goes on with the programs of this one
	local name old
	previous
	old=$SM_PREVIOUS/supermachine
	box
	out $sm machine stop
	out "$old" run -d -m 256M --name first box sh -c 'echo memory >/dev/shm/x; echo disk >/x; exec 3>/ticks; n=0; while :; do n=$((n+1)); echo $n >&3; sleep 0.2; done'
	until_true 30 "$old" exec first test -s /ticks
	out "$old" snapshot first whole
	out "$old" snapshot --diff first diff
	out "$old" restore -d --name second whole
	out "$old" snapshot --diff second diff-of-whole
	out "$old" suspend first
	out "$old" suspend second
	out "$old" machine stop
	out $sm resume first
	out $sm resume second
	for name in whole diff diff-of-whole; do out $sm restore -d --name "of-$name" "$name"; done
	for name in first second of-whole of-diff of-diff-of-whole; do
		out $sm exec "$name" cat /dev/shm/x /x
		is "$name" "$out" $'memory\ndisk'
		until_true 30 $sm exec "$name" sh -c 'cp /ticks /seen; sleep 0.5; [ $(wc -l </seen) -eq $(tail -n 1 /seen) ] && [ $(wc -l </ticks) -gt $(wc -l </seen) ]'
	done
	out $sm rm -f first second of-whole of-diff of-diff-of-whole
	out $sm snapshot rm diff-of-whole diff whole
}

limit_immutable=300
test_immutable() {
	# what VMs have their memory from changes by nothing that they do, and can be written to by none of them: a snapshot's file, a base's, a branch's
	local d=$SUPERMACHINE_HOME/data/snapshots who pid before
	vm first
	out $sm snapshot first whole
	out $sm restore -d --name copy whole
	out $sm branch --name twig copy
	before=$(cd "$d" && md5sum whole/memory whole/state base-*/memory base-*/state)
	for who in first copy twig; do
		pid=$(field "$who" .monitor_pid)
		# each open file that is memory: only to be read, and mapped privately; a memfd, which anybody of this user could open anew, takes no writing
		out beside sh -c "for f in /proc/$pid/fd/*; do case \$(readlink \$f) in
			*/memory) echo \"file \$(stat -L -c %a \$f) \$(sed -n 's/^flags:[^0-9]*[0-9]*\([0-7]\)$/\1/p' /proc/$pid/fdinfo/\${f##*/})\";;
			*memfd:memory*) (echo x >\$f) 2>/dev/null && echo 'memfd written' || echo 'memfd sealed';;
			esac; done; grep -E '/memory|memfd:memory' /proc/$pid/maps | cut -d' ' -f2 | sort -u"
		is "$who" "$(sort -u <<<"$out" | xargs)" "$([ "$who" = twig ] && echo 'file 400 0 memfd sealed rw-p' || echo 'file 400 0 rw-p')"
		out $sm exec "$who" sh -c "for i in $(at_length && echo 1) 2; do dd if=/dev/zero of=/dev/shm/x bs=1M count=$(scaled 10 40) 2>/dev/null; rm /dev/shm/x; echo 3 >/proc/sys/vm/drop_caches; done; cat /proc/loadavg"
	done
	! at_length || { out $sm suspend copy && out $sm resume copy; }
	is "the files" "$(cd "$d" && md5sum whole/memory whole/state base-*/memory base-*/state)" "$before"
	out $sm rm -f first copy twig
	out $sm snapshot rm whole
}
