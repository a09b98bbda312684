"""The command `kws-models`: the zoo from `list` to `check`. Only `train` needs torch.

Each command's arguments stand beside its code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from kws_models.command_line import Commands, Parser
from kws_models.data.pack_command import add_pack
from kws_models.evaluation.benchmark_command import add_benchmark
from kws_models.evaluation.calibrate_command import add_calibrate
from kws_models.evaluation.check import add_check
from kws_models.evaluation.compare import add_compare
from kws_models.evaluation.evaluate_command import add_evaluate
from kws_models.evaluation.filters_command import add_filters
from kws_models.evaluation.paired import add_paired
from kws_models.export.export_command import add_export, add_quantize
from kws_models.pipeline.build_command import add_build
from kws_models.training.train_command import add_train
from kws_models.zoo.zoo_commands import add_describe, add_list
from kws_serve.host.completion import add_print_completion
from kws_serve.host.output import guarded

# in the order in which a model is made, as --help lists them
COMMANDS: tuple[Callable[[Commands], None], ...] = (
    add_list,
    add_describe,
    add_build,
    add_pack,
    add_train,
    add_export,
    add_quantize,
    add_evaluate,
    add_calibrate,
    add_benchmark,
    add_filters,
    add_compare,
    add_paired,
    add_check,
)


def main(argv: Sequence[str] | None = None) -> None:
    """`kws-models`: exits 0, or 2 with one line where an argument, the data or a model is wrong."""
    status = guarded(lambda: _run(argv), ValueError)
    if status:
        sys.exit(status)


def _run(argv: Sequence[str] | None) -> None:
    parser = Parser(prog="kws-models", description="The model zoo.", allow_abbrev=False)
    add_print_completion(parser)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in COMMANDS:
        add(commands)
    arguments = vars(parser.parse_args(argv))
    run: Callable[..., None] = arguments.pop("run")
    run(**arguments)
