# SPDX-License-Identifier: Apache-2.0
# Many VMs: at once, and one after the other, without a trace.

limit_at_once=300
test_at_once() {
	# many VMs started at once all answer
	box
	local n i
	n=$(scaled 6 20)
	for i in $(seq "$n"); do
		(timeout 250 $sm run -m 128M box echo "answer $i" >"a$i" 2>"b$i") &
	done
	wait
	for i in $(seq "$n"); do
		is "VM $i ($(cat "b$i"))" "$(cat "a$i")" "answer $i"
	done
	out $sm ps -aq
	is "VMs left" "$out" ""
}

# Descriptors and processes of what stays between runs, where VMs run, and files under the home.
footprint() {
	find "$SUPERMACHINE_HOME" | wc -l
	beside sh -c 'ls /proc | grep -c "^[0-9]"; for p in $(pgrep -f "supermachine-(machine|agent)" 2>/dev/null) 1; do ls /proc/$p/fd 2>/dev/null; done | wc -l; awk "{ print \$1 }" /proc/sys/fs/file-nr; ls /tmp | wc -l'
}

limit_in_a_row=600
test_in_a_row() {
	# many VMs in a row leave no file, process or descriptor
	box
	local n i before after b a
	n=$(scaled 8 200)
	out run_box box true
	footprint >before
	for i in $(seq "$n"); do
		out $sm run -m 128M box echo "$i"
		is "answer" "$out" "$i"
	done
	for i in 1 2 3 4 5; do
		footprint >after
		paste before after | awk -v n="$n" 'NR == 4 { if ($2 - $1 > 64 + n / 4) exit 1; next } NR == 2 { if ($2 - $1 > 4) exit 1; next } $2 > $1 + 2 { exit 1 }' && return
		sleep 1
	done
	fail "files, processes, descriptors of the agent, open files, temporary files before and after: $(paste before after | tr '\t\n' ' ,')"
}

limit_prune_loop=300
test_prune_loop() {
	# load, run and prune in a loop never lose or collect a file in use
	box
	local i n
	n=$(scaled 4 60)
	(for i in $(seq "$n"); do
		mkdir -p "l$i" && echo "$i" >"l$i/n"
		"$SM_TOP/tests/lib/mkimage" --layer "$SM_SHARED/root" --layer "l$i" --env PATH=/bin --tag latest "lay$i" >/dev/null
		$sm load --name "loop$i" "oci:lay$i" >/dev/null
		is "image $i" "$($sm run -m 128M "loop$i" cat /n)" "$i"
		$sm rmi "loop$i" >/dev/null
	done) &
	local work=$!
	while kill -0 $work 2>/dev/null; do
		$sm prune -a >/dev/null
		sleep 0.3
	done
	wait $work
	is "box is still there" "$(run_box box echo yes)" yes
}
