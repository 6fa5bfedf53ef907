# SPDX-License-Identifier: Apache-2.0
# cp: files between the host and a VM, as docker has it.

limit_copy=480
test_copy() {
	# files, trees and tar streams go both ways and stay what they are; a VM that does not run says so
	needs tar
	vm c
	mkdir -p src/sub
	echo one >src/one
	echo two >"src/sub/a name"
	chmod 640 src/one
	ln src/one src/sub/same
	ln -s one src/link
	touch -d '2001-02-03 04:05:06.123456789 UTC' src/one
	truncate -s 50M src/sparse
	head -c 3000000 /dev/urandom >src/large

	# in: as a new name, into a directory, contents alone, one file; then a look from inside
	out $sm cp src c:/srv/new
	is "quiet" "$out$err" ""
	out $sm cp src c:/srv
	out $sm cp src/. c:/home/alice
	out $sm cp src/one c:/srv/renamed
	out $sm cp 'src/sub/a name' c:srv/src/link # what the link leads to
	out $sm exec c sh -c 'cd /srv/new; stat -c "%a %u %g %y %h" one; cat "sub/a name"; readlink link; stat -c %s,%b sparse | sed "s/,0*[0-9]\{1,2\}$/ few/"
		sha256sum <large; [ -f ../src/one ] && [ -f /home/alice/one ] && cat ../renamed ../src/one; stat -c %U /home/alice'
	is "inside" "$out" "640 0 0 2001-02-03 04:05:06.123456789 +0000 2
two
one
52428800 few
$(sha256sum <src/large)
one
two
alice"
	out -125 $sm cp src/one c:/no/where
	has "no parent" "$err" '/no/where.*No such file'
	out -125 $sm cp src c:/srv/renamed
	has "onto a file" "$err" 'cannot take the place of a file'
	sleep 3 | (
		rc=0
		timeout --preserve-status -s INT 1 $sm cp - c:/tmp 2>cancelled || rc=$?
		is "interrupted" "$rc" 130
	)
	has "interrupted" "$(cat cancelled)" 'the copy was cancelled'
	out -125 $sm cp src/one c:/dev/null
	has "onto a device" "$err" '/dev/null: neither a file nor a directory'
	mkfifo pipe
	out -125 $sm cp c:/etc/passwd pipe
	has "onto a pipe" "$err" 'pipe: neither a file nor a directory'
	[ -p pipe ] || fail "the pipe was replaced"
	rm pipe

	# out: into a new name, and what was read is what was written
	out $sm cp c:/srv/new back
	[ -z "$(diff -r --no-dereference src back)" ] || fail "not the same: $(diff -r --no-dereference src back)"
	is "time" "$(stat -c '%a %y' back/one)" "$(stat -c '%a %y' src/one)"
	[ back/one -ef back/sub/same ] || fail "two files of one with two names"
	[ "$(stat -c %b back/sparse)" -lt 1000 ] || fail "holes are gone"
	out $sm cp c:/proc/version v
	has "made up by the kernel" "$(cat v)" '^Linux'
	out $sm cp -L c:/bin/sh sh
	[ -s sh ] && [ ! -L sh ] || fail "-L"

	# tar streams
	$sm cp c:/srv/new - | tar tf - | sort >list
	has "names" "$(cat list)" '^new/sub/a name$'
	mkdir untar
	$sm cp c:/srv/new/. - | tar xf - -C untar
	[ -z "$(diff -r --no-dereference src untar)" ] || fail "not the same through tar"
	[ untar/one -ef untar/sub/same ] || fail "a hard link through tar"
	is "time through tar" "$(stat -c %y untar/one)" "$(stat -c %y src/one)"
	tar cf - -C src . | $sm cp - c:/tmp
	out $sm exec c sh -c 'cat "/tmp/sub/a name"; stat -c %a /tmp'
	is "a tar stream in" "$out" "two
1777"
	tar cPf evil.tar --transform 's,^,../../,' src/one 2>/dev/null
	out -125 $sm cp - c:/tmp <evil.tar
	has "a name that leads out" "$err" 'leads out'

	# what a hostile tree may not do here
	$sm exec c sh -c 'mkdir /e && cd /e && cp /bin/busybox s && chmod 6755 s && ln -s /tmp out && mknod dev c 1 3' >/dev/null
	out -125 $sm cp c:/e hostile
	has "a device" "$err" 'dev: Operation not permitted'
	$sm exec c rm /e/dev
	mkdir -p hostile
	ln -sfn "$PWD/src" hostile/out
	out $sm cp c:/e/. hostile
	is "no set-id" "$(stat -c %a hostile/s)" 755
	is "links" "$(readlink hostile/out)" /tmp

	# a user's mistakes
	out -125 $sm cp src/one src/two
	has "no VM" "$err" 'VM:PATH'
	out -125 $sm cp absent c:/tmp
	has "absent" "$err" 'absent: No such file'

	# one that has ended: its files go both ways, and it is what it was otherwise
	$sm exec c sh -c 'echo kept >/srv/kept'
	$sm stop -t 1 c >/dev/null
	echo put >put
	local before
	before=$($sm inspect c | jq -c '.[0] | [.state, .finished]')
	out $sm cp c:/srv/kept got
	is "from one that has ended" "$(cat got)" kept
	out $sm cp put c:/srv/put
	is "as it was" "$($sm inspect c | jq -c '.[0] | [.state, .finished]') $($sm ps -q | wc -l)" "$before 0"
	out $sm start c
	out $sm exec c cat /srv/put
	is "into one that had ended" "$out" put
	$sm rm -f c >/dev/null
}
