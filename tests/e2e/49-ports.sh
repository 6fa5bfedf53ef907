# SPDX-License-Identifier: Apache-2.0
# -p: ports of the host that lead into a VM.

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
	needs python3
	vm p -p 0:80 -p 127.0.0.1:0:81 -p 82 -- sh -c 'httpd -p 80 -h /srv; exec nc -ll -p 81 -e cat'
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
