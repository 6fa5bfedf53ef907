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

# watched_once VM FILE: can it be watched, and by one alone?
watched_once() {
	$sm exec "$1" touch "$2"
	$sm watch "$1" "$2" >once &
	local first=$! second=0
	sleep 1
	$sm watch -n 1 "$1" "$2" 2>second.err || second=$?
	kill $first && wait $first || [ $? -eq 143 ] && [ $second -eq 125 ] && grep -q 'No file descriptors available' second.err
}

# flooded LOG VM DIR: is told that it was too much?
flooded() {
	$sm exec "$2" sh -c 'cd "$1"; for i in $(seq 50); do mv 0 1; mv 1 0; done' sh "$3"
	grep -qx 'overflow   /d' "$1"
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
	# who watched is gone from the VM, too: with one instance of inotify for all, there is one for the next, and none for a second
	$sm exec w sh -c 'echo 1 >/proc/sys/fs/inotify/max_user_instances'
	until_true 20 watched_once w /d/one
	$sm exec w sh -c 'echo 128 >/proc/sys/fs/inotify/max_user_instances'

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

	# more than it can tell is said, and it goes on: of the two halves of a move, one is kept for it
	$sm exec w sh -c 'echo 1 >/proc/sys/fs/inotify/max_queued_events; mkdir -p /d/many/late; : >/d/many/0'
	watching over w /d/many/probe -r w /d
	until_true 60 flooded over w /d/many
	until_true 20 probe over w /d/many/late/file
	kill $watcher
	wait $watcher || true

	# the VM's end is the watch's
	watching end w /d/probe2 w /d
	$sm rm -f w >/dev/null
	wait $watcher && fail "it goes on without its VM"
	has "end" "$(cat end.err)" 'has ended'
}
