"""Accuracy that the reference documents print for their own training: `describe` shows it beside the counts.

The 1D-CNN author: 16 words, 40,851 / 4,796 / 5,297 clips for training, validation and test, cross-entropy, Adam. His
columns are dropout (whether the number is what is kept or dropped is unknown) and batch normalisation. Where a document
contradicts itself, both figures stand here.
"""

from __future__ import annotations

_COLUMNS = (
    "no dropout",
    "dropout 0.5",
    "batch norm",
    "dropout 0.5, batch norm",
    "dropout 0.25",
    "dropout 0.25, batch norm",
    "dropout 0.75",
    "dropout 0.75, batch norm",
)
_GRID = """
cnn1d-base-4conv-1fc - 0.8945 0.8841 0.8970 - - - -
cnn1d-base-4conv-2fc - 0.9038 0.8814 0.9061 - - - -
cnn1d-base-5conv-1fc - 0.9047 0.9026 0.9169 - - - -
cnn1d-base-5conv-2fc - 0.9090 0.9072 0.9240 - - - -
cnn1d-only-conv-1 0.4621 0.4889 0.4289 0.4490 - - - -
cnn1d-only-conv-2 0.5321 0.6449 0.5836 0.6885 - - - -
cnn1d-only-conv-3 0.7747 0.8239 0.7890 0.8538 - - - -
cnn1d-only-conv-4 0.8866 0.9215 0.8804 0.9238 - - - -
cnn1d-only-conv-5 0.8870 0.9277 0.9288 0.9375 - - - -
cnn1d-k5-1 - 0.2818 0.2735 0.3171 - - - -
cnn1d-k5-2 - 0.4671 0.4665 0.4974 - - - -
cnn1d-k5-3 - 0.6295 0.6004 0.6725 - - - -
cnn1d-k5-4 - 0.7556 0.6644 0.7807 - - - -
cnn1d-k5-5 - 0.8492 0.7674 0.8737 - - - -
cnn1d-k5-6 - 0.9180 0.8860 0.9192 - - - -
cnn1d-k5-7 - 0.9196 0.9167 0.9445 - - - -
cnn1d-k5-8 - 0.9132 0.9238 0.9310 - - - -
cnn1d-ch32-1 - 0.4874 0.4548 0.4453 - - - -
cnn1d-ch32-2 - 0.5948 0.5913 0.6399 - - - -
cnn1d-ch32-3 - 0.7886 0.7053 0.7782 - - - -
cnn1d-ch32-4 - 0.8953 0.8810 0.8987 - - - -
cnn1d-ch32-5 - 0.9375 0.9279 0.9387 - - - -
cnn1d-ch32-6 - 0.9364 0.9479 0.9479 - - - -
cnn1d-ch64-1 - 0.4962 0.3601 0.4469 - - - -
cnn1d-ch64-2 - 0.6486 0.5398 0.6361 - - - -
cnn1d-ch64-3 - 0.7958 0.6139 0.7965 - - - -
cnn1d-ch64-4 - 0.8945 0.8619 0.9030 - - - -
cnn1d-ch64-5 - 0.9408 0.9408 0.9466 - - - -
cnn1d-ch64-6 - 0.9412 0.9547 0.9543 - - - -
cnn1d-ch128-1 - 0.5148 0.4417 0.4673 - - - -
cnn1d-ch128-2 - 0.6536 0.6108 0.6928 - - - -
cnn1d-ch128-3 - 0.8133 0.7502 0.7691 - - - -
cnn1d-ch128-4 - 0.9024 0.8611 0.9171 - - - -
cnn1d-ch128-5 - 0.9398 0.9412 0.9462 - - - -
cnn1d-ch128-6 - 0.9391 0.9526 0.9601 - - - -
cnn1d-custom32-3 - 0.5169 0.5119 0.5676 0.5034 0.5277 0.6260 0.6816
cnn1d-custom32-4 - 0.6656 0.6253 0.7376 0.6395 0.6712 0.7983 0.8019
cnn1d-custom32-5 - 0.7605 0.7065 0.8039 0.7248 0.7458 0.8432 0.8461
cnn1d-custom32-6 - 0.8893 0.8278 0.8826 0.8650 0.8536 0.9101 0.8951
cnn1d-custom32-7 - 0.9373 0.9011 0.9293 0.9267 0.9215 0.9425 0.9252
cnn1d-custom32-8 - 0.9477 0.9285 0.9391 0.9452 0.9369 0.9533 0.9458
cnn1d-custom32-9 - 0.9379 0.9268 0.9424 0.9362 0.9385 0.9506 0.9491
cnn1d-custom64-1 - - - - 0.3180 0.2069 0.3194 0.3049
cnn1d-custom64-2 - - - - 0.4372 0.2760 0.4619 0.4617
cnn1d-custom64-3 - 0.5844 0.4893 0.5726 0.5448 0.5639 0.6430 0.6426
cnn1d-custom64-4 - 0.7128 0.6291 0.7333 0.6125 0.6625 0.7796 0.7934
cnn1d-custom64-5 - 0.7732 0.7022 0.8073 0.7240 0.7653 0.8351 0.8320
cnn1d-custom64-6 - 0.8901 0.8233 0.8818 0.8534 0.8633 0.9153 0.8812
cnn1d-custom64-7 - 0.9400 0.9061 0.9302 0.9219 0.9269 0.9472 0.9321
cnn1d-custom64-8 - 0.9560 0.9508 0.9458 0.9458 0.9512 0.9589 0.9497
cnn1d-custom64-9 - 0.9537 0.9464 0.9470 0.9292 0.9578 0.9553 0.9585
cnn1d-custom128-3 - 0.5718 0.4521 0.5720 0.5522 0.5124 0.6476 0.6457
cnn1d-custom128-4 - 0.6766 0.6183 0.7371 0.6768 0.6866 0.7803 0.7867
cnn1d-custom128-5 - 0.7701 0.7067 0.7985 0.7601 0.7445 0.8386 0.8449
cnn1d-custom128-6 - 0.8802 0.8588 0.8762 0.8906 0.8789 0.9130 0.8970
cnn1d-custom128-7 - 0.9387 0.9236 0.9443 0.9369 0.9171 0.9576 0.9302
cnn1d-custom128-8 - 0.9543 0.9562 0.9562 0.9570 0.9547 0.9618 0.9580
cnn1d-custom128-9 - 0.9396 0.9632 0.9674 0.9535 0.9701 0.9645 0.9595
cnn1d-vgg-2 - 0.3877 0.3674 0.3171 - - - -
cnn1d-vgg-4 - 0.4752 0.3668 0.3389 - - - -
cnn1d-vgg-6 - 0.5626 0.4933 0.4984 - - - -
cnn1d-vgg-8 - 0.6719 0.6521 0.6544 - - - -
cnn1d-vgg-10 - 0.7666 0.7047 0.7344 - - - -
cnn1d-vgg-12 - 0.9018 0.8349 0.7502 - - - -
cnn1d-vgg-14 - 0.9427 0.9286 0.8044 - - - -
cnn1d-vgg-16 - 0.9630 0.9423 0.9136 - - - -
cnn1d-vgg-18 - 0.9350 0.9493 0.9418 - - - -
"""

_OTHERS: dict[str, dict[str, float]] = {
    "resnetse": {"published": 0.96124},
    "dscnn-s": {"test, printed": 0.8922, "test, 4362 of 4890": 4362 / 4890, "validation, printed": 0.8924},
    "dscnn-m": {"test, printed": 0.9269, "test, 4532 of 4890": 4532 / 4890, "validation, printed": 0.9270},
    "dscnn-l": {"test, printed": 0.9277, "test, 4536 of 4890": 4536 / 4890, "validation, printed": 0.9275},
    "m1": {"SGD": 0.865},
    "m2": {"SGD": 0.892, "RMSProp": 0.938, "a later public table": 0.942, "the same, another row": 0.948},
}
_SLIPS: dict[str, dict[str, float]] = {
    "cnn1d-base-4conv-1fc": {"from the printed matrix of the base model": 0.9283, "printed with it": 0.9090},
    "cnn1d-vgg-16": {"in the other report": 0.9620},
    "cnn1d-custom64-8": {"printed as dropout 0.5 elsewhere (363,600 parameters)": 0.9589},
}


def _grid() -> dict[str, dict[str, float]]:
    found = {}
    for line in _GRID.split("\n"):
        if line:
            name, *values = line.split()
            found[name] = {c: float(v) for c, v in zip(_COLUMNS, values, strict=True) if v != "-"}
    return found


REFERENCE_ACCURACY: dict[str, dict[str, float]] = {
    name: row | _SLIPS.get(name, {}) for name, row in (_grid() | _OTHERS).items()
}
