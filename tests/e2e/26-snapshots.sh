# SPDX-License-Identifier: Apache-2.0
# VMs that stand still and go on: paused, or saved and restored.

limit_pause=120
test_pause() {
	# a paused VM does nothing, knows no time, refuses commands; stop works, and so does a limit on its time
	vm still --timeout 40s -- sh -c 'while :; do cut -d" " -f1 /proc/uptime; sleep 0.2; done'
	until_true 30 bash -c "[ \$($sm logs still | wc -l) -ge 3 ]"
	out -125 $sm unpause still
	has "not paused" "$err" '^supermachine: unpause: VM [0-9a-f]{12} is not paused$'
	out $sm pause still
	is "pause prints" "$out" still
	is "state" "$(state still)" paused
	has "ps" "$($sm ps)" 'still .*paused'
	local before after
	before=$($sm logs still | wc -l)
	out -125 $sm exec still true
	has "exec" "$err" '^supermachine: exec: command in VM [0-9a-f]{12}: the VM is paused'
	out -125 $sm pause still
	has "twice" "$err" 'VM [0-9a-f]{12} is paused already'
	out -125 $sm suspend still
	has "suspend" "$err" '^supermachine: suspend: suspend VM [0-9a-f]{12}: the VM is paused'
	out -125 $sm cp still:/etc/hosts .
	has "cp" "$err" 'the VM is paused; supermachine unpause lets it go on'
	is "lines of cp" "$(wc -l <"$SM_TMP/.err")" 1
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

limit_snapshot=700
test_snapshot() {
	# a running VM is saved and goes on; VMs that go on from there have its processes, files and disk, and all else of their own
	local ask='cat /file; hostname; head -c 16 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/uuid' a b pid rc=0
	image saved --cmd '["sh"]' --env PATH=/bin
	out $sm run -d -m 256M --name first saved sh -c 'exec 3>/ticks; n=0; while :; do n=$((n+1)); echo $n >&3; echo tick $n; [ -e /stop ] && { rm /stop; exit 7; }; sleep 0.2; done'
	until_true 30 bash -c "[ \$($sm logs first | wc -l) -ge 3 ]"
	out $sm exec first sh -c 'echo shared >/file'
	out $sm snapshot first warm
	is "prints" "$out" warm
	has "the time it took" "$err" 'stood still for [0-9]+ ms'
	out -125 $sm snapshot first warm
	has "twice" "$err" 'already'
	out -125 $sm snapshot first base-x
	is "by name" "$($sm snapshots -q -f name=arm)" warm
	is "by image and kind" "$($sm snapshots -q -f image=saved:latest -f kind=vm)" warm
	is "others" "$($sm snapshots -q -f name=arm -f kind=base; $sm snapshots -q -f image=save)" ""
	has "bases" "$($sm snapshots -q --filter kind=base)" '^base-'
	out -125 $sm snapshots -f kind=large
	has "no such kind" "$err" "no such kind of snapshot: 'large'"
	out -125 $sm snapshots -f colour=red
	has "no such filter" "$err" 'colour=red'
	$sm snapshots --format json | jq -e '.[] | select(.name == "warm") | .kind == "vm" and .image == "saved" and .fits and .size > 0' >/dev/null || fail "$($sm snapshots)"
	$sm inspect warm | jq -e '.[0].kind == "vm" and .[0].whole and .[0].config.argv[0] == "sh"' >/dev/null || fail "$($sm inspect warm)"
	out $sm exec first sh -c 'echo later >>/file; wc -l </file'
	is "the first goes on" "$out" 2
	out -125 $sm restore -d -n 2 -p 8080:80 warm
	has "one port for two" "$err" 'several VMs cannot have port 8080'
	out $sm restore -d -n 2 --name two -p 0:80 -e NEW=yes --label a=b warm
	is "ids" "$(wc -l <<<"$out")" 2
	a=$($sm port two-1 80 | sed -n '1s/.*://p') b=$($sm port two-2 80 | sed -n '1s/.*://p')
	[ -n "$a" ] && [ -n "$b" ] && [ "$a" != "$b" ] || fail "ports $a and $b"
	out $sm exec two-2 sh -c 'echo $NEW; cat /file'
	is "its environment" "$out" $'yes\nshared'
	is "labels" "$(field two-1 '.labels | join(",")')" a=b
	out $sm exec -d two-1 sh -c 'while :; do echo through | nc -l -p 80; done'
	until_true 30 bash -c "timeout 5 head -n 1 </dev/tcp/127.0.0.1/$a | grep -q through"
	out $sm rm -f two-1 two-2
	out $sm restore -d --name second --timeout 500s warm
	out $sm run -d --name third --snapshot warm
	out $sm exec second sh -c "$ask"
	a=$out
	out $sm exec third sh -c "$ask"
	b=$out
	is "lines in common" "$(comm -12 <(sort <<<"$a") <(sort <<<"$b"))" shared
	out $sm exec second sh -c 'echo own >/mine; date +%s'
	[ "$out" -ge $(($(date +%s) - 5)) ] && [ "$out" -le $(($(date +%s) + 1)) ] || fail "its clock says $out, ours $(date +%s)"
	out -1 $sm exec third cat /mine
	until_true 30 bash -c "[ \$($sm logs second | wc -l) -ge 3 ]"
	has "its command goes on" "$($sm logs second | head -n 1)" '^tick ([4-9]|[1-9][0-9]+)$'
	until_true 30 $sm exec second sh -c 'cp /ticks /seen; [ $(wc -l </seen) -eq $(tail -n 1 /seen) ]' # with the file that it had open
	out $sm rm -f first
	out -125 $sm rmi saved
	has "its image is held" "$err" 'in use'
	# its exit status, and a start on its own disk
	out $sm exec second touch /stop
	out $sm wait second
	is "status" "$out" 7
	out $sm start second
	out $sm exec second cat /file /mine
	is "its disk" "$out" $'shared\nown'
	out $sm rm -f second
	# a snapshot of one that was restored; the first snapshot is not needed for it
	out $sm snapshot third again
	out $sm snapshot rm warm
	out $sm exec third cat /file
	is "file" "$out" shared
	$sm restore --rm --name front again >front.out 2>front.err &
	pid=$!
	until_true 60 is_state front running
	out $sm exec front touch /stop
	wait $pid || rc=$?
	is "status in front" "$rc $(cat front.err)" "7 "
	has "output in front" "$(cat front.out)" '^tick [0-9]+$'
	chmod 600 "$SUPERMACHINE_HOME/data/snapshots/again/memory"
	out $sm restore -d --name fourth again # it is another file by its times, read once, and whole
	out $sm rm -f fourth
	printf x | dd of="$SUPERMACHINE_HOME/data/snapshots/again/memory" bs=1 conv=notrunc 2>/dev/null
	out -125 $sm restore again
	has "damage" "$err" 'snapshot again: its file memory is damaged: its checksum is'
	out $sm snapshot rm again
	out -125 $sm restore again
	has "gone" "$err" 'no such snapshot'
	out $sm rm -f third
	out $sm rmi saved
}

size_of() {
	$sm snapshots --format json | jq -r --arg n "$1" '.[] | select(.name == $n) | .size'
}

limit_diff=900
test_diff() {
	# a diff has only what changed since the snapshot that its VM came from: a chain of them has all that each saw, and what is needed stays
	local d=$SUPERMACHINE_HOME/data/snapshots i
	vm one -- sh -c 'exec 3>/ticks; n=0; while :; do n=$((n+1)); echo $n >&3; sleep 0.2; done'
	out $sm exec one sh -c 'echo one >/file; mkdir -p /dev/shm/x; head -c 1000000 /dev/urandom >/dev/shm/x/random; md5sum /dev/shm/x/random >/sum'
	out $sm snapshot one d0
	out $sm snapshot --diff one d1 # of the base
	is "prints" "$out" d1
	[ "$(size_of d1)" -lt $(($(size_of d0) / 2)) ] || fail "d1 has $(size_of d1) bytes, and all of it $(size_of d0)"
	has "its kind" "$($sm snapshots)" '^d1 +diff '
	has "its parent" "$($sm inspect d1 | jq -r '.[0].parent')" '^base-[0-9a-f]+$'
	out $sm rm -f one
	out $sm snapshot prune -a # the diff holds the base's memory itself
	lacks "bases" "$($sm snapshots -q)" '^base-'
	out $sm restore -d --name two d1
	out $sm exec two sh -c 'cat /file; md5sum -c /sum; cp /ticks /seen; [ $(wc -l </seen) -eq $(tail -n 1 /seen) ] && echo two >>/file; echo 2 >/dev/shm/x/two'
	is "files and memory" "$out" $'one\n/dev/shm/x/random: OK'
	out $sm snapshot --diff two d2
	out $sm branch --name twig two
	out $sm rm -f two
	out $sm exec twig sh -c 'echo twig >>/file; echo 3 >/dev/shm/x/twig'
	out $sm snapshot --diff twig d3 # of d1, by way of its parent
	is "parent of a branch's" "$($sm inspect d3 | jq -r '.[0] | "\(.parent) \(.depth) \(.whole)"')" "d1 2 true"
	out $sm rm -f twig
	out $sm restore -d --name three d2
	out $sm exec three sh -c 'echo three >>/file; rm /dev/shm/x/two'
	out $sm snapshot --diff three d4
	out $sm snapshot three d5 # of one that came from three files
	out $sm rm -f three
	out -125 $sm snapshot rm d1
	has "what needs it" "$err" 'snapshot d1 has diffs, which need it: d2, d3'
	out $sm snapshot prune -a
	is "all are there" "$($sm snapshots -q | grep -E '^d[0-9]$' | sort | xargs)" "d0 d1 d2 d3 d4 d5"
	for i in d4:'one two three':random $(at_length && echo d3:one_two_twig:random_twig_two d5:one_two_three:random); do
		i=${i//_/ }
		out $sm restore -d --name again "${i%%:*}"
		out $sm exec again sh -c 'xargs </file; ls /dev/shm/x | xargs; md5sum -c /sum >/dev/null && sleep 1 && cp /ticks /seen && [ $(wc -l </seen) -eq $(tail -n 1 /seen) ]'
		is "${i%%:*}" "$out" "$(cut -d: -f2- <<<"$i" | tr : '\n')"
		out $sm rm -f again
	done
	# one that came from a diff is one itself also after it was suspended, however often
	out $sm restore -d --name deep d2
	out $sm exec deep sh -c 'echo deep >>/file; echo kept >/dev/shm/x/deep'
	for i in $(seq "$(scaled 1 2)"); do
		out $sm suspend deep
		[ "$($sm inspect deep | jq '.[0].suspended_bytes')" -lt $((64 << 20)) ] || fail "$($sm inspect deep)"
		out $sm resume deep
	done
	out $sm snapshot --diff deep d7
	is "parent of one that was suspended" "$($sm inspect d7 | jq -r '.[0] | "\(.parent) \(.depth) \(.whole)"')" "d2 3 true"
	out $sm rm -f deep
	out $sm restore -d --name again d7
	out $sm exec again sh -c 'xargs </file; ls /dev/shm/x | xargs; md5sum -c /sum >/dev/null && sleep 1 && cp /ticks /seen && [ $(wc -l </seen) -eq $(tail -n 1 /seen) ]'
	is "what was suspended" "$out" $'one two deep\ndeep random two'
	out $sm rm -f again
	out $sm snapshot rm d7
	lacks "what has to be read again" "$(ls "$d/d1" "$d/d2")" verified
	# one of the files is another, or gone; or the snapshot of that name is another
	chmod 600 "$d/d2/memory" "$d/d1/base"
	mv "$d/d2/memory" "$d/saved"
	out -125 $sm restore -d d4
	has "missing" "$err" 'snapshot d4 is a diff of d2: snapshot d2: its file memory is missing'
	cp "$d/saved" "$d/d2/memory"
	printf x | dd of="$d/d2/memory" bs=1 seek=5000 conv=notrunc 2>/dev/null
	out -125 $sm restore -d d4
	has "damaged" "$err" 'snapshot d4 is a diff of d2: snapshot d2: its file memory is damaged'
	rm "$d/d2/memory"
	mv "$d/saved" "$d/d2/memory"
	printf x | dd of="$d/d1/base" bs=1 seek=5000 conv=notrunc 2>/dev/null
	out -125 $sm restore -d d4
	has "the base's" "$err" 'snapshot d2 is a diff of d1: snapshot d1: its file base is damaged'
	out $sm snapshot rm d3 d4 d2 d1 # each frees the next
	out -125 $sm snapshot rm d1
	if at_length; then diff_of_none; diff_of_lost; diff_killed; diff_of_slept; fi
	out $sm snapshot rm d0 d5
}

# One of a base is a diff of it also after it was suspended, and what is on the disk meanwhile is as little.
diff_of_slept() {
	vm slept
	$sm exec slept sh -c 'echo kept >/dev/shm/f'
	out $sm suspend slept
	[ "$($sm inspect slept | jq '.[0].suspended_bytes')" -lt $((64 << 20)) ] || fail "$($sm inspect slept)"
	out $sm resume slept
	out $sm snapshot --diff slept d6
	out $sm rm -f slept
	out $sm restore -d --name woken d6
	is "its memory" "$($sm exec woken cat /dev/shm/f)" kept
	out $sm rm -f woken
	out $sm snapshot rm d6
}

# What booted cannot be a diff.
diff_of_none() {
	vm cold --cold
	out -125 $sm snapshot --diff cold no
	has "it booted" "$err" 'it booted'
	out $sm suspend cold
	out $sm resume cold
	out -125 $sm snapshot --diff cold no
	out $sm rm -f cold
}

# One whose snapshot was removed while it was suspended goes on, and has no parent any more.
diff_of_lost() {
	out $sm restore -d --name last d5
	out $sm snapshot last d8
	out $sm rm -f last
	out $sm restore -d --name last d8
	out $sm suspend last
	out $sm snapshot rm d8
	out $sm exec last cat /file # goes on all the same
	is "its file" "$(xargs <<<"$out")" "one two three"
	out -125 $sm snapshot --diff last no
	has "its parent is gone" "$err" 'snapshot d8 that it started from is not there any more'
	out $sm rm -f last
}

# Killed at any moment: it is there and whole, or it is not there.
diff_killed() {
	local d=$SUPERMACHINE_HOME/data/snapshots i pid k
	vm victim
	for i in client monitor keeper; do
		k=$(field victim ".${i}_pid")
		$sm snapshot --diff victim killed >/dev/null 2>&1 &
		pid=$!
		sleep "0.$((RANDOM % 9))"
		if [ $i = client ]; then kill -9 $pid || true; else beside kill -9 "$k" || true; fi
		wait $pid || true
		if $sm snapshots -q | grep -q '^killed$'; then
			out $sm restore -d --name risen killed
			out $sm exec risen true
			out $sm rm -f risen
			out $sm snapshot rm killed
		fi
		[ $i = client ] || until_true 20 bash -c "[ \"\$($sm ps -q)\" = '' ]"
		[ "$(state victim)" = running ] || out $sm start victim
	done
	until_true 60 $sm snapshot --diff victim after
	lacks "leftovers" "$(ls -A "$d")" '^\.(new|old)-'
	out $sm rm -f victim
	out $sm snapshot rm after
}

limit_snapshot_shapes=700
test_snapshot_shapes() {
	# two CPUs, a disk in memory, a VM that booted; what cannot be saved says so; a snapshot that is killed on the way leaves nothing
	local i pid
	vm two -c 2 --tmpfs-root -- sh -c 'while :; do :; done'
	out $sm snapshot two double
	out $sm restore -d --name copy double
	out $sm exec copy sh -c 'for i in 0 1; do taskset -c $i grep -c ^processor /proc/cpuinfo; done; ps | grep -c "[w]hile :"'
	is "CPUs, and its command" "$out" $'2\n2\n1'
	lacks "console" "$($sm logs --console copy)" 'lockup|stall'
	out $sm rm -f copy
	for i in $(seq "$(scaled 1 3)"); do
		$sm snapshot two killed >/dev/null 2>&1 &
		pid=$!
		sleep "0.$((RANDOM % 9))"
		kill -9 $pid 2>/dev/null || true
		wait $pid 2>/dev/null || true
		until_true 60 $sm exec two true
		$sm snapshot rm -f killed >/dev/null
	done
	until_true 60 $sm snapshot two whole
	lacks "leftovers" "$(ls -A "$SUPERMACHINE_HOME/data/snapshots")" '^\.(new|old)-'
	out $sm snapshot rm double whole
	out $sm pause two
	out -125 $sm snapshot two paused
	has "a paused VM" "$err" 'paused'
	out $sm rm -f two
	if at_length; then
		vm cold --cold -v .:/mnt:dax
		out -125 $sm snapshot cold no
		has "dax" "$err" 'dax'
		out $sm rm -f cold
	fi
	at_length || return 0
	vm cold --cold
	out $sm exec cold sh -c 'echo booted >/file'
	out $sm snapshot cold cold
	out $sm restore -d --name copy cold
	out $sm exec copy cat /file
	is "file" "$out" booted
	out $sm rm -f cold copy
	out $sm snapshot rm cold
}

limit_snapshot_mounts=600
test_snapshot_mounts() {
	# directories of the host go on in a copy: open files, the working directory, what changed meanwhile; another source in their place; suspend
	local a=$SM_SHARED/snapm b=$SM_SHARED/snapm2
	rm -rf "$a" "$b"
	mkdir -p "$a/deep/in" "$b"
	echo one >"$a/read"; echo lower >"$a/deep/low"; echo old >"$a/changed"; echo x >"$a/gone"
	vm mnt -v "$a:/m" -v "$a/deep:/c:cow" -- sh -c 'cd /m/deep/in; exec 3</m/read 4>>/m/log 5</m/gone; cat /m/changed; ls /m >/dev/null; echo upper >/c/up; while :; do [ -e /m/go ] && { read -r l <&3; echo "got $l" >&4; cat /m/changed >&4; cat <&5 >&4 2>&1; cat low >&4 2>&1; touch here; rm -f /m/go; }; sleep 0.3; done'
	until_true 30 $sm exec mnt test -e /c/up
	out $sm snapshot mnt withdirs
	out $sm rm -f mnt
	echo news >"$a/changed"
	rm "$a/gone"
	echo "no, never" >"$a/gone"
	out $sm restore -d --name copy withdirs
	touch "$a/go"
	until_true 30 test ! -e "$a/go"
	is "open files, what changed, a file that is another" "$(head -2 "$a/log" | tr '\n' ' ')" 'got one news '
	has "one that is gone" "$(cat "$a/log")" 'Bad file descriptor|Stale'
	lacks "another under its name" "$(cat "$a/log")" 'never'
	[ -e "$a/deep/in/here" ] || fail "the working directory"
	out $sm exec copy sh -c 'cat /c/up /c/low /m/gone; echo written >/m/deep/new'
	is "the overlay, and a file looked up anew" "$out" $'upper\nlower\nno, never'
	is "on the host" "$(cat "$a/deep/new")" written
	# suspended, and on again, with its own files
	out $sm suspend copy
	echo again >"$a/changed"
	out $sm exec copy cat /m/changed
	is "after it was suspended" "$out" again
	touch "$a/go"
	until_true 30 test ! -e "$a/go"
	has "the log goes on" "$(tail -4 "$a/log")" again
	# a branch with another source: nothing of the first is touched
	echo other >"$b/changed"
	out $sm branch -v "$b:/m:ro" --name twig copy
	out -1 $sm exec twig sh -c 'cat /m/changed; echo x >/m/new'
	has "another source" "$out" other
	has "read-only" "$err" 'Read-only'
	out -125 $sm branch -v "$b:/nowhere" copy
	has "a mount it has not" "$err" 'none on /nowhere'
	out $sm rm -f copy twig
	# a source that is gone
	mv "$a" "$a.away"
	out -125 $sm restore -d withdirs
	has "its source is named" "$err" "$a"
	mv "$a.away" "$a"
	out $sm snapshot rm withdirs
}

limit_snapshot_audit=300
test_snapshot_audit() {
	# --audit of restore and branch: what each copy does, by the names that the saved VM knew, and not what others do
	local a=$SM_SHARED/snapau id twig
	rm -rf "$a"
	mkdir -p "$a/deep"
	echo one >"$a/deep/f"
	vm aud -v "$a:/m" -- sh -c 'cd /m/deep; while :; do [ -e /m/go ] && { cat f; echo x >made; rm -f /m/go; }; sleep 0.3; done'
	until_true 30 $sm exec aud test -e /m/deep
	out $sm snapshot aud withaudit
	out -125 $sm restore -d --audit "$a/log" withaudit
	has "within reach" "$err" 'the VM may write to'
	out $sm restore -d --name copy --audit log.json withaudit
	id=$out
	out $sm branch --name twig --audit twig.json copy
	twig=$out
	out $sm exec aud sh -c 'cat /m/deep/f; echo first >/m/first'
	out $sm exec copy sh -c 'echo copy >/m/copys'
	out $sm exec twig sh -c 'cat f; mv /m/copys /m/deep/moved'
	$sm rm -f aud twig >/dev/null
	touch "$a/go"
	until_true 30 test ! -e "$a/go"
	out $sm rm -f copy
	jq -r '[.vm, .op, .path, .to // "-", .write, .result] | join(" ")' log.json >lines
	has "opened where it was" "$(cat lines)" "^$id open $a/deep/f - false ok$"
	has "made there" "$(cat lines)" "^$id create $a/deep/made - true ok$"
	has "made" "$(cat lines)" "^$id create $a/copys - true ok$"
	lacks "another's" "$(cat lines)" "(first|moved|^$twig )"
	jq -r '[.vm, .op, .path, .to // "-", .write, .result] | join(" ")' twig.json >lines
	has "renamed by the branch" "$(cat lines)" "^$twig rename $a/copys $a/deep/moved true ok$"
	lacks "another's" "$(cat lines)" "(first|made|^$id )"
	# one that is not asked for is not kept; run --snapshot has it too
	out $sm run --snapshot withaudit --audit run.json cat /m/deep/f
	has "of run --snapshot" "$(cat run.json)" "\"path\":\"$a/deep/f\""
	out $sm snapshot rm withaudit
}

limit_branch=400
test_branch() {
	# children of a running VM go on from where it is, each on its own, and so does it
	local n own='' count=$(scaled 4 50)
	# It waits without a process for each tick: fifty that make five a second each leave the one CPU of an emulated machine no time for what is looked at.
	vm parent -- sh -c 'mkfifo /never; exec 3>/ticks 4<>/never; n=0; while :; do n=$((n+1)); echo $n >&3; read -t 0.2 _ <&4; done'
	out $sm exec parent sh -c 'echo shared >/file; mkdir /dev/shm/x; echo memory >/dev/shm/x/y'
	out -125 $sm branch -n 2 -p 8080:80 parent
	has "one port for two" "$err" 'port 8080'
	out $sm branch -n "$count" --name child -p 0:80 -e NEW=yes parent
	is "ids" "$(wc -l <<<"$out")" "$count"
	has "the time it took" "$err" 'stood still for [0-9]+ ms'
	is "alive" "$($sm ps --format json | jq '[.[] | select(.state == "running")] | length')" $((count + 1))
	out $sm exec parent sh -c 'echo later >>/file; rm /dev/shm/x/y'
	# each is alive and has what it had, and a name and random numbers of its own
	for n in $(seq "$count"); do
		out $sm exec "child-$n" sh -c 'cat /file /dev/shm/x/y; echo $NEW; cat /proc/sys/kernel/random/uuid >/uuid; echo mine >/file; { hostname; head -c 16 /dev/urandom | od -An -tx1; cat /uuid; } >&2'
		is "child $n" "$out" $'shared\nmemory\nyes'
		own+=$err$'\n'
		until_true 30 $sm exec "child-$n" sh -c 'n=$(tail -n 1 /ticks); sleep 0.5; cp /ticks /seen; [ $(wc -l </seen) -eq $(tail -n 1 /seen) ] && [ $(tail -n 1 /seen) -gt $n ]' # its command goes on
	done
	is "names and numbers" "$(grep . <<<"$own" | sort -u | wc -l)" $((3 * count))
	out $sm exec parent cat /file
	is "the parent's file" "$out" $'shared\nlater'
	out $sm branch --rm child-1 # of one that was branched, its parent gone
	n=$out
	out $sm rm -f parent child-1
	out $sm exec "$n" cat /file /uuid
	has "grandchild" "$out" mine
	out $sm rm -f $(seq -f child-%g 2 "$count") "$n"
}

limit_suspend=500
test_suspend() {
	# a VM goes to the disk and nothing of it runs; when it is wanted it goes on where it was
	local m k i
	vm sleeper -- sh -c 'exec 3>/ticks; n=0; while :; do n=$((n+1)); echo $n >&3; [ -e /stop ] && { rm /stop; exit 7; }; sleep 0.2; done'
	out $sm exec sleeper sh -c 'echo kept >/file; hostname >/name; sync'
	m=$(field sleeper .monitor_pid) k=$(field sleeper .keeper_pid)
	out $sm suspend sleeper
	is "state" "$(state sleeper)" suspended
	lacks "ps" "$($sm ps)" sleeper
	has "ps -a" "$($sm ps -a)" 'sleeper .*suspended'
	out -1 beside test -d "/proc/$m" -o -d "/proc/$k"
	out -125 $sm suspend sleeper
	has "twice" "$err" 'is suspended'
	out -125 $sm wait sleeper
	has "wait" "$err" 'is suspended'
	out -125 $sm rm sleeper
	out $sm resume sleeper
	is "state" "$(state sleeper)" running
	out -125 $sm resume sleeper
	has "twice" "$err" 'is not suspended'
	out $sm exec sleeper sh -c 'cat /file; hostname | cmp - /name && date +%s'
	has "disk" "$out" kept
	[ "$(tail -n 1 <<<"$out")" -ge $(($(date +%s) - 5)) ] || fail "its clock says $out, ours $(date +%s)"
	until_true 30 $sm exec sleeper sh -c 'cp /ticks /seen; [ $(wc -l </seen) -eq $(tail -n 1 /seen) ]' # with the file that it had open
	out $sm suspend sleeper
	out $sm exec sleeper touch /stop # wakes it
	out $sm wait sleeper
	is "status" "$out" 7
	# however often: its disk does not gather layers, and is what it was
	out $sm start sleeper
	for i in 1 2 3 4 5; do
		out $sm exec sleeper sh -c "echo $i >>/each; sync"
		out $sm suspend sleeper
		has "layers" "$(ls "$($sm inspect sleeper | jq -r ".[0].directory")" | grep -c '^layer\.')" '^[1-4]$'
	done
	out $sm exec sleeper sh -c 'cat /file /each | tr "\n" " "'
	is "disk" "$out" "kept 1 2 3 4 5 "
	# killed while it is saved: it is suspended, or has ended as any VM whose keeper or monitor is killed; its disk is right
	for i in 'suspend keeper' $(at_length && echo 'snapshot_monitor snapshot_keeper'); do
		i=${i/_/ }
		k=$(field sleeper ".${i#* }_pid")
		case $i in
		suspend*) $sm suspend sleeper >/dev/null 2>&1 & ;;
		*) $sm snapshot sleeper killed >/dev/null 2>&1 & ;;
		esac
		sleep "0.$((RANDOM % 9))"
		beside kill -9 "$k" 2>/dev/null || true
		wait $! || true
		until_true 20 bash -c "[ \"\$($sm ps -a --format json | jq -r '.[0].state')\" != running ]"
		has "state" "$(state sleeper)" '^(suspended|exited)$'
		out $sm start sleeper
		out $sm exec sleeper cat /file
		is "file" "$out" kept
		$sm snapshot rm -f killed >/dev/null
	done
	out $sm suspend sleeper
	out $sm stop sleeper
	has "stopped" "$($sm ps -a)" 'sleeper .*exited \(137, stopped\)'
	out $sm start sleeper
	out $sm exec sleeper cat /file
	is "file" "$out" kept
	out $sm suspend sleeper
	out $sm rm -f sleeper
	$sm run --rm -m 256M --name front box sh -c 'echo up; sleep 100' >front.out 2>/dev/null &
	until_true 60 grep -q up front.out
	out -125 $sm suspend front
	has "in the foreground" "$err" 'foreground'
	out $sm rm -f front
	wait
}

test_warm() {
	# load --warm: an image's snapshot that has run a command, or whose command is up; commands go on from there, each in a VM of its own
	box
	out $sm load --name warm:1 --warm 'echo a >/warmed; echo told; cat /proc/sys/kernel/random/boot_id >/id' -m 256M "oci:$SM_SHARED/box"
	has "output of the command" "$err" '^told$'
	has "name" "$out" '^Saved the snapshot warm-1: supermachine run --snapshot warm-1$'
	out -3 $sm run --snapshot warm-1 -e X=y -w /tmp sh -c 'cat /warmed; echo b >>/warmed; echo "$X $PWD"; exit 3' # IMAGE has no place here
	is "goes on" "$out" "a
y /tmp"
	out $sm run -i --snapshot warm-1 sh -c 'cat; wc -l </warmed' <<<in
	is "each its own" "$out" "in
1"
	is "VMs left" "$($sm ps -aq)" ""
	out $sm load -q --name warm:2 --warm 'mkdir /tmp/up; exec sleep 1000' --ready /tmp/up --warm-name up -m 256M "oci:$SM_SHARED/box"
	out $sm run --snapshot up sh -c 'ps | grep -c "[s]leep 1000"'
	is "the server is up" "$out" 1
	out -5 $sm load --name warm:3 --warm 'exit 5' -m 256M "oci:$SM_SHARED/box"
	has "message" "$err" 'no snapshot was made: .* status 5'
	out -125 $sm load --name warm:1 --warm true -m 256M "oci:$SM_SHARED/box"
	has "taken" "$err" 'warm-name'
	out $sm snapshot rm warm-1 up
	out $sm rmi warm:1 warm:2 warm:3
}

# Says a word to a VM's port and waits for it to come back.
echoes() {
	exec 3<>"/dev/tcp/127.0.0.1/$1" && echo "word $2" >&3 && read -t 90 -r word <&3 && [ "$word" = "word $2" ]
}

limit_idle=400
test_idle() {
	# a VM that nobody uses is suspended, and woken by whoever wants it: a command, or a connection to a port of it; or stopped
	local port i id
	vm lazy -p 127.0.0.1:0:81 --idle 10s --on-idle suspend -- nc -ll -p 81 -e cat
	id=$(field lazy .id)
	port=$($sm port lazy 81 | sed 's/.*://')
	$sm exec lazy sh -c "sleep 13; echo busy" >busy.out # as long as that runs it is in use
	is "used" "$(cat busy.out)" busy
	until_true 60 is_state lazy suspended
	until_true 5 bash -c "$sm port lazy 81 | grep -q ':$port\$'" # it is still open
	for i in 1 2 3 4 5; do (echoes "$port" $i && echo "came $i" >came.$i) & done
	wait
	is "connections woke it" "$(cat came.*)" "$(printf 'came %s\n' 1 2 3 4 5)"
	is "once" "$($sm events --since 10m --until 0s -f vm=lazy -f event=resume | wc -l)" 1
	is "the same port" "$($sm port lazy 81)" "127.0.0.1:$port"
	$sm suspend lazy >/dev/null
	out $sm exec lazy echo awake
	is "woken by a command" "$out" awake
	echoes "$port" again || fail "its port does not answer"
	# whoever waits is killed: it is as suspended as before, and its port opened when it is wanted
	$sm suspend lazy >/dev/null
	pkill -9 -f "supermachine-keeper --forward [0-9]+ [^ ]*/$id "
	no_ports() { [ -z "$($sm port lazy)" ]; }
	until_true 20 no_ports # it takes a moment to die
	has "ps -a" "$($sm ps -a)" 'lazy .*suspended'
	out -1 echoes "$port" nobody
	out $sm exec lazy echo awake
	is "woken" "$out" awake
	port=$($sm port lazy 81 | sed 's/.*://')
	echoes "$port" new || fail "its new port does not answer"
	$sm suspend lazy >/dev/null
	out $sm rm -f lazy
	until_true 5 bash -c "! exec 3<>/dev/tcp/127.0.0.1/$port"
	vm idler --idle 2s --on-idle kill -- sleep 100000
	until_true 60 is_state idler exited
	has "ps" "$($sm ps -a)" 'idler .*exited \(137, idle\)'
	is "reason" "$(field idler .outcome.reason)" idle
	out $sm rm idler
	out -125 $sm run --idle 5s box true
	has "in the foreground" "$err" 'goes with -d'
	out -125 $sm run -d --idle 5s --on-idle suspend -v "$PWD:/v:dax" box true
	has "what cannot be suspended" "$err" 'cannot be suspended'
}
