"""What an inference takes of a serial link, and the rate that it needs."""

from __future__ import annotations

from kws_board.image import BoardImage
from kws_board.link import BITS_A_BYTE
from kws_board.packets import OVERHEAD

BAUDS = (115_200, 230_400, 460_800, 921_600)  # bits a second that usual USB bridges can do; a board starts at the first
_LINK_SHARE = 0.8  # of the time that the link may be busy: the rest is for repeats and heartbeats
_FRAMES_BYTES, _RESULT_BYTES = 6, 14  # of a payload before its values: protocol.frames, Result
_WIRE_BYTES = OVERHEAD + 3  # of a packet beside its payload: COBS adds one in each 254 bytes, and the zero


def needed_baud(image: BoardImage, new_frames: int, patch_hop_ms: float) -> float:
    """Bits a second for a patch with `new_frames` new frames every `patch_hop_ms`, repeats and heartbeats included."""
    return link_bits(image, new_frames) / (patch_hop_ms / 1000.0) / _LINK_SHARE


def link_bits(image: BoardImage, new_frames: int) -> int:
    """Bits of one inference on the wire, both ways, where `new_frames` of the patch are new."""
    sent = _FRAMES_BYTES + min(image.model.input.size, new_frames * image.model.frame_size)
    received = _RESULT_BYTES + image.model.output.size
    return BITS_A_BYTE * (sent + received + 2 * _WIRE_BYTES)
