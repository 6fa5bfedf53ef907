# SPDX-License-Identifier: Apache-2.0
# watch: what happens to files of a VM.

# watching LOG ARGS...: a watch in the background, once it is there: a file that nobody else touches shows that.
watching() {
	local log=$1 vm=$2 probe=$3
	shift 3
	$sm watch "$@" >"$log" 2>"$log.err" &
	watcher=$!
	until_true 20 probe "$log" "$vm" "$probe"
}

probe() {
	$sm exec "$2" touch "$3"
	grep -q "$3" "$1"
}

limit_watch=300
test_watch() {
	# what is made, written, moved, changed and removed in a VM is told, in directories that come and go too, as lines and as JSON
	vm w
	$sm exec w mkdir -p /d/sub/deep /d/away /out
	watching lines w /d/probe -r w /d/
	$sm watch --format json w /d >json &
	shallow=$!
	$sm exec w sh -c 'cd /d; sleep 1; echo a >one; chmod 600 one; mv one two; mv two sub/deep/three; rm sub/deep/three; mkdir -p n/e/w; sleep 0.3; echo x >n/e/w/f
		mv n /d/moved; echo y >moved/e/w/g; mv away /out/away; echo z >/out/away/unseen; mv /out/away back; sleep 0.3; echo 1 >back/1; rm -r moved; : >last'
	until_true 15 grep -q 'created    /d/last' lines
	for want in 'created    /d/one' 'modified   /d/one' 'attributes /d/one' 'moved      /d/one -> /d/two' 'moved      /d/two -> /d/sub/deep/three' \
		'deleted    /d/sub/deep/three' 'created    /d/n' 'created    /d/n/e' 'created    /d/n/e/w' 'created    /d/n/e/w/f' 'moved      /d/n -> /d/moved' \
		'created    /d/moved/e/w/g' 'deleted    /d/away' 'created    /d/back' 'created    /d/back/1' 'deleted    /d/moved/e/w/f' 'deleted    /d/moved'; do
		grep -qxF "$want" lines || fail "not told: $want
$(cat lines)"
	done
	lacks "what went away" "$(cat lines)" '/out|away/unseen'
	until_true 10 grep -q last json
	is "json" "$(jq -c 'select(.path == "/d/n")' json | head -1)" '{"event":"created","path":"/d/n","to":null,"directory":true}'
	lacks "only what is in it" "$(jq -r .path json)" '^/d/(n|sub|moved)/'
	kill $watcher $shallow
	wait $watcher $shallow || true
	# who watched is gone from the VM, too
	until_true 10 $sm exec w sh -c '! grep -l "^inotify" /proc/[0-9]*/fdinfo/* 2>/dev/null | grep -q .'

	# one file; a count; the end of what is watched; what cannot be
	watching file w /d/last w /d/last
	$sm exec w rm /d/last
	wait $watcher && fail "it goes on"
	has "gone" "$(cat file)" '^gone       /d/last$'
	has "gone" "$(cat file.err)" '/d/last is gone'
	$sm watch -n 2 w /d >two &
	for _ in $(seq 50); do
		$sm exec w touch /d/x
		kill -0 $! 2>/dev/null || break
	done
	wait $! || fail "status $? of -n"
	is "count" "$(wc -l <two)" 2
	out -125 $sm watch w /no/where
	has "no such file" "$err" '/no/where: No such file'
	out -125 $sm watch nobody /
	has "no VM" "$err" nobody

	# more than it can tell is said, and it goes on
	$sm exec w sh -c 'echo 16 >/proc/sys/fs/inotify/max_queued_events'
	watching over w /d/probe3 -r w /d
	$sm exec w sh -c 'mkdir /d/many; cd /d/many; i=0; while [ $i -lt 2000 ]; do : >$i; i=$((i + 1)); done; mkdir /d/many/late'
	until_true 20 grep -qx 'overflow   /d' over
	until_true 20 probe over w /d/many/late/file
	kill $watcher
	wait $watcher || true

	# the VM's end is the watch's
	watching end w /d/probe2 w /d
	$sm rm -f w >/dev/null
	wait $watcher && fail "it goes on without its VM"
	has "end" "$(cat end.err)" 'has ended'
}
