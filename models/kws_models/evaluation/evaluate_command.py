"""`kws-models evaluate`: accuracy on labelled clips, on long recordings, or on people talking."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path

from kws_models.command_line import Commands, add_command, one_of
from kws_models.data.data_arguments import add_fold
from kws_models.evaluation import clips, streams, talk_report
from kws_models.evaluation.chosen_model import FLOAT_BACKEND, add_model_dir, choose_model
from kws_models.evaluation.clips import Infer
from kws_models.evaluation.pictures import draw_det
from kws_serve.backends import BACKENDS, open_backend
from kws_serve.manifest.spec import ModelSpec
from kws_serve.messages import KwsError

SPLITS = ("all", "validation", "testing")


def add_evaluate(commands: Commands) -> None:
    """`evaluate`."""
    parser = add_command(
        commands,
        "evaluate",
        _evaluate,
        "accuracy of a model on labelled recordings",
        "dscnn-s --data DIR --fold 0",
        _MORE,
    )
    add = parser.add_argument
    add("name", help="a shipped model, or a model folder")
    add_model_dir(parser)
    add("--data", type=Path, required=True, metavar="DIR", help="the recordings")
    add("--backend", type=one_of(BACKENDS), default=FLOAT_BACKEND, metavar="NAME", help=_backend_help())
    splits = ", ".join(SPLITS)
    add(
        "--split",
        type=one_of(SPLITS),
        default="all",
        metavar="NAME",
        help=f"of this split: {splits} (default all)",
    )
    add_fold(parser, "only these speakers or recordings")
    add("--include-training", action="store_true", help="also clips the model was trained on")
    add("--stream", action="store_true", help="long recordings with label files (docs/evaluation.md)")
    add("--talk", action="store_true", help="false accepts on real people talking, with --fold")
    add("--speech", type=Path, metavar="DIR", help="with --talk: other data whose speech_running to hear")
    add("--plot", type=Path, metavar="FILE", help="with --stream: the DET curve as a picture")
    add("--json", action="store_true", dest="as_json", help="for programs")


_MORE = """Three ways to measure:
  clips (default)  DIR/LABEL/*.wav (flac, ogg, opus, mp3): one patch a clip, the clip in its middle; the label with the
                   highest score counts, whatever the thresholds. Labels that the model does not know count as its
                   _unknown_, where it has one.
  --stream         long recordings in DIR, each with a label file of its name (.txt of Audacity, .csv, .tsv: onset,
                   offset, label): the detections that kws-serve would tell, with their rates of misses and of false
                   accepts an hour.
  --talk           false accepts an hour on people who talk, by DIR/speech_running, beside the share of DIR's words that
                   is found; wants --fold.

  --fold           a fifth of the speakers or recordings, 0 to 4, chosen by a hash of their names, as `kws-models train
                   --fold` leaves it out: what a model did not learn from is all in its fold.
  --split          validation or testing as Speech Commands has them: by its lists in DIR, else by its hash of the name.
  --include-training
                   clips that the model's training_recordings.txt names are left out else, and counted on stderr.
docs/evaluation.md says what the figures mean."""


def _backend_help() -> str:
    return f"what runs the model: {', '.join(BACKENDS)} (default {FLOAT_BACKEND})"


def _evaluate(
    name: str,
    model_dir: Path | None,
    data: Path,
    backend: str,
    split: str,
    fold: int | None,
    include_training: bool,
    stream: bool,
    talk: bool,
    speech: Path | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    spec = choose_model(name, model_dir)
    with closing(open_backend(backend, spec)) as opened:
        if stream:
            text = _of_streams(spec, opened.infer, data, plot, as_json)
        elif talk:
            text = _of_talk(spec, opened.infer, data, fold, speech, as_json)
        else:
            options = clips.Options(split, include_training, fold)
            text = _of_clips(spec, opened.infer, data, options, as_json)
    print(text)


def _of_clips(spec: ModelSpec, infer: Infer, data: Path, options: clips.Options, as_json: bool) -> str:
    result = clips.evaluate(spec, infer, data, options)
    left_out = result["training_clips_left_out"]
    if left_out:
        trained = f"clips that {spec.name} was trained on (--include-training counts them)"
        print(f"left out: {left_out} {trained}", file=sys.stderr)
    return json.dumps(result, indent=1) if as_json else clips.as_text(result)


def _of_streams(spec: ModelSpec, infer: Infer, data: Path, plot: Path | None, as_json: bool) -> str:
    report = streams.evaluate_stream(spec, infer, data)
    if plot:
        draw_det(report, plot)
    return json.dumps(report, indent=1) if as_json else streams.as_text(report)


def _of_talk(spec: ModelSpec, infer: Infer, data: Path, fold: int | None, speech: Path | None, as_json: bool) -> str:
    if fold is None:
        raise KwsError("--talk: found no --fold, wanted the fold whose words and speakers the model did not learn from")
    report = talk_report.evaluate_talk(spec, infer, data, fold, speech)
    return json.dumps(report, indent=1) if as_json else talk_report.as_text(report)
