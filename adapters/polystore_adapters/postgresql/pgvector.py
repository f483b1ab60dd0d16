"""Columns of the extension pgvector (https://github.com/pgvector/pgvector): how vectors lie in them, which index is
made over them, and the statements that find the nearest.

A column holds 32-bit floats, exactly those that were written. The server also compares in 32 bits, so what it finds is
scored again here, in 64.

A vector is written as its text and read as its bytes: no form of the driver is involved, so that any connection will
do, a caller's own too, whatever driver it has.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from polystore.embedding import unpack
from polystore.errors import SchemaMismatch
from polystore.protocols import VectorSpec
from polystore_adapters.postgresql.dialect import ident
from polystore_adapters.postgresql.driver import asyncpg
from polystore_adapters.postgresql.options import Options
from polystore_adapters.postgresql.pool import Session

DIMENSION_MAX = 16_000
"""Components of a `vector` (pgvector's VECTOR_MAX_DIM)."""
INDEX_MAX, HALF_INDEX_MAX = 2_000, 4_000
"""Components in an HNSW index over `vector` and over `halfvec` (pgvector's HNSW_MAX_DIM)."""
WIDTH_MAX = 1_000
"""The largest hnsw.ef_search."""
_OPERATORS = {"cosine": "<=>", "l2": "<->", "ip": "<#>"}
_CLASSES = {"cosine": "cosine_ops", "l2": "l2_ops", "ip": "ip_ops"}
EXTENSION_SQL = "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'vector'"


class Kept(msgspec.Struct, frozen=True):
    """How a database keeps the vectors of an entity type: told in `ps_meta` beside its schema."""

    form: Literal["bytes", "pgvector"] = "bytes"
    index: Literal["none", "hnsw", "hnsw_half"] = "none"
    m: int = 0
    ef_construction: int = 0

    def json(self) -> str:
        return msgspec.json.encode(self).decode()

    def __str__(self) -> str:
        if self.form == "bytes":
            return "plain bytes"
        made = f" m={self.m} ef_construction={self.ef_construction}" if self.index != "none" else ""
        return f"pgvector's columns, index {self.index}{made}"


BYTES = Kept()
_decoder = msgspec.json.Decoder(Kept)


def load_kept(text: str) -> Kept:
    return _decoder.decode(text)


async def extension(db: Session) -> str | None:
    """The schema that the extension's types are in, in quotes where it needs them; None: the database has it not."""
    found: str | None = await db.value(EXTENSION_SQL)
    return found


async def make_extension(db: Session, place: str) -> None:
    """Raises SchemaMismatch where that is not possible."""
    try:
        await db.run("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
    except (asyncpg.FeatureNotSupportedError, asyncpg.UndefinedFileError):
        why = "the server has no pgvector; install it there"
    except (asyncpg.InsufficientPrivilegeError, asyncpg.InvalidSchemaNameError):
        why = "the user may not make the extension; its administrator runs CREATE EXTENSION vector"
    else:
        return
    raise SchemaMismatch(f"{place}: the option vectors is 'pgvector', and {why}, or set vectors = 'bytes'") from None


def chosen(
    options: Options, stored: Kept | None, specs: Sequence[VectorSpec], there: str | None, place: str, etype: str
) -> Kept:
    """How vectors of these fields are to be kept. `stored`: how they are; `there`: see `extension`. Left to itself, a
    database keeps them as they are. Raises SchemaMismatch."""
    longest = max((spec.dimension for spec in specs), default=0)
    form = options.vectors
    if form == "auto":
        form = stored.form if stored else "pgvector" if there and longest <= DIMENSION_MAX else "bytes"
    if form == "bytes":
        return BYTES
    if there is None:
        raise SchemaMismatch(
            f"{place}: vectors of {etype!r} are to be in pgvector's columns, and the database lacks the extension "
            "vector; CREATE EXTENSION vector, or set the option vectors = 'pgvector' and run `polystore init`"
        )
    if longest > DIMENSION_MAX:
        raise SchemaMismatch(
            f"{place}: a vector of pgvector has at most {DIMENSION_MAX} components; {etype!r} has more"
        )
    if options.vector_index == "none":
        return Kept("pgvector")
    return Kept("pgvector", options.vector_index, options.hnsw_m, options.hnsw_ef_construction)


# -- in a table ---------------------------------------------------------------------------------------------------


class VectorColumn(NamedTuple):
    """A vector field of an entity type in a database. `schema`: see `extension`."""

    etype: str
    field: str
    spec: VectorSpec
    kept: Kept
    schema: str

    @property
    def name(self) -> str:
        return ident("ps_vec", self.field)

    @property
    def type(self) -> str:
        """Without its length, as parameters have it."""
        return "bytea" if self.kept.form == "bytes" else f"{self.schema}.vector"

    @property
    def definition(self) -> str:
        return self.type if self.kept.form == "bytes" else f"{self.type}({self.spec.dimension})"

    def sent(self, packed: bytes | None) -> bytes | str | None:
        """What a parameter of the column is given."""
        if packed is None or self.kept.form == "bytes":
            return packed
        return msgspec.json.encode(unpack(packed).tolist()).decode()

    def read(self, alias: str = "") -> str:
        """The column in a SELECT."""
        return f"{alias}{self.name}" if self.kept.form == "bytes" else f"{self.schema}.vector_send({alias}{self.name})"

    def packed(self, found: bytes) -> bytes:
        """What a SELECT gave. pgvector sends two bytes of how many, two of nothing, and the floats, big endian."""
        if self.kept.form == "bytes":
            return found
        floats = array("I", found[4:])
        floats.byteswap()
        return floats.tobytes()

    @property
    def half(self) -> bool:
        return self.kept.index == "hnsw_half" or self.spec.dimension > INDEX_MAX

    @property
    def indexed(self) -> bool:
        """More components than an index takes are compared one by one."""
        return self.kept.index != "none" and self.spec.dimension <= HALF_INDEX_MAX

    def indexes(self, table: str) -> dict[str, str]:
        """See `RecordTable.indexes`. Their names tell how they are made: one that is made otherwise is another."""
        if not self.indexed:
            return {}
        kept, metric = self.kept, self.spec.metric
        kind = "halfvec" if self.half else "vector"
        over = f"{self.schema}.{kind}_{_CLASSES[metric]}"
        made = f"WITH (m = {kept.m}, ef_construction = {kept.ef_construction})"
        name = ident("ps_near", self.etype, self.field, f"{metric}_{kind}_{kept.m}_{kept.ef_construction}")
        out = {name: f"ON {table} USING hnsw ({self._indexed_value(self.name)} {over}) {made}"}
        if metric == "cosine":  # the index leaves vectors of no length out
            out[ident("ps_zero", self.etype, self.field)] = f"ON {table} (ps_tenant) WHERE {self._zero(self.name)}"
        return out

    def _indexed_value(self, vector: str) -> str:
        return f"({vector}::{self.schema}.halfvec({self.spec.dimension}))" if self.half else vector

    def _zero(self, vector: str) -> str:
        return f"({self.schema}.vector_norm({vector}) = 0)"

    def nearest_sql(self, key: str, source: str, where: str) -> str:
        """$1 tenant, $2 vector, $3 limit, then those of the condition over `t`: id, version and vector of about the
        nearest, by the index."""
        operator = f"OPERATOR({self.schema}.{_OPERATORS[self.spec.metric]})"
        asked = self._indexed_value(f"$2::text::{self.type}")
        select = f"SELECT t.{key}::text AS id, t.ps_version, {self.read('t.')} FROM {source} t"
        among = f"WHERE t.ps_tenant = $1 AND ({where})"
        order = f"ORDER BY {self._indexed_value(f't.{self.name}')} {operator} {asked}"
        return f"{select} {among} AND t.{self.name} IS NOT NULL {order} LIMIT $3"

    def zeros_sql(self, key: str, source: str, where: str) -> str:
        """$1 tenant, $2 limit, then those of the condition over `t`: vectors of no length, which an index for cosine
        does not hold, by id."""
        return (
            f"SELECT t.{key}::text AS id, t.ps_version, {self.read('t.')} FROM {source} t WHERE "
            f"t.ps_tenant = $1 AND {self._zero(f't.{self.name}')} AND ({where}) "
            f'ORDER BY t.{key}::text COLLATE "C" LIMIT $2'
        )

    def candidates_sql(self, key: str, source: str, where: str) -> str:
        """$1 tenant, $2 vector, $3 limit, then those of the condition over `t`: the keys of all that can be among the
        nearest, whatever the server's sums in 32 bits have lost.

        A sum of n products of 32-bit floats is off by at most n * 2^-24 of the sum of their sizes, to first order
        (Higham, Accuracy and Stability of Numerical Algorithms, 3.1), a quotient of three such sums by thrice that;
        here it is twice as much again. What overflowed is a candidate.
        """
        vec, asked = f"t.{self.name}", f"$2::text::{self.type}"
        length = f"{self.schema}.vector_norm"
        distance = f"{vec} OPERATOR({self.schema}.{_OPERATORS[self.spec.metric]}) {asked}"
        part = self.spec.dimension * 2.0**-23
        if self.spec.metric == "cosine":
            without = f"CASE WHEN {self._zero(vec)} THEN 1.0::float8 ELSE 'NaN' END"
            distance, off = f"coalesce(nullif({distance}, 'NaN'), {without})", f"{3 * part}"
        elif self.spec.metric == "l2":
            off = f"{part} * far"
        else:
            off = f"{part} * length * {length}({asked})"
        lengths = f", {length}({vec}) AS length" if self.spec.metric == "ip" else ""
        far = (  # OFFSET: worked out once for each row
            f"SELECT t.{key} AS id, {distance} AS far{lengths} FROM {source} t "
            f"WHERE t.ps_tenant = $1 AND {vec} IS NOT NULL AND ({where}) OFFSET 0"
        )
        return (
            f"WITH d AS MATERIALIZED (SELECT id, {_bound(f'far - {off}', '-Infinity')} AS low, "
            f"{_bound(f'far + {off}', 'Infinity')} AS high FROM ({far}) AS f) SELECT id FROM d WHERE low <= "
            "coalesce((SELECT high FROM d ORDER BY high LIMIT 1 OFFSET $3 - 1), 'Infinity')"
        )


def _bound(value: str, otherwise: str) -> str:
    return f"coalesce(nullif({value}, 'NaN'), '{otherwise}')"


def search_begin(width: int) -> str:
    """Begin the transaction of a search: one state of the tables, and at how many vectors the index looks at least. It
    looks on (hnsw.iterative_scan) until enough of those that it finds satisfy the condition. Plans are made for the
    very vector: others would read its text anew at each row."""
    return (
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; "
        "SET LOCAL jit = off; SET LOCAL plan_cache_mode = force_custom_plan; "
        f"SET LOCAL hnsw.ef_search = {width}; SET LOCAL hnsw.iterative_scan = relaxed_order"
    )
