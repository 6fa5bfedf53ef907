# SPDX-License-Identifier: Apache-2.0
# Spares: the second run of a kind in a row leaves a VM behind that nobody sees, and the next run of that kind has it.

spare_run() { # OPTIONS... COMMAND...
	box
	SUPERMACHINE_SPARE=1 $sm run -m 256M "$@"
}

spares() { # directories of those that can be taken
	find "$SUPERMACHINE_HOME/state/spares" -mindepth 1 -maxdepth 1 -type d -name '[0-9a-f]*' -printf '%f\n' 2>/dev/null || true
}

# Runs that leave one; the first may make the base, and is then none of them. There may be some of another test.
leave_one() {
	$sm prune >/dev/null
	is "spares" "$(spares)" ""
	out run_box box true
	out spare_run box true
	[ -n "$(spares)" ] || out spare_run box true
	is "spares" "$(spares | wc -l)" 1
}

stage() { # stage FILE NAME: ms of that stage in an outcome, or "null"
	jq ".stages_ns.$2 | if . then . / 1000000 | floor else . end" "$1"
}

was_spare() {
	[ "$(stage "$1" spare)" != null ] && [ "$(stage "$1" restore)" = null ] || fail "not from a spare: $(cat "$1")"
}

was_none() {
	[ "$(stage "$1" spare)" = null ] && [ "$(stage "$1" restore)" != null ] || fail "from a spare: $(cat "$1")"
}

# Where the keepers of spares run.
spare_keepers() {
	beside sh -c 'grep -lsxz -e --spare /proc/[0-9]*/cmdline' | cut -d/ -f3
}

nothing_left() {
	[ -z "$(spares)" ] && [ "$(vm_processes)" = 0 ]
}

limit_taken=240
test_taken() {
	# the third run has what the second left: its id is the spare's, and all that it was given is so; a lone run leaves nothing
	local id
	out run_box box true # makes the base
	out $sm prune
	out spare_run --outcome o.json box true
	was_none o.json
	is "spares of one run" "$(spares)" ""
	out spare_run --outcome o.json box true
	was_none o.json
	id=$(spares)
	id=${id#*-}
	out -7 spare_run --outcome o.json -e A=b -w /srv -u alice --hostname other --label x=y --cidfile id box \
		sh -c 'pwd; id -un; echo $A $GREETING; hostname; cat /etc/hostname; grep 127.0.1.1 /etc/hosts; echo error >&2; exit 7'
	was_spare o.json
	is "output" "$out" $'/srv\nalice\nb hello\nother\nother\n127.0.1.1\tother'
	is "errors" "$err" error
	is "id" "$(cat id)" "$id"
	is "reason" "$(jq -r .reason o.json)" exited
	is "VMs left" "$($sm ps -aq)" ""
	# That one left another, which reads, has its id for a host name, and is limited.
	out sh -c "echo through | SUPERMACHINE_SPARE=1 $sm run -m 256M -i --outcome o.json box sh -c 'cat; hostname; pwd; id -un'"
	was_spare o.json
	has "output" "$out" '^through$'
	is "host name" "$(sed -n 2p <<<"$out")" "$(jq -r .vm o.json)"
	is "defaults" "$(sed -n '3,$p' <<<"$out")" $'/\nroot'
	out -124 spare_run --outcome o.json --timeout 1s box sleep 100
	was_spare o.json
	is "reason" "$(jq -r .reason o.json)" timeout
	out spare_run --trace box true
	echo "$err" | tr -s ' ' | grep -qx 'spare [0-9.]* ms' || fail "$err"
	out -137 spare_run --outcome o.json --ttl 2s --stop-signal KILL box sleep 100
	was_spare o.json
	is "reason" "$(jq -r .reason o.json)" ttl
}

limit_kept=180
test_kept() {
	# a kept VM that was a spare has its log, starts again, and its times are those of the run
	local t0
	leave_one
	sleep 3
	t0=$(date +%s)
	out spare_run --name kept --outcome o.json box sh -c 'echo first; echo run >>/log; wc -l </log; hostname'
	was_spare o.json
	is "output" "$(head -n 2 <<<"$out")" $'first\n1'
	is "log" "$($sm logs kept)" "$out"
	$sm inspect kept | jq -e --argjson t0 "$t0" '.[0] | .created_ns / 1e9 >= $t0 and .exit.started_ns / 1e9 >= $t0 - 1' >/dev/null ||
		fail "not created and started since $t0: $($sm inspect kept)"
	is "command" "$($sm inspect kept | jq -r '.[0].argv[0]')" sh
	out $sm start -a kept
	is "second" "$(head -n 2 <<<"$out")" $'first\n2'
	out $sm rm kept
	# A name that is taken is told, and the spare is no loss.
	vm taken
	leave_one
	out -125 spare_run --name taken box true
	has "error" "$err" "name taken is taken"
	out $sm rm -f taken
	is "VMs" "$($sm ps -aq)" ""
}

limit_clock=240
test_clock() {
	# a spare that stood still for some time has the right clock, random numbers of its own, and all of its time
	local ask='date +%s; cat /proc/sys/kernel/random/uuid; cat /proc/sys/kernel/random/boot_id' a t0 t1 t
	leave_one
	sleep 12
	t0=$(date +%s)
	out spare_run --outcome o.json box sh -c "$ask"
	t1=$(date +%s)
	was_spare o.json
	a=$out
	t=$(head -n 1 <<<"$a")
	[ "$t" -ge $((t0 - 1)) ] && [ "$t" -le $((t1 + 1)) ] || fail "the clock says $t, not between $t0 and $t1"
	out spare_run --outcome o.json box sh -c "$ask"
	was_spare o.json
	is "lines in common" "$(comm -12 <(tail -n 2 <<<"$a" | sort) <(tail -n 2 <<<"$out" | sort))" ""
	out spare_run --outcome o.json --timeout 60s box sleep 2
	was_spare o.json
}

limit_at_once=240
test_at_once() {
	# runs at the same time never have the same spare
	local n pids=()
	leave_one
	sleep 2
	for n in 1 2 3; do
		spare_run --outcome "o$n.json" box sh -c 'hostname; sleep 1; echo $0' "$n" >"out$n" 2>"err$n" &
		pids+=($!)
	done
	for n in 1 2 3; do
		wait "${pids[n - 1]}" || fail "run $n: $(cat "err$n")"
		is "run $n" "$(sed -n 2p "out$n")" "$n"
		is "errors of run $n" "$(cat "err$n")" ""
	done
	is "host names" "$(head -qn 1 out[123] | sort -u | wc -l)" 3
	is "from a spare" "$(jq -s '[.[] | select(.stages_ns.spare)] | length' o[123].json)" 1
	[ "$(spares | wc -l)" -le 2 ] || fail "spares: $(spares)"
}

limit_in_a_row=240
test_in_a_row() {
	# runs one right after the other have what is still being made
	local n
	leave_one
	for n in 1 2 3 4; do
		out spare_run --outcome o.json box echo "$n"
		is "output" "$out" "$n"
		is "errors" "$err" ""
		was_spare o.json
	done
}

limit_dead=240
test_dead() {
	# a spare that was killed is no trouble: the run starts as ever, and nothing of it is left
	local what id
	for what in keeper monitor; do
		leave_one
		id=$(spares)
		sleep 3 # until it stands still
		if [ $what = keeper ]; then
			beside kill -9 "$(spare_keepers)"
		else
			beside sh -c 'kill -9 $(grep -lsE "supermachine-vmm" /proc/[0-9]*/cmdline | cut -d/ -f3 | grep -vx "$$")' || true
		fi
		until_true 20 test "$(vm_processes)" = 0
		out spare_run --outcome o.json box echo alive
		is "output" "$out" alive
		is "errors" "$err" ""
		was_none o.json
		lacks "spares" "$(ls -A "$SUPERMACHINE_HOME/state/spares")" "${id#*-}"
	done
	is "VMs" "$($sm ps -aq)" ""
	lacks "events" "$($sm events --since 1h --until 0s)" "${id#*-}"
}

limit_expires=180
test_expires() {
	# after half a minute a spare has ended by itself, and left neither process nor directory; meanwhile nobody sees it
	local id
	leave_one
	id=$(spares)
	id=${id#*-}
	sleep 2
	is "ps" "$($sm ps -aq)" ""
	lacks "stats" "$($sm stats --no-stream)" "$id"
	lacks "events" "$($sm events --since 1h --until 0s)" "$id"
	out -125 $sm inspect "$id"
	out -125 $sm stop "$id"
	is "spares" "$(spares | wc -l)" 1
	until_true 60 nothing_left
	lacks "spares" "$(ls -A "$SUPERMACHINE_HOME/state/spares")" "$id"
}

limit_differs=240
test_differs() {
	# a run that is not like it in what is fixed at a start does not have it, nor does one with SUPERMACHINE_SPARE=0
	local id share=
	[ "$(engine)" = host ] || share="--cpus 0.5" # a host may have no cgroup for it
	leave_one
	id=$(spares)
	mkdir -p host
	for opts in "-m 288M" "-c 2" "--disk 1G" "--tmpfs-root" "--read-only" "--ulimit nofile=100" "-v ./host:/mnt" "-p 0:80" "--tmpfs /x" "--add-host a:10.0.0.1" ${share:+"$share"}; do
		out spare_run --outcome o.json $opts box echo other
		is "output" "$out" other
		was_none o.json
	done
	image other --cmd '["echo", "image"]' --env PATH=/bin
	out spare_run --outcome o.json other
	is "output" "$out" image
	was_none o.json
	out env SUPERMACHINE_SPARE=0 $sm run -m 256M --outcome o.json box true
	was_none o.json
	out run_box -d box true # detached
	out $sm rm -f "$out"
	[ "$(spares)" = "$id" ] || [ -z "$(spares)" ] || fail "other spares: $(spares)"
}

limit_ends=180
test_ends() {
	# prune, rmi and machine stop end spares; a pipe behind a run has its end at once
	local t0=$SECONDS
	leave_one
	sleep 2
	out $sm prune
	nothing_left || fail "left after prune: $(spares) $(vm_processes)"
	image gone --cmd '["true"]' --env PATH=/bin
	out spare_run gone
	out spare_run gone
	is "spares" "$(spares | wc -l)" 1
	out $sm rmi gone
	nothing_left || fail "left after rmi: $(spares) $(vm_processes)"
	leave_one
	t0=$SECONDS
	out sh -c "SUPERMACHINE_SPARE=1 $sm run -m 256M box echo piped | cat; : | cat"
	is "output" "$out" piped
	[ $((SECONDS - t0)) -lt $((20 * ${SM_PATIENCE:-1})) ] || fail "the pipe stayed open for $((SECONDS - t0)) s"
	is "spares" "$(spares | wc -l)" 1
	if [ "$(engine)" = machine ]; then
		out $sm machine stop
		is "spares" "$(spares)" ""
	fi
}

limit_killed=300
test_killed() {
	# kill -9 of who takes and leaves spares, at any moment: the next run is as ever, and nothing stays
	local i pid
	leave_one
	for i in $(seq 1 "$(scaled 6 60)"); do
		spare_run box true >o1 2>&1 &
		pid=$!
		sleep "0.$((RANDOM % 10))"
		kill -9 $pid 2>/dev/null || true
		wait $pid 2>/dev/null || true
		[ $((i % 3)) -ne 0 ] || {
			out spare_run box echo "$i"
			is "output" "$out" "$i"
			is "errors" "$err" ""
		}
	done
	out $sm prune
	lacks "leftovers" "$(ls -A "$SUPERMACHINE_HOME/state/spares")" '^\.'
	until_true 30 nothing_left
	until_true 20 bash -c "[ -z \"\$($sm ps -aq)\" ]"
}
