"""Conditions on the columns of an index, in a small part of SQL that all engines understand.

``=``, ``!=``, ``<``, ``<=``, ``>``, ``>=``, ``[NOT] IN (...)``, ``[NOT] LIKE 'Brit%'``,
``BETWEEN a AND b``, ``IS [NOT] NULL``, ``array_has(situational_tags, 'loud')``, ``AND``, ``OR``,
``NOT`` and parentheses. Columns are those of the manifest, and ``labels.<key>``. As in SQL, a
comparison with an empty cell is neither true nor false, so that ``gender != 'male'`` leaves clips
without gender out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlglot
from sqlglot import exp

from speechbrain_clsp.utils.checks import quote

COMPARISONS = {
    exp.EQ: ("=", pc.equal),
    exp.NEQ: ("!=", pc.not_equal),
    exp.LT: ("<", pc.less),
    exp.LTE: ("<=", pc.less_equal),
    exp.GT: (">", pc.greater),
    exp.GTE: (">=", pc.greater_equal),
}
FUNCTIONS = dict(COMPARISONS.values())
MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "!=": "!="}
KNOWN_PARTS = {"this", "expression", "expressions", "low", "high", "negate"}  # of parsed conditions
LARGEST = 1 << 63  # from which on numbers fit into no column of whole ones
WORD = re.compile(r"[A-Za-z_]\w*", re.ASCII)
EXAMPLE = "gender = 'female' AND duration > 2"


@dataclass(frozen=True)
class Condition:
    """A condition, as :func:`parse_condition` reads it.

    Arguments
    ---------
    operator : str
        ``and``, ``or``, ``not``; a comparison; ``in``, ``like``, ``null`` or ``has``.
    column : str
        What is compared; "" for the first three.
    value : Any
        With what: a text, a number, a bool, or a tuple for ``in``.
    parts : tuple of Condition
        Of the first three.
    """

    operator: str
    column: str = ""
    value: Any = None
    parts: tuple[Condition, ...] = ()

    def mask(self, table: pa.Table) -> np.ndarray:
        """Return for which rows it holds, [rows] bool.

        Example
        -------
        >>> table = pa.table({"gender": ["male", None, "female"], "duration": [1.0, 2.0, 3.0]})
        >>> parse_condition("NOT gender = 'male'", table.schema).mask(table).tolist()
        [False, False, True]
        """
        found = pc.fill_null(self._evaluate(table), False)
        return np.asarray(found)

    def _evaluate(self, table: pa.Table) -> Any:
        if self.operator == "not":
            return pc.invert(self.parts[0]._evaluate(table))
        if self.parts:
            join = pc.and_kleene if self.operator == "and" else pc.or_kleene
            return reduce(join, (part._evaluate(table) for part in self.parts))
        name, _, key = self.column.partition(".")
        values = table.column(name)
        values = pc.struct_field(values, key) if key else values
        if self.operator == "null":
            return pc.is_null(values)
        if self.operator == "has":
            return _has(values, self.value)
        if self.operator == "like":
            return pc.match_like(values, self.value)
        if self.operator == "in":
            return reduce(pc.or_kleene, (pc.equal(values, value) for value in self.value))
        return FUNCTIONS[self.operator](values, self.value)

    def to_sql(self) -> str:
        """Return it as SQL.

        Example
        -------
        >>> columns = {"a": pa.string(), "b": pa.int64()}
        >>> parse_condition("a='it''s' and not(b in (1, 2))", columns).to_sql()
        "(a = 'it''s' AND (NOT b IN (1, 2)))"
        """
        if self.operator == "not":
            return f"(NOT {self.parts[0].to_sql()})"
        if self.parts:
            return f"({f' {self.operator.upper()} '.join(part.to_sql() for part in self.parts)})"
        column = quoted(self.column, "`")
        if self.operator == "null":
            return f"{column} IS NULL"
        if self.operator == "has":
            return f"array_has({column}, {_literal(self.value)})"
        if self.operator == "in":
            return f"{column} IN ({', '.join(map(_literal, self.value))})"
        return f"{column} {self.operator.upper()} {_literal(self.value)}"


def quoted(column: str, mark: str) -> str:
    """Return a column's name with quotation marks around a key that is not one word.

    Example
    -------
    >>> quoted("labels.mood", "`"), quoted("labels.age group", "`")
    ('labels.mood', 'labels.`age group`')
    """
    name, dot, key = column.partition(".")
    if not WORD.fullmatch(key):
        key = key and f"{mark}{key.replace(mark, 2 * mark)}{mark}"
    return name + dot + key


def _has(lists: pa.ChunkedArray, value: str) -> pa.Array:
    """Return which lists hold a value."""
    parts = []
    for chunk in lists.chunks:
        mask = np.zeros(len(chunk), bool)
        mask[np.asarray(pc.list_parent_indices(chunk))[np.asarray(_equal(chunk, value))]] = True
        parts.append(mask)
    return pa.array(np.concatenate(parts or [np.zeros(0, bool)]))


def _equal(chunk: pa.Array, value: str) -> pa.Array:
    return pc.fill_null(pc.equal(pc.list_flatten(chunk), value), False)


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, int | float) else "'" + value.replace("'", "''") + "'"


def columns_of(schema: pa.Schema | Mapping[str, pa.DataType]) -> dict[str, pa.DataType]:
    """Return the columns that conditions may name, ``labels.<key>`` included, with their types."""
    types = {each.name: each.type for each in schema} if isinstance(schema, pa.Schema) else schema
    found: dict[str, pa.DataType] = {}
    for name, kind in types.items():
        if pa.types.is_struct(kind):
            found |= {
                f"{name}.{kind.field(n).name}": kind.field(n).type for n in range(kind.num_fields)
            }
        elif not pa.types.is_fixed_size_list(kind):
            found[name] = kind
    return found


def parse_condition(text: str, schema: pa.Schema | Mapping[str, pa.DataType]) -> Condition:
    """Read a condition.

    Arguments
    ---------
    text : str
        In SQL, as after WHERE.
    schema : pyarrow.Schema or dict
        Columns and their types.

    Raises
    ------
    ValueError
        If it cannot be read, names an unknown column, or compares what cannot be compared.

    Example
    -------
    >>> parse_condition("gendre = 'male'", {"gender": pa.string()})
    Traceback (most recent call last):
    ...
    ValueError: --where: there is no column 'gendre'; did you mean 'gender'?
    """
    try:
        # In parentheses, nothing but a condition can stand.
        (statement,) = sqlglot.parse(f"SELECT 1 WHERE ({text}\n)")
        where = statement.args["where"].this.this  # type: ignore[union-attr]  # it has just been written
        if where is None:
            raise ValueError("it is empty")
    except RecursionError as error:
        raise ValueError(f"--where {quote(text)} is nested too deeply") from error
    except (sqlglot.errors.SqlglotError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(
            f"--where {quote(text)} cannot be read: write it as SQL, such as {EXAMPLE}, with texts"
            " in single quotation marks"
        ) from error
    try:
        return _Reader(text, columns_of(schema)).read(where)
    except RecursionError as error:
        raise ValueError(f"--where {quote(text)} is nested too deeply") from error


class _Reader:
    """Turns a parsed condition into ours, and checks it."""

    def __init__(self, text: str, columns: Mapping[str, pa.DataType]) -> None:
        self.text, self.columns = text, columns

    def read(self, node: Any) -> Condition:
        """Return what a node of the expression's tree asks for."""
        if isinstance(node, exp.Paren):
            return self.read(node.this)
        if isinstance(node, exp.Not):
            return Condition("not", parts=(self.read(node.this),))
        if isinstance(node, exp.And | exp.Or):
            return Condition(node.key, parts=(self.read(node.this), self.read(node.expression)))
        return self._of_column(node)

    def _of_column(self, node: Any) -> Condition:
        """Read a condition on one column."""
        if {name for name, value in node.args.items() if value} - KNOWN_PARTS:
            raise self._wrong(f"{node.sql()} is not one of the conditions that are known")
        if node.args.get("negate"):  # NOT LIKE, where others are a Not
            positive = node.copy()
            positive.set("negate", None)
            return Condition("not", parts=(self._of_column(positive),))
        if type(node) in COMPARISONS:
            return self._comparison(COMPARISONS[type(node)][0], node.this, node.expression)
        if isinstance(node, exp.Between):
            low = self._comparison(">=", node.this, node.args["low"])
            return Condition(
                "and", parts=(low, self._comparison("<=", node.this, node.args["high"]))
            )
        if isinstance(node, exp.In) and node.expressions:
            column = self._column(node.this)
            return Condition("in", column, tuple(self._value(column, v) for v in node.expressions))
        if isinstance(node, exp.Is) and isinstance(node.expression, exp.Null):
            return Condition("null", self._column(node.this))
        if isinstance(node, exp.Like):
            like = self._comparison("=", node.this, node.expression)
            if isinstance(like.value, str):
                return replace(like, operator="like")
        if isinstance(node, exp.ArrayContains):
            return self._has(node)
        raise self._wrong(f"{node.sql()} is not one of the conditions that are known")

    def _comparison(self, sign: str, left: Any, right: Any) -> Condition:
        if not isinstance(left, exp.Column) and isinstance(right, exp.Column):
            left, right, sign = right, left, MIRRORED[sign]
        column = self._column(left)
        return Condition(sign, column, self._value(column, right))

    def _has(self, node: exp.ArrayContains) -> Condition:
        column = self._column(node.this, lists=True)
        value = node.expression
        if not (isinstance(value, exp.Literal) and value.is_string):
            raise self._wrong(
                f"{column} holds texts, {value.sql()} is not one: write '{value.sql()}'"
            )
        return Condition("has", column, value.this)

    def _column(self, node: Any, lists: bool = False) -> str:
        if not isinstance(node, exp.Column):
            raise self._wrong(f"{node.sql()} is not a column")
        name = ".".join(part.name for part in node.parts)
        if name not in self.columns:
            close = get_close_matches(name, self.columns, 1)
            hint = (
                f"did you mean {close[0]!r}?" if close else f"there are {', '.join(self.columns)}"
            )
            raise self._wrong(f"there is no column {name!r}; {hint}")
        if pa.types.is_list(self.columns[name]) != lists:
            raise self._wrong(
                f"{name} is no list"
                if lists
                else f"{name} is a list: write array_has({name}, '...')"
            )
        return name

    def _value(self, column: str, node: Any) -> Any:
        is_text = pa.types.is_string(self.columns[column])
        sign = 1
        if isinstance(node, exp.Neg):
            sign, node = -1, node.this
        if isinstance(node, exp.Literal) and node.is_string == is_text:
            return node.this if is_text else self._number(sign, node.this)
        if isinstance(node, exp.Null):
            raise self._wrong(f"nothing equals NULL: write {column} IS NULL")
        kind = "text in single quotation marks" if is_text else "number"
        raise self._wrong(f"{column} must be compared with a {kind}, not with {node.sql()}")

    def _number(self, sign: int, text: str) -> int | float:
        number = sign * (int(text) if text.isdigit() else float(text))
        if not abs(number) < LARGEST:
            raise self._wrong(f"{text} is too large a number")
        return number

    def _wrong(self, reason: str) -> ValueError:
        return ValueError(f"--where: {reason}")
