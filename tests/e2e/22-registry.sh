# SPDX-License-Identifier: Apache-2.0
# Images from a registry: a real one, on this host.

# registry DIR [HTPASSWD]: starts one that keeps its images in DIR; leaves its address in $at, and ends it with the test.
registry() {
	local line
	needs docker-registry skopeo
	mkdir -p "$1"
	{
		printf 'version: 0.1\nlog: {level: info}\nhttp: {addr: "127.0.0.1:0"}\nstorage: {filesystem: {rootdirectory: %s}}\n' "$PWD/$1/data"
		[ -z "${2:-}" ] || printf 'auth: {htpasswd: {realm: test, path: %s}}\n' "$PWD/$2"
	} >"$1/config"
	docker-registry serve "$1/config" >"$1/log" 2>&1 &
	registry_pid=$!
	trap 'kill $registry_pid 2>/dev/null || :' EXIT
	until_true 30 grep -q 'listening on 127.0.0.1:' "$1/log"
	line=$(grep -o 'listening on 127.0.0.1:[0-9]*' "$1/log" | head -n 1)
	at=${line#listening on }
}

push() { # push NAME [LAYOUT [SKOPEO-OPTION...]]: the box, or another layout, under that name
	local name=$1 layout=${2:-$SM_SHARED/box}
	shift $(($# > 1 ? 2 : 1))
	skopeo --insecure-policy copy -q --dest-tls-verify=false "$@" "oci:$layout" "docker://$at/$name"
}

limit_pull_and_run=240
test_pull_and_run() {
	# run fetches what the store lacks; pull finds that nothing has changed; an image by its digest
	box
	registry reg
	push team/box:1
	unset SUPERMACHINE_PULL

	out -125 $sm run --pull never "$at/team/box:1" true
	has "never" "$err" 'no image .* in the store'
	out $sm run --rm -m 256M "$at/team/box:1" echo pulled
	is "output" "$out" pulled
	out $sm images --no-trunc
	has "list" "$out" "^$at/team/box +1 "

	out $sm pull "$at/team/box:1"
	has "again" "$out" 'is up to date'
	out $sm pull -q "$at/team/box:1"
	has "quiet" "$out" '^[0-9a-f]{12}$'
	digest=$(skopeo inspect --tls-verify=false --format '{{.Digest}}' "docker://$at/team/box:1")
	out $sm pull "$at/team/box@$digest"
	out $sm images --no-trunc
	has "by digest" "$out" "^$at/team/box +<none> "
	out $sm rmi "$at/team/box@$digest"

	"$SM_TOP/tests/lib/mkimage" --layer "$SM_SHARED/root" --tag latest --cmd '["sh"]' --env PATH=/bin --env VERSION=2 newer >/dev/null
	push team/box:1 newer --format v2s2 --dest-compress-format zstd
	out $sm run --rm --pull always -m 256M "$at/team/box:1" sh -c 'echo $VERSION'
	is "what the name means now" "$out" 2
	out $sm rmi "$at/team/box:1"

	out -125 $sm run "$at/team/box:2" true
	has "no such tag" "$err" 'has no image team/box:2'
	out -125 $sm pull "$at/team/other"
	has "no such name" "$err" 'has no image team/other:latest'
	kill $registry_pid
	wait $registry_pid || :
	out -125 $sm pull "$at/team/box:1"
	has "nobody there" "$err" "cannot connect to 127.0.0.1 port ${at#*:}"
	out -125 env SUPERMACHINE_PULL=sometimes $sm run "$at/team/box:1" true
	has "policy" "$err" 'missing, always or never'
}

test_login() {
	# a registry that wants a password: login, its file, docker's file, logout
	box
	/usr/bin/python3 -W ignore -c 'import crypt; print("me:" + crypt.crypt("secret", "$2b$05$" + "a" * 22))' >users
	registry reg users
	push private "" --dest-creds me:secret --format v2s2

	export HOME=$PWD
	out -125 $sm pull "$at/private"
	has "refused" "$err" "supermachine login $at"
	out -125 $sm login -u me --password-stdin "$at" <<<wrong
	has "wrong" "$err" 'does not accept this user and password'
	out $sm login -u me --password-stdin "$at" <<<secret
	is "login" "$out" 'Login Succeeded'
	is "for nobody else" "$(stat -c %a "$SUPERMACHINE_HOME/data/registries.json")" 600
	out $sm pull "$at/private"
	has "pulled" "$out" "^Pulled $at/private "
	out $sm --debug pull "$at/private"
	lacks "no secret is told" "$out$err" "secret|$(printf me:secret | base64)"
	out $sm logout "$at"
	out -125 $sm pull "$at/private"
	out -125 $sm logout "$at"
	has "not logged in" "$err" "not logged in to $at"

	mkdir .docker
	jq -n --arg at "$at" '{auths: {($at): {auth: ("me:secret" | @base64)}}}' >.docker/config.json
	out $sm pull "$at/private"
	out -125 $sm login "$at" </dev/null
	has "nobody to ask" "$err" 'without a terminal'
	rm .docker/config.json
	out -125 "$SM_TOP/tests/e2e/person.py" expect:User: 'send:me\n' expect:Password: 'send:secr\x03' -- $sm login "$at"
	has "thought better of it" "$out" 'no password'
	out "$SM_TOP/tests/e2e/person.py" expect:User: 'send:me\n' expect:Password: 'send:secret\n' -- $sm login "$at"
	lacks "typed, and not shown" "$out" secr
	has "typed" "$out" 'Login Succeeded'
	out $sm pull "$at/private"
	$sm rmi "$at/private" >/dev/null
}
