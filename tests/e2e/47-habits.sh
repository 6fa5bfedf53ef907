# SPDX-License-Identifier: Apache-2.0
# Habits that users of docker bring along: options of run, ps and logs, stats.

limit_habits=480
test_habits() {
	# labels and filters, templates, a read-only root, hosts, tmpfs, a file for the id, a command left running, stats, logs from a time on
	vm h -l app=shop -l tier --add-host db:10.0.0.9 --read-only --tmpfs /scratch:size=1m,mode=700 --cidfile id --pull never --network none \
		-- sh -c 'echo one; sleep 3; echo two; sleep 1000'
	is "the file for the id" "$(cat id)" "$($sm ps -q)"
	out -125 $sm run --cidfile id box true
	has "the file is there already" "$err" 'id: File exists'
	out $sm exec h sh -c 'grep -w db /etc/hosts; touch /x; touch /scratch/x && stat -c %a /scratch; dd if=/dev/zero of=/scratch/y bs=1M count=2 2>&1 | grep -c "No space"; rm /scratch/y
		grep -c " /scratch .*noexec" /proc/mounts'
	is "inside" "$(tr '\t' ' ' <<<"$out")" "10.0.0.9 db
700
1
1"
	has "read-only" "$err" 'Read-only file system'

	out $sm exec -d h sh -c 'echo here >/scratch/left; sleep 1001'
	is "exec -d" "$out$err" "1"
	until_true 10 $sm exec h grep -q here /scratch/left
	$sm exec h sh -c 'cat /proc/[0-9]*/cmdline | tr "\0" " "' | grep -q 'sleep 1001' || fail "the command did not outlive exec -d"
	out -127 $sm exec -d h nosuchcommand
	has "exec -d of nothing" "$err" 'nosuchcommand'

	# what exec -d has left is found again: its state, its output so far and from then on, its input, its end
	id=$($sm exec -d -i -u alice h sh -c 'id -un; echo oops >&2; while read -r line; do echo "got $line"; done; sleep 1002')
	until_true 10 bash -c "$sm exec logs h $id 2>&1 | grep -q oops"
	out $sm exec logs h "$id"
	is "exec logs" "$out:$err" "alice:oops"
	out $sm exec ls h
	has "exec ls" "$out" '^NUMBER +PID +STARTED +STATUS +COMMAND'
	has "exec ls" "$out" "^ +$id +[0-9]+ +[0-9a-z]+ ago +running +sh -c"
	echo ping | $sm exec attach h "$id" >attached &
	attach=$!
	until_true 10 grep -q 'got ping' attached
	out -125 $sm exec attach h "$id"
	has "one at a time" "$err" 'another client'
	is "kill" "$($sm exec kill -s TERM h "$id")" "$id"
	rc=0; wait $attach || rc=$?
	is "attach ends as the command does" "$rc" 143
	is "follow ends with it" "$($sm exec logs -f h "$id" 2>&1 | sort | tr '\n' ' ')" "alice got ping oops "
	is "exec ls" "$($sm exec ls --format json h | jq -c ".[] | select(.number == $id) | [.running, .outcome.status, .user]")" '[false,143,"alice"]'
	out -125 $sm exec kill h "$id" 77
	has "it has ended" "$err" "command $id of VM .* has ended"
	has "there is none" "$err" 'no detached command 77'
	out -125 $sm exec logs h x
	has "no number" "$err" 'not the number of a command: x'
	is "completion" "$($sm __complete exec logs h 1)" $'1\tsh'

	is "by label" "$($sm ps -q --filter label=app=shop -f label=tier)" "$(cat id)"
	is "by another label" "$($sm ps -q --filter label=app=other)$($sm ps -q -f label=ap)" ""
	is "by name, state and image" "$($sm ps -q -f name=h -f status=running -f ancestor=box)$($sm ps -q -f ancestor=box:latest)" "$(cat id)$(cat id)"
	is "by another state" "$($sm ps -q -f status=exited)" ""
	is "by a name in full" "$($sm ps -q -f 'name=^/h$')$($sm ps -q -f 'name=^h.')" "$(cat id)"
	is "by a label without a value" "$($sm ps -q -f label=tier=)" "$(cat id)"
	out -125 $sm ps -f 'name=['
	has "no expression" "$err" "'\\[' is no regular expression"
	is "one of two expressions" "$($sm ps -q -f 'name=^x' -f 'name=h$')" "$(cat id)"
	out -125 $sm ps -f status=up
	has "no such state" "$err" "no such state: 'up'"
	is "long arguments" "$($sm exec -e "B=$(printf %0100000d 0)" h sh -c 'echo ${#1} ${#B} $#' x "$(printf %0131071d 0)" $(seq 20000))" "131071 100000 20001"
	out -125 $sm exec h true "$(printf %0131000d 0)"{,,,,,,,}
	has "longer ones" "$err" 'arguments and environment are [0-9]+ bytes'
	out -125 $sm ps -f colour=red
	has "no such filter" "$err" 'colour=red'
	is "template" "$($sm ps --format '{{.ID}} {{ .Names }}\t{{.Image}}:{{.State}} {{.Labels}}')" "$(cat id) h"$'\t'"box:running app=shop,tier"
	is "one label" "$($sm ps --format '{{.Label "app"}} {{index .Labels "app"}} {{upper .Names}}')" "shop shop H"
	is "json of a field" "$($sm ps --format '{{json .Names}} {{.Image | json}}')" '"h" "box"'
	is "json of all" "$($sm ps --format '{{json .}}' | jq -r '[.ID, .Names, .Image, .State, .Labels] | join(" ")')" "$(cat id) h box running app=shop,tier"
	out $sm ps --format 'table {{.ID}}\t{{.Names}}\t{{.State}}'
	is "columns" "$out" "ID             NAMES   STATE
$(cat id)   h       running"
	is "inspect" "$($sm inspect -f '{{.Config.Labels}} {{index .Config.Labels "app"}} {{json .Config.Image}} {{.State.Running}}' h)" 'map[app:shop tier:] shop "box" true'
	is "inspect an object" "$($sm inspect -f '{{json .State}}' h | jq -c '[.Status, .Running, .ExitCode]')" '["running",true,0]'
	is "stats" "$($sm stats --no-stream --format '{{.Name}} {{.PIDs}}' h | sed 's/[0-9][0-9]*$/N/')" "h N"
	has "stats in columns" "$($sm stats --no-stream --format 'table {{.Container}}\t{{.CPUPerc}}\t{{.MemUsage}}' h)" '^CONTAINER +CPU % +MEM USAGE / LIMIT$'
	out -125 $sm ps --format '{{.Colour}}'
	has "no such field" "$err" 'no field .Colour'
	out -125 $sm ps --format '{{range .}}'
	has "more than fields" "$err" 'column 1: range goes over a field that is a list'

	out $sm stats --no-stream --format json h
	jq -e 'length == 1 and (.[0] | .answers and .memory_used > 0 and .memory_used < .memory_total and .disk_total > 0 and .processes > 5 and .cpu_ns > 0 and .monitor.exits.io > 0 and (.monitor.devices | length) > 3)' \
		"$SM_TMP/.out" >/dev/null || fail "stats: $out"
	out $sm stats --no-stream
	has "stats" "$out" '^ID +NAME +CPU % +MEM USAGE +LIMIT'
	has "stats" "$out" " h +[0-9.]+ +[0-9.]+ MiB"

	until_true 30 bash -c "$sm logs h | grep -q two"
	two=$($sm logs -t h | sed -n 's/ two$//p')
	is "logs until a time" "$($sm logs --until "$two" h | tr '\n' ' ')" "one "
	is "logs from a time on" "$($sm logs --since 1h h | tr '\n' ' ')$($sm logs --since "$(date -u -d "$two - 1 second" +%Y-%m-%dT%H:%M:%SZ)" h)" "one two two"
	out -125 $sm logs --since yesterday h
	has "no time" "$err" 'yesterday'
	$sm kill h >/dev/null
	is "stats of one that has ended" "$($sm stats --no-stream --format '{{.Name}} {{.PIDs}}' h)" "h --"
	$sm rm -f h >/dev/null
	out -125 $sm stats --no-stream h
	has "stats of none" "$err" 'no such VM: h'

	out -125 $sm run --gpus all box true
	has "a flag that makes no sense" "$err" '--gpus makes no sense here: a VM has no devices'
	out -125 $sm run --restart=always box true
	has "a flag that makes no sense" "$err" 'no daemon'
	out -125 $sm run -P box true
	has "a letter that makes no sense" "$err" '--publish-all makes no sense here: a VM has no network card'
	out -125 $sm run --memory-swap 1g box true
	has "a value that makes no sense" "$err" '--memory-swap makes no sense here'
	out $sm run --rm --restart no --net none --no-healthcheck -m 256M box true
	out -125 $sm run --ipd x box true
	lacks "what would be refused is not suggested" "$err" 'did you mean'
	out -125 $sm top h
	has "a verb of docker's alone" "$err" '^  supermachine exec VM ps$'
	out -125 $sm container prune
	has "two words of docker's alone" "$err" 'no such verb: container prune'
	out -125 $sm network ls
	has "a family of docker's alone" "$err" 'VMs have no network'
	out -125 $sm run --pull always localhost:1/box true
	has "pull" "$err" 'cannot connect'
	out -125 $sm run --add-host db box true
	has "host" "$err" 'NAME:ADDRESS'
	out -125 $sm run --tmpfs relative box true
	has "tmpfs" "$err" 'not an absolute path'
	out -125 $sm run --tmpfs /x:colour=red box true
	has "tmpfs" "$err" 'colour=red'
}
