"""The Python client: connect, authenticate, iterate detections, send audio. The JavaScript twin speaks the same.

async with KwsClient("http://127.0.0.1:8000") as client:
    async for detection in client.detections():
        print(detection["stream"], detection["label"], detection["score"])
"""

from kws_serve.client.audio_sender import RING_S, AudioSender
from kws_serve.client.retries import Backoff, ServiceError
from kws_serve.client.service import KwsClient

__all__ = ["RING_S", "AudioSender", "Backoff", "KwsClient", "ServiceError"]
