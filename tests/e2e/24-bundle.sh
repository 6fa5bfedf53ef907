# SPDX-License-Identifier: Apache-2.0
# Bundles: a directory that runs images wherever it lies.

# bundle_run DIRECTORY ARGUMENT...: its command, as somebody has it who has nothing else of ours.
bundle_run() {
	local dir=$1
	shift
	env -u SUPERMACHINE_HOME -u SUPERMACHINE_LIBEXEC -u LD_LIBRARY_PATH "$dir/supermachine" "$@"
}

limit_bundle_runs=300
test_bundle_runs() {
	# bundle --into DIR: DIR can be moved, and runs its images without an option, with its own kernel and programs
	box
	$sm tag box other:2
	out $sm bundle --into made box
	is "nothing is said" "$out$err" ""
	is "beside it" "$(ls -A)" "$(printf '%s\n' .err .out made)"
	# none of its files or links has a path of this host in it: neither the home's nor the programs'
	lacks "files" "$(grep -rIlF -e "$SUPERMACHINE_HOME" -e "$PWD" made || true)" .
	is "links that lead out" "$(find made -lname '/*')" ""
	mkdir "else where"
	mv made "else where/app"
	app="$PWD/else where/app"
	trap 'bundle_run "$app" machine stop >/dev/null 2>&1 || true' EXIT
	is "images" "$(bundle_run "$app" images --format json | jq -r '.[].names[]' | grep -xE 'box:latest|other:2' | sort | xargs)" "box:latest other:2"
	is "its kernel" "$(bundle_run "$app" doctor --format json 2>/dev/null | jq -r '.[] | select(.id == "kernel") | .message' | grep -cF "$app/home/data/kernels/bundled/boot/vmlinuz-")" 1
	out bundle_run "$app" run -m 256M box echo moved
	is "it runs" "$out" moved
	ln -s "$app/supermachine" link
	out -7 env -u SUPERMACHINE_HOME -u SUPERMACHINE_LIBEXEC ./link run -m 256M -v "$PWD:/here" other:2 sh -c 'test -L /here/link && echo linked; exit 7'
	is "by a link, with a mount" "$out" linked
	out env -u SUPERMACHINE_HOME -u SUPERMACHINE_LIBEXEC LD_DEBUG=files "$app/supermachine" version
	has "libraries" "$err" "$app/lib/libc.so.6"
	is "libraries of the host" "$(grep -oE 'file=/[^;]*;' <<<"$err" | grep -vF "$app" || true)" ""
	bundle_run "$app" run -m 256M box true
	is "its base snapshot is found again" "$(bundle_run "$app" snapshots --format json | jq -c '[.[] | .fits]')" '[true]'
	is "of this home nothing ran" "$($sm ps -aq)" ""
}

limit_bundle_alone=300
test_bundle_alone() {
	# in a chroot with /proc, /dev and /sys, and nothing else but the bundle (and an emulator, where VMs need one)
	[ "$(id -u)" -eq 0 ] || skip "chroot needs root"
	unshare -m true 2>/dev/null || skip "no mount namespace can be made here"
	box
	mkdir -p jail/{proc,dev,sys,tmp,opt}
	$sm bundle --into jail/opt/app box
	cat >in-jail <<-'E'
		mount -t proc proc jail/proc && mount --rbind /dev jail/dev && mount --rbind /sys jail/sys || exit 77
		app() { env -i HOME=/ PATH=/usr/sbin:/usr/bin:/bin chroot jail /opt/app/supermachine "$@"; }
		set -e
		app version
		app images -q
		if [ "$1" = machine ]; then
			app run box true && exit 1
			app machine stop
			mkdir jail/usr
			mount --bind -o ro /usr jail/usr
			for l in lib lib64 bin; do ln -s usr/$l jail/$l; done
			app doctor >&2 || true
		fi
		app run -m 256M box echo alone
		app machine stop
	E
	out unshare -m bash in-jail "$(engine)"
	has "the command" "$out" '^supermachine [0-9.]+$'
	is "the run" "$(tail -n 1 <<<"$out")" alone
	[ "$(engine)" = host ] || has "without an emulator" "$err" 'qemu-system-x86_64 is not installed'
}

limit_bundle_refused=120
test_bundle_refused() {
	# a directory that is not empty stays; no image, no space, a kill: nothing that looks like a bundle is left
	local pid i
	box
	mkdir full
	echo mine >full/file
	out -125 $sm bundle --into full box
	has "not empty" "$err" 'full: that directory is not empty'
	is "what was there" "$(cat full/file)" mine
	out -125 $sm bundle --into new box nothing
	has "no image" "$err" 'no image nothing'
	out -125 $sm bundle box
	has "no place" "$err" '--into DIR'
	[ ! -e new ] && [ ! -e .new.part ] || fail "it left $(ls -A)"
	for i in 0.02 0.05 0.1 0.2; do
		$sm bundle --into killed box 2>/dev/null &
		pid=$!
		sleep $i
		kill -9 $pid 2>/dev/null || true
		wait $pid 2>/dev/null || true
		[ ! -e killed ] || { bundle_run "$PWD/killed" images -q >/dev/null && rm -r killed; }
	done
	out $sm bundle --into killed box
	[ ! -e .killed.part ] || fail "what was killed is still there"
	is "the next one is whole" "$(bundle_run "$PWD/killed" images --format json | jq -r '.[].names[]' | grep -x box:latest)" box:latest
	if [ "$(id -u)" -eq 0 ] && unshare -m true 2>/dev/null; then
		mkdir small
		out -125 unshare -m sh -c 'mount -t tmpfs -o size=20m none small && "$0" bundle --into small/app box; rc=$?; ls -A small >&2; exit $rc' $sm
		has "no space" "$err" 'No space left'
		lacks "left there" "$err" '^(app|\.app\.part)$'
	fi
}
