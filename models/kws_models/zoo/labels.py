"""Labels that no recording of a word or event stands for alone, as the data sets and `model.json` spell them."""

from __future__ import annotations

SILENCE = "_silence_"  # of models of words: nothing, or noise alone
UNKNOWN = "_unknown_"  # of models of words: speech that is no command
BACKGROUND = "backgroundnoise"  # of models of sound events: whatever is none of them
