# SPDX-License-Identifier: Apache-2.0
# The conformance program in a guest: a mounted directory of the host answers as ext4 does, save tests/conformance/EXPECTED-DIFFERENCES.

# in_guest [RUN-OPTIONS...] -- PROGRAM-OPTIONS...: runs it in a VM on the mount; its output is in $SM_TMP/results.
in_guest() {
	local program=$SM_TOP/build/tests/conformance/conformance options=()
	[ -x "$program" ] || skip "the conformance program is not built"
	while [ "$1" != -- ]; do
		options+=("$1")
		shift
	done
	shift
	mkdir -p share prog
	cp "$program" prog/
	chmod 777 share
	box
	local rc=0
	$sm run -m 256M "${options[@]}" -v "$SM_TMP/share:/data" -v "$SM_TMP/prog:/prog:ro" box /prog/conformance "$@" /data >results 2>times || rc=$?
	[ $rc -le 1 ] || fail "status $rc: $(tail -n 5 times)"
	tail -n 1 results
}

compare() { # compare WHERE [--user]
	"$SM_TOP/tests/conformance/run" --program "$SM_TOP/build/tests/conformance/conformance" --results results "$@"
}

limit_guest_root=420
test_guest_root() {
	# as the guest's root: the same answers as from ext4 but for the known differences
	local options=()
	# The longest groups are for the full counts: emulated, each takes half a minute.
	[ "$SM_SCALE" -gt 1 ] || options=(--skip length,bytes,open,open-many,rename,rename-many,readdir-many,readdir-change,append-many,overwrite,perm-dir,perm-file,deep,seekdir,punch,mkdir,loop,whole)
	in_guest -- -v -t -x 20 "${options[@]}"
	compare guest
	is "left over on the host" "$(ls share)" ""
}

limit_guest_user=300
test_guest_user() {
	# as an ordinary user of the guest: the same answers as an ordinary user of ext4 gets
	local options=()
	# What users may and may not do; all the rest is for the full counts.
	[ "$SM_SCALE" -gt 1 ] || options=(-k perm)
	in_guest -u 65534:65534 -- -v -t -x 20 "${options[@]}"
	compare guest --user
}
