# SPDX-License-Identifier: Apache-2.0
# Helpers of the end-to-end tests. Sourced by run; tests run under `set -Eeu` in $SM_TMP.

sm=supermachine
# A name that the store does not have is not looked for elsewhere, but where that is what a test is about.
export SUPERMACHINE_PULL=never
# What a test starts is what there is: no VM that is made in advance (27-spare.sh has them).
export SUPERMACHINE_SPARE=0

fail() {
	echo "$*"
	exit 1
}

skip() {
	echo "$*"
	exit 77
}

needs() {
	local t
	for t; do command -v "$t" >/dev/null || skip "needs $t"; done
}

# scaled LEAST FULL: how often to do something: LEAST in make check, FULL in make check-long.
scaled() {
	local n=$(($1 * SM_SCALE))
	echo $((n > $2 ? $2 : n))
}

# at_length: whether there is time for more of the same kind: in make check-long.
at_length() {
	[ "$SM_SCALE" -gt 1 ]
}

# out [-STATUS] COMMAND...: runs it; leaves stdout in $out, stderr in $err; fails unless its exit status is STATUS (default 0).
out() {
	local want=0 rc=0
	if [[ $1 =~ ^-[0-9]+$ ]]; then
		want=${1#-}
		shift
	fi
	"$@" >"$SM_TMP/.out" 2>"$SM_TMP/.err" || rc=$?
	out=$(tr -d '\0' <"$SM_TMP/.out")
	err=$(tr -d '\0' <"$SM_TMP/.err")
	[ "$rc" -eq "$want" ] || fail "status $rc, not $want, of: $*
stdout: $out
stderr: $err"
}

is() { # is WHAT GOT WANT
	[ "$2" = "$3" ] || fail "$1: got '$2', want '$3'"
}

has() { # has WHAT TEXT PATTERN (extended regular expression, over lines)
	grep -qE -e "$3" <<<"$2" || fail "$1: no match for '$3' in '$2'"
}

lacks() {
	! grep -qE -e "$3" <<<"$2" || fail "$1: unwanted '$3' in '$2'"
}

# until_true SECONDS COMMAND...: tries again and again.
until_true() {
	local end=$((SECONDS + $1 * ${SM_PATIENCE:-1}))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || fail "still not so: $*"
		sleep 0.2
	done
}

# Where VMs run: "host" or "machine".
engine() {
	if [ ! -s "$SM_SHARED/engine" ]; then
		if [ "$($sm doctor --format json | jq -r '.[] | select(.id == "kvm") | .ok')" = true ] &&
			[ "${SUPERMACHINE_MACHINE:-auto}" != always ]; then
			echo host
		else
			echo machine
		fi >"$SM_SHARED/engine"
	fi
	cat "$SM_SHARED/engine"
}

# Runs a command where the VMs run.
beside() {
	if [ "$(engine)" = machine ]; then
		$sm machine exec -- "$@"
	else
		"$@"
	fi
}

# How many keepers and monitors there are where VMs run: of this home alone, where that is a machine.
vm_processes() {
	beside sh -c 'cat /proc/[0-9]*/cmdline 2>/dev/null | tr "\0" "\n" | grep -cE "supermachine-(keeper|vmm)$"' || true
}

# A root of busybox in $1, with users, groups and a few files to find again.
busybox_root() {
	local applet
	mkdir -p "$1"/{bin,etc,root,tmp,home/alice,srv}
	cp "$(command -v busybox)" "$1/bin/busybox"
	for applet in $("$1/bin/busybox" --list); do
		[ "$applet" = busybox ] || ln -sf busybox "$1/bin/$applet"
	done
	printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'alice:x:1000:1000:Alice:/home/alice:/bin/sh' 'bob:x:1001:50::/:/bin/sh' >"$1/etc/passwd"
	printf '%s\n' 'root:x:0:' 'staff:x:50:alice' 'audio:x:29:alice,bob' 'alice:x:1000:' >"$1/etc/group"
	chmod 1777 "$1/tmp"
	chown -R 1000:1000 "$1/home/alice" 2>/dev/null || true
	echo 'not a program' >"$1/srv/data"
	chmod 644 "$1/srv/data"
	printf '#!/no/such/interpreter\n' >"$1/srv/broken"
	chmod 755 "$1/srv/broken"
}

# The image most tests use, loaded once: a static busybox under the name "box". Its layout stays in $SM_SHARED/box.
box() {
	(
		flock 9
		[ -e "$SM_SHARED/box.loaded" ] && exit 0
		busybox_root "$SM_SHARED/root"
		"$SM_TOP/tests/lib/mkimage" --layer "$SM_SHARED/root" --tag latest --cmd '["sh"]' --env PATH=/bin --env GREETING=hello \
			"$SM_SHARED/box" >/dev/null
		$sm load --name box "oci:$SM_SHARED/box" >/dev/null
		: >"$SM_SHARED/box.loaded"
	) 9>"$SM_SHARED/.lock"
}

# image NAME MKIMAGE-OPTIONS...: loads one more image made of box's root.
image() {
	local name=$1
	shift
	box
	"$SM_TOP/tests/lib/mkimage" --layer "$SM_SHARED/root" --tag latest "$@" "$SM_TMP/image-$name" >/dev/null
	$sm load --name "$name" "oci:$SM_TMP/image-$name" >/dev/null
}

# run_box OPTIONS... COMMAND...: shorthand with the memory most tests need.
run_box() {
	box
	$sm run -m 256M "$@"
}

# vm NAME [OPTIONS...] [-- COMMAND...]: a detached VM that is there until the test removes it (default command: sleep).
vm() {
	local name=$1 options=()
	shift
	box
	while [ $# -gt 0 ] && [ "$1" != -- ]; do
		options+=("$1")
		shift
	done
	[ $# -gt 0 ] && shift
	[ $# -gt 0 ] || set -- sleep 1000
	$sm run -d -m 256M --name "$name" "${options[@]}" box "$@" >/dev/null
}

state() { # state VM: running, exited, ... or "gone"
	$sm ps -a --format json | jq -r --arg v "$1" '[.[] | select(.name == $v or .id == $v) | .state][0] // "gone"'
}

# is_state VM STATE: for until_true, which evaluates its words once.
is_state() {
	[ "$(state "$1")" = "$2" ]
}

# field VM JQ-FILTER, of the VM's entry in ps --format json
field() {
	$sm ps -a --format json | jq -r --arg v "$1" ".[] | select(.name == \$v or .id == \$v) | $2"
}
