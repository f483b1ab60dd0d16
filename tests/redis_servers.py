"""What the tests of the Redis adapter share: the servers, a prefix for each test, and time that goes by at once."""

from polystore.testing.places.redis import Prefix

SERVERS = ("redis", "valkey", "redis-sentinel", "redis-cluster")
Place = Prefix
