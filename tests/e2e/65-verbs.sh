# SPDX-License-Identifier: Apache-2.0
# What is told of VMs: events.

limit_events=240
test_events() {
	# a VM's life, its commands and images as lines and JSON: those that come, and those that were, also of a VM that is gone
	box
	since=$(date +%s)
	timeout $limit_events $sm events --format '{{.Action}} {{.Name}}' -f vm=ev >follow & # also where this test fails
	follower=$!
	sleep 1 # until it watches
	vm ev -l tier=web
	$sm exec ev sh -c 'exit 3' || true
	$sm exec -d ev sleep 1000 >/dev/null
	$sm pause ev >/dev/null
	$sm unpause ev >/dev/null
	$sm stop -t 5 ev >/dev/null
	$sm start ev >/dev/null
	$sm kill ev >/dev/null
	out $sm explain ev
	has "why" "$out" '^Its command was ended by signal 9 \(status 137\)\.$'
	has "who" "$out" '^It was sent signal 9 by kill\.$'
	has "where its time went" "$out" '^On the way to its command it spent [0-9.]+m?s, most of it, [0-9.]+m?s, on '
	$sm rm ev >/dev/null
	lived='create start exec_start exec_die exec_start pause unpause kill exec_die die stop start kill die destroy'
	until_true 15 grep -q destroy follow
	kill $follower
	is "followed" "$(cut -d' ' -f1 follow | tr '\n' ' ')" "$lived "
	is "afterwards" "$($sm events --since "$since" --until 0s -f container=ev --format '{{.Action}}' | tr '\n' ' ')" "$lived "
	out $sm events --since "$since" --until 0s -f event=exec_die -f label=tier=web
	has "a line" "$out" '^[0-9-]+T[0-9:.]+Z vm exec_die [0-9a-f]{12} \(command=sh -c exit 3, exitCode=3, image=box, name=ev, tier=web\)$'
	$sm events --since "$since" --until 0s --format json -f event=die -f vm=ev >die
	is "how it ended" "$(jq -r '.attributes | "\(.exitCode) \(.reason)"' die | tr '\n' ' ')" "143 stopped 137 signalled "

	$sm tag box:latest evbox
	$sm rmi evbox >/dev/null
	is "images" "$($sm events --since "$since" --until 0s -f image=evbox --format '{{.Action}} {{.Name}}' | tr '\n' ' ')" "tag evbox untag evbox "

	# a VM that nobody keeps, its keeper killed: that is told, too, by whoever looks
	vm ev
	beside kill -9 "$(field ev .keeper_pid)"
	until_true 20 is_state ev exited
	is "killed" "$($sm events --since "$since" --until 0s -f vm=ev -f event=die --format json | tail -n1 | jq -r .attributes.reason)" "keeper-died"
	out $sm explain # the newest
	has "why" "$out" '^Its keeper, the program that looks after it, crashed or was killed\.$'
	$sm rm ev >/dev/null
	out -125 $sm events -f colour=red
	has "no such filter" "$err" 'colour=red'
}

limit_diff=240
test_diff() {
	# what a VM has changed of its image and of a directory that it has copy-on-write, looked at, then taken over: all or some of it, and nothing outside
	mkdir -p src/dir out
	echo old >src/file
	echo old >src/dir/gone
	echo mine >src/dir/mine
	echo outside >out/secret
	vm df -v ./src:/src:cow --tmpfs /scratch
	is "at first" "$($sm diff df | sort | tr '\n' ' ')" "A /scratch A /src "
	$sm exec df sh -c 'echo x >/etc/new; rm /srv/data; echo y >>/etc/passwd; touch /scratch/x
		cd /src; echo new >file; rm dir/gone; mkdir more; echo 1 >more/one; echo 2 >more/two; ln -s /etc/passwd more/link; chmod 4755 more/one; mknod more/dev c 1 3'
	is "the image's" "$($sm diff df | grep -v /src | sort | tr '\n' ' ')" "A /etc/new A /scratch C /etc C /etc/passwd C /srv D /srv/data "
	is "the directory's" "$($sm diff df | grep /src/ | sort | tr '\n' ' ')" \
		"A /src/more A /src/more/dev A /src/more/link -> /etc/passwd A /src/more/one A /src/more/two C /src/dir C /src/file D /src/dir/gone "
	is "as JSON" "$($sm diff --format json df | jq -c '.[] | select(.path == "/src/more/two") | [.kind, .size]')" '["A",2]'
	is "nothing has reached the host" "$(cat src/file src/dir/gone; ls src)" $'old\nold\ndir\nfile'

	out $sm apply df /src/more/two /src/dir
	is "some" "$(sort <<<"$out")" $'A /src/more/two\nD /src/dir/gone'
	is "some" "$(cat src/file src/more/two src/dir/mine; ls src/more src/dir | tr '\n' ' ')" $'old\n2\nmine\nsrc/dir: mine  src/more: two '
	out -125 $sm apply df
	has "a device" "$err" '/src/more/dev: a device is not made'
	is "all" "$(cat src/file; stat -c '%n %A %U' src/more/one; readlink src/more/link)" "new
src/more/one -rwxr-xr-x $(id -un)
/etc/passwd"
	[ ! -e src/more/dev ] || fail "a device was made"
	out -125 $sm apply df /src/never
	has "nothing there" "$err" 'df has changed nothing of /src/never$'
	out -125 $sm apply df /etc/new
	has "not of this host" "$err" 'has /etc/new in no directory of the host with cow'
	out -125 $sm apply df src
	has "no path" "$err" 'begin with /'

	# a directory of the host that has become a link meanwhile is not followed: apply says so, or, where the VM has heard of it by then, puts the
	# VM's directory in the link's place
	local rc=0
	rm -r src/dir
	ln -s ../out src/dir
	$sm exec df sh -c 'rm /src/file; echo planted >/src/dir/secret'
	$sm apply df /src/dir >applied 2>&1 || rc=$?
	is "outside" "$(cat out/*)" "outside"
	if [ -L src/dir ]; then
		[ $rc -eq 125 ] || fail "apply: status $rc, and the link is still there: $(cat applied)"
	else
		is "in the link's place" "$rc $(cat src/dir/secret)" "0 planted"
	fi
	$sm stop -t 1 df >/dev/null
	out $sm diff df
	has "of one that has ended" "$out" '^A /etc/new$'
	has "of one that has ended, a directory" "$out" '^D /src/file$'
	$sm rm df >/dev/null
}
