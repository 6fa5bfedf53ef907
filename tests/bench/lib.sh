# SPDX-License-Identifier: Apache-2.0
# Common parts of the bench programs: where the programs are, how to run something beside the VMs, how to print a ratio.
# A bench prints figures and ratios against a peer measured in the same run; it never fails on time, only when something did not work.
set -uo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
SM_BIN=${SM_BIN:-$top/build/bin}
export SM_BIN PATH=$SM_BIN:$PATH

# Where VMs run: on this host, or in the machine.
engine() {
	if "$top/tools/needs-machine"; then echo machine; else echo host; fi
}

# Runs a command where the VMs run.
beside() {
	if [ "${SM_ENGINE:=$(engine)}" = machine ]; then supermachine machine exec -- "$@"; else "$@"; fi
}

# ratio A B: A/B with two digits.
ratio() {
	awk -v a="$1" -v b="$2" 'BEGIN { if (b > 0) printf "%.2f", a / b; else printf "n/a" }'
}

# seconds COMMAND...: wall time of it in seconds; its output goes to stderr. Fails if it fails.
seconds() {
	local t0 t1
	t0=$(date +%s%N)
	"$@" >&2 || return 1
	t1=$(date +%s%N)
	awk -v a="$t0" -v b="$t1" 'BEGIN { printf "%.3f\n", (b - a) / 1e9 }'
}

# A tiny image (busybox) in the store under the name bench-busybox.
busybox_image() {
	supermachine inspect bench-busybox >/dev/null 2>&1 && return
	local d
	d=$(mktemp -d)
	mkdir -p "$d/root/bin" "$d/root/etc"
	cp /bin/busybox "$d/root/bin/busybox"
	for a in sh cat true echo sleep dd sha256sum wc head ls seq mount; do ln -s busybox "$d/root/bin/$a"; done
	echo 'root:x:0:0:root:/root:/bin/sh' >"$d/root/etc/passwd"
	umoci init --layout "$d/oci" && umoci new --image "$d/oci:b" &&
		umoci insert --rootless --image "$d/oci:b" "$d/root" / >/dev/null 2>&1 &&
		supermachine load "oci:$d/oci:b" >/dev/null && supermachine tag b bench-busybox
	local rc=$?
	rm -rf "$d"
	return $rc
}
