# SPDX-License-Identifier: Apache-2.0
# Many at once of what one alone does: commands in a VM, commands of a user, records of VMs that have ended.

limit_crowd=300
test_crowd() {
	# many commands at once in one VM: all run together, each has its own input, output and status
	local n i
	n=$(scaled 20 500)
	vm host -m 512M
	exec 8>go
	flock 8
	for i in $(seq "$n"); do
		# It ends when it reads a line, which comes when all are there.
		(
			rc=0
			flock -s go echo "line $i" | $sm exec -i host sh -c "echo \$\$ >>/all; read x; echo \$x \$(ulimit -n); exit $((i % 100))" >"o$i" 2>"e$i" || rc=$?
			echo $rc >"s$i"
		) &
	done
	all_here() { [ "$($sm exec host sh -c 'sort -u /all | wc -l')" = "$n" ]; }
	until_true 200 all_here
	flock -u 8
	wait
	for i in $(seq "$n"); do
		is "command $i: $(cat "e$i")" "$(cat "s$i") $(cat "o$i")" "$((i % 100)) line $i 1024"
	done
	until_true 20 $sm exec host sh -c '[ $(ls -d /proc/[0-9]* | wc -l) -lt 10 ]'
	out $sm rm -f host
}

limit_parallel=300
test_parallel() {
	# a user's commands at once, of all kinds, on the same names: none hangs, what one makes is whole, and nothing stays
	local n i verb
	box
	n=$(scaled 12 50)
	vm still
	for i in $(seq "$n"); do
		case $((i % 6)) in
		0) verb=(run --rm -m 256M --name "each-$i" box echo "ran $i") ;;
		1) verb=(ps -a --format json) ;;
		2) verb=(volume create "volume-$((i / 6))") ;;
		3) verb=(exec still echo "ran $i") ;;
		4) verb=(inspect still box) ;;
		5) verb=(load -q --name "box-$((i % 4))" "oci:$SM_SHARED/box") ;;
		esac
		(rc=0; timeout -k 5 $((120 * ${SM_PATIENCE:-1})) $sm "${verb[@]}" >"o$i" 2>"e$i" || rc=$?; echo "$rc" >"s$i"; echo "${verb[*]}" >"v$i") &
	done
	wait
	for i in $(seq "$n"); do
		is "$(cat "v$i"): $(cat "e$i")" "$(cat "s$i")" 0
		case $((i % 6)) in
		0 | 3) is "$(cat "v$i")" "$(cat "o$i")" "ran $i" ;;
		1 | 4) jq -e . "o$i" >/dev/null || fail "$(cat "v$i"): $(cat "o$i")" ;;
		esac
	done
	is "volumes" "$($sm volume ls -q | grep '^volume-' | sort | xargs)" "$(for i in $(seq "$n"); do [ $((i % 6)) != 2 ] || echo "volume-$((i / 6))"; done | sort | xargs)"
	is "images" "$($sm images --format json | jq -r '.[].names[]' | grep -c '^box-')" "$(for i in $(seq "$n"); do [ $((i % 6)) != 5 ] || echo $((i % 4)); done | sort -u | wc -l)"
	is "VMs" "$($sm ps -aq | wc -l)" 1
	out $sm rm -f still
	$sm volume ls -q | grep '^volume-' | xargs $sm volume rm >/dev/null
	$sm images --format json | jq -r '.[].names[]' | grep '^box-' | xargs $sm rmi >/dev/null
}

limit_records=600
test_records() {
	# records of many VMs that have ended slow down nothing but what shows them
	local n directory t0 before after
	box
	n=$(scaled 1000 100000)
	directory=$(dirname "$($sm inspect kept 2>/dev/null | jq -r '.[0].directory')")
	[ ! -d "$directory" ] || find "$directory" -mindepth 1 -maxdepth 1 -name 'abcd0*' -exec rm -rf {} + # of a try before
	$sm rm -f kept lives >/dev/null 2>&1 || true
	out $sm run --keep -m 256M --name kept box true
	vm lives
	directory=$($sm inspect kept | jq -r '.[0].directory')
	$sm ps >/dev/null
	took() {
		t0=$(date +%s%N)
		"$@" >/dev/null
		echo $((($(date +%s%N) - t0) / 1000000))
	}
	before=$(for i in 1 2 3 4 5; do took $sm ps; done | sort -n | head -1)
	python3 - "$directory" "$n" <<-'P'
		import os, sys
		kept, n = sys.argv[1], int(sys.argv[2])
		own = os.path.basename(kept)
		files = {f: open(os.path.join(kept, f)).read() for f in os.listdir(kept) if f.endswith(".json")}
		for i in range(n):
		    id = "%012x" % (0xabcd00000000 + i)
		    to = os.path.join(os.path.dirname(kept), id)
		    os.mkdir(to, 0o700)
		    for f, text in files.items():
		        with open(os.path.join(to, f), "w") as out:
		            out.write(text.replace(own, id).replace('"kept"', '"kept-%d"' % i))
	P
	$sm ps >/dev/null # looks at each once
	after=$(for i in 1 2 3 4 5; do took $sm ps; done | sort -n | head -1)
	echo "ps: $before ms before, $after ms with $n records"
	[ "$after" -le $((before + 20 + n / 500)) ] || fail "ps took $before ms, and with $n records $after ms"
	is "all are listed" "$($sm ps -aq | wc -l)" $((n + 2))
	is "one of them" "$($sm inspect abcd00000007 | jq -r '.[0].name')" kept-7
	out $sm exec lives echo yes
	is "the one that lives" "$out" yes
	$sm rm kept $(for i in $(seq 10 49); do echo "abcd000000$i"; done) >/dev/null
	is "some were removed" "$($sm ps -aq | wc -l)" $((n + 1 - 40))
	find "${directory%/*}" -mindepth 1 -maxdepth 1 -name 'abcd0*' -exec rm -rf {} +
	out $sm rm -f lives
}
