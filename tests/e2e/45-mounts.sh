# SPDX-License-Identifier: Apache-2.0
# Directories of the host in a VM (-v), as the VM and the host see them.

# share NAME: an empty directory on the host, in $share.
share() {
	share=$SM_TMP/$1
	mkdir -p "$share"
}

test_both_ways() {
	# what either side writes the other reads, and the host's files are the user's own
	share s
	echo from-host >"$share/a"
	mkdir "$share/dir"
	out run_box -v "$share:/data" box sh -c 'cat /data/a; echo from-guest >/data/b; mkdir /data/dir/x; echo deep >/data/dir/x/y; mount | grep -c " on /data type virtiofs "; ls -ln /data/a | awk "{ print \$3, \$4 }"'
	is "guest" "$out" "from-host
1
0 0"
	is "host" "$(cat "$share/b" "$share/dir/x/y")" "from-guest
deep"
	is "owner" "$(stat -c %u:%g "$share/b")" "$(id -u):$(id -g)"
}

test_host_edits_are_seen() {
	# a change that the host makes while the VM runs is seen once the cache time is over
	share s
	echo one >"$share/f"
	vm edits -v "$share:/data" -- sh -c 'cat /data/f; touch /data/ready; while :; do sleep 100; done'
	until_true 60 test -e "$share/ready"
	echo two-longer >"$share/f"
	sleep 1.2
	is "contents" "$($sm exec edits cat /data/f)" two-longer
	rm "$share/f"
	echo new >"$share/g"
	until_true 20 bash -c "[ \"\$($sm exec edits ls /data | xargs)\" = 'g ready' ]"
	is "new file" "$($sm exec edits cat /data/g)" new
	$sm rm -f edits >/dev/null
}

test_host_edits_are_seen_at_once() {
	# each change of the host is seen when it happens, though all is cached for long
	share s
	echo 0 >"$share/f"
	vm watched -v "$share:/data" -- sh -c 'cat /data/f; touch /data/ready; while :; do read s </data/f; [ "$s" = "$o" ] || echo "saw $s"; o=$s; usleep 5000; done'
	until_true 60 test -e "$share/ready"
	local i seen
	sleep 1 # in a machine, until the host watches it
	for i in 1 2 3 4 5 6 7 8; do
		sleep 0.6
		echo "$i" >"$share/n"
		mv "$share/n" "$share/f"
	done
	sleep 1
	# With answers that hold for a second it would see every second.
	seen=$($sm logs watched | grep -c '^saw [1-8]$')
	[ "$seen" -ge 6 ] || fail "of 8 changes it saw $seen: $($sm logs watched | xargs)"
	is "inspect" "$($sm inspect watched | jq -r '.[0].mounts[0].watch')" "$([ "$(engine)" = machine ] && echo relayed || echo events)"
	$sm rm -f watched >/dev/null
}

# sees STATE: the guest of the test below sees this soon.
sees() {
	until_true 20 bash -c "[ \"\$(cat '$share/state' 2>/dev/null)\" = '$1' ]"
}

test_host_changes_of_every_kind() {
	# what the host writes, truncates, renames, removes, replaces and makes, and a burst of changes, as the guest has it
	share s
	local d=$share/d n i
	mkdir -p "$d/dir" "$d/many"
	echo 1 >"$d/written"
	echo full >"$d/cut"
	: >"$d/mode"
	: >"$d/gone"
	: >"$d/dir/old"
	chmod 644 "$d/mode"
	for i in $(seq 100); do : >"$d/many/$i"; done
	vm kinds -v "$d:/data" -v "$share:/ack" -- sh -c '
		ls -l /data/many >/dev/null; mkfifo /tmp/p; exec 3<>/tmp/p
		while :; do
			read w </data/written
			s=$w; [ -s /data/cut ] && s="$s full"; [ -x /data/mode ] && s="$s x"; [ -e /data/gone ] && s="$s there"
			[ -e /data/dir/old ] && s="$s old"; [ -e /data/dir/new ] && s="$s new"; set -- /data/list*; s="$s $#"
			[ "$s" = "$o" ] || echo "$s" >/ack/state; o=$s; read -t 0.01 x <&3
		done'
	sees '1 full there old 1'
	sleep 1
	echo 22 >"$d/written"
	sees '22 full there old 1'
	echo 333 >"$share/next"
	mv "$share/next" "$d/written"
	sees '333 full there old 1'
	: >"$d/cut"
	sees '333 there old 1'
	chmod 755 "$d/mode"
	sees '333 x there old 1'
	rm "$d/gone"
	sees '333 x old 1'
	: >"$d/gone"
	sees '333 x there old 1'
	touch "$d/list1" "$d/list2"
	sees '333 x there old 2'
	mkdir "$d/dir2"
	: >"$d/dir2/new"
	mv "$d/dir" "$d/away"
	mv "$d/dir2" "$d/dir"
	sees '333 x there new 2'
	# An open shows the length that the file has by then, though the guest has not been told of it.
	for i in $(seq 20); do
		printf "%$((i * 7 % 11))s|" "" >"$d/cut"
		is "length $i" "$($sm exec kinds cat /data/cut)" "$(cat "$d/cut")"
	done
	n=$(scaled 2000 100000)
	python3 -c '
import sys
for i in range(int(sys.argv[2])):
    with open(sys.argv[1] + "/%d" % (i % 100 + 1), "w") as f:
        f.write("x" * (i // 100 % 7 + 1) + "\n")
for i in range(100):
    with open(sys.argv[1] + "/%d" % (i + 1), "w") as f:
        f.write("end\n")' "$d/many" "$n"
	until_true 20 bash -c "[ \"\$($sm exec kinds sh -c 'cat /data/many/* | sort | uniq -c' | xargs)\" = '100 end' ]"
	$sm rm -f kinds >/dev/null
}

test_watchers_in_the_guest() {
	# a program in the guest that watches a directory (inotify) is told what the host makes, moves, changes and removes in it
	local program=$SM_TOP/build/tests/conformance/watcher
	[ -x "$program" ] || skip "the program that watches is not built"
	share s
	echo 1 >"$share/known"
	echo 1 >"$share/old"
	mkdir "$share/old-dir"
	vm events -v "$share:/data" -v "$program:/watcher:ro" -- sh -c 'ls -l /data >/dev/null; exec /watcher /data'
	until_true 60 bash -c "$sm logs events | grep -q ^ready"
	sleep 1 # in a machine, until the host watches it
	(
		cd "$share"
		echo 1 >new
		mkdir new-dir
		ln -s new new-link
		echo 22 >>known
		rm old
		rmdir old-dir
		sleep 1
		mv new moved
	)
	local line
	for line in 'made new' 'made new-dir/' 'made new-link' 'modified known' 'gone old' 'gone old-dir/' 'made moved'; do
		until_true 20 bash -c "$sm logs events | grep -qx '$line'"
	done
	# The host has what the host made, and no more.
	is "host" "$(ls -A "$share" | xargs) $(cat "$share/moved" "$share/known" | xargs)" "known moved new-dir new-link 1 1 22"
	$sm rm -f events >/dev/null
}

test_read_only() {
	# :ro holds against the VM's root, and against a remount
	share s
	echo keep >"$share/a"
	out run_box -v "$share:/data:ro" box sh -c 'cat /data/a; touch /data/new || echo no-new; echo x >>/data/a || echo no-write; rm /data/a || echo no-rm; mount -o remount,rw /data; touch /data/new2 || echo still-not'
	is "guest" "$out" "keep
no-new
no-write
no-rm
still-not"
	is "host" "$(ls "$share") $(cat "$share/a")" "a keep"
}

test_audit() {
	# --audit writes down what the VM opens, changes and is refused, by the host's names, where the VM cannot get at it
	share s
	mkdir ro
	echo x >"$share/f"
	echo y >ro/g
	out run_box --audit log.json -v "$share:/data" -v "$SM_TMP/ro:/ro:ro" box sh -c '
		cat /data/f; echo z >/data/new; mv /data/new "/data/a \"b"; rm /data/f; mount -o remount,rw /ro; echo no >/ro/g || true'
	is "output" "$out" x
	jq -r '[.op, .path, .to // "-", .write, .result] | join(" ")' log.json >lines
	has "opened" "$(cat lines)" "^open $share/f - false ok$"
	has "made" "$(cat lines)" "^create $share/new - true ok$"
	has "renamed" "$(cat lines)" "^rename $share/new $share/a \"b true ok$"
	has "removed" "$(cat lines)" "^remove $share/f - true ok$"
	has "refused" "$(cat lines)" "$SM_TMP/ro/g - true EROFS$"
	jq -es 'all(.time_ns > 1600000000000000000 and (.vm | length) == 12)' log.json >/dev/null || fail "$(cat log.json)"
	out -125 run_box --audit "$share/log" -v "$share:/data" box true
	has "within reach" "$err" 'the VM may write to'
	out -125 run_box --audit log box true
	has "nothing to tell of" "$err" 'it has none'
}

test_cow() {
	# :cow: the VM changes what it likes, the host's directory stays as it was, and a kept VM finds its changes again
	share s
	mkdir "$share/d"
	echo host >"$share/a"
	echo host >"$share/d/b"
	local before
	before=$(cd "$share" && find . -printf '%p %m %s %T@\n' | sort)
	out run_box --name cow -v "$share:/data:cow" box sh -c 'if [ -e /data/new ]; then cat /data/new /data/a; ls /data/d; exit; fi; echo vm >/data/a; rm /data/d/b; echo vm >/data/new; cat /data/a'
	is "guest" "$out" vm
	is "host" "$(cd "$share" && find . -printf '%p %m %s %T@\n' | sort)" "$before"
	out $sm start -a cow
	is "again" "$out" "vm
vm"
	is "host" "$(cd "$share" && find . -printf '%p %m %s %T@\n' | sort)" "$before"
	$sm rm cow >/dev/null
}

test_file() {
	# a single file can be mounted, also over one of the image's, and stays the host's file
	share s
	echo '127.0.0.1 from-the-host' >"$share/hosts"
	echo data >"$share/f"
	out run_box -v "$share/hosts:/etc/hosts:ro" -v "$share/f:/srv/new/name" box sh -c 'cat /etc/hosts; cat /srv/new/name; echo more >>/srv/new/name; echo x >>/etc/hosts || echo refused'
	is "guest" "$out" "127.0.0.1 from-the-host
data
refused"
	is "host" "$(cat "$share/f")" "data
more"
	is "beside" "$(ls "$share" | xargs)" "f hosts"
}

test_several_and_nested() {
	# several mounts, inner ones inside outer ones whatever their order, each with its own device number
	mkdir -p one/sub two three
	echo 1 >one/f
	echo 2 >two/f
	echo 3 >three/f
	out run_box -v "$SM_TMP/three:/data/sub/deep" -v ./two:/data/sub -v ./one:/data -v ./three:/srv/three:ro box sh -c \
		'cat /data/f /data/sub/f /data/sub/deep/f /srv/three/f; stat -c %d /data /data/sub /data/sub/deep / | sort -u | wc -l; mv /data/f /data/sub/g && echo moved'
	is "guest" "$out" "1
2
3
3
4
moved"
	[ -d two/deep ] || fail "the mount point was not made in the outer mount"
	is "moved" "$(cat two/g)" 1
}

test_links_stay_inside() {
	# links that lead out of the directory are the VM's own business: nothing of the host is read or written through them
	share s
	echo secret >"$SM_TMP/secret"
	ln -s "$SM_TMP/secret" "$share/out"
	ln -s ../secret "$share/up"
	ln -s /etc/passwd "$share/passwd"
	out run_box -v "$share:/data" box sh -c 'cat /data/out /data/up 2>/dev/null || echo dangling; readlink /data/up; grep -c Alice /data/passwd; ln -s /etc/shadow /data/mine; echo pwned 2>/dev/null >/data/out || echo none'
	is "guest" "$out" "dangling
../secret
1
none"
	is "secret" "$(cat "$SM_TMP/secret")" secret
	is "link" "$(readlink "$share/mine")" /etc/shadow
	out -1 run_box -v "$share:/data:links=deny" box sh -c 'cat /data/up; ln -s a /data/new'
	[ ! -L "$share/new" ] || fail "a link was made"
}

test_owners_as_they_are() {
	# ids=none and ranges of ids: the host's owners in the VM, which can give nothing away
	share s
	local u g
	u=$(id -u) g=$(id -g)
	out run_box -v "$share:/none:ids=none" -v "$share:/mapped:ids=u:500:$u:1,g:500:$g:1" box sh -c 'echo x >/none/f; stat -c "%u:%g" /none/f /mapped/f; chown 1234 /none/f 2>/dev/null || echo refused; chown 1234 /mapped/f 2>/dev/null || echo refused; mknod /none/null c 1 3 2>/dev/null || echo no-device; touch /mapped/g 2>/dev/null || echo nobody'
	is "guest" "$out" "$u:$g
500:500
refused
refused
no-device
nobody"
	is "host" "$(ls "$share") $(stat -c '%u:%g' "$share/f")" "f $u:$g"
}

test_links_are_followed_inside() {
	# links=follow: links lead where they lead beneath the directory, as if it were the root, and never out of it
	share s
	echo secret >"$SM_TMP/secret"
	mkdir -p "$share/d/e"
	echo deep >"$share/d/e/f"
	ln -s /d/e "$share/dir"
	ln -s ../../../../dir/f "$share/d/f"
	ln -s ../secret "$share/up"
	ln -s "$SM_TMP/secret" "$share/out"
	ln -s loop "$share/loop"
	out run_box -v "$share:/data:links=follow" box sh -c 'cat /data/d/f /data/dir/f; test ! -L /data/d/f && echo file; cat /data/up /data/out /data/loop 2>/dev/null || echo nowhere; echo new >/data/dir/g; cat /data/d/e/g; rm /data/d/f; ls /data/d/e | xargs'
	is "guest" "$out" "deep
deep
file
nowhere
new
f g"
	is "host" "$(cat "$share/d/e/g") $(ls "$share/d")" "new e"
	is "secret" "$(cat "$SM_TMP/secret")" secret
}

test_ownership() {
	# owners and modes that the VM sets are shown to it again, in the next VM too; on the host all is the user's
	share s
	out run_box -v "$share:/data" box sh -c 'touch /data/f /data/g && chown 1000:50 /data/f 2>/dev/null && chmod 4751 /data/f && su alice -c "echo a >/tmp/x" && stat -c "%u:%g %a" /data/f || echo no-attributes'
	[ "$out" != no-attributes ] || skip "the file system of $share has no user attributes"
	is "guest" "$out" "1000:50 4751"
	is "host" "$(stat -c '%u:%g %a' "$share/f")" "$(id -u):$(id -g) 751"
	out run_box -v "$share:/data" box sh -c 'stat -c "%u:%g %a" /data/f; stat -c "%u:%g" /data/g; mknod /data/null c 1 3; stat -c %F /data/null'
	is "again" "$out" "1000:50 4751
0:0
character special file"
	is "device" "$(stat -c %F "$share/null")" "regular empty file"
}

test_ids_same() {
	# ids=same: numbers are the same on both sides, for root
	[ "$(id -u)" = 0 ] || skip "needs root"
	share s
	out run_box -v "$share:/data:ids=same" box sh -c 'touch /data/f; chown 1234:4321 /data/f; mkdir /data/d; chown alice /data/d; su alice -c "touch /data/d/x"'
	is "host" "$(stat -c %u:%g "$share/f") $(stat -c %u "$share/d/x")" "1234:4321 1000"
}

# The file servers of $share, where the VMs run.
file_servers() {
	beside sh -c "pgrep -f '^[^ ]*supermachine-fsd --share .* --source $share ' || true"
}

limit_share_group=240
test_share_group() {
	# VMs of a share group have one file server and one watcher: what one changes the others see at once; a server that is killed is replaced; a monitor that is killed takes nobody along
	share s
	echo 1 >"$share/f"
	vm one --share-group g -v "$share:/data" -v "$share/f:/file:ro"
	vm two --share-group g -v "$share:/data"
	until_true 60 $sm exec two test -e /data/f
	is "inspect" "$($sm inspect one | jq -r '.[0].share_group')" g
	local first second
	first=$(file_servers)
	is "servers" "$(wc -w <<<"$first")" 1
	is "before" "$($sm exec two sh -c 'cat /data/f; ls /data')" "1
f"
	$sm exec one sh -c 'echo 22 >/data/f; echo new >/data/new; rm -f /data/none'
	is "after" "$($sm exec two sh -c 'cat /data/f /data/new; echo 333 >/data/f; mv /data/new /data/moved')" "22
new"
	# What the host changes both see; in a machine one process there watches for both.
	until_true 10 $sm exec one test ! -e /data/host
	$sm exec two test ! -e /data/host
	echo host >"$share/host"
	until_true 10 $sm exec one cmp -s /data/host /data/host
	until_true 10 $sm exec two cmp -s /data/host /data/host
	rm "$share/host"
	if [ "$(engine)" = machine ]; then
		local watcher
		watcher=$(pgrep -f "supermachine-keeper --watch-group [0-9]* $SUPERMACHINE_HOME/")
		is "watchers" "$(wc -w <<<"$watcher")" 1
		is "watches" "$(cat /proc/"$watcher"/fdinfo/* | grep -c "^inotify .* ino:$(printf %x "$(stat -c %i "$share")") ")" 1
		is "of its own" "$(pgrep -f "supermachine-keeper --watch [0-9]* $share" || true)" ""
	fi
	is "its files" "$($sm exec one cat /data/f /file)" "333
333"
	until_true 10 $sm exec one sh -c '[ "$(ls /data)" = "f
moved" ]'
	# Killed: maybe an error, and then service as before.
	beside kill -9 "$first"
	$sm exec two cat /data/f >/dev/null || true
	is "again" "$($sm exec two sh -c 'cat /data/f; echo 4444 >/data/f')" "333"
	until_true 20 $sm exec one grep -qx 4444 /data/f
	second=$(file_servers)
	is "servers, again" "$(wc -w <<<"$second")" 1
	[ "$first" != "$second" ] || fail "the killed server is still there"
	# Its monitor is killed: the other VM goes on, with the same server.
	beside kill -9 "$(field one .monitor_pid)"
	until_true 20 is_state one exited
	is "alone" "$($sm exec two sh -c 'cat /data/f; echo 5 >/data/five; cat /data/five')" "4444
5"
	is "the server" "$(file_servers)" "$second"
	# A kept one joins them again.
	$sm start one >/dev/null
	until_true 60 $sm exec one grep -qx 5 /data/five
	is "joined" "$(file_servers)" "$second"
	out -125 run_box --share-group a/b -v "$share:/data" box true
	has "message" "$err" 'no name for a share group'
	$sm rm -f one two >/dev/null
}

limit_many_files=1200
test_many_files() {
	# some thousand small files, made, listed, read and deleted in the VM
	share s
	local n
	n=$(scaled 200 20000)
	out run_box -v "$share:/data" box sh -c "i=0; while [ \$i -lt $n ]; do echo \$i >/data/f\$i; i=\$((i + 1)); done; ls /data | wc -l; cat /data/f* | wc -l"
	is "guest" "$out" "$n
$n"
	is "host" "$(ls "$share" | wc -l) $(cat "$share/f$((n - 1))")" "$n $((n - 1))"
	out run_box -v "$share:/data" box sh -c 'rm -r /data/*; ls /data | wc -l'
	is "left" "$(ls "$share" | wc -l)" 0
}

test_file_semantics() {
	# open files that were deleted, appending, renames over files and of directories, truncation, sparse files
	share s
	out run_box -v "$share:/data" box sh -c '
		cd /data; exec 3<>gone; echo kept >&3; rm gone; ls | wc -l; cat /proc/self/fd/3; exec 3>&-
		echo a >x; echo b >>x; echo c >y; mv y x2; mv x2 x; cat x
		mkdir -p d/e; echo deep >d/e/f; mv d z; cat z/e/f; rmdir z 2>/dev/null || echo not-empty
		dd if=/dev/zero of=sparse bs=1 count=1 seek=10M 2>/dev/null; stat -c %s sparse
		echo 0123456789 >t; dd if=/dev/null of=t bs=1 seek=4 2>/dev/null; cat t; echo
		ln x hard; stat -c %h x; mkfifo p; (echo through >p &); cat p'
	is "guest" "$out" "0
kept
c
deep
not-empty
10485761
0123
2
through"
	is "host" "$(stat -c %s "$share/sparse") $(stat -c %h "$share/hard")" "10485761 2"
}

test_kept_vm() {
	# a kept VM has its mount again when it is started again; a source that is gone is told
	share s
	out run_box --name kept -v "$share:/data" box sh -c 'echo again >>/data/log; cat /data/log'
	is "first" "$out" again
	out $sm start -a kept
	is "second" "$out" "again
again"
	is "inspect" "$($sm inspect kept | jq -r '.[0].mounts[0] | "\(.source) \(.target) \(.read_only)"')" "$share /data false"
	is "ps" "$(field kept '.mounts[0].target')" /data
	mv "$share" "$share.away"
	out -125 $sm start -a kept
	has "message" "$err" "cannot share $share: No such file or directory"
	$sm rm kept >/dev/null
}

test_missing_source() {
	# a source that is missing is made if its parent is there; else, and for ro, the error names it
	out run_box -v ./made:/data box sh -c 'echo x >/data/f'
	is "made" "$(cat made/f)" x
	out -125 run_box -v ./no/such:/data box true
	has "message" "$err" 'cannot share .*/no/such'
	out -125 run_box -v ./absent:/data:ro box true
	has "message" "$err" 'cannot share .*/absent: no such file or directory; only one that the VM may write to is made'
	out -125 run_box -v ./absent:/data:cow box true
	has "message" "$err" 'cannot share .*/absent: no such file'
	[ ! -e absent ] || fail "made"
	out -125 run_box -v ./absent:/data:ro -v absent:/x box true # without a slash it is a volume, which only a start makes
	lacks "volumes" "$($sm volume ls -q)" absent
	out -125 run_box -v /dev/null:/data box true
	has "message" "$err" 'neither a directory nor a file'
}

test_bad_syntax() {
	# mistakes in -v are told before anything starts
	share s
	out -125 run_box -v a box true
	has "message" "$err" "wants SRC:DST"
	out -125 run_box -v "$share:data" box true
	has "message" "$err" "'data' is not an absolute path"
	out -125 run_box -v "$share:/data:rx" box true
	has "message" "$err" "no such option: 'rx'"
	out -125 run_box -v "$share:/" box true
	has "message" "$err" "mounted on /"
	out -125 run_box -v "$share:/proc/x" box true
	has "message" "$err" "in /proc"
	out -125 run_box -v "$share:/a" -v "$share:/a/." box true
	has "message" "$err" "two mounts on /a"
	out -125 run_box -v "$share:/etc/passwd" box true
	has "message" "$err" "/etc/passwd is a file in the VM, but a directory on the host"
}

test_seal_with_mounts() {
	# with directories shared, every thread of the monitor is under a filter, and none but the file server has capabilities
	share s
	vm sealed -v "$share:/data" -- sleep 1000
	until_true 60 is_state sealed running
	local pid
	pid=$(field sealed .monitor_pid)
	out beside sh -c "cat /proc/$pid/task/*/status"
	is "filters" "$(grep -E '^Seccomp:' <<<"$out" | sort -u | xargs)" "Seccomp: 2"
	is "privileges" "$(grep -E '^NoNewPrivs:' <<<"$out" | sort -u | xargs)" "NoNewPrivs: 1"
	is "capabilities" "$(awk '/^Name:/ { n = $2 } /^CapPrm:/ { if (n != "fs" && $2 !~ /^0*$/) print n, $2 }' <<<"$out")" ""
	# DAC_OVERRIDE, FOWNER and FSETID at most
	is "the server's" "$(awk '/^Name:/ { n = $2 } /^CapPrm:/ { if (n == "fs" && $2 !~ /^0*(1a)?$/) print n, $2 }' <<<"$out")" ""
	$sm rm -f sealed >/dev/null
}
