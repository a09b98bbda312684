"""Host side of the GAP8 bridge: int8 TFLite -> board image, packets, boards, emulator, profile, cost model."""
