# SPDX-License-Identifier: Apache-2.0
# Named volumes (-v NAME:DST, --mount, volume): what stays, who may have one, what an empty one begins with.

limit_volumes=480
test_volumes() {
	# an empty volume gets what the image has there, keeps what is written when its VM goes, also when that is killed, and belongs to one VM at a time
	out run_box -v data:/srv --mount type=volume,source=other,target=/new,volume-nocopy --mount type=tmpfs,target=/t,tmpfs-mode=750 box \
		sh -c 'cat /srv/data; stat -c %a /srv/broken /t; ls -A /new; echo kept >/srv/mine; echo x >/new/x; mount | grep -c " on /srv type ext4"'
	is "first use" "$out" "not a program
755
750
1"
	is "two volumes" "$($sm volume ls -q | xargs)" "data other"
	vm holder -v data:/d --mount type=volume,src=other,dst=/o,readonly -v /anonymous
	is "what was written" "$($sm exec holder sh -c 'cat /d/mine /o/x; ls /d | xargs')" "kept
x
broken data mine"
	out -1 $sm exec holder touch /o/y
	has "read-only" "$err" 'Read-only file system'
	out -125 run_box -v data:/d box true
	has "in use" "$err" 'volume data is in use by VM [0-9a-f]{12} \(holder\)'
	out run_box -v other:/o:ro box cat /o/x # two that only read
	is "shared" "$out" x
	is "filter" "$($sm ps -q --filter volume=data)" "$($sm ps -q)"
	out -125 $sm volume rm data
	has "rm of one in use" "$err" 'belongs to VM'
	is "three" "$($sm volume ls -q | wc -l)" 3

	# what was written is there although its VM is removed by force, and nothing was synced
	$sm exec holder sh -c 'echo late >/d/late'
	$sm rm -fv holder >/dev/null
	is "the anonymous one is gone" "$($sm volume ls -q | xargs)" "data other"
	is "late" "$(run_box -v data:/d box cat /d/late)" late
	is "json" "$($sm volume inspect data | jq -r '.[0] | .name, .vms[]')" data

	# a plain file system: the host's own tools see it
	if command -v debugfs >/dev/null; then
		is "on the host" "$(debugfs -R 'cat /data/late' "$($sm volume ls --filter name=data --format '{{.Mountpoint}}')" 2>/dev/null)" late
	fi
	is "a size of its own" "$($sm volume create --size 64M --label a=b small)" small
	has "size" "$(run_box -v small:/s box df -m /s | tail -1)" ' (5[0-9]|6[0-9]) '
	out -125 run_box -v data:/etc/passwd box true
	has "not on a file" "$err" '/etc/passwd is a file in the VM'
	$sm volume rm data other >/dev/null
	has "prune" "$($sm volume prune -a)" 'Removed 1 volume'
}
