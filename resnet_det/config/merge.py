"""A config from defaults, a yaml file and KEY VALUE pairs; what is wrong with one is told in a sentence."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode, get_cfg

from resnet_det.config.keys import add_resnet_det_config
from resnet_det.config.yaml_files import as_declared, merge_yaml_file
from resnet_det.errors import InputError


def merge_cfg(config_file: str, opts: list[str], *, prepare: Callable[[CfgNode], None] | None = None) -> CfgNode:
    """Defaults, our keys, ``config_file`` and KEY VALUE pairs, not checked.

    Args:
        prepare: changes the defaults in place, before anything is merged.

    Raises:
        InputError: a key or value that no config has.
    """
    cfg = get_cfg()
    add_resnet_det_config(cfg)
    if prepare is not None:
        prepare(cfg)
    if config_file:
        merge_file(cfg, config_file)
    merge_opts(cfg, opts)
    return cfg


def flatten_cfg(cfg: CfgNode, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All keys of a config, such as MODEL.DEVICE, and their values."""
    for key, value in cfg.items():
        if isinstance(value, CfgNode):
            yield from flatten_cfg(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def merge_file(cfg: CfgNode, path: str) -> None:
    """Merge a yaml file into ``cfg``.

    Raises:
        InputError: it is missing, is no yaml, or has a key or value that no config has.
    """
    if not Path(path).is_file():
        raise InputError(f"--config-file {path}: no such file")
    try:
        merge_yaml_file(cfg, path)
    except InputError:
        raise
    except (KeyError, ValueError, AssertionError) as error:
        raise InputError(f"{path}: {explain_merge_error(cfg, error)}") from None
    except (yaml.YAMLError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a yaml file with the sections of a config: {error}") from None


def merge_opts(cfg: CfgNode, opts: list[str]) -> None:
    """Merge KEY VALUE pairs into ``cfg``.

    Raises:
        InputError: a key or value that no config has.
    """
    if len(opts) % 2:
        raise InputError(f"command line: KEY VALUE pairs expected, got {' '.join(opts)!r} (flags stand before them)")
    for key, value in zip(opts[::2], opts[1::2], strict=True):
        try:
            cfg.merge_from_list([key, as_declared(find_value(cfg, key), value)])
        except (KeyError, ValueError, AssertionError) as error:
            raise InputError(f"command line: {key} {value}: {explain_merge_error(cfg, error, key)}") from None


def explain_merge_error(cfg: CfgNode, error: Exception, key: str = "") -> str:
    """What yacs says of a wrong key or value, in one sentence, with the key that was probably meant."""
    text = str(error.args[0] if error.args else error)
    if "Non-existent" not in text:
        return text
    key = key or text.split(":")[-1].strip()
    meant = difflib.get_close_matches(key, list(_all_keys(cfg)), n=1)
    return f"there is no key {key}" + (f"; did you mean {meant[0]}?" if meant else "")


def find_value(cfg: CfgNode, key: str) -> Any:
    """What ``cfg`` has under a key such as "SOLVER.BASE_LR"; None where there is no such key."""
    value: Any = cfg
    for part in key.split("."):
        value = value.get(part) if isinstance(value, CfgNode) else None
    return value


def _all_keys(cfg: CfgNode, prefix: str = "") -> list[str]:
    keys = []
    for key, value in cfg.items():
        keys += _all_keys(value, f"{prefix}{key}.") if isinstance(value, CfgNode) else [f"{prefix}{key}"]
    return keys
