# SPDX-License-Identifier: Apache-2.0
# A day of docker's command lines, with docker as an alias: their exit statuses and what they print.

# STATUS|PATTERN|COMMAND LINE. Status !: any but 0. The pattern (extended, over lines, of both streams) may be empty.
docker_lines() {
	cat <<-'L'
		0|^[0-9a-f]{12}$|docker run -d -m 256M --name w -l tier=web -h web1 -e A=1 --env-file env --add-host db:10.0.0.9 --tmpfs /scratch:size=1m -v data:/data -w /tmp -p 127.0.0.1:0:80 --stop-signal SIGTERM --ulimit nofile=512 --init --cidfile cid --pull never box sh -c 'trap "exit 3" TERM; echo started; echo oops >&2; sleep 1000 & wait'
		0|^started$|until docker logs w 2>&1 | grep -q oops; do sleep 0.2; done; docker logs w
		0|^[0-9-]+T[0-9:.]+Z started$|docker logs -t w
		0|^[a-z]+$|docker logs --tail 1 --since 10m w
		0|\<w\>.*\<box\>|docker ps
		0|^[0-9a-f]{12}$|docker ps -q
		0|^w box running$|docker ps --format '{{.Names}} {{.Image}} {{.State}}'
		0|"name": "w"|docker ps --format json
		0|^[0-9a-f]{12}$|docker ps -aq --no-trunc --filter label=tier=web -f status=running -f volume=data
		0|\<w\>|docker container ls --all
		0|^web1$|docker exec w hostname
		0|^1 2$|docker exec w sh -c 'echo $A $B'
		0|^x y$|docker exec -e X=x --env Y=y w sh -c 'echo $X $Y'
		0|^1000$|docker exec -u alice w id -u
		0|^1001 50$|docker exec --user bob:staff w sh -c 'echo $(id -u) $(id -g)'
		0|^/srv$|docker exec -w /srv w pwd
		127|/no/such/place|docker exec -w /no/such/place w pwd
		126|/srv/data|docker exec -w /srv/data w pwd
		!||docker exec w ls /no
		7||docker exec w sh -c 'exit 7'
		127|nosuchcommand|docker exec w nosuchcommand
		126||docker exec w /srv/data
		0|^in$|echo in | docker exec -i w cat
		0||docker exec -d w touch /scratch/left
		0|^512$|docker container exec w sh -c 'ulimit -n'
		0|^10.0.0.9|docker exec w grep db /etc/hosts
		0|ext4|docker exec w sh -c 'mount | grep " on /data "'
		0||echo hello >file; docker cp file w:/tmp/file
		0|^hello$|docker cp w:/tmp/file back && cat back
		0|^file$|docker cp w:/tmp/file - | tar t
		!||docker cp w:/nosuch .
		0|^A /tmp/file$|docker diff w
		0|^80/tcp -> 127.0.0.1:[0-9]+$|docker port w
		0|^127.0.0.1:[0-9]+$|docker port w 80/tcp
		0|^\[|docker inspect w
		0|"id"|docker inspect --type image box
		0|^true running 0 /w$|docker inspect -f '{{.State.Running}} {{.State.Status}} {{.State.ExitCode}} {{.Name}}' w
		!|nosuch|docker inspect nosuch
		0|MEM USAGE|docker stats --no-stream w
		0|^start w$|docker events --since 10m --until 0s --filter container=w --format '{{.Action}} {{.Name}}'
		0|^w$|docker pause w
		0|^paused$|docker ps --format '{{.State}}'
		!|paused|docker exec w true
		0|^w$|docker unpause w
		0||docker kill -s CONT w
		0|\<data\>|docker volume ls
		0|^other$|docker volume create other
		0|"name": "other"|docker volume inspect other
		0|^other$|docker volume rm other
		!|belongs to VM|docker volume rm data
		125|taken|docker run --name w box true
		!|running|docker rm w
		0|^w$|docker stop --time 20 w
		0|^3$|docker wait w
		0|exited \(3|docker ps -a --filter name=w --format '{{.Status}}'
		0|^w$|docker start w
		0|^w$|docker restart -t 20 w
		0|^w$|docker rm --force --volumes w
		0|^data$|docker volume rm data
		0|^box|docker images
		0|^box|docker image ls
		0||docker tag box box2 && docker run -d --name holds -m 256M box sleep 100 >/dev/null && docker image rm box2 && docker rm -f holds >/dev/null
		0|^hi$|docker run --rm -m 256M --mount type=tmpfs,target=/t box echo hi
		5||docker run --rm -m 256M box sh -c 'exit 5'
		127|nosuchcommand|docker run --rm -m 256M box nosuchcommand
		125|nosuchimage|docker run --rm nosuchimage true
		125|cannot connect|docker run --pull=always localhost:1/box true
		125|no devices of the host|docker run --gpus all box true
		125|no devices of the host|docker run --device /dev/kvm box true
		125|all capabilities|docker run --cap-add SYS_ADMIN box true
		125|no daemon|docker run -d --restart unless-stopped box true
		125|TCP alone|docker run -p 53:53/udp box true
		125|--nosuch|docker run --nosuch box true
		0|Usage|docker run --help
		0|[0-9]+\.[0-9]+|docker version
		0||docker volume prune -f
		0||docker system prune -f
	L
}

limit_docker=420
test_docker() {
	# scripts made for docker do with this what they did, or are told why not
	box
	echo B=2 >env
	local want pattern line rc n=0
	while IFS='|' read -r want pattern line; do
		n=$((n + 1)) rc=0
		printf 'shopt -s expand_aliases\nalias docker=%s\n%s\n' "$sm" "$line" >script
		bash script </dev/null >said 2>&1 || rc=$?
		case $want in
			!) [ $rc -ne 0 ] ;;
			*) [ $rc -eq "$want" ] ;;
		esac || fail "status $rc, not $want, of: $line
$(cat said)"
		[ -z "$pattern" ] || grep -qE -e "$pattern" said || fail "no '$pattern' of: $line
$(cat said)"
	done < <(docker_lines)
	[ "$n" -ge 60 ] || fail "only $n lines"
	is "the file for the id" "$(wc -c <cid)" 12
}
