# SPDX-License-Identifier: Apache-2.0
# commit: an image of what a VM has changed.

# The tree of a VM's own file system, a line for each file, without what the kernel makes of directories and what SETUP touches.
survey='find / -xdev ! -path / ! -path /etc ! -path "/etc/host*" ! -path /etc/resolv.conf ! -path "/proc*" ! -path "/sys*" ! -path "/dev*" ! -path /tmp/count ! -path "/mnt*" ! -path "/bin/*" ! -path "/scratch*" |
	sort | while read -r f; do
		if [ -d "$f" ] && [ ! -L "$f" ]; then stat -c "%n %F %a %u %g %y" "$f"; else stat -c "%n %F %a %u %g %y %h %t,%T %s" "$f"; fi
		[ -L "$f" ] && readlink "$f"
		[ -f "$f" ] && [ ! -L "$f" ] && sha256sum <"$f"
		true
	done'

limit_commit=480
test_commit() {
	# what a VM has made, changed, replaced and removed is what a VM of the image finds, by owner, mode, time, link and attribute; its mounts are no part of it
	mkdir -p mine
	echo theirs >mine/file
	mkdir -p tree/old/deep
	echo a >tree/old/deep/a
	echo b >tree/old/b
	echo x >tree/x
	echo go >tree/gone
	image base --layer tree --cmd '["sh"]' --env PATH=/bin --env GREETING=hello --label is=base --entrypoint '["/bin/busybox"]'
	$sm run -d -m 256M --name w -v "$PWD/mine:/mnt/made/for/it" --tmpfs /scratch -e MORE=1 --label made=here -w /work -u 0 base sh -c '
		rm -r /old /gone; mkdir /old; echo new >/old/n; rm /x; mkdir /x; echo in >/x/y
		echo c >/etc/one; chown 5:6 /etc/one; chmod 4711 /etc/one; ln /etc/one /etc/two; touch -d "2001-02-03 04:05:06" /etc/one
		mkfifo /fifo; mknod /mydev c 5 7; ln -s no/where /link; mkdir -m 1700 /sticky; chown 7 /sticky; truncate -s 3M /sparse
		chmod 750 /home/alice; rm -r /srv; echo now >/srv; rm /etc/group; ln /etc/passwd /etc/also; echo t >/scratch/file
		mkdir -p "/a b/$(printf "%0200d" 0)"; echo long >"/a b/$(printf "%0200d" 0)/$(printf "%0200d" 1)"
		while :; do echo >>/tmp/count; usleep 20000; done' >/dev/null
	until_true 20 $sm exec w test -s /tmp/count
	echo attribute >withattr
	if python3 -c 'import os; os.setxattr("withattr", "user.note", b"a\0b=\n")' 2>/dev/null; then $sm cp withattr w:/root/withattr; fi
	out $sm commit -m 'what was done' -a me -c 'ENV X=y Z="a b"' -c 'CMD ["sh","-c","echo by itself"]' -c 'EXPOSE 80 90/udp' -c 'LABEL k=v' w made:1
	id=$out
	has "an id" "$id" '^sha256:[0-9a-f]{64}$'
	before=$($sm exec w sh -c 'wc -l </tmp/count')
	until_true 10 $sm exec w sh -c "[ \$(wc -l </tmp/count) -gt $((before + 3)) ]"

	# the same tree, to the last line
	$sm exec w sh -c "$survey" >of-vm
	$sm run --rm -m 256M --entrypoint '' made:1 sh -c "$survey" >of-image
	diff of-vm of-image || fail "not the same tree"
	has "it is there" "$(cat of-image)" '^/etc/one regular file 4711 5 6 2001-02-03 04:05:06.0* \+0000 2 0,0 2$'
	has "a directory of its own" "$(cat of-image)" '^/sticky directory 1700 7 0 '
	has "a device" "$(cat of-image)" '^/mydev character special file .* 5,7 0$'
	lacks "what was removed" "$(cat of-image)" '^/(gone|old/b|old/deep|etc/group)'
	is "mounts" "$($sm run --rm -m 256M --entrypoint '' made:1 sh -c 'echo /mnt* /scratch* /run*')" '/mnt* /scratch* /run*'
	has "one in place of a directory" "$(cat of-image)" '^/srv regular file'
	is "an opaque directory" "$(grep -c '^/old' of-image)" 2
	is "a long name" "$(grep -c '^/a b/0*/0*1 regular' of-image)" 1
	is "not in the image" "$($sm run --rm -m 256M --entrypoint '' made:1 cat /etc/one)" c

	# configuration
	is "its command" "$($sm run --rm -m 256M made:1)" "by itself"
	out $sm inspect made:1
	is "configuration" "$(jq -c '.[0].config | [.cmd, .entrypoint, .env, .working_dir, .user, .exposed_ports, (.labels | sort)]' <<<"$out")" \
		'[["sh","-c","echo by itself"],["/bin/busybox"],["PATH=/bin","GREETING=hello","MORE=1","X=y","Z=a b"],"/work","0",["80/tcp","90/udp"],["is=base","k=v","made=here"]]'
	is "history" "$(jq -r '.[0].image_config | .author, .history[-1].comment, .history[-1].author' <<<"$out")" $'me\nwhat was done\nme'
	is "id" "sha256:$($sm images --no-trunc --format json | jq -r '.[] | select(.names[]? == "made:1") | .id')" "$id"
	if [ -n "$($sm run --rm -m 256M --entrypoint '' made:1 sh -c 'test -e /root/withattr && echo y')" ]; then
		$sm run -d -m 256M --name x --entrypoint '' made:1 sleep 100 >/dev/null
		$sm cp x:/root/withattr back
		is "an attribute" "$(python3 -c 'import os; print(os.getxattr("back", "user.note"))')" "b'a\\x00b=\\n'"
		$sm rm -f x >/dev/null
	fi
	$sm rm -f w >/dev/null
}

limit_commit_again=480
test_commit_again() {
	# a commit of a commit, of a VM that has ended, of one that has its files in memory; with names, without, removed, collected
	vm one
	$sm exec one sh -c 'mkdir /v; echo 1 >/v/1; echo gone >/v/gone; mkdir /v/d; echo old >/v/d/old'
	out $sm commit -q one step:1
	$sm stop -t 0 one >/dev/null
	out $sm commit one step:ended
	is "of one that has ended" "$($sm run --rm -m 256M step:ended cat /v/1)" 1
	$sm rm -f one >/dev/null
	$sm run -d -m 256M --name two step:1 sh -c 'rm -r /v/gone /v/d; mkdir /v/d; echo 2 >/v/2; sleep 1000' >/dev/null
	until_true 20 $sm exec two test -s /v/2
	out $sm commit --pause=false two step:2
	is "layers" "$($sm inspect step:2 | jq '.[0].layers | length')" 3
	$sm rm -f two >/dev/null
	out $sm rmi step:1 step:ended
	$sm prune >/dev/null 2>&1
	out $sm run --rm -m 256M step:2 sh -c 'cat /v/1 /v/2; ls /v /v/d'
	is "all of it" "$(tr '\n' ' ' <<<"$out")" '1 2 /v: 1 2 d  /v/d: '
	blob=$($sm inspect step:2 | jq -r '.[0].parts[-1].path')
	[ -s "$blob" ] || fail "no layer"
	out $sm rmi step:2
	$sm prune >/dev/null
	[ ! -e "$blob" ] || fail "its layer is still there"

	vm mem --tmpfs-root
	$sm exec mem sh -c 'echo m >/m'
	out $sm commit mem
	id=$out
	is "without a name" "$($sm run --rm -m 256M "$id" cat /m)" m
	$sm stop -t 0 mem >/dev/null
	out -125 $sm commit mem x:1
	has "files in memory" "$err" 'its files were in memory'
	$sm rm -f mem >/dev/null
	out $sm rmi "$id"
}

limit_commit_refused=300
test_commit_refused() {
	# what cannot be committed is said in a line, and nothing is left of it
	vm r
	n=$($sm images -q | wc -l)
	out -125 $sm commit nobody x:1
	has "no VM" "$err" 'nobody'
	out -125 $sm commit r 'Not/A Name'
	has "no name" "$err" 'Not/A Name'
	for c in 'FROM x' 'CMD [1]' 'CMD ["a"' ENV 'ENV =x' 'EXPOSE 0' 'EXPOSE 1-x' 'EXPOSE 80/icmp' 'WORKDIR a b' 'USER ""x y' 'LABEL "a=b'; do
		out -125 $sm commit -c "$c" r x:1
		has "change" "$err" "change '"
	done
	$sm exec r sh -c 'mkdir /d; echo >/d/.wh.x'
	out -125 $sm commit r x:1
	has "a whiteout's name" "$err" '/d/\.wh\.x: an image cannot hold a name'
	$sm exec r rm -r /d
	$sm pause r >/dev/null
	out -125 $sm commit r x:1
	has "paused" "$err" 'paused'
	$sm unpause r >/dev/null
	is "nothing was made" "$($sm images -q | wc -l)" "$n"
	$sm rm -f r >/dev/null
}

limit_commit_killed=480
test_commit_killed() {
	# killed at any time it leaves no image, nothing that prune does not find, and a VM that goes on
	vm k --tmpfs /t -- sh -c 'dd if=/dev/urandom of=/large bs=1M count=60 2>/dev/null; while :; do echo >>/t/count; usleep 20000; done'
	until_true 60 $sm exec k test -s /t/count
	images=$(dirname "$($sm inspect box | jq -r '.[0].parts[0].path')")/..
	for delay in 0.05 0.2 0.5 1 1.5; do
		$sm commit k killed:1 >/dev/null 2>&1 &
		pid=$!
		sleep $delay
		kill -9 $pid 2>/dev/null || break
		wait $pid 2>/dev/null || true
		before=$($sm exec k sh -c 'wc -l </t/count')
		until_true 15 $sm exec k sh -c "[ \$(wc -l </t/count) -gt $before ]"
		lacks "no image" "$($sm images)" '^killed'
	done
	wait
	$sm rmi killed:1 >/dev/null 2>&1 || true
	$sm prune >/dev/null 2>&1
	is "temporaries" "$(find "$images/tmp" -type f ! -name 'pin-*' | wc -l)" 0
	out $sm commit k killed:2
	is "the next one" "$($sm run --rm -m 256M killed:2 stat -c %s /large)" 62914560
	$sm rm -f k >/dev/null
	out $sm rmi killed:2
}
