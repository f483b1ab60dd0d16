#!/bin/sh
# In a container: six nodes from FIRST_PORT on, made a cluster of three masters and three replicas the first time.
set -eu
cd /data
secret=polystore-test announced=127.0.0.1
pids=
trap 'kill $pids; wait' TERM INT

nodes=
for index in 0 1 2 3 4 5; do
	port=$((FIRST_PORT + index))
	nodes="$nodes $announced:$port"
	mkdir -p $port
	redis-server --port $port --dir /data/$port --requirepass $secret --masterauth $secret --appendonly yes --save '' \
		--cluster-enabled yes --cluster-announce-ip $announced --cluster-node-timeout 2000 --repl-diskless-sync-delay 0 &
	pids="$pids $!"
done
for node in $nodes; do
	until redis-cli -p "${node#*:}" ping | grep -q PONG; do sleep 0.1; done
done
if redis-cli -p "$FIRST_PORT" cluster info | grep -q '^cluster_known_nodes:1[^0-9]'; then
	# shellcheck disable=SC2086 -- six words
	redis-cli --cluster create $nodes --cluster-replicas 1 --cluster-yes
fi
wait
