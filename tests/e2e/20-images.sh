# SPDX-License-Identifier: Apache-2.0
# Images: loading as other tools make them, listing, naming, removing.

test_templates() {
	# templates of what lists images and of inspect, by docker's names
	image tmpl:1 --cmd '["sh","-c","x"]' --entrypoint '["/bin/env"]' --env PATH=/bin --env A=1 --label k=v --label a.b=c
	local id
	id=$($sm images --format json | jq -r '.[] | select(.names[]? == "tmpl:1") | .id')
	is "images" "$($sm images --format '{{.Repository}}:{{.Tag}} {{.ID}} {{.Label "a.b"}}' | grep ^tmpl)" "tmpl:1 ${id:0:12} c"
	is "whole ids" "$($sm images --no-trunc --format '{{.ID}}' | grep -c "^sha256:$id$")" 1
	has "columns" "$($sm images --format 'table {{.Repository}}\t{{.Tag}}\t{{.Size}}')" '^NAME +TAG +SIZE$'
	is "json" "$($sm images --format '{{json .}}' | jq -r 'select(.Repository == "tmpl") | [.Tag, .Labels.k] | join(" ")')" "1 v"
	is "inspect" "$($sm inspect -f '{{.Id}} {{.RepoTags}} {{index .RepoTags 0}} {{.Os}}' tmpl:1)" "sha256:$id [tmpl:1] tmpl:1 linux"
	is "configuration" "$($sm inspect -f '{{json .Config.Cmd}} {{.Config.Env}} {{join .Config.Env ";"}} {{len .Config.Env}} {{index .Config.Labels "k"}}' tmpl:1)" \
		'["sh","-c","x"] [PATH=/bin A=1] PATH=/bin;A=1 2 v'
	is "an object" "$($sm inspect --type image -f '{{json .Config}}' tmpl:1 | jq -c '[.Entrypoint, .Labels, .User]')" '[["/bin/env"],{"k":"v","a.b":"c"},""]'
	is "everything" "$($sm inspect -f '{{json .}}' tmpl:1 | jq -r '.Config.Env[1], (.RootFS.Layers | length)' | xargs)" "A=1 1"
	out -125 $sm inspect -f '{{.Config.Nothing}}' tmpl:1
	has "no such field" "$err" 'no field .Config.Nothing'
	out -125 $sm inspect -f '{{.Id}}' nosuch
	has "nothing of that name" "$err" 'nosuch'
	out -125 $sm images --format colour
	has "no format" "$err" "cannot be 'colour'"
	is "version" "$($sm version --format '{{.Version}} {{.Server.Version}}')" "$($sm version | sed -E 's/^supermachine (.*)/\1 \1/')"
	out $sm snapshots --format '{{.Name}} {{.Kind}} {{json .Fits}}'
	out -125 $sm snapshots --format '{{.Colour}}'
	has "also without any" "$err" 'no field .Colour'
	$sm volume create --label a=b tmpl >/dev/null
	is "volumes" "$($sm volume ls --format '{{.Name}} {{.Driver}} {{.Labels}} {{.Label "a"}}')" "tmpl local a=b b"
	$sm volume rm tmpl >/dev/null
	$sm rmi tmpl:1
}

test_filters() {
	# images are chosen by name, by patterns, by labels, and for having no name, as docker chooses them
	image a/one --label tier=web --label big=
	image two --label tier=db
	$sm tag a/one three:v1
	# chosen OPTIONS...: which names, as REPOSITORY:TAG
	chosen() { $sm images --format '{{.Repository}}:{{.Tag}}' "$@" | sed '/^box:/d' | sort | xargs; }
	is "all" "$(chosen)" "a/one:latest three:v1 two:latest"
	is "a name" "$(chosen two)" "two:latest"
	is "a name and a tag" "$(chosen three:v1)$(chosen three:v2)" "three:v1"
	is "a pattern" "$(chosen 't*')" "three:v1 two:latest"
	is "a pattern of two parts" "$(chosen -f 'reference=*/one')" "a/one:latest"
	is "either" "$(chosen -f reference=two -f reference='three:v?')" "three:v1 two:latest"
	is "a label" "$(chosen -f label=tier)" "a/one:latest three:v1 two:latest"
	is "labels" "$(chosen -f label=tier=web --filter label=big)" "a/one:latest three:v1"
	is "both" "$(chosen -f label=tier=web -f reference=two)" ""
	is "ids" "$($sm images -q -f label=tier=web | wc -l)" 1
	is "json" "$($sm images --format json -f reference=three | jq -c 'map(.names)')" '[["three:v1"]]'
	is "with a name" "$(chosen -f dangling=true)" ""
	out -125 $sm images -f dangling=maybe
	has "neither" "$err" "dangling=maybe"
	out -125 $sm images -f colour=red
	has "no such filter" "$err" 'colour=red'
	out -125 $sm volume ls -f dangling=maybe
	has "neither" "$err" "dangling=maybe"
	out $sm rmi a/one three:v1 two
}

test_load_umoci_layout() {
	# an image that umoci made loads, is listed, and runs as one file system that fsck.erofs accepts
	needs umoci fsck.erofs
	busybox_root root
	umoci init --layout lay
	umoci new --image lay:v1
	umoci unpack --rootless --image lay:v1 bundle >/dev/null
	cp -a root/. bundle/rootfs/
	umoci repack --image lay:v1 bundle >/dev/null 2>&1
	umoci config --image lay:v1 --config.cmd sh --author e2e
	out $sm load --name fromumoci:v1 oci:lay:v1
	has "what was loaded" "$out" '^Loaded fromumoci:v1 \([0-9a-f]{12}, 1 layer, '
	out $sm images
	has "listed" "$out" '^fromumoci +v1 +[0-9a-f]{12} +[0-9a-f]{12} '
	is "over 80 columns" "$(awk 'length > 80' "$SM_TMP/.out")" ""
	out $sm inspect fromumoci:v1 --export-erofs fs.erofs
	fsck.erofs fs.erofs >/dev/null
	out $sm rmi fromumoci:v1
}

test_load_archives() {
	# OCI and docker archives load by path, by prefix, and from standard input; all are the same image
	box
	local id f
	id=$($sm images --format json | jq -r '.[] | select(.names | index("box:latest")) | .id')
	for f in oci-archive docker docker-new; do
		"$SM_TOP/tests/lib/mkimage" --layer "$SM_SHARED/root" --tag arch:$f --format $f --cmd '["sh"]' --env PATH=/bin --env GREETING=hello $f.tar
		out $sm load $f.tar
		has "$f" "$out" "^Loaded .*arch:$f[ ,]"
		out $sm load -q -i $f.tar
		is "id of $f" "$out" "${id:0:12}"
		out bash -c "$sm load --name stdin:$f - <$f.tar"
		out bash -c "cat $f.tar | $sm load -q --name stdin:$f"
		is "id of $f on standard input" "$out" "${id:0:12}"
	done
	out $sm rmi stdin:docker stdin:docker-new stdin:oci-archive
	out $sm images -q
	has "still there" "$out" "${id:0:12}"
}

test_load_compressions() {
	# gzip in several members, zstd in several frames and plain layers give the same image content
	box
	tar -C "$SM_SHARED/root" --sort=name --numeric-owner -cf layer.tar .
	for how in plain gzip,members=5 zstd,members=3; do
		"$SM_TOP/tests/lib/mkimage" --layer "layer.tar,$how" --env "HOW=$how" --tag latest "lay-${how%%,*}"
		out $sm load --name "comp:${how%%,*}" "oci:lay-${how%%,*}"
		$sm inspect "comp:${how%%,*}" --export-erofs "${how%%,*}.erofs"
	done
	cmp plain.erofs gzip.erofs
	cmp plain.erofs zstd.erofs
	# one layer's content, used by three images: only one copy on disk
	out $sm images --format json
	jq -e '[.[] | select(any(.names[]?; startswith("comp:"))) | .shared > 0] | length > 0 and all' "$SM_TMP/.out" >/dev/null
	out $sm rmi comp:plain comp:gzip comp:zstd
}

test_names() {
	# tag, inspect by id, rmi of one name and of all, prune gives the space back
	image named --label a=b
	local id
	id=$($sm images --format json | jq -r '.[] | select(any(.names[]; . == "named:latest")) | .id')
	out $sm tag named other:1
	out $sm inspect --type image other:1
	is "id" "$(jq -r '.[0].id | ltrimstr("sha256:")' "$SM_TMP/.out")" "$id"
	out $sm inspect "${id:0:6}"
	out $sm rmi other:1
	out $sm inspect named
	out -125 $sm inspect other:1
	out $sm tag named other:2
	out $sm rmi "${id:0:12}"
	out -125 $sm inspect named
	out -125 $sm inspect other:2
	out $sm prune
	has "freed" "$out" '^Removed '
	out $sm prune --format json
	is "second prune" "$(jq -r '.bytes' "$SM_TMP/.out")" 0
	out $sm inspect box
}

test_registry_names() {
	# a name may be given with docker's default registry or without it; other registries are part of a name
	box
	local id f
	id=$($sm inspect box | jq -r '.[0].id')
	find_it() { # find_it NAME...: each is box's image
		for f; do is "$f" "$($sm inspect "$f" | jq -r '.[0].id')" "$id"; done
	}
	saved() { # saved NAME FORMAT: as `docker save` does
		"$SM_TOP/tests/lib/mkimage" --layer "$SM_SHARED/root" --tag "$1" --format "$2" --cmd '["sh"]' --env PATH=/bin --env GREETING=hello saved.tar
		out bash -c "cat saved.tar | $sm load -"
	}
	saved docker.io/library/plain:1 docker
	has "short" "$out" '^Loaded (.*, )?plain:1[ ,]'
	find_it plain:1 library/plain:1 docker.io/plain:1 docker.io/library/plain:1 index.docker.io/library/plain:1
	saved someone/plain:2 docker-new
	find_it someone/plain:2 docker.io/someone/plain:2
	saved registry.example:5000/team/plain:3 docker
	find_it registry.example:5000/team/plain:3
	out -125 $sm inspect team/plain:3
	out $sm load --name docker.io/library/given "docker-archive:saved.tar:registry.example:5000/team/plain:3"
	find_it given docker.io/library/given
	out $sm rmi docker.io/library/plain:1 someone/plain:2 registry.example:5000/team/plain:3 given
	out run_box docker.io/library/box echo found
	is "run" "$out" found
}

test_broken_images() {
	# a broken image is one error naming the file, and the store is as before
	box
	local before n=0
	before=$($sm images --format json | jq -S .)
	cp -a "$SM_SHARED/root" root
	head -c 20000 /dev/urandom >root/different
	break_it() { # break_it PATTERN MKIMAGE-OPTIONS...
		local pattern=$1
		shift
		n=$((n + 1))
		"$SM_TOP/tests/lib/mkimage" --tag latest "$@" "bad$n" >/dev/null
		out -125 $sm load "oci:bad$n"
		has "error $n" "$err" "^supermachine: load: .*$pattern"
		[ "$(wc -l <"$SM_TMP/.err")" -le 2 ] || fail "more than two lines: $err"
	}
	break_it 'digest|sha256' --layer "root,flip=2000"
	break_it '' --layer "root,cut=500"
	break_it '' --layer "root,break=3000"
	break_it '' --layer "root,missing"
	break_it '' --layer "root" --set 'manifest.layers.0.size=-1'
	break_it '' --layer "root" --raw manifest=/dev/null
	out -125 $sm load oci:/nowhere
	has "path" "$err" '/nowhere'
	out -125 $sm load nothing.tar
	has "path" "$err" 'nothing.tar'
	head -c 100000 /dev/urandom >noise.tar
	out -125 $sm load noise.tar
	out -125 bash -c "echo garbage | $sm load -"
	is "the store" "$($sm images --format json | jq -S .)" "$before"
}

test_limits() {
	# limits against bombs can be set, and say which they were
	"$SM_TOP/tests/lib/mkimage" --layer zeros:64M,gzip --tag latest bomb >/dev/null
	out -125 $sm load --max-layer-size 10M oci:bomb
	has "limit" "$err" '(limit|more than|large|exceed|max)'
	mkdir many
	(cd many && seq 200 | xargs touch)
	"$SM_TOP/tests/lib/mkimage" --layer many --tag latest manyfiles >/dev/null
	out -125 $sm load --max-entries 50 oci:manyfiles
	out $sm load --name manyfiles oci:manyfiles
	out $sm rmi manyfiles
}

limit_killed_loads=300
test_killed_loads() {
	# a load killed at any moment: the next one succeeds, and prune leaves no garbage
	local n i pid rc delay whole hit=0
	n=$(scaled 8 50)
	mkdir big
	for i in 1 2 3 4; do head -c 12000000 /dev/urandom >big/$i; done
	"$SM_TOP/tests/lib/mkimage" --layer big,gzip --layer big,zstd --tag latest biglay >/dev/null
	local store=$SUPERMACHINE_HOME/data
	[ -d "$store" ] || store=$SUPERMACHINE_HOME
	whole=$EPOCHREALTIME
	out $sm load --name killed oci:biglay
	whole=$(awk -v a="$whole" -v b="$EPOCHREALTIME" 'BEGIN { print b - a }')
	out $sm rmi killed
	out $sm prune -a
	find "$store" -type f | sort >before
	for i in $(seq "$n"); do
		delay=$(awk -v t="$whole" -v r=$RANDOM 'BEGIN { print t * r / 32768 }')
		$sm load --name killed oci:biglay >/dev/null 2>&1 &
		pid=$! rc=0
		sleep "$delay"
		kill -9 $pid 2>/dev/null || true
		wait $pid 2>/dev/null || rc=$?
		if [ $rc -eq 137 ]; then
			hit=$((hit + 1))
		else # done before it was killed: the host is less busy than it was when the time was taken
			whole=$(awk -v t="$whole" 'BEGIN { print t * 0.7 }')
			# The next one is to have work to do, too.
			out $sm rmi killed
			out $sm prune -a
		fi
	done
	[ $hit -ge $((n / 4)) ] || fail "only $hit of $n loads were still running when they were killed"
	out $sm load --name killed oci:biglay
	$sm inspect killed --export-erofs k.erofs
	fsck.erofs k.erofs >/dev/null
	out $sm rmi killed
	out $sm prune -a
	find "$store" -type f | sort >after
	diff before after
}
