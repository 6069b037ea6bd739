"""Why a request is not served."""

from __future__ import annotations

RETRY_SECONDS = 1
"""What clients that are sent away are told to wait."""


class Refusal(Exception):
    """A request that is answered with an error.

    Args:
        status: Of HTTP.
        text: What was seen, what is allowed, the next step; it goes to the client, so it names nothing of this machine.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the answer."""
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        return {"Retry-After": str(RETRY_SECONDS)} if self.status == 503 else {}


def busy(what: str) -> Refusal:
    """The refusal of a request that may come again."""
    return Refusal(503, f"{what}; try again in {RETRY_SECONDS} s")


def short_of_memory() -> Refusal:
    """The refusal of an image that this machine has too little memory for."""
    return Refusal(413, "the image needs more memory than there is; make it smaller")
