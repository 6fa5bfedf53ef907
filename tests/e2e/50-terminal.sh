# SPDX-License-Identifier: Apache-2.0
# -it: a real terminal, its size, its keys, its mode afterwards.

pty=$(dirname "${BASH_SOURCE[0]}")/person.py

test_shell() {
	# run -it gives a shell: echo, editing, exit status, and the terminal is as before
	box
	out -3 python3 "$pty" 'expect:[#$] ' 'send:echo a$((40+2))b\r' 'expect:a42b' 'send:tty; stty size\r' 'expect:/dev/pts/\d' 'expect:24 80' \
		'send:exit 3\r' -- $sm run -it -m 256M box sh
}

test_resize() {
	# the window's size is the guest's from the start, and follows
	box
	out python3 "$pty" --size 30x100 'expect:30 100' 'resize:41x133' 'expect:41 133' -- \
		$sm run -it -m 256M box sh -c 'trap "stty size; exit 0" WINCH; stty size; while :; do sleep 0.1; done'
}

test_keys() {
	# Ctrl-C interrupts the guest's command, not the session; Ctrl-D ends input; Ctrl-Z stops a job in the guest
	box
	out -0 python3 "$pty" 'expect:[#$] ' 'send:sleep 1000\r' 'sleep:1' 'send:\x03' 'expect:[#$] ' 'send:echo st=$?\r' 'expect:st=130' \
		'send:cat\r' 'sleep:3' 'send:line\r' 'expect:line\r\nline' 'send:\x04' 'expect:[#$] ' \
		'send:sleep 99\r' 'sleep:0.5' 'send:\x1a' 'expect:[#$] ' 'send:kill %1; exit 0\r' 'send:exit 0\r' -- $sm run -it -m 256M box sh
}

test_exec_terminal() {
	# exec -it gives a second terminal in a running VM
	vm term
	out -5 python3 "$pty" --size 33x90 'expect:[#$] ' 'send:stty size; ps | grep -c sleep\r' 'expect:33 90' 'send:exit 5\r' -- $sm exec -it term sh
	out $sm rm -f term
}

test_attach_and_let_go() {
	# attach joins the command; ctrl-p ctrl-q lets go of it and it goes on
	vm att -it -- sh
	out python3 "$pty" 'send:\r' 'expect:[#$] ' 'send:X=kept\r' 'expect:[#$] ' 'send:\x10\x11' 'expect:detached' -- $sm attach att
	is "still there" "$(state att)" running
	out -4 python3 "$pty" 'send:\r' 'expect:[#$] ' 'send:echo =$X=\r' 'expect:=kept=' 'send:exit 4\r' -- $sm attach att
	until_true 20 bash -c "[ \"\$($sm ps -q)\" = '' ]"
	is "status" "$(field att .outcome.status)" 4
	out $sm rm att
}

test_run_and_let_go() {
	# ctrl-p ctrl-q lets go of a VM that run started: it goes on, is kept, and attach joins it again; what it printed meanwhile is in its log
	box
	local id
	out python3 "$pty" 'expect:[#$] ' 'send:X=kept; (sleep 1; echo meanwhile) &\r' 'expect:[#$] ' 'send:\x10\x11' 'expect:detached; VM' -- $sm run -it -m 256M box sh
	id=$($sm ps -q)
	[ -n "$id" ] || fail "it did not go on"
	until_true 20 bash -c "$sm logs $id | grep -q meanwhile"
	out -4 python3 "$pty" 'send:\r' 'expect:[#$] ' 'send:echo =$X=\r' 'expect:=kept=' 'send:exit 4\r' -- $sm attach "$id"
	until_true 20 is_state "$id" exited
	is "status" "$(field "$id" .outcome.status)" 4
	out $sm start "$id"
	out $sm rm -f "$id"
	vm saved -it -- sh
	out $sm snapshot saved saved-one
	out python3 "$pty" 'send:\r' 'expect:[#$] ' 'send:\x10\x11' 'expect:detached; VM again' -- $sm restore -it --name again saved-one
	is "restored one" "$(state again)" running
	out $sm rm -f saved again
	out $sm snapshot rm saved-one
}

test_hangup() {
	# closing the terminal ends the VM; so does a monitor's death, with the terminal restored
	box
	python3 "$pty" 'expect:[#$] ' hangup -- $sm run -it -m 256M box sh || true
	until_true 20 bash -c "[ -z \"\$($sm ps -aq)\" ]"
}

test_restored_after_crash() {
	# when the monitor is killed under a session, the terminal's mode is restored and the reason is told
	box
	cat >crash.sh <<-'S'
		pid=$(supermachine ps --format json | jq -r '.[] | select(.name == "crashme") | .monitor_pid')
		if [ "$1" = machine ]; then supermachine machine exec -- kill -9 "$pid"; else kill -9 "$pid"; fi
	S
	out -125 python3 "$pty" 'expect:[#$] ' "shell:bash crash.sh $(engine) >/dev/null" 'expect:monitor' -- \
		$sm run -it --rm --name crashme -m 256M box sh
}

test_progress_bar() {
	# a progress bar shows on a terminal only and is gone at the end; NO_COLOR and pipes get none of it
	mkdir big
	head -c 300000000 /dev/urandom >big/a
	"$SM_TOP/tests/lib/mkimage" --layer big,plain --tag latest biglay >/dev/null
	out env TERM=xterm python3 "$pty" -- $sm load --name barred oci:biglay
	has "bar" "$out" '\[#*\.*\] +[0-9]+%'
	has "cleared" "$(tail -n 1 <<<"$out")" 'Loaded barred'
	out $sm rmi barred
	out $sm prune -a
	out $sm load --name barred oci:biglay
	is "stderr in a pipe" "$err" ""
	out $sm rmi barred
}

test_tty_output() {
	# -t without -i: output is one stream with terminal line ends
	run_box box true 2>/dev/null # a machine that has to start says so
	out run_box -t box sh -c 'test -t 1 && echo terminal; echo err >&2'
	has "stdout" "$out" $'^terminal\r$'
	is "stderr" "$err" ""
}
