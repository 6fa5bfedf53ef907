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
	until_true 20 bash -c "$sm ps -a --format json | jq -e '.[] | select(.name == \"ev\") | .state == \"exited\"'"
	is "killed" "$($sm events --since "$since" --until 0s -f vm=ev -f event=die --format json | tail -n1 | jq -r .attributes.reason)" "keeper-died"
	$sm rm ev >/dev/null
	out -125 $sm events -f colour=red
	has "no such filter" "$err" 'colour=red'
}
