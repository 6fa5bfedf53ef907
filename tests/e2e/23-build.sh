# SPDX-License-Identifier: Apache-2.0
# build: images of other ones and files of the host, made once; snapshots of them that are warm.

# Images in the store by id.
image_ids() {
	$sm images --no-trunc --format json | jq -r '.[].id' | sort
}

# config NAME JQ-FILTER, of the image's configuration
config() {
	$sm inspect "$1" | jq -c ".[0].config | $2"
}

# files NAME: its tree in ./NAME.d
files() {
	rm -rf "$1.d"
	$sm inspect "$1" --export-erofs "$1.erofs"
	fsck.erofs --extract="$1.d" --preserve-owner --preserve-perms "$1.erofs" >/dev/null
}

test_configuration() {
	# another configuration is another image over the same layers; the same once more is the same image, at once
	image conf --cmd '["sh","-c","echo base"]' --entrypoint '["/bin/env"]' --env PATH=/bin --env A=1 --label is=base
	out env HERE=now $sm build -t conf:two -e B=2 -e A=3 -e HERE -u alice -w /srv --cmd '["echo","new"]' -l more=x --expose 80 --expose 53/udp --stop-signal INT -c 'VOLUME /data' conf
	has "what was built" "$out" '^Built conf:two \([0-9a-f]{12}, 1 layer, '
	is "configuration" "$(config conf:two '[.cmd, .entrypoint, .env, .user, .working_dir, .stop_signal, .volumes, (.labels | sort), (.exposed_ports | sort)]')" \
		'[["echo","new"],["/bin/env"],["PATH=/bin","A=3","B=2","HERE=now"],"alice","/srv","INT",["/data"],["is=base","more=x"],["53/udp","80/tcp"]]'
	is "no layer more" "$($sm inspect conf:two | jq -c '.[0].layers')" "$($sm inspect conf | jq -c '.[0].layers')"
	is "history" "$($sm inspect conf:two | jq -c '.[0].image_config.history[-1] | [.created_by, .empty_layer]')" '["supermachine build",true]'
	local ids
	ids=$(image_ids)
	out env HERE=now $sm build -t conf:three -e B=2 -e A=3 -e HERE -u alice -w /srv --cmd '["echo","new"]' -l more=x --expose 80 --expose 53/udp --stop-signal INT -c 'VOLUME /data' conf
	has "again" "$out" '^Nothing to build: conf:three is there \([0-9a-f]{12}, 1 layer'
	is "no image more" "$(image_ids)" "$ids"
	is "both names" "$($sm inspect conf:two | jq -c '.[0].names')" '["conf:three","conf:two"]'
	out env HERE=later $sm build -q -t conf:three -e B=2 -e A=3 -e HERE -u alice -w /srv --cmd '["echo","new"]' -l more=x --expose 80 --expose 53/udp --stop-signal INT -c 'VOLUME /data' conf
	has "another value" "$out" '^sha256:[0-9a-f]{64}$'
	is "the name has moved" "sha256:$($sm images --no-trunc --format json | jq -r '.[] | select(.names[]? == "conf:three") | .id')" "$out"
	is "the old one has its own" "$(config conf:two .env)" '["PATH=/bin","A=3","B=2","HERE=now"]'

	# an entrypoint takes the command along; "" is none
	$sm build -t conf:entry --entrypoint '["/bin/cat"]' conf
	is "entrypoint" "$(config conf:entry '[.entrypoint, .cmd]')" '[["/bin/cat"],null]'
	$sm build -t conf:line --entrypoint '' --cmd 'echo a line' conf
	is "a line" "$(config conf:line '[.entrypoint, .cmd]')" '[null,["/bin/sh","-c","echo a line"]]'
	out $sm build -q -t conf:same -t conf:also conf
	is "nothing else" "$out" "sha256:$($sm images --no-trunc --format json | jq -r '.[] | select(.names[]? == "conf:latest") | .id')"
	is "all its names" "$($sm inspect conf | jq -c '.[0].names')" '["conf:also","conf:latest","conf:same"]'
	out $sm events --since 1h --until 0s -f event=build --format '{{.Action}} {{.Name}}'
	has "an event" "$out" '^build conf:two$'
	out $sm rmi conf:two conf:three conf:entry conf:line
	out $sm prune
	has "what is gone was something" "$out" '^Removed [1-9][0-9]* images, .*: [1-9][0-9.]* [KM]iB freed$'
	out $sm rmi conf:same conf:also conf
}

test_files() {
	# files and trees of the host, by owner, mode, time and link, where the image has no directory, one, or a link to one
	needs fsck.erofs dump.erofs
	mkdir -p base/usr/bin base/kept base/opt tree/sub/deep tree/bin
	ln -s usr/bin base/bin
	chmod 711 base/kept
	echo old >base/kept/file
	echo base >base/opt/a
	"$SM_TOP/tests/lib/mkimage" --layer base --tag latest lay >/dev/null
	$sm load --name files oci:lay >/dev/null
	echo one >file
	touch -d '2001-02-03 04:05:06.789' file
	echo a >tree/a
	chmod 640 tree/a
	echo tool >tree/bin/tool
	chmod 1755 tree/bin/tool
	ln tree/a tree/sub/also
	ln -s ../a tree/sub/link
	mkfifo tree/fifo
	chmod 700 tree/sub/deep
	truncate -s 3M tree/sparse
	echo end >>tree/sparse
	out $sm build -t files:1 -f file:/kept/ -f file:/opt -f file:/new/name -f tree:/ -f ./tree/.:/made/for/it files
	has "one layer more" "$out" '\([0-9a-f]{12}, 2 layers, '
	files files:1
	is "into a directory" "$(cat files:1.d/kept/file)" one
	is "of another name" "$(cat files:1.d/opt/file files:1.d/new/name files:1.d/opt/a)" $'one\none\nbase'
	is "the directory is as it was" "$(stat -c %a files:1.d/kept)" 711
	is "time" "$(stat -c %y files:1.d/new/name | cut -c1-23)" '2001-02-03 04:05:06.789'
	is "a link to a directory stays" "$(readlink files:1.d/bin) $(cat files:1.d/usr/bin/tool)" 'usr/bin tool'
	is "modes" "$(stat -c %a files:1.d/usr/bin/tool files:1.d/a files:1.d/made/for/it/sub/deep | xargs)" '1755 640 700'
	is "a link" "$(readlink files:1.d/made/for/it/sub/link)" ../a
	has "a hard link" "$(dump.erofs --path=/made/for/it/sub/also files:1.erofs)" 'Links: 2 '
	is "a pipe" "$(stat -c %F files:1.d/fifo)" fifo
	cmp tree/sparse files:1.d/made/for/it/sparse
	[ "$(id -u)" != 0 ] || is "owner" "$(stat -c %u:%g files:1.d/a files:1.d/made/for/it | xargs)" '0:0 0:0'

	# the same is there; what has changed is not
	local id
	id=$($sm build -q -f tree:/srv files)
	is "again" "$($sm build -q -f tree:/srv files)" "$id"
	is "elsewhere" "$(cd tree && $sm build -q -f .:/srv files)" "$id"
	is "a copy" "$(cp -a tree copy && $sm build -q -f copy:/srv files)" "$id"
	local new
	differs() { # differs WHAT OPTIONS...: another image, which is there again
		local what=$1
		shift
		new=$($sm build -q "$@" files)
		[ "$new" != "$id" ] || fail "$what: the same image"
		is "$what, again" "$($sm build -q "$@" files)" "$new"
	}
	differs "owner" -f tree:/srv --chown 5:6
	differs "mode" -f tree:/srv --chmod 604
	differs "place" -f tree:/else
	chmod 600 tree/a
	differs "another mode" -f tree:/srv
	chmod 640 tree/a
	is "as before" "$($sm build -q -f tree:/srv files)" "$id"
	echo b >copy/a
	differs "contents" -f copy:/srv
	out $sm build --no-cache -q -f tree:/srv files
	[ "$out" != "$id" ] || fail "not built anew"
	is "the newest is what is there" "$($sm build -q -f tree:/srv files)" "$out"
	$sm build -t files:2 -f tree:/srv --chown 5:6 --chmod 604 files
	files files:2
	[ "$(id -u)" != 0 ] || is "given owner" "$(stat -c %u:%g files:2.d/srv/a files:2.d/srv files:2.d/srv/sub/link | xargs)" '5:6 5:6 5:6'
	is "given mode" "$(stat -c %a files:2.d/srv/a files:2.d/srv files:2.d/srv/sub | xargs)" '604 705 705'

	# an image of one that was built, and a record of what it was made from that is not handed on
	$sm build -t files:3 -f file:/srv/more files:2
	is "layers" "$($sm inspect files:3 | jq '.[0].layers | length')" 3
	files files:3
	is "all of them" "$(cat files:3.d/srv/more files:3.d/srv/a)" $'one\na'
	$sm rmi files:1
	out $sm build -t files:1 -f file:/kept/ -f file:/opt -f file:/new/name -f tree:/ -f ./tree/.:/made/for/it files
	has "removed, so built" "$out" '^Built files:1 '
	$sm rmi files:1 files:2 files:3
	$sm prune -a >/dev/null
}

test_refused() {
	# what cannot be built says why, and changes nothing
	box
	mkdir -p d
	echo x >f
	mkfifo pipe
	local ids
	ids=$(image_ids)
	refused() { # refused PATTERN OPTIONS...
		local pattern=$1
		shift
		out -125 $sm build "$@"
		has "$*" "$err" "$pattern"
	}
	refused 'there are no Dockerfiles here: .*supermachine load' .
	refused 'there are no Dockerfiles here' -t app ./d
	refused 'there are no Dockerfiles here' -t app -f Dockerfile box
	refused 'there are no Dockerfiles here' --build-arg A=1 box
	refused 'there are no Dockerfiles here' - </dev/null
	out -125 $sm image build .
	has "docker's words" "$err" 'no Dockerfiles'
	refused 'usage: supermachine build'
	refused 'no image nosuch' -e A=1 nosuch
	refused 'nothere: No such file' -f nothere:/x box
	refused 'is to be absolute' -f f:x box
	refused 'without ".."' -f f:/../x box
	refused 'pipe is neither a file nor a directory' -f pipe:/x box
	refused 'd cannot come to /etc/passwd: .*no directory' -f d:/etc/passwd box
	refused 'f cannot come to /etc/passwd/f: .*no directory' -f f:/etc/passwd/ box
	mkdir -p d/passwd/x clash/etc/passwd dirs
	echo x >dirs/etc
	refused 'cannot come to /etc/passwd: .*no directory' -f clash:/ box
	refused 'cannot come to /etc: the image has a directory' -f dirs:/ box
	mkdir -p white
	echo x >white/.wh.f
	refused 'begins with .wh.' -f white:/ box
	refused "owner 'alice': UID\[:GID\]" -f f:/x --chown alice box
	refused 'an octal mode' -f f:/x --chmod 9 box
	refused "'A' is not NAME=VALUE" -l A box
	refused "port '80x'" --expose 80x box
	refused "'rel' is not absolute" -w rel box
	refused "no such signal: 'NOSUCH'" --stop-signal NOSUCH box
	refused "is none of CMD" -c 'RUN make' box
	refused 'go with --warm' -m 1G box
	refused '"-bad" is no name for a snapshot' --warm true --warm-name -bad box
	refused 'invalid|not a' -t 'UPPER!' -e A=1 box
	is "nothing has changed" "$(image_ids)" "$ids"
}

limit_concurrent=300
test_concurrent() {
	# many that build the same at once have one image; one that is killed leaves nothing of its own, and the name where it was
	box
	local n i
	n=$(scaled 8 40)
	mkdir tree
	for i in $(seq 200); do head -c 20000 /dev/urandom >"tree/$i"; done
	for i in $(seq $n); do $sm build -q -t "many:$i" -f tree:/srv -e N=1 box >"id.$i" 2>&1 & done
	wait
	is "one image" "$(cat id.* | sort | uniq -c | awk '{print $1}')" "$n"
	is "its names" "$($sm inspect many:1 | jq '.[0].names | length')" "$n"
	$sm build -t kept:1 -f tree/1:/x box
	local before
	before=$($sm inspect kept:1 | jq -r '.[0].id')
	for i in $(seq "$(scaled 6 30)"); do
		head -c 3000000 /dev/urandom >tree/big
		$sm build -q -t kept:1 -f tree:/srv box >/dev/null 2>&1 &
		sleep "0.0$((RANDOM % 90 + 10))"
		kill -9 $! 2>/dev/null || true
		wait $! 2>/dev/null || true
		$sm run --help >/dev/null
		$sm inspect kept:1 >inspected || fail "the name is gone"
		[ "$(jq -r '.[0].id' inspected)" = "$before" ] || before=$(jq -r '.[0].id' inspected)
		$sm inspect kept:1 --export-erofs whole.erofs
		! command -v fsck.erofs >/dev/null || fsck.erofs whole.erofs >/dev/null
	done
	out $sm build -q -t kept:1 -f tree:/srv box
	is "then it is built" "$($sm inspect kept:1 | jq -r '.[0].id')" "$out"
	for i in $(seq $n); do $sm rmi "many:$i" >/dev/null; done
	$sm rmi kept:1
	$sm prune -a >/dev/null
	is "nothing temporary is left" "$(find "$SUPERMACHINE_HOME" -path '*/tmp/*' -name '*.build')" ""
}

limit_warm=400
test_warm() {
	# a build that is warmed up: the snapshot is there at once the second time, made anew when something has changed, and never in place of another's
	box
	echo 'echo ready >/warmed; echo told; echo "$MODE" >/mode' >start
	chmod 4711 start
	warm() { $sm build "$@" -t app:1 -e MODE=live -f start:/srv/start --warm 'sh /srv/start' -m 256M box; }
	out warm
	has "built" "$out" '^Built app:1 '
	has "saved" "$out" '^Saved the snapshot app-1: supermachine run --snapshot app-1$'
	has "its output" "$err" '^told$'
	out $sm run --snapshot app-1 sh -c 'cat /warmed /mode; stat -c "%a %u" /srv/start; echo x >>/warmed'
	is "it has run" "$out" $'ready\nlive\n4711 0'
	is "the snapshot's image" "$($sm inspect app-1 | jq -r '.[0].image_id')" "$($sm inspect app:1 | jq -r '.[0].id | ltrimstr("sha256:")')"
	local made
	made=$($sm inspect app-1 | jq .[0].created_ns)
	out warm
	has "nothing to build" "$out" '^Nothing to build: app:1 is there'
	has "the snapshot is there" "$out" '^There is the snapshot app-1'
	lacks "no VM ran" "$err" told
	is "the same snapshot" "$($sm inspect app-1 | jq .[0].created_ns)" "$made"
	echo 'echo again >/warmed' >start
	out warm
	has "built anew" "$out" '^Built app:1 '
	has "saved anew" "$out" '^Saved the snapshot app-1'
	out $sm run --snapshot app-1 cat /warmed
	is "what it runs now" "$out" again

	# a command that fails leaves the snapshot; its status is ours
	echo 'exit 7' >start
	out -7 warm
	has "why" "$err" 'no snapshot was made: the warm-up command ended with status 7$'
	out $sm run --snapshot app-1 cat /warmed
	is "still the old one" "$out" again
	echo 'sleep 1000' >start
	out -124 warm --timeout 2s
	has "too long" "$err" 'took longer than it may'
	out $sm run --snapshot app-1 cat /warmed
	is "still the old one" "$out" again

	# another's snapshot of the name stays
	vm mine
	out $sm snapshot mine taken
	$sm rm -f mine >/dev/null
	out -125 $sm build --warm true --warm-name taken -m 256M box
	has "taken" "$err" 'there is a snapshot taken already'
	has "what to do" "$err" 'warm-name'
	# one that waits for its command to be up
	out $sm build -t up:1 --warm 'echo $$ >/up; exec sleep 1000' --ready /up -m 256M box
	has "saved" "$out" '^Saved the snapshot up-1'
	out $sm run --snapshot up-1 sh -c 'cat /proc/$(cat /up)/comm'
	is "it is up" "$out" sleep
	$sm snapshot rm app-1 up-1 taken
	$sm rmi app:1 up:1
	is "nothing is left" "$($sm ps -aq)" ""
}
