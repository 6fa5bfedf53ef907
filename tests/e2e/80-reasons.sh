# SPDX-License-Identifier: Apache-2.0
# When a VM ends for a reason of its own, the reason is told.

test_out_of_memory() {
	# killed for memory: status 137, said so on stderr, and in the reason
	out -137 run_box -m 192M --outcome o.json box sh -c 'exec tail /dev/zero'
	has "stderr" "$err" 'out of memory.*-m'
	is "reason" "$(jq -r .reason o.json)" oom
	# the same of a child, whose parent goes on: not the reason, but still told
	out -3 run_box -m 192M --outcome o.json box sh -c 'tail /dev/zero; exit 3'
	has "stderr" "$err" 'out of memory'
	is "reason" "$(jq -r .reason o.json)" exited
}

test_disk_full() {
	# out of disk: said so on stderr, and in the reason
	out -1 run_box --disk 32M --outcome o.json box sh -c 'dd if=/dev/zero of=/big bs=1M count=100 2>/dev/null || exit 1'
	has "stderr" "$err" 'disk is full.*--disk'
	is "reason" "$(jq -r .reason o.json)" disk-full
}

test_host_disk_full() {
	# the disk of the host is full: the command sees an error, and it is told whose disk it was
	[ "$(id -u)" = 0 ] || skip "needs root, to mount a small file system"
	local vms=$SUPERMACHINE_HOME/state/vms
	run_box box true
	mkdir -p "$vms"
	mount -t tmpfs -o size=24m,mode=700 none "$vms"
	sleep 0.3 # a machine believes for a moment what it has seen there
	trap "$sm ps -aq | xargs -r timeout 5 $sm rm -f; umount -l $vms" EXIT
	out -1 run_box --outcome o.json box sh -c 'dd if=/dev/urandom of=/big bs=1M count=60 conv=fsync 2>/dev/null || exit 1'
	has "stderr" "$err" 'disk of the host is full'
	is "reason" "$(jq -r .reason o.json)" disk-full
	# Its space is free again. A program that goes on after its disk has failed costs the host next to nothing: not a write a page.
	out run_box box sh -c 'dd if=/dev/zero of=/big bs=1M count=8 conv=fsync 2>/dev/null'
	out run_box box sh -c 'writes() { awk "\$3 == \"vdb\" { print \$8 }" /proc/diskstats; }
		exec 3>/big; dd if=/dev/urandom bs=1M count=40 >&3 2>/dev/null; sync
		until dmesg | grep -q "Aborting journal"; do echo >&3; sync; sleep 0.2; done
		before=$(writes); dd if=/dev/zero bs=1M count=10 >&3 2>/dev/null; echo $(($(writes) - before)); cat /srv/data'
	[ "$(head -n 1 <<<"$out")" -lt 200 ] || fail "writes after the disk failed: $out"
	has "still readable" "$out" '^not a program$'
}

test_guest_panic() {
	# a guest that panics is reported as such, with the console's last line
	out -125 run_box --outcome o.json box sh -c 'echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger; sleep 20'
	has "stderr" "$err" '[Pp]anic'
	is "reason" "$(jq -r .reason o.json)" guest-panic
}

test_guest_poweroff() {
	# a guest that powers off or reboots ends the VM
	out run_box --outcome o.json box sh -c 'poweroff -f; sleep 20'
	has "stderr" "$err" 'powered itself off'
	is "reason" "$(jq -r .reason o.json)" guest-shutdown
	out run_box --outcome o.json box sh -c 'reboot -f; sleep 20'
	is "reason" "$(jq -r .reason o.json)" guest-shutdown
}

test_log() {
	# SUPERMACHINE_LOG: what a VM's processes say of themselves, of all or of some, is beside its record
	local dir
	SUPERMACHINE_LOG=vmm=debug,error vm told
	dir=$($sm inspect told | jq -r '.[0].directory')
	has "of the monitor" "$(cat "$dir/vmm.log")" '^debug vmm: sealed$'
	is "of the keeper" "$(cat "$dir/keeper.log")" ""
	out $sm rm -f told
	SUPERMACHINE_LOG=keeper=debug vm told
	dir=$($sm inspect told | jq -r '.[0].directory')
	has "of the keeper" "$(cat "$dir/keeper.log")" '^debug keeper: stage restore: [0-9]+ us$'
	is "of the monitor" "$(cat "$dir/vmm.log")" ""
	out $sm rm -f told
}

test_bad_kernel() {
	# a kernel that is none is refused in one line
	echo nonsense >vmlinuz
	out -125 run_box --kernel "$SM_TMP/vmlinuz" box true
	has "stderr" "$err" 'vmlinuz'
	[ "$(wc -l <"$SM_TMP/.err")" -le 2 ] || fail "more than two lines: $err"
	out -125 run_box --kernel /nowhere/vmlinuz box true
	has "stderr" "$err" '/nowhere/vmlinuz'
}

test_given_kernel() {
	# --kernel FILE boots that kernel
	local k
	k=$(ls /boot/vmlinuz-*-cloud-amd64 2>/dev/null | sort -V | tail -n 1)
	[ -n "$k" ] || skip "no cloud kernel in /boot"
	out run_box --kernel "$k" box uname -r
	is "release" "$out" "${k#/boot/vmlinuz-}"
}

limit_truncated_image=120
test_truncated_image() {
	# an image file truncated under a running VM costs its processes an error at most: the VM lives on
	mkdir fat
	busybox_root fat
	head -c 8000000 /dev/urandom >fat/payload
	"$SM_TOP/tests/lib/mkimage" --layer fat --env PATH=/bin --env FAT=1 --tag latest fatlay >/dev/null
	$sm load --name fat oci:fatlay >/dev/null
	$sm run -d -m 256M --name trunc fat sleep 1000 >/dev/null
	local blob
	blob=$(find "$SUPERMACHINE_HOME" -path '*blobs*' -size +7000k | head -n 1)
	cp --sparse=always "$blob" saved
	chmod u+w "$blob"
	truncate -s 4M "$blob"
	# what is lost reads as zeros, or as an error; nobody waits for it
	timeout 60 $sm exec trunc sh -c 'cat /payload | wc -c' || [ $? -ne 124 ] || fail "a process still waits for what is lost"
	out $sm exec trunc echo alive
	is "VM" "$out" alive
	out $sm rm -f trunc
	rm -f "$blob"
	cp --sparse=always saved "$blob"
	out $sm rmi fat
}

limit_stuck_restore=400
test_stuck_restore() {
	# a guest that stands still after it was restored: after a minute it is booted instead, or it is told that it hangs
	local pid i since rc
	at_length || skip "it takes a minute; in make check-long"
	for i in 1 2 3 4 5 6; do
		run_box box true # there is a base
		beside sh -c 'for i in $(seq 500); do p=$(pidof supermachine-vmm) && kill -STOP $p && exit; sleep 0.01; done; exit 1' &
		pid=$!
		sleep 0.5
		since=$SECONDS rc=0
		run_box box echo said >run.out 2>run.err || rc=$?
		wait $pid || true
		[ $((SECONDS - since)) -lt 55 ] || break # else it was too late: the command ran already
	done
	[ $((SECONDS - since)) -ge 55 ] || fail "no monitor was stopped in time"
	if [ $rc -eq 125 ]; then # its agent had been heard
		has "what is said" "$(cat run.err)" 'the guest did not come up within 60 s \((its set-up did not end|no word from its agent)\)'
	else
		is "the run" "$rc $(cat run.out)" "0 said"
	fi
	is "VMs left" "$($sm ps -aq)" ""
	is "processes left" "$(vm_processes)" 0
}
