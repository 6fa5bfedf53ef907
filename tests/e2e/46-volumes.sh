# SPDX-License-Identifier: Apache-2.0
# Named volumes (-v NAME:DST, --mount, volume): what stays, who may have one, what an empty one begins with.

limit_volumes=480
test_volumes() {
	# an empty volume gets what the image has there, keeps what is written when its VM goes, also when that is killed, and belongs to one VM at a time
	out run_box -v data:/srv --mount type=volume,source=other,target=/new,volume-nocopy --mount type=tmpfs,target=/t,tmpfs-mode=750 box \
		sh -c 'cat /srv/data; stat -c %a /srv/broken /t; ls -A /new; echo kept >/srv/mine; echo x >/new/x; mount | grep -c " on /srv type ext4"'
	is "first use" "$out" "not a program
755
750
1"
	is "two volumes" "$($sm volume ls -q | xargs)" "data other"
	vm holder -v data:/d --mount type=volume,src=other,dst=/o,readonly -v /anonymous
	is "what was written" "$($sm exec holder sh -c 'cat /d/mine /o/x; ls /d | xargs')" "kept
x
broken data mine"
	out -1 $sm exec holder touch /o/y
	has "read-only" "$err" 'Read-only file system'
	out -125 run_box -v data:/d box true
	has "in use" "$err" 'volume data is in use by VM [0-9a-f]{12} \(holder\)'
	out run_box -v other:/o:ro box cat /o/x # two that only read
	is "shared" "$out" x
	is "filter" "$($sm ps -q --filter volume=data)" "$($sm ps -q)"
	out -125 $sm volume rm data
	has "rm of one in use" "$err" 'belongs to VM'
	is "three" "$($sm volume ls -q | wc -l)" 3

	# what was written is there although its VM is removed by force, and nothing was synced
	$sm exec holder sh -c 'echo late >/d/late'
	$sm rm -fv holder >/dev/null
	is "the anonymous one is gone" "$($sm volume ls -q | xargs)" "data other"
	is "late" "$(run_box -v data:/d box cat /d/late)" late
	is "json" "$($sm volume inspect data | jq -r '.[0] | .name, .vms[]')" data

	# a plain file system: the host's own tools see it
	if command -v debugfs >/dev/null; then
		is "on the host" "$(debugfs -R 'cat /data/late' "$($sm volume ls --filter name=data --format '{{.Mountpoint}}')" 2>/dev/null)" late
	fi
	is "a size of its own" "$($sm volume create --size 64M --label a=b small)" small
	has "size" "$(run_box -v small:/s box df -m /s | tail -1)" ' (5[0-9]|6[0-9]) '
	out -125 run_box -v data:/etc/passwd box true
	has "not on a file" "$err" '/etc/passwd is a file in the VM'
	$sm volume rm data other >/dev/null
	has "prune" "$($sm volume prune -a)" 'Removed 1 volume'
}

# checked FILE: that there is a whole file system in it.
checked() {
	e2fsck -fn "$1" >"$SM_TMP/.fsck" 2>&1 || fail "fsck of $1: $(cat "$SM_TMP/.fsck")"
}

disk_of() {
	$sm volume ls --filter "name=$1" --format '{{.Mountpoint}}'
}

# That its lines are all there, each once, though it goes on.
whole='n=$(wc -l </d/log); head -n $n /d/log >/tmp/log; seq $n | cmp - /tmp/log && echo same'

# A program that appends a line to a file of the volume on /d again and again, and has it open all the time.
writer='exec 3>>/d/log; n=0; while :; do n=$((n+1)); echo $n >&3; sync; sleep 0.1; done'

limit_volumes_suspended=400
test_volumes_suspended() {
	# a suspended VM keeps its volume, which nobody else gets, and goes on writing to it; one whose file was changed meanwhile says so, and stays as it is
	needs e2fsck
	local disk n
	vm holder -v kept:/d -v other:/o:ro -- sh -c "$writer"
	until_true 30 $sm exec holder grep -q 5 /d/log
	out $sm suspend holder
	is "state" "$(state holder)" suspended
	disk=$(disk_of kept)
	checked "$disk"
	n=$(debugfs -R 'cat /data/log' "$disk" 2>/dev/null | tail -1)
	[ "$n" -ge 5 ] || fail "the file of the volume has $n lines"
	out -125 run_box -v kept:/d box true
	has "in use" "$err" 'volume kept is in use by VM [0-9a-f]{12} \(holder\)'
	out -125 $sm volume rm kept
	out $sm resume holder
	until_true 30 $sm exec holder sh -c "[ \$(wc -l </d/log) -gt $((n + 5)) ]"
	is "every line once" "$($sm exec holder sh -c "$whole")" same
	out $sm suspend holder
	# somebody else writes to it
	cp -p "$disk" "$SM_TMP/copy"
	touch "$disk"
	out -125 $sm resume holder
	has "changed" "$err" 'the file of volume kept, .*, is not what it was when the VM was suspended'
	is "state" "$(state holder)" suspended
	touch -r "$SM_TMP/copy" "$disk"
	out $sm resume holder
	out $sm exec holder sh -c "$whole"
	out $sm suspend holder
	out $sm stop holder
	is "given up, it is free" "$(run_box -v kept:/d box sh -c "$whole")" same
	checked "$disk"
	$sm rm holder >/dev/null
	$sm volume rm kept other >/dev/null
}

limit_volumes_saved=600
test_volumes_saved() {
	# what goes on from a snapshot has volumes of its own, as they were then; others may be given in their place, or on top; the volume itself goes on
	needs e2fsck debugfs
	local base
	vm first -v data:/d -- sh -c "$writer"
	until_true 30 $sm exec first grep -q 5 /d/log
	$sm exec first sh -c 'echo then >/d/state; dd if=/dev/urandom of=/d/big bs=1M count=8 2>/dev/null; md5sum /d/big >/d/sum'
	out $sm snapshot first saved
	base=$(find "$SUPERMACHINE_HOME" -path '*/snapshots/saved/volume.0.base')
	checked "$base"
	has "the copy" "$(debugfs -R 'cat /data/state' "$base" 2>/dev/null)" then
	$sm inspect saved | jq -e '.[0].whole' >/dev/null || fail "$($sm inspect saved)"
	out $sm exec first sh -c "echo later >/d/state; $whole"

	# beside the first, which has the volume
	out $sm restore -d --name second saved
	is "as it was" "$($sm exec second cat /d/state)" then
	$sm exec second sh -c 'md5sum -c /d/sum >/dev/null && echo second >/d/state'
	until_true 30 $sm exec second sh -c '[ $(wc -l </d/log) -gt 10 ]'
	is "the first has its own" "$($sm exec first cat /d/state)" later
	is "no claim" "$($sm ps -q --filter volume=data)" "$($sm ps -q --filter name=first)"
	$sm inspect second | jq -e '.[0].mounts[0] | .volume == "data" and .own' >/dev/null || fail "$($sm inspect second)"
	out $sm exec second sh -c "$whole"

	# saved once more, stopped and started again, and suspended, it has what it wrote
	out $sm snapshot second again
	out $sm restore -d --name third again
	is "of the second" "$($sm exec third cat /d/state)" second
	if at_length; then
		out $sm suspend third
		out $sm resume third
	fi
	out $sm exec third sh -c "echo third >/d/state; $whole"
	out $sm stop -t 1 third
	is "files of one that ended" "$($sm cp third:/d/state - | tar xO)" third
	out $sm start third
	is "started again" "$($sm exec third cat /d/state)" third
	is "the second" "$($sm exec second cat /d/state)" second
	$sm rm -f second third first >/dev/null
	is "the volume" "$(run_box -v data:/d box cat /d/state)" later
	checked "$(disk_of data)"

	# another in its place, which the program does not see that has the old one's file open; and one where there was none
	run_box -v fresh:/d box sh -c 'echo fresh >/d/state'
	out $sm restore -d --name fourth -v fresh:/d -v more:/more/of/it saved
	is "in its place" "$($sm exec fourth sh -c 'cat /d/state; ls /d; echo more >/more/of/it/x')" "fresh
state"
	is "two" "$($sm exec fourth mount | grep -c ' type ext4 ')" 2
	out -125 run_box -v fresh:/d box true
	has "in use" "$err" 'volume fresh is in use by VM [0-9a-f]{12} \(fourth\)'
	out $sm suspend fourth
	out $sm resume fourth
	is "after a suspension" "$($sm exec fourth cat /d/state /more/of/it/x | xargs)" "fresh more"
	if at_length; then
		out $sm stop -t 1 fourth
		out $sm start fourth
		is "started again" "$($sm exec fourth cat /d/state /more/of/it/x | xargs)" "fresh more"
	fi
	$sm rm -f fourth >/dev/null
	checked "$(disk_of fresh)"
	checked "$(disk_of more)"
	is "what was written" "$(run_box -v more:/m box cat /m/x)" more
	is "for a command" "$($sm run --snapshot saved -v data:/d:ro sh -c 'cat /d/state; touch /d/x 2>&1; true' | xargs)" "later touch: /d/x: Read-only file system"

	out -125 $sm restore -d -v "$PWD:/d" saved
	has "no directory" "$err" 'on /d is a volume: another can take its place'
	out -125 $sm restore -d -v a:/1 -v b:/2 -v c:/3 -v d:/4 -v e:/5 -v f:/6 saved
	has "too many" "$err" 'volume f: a VM has 6 volumes at most'
	out -125 $sm restore -d -n 2 -v fresh:/d saved
	has "two of them" "$err" 'several VMs cannot have volume fresh'
	chmod u+w "$base"
	printf x >>"$base"
	out -125 $sm restore -d saved
	has "another file" "$err" 'its file volume.0.base is not the one that was saved'
	$sm snapshot rm saved again >/dev/null
	$sm volume rm data fresh more >/dev/null
}

limit_volumes_branched=400
test_volumes_branched() {
	# each child of a branch has its own of the parent's volumes; whoever is killed while they are copied leaves the parent as it was
	needs e2fsck
	local pid i
	vm parent -v tree:/d -- sh -c "$writer"
	until_true 30 $sm exec parent grep -q 5 /d/log
	out $sm branch parent -n 2 --name child
	for i in 1 2; do
		out $sm exec "child-$i" sh -c "echo $i >/d/who; $whole"
	done
	is "their own" "$(for i in 1 2; do $sm exec "child-$i" cat /d/who; done | xargs)" "1 2"
	out -1 $sm exec parent test -e /d/who
	out $sm exec parent sh -c "$whole"
	out $sm branch child-1 --name grandchild
	is "of the child" "$($sm exec grandchild cat /d/who)" 1
	is "nothing is left" "$(find "$SUPERMACHINE_HOME" -name '.branch-*')" ""
	$sm rm -f child-1 child-2 grandchild >/dev/null

	$sm exec parent dd if=/dev/urandom of=/d/big bs=1M count=64 2>/dev/null
	for i in 0.1 0.6 $(at_length && echo 0.3 1 1.5); do
		$sm snapshot parent killed >/dev/null 2>&1 &
		pid=$!
		sleep $i
		kill -9 $pid 2>/dev/null || true
		wait $pid 2>/dev/null || true
		until_true 60 $sm exec parent sh -c 'echo x >/d/x; sync; cat /d/x'
		$sm snapshot rm killed >/dev/null 2>&1 || true
	done
	out $sm exec parent sh -c "$whole"
	# and one that is stopped meanwhile
	$sm snapshot parent meanwhile >/dev/null 2>&1 &
	pid=$!
	sleep 0.5
	out $sm stop -t 1 parent
	wait $pid 2>/dev/null || true
	$sm rm parent >/dev/null
	$sm snapshot rm meanwhile >/dev/null 2>&1 || true
	checked "$(disk_of tree)"
	is "every line once" "$(run_box -v tree:/d box sh -c "$whole")" same
	$sm volume rm tree >/dev/null
}
