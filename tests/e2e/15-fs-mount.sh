# SPDX-License-Identifier: Apache-2.0
# fs mount: the file server on this host's own kernel. No VM is needed.

can_mount() {
	[ -c /dev/fuse ] || skip "this host has no /dev/fuse"
	[ "$(id -u)" = 0 ] || command -v fusermount3 >/dev/null || skip "needs root or fusermount3"
}

# Waits for the server's word.
mounted() {
	local i
	for i in $(seq 100); do
		! grep -q "is mounted" server.log || return 0
		kill -0 "$server" || break
		sleep 0.1
	done
	fail "not mounted: $(cat server.log)"
}

# serve ARGUMENTS... MOUNTPOINT: fs mount in the background; returns when it is mounted. Its pid is in $server, its messages in server.log.
serve() {
	local at=${!#}
	can_mount
	[ -e "$at" ] || mkdir "$at" 2>/dev/null || true # it may be a dead mount
	: >server.log
	$sm fs mount "$@" 2>server.log &
	server=$!
	trap 'kill -9 $server 2>/dev/null || true; umount -l "$SM_TMP"/mnt 2>/dev/null || true' EXIT
	mounted
	mountpoint -q "$at"
}

ends() { # ends STATUS: the server has ended by itself
	local rc=0
	wait "$server" || rc=$?
	is "exit status of fs mount" "$rc" "$1"
}

test_directory() {
	# a directory is mounted: what is written on one side is read on the other, and ctrl-c takes it away
	mkdir src
	echo before >src/a
	serve --cache none src mnt
	is "a" "$(cat mnt/a)" before
	echo through >mnt/b
	is "b" "$(cat src/b)" through
	mkdir mnt/d && mv mnt/a mnt/d/ && ln mnt/b mnt/d/c && ln -s d/c mnt/l
	is "tree" "$(cd src && find . | sort | xargs)" ". ./b ./d ./d/a ./d/c ./l"
	is "link" "$(cat mnt/l)" through
	has "mounts" "$(grep " $SM_TMP/mnt " /proc/mounts)" '^src .* fuse.supermachine '
	kill -INT "$server"
	ends 0
	! mountpoint -q mnt
	is "afterwards" "$(ls mnt)" ""
}

test_memory() {
	# a file system in memory: empty at first, full when it is full, gone afterwards
	serve --backend mem --size 1M mnt
	echo hello >mnt/f
	is "f" "$(cat mnt/f)" hello
	out -1 dd if=/dev/zero of=mnt/big bs=64k count=32
	has "full" "$err" 'No space left'
	rm mnt/big
	dd if=/dev/zero of=mnt/small bs=64k count=4 status=none
	kill -TERM "$server"
	ends 0
	is "afterwards" "$(ls mnt)" ""
}

test_readonly() {
	# --ro: nothing can be changed
	mkdir src && echo x >src/f
	serve --ro src mnt
	is "f" "$(cat mnt/f)" x
	out -1 touch mnt/g
	has "error" "$err" 'Read-only file system'
	out -1 rm mnt/f
	umount mnt || fusermount3 -u mnt
	ends 0
}

test_links() {
	# --symlinks deny: neither seen nor made; opaque: as they are; follow: what they lead to beneath the directory
	mkdir src && ln -s /etc/hostname src/l
	serve --symlinks deny src mnt
	out -1 readlink mnt/l
	out -1 ln -s x mnt/m
	kill "$server"
	ends 0
	serve src mnt
	is "link" "$(readlink mnt/l)" /etc/hostname
	kill "$server"
	ends 0
	echo inside >src/f
	ln -s /f src/in
	serve --symlinks follow src mnt
	is "what a link leads to" "$(cat mnt/in)" inside
	out -1 cat mnt/l
	has "a link out of the directory" "$err" 'No such file'
}

test_audit() {
	# --audit writes down what is done through the mount and what is refused, by the names that the files have in the directory
	local what
	mkdir -p src/d
	echo x >src/d/f
	ln -s f src/d/l
	serve --audit log.json --symlinks deny src mnt
	is "f" "$(cat mnt/d/f)" x
	echo y >mnt/new
	mv mnt/new 'mnt/d/a "b'
	rm mnt/d/f
	out -1 ln -s x mnt/m
	kill "$server"
	ends 0
	jq -r '[.op, .path, .to // "-", .write, .result] | join(" ")' log.json >lines
	for what in "open $SM_TMP/src/d/f - false ok" "create $SM_TMP/src/new - true ok" "rename $SM_TMP/src/new $SM_TMP/src/d/a \"b true ok" \
		"remove $SM_TMP/src/d/f - true ok"; do
		grep -qxF -- "$what" lines || fail "no line '$what' in: $(cat lines)"
	done
	has "refused" "$(cat lines)" "^make link $SM_TMP/src/m - true E(ACCES|PERM)$"
	jq -es --arg mount "$SM_TMP/mnt" 'all(.time_ns > 1600000000000000000 and .mount == $mount and (has("vm") | not))' log.json >/dev/null || fail "$(cat log.json)"
	# it is added to, and lies out of reach of those whom it tells of, unless they can write nothing
	serve --audit log.json src mnt
	cat mnt/d/a* >/dev/null
	kill "$server"
	ends 0
	[ "$(wc -l <log.json)" -gt "$(wc -l <lines)" ] || fail "not added to"
	out -125 $sm fs mount --audit src/log src mnt
	has "within reach" "$err" 'lies in the directory that the mount lets be written to'
	out -125 $sm fs mount --audit log --backend mem mnt
	has "nothing to tell of" "$err" 'directories that this process serves itself'
	out -125 $sm fs mount --audit . src mnt
	has "no file" "$err" 'audit file'
	serve --ro --audit src/log src mnt
	cat mnt/d/a* >/dev/null
	kill "$server"
	ends 0
	has "read-only" "$(cat src/log)" '"op":"open"'
}

test_killed() {
	# after kill -9 of the server the mount point is dead; the next fs mount replaces it
	mkdir src && echo x >src/f
	serve src mnt
	kill -9 "$server"
	ends 137
	out -1 cat mnt/f
	has "dead" "$err" 'not connected'
	serve src mnt
	is "f" "$(cat mnt/f)" x
	kill "$server"
	ends 0
	! mountpoint -q mnt
	# a directory that a living server serves is left alone
	serve src mnt
	out -125 timeout 20 $sm fs mount src mnt
	has "error" "$err" 'in use by another server'
	is "f" "$(cat mnt/f)" x
}

test_busy() {
	# a mount in use goes away at once all the same; who used it gets his data or an error, not a hang
	mkdir src && echo x >src/f
	serve src mnt
	(cd mnt && exec sleep 60) &
	local user=$!
	exec 7<mnt/f
	kill "$server"
	ends 0
	! mountpoint -q mnt
	# where the kernel moves the file's data itself it still can; else this is an error
	local rc=0
	timeout 10 cat <&7 >read 2>said || rc=$?
	[ $rc -eq 0 ] && is "data" "$(cat read)" x || has "error" "$(cat said)" 'not connected'
	exec 7<&-
	kill "$user"
}

test_owners() {
	# as root: every user works in the mount with the rights that the files give him, and owns what he makes
	[ "$(id -u)" = 0 ] || skip "needs root"
	chmod 755 . "$SM_TMP" "$(dirname "$SM_TMP")"
	mkdir -m 755 src && mkdir -m 1777 src/tmp && echo secret >src/s && chmod 600 src/s
	serve src mnt
	out -1 setpriv --reuid 1234 --regid 1235 --clear-groups cat mnt/s
	has "error" "$err" 'Permission denied'
	setpriv --reuid 1234 --regid 1235 --clear-groups sh -c 'umask 027; echo mine >mnt/tmp/f'
	is "owner" "$(stat -c '%u:%g %a' src/tmp/f)" "1234:1235 640"
	out -1 setpriv --reuid 4321 --regid 1 --clear-groups rm -f mnt/tmp/f
	kill "$server"
	ends 0
	# --ids caller: the files are the server's, the owners are kept beside them
	serve --ids caller src mnt
	chown 77:78 mnt/s
	is "owner seen" "$(stat -c %u:%g mnt/s)" 77:78
	is "owner on the host" "$(stat -c %u:%g src/s)" 0:0
}

test_ordinary_user() {
	# an ordinary user mounts a directory of his own through fusermount3, and only he gets in
	[ "$(id -u)" = 0 ] || skip "needs root, to be another user"
	command -v fusermount3 >/dev/null || skip "needs fusermount3"
	can_mount
	chmod 755 "$SM_TMP" "$(dirname "$SM_TMP")"
	mkdir bin home && cp "$SM_BIN/supermachine" "$(ldd "$SM_BIN/supermachine" | awk '/libsupermachine/ { print $3 }')" bin/
	mkdir home/src home/mnt && echo mine >home/src/f && chmod 600 home/src/f && chown -R 65534:65534 home
	local as=(setpriv --reuid 65534 --regid 65534 --clear-groups
		env LD_LIBRARY_PATH="$SM_TMP/bin" HOME="$SM_TMP/home")
	: >server.log
	"${as[@]}" bin/supermachine fs mount home/src home/mnt 2>server.log &
	server=$!
	trap 'kill -9 $server 2>/dev/null || true; umount -l home/mnt 2>/dev/null || true' EXIT
	mounted
	is "f" "$("${as[@]}" cat home/mnt/f)" mine
	"${as[@]}" sh -c 'echo new >home/mnt/g'
	is "owner" "$(stat -c %u home/src/g)" 65534
	out -2 ls home/mnt
	kill -9 "$server"
	ends 137
	: >server.log
	"${as[@]}" bin/supermachine fs mount home/src home/mnt 2>server.log &
	server=$!
	mounted
	is "g" "$("${as[@]}" cat home/mnt/g)" new
	kill -INT "$server"
	ends 0
	! mountpoint -q home/mnt
}

test_mistakes() {
	# what cannot be mounted is said in a line or two
	mkdir src mnt && : >file
	out -125 $sm fs mount src
	has "operands" "$err" 'mount point is missing'
	out -125 $sm fs mount nowhere mnt
	has "source" "$err" 'nowhere: No such file'
	out -125 $sm fs mount file mnt
	has "source" "$err" 'file: Not a directory'
	out -125 $sm fs mount src src/../src
	has "itself" "$err" 'would show itself'
	out -125 $sm fs mount src nowhere
	has "mount point" "$err" 'nowhere: No such file'
	out -125 $sm fs mount --share-group g src mnt
	has "daemon" "$err" 'for --backend daemon'
	out -125 $sm fs mount --symlinks sometimes src mnt
	has "symlinks" "$err" 'deny.opaque.follow'
	out -125 $sm fs mount --ids sometimes src mnt
	has "ids" "$err" 'no such choice'
	out -125 $sm fs mount --cache sometimes src mnt
	has "cache" "$err" 'none.auto.always'
	out -125 $sm fs mount --backend mem --cache none mnt
	has "mem" "$err" 'for directories'
	out -125 $sm fs
	has "half" "$err" 'fs: what of it'
}

test_shared_daemon() {
	# mounts of a directory share the process that serves and watches it; when that is killed they go on with the next; it ends by itself
	can_mount
	mkdir -p src a b
	echo hello >src/file
	$sm fs mount --backend daemon src a >a.log 2>&1 &
	first=$!
	$sm fs mount --backend daemon src b >b.log 2>&1 &
	second=$!
	trap 'kill -9 $first $second 2>/dev/null || true; umount -l "$SM_TMP"/a "$SM_TMP"/b 2>/dev/null || true' EXIT
	until_true 20 grep -q "is mounted on" a.log
	until_true 20 grep -q "is mounted on" b.log
	is "a file" "$(cat a/file)" hello
	echo more >>a/file
	is "of the other's" "$(tail -n 1 b/file)" more
	daemons() { pgrep -f "supermachine-fsd --share .*--source $(pwd -P)/src" || true; }
	is "one for both" "$(daemons | wc -l)" 1
	is "sealed, each of its threads" "$(sed -n 's/^\(NoNewPrivs\|Seccomp\):\t/\1 /p' /proc/"$(daemons)"/task/*/status | sort -u | tr '\n' ' ')" "NoNewPrivs 1 Seccomp 2 "
	watches() { cat /proc/"$1"/fdinfo/* 2>/dev/null | grep -c '^inotify wd' || true; }
	is "no file" "$(stat a/later b/later 2>&1 | grep -c 'No such file' || true)" 2
	is "watched once, by that" "$(watches "$(daemons)") $(watches "$first") $(watches "$second")" "1 0 0"
	echo later >src/later
	until_true 5 cmp -s a/later src/later
	until_true 5 cmp -s b/later src/later
	kill -9 "$(daemons)"
	is "again" "$(cat a/file)" $'hello\nmore'
	is "there too" "$(cat b/file)" $'hello\nmore'
	mkdir b/new
	is "one again" "$(daemons | wc -l)" 1
	test -d a/new
	kill "$first" "$second"
	wait "$first" "$second"
	all_gone() { [ -z "$(daemons)" ]; }
	until_true 60 all_gone
	# also when its home was removed meanwhile
	SUPERMACHINE_HOME=$PWD/other $sm fs mount --backend daemon src a >c.log 2>&1 &
	first=$!
	until_true 20 grep -q "is mounted on" c.log
	rm -r other
	kill "$first"
	wait "$first"
	until_true 60 all_gone
}

test_own_backend() {
	# a program of one's own, built from the public header and the library alone, serves a tar archive as tar would unpack it
	can_mount
	needs cc tar
	local format entry='%P %y %m %U:%G %n %s %T@ %l\n'
	cc -std=c11 -Wall -Wextra -Werror -O1 -o tarfs "$SM_TOP/examples/tarfs.c" -I "$SM_TOP/include" -L "$SM_BIN/../lib" -l:libsupermachine.so.0
	mkdir -p tree/d/e plain mnt
	head -c 300000 /dev/urandom >tree/d/big
	head -c 1000 /dev/urandom >tree/$(printf 'long%.0s' $(seq 50))
	ln tree/d/big tree/d/e/same
	ln -s ../d/big tree/d/l
	touch -d @123456789 tree/d/e/same tree/d
	chmod 4751 tree/d/big
	mkfifo tree/d/fifo
	for format in gnu pax ustar; do
		[ $format != ustar ] || rm -r tree/long* # ustar has no room for it
		tar -C tree --format=$format --sort=name -cf t.tar .
		(cd tree && find . -mindepth 1 ! -type d -printf "$entry" | sed -E 's/\.[0-9]+ / /' | sort) >want
		: >server.log
		LD_LIBRARY_PATH=$SM_BIN/../lib ./tarfs t.tar mnt >server.log 2>&1 &
		server=$!
		trap 'kill -9 $server 2>/dev/null || true; umount -l "$SM_TMP"/mnt 2>/dev/null || true' EXIT
		until_true 10 grep -q "are on mnt" server.log
		(cd mnt && find . -mindepth 1 ! -type d -printf "$entry" | sed -E 's/\.[0-9]+ / /' | sort) >got
		diff want got # times to the second: tar keeps no more in two of the formats
		is "directories" "$(cd mnt && find . -type d | sort | xargs)" ". ./d ./d/e"
		(cd tree && find . -type f -print0 | sort -z | xargs -0 sha256sum) >sums
		(cd mnt && sha256sum --quiet -c ../sums)
		out -1 touch mnt/new
		has "read-only" "$err" 'Read-only'
		kill "$server"
		ends 0
	done
	out -1 timeout 20 env LD_LIBRARY_PATH="$SM_BIN/../lib" ./tarfs sums mnt
	has "no archive" "$err" 'not an uncompressed tar'
}
