"""What a request may ask for, and its body within these limits."""

import asyncio
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request


@dataclass(frozen=True)
class Limits:
    """The most that a request may have."""

    bytes: int = 4_000_000
    """Of the body."""
    characters: int = 100_000
    """Of a text."""
    texts: int = 1_000
    """Of a request."""
    explained_texts: int = 100
    """Of a request for explanations."""
    seconds: float = 30.0
    """Until the body has arrived, and again until the answer is computed."""


async def body(request: Request, limits: Limits) -> bytes:
    """Returns the body of a request.

    Raises:
        HTTPException: 413 as soon as it is longer than allowed, 408 where it takes too long, 400 where it ends early.
    """
    too_large = HTTPException(413, f"the body has more than {limits.bytes:,} bytes")
    announced = request.headers.get("content-length", "0")
    if not announced.isdecimal() or int(announced[:20]) > limits.bytes:
        raise too_large
    parts = bytearray()
    try:
        async with asyncio.timeout(limits.seconds):
            async for part in request.stream():
                parts += part
                if len(parts) > limits.bytes:
                    raise too_large
    except TimeoutError:
        raise HTTPException(408, f"the body has not arrived within {limits.seconds:g} seconds") from None
    except ClientDisconnect:
        raise HTTPException(400, "the connection ended within the body") from None
    return bytes(parts)


def check_texts(texts: list[str], most: int, limits: Limits) -> None:
    """Raises HTTPException 413 for too many texts, or one that is too long."""
    if len(texts) > most:
        raise HTTPException(413, f"texts: {len(texts):,} texts; at most {most:,} a request")
    for number, text in enumerate(texts, 1):
        if len(text) > limits.characters:
            place = "text:" if len(texts) == 1 else f"texts: text {number:,}"
            raise HTTPException(413, f"{place} has {len(text):,} characters; at most {limits.characters:,}")
