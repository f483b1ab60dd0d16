#!/bin/sh
# In a container: a master at FIRST_PORT, two replicas and three sentinels at the next ports. A sentinel rewrites its file:
# it is made once.
set -eu
cd /data
secret=polystore-test announced=127.0.0.1
pids=
trap 'kill $pids; wait' TERM INT

node() {
	port=$1
	shift
	mkdir -p "$port"
	redis-server --port "$port" --dir "/data/$port" --requirepass $secret --masterauth $secret --appendonly yes --save '' \
		--replica-announce-ip $announced --repl-diskless-sync-delay 0 "$@" &
	pids="$pids $!"
}

node "$FIRST_PORT"
node $((FIRST_PORT + 1)) --replicaof $announced "$FIRST_PORT"
node $((FIRST_PORT + 2)) --replicaof $announced "$FIRST_PORT"
until redis-cli -p "$FIRST_PORT" ping | grep -q PONG; do sleep 0.1; done
for port in $((FIRST_PORT + 3)) $((FIRST_PORT + 4)) $((FIRST_PORT + 5)); do
	mkdir -p $port
	[ -f $port/sentinel.conf ] || cat >$port/sentinel.conf <<-EOF
		port $port
		dir /data/$port
		requirepass $secret
		sentinel sentinel-pass $secret
		sentinel announce-ip $announced
		sentinel monitor polystore $announced $FIRST_PORT 2
		sentinel auth-pass polystore $secret
		sentinel down-after-milliseconds polystore 1500
		sentinel failover-timeout polystore 5000
	EOF
	redis-server $port/sentinel.conf --sentinel &
	pids="$pids $!"
done
wait
