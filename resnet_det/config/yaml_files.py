"""Read yaml config files, Detectron2's included, without running anything that is in them."""

from __future__ import annotations

import ast
import io
import operator
import re
import tempfile
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode
from detectron2.config.compat import guess_version
from detectron2.layers import ShapeSpec
from detectron2.utils.file_io import PathManager

from resnet_det.errors import InputError

_EVAL = "tag:yaml.org,2002:python/object/apply:eval"  # in Detectron2's Base-RetinaNet.yaml
_PYTHON = "tag:yaml.org,2002:python/"
_SIZES = ("channels", "height", "width", "stride")
_MAX_NUMBERS = 10_000
_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


class RefusedYamlError(InputError):
    """A yaml file asks to run something."""


class _DataLoader(yaml.SafeLoader):
    """yaml's SafeLoader, which takes Python's tuples too, ShapeSpecs, and the arithmetic in eval tags."""

    def construct_arithmetic(self, node: yaml.Node) -> Any:
        (text,) = self.construct_sequence(node) if isinstance(node, yaml.SequenceNode) else (None,)
        return evaluate_arithmetic(text)

    def construct_shape(self, node: yaml.Node) -> ShapeSpec:
        """Detectron2's ShapeSpec, which saved LazyConfigs hold: by position from v0.5, by name from later ones."""
        by_name = isinstance(node, yaml.MappingNode)
        sizes = self.construct_mapping(node) if by_name else dict(zip(_SIZES, self.construct_sequence(node)))  # noqa: B905
        if (
            len(node.value) > len(_SIZES)
            or not sizes.keys() <= set(_SIZES)
            or not all(type(size) in (int, type(None)) for size in sizes.values())
        ):
            raise RefusedYamlError(
                f"line {node.start_mark.line + 1}: a ShapeSpec has {', '.join(_SIZES)}, whole numbers"
            )
        return ShapeSpec(**sizes)

    def refuse(self, suffix: str, node: yaml.Node) -> Any:
        line = node.start_mark.line + 1
        raise RefusedYamlError(f"line {line}: refused, as it asks for !!python/{suffix}. Nothing of it was run")


_DataLoader.add_constructor(_EVAL, _DataLoader.construct_arithmetic)
_DataLoader.add_constructor(f"{_PYTHON}tuple", lambda loader, node: tuple(loader.construct_sequence(node, deep=True)))
for _kind in ("object", "object/new"):
    _DataLoader.add_constructor(f"{_PYTHON}{_kind}:detectron2.layers.shape_spec.ShapeSpec", _DataLoader.construct_shape)
_DataLoader.add_multi_constructor(_PYTHON, _DataLoader.refuse)


class _SafeCfgNode(CfgNode):
    """Opens files, those named by ``_BASE_`` too, as data."""

    @classmethod
    def _open_cfg(cls, filename: str) -> io.StringIO:
        return io.StringIO(yaml.safe_dump(_as_plain(read_yaml(PathManager.get_local_path(filename)))))


def merge_yaml_file(cfg: CfgNode, path: str) -> None:
    """``cfg.merge_from_file(path)``, ``_BASE_`` and old versions of configs included, but nothing is run.

    Raises:
        InputError: a file asks for anything that is not data.
        yaml.YAMLError, KeyError, ValueError, AssertionError: as ``merge_from_file``.
    """
    content = as_declared(cfg, _SafeCfgNode.load_yaml_with_base(path))
    if "VERSION" not in content:
        content["VERSION"] = guess_version(CfgNode(content), path)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        yaml.safe_dump(content, file)
        file.flush()
        cfg.merge_from_file(file.name, allow_unsafe=False)


def as_declared(default: Any, value: Any) -> Any:
    """``value`` with whole numbers as fractions where ``default``, of the config, is one: 0 stands for 0.0.

    Args:
        default, value: of one key, or of a section; of the command line, ``value`` may be text.
    """
    if isinstance(default, dict) and isinstance(value, dict):
        return {key: as_declared(default.get(key), inner) for key, inner in value.items()}
    if type(default) is float and (type(value) is int or (isinstance(value, str) and re.fullmatch(r"[+-]?\d+", value))):
        return float(value)
    return value


def read_yaml(path: str | Path) -> Any:
    """What a yaml file holds, as data.

    Raises:
        RefusedYamlError: it asks for anything else, which is named and not run.
        yaml.YAMLError: it is no yaml.
    """
    with Path(path).open(encoding="utf-8") as file:
        try:
            return yaml.load(file, _DataLoader)
        except RefusedYamlError as error:
            raise RefusedYamlError(f"{path}, {error}") from None


def evaluate_arithmetic(text: object) -> Any:
    """The value of an expression of numbers, lists and one loop, such as "[[x, x * 2**(1.0/3)] for x in [32, 64]]".

    Raises:
        RefusedYamlError: there is anything else in it.
    """
    if not isinstance(text, str) or len(text) > 1000:
        raise RefusedYamlError("an eval tag takes one short expression")
    try:
        value = _evaluate(ast.parse(text, mode="eval").body, {})
    except (SyntaxError, ArithmeticError, TypeError, ValueError) as error:
        if isinstance(error, RefusedYamlError):
            raise
        raise RefusedYamlError(f"eval {text!r}: {error}") from None
    return value


def _evaluate(node: ast.expr, names: dict[str, float]) -> Any:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value
    if isinstance(node, ast.Name) and node.id in names:
        return names[node.id]
    if isinstance(node, ast.List | ast.Tuple):
        return [_evaluate(item, names) for item in node.elts]
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_number(_evaluate(node.operand, names)))
    if isinstance(node, ast.BinOp):
        left, right = _number(_evaluate(node.left, names)), _number(_evaluate(node.right, names))
        if isinstance(node.op, ast.Pow):
            return float(left) ** right if abs(left) > 1 and abs(right) > 64 else left**right
        if type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](left, right)
    if isinstance(node, ast.ListComp) and len(node.generators) == 1:
        (loop,) = node.generators
        if isinstance(loop.target, ast.Name) and not loop.ifs and not loop.is_async:
            values = _evaluate(loop.iter, names)
            if isinstance(values, list) and len(values) <= _MAX_NUMBERS:
                return [_evaluate(node.elt, {**names, loop.target.id: value}) for value in values]
    raise RefusedYamlError(
        f"refused, as it asks to run {ast.unparse(node)!r}: an eval tag takes numbers, + - * / // **, lists and one for"
    )


def _number(value: Any) -> int | float:
    if type(value) not in (int, float) or abs(value) > 1e15:
        raise RefusedYamlError("arithmetic takes numbers up to 1e15")
    return value


def _as_plain(value: Any) -> Any:
    """Lists for tuples, which yaml writes without a tag."""
    if isinstance(value, dict):
        return {key: _as_plain(inner) for key, inner in value.items()}
    return [_as_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
