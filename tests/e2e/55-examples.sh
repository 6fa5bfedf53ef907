# SPDX-License-Identifier: Apache-2.0
# The examples: programs of others, built from the public header and the library alone.

examples() { # examples NAME...: compiles them into the working directory, as strictly as anybody might
	needs cc
	local e
	for e; do
		cc -std=c11 -Wall -Wextra -Werror -O1 -pthread -o "$e" "$SM_TOP/examples/$e.c" -I "$SM_TOP/include" -L "$SM_BIN/../lib" -l:libsupermachine.so.0
	done
	export LD_LIBRARY_PATH=$SM_BIN/../lib SUPERMACHINE_LIBEXEC=$SM_BIN
}

limit_hello=240
test_hello() {
	# sm_run: a command's output, input and outcome in one call; what does not run is an outcome too
	examples hello
	box
	out -7 timeout 100 ./hello box sh -c 'read x; echo "got $x"; echo oops >&2; exit 7'
	is "output" "$out" "got from outside"
	has "errors and outcome" "$err" '^oops$'
	has "outcome" "$err" 'hello: exited, status 7, [0-9.]+ s, [1-9][0-9]* KiB$'
	out -127 timeout 100 ./hello box no-such-command
	has "not found" "$err" 'hello: not-found, status 127'
	out -125 timeout 60 ./hello no-such-image true
	has "no image" "$err" 'no-such-image'
	is "nothing is left" "$($sm ps -aq)" ""
}

limit_runner=300
test_runner() {
	# a pool of VMs: many jobs, each in one that nobody has used; what a job leaves is not there for the next
	examples runner
	box
	local i
	for i in 1 2 3 4 5 6; do
		printf 'ls /tmp /left 2>/dev/null; echo me >/left; cat /left; echo $((%d * 7)); exit %d\n' $i $((i % 2)) >job$i
	done
	echo 'i=0; echo first; while [ $i -lt 3000 ]; do echo "line $i"; i=$((i+1)); done; echo last' >job7
	out -1 timeout 280 ./runner box sh job1 job2 job3 job4 job5 job6 job7
	for i in 1 2 3 4 5 6; do
		has "job $i" "$(grep -A4 "== job$i:" <<<"$out" | tr '\n' ' ')" "== job$i: exited, status $((i % 2)) /tmp: job me $((i * 7)) "
	done
	has "much output" "$(grep -A99999 '== job7:' <<<"$out" | tr '\n' ' ')" '== job7: exited, status 0 first line 0 .* bytes \.\.\. .* line 2999 last'
	has "accounts" "$err" 'runner: 7 leases, [0-9] served at once, 0 failures'
	is "nothing is left" "$($sm ps -aq)" ""
}

limit_leases=300
test_leases() {
	# a lease has mounts, volumes, ports and an environment of its own; files, processes, memory, ports, clock and environment of one are nothing to the next
	needs cc
	cc -std=c11 -Wall -Wextra -Werror -O1 -D_GNU_SOURCE -o lease "$SM_TOP/tests/e2e/lease.c" -I "$SM_TOP/include" -L "$SM_BIN/../lib" -l:libsupermachine.so.0
	box
	mkdir data
	echo "from the host" >data/in
	LD_LIBRARY_PATH=$SM_BIN/../lib SUPERMACHINE_LIBEXEC=$SM_BIN out timeout 280 ./lease box data
	local now
	now=$(date +%s)
	has "the first" "$(tr '\n' ' ' <<<"$out")" '^first: status 0: one from the host  its port: served '
	is "what it wrote" "$(cat data/out)" out
	local looked
	looked=$(sed -n '/^second:/,/^the first/p' <<<"$out")
	has "what the next one finds" "$(tr '\n' ' ' <<<"$looked")" '^second: status 0: 0 0 \[\] [0-9]+  the first one.s port: refused $'
	local clock
	clock=$(sed -n 's/^\([0-9]\{10,\}\)$/\1/p' <<<"$looked")
	[ $((now - clock)) -ge 0 ] && [ $((now - clock)) -lt 300 ] || fail "its clock: $clock, now $now"
	has "the volume" "$out" '^third: status 0: kept'
	has "ports for an idle one" "$(tr '\n' ' ' <<<"$out")" 'fourth: status 0:  its port: again '
	has "accounts" "$out" '^4 leases, 0 failures$'
	is "nothing is left" "$($sm ps -aq)" ""
	$sm volume rm lease-volume
}

limit_again=600
test_again() {
	# a VM that is leased again and again is each time what it was: files, memory, processes, mounts, disk, detached commands; its clock is right and no random number comes twice
	needs cc
	cc -std=c11 -Wall -Wextra -Werror -O1 -D_GNU_SOURCE -o lease "$SM_TOP/tests/e2e/lease.c" -I "$SM_TOP/include" -L "$SM_BIN/../lib" -l:libsupermachine.so.0
	box
	local n cpus
	for cpus in 1 2; do
		n=$(scaled $((cpus == 1 ? 3 : 2)) 100)
		LD_LIBRARY_PATH=$SM_BIN/../lib SUPERMACHINE_LIBEXEC=$SM_BIN out timeout 500 ./lease box again $cpus "$n"
		is "one VM" "$(grep '^id: ' <<<"$out" | sort -u | wc -l)" 1
		is "devastated" "$(grep -c '^devastate: status 0: done' <<<"$out")" "$n"
		is "what each finds" "$(grep -A 5 '^look: status [01]: 2$' <<<"$out" | tr -d '\n' | sed 's/--/\n/g' | sort | uniq -c | sed 's/^ *//')" "$n look: status 1: 20000"
		is "no detached command" "$(grep '^detached: ' <<<"$out" | sort -u)" "detached: 0"
		is "random numbers" "$(grep -A 1 '^random: ' <<<"$out" | sed 's/^random: //; /^--/d' | sort | uniq -d)" ""
		is "clocks that are wrong" "$(sed -n 's/^wall: //p; s/^date: status 0: //p' <<<"$out" | paste - - | awk '$2 < $1 - 1 || $2 > $1 + 20')" ""
		has "accounts" "$out" "^$n leases, [0-9]+ restores, 0 failures, 0 deaths$"
	done
	is "nothing is left" "$($sm ps -aq)" ""
}

limit_branch_search=300
test_branch_search() {
	# several ways on from one moment are tried at once, each in a copy of a VM: the first that succeeds wins and ends the others
	examples branch-search
	box
	out timeout 200 ./branch-search box 'echo 42 >/secret; mkfifo /never' \
		'echo 1 >/secret; exit 3' 'cat /never' '[ "$(cat /secret)" = 42 ] && sleep 1 && echo "it is $(cat /secret)"'
	is "the winner's output" "$out" "it is 42"
	has "one that failed" "$err" 'try 1 ended with status 3'
	has "the winner" "$err" 'try 3 won$'
	lacks "one that was ended" "$err" 'try 2'
	is "nothing is left" "$($sm ps -aq)" ""
}

limit_warm=300
test_warm() {
	# an interpreter is warmed up once; every run goes on from there, and none sees another
	examples warm
	box
	local interpreter='n=$(cat /proc/uptime); touch /tmp/warm; while read -r line; do eval "$line"; done'
	out -3 timeout 200 ./warm ready box sh -c "$interpreter" <<<'mine=1; echo "was up: ${n:+yes}"; exit 3'
	is "first" "$out" "was up: yes"
	out timeout 90 ./warm ready <<<'echo "n ${n:+set} mine ${mine:-not set}"'
	is "second" "$out" "n set mine not set"
	out $sm snapshot rm ready
	is "nothing is left" "$($sm ps -aq)" ""
}

limit_build=200
test_build() {
	# an image with files of one's own is built once, and run
	examples build
	box
	mkdir site
	echo page >site/index.html
	out timeout 150 ./build site:1 box site /srv/www cat /srv/www/index.html
	is "output" "$out" page
	has "built" "$err" '^site:1 is [0-9a-f]{12}$'
	out timeout 90 ./build site:1 box site /srv/www cat /srv/www/index.html
	is "output" "$out" page
	has "not again" "$err" '^site:1 is [0-9a-f]{12}, as before$'
	$sm rmi site:1
	is "nothing is left" "$($sm ps -aq)" ""
}

limit_web=200
test_web() {
	# a server behind a port of its own
	examples web
	box
	out timeout 150 ./web 8080 /passwd box httpd -f -p 8080 -h /etc
	has "answer" "$out" '^HTTP/1\.[01] 200'
	has "page" "$out" '^alice:x:1000'
	is "nothing is left" "$($sm ps -aq)" ""
}

limit_backend=240
test_backend() {
	# a file system of one's own behind -v: a program on this host serves it, wherever the VM runs, to any number of VMs, and is used again when it is started again
	needs cc
	examples tarfs
	mkdir -p t/sub
	echo one >t/a
	seq 20000 >t/sub/big
	tar -cf t.tar -C t .
	serve_tar() {
		rm -f tar.sock
		./tarfs --share tar.sock t.tar >tar.log 2>&1 &
		tarfs=$!
		until_true 20 test -S tar.sock
	}
	box
	out -125 run_box -v "fs:$PWD/tar.sock:/tar" box true
	has "nobody" "$err" 'nobody serves a file system'
	serve_tar
	vm user -v "fs:$PWD/tar.sock:/tar:ro"
	out $sm exec user sh -c 'cd /tar; cat a; md5sum <sub/big; ls; touch new || echo refused'
	is "guest" "$out" "one
$(md5sum <t/sub/big)
a
sub
refused"
	is "ps" "$(field user '.mounts[0] | "\(.type) \(.read_only)"')" "fs true"
	kill -9 $tarfs
	out -1 $sm exec user cat /tar/sub/big
	serve_tar
	until_true 20 $sm exec user grep -qx one /tar/a
	out $sm exec user sh -c 'md5sum </tar/sub/big'
	is "again" "$out" "$(md5sum <t/sub/big)"
	$sm rm -f user >/dev/null
	kill $tarfs
	wait $tarfs
}
