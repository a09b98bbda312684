"""What an earlier run of the service has left of a stream that its client goes on with, and has told already."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resumed:
    """A stream that an earlier run had. Samples at the source's rate, seconds since the epoch began."""

    epoch: str
    first_sample: int  # from which the client can send
    heard_sample: int  # how far the earlier run had processed it, as far as the log knows
    decided_s: dict[tuple[str, str], float]  # (model, label) -> decided_s of its last detection in the log

    @property
    def base_sample(self) -> int:
        """The samples before it were the earlier run's; they count as received and processed."""
        return min(self.first_sample, self.heard_sample)

    def has_told(self, model: str, label: str, phase: str, decided_s: float, refractory_s: float) -> bool:
        """Whether the earlier run has decided this already: its patches are computed again after a restart."""
        # Up to the model's last detection in the log everything of it was told, and what fires within the refractory
        # time of its label's last one could not fire then:
        #   this label     -----x--refractory--|          told: up to the later of | and y
        #   another label  ----------------y----
        if not self.decided_s:
            return False
        # -1: no detection, before all that can be decided
        upto_s = max((s for (m, _), s in self.decided_s.items() if m == model), default=-1.0)
        quiet_s = self.decided_s.get((model, label), -1.0) + (refractory_s if phase != "end" else 0.0)
        return decided_s <= upto_s or decided_s < quiet_s

    def has_heard(self, decided_sample: int, patch_samples: int) -> bool:
        """Whether a patch of the first segment rests on zeros where the earlier run had audio, and that run has decided
        it: what comes again after a restart begins in the midst of a stream.
        """
        return decided_sample <= self.heard_sample and decided_sample < self.base_sample + patch_samples
