# SPDX-License-Identifier: Apache-2.0
# Common parts of the bench programs: where the programs are, how to run something beside the VMs, how to print a ratio.
# A bench prints figures and ratios against a peer measured in the same run; it never fails on time, only when something did not work.
set -uo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
SM_BIN=${SM_BIN:-$top/build/bin}
export SM_BIN PATH=$SM_BIN:$PATH
export SUPERMACHINE_SPARE=0 # a run is measured by itself (bench-spare has the others)
[ ! -x "$SM_BIN/supermachine-keeper" ] || export SUPERMACHINE_LIBEXEC=${SUPERMACHINE_LIBEXEC:-$SM_BIN} # for programs that are not beside it

# bench_home: $w is a directory for this run, and SUPERMACHINE_HOME is in it unless it is given (tests/bench/run gives one to all). At the end: `cleanup`, if
# the bench has such a function; a home of this run's own goes with its machine.
bench_home() {
	w=$(mktemp -d /tmp/sm-bench.XXXXXX) || exit 1
	trap bench_end EXIT
	if [ -z "${SUPERMACHINE_HOME:-}" ]; then
		export SUPERMACHINE_HOME=$w/home
		own_home=1
	fi
	mkdir -p "$SUPERMACHINE_HOME"
}

bench_end() {
	! declare -F cleanup >/dev/null || cleanup
	[ -z "${own_home:-}" ] || supermachine machine stop >/dev/null 2>&1
	rm -rf "$w"
}

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

# median: of the numbers on standard input, one a line.
median() {
	sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

# seconds COMMAND...: wall time of it in seconds; its output goes to stderr. Fails if it fails.
seconds() {
	local t0 t1
	t0=$(date +%s%N)
	"$@" >&2 || return 1
	t1=$(date +%s%N)
	awk -v a="$t0" -v b="$t1" 'BEGIN { printf "%.3f\n", (b - a) / 1e9 }'
}

# busybox_root DIR: a root of a static busybox with its applets.
busybox_root() {
	local a
	mkdir -p "$1/bin" "$1/etc" || return 1
	cp "$(command -v busybox)" "$1/bin/busybox" || return 1
	for a in $("$1/bin/busybox" --list); do [ "$a" = busybox ] || ln -sf busybox "$1/bin/$a"; done
	echo 'root:x:0:0:root:/root:/bin/sh' >"$1/etc/passwd"
}

# A tiny image (busybox) in the store under the name bench-busybox.
busybox_image() {
	supermachine inspect bench-busybox >/dev/null 2>&1 && return
	busybox_root "$w/busybox" &&
		python3 "$top/tests/lib/mkimage" --tag latest --env PATH=/bin --cmd '["sh"]' --layer "$w/busybox" "$w/busybox-layout" >/dev/null &&
		supermachine load -q --name bench-busybox "oci:$w/busybox-layout" >/dev/null
}

# crun_bundle DIR ARG...: a bundle of busybox for crun, whose command is that.
crun_bundle() {
	local dir=$1
	shift
	busybox_root "$dir/rootfs" && (cd "$dir" && crun spec && jq '.process.terminal = false | .process.args = $ARGS.positional | .root.readonly = true' \
		--args -- "$@" <config.json >c && mv c config.json)
}

# percentile P: of the numbers on standard input.
percentile() {
	sort -n | awk -v p="$1" '{ v[NR] = $1 } END { if (!NR) exit 1; i = int(NR * p / 100 + 0.999999); i = i < 1 ? 1 : (i > NR ? NR : i); print v[i] }'
}

# show WHAT FILE: p50 and p99 of the milliseconds in a file.
show() {
	printf '%-34s p50 %8.1f ms   p99 %8.1f ms\n' "$1" "$(percentile 50 <"$2")" "$(percentile 99 <"$2")"
}

# build_calls: the program calls.c, built once, as $w/calls.
build_calls() {
	gcc -O2 -pthread -I"$top/include" -o "$w/calls" "$top/tests/bench/calls.c" -L"$SM_BIN/../lib" -l:libsupermachine.so.0 -Wl,-rpath,"$(realpath "$SM_BIN/../lib")"
}
