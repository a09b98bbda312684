"""`kws-models list` and `kws-models describe`: what there is, before anything is trained."""

from __future__ import annotations

import argparse
import json

from kws_models.command_line import Commands, add_command
from kws_models.zoo.architectures import ARCHITECTURES, find_architecture
from kws_models.zoo.describe import as_text, describe
from kws_serve.manifest.folder import list_models, shipped_models_dir


def add_list(commands: Commands) -> None:
    """`list`."""
    add_command(commands, "list", _list, "architectures, and which have shipped weights", "")


def add_describe(commands: Commands) -> None:
    """`describe`."""
    parser = add_command(
        commands, "describe", _describe, "layers, shapes and counts of an architecture", "cnn1d-custom32-8 --json"
    )
    parser.add_argument("name", help="an architecture, as `list` shows them")
    add_batch_norm(parser)
    parser.add_argument("--json", action="store_true", dest="as_json", help="for programs")


def add_batch_norm(parser: argparse.ArgumentParser) -> None:
    """`--batch-norm`, `--no-batch-norm`: of the 1D-CNN family the variant that its table has not."""
    parser.add_argument(
        "--batch-norm", action=argparse.BooleanOptionalAction, help="1D-CNN family, as NAME-bn or NAME-nobn"
    )


def _list() -> None:
    shipped = list_models([shipped_models_dir()])
    for name, architecture in ARCHITECTURES.items():
        state = "weights" if name in shipped else "no weights"
        print(f"{name:20} {architecture.task:8} {state:11} {' '.join(architecture.labels)}")


def _describe(name: str, batch_norm: bool | None, as_json: bool) -> None:
    counts = describe(find_architecture(name, batch_norm))
    print(json.dumps(counts, indent=1) if as_json else as_text(counts))
