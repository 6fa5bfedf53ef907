# SPDX-License-Identifier: Apache-2.0
# Memory of any size from the bases of a few: what a VM has beyond its base is plugged as it starts (virtio-mem).

bases() {
	$sm snapshots --format json | jq -c '[.[] | select(.kind == "base") | .memory / 1048576] | sort'
}

restored() { # restored FILE: an outcome's VM did not boot
	[ "$(jq '.stages_ns | (.restore != null) and (.boot == null)' "$1")" = true ] || fail "did not restore: $(cat "$1")"
}

total='sed -n "s/^MemTotal: *\([0-9]*\) kB/\1/p" /proc/meminfo'

limit_sizes=400
test_sizes() {
	# any size restores: each class boots once, whatever is asked for next; the guest has its memory, and limits that fit it, before its command begins
	local m t threads shm own
	box
	out $sm snapshot prune --all
	out $sm run -m 256M --outcome o.json box sh -c "$total"
	own=$out
	is "bases" "$(bases)" "[256]"
	for m in 260 $(at_length && echo 300 513 777 1000); do
		out $sm run -m "${m}M" --outcome o.json box sh -c "$total; cat /proc/sys/kernel/threads-max; df -k /dev/shm | awk 'END { print \$2 }'; ulimit -u"
		restored o.json
		is "what it said" "$err" ""
		read -r t threads shm _ <<<"$(xargs <<<"$out")"
		# up to the next multiple of 4 MiB; what the first 256 MiB have less than that is the kernel's
		is "memory of $m MiB" "$t" $((own + ((m + 3) / 4 * 4 - 256) * 1024))
		is "/dev/shm" "$shm" $(((t / 4 + 1) / 2 * 4))
		[ "$threads" -ge $((t / 200)) ] || fail "$threads threads for $t kB"
		[ "$(tail -n 1 <<<"$out")" -ge $((threads / 2 - 8)) ] || fail "$(tail -n 1 <<<"$out") processes of $threads threads"
	done
	is "bases" "$(bases)" "[256]"
	# the default has its own: it has nothing plugged
	out $sm run --outcome o.json box sh -c "$total; ls /sys/bus/memory/devices | wc -l"
	restored o.json
	is "bases" "$(bases)" "[256,1024]"
	is "blocks" "$(tail -n 1 <<<"$out")" 8
	if at_length; then
		out $sm run -m 2500M --outcome o.json box sh -c "$total"
		restored o.json
		[ "$out" -gt $((2400 * 1024)) ] && [ "$out" -lt $((2500 * 1024)) ] || fail "2500 MiB are $out kB"
		is "bases" "$(bases)" "[256,1024]"
		out $sm run -m 200M --outcome o.json box sh -c "$total"
		restored o.json
		is "bases" "$(bases)" "[128,256,1024]"
	fi
	# all of it can be used, and a file system in memory takes its half
	out $sm run -m 700M --tmpfs-root --outcome o.json box sh -c "df -k / | awk 'END { print \$2 }'; head -c $(scaled 100000000 300000000) /dev/zero >/dev/shm/x && wc -c </dev/shm/x; rm /dev/shm/x; dd if=/dev/zero of=/dev/null bs=$(scaled 300 500)M count=1 2>/dev/null && echo held"
	restored o.json
	is "used" "$(tail -n 2 <<<"$out" | xargs)" "$(scaled 100000000 300000000) held"
	[ "$(head -n 1 <<<"$out")" -gt $((320 * 1024)) ] || fail "the root has $out kB"
	is "bases" "$(bases)" "$(at_length && echo "[128,256,1024]" || echo "[256,1024]")"
}

limit_shown=200
test_shown() {
	# what is asked for is what is shown, and what a balloon can take
	box
	out $sm run -d -m 300M --name asked box sleep 1000
	is "ps" "$(field asked .memory)" $((300 * 1048576))
	is "inspect" "$($sm inspect asked | jq '.[0].memory')" $((300 * 1048576))
	$sm stats --no-stream --format json asked | jq -e '.[0].memory_total | . > 240 * 1048576 and . <= 300 * 1048576' >/dev/null || fail "$($sm stats --no-stream --format json asked)"
	out $sm rm -f asked
}

limit_saved=700
test_saved() {
	# a VM with plugged memory is saved whole and as a diff, branched, suspended; what is in that memory is there each time
	local sum name
	box
	out $sm run -d -m 700M --name first box sleep 10000
	# the kernel takes what was plugged first
	out $sm exec first sh -c "head -c $(scaled 10000000 50000000) /dev/urandom >/dev/shm/x; md5sum </dev/shm/x"
	sum=$out
	out $sm exec first sh -c "$total"
	local have=$out
	[ "$have" -gt $((600 * 1024)) ] || fail "it has $have kB"
	check() { # check VM
		out $sm exec "$1" sh -c "md5sum </dev/shm/x; $total"
		is "$1" "$out" "$sum"$'\n'"$have"
		out $sm exec "$1" sh -c 'echo more >/dev/shm/y; head -c 5000000 /dev/urandom >/dev/shm/z; cat /dev/shm/y; rm /dev/shm/z'
		is "$1 goes on" "$out" more
	}
	out $sm snapshot first whole
	check first
	out $sm snapshot --diff first diff # of its base, which has less memory
	out $sm branch --name twig first
	check twig
	check first
	out $sm rm -f twig
	out $sm suspend first
	out $sm resume first
	check first
	out $sm rm -f first
	at_length || { out $sm snapshot rm whole; out $sm restore -d --name copy diff; check copy; out $sm rm -f copy; out $sm snapshot rm diff; return; }
	for name in whole diff; do
		out $sm restore -d --name copy $name
		check copy
		out $sm snapshot --diff copy over
		out $sm rm -f copy
		out $sm restore -d --name copy over
		check copy
		out $sm rm -f copy
		out $sm snapshot rm over
	done
	out $sm snapshot rm diff whole
}

limit_again=200
test_again() {
	# a kept VM has its memory again when it is started again
	box
	out $sm run -d -m 400M --name kept box sh -c "$total"
	until_true 30 is_state kept exited
	out $sm logs kept
	local first=$out
	[ "$first" -gt $((330 * 1024)) ] || fail "it has $first kB"
	out $sm start kept
	until_true 30 is_state kept exited
	out $sm logs kept
	is "twice" "$out" "$first"$'\n'"$first"
	out $sm rm kept
}

limit_hostile=200
test_hostile() {
	# where memory could be plugged there is none that was not asked for: a guest's root that looks there finds nothing, and the VM lives on
	box
	cat >beyond.c <<'END'
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

/* Says of each physical address whether it holds what is written there. */
int main(int argc, char **argv)
{
	int fd = open("/dev/mem", O_RDWR | O_SYNC);

	for (int i = 1; fd >= 0 && i < argc; i++) {
		volatile uint32_t *p =
			mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)strtoull(argv[i], NULL, 0));

		if (p == MAP_FAILED) {
			puts("refused");
			continue;
		}
		*p = 0x12345678;
		puts(*p == 0x12345678 ? "memory" : "nothing");
	}
	return fd < 0;
}
END
	cc -static -O1 -o beyond beyond.c || skip "needs a static C library"
	out $sm run -d -m 256M --name hostile box sleep 1000
	out $sm cp beyond hostile:/bin/beyond
	out $sm exec hostile cat /proc/iomem
	local region
	region=0x$(sed -n 's/^\([0-9a-f]*\)-[0-9a-f]* : virtio[0-9]*$/\1/p' <<<"$out" | tail -n 1)
	[ $((region)) -gt 4294967296 ] || fail "no region: $out"
	# while the driver is there the guest's own kernel lets nobody look
	out $sm exec hostile sh -c 'mknod /dev/mem c 1 1; cd /sys/bus/virtio/drivers/virtio_mem && for d in virtio*; do echo $d >unbind; done'
	out $sm exec hostile beyond "$region" $((region + 128 * 1048576)) $((region + 32 * 1073741824)) $((region + 64 * 1073741824 - 4096))
	is "beyond" "$(xargs <<<"$out")" "nothing nothing nothing nothing"
	out $sm exec hostile echo lives
	is "afterwards" "$out" lives
	out $sm rm -f hostile
}
