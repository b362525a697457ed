"""From a probability to a decision."""

from typing import Literal

from serve.settings import Settings

Decision = Literal["approve", "challenge", "review", "decline"]


def decide(probability: float, settings: Settings) -> Decision:
    """The decision that the thresholds give a probability."""
    if probability >= settings.decline:
        return "decline"
    if probability >= settings.review:
        return "review"
    return "challenge" if probability >= settings.challenge else "approve"
