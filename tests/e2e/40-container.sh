# SPDX-License-Identifier: Apache-2.0
# The container's view: what the image says, and what crun shows for the same image.

# Prints the view, a "key value" line each, in a form that two runtimes can be compared by.
view_script='
echo "cwd $(pwd)"; echo "umask $(umask)"; echo "id $(id)"
echo "argv0 $0"
env | grep -vE "^(HOSTNAME|TERM|_|SHLVL|PWD)=" | sort | sed "s/^/env /"
grep -E "^(Uid|Gid|Groups|SigBlk|SigIgn|SigCgt|Threads|NoNewPrivs):" /proc/self/status | sed "s/^/status /" | grep -v SigCgt
for d in null zero full random urandom tty ptmx; do echo "dev $d $(stat -c "%t:%T %a %F" -L /dev/$d)"; done
for l in fd stdin stdout stderr; do echo "link $l $(readlink /dev/$l)"; done
for m in / /proc /sys /dev /dev/pts /dev/shm; do
	echo "mount $m $(awk -v m=$m "\$2 == m { t = \$3 } END { print t }" /proc/mounts)"
done
echo "shm $(stat -c %a /dev/shm) tmp $(stat -c %a /tmp)"
echo "localhost $(grep -c "^127.0.0.1.*localhost" /etc/hosts) $(ping -c 1 -W 1 127.0.0.1 >/dev/null 2>&1 && echo answers)"
echo "stdin $(readlink /proc/self/fd/0 | cut -d: -f1)"
echo "fds $(ls /proc/self/fd | wc -l)"
echo "cgroup $(awk "\$2 == \"/sys/fs/cgroup\" { print \$3 }" /proc/mounts)"
'

# crun_view USER CWD: the same script in crun, of the same image, where VMs run.
crun_view() {
	needs crun umoci jq
	umoci unpack --image "$SM_TMP/lay:latest" bundle >/dev/null 2>&1
	jq --arg s "$view_script" '.process.terminal = false | .process.noNewPrivileges = false | .process.args = ["sh", "-c", $s, "zero"] | .hostname = "crun"' \
		bundle/config.json >c.json
	mv c.json bundle/config.json
	mkdir -p /tmp/sm-e2e-crun
	beside crun run --bundle "$SM_TMP/bundle" "e2e$$" </dev/null
}

compare_with_crun() { # compare_with_crun MKIMAGE-OPTIONS...
	box
	"$SM_TOP/tests/lib/mkimage" --layer "$SM_SHARED/root" --tag latest "$@" lay >/dev/null
	$sm load --name view "oci:lay" >/dev/null
	crun_view >crun.txt 2>crun.err || skip "crun does not run here: $(head -n 1 crun.err)"
	$sm run -m 256M view sh -c "$view_script" zero >ours.txt
	# What may differ: crun drops capabilities and limits by its own defaults, and the mounts of a container in a namespace.
	# Loopback and /etc/hosts are a container engine's affair, not crun's: test_hostname_and_hosts has them.
	# /: an overlay here, the bundle's file system there. HOME: crun takes it from the bundle, if at all.
	sed -iE -e '/^mount \/ /d' -e '/^fds /d' -e '/^env HOME=/d' -e '/^stdin /d' -e '/^localhost /d' ours.txt crun.txt
	diff -u crun.txt ours.txt || fail "the views differ"
}

test_view_root() {
	# uid 0: environment, directory, ids, umask, signals, devices and mounts are as crun shows them
	compare_with_crun --env PATH=/bin --env GREETING=hello --workdir /srv --cmd '["sh"]'
}

test_view_user() {
	# an ordinary user by name, with groups, as crun shows it
	compare_with_crun --env PATH=/bin --user alice --workdir /home/alice --cmd '["sh"]'
}

test_view_number() {
	# an ordinary user by number, as crun shows it
	compare_with_crun --env PATH=/bin --user 4321:8765 --cmd '["sh"]'
}

test_capabilities() {
	# uid 0 has all capabilities and can mount; others have none
	out run_box box sh -c 'grep Cap /proc/self/status; mkdir /m; mount -t tmpfs none /m && echo mounted'
	has "bounding" "$out" '^CapBnd:.*0000(01ff|003f|007f|00ff)ffffffff$'
	has "effective" "$out" '^CapEff:.*0000(01ff|003f|007f|00ff)ffffffff$'
	has "mount" "$out" '^mounted$'
	out run_box -u alice box sh -c 'grep CapEff /proc/self/status; mount -t tmpfs none /tmp 2>/dev/null || echo refused'
	has "effective" "$out" '^CapEff:.*0000000000000000$'
	has "mount" "$out" '^refused$'
}

test_hostname_and_hosts() {
	# hostname, /etc/hosts and /etc/resolv.conf are there and agree
	out run_box --hostname duck box sh -c 'hostname; cat /etc/hostname; grep duck /etc/hosts; test -f /etc/resolv.conf && echo resolv; cat /proc/sys/kernel/hostname'
	is "host name" "$(head -n 2 <<<"$out" | xargs)" "duck duck"
	has "hosts" "$out" '^[0-9.]+[[:space:]].*duck'
	has "resolv.conf" "$out" '^resolv$'
	local id
	out run_box box hostname
	[[ $out =~ ^[0-9a-f]{12}$ ]] || fail "default host name: $out"
	out run_box box sh -c 'grep localhost /etc/hosts; ping -c 1 -W 5 127.0.0.1; ping -c 1 -W 5 localhost'
	has "hosts" "$out" '^127.0.0.1[[:space:]].*localhost'
	is "loopback answers, by address and name" "$(grep -c '1 packets received' <<<"$out")" 2
}

test_argv() {
	# arguments arrive exactly: empty, spaces, newlines, quotes, bytes that are no UTF-8
	out run_box box sh -c 'for a; do printf "[%s]" "$a" | od -An -tx1 | tr -d " \n"; echo; done' x '' 'a b' $'new\nline' "it's" '$HOME' $'\xff\xfe'
	is "arguments" "$out" "5b5d
5b6120625d
5b6e65770a6c696e655d
5b697427735d
5b24484f4d455d
5bfffe5d"
}

test_zombies() {
	# orphans are reaped: no zombie stays
	out run_box box sh -c 'for i in 1 2 3 4 5 6 7 8 9 10; do (sleep 0.1 &); done; sleep 1; ps -o stat,comm | grep -c "^Z" || true'
	is "zombies" "$out" 0
}

test_init_is_ours() {
	# nothing of ours is seen as a process with the image's files open, and the command has a parent that reaps
	out run_box box sh -c 'echo $PPID; tr "\0" " " </proc/1/cmdline; ls -l /proc/1/exe 2>&1 | head -n 1'
	[ -n "$out" ] || fail "nothing"
}

test_volumes_and_workdir() {
	# declared volumes exist and can be written; a missing working directory is made
	image vols --env PATH=/bin --volume /data --volume /var/lib/x --workdir /made/by/run
	out $sm run -m 256M vols sh -c 'pwd; echo 1 >/data/f; echo 2 >/var/lib/x/f; cat /data/f /var/lib/x/f'
	is "volumes" "$out" "/made/by/run
1
2"
}

test_stop_signal() {
	# stop sends the image's stop signal
	image stopper --env PATH=/bin --stop-signal SIGUSR1
	$sm run -d -m 256M --name stopper stopper sh -c 'trap "echo by-usr1; exit 3" USR1; trap "" TERM; echo ready; while :; do sleep 0.1; done' >/dev/null
	until_true 40 bash -c "$sm logs stopper | grep -q ready"
	out $sm stop -t 20 stopper
	out $sm logs stopper
	has "log" "$out" 'by-usr1'
	is "status" "$(field stopper .outcome.status)" 3
	out $sm rm stopper
}

test_clock_and_entropy() {
	# the guest's clock is right and its random numbers are its own
	out run_box box sh -c 'date +%s; head -c 16 /dev/urandom | od -An -tx1'
	local now diff first=$out
	now=$(date +%s)
	diff=$((now - $(head -n 1 <<<"$first")))
	[ ${diff#-} -le 5 ] || fail "clock off by $diff s"
	out run_box box sh -c 'date +%s; head -c 16 /dev/urandom | od -An -tx1'
	[ "$(tail -n 1 <<<"$out")" != "$(tail -n 1 <<<"$first")" ] || fail "the same random bytes twice"
}
