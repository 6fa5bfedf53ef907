# SPDX-License-Identifier: Apache-2.0
# -p: ports of the host that lead into a VM; --reverse: ports of a VM that lead to the host.

echo_source=$(dirname "${BASH_SOURCE[0]}")/echo.c

# What a client sees: echo of a megabyte with a half-closed connection, many at once, IPv6, a reset where nobody listens.
clients() {
	python3 - "$@" <<-'P'
		import os, socket, sys, threading
		web, echo, nobody, many = map(int, sys.argv[1:5])
		def talk(host, port, data):
		    s = socket.create_connection((host, port), 60)
		    def send():
		        s.sendall(data)
		        s.shutdown(socket.SHUT_WR)
		    t = threading.Thread(target=send)
		    t.start()
		    got = b''
		    while chunk := s.recv(65536):
		        got += chunk
		    t.join()
		    return got
		big = os.urandom(1 << 20)
		print('echo', talk('127.0.0.1', echo, big) == big)
		page = b'GET /data HTTP/1.0\r\n\r\n'
		print('web', b'not a program' in talk('127.0.0.1', web, page), b'not a program' in talk('::1', web, page))
		held = [socket.create_connection(('127.0.0.1', echo), 60) for _ in range(many)]
		for i, s in enumerate(held):
		    s.sendall(b'%06d' % i)
		print('many', all(s.recv(6, socket.MSG_WAITALL) == b'%06d' % i for i, s in enumerate(held)))
		try:
		    s = socket.create_connection(('127.0.0.1', nobody), 60)
		    print('nobody', s.recv(1))
		except ConnectionResetError:
		    print('nobody', 'reset')
	P
}

limit_ports=480
test_ports() {
	# a port of the host is one of the VM: both ways, many at once, closed with the VM; one that is taken is told at once
	needs python3 musl-gcc
	mkdir bin
	musl-gcc -static -O2 -o bin/echo "$echo_source"
	vm p -p 0:80 -p 127.0.0.1:0:81 -p 82 -v "$PWD/bin:/srv/bin:ro" -- sh -c 'httpd -p 80 -h /srv; exec /srv/bin/echo'
	out $sm port p
	has "list" "$out" '^80/tcp -> 0\.0\.0\.0:[0-9]+$'
	has "list" "$out" '^80/tcp -> \[::\]:[0-9]+$'
	has "list" "$out" '^81/tcp -> 127\.0\.0\.1:[0-9]+$'
	web=$($sm port p 80 | sed -n '1s/.*://p')
	echo=$($sm port p 81/tcp | sed 's/.*://')
	nobody=$($sm port p 82 | sed -n '1s/.*://p')
	is "for programs" "$($sm ps --format json | jq -c '[.[].ports[] | [.address, .guest_port]]')" '[[null,80],["127.0.0.1",81],[null,82]]'
	until_true 20 bash -c "exec 3<>/dev/tcp/127.0.0.1/$echo && echo up >&3 && read -t 5 x <&3 && [ \$x = up ]"
	out clients "$web" "$echo" "$nobody" "$(scaled 60 1000)"
	is "clients" "$out" "echo True
web True True
many True
nobody reset"

	out -125 $sm run -p "127.0.0.1:$echo:81" box true
	has "taken" "$err" "port 127.0.0.1:$echo of this host is taken"
	out -125 $sm port p 90
	has "no such port" "$err" 'port 90'
	$sm stop -t 1 p >/dev/null
	is "ports of a VM that ended" "$($sm port p)" ""
	until_true 5 bash -c "! exec 3<>/dev/tcp/127.0.0.1/$echo"
	$sm start p >/dev/null
	until_true 20 bash -c "exec 3<>/dev/tcp/127.0.0.1/$($sm port p 81 | sed 's/.*://') && echo up >&3 && read -t 5 x <&3 && [ \$x = up ]"
	$sm kill p >/dev/null # and everything that listened for it is gone: the run counts processes
	$sm rm -f p >/dev/null
	out -125 $sm run -p 80:80/udp box true
	has "udp" "$err" 'TCP alone'
	out -125 $sm run -p 80:99999 box true
	has "too large" "$err" '65535'
}

# A server of this host, at a TCP port (printed) and at ./out.sock: says back what it was told, in capitals.
server() {
	exec python3 -u - <<-'P'
		import socket, threading
		def serve(s):
		    while True:
		        c, _ = s.accept()
		        got = b''
		        while chunk := c.recv(65536):
		            got += chunk
		        c.sendall(got.upper())
		        c.close()
		tcp = socket.create_server(('127.0.0.1', 0))
		unix = socket.socket(socket.AF_UNIX)
		unix.bind('out.sock')
		unix.listen()
		threading.Thread(target=serve, args=(unix,), daemon=True).start()
		print(tcp.getsockname()[1])
		serve(tcp)
	P
}

limit_reverse=240
test_reverse() {
	# a port of the VM leads to one of the host, or to a socket of it, from before its command begins; a socket of the host leads into the VM
	needs python3
	box
	server >port &
	serving=$!
	until_true 10 test -s port
	: | python3 -c 'import socket; s = socket.socket(socket.AF_UNIX); s.bind("left.sock")' # nobody listens there any more
	vm r --reverse "90:localhost:$(cat port)" --reverse 91:./out.sock --reverse 92:127.0.0.1:1 -p ./left.sock:81 -- \
		sh -c 'echo first | nc 127.0.0.1 90; exec nc -ll -p 81 -e cat'
	until_true 20 grep_logs r '^FIRST$'
	is "to a socket" "$($sm exec -i r nc 127.0.0.1 91 <<<second)" SECOND
	head -c 300000 /dev/zero | tr '\0' x >many
	is "more" "$($sm exec -i r nc localhost 90 <many | md5sum)" "$(tr x X <many | md5sum)"
	is "nobody there" "$($sm exec -i r nc 127.0.0.1 92 <<<third)" ""
	has "list" "$($sm port r)" "^90/tcp <- 127\\.0\\.0\\.1:$(cat port)\$"
	has "list" "$($sm port r)" "^81/tcp -> /.*/left\\.sock\$"
	is "into the VM" "$(python3 -c '
import socket
s = socket.socket(socket.AF_UNIX)
s.settimeout(60)
s.connect("left.sock")
s.sendall(b"in")
s.shutdown(socket.SHUT_WR)
print(s.recv(9).decode())')" in
	out -125 $sm run -p ./left.sock:81 box true
	has "taken" "$err" 'left\.sock of this host is taken'
	out -125 $sm run -p ./own.sock:80 -p "$(cat port):80" -m 256M box true
	has "the other one is taken" "$err" "port $(cat port) of this host is taken"
	[ ! -e own.sock ] || fail "the socket of a start that failed is left"
	out -125 $sm run -p ./own.sock:80 -v "$PWD:/etc/passwd" -m 256M box true
	until_true 10 test ! -e own.sock
	[ -S left.sock ] || fail "another VM's socket is gone"
	$sm stop -t 1 r >/dev/null
	until_true 10 test ! -e left.sock
	$sm rm r >/dev/null
	out -125 $sm run --reverse 90:no.such.name:1 box true
	has "no name" "$err" 'wants GUEST:HOST'
	kill $serving
}

# grep_logs VM PATTERN
grep_logs() {
	$sm logs "$1" | grep -q "$2"
}
